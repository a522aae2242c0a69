"""What the builders make of clusters whose endpoints are found while running."""

import pytest

from forkproxy.config.build.aggregate import AggregateConfig
from forkproxy.config.load import load

EXTENSIONS = "type.googleapis.com/envoy.extensions"


def verdict(cluster, listener=""):
    return load(f"static_resources: {{clusters: [{{name: c, {cluster}}}], listeners: [{listener}]}}", "test.yaml")


def built(cluster):
    result = verdict(cluster)
    assert result.verdict == "runs", [problem.message for problem in result.problems]
    return result.bootstrap.clusters[0]


def words(result):
    return [problem.message for problem in result.problems]


def typed(name, body, extension):
    config = f"{{'@type': {EXTENSIONS}.clusters.{extension}.v3.ClusterConfig, {body}}}"
    return f"lb_policy: CLUSTER_PROVIDED, cluster_type: {{name: {name}, typed_config: {config}}}"


def test_original_dst():
    cluster = built("type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, cleanup_interval: 7s")
    assert (cluster.type, cluster.cleanup_interval_s) == ("ORIGINAL_DST", 7.0)
    assert (cluster.dynamic.header, cluster.dynamic.port) == (b"", 0)
    settings = "original_dst_lb_config: {use_http_header: true, upstream_port_override: 8080}"
    cluster = built(f"type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, {settings}")
    assert (cluster.dynamic.header, cluster.dynamic.port) == (b"x-envoy-original-dst-host", 8080)


def test_a_destination_from_metadata_is_refused_by_name():
    settings = "original_dst_lb_config: {metadata_key: {key: k, path: [{key: where}]}}"
    result = verdict(f"type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, {settings}")
    assert result.verdict == "unsupported"
    assert [problem.path for problem in result.problems] == [
        "static_resources.clusters[0].original_dst_lb_config.metadata_key"
    ]


def test_aggregate():
    cluster = built(typed("envoy.clusters.aggregate", "clusters: [c, d]", "aggregate"))
    assert cluster.type == "AGGREGATE"
    assert cluster.dynamic == AggregateConfig(("c", "d"))


def test_dynamic_forward_proxy():
    cache = (
        "dns_cache_config: {name: outside, dns_lookup_family: V4_ONLY, host_ttl: 9s, max_hosts: 3, dns_min_refresh_rate: 2s,"
        " dns_cache_circuit_breaker: {max_pending_requests: 4}, dns_failure_refresh_rate: {base_interval: 1s},"
        " preresolve_hostnames: [{address: a.test, port_value: 80}]}"
    )
    cluster = built(typed("envoy.clusters.dynamic_forward_proxy", cache, "dynamic_forward_proxy"))
    config = cluster.dynamic.cache
    assert cluster.type == "DYNAMIC_FORWARD_PROXY"
    assert (config.host_ttl_s, config.max_hosts, config.min_refresh_rate_s, config.max_pending_requests) == (9, 3, 2, 4)
    assert (config.refresh_rate_s, config.failure_base_s, config.failure_max_s) == (60, 1, 10)
    assert config.preresolve == (("a.test", 80),)


def test_sub_clusters_are_refused_by_name():
    config = typed("envoy.clusters.dynamic_forward_proxy", "sub_clusters_config: {}", "dynamic_forward_proxy")
    assert "needs a dns_cache_config" in words(verdict(config))


@pytest.mark.parametrize(
    ("config", "path", "verdict_is"),
    [
        ("path_config_source: {path: /nowhere/x.yaml}", ".eds_config.path_config_source.path", "invalid"),
        ("ads: {}", ".eds_config.ads", "unsupported"),
        ("api_config_source: {api_type: GRPC, grpc_services: [{envoy_grpc: {cluster_name: c}}]}", None, "unsupported"),
    ],
)
def test_eds_sources(config, path, verdict_is):
    result = verdict(f"type: EDS, eds_cluster_config: {{eds_config: {{{config}}}}}")
    assert result.verdict == verdict_is, words(result)
    if path:
        assert result.problems[0].path == f"static_resources.clusters[0].eds_cluster_config{path}"
