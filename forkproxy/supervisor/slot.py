"""A slot: one place for a worker, with a CPU and listening sockets of its own that outlive the workers.

A slot's worker is either ``current`` (serves, or is about to) or its ``successor`` of another generation that is not ready
yet, or it is one of those ``draining``. A WorkerHandle is what the supervisor knows of one process.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from time import monotonic_ns
from typing import TYPE_CHECKING

from forkproxy.stats import slab as cells
from forkproxy.stats.slab import Slab
from forkproxy.supervisor.listening import Binding
from forkproxy.worker.adoption import Giver
from forkproxy.worker.control import Channel

if TYPE_CHECKING:
    from forkproxy.supervisor.generation_run import GenerationRun

QUICK_DEATH_S = 5.0
"""A worker that ends sooner than this after its birth died quickly."""
FIRST_BACK_OFF_S = 0.1
LONGEST_BACK_OFF_S = 10.0
KILL_AFTER_ABORT_S = 2.0
SHORTEST_RATE_NS = 500_000_000


@dataclass(eq=False, slots=True)
class WorkerHandle:
    """One worker process. ``started_at``, ``deadline`` and ``aborted_at`` are ``loop.now`` seconds."""

    pid: int
    slot: Slot
    run: GenerationRun
    slab: Slab
    channel: Channel
    started_at: float
    seat: int = 0
    """Which of the shared cells are its own (stats/shared.py)."""
    giver: Giver | None = None
    """How it gets the sockets of slots that retire."""
    ready: bool = False
    draining: bool = False
    accepts: bool = True
    """Connections may still come to it: it has not said yet that it drains."""
    deadline: float = float("inf")
    """When patience ends: it must be ready (not draining) or gone (draining)."""
    aborted_at: float = 0.0
    failure: str = ""
    """Why it could not start, in its own words."""
    requests_per_s: float = 0.0
    """HTTP requests a second, over the last second or so."""
    noted: tuple[int, int] = (0, 0)
    """When the worker last told its figures as ``requests_per_s`` was taken, in ns, and how many requests it had had."""

    @property
    def state(self) -> str:
        """ "starting", "ready", "draining" or "hung"."""
        if self.aborted_at:
            return "hung"
        if self.draining:
            return "draining"
        return "ready" if self.ready else "starting"

    @property
    def connections(self) -> int:
        """Downstream connections open at its last heartbeat."""
        return int(self.slab.cells[cells.CONNECTIONS])

    @property
    def requests(self) -> int:
        """HTTP requests up to its last heartbeat."""
        return int(self.slab.cells[cells.REQUESTS])

    def note_rate(self) -> None:
        """Take ``requests_per_s`` from what was counted since the last note, once that is long enough ago."""
        counted_at, requests = int(self.slab.cells[cells.FLUSHED_NS]), self.requests
        before_at, before = self.noted
        if not before_at or counted_at - before_at >= SHORTEST_RATE_NS:
            if before_at:
                self.requests_per_s = (requests - before) * 1e9 / (counted_at - before_at)
            self.noted = counted_at, requests

    def heartbeat_age_s(self) -> float:
        """Seconds since its loop last went round; 0 before the first time."""
        beat = int(self.slab.cells[cells.HEARTBEAT_NS])
        return (monotonic_ns() - beat) / 1e9 if beat else 0.0

    def adopt(self, sockets: Iterable[tuple[Binding, socket.socket]]) -> None:
        """Have it accept from these as well, as far as its generation listens there."""
        if self.giver is not None:
            for binding, sock in sockets:
                for key, wanted in self.run.bindings.items():
                    if wanted == binding:
                        self.giver.give(key, sock)

    def drain(self, now: float, time_s: float, going: Iterable[tuple[str, int]] = ()) -> None:
        """Ask it to finish within ``time_s`` seconds; it has two more to end itself.

        ``going``: sockets that nobody serves after it. It accepts from them until ``close_listeners``.
        """
        if not self.draining:
            self.draining = True
            self.deadline = now + time_s + KILL_AFTER_ABORT_S
            self.channel.send({"op": "drain", "time_s": time_s, "going": list(going)})

    def close_listeners(self) -> None:
        """Have it serve what waits in its listening sockets' queues, and close them. Our copies must be closed before."""
        self.channel.send({"op": "close_listeners"})

    def stop(self, now: float) -> None:
        """Ask it to end at once."""
        self.draining = True
        self.deadline = min(self.deadline, now + KILL_AFTER_ABORT_S)
        self.channel.send({"op": "stop"})

    def abort(self, now: float) -> None:
        """It does not answer any more: have faulthandler print where it stands. SIGKILL follows, at the ``deadline``."""
        self.aborted_at = now
        self.deadline = now + KILL_AFTER_ABORT_S
        self.signal(signal.SIGABRT)
        # One that was stopped would keep the signal pending, and print nothing.
        self.signal(signal.SIGCONT)

    def signal(self, number: int) -> None:
        """Send a signal; the process is our child and not yet reaped, so the pid is its own."""
        os.kill(self.pid, number)


@dataclass(eq=False, slots=True)
class Slot:
    """``run`` is the generation that its current worker should run; ``sockets`` by unix paths are shared by all slots."""

    number: int
    cpu: int | None
    run: GenerationRun
    sockets: dict[Binding, socket.socket] = field(default_factory=dict)
    current: WorkerHandle | None = None
    successor: WorkerHandle | None = None
    draining: list[WorkerHandle] = field(default_factory=list)
    retiring: bool = False
    """No worker is wanted here any more: the slot goes when its last one has."""
    quick_deaths: int = 0
    respawn_at: float = 0.0
    given_up: int = 0
    """The exit code of a worker that would end the same way again; no other is started until a reload."""

    def workers(self) -> list[WorkerHandle]:
        """All processes of the slot."""
        return [worker for worker in (self.current, self.successor, *self.draining) if worker is not None]

    def promote(self) -> WorkerHandle | None:
        """The successor becomes current; returns the one before, now to drain."""
        before, self.current, self.successor = self.current, self.successor, None
        assert self.current is not None
        self.run = self.current.run
        self.given_up = 0
        if before is not None:
            self.draining.append(before)
        return before

    def forget(self, worker: WorkerHandle) -> None:
        """The process is gone."""
        if worker is self.current:
            self.current = None
        elif worker is self.successor:
            self.successor = None
        else:
            self.draining.remove(worker)

    def close_sockets(self) -> None:
        """Close the slot's copies; a listening socket is gone when its workers have closed theirs."""
        for sock in self.sockets.values():
            sock.close()
        self.sockets.clear()

    def count_death(self, lived_s: float, now: float) -> float:
        """The current worker died: when may the next one start? The first death costs no wait. Returns the wait in seconds."""
        self.quick_deaths = self.quick_deaths + 1 if lived_s < QUICK_DEATH_S else 0
        wait_s = 0.0
        if self.quick_deaths > 1:
            wait_s = min(FIRST_BACK_OFF_S * 2.0 ** (self.quick_deaths - 2), LONGEST_BACK_OFF_S)
        self.respawn_at = now + wait_s
        return wait_s
