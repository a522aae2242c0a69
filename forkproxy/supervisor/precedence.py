"""Who goes first on a CPU: what nobody waits for goes behind the workers.

The kernel's SCHED_IDLE runs where others leave a CPU idle, and stops the moment one of them wakes up. A niceness does not: the
worker that has slept for a request's time waits until the other's turn is over, some milliseconds. But where nothing is left idle
it does not run at all, not even to change its mind; so it is for a process apart, which somebody else watches (``Watch``). Who
must not be kept from its work for long, as the supervisor, is nice for a while, and has some turns always (``giving_way``).

The way back from either needs a right (RLIMIT_NICE of 20 less the niceness, or CAP_SYS_NICE). Who has none uses SCHED_BATCH:
its turns come, and it does not displace others that run. (sched(7); linux, kernel/sched/syscalls.c:
user_check_sched_setscheduler.)
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

NICENESS = 10
"""Of work that goes behind the workers: where they leave a CPU no time, it gets a tenth of it.

With a quarter, a worker at 70 % of its CPU fell behind while a large file was read: 147 ms for every tenth request.
"""
LOOK_S = 0.5
LEAST_SHARE = 0.1
"""Who gets less of a CPU than this between two looks has been kept waiting for long enough."""
FIRST_LOOK_S = 0.02
FIRST_SHARE = 0.25
"""Who gets less of a CPU than this up to its first look at itself is one of many, and does not become nice: being nice to so many
was seen to keep one from all turns for two seconds."""
OWN_LOOK_S = 0.1
OWN_LEAST_SHARE = 0.05
"""Who is nice and gets less than this between two looks at itself has waited long enough. Of a CPU that one other needs for
itself it has a tenth."""
CAP_SYS_NICE = 23  # <linux/capability.h>

_STATUS = Path("/proc/self/status")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def giving_way(patience_s: float) -> Iterator[None]:
    """Inside, this process is nice to the others, once it has taken ``FIRST_LOOK_S``: work that is done by then is in nobody's
    way. After ``patience_s`` seconds, or where others leave it next to nothing, it is as before. Of a process that has a policy
    of its own already, nothing changes.

    Uses SIGALRM and the real-time timer; the main thread only.
    """
    policy = os.sched_getscheduler(0)
    if policy not in (os.SCHED_OTHER, os.SCHED_BATCH):
        yield
        return
    if not may_come_back():
        _schedule(0, os.SCHED_BATCH)
        try:
            yield
        finally:
            _schedule(0, policy)
        return

    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    is_nice = False
    end = monotonic() + patience_s
    spent = process_time()

    def look(_number: int, _frame: FrameType | None) -> None:
        nonlocal is_nice, spent
        now = process_time()
        least_s = OWN_LEAST_SHARE * OWN_LOOK_S if is_nice else FIRST_SHARE * FIRST_LOOK_S
        is_nice = now - spent >= least_s and monotonic() < end
        spent = now
        if not is_nice:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
        _be_nice(0, niceness + NICENESS if is_nice else niceness)

    handler = signal.signal(signal.SIGALRM, look)
    timer = signal.setitimer(signal.ITIMER_REAL, FIRST_LOOK_S, OWN_LOOK_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        _be_nice(0, niceness)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer)


def step_behind() -> None:
    """This process runs where others leave a CPU idle, until a ``Watch`` has it otherwise or to its end. It is nice, too, for
    then. Where none may have it otherwise, it is nice and its policy is SCHED_BATCH."""
    policy = os.SCHED_IDLE if may_come_back() else os.SCHED_BATCH
    _be_nice(0, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)
    _schedule(0, policy)


class Watch:
    """Over a process that has stepped behind: whether it gets on. ``look`` every ``LOOK_S`` seconds.

    It may run where others leave a CPU idle for ``patience_s`` seconds, or until it got next to nothing between two looks: then
    it has a tenth. For as long again, or until that is next to nothing as well: then it is no longer nice.
    """

    def __init__(self, pid: int, patience_s: float) -> None:
        self._pid = pid
        self._niceness = os.getpriority(os.PRIO_PROCESS, 0)
        self._patience_s = patience_s
        self._end = monotonic() + patience_s
        self._spent_s = 0.0
        self._is_behind = True

    def look(self) -> bool:
        """Whether to look again."""
        try:
            spent_s = cpu_seconds(self._pid)
        except OSError:  # it has ended
            return False
        got_on = spent_s - self._spent_s >= LEAST_SHARE * LOOK_S
        self._spent_s = spent_s
        if got_on and monotonic() < self._end:
            return True
        self._end = monotonic() + self._patience_s
        if self._is_behind:
            self._is_behind = False
            _schedule(self._pid, os.SCHED_BATCH)
            return True
        _be_nice(self._pid, self._niceness)
        return False


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far. OSError when it has gone or is hidden. (proc(5): stat, utime and stime)"""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def may_come_back() -> bool:
    """May this process leave SCHED_IDLE, and be less nice again than it will be, at the niceness that it has?"""
    if resource.getrlimit(resource.RLIMIT_NICE)[0] >= 20 - os.getpriority(os.PRIO_PROCESS, 0):
        return True
    with contextlib.suppress(OSError, ValueError):
        for line in _STATUS.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "CapEff":
                return bool(int(value, 16) >> CAP_SYS_NICE & 1)
    return False


def _schedule(pid: int, policy: int) -> None:
    with contextlib.suppress(OSError):  # a sandbox that forbids it, or no such process any more
        os.sched_setscheduler(pid, policy, os.sched_param(0))


def _be_nice(pid: int, niceness: int) -> None:
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, niceness)
