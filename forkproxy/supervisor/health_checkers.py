"""The process that checks endpoints' health, once for the machine and not once for each worker.

One child per generation with health checks, born by fork with clusters and checkers in memory, ended when its generation has
been replaced. It tells the supervisor what stands against an endpoint whenever that changes. The supervisor keeps it, so that
workers and checkers born later begin with it, and tells it to all workers at once.

Why messages, and not flags in shared memory: a change is rare and must be acted on (a new picker, connections to close), so
that a worker would have to be woken all the same; and messages keep their order with those that change the endpoints.

A process that dies is replaced a second later; what it knew of each endpoint stays as it is meanwhile.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic, monotonic_ns

from forkproxy import log
from forkproxy.net.loop import Loop
from forkproxy.net.poller import READ
from forkproxy.stats import slab as cells
from forkproxy.stats.counters import Registry
from forkproxy.stats.slab import Slab
from forkproxy.supervisor.child import Child, fork_child
from forkproxy.supervisor.generation_run import GenerationRun
from forkproxy.upstream.endpoint import Endpoint
from forkproxy.upstream.health_check.checker import HealthChecker, Report
from forkproxy.upstream.health_check.session import CHECKED_FLAGS
from forkproxy.worker import after_fork
from forkproxy.worker.control import Channel, Message

RESTART_AFTER_S = 1.0
FLUSH_AFTER_S = 0.1
"""Figures reach the slab at most this late."""
HEARTBEAT_S = 1.0
HANGS_AFTER_S = 10.0
"""A process whose heart has not beaten for so long is killed, and replaced: nothing is lost but what it was doing."""

_log = log.get_logger("health")


@dataclass(eq=False, slots=True)
class CheckerHandle:
    """A process, whose clusters it checks, and where it counts."""

    child: Child
    run: GenerationRun
    slab: Slab

    def hangs(self) -> bool:
        """Whether its loop stands still."""
        beat = int(self.slab.cells[cells.HEARTBEAT_NS])
        return beat != 0 and (monotonic_ns() - beat) / 1e9 > HANGS_AFTER_S


class HealthCheckers:
    """All such processes. ``tell(run, cluster, message)`` reaches the workers that have the cluster as ``run`` has it;
    ``on_passed(run, cluster, address)``: an endpoint that outlier detection ejected is well.
    """

    def __init__(
        self,
        loop: Loop,
        registry: Registry,
        tell: Callable[[GenerationRun, str, Message], None],
        on_passed: Callable[[GenerationRun, str, str], None],
        is_newest: Callable[[GenerationRun], bool],
    ) -> None:
        self._loop = loop
        self._registry = registry
        self._tell = tell
        self._on_passed = on_passed
        self._is_newest = is_newest
        self._processes: dict[int, CheckerHandle] = {}
        self._wanted: list[GenerationRun] = []
        self._not_before = 0.0

    @property
    def pids(self) -> Iterable[int]:
        """The processes."""
        return self._processes.keys()

    @property
    def slabs(self) -> list[Slab]:
        """Where they count."""
        return [handle.slab for handle in self._processes.values()]

    def want(self, runs: Iterable[GenerationRun]) -> None:
        """Check for these generations, and for no others."""
        self._wanted = [run for run in runs if run.generation.health_checkers]
        for handle in self._processes.values():
            if handle.run not in self._wanted:
                handle.child.end()
        self.check(monotonic())

    def check(self, now: float) -> None:
        """Start what is missing, kill what hangs."""
        for handle in self._processes.values():
            if handle.hangs():
                handle.child.signal(signal.SIGKILL)
        served = [handle.run for handle in self._processes.values()]
        for run in self._wanted:
            if run not in served and now >= self._not_before:
                try:
                    self._start(run)
                except OSError as error:
                    self._not_before = now + RESTART_AFTER_S
                    _log.error("no health checker could be forked", reason=error.strerror)

    def on_gone(self, pid: int, how: str) -> bool:
        """A child has ended; whether it was one of these."""
        handle = self._processes.pop(pid, None)
        if handle is None:
            return False
        handle.child.channel.close()
        self._registry.absorb(handle.slab)
        handle.slab.close()
        if handle.run in self._wanted:
            self._not_before = monotonic() + RESTART_AFTER_S
            _log.error("the health checker died; endpoints stay as they are until the next one has looked", how=how)
        return True

    def end_all(self) -> None:
        """The end of the program: none is left when this returns."""
        self.want([])
        for pid, handle in self._processes.items():
            if handle.hangs():
                handle.child.signal(signal.SIGKILL)
            os.waitpid(pid, 0)

    def tell(self, run: GenerationRun, message: Message) -> None:
        """A message to the process of ``run``, if there is one: "endpoints", "immediate_fail", "ejected"."""
        for handle in self._processes.values():
            if handle.run is run:
                handle.child.channel.send(message)

    def reopen_logs(self) -> None:
        """Event logs are opened again under their names."""
        for handle in self._processes.values():
            handle.child.channel.send({"op": "reopen_logs"})

    def _start(self, run: GenerationRun) -> None:
        parent_pid = os.getpid()
        slab = Slab.create(self._registry.cells)

        def in_child(control: socket.socket) -> int:
            if not self._is_newest(run):
                self._registry.abandon_generation()  # its groups are those of the generation before
            return CheckerProcess(run, self._registry, slab, control, parent_pid).run()

        child = fork_child(self._loop, in_child, lambda message: self._on_message(run, message))
        self._processes[child.pid] = CheckerHandle(child, run, slab)

    def _on_message(self, run: GenerationRun, message: Message) -> None:
        if run not in self._wanted:
            return
        cluster = message["cluster"]
        match message["op"]:
            case "health":
                flags = message["flags"]
                self.set_flags(run, cluster, message["address"], set=flags, clear=CHECKED_FLAGS & ~flags)
            case "checked":
                run.unchecked.discard(cluster)
                self._loop.stop()
            case "passed":
                self._on_passed(run, cluster, message["address"])

    def set_flags(self, run: GenerationRun, cluster: str, address: str, *, set: int = 0, clear: int = 0) -> None:
        """Set and clear what stands against an endpoint: here, for whoever is born later, and in the workers that live."""
        live = run.generation.clusters.get(cluster)
        if live is not None and live.set_health_flags(address, set=set, clear=clear):
            message = {"op": "health", "cluster": cluster, "address": address, "set": set, "clear": clear}
            self._tell(run, cluster, message)


class CheckerProcess(Report):
    """The whole life of such a process, from right after fork; it ends with the supervisor or by SIGTERM."""

    def __init__(
        self, run: GenerationRun, registry: Registry, slab: Slab, control: socket.socket, parent_pid: int
    ) -> None:
        after_fork.undo_parent(keep=[control.fileno()], parent_pid=parent_pid, name="forkproxy:hc")
        if run.identity is not None:
            after_fork.become(run.identity)
        self._run = run
        self._generation = run.generation
        self._registry = registry
        self._slab = slab
        self._loop = Loop(self._on_exception)
        self._channel = Channel(
            self._loop, control, on_message=self._on_message, on_close=lambda _reason: self._loop.stop()
        )
        self._flush_timer = self._loop.timer(self._flush)
        self._heart = self._loop.timer(self._beat)
        self._changed: list[HealthChecker] = []

    def run(self) -> int:
        """Check until the end; the exit code."""
        self._catch_sigterm()
        self._beat()
        self._generation.start_health_checks(self._loop, self, unchecked=self._run.unchecked)
        self._loop.run()
        self._generation.flush_health_logs()
        return 0

    def _beat(self) -> None:
        self._slab.cells[cells.HEARTBEAT_NS] = monotonic_ns()
        self._heart.arm(self._loop.now + HEARTBEAT_S)

    def _catch_sigterm(self) -> None:
        read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._loop.register(read_fd, READ, lambda _mask: self._loop.stop())
        signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda _number, _frame: None)

    def _on_message(self, message: Message) -> None:
        checkers = self._generation.health_checkers
        match message["op"]:
            case "endpoints":
                self._generation.set_endpoints(message["cluster"], message["endpoints"])
            case "immediate_fail":
                if message["cluster"] in checkers:
                    checkers[message["cluster"]].fail_passively(message["address"])
            case "ejected":
                if message["cluster"] in checkers:
                    checkers[message["cluster"]].watch_ejected(message["address"], message["ejected"])
            case "reopen_logs":
                self._generation.reopen_health_logs()

    # -- Report

    def on_flags(self, checker: HealthChecker, endpoint: Endpoint, flags: int) -> None:
        """Report: to the supervisor."""
        name = checker.cluster.name
        self._channel.send({"op": "health", "cluster": name, "address": endpoint.address, "flags": flags})

    def on_round(self, checker: HealthChecker) -> None:
        """Report: to the supervisor, which may be waiting with the workers. Who then looks at figures sees those of the round."""
        self._flush()
        self._channel.send({"op": "checked", "cluster": checker.cluster.name})

    def on_passed(self, checker: HealthChecker, endpoint: Endpoint) -> None:
        """Report: to the supervisor."""
        self._channel.send({"op": "passed", "cluster": checker.cluster.name, "address": endpoint.address})

    def on_figures(self, checker: HealthChecker) -> None:
        """Report: they are written with those of others."""
        if not self._changed:
            self._flush_timer.arm(self._loop.now + FLUSH_AFTER_S)
        self._changed.append(checker)

    def _flush(self) -> None:
        self._registry.flush_groups(self._slab, [group for checker in self._changed for group in checker.groups])
        for checker in self._changed:
            checker.figures_written()
        self._changed.clear()

    def _on_exception(self, exception: Exception, callback: object) -> None:
        _log.exception("an exception left a callback; the health checker goes on", exception, callback=callback)
