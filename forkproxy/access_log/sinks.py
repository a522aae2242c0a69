"""Where log lines go: files, and the process's own output.

A worker collects lines and writes them with one ``os.write`` when 64 KiB are together, or when the flush interval has
passed since the first of them. Files are opened with O_APPEND, in every worker by itself, so that the lines of
several workers do not mix: a line is never divided between two writes, except by a disk that fills up in the middle
of it, and then the rest of that line follows first. A pipe takes what is no longer than PIPE_BUF in one piece or not at
all, so it is given whole lines of no more than that.

A pipe or terminal whose reader is slow never stops a worker: it is opened anew, without blocking.

A file that cannot be written never stops traffic: lines are dropped and counted, and the log says so at most every
ten seconds. Writing is tried again with the next lines, so that a disk that has room again needs no reopening.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from typing import Protocol

from forkproxy.config.build.core import Where
from forkproxy.config.problems import ConfigError
from forkproxy.log import get_logger
from forkproxy.stats.groups import FilesystemStats

FLUSH_BYTES = 64 * 1024
FLUSH_INTERVAL_S = 10.0
"""Envoy's --file-flush-interval-msec."""
MAX_BUFFERED_BYTES = 1024 * 1024
"""What is kept for an output that does not take it now (a pipe whose reader is slow). More is dropped."""
PIPE_BUF_BYTES = 4096
"""What a pipe takes in one piece, on Linux (pipe(7))."""
COMPLAINT_INTERVAL_S = 10.0
TOO_SLOW = "its reader is too slow"

_OUTPUTS = {"/dev/stdout": 1, "/dev/stderr": 2}

_log = get_logger("access_log")


class Timer(Protocol):
    """What ``Loop.call_later`` returns."""

    def cancel(self) -> None:
        """Not to be called any more."""


class Clock(Protocol):
    """The part of ``net.loop.Loop`` that a sink uses."""

    now: float

    def call_later(self, delay_s: float, callback: Callable[[], None], /) -> Timer:
        """Call once, later."""

    def call_soon(self, callback: Callable[[], None], /) -> None:
        """Call once, in this pass."""


def check_path(path: str, where: Where) -> None:
    """Raise ConfigError when ``path`` could not be opened for writing now.

    Nothing is created: the workers may run as another user.
    """
    if path in _OUTPUTS:
        return
    directory = os.path.dirname(path) or "."
    if os.path.isdir(path):
        reason = "Is a directory"
    elif not os.path.isdir(directory):
        reason = f"no directory {directory}"
    elif not os.access(path if os.path.exists(path) else directory, os.W_OK):
        reason = "Permission denied"
    else:
        return
    raise ConfigError(where.path, where.line, where.column, f"unable to open file '{path}': {reason}")


def _own_descriptor(output: int) -> int:
    """A descriptor for standard output or error that does not block. Setting that on ``output`` would reach everybody who
    shares it, the shell among them.
    """
    with contextlib.suppress(OSError):  # closed; another user's; or nobody reads it any more: writing tells
        if not stat.S_ISREG(os.fstat(output).st_mode):
            flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            return os.open(f"/proc/self/fd/{output}", flags)
    return output


def _is_pipe(fd: int) -> bool:
    with contextlib.suppress(OSError):
        return stat.S_ISFIFO(os.fstat(fd).st_mode)
    return False


class FileSink:
    """One file, or standard output or error. Made in the supervisor, opened by ``start`` in the worker."""

    __slots__ = (
        "_clock",
        "_complained_at",
        "_counted",
        "_fd",
        "_is_pipe",
        "_lines",
        "_rest",
        "_size",
        "_timer",
        "flush_interval_s",
        "lines_dropped",
        "path",
        "stats",
    )

    def __init__(
        self, path: str, *, flush_interval_s: float = FLUSH_INTERVAL_S, stats: FilesystemStats | None = None
    ) -> None:
        self.path = path
        self.flush_interval_s = flush_interval_s
        self.lines_dropped = 0
        self.stats = stats if stats is not None else FilesystemStats()
        self._counted = 0  # of the lines that wait: how many are in write_buffered
        self._lines: list[bytes] = []
        self._rest = b""  # what a full disk or pipe did not take, from the middle of a line on
        self._size = 0
        self._fd = -1
        self._is_pipe = False
        self._clock: Clock | None = None
        self._timer: Timer | None = None
        self._complained_at = -COMPLAINT_INTERVAL_S

    def __repr__(self) -> str:
        state = "open" if self._fd >= 0 else "closed"
        return f"<FileSink {self.path} {state}, {self._size} bytes waiting, {self.lines_dropped} lines dropped>"

    def start(self, clock: Clock) -> None:
        """Open the file; ``clock`` is the worker's loop.

        A file that cannot be opened is complained about and tried again by ``reopen``.
        """
        self._clock = clock
        self._open()
        if self._lines:
            self._schedule()

    def write(self, line: bytes) -> None:
        """Take one line (with its line end). Written later; before ``start`` it only waits."""
        lines = self._lines
        if not lines:
            self._schedule()
        lines.append(line)
        self._size += len(line)
        if self._size >= FLUSH_BYTES:
            self.flush()

    def sync_stats(self) -> int:
        """Count what was written since the last time, which is not done on the path; returns how many bytes wait."""
        self.stats.write_buffered += len(self._lines) - self._counted
        self._counted = len(self._lines)
        return self._size + len(self._rest)

    def _on_timer(self) -> None:
        self.stats.flushed_by_timer += 1
        self.flush()

    def _schedule(self) -> None:
        clock = self._clock
        if clock is None or self._timer is not None:
            return
        if self.path in _OUTPUTS:
            # Somebody may be watching: at the end of the pass.
            clock.call_soon(self.flush)
        else:
            self._timer = clock.call_later(self.flush_interval_s, self._on_timer)

    def flush(self) -> None:
        """Write what waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._lines and not self._rest:
            return
        if self._clock is None:
            self._drop_excess()
            return
        self.sync_stats()
        self._counted = 0
        data = self._rest + b"".join(self._lines)
        self._rest = b""
        self._lines = []
        self._size = 0
        written = 0
        try:
            while written < len(data):
                # A short write is rare: a disk that fills, a terminal, a signal. The next one tells which.
                end = _end_of_piece(data, written) if self._is_pipe else len(data)
                written += os.write(self._fd, data[written:end])
                self.stats.write_completed += 1
        except BlockingIOError:
            self._keep(data[written:])
        except OSError as error:
            self._fail(data, written, error)

    def _keep(self, data: bytes) -> None:
        # Only a pipe or a terminal comes here: try again with the next flush.
        if len(data) > MAX_BUFFERED_BYTES:
            kept = data.find(b"\n", MAX_BUFFERED_BYTES) + 1 or len(data)
            self._drop(data[kept:], TOO_SLOW)
            data = data[:kept]
        self._rest = data
        if self._clock is not None:
            self._timer = self._clock.call_later(0.1, self.flush)

    def _fail(self, data: bytes, written: int, error: OSError) -> None:
        self.stats.write_failed += 1
        dropped = data[written:]
        if written and not data[:written].endswith(b"\n"):
            # The file ends in the middle of a line: its rest goes first when writing works again.
            end = dropped.find(b"\n") + 1 or len(dropped)
            self._rest, dropped = dropped[:end], dropped[end:]
        self._drop(dropped, error.strerror or str(error))

    def _drop_excess(self) -> None:
        # Not started: nobody has a file open yet.
        if self._size > MAX_BUFFERED_BYTES:
            self._drop(b"".join(self._lines), "it was never opened")
            self.sync_stats()
            self._counted = 0
            self._lines = []
            self._size = 0

    def _drop(self, data: bytes, reason: str) -> None:
        self.lines_dropped += data.count(b"\n")
        self._complain("access log lines dropped", reason)

    def _complain(self, event: str, reason: str) -> None:
        now = self._clock.now if self._clock is not None else 0.0
        if now - self._complained_at >= COMPLAINT_INTERVAL_S:
            self._complained_at = now
            _log.error(event, path=self.path, reason=reason, lines_dropped=self.lines_dropped, hint=_hint_for(reason))

    def _open(self) -> bool:
        output = _OUTPUTS.get(self.path)
        if output is not None:
            if self._fd < 0:
                self._fd = _own_descriptor(output)
                self._is_pipe = _is_pipe(self._fd)
            return True
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(self.path, flags, 0o644)
        except OSError as error:
            self.stats.reopen_failed += 1
            self._complain("access log not opened", error.strerror or str(error))
            return False
        self._is_pipe = _is_pipe(fd)
        old, self._fd = self._fd, fd
        if old >= 0:
            os.close(old)
        return True

    def reopen(self) -> None:
        """Write what waits to the old file and go on with whatever ``path`` names now (log rotation).

        On error the old one stays.
        """
        self.flush()
        if self._clock is not None:
            self._open()

    def close(self) -> None:
        """Write what waits and close."""
        self.flush()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._fd >= 0 and self._fd != _OUTPUTS.get(self.path):
            os.close(self._fd)
        self._fd = -1
        self._clock = None


def _hint_for(reason: str) -> str:
    if reason in (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT)):
        return "requests go on without their lines; make room, and writing goes on by itself"
    if reason == TOO_SLOW:
        return "requests go on without their lines; see who reads it"
    return "requests go on without their lines; when it can be opened, SIGUSR1 opens it again"


def _end_of_piece(data: bytes, start: int) -> int:
    # As many whole lines as a pipe takes at once; a line that is longer than that goes in pieces.
    end = start + PIPE_BUF_BYTES
    if end >= len(data):
        return len(data)
    return data.rfind(b"\n", start, end) + 1 or end


class Sinks:
    """All sinks of a generation, one per path: two logs of one file share it."""

    __slots__ = ("_by_path", "flush_interval_s", "stats")

    def __init__(self, *, flush_interval_s: float = FLUSH_INTERVAL_S, stats: FilesystemStats | None = None) -> None:
        self._by_path: dict[str, FileSink] = {}
        self.flush_interval_s = flush_interval_s
        self.stats = stats if stats is not None else FilesystemStats()

    def get(self, path: str, where: Where) -> FileSink:
        """The sink of ``path``. Raises ConfigError when the path cannot be written to."""
        sink = self._by_path.get(path)
        if sink is None:
            check_path(path, where)
            sink = FileSink(path, flush_interval_s=self.flush_interval_s, stats=self.stats)
            self._by_path[path] = sink
        return sink

    @property
    def paths(self) -> list[str]:
        """The files, without standard output and error."""
        return [path for path in self._by_path if path not in _OUTPUTS]

    def sync_stats(self) -> None:
        """Bring ``filesystem.*`` up to date."""
        self.stats.write_total_buffered = sum([sink.sync_stats() for sink in self._by_path.values()])

    def on_lost_log_line(self) -> None:
        """A line of the program's own log could not be written: it counts like one of an access log, as in Envoy."""
        self.stats.write_failed += 1

    def start(self, clock: Clock) -> None:
        """Open every file, in the worker."""
        for sink in self._by_path.values():
            sink.start(clock)

    def reopen(self) -> None:
        """For SIGUSR1."""
        for sink in self._by_path.values():
            sink.reopen()

    def flush(self) -> None:
        """Write what waits."""
        for sink in self._by_path.values():
            sink.flush()

    def close(self) -> None:
        """Write what waits and close every file."""
        for sink in self._by_path.values():
            sink.close()
