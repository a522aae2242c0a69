"""Answers health checks of this proxy, from its own state, from that of clusters, or from the application behind it.

    - name: envoy.filters.http.health_check
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck
        pass_through_mode: false
        headers: [{name: ":path", string_match: {exact: /healthz}}]

Without ``pass_through_mode`` the proxy answers by itself: 200, or 503 when clusters have fewer healthy endpoints than
``cluster_min_healthy_percentages`` wants. With it the application answers, and with ``cache_time`` its answer serves all workers
for so long (Envoy forgets it at the next of regular moments, so earlier). After ``/healthcheck/fail`` every check is 503, and
every response says ``x-envoy-immediate-health-check-fail``. Checks do not count in ``downstream_rq_2xx``, ``upstream_rq_200`` and
their likes (they do in ``upstream_rq_time``), and the access log filter ``not_health_check_filter`` leaves them out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from forkproxy.config.build.health_check_filter import HealthCheckFilterConfig
from forkproxy.filters.context import FilterContext
from forkproxy.http import response_flags as flags
from forkproxy.http.client_address import is_inside
from forkproxy.http.filter import STOP_ITERATION, TAKEN, DataResult, HookResult, HttpFilter
from forkproxy.http.headers import Headers
from forkproxy.http.headers import get as get_header
from forkproxy.http.stream import HEALTH_CHECK, Stream
from forkproxy.router.matcher import all_of, compile_header_matcher
from forkproxy.stats.group import Counter, StatGroup
from forkproxy.stats.shared import CommonCell

if TYPE_CHECKING:
    from forkproxy.upstream.cluster import Cluster

_STATUS_BITS = 11


class HealthCheckFilterStats(StatGroup):
    """``http.<stat_prefix>.health_check``: of the checks that the proxy answers itself."""

    cached_response: Counter
    degraded: Counter
    failed: Counter
    failed_cluster_empty: Counter
    failed_cluster_not_found: Counter
    failed_cluster_unhealthy: Counter
    ok: Counter
    request_total: Counter


class HealthCheck(HttpFilter):
    """See the module's text. ``filter_state`` of a check: whether the proxy answers it."""

    def __init__(
        self,
        config: HealthCheckFilterConfig,
        stats: HealthCheckFilterStats,
        cluster: Callable[[str], Cluster | None],
        own_cluster: str,
        cache: CommonCell,
    ) -> None:
        self.config = config
        self.stats = stats
        self.cluster = cluster
        self.checked_line = (b"x-envoy-upstream-healthchecked-cluster", own_cluster.encode())
        self.cache = cache
        self.is_check = all_of([compile_header_matcher(each, config.where) for each in config.headers])

    @classmethod
    def from_config(cls, config: HealthCheckFilterConfig, context: FilterContext) -> HealthCheck:
        """Counts under the connection manager's prefix."""
        prefix = f"{context.stat_prefix}.health_check"
        cell = context.registry.shared.common("health_check_cache", f"{context.listener_name}.{prefix}.{context.name}")
        stats = context.registry.group(HealthCheckFilterStats, prefix)
        return cls(config, stats, context.cluster, context.node.cluster, cell)

    def decode_headers(self, stream: Stream, headers: Headers, end_stream: bool) -> HookResult:
        """Is it a check, and ours to answer?"""
        if self.is_check is not None and not self.is_check(stream):
            return None
        stream.filter_state[HEALTH_CHECK] = True
        ours = (
            not self.config.pass_through or stream.http.manager.fails_health_check or self._cached(stream) is not None
        )
        stream.filter_state[self] = ours
        if not ours:
            return None
        if end_stream:
            self._answer(stream)
        return STOP_ITERATION

    def decode_data(self, stream: Stream, data: bytes, end_stream: bool) -> DataResult:
        """The body of a check that the proxy answers is of no interest, but its end is."""
        if not stream.filter_state.get(self):
            return None
        if end_stream:
            self._answer(stream)
        return TAKEN

    def decode_trailers(self, stream: Stream, trailers: Headers) -> HookResult:
        """The same."""
        if not stream.filter_state.get(self):
            return None
        self._answer(stream)
        return STOP_ITERATION

    def encode_headers(self, stream: Stream, headers: Headers, end_stream: bool) -> HookResult:
        """Say whose health was told, and that the balancer should send no more."""
        ours = stream.filter_state.get(self)
        failing = stream.http.manager.fails_health_check
        if ours is not None:
            if self.config.cache_s and (failing or not ours):
                self._keep(stream, headers)
            if not ours:
                self._uncount(stream)
            headers.append(self.checked_line)
        if failing:
            headers.append((b"x-envoy-immediate-health-check-fail", b"true"))
        return None

    def on_stream_complete(self, stream: Stream) -> None:
        """A check has just been counted as an answer: no longer."""
        if self in stream.filter_state:
            stream.http.manager.stats.tracing__health_check += 1
        if self in stream.filter_state and stream.status:
            stream.http.manager.codes[stream.status] -= 1

    def _uncount(self, stream: Stream) -> None:
        # The router has counted this status a moment ago, before anything could be flushed.
        cluster = stream.cluster if stream.attempt_count else None
        if cluster is not None:
            stats = cluster.stats
            codes = stats.internal__upstream_rq if is_inside(stream) else stats.external__upstream_rq
            if codes.get(stream.status):
                codes[stream.status] -= 1

    def _cached(self, stream: Stream) -> tuple[int, bool] | None:
        value = self.cache.get() if self.config.cache_s else 0
        if value >> (_STATUS_BITS + 1) <= stream.connection.loop.now * 1000:
            return None
        return (value >> 1) & ((1 << _STATUS_BITS) - 1), bool(value & 1)

    def _keep(self, stream: Stream, headers: Headers) -> None:
        until = int((stream.connection.loop.now + self.config.cache_s) * 1000)
        degraded = get_header(headers, b"x-envoy-degraded") is not None
        self.cache.set(((until << _STATUS_BITS | stream.status) << 1) | degraded)

    def _answer(self, stream: Stream) -> None:
        stats = self.stats
        stats.request_total += 1
        degraded = False
        status, details = 200, "health_check_ok"
        cached = self._cached(stream)
        if stream.http.manager.fails_health_check:
            status, details = 503, "health_check_failed"
        elif cached is not None:
            (status, degraded), details = cached, "health_check_cached"
            stats.cached_response += 1
        elif self.config.min_healthy:
            details = self._judge()
            status = 200 if details == "health_check_ok_cluster_healthy" else 503
        good = 200 <= status < 300
        if good:
            stats.ok += 1
        else:
            stats.failed += 1
        headers: Headers = []
        if degraded:
            stats.degraded += 1
            headers.append((b"x-envoy-degraded", b""))
        stream.send_local_reply(status, b"", headers, details, 0 if good else flags.LH)

    def _judge(self) -> str:
        for name, percent in self.config.min_healthy:
            cluster = self.cluster(name)
            if cluster is None:
                self.stats.failed_cluster_not_found += 1
                return "health_check_failed_no_cluster_found"
            total = cluster.stats.membership_total
            if not total:
                if percent:
                    self.stats.failed_cluster_empty += 1
                    return "health_check_failed_cluster_empty"
            elif cluster.stats.membership_healthy + cluster.stats.membership_degraded < total * percent / 100:
                self.stats.failed_cluster_unhealthy += 1
                return "health_check_failed_cluster_unhealthy"
        return "health_check_ok_cluster_healthy"
