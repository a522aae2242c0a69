"""The admin's HTTP/1.1: accepts, reads one request at a time, answers in order, and lets nobody take more than a little.

Off every hot path, so it is strict and simple: a head is collected up to its empty line (8 KiB at most), given to a parser of its
own, and must be HTTP/1.1 with one Host and a Content-Length if it has a body (64 KiB at most; no chunked bodies). What a
connection sent beyond that waits in its buffer until the answer before it is written, so pipelined requests are answered
one after the other, and reading stops meanwhile. A connection lives 10 s to bring a head and 60 s for all the rest. When
there are ``MAX_CONNECTIONS``, the one that has been without a whole request for longest makes room: who only holds connections
open cannot keep a probe of /ready out.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable
from functools import partial

import httptools

from forkproxy.admin.context import AdminAccess, AdminContext
from forkproxy.admin.figures import AdminFigures
from forkproxy.admin.handlers import AdminHandlers, AdminResponse, parse_target
from forkproxy.net import address as addresses
from forkproxy.net import poller
from forkproxy.net.connection import Connection
from forkproxy.net.loop import Loop
from forkproxy.net.timers import Timer
from forkproxy.stats.counters import Registry

MAX_HEAD_BYTES = 8 * 1024
MAX_BODY_BYTES = 64 * 1024
MAX_CONNECTIONS = 128
MAX_ACCEPTS_PER_PASS = 16
HEAD_TIMEOUT_S = 10.0
EXCHANGE_TIMEOUT_S = 60.0
REFRESH_TIMEOUT_S = 0.25
LINGER_S = 1.0
ACCEPT_RETRY_S = 0.5

_REASONS = {
    200: b"OK",
    400: b"Bad Request",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    411: b"Length Required",
    413: b"Payload Too Large",
    426: b"Upgrade Required",
    431: b"Request Header Fields Too Large",
    501: b"Not Implemented",
    503: b"Service Unavailable",
}


class BadRequest(Exception):
    """A head or body that is refused, with the status that says so; the connection ends."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Request:
    """One parsed head, and the body once it is whole. Header names are lower-case, repeated values joined by commas."""

    __slots__ = ("_target", "body", "content_length", "headers", "keep_alive", "method", "target")

    def __init__(self, head: bytes) -> None:
        """Parse ``head``, which ends with its empty line. Raises BadRequest."""
        self.headers: dict[str, str] = {}
        self.body = b""
        self._target = b""
        parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            pass  # not a protocol that we speak: the request is answered as if it had not offered
        except httptools.HttpParserError:
            raise BadRequest(400) from None
        if parser.get_http_version() != "1.1":
            raise BadRequest(426 if parser.get_http_version() == "1.0" else 400)
        if not self.headers.get("host"):
            raise BadRequest(400)
        self.method = parser.get_method().decode("ascii")
        self.target = self._target.decode("latin-1")
        # Not parser.should_keep_alive(): after the message's end it no longer knows.
        self.keep_alive = "close" not in self.headers.get("connection", "").lower().replace(" ", "").split(",")
        if "transfer-encoding" in self.headers:
            raise BadRequest(411)
        self.content_length = int(self.headers.get("content-length") or 0)
        if self.content_length > MAX_BODY_BYTES:
            raise BadRequest(413)

    def on_url(self, url: bytes) -> None:
        """httptools: a piece of the target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: one header field."""
        key = name.decode("latin-1").lower()
        if key in self.headers and key in ("host", "content-length"):
            raise BadRequest(400)
        text = value.decode("latin-1").strip()
        self.headers[key] = f"{self.headers[key]},{text}" if key in self.headers else text


class AdminServer:
    """Serves the admin pages on listening sockets that the supervisor has bound."""

    def __init__(
        self,
        loop: Loop,
        context: AdminContext,
        sockets: Iterable[socket.socket],
        refuses: Callable[[], bool] = lambda: False,
        figures: AdminFigures | None = None,
    ) -> None:
        """``sockets``: non-blocking and listening; they stay the caller's, who closes them after ``stop``. ``refuses``: true
        while a connection more would be one too many (the global limit of connections)."""
        self.figures = figures or AdminFigures(Registry())
        self.loop = loop
        self.context = context
        self.handlers = AdminHandlers(context)
        self.connections: set[AdminConnection] = set()
        self._refuses = refuses
        self._sockets = list(sockets)
        self._retries: dict[socket.socket, Timer] = {}

    def start(self) -> None:
        """Begin to accept."""
        for listening in self._sockets:
            self._register(listening)

    def _register(self, listening: socket.socket) -> None:
        self.loop.register(listening.fileno(), poller.READ, partial(self._accept, listening))

    def stop(self) -> None:
        """Stop accepting, and close what is connected once its answer is out."""
        for retry in self._retries.values():
            retry.cancel()
        for listening in self._sockets:
            self.loop.unregister(listening.fileno())
        for connection in list(self.connections):
            connection.finish()

    def _accept(self, listening: socket.socket, _mask: int) -> None:
        number = 0
        for number in range(1, MAX_ACCEPTS_PER_PASS + 1):
            try:
                accepted, peer = listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                number -= 1
                break
            except OSError:
                # No descriptor or no memory for one more. The poller would report this for ever: look again later.
                self.loop.unregister(listening.fileno())
                self._retries[listening] = self.loop.call_later(ACCEPT_RETRY_S, partial(self._register, listening))
                return
            if self._refuses():
                accepted.close()
                continue
            if len(self.connections) >= MAX_CONNECTIONS and not self._make_room():
                accepted.close()
                continue
            accepted.setblocking(False)
            AdminConnection(self, Connection(self.loop, accepted, addresses.normalise(peer)))
        if number:
            self.figures.on_accepted(number)

    def _make_room(self) -> bool:
        idlers = [connection for connection in self.connections if connection.is_idle]
        if idlers:
            min(idlers, key=lambda connection: (connection.waiting_since, connection.connection.id)).connection.abort()
        return bool(idlers)


class AdminConnection:
    """One connection: collects a request, waits for fresh figures if its page wants them, answers, goes on."""

    __slots__ = (
        *(
            "_buffer",
            "_deadline",
            "_finishing",
            "_opened_at",
            "_received_at",
            "_request",
            "_server",
            "_stalled",
            "_waiting",
        ),
        "connection",
    )

    def __init__(self, server: AdminServer, connection: Connection) -> None:
        self.connection = connection
        self._server = server
        self._buffer = bytearray()
        self._request: Request | None = None
        self._waiting: Timer | None = None
        self._received_at = self._opened_at = server.loop.now
        self._finishing = False
        self._stalled = False  # the peer does not take its answers
        self._deadline = server.loop.call_later(HEAD_TIMEOUT_S, self._on_deadline)
        server.connections.add(self)
        server.figures.on_open()
        connection.on_data = self._on_data
        connection.on_close = self._on_close
        connection.on_above_high_watermark = self._stall
        connection.on_below_low_watermark = self._unstall
        connection.start()

    @property
    def is_idle(self) -> bool:
        """No request of it is being answered."""
        return self._waiting is None and not self.connection.out_bytes

    @property
    def waiting_since(self) -> float:
        """When it began to bring its request, or else when it came (on the loop's clock)."""
        return self._received_at

    def finish(self) -> None:
        """Close, after what is being answered."""
        self._finishing = True
        if self._waiting is None:
            self.connection.close_lingering(LINGER_S)

    def _stall(self) -> None:
        self._stalled = True
        self.connection.pause_reading()

    def _unstall(self) -> None:
        self._stalled = False
        self.connection.resume_reading()
        self._go_on()

    def _on_data(self, data: bytes) -> None:
        if not self._buffer and self._request is None:
            self._received_at = self._server.loop.now
            self._arm(HEAD_TIMEOUT_S)
        self._buffer += data
        self._go_on()

    def _on_close(self, reason: str) -> None:
        server = self._server
        server.figures.on_close(self.connection, reason, server.loop.now - self._opened_at)
        self._deadline.cancel()
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
            server.figures.on_abandoned()
        server.connections.discard(self)

    def _on_deadline(self) -> None:
        if self._buffer and self._waiting is None and not self.connection.out_bytes:
            self._refuse(408)
        else:
            self.connection.abort()

    def _arm(self, delay_s: float) -> None:
        self._deadline.arm(self._server.loop.now + delay_s)

    def _go_on(self) -> None:
        """Answer what is complete in the buffer, as long as the peer takes the answers."""
        connection = self.connection
        while not (self._waiting or self._stalled or connection.closing or connection.closed):
            try:
                request = self._next_request()
            except BadRequest as bad:
                self._refuse(bad.status)
                return
            if request is None:
                return
            self._begin(request)

    def _next_request(self) -> Request | None:
        """Take one whole request out of the buffer; None if there is none yet. Raises BadRequest."""
        buffer = self._buffer
        if self._request is None:
            while buffer.startswith(b"\r\n"):
                del buffer[:2]  # RFC 9112 section 2.2: empty lines before a request line are ignored
            end = buffer.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES)
            if end < 0:
                _check_beginning(buffer)
                return None
            self._request = Request(bytes(buffer[: end + 4]))
            del buffer[: end + 4]
        request = self._request
        if len(buffer) < request.content_length:
            return None
        request.body = bytes(buffer[: request.content_length])
        del buffer[: request.content_length]
        self._request = None
        return request

    def _begin(self, request: Request) -> None:
        self._arm(EXCHANGE_TIMEOUT_S)
        self._server.figures.on_request()
        if not request.target.startswith("/"):
            self._answer(request, AdminResponse(404, "", b""))
            return
        try:
            path, query = parse_target(request.target)
        except ValueError:  # more parameters than anybody needs
            self._server.figures.on_abandoned()
            self._refuse(400)
            return
        if not self._server.handlers.wants_figures(path):
            self._answer(request, self._server.handlers.handle(request.method, path, query, request.body))
            return

        def answer() -> None:
            if self._waiting is timer:
                timer.cancel()
                self._waiting = None
                self.connection.resume_reading()
                self._answer(request, self._server.handlers.handle(request.method, path, query, request.body))
                self._go_on()

        self.connection.pause_reading()
        timer = self._server.loop.call_later(REFRESH_TIMEOUT_S, answer)
        self._waiting = timer
        # Always from a fresh call, so that a refresh that is done at once does not nest answers.
        self._server.context.refresh(lambda: self._server.loop.call_soon(answer))

    def _answer(self, request: Request, response: AdminResponse) -> None:
        head = [
            b"HTTP/1.1 %d %s\r\n" % (response.status, _REASONS[response.status]),
            b"content-type: %s\r\n" % response.content_type.encode() if response.content_type else b"",
            b"cache-control: no-cache, max-age=0\r\nx-content-type-options: nosniff\r\n",
            *(b"%s: %s\r\n" % (name.encode(), value.encode()) for name, value in response.headers),
            b"date: %s\r\nserver: forkproxy\r\n" % _date(self._server.loop.wall()),
            b"content-length: %d\r\n" % len(response.body),
            b"" if request.keep_alive and not self._finishing else b"connection: close\r\n",
            b"\r\n",
        ]
        body = b"" if request.method == "HEAD" else response.body
        self.connection.write(b"".join(head) + body)
        self._log(request, response.status, len(body))
        if not request.keep_alive or self._finishing:
            self.connection.close_lingering(LINGER_S)

    def _refuse(self, status: int) -> None:
        """Answer what is no request, and end the connection."""
        self._server.figures.on_request()
        if status == 400:
            self._server.figures.on_nonsense()
        reason = _REASONS[status]
        self.connection.write(
            b"HTTP/1.1 %d %s\r\ncontent-length: %d\r\ncontent-type: text/plain\r\ndate: %s\r\nserver: forkproxy\r\n"
            b"connection: close\r\n\r\n%s" % (status, reason, len(reason), _date(self._server.loop.wall()), reason)
        )
        self._log(None, status, len(reason))
        self._buffer.clear()
        self.connection.close_lingering(LINGER_S)

    def _log(self, request: Request | None, status: int, bytes_sent: int) -> None:
        headers = request.headers if request else {}
        loop = self._server.loop
        taken_s = loop.now - self._received_at
        self._server.figures.on_response(status, taken_s)
        self._server.context.log_access(
            AdminAccess(
                start=loop.wall() - taken_s,
                method=request.method if request else "-",
                path=request.target if request else "-",
                protocol="HTTP/1.1" if request else "-",
                status=status,
                bytes_received=len(request.body) if request else 0,
                bytes_sent=bytes_sent,
                duration_ms=int(taken_s * 1000),
                peer=addresses.text(self.connection.remote_address),
                host=headers.get("host", ""),
                user_agent=headers.get("user-agent", ""),
                forwarded_for=headers.get("x-forwarded-for", ""),
                request_id=headers.get("x-request-id", ""),
            )
        )


def _date(wall: float) -> bytes:
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(wall)).encode()


def _check_beginning(buffer: bytearray) -> None:
    """Refuse early what will never be a request: too long, no method in front, or lines that end with a bare LF."""
    if len(buffer) >= MAX_HEAD_BYTES:
        raise BadRequest(431)
    if buffer and not 65 <= buffer[0] <= 90:
        raise BadRequest(400)
    if buffer.count(b"\n") != buffer.count(b"\r\n"):
        raise BadRequest(400)
