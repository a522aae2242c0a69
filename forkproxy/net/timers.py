"""Timers whose re-arming is a number written, not a heap push.

A connection moves its deadline with every request, nearly always to a later time. So the heap keeps one entry per timer,
never later than its deadline; an entry that comes up early is pushed again at the true deadline. Moving a deadline forward
costs one attribute and one comparison.

A disarmed timer's entry stays until its time. ``cancel`` is for a timer that is done with: it lets go of the callback at once,
and when half of a large heap is cancelled the heap is swept. Without that, connections that live a second under an idle
timeout of an hour would stay in memory for the hour.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count

NEVER = float("inf")
SWEEP_MINIMUM = 1024
"""Fewer cancelled timers than this are not worth a sweep."""

_next_entry = count().__next__
"""Breaks ties in the heap: one timer may have two entries of the same deadline, and timers do not compare."""


class Timer:
    """One deadline on a loop's clock (seconds of ``loop.now``). ``deadline`` is NEVER while disarmed."""

    __slots__ = ("_heap", "_timers", "callback", "deadline", "entry_at")

    def __init__(self, timers: Timers, callback: Callable[[], None]) -> None:
        self._timers = timers
        self._heap = timers.heap
        self.callback = callback
        self.deadline = NEVER
        self.entry_at = NEVER

    def arm(self, deadline: float) -> None:
        """Fire at ``deadline``, whatever was asked before."""
        self.deadline = deadline
        if deadline < self.entry_at:
            stale = self.entry_at != NEVER
            self.entry_at = deadline
            heappush(self._heap, (deadline, _next_entry(), self))
            if stale:  # the entry at the later time is of no use any more
                self._timers.count_cancelled()

    def disarm(self) -> None:
        """Do not fire, until it is armed again."""
        self.deadline = NEVER

    def cancel(self) -> None:
        """Never fire again; the callback is let go."""
        self.deadline = NEVER
        if self.callback is not _nothing:
            self.callback = _nothing
            if self.entry_at != NEVER:
                self._timers.count_cancelled()


def _nothing() -> None:
    pass


class Timers:
    """All timers of a loop."""

    __slots__ = ("_cancelled", "heap")

    def __init__(self) -> None:
        self._cancelled = 0
        self.heap: list[tuple[float, int, Timer]] = []

    def timer(self, callback: Callable[[], None]) -> Timer:
        """A disarmed timer that will call ``callback()``."""
        return Timer(self, callback)

    def count_cancelled(self) -> None:
        """A timer with an entry was cancelled: sweep when that is half of them."""
        self._cancelled += 1
        heap = self.heap
        if self._cancelled < SWEEP_MINIMUM or self._cancelled * 2 < len(heap):
            return
        self._cancelled = 0
        kept: list[tuple[float, int, Timer]] = []
        for entry in heap:
            timer = entry[2]
            if timer.entry_at != entry[0]:
                continue
            if timer.deadline == NEVER:
                timer.entry_at = NEVER  # disarmed: arming it pushes anew
            else:
                kept.append(entry)
        heapify(kept)
        heap[:] = kept  # in place: timers and the loop hold this list

    def mark(self) -> int:
        """For ``run_due``: separates what is armed already from what callbacks will arm."""
        return _next_entry()

    def run_due(self, now: float, mark: int | None = None) -> None:
        """Call what is due at ``now``. A callback may arm and disarm any timer, also its own.

        What was armed after ``mark`` (default: this call) waits for the next call even when it is due: a timer that arms
        itself for now must not keep the pass from ending.
        """
        heap = self.heap
        if mark is None:
            mark = _next_entry()
        while heap and heap[0][0] <= now and heap[0][1] < mark:
            at, _, timer = heappop(heap)
            if timer.entry_at != at:
                continue  # a later entry of a timer that was armed earlier meanwhile
            timer.entry_at = NEVER
            deadline = timer.deadline
            if deadline <= now:
                timer.deadline = NEVER
                timer.callback()
            elif deadline != NEVER:
                timer.entry_at = deadline
                heappush(heap, (deadline, _next_entry(), timer))
