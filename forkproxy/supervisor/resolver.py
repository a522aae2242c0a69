"""The process that resolves names and reads the files of EDS clusters, so that neither can hold up the supervisor or a worker.

One child per generation with such clusters, born by fork with the names in memory, killed when its generation has been
replaced. What it finds goes to the supervisor, which keeps the last result (workers born later inherit it) and passes it on
to the workers that live. A resolver that dies is replaced; meanwhile everybody keeps the addresses they have.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic

from forkproxy import log
from forkproxy.net.loop import Loop
from forkproxy.supervisor.child import Child, fork_child
from forkproxy.supervisor.endpoint_files import EndpointFiles
from forkproxy.supervisor.generation_run import GenerationRun
from forkproxy.upstream.dns import DnsResolver
from forkproxy.upstream.dns_cache import target_from
from forkproxy.worker import after_fork
from forkproxy.worker.control import Channel, Message

RESTART_AFTER_S = 1.0

_log = log.get_logger("dns")


@dataclass(eq=False, slots=True)
class ResolverHandle:
    """A resolver process and whose names it resolves."""

    child: Child
    run: GenerationRun


class Resolvers:
    """All resolver processes.

    ``on_endpoints(run, cluster, endpoints)`` is told every result, ``on_update(run, cluster, results, version)`` every
    attempt and what became of it. ``on_host(message)`` is told what became of the hosts that were asked for with ``send``;
    ``on_start(send)`` of every process that is born, and how to ask it alone.
    """

    def __init__(
        self,
        loop: Loop,
        on_endpoints: Callable[[GenerationRun, str, list[dict[str, object]]], None],
        on_update: Callable[[GenerationRun, str, list[str], str | None], None],
    ) -> None:
        self._loop = loop
        self._on_endpoints = on_endpoints
        self._on_update = on_update
        self.on_host: Callable[[Message], None] = lambda _message: None
        self.on_start: Callable[[Callable[[Message], None]], None] = lambda _send: None
        self._processes: dict[int, ResolverHandle] = {}
        self._wanted: list[GenerationRun] = []
        self._not_before = 0.0
        self.needed_for_good = False
        """There has been a DNS cache: workers that drain may ask it for hosts after all generations with one are gone."""

    @property
    def pids(self) -> Iterable[int]:
        """The processes."""
        return self._processes.keys()

    def want(self, runs: Iterable[GenerationRun]) -> None:
        """Resolve for these generations, and for no others."""
        self._wanted = [run for run in runs if run.sources or run.generation.dns_caches or self.needed_for_good]
        for handle in self._processes.values():
            if handle.run not in self._wanted:
                handle.child.end()
        self.check(monotonic())

    def check(self, now: float) -> None:
        """Start what is missing."""
        resolved = [handle.run for handle in self._processes.values()]
        for run in self._wanted:
            if run not in resolved and now >= self._not_before:
                try:
                    self._start(run)
                except OSError as error:
                    self._not_before = now + RESTART_AFTER_S
                    _log.error("no resolver could be forked", reason=error.strerror)

    def on_gone(self, pid: int, how: str) -> bool:
        """A child has ended; whether it was a resolver."""
        handle = self._processes.pop(pid, None)
        if handle is None:
            return False
        handle.child.channel.close()
        if handle.run in self._wanted:
            self._not_before = monotonic() + RESTART_AFTER_S
            _log.error("the resolver died; addresses stay as they are until the next one answers", how=how)
        return True

    def end_all(self) -> None:
        """The end of the program: no resolver is left when this returns."""
        self.want([])
        for pid in self._processes:
            os.waitpid(pid, 0)

    def _start(self, run: GenerationRun) -> None:
        parent_pid = os.getpid()
        child = fork_child(
            self._loop,
            lambda control: run_resolver(run, control, parent_pid),
            lambda message: self._on_message(run, message),
        )
        self._processes[child.pid] = ResolverHandle(child, run)
        self.on_start(child.channel.send)

    def send(self, message: Message) -> None:
        """Tell all processes; while there is none, nobody: the next one is told everything by ``on_start``."""
        for handle in self._processes.values():
            handle.child.channel.send(message)

    def _on_message(self, run: GenerationRun, message: Message) -> None:
        if run not in self._wanted:
            return
        match message["op"]:
            case "endpoints":
                if message["complete"]:
                    run.unresolved.discard(message["cluster"])
                self._on_endpoints(run, message["cluster"], message["endpoints"])
            case "host":
                self.on_host(message)
            case "update":
                self._on_update(run, message["cluster"], message["results"], message.get("version"))
            case "eds_failure":
                _log.warning(
                    "the endpoints of a file could not be used; the cluster keeps those it has",
                    cluster=message["cluster"],
                    path=message["path"],
                    reason=message["reason"],
                )
            case "dns_failure":
                _log.warning(
                    "a name could not be resolved",
                    cluster=message["cluster"],
                    host=message["host"],
                    reason=message["reason"],
                    failures=message["failures"],
                    retry_s=message["retry_s"],
                )


def run_resolver(run: GenerationRun, control: socket.socket, parent_pid: int) -> int:
    """The whole life of a resolver process, from right after fork; it ends with the supervisor or by SIGTERM."""
    after_fork.undo_parent(keep=[control.fileno()], parent_pid=parent_pid, name="forkproxy:dns")
    if run.identity is not None:
        after_fork.become(run.identity)
    loop = Loop(lambda error, callback: _log.exception("an exception left a callback", error, callback=callback))
    channel = Channel(loop, control, on_message=lambda _message: None, on_close=lambda _reason: loop.stop())
    resolver = DnsResolver(loop, run.dns_targets, channel.send)
    channel.on_message = lambda message: _on_request(resolver, message)
    resolver.start()
    EndpointFiles(loop, run.endpoint_files, channel.send).start()
    loop.run()
    return 0


def _on_request(resolver: DnsResolver, message: Message) -> None:
    match message["op"]:
        case "resolve":
            # Perhaps a cache's that only workers have that drain.
            resolver.add(target_from(message["target"]))
        case "forget":
            resolver.remove(message["host"])
