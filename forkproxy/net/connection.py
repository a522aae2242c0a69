"""One socket with buffered writes, watermarks and half-close.

The only module, with net/tls.py and net/splice.py, that touches traffic sockets.

Rules
- Reads: one ``recv`` per readiness; the bytes go to ``on_data``. ``pause_reading`` stops that (watermarks, pipelining).
- Writes: ``write`` appends; one ``send`` at the end of the loop's pass. Only a refused or partial send asks for EPOLLOUT.
- Above the high watermark ``on_above_high_watermark`` is called once, below half of it ``on_below_low_watermark``.
- ``net/splice.py`` may read for a connection and write to it by way of a pipe, whose bytes count in ``out_bytes``.
- ``on_close(reason)`` is called exactly once, when the socket is given back, whoever closed it. After it no other call comes.
- The callbacks are slots, set by the owner. They are emptied on close, which breaks the cycles owner → connection → owner.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any

from forkproxy.net import address as addresses
from forkproxy.net import poller
from forkproxy.net.address import SocketAddress
from forkproxy.net.loop import Loop
from forkproxy.net.sockets import RawSocket
from forkproxy.net.timers import Timer

if TYPE_CHECKING:
    from forkproxy.net.splice import Splice

RECV_BYTES = 81920
"""What one read takes at most: more than 64 KiB, so that a body of just that, as servers and caches like to cut them, comes with
its head in one piece. The allocator takes it from the heap, not with mmap, which begins at 128 KiB."""
JOIN_BYTES = 16384
"""Up to here joining what waits costs less than handing its pieces to the kernel."""

_join = b"".join
SENDMSG_BUFFERS = 64
DEFAULT_BUFFER_LIMIT_BYTES = 1024 * 1024

READ = poller.READ
WRITE = poller.WRITE
HANG_UP = poller.ERROR | poller.HANG_UP

# Why a connection ended; what on_close is given.
REMOTE_CLOSE = "remote_close"
REMOTE_RESET = "remote_reset"
LOCAL_CLOSE = "local_close"
CONNECT_FAILURE = "connect_failure"
CONNECT_TIMEOUT = "connect_timeout"
TLS_FAILURE = "tls_failure"

CLOSE_TIMEOUT = TimeoutError(errno.ETIMEDOUT, "the peer did not take the rest, or did not end, in time")
"""The ``error`` of a connection whose ``close`` came to its ``timeout_s``."""

_next_id = count(1).__next__


def _ignore_data(_data: bytes) -> None:
    pass


def _ignore_close(_reason: str) -> None:
    pass


def _ignore() -> None:
    pass


def _read_nothing(_size: int) -> bytes | None:
    return None


class Connection:
    """A connected (or connecting) stream socket on a loop. Made by a listener or by ``connect``."""

    __slots__ = (
        "_above_high_watermark",
        "_close_timeout_s",
        "_detached",
        "_filter_state",
        "_lingering",
        "_mask",
        "_recv",
        "_send",
        "_sending",
        "_write_shut",
        "bytes_received",
        "bytes_sent",
        "close_timer",
        "closed",
        "closing",
        "end_received",
        "end_sent",
        "error",
        "fd",
        "half_close",
        "high_watermark",
        "id",
        "inflow",
        "local_address",
        "loop",
        "on_above_high_watermark",
        "on_below_low_watermark",
        "on_close",
        "on_connected",
        "on_data",
        "on_end",
        "out",
        "out_bytes",
        "preamble",
        "read_pauses",
        "remote_address",
        "requested_server_name",
        "session",
        "sock",
        "tls",
        "transport_failure_reason",
        "write_ended",
    )

    handshake_done_at = 0.0
    """When a TLS handshake was complete, in ``loop.now`` seconds."""

    def __init__(
        self,
        loop: Loop,
        sock: RawSocket,
        remote_address: SocketAddress,
        buffer_limit_bytes: int = DEFAULT_BUFFER_LIMIT_BYTES,
    ) -> None:
        self.loop = loop
        self.sock = sock
        self.fd = sock.fileno()
        self.id = _next_id()
        self.remote_address = remote_address
        self.local_address: SocketAddress | None = None
        self.tls: Any = None
        """The ``ssl.SSLObject`` of a TLS connection; None on raw connections."""
        self.requested_server_name = ""
        self.half_close = False
        """True: the peer's end of data is told by ``on_end`` and our side stays open. False: it closes the connection."""
        self.high_watermark = buffer_limit_bytes or (1 << 62)
        self.on_data: Callable[[bytes], None] = _ignore_data
        self.on_end: Callable[[], None] = _ignore
        self.on_close: Callable[[str], None] = _ignore_close
        self.on_connected: Callable[[], None] = _ignore
        self.on_above_high_watermark: Callable[[], None] = _ignore
        self.on_below_low_watermark: Callable[[], None] = _ignore
        self.preamble: Callable[[Connection], bytes] | None = None
        """Makes what is sent first of all when a connect has succeeded: a PROXY header."""
        self.session: Any = None
        """What the terminal filter has made for this connection: an HttpConnection, a TcpSession."""
        self._filter_state: dict[object, Any] | None = None
        self.out: list[bytes | memoryview] = []
        self.out_bytes = 0
        self.bytes_received = 0
        self.bytes_sent = 0
        self.read_pauses = 0
        """How many parties have asked not to read; reading goes on at 0."""
        self.closing = False
        self.closed = False
        self.write_ended = False
        """Nothing more is written: the connection closes, or has sent its end of data."""
        self.end_received = False
        self.end_sent = False
        self.error: OSError | None = None
        self.transport_failure_reason = ""
        self.close_timer: Timer | None = None
        self._sending = False  # already in loop.pending
        self._write_shut = False  # the peer has been sent our end of data
        self._above_high_watermark = False
        self._close_timeout_s = 0.0
        self._lingering = False  # closing, but not before the peer has ended too
        self._detached = True  # not known to the poller
        self._mask = 0
        self._recv: Callable[[int], bytes | None] = sock.recv
        self.inflow: Splice | None = None
        """What may hold bytes for this connection in a pipe, to be sent before those in ``out``."""
        self._send: Callable[[bytes | memoryview], int] = sock.send

    def __repr__(self) -> str:
        state = "closed" if self.closed else "closing" if self.closing else "open"
        peer = addresses.text(self.remote_address)
        return f"<{type(self).__name__} {self.id} fd={self.fd} {peer} {state} out={self.out_bytes}>"

    # -- starting

    def start(self) -> None:
        """Begin to read, unless reading is paused already. For a connection that was accepted."""
        self._set_mask(self._mask if self.read_pauses else self._mask | READ)

    def start_connecting(self) -> None:
        """Wait for the connect that was started on the socket; then ``on_connected`` or ``on_close(CONNECT_FAILURE)``."""
        self._mask = WRITE
        self._detached = False
        self.loop.register(self.fd, WRITE, self._on_connect_event)

    def _on_connect_event(self, _mask: int) -> None:
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.fail_connecting(code)
            return
        self._stands()

    def fail_connecting(self, code: int) -> None:
        """The connect has failed, with this errno."""
        self.error = OSError(code, errno.errorcode.get(code, str(code)))
        self._destroy(CONNECT_FAILURE)

    def connect_over(self, sock: RawSocket, remote_address: SocketAddress) -> None:
        """The connect has succeeded, perhaps on another socket than the one this was made with (net/happy_eyeballs.py)."""
        before = self.sock
        if sock is not before:
            self.loop.close_later(before)
            if self._recv == before.recv:
                self._recv = sock.recv
            if self._send == before.send:
                self._send = sock.send
            self.sock = sock
            self.fd = sock.fileno()
            self.remote_address = remote_address
        self._mask = WRITE
        self._detached = False
        if self.fd not in self.loop.handlers:
            self.loop.register(self.fd, WRITE, self._on_connect_event)
        self._stands()

    def _stands(self) -> None:
        # What goes before everything else, a TLS handshake too, fits the empty buffer of a socket that has just connected.
        if self.preamble is not None:
            first = self.preamble(self)
            try:
                is_sent = self.sock.send(first) == len(first)
            except OSError as error:
                self.fail_connecting(error.errno or errno.EPIPE)
                return
            if not is_sent:
                self.fail_connecting(errno.ENOBUFS)
                return
            self.bytes_sent += len(first)
        self._connected()

    def _connected(self) -> None:
        self.loop.handlers[self.fd] = self.on_event
        self._mask = READ if not self.read_pauses else 0
        self.loop.modify(self.fd, self._mask)
        if self.out_bytes or self.end_sent or self.closing:
            self._flush_soon()
        self.on_connected()

    @property
    def filter_state(self) -> dict[object, Any]:
        """What filters keep of this connection, by filter object; most keep nothing."""
        state = self._filter_state
        if state is None:
            state = self._filter_state = {}
        return state

    def local_socket_address(self) -> SocketAddress | None:
        """The local address; asked of the kernel the first time (accepting does not pay for it), ``on_close`` at the latest."""
        if self.local_address is None:
            with contextlib.suppress(OSError):
                self.local_address = addresses.normalise(self.sock.getsockname())
        return self.local_address

    # -- reading

    def on_event(self, mask: int) -> None:
        """The poller's event."""
        if mask & WRITE:
            self._on_writable()
            if mask == WRITE or self.closed:
                return
        if self.read_pauses:
            if mask & HANG_UP:
                self._on_hang_up_while_paused()
            return  # without a hang-up: readiness of this pass from before the pause
        # Into a variable first, here and elsewhere on the path: calling what stands in a slot as if it were a method costs more.
        recv = self._recv
        try:
            data = recv(RECV_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(error)
            return
        if data:
            self.bytes_received += len(data)
            on_data = self.on_data
            on_data(data)
        elif data is not None:
            self._on_end_of_data()

    def _on_hang_up_while_paused(self) -> None:
        # Level-triggered, a hang-up comes for ever. After the peer's end of data it is a reset, and so it is when the kernel has
        # no bytes from before it. Otherwise leave the poller until somebody wants to read them.
        if self.end_received or not self._may_have_data():
            self._fail(ConnectionResetError(errno.ECONNRESET, "ECONNRESET"))
        else:
            self.loop.unregister(self.fd)
            self._detached = True

    def _may_have_data(self) -> bool:
        if self.tls is not None:
            return True  # what was deciphered already
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def _on_end_of_data(self) -> None:
        self.end_received = True
        if self.closing:
            if self.out_bytes:
                self.pause_reading()  # the peer has ended but may still read: _flushed closes
            else:
                self._destroy(REMOTE_CLOSE if self._lingering else LOCAL_CLOSE)
        elif not self.half_close or (self.end_sent and not self.out_bytes):
            self._destroy(REMOTE_CLOSE)
        else:
            self.pause_reading()
            self.on_end()

    def _fail(self, error: OSError) -> None:
        self.error = error.with_traceback(None)  # its frames hold this connection
        self._destroy(LOCAL_CLOSE if self.closing else REMOTE_RESET)

    def read_by(self, read: Callable[[int], bytes | None] | None) -> None:
        """Call ``read(size)`` instead of the socket's ``recv``; None puts ``recv`` back.

        It returns and raises what ``recv`` does, or None when there is nothing for ``on_data``.
        """
        if not self.closed:
            self._recv = self.sock.recv if read is None else read

    def pause_reading(self) -> None:
        """Do not read until as many ``resume_reading`` calls have come as pauses."""
        self.read_pauses += 1
        if self.read_pauses == 1:
            self._set_mask(self._mask & ~READ)

    def resume_reading(self) -> None:
        """Take one pause back."""
        self.read_pauses -= 1
        if self.read_pauses == 0 and not self.closed:
            self._set_mask(self._mask | READ)

    def _set_mask(self, mask: int) -> None:
        if self.closed or (mask == self._mask and not self._detached):
            return
        self._mask = mask
        if self._detached:
            if mask:
                self._detached = False
                self.loop.register(self.fd, mask, self.on_event)
        elif self.loop.handlers.get(self.fd) == self.on_event:
            self.loop.modify(self.fd, mask)
        # else: still connecting; the mask is set when connected

    # -- writing

    def write(self, data: bytes) -> None:
        """Send ``data`` at the end of this pass. Ignored once the connection closes."""
        if self.write_ended:
            return
        self.out.append(data)
        self.out_bytes = size = self.out_bytes + len(data)
        if not self._sending:
            self._sending = True
            self.loop.pending.append(self)
        if size > self.high_watermark and not self._above_high_watermark:
            self._above_high_watermark = True
            self.on_above_high_watermark()

    def count_piped(self, size: int) -> None:
        """The inflow has ``size`` more bytes to send: as if they had been written."""
        self.out_bytes = total = self.out_bytes + size
        self._flush_soon()
        if total > self.high_watermark:
            self.above_high_watermark()

    def above_high_watermark(self) -> None:
        """Tell the owner, unless it knows, that no more is to come for now."""
        if not self._above_high_watermark:
            self._above_high_watermark = True
            self.on_above_high_watermark()

    def _flush_soon(self) -> None:
        if not self._sending:
            self._sending = True
            self.loop.pending.append(self)

    def flush(self) -> None:
        """Called by the loop at the end of a pass: one send of everything that was written."""
        # What nearly always happens, in one piece; the rest is told apart by _flush_or_wait.
        size = self.out_bytes
        if self._mask != READ or self.inflow is not None or size > JOIN_BYTES or not size or self._above_high_watermark:
            self._flush_or_wait()
            return
        self._sending = False
        out = self.out
        send = self._send
        try:
            sent = send(_join(out))
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._fail(error)
            return
        if sent != size:
            self._sent(sent)
            return
        self.bytes_sent += size
        out.clear()
        self.out_bytes = 0
        if self.write_ended:
            self._flushed()

    def _flush_or_wait(self) -> None:
        self._sending = False
        if self.closed:
            return
        if self._mask & WRITE and (self.out_bytes or not self.closing):
            if self.closing:
                self._set_mask(self._mask if not self.read_pauses else self._mask & ~READ)
                self._arm_close_timer(0)
            return  # connecting, or waiting for the kernel's buffer: _connected or _on_writable goes on
        self._flush()

    def _flush(self) -> None:
        out = self.out
        if self.inflow is not None and self.inflow.piped and not self._pour(self.inflow):
            return
        size = self.out_bytes
        if not size:
            self._flushed()
            return
        try:
            if size <= JOIN_BYTES:
                sent = self._send(_join(out))
            else:
                sent = self.sock.sendmsg(out[:SENDMSG_BUFFERS])
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._fail(error)
            return
        self._sent(sent)

    def _sent(self, sent: int) -> None:
        # The kernel has taken so many bytes of ``out``.
        self.bytes_sent += sent
        if sent == self.out_bytes:
            self.out.clear()
            self.out_bytes = 0
        else:
            self._drop_sent(sent)
            self._wait_for_room()
            if self.closing:
                self._arm_close_timer(sent)
        if self._above_high_watermark and self.out_bytes <= self.high_watermark // 2:
            self._above_high_watermark = False
            self.on_below_low_watermark()
        if not self.out_bytes and not self.closed:
            self._flushed()

    def _pour(self, inflow: Splice) -> bool:
        # True: the pipe is empty.
        try:
            sent = inflow.pour()
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._fail(error)
            return False
        self.bytes_sent += sent
        self.out_bytes -= sent
        if self._above_high_watermark and self.out_bytes <= inflow.low_watermark():
            self._above_high_watermark = False
            self.on_below_low_watermark()
        if not inflow.piped:
            return True
        self._wait_for_room()
        if self.closing:
            self._arm_close_timer(sent)
        return False

    def _wait_for_room(self) -> None:
        self._set_mask(WRITE if self.read_pauses else self._mask | WRITE)

    def _drop_sent(self, sent: int) -> None:
        self.out_bytes -= sent
        out = self.out
        index = 0
        while sent and sent >= len(out[index]):
            sent -= len(out[index])
            index += 1
        del out[:index]
        if sent:
            out[0] = memoryview(out[0])[sent:]  # no copy: a large piece leaves in many sends

    def _on_writable(self) -> None:
        self._flush()
        if not self.closed and not self.out_bytes and self._mask & WRITE:
            self._set_mask(self._mask & ~WRITE)

    def _flushed(self) -> None:
        # Everything written is with the kernel.
        if self.closing:
            if not self._lingering or self.end_received:
                self._destroy(LOCAL_CLOSE)
            else:
                self._shutdown_write()
        elif self.end_sent:
            if self.end_received:
                self._destroy(REMOTE_CLOSE)
            else:
                self._shutdown_write()

    def _shutdown_write(self) -> None:
        if self._write_shut:
            return
        self._write_shut = self.end_sent = self.write_ended = True
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._fail(error)

    # -- ending

    def end_write(self) -> None:
        """Half-close: after what was written, the peer reads an end of data. Reading goes on."""
        if self.write_ended:
            return
        self.end_sent = self.write_ended = True
        self._flush_soon()

    def close(self, timeout_s: float = 0.0) -> None:
        """Send what was written, then close. What the peer still sends is not read.

        A peer that takes nothing for ``timeout_s`` loses the rest; with 0 it may take for ever.
        """
        if self.closing or self.closed:
            return
        self.closing = self.write_ended = True
        self._close_timeout_s = timeout_s
        self.read_pauses += 1  # the poller is told when this pass does not send everything
        self._flush_soon()

    def _arm_close_timer(self, progress: int) -> None:
        # Not all is sent. A peer that takes a little has the whole time again, as in Envoy ("delayed_close_timeout").
        if self.close_timer is not None:
            if progress:
                self.close_timer.arm(self.loop.now + self._close_timeout_s)
        elif self._close_timeout_s:
            self.close_timer = self.loop.call_later(self._close_timeout_s, self._on_close_timeout)

    def close_lingering(self, timeout_s: float) -> None:
        """Send what was written and an end of data, throw away what comes, close at the peer's end or after ``timeout_s``.

        For a peer that is perhaps still sending: closing a socket with unread bytes makes the kernel send a reset, which can
        overtake our last answer (RFC 9112 section 9.6). With a ``timeout_s`` of 0 it is a plain ``close``.
        """
        if not timeout_s:
            self.close()
        if self.closing or self.closed:
            return
        self.closing = self._lingering = self.write_ended = True
        self._close_timeout_s = timeout_s
        self.on_data = _ignore_data
        self.close_timer = self.loop.call_later(timeout_s, self._on_close_timeout)
        if not self.end_received:
            while self.read_pauses:
                self.resume_reading()
        self._flush_soon()

    def _on_close_timeout(self) -> None:
        self.error = CLOSE_TIMEOUT
        self._destroy(LOCAL_CLOSE)

    def abort(self, reason: str = LOCAL_CLOSE) -> None:
        """Close now; what was written and not sent is lost."""
        self._destroy(reason)

    def reset(self) -> None:
        """Close now with a TCP reset, so that the peer sees an incomplete message for what it is."""
        if not self.closed:
            with contextlib.suppress(OSError):
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            self.error = ConnectionResetError(errno.ECONNRESET, "reset by us")  # keeps TLS from a close_notify
            self._destroy(LOCAL_CLOSE)

    def _destroy(self, reason: str) -> None:
        if self.closed:
            return
        self.closed = self.write_ended = True
        self._say_goodbye()
        if self.close_timer is not None:
            self.close_timer.cancel()
        self.loop.close_later(self.sock)
        on_close = self.on_close
        self.on_data = _ignore_data
        self.on_end = self.on_connected = self.on_above_high_watermark = self.on_below_low_watermark = _ignore
        self.on_close = _ignore_close
        self._recv = _read_nothing
        if self.inflow is not None:
            self.inflow.discard()
            self.inflow = None
        self.out.clear()
        self.out_bytes = 0
        on_close(reason)
        self.session = self._filter_state = None

    def _say_goodbye(self) -> None:
        # A raw transport has nothing to say; TLS sends close_notify.
        pass
