"""The router of a connection manager some of whose requests ask for more than one exchange with one endpoint.

It stands in for Router (Router.from_config) where the route table has policies, or where requests may bring directions of their
own; other configurations never import it. What is done is in router_directions.py (timeouts and retries by header),
router_redirects.py, router_hedging.py and, with a router of its own, router_mirrors.py.
"""

from __future__ import annotations

from typing import Any

from forkproxy.config.build.router import RouterConfig
from forkproxy.filters.http import router_directions, router_redirects
from forkproxy.filters.http.router import RetriedExchange, RetriedRequest, Router
from forkproxy.http import response_flags as flags
from forkproxy.http.filter import STOP_ITERATION, HookResult
from forkproxy.http.headers import Headers
from forkproxy.http.headers import set_ as set_header
from forkproxy.http.stream import Stream
from forkproxy.router.retry import Retries
from forkproxy.router.table import Route
from forkproxy.stats.dynamic import DynamicStats
from forkproxy.stats.groups import RouterStats
from forkproxy.upstream.cluster import Cluster
from forkproxy.upstream.http_pool import Http1Client


class PolicyRouter(Router):
    """See the module's text."""

    def __init__(self, config: RouterConfig, stats: RouterStats, dynamic: DynamicStats | None = None) -> None:
        super().__init__(config, stats, dynamic)
        self.respects_expected = config.respect_expected_rq_timeout
        # A request that begins anew, or has been directed, has the header already.
        self.respect_expected_timeout = True
        self.strict_headers = tuple(name.encode() for name in config.strict_check_headers)
        self.retry_directions = router_directions.RetryDirections()

    def decode_headers(self, stream: Stream, headers: Headers, end_stream: bool) -> HookResult:
        """As Router's, on the route that this very request has."""
        route = stream.route
        if route is not None and not route.kind:
            if self.strict_headers and self._refuses(stream, route, headers):
                return STOP_ITERATION
            if router_directions.is_directed(route, stream):
                stream.route = self._direct(stream, route, headers)
        return super().decode_headers(stream, stream.request_headers, end_stream)

    def _refuses(self, stream: Stream, route: Route, headers: Headers) -> bool:
        cluster = route.cluster or route.find_cluster(stream)
        if cluster is None:
            return False
        for name in self.strict_headers:
            value = router_directions.invalid_header(name, headers)
            if value is not None:
                self.stats.rq_total += 1
                stream.cluster = cluster
                body = b"invalid header '%b' with value '%b'" % (name, value)
                details = f"request_headers_failed_strict_check{{{name.decode()}}}"
                stream.send_local_reply(400, body, details=details, flags=flags.IH)
                return True
        return False

    def _direct(self, stream: Stream, route: Route, headers: Headers) -> Route:
        directed = router_directions.time_limits(route, stream, respects_expected=self.respects_expected)
        if directed.timeout_header is not None:
            if self.envoy_headers:
                set_header(headers, *directed.timeout_header)
            router_directions.tell_grpc_timeout(directed, headers, int(directed.timeout_header[1]))
        return directed

    def _on_head(self, stream: Stream, route: Route) -> Route:
        route = stream.route = self.retry_directions.heed(route, stream)
        return route

    @staticmethod
    def exchange(
        router: Router, stream: Stream, cluster: Cluster, retries: Retries, end_stream: bool
    ) -> RetriedExchange:
        """What carries a request whose route has a retry policy, or another one that needs it."""
        policies = stream.route.policies
        if policies is not None and policies.hedges:
            # Imported where some route asks for it.
            from forkproxy.filters.http.router_hedging import HedgedExchange

            return HedgedExchange(router, stream, cluster, retries, end_stream)
        return PolicyExchange(router, stream, cluster, retries, end_stream)


class PolicyExchange(RetriedExchange):
    """All attempts of one request; the last one's answer may be a redirect to follow."""

    __slots__ = ("_follows", "_overflowed", "timed_out")

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        policies = self.stream.route.policies
        self._follows = policies is not None and policies.internal_redirect is not None
        self._overflowed = False
        self.timed_out = False
        """The attempt before was given up for its time."""

    def _on_head(self, headers: Headers) -> None:
        route = self.stream.route
        policies = route.policies
        if policies is not None and policies.tells_timeout_retry:
            set_header(headers, b"x-envoy-is-timeout-retry", b"true" if self.timed_out else b"false")
        if route.timeout_header is not None:
            router_directions.tell_grpc_timeout(route, headers, self._expected_ms(route))
        self.timed_out = False

    # -- redirects

    def keep(self, data: bytes, end_stream: bool, trailers: Headers | None) -> None:
        """Keep a piece for the attempts to come, and for a request that begins anew."""
        if not self._follows or self._overflowed:
            super().keep(data, end_stream, trailers)
        elif not self._store(data, end_stream, trailers):
            self._overflowed = True

    def give_up(self) -> None:
        """No further attempt."""
        kept = self._kept
        super().give_up()
        if self._follows and not self._overflowed:
            self._kept = kept

    def follow_redirect(self, attempt: RetriedRequest, status: int, headers: Headers, end_stream: bool) -> bool:
        """True when the answer was a redirect, and the request has begun anew."""
        stream = self.stream
        if not self._follows or status not in stream.route.policies.internal_redirect.codes:
            return False
        stats = self.cluster.stats
        derived = None
        if self.ended_at and not self._overflowed:
            derived = router_redirects.follow(self.router, stream, status, headers)
        if derived is None:
            stats.upstream_internal_redirect_failed_total += 1
            return False
        stats.upstream_internal_redirect_succeeded_total += 1
        if attempt.endpoint.monitor is not None:
            attempt.endpoint.monitor.on_response(status, headers)
        body = b"".join([data for data, _, _ in self._kept])
        self._follows = False
        self.give_up()
        attempt._leave(end_stream)
        router_redirects.leave(stream, derived, status, headers, body)
        return True


class PolicyRequest(RetriedRequest):
    """One attempt."""

    __slots__ = ()
    _exchange: PolicyExchange

    def on_ready(self, client: Http1Client) -> None:
        """PoolRequest: as in RetriedRequest; the request may have said how long this may last."""
        super().on_ready(client)
        duration_s = self.stream.route.upstream_duration_s
        if duration_s and client.request is self:
            client.limit_request(duration_s)

    def _accept(self, status: int, headers: Headers, end_stream: bool) -> None:
        if not self._exchange.follow_redirect(self, status, headers, end_stream):
            super()._accept(status, headers, end_stream)

    def _time_out(self, details: str) -> None:
        self._exchange.timed_out = True
        super()._time_out(details)


PolicyExchange.attempt = PolicyRequest
