"""Copies of requests for other clusters (Envoy: "request mirroring", "shadowing").

A mirror is fire and forget: nobody waits for its answer, and nothing that becomes of it reaches the client. Its body is sent on
as it comes. What its endpoint does not take waits up to the client connection's buffer limit; beyond it the mirror is given up,
where Envoy would read no more from the client.
"""

from __future__ import annotations

from typing import Any

from forkproxy.config.build.router import RouterConfig
from forkproxy.filters.context import FilterContext
from forkproxy.filters.http.router import FAILURES, Router, UpstreamRequest
from forkproxy.filters.http.router_policies import PolicyRouter
from forkproxy.http.filter import DataResult, HookResult
from forkproxy.http.headers import Headers
from forkproxy.http.headers import get as get_header
from forkproxy.http.headers import set_ as set_header
from forkproxy.http.stream import Stream
from forkproxy.http.tally import Tally
from forkproxy.net.timers import Timer
from forkproxy.router.policies import Mirror
from forkproxy.router.retry import milliseconds
from forkproxy.router.table import Route
from forkproxy.stats.dynamic import DynamicStats
from forkproxy.stats.groups import RouterStats
from forkproxy.upstream.balancers import PickContext
from forkproxy.upstream.cluster import Cluster
from forkproxy.upstream.endpoint import Endpoint
from forkproxy.upstream.http_pool import RESET_NO_POOL, RESET_OVERFLOW, Http1Client

_MIRRORS = "mirrors"


class MirroringRouter(PolicyRouter):
    """Stands in for Router where some route has mirrors."""

    def __init__(self, config: RouterConfig, stats: RouterStats, dynamic: DynamicStats | None = None) -> None:
        super().__init__(config, stats, dynamic)
        self.mirrored = RouterStats()
        """What Envoy's client for requests of its own counts, of which these are some."""

    @classmethod
    def from_config(cls, config: RouterConfig, context: FilterContext) -> MirroringRouter:
        """As Router's."""
        made = super().from_config(config, context)
        assert isinstance(made, MirroringRouter)
        made.mirrored = context.registry.group(RouterStats, "http.async-client")
        return made

    def decode_headers(self, stream: Stream, headers: Headers, end_stream: bool) -> HookResult:
        """As Router's; then the mirrors get their copies."""
        result = super().decode_headers(stream, headers, end_stream)
        for request in stream.filter_state.get(_MIRRORS, ()):
            request.begin(stream, end_stream)
        return result

    def _on_head(self, stream: Stream, route: Route) -> Route:
        route = super()._on_head(stream, route)
        policies = route.policies
        if policies is not None and policies.mirrors and not stream.http.upgrading:
            made = stream.filter_state[_MIRRORS] = copies(self, stream, policies.mirrors)
            self.mirrored.rq_total += len(made)
        return route

    def decode_data(self, stream: Stream, data: bytes, end_stream: bool) -> DataResult:
        """As Router's, for the mirrors too."""
        for request in stream.filter_state.get(_MIRRORS, ()):
            request.send_data(data, end_stream, None)
        return super().decode_data(stream, data, end_stream)

    def decode_trailers(self, stream: Stream, trailers: Headers) -> HookResult:
        """As Router's, for the mirrors too."""
        for request in stream.filter_state.get(_MIRRORS, ()):
            request.send_data(b"", True, trailers)
        return super().decode_trailers(stream, trailers)

    def on_stream_complete(self, stream: Stream) -> None:
        """Mirrors whose request is not complete will never be."""
        for request in stream.filter_state.pop(_MIRRORS, ()):
            request.cancel_unfinished()


def copies(router: Router, stream: Stream, mirrors: tuple[Mirror, ...]) -> list[MirroredRequest]:
    """What is to be sent, with the head as it is now."""
    made = []
    for mirror in mirrors:
        if mirror.test is not None and not mirror.test(stream):
            continue
        cluster: Cluster | None = mirror.find_cluster(stream)
        if cluster is not None:
            made.append(MirroredRequest(router, cluster, _head(router, stream, mirror), stream.route.timeout_s))
    return made


def _head(router: Router, stream: Stream, mirror: Mirror) -> Stream:
    """A stream that nobody follows: the copy's head."""
    headers = list(stream.request_headers)  # how names were spelled first goes, as in Envoy
    timeout_s = stream.route.timeout_s
    if mirror.mutate is not None:
        mirror.mutate(stream, headers)
    set_header(headers, b"x-envoy-internal", b"true")
    forwarded = get_header(headers, b"x-forwarded-for")
    own_ip = router.local_ip
    set_header(headers, b"x-forwarded-for", b"%b,%b" % (forwarded, own_ip) if forwarded else own_ip)
    if timeout_s is not None and router.envoy_headers:
        set_header(headers, b"x-envoy-expected-rq-timeout-ms", b"%d" % milliseconds(timeout_s))
    host = mirror.host_for(stream.authority)
    head = Stream(stream.http, stream.method, stream.path, host, headers, stream.protocol, router.loop.now)
    head.scheme = stream.scheme
    head.tally = tally = Tally()
    tally.dynamic = router.dynamic
    tally.is_internal = True
    return head


class MirroredRequest(UpstreamRequest):
    """One copy of one request."""

    keeps_body = True  # else the rest of a large body could go past this
    __slots__ = ("_answered", "_complete", "_is_over", "_is_refused", "_tally", "_timeout_s", "_timer")

    def __init__(self, router: Router, cluster: Cluster, head: Stream, timeout_s: float | None) -> None:
        nobody: Any = None  # no endpoint yet
        super().__init__(router, head, cluster, nobody, False)
        assert head.tally is not None
        self._tally = head.tally
        self._timeout_s = timeout_s
        self._timer: Timer | None = None
        self._complete = False
        self._is_over = False
        self._is_refused = False
        self._answered = False

    def begin(self, stream: Stream, end_stream: bool) -> None:
        """Ask for a connection to an endpoint."""
        cluster = self.cluster
        self._end_stream = end_stream
        endpoint = self._pick(stream)
        if endpoint is None:
            cluster.stats.upstream_cx_none_healthy += 1
            self._over(503)
            return
        self.endpoint = endpoint
        if end_stream:
            self._note_end()
        endpoint.pool.acquire(self)

    def _pick(self, stream: Stream) -> Endpoint | None:
        cluster = self.cluster
        if not cluster.needs_context:
            endpoint = cluster.pick()
        else:
            hash_ = cluster.hash_method(stream) if cluster.hash_method is not None and cluster.needs_hash else None
            endpoint = cluster.choose(PickContext(hash_, (), source=stream))
        return endpoint or cluster.pick_for(stream)

    # -- the request

    def send_data(self, data: bytes, end_stream: bool, trailers: Headers | None) -> None:
        """A piece of the body, as the client sends it."""
        if self._is_over:
            return
        waiting = self._held_bytes if self._client is None else self._client.connection.out_bytes
        if waiting + len(data) > self.stream.connection.high_watermark:
            self.cluster.stats.retry_or_shadow_abandoned += 1
            self.cancel()
            return
        super().send_data(data, end_stream, trailers)
        if end_stream and not self._complete:
            self._note_end()

    def _hold(self, data: bytes, end_stream: bool, trailers: Headers | None) -> None:
        if self._held is None:
            self._held = []
        self._held.append((data, end_stream, trailers))
        self._held_bytes += len(data)

    def _note_end(self) -> None:
        self._complete = True
        loop = self.router.loop
        self._ended_at = loop.now
        if self._timeout_s is not None:
            self._timer = loop.call_later(self._timeout_s, self._on_timeout)

    def cancel_unfinished(self) -> None:
        """The client's stream is over: what has not been sent whole never will be."""
        if not self._complete:
            self.cancel()

    def cancel(self) -> None:
        """Give it up."""
        if not self._is_over:
            self._over(0)
            self.reset()

    def on_upstream_above_high_watermark(self) -> None:
        """PoolRequest: the client is read all the same; ``send_data`` sees to the limit."""

    # -- the answer: counted, else dropped

    def decode_interim(self, status: int, headers: Headers) -> None:
        """ClientSink: of no use."""

    def decode_headers(self, status: int, headers: Headers, end_stream: bool) -> None:
        """ClientSink: the answer's head."""
        self._answered = True
        endpoint = self.endpoint
        if self.router.dynamic_stats:
            if endpoint.is_canary or (self._client is not None and self._client.codec.is_canary):
                self._tally.is_canary = True
            self._tally.response(self.cluster, endpoint, status)
        if 500 <= status < 600:
            endpoint.stats.rq_error += 1
        else:
            endpoint.stats.rq_success += 1
        if endpoint.monitor is not None:
            endpoint.monitor.on_response(status, headers)
        if end_stream:
            self.decode_complete(None)

    def decode_data(self, data: bytes) -> None:
        """ClientSink: of no use."""

    def decode_complete(self, trailers: Headers | None) -> None:
        """ClientSink: the answer has ended."""
        if self.router.dynamic_stats and self._ended_at:
            elapsed_ms = int((self.router.loop.now - self._ended_at) * 1000)
            self._tally.time(self.cluster, self.endpoint, elapsed_ms)
        self._over(0)
        if self._client is not None and not self._client.request_sent:
            self._client.cancel()

    def _over(self, status: int) -> None:
        """Nothing more happens; ``status``: what a client would have been told, 0 when there is nothing to count."""
        self._is_over = True
        self._held = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if status and not self._answered and self.router.dynamic_stats:
            self._tally.response(self.cluster, self.endpoint, status)

    def on_reset(self, reason: str, transport_failure_reason: str) -> None:
        """PoolRequest: it failed."""
        if self._is_over:
            return
        self._tell_monitor(reason)
        if not self._answered and (self._is_refused or reason not in (RESET_NO_POOL, RESET_OVERFLOW)):
            self.endpoint.stats.rq_error += 1
        self._over(503 if reason is RESET_NO_POOL else FAILURES[reason][1])

    def on_refused(self, client: Http1Client) -> None:
        """PoolRequest: there are too many requests."""
        self._is_refused = True
        self.on_reset(RESET_OVERFLOW, "")

    def on_too_long(self) -> None:
        """PoolRequest: the time of one exchange is over."""
        self._over(0)

    def may_be_sent_again(self) -> bool:
        """PoolRequest: a copy is not worth it."""
        return False

    def _on_timeout(self) -> None:
        self._timer = None
        self.cluster.stats.upstream_rq_timeout += 1
        self.endpoint.stats.rq_timeout += 1
        if not self._answered:
            self.endpoint.stats.rq_error += 1
            if self.endpoint.monitor is not None:
                self.endpoint.monitor.on_timeout(connected=self._client is not None)
        self._over(504)
        self.reset()
