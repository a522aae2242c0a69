"""Signals become bytes in a pipe, and bytes become intentions.

The interpreter's C-level handler writes the signal's number to the pipe (``signal.set_wakeup_fd``); the Python-level
handlers do nothing. So a signal can neither interrupt the supervisor in the middle of a change nor be lost while it works.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

# What the operator wants, by signal. SIGCHLD only wakes: every pass reaps.
INTENTIONS: dict[int, str] = {
    signal.SIGTERM: "stop",
    signal.SIGINT: "stop",
    signal.SIGQUIT: "stop",
    signal.SIGHUP: "reload",
    signal.SIGUSR1: "reopen_logs",
    signal.SIGUSR2: "upgrade",
    signal.SIGWINCH: "drain_listeners",
    signal.SIGTTIN: "more_workers",
    signal.SIGTTOU: "fewer_workers",
}


class SignalPipe:
    """The self-pipe. ``fileno()`` becomes readable when a signal has come in; ``take()`` tells which."""

    __slots__ = ("_read_fd", "_write_fd")

    def __init__(self) -> None:
        self._read_fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def install(self) -> None:
        """Catch the signals of this process."""
        # A full pipe means that 65,536 signals wait already: one more changes nothing.
        signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for number in (*INTENTIONS, signal.SIGCHLD):
            signal.signal(number, _noted)
        if _has_terminal():
            # There it means that somebody has resized the window.
            signal.signal(signal.SIGWINCH, signal.SIG_IGN)

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._read_fd

    def take(self) -> list[int]:
        """The numbers of the signals since the last call, in order."""
        try:
            return list(os.read(self._read_fd, 4096))
        except BlockingIOError:
            return []

    def close(self) -> None:
        """Stop catching; signals are ignored from here to the end of the process."""
        signal.set_wakeup_fd(-1)
        for number in (*INTENTIONS, signal.SIGCHLD):
            signal.signal(number, signal.SIG_IGN if number != signal.SIGCHLD else signal.SIG_DFL)
        os.close(self._read_fd)
        os.close(self._write_fd)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _noted(_number: int, _frame: FrameType | None) -> None:
    """The byte is in the pipe already."""


def how_it_ended(code: int) -> str:
    """A process's exit code (negative: the signal that ended it) in words. Real-time signals have no names of their own."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
