"""The HTTP health check: one request over HTTP/1.1, and what its response says."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from forkproxy.config.build.health_check import HttpCheck, Statuses
from forkproxy.http import headers as http_headers
from forkproxy.http.codec import CodecError
from forkproxy.http.connection_manager import HttpConnection
from forkproxy.http.headers import Headers
from forkproxy.http.http1 import ClientCodec
from forkproxy.http.stream import Stream
from forkproxy.net.connection import REMOTE_CLOSE, Connection
from forkproxy.net.loop import Loop
from forkproxy.upstream.health_check import payload
from forkproxy.upstream.health_check.probe import ConnectionProbe
from forkproxy.upstream.health_check.session import ACTIVE

if TYPE_CHECKING:
    from forkproxy.upstream.health_check.checker import HealthChecker
    from forkproxy.upstream.health_check.session import Session

Finalize = Callable[[Stream], None]
"""Adds and removes headers of a check's request."""

MAX_BODY_BYTES = 1 << 20
"""What is kept of a body where ``response_buffer_size: 0`` sets no limit."""

_BODILESS = ("GET", "HEAD", "DELETE", "TRACE")


class HttpProbe(ConnectionProbe):
    """See the module's text. Also the ClientSink of its codec."""

    __slots__ = ("_body", "_body_limit", "_check", "_codec", "_headers", "_status")

    def __init__(self, checker: HealthChecker, session: Session, check: HttpCheck) -> None:
        super().__init__(checker, session)
        self._check = check
        self._codec: ClientCodec | None = None
        self._status = 0
        self._headers: Headers = []
        self._body = bytearray()
        self._body_limit = (check.response_buffer_bytes or MAX_BODY_BYTES) if check.receive else 0

    def check(self) -> None:
        """Probe: send the request, over the connection of the last check when it is still there."""
        connection = self._connection
        if connection is None:
            connection = self._connect()
            if connection is None:
                return
            self._codec = ClientCodec(self)
        assert self._codec is not None
        self._begun = True
        self._status = 0
        self._body.clear()
        self._codec.expect(self._check.method == "HEAD")
        connection.write(self._request())

    def _drop(self) -> None:
        codec, self._codec = self._codec, None
        if codec is not None:
            codec.close()
        super()._drop()

    def _request(self) -> bytes:
        check = self._check
        host = self._checker.host_of(self._session.endpoint, check.host).encode()
        headers: Headers = [(b"user-agent", b"Envoy/HC")]
        if self._checker.finalize is not None:
            self._checker.finalize(self._stream(host, headers))
        if check.send or check.method not in _BODILESS:
            http_headers.set_(headers, b"content-length", b"%d" % len(check.send))
        lines = [b"%s: %s\r\n" % line for line in headers]
        start = f"{check.method} {check.path} HTTP/1.1\r\n".encode()
        return b"".join((start, b"host: ", host, b"\r\n", *lines, b"\r\n", check.send))

    def _stream(self, host: bytes, headers: Headers) -> Stream:
        check = self._check
        loop = self._checker.loop
        stream = Stream(
            _Nobody(loop),
            check.method.encode(),
            check.path.encode(),
            host,
            headers,
            b"HTTP/1.1",
            loop.now,
        )
        stream.cluster = self._checker.cluster
        stream.endpoint = self._session.endpoint
        return stream

    # -- the connection

    def _on_data(self, data: bytes) -> None:
        codec = self._codec
        assert codec is not None
        try:
            codec.feed(data)
        except CodecError:
            self._fail()
            return
        if codec.complete and self._begun:
            self._on_complete(codec)

    def _on_close(self, reason: str) -> None:
        codec = self._codec
        self._connection = None
        if codec is not None and reason == REMOTE_CLOSE and codec.finish():
            self._codec = None
            codec.close()
            self._decide()
            return
        self._fail()

    # -- ClientSink

    def decode_interim(self, status: int, headers: Headers) -> None:
        """ClientSink: says nothing."""

    def decode_headers(self, status: int, headers: Headers, end_stream: bool) -> None:
        """ClientSink: the head."""
        self._status = status
        self._headers = headers

    def decode_data(self, data: bytes) -> None:
        """ClientSink: a piece of the body, of which no more is kept than is looked at."""
        missing = self._body_limit - len(self._body)
        if missing > 0:
            self._body += data[:missing]

    def decode_complete(self, trailers: Headers | None) -> None:
        """ClientSink: what follows is decided when the whole feed has been parsed."""

    def _on_complete(self, codec: ClientCodec) -> None:
        self._begun = False  # that the connection closes now is no failure of this check
        if not codec.reusable or codec.unsolicited or not self._checker.config.reuse_connection:
            self._drop()
        self._decide()

    # -- the verdict

    def _decide(self) -> None:
        self._begun = False
        check, status, headers, session = self._check, self._status, self._headers, self._session
        excluded = http_headers.get(headers, b"x-envoy-immediate-health-check-fail") is not None
        if check.receive and not payload.matches(check.receive, self._body):
            session.on_failure(ACTIVE, status=status, excluded=excluded)
            return
        if not _within(check.expected, status):
            retriable = _within(check.retriable, status)
            session.on_failure(ACTIVE, retriable=retriable, status=status, excluded=excluded)
            return
        matches_service = self._checker.matches_service
        if matches_service is not None and random.random() * 100 < self._checker.config.verify_percent:
            self._checker.stats.verify_cluster += 1
            if not matches_service(http_headers.get(headers, b"x-envoy-upstream-healthchecked-cluster") or b""):
                session.on_failure(ACTIVE, status=status)
                return
        session.on_success(degraded=http_headers.get(headers, b"x-envoy-degraded") is not None)


def _within(ranges: Statuses, status: int) -> bool:
    return any(start <= status < end for start, end in ranges)


class _Nobody(HttpConnection):
    """The downstream side of a request that nobody sent, as far as formats ask for it."""

    __slots__ = ()

    def __init__(self, loop: Loop) -> None:
        self.connection = _NoPeer(loop)


class _NoPeer(Connection):
    """Its connection: Envoy says 127.0.0.1:0 of it."""

    __slots__ = ()

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.id = 0
        self.tls = None
        self.requested_server_name = self.transport_failure_reason = ""
        self.local_address = self.remote_address = ("127.0.0.1", 0)
        self._filter_state = None
