"""What the supervisor tells of itself: ``forkproxy status``, and one line for the service manager."""

from __future__ import annotations

import os
from time import monotonic
from typing import TYPE_CHECKING, Any

from forkproxy import __version__
from forkproxy.supervisor.cpus import counted, ranges
from forkproxy.supervisor.exits import first_line
from forkproxy.supervisor.figures import memory_of_one
from forkproxy.supervisor.old_generations import old_generations

if TYPE_CHECKING:
    from forkproxy.supervisor.supervisor import Supervisor


class Report:
    """Reads the supervisor; changes nothing."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def summary(self) -> str:
        """One line: ``"2 workers on CPUs 0-1, generation 3"``."""
        slots = self._supervisor.fleet.lasting_slots()
        pinned = sorted({slot.cpu for slot in slots if slot.cpu is not None})
        where = f" on CPU{'s' if len(pinned) != 1 else ''} {ranges(pinned)}" if pinned else ""
        return f"{counted(len(slots))}{where}, generation {self._supervisor.generations.running.number}"

    def line(self) -> str:
        """What ``systemctl status`` shows: the summary, who is missing, and why the last reload was refused."""
        fleet = self._supervisor.fleet
        slots = fleet.lasting_slots()
        ready = sum(1 for slot in slots if slot.current is not None and slot.current.ready)
        line = self.summary()
        if fleet.is_drained:
            line += "; listeners drained"
        elif ready < len(slots):
            line += f"; {ready} ready"
        if self._supervisor.reloads.last_refusal:
            line += f"; reload refused: {first_line(self._supervisor.reloads.last_refusal)}"
        return line

    def _predecessor(self) -> dict[str, int] | None:
        """The supervisor before an upgrade, while its workers drain."""
        before = self._supervisor.predecessor
        if before is None or not before.is_here:
            return None
        return {"pid": before.inheritance.pid, "workers": before.workers, "connections": before.connections}

    def status(self) -> dict[str, Any]:
        """What ``forkproxy status`` shows, JSON-ready."""
        supervisor = self._supervisor
        fleet, running = supervisor.fleet, supervisor.generations.running
        return {
            "version": __version__,
            "pid": os.getpid(),
            "state": supervisor.phase,
            "uptime_s": round(monotonic() - supervisor.started_at, 3),
            "config_path": supervisor.options.config_path,
            "generation": running.number,
            "old_generations": [
                {
                    "generation": old.number,
                    "workers": len(old.workers),
                    "connections": old.connections,
                    "time_left_s": round(old.time_left_s(monotonic()), 3),
                }
                for old in old_generations(fleet.workers(), running)
            ],
            **({"predecessor": before} if (before := self._predecessor()) is not None else {}),
            "last_refusal": supervisor.reloads.last_refusal,
            "listeners": [
                {
                    "name": name,
                    "address": str(fleet.sockets.bound_address(binding)),
                    "drained": name in fleet.drained,
                }
                for (name, _index), binding in running.bindings.items()
            ],
            "workers": [
                {
                    "slot": worker.slot.number,
                    "pid": worker.pid,
                    "cpu": worker.slot.cpu,
                    "generation": worker.run.number,
                    "state": worker.state,
                    "connections": worker.connections,
                    "requests": worker.requests,
                    "requests_per_s": round(worker.requests_per_s, 1),
                    "memory_bytes": memory_of_one(worker.pid),
                    "uptime_s": round(monotonic() - worker.started_at, 3),
                }
                for worker in fleet.workers()
            ],
        }
