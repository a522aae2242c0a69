"""One request and its response: state, the way through the filter chain, and what access logs read.

The way of a request: connection manager → ``decode_headers`` → hooks in order → the router, which is the last one. The way of
the response: router → ``encode_headers`` → hooks in reverse → the connection manager's ``encode_*``. A hook that returns
STOP_ITERATION holds its direction; what arrives meanwhile waits here, up to the connection's buffer limit, until
``continue_decoding`` / ``continue_encoding``.

Only what every request needs is set when a stream is made; the rest are ``Rare`` attributes, which have no slot, so that what
nobody uses costs nothing. (Not by ``__getattr__``: a class that has one makes every read of an attribute five times as dear.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol
from urllib.parse import quote

from forkproxy.http.headers import Headers
from forkproxy.http.headers import get as get_header
from forkproxy.http.headers import set_ as set_header
from forkproxy.http.rare import Rare, RareDict
from forkproxy.http.response_flags import UH
from forkproxy.net import address as addresses
from forkproxy.net.connection import Connection
from forkproxy.net.filter import STOP_ITERATION
from forkproxy.net.timers import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable

    from forkproxy.http.connection_manager import HttpConnection
    from forkproxy.http.filter import HttpFilter
    from forkproxy.http.meters import Meters
    from forkproxy.http.tally import Tally

_UNROUTED: Final[Any] = object()
_GRPC_CONTENT_TYPES: Final = frozenset((b"application/grpc", b"application/grpc+proto", b"application/grpc+json"))
_GRPC_STATUS: Final = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}

_JSON: Final = b"application/json"
_OF_A_BODY: Final = frozenset((b"content-length", b"content-type"))

OVERRIDE_ENDPOINT: Final = "override endpoint"
"""Under this key of ``filter_state`` a filter leaves (address, strict): the endpoint to take when it may be used, or with
``strict`` that one or none. The stream's route must not be plain then."""
HEALTH_CHECK: Final = "health check"
"""This key is in ``filter_state`` of a request that asks for the proxy's health."""
DECODING: Final = 0
ENCODING: Final = 1


class LocalReplyRewriter(Protocol):
    """``local_reply_config``, compiled: may change ``headers`` and ``stream.status``; gives the status, the body, the content
    type that belongs to it, and whether that replaces the one in ``headers``."""

    def __call__(
        self, stream: Stream, status: int, headers: Headers, body: bytes
    ) -> tuple[int, bytes, bytes, bool]: ...


class Held:
    """What waits in one direction while a filter holds it."""

    __slots__ = ("buffer", "buffered_bytes", "end_stream", "headers_due", "position", "trailers")

    def __init__(self, position: int, headers_due: bool) -> None:
        self.position = position
        self.headers_due = headers_due  # the filters after ``position`` have not seen the headers yet
        self.buffer: list[bytes] = []
        self.buffered_bytes = 0
        self.trailers: Headers | None = None
        self.end_stream = False


class Stream:
    """See the module's text. Times are ``loop.now`` seconds; 0.0 means not yet."""

    __slots__ = (
        *("attempt_count", "authority", "bytes_received", "bytes_sent", "connection", "decode_held", "details"),
        *(
            "downstream_first_tx",
            "encode_held",
            "end",
            "ended",
            "endpoint",
            "failed",
            "http",
            "last_activity",
            "method",
        ),
        *("path", "protocol", "rare", "request_complete", "request_ended", "request_headers", "request_id"),
        *("response_deadline", "response_ended", "response_flags", "response_headers", "response_started", "route"),
        *("routed_cluster", "start", "status", "tally", "upstream", "upstream_connection", "upstream_first_rx"),
        *("upstream_first_tx", "upstream_last_rx"),
    )

    decode_buffer_limit: Rare[int | None] = Rare(None)
    """How much of the request's body a filter may hold, where one has said so; else the connection's limit counts."""
    request_trailers: Rare[Headers | None] = Rare(None)
    response_trailers: Rare[Headers | None] = Rare(None)
    upstream_transport_failure_reason = Rare("")
    connection_termination_details = Rare("")
    remote_address: Rare[str | None] = Rare(None)
    idle_timeout_s: Rare[float | None] = Rare(None)
    max_duration_s: Rare[float | None] = Rare(None)
    """How long the stream may last, where its route says so; NEVER for no limit."""
    set_cookies: Rare[tuple[bytes, ...]] = Rare(())
    """Cookies that a hash policy has made, for the response."""
    is_forced_to_trace = Rare(False)
    """A service inside has asked for it, and tracing is configured."""
    local_reply_body = Rare(b"")
    """The body of an answer made here, while ``local_reply_config`` rewrites it."""
    announces_close = Rare(False)
    """The response's head has said that the connection will be closed."""
    meters: Rare[Meters | None] = Rare(None)
    """Figures that are kept only where a format asks for them."""
    filter_state = RareDict()
    dynamic_metadata = RareDict()
    _scheme: Rare[bytes | None] = Rare(None)

    def __init__(
        self,
        http: HttpConnection,
        method: bytes,
        path: bytes,
        authority: bytes,
        headers: Headers,
        protocol: bytes,
        now: float,
    ) -> None:
        self.http = http
        self.connection = http.connection
        self.method = method
        self.path = path
        self.authority = authority
        self.request_headers = headers
        self.protocol = protocol
        self.start = now
        self.last_activity = now
        self.rare: dict[str, Any] | None = None
        """See ``Rare``."""
        self.request_id = b""
        self.request_complete = 0.0
        self.end = 0.0
        self.downstream_first_tx = self.upstream_first_tx = self.upstream_first_rx = self.upstream_last_rx = 0.0
        self.attempt_count = 0
        self.routed_cluster: Any = _UNROUTED
        """``cluster``, once the router has set it."""
        self.endpoint: Any = None
        self.upstream_connection: Connection | None = None
        self.status = 0
        self.response_headers: Headers | None = None
        self.bytes_received = 0
        self.bytes_sent = 0
        self.response_flags = 0
        self.details = ""
        self.route: Any = None
        self.upstream: Any = None
        self.tally: Tally | None = None
        """Where it counts besides its cluster's plain figures."""
        self.response_deadline = NEVER
        self.decode_held: Held | None = None
        self.encode_held: Held | None = None
        self.request_ended = False
        """The whole request has arrived."""
        self.response_started = False
        """The response's head has left, or stands before the encode filters."""
        self.response_ended = False
        """The whole response was written."""
        self.ended = False
        """Nothing more happens to this stream."""
        self.failed = False
        """The answer passes no filter: one has raised, or holds the answer that this one replaces."""

    @property
    def scheme(self) -> bytes:
        """The request's; that of the listener, where nobody has said another."""
        return self.http.manager.settings.scheme if self._scheme is None else self._scheme

    @scheme.setter
    def scheme(self, scheme: bytes) -> None:
        self._scheme = scheme

    @property
    def virtual_host(self) -> Any:
        """The route's."""
        return self.route.virtual_host if self.route is not None else None

    @property
    def cluster(self) -> Any:
        """The request's; when it was answered before the router, the one that the route would have chosen, as in Envoy."""
        if self.routed_cluster is not _UNROUTED:
            return self.routed_cluster
        return self.route.find_cluster(self) if self.route is not None else None

    @cluster.setter
    def cluster(self, cluster: Any) -> None:
        self.routed_cluster = cluster

    @property
    def upstream_last_tx(self) -> float:
        """When the last byte of the request went upstream: as it came, or with the head when it had been waiting."""
        if not self.request_ended or not self.upstream_first_tx:
            return 0.0
        return max(self.upstream_first_tx, self.request_complete)

    @property
    def downstream_last_tx(self) -> float:
        """When the last byte of the response went downstream."""
        return self.end if self.response_ended else 0.0

    downstream_close_type: ClassVar = b"Normal"
    """Streams are logged before their connections close: there is nothing to tell yet."""
    upstream_local_close_reason: ClassVar = ""
    downstream_local_close_reason: ClassVar = ""

    @property
    def upstream_close_type(self) -> bytes:
        """The same of the upstream connection, where one was wanted."""
        return b"Normal" if self.attempt_count and not self.response_flags & UH else b""

    @property
    def pool_was_ready(self) -> bool:
        """The last attempt got a connection to send its request on."""
        return self.upstream_first_tx > 0.0

    @property
    def attempted_endpoints(self) -> tuple[Any, ...]:
        """The endpoint of the last attempt, when there was a connection to it."""
        return (self.endpoint,) if self.pool_was_ready and self.endpoint is not None else ()

    def __repr__(self) -> str:
        state = "ended" if self.ended else "answering" if self.response_started else "open"
        return f"<Stream {self.method!r} {self.path!r} {state} {self.status}>"

    # -- what access logs and format operators read

    @property
    def wall_start(self) -> float:
        """Seconds since the epoch when the request's first byte was read."""
        loop = self.connection.loop
        return loop.wall() - (loop.now - self.start)

    @property
    def downstream_direct_remote_address(self) -> str:
        """The peer's address, "ip:port"."""
        return addresses.text(self.connection.remote_address)

    @property
    def downstream_remote_address(self) -> str:
        """The original client's address: from x-forwarded-for where that is trusted, else the peer's."""
        return self.remote_address or addresses.text(self.connection.remote_address)

    @property
    def downstream_local_address(self) -> str:
        """The address the client connected to."""
        return addresses.text(self.connection.local_socket_address())

    # -- decoding: towards upstream

    def decode_headers(self, end_stream: bool) -> None:
        """Start the request on its way through the chain."""
        headers = self.request_headers
        hook: object = None
        try:
            for position, hook in self.http.chain.decode_headers:
                if hook(self, headers, end_stream) is not None:
                    if not self.response_started and not self.ended:
                        self.decode_held = Held(position, True)
                        self.decode_held.end_stream = end_stream
                    return
                if self.response_started and self.upstream is None:
                    return  # the filter has answered by itself
        except Exception as error:
            self.fail(hook, error)

    def decode_data(self, data: bytes, end_stream: bool) -> None:
        """A piece of the body."""
        if self.ended:
            return
        self.bytes_received += len(data)
        self._run_data(DECODING, -1, data, end_stream)

    def decode_trailers(self, trailers: Headers) -> None:
        """The body has ended with trailers."""
        if self.ended:
            return
        self.request_trailers = trailers
        self._run_trailers(DECODING, -1, trailers)

    def continue_decoding(self) -> None:
        """For a filter that had returned STOP_ITERATION: go on after it, with what was held."""
        held = self.decode_held
        if held is None or self.ended:
            return
        self.decode_held = None
        self._continue(DECODING, held)

    # -- encoding: towards downstream

    def encode_headers(self, status: int, headers: Headers, end_stream: bool) -> None:
        """Start the response on its way. For the router, and for filters that answer with headers of their own."""
        if self.ended or self.response_started:
            return
        self.response_started = True
        self.status = status
        self.response_headers = headers
        hooks = self.http.chain.encode_headers
        if hooks and not self.failed:
            hook: object = None
            try:
                for position, hook in hooks:
                    if hook(self, headers, end_stream) is not None:
                        self.encode_held = Held(position, True)
                        self.encode_held.end_stream = end_stream
                        return
                    if self.ended:
                        return
            except Exception as error:
                self.response_started = False
                self.fail(hook, error)
                return
        self.http.encode_headers(self, headers, end_stream)

    def encode_data(self, data: bytes, end_stream: bool) -> None:
        """A piece of the response body."""
        if self.ended:
            return
        if self.failed or (self.encode_held is None and not self.http.chain.encode_data):
            self.http.encode_data(self, data, end_stream)
        else:
            self._run_data(ENCODING, -(1 << 30), data, end_stream)

    def encode_trailers(self, trailers: Headers) -> None:
        """The response ends with trailers."""
        if self.ended:
            return
        self.response_trailers = trailers
        self._run_trailers(ENCODING, -(1 << 30), trailers)

    def continue_encoding(self) -> None:
        """For a filter that had returned STOP_ITERATION: go on after it, with what was held."""
        held = self.encode_held
        if held is None or self.ended:
            return
        self.encode_held = None
        self._continue(ENCODING, held)

    def inject_encoded(self, owner: HttpFilter, data: bytes, end_stream: bool) -> None:
        """For a filter whose ``encode_data`` has TAKEN a piece: it goes on to the filters after ``owner``, the filter itself."""
        if not self.ended and (data or end_stream):
            self._run_data(ENCODING, -self.http.chain.filters.index(owner), data, end_stream)

    def inject_decoded(self, owner: HttpFilter, data: bytes, end_stream: bool) -> None:
        """The same for the request's body."""
        if not self.ended and (data or end_stream):
            self._run_data(DECODING, self.http.chain.filters.index(owner), data, end_stream)

    def end_encoded(self, owner: HttpFilter, data: bytes, trailers: Headers) -> None:
        """For a filter whose ``encode_data`` has TAKEN the last piece: the response ends with ``data`` and ``trailers``."""
        self.inject_encoded(owner, data, False)
        if not self.ended:
            self.response_trailers = trailers
            self._run_trailers(ENCODING, -self.http.chain.filters.index(owner), trailers)

    def end_decoded(self, owner: HttpFilter, data: bytes, trailers: Headers) -> None:
        """The same for the request."""
        self.inject_decoded(owner, data, False)
        if not self.ended:
            self.request_trailers = trailers
            self._run_trailers(DECODING, self.http.chain.filters.index(owner), trailers)

    # -- both directions, while filters take part

    def _run_headers(self, direction: int, after: int, end_stream: bool) -> bool:
        # True when the headers went all the way.
        chain = self.http.chain
        hooks = chain.encode_headers if direction else chain.decode_headers
        headers = self.response_headers if direction else self.request_headers
        assert headers is not None
        hook: object = None
        try:
            for position, hook in hooks:
                if position <= after:
                    continue
                if hook(self, headers, end_stream) is not None:
                    if not self.ended and (direction or not self.response_started):
                        self._hold(direction, position, True).end_stream = end_stream
                    return False
                if self.ended or (not direction and self.response_started and self.upstream is None):
                    return False
        except Exception as error:
            if direction:
                self.response_started = False  # nothing has left
            self.fail(hook, error)
            return False
        if direction:
            self.http.encode_headers(self, headers, end_stream)
        return not self.ended

    def _run_data(self, direction: int, after: int, data: bytes, end_stream: bool) -> None:
        chain = self.http.chain
        held = self.encode_held if direction else self.decode_held
        hook: object = None
        try:
            for position, hook in chain.encode_data if direction else chain.decode_data:
                if position <= after:
                    continue
                if held is not None and position > held.position:
                    break
                result = hook(self, data, end_stream)
                if self.ended:
                    return
                if result is None:
                    if held is not None and position == held.position:
                        # The holder lets go: the headers, then what was held with this piece, go on after it.
                        self._append(held, data, end_stream, direction)
                        if direction:
                            self.continue_encoding()
                        else:
                            self.continue_decoding()
                        return
                elif result is STOP_ITERATION:
                    if held is None:
                        held = self._hold(direction, position, False)
                    self._append(held, data, end_stream, direction)
                    return
                elif isinstance(result, bytes):
                    data = result
                else:
                    return  # taken: inject_encoded brings it back
        except Exception as error:
            self.fail(hook, error)
            return
        if held is not None:
            self._append(held, data, end_stream, direction)
        elif direction:
            self.http.encode_data(self, data, end_stream)

    def _run_trailers(self, direction: int, after: int, trailers: Headers) -> None:
        chain = self.http.chain
        held = self.encode_held if direction else self.decode_held
        hook: object = None
        try:
            for position, hook in chain.encode_trailers if direction else chain.decode_trailers:
                if position <= after:
                    continue
                if held is not None and position > held.position:
                    break
                result = hook(self, trailers)
                if self.ended:
                    return
                if result is not None:
                    if held is None:
                        held = self._hold(direction, position, False)
                    break
                if held is not None and position == held.position:
                    # The holder lets go, as with data.
                    held.trailers = trailers
                    held.end_stream = True
                    if direction:
                        self.continue_encoding()
                    else:
                        self.continue_decoding()
                    return
        except Exception as error:
            self.fail(hook, error)
            return
        if held is not None:
            held.trailers = trailers
            held.end_stream = True
        elif direction:
            self.http.encode_trailers(self, trailers)

    def _hold(self, direction: int, position: int, headers_due: bool) -> Held:
        held = Held(position, headers_due)
        if direction:
            self.encode_held = held
        else:
            self.decode_held = held
        return held

    def _append(self, held: Held, data: bytes, end_stream: bool, direction: int) -> None:
        held.end_stream = held.end_stream or end_stream
        if not data:
            return
        held.buffer.append(data)
        held.buffered_bytes += len(data)
        limit = None if direction else self.decode_buffer_limit
        if held.buffered_bytes > (self.connection.high_watermark if limit is None else limit):
            if direction:
                self.http.response_too_large(self)
            else:
                self.http.manager.stats.downstream_rq_too_large += 1
                self.send_local_reply(413, b"Payload Too Large", details="request_payload_too_large")

    def _continue(self, direction: int, held: Held) -> None:
        data = b"".join(held.buffer)
        last = held.end_stream and not data and held.trailers is None
        if held.headers_due and not self._run_headers(direction, held.position, last):
            again = self.encode_held if direction else self.decode_held
            if again is None or last:
                return
            # Held again: the filters up to that one are shown what was held here.
        if data or (held.end_stream and not held.headers_due and held.trailers is None):
            self._run_data(direction, held.position, data, held.end_stream and held.trailers is None)
        if held.trailers is not None and not self.ended:
            self._run_trailers(direction, held.position, held.trailers)

    # -- ending

    def send_local_reply(
        self,
        status: int,
        body: bytes = b"",
        headers: Headers | None = None,
        details: str = "",
        flags: int = 0,
        finalize: Callable[[Stream, Headers], None] | None = None,
        grpc_status: int | None = None,
        late_flags: int = 0,
    ) -> None:
        """Answer this request from here, with a plain text ``body`` and more ``headers``.

        Before the response's head has left this is a whole response through the encode filters; after it, all that can be
        done is to break the message off, so that the client sees it is incomplete. ``details``: RESPONSE_CODE_DETAILS;
        ``flags``: bits of response_flags, ``late_flags`` those that ``local_reply_config`` is not to see. A route to a cluster
        adds its headers first, then come ``headers``, then those of ``finalize``, then what describes the body.
        ``grpc_status``: what a gRPC client is told instead of what belongs to ``status``.
        """
        if self.ended:
            return
        if details:
            self.details = details
        self.response_flags |= flags
        self.http.reset_upstream(self)
        if self.response_started:
            held = self.encode_held
            if held is None or not held.headers_due:
                self.response_flags |= late_flags
                self.http.break_off(self)
                return
            # A filter holds the head, so nothing has left: this answer takes its place. Filters might hold it again.
            self.response_started = False
            self.encode_held = None
            self.failed = True
        self.decode_held = None
        manager = self.http.manager
        if status == 400 and not manager.settings.stream_error_on_invalid_http_message:
            self.http.close_after = True  # as Envoy, whoever answers so
        reply: Headers = []
        route = self.route
        if route is not None and not route.kind and route.finalize_response is not None:
            # As in Envoy, formats do not see the code yet, but where it stands among the headers.
            self.status = 0
            reply = [(b":status", b"%d" % status)]
            route.finalize_response(self, reply)
            reply = [line for line in reply if line[0] != b":status"]
        if headers:
            reply += headers
        if finalize is not None:
            finalize(self, reply)
        self.status = status
        content_type, is_retyped = b"text/plain", False
        if manager.rewrite_local_reply is not None:
            status, body, content_type, is_retyped = manager.rewrite_local_reply(self, status, reply, body)
        self.response_flags |= late_flags
        if get_header(self.request_headers, b"content-type") in _GRPC_CONTENT_TYPES:
            if grpc_status is None:
                grpc_status = _GRPC_STATUS.get(status, 2)
            self._send_grpc_reply(grpc_status, body.removesuffix(b"\n") if content_type == _JSON else body, reply)
            return
        if body:
            set_header(reply, b"content-length", b"%d" % len(body))
            if is_retyped or get_header(reply, b"content-type") is None:
                set_header(reply, b"content-type", content_type)
        elif reply:
            reply = [line for line in reply if line[0] not in _OF_A_BODY]
        # RFC 9110 sections 15.3.5 and 15.4.5: these have none, whatever was asked for.
        bodiless = not body or self.method == b"HEAD" or status in (204, 304)
        self.encode_headers(status, reply, bodiless)
        if not bodiless:
            self.encode_data(body, True)

    def _send_grpc_reply(self, grpc_status: int, body: bytes, reply: Headers) -> None:
        # A gRPC client reads its status from grpc-status, in an answer that is all head (gRPC over HTTP/2, "Trailers-Only").
        set_header(reply, b"content-type", b"application/grpc")
        if not get_header(reply, b"grpc-status"):
            set_header(reply, b"grpc-status", b"%d" % grpc_status)
        if body and self.method != b"HEAD":
            message = quote(body, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}").encode()
            set_header(reply, b"grpc-message", message)
        self.status = 200
        self.encode_headers(200, [line for line in reply if line[0] != b"content-length"], True)

    def fail(self, hook: object, error: Exception) -> None:
        """A filter raised: this stream ends with 500, everything else goes on (ARCHITECTURE.md, "Errors")."""
        self.http.manager.on_filter_exception(self.http.chain.name_of(hook), error)
        self.failed = True
        self.send_local_reply(500, b"", details="filter_exception", flags=0)
