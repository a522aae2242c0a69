"""Keeping workers on their CPUs while the set of CPUs that may be used changes.

systemd's AllowedCPUs= and ``docker update --cpuset-cpus`` change the affinity mask of running processes. The kernel moves them
at once, but leaves a pin wherever it pleases: Linux before 6.2 gives every process of the group the whole set, and when the
set becomes larger again nothing goes back. So the supervisor, which is not pinned and sees the set as its own mask, looks at
its mask and at every worker's, and has workers pin themselves anew: a process may always do that for itself, whoever it runs
as, where the supervisor would need CAP_SYS_NICE. The number of workers stays what it is until a reload.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

from forkproxy import log
from forkproxy.supervisor.cpus import Placement, counted, ranges
from forkproxy.supervisor.slot import Slot, WorkerHandle

LOOK_INTERVAL_S = 0.5
"""Twice as often as the supervisor wakes without a reason: a change is followed within 1.5 s."""

_log = log.get_logger("supervisor")


class Pinning:
    """``place(count)`` chooses the CPUs of so many slots as things are now."""

    def __init__(self, place: Callable[[int], Placement]) -> None:
        self._place = place
        self._mask: frozenset[int] = frozenset()
        self._next_look = 0.0
        self._warned: tuple[str, ...] = ()
        self._strays: dict[int, int] = {}
        """How often a worker (by pid) was found where it should not be, in a row."""

    def warn(self, warnings: Sequence[str]) -> None:
        """Log what could not be had, each once for as long as it stays true."""
        for warning in warnings:
            if warning not in self._warned:
                _log.warning(warning)
        self._warned = tuple(warnings)

    def place(self, slots: Sequence[Slot]) -> None:
        """Give the slots their CPUs anew. Workers that are there follow with the next ``check``."""
        self._mask = frozenset(os.sched_getaffinity(0))
        placement = self._place(len(slots))
        for slot, cpu in zip(slots, placement.cpus, strict=True):
            slot.cpu = cpu
        self.warn(placement.warnings)

    def check(self, now: float, slots: Sequence[Slot], lasting: Sequence[Slot]) -> None:
        """Follow a change of the mask; put workers back where they belong. ``lasting``: those of ``slots`` that stay."""
        if now < self._next_look:
            return
        self._next_look = now + LOOK_INTERVAL_S
        mask = frozenset(os.sched_getaffinity(0))
        if mask != self._mask:
            is_first = not self._mask
            self._mask = mask
            if not is_first:
                self.place(lasting)
                _log.info("CPUs changed", cpus=ranges(mask), workers=counted(len(lasting)))
        workers = [worker for slot in slots for worker in slot.workers() if worker.ready]
        for worker in workers:
            self._put_back(worker)
        self._forget(workers)

    def _put_back(self, worker: WorkerHandle) -> None:
        cpu = worker.slot.cpu
        wanted = {cpu} if cpu in self._mask else self._mask
        try:
            has = os.sched_getaffinity(worker.pid)
        except OSError:
            return  # it has just ended
        if has == wanted:
            self._strays.pop(worker.pid, None)
            return
        times = self._strays[worker.pid] = self._strays.get(worker.pid, 0) + 1
        if times == 4:
            _log.warning(
                "a worker does not stay on its CPU",
                slot=worker.slot.number,
                worker=worker.pid,
                wanted=ranges(wanted),
                has=ranges(has),
            )
        worker.channel.send({"op": "pin", "cpus": sorted(wanted)})

    def _forget(self, workers: Iterable[WorkerHandle]) -> None:
        if self._strays:
            pids = {worker.pid for worker in workers}
            self._strays = {pid: times for pid, times in self._strays.items() if pid in pids}
