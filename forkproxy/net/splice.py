"""Bytes from one raw socket to another without passing through Python: ``os.splice`` by way of a pipe.

A ``Splice`` is one direction between two connections, as an addition to copying and never instead of it: it may decline
any read, and the bytes are then received and written as ever.

Rules
- The order of bytes: what is in the pipe leaves before what is in ``sink.out``, and while ``sink.out`` holds bytes nothing
  enters the pipe. So either way of reading may follow the other at any time.
- ``sink.out_bytes`` counts the pipe's bytes as well: watermarks, half-close, flushing and closing need not know of pipes.
- A pipe is held only while bytes are in it; an idle connection has none. No pipe to be had (descriptors, the user's limit of
  pipe memory, our own bound) means copying.
- A full pipe is a high watermark, whatever the connection's own: nothing is gained by copying behind a full pipe.
- Bytes in the pipe of a connection that ends are lost with it, like those of ``out``; such a pipe is not used again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from os import SPLICE_F_NONBLOCK, splice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from forkproxy.net.connection import Connection
    from forkproxy.net.timers import Timers

PIPE_BYTES = 1024 * 1024
"""The capacity asked for: the most that a user without privileges may have (/proc/sys/fs/pipe-max-size)."""
MINIMUM_PIPE_BYTES = 65536
"""A smaller pipe is no gain over copying. Beyond the user's soft limit the kernel makes pipes of 8 KiB."""
MAX_PIPES = 48
"""Of one loop, in use and idle. Unprivileged users have 64 MiB of pipes on the whole machine before they become small."""
MAX_IDLE_PIPES = 16
IDLE_S = 5.0
"""After so long without a transfer the idle pipes are closed: a quiet worker holds no descriptors for nothing."""
RETRY_S = 1.0
"""After a pipe could not be made, none is tried for this long: each reading would fail again."""

NO_END = 1 << 62
WORTH_BYTES = 131072
"""Where the end is known: less than this is not worth a pipe."""

THIN_BYTES = 16384
THIN_READS = 4
"""So many reads in a row of less than THIN_BYTES end the splicing: two system calls and a pipe for what one copy does."""

_NOT_SUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})


class Pipe:
    """Both ends of a non-blocking pipe and the bytes it takes. Raises OSError when there are no descriptors."""

    __slots__ = ("capacity", "read_fd", "write_fd")

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # PermissionError: beyond the user's limit; it stays as it was made
            fcntl.fcntl(self.write_fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self.capacity: int = fcntl.fcntl(self.write_fd, fcntl.F_GETPIPE_SZ)

    def close(self) -> None:
        """Give the descriptors back, with whatever is in the pipe."""
        os.close(self.read_fd)
        os.close(self.write_fd)


class PipePool:
    """The pipes of a loop: made when needed, at most MAX_PIPES, kept for the next while empty.

    ``now`` is the loop's.
    """

    __slots__ = ("_idle", "_idle_timer", "_retry_at", "in_use")

    def __init__(self, timers: Timers) -> None:
        self._idle: list[Pipe] = []
        self._idle_timer = timers.timer(self.close)
        self._retry_at = 0.0
        self.in_use = 0

    def take(self, now: float) -> Pipe | None:
        """An empty pipe, or None when there is none to be had."""
        if self._idle:
            self.in_use += 1
            return self._idle.pop()
        if self.in_use >= MAX_PIPES or now < self._retry_at:
            return None
        try:
            pipe = Pipe()
        except OSError:
            self._retry_at = now + RETRY_S
            return None
        if pipe.capacity < MINIMUM_PIPE_BYTES:
            pipe.close()
            self._retry_at = now + RETRY_S
            return None
        self.in_use += 1
        return pipe

    def give(self, pipe: Pipe, now: float) -> None:
        """Back, empty."""
        self.in_use -= 1
        self._idle_timer.arm(now + IDLE_S)
        if len(self._idle) < MAX_IDLE_PIPES:
            self._idle.append(pipe)
        else:
            pipe.close()

    def discard(self, pipe: Pipe) -> None:
        """Back, with bytes that nobody will have."""
        self.in_use -= 1
        pipe.close()

    def close(self) -> None:
        """Close the idle pipes."""
        for pipe in self._idle:
            pipe.close()
        self._idle.clear()


class Splice:
    """One direction: ``source`` is read by ``read``, through ``Connection.read_by``; ``sink`` sends by ``pour``.

    ``on_moved(size)`` is told of bytes that were read past Python. ``sink.on_above_high_watermark`` must pause the source.
    """

    __slots__ = ("_on_moved", "_pipe", "_pool", "_sink", "_source", "_thin", "left", "piped")

    def __init__(self, source: Connection, sink: Connection, on_moved: Callable[[int], None]) -> None:
        self._source = source
        self._sink = sink
        self._on_moved = on_moved
        self._pool = source.loop.pipes
        self._pipe: Pipe | None = None
        self._thin = 0
        self.piped = 0
        """Bytes in the pipe: read from the source and not yet sent."""
        self.left = NO_END
        """So many bytes may be taken; what follows them in the source is somebody else's. Whoever copies counts it down."""

    def start(self) -> None:
        """Read the source this way from its next readiness on."""
        self._thin = 0
        self._sink.inflow = self
        self._source.read_by(self.read)

    def read(self, size: int) -> bytes | None:
        """Take ``source.sock.recv``'s place: None when bytes went into the pipe or none came, bytes where copying is due."""
        source, sink = self._source, self._sink
        if sink.out_bytes > self.piped or sink.closing or sink.closed or sink.end_sent or source.closing:
            # Bytes in user space leave first; and bytes that the sink takes no more are read and dropped, as ever.
            return source.sock.recv(size)
        pipe = self._pipe
        if pipe is None:
            pipe = self._pool.take(source.loop.now)
            if pipe is None:
                return source.sock.recv(size)
            self._pipe = pipe
        # As much as copying reads at once may be taken over a lower mark, as copying does.
        limit = min(pipe.capacity, max(sink.high_watermark, size))
        try:
            moved = splice(source.fd, pipe.write_fd, min(limit - self.piped, self.left), flags=SPLICE_F_NONBLOCK)
        except BlockingIOError:
            # No bytes, or no room: every small segment takes a whole slot of the pipe. recv knows which it is.
            self._give_back_if_empty()
            return source.sock.recv(size)
        except OSError as error:
            self._give_back_if_empty()
            if error.errno not in _NOT_SUPPORTED:
                raise
            self._stop()
            return source.sock.recv(size)
        if not moved:
            # The end of data, or no room for an owner that does not pause, or bytes that cannot be spliced: recv knows.
            self._give_back_if_empty()
            return source.sock.recv(size)
        self.piped += moved
        self.left -= moved
        if not self.left:
            self._stop()  # before anybody is told: the source may have another reader then
        source.bytes_received += moved
        sink.count_piped(moved)
        if self.piped >= limit:
            sink.above_high_watermark()
        self._on_moved(moved)
        if moved >= THIN_BYTES or not self.left:
            self._thin = 0
        else:
            self._thin += 1
            if self._thin >= THIN_READS:
                self._stop()
        return None

    def _stop(self) -> None:
        # What is in the pipe leaves all the same: the sink goes on to pour.
        self._source.read_by(None)

    def pour(self) -> int:
        """Send from the pipe to the sink once; how many bytes went. Raises OSError as ``send`` does."""
        pipe = self._pipe
        assert pipe is not None
        # Exactly what is in the pipe: asked for more, the kernel would hold back the last segment for what it thinks follows.
        sent = splice(pipe.read_fd, self._sink.fd, self.piped, flags=SPLICE_F_NONBLOCK)
        self.piped -= sent
        self._give_back_if_empty()
        if not self.left and not self.piped:
            self._sink.inflow = None  # an idle connection keeps nothing of a message that has left
        return sent

    def low_watermark(self) -> int:
        """At how many bytes left the source may be read again."""
        capacity = PIPE_BYTES if self._pipe is None else self._pipe.capacity
        return min(self._sink.high_watermark, capacity) // 2

    def _give_back_if_empty(self) -> None:
        if not self.piped and self._pipe is not None:
            self._pool.give(self._pipe, self._sink.loop.now)
            self._pipe = None

    def discard(self) -> None:
        """The sink is gone: so are the bytes in the pipe."""
        if self._pipe is not None:
            self._pool.discard(self._pipe)
            self._pipe = None
        self.piped = 0
        if self.left:
            self._source.read_by(None)
