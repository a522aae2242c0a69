"""Reloading: a roll-out, in which the workers of one generation replace those of another, slot by slot.

A slot's new worker is forked on the same sockets; when it is ready, the old one drains; then comes the next slot. A new
worker that does not get ready stops the roll-out, and the slots that were done are rolled back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from forkproxy import log
from forkproxy.supervisor.apart import Apart
from forkproxy.supervisor.control_socket import Reply
from forkproxy.supervisor.exits import EXIT_FAILURE, ConfigurationRefused, exit_of, first_line
from forkproxy.supervisor.generation_run import GenerationRun
from forkproxy.supervisor.listening import CannotBind
from forkproxy.supervisor.old_generations import cut_off, old_generations
from forkproxy.supervisor.precedence import LOOK_S
from forkproxy.supervisor.slot import Slot, WorkerHandle
from forkproxy.worker.worker import EXIT_CANNOT_BIND, EXIT_CANNOT_BUILD

if TYPE_CHECKING:
    from forkproxy.supervisor.supervisor import Supervisor

_log = log.get_logger("supervisor")


@dataclass(eq=False, slots=True)
class RollOut:
    """``before`` is what runs should ``target`` fail. ``is_back``: this is the way back already."""

    target: GenerationRun
    before: GenerationRun
    reply: Reply | None = None
    is_back: bool = False

    def advance(
        self,
        slots: Iterable[Slot],
        spawn: Callable[[Slot, GenerationRun], WorkerHandle],
        drain: Callable[[WorkerHandle], None],
    ) -> bool:
        """Do what can be done now; True when every slot runs the target."""
        for slot in slots:
            if slot.run is self.target or slot.retiring:
                continue
            if slot.successor is None:
                slot.successor = spawn(slot, self.target)
                return False
            if not slot.successor.ready:
                return False
            before = slot.promote()
            if before is not None:
                drain(before)
        return True


class Reloads:
    """Begins, advances and ends the supervisor's roll-outs; there is one at a time."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.last_refusal = ""
        """Why the last reload was refused; "" after one that was not."""
        self.refused_at = datetime.now(UTC)
        """When it was."""
        self._supervisor = supervisor
        self._fleet = supervisor.fleet
        self._generations = supervisor.generations
        self._roll_out: RollOut | None = None
        self._reading: Apart[Any] | None = None
        self._reply: Reply | None = None
        """Whoever waits for what is being read."""

    @property
    def is_under_way(self) -> bool:
        """Whether generations are being exchanged, or one is being read that will be."""
        return self._roll_out is not None or self._reading is not None

    @property
    def is_reading(self) -> bool:
        """Whether there is a process that reads, and that nobody has reaped."""
        return self._reading is not None and not self._reading.has_ended

    def begin(self, reply: Reply | None) -> None:
        """Load the file again. ``reply`` gets the verdict, when the last worker has been replaced or at the first problem."""
        self._supervisor.notifier.reloading()
        _log.info("reloading", path=self._supervisor.options.config_path)
        self._reading = self._supervisor.begin_to_load()
        if self._reading is None:
            self._begin_roll_out(reply)
        else:
            self._reply = reply
            self._look_later(self._reading)

    def _look_later(self, reading: Apart[Any]) -> None:
        self._supervisor.loop.call_later(LOOK_S, partial(self._look, reading))

    def _look(self, reading: Apart[Any]) -> None:
        if reading is self._reading and reading.look():
            self._look_later(reading)

    def on_gone(self, pid: int, code: int) -> bool:
        """A process has ended: whether it was the one that reads."""
        if self._reading is None or self._reading.pid != pid:
            return False
        self._reading.on_gone(code)
        return True

    def _begin_roll_out(self, reply: Reply | None) -> None:
        supervisor, fleet, generations = self._supervisor, self._fleet, self._generations
        try:
            run = generations.make()
        except ConfigurationRefused as refused:
            self._refuse(reply, str(refused), EXIT_CANNOT_BUILD)
            return
        try:
            fleet.bind(run)
            run.admin_socket = supervisor.admin.bind(run.bootstrap.admin.address)
        except CannotBind as error:
            fleet.close_what_is_gone()
            generations.give_up_newest()
            self._refuse(reply, str(error), exit_of(error))
            return
        self._roll_out = RollOut(run, before=generations.running, reply=reply)
        supervisor.tend([generations.running, run])

    def advance(self, now: float) -> None:
        """Do what can be done now."""
        if self._reading is not None and self._reading.has_ended:
            self._reading = None
            reply, self._reply = self._reply, None
            self._begin_roll_out(reply)
        roll_out, fleet = self._roll_out, self._fleet
        if roll_out is None or not roll_out.target.is_warm(now):
            return
        try:
            is_done = roll_out.advance(fleet.lasting_slots(), fleet.spawn, partial(fleet.drain_for, roll_out.target))
        except OSError as error:
            self.fail(f"no worker could be forked: {error.strerror}", EXIT_FAILURE)
            return
        # Who asks for a reload, and then connects, is to meet the new generation: an old worker may be accepting still.
        if is_done and not any(worker.draining and worker.accepts for worker in fleet.workers()):
            self._roll_out = None
            self._finish(roll_out)

    def fail(self, reason: str, code: int) -> None:
        """The roll-out cannot go on: roll back. ``code``: the exit code of the worker that did not get ready."""
        roll_out, self._roll_out = self._roll_out, None
        if roll_out is None:
            return
        if roll_out.is_back:
            _log.error("the way back failed too: generations are mixed until the next reload", reason=reason)
            return
        self._generations.give_up_newest()
        self._supervisor.tend([roll_out.before])
        if roll_out.target.admin_socket is not None:
            roll_out.target.admin_socket.close()
        self._refuse(roll_out.reply, reason, code if code in (EXIT_CANNOT_BUILD, EXIT_CANNOT_BIND) else EXIT_FAILURE)
        if any(slot.run is roll_out.target for slot in self._fleet.slots):
            self._roll_out = RollOut(roll_out.before, before=roll_out.before, is_back=True)
        else:
            self._fleet.close_what_is_gone()

    def cancel(self) -> None:
        """The supervisor stops: whoever waits for the verdict is told so."""
        roll_out, self._roll_out = self._roll_out, None
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.kill()
        reply, self._reply = (self._reply if roll_out is None else roll_out.reply), None
        if reply is not None:
            reply({"ok": False, "reason": "stopping", "exit": EXIT_FAILURE})

    def _finish(self, roll_out: RollOut) -> None:
        supervisor, fleet, run = self._supervisor, self._fleet, roll_out.target
        before = self._generations.running
        self._generations.put_in_force(run)
        supervisor.tend([run])
        if not roll_out.is_back:
            fleet.drained.clear()
        fleet.close_what_is_gone()
        if roll_out.is_back:
            _log.warning("rolled back", generation=run.number)
            return
        self.last_refusal = ""
        supervisor.on_generation(before)
        cut_off(old_generations(fleet.workers(), run), supervisor.options.max_old_generations, monotonic())
        fleet.resize(len(fleet.placement(run).cpus))
        workers = len(fleet.lasting_slots())
        _log.info("reloaded", generation=run.number, workers=workers)
        supervisor.notifier.ready(supervisor.report.line())
        if roll_out.reply is not None:
            roll_out.reply({"ok": True, "generation": run.number, "workers": workers})

    def _refuse(self, reply: Reply | None, reason: str, code: int) -> None:
        self.last_refusal, self.refused_at = reason, datetime.now(UTC)
        _log.error("reload refused; the old configuration stays", reason=first_line(reason))
        self._supervisor.notifier.ready(self._supervisor.report.line())
        if reply is not None:
            number = self._generations.running.number
            reply({"ok": False, "reason": reason, "exit": code, "generation": number})
