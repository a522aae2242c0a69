"""Who goes first on a CPU: what nobody waits for goes behind the workers.

The kernel's SCHED_IDLE runs where others leave a CPU idle, and stops the moment one of them wakes up. A niceness does not: the
worker that has slept for a request's time waits until the other's turn is over, some milliseconds. But where nothing is left idle
work would wait for ever, so that this is for a while only; then follows SCHED_BATCH, whose turns come.

The way back from SCHED_IDLE needs a right (RLIMIT_NICE of 20 less the niceness, or CAP_SYS_NICE). Who has none uses SCHED_BATCH
from the beginning. (sched(7); linux, kernel/sched/syscalls.c: user_check_sched_setscheduler.)
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, process_time
from types import FrameType

LOOK_S = 0.5
LEAST_SHARE = 0.1
"""Who gets less of a CPU than this between two looks has been kept waiting for long enough."""
CAP_SYS_NICE = 23  # <linux/capability.h>

_STATUS = Path("/proc/self/status")


@contextlib.contextmanager
def giving_way(patience_s: float) -> Iterator[None]:
    """Inside, this process runs where others leave a CPU idle. After ``patience_s`` seconds, or half a second in which they have
    left next to nothing, it has turns, but does not displace others that run, as one would that has slept. Of a process that
    has a policy of its own already, nothing changes.

    Uses SIGALRM and the real-time timer; the main thread only.
    """
    before = os.sched_getscheduler(0)
    if before not in (os.SCHED_OTHER, os.SCHED_BATCH):
        yield
        return
    if not may_come_back():
        _schedule(os.SCHED_BATCH)
        try:
            yield
        finally:
            _schedule(before)
        return

    end = monotonic() + patience_s
    spent = process_time()

    def look(_number: int, _frame: FrameType | None) -> None:
        nonlocal spent
        now = process_time()
        if now - spent < LEAST_SHARE * LOOK_S or monotonic() >= end:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            _schedule(os.SCHED_BATCH)
        spent = now

    handler = signal.signal(signal.SIGALRM, look)
    _schedule(os.SCHED_IDLE)
    timer = signal.setitimer(signal.ITIMER_REAL, LOOK_S, LOOK_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        _schedule(before)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer)


def may_come_back() -> bool:
    """May this process leave SCHED_IDLE, at the niceness that it has?"""
    if resource.getrlimit(resource.RLIMIT_NICE)[0] >= 20 - os.getpriority(os.PRIO_PROCESS, 0):
        return True
    with contextlib.suppress(OSError, ValueError):
        for line in _STATUS.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "CapEff":
                return bool(int(value, 16) >> CAP_SYS_NICE & 1)
    return False


def _schedule(policy: int) -> None:
    with contextlib.suppress(OSError):  # a sandbox that forbids it
        os.sched_setscheduler(0, policy, os.sched_param(0))
