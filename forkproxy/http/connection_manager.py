"""The connection manager: downstream HTTP connections, their streams in order, and the headers Envoy adds to both messages.

``ConnectionManager`` is one per filter chain entry and worker; ``HttpConnection`` is one per downstream connection. HTTP/1
answers in the order of the requests: one stream is active, pipelined requests wait in a queue while reading is paused.

The order and the presence of every header added here were asked of real Envoy (tests/conformance).
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final, Protocol

from forkproxy.http import response_flags as flags
from forkproxy.http.chain import HttpFilterChain
from forkproxy.http.client_address import EDGE, REJECTED, ClientAddresses
from forkproxy.http.client_certificate import ForwardClientCert
from forkproxy.http.codec import CodecError, ServerSink
from forkproxy.http.early_mutation import mutate_early
from forkproxy.http.header_case import SpellingServerCodec, respell, status_line
from forkproxy.http.headers import Headers
from forkproxy.http.headers import get as get_header
from forkproxy.http.headers import get_all as get_all_headers
from forkproxy.http.headers import set_ as set_header
from forkproxy.http.http1 import (
    CONNECT,
    HAS_REQUEST_ID,
    ServerCodec,
    ServerSettings,
)
from forkproxy.http.path import normalise_path
from forkproxy.http.proxy_status import ProxyStatus
from forkproxy.http.request_id import make_request_ids
from forkproxy.http.status import HTTP_10, HTTP_11
from forkproxy.http.status import reason as reason_phrase
from forkproxy.http.stream import LocalReplyRewriter, Stream
from forkproxy.http.trace_reason import CLIENT_FORCED, NOT_TRACED, SAMPLED, SERVICE_FORCED, TraceSampling, pack
from forkproxy.net.connection import CLOSE_TIMEOUT, JOIN_BYTES, REMOTE_CLOSE, REMOTE_RESET, Connection
from forkproxy.net.loop import Loop
from forkproxy.net.timers import NEVER, Timer

_SERVER = 1
_DATE = 2
_CONTENT_LENGTH = 3
_HOP = 4
_ENCODE_CODES: dict[bytes, int] = {
    b"server": _SERVER,
    b"date": _DATE,
    b"content-length": _CONTENT_LENGTH,
    b"transfer-encoding": _HOP,
    b"connection": _HOP,
    b"keep-alive": _HOP,
    b"proxy-connection": _HOP,
}
_header_code = _ENCODE_CODES.get
_join_header = b": ".join
_join_lines = b"\r\n".join

_DATE_OR_SERVER = frozenset((b"date", b"server"))
_HTTP_11_TEXT = b"HTTP/1.1"

FIRST_LOOK_S = 15.0
"""The timer of a new connection is armed for this time at the latest, Envoy's timeout of a route: few requests ask for less."""
REST_AFTER_S = 1.0
"""A connection without a request for this long gives back what only requests need: half of its memory, and no walk over
connections meets it."""
MANY_AWAKE = 1024
REST_SOON_S = 0.25
"""The same where more than that many are awake: to wake costs some microseconds, memory counts where there are many."""
SWEEP_S = 0.25
SWEEP_NUMBER = 256
"""How often connections are looked at for rest, and how many: no look takes a millisecond."""
HASTE_S = 0.02
"""How soon again when all of them could rest."""

_NO_HOST: Any = None
"""The authority of a request without Host, told from an empty one. Such a request is answered before anybody reads it."""

SMALL_CHUNK_BYTES = 16384

_PORT = re.compile(rb"\+?[0-9]{1,20}")
_LARGEST_PORT = 0xFFFF_FFFF
"""What Envoy takes for a port: any number of 32 bits."""

OVERWRITE = "OVERWRITE"
PASS_THROUGH = "PASS_THROUGH"


class UpstreamHandle(Protocol):
    """What the router leaves on ``stream.upstream``: the running exchange with an endpoint."""

    def reset(self) -> None:
        """Give the exchange up; nothing more is told to the stream."""

    def on_response_timeout(self) -> None:
        """The route's timeout has passed."""

    def pause(self) -> None:
        """The downstream side is full: read no more of the response."""

    def resume(self) -> None:
        """Go on reading."""


class Upgrades(Protocol):
    """Who may have an upgrade or a CONNECT (http/upgrades.py); None where nothing in the configuration speaks of any."""

    def find_route(self, http: Any, stream: Any) -> None:
        """Set the route of a CONNECT."""

    def grant(self, http: Any, stream: Any, name: bytes) -> bool:
        """May this request become a tunnel? Then it is prepared for it."""


class AccessLogger(Protocol):
    """An access log."""

    def log(self, stream: Any) -> None: ...


class ConnectionManagerSettings:
    """What a connection manager does, in the terms of the request path (seconds, bytes, NEVER for a timeout that is off)."""

    __slots__ = (
        *("add_user_agent", "client_addresses", "codec", "delayed_close_timeout_s", "generate_request_id"),
        "forward_client_cert",
        *("scheme",),
        *(
            "drain_timeout_s",
            "early_mutations",
            "pack_trace_reason",
            "safe_max_connection_duration",
            "scheme_to_overwrite",
        ),
        *(
            "keeps_spelling",
            "match_upstream_scheme",
            "proper_case_others",
            "trace_sampling",
            "header_key_format",
            "idle_timeout_s",
            "max_connection_duration_s",
            "max_requests_per_connection",
        ),
        *("max_stream_duration_s", "merge_slashes", "normalize_path", "path_with_escaped_slashes_action"),
        *("preserve_external_request_id", "proxy_100_continue", "request_headers_timeout_s", "request_id_in_response"),
        *("proxy_status", "request_timeout_s", "server_header_transformation", "server_name", "service_cluster"),
        *("stream_error_on_invalid_http_message", "stream_idle_timeout_s", "strip_any_host_port", "service_node"),
        *("strip_matching_host_port", "strip_trailing_host_dot", "via"),
    )

    def __init__(self, codec: ServerSettings | None = None) -> None:
        self.codec = codec or ServerSettings()
        self.scheme = b"http"
        self.client_addresses = ClientAddresses()
        self.forward_client_cert: ForwardClientCert | None = None
        self.add_user_agent = False
        self.service_cluster = b""
        self.service_node = b""
        self.server_name = b"envoy"
        self.server_header_transformation = OVERWRITE
        self.via = b""
        self.early_mutations: Callable[[Stream, Headers], None] | None = None
        self.scheme_to_overwrite = b""
        self.match_upstream_scheme = False
        self.keeps_spelling = False
        self.proper_case_others = False
        self.pack_trace_reason = True
        self.trace_sampling: TraceSampling | None = None
        self.drain_timeout_s = 5.0
        self.safe_max_connection_duration = False
        self.proxy_status: ProxyStatus | None = None
        self.generate_request_id = True
        self.preserve_external_request_id = False
        self.request_id_in_response = False
        self.proxy_100_continue = False
        self.normalize_path = False
        self.merge_slashes = False
        self.path_with_escaped_slashes_action = "KEEP_UNCHANGED"
        self.strip_matching_host_port = False
        self.strip_any_host_port = False
        self.strip_trailing_host_dot = False
        self.header_key_format: Callable[[bytes], bytes] | None = None
        self.idle_timeout_s = 3600.0
        self.stream_idle_timeout_s = 300.0
        self.request_timeout_s = NEVER
        self.request_headers_timeout_s = NEVER
        self.max_connection_duration_s = NEVER
        self.max_stream_duration_s = NEVER
        self.max_requests_per_connection = 0
        self.delayed_close_timeout_s = 1.0
        self.stream_error_on_invalid_http_message = False


class _Chance:
    """Stands for a bool that is true more and more often: Envoy's gradual drain (DrainManager). Who does not drain pays nothing
    for it: the path asks an attribute whether it is true, and that is mostly False itself."""

    __slots__ = ("_since", "_time_s")

    def __init__(self, since: float, time_s: float) -> None:
        self._since = since
        self._time_s = time_s

    def __bool__(self) -> bool:
        return time.monotonic() - self._since >= self._time_s * random.random()


class ConnectionManager:
    """What all connections of one HttpConnectionManager entry share in a worker."""

    __slots__ = (
        *(
            "_date_line",
            "_date_until",
            "_drained",
            "_sweeper",
            "access_logs",
            "add_server",
            "awake",
            "chain",
            "client_addresses",
            "codes",
        ),
        *(
            "connections",
            "draining",
            "fails_health_check",
            "generate_request_id",
            "http1_stats",
            "idle_timeout_s",
            "log_filter_exception",
        ),
        *(
            "loop",
            "match",
            "max_requests",
            "overwrite_server",
            "passes_responses",
            "plain",
            "proto_header",
            "request_ids",
        ),
        *(
            "amends_response",
            "make_codec",
            "rewrite_local_reply",
            "server_line",
            "settings",
            "stats",
            "stream_timeout_s",
            "tls",
            "upgrades",
        ),
    )

    loop: Loop
    _sweeper: Timer
    """Both set by ``start()``, in the worker."""

    def __init__(
        self,
        settings: ConnectionManagerSettings,
        chain: HttpFilterChain,
        match: Callable[[Any], Any],
        stats: Any,
        codes: dict[int, int],
        http1_stats: Any,
        access_logs: Sequence[AccessLogger] = (),
        log_filter_exception: Callable[[str, Exception], None] | None = None,
        rewrite_local_reply: LocalReplyRewriter | None = None,
        upgrades: Upgrades | None = None,
    ) -> None:
        self.settings = settings
        self.client_addresses = settings.client_addresses
        self.rewrite_local_reply = rewrite_local_reply
        self.amends_response = bool(settings.via) or settings.proxy_status is not None
        self.upgrades = upgrades
        self.chain = chain
        self.match = match
        self.stats = stats
        self.codes = codes
        self.http1_stats = http1_stats
        self.make_codec: Callable[[ServerSink, ServerSettings], ServerCodec] = ServerCodec
        if settings.keeps_spelling:
            self.make_codec = partial(SpellingServerCodec, proper_case_others=settings.proper_case_others)
        self.access_logs = tuple(log.log for log in access_logs)
        self.log_filter_exception = log_filter_exception
        self.connections: set[HttpConnection] = set()
        self.awake: dict[HttpConnection, None] = {}
        """Those of them that do not rest, whose figures may have moved since they were read. Those at the front are looked at
        next."""
        self.draining: object = False
        """True, or true by chance, while responses are to carry ``connection: close``."""
        self._drained: object = False
        self.fails_health_check = False
        self.request_ids: list[bytes] = []
        self.server_line = b"server: " + settings.server_name
        self.proto_header = (b"x-forwarded-proto", settings.scheme)
        self.generate_request_id = settings.generate_request_id
        self.max_requests = settings.max_requests_per_connection or -1
        self.idle_timeout_s = settings.idle_timeout_s
        self.stream_timeout_s = min(
            settings.stream_idle_timeout_s, settings.request_timeout_s, settings.max_stream_duration_s
        )
        self.tls = settings.scheme == b"https"
        self.overwrite_server = settings.server_header_transformation == OVERWRITE
        self.add_server = settings.server_header_transformation != PASS_THROUGH
        self._date_line = b""
        self._date_until = 0.0
        # Nothing configured that touches a response's head beyond date and server.
        self.passes_responses = (
            self.overwrite_server
            and not settings.request_id_in_response
            and not self.amends_response
            and settings.header_key_format is None
        )
        # Nothing configured that touches a request's head beyond x-forwarded-proto and the request id.
        self.plain = not (
            settings.client_addresses.looks_at_every_request
            or settings.early_mutations is not None
            or settings.scheme_to_overwrite
            or settings.trace_sampling is not None
            or (settings.forward_client_cert is not None and settings.forward_client_cert.tells)
            or settings.via
            or settings.add_user_agent
            or settings.normalize_path
            or settings.merge_slashes
            or settings.path_with_escaped_slashes_action != "KEEP_UNCHANGED"
            or settings.strip_any_host_port
            or settings.strip_matching_host_port
            or settings.strip_trailing_host_dot
        )

    def start(self, loop: Loop) -> None:
        """In the worker, before the first connection."""
        self.loop = loop
        self._sweeper = loop.timer(self._sweep)
        self.request_ids = []  # what the supervisor may have made must not be handed out twice

    def watch_for_rest(self, http: HttpConnection) -> None:
        """A connection is awake: see to it that it rests in time."""
        if not self.awake:
            self._sweeper.arm(self.loop.now + SWEEP_S)
        self.awake[http] = None

    def forget(self, http: HttpConnection) -> None:
        """A connection is gone."""
        self.connections.discard(http)
        awake = self.awake
        awake.pop(http, None)
        if not awake:
            self._sweeper.disarm()

    def _sweep(self) -> None:
        awake = self.awake
        now = self.loop.now
        before = now - (REST_AFTER_S if len(awake) <= MANY_AWAKE else REST_SOON_S)
        looked_at = list(islice(awake, SWEEP_NUMBER))
        rested = 0
        for http in looked_at:
            del awake[http]
            if http.rest(before):
                rested += 1
            else:
                awake[http] = None
        if awake:
            self._sweeper.arm(now + (HASTE_S if rested == SWEEP_NUMBER else SWEEP_S))

    def on_filter_exception(self, filter_name: str, error: Exception) -> None:
        """A filter raised: logged with its name."""
        if self.log_filter_exception is not None:
            self.log_filter_exception(filter_name, error)

    def date_line(self, now: float) -> bytes:
        """``date: …`` for the response, made once a second (RFC 9110 section 6.6.1)."""
        if now >= self._date_until:
            wall = self.loop.wall()
            self._date_line = b"date: " + time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(wall)).encode()
            self._date_until = now + 1.0 - wall % 1.0
        return self._date_line

    def drain(self) -> None:
        """Answer with ``connection: close`` from now on. Who is between two requests keeps the connection for the moment:
        closing it now could meet a request under way. ``close_idle`` follows."""
        self.draining = self._drained = True
        for http in self.connections:
            http.on_drain()

    def fail_health_check(self, failed: bool) -> None:
        """/healthcheck/fail and /ok: while it fails, every response asks its client to go elsewhere, as in Envoy."""
        self.fails_health_check = failed
        self.draining = True if failed else self._drained

    def leave_gradually(self, since: float, time_s: float) -> None:
        """Answer with ``connection: close`` more and more often, and always from ``since + time_s`` on (``loop.now``). Nothing
        else changes: connections are still taken."""
        if self._drained is False:
            self._drained = _Chance(since, time_s)
        if self.draining is False:
            self.draining = self._drained

    def close_idle(self, for_s: float) -> None:
        """Close the connections that have been without a request for ``for_s`` seconds."""
        before = self.loop.now - for_s
        for http in list(self.connections):
            http.close_if_idle_since(before)

    def sync_stats(self) -> None:
        """Count what is not counted as it happens: bytes of open connections, streams under way. Before figures are read."""
        stats = self.stats
        active = upgrades = 0
        for http in self.awake:
            http.sync_bytes()
            if http.stream is not None:
                active += 1
                upgrades += http.upgrading
        stats.downstream_rq_active = active
        stats.downstream_cx_upgrades_active = upgrades
        stats.downstream_rq_http1_total = stats.downstream_rq_total


class _Queued:
    """A pipelined request that waits for its turn."""

    __slots__ = (
        *("body", "close_after", "complete", "end_stream", "error", "expects_continue", "flags", "http_10", "stream"),
        *("trailers", "upgrade"),
    )

    def __init__(
        self,
        stream: Stream,
        end_stream: bool,
        request_flags: int = 0,
        upgrade: bytes = b"",
        close_after: bool = False,
        http_10: bool = False,
    ) -> None:
        self.close_after = close_after
        self.http_10 = http_10
        self.stream = stream
        self.end_stream = end_stream
        self.flags = request_flags
        self.upgrade = upgrade
        self.body: list[bytes] = []
        self.complete = end_stream
        self.expects_continue = False
        self.trailers: Headers | None = None
        self.error: CodecError | None = None


class _Resting(ServerCodec):
    # The codec of a connection that has said nothing yet, or nothing for a while.
    __slots__ = ()

    def __init__(self) -> None:
        self.fresh = True

    def close(self) -> None:
        pass


_RESTING: Final = _Resting()
_NO_QUEUE: Final[list[_Queued]] = []
"""Nothing is ever put into it: who has something to wait makes a list."""


def _ignore() -> None:
    pass


class HttpConnection:
    """One downstream HTTP/1 connection: a ServerSink, and the sink of its streams' responses.

    It rests until its first bytes, and again when nothing has come for a while: then it has no codec.
    """

    __slots__ = (
        *("_advancing", "_bytes_received_seen", "_bytes_sent_seen", "_chunked", "_end", "_is_old"),
        *("_message_start", "_queue_paused"),
        *("speaks_http1", "chain", "close_after", "codec", "connection", "http_10", "idle_since", "loop"),
        *("_full", "manager", "met_protocol_error", "queue", "requests", "started", "stream", "timer", "upgrading"),
    )

    def __init__(self, manager: ConnectionManager, connection: Connection) -> None:
        self.manager = manager
        self.connection = connection
        self.chain = manager.chain
        self.loop = manager.loop
        self.codec: ServerCodec = _RESTING
        self.stream: Stream | None = None
        self.close_after = False
        self.http_10 = False
        self.requests = 0
        loop = manager.loop
        self.started = self.idle_since = now = loop.now
        self._is_old = False
        self._message_start = now
        self.queue: list[_Queued] = _NO_QUEUE
        self._queue_paused = False
        self._full = False
        self.speaks_http1 = False
        self.met_protocol_error = False
        self.upgrading = False
        """The stream is the connection's last: it may become a tunnel, or is one."""
        self._advancing = False
        self._chunked = False
        self._bytes_received_seen = 0
        self._bytes_sent_seen = 0
        settings = manager.settings
        first = settings.idle_timeout_s
        self._end = NEVER
        if settings.max_connection_duration_s != NEVER:
            self._end = now + settings.max_connection_duration_s
            first = min(first, settings.max_connection_duration_s)
        self.timer = loop.timer(self._on_timer)
        # Not later than a first request would ask for: a short connection has one entry in the loop's heap.
        self.timer.arm(now + min(first, FIRST_LOOK_S))
        manager.connections.add(self)
        stats = manager.stats
        stats.downstream_cx_total += 1
        stats.downstream_cx_active += 1
        if manager.tls:
            stats.downstream_cx_ssl_total += 1
            stats.downstream_cx_ssl_active += 1

    def __repr__(self) -> str:
        return f"<HttpConnection {self.connection!r} requests={self.requests} queue={len(self.queue)} {self.stream!r}>"

    # -- bytes from downstream

    def on_data(self, data: bytes) -> None:
        """The connection's read callback."""
        codec = self.codec
        if codec.fresh:
            if codec is _RESTING:
                codec = self._wake()
            self._message_start = self.loop.now
        try:
            codec.feed(data)
        except CodecError as error:
            self._on_codec_error(error)
            return
        stream = self.stream
        if stream is not None:
            stream.last_activity = self.loop.now
        elif not codec.fresh:
            self._watch_head()

    def use_chain(self, chain: HttpFilterChain) -> None:
        """Let these filters see what comes, in the place of the connection manager's: an upgrade has its own."""
        self.chain = chain

    def _wake(self) -> ServerCodec:
        manager = self.manager
        self.codec = codec = self._make_codec()
        manager.watch_for_rest(self)
        connection = self.connection
        connection.on_above_high_watermark = self._on_above_high_watermark
        connection.on_below_low_watermark = self._on_below_low_watermark
        if not self.speaks_http1:
            self.speaks_http1 = True
            stats = manager.stats
            stats.downstream_cx_http1_total += 1
            stats.downstream_cx_http1_active += 1
        return codec

    def _make_codec(self) -> ServerCodec:
        manager = self.manager
        return manager.make_codec(self, manager.settings.codec)

    def rest(self, before: float) -> bool:
        """Rest when nothing has been under way since ``before``; False: not yet."""
        connection = self.connection
        if (
            self.stream is not None
            or self.idle_since > before
            or not self.codec.fresh
            or self.queue
            or connection.out_bytes  # the peer has not read the last answer
            or connection.closing
        ):
            return False
        connection.on_above_high_watermark = connection.on_below_low_watermark = _ignore
        self.sync_bytes()
        self.codec.close()
        self.codec = _RESTING
        return True

    def _watch_head(self) -> None:
        # A head has begun and is not complete.
        settings = self.manager.settings
        deadline = self._message_start + min(settings.request_headers_timeout_s, settings.stream_idle_timeout_s)
        if deadline < self.timer.deadline:
            self.timer.arm(deadline)

    def decode_headers(self, end_stream: bool) -> None:
        """ServerSink: a request head is complete."""
        if self.close_after:
            return  # nothing after the last request of a connection is looked at
        codec = self.codec
        stream = Stream(
            self, codec.method, codec.path, codec.authority, codec.headers, _HTTP_11_TEXT, self._message_start
        )
        if self.stream is not None or self.queue or self._full:
            self._enqueue(stream, end_stream)
            return
        self.manager.stats.downstream_rq_total += 1
        if codec.plain:
            self.http_10 = False
            self._begin_stream(stream, end_stream, 0, b"", True)
        else:
            self._note_head(stream, end_stream)
            self._begin_stream(stream, end_stream, codec.flags, codec.upgrade, False)

    def _note_head(self, stream: Stream, end_stream: bool) -> None:
        # What a head says beyond the usual.
        codec = self.codec
        if codec.http_10:
            stream.protocol = b"HTTP/1.0"
        self.http_10 = codec.http_10
        if not codec.has_host:
            stream.authority = _NO_HOST
        if codec.connection_close or (codec.http_10 and not codec.connection_keep_alive):
            self.close_after = True
        if codec.dropped_underscores:
            self.manager.http1_stats.dropped_headers_with_underscores += codec.dropped_underscores
            codec.dropped_underscores = 0
        if codec.expect_continue and not end_stream and not codec.http_10:
            self._expect_continue(stream)

    def _enqueue(self, stream: Stream, end_stream: bool) -> None:
        # What the head says of the connection counts when the request's turn comes.
        queue = self.queue
        if queue and queue[-1].close_after:
            return
        close_after = self.close_after
        self._note_head(stream, True)
        if not queue:
            queue = self.queue = []
        queue.append(_Queued(stream, end_stream, self.codec.flags, self.codec.upgrade, self.close_after, self.http_10))
        queue[-1].expects_continue = self.codec.expect_continue and not self.http_10
        self.close_after = close_after
        self.http_10 = self.stream is not None and self.stream.protocol == b"HTTP/1.0"
        if not self._queue_paused:
            self._queue_paused = True
            self.connection.pause_reading()

    def _expect_continue(self, stream: Stream) -> None:
        if not self.manager.settings.proxy_100_continue and self.stream is None and not self.queue:
            # RFC 9110 section 10.1.1; a pipelined request's body is here or under way anyway.
            self.connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.manager.codes[100] += 1

    def decode_data(self, data: bytes) -> None:
        """ServerSink: a piece of the request body."""
        # A body belongs to the last message that was begun; when that one was not looked at, neither is its body.
        queue = self.queue
        if queue:
            if not queue[-1].complete:
                queue[-1].body.append(data)
        elif self.stream is not None and not self.stream.request_ended:
            self.stream.decode_data(data, False)

    def is_reading_body_of(self, stream: Stream) -> bool:
        """Is what comes next on this connection, and nothing before it, more of this request's body?"""
        return (
            stream is self.stream
            and not (stream.request_ended or self.queue or self._advancing or self.codec.fresh)
            and stream.decode_held is None
        )

    def decode_complete(self, trailers: Headers | None) -> None:
        """ServerSink: the request body has ended."""
        queue = self.queue
        if queue:
            if not queue[-1].complete:
                queue[-1].complete = True
                queue[-1].trailers = trailers
        elif self.stream is not None and not self.stream.request_ended:
            self._complete_request(self.stream, trailers)

    def _complete_request(self, stream: Stream, trailers: Headers | None) -> None:
        stream.request_ended = True
        stream.request_complete = self.manager.loop.now
        if trailers is None:
            stream.decode_data(b"", True)
        else:
            stream.decode_trailers(trailers)

    def _on_codec_error(self, error: CodecError) -> None:
        stats = self.manager.stats
        active = self.stream
        if self.connection.closing or self.connection.closed:
            return
        if self.close_after and (active is None or active.request_ended):
            return  # what comes after the last request is not looked at
        stats.downstream_cx_protocol_error += 1
        self.met_protocol_error = True
        if error.details == "http1.unexpected_underscore":
            self.manager.http1_stats.requests_rejected_with_underscores_in_headers += 1
        self.connection.pause_reading()
        if active is not None and not active.request_ended and not self.queue:
            self._refuse(active, error)  # its body is broken
        elif self.queue and not self.queue[-1].complete:
            self.queue[-1].error = error
        else:
            # A head that is none: a stream of its own, after those before it.
            now = self.manager.loop.now
            stream = self._unread(now)
            if active is not None or self.queue:
                queued = _Queued(stream, False)
                queued.error = error
                self.queue = [*self.queue, queued]
            else:
                stats.downstream_rq_total += 1
                self.stream = stream
                self._refuse(stream, error)

    def _unread(self, start: float) -> Stream:
        # Stands for a request that could not be read.
        stream = Stream(self, b"", b"", _NO_HOST, [], b"HTTP/1.1", start)
        stream.scheme = b""
        return stream

    def _refuse(self, stream: Stream, error: CodecError) -> None:
        self.close_after = True
        self.http_10 = False
        stream.send_local_reply(
            error.status, reason_phrase(error.status).encode(), details=error.details, late_flags=flags.DPE
        )

    # -- the beginning of a stream

    def _begin_stream(self, stream: Stream, end_stream: bool, request_flags: int, upgrade: bytes, plain: bool) -> None:
        # ``plain``: nothing of the head has to be looked at.
        manager = self.manager
        self.stream = stream
        self.requests += 1
        now = self.loop.now
        if end_stream:
            stream.request_ended = True
            stream.request_complete = now
        if not plain and not self._check_head(stream):
            return
        if request_flags or not manager.plain:
            if not self._mutate_request(stream, request_flags):
                return
        else:
            headers = stream.request_headers
            headers.append(manager.proto_header)
            if manager.generate_request_id:
                ids = manager.request_ids
                if not ids:
                    ids = manager.request_ids = make_request_ids()
                stream.request_id = request_id = ids.pop()
                headers.append((b"x-request-id", request_id))
        match = manager.match
        stream.route = match(stream)
        if upgrade and not self._check_upgrade(stream, upgrade):
            return
        deadline = now + manager.stream_timeout_s
        if deadline < self.timer.deadline:
            self.timer.arm(deadline)
        if manager.draining or self.requests == manager.max_requests:
            self._close_after_this()
        stream.decode_headers(end_stream)

    def _check_head(self, stream: Stream) -> bool:
        # False: refused already.
        if stream.authority is _NO_HOST:
            self._reject(stream, 400, "missing_host_header")
            return False
        path = stream.path
        return (b"#" not in path and path[:1] == b"/") or self._check_path(stream, path)

    def on_drain(self) -> None:
        """A request whose response has not begun is the last one here; of pipelined ones, the one whose turn is next."""
        if self.stream is not None and not self.stream.response_started and not self.queue:
            self._close_after_this()

    def _close_after_this(self) -> None:
        stats = self.manager.stats
        if not self.close_after and not self._is_old:
            if self.requests == self.manager.max_requests:
                stats.downstream_cx_max_requests_reached += 1
            else:
                stats.downstream_cx_drain_close += 1
        self.close_after = True

    def _reject(self, stream: Stream, status: int, details: str, close: bool = True) -> None:
        if close and not self.manager.settings.stream_error_on_invalid_http_message:
            self.close_after = True
        stream.scheme = b""  # nobody has come to it
        stream.send_local_reply(status, details=details)

    def _check_path(self, stream: Stream, path: bytes) -> bool:
        if stream.method == CONNECT:
            return True
        if path[:1] != b"/":
            self.manager.stats.downstream_rq_non_relative_path += 1
            self._reject(stream, 404, "absolute_path_rejected", close=False)
        else:
            self.manager.stats.downstream_rq_failed_path_normalization += 1
            self._reject(stream, 400, "path_normalization_failed")
        return False

    def _check_upgrade(self, stream: Stream, name: bytes) -> bool:
        stream.request_ended = False  # what the client wants to send next is not HTTP
        upgrades = self.manager.upgrades
        if name == CONNECT or stream.method == CONNECT:
            stream.route = None
            if upgrades is not None:
                upgrades.find_route(self, stream)
        if upgrades is None:
            if stream.route is None:
                return True  # the router has an answer for that
        elif upgrades.grant(self, stream, name):
            return True
        self.manager.stats.downstream_rq_ws_on_non_ws_route += 1
        if stream.route is not None:
            stream.cluster = stream.route.cluster
        self.close_after = True
        stream.send_local_reply(403, details="upgrade_failed")
        return False

    def _mutate_request(self, stream: Stream, request_flags: int) -> bool:
        """The heads that are not plain. False: answered already."""
        settings = self.manager.settings
        if not self._normalise(stream):
            return False
        if settings.early_mutations is not None:
            request_flags = mutate_early(stream, settings.early_mutations)
        standing = self.manager.client_addresses.admit(stream, request_flags)
        if standing == REJECTED:
            return False
        edge = standing == EDGE
        headers = stream.request_headers
        if settings.scheme_to_overwrite:
            stream.scheme = settings.scheme_to_overwrite
            set_header(headers, b"x-forwarded-proto", settings.scheme_to_overwrite)
        if settings.add_user_agent:
            set_header(headers, b"x-envoy-downstream-service-cluster", settings.service_cluster)
            if not get_header(headers, b"user-agent"):
                set_header(headers, b"user-agent", settings.service_cluster)
            if settings.service_node:
                set_header(headers, b"x-envoy-downstream-service-node", settings.service_node)
        if settings.via:
            before = b",".join(get_all_headers(headers, b"via"))
            set_header(headers, b"via", b"%b, %b" % (before, settings.via) if before else settings.via)
        self._set_request_id(stream, request_flags, edge)
        if settings.trace_sampling is not None:
            self._count_tracing(settings.trace_sampling.decide(stream))
        if settings.forward_client_cert is not None:
            settings.forward_client_cert(stream)
        return True

    def _count_tracing(self, reason: bytes) -> None:
        stats = self.manager.stats
        if reason == SAMPLED:
            stats.tracing__random_sampling += 1
        elif reason == SERVICE_FORCED:
            stats.tracing__service_forced += 1
        elif reason == CLIENT_FORCED:
            stats.tracing__client_enabled += 1
        else:
            stats.tracing__not_traceable += 1

    def _set_request_id(self, stream: Stream, request_flags: int, edge: bool) -> None:
        settings = self.manager.settings
        headers = stream.request_headers
        if request_flags & HAS_REQUEST_ID and (not edge or settings.preserve_external_request_id):
            found = get_all_headers(headers, b"x-request-id")
            stream.request_id = b",".join(found)
            if len(found) > 1:
                set_header(headers, b"x-request-id", stream.request_id)
            if stream.request_id:
                if edge and settings.pack_trace_reason:
                    # A stranger's id is kept, but not its wish to be traced.
                    stream.request_id = pack(stream.request_id, NOT_TRACED)
                    set_header(headers, b"x-request-id", stream.request_id)
                return
        if settings.generate_request_id:
            ids = self.manager.request_ids
            if not ids:
                ids = self.manager.request_ids = make_request_ids()
            stream.request_id = ids.pop()
            set_header(headers, b"x-request-id", stream.request_id)
        elif request_flags & HAS_REQUEST_ID:
            # Whoever makes none leaves what is there to others, even at the edge.
            stream.request_id = b",".join(get_all_headers(headers, b"x-request-id"))
            set_header(headers, b"x-request-id", stream.request_id)

    def _normalise(self, stream: Stream) -> bool:
        settings = self.manager.settings
        if (settings.strip_any_host_port or settings.strip_matching_host_port) and stream.method != CONNECT:
            self.strip_port(stream, settings.strip_any_host_port)
        if settings.strip_trailing_host_dot and stream.authority:
            host, colon, port = stream.authority.partition(b":")
            if host.endswith(b"."):
                stream.authority = host[:-1] + colon + port
        if stream.method == b"CONNECT" or not (
            settings.normalize_path
            or settings.merge_slashes
            or settings.path_with_escaped_slashes_action != "KEEP_UNCHANGED"
        ):
            return True
        outcome, path = normalise_path(
            stream.path, settings.normalize_path, settings.merge_slashes, settings.path_with_escaped_slashes_action
        )
        stats = self.manager.stats
        stream.path = path
        if outcome == "reject":
            stats.downstream_rq_failed_path_normalization += 1
            self._reject(stream, 400, "path_normalization_failed")
            return False
        if outcome == "redirect":
            stats.downstream_rq_redirected_with_normalized_path += 1
            stream.send_local_reply(307, headers=[(b"location", path)], details="path_normalization_failed")
            return False
        return True

    def strip_port(self, stream: Stream, any_port: bool) -> None:
        """Take the port off the authority: ``any_port``, or the one the client has connected to."""
        host = stream.authority
        colon = host.rfind(b":")
        if colon < 0 or colon < host.rfind(b"]"):
            return
        port = host[colon + 1 :]
        if _PORT.fullmatch(port) is None or int(port) > _LARGEST_PORT:
            return
        local = self.connection.local_socket_address()
        if any_port or (isinstance(local, tuple) and port == b"%d" % local[1]):
            stream.authority = host[:colon]

    # -- the response

    def encode_headers(self, stream: Stream, headers: Headers, end_stream: bool) -> None:
        """The head leaves, with what every response carries."""
        manager = self.manager
        settings = manager.settings
        status = stream.status
        stream.downstream_first_tx = self.loop.now
        append_request_id = False
        if settings.request_id_in_response and stream.request_id:
            append_request_id = get_header(headers, b"x-request-id") is None
            if not append_request_id:
                set_header(headers, b"x-request-id", stream.request_id)
        lines: list[bytes] = []
        add = lines.append
        framed = dated = served = False
        for header in headers:
            code = _header_code(header[0])
            if code is None:
                add(_join_header(header))
            elif code == _CONTENT_LENGTH:
                if status != 204 and status >= 200:
                    framed = True
                    add(_join_header(header))
            elif code == _DATE:
                dated = True
                add(_join_header(header))
            elif code == _SERVER:
                if served and manager.overwrite_server:
                    continue
                served = True
                add(manager.server_line if manager.overwrite_server else _join_header(header))
        if not dated:
            add(manager.date_line(manager.loop.now))
        if not served and manager.add_server:
            add(manager.server_line)
        if append_request_id:
            add(b"x-request-id: " + stream.request_id)
        if manager.amends_response:
            self._amend(stream, lines)
            status = stream.status
        if self.close_after:
            stream.announces_close = True
            add(b"connection: close")
        elif not stream.request_ended:
            # As Envoy: what is left of the request will not be read.
            self.close_after = stream.announces_close = True
            add(b"connection: close")
        elif self.http_10:
            if not framed and not end_stream:
                self.close_after = stream.announces_close = True
                add(b"connection: close")
            else:
                add(b"connection: keep-alive")
        self._chunked = False
        if not framed and status not in (204, 304) and status >= 200:
            if end_stream and stream.method != b"HEAD":
                add(b"content-length: 0")
            elif self.http_10:
                pass  # ends with the connection
            else:
                self._chunked = True
                add(b"transfer-encoding: chunked")
        first = (HTTP_10 if self.http_10 else HTTP_11)[status]
        if settings.header_key_format is not None:
            lines = respell(lines, headers, settings.header_key_format)
            first = status_line(first, status, headers)
        lines.append(b"\r\n")
        self.connection.write(first + _join_lines(lines))
        if end_stream:
            self._end_response(stream)

    def encode_passed_headers(self, stream: Stream, headers: Headers, framed: bool, body: bytes) -> bool:
        """The head of an endpoint's response that nobody has looked at; a body follows. ``framed``: its length is known.
        ``body``: what is there of it; True when it has left with the head.

        What ``encode_headers`` does, for the usual case: such headers hold nothing of the framing but ``content-length``.
        """
        status = stream.status
        manager = self.manager
        if (
            self.http_10
            or not (framed or status == 200)
            or status == 304
            or not (manager.passes_responses and stream.request_ended)
        ):
            self.encode_headers(stream, headers, False)
            return False
        stream.downstream_first_tx = now = self.loop.now
        lines: list[bytes] = []
        add = lines.append
        no_date = no_server = True
        for header in headers:
            name = header[0]
            if name not in _DATE_OR_SERVER:
                add(_join_header(header))
            elif name == b"date":
                no_date = False
                add(_join_header(header))
            elif no_server:
                no_server = False
                add(manager.server_line)
        if no_date:
            add(manager.date_line(now))
        if no_server:
            add(manager.server_line)
        if self.close_after:
            stream.announces_close = True
            add(b"connection: close")
        if framed:
            self._chunked = False
            if body and len(body) <= JOIN_BYTES:
                stream.bytes_sent = len(body)
                add(b"")
                add(body)
                self.connection.write(HTTP_11[status] + _join_lines(lines))
                return True
        else:
            self._chunked = True
            add(b"transfer-encoding: chunked")
        add(b"\r\n")
        self.connection.write(HTTP_11[status] + _join_lines(lines))
        return False

    def _amend(self, stream: Stream, lines: list[bytes]) -> None:
        # What proxies on the way say of themselves.
        settings = self.manager.settings
        if settings.via:
            _add_to_list(lines, b"via: ", settings.via)
        if settings.proxy_status is not None:
            found = settings.proxy_status.value(stream)
            if found is not None:
                _add_to_list(lines, b"proxy-status: ", found[0])
                stream.status = found[1] or stream.status

    @property
    def is_chunked(self) -> bool:
        """Is the response under way framed as chunks?"""
        return self._chunked

    def encode_data(self, stream: Stream, data: bytes, end_stream: bool) -> None:
        """A piece of the body leaves."""
        if data and stream.method != b"HEAD":
            connection = self.connection
            stream.bytes_sent += len(data)
            if not self._chunked:
                connection.write(data)
            elif len(data) <= SMALL_CHUNK_BYTES:
                connection.write(b"%x\r\n%b\r\n" % (len(data), data))
            else:
                connection.write(b"%x\r\n" % len(data))
                connection.write(data)
                connection.write(b"\r\n")
            if stream.ended:
                return  # the write met the high watermark and its consequences
            stream.last_activity = self.loop.now
        if end_stream:
            self.encode_end(stream)

    def encode_end(self, stream: Stream) -> None:
        """The body has ended, with nothing behind it."""
        if self._chunked and stream.method != b"HEAD":
            self.connection.write(b"0\r\n\r\n")
        if stream.request_ended:
            stream.response_ended = True
            self._end_stream(stream)
        else:
            self._end_response(stream)

    def encode_trailers(self, stream: Stream, trailers: Headers) -> None:
        """The body ends with trailers; only chunked messages to clients of a listener that enables them carry any."""
        if self._chunked and stream.method != b"HEAD":
            if self.manager.settings.codec.enable_trailers:
                lines = [_join_header(trailer) for trailer in trailers]
                self.connection.write(b"0\r\n" + b"".join([line + b"\r\n" for line in lines]) + b"\r\n")
            else:
                self.connection.write(b"0\r\n\r\n")
        self._end_response(stream)

    def encode_interim(self, stream: Stream, status: int, headers: Headers) -> None:
        """A 1xx response on its way through (only 100, when proxy_100_continue asks for it)."""
        asked = (
            self.manager.settings.proxy_100_continue and not self.http_10
        )  # RFC 9110 section 15.2: no 1xx to a 1.0 client
        if asked and status == 100 and not stream.response_started:
            self.connection.write(
                HTTP_11[status] + b"".join([_join_header(header) + b"\r\n" for header in headers]) + b"\r\n"
            )
            self.manager.codes[status] += 1

    def _end_response(self, stream: Stream) -> None:
        stream.response_ended = True
        if not stream.request_ended:
            stats = self.manager.stats
            stats.downstream_rq_response_before_rq_complete += 1
            stats.downstream_rq_rx_reset += 1
            self.reset_upstream(stream)
            self.close_after = True
        self._end_stream(stream)

    def break_off(self, stream: Stream) -> None:
        """The response cannot be completed after its head has left: the client must see that (RFC 9112 section 8)."""
        stats = self.manager.stats
        stats.downstream_rq_tx_reset += 1
        stats.downstream_rq_rx_reset += 1
        self.close_after = True
        self._end_stream(stream)
        if self.http_10 and not self._chunked and get_header(stream.response_headers or [], b"content-length") is None:
            self.connection.reset()  # nothing but the end of the connection says that this message is complete

    def response_too_large(self, stream: Stream) -> None:
        """A filter holds more of the response than the buffer limit allows."""
        self.manager.stats.rs_too_large += 1
        stream.send_local_reply(500, b"Internal Server Error", details="response_payload_too_large")

    def reset_upstream(self, stream: Stream) -> None:
        """Give the exchange with the endpoint up, if there is one."""
        upstream = stream.upstream
        if upstream is not None:
            stream.upstream = None
            upstream.reset()

    def _end_stream(self, stream: Stream) -> None:
        # The one place where a stream ends.
        manager = self.manager
        now = self.loop.now
        stream.ended = True
        stream.end = now
        if stream.status:
            manager.codes[stream.status] += 1
        if stream.response_ended:  # Envoy: of what was broken off nobody tells how long it took
            manager.stats.downstream_rq_time[int((now - stream.start) * 1000.0)] += 1
        if self.chain.on_stream_complete:
            self._tell_filters(stream)
        for log in manager.access_logs:
            log(stream)
        stream.upstream = None
        if self.stream is not stream:
            return
        self.stream = None
        self.idle_since = now
        connection = self.connection
        if self.close_after:
            self.queue = _NO_QUEUE
            if stream.request_ended and self.codec.fresh:
                connection.close(manager.settings.delayed_close_timeout_s)
            else:
                # Bytes may still be under way: a plain close could make the kernel reset what we have just sent.
                connection.close_lingering(manager.settings.delayed_close_timeout_s)
        elif self.queue:
            # Not at once: the upstream connection is released when the feed that ended the response has been parsed.
            manager.loop.call_soon(self._advance)
        else:
            deadline = now + manager.idle_timeout_s
            if not self.codec.fresh:
                # Perhaps a head has begun behind this request: its time begins now.
                self._message_start = now
                deadline = min(deadline, now + manager.settings.request_headers_timeout_s)
            if deadline < self.timer.deadline:
                self.timer.arm(deadline)

    def _tell_filters(self, stream: Stream) -> None:
        for on_stream_complete in self.chain.on_stream_complete:
            try:
                on_stream_complete(stream)
            except Exception as error:
                self.manager.on_filter_exception(self.chain.name_of(on_stream_complete), error)

    def _advance(self) -> None:
        # Answers that are made at once end their stream inside _begin_stream: go on here, not deeper.
        if self._advancing:
            return
        self._advancing = True
        connection = self.connection
        stats = self.manager.stats
        while self.queue and self.stream is None and not (self._full or connection.closing or connection.closed):
            queued = self.queue.pop(0)
            stream = queued.stream
            # It begins now, for timeouts and figures too: what never gets its turn was no request.
            stream.start = stream.last_activity = self.loop.now
            stats.downstream_rq_total += 1
            if queued.error is not None and not stream.method:
                self.stream = stream
                self._refuse(stream, queued.error)
                break
            self.close_after = queued.close_after
            self.http_10 = queued.http_10
            if queued.expects_continue and not queued.body and not queued.complete:
                self._expect_continue(stream)
            self._begin_stream(stream, queued.end_stream, queued.flags, queued.upgrade, False)
            if not queued.end_stream:
                for data in queued.body:
                    stream.decode_data(data, False)
                if queued.complete:
                    if not stream.ended:
                        self._complete_request(stream, queued.trailers)
                elif queued.error is not None and not stream.ended:
                    self._refuse(stream, queued.error)
        self._advancing = False
        if not self.queue and self._queue_paused:
            self._queue_paused = False
            if not connection.closing and not connection.closed:
                connection.resume_reading()

    # -- flow control

    def _on_above_high_watermark(self) -> None:
        self._full = True  # pipelined requests wait until their answers would be read
        stream = self.stream
        self.manager.stats.downstream_flow_control_paused_reading_total += 1
        if stream is not None and stream.upstream is not None:
            stream.upstream.pause()

    def _on_below_low_watermark(self) -> None:
        self._full = False
        stream = self.stream
        if stream is None and self.queue:
            self.loop.call_soon(self._advance)
        self.manager.stats.downstream_flow_control_resumed_reading_total += 1
        if stream is not None and stream.upstream is not None:
            stream.upstream.resume()

    # -- time

    def watch(self, deadline: float) -> None:
        """``_on_timer`` must come at ``deadline`` at the latest."""
        if deadline < self.timer.deadline:
            self.timer.arm(deadline)

    def _on_timer(self) -> None:
        """Find what has run out, and when to look again. Runs at most once per timeout and connection, not per request."""
        manager = self.manager
        settings = manager.settings
        now = manager.loop.now
        connection = self.connection
        if connection.closing or connection.closed:
            return
        stream = self.stream
        if stream is not None:
            again = self._check_stream(stream, now)
        elif not self.codec.fresh:
            again = self._check_head_time(now)
        else:
            again = self.idle_since + settings.idle_timeout_s
            if now >= again and not self._grow_idle(now):
                return
            again = NEVER if now >= again else again
        if connection.closing or connection.closed:
            return
        if now >= self._end and not self.close_after and not self._grow_old(now):
            return
        if self._end > now:
            again = min(again, self._end)
        if again != NEVER:
            self.timer.arm(again)

    def _grow_old(self, now: float) -> bool:
        """``max_connection_duration`` has passed, and then ``drain_timeout``: False when that was the end."""
        manager = self.manager
        settings = manager.settings
        if self._is_old or not self.speaks_http1:
            if not self._is_old:
                manager.stats.downstream_cx_max_duration_reached += 1
            if self.stream is None:  # also when this very pass has timed its stream out
                self.connection.close(settings.delayed_close_timeout_s)
                return False
            self.close_after = True
            return True
        manager.stats.downstream_cx_max_duration_reached += 1
        self._is_old = True
        self._end = NEVER if settings.safe_max_connection_duration else now + settings.drain_timeout_s
        self.requests = manager.max_requests - 1  # the next one is the last one
        if self.stream is not None and not settings.safe_max_connection_duration:
            self.close_after = True
        return True

    def _grow_idle(self, now: float) -> bool:
        """``idle_timeout`` has passed. As in Envoy ``drain_timeout`` follows, in which one more request may come; False: who has
        never said anything is gone at once."""
        manager = self.manager
        if self._is_old:
            return True
        manager.stats.downstream_cx_idle_timeout += 1
        if not self.speaks_http1:
            self.connection.close(manager.settings.delayed_close_timeout_s)
            return False
        self._is_old = True
        self._end = now + manager.settings.drain_timeout_s
        self.requests = manager.max_requests - 1  # the next one is the last one
        return True

    def _check_head_time(self, now: float) -> float:
        settings = self.manager.settings
        deadline = self._message_start + min(settings.request_headers_timeout_s, settings.stream_idle_timeout_s)
        if now < deadline:
            return deadline
        stats = self.manager.stats
        stats.downstream_rq_total += 1
        self.stream = stream = self._unread(self._message_start)
        self.close_after = True
        if settings.stream_idle_timeout_s < settings.request_headers_timeout_s:
            stats.downstream_rq_idle_timeout += 1
            stream.send_local_reply(408, b"stream timeout", details="stream_idle_timeout", flags=flags.SI)
        else:
            stats.downstream_rq_header_timeout += 1
            stream.send_local_reply(408, b"request header timeout", details="request_header_timeout")
        return NEVER

    def request_timeout_s(self) -> float:
        """How long a request may take to be complete."""
        return self.manager.settings.request_timeout_s

    def _check_stream(self, stream: Stream, now: float) -> float:
        settings = self.manager.settings
        stats = self.manager.stats
        if now >= stream.response_deadline:
            stream.response_deadline = NEVER
            if stream.upstream is not None:  # else the whole response is here, and a filter holds it
                stream.upstream.on_response_timeout()
                return now
        again = stream.response_deadline
        if not stream.request_ended and self.request_timeout_s() != NEVER:
            deadline = stream.start + settings.request_timeout_s
            if now >= deadline:
                stats.downstream_rq_timeout += 1
                stream.send_local_reply(408, b"request timeout", details="request_overall_timeout")
                return now
            again = min(again, deadline)
        duration_s = settings.max_stream_duration_s if stream.max_duration_s is None else stream.max_duration_s
        if duration_s != NEVER:
            deadline = stream.start + duration_s
            if now >= deadline:
                stats.downstream_rq_max_duration_reached += 1
                status = 504 if stream.request_ended else 408
                body, details = b"downstream duration timeout", "max_duration_timeout"
                stream.send_local_reply(status, body, details=details, grpc_status=4)
                return now
            again = min(again, deadline)
        idle_s = settings.stream_idle_timeout_s if stream.idle_timeout_s is None else stream.idle_timeout_s
        deadline = stream.last_activity + idle_s
        if now >= deadline:
            stats.downstream_rq_idle_timeout += 1
            status = 504 if stream.request_ended else 408
            stream.send_local_reply(status, b"stream timeout", details="stream_idle_timeout", flags=flags.SI)
            return now
        return min(again, deadline)

    # -- the end of the connection

    def close_if_idle_since(self, before: float) -> None:
        """Close when no request has been under way since ``before`` (on the loop's clock)."""
        if self.stream is None and not self.queue and self.codec.fresh and self.idle_since <= before:
            self.connection.close(self.manager.settings.delayed_close_timeout_s)

    def _left_inside_a_head(self) -> None:
        stats = self.manager.stats
        stats.downstream_cx_destroy_active_rq += 1
        stats.downstream_cx_destroy_remote_active_rq += 1
        stats.downstream_rq_total += 1
        stats.downstream_rq_rx_reset += 1
        stream = self._unread(self._message_start)
        stream.response_flags |= flags.DC
        stream.details = "downstream_remote_disconnect"
        self._end_stream(stream)

    def sync_bytes(self) -> None:
        """Add to the statistics what was received and sent since the last time."""
        connection = self.connection
        stats = self.manager.stats
        stats.downstream_cx_rx_bytes_total += connection.bytes_received - self._bytes_received_seen
        stats.downstream_cx_tx_bytes_total += connection.bytes_sent - self._bytes_sent_seen
        self._bytes_received_seen = connection.bytes_received
        self._bytes_sent_seen = connection.bytes_sent

    def on_close(self, reason: str) -> None:
        """The connection is gone."""
        manager = self.manager
        stats = manager.stats
        remote = reason in (REMOTE_CLOSE, REMOTE_RESET)
        stream = self.stream
        self.sync_bytes()
        stats.downstream_cx_active -= 1
        if self.speaks_http1:
            stats.downstream_cx_http1_active -= 1
        if manager.tls:
            stats.downstream_cx_ssl_active -= 1
        stats.downstream_cx_destroy += 1
        if remote:
            stats.downstream_cx_destroy_remote += 1
        else:
            stats.downstream_cx_destroy_local += 1
            if self.connection.error is CLOSE_TIMEOUT:
                stats.downstream_cx_delayed_close_timeout += 1
        stats.downstream_cx_length_ms[int((manager.loop.now - self.started) * 1000)] += 1
        manager.forget(self)
        self.timer.cancel()
        if stream is not None:
            stats.downstream_cx_destroy_active_rq += 1
            if remote:
                stats.downstream_cx_destroy_remote_active_rq += 1
            else:
                stats.downstream_cx_destroy_local_active_rq += 1
            stats.downstream_rq_rx_reset += 1
            stream.response_flags |= flags.DC
            stream.details = "downstream_remote_disconnect" if remote else "downstream_local_disconnect"
            self.reset_upstream(stream)
            self.close_after = True  # what else the read that is being parsed may hold is not looked at
            self._end_stream(stream)
        elif not self.codec.fresh and remote and not self.close_after:
            self._left_inside_a_head()
        self.queue = _NO_QUEUE
        self.codec.close()


def _add_to_list(lines: list[bytes], name: bytes, value: bytes) -> None:
    # To what is there, which may be several lines: as one line, where the first one stands.
    found = [index for index, line in enumerate(lines) if line.startswith(name)]
    if not found:
        lines.append(name + value)
        return
    before = b",".join([lines[index][len(name) :] for index in found])
    lines[found[0]] = name + before + b", " + value
    for index in reversed(found[1:]):
        del lines[index]
