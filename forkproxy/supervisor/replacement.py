"""Replacing the worker of one slot on the operator's word: the new one serves before the old one drains."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from forkproxy import log
from forkproxy.supervisor.control_socket import Reply
from forkproxy.supervisor.exits import EXIT_FAILURE
from forkproxy.supervisor.fleet import Fleet
from forkproxy.supervisor.slot import Slot

_log = log.get_logger("supervisor")


@dataclass(eq=False, slots=True)
class _Exchange:
    slot: Slot
    before: int
    """The pid that is to go, 0 when there was none."""
    reply: Reply


class Replacement:
    """One at a time, and never during a roll-out: the supervisor sees to that by ``is_under_way``."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._exchange: _Exchange | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether a worker is being exchanged."""
        return self._exchange is not None

    def begin(self, number: int, reply: Reply, *, now: bool) -> None:
        """Replace the worker of slot ``number``. ``now``: kill it first, and what it serves breaks."""
        slot = next((slot for slot in self._fleet.lasting_slots() if slot.number == number), None)
        if slot is None:
            numbers = ", ".join(str(slot.number) for slot in self._fleet.lasting_slots())
            _refuse(reply, f"there is no slot {number} (there are: {numbers})")
            return
        if self._fleet.is_drained:
            _refuse(reply, "the listeners are drained: reload first")
            return
        current = slot.current
        self._exchange = _Exchange(slot, current.pid if current is not None else 0, reply)
        slot.respawn_at = slot.given_up = slot.quick_deaths = 0
        if current is None:
            return  # a dead worker's successor only waits for its time, which is now
        _log.info("replacing a worker", slot=number, worker=current.pid, how="killed" if now else "drained")
        if now:
            current.signal(signal.SIGKILL)
            return
        try:
            slot.successor = self._fleet.spawn(slot, slot.run)
        except OSError as error:
            self.fail(slot, f"no worker could be forked: {error.strerror}")

    def advance(self) -> None:
        """Do what can be done now."""
        exchange, fleet = self._exchange, self._fleet
        if exchange is None:
            return
        slot = exchange.slot
        if slot.successor is not None and slot.successor.ready:
            before = slot.promote()
            if before is not None:
                fleet.drain_for(slot.run, before)
        current = slot.current
        if current is not None and current.ready and current.pid != exchange.before:
            self._exchange = None
            exchange.reply({"ok": True, "pid": current.pid, "before": exchange.before})
        elif slot.given_up:
            self.fail(slot, "the new worker cannot start: the log says why")

    def fail(self, slot: Slot, reason: str) -> bool:
        """The new worker of ``slot`` will not serve; the old one stays. False: none was being replaced there."""
        exchange = self._exchange
        if exchange is None or exchange.slot is not slot:
            return False
        self._exchange = None
        _log.error("worker not replaced", slot=slot.number, reason=reason)
        _refuse(exchange.reply, reason)
        return True

    def cancel(self) -> None:
        """The supervisor stops: whoever waits is told so."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            _refuse(exchange.reply, "stopping")


def _refuse(reply: Reply, reason: str) -> None:
    reply({"ok": False, "reason": reason, "exit": EXIT_FAILURE})
