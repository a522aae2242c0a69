"""Messages between the supervisor and the processes it starts: JSON objects, one per line, over a stream socket.

The same channel serves a slot's socketpair and the operator's control socket. A message is a dict whose ``"op"`` says what
it is. To a worker go ``drain`` (``time_s``, ``going``: the [listener, index] of the sockets that no other worker serves after
it), ``close_listeners``, ``stop_listening`` (``listeners``), ``drain_connections`` (``listeners``, ``since``, ``time_s``),
``stop``, ``reopen_logs``, ``log_level`` (``level``, ``component``), ``flush`` (``round``),
``pin`` (``cpus``), ``health_check`` (``failed``), ``endpoints`` (``cluster``, ``endpoints``) and ``health`` (``cluster``,
``address``, ``set``, ``clear``: flags of upstream/health.py); from it come ``ready``, ``draining``, ``failed`` (``reason``,
``exit``) and ``flushed`` (``round``).
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

from forkproxy.net.loop import Loop
from forkproxy.net.poller import READ, WRITE

Message = dict[str, Any]

RECEIVE_BYTES = 65536
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""A cluster of 65,536 endpoints is 6 MiB."""


class ProtocolError(Exception):
    """What came in is not a line with a JSON object, or is longer than the limit."""


class MessageReader:
    """Bytes in, messages out; sans-I/O."""

    __slots__ = ("_max_bytes", "_partial")

    def __init__(self, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._partial = b""
        self._max_bytes = max_bytes

    def feed(self, data: bytes) -> list[Message]:
        """The messages that ``data`` completes. ProtocolError for anything but JSON objects."""
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > self._max_bytes:
            raise ProtocolError(f"a message longer than {self._max_bytes} bytes")
        return [_parse(line) for line in lines if line.strip()]


def encode(message: Message) -> bytes:
    """One message as it travels."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def _parse(line: bytes) -> Message:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {error}") from None
    if not isinstance(message, dict):
        raise ProtocolError("not a JSON object")
    return message


class Channel:
    """A socket that carries messages, on a loop; owns the socket.

    ``on_message(message)`` for each one; ``on_close(reason)`` once, when the other side is gone ("" for an orderly end) or
    spoke nonsense; it is not called for ``close()``. Messages that the socket does not take at once wait, in order.
    """

    __slots__ = ("_loop", "_out", "_reader", "closed", "on_close", "on_message", "sock")

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        *,
        on_message: Callable[[Message], None],
        on_close: Callable[[str], None],
        max_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.closed = False
        self.on_message = on_message
        self.on_close = on_close
        self._loop = loop
        self._reader = MessageReader(max_bytes)
        self._out = b""
        loop.register(sock.fileno(), READ, self._on_ready)

    def send(self, message: Message) -> None:
        """Send now or when the socket can take it; nothing happens on a closed channel."""
        if self.closed:
            return
        waiting = bool(self._out)
        self._out += encode(message)
        if not waiting:
            self._flush()

    @property
    def is_waiting(self) -> bool:
        """Whether something that was sent is not with the kernel yet."""
        return bool(self._out)

    def close(self) -> None:
        """Close the socket; what the kernel has not taken is lost."""
        if not self.closed:
            self.closed = True
            self._loop.close_later(self.sock)

    def _on_ready(self, mask: int) -> None:
        if mask & WRITE:
            self._flush()
        if mask & ~WRITE and not self.closed:
            self._receive()

    def _receive(self) -> None:
        try:
            data = self.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error.strerror or str(error))
            return
        if not data:
            self._end("")
            return
        try:
            messages = self._reader.feed(data)
        except ProtocolError as error:
            self._end(str(error))
            return
        for message in messages:
            if self.closed:
                return
            self.on_message(message)

    def _flush(self) -> None:
        if self.closed:
            return
        try:
            sent = self.sock.send(self._out)
        except BlockingIOError:
            sent = 0
        except OSError:
            # The end of the stream tells on_close; here there is nobody left to write to.
            self._out = b""
            return
        self._out = self._out[sent:]
        self._loop.modify(self.sock.fileno(), READ | WRITE if self._out else READ)

    def _end(self, reason: str) -> None:
        self.close()
        self.on_close(reason)
