"""The router: the last HTTP filter, which sends the request to an endpoint and brings the response back.

    - name: envoy.filters.http.router
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
        dynamic_stats: false     # no per-code counters and histograms per cluster
        suppress_envoy_headers: true

Bodies of local replies, response flags and response code details are Envoy's (docs: "Response code details").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, ClassVar

from forkproxy.config.build.listener import FilterEntry
from forkproxy.config.build.load_balancing import criteria, has_metadata
from forkproxy.config.build.router import RouterConfig
from forkproxy.filters.context import FilterContext, WorkerContext
from forkproxy.http import response_flags as flags
from forkproxy.http.client_address import is_inside
from forkproxy.http.filter import DataResult, HookResult, HttpFilter
from forkproxy.http.headers import Headers
from forkproxy.http.headers import get as get_header
from forkproxy.http.headers import remove as remove_header
from forkproxy.http.headers import set_ as set_header
from forkproxy.http.request_splice import request_splice
from forkproxy.http.stream import OVERRIDE_ENDPOINT, Stream
from forkproxy.http.tally import Tally
from forkproxy.net.connection import Connection
from forkproxy.net.filter import STOP_ITERATION
from forkproxy.net.loop import Loop
from forkproxy.net.timers import NEVER, Timer
from forkproxy.router.matcher import is_grpc
from forkproxy.router.retry import LIMIT_EXCEEDED, LOCAL_RESET, TOO_MANY, YES, Retries, RetryState, milliseconds
from forkproxy.router.rewrite import rewrite_host
from forkproxy.router.table import Route
from forkproxy.stats.dynamic import DynamicStats
from forkproxy.stats.groups import RouterStats
from forkproxy.upstream.balancers import PickContext
from forkproxy.upstream.cluster import Cluster
from forkproxy.upstream.endpoint import Endpoint
from forkproxy.upstream.http_pool import (
    RESET_CONNECTION_TERMINATION,
    RESET_CONNECTION_TIMEOUT,
    RESET_LOCAL_CONNECTION_FAILURE,
    RESET_NO_POOL,
    RESET_OVERFLOW,
    RESET_PROTOCOL_ERROR,
    RESET_REMOTE_CONNECTION_FAILURE,
    Http1Client,
    HttpPool,
)
from forkproxy.upstream.previous_priorities import PreviousPriorities
from forkproxy.upstream.response_splice import LARGE_PIECE_BYTES, response_splice

_join = b"".join
_join_header = b": ".join
_join_lines = b"\r\n".join

_SMALL_NUMBERS = tuple([b"%d" % number for number in range(1024)])
_ALTERNATIVE_NAME = b"x-envoy-upstream-alt-stat-name"
_VERSION_AND_HOST = b" HTTP/1.1\r\nhost: "
_SERVICE_TIME = b"x-envoy-upstream-service-time"

KEPT_BODY_BYTES = 16384
"""Of a request that may be sent twice, a body up to this size is kept until its response comes."""
# Methods whose requests may be sent twice (RFC 9110 section 9.2.2).
_IDEMPOTENT_METHODS = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))
# Methods whose requests get no "content-length: 0" when they have no body (RFC 9110 section 8.6).
BODILESS_METHODS = frozenset((b"GET", b"HEAD", b"DELETE", b"TRACE", b"CONNECT"))

# reset reason → (response flag, status)
FAILURES: dict[str, tuple[int, int]] = {
    RESET_CONNECTION_TERMINATION: (flags.UC, 503),
    RESET_PROTOCOL_ERROR: (flags.UPE, 502),
    RESET_REMOTE_CONNECTION_FAILURE: (flags.UF, 503),
    RESET_LOCAL_CONNECTION_FAILURE: (flags.UF, 503),
    RESET_CONNECTION_TIMEOUT: (flags.UF, 503),
    RESET_OVERFLOW: (flags.UO, 503),
}

_FAILED = b"upstream connect error or disconnect/reset before headers. reset reason: "
_FAILED_AGAIN = b"upstream connect error or disconnect/reset before headers. retried and the latest reset reason: "


def _attempts(stream: Stream) -> Headers | None:
    """The headers of the router's own answers: how many attempts there were, where the virtual host says so."""
    if stream.route.virtual_host.include_attempt_count_in_response:
        return [(b"x-envoy-attempt-count", b"%d" % stream.attempt_count)]
    return None


def _itself(kind: type[Any]) -> type[Any]:
    return kind


class Router(HttpFilter):
    """See the module's text."""

    terminal = True
    exchange: ClassVar[Callable[..., RetriedExchange]]
    """What carries a request whose route has a retry policy."""
    loop: Loop
    """Set by ``start()``, in the worker."""

    def __init__(self, config: RouterConfig, stats: RouterStats, dynamic: DynamicStats | None = None) -> None:
        self.stats = stats
        self.dynamic = dynamic or DynamicStats()
        self.dynamic_stats = config.dynamic_stats
        self.counts_inside = False
        """Some requests may come from inside, and count apart."""
        self.hides_grpc_codes = config.hides_grpc_codes
        self.tallies = self.hides_grpc_codes
        """Requests may count in other ways than their route says."""
        self.local_ip = b""
        self.envoy_headers = not config.suppress_envoy_headers
        self.respect_expected_timeout = config.respect_expected_rq_timeout
        self.request_type = UpstreamRequest
        self.kind_of: Callable[[type[Any]], type[Any]] = _itself
        """Which class of request to make in the place of one."""
        self.upstream_logs: Any = None
        """These three are upstream_log.py's where somebody wants to know about each attempt."""
        self.with_filters: Callable[[type[Any]], type[Any]] = _itself
        self.upstream_filters: Sequence[tuple[FilterEntry, HttpFilter]] = ()
        """These two are upstream_filters.py's where there are any."""

    @classmethod
    def from_config(cls, config: RouterConfig, context: FilterContext) -> Router:
        """Counts under the connection manager's prefix, ``http.<stat_prefix>``."""
        kind: type[Router] = cls
        # Imported where they are asked for.
        if context.router_class == "mirrors":
            from forkproxy.filters.http.router_mirrors import MirroringRouter

            kind = MirroringRouter
        elif context.router_class or config.strict_check_headers:
            from forkproxy.filters.http.router_policies import PolicyRouter

            kind = PolicyRouter
        stats = context.registry.group(RouterStats, context.stat_prefix)
        made = kind(config, stats, context.registry.use_dynamic() if config.dynamic_stats else None)
        made.counts_inside = context.internal_addresses
        made.tallies = made.counts_inside or made.hides_grpc_codes
        made.local_ip = context.local_ip.encode() or b"127.0.0.1"
        if config.upstream_logs:
            import_module("forkproxy.filters.http.upstream_log").install(made, config, context)
        if config.upstream_filters:
            import_module("forkproxy.filters.http.upstream_filters").install(made, config, context)
        return made

    def start(self, worker: WorkerContext) -> None:
        """Keep the loop for its clock."""
        self.loop = worker.loop
        for _, each in self.upstream_filters:
            each.start(worker)

    # -- the request

    def decode_headers(self, stream: Stream, headers: Headers, end_stream: bool) -> HookResult:
        """Choose cluster and endpoint, finish the head, ask the endpoint's pool for a connection."""
        stats = self.stats
        stats.rq_total += 1
        route = stream.route
        if route is None:
            stats.no_route += 1
            stream.send_local_reply(404, details="route_not_found", flags=flags.NR)
            return STOP_ITERATION
        if route.kind:
            self._answer(stream, route)
            return STOP_ITERATION
        if route.count is not None or self.tallies:
            self._open_tally(stream, route)
        cluster: Cluster | None = route.cluster
        if cluster is None and (cluster := route.find_cluster(stream)) is None:
            stats.no_cluster += 1
            stream.send_local_reply(route.cluster_not_found_status, details="cluster_not_found", flags=flags.NC)
            return STOP_ITERATION
        stream.routed_cluster = cluster
        if route.timeout_header is not None and self.envoy_headers:
            if self.respect_expected_timeout:
                set_header(headers, *route.timeout_header)
            else:
                headers.append(route.timeout_header)
        is_plain = route.is_plain
        pick = cluster.pick
        endpoint = pick() if is_plain else self._pick(stream, route, cluster)
        if endpoint is None and (endpoint := cluster.pick_for(stream)) is None:
            self._no_healthy_upstream(stream, cluster)
            return STOP_ITERATION
        stream.attempt_count = 1
        if not is_plain:
            route = self._finish_head(stream, route, endpoint)  # which sees no endpoint yet, as in Envoy
            stream.endpoint = endpoint
            if route.tunnel is not None and route.tunnel(self, stream, cluster, endpoint, end_stream):
                return STOP_ITERATION if stream.upstream is None else None
            if route.retries is not None:
                self.exchange(self, stream, cluster, route.retries, end_stream).begin(endpoint)
                return STOP_ITERATION if stream.upstream is None else None
        stream.endpoint = endpoint
        make_request = self.request_type
        stream.upstream = request = make_request(self, stream, cluster, endpoint, end_stream)
        if end_stream:
            request.request_ended(route.timeout_s)
        if route.is_high:
            endpoint.pool.high().acquire(request)
        else:
            endpoint.pool.acquire(request)
        return None

    def _open_tally(self, stream: Stream, route: Route) -> None:
        inside = self.counts_inside and is_inside(stream)
        hides_codes = self.hides_grpc_codes and is_grpc(stream)
        if route.count is None and not inside and not hides_codes:
            return
        tally = stream.tally = Tally()
        tally.dynamic = self.dynamic
        tally.hides_codes = hides_codes
        if route.count is not None:
            route.count(stream, tally)
        if inside:
            tally.is_internal = True
            alternative = get_header(stream.request_headers, _ALTERNATIVE_NAME)
            if alternative is not None:
                tally.alternative = alternative.decode("latin-1")
                remove_header(stream.request_headers, _ALTERNATIVE_NAME)

    def charge(self, stream: Stream, cluster: Cluster, endpoint: Endpoint | None, status: int) -> None:
        """Count a response that is not an endpoint's final one."""
        if not self.dynamic_stats:
            return
        if endpoint is not None and endpoint.is_canary:
            note_canary(stream)
        if stream.tally is None:
            cluster.stats.external__upstream_rq[status] += 1
        else:
            stream.tally.response(cluster, endpoint, status)

    def charge_retried(self, stream: Stream, cluster: Cluster, status: int) -> None:
        """Count a response that is followed by another attempt."""
        if not self.dynamic_stats:
            return
        if stream.tally is None:
            cluster.stats.retry__upstream_rq[status] += 1
        else:
            stream.tally.retried(cluster, status)

    def _pick(self, stream: Stream, route: Route, cluster: Cluster) -> Endpoint | None:
        override = stream.filter_state.get(OVERRIDE_ENDPOINT)
        if override is not None:
            address, is_strict = override
            endpoint = cluster.find(address)
            if endpoint is not None or is_strict:
                return endpoint
        return cluster.choose(pick_context(stream, route, cluster)) if cluster.needs_context else cluster.pick()

    def _finish_head(self, stream: Stream, route: Route, endpoint: Endpoint) -> Route:
        """What the route asks to be done to the request's head, and its idle timeout. Returns the route to go on with."""
        if route.virtual_host.include_request_attempt_count:
            set_header(stream.request_headers, b"x-envoy-attempt-count", b"1")
        if route.finalize_request is not None:
            route.finalize_request(stream)
        if route.rewrite is not None:
            route.rewrite(stream, self.envoy_headers)
        route = self._on_head(stream, route)
        if route.auto_host_rewrite and endpoint.hostname:
            rewrite_host(stream, endpoint.hostname.encode(), route.append_x_forwarded_host, self.envoy_headers)
        if route.idle_timeout_set:
            stream.idle_timeout_s = NEVER if route.idle_timeout_s is None else route.idle_timeout_s
            stream.http.watch(self.loop.now + stream.idle_timeout_s)
        return route

    def _on_head(self, stream: Stream, route: Route) -> Route:
        """For PolicyRouter (router_policies.py): the head is as it will be, but for what an endpoint changes."""
        return route

    def decode_data(self, stream: Stream, data: bytes, end_stream: bool) -> DataResult:
        """Pass a piece of the body on."""
        request = stream.upstream
        if request is not None:
            request.send_data(data, end_stream, None)
            if end_stream and not stream.ended:
                request.request_ended(stream.route.timeout_s)
        return None

    def decode_trailers(self, stream: Stream, trailers: Headers) -> HookResult:
        """Pass the trailers on, which end the request."""
        request = stream.upstream
        if request is not None:
            request.send_data(b"", True, trailers)
            if not stream.ended:
                request.request_ended(stream.route.timeout_s)
        return None

    # -- answers without an endpoint

    def _answer(self, stream: Stream, route: Any) -> None:
        if route.redirect is not None:
            self.stats.rq_direct_response += 1
            status, location = route.redirect(stream)
            location_line = [(b"location", location)]
            stream.send_local_reply(
                status, headers=location_line, details="direct_response", finalize=route.finalize_response
            )
            return
        self.stats.rq_direct_response += 1
        status, body = route.direct
        headers = None
        if route.compose is not None:
            body, headers = route.compose(stream)
        stream.send_local_reply(
            status, body, headers=headers, details="direct_response", finalize=route.finalize_response
        )

    def _no_healthy_upstream(self, stream: Stream, cluster: Cluster) -> None:
        cluster.stats.upstream_cx_none_healthy += 1
        self._no_pool(stream, cluster)

    def _no_pool(self, stream: Stream, cluster: Cluster) -> None:
        stream.attempt_count = stream.attempt_count or 1
        self.charge(stream, cluster, None, 503)
        headers = _attempts(stream)
        stream.send_local_reply(
            503, b"no healthy upstream", headers=headers, details="no_healthy_upstream", flags=flags.UH
        )

    def _fail(
        self, stream: Stream, cluster: Cluster, endpoint: Endpoint, reason: str, transport: str, begun: bool
    ) -> None:
        """The exchange ended before the response's head, or in the middle of the response. ``begun``: with a 1xx response."""
        flag, status = FAILURES[reason]
        stream.upstream = None
        spelled = reason.replace(" ", "_")
        if transport:
            stream.upstream_transport_failure_reason = transport
            spelled = f"{spelled}|{transport.replace(' ', '_')}"
        if stream.response_started:
            if reason is not RESET_PROTOCOL_ERROR:
                self.stats.rq_reset_after_downstream_response_started += 1
            stream.send_local_reply(status, details=f"upstream_reset_after_response_started{{{spelled}}}", flags=flag)
            return
        if not begun:
            self.charge(stream, cluster, endpoint, status)
            if stream.endpoint is not None:
                endpoint.stats.rq_error += 1
        headers = _attempts(stream)
        if reason is RESET_OVERFLOW:
            if self.envoy_headers:
                headers = [(b"x-envoy-overloaded", b"true"), *(headers or ())]
            details = "upstream_reset_before_response_started{overflow}"
        else:
            details = f"upstream_reset_{'after' if begun else 'before'}_response_started{{{spelled}}}"
        stream.send_local_reply(
            status,
            (_FAILED_AGAIN if stream.attempt_count > 1 else _FAILED) + reason.encode(),
            headers=headers,
            details=details,
            flags=flag,
        )


def note_canary(stream: Stream) -> None:
    """The response that is counted now is a canary's."""
    if stream.tally is None:
        stream.tally = Tally()
    stream.tally.is_canary = True


def pick_context(stream: Stream, route: Route, cluster: Cluster) -> PickContext:
    """What the choice of an endpoint takes into account of a request."""
    hash_policy = cluster.hash_method or route.hash_policy
    hash_ = hash_policy(stream) if hash_policy is not None and cluster.needs_hash else None
    wanted: tuple[tuple[str, object], ...] = ()
    if cluster.needs_criteria:
        wanted = route.criteria
        own = stream.dynamic_metadata.get("envoy.lb")
        if own:
            wanted = tuple(sorted((dict(wanted) | dict(criteria(own))).items()))
    return PickContext(hash_, wanted, source=stream)


def last_too_long(stream: Stream) -> None:
    stream.upstream = None
    stream.send_local_reply(
        504 if stream.request_ended else 408,
        b"upstream max stream duration reached",
        headers=_attempts(stream),
        details="upstream_max_stream_duration_reached",
        flags=flags.UMSDR,
    )


def time_out(stream: Stream, details: str) -> None:
    status = stream.route.timeout_status
    body = b"upstream request timeout" if status == 504 else b""
    stream.send_local_reply(status, body, headers=_attempts(stream), details=details, flags=flags.UT)


class UpstreamRequest:
    """The exchange of one stream with one endpoint: what the pool and the connection manager talk to."""

    __slots__ = (
        "_client",
        "_end_stream",
        "_ended_at",
        "_held",
        "_held_bytes",
        "_holding_downstream",
        "_interim",
        "_paused",
        "_plain",
        "_resplice",
        "_resplice_request",
        "_send_chunked",
        "cluster",
        "endpoint",
        "router",
        "stream",
    )

    keeps_body: ClassVar[bool] = False
    """Does somebody want to see the request's body, to send it again?"""
    passes_bodies: ClassVar[bool] = True
    """Does nobody here want to see the pieces of the response's body?"""

    def __init__(self, router: Router, stream: Stream, cluster: Cluster, endpoint: Endpoint, end_stream: bool) -> None:
        self.router = router
        self.stream = stream
        self.cluster = cluster
        self.endpoint = endpoint
        self._end_stream = end_stream
        self._client: Http1Client | None = None
        self._held: list[tuple[bytes, bool, Headers | None]] | None = None
        self._held_bytes = 0
        self._holding_downstream = False
        self._paused = False
        self._plain = False
        self._resplice: Callable[[], None] | None = None
        self._resplice_request: Callable[[], None] | None = None
        self._interim = False
        self._send_chunked = False
        self._ended_at = 0.0

    def __repr__(self) -> str:
        return f"<UpstreamRequest {self.stream!r} to {self.endpoint.address} {'sent' if self._client else 'waiting'}>"

    # -- towards upstream

    def request_ended(self, timeout_s: float | None) -> None:
        """The request is complete: the route's timeout begins (Envoy: it covers the response, not the request's body)."""
        stream = self.stream
        self._ended_at = now = self.router.loop.now
        if timeout_s is not None:
            stream.response_deadline = deadline = now + timeout_s
            timer = stream.http.timer
            if deadline < timer.deadline:
                timer.arm(deadline)

    def on_ready(self, client: Http1Client) -> None:
        """PoolRequest: send the head, and what has come of the body meanwhile."""
        stream = self.stream
        self._client = client
        connection = client.connection
        stream.upstream_connection = connection
        stream.upstream_first_tx = self.router.loop.now
        if stream.tally is not None:
            stream.tally.begin()
        method = stream.method
        client.begin(self, method == b"HEAD")
        headers = stream.request_headers
        end_stream = self._end_stream
        if end_stream:
            tail = b"\r\n\r\n" if method in BODILESS_METHODS else self._tail_without_body(headers)
            client.request_sent = True
        elif get_header(headers, b"content-length") is None:
            tail = self._frame_body()
        else:
            tail = b"\r\n\r\n"
        style = self.cluster.head_style
        if style is None:
            lines = _join_lines(map(_join_header, headers))
            if not lines:
                tail = tail[2:]
            authority = stream.authority
            connection.write(
                _join((method, b" ", stream.path or authority, _VERSION_AND_HOST, authority, b"\r\n", lines, tail))
            )
        else:
            connection.write(style.request_head(stream, tail))
        if end_stream:
            return
        held, self._held = self._held, None
        if client.requests > 1 and method in _IDEMPOTENT_METHODS:
            # The endpoint may close a connection in the moment of its reuse: then the body is wanted again.
            self._held = []
        if held is not None:
            self._held_bytes = 0
            for data, end_stream, trailers in held:
                self.send_data(data, end_stream, trailers)
            self._release_downstream()

    def _frame_body(self) -> bytes:
        # A body follows whose length is not known.
        self._send_chunked = True
        return b"\r\ntransfer-encoding: chunked\r\n\r\n"

    def _tail_without_body(self, headers: Headers) -> bytes:
        if get_header(headers, b"content-length") is None:
            return b"\r\ncontent-length: 0\r\n\r\n"
        return b"\r\n\r\n"

    def send_data(self, data: bytes, end_stream: bool, trailers: Headers | None) -> None:
        """A piece of the request body."""
        client = self._client
        if client is None:
            self._hold(data, end_stream, trailers)
            return
        if self._held is not None:
            self._keep(data, end_stream, trailers)
        connection = client.connection
        if data:
            if self._send_chunked:
                connection.write(b"%x\r\n" % len(data))
                connection.write(data)
                connection.write(b"\r\n")
            else:
                connection.write(data)
                if len(data) > LARGE_PIECE_BYTES and self._held is None:
                    self._splice_request(connection)
        if end_stream:
            client.request_sent = True
            if self._send_chunked:
                if not self.cluster.config.enable_trailers:
                    trailers = None
                lines = [_join_header(trailer) + b"\r\n" for trailer in trailers or ()]
                connection.write(b"0\r\n" + b"".join(lines) + b"\r\n")

    def _splice_request(self, connection: Connection) -> None:
        # Full reads: the rest of a large body may go from socket to socket.
        if self._resplice_request is None and not self.keeps_body:
            self._resplice_request = request_splice(self.stream, connection)
        if self._resplice_request is not None:
            self._resplice_request()

    def _hold(self, data: bytes, end_stream: bool, trailers: Headers | None) -> None:
        # No connection yet: keep the piece, and stop reading above the buffer limit.
        if self._held is None:
            self._held = []
        self._held.append((data, end_stream, trailers))
        self._held_bytes += len(data)
        downstream = self.stream.connection
        if self._held_bytes > downstream.high_watermark and not self._holding_downstream:
            self._holding_downstream = True
            downstream.pause_reading()

    def _keep(self, data: bytes, end_stream: bool, trailers: Headers | None) -> None:
        # It has been sent; a short body is kept until the response comes.
        self._held_bytes += len(data)
        if self._held is not None and self._held_bytes <= KEPT_BODY_BYTES:
            self._held.append((data, end_stream, trailers))
        else:
            self._held = None

    def on_upstream_above_high_watermark(self) -> None:
        """PoolRequest: read no more from downstream."""
        if not self._holding_downstream:
            self._holding_downstream = True
            self.stream.connection.pause_reading()

    def on_upstream_below_low_watermark(self) -> None:
        """PoolRequest: go on reading."""
        self._release_downstream()

    def _release_downstream(self) -> None:
        if self._holding_downstream:
            self._holding_downstream = False
            connection = self.stream.connection
            if not connection.closed:
                connection.resume_reading()

    # -- towards downstream

    def decode_interim(self, status: int, headers: Headers) -> None:
        """ClientSink: a 1xx response."""
        if not self._interim and status in (100, 102, 103):
            self._interim = True
            self.router.charge(self.stream, self.cluster, self.endpoint, status)
        self.stream.http.encode_interim(self.stream, status, headers)

    def decode_headers(self, status: int, headers: Headers, end_stream: bool) -> None:
        """ClientSink: the response's head."""
        stream = self.stream
        router = self.router
        client = self._client
        assert client is not None
        codec = client.codec
        now = router.loop.now
        stream.upstream_first_rx = stream.last_activity = now
        endpoint = self.endpoint
        if router.dynamic_stats:
            if codec.is_canary or endpoint.is_canary:
                note_canary(stream)
            if stream.tally is None:
                self.cluster.stats.external__upstream_rq[status] += 1
            else:
                stream.tally.response(self.cluster, endpoint, status)
        if status < 500 or status > 599:
            endpoint.stats.rq_success += 1
        else:
            endpoint.stats.rq_error += 1
        if endpoint.monitor is not None:
            endpoint.monitor.on_response(status, headers)
        ended_at = self._ended_at
        if ended_at and router.envoy_headers:
            elapsed = int((now - ended_at) * 1000.0)
            text = _SMALL_NUMBERS[elapsed] if elapsed < 1024 else b"%d" % elapsed
            if codec.has_service_time:
                set_header(headers, _SERVICE_TIME, text)
            else:
                headers.append((_SERVICE_TIME, text))
        route = stream.route
        stream.status = status
        stream.details = "via_upstream"
        if route.passes_response and not end_stream and not stream.response_started:
            http = stream.http
            if http.chain.passes_responses and not stream.ended and not stream.failed:
                # Nobody looks at the response: Stream and its chain have nothing to do.
                stream.response_started = self._plain = True
                stream.response_headers = headers
                body = codec.body if self.passes_bodies else b""
                if http.encode_passed_headers(stream, headers, codec.content_length >= 0, body):
                    codec.body = b""
                return
        if route.finalize_response is not None:
            if route.hash_policy is not None:
                headers += [(b"set-cookie", cookie) for cookie in stream.set_cookies]
            route.finalize_response(stream, headers)
        if route.virtual_host.include_attempt_count_in_response:
            set_header(headers, b"x-envoy-attempt-count", b"%d" % stream.attempt_count)
        if end_stream:
            self._finish(now)
        stream.encode_headers(status, headers, end_stream)
        # Nobody looks at the body: its pieces go straight to the connection.
        self._plain = not stream.ended and stream.encode_held is None and not stream.http.chain.encode_data

    def decode_data(self, data: bytes) -> None:
        """ClientSink: a piece of the response's body."""
        stream = self.stream
        if self._plain:
            stream.http.encode_data(stream, data, False)
            if len(data) > LARGE_PIECE_BYTES:
                self._splice()
        else:
            stream.encode_data(data, False)

    def _splice(self) -> None:
        # Full reads: the rest of a large body may go from socket to socket.
        stream, client = self.stream, self._client
        if self._resplice is None and client is not None and client.request is self and not stream.ended:
            # Its length says when it ends; chunks would have to be looked at.
            length = 0 if stream.http.is_chunked else client.codec.content_length
            self._resplice = response_splice(client, stream.connection, length - stream.bytes_sent, self)
        if self._resplice is not None:
            self._resplice()

    def on_body_moved(self, size: int) -> None:
        """BodyTaker: a piece of the response's body goes downstream without being seen here."""
        stream = self.stream
        stream.bytes_sent += size
        stream.last_activity = self.router.loop.now

    def decode_complete(self, trailers: Headers | None) -> None:
        """ClientSink: the response has ended."""
        stream = self.stream
        self._finish(self.router.loop.now)
        if trailers is None:
            if self._plain:
                stream.http.encode_end(stream)
            else:
                stream.encode_data(b"", True)
        else:
            stream.encode_trailers(trailers)

    def _finish(self, now: float) -> None:
        stream = self.stream
        stream.upstream_last_rx = now
        client = self._client
        if client is not None and client.request_sent:
            # Only now may the stream forget this exchange; one whose request is still under way has to be cut.
            stream.upstream = None
        if self.router.dynamic_stats and self._ended_at:
            elapsed_ms = int((now - self._ended_at) * 1000.0)
            if stream.tally is None:
                self.cluster.stats.external__upstream_rq_time[elapsed_ms] += 1
            else:
                stream.tally.time(self.cluster, self.endpoint, elapsed_ms)
        if self._paused or self._holding_downstream:
            self._let_go()

    def on_reset(self, reason: str, transport_failure_reason: str) -> None:
        """PoolRequest: the exchange failed."""
        self._let_go()
        stream = self.stream
        if stream.upstream is self:
            if reason is RESET_NO_POOL:
                stream.upstream = stream.endpoint = None
                self.router._no_pool(stream, self.cluster)
                return
            self._tell_monitor(reason)
            if self._client is None and reason is not RESET_OVERFLOW:
                stream.upstream_connection = None
            elif self._client is None and stream.upstream_connection is None:
                stream.endpoint = None  # nobody has come so far as to a connection
            self.router._fail(stream, self.cluster, self.endpoint, reason, transport_failure_reason, self._interim)

    def _tell_monitor(self, reason: str) -> None:
        # An overflow says nothing of the endpoint.
        monitor = self.endpoint.monitor
        if monitor is not None and reason is not RESET_OVERFLOW:
            monitor.on_reset(connected=self._client is not None)

    def on_refused(self, client: Http1Client) -> None:
        """PoolRequest: there is a connection, but there are too many requests."""
        if self.stream.upstream is self:
            self.stream.upstream_connection = client.connection
        self.on_reset(RESET_OVERFLOW, "")

    def on_too_long(self) -> None:
        """PoolRequest: the time of one exchange is over."""
        self._let_go()
        last_too_long(self.stream)

    def downstream(self) -> Connection:
        """PoolRequest: what connections of a pool per downstream connection belong to."""
        return self.stream.connection

    def may_be_sent_again(self) -> bool:
        """PoolRequest: nothing of a response has come; an idempotent request whose body is still at hand may go to another
        connection."""
        if self.stream.method not in _IDEMPOTENT_METHODS or self.stream.upstream is not self:
            return False
        if not self._end_stream and self._held is None:
            return False
        self._let_go()
        self._client = None
        return True

    # -- UpstreamHandle: what the connection manager asks

    def reset(self) -> None:
        """The downstream side is over: give the exchange up."""
        client = self._client
        self._let_go()
        if client is None:
            self.endpoint.pool.cancel_pending(self)
        elif client.request is self:
            client.cancel()

    def on_response_timeout(self) -> None:
        """The route's timeout has passed."""
        stream = self.stream
        self.cluster.stats.upstream_rq_timeout += 1
        self.endpoint.stats.rq_timeout += 1
        if stream.tally is not None:
            stream.tally.timeout()
        if not stream.response_started and not self._interim:
            self.endpoint.stats.rq_error += 1
            self.router.charge(stream, self.cluster, self.endpoint, stream.route.timeout_status)
        if not stream.response_started and self.endpoint.monitor is not None:
            self.endpoint.monitor.on_timeout(connected=self._client is not None)
        time_out(stream, "response_timeout")

    def pause(self) -> None:
        """The downstream side is full."""
        if not self._paused and self._client is not None:
            self._paused = True
            self.cluster.stats.upstream_flow_control_paused_reading_total += 1
            self._client.connection.pause_reading()

    def resume(self) -> None:
        """It has room again."""
        if self._paused and self._client is not None:
            self._paused = False
            self.cluster.stats.upstream_flow_control_resumed_reading_total += 1
            if not self._client.connection.closed:
                self._client.connection.resume_reading()

    def _let_go(self) -> None:
        self.resume()
        self._release_downstream()


class RetriedExchange:
    """All attempts of one request whose route has a retry policy.

    While an attempt runs, it is what stands on ``stream.upstream``; between two attempts it is this object. The request's
    body is kept for as long as there may be another attempt, up to the downstream connection's buffer limit.
    """

    attempt: ClassVar[type[RetriedRequest]]
    __slots__ = (
        *("_end_stream", "_kept", "_kept_bytes", "_limit", "_priorities", "_timer", "_tried"),
        *("cluster", "ended_at", "policy", "router", "state", "stream"),
    )

    def __init__(self, router: Router, stream: Stream, cluster: Cluster, policy: Retries, end_stream: bool) -> None:
        self.router = router
        self.stream = stream
        self.cluster = cluster
        breakers = cluster.breakers_of(stream.route.is_high)
        self.state = RetryState(policy, cluster, breakers) if policy.wants(stream) else None
        if self.state is not None and stream.tally is not None:
            self.state.groups = stream.tally.groups
        """None when there is no further attempt, whatever happens."""
        self.ended_at = 0.0
        self.policy = policy
        self._end_stream = end_stream
        self._kept: list[tuple[bytes, bool, Headers | None]] = []
        self._kept_bytes = 0
        limit = stream.route.body_buffer_limit
        if limit is None:
            limit = stream.decode_buffer_limit
        self._limit: int = stream.connection.high_watermark if limit is None else limit
        self._timer: Timer | None = None
        self._tried: list[Endpoint] = []
        self._priorities = PreviousPriorities(policy.previous_priorities) if policy.previous_priorities else None
        stream.attempt_count = 1
        if end_stream:
            self.note_end(stream.route.timeout_s)

    def __repr__(self) -> str:
        return f"<RetriedExchange {self.stream!r} attempt {self.stream.attempt_count}>"

    # -- attempts

    def begin(self, endpoint: Endpoint) -> None:
        """Start an attempt on ``endpoint``."""
        stream = self.stream
        stream.endpoint = endpoint
        attempt = self.router.kind_of(self.attempt)(self, endpoint, self._end_stream, self._kept)
        stream.upstream = attempt
        self._pool(endpoint).acquire(attempt)

    def _pool(self, endpoint: Endpoint) -> HttpPool:
        return endpoint.pool.high() if self.stream.route.is_high else endpoint.pool

    def follow(self, attempt: RetriedRequest, decision: int) -> bool:
        """Do what was decided about ``attempt``: True when another one follows, after its back-off."""
        stream = self.stream
        if decision == YES:
            assert self.state is not None
            attempt.endpoint.stats.rq_error += 1
            self.note_attempt(attempt.endpoint)
            stream.upstream = self
            self._timer = self.router.loop.call_later(self.state.back_off_s(), self._again)
            return True
        if decision == LIMIT_EXCEEDED:
            stream.response_flags |= flags.NO_RETRY_LEFT
        elif decision == TOO_MANY:
            stream.response_flags |= flags.NO_RETRY_ALLOWED
        self.give_up()
        return False

    def note_attempt(self, endpoint: Endpoint) -> None:
        """Attempts to come had better go elsewhere, where the policy says so."""
        if self.policy.previous_hosts:
            self._tried.append(endpoint)
        if self._priorities is not None:
            self._priorities.note(endpoint)

    def _again(self) -> None:
        self._timer = None
        stream = self.stream
        router = self.router
        stream.attempt_count += 1
        assert self.state is not None
        self.state.begin()
        endpoint = self._pick()
        if endpoint is None:
            self.give_up()
            stream.upstream = None
            router._no_healthy_upstream(stream, self.cluster)
            return
        route = stream.route
        headers = stream.request_headers
        # What is known of an endpoint is of the last one.
        stream.upstream_connection = None
        stream.upstream_transport_failure_reason = ""
        stream.upstream_first_tx = 0.0
        if route.auto_host_rewrite and endpoint.hostname:
            rewrite_host(stream, endpoint.hostname.encode(), route.append_x_forwarded_host, router.envoy_headers)
        if route.virtual_host.include_request_attempt_count:
            set_header(headers, b"x-envoy-attempt-count", b"%d" % stream.attempt_count)
        if route.timeout_header is not None and router.envoy_headers:
            set_header(headers, route.timeout_header[0], b"%d" % self._expected_ms(route))
        self._on_head(headers)
        self.begin(endpoint)

    def _on_head(self, headers: Headers) -> None:
        """For PolicyExchange: what else another attempt's head says."""

    def _pick(self) -> Endpoint | None:
        cluster, policy, stream = self.cluster, self.policy, self.stream
        context = pick_context(stream, stream.route, cluster)
        if self._tried or policy.omit_canaries or policy.omit_metadata:
            context.rejects = self._is_rejected
            context.attempts = policy.host_attempts
        if self._priorities is not None:
            context.adjust_loads = self._priorities.adjust
        return cluster.choose(context) or cluster.pick_for(stream)

    def _is_rejected(self, endpoint: Endpoint) -> bool:
        """Retry host predicates: better another one."""
        if endpoint in self._tried:
            return True
        metadata = endpoint.lb_metadata
        if self.policy.omit_canaries and metadata.get("canary") is True:
            return True
        return any(has_metadata(metadata, wanted) for wanted in self.policy.omit_metadata)

    def _expected_ms(self, route: Route) -> int:
        # What one attempt may take, but not more than is left of the whole.
        expected_ms = milliseconds(self.policy.per_try_timeout_s or route.timeout_s)
        if route.timeout_s is None or not self.ended_at:
            return expected_ms
        left_ms = milliseconds(route.timeout_s) - int((self.router.loop.now - self.ended_at) * 1000)
        return max(min(expected_ms, left_ms), 1)

    def give_up(self) -> None:
        """No further attempt; nothing more is kept."""
        if self.state is not None:
            self.state.release()
            self.state = None
        self._kept = []

    # -- the request's body

    def keep(self, data: bytes, end_stream: bool, trailers: Headers | None) -> None:
        """Keep a piece for the attempts to come; too much of it, and there are none."""
        if self.state is not None:
            self._store(data, end_stream, trailers)

    def _store(self, data: bytes, end_stream: bool, trailers: Headers | None) -> bool:
        self._kept_bytes += len(data)
        if self._kept_bytes > self._limit:
            self.cluster.stats.retry_or_shadow_abandoned += 1
            self.give_up()
            return False
        self._kept.append((data, end_stream, trailers))
        return True

    def note_end(self, timeout_s: float | None) -> None:
        """The request is complete: the route's timeout begins, for all attempts together."""
        stream = self.stream
        self.ended_at = now = self.router.loop.now
        if timeout_s is not None:
            stream.response_deadline = deadline = now + timeout_s
            stream.http.watch(deadline)

    # -- on ``stream.upstream``, between attempts

    def send_data(self, data: bytes, end_stream: bool, trailers: Headers | None) -> None:
        """A piece of the request's body."""
        self.keep(data, end_stream, trailers)
        if self.state is None:
            self.stream.send_local_reply(
                507,
                b"exceeded request buffer limit while retrying upstream",
                headers=_attempts(self.stream),
                details="request_payload_exceeded_retry_buffer_limit",
            )

    def request_ended(self, timeout_s: float | None) -> None:
        """The request is complete."""
        if self.stream.upstream is self:
            self.note_end(timeout_s)

    def reset(self) -> None:
        """UpstreamHandle: the downstream side is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.give_up()

    def on_response_timeout(self) -> None:
        """UpstreamHandle: the route's timeout has passed."""
        time_out(self.stream, "response_timeout")

    def pause(self) -> None:
        """UpstreamHandle: nobody is read from."""

    def resume(self) -> None:
        """UpstreamHandle: nobody is read from."""


class RetriedRequest(UpstreamRequest):
    """One attempt."""

    keeps_body: ClassVar[bool] = True

    __slots__ = ("_exchange", "_idle_timer", "_replaying", "_try_timer")

    def __init__(
        self,
        exchange: RetriedExchange,
        endpoint: Endpoint,
        end_stream: bool,
        kept: list[tuple[bytes, bool, Headers | None]],
    ) -> None:
        super().__init__(exchange.router, exchange.stream, exchange.cluster, endpoint, end_stream)
        self._exchange = exchange
        self._ended_at = exchange.ended_at
        self._replaying = False
        self._try_timer: Timer | None = None
        self._idle_timer: Timer | None = None
        if kept:
            self._held = list(kept)

    # -- the request

    def may_be_sent_again(self) -> bool:
        """PoolRequest: as above; the time of the attempt begins anew."""
        again = super().may_be_sent_again()
        if again:
            self._stop_timers()
        return again

    def request_ended(self, timeout_s: float | None) -> None:
        """The request is complete; so begins, with a connection, the time of this attempt."""
        self._exchange.note_end(timeout_s)
        self._ended_at = self._exchange.ended_at
        if self._client is not None:
            self._start_timers()

    def send_data(self, data: bytes, end_stream: bool, trailers: Headers | None) -> None:
        """A piece of the body, kept for the attempts to come."""
        if not self._replaying:
            self._exchange.keep(data, end_stream, trailers)
        super().send_data(data, end_stream, trailers)

    def on_ready(self, client: Http1Client) -> None:
        """PoolRequest: send the head, and what is there of the body."""
        state = self._exchange.state
        if state is not None:
            state.request_started = True
        self._replaying = True
        super().on_ready(client)
        self._replaying = False
        if self._ended_at:
            self._start_timers()

    # -- the response

    def decode_interim(self, status: int, headers: Headers) -> None:
        """ClientSink: a 1xx response. The client has had something of this attempt, so it is the last."""
        self._exchange.give_up()
        super().decode_interim(status, headers)

    def decode_headers(self, status: int, headers: Headers, end_stream: bool) -> None:
        """ClientSink: the response's head, which may be a reason to try again."""
        exchange = self._exchange
        state = exchange.state
        if self._try_timer is not None:
            self._try_timer.cancel()
            self._try_timer = None
        if state is not None:
            decision = state.after_headers(status, headers, self.router.loop.wall())
            if exchange.follow(self, decision):
                self.router.charge_retried(self.stream, self.cluster, status)
                if self.endpoint.monitor is not None:
                    self.endpoint.monitor.on_response(status, headers)
                self._leave(end_stream)
                return
        self._accept(status, headers, end_stream)

    def _accept(self, status: int, headers: Headers, end_stream: bool) -> None:
        """This is the response that the client gets."""
        self._touch()
        super().decode_headers(status, headers, end_stream)

    def decode_data(self, data: bytes) -> None:
        """ClientSink: a piece of the response's body."""
        self._touch()
        super().decode_data(data)

    def on_body_moved(self, size: int) -> None:
        """BodyTaker: as above."""
        self._touch()
        super().on_body_moved(size)

    def _leave(self, response_ended: bool) -> None:
        self._stop_timers()
        self._let_go()
        client = self._client
        if client is not None and client.request is self and not (response_ended and client.request_sent):
            client.cancel()

    def _finish(self, now: float) -> None:
        self._stop_timers()
        super()._finish(now)

    # -- failures

    def on_reset(self, reason: str, transport_failure_reason: str) -> None:
        """PoolRequest: this attempt failed."""
        self._stop_timers()
        exchange = self._exchange
        state = exchange.state
        stream = self.stream
        if (
            state is not None
            and stream.upstream is self
            and not stream.response_started
            and exchange.follow(self, state.after_reset(reason))
        ):
            self._let_go()
            self._tell_monitor(reason)
            stream.upstream_transport_failure_reason = transport_failure_reason
            if self._client is None:
                stream.upstream_connection = None
            return
        super().on_reset(reason, transport_failure_reason)

    def reset(self) -> None:
        """UpstreamHandle: the downstream side is over."""
        self._stop_timers()
        self._exchange.give_up()
        super().reset()

    # -- the time of one attempt

    def _start_timers(self) -> None:
        policy = self._exchange.policy
        loop = self.router.loop
        if policy.per_try_timeout_s is not None:
            self._try_timer = loop.call_later(policy.per_try_timeout_s, self._on_try_timeout)
        if policy.per_try_idle_timeout_s is not None:
            self._idle_timer = loop.call_later(policy.per_try_idle_timeout_s, self._on_idle_timeout)

    def _touch(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.arm(self.router.loop.now + (self._exchange.policy.per_try_idle_timeout_s or 0.0))

    def _stop_timers(self) -> None:
        if self._try_timer is not None:
            self._try_timer.cancel()
            self._try_timer = None
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    def on_too_long(self) -> None:
        """PoolRequest: the time of one exchange is over."""
        self._stop_timers()
        self._let_go()
        exchange = self._exchange
        state = exchange.state
        if state is None or not exchange.follow(self, state.after_reset(LOCAL_RESET)):
            last_too_long(self.stream)

    def _on_try_timeout(self) -> None:
        self.cluster.stats.upstream_rq_per_try_timeout += 1
        self._time_out("upstream_per_try_timeout")

    def _on_idle_timeout(self) -> None:
        self.cluster.stats.upstream_rq_per_try_idle_timeout += 1
        self._time_out("upstream_per_try_idle_timeout")

    def _time_out(self, details: str) -> None:
        stream = self.stream
        self.endpoint.stats.rq_timeout += 1
        if self.endpoint.monitor is not None:
            self.endpoint.monitor.on_timeout(connected=self._client is not None)
        self._leave(False)
        exchange = self._exchange
        state = exchange.state
        if state is not None and exchange.follow(self, state.after_reset(LOCAL_RESET)):
            return
        stream.upstream = None
        if not stream.response_started and not self._interim:
            self.endpoint.stats.rq_error += 1
            self.router.charge(stream, self.cluster, self.endpoint, stream.route.timeout_status)
        time_out(stream, details)


Router.exchange = RetriedExchange
RetriedExchange.attempt = RetriedRequest
