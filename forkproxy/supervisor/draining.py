"""Draining on the operator's word (/drain_listeners, ``forkproxy drain``, SIGWINCH): listeners stop accepting, the process stays.

As Envoy does it: at once and without a word to connections that are open; or gracefully, with responses that ask to close more
and more often over the drain time, and the listeners closed at its end (``skip_exit``: not at all). A reload accepts again.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from forkproxy import log
from forkproxy.supervisor.generation_run import GenerationRun

if TYPE_CHECKING:
    from forkproxy.supervisor.supervisor import Supervisor

INBOUND = "INBOUND"

_log = log.get_logger("supervisor")


class Draining:
    """What was asked for, for the running generation: the next one begins afresh."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._run: GenerationRun | None = None
        self._leaving: set[str] = set()
        """The listeners of that generation whose connections are asked to go. As in Envoy this is begun only once."""

    def request(self, *, graceful: bool, skip_exit: bool, inbound_only: bool) -> None:
        """Envoy's /drain_listeners; ``skip_exit`` alone asks for nothing."""
        names = self._names(inbound_only)
        if graceful:
            self._begin(names, skip_exit)
        elif not skip_exit:
            self._want_stop(names)

    def stop_listening(self, names: tuple[str, ...]) -> None:
        """These listeners accept nothing until a reload; without names, all."""
        fleet = self._supervisor.fleet
        fleet.drain_listeners(names or self._names(False))
        rest = "" if fleet.is_drained else " there"
        _log.info(
            f"listeners drained: nothing is accepted{rest} until a reload", listeners=", ".join(sorted(fleet.drained))
        )

    def _begin(self, names: tuple[str, ...], skip_exit: bool) -> None:
        supervisor = self._supervisor
        run = supervisor.generations.running
        if self._run is not run:
            self._run, self._leaving = run, set()
        names = tuple(name for name in names if name not in self._leaving)
        if not names:
            return
        self._leaving.update(names)
        now, time_s = monotonic(), supervisor.generations.drain_time_s
        _log.info("connections are asked to close", listeners=", ".join(names), within_s=time_s)
        pace_s = 0.0 if supervisor.options.drain_strategy == "immediate" else time_s
        run.generation.drain_connections(names, now, pace_s)
        supervisor.fleet.tell({"op": "drain_connections", "listeners": names, "since": now, "time_s": pace_s})
        if not skip_exit:
            supervisor.loop.call_later(time_s, lambda: self._on_time(run, names))

    def _on_time(self, run: GenerationRun, names: tuple[str, ...]) -> None:
        if run is self._supervisor.generations.running:
            self._want_stop(names)

    def _want_stop(self, names: tuple[str, ...]) -> None:
        if names:
            self._supervisor.want("drain_listeners", names=names)

    def _names(self, inbound_only: bool) -> tuple[str, ...]:
        run = self._supervisor.generations.running
        if inbound_only:
            return tuple(entry.name for entry in run.bootstrap.listeners if entry.traffic_direction == INBOUND)
        return tuple(dict.fromkeys(name for name, _index in run.bindings))
