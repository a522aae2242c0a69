"""What is told of each attempt that the router makes: a line in its ``upstream_log``, and what it weighs (``http.meters``).

    - name: envoy.filters.http.router
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
        upstream_log: [{name: envoy.access_loggers.file, typed_config: {…}}]
        upstream_log_options:
          flush_upstream_log_on_upstream_stream: true   # also when there is a connection
          upstream_log_flush_interval: 1s               # and every so often

The router takes these requests instead of its own only where a configuration asks for one or the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from forkproxy.config.build.router import RouterConfig
from forkproxy.filters.context import FilterContext
from forkproxy.filters.http.router import (
    BODILESS_METHODS,
    FAILURES,
    RetriedRequest,
    Router,
    UpstreamRequest,
)
from forkproxy.http import response_flags as flags
from forkproxy.http.headers import Headers
from forkproxy.http.meters import MeteredClientCodec, Meters, UpstreamMark, unconnected, written_size
from forkproxy.http.stream import Stream
from forkproxy.http.tunnel import TunnelCodec
from forkproxy.net.connection import Connection
from forkproxy.net.timers import Timer
from forkproxy.upstream.cluster import Cluster
from forkproxy.upstream.endpoint import Endpoint
from forkproxy.upstream.http_pool import Http1Client

Log = Callable[[Any], None]


class UpstreamLogs:
    """Log functions: for the end of an attempt, for its connection, and for every ``interval_s`` seconds."""

    __slots__ = ("at_end", "interval_s", "on_ready", "periodic")

    def __init__(
        self,
        at_end: Sequence[Log] = (),
        on_ready: Sequence[Log] = (),
        periodic: Sequence[Log] = (),
        interval_s: float = 0.0,
    ) -> None:
        self.at_end = tuple(at_end)
        self.on_ready = tuple(on_ready)
        self.periodic = tuple(periodic)
        self.interval_s = interval_s


NO_LOGS = UpstreamLogs()


class Attempt:
    """One attempt as logs see it: a stream of its own, and what it does not have is that of the downstream stream."""

    __slots__ = (
        *("bytes_received", "bytes_sent", "cluster", "end", "endpoint", "meters", "pool_was_ready", "protocol"),
        *("request_ended_at", "response_flags", "response_headers", "response_trailers", "start", "status", "stream"),
        *("upstream_connection", "upstream_first_rx", "upstream_first_tx", "upstream_last_rx"),
        "upstream_transport_failure_reason",
    )

    details = connection_termination_details = ""
    upstream_close_type = b"Normal"
    request_id = None
    """An attempt has no id of its own."""
    attempt_count = 0
    request_complete = downstream_first_tx = downstream_last_tx = 0.0
    dynamic_metadata: dict[str, dict[str, Any]] = {}  # noqa: RUF012  # nobody writes to it

    def __init__(self, stream: Stream, cluster: Cluster, endpoint: Endpoint, now: float) -> None:
        self.stream = stream
        self.cluster = cluster
        self.endpoint = endpoint
        self.start = now
        self.end = 0.0
        self.meters: Meters | None = None
        self.protocol = b""
        self.status = 0
        self.response_flags = 0
        self.bytes_received = 0
        self.bytes_sent = 0
        self.pool_was_ready = False
        self.request_ended_at = 0.0
        self.response_headers: Headers | None = None
        self.response_trailers: Headers | None = None
        self.upstream_connection: Any = None
        self.upstream_first_tx = 0.0
        self.upstream_first_rx = 0.0
        self.upstream_last_rx = 0.0
        self.upstream_transport_failure_reason = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    @property
    def wall_start(self) -> float:
        """Seconds since the epoch when the attempt began."""
        loop = self.stream.connection.loop
        return loop.wall() - (loop.now - self.start)

    @property
    def attempted_endpoints(self) -> tuple[Endpoint, ...]:
        """The endpoint, when there was a connection to it."""
        return (self.endpoint,) if self.pool_was_ready else ()

    @property
    def upstream_last_tx(self) -> float:
        """When the last byte of the request went upstream."""
        if not self.request_ended_at or not self.upstream_first_tx:
            return 0.0
        return max(self.upstream_first_tx, self.request_ended_at)


class Observed(UpstreamRequest):
    """An attempt that is logged, weighed, or both."""

    passes_bodies = False
    attempt: Attempt
    logs: UpstreamLogs
    timer: Timer | None

    def observe(self) -> None:
        """Begin."""
        stream = self.stream
        self.attempt = Attempt(stream, self.cluster, self.endpoint, self.router.loop.now)
        self.logs = self.router.upstream_logs
        self.timer = None
        if self._end_stream:
            self.attempt.request_ended_at = self.attempt.start
        if stream.meters is not None:
            stream.meters.pool_ready_ms = None
        if self.logs.periodic:
            self.timer = self.router.loop.call_later(self.logs.interval_s, self._again)

    def _again(self) -> None:
        for log in self.logs.periodic:
            log(self.attempt)
        self.timer = self.router.loop.call_later(self.logs.interval_s, self._again)

    def conclude(self, flag: int = 0, *, later: bool = False) -> None:
        """The attempt is over. ``later``: its line comes after that of the stream, which is over too."""
        attempt = self.attempt
        if attempt.end:
            return
        attempt.end = self.router.loop.now
        attempt.response_flags |= flag
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        meters = self.stream.meters
        if meters is not None:
            self._note_wait(meters)
            meters.end_attempt()
            if attempt.meters is None:
                attempt.meters = unconnected(meters.pool_ready_ms)
        if later:
            self.router.loop.call_soon(self._log_end)
        else:
            self._log_end()

    def _log_end(self) -> None:
        for log in self.logs.at_end:
            log(self.attempt)

    def _note_wait(self, meters: Any) -> None:
        if meters.pool_ready_ms is None:
            meters.pool_ready_ms = int((self.router.loop.now - self.attempt.start) * 1000)

    # -- towards upstream

    def on_ready(self, client: Http1Client) -> None:
        """PoolRequest: there is a connection."""
        stream, attempt = self.stream, self.attempt
        attempt.upstream_connection = client.connection
        attempt.upstream_first_tx = self.router.loop.now
        attempt.pool_was_ready = True
        attempt.protocol = stream.protocol
        attempt.meters = meters = stream.meters
        if meters is not None:
            self._note_wait(meters)
            _meter(client)
            meters.end_attempt()
            meters.upstream = UpstreamMark(client.connection)
        for log in self.logs.on_ready:
            log(attempt)
        super().on_ready(client)
        if meters is not None:
            size = written_size(stream.request_headers) + len("host: \r\n") + len(stream.authority)
            if self._send_chunked:
                size += len("transfer-encoding: chunked\r\n")
            elif self._end_stream and stream.method not in BODILESS_METHODS:
                size += len(self._tail_without_body(stream.request_headers)) - 4
            meters.upstream_header_out += size

    def send_data(self, data: bytes, end_stream: bool, trailers: Headers | None) -> None:
        """A piece of the request's body."""
        if self._client is not None:
            self.attempt.bytes_sent += len(data)
        if end_stream:
            self.attempt.request_ended_at = self.router.loop.now
        super().send_data(data, end_stream, trailers)

    # -- towards downstream

    def decode_headers(self, status: int, headers: Headers, end_stream: bool) -> None:
        """ClientSink: the response's head."""
        attempt = self.attempt
        attempt.status = status
        attempt.upstream_first_rx = self.router.loop.now
        attempt.response_headers = list(headers)
        codec = self._client.codec if self._client is not None else None
        if codec is not None and codec.chunked:
            attempt.response_headers.append((b"transfer-encoding", b"chunked"))
        if isinstance(codec, (MeteredClientCodec, TunnelCodec)) and self.stream.meters is not None:
            self.stream.meters.add_upstream_head(codec.header_bytes)
            codec.header_bytes = 0
        super().decode_headers(status, headers, end_stream)

    def decode_data(self, data: bytes) -> None:
        """ClientSink: a piece of the response's body."""
        self.attempt.bytes_received += len(data)
        super().decode_data(data)

    def on_body_moved(self, size: int) -> None:
        """BodyTaker: so much went from socket to socket."""
        self.attempt.bytes_received += size
        super().on_body_moved(size)

    def _splice_request(self, connection: Connection) -> None:
        """The pieces of the request's body are counted as they come by."""

    def decode_complete(self, trailers: Headers | None) -> None:
        """ClientSink: the response has ended."""
        self.attempt.response_trailers = trailers
        super().decode_complete(trailers)

    def _finish(self, now: float) -> None:
        self.attempt.upstream_last_rx = now
        super()._finish(now)
        self.conclude()

    # -- failures

    def on_reset(self, reason: str, transport_failure_reason: str) -> None:
        """PoolRequest: the exchange failed."""
        self.attempt.upstream_transport_failure_reason = transport_failure_reason
        self.conclude(FAILURES[reason][0] if reason in FAILURES else 0)
        super().on_reset(reason, transport_failure_reason)

    def on_too_long(self) -> None:
        """PoolRequest: the time of one exchange is over."""
        self.conclude(flags.UMSDR)
        super().on_too_long()

    def reset(self) -> None:
        """UpstreamHandle: the downstream side is over."""
        self.conclude(later=bool(self.stream.response_flags & flags.DC))
        super().reset()


def _meter(client: Http1Client) -> None:
    # Between two messages the parser of a connection can be replaced.
    old = client.codec
    if isinstance(old, MeteredClientCodec):
        old.header_bytes = 0
        return
    client.codec = new = MeteredClientCodec(client, *old.limits)
    new.enable_trailers = old.enable_trailers
    new.header_bytes = 0
    client.pool.cluster.loop.call_soon(old.close)  # it may be its own end of a message that has brought us here


class ObservedRequest(Observed):
    """The only attempt of a request without a retry policy."""

    def __init__(self, router: Router, stream: Stream, cluster: Cluster, endpoint: Endpoint, end_stream: bool) -> None:
        super().__init__(router, stream, cluster, endpoint, end_stream)
        self.observe()


class ObservedTry(Observed):
    """One of several attempts: a mixin for RetriedRequest and what is derived of it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.observe()
        if self._ended_at:
            self.attempt.request_ended_at = self.attempt.start

    def _leave(self, response_ended: bool) -> None:
        self.conclude()
        super()._leave(response_ended)  # type: ignore[misc]

    def _time_out(self, details: str) -> None:
        self.conclude(flags.UT)
        super()._time_out(details)  # type: ignore[misc]


_observed: dict[type[Any], type[Any]] = {}


def observed(kind: type[Any]) -> type[Any]:
    """That class of request, observed."""
    made = _observed.get(kind)
    if made is None:
        made = _observed[kind] = _observe(kind)
    return made


def _observe(kind: type[Any]) -> type[Any]:
    base = ObservedTry if issubclass(kind, RetriedRequest) else ObservedAnyhow
    return type(f"Observed{kind.__name__}", (base, kind), {})


class ObservedAnyhow(Observed):
    """A request of another kind: a tunnel's. A mixin."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.observe()


def observe(router: Router, logs: UpstreamLogs = NO_LOGS) -> None:
    """Have ``router`` make requests of this module's kind."""
    router.upstream_logs = logs
    # What the filters change belongs to what is observed: they come first.
    with_filters = router.with_filters
    router.request_type = with_filters(ObservedRequest)
    router.kind_of = lambda kind: with_filters(observed(kind))


def install(router: Router, config: RouterConfig, context: FilterContext) -> None:
    """The router's ``upstream_log``."""
    options = config.upstream_log_options

    def logs(log_type: str) -> list[Log]:
        return [each.log for each in context.access_logs(config.upstream_logs, log_type)]

    observe(
        router,
        UpstreamLogs(
            logs("UpstreamEnd"),
            logs("UpstreamPoolReady") if options.on_start else (),
            logs("UpstreamPeriodic") if options.interval_s else (),
            options.interval_s,
        ),
    )
