"""A worker: one process, one thread, one loop, one CPU; carries the traffic of one slot until it is told to drain.

It is born by fork with everything in memory (its generation, the slot's listening sockets, the slab for its figures) and
knows the supervisor only through the control channel. It drains on the supervisor's word, on SIGTERM, and when the channel
ends, which means that the supervisor is gone.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic_ns
from typing import Protocol

from forkproxy import log
from forkproxy.config.problems import ConfigError
from forkproxy.net.connection import Connection
from forkproxy.net.loop import Loop
from forkproxy.net.poller import READ
from forkproxy.stats import slab as cells
from forkproxy.stats.slab import Slab
from forkproxy.worker import after_fork
from forkproxy.worker.adoption import Adoption, Key
from forkproxy.worker.control import Channel, Message
from forkproxy.worker.exception_log import ExceptionLog
from forkproxy.worker.garbage import Garbage
from forkproxy.worker.handover import Handover
from forkproxy.worker.heap import keep_freed

EXIT_CANNOT_BIND = 69
"""The generation could not take the sockets or open what it needs; another try would end the same way."""
EXIT_CANNOT_BUILD = 78
"""The generation refused the configuration at start; another try would end the same way."""

OVERTIME_S = 2.0
"""What a drain that nobody watches may take beyond its time before the kernel ends the process."""
FLUSH_INTERVAL_S = 1.0
"""How often figures and the heartbeat go to the slab; admin asks for what is newer."""

Endpoints = Sequence[Mapping[str, object]]
"""Resolved endpoints as they travel: JSON-ready, what ``RunnableGeneration.set_endpoints`` takes."""

_log = log.get_logger("worker")


class RunnableGeneration(Protocol):
    """What a worker asks of the generation it runs (worker/generation.py). It opens nothing before ``start``."""

    @property
    def connections(self) -> int:
        """Downstream connections open now."""

    @property
    def accepted(self) -> int:
        """Downstream connections accepted so far."""

    @property
    def requests(self) -> int:
        """Requests so far."""

    def prepare_slot(self, slot: int) -> None:
        """In the supervisor: a worker of this number is about to be forked."""

    def start(self, loop: Loop, sockets: dict[tuple[str, int], list[socket.socket]], slot: int) -> None:
        """Serve ``sockets``, by listener name and address index. ConfigError or OSError when it cannot."""

    def adopt(self, key: Key, sock: socket.socket) -> None:
        """After ``start``: serve one socket more of a listener; it is closed where that cannot be."""

    def keep_in_touch(self, send: Callable[[Message], None]) -> None:
        """After ``start``: ``send`` reaches the supervisor."""

    def on_dns(self, message: Message) -> None:
        """What the supervisor says of a host of a DNS cache."""

    def balance(self, handover: Handover) -> None:
        """After ``start``: how to hand connections to other workers, and take theirs."""

    def sync_stats(self) -> None:
        """Bring up to date what is not counted as it happens; figures are read next."""

    def set_endpoints(self, cluster: str, endpoints: Endpoints) -> None:
        """A cluster's endpoints as DNS has them now. Also called in the supervisor, so that workers born later know them."""

    def set_health(self, cluster: str, address: str, *, set: int, clear: int) -> None:
        """What was found out about an endpoint: flags of upstream/health.py."""

    def fail_health_check(self, failed: bool) -> None:
        """/healthcheck/fail (True) and /ok. Also called in the supervisor, for workers born later."""

    @property
    def is_listening(self) -> bool:
        """Whether connections may still come."""

    def drain(self, going: Collection[tuple[str, int]] = ()) -> None:
        """Stop accepting but from the sockets that are ``going``; let connections finish, asking their peers to go."""

    def close_listeners(self) -> None:
        """Take what waits in the queues of the sockets that are left, and close them."""

    def stop_listening(self, listeners: Collection[str]) -> None:
        """The same for these listeners alone, on the operator's word; their connections stay as they are."""

    def drain_connections(self, listeners: Collection[str], since: float, time_s: float) -> None:
        """Ask the connections of these listeners to close, more and more of them over ``time_s`` seconds from ``since``
        (``loop.now``). Also called in the supervisor, for workers born later."""

    def stop(self) -> None:
        """Close everything now."""

    def reopen_logs(self) -> None:
        """Open access logs again under their names."""

    def flush_logs(self) -> None:
        """Write out what access logs have buffered."""


class StatFlusher(Protocol):
    """What copies the counters of this process into its slab (stats/counters.py)."""

    def flush(self, slab: Slab) -> None: ...


@dataclass(slots=True)
class WorkerStart:
    """Everything a worker is born with. ``control`` is its end of the socketpair."""

    slot: int
    cpu: int | None
    generation_number: int
    generation: RunnableGeneration
    sockets: dict[tuple[str, int], list[socket.socket]]
    control: socket.socket
    slab: Slab
    stats: StatFlusher
    parent_pid: int
    handover: Handover | None = None
    """How connections are shared with the other workers; None: they are not."""
    adoption: Adoption | None = None
    """How the sockets of slots that retire come to it; None: they do not."""
    identity: after_fork.Identity | None = None
    """Who to run as; None: who the supervisor is."""
    drain_time_s: float = 30.0
    """For a drain that nobody ordered: SIGTERM, or the supervisor is gone."""


def run_worker(start: WorkerStart) -> int:
    """The whole life of a worker, from right after fork to its exit code."""
    keep = [sock.fileno() for socks in start.sockets.values() for sock in socks]
    keep.append(start.control.fileno())
    if start.handover is not None:
        keep += start.handover.descriptors()
    if start.adoption is not None:
        keep.append(start.adoption.receiver.fileno())
    after_fork.undo_parent(keep=keep, parent_pid=start.parent_pid, name=f"forkproxy:w{start.slot}")
    return Worker(start).run()


class Worker:
    """The process's own part; all traffic is the generation's."""

    def __init__(self, start: WorkerStart) -> None:
        self._start = start
        self._generation = start.generation
        self._slab = start.slab
        self._loop = Loop(self._on_exception)
        self._channel = Channel(
            self._loop, start.control, on_message=self._on_message, on_close=self._on_supervisor_gone
        )
        self._flush_timer = self._loop.timer(self._flush)
        self._exceptions = ExceptionLog(_log)
        self._garbage = Garbage()
        self._accepting = True
        self._draining = False

    def run(self) -> int:
        """Start the generation, serve until drained or stopped; the exit code."""
        start = self._start
        slab = self._slab.cells
        slab[cells.PID] = os.getpid()
        slab[cells.GENERATION] = start.generation_number
        self._catch_sigterm()
        if start.cpu is not None and not pin([start.cpu]):
            _log.warning("not pinned: the kernel refuses this CPU", slot=start.slot, cpu=start.cpu)
        try:
            if start.identity is not None:
                after_fork.become(start.identity)
            self._generation.start(self._loop, start.sockets, start.slot)
            self._generation.keep_in_touch(self._channel.send)
            if start.handover is not None:
                self._generation.balance(start.handover)
                start.handover.start(self._loop)
            if start.adoption is not None:
                start.adoption.start(self._loop, self._adopt)
        except ConfigError as error:
            return self._fail(EXIT_CANNOT_BUILD, str(error))
        except OSError as error:
            return self._fail(EXIT_CANNOT_BIND, str(error))
        self._garbage.start(self._loop.now)
        keep_freed()
        slab[cells.STATE] = cells.READY
        self._flush()
        self._channel.send({"op": "ready"})
        self._loop.run()
        self._generation.stop()
        self._generation.flush_logs()
        slab[cells.STATE] = cells.STOPPED
        self._write_figures()
        return 0

    def _fail(self, code: int, reason: str) -> int:
        _log.error("the worker cannot start", slot=self._start.slot, reason=reason)
        self._channel.send({"op": "failed", "reason": reason, "exit": code})
        return code

    def _catch_sigterm(self) -> None:
        read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._loop.register(read_fd, READ, lambda _mask: self._on_sigterm(read_fd))
        signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, self._bound_the_drain)

    def _bound_the_drain(self, _number: int, _frame: object) -> None:
        # The byte in the pipe drains a loop that turns. One that does not would outlive a supervisor that is gone.
        signal.setitimer(signal.ITIMER_REAL, self._start.drain_time_s + OVERTIME_S)

    def _on_sigterm(self, fd: int) -> None:
        os.read(fd, 4096)
        self._drain(self._start.drain_time_s)

    def _on_supervisor_gone(self, _reason: str) -> None:
        # Nobody follows on these sockets.
        limit_s = self._start.drain_time_s
        _log.error("the supervisor has died: this worker drains", slot=self._start.slot, at_most_s=limit_s)
        self._drain(self._start.drain_time_s, tuple(self._start.sockets))
        self._close_listeners()

    def _on_message(self, message: Message) -> None:
        match message.get("op"):
            case "endpoints":
                self._generation.set_endpoints(message["cluster"], message["endpoints"])
            case "dns_host" | "dns_gone":
                self._generation.on_dns(message)
            case "health":
                self._generation.set_health(
                    message["cluster"], message["address"], set=message["set"], clear=message["clear"]
                )
            case "drain":
                self._drain(message["time_s"], [(name, index) for name, index in message["going"]])
            case "close_listeners":
                self._close_listeners()
            case "stop_listening":
                self._generation.stop_listening(message["listeners"])
            case "drain_connections":
                self._generation.drain_connections(message["listeners"], message["since"], message["time_s"])
            case "stop":
                self._loop.stop()
            case "flush":
                self._write_figures()
                self._channel.send({"op": "flushed", "round": message["round"]})
            case "health_check":
                self._generation.fail_health_check(message["failed"])
            case "reopen_logs":
                self._reopen_logs()
            case "pin":
                pin(message["cpus"])
            case "log_level":
                log.set_level(message["level"], message["component"])
            case op:
                _log.error("a control message that no worker knows", op=op)

    def _adopt(self, key: Key, sock: socket.socket) -> None:
        if self._accepting:
            self._generation.adopt(key, sock)
        else:
            sock.close()

    def _reopen_logs(self) -> None:
        try:
            log.reopen()
            self._generation.reopen_logs()
        except OSError as error:
            _log.error("a log cannot be opened again; the old file stays in use", reason=str(error))

    def _drain(self, time_s: float, going: Collection[tuple[str, int]] = ()) -> None:
        if self._draining:
            return
        self._draining = True
        self._slab.cells[cells.STATE] = cells.DRAINING
        self._stop_accepting(going)
        self._channel.send({"op": "draining"})
        self._loop.on_pass = self._stop_when_idle
        self._loop.call_later(time_s, self._loop.stop)

    def _stop_accepting(self, going: Collection[tuple[str, int]]) -> None:
        if self._accepting:
            self._accepting = False
            if self._start.handover is not None:
                self._start.handover.leave()
            self._generation.drain(going)

    def _close_listeners(self) -> None:
        self._stop_accepting(tuple(self._start.sockets))
        self._generation.close_listeners()

    def _stop_when_idle(self, _now: float) -> None:
        generation = self._generation
        if not generation.connections and not generation.is_listening:
            self._loop.stop()

    def _flush(self) -> None:
        self._write_figures()
        generation = self._generation
        self._garbage.look(self._loop.now, generation.accepted, generation.requests, generation.connections)
        self._flush_timer.arm(self._loop.now + FLUSH_INTERVAL_S)

    def _write_figures(self) -> None:
        slab = self._slab.cells
        slab[cells.HEARTBEAT_NS] = slab[cells.FLUSHED_NS] = monotonic_ns()
        generation = self._generation
        generation.sync_stats()
        slab[cells.CONNECTIONS] = generation.connections
        slab[cells.ACCEPTED] = generation.accepted
        slab[cells.REQUESTS] = generation.requests
        self._start.stats.flush(self._slab)

    def _on_exception(self, exception: Exception, callback: object) -> None:
        owner = getattr(callback, "__self__", callback)
        if isinstance(owner, Connection):
            # A network filter's bug, or ours: nobody knows what state that connection is in.
            owner.abort()
        event = "an exception left a callback; the worker goes on"
        self._exceptions.report(event, exception, subject=type(owner).__name__, callback=callback)


def pin(cpus: Collection[int]) -> bool:
    """Run this process on these CPUs. False when the kernel refuses; it then runs on those it had."""
    try:
        os.sched_setaffinity(0, cpus)
    except OSError:
        return False
    return True
