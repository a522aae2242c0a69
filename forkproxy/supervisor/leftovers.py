"""What a killed supervisor leaves under systemd: its workers, which drain while the next supervisor serves already.

They stop listening at once and go when they are done. One that stands still does neither, and no other supervisor could have its
ports. So the next one holds whoever it finds in its service's cgroup, ends at once who goes on listening, and after the drain
time who is left. Only as the process that systemd itself started, see systemd.exec(5): elsewhere other programs share a cgroup.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Mapping
from time import monotonic

from forkproxy import log

PATIENCE_S = 1.0
"""How long a worker may take to notice that its supervisor is gone, and to stop listening."""

_log = log.get_logger("supervisor")


class Leftovers:
    """To be made before there is a process of our own. ``pids``: who was found."""

    def __init__(self, environment: Mapping[str, str] = os.environ, processes: str = "/proc") -> None:
        is_main = environment.get("SYSTEMD_EXEC_PID") == str(os.getpid())
        self._held = _hold(processes) if is_main else {}
        self.pids = sorted(self._held)

    def make_way(self, wait: Callable[[float], None], patience_s: float = PATIENCE_S) -> None:
        """Return when none of them listens any more; ``wait(seconds)`` passes the time until then."""
        deadline = monotonic() + patience_s
        while listening := [pid for pid in self._held if _listens(pid)]:
            if monotonic() > deadline:
                for pid in listening:
                    _kill(pid, self._held[pid], "it still listens")
                deadline = monotonic() + patience_s
            wait(0.02)

    def end_later(self, call_later: Callable[[float, Callable[[], None]], object], after_s: float) -> None:
        """Have ``call_later`` end who is left ``after_s`` from now."""
        if self._held:
            _log.info("workers of a supervisor before this one still drain", workers=len(self._held), at_most_s=after_s)
            call_later(after_s, self._end)

    def close(self) -> None:
        """Let go of them."""
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held.clear()

    def _end(self) -> None:
        for pid, descriptor in self._held.items():
            _kill(pid, descriptor, "the drain time is over")
        self.close()


def _hold(processes: str) -> dict[int, int]:
    """Process id → pidfd of everybody else in our cgroup."""
    ours = _cgroup_of(processes, "self")
    held: dict[int, int] = {}
    for name in os.listdir(processes):
        if name.isdecimal() and int(name) != os.getpid() and ours and _cgroup_of(processes, name) == ours:
            with contextlib.suppress(ProcessLookupError):
                descriptor = os.pidfd_open(int(name))
                # Looked at again: the number may have been given to another one meanwhile.
                if _cgroup_of(processes, name) == ours:
                    held[int(name)] = descriptor
                else:
                    os.close(descriptor)
    return held


def _cgroup_of(processes: str, name: str) -> str:
    try:
        with open(f"{processes}/{name}/cgroup") as file:
            return file.read()
    except OSError:
        return ""


def _listens(pid: int) -> bool:
    # Its import takes 20 ms, which only this rare start spends.
    import psutil

    try:
        return any(found.status == psutil.CONN_LISTEN for found in psutil.Process(pid).net_connections("tcp"))
    except psutil.Error:
        return False


def _kill(pid: int, descriptor: int, reason: str) -> None:
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        _log.warning("ended a worker that a supervisor before this one left", worker=pid, reason=reason)
    except ProcessLookupError:
        pass
    except OSError as error:
        _log.error("a worker that a supervisor before this one left cannot be ended", worker=pid, reason=error.strerror)
