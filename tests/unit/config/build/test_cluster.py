"""Clusters: discovery type, endpoints, load balancing, DNS, protocol options."""

from __future__ import annotations

import pytest

from forkproxy.config.build.circuit_breakers import CircuitBreakers, Thresholds
from forkproxy.config.build.cluster import DnsResolver, TcpKeepalive, build_cluster
from forkproxy.config.build.connection_pool import PoolOptions
from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import AddressConfig
from forkproxy.config.build.load_balancing import LoadBalancingConfig
from tests.unit.config.build.building import TYPE, built, value_of

CLUSTER = "envoy.config.cluster.v3.Cluster"
RESOLVER = "{socket_address: {address: 9.9.9.9, port_value: 53}}"
CARES = TYPE + "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"


def text(rest):
    return f"{{name: 'a:b'{', ' if rest else ''}{rest}}}"


def made(rest="", context=None):
    return value_of(build_cluster, CLUSTER, text(rest), context)


def test_defaults():
    cluster = made()
    assert (cluster.name, cluster.stat_name, cluster.type) == ("a:b", "a_b", "STATIC")
    assert cluster.load_balancing == LoadBalancingConfig()
    assert cluster.connect_timeout_s == 5.0
    assert cluster.per_connection_buffer_limit_bytes == 1 << 20
    assert cluster.circuit_breakers == CircuitBreakers()
    assert (cluster.idle_timeout_s, cluster.max_requests_per_connection) == (3600.0, 0)
    assert (cluster.dns_lookup_family, cluster.dns_refresh_rate_s, cluster.respect_dns_ttl) == ("AUTO", 5.0, False)
    assert (cluster.dns_failure_refresh_base_s, cluster.dns_failure_refresh_max_s) == (5.0, 5.0)
    assert (cluster.dns_resolvers, cluster.use_tcp_for_dns_lookups) == ((), False)
    assert (cluster.tls, cluster.tcp_keepalive, cluster.pool) == (None, None, PoolOptions())
    assert cluster.localities == ()


@pytest.mark.parametrize(
    ("rest", "name", "value"),
    [
        ("alt_stat_name: 'x:y'", "stat_name", "x_y"),
        ("type: LOGICAL_DNS", "type", "LOGICAL_DNS"),
        ("cluster_type: {name: envoy.cluster.strict_dns}", "type", "STRICT_DNS"),
        ("cluster_type: {name: envoy.cluster.static}", "type", "STATIC"),
        ("connect_timeout: 0.25s", "connect_timeout_s", 0.25),
        ("per_connection_buffer_limit_bytes: 1", "per_connection_buffer_limit_bytes", 1),
        ("dns_lookup_family: V6_ONLY", "dns_lookup_family", "V6_ONLY"),
        ("dns_refresh_rate: 9s", "dns_failure_refresh_max_s", 9.0),
        ("dns_failure_refresh_rate: {base_interval: 2s}", "dns_failure_refresh_max_s", 20.0),
        ("dns_failure_refresh_rate: {base_interval: 2s, max_interval: 3s}", "dns_failure_refresh_max_s", 3.0),
        ("respect_dns_ttl: true", "respect_dns_ttl", True),
        (f"dns_resolvers: [{RESOLVER}]", "dns_resolvers", (AddressConfig("9.9.9.9", 53),)),
        ("use_tcp_for_dns_lookups: true", "use_tcp_for_dns_lookups", True),
        ("max_requests_per_connection: 7", "max_requests_per_connection", 7),
        ("common_http_protocol_options: {idle_timeout: 0s}", "idle_timeout_s", None),
        ("common_http_protocol_options: {max_requests_per_connection: 4}", "max_requests_per_connection", 4),
        (
            "upstream_connection_options: {tcp_keepalive: {keepalive_probes: 1, keepalive_time: 2, keepalive_interval: 3}}",
            "tcp_keepalive",
            TcpKeepalive(1, 2, 3),
        ),
        (
            "circuit_breakers: {thresholds: [{priority: HIGH, max_connections: 9}, {max_retries: 1, max_requests: 5}]}",
            "circuit_breakers",
            CircuitBreakers(
                Thresholds(1024, 1024, 5, 1, configured=frozenset(("max_requests", "max_retries"))),
                Thresholds(9, configured=frozenset(("max_connections",))),
            ),
        ),
    ],
)
def test_settings(rest, name, value):
    assert getattr(made(rest), name) == value


def test_load_assignment():
    cluster = made(
        """load_assignment: {cluster_name: x, endpoints: [
          {locality: {region: r, zone: z, sub_zone: s}, priority: 0, load_balancing_weight: 3, lb_endpoints: [
            {endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}, hostname: h,
                        health_check_config: {port_value: 5}}, load_balancing_weight: 2, health_status: DRAINING},
            {endpoint: {address: {pipe: {path: /x}}}, metadata: {}}]},
          {priority: 1}]}"""
    )
    first, second = cluster.localities
    assert (first.region, first.zone, first.sub_zone, first.weight) == ("r", "z", "s", 3)
    one, two = first.endpoints
    assert (one.address, one.weight, one.hostname, one.health_status) == (
        AddressConfig("127.0.0.1", 1),
        2,
        "h",
        "DRAINING",
    )
    assert (two.address, two.weight, two.hostname, two.health_status) == (
        AddressConfig(pipe_path="/x"),
        1,
        "",
        "UNKNOWN",
    )
    assert one.where.path == "load_assignment.endpoints[0].lb_endpoints[0]"
    assert (second.priority, second.endpoints) == (1, ())


@pytest.mark.parametrize(
    ("single", "expected"), [("", "STRICT_DNS"), (", all_addresses_in_single_endpoint: true", "LOGICAL_DNS")]
)
def test_dns_cluster_extension(single, expected):
    """Not the name but the field tells the two apart."""
    resolver = f"{{name: x, typed_config: {{'@type': {CARES}, resolvers: [{RESOLVER}]}}}}"
    cluster = made(
        f"cluster_type: {{name: any, typed_config: {{'@type': {TYPE}envoy.extensions.clusters.dns.v3.DnsCluster,"
        f" dns_refresh_rate: 7s, respect_dns_ttl: true, typed_dns_resolver_config: {resolver}{single}}}}}"
    )
    assert (cluster.type, cluster.dns_refresh_rate_s, cluster.dns_failure_refresh_base_s) == (expected, 7.0, 7.0)
    assert (cluster.dns_lookup_family, cluster.respect_dns_ttl) == ("AUTO", True)
    assert cluster.dns_resolvers == (AddressConfig("9.9.9.9", 53),)


def test_http_protocol_options():
    options = f"'@type': {TYPE}envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    http1 = "explicit_http_config: {http_protocol_options: {}}"
    key = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    more = "common_http_protocol_options: {idle_timeout: 9s, max_requests_per_connection: 3}"
    cluster = made(f"typed_extension_protocol_options: {{{key}: {{{options}, {http1}, {more}}}}}")
    assert (cluster.idle_timeout_s, cluster.max_requests_per_connection) == (9.0, 3)
    http2 = "explicit_http_config: {http2_protocol_options: {}}"
    outcome = built(
        build_cluster, CLUSTER, text(f"typed_extension_protocol_options: {{{key}: {{{options}, {http2}}}}}")
    )
    assert len(outcome.unread) == 1
    assert outcome.unread[0].endswith("explicit_http_config.http2_protocol_options")
    outcome = built(
        build_cluster, CLUSTER, text(f"typed_extension_protocol_options: {{nobody: {{{options}, {http1}}}}}")
    )
    assert outcome.errors == ['typed_extension_protocol_options.nobody: no extension "nobody" takes protocol options']


def test_the_bootstraps_resolver_is_the_default():
    context = BuildContext(dns_resolver=DnsResolver((AddressConfig("8.8.8.8", 53),), True))
    cluster = made(context=context)
    assert (cluster.dns_resolvers, cluster.use_tcp_for_dns_lookups) == ((AddressConfig("8.8.8.8", 53),), True)
    cluster = made(f"dns_resolution_config: {{resolvers: [{RESOLVER}]}}", context)
    assert (cluster.dns_resolvers, cluster.use_tcp_for_dns_lookups) == ((AddressConfig("9.9.9.9", 53),), False)


def test_failure_refresh_rate():
    outcome = built(build_cluster, CLUSTER, text("dns_failure_refresh_rate: {base_interval: 5s, max_interval: 1s}"))
    assert outcome.errors == ["dns_failure_refresh_rate.max_interval: must be greater than or equal to base_interval"]


@pytest.mark.parametrize(
    "rest",
    [
        "http2_protocol_options: {}",
    ],
)
def test_what_is_not_there_stays_unread(rest):
    (path,) = built(build_cluster, CLUSTER, text(rest)).unread
    assert path.partition(".")[0] == rest.partition(":")[0]


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        (
            f"cluster_type: {{name: r, typed_config: {{'@type': {TYPE}envoy.extensions.clusters.redis.v3.RedisClusterConfig}}}}",
            'cluster_type.typed_config: the cluster type "r" (envoy.extensions.clusters.redis.v3.RedisClusterConfig) is not '
            "implemented",
        ),
    ],
)
def test_values_that_are_not_there(rest, expected):
    assert built(build_cluster, CLUSTER, text(rest)).unsupported == [expected]
