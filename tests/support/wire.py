"""The downstream end of an exchange: raw bytes over a TCP socket, and just enough HTTP/1 to know when a message is over.

The parser here is deliberately not the product's: it must not share a bug with what it judges. It trusts nothing and
refuses nothing; it only finds where messages end, so that a test can stop reading without sleeping.
"""

from __future__ import annotations

import dataclasses
import socket
import ssl
import time

READ_LIMIT_S = 3.0
QUIET_S = 0.03


@dataclasses.dataclass(slots=True)
class Message:
    """One HTTP/1 message cut out of a byte stream; `complete` is false when the stream ended inside it."""

    head: bytes
    body: bytes
    complete: bool
    close_delimited: bool = False

    @property
    def status(self) -> int:
        """The status code of a response head; 0 when the first line is not a status line."""
        parts = self.head.split(b"\r\n", 1)[0].split(b" ")
        return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Header lines in the order they came, names as they came."""
        pairs = []
        for line in self.head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            pairs.append((name, value.strip()))
        return pairs

    def values(self, name: bytes) -> list[bytes]:
        """All values of header `name`, which is given in lower case."""
        return [value for key, value in self.headers if key.lower() == name]


def chunked_end(data: bytes, start: int) -> int:
    """The offset after a chunked body (trailers included) that begins at `start`; -1 while it is incomplete."""
    position = start
    while True:
        line_end = data.find(b"\r\n", position)
        if line_end < 0:
            return -1
        try:
            size = int(data[position:line_end].split(b";")[0], 16)
        except ValueError:
            return -1
        position = line_end + 2
        if size == 0:
            break
        position += size + 2
        if position > len(data):
            return -1
    while True:
        line_end = data.find(b"\r\n", position)
        if line_end < 0:
            return -1
        if line_end == position:
            return line_end + 2
        position = line_end + 2


def cut_message(data: bytes, start: int, *, request_method: bytes | None) -> tuple[Message, int] | None:
    """Cut one message at `start`; None while its head is incomplete.

    `request_method` is the method that a response answers (HEAD has no body), or None when `data` holds requests.
    The second part of the answer is the offset after the message, or len(data) when it is incomplete.
    """
    while data.startswith(b"\r\n", start):
        start += 2
    head_end = data.find(b"\r\n\r\n", start)
    if head_end < 0:
        return None
    message = Message(data[start:head_end], b"", True)
    body_start = head_end + 4
    if request_method is not None:
        status = message.status
        if request_method == b"HEAD" or status in (204, 304) or 100 <= status < 200:
            return message, body_start
        if request_method == b"CONNECT" and 200 <= status < 300:
            return message, body_start
    if b"chunked" in b",".join(message.values(b"transfer-encoding")).lower():
        end = chunked_end(data, body_start)
        message.complete = end >= 0
        end = end if end >= 0 else len(data)
        message.body = data[body_start:end]
        return message, end
    lengths = message.values(b"content-length")
    if lengths and lengths[0].isdigit():
        end = body_start + int(lengths[0])
        message.complete = end <= len(data)
        message.body = data[body_start:end]
        return message, min(end, len(data))
    if request_method is None:
        return message, body_start
    message.complete = False
    message.close_delimited = True
    message.body = data[body_start:]
    return message, len(data)


def cut_responses(data: bytes, methods: list[bytes]) -> list[Message]:
    """All responses in `data`, interim ones too; `methods` are those of the requests, in order (the last one repeats)."""
    found: list[Message] = []
    position = 0
    final = 0
    while position < len(data):
        method = methods[min(final, len(methods) - 1)] if methods else b"GET"
        cut = cut_message(data, position, request_method=method)
        if cut is None:
            break
        message, position = cut
        found.append(message)
        if not message.complete:
            break
        if message.status >= 200 or message.status in (0, 101):
            final += 1
    return found


def join_chunks(data: bytes, *, request_methods: list[bytes] | None) -> bytes:
    """`data` with the chunks of each chunked body joined into one: where a sender cuts means nothing (RFC 9112 section 7.1).

    `request_methods`: those that the responses in `data` answer, or None when `data` holds requests.
    """
    joined, position, final = b"", 0, 0
    while position < len(data):
        method = (
            None if request_methods is None else (request_methods or [b"GET"])[min(final, len(request_methods) - 1)]
        )
        cut = cut_message(data, position, request_method=method)
        if cut is None:
            break
        message, end = cut
        final += message.status >= 200
        chunked = b"chunked" in b",".join(message.values(b"transfer-encoding")).lower()
        joined += data[position : end - len(message.body)]
        joined += _one_chunk(message.body) if chunked else message.body
        position = end
    return joined + data[position:]


def _one_chunk(body: bytes) -> bytes:
    content, position = b"", 0
    while True:
        line_end = body.find(b"\r\n", position)
        size_text = body[position:line_end].split(b";")[0] if line_end >= 0 else b""
        try:
            size = int(size_text, 16)
        except ValueError:
            break
        end = line_end + 2 + size
        if size == 0 or end + 2 > len(body):
            break
        content += body[line_end + 2 : end]
        position = end + 2
    return (b"%x\r\n%s\r\n" % (len(content), content) if content else b"") + body[position:]


def complete_finals(data: bytes, methods: list[bytes]) -> int:
    """How many final (not 1xx) responses in `data` are complete."""
    return sum(1 for m in cut_responses(data, methods) if m.complete and (m.status >= 200 or m.status in (0, 101)))


class Downstream:
    """A TCP connection to a listener that sends what it is told and remembers every byte it got."""

    def __init__(
        self,
        address: tuple[str, int],
        *,
        limit_s: float = READ_LIMIT_S,
        tls: ssl.SSLContext | None = None,
        name: str = "",
    ) -> None:
        self.socket = socket.create_connection(address, timeout=limit_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.local_port: int = self.socket.getsockname()[1]
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname=name)
        self.limit_s = limit_s
        self.received = b""
        self.ending = "open"

    def send(self, data: bytes) -> bool:
        """Send all of `data`; False when the proxy has already closed."""
        try:
            self.socket.sendall(data)
        except (ConnectionResetError, BrokenPipeError):
            return False
        return True

    def half_close(self) -> None:
        """Send a FIN; go on reading."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            # The proxy was first: the connection is gone already.
            return

    def read_some(self, timeout_s: float) -> bool:
        """Read once; False when nothing came within `timeout_s` or the connection has ended (see `ending`)."""
        if self.ending != "open":
            return False
        self.socket.settimeout(max(timeout_s, 0.001))
        try:
            data = self.socket.recv(1 << 16)
        except TimeoutError:
            return False
        except ConnectionResetError:
            self.ending = "reset"
            return False
        if not data:
            self.ending = "closed"
            return False
        self.received += data
        return True

    def read_until(self, marker: bytes, start: int = 0) -> bool:
        """Read until `marker` stands in what came after offset `start`."""
        deadline = time.monotonic() + self.limit_s
        while marker not in self.received[start:]:
            if not self.read_some(deadline - time.monotonic()) and (
                self.ending != "open" or time.monotonic() >= deadline
            ):
                return False
        return True

    def read_responses(self, count: int, methods: list[bytes], limit_s: float | None = None) -> bool:
        """Read until `count` final responses are complete or the connection ends; False when the time ran out first."""
        deadline = time.monotonic() + (self.limit_s if limit_s is None else limit_s)
        while complete_finals(self.received, methods) < count and self.ending == "open":
            if not self.read_some(deadline - time.monotonic()) and time.monotonic() >= deadline:
                return False
        return True

    def read_to_end(self, limit_s: float | None = None) -> bool:
        """Read until the proxy closes; False when the time ran out first."""
        deadline = time.monotonic() + (self.limit_s if limit_s is None else limit_s)
        while self.ending == "open":
            if not self.read_some(deadline - time.monotonic()) and time.monotonic() >= deadline:
                return False
        return True

    def linger(self, quiet_s: float = QUIET_S) -> None:
        """Give the proxy `quiet_s` to send more, or to close: what nobody should send can only be waited for."""
        while self.read_some(quiet_s):
            pass

    def reset(self) -> None:
        """Close with a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.socket.close()

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def __enter__(self) -> Downstream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
