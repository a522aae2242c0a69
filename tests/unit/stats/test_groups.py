"""Envoy's default sets: some names that dashboards are made of, with the kinds that real Envoy 1.40 gave them."""

import pytest

from forkproxy.stats import groups
from forkproxy.stats.counters import Registry


@pytest.fixture
def snapshot():
    registry = Registry()
    registry.begin_generation()
    registry.group(groups.ClusterStats, "cluster.web")
    registry.group(groups.Http1Stats, "cluster.web.http1")
    registry.group(groups.HttpConnectionManagerStats, "http.in")
    registry.group(groups.RouterStats, "http.in")
    registry.group(groups.ListenerHttpStats, "listener.0.0.0.0_80.http.in", rolls_up_to=("http.in",))
    registry.group(groups.ListenerStats, "listener.0.0.0.0_80")
    registry.group(groups.TcpProxyStats, "tcp.t")
    registry.local_group(groups.ClusterUpdateStats, "cluster.web")
    registry.local_group(groups.ServerStats, "server")
    return registry.read([])


@pytest.mark.parametrize(
    "name",
    [
        "cluster.web.upstream_cx_total",
        "cluster.web.upstream_rq_0rtt",
        "cluster.web.default.total_match_count",
        "cluster.web.http1.response_flood",
        "http.in.downstream_cx_http1_total",
        "http.in.downstream_rq_2xx",
        "http.in.downstream_rq_completed",
        "http.in.rq_direct_response",
        "http.in.tracing.not_traceable",
        "listener.0.0.0.0_80.http.in.downstream_rq_5xx",
        "listener.0.0.0.0_80.no_filter_chain_match",
        "tcp.t.downstream_cx_total",
    ],
)
def test_counters(snapshot, name):
    assert snapshot.counters[name] == 0


@pytest.mark.parametrize(
    "name",
    [
        "cluster.web.circuit_breakers.high.rq_pending_open",
        "cluster.web.membership_healthy",
        "cluster.web.upstream_rq_pending_active",
        "http.in.downstream_rq_active",
        "listener.0.0.0.0_80.downstream_pre_cx_active",
        "tcp.t.upstream_flush_active",
        "server.live",
        "server.compilation_settings.fips_mode",
    ],
)
def test_gauges(snapshot, name):
    assert snapshot.gauges[name] == 0


def test_histograms(snapshot):
    assert sorted(snapshot.histograms) == [
        "cluster.web.upstream_cx_connect_ms",
        "cluster.web.upstream_cx_length_ms",
        "cluster.web.upstream_rq_per_cx",
        "http.in.downstream_cx_length_ms",
        "http.in.downstream_rq_time",
        "listener.0.0.0.0_80.connections_accepted_per_socket_event",
        "listener.0.0.0.0_80.downstream_cx_length_ms",
        "server.initialization_time_ms",
    ]


def test_an_untouched_cluster_shows_as_many_stats_as_in_envoy(snapshot):
    shown = [name for name in (*snapshot.counters, *snapshot.gauges) if name.startswith("cluster.web.")]
    assert len(shown) == 108  # 104 of the cluster, 4 of its HTTP/1 codec


def test_an_internal_request_counts_as_internal_and_in_all():
    registry = Registry()
    stats = registry.local_group(groups.ClusterStats, "cluster.c")
    stats.internal__upstream_rq[404] += 1
    stats.internal__upstream_rq_time[7] += 1
    snapshot = registry.read([])
    shown = sorted(name for name, value in snapshot.counters.items() if value)
    assert shown == [
        f"cluster.c.{scope}upstream_rq_{what}" for scope in ("internal.", "") for what in ("404", "4xx", "completed")
    ]
    times = sorted(name for name, pair in snapshot.histograms.items() if pair.used)
    assert times == ["cluster.c.internal.upstream_rq_time", "cluster.c.upstream_rq_time"]
