"""A roll-out: the workers of one generation replace those of another, slot by slot.

A slot's new worker is forked on the same sockets; when it is ready, the old one drains; then comes the next slot. A new
worker that does not get ready stops the roll-out, and the slots that were done are rolled back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from forkproxy.supervisor.control_socket import Reply
from forkproxy.supervisor.generation_run import GenerationRun
from forkproxy.supervisor.slot import Slot, WorkerHandle

EXIT_FAILURE = 1
EXIT_NO_PERMISSION = 77
# 69 (cannot bind) and 78 (configuration refused) are a worker's own too: worker/worker.py.


class ConfigurationRefused(Exception):
    """The file cannot be used; the text is every problem as the operator should see it."""


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
