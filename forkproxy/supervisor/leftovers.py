"""What a killed supervisor leaves under systemd: its workers, which drain while the next supervisor serves already.

They go by themselves. One that stands still does not, and the kernel would go on giving its listening sockets their share of the
new connections. So the next supervisor holds whoever it finds in its service's cgroup, and ends who is left after the drain
time. Only as the process that systemd itself started, see systemd.exec(5): elsewhere other programs share a cgroup.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Mapping

from forkproxy import log

_log = log.get_logger("supervisor")


def end_later(
    call_later: Callable[[float, Callable[[], None]], object],
    after_s: float,
    *,
    environment: Mapping[str, str] = os.environ,
    processes: str = "/proc",
) -> int:
    """Find them, and have ``call_later`` end who is left ``after_s`` from now; returns how many there are.

    To be called before there is a process of our own.
    """
    if environment.get("SYSTEMD_EXEC_PID") != str(os.getpid()):
        return 0
    held = _hold(processes)
    if held:
        _log.info("workers of a supervisor before this one still drain", workers=len(held), at_most_s=after_s)
        call_later(after_s, lambda: _end(held))
    return len(held)


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


def _end(held: dict[int, int]) -> None:
    for pid, descriptor in held.items():
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            _log.warning("ended a worker that a supervisor before this one left", worker=pid)
        except ProcessLookupError:
            pass
        except OSError as error:
            _log.error(
                "a worker that a supervisor before this one left cannot be ended", worker=pid, reason=error.strerror
            )
        finally:
            os.close(descriptor)
