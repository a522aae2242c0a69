"""Health checks of clusters and endpoints, and what Envoy refuses of them."""

from __future__ import annotations

import pytest

from forkproxy.config.build.cluster import build_cluster
from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import AddressConfig, StringMatcher
from forkproxy.config.build.health_check import (
    EndpointHealthCheck,
    HttpCheck,
    RedisCheck,
    TcpCheck,
    build_health_check,
)
from tests.unit.config.build.building import TYPE, built, value_of

CHECK = "envoy.config.core.v3.HealthCheck"
TIMES = "timeout: 1s, interval: 5s, unhealthy_threshold: 2, healthy_threshold: 3"
REDIS = TYPE + "envoy.extensions.health_checkers.redis.v3.Redis"
FILE_SINK = TYPE + "envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink"


def made(check="tcp_health_check: {}", more=""):
    return value_of(build_health_check, CHECK, f"{{{TIMES}, {check}{more}}}")


def outcome(check, more=""):
    return built(build_health_check, CHECK, f"{{{TIMES}, {check}{more}}}")


def test_defaults():
    config = made()
    assert config.check == TcpCheck()
    assert (config.timeout_s, config.interval_s, config.unhealthy_threshold, config.healthy_threshold) == (
        1.0,
        5.0,
        2,
        3,
    )
    assert (config.no_traffic_interval_s, config.no_traffic_healthy_interval_s) == (60.0, 60.0)
    assert (config.unhealthy_interval_s, config.unhealthy_edge_interval_s, config.healthy_edge_interval_s) == (
        5.0,
        5.0,
        5.0,
    )
    assert (config.initial_jitter_s, config.interval_jitter_s, config.interval_jitter_percent) == (0.0, 0.0, 0)
    assert config.reuse_connection
    assert (config.alpn_protocols, config.event_logs) == (None, ())
    assert (config.always_log_failures, config.always_log_success) == (False, False)


@pytest.mark.parametrize(
    ("more", "name", "value"),
    [
        ("no_traffic_interval: 9s", "no_traffic_healthy_interval_s", 9.0),
        ("unhealthy_interval: 9s", "unhealthy_edge_interval_s", 9.0),
        ("unhealthy_edge_interval: 9s", "unhealthy_interval_s", 5.0),
        ("reuse_connection: false", "reuse_connection", False),
        ("tls_options: {alpn_protocols: [a, b]}", "alpn_protocols", ("a", "b")),
        ("transport_socket_match_criteria: {b: true, a: x}", "match_criteria", '{"a": "x", "b": true}'),
        (
            f"event_logger: [{{name: f, typed_config: {{'@type': {FILE_SINK}, event_log_path: /p}}}}]",
            "event_logs",
            ("/p",),
        ),
    ],
)
def test_fields(more, name, value):
    assert getattr(made(more=", " + more), name) == value


def test_http():
    assert made("http_health_check: {path: /p}").check == HttpCheck(path="/p")
    check = made(
        "http_health_check: {path: /p, host: h, method: PUT, send: {text: '6869'}, receive: [{text: 00FF}, {binary: AP8=}],"
        " response_buffer_size: 0, expected_statuses: [{start: 200, end: 300}], retriable_statuses: [{start: 500, end: 501}],"
        " request_headers_to_remove: [X-A], service_name_matcher: {prefix: s}}"
    ).check
    assert (check.method, check.host, check.send, check.receive) == ("PUT", "h", b"hi", (b"\0\xff", b"\0\xff"))
    assert (check.response_buffer_bytes, check.expected, check.retriable) == (0, ((200, 300),), ((500, 501),))
    assert (check.headers_to_remove, check.service_name) == (("x-a",), StringMatcher("prefix", "s"))


def test_tcp_and_redis():
    assert made(
        "tcp_health_check: {send: {text: '00'}, receive: [{text: '01'}], proxy_protocol_config: {version: V2}}"
    ).check == (TcpCheck(b"\0", (b"\1",), "V2"))
    assert made("tcp_health_check: {proxy_protocol_config: {}}").check.proxy_protocol == "V1"
    redis = f"custom_health_check: {{name: envoy.health_checkers.redis, typed_config: {{'@type': {REDIS}, key: k}}}}"
    assert made(redis).check == RedisCheck("k")


@pytest.mark.parametrize(
    ("check", "error"),
    [
        ("tcp_health_check: {send: {text: zz}}", "invalid hex string 'zz'"),
        ("tcp_health_check: {receive: [{text: abc}]}", "invalid hex string 'abc'"),
        (
            "http_health_check: {path: /, send: {text: '00'}}",
            "HTTP health check cannot specify a request payload with method 'GET'",
        ),
        (
            "http_health_check: {path: /, response_buffer_size: 2, receive: [{text: '0102'}, {text: '03'}]}",
            "The expected response length '3' is over than http health response buffer size '2'",
        ),
        (
            "http_health_check: {path: /, expected_statuses: [{start: 200, end: 200}]}",
            "Invalid http expected status range: expecting start < end, but found start=200 and end=200",
        ),
        (
            "http_health_check: {path: /, expected_statuses: [{start: 99, end: 200}]}",
            "Invalid http expected status range: expecting start >= 100, but found start=99",
        ),
        (
            "http_health_check: {path: /, retriable_statuses: [{start: 200, end: 601}]}",
            "Invalid http retriable status range: expecting end <= 600, but found end=601",
        ),
    ],
)
def test_what_envoy_refuses(check, error):
    assert [text.partition(": ")[2] for text in outcome(check).errors] == [error]


@pytest.mark.parametrize(
    ("check", "path"),
    [
        ("grpc_health_check: {}", "grpc_health_check"),
    ],
)
def test_what_is_not_implemented(check, path):
    assert outcome(check).unread == [path]


def test_other_codecs_and_checkers_are_not_implemented():
    assert outcome("http_health_check: {path: /, codec_client_type: HTTP2}").unsupported
    thrift = TYPE + "envoy.extensions.health_checkers.thrift.v3.Thrift"
    custom = f"custom_health_check: {{name: envoy.health_checkers.thrift, typed_config: {{'@type': {thrift}, method_name: m}}}}"
    assert outcome(custom).unsupported
    assert outcome(custom).value is None


CLUSTER = "envoy.config.cluster.v3.Cluster"


def cluster(rest):
    return built(build_cluster, CLUSTER, f"{{name: a, {rest}}}")


def test_a_cluster_has_one():
    one = f"{{{TIMES}, tcp_health_check: {{}}}}"
    found = cluster(f"health_checks: [{one}], ignore_health_on_host_removal: true").value
    assert found.health_check.check == TcpCheck()
    assert found.ignore_health_on_host_removal
    assert cluster(f"health_checks: [{one}, {one}]").unsupported == [
        "health_checks: several health checks of one cluster are not implemented"
    ]


def test_only_endpoints_that_are_known_can_be_checked():
    one = f"{{{TIMES}, tcp_health_check: {{}}}}"
    rest = f"health_checks: [{one}], type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED"
    assert cluster(rest).unsupported == ["health_checks: health checks of ORIGINAL_DST clusters are not implemented"]


def test_what_health_checks_make_matter():
    with_check = f"health_checks: [{{{TIMES}, tcp_health_check: {{}}}}], "
    common = "common_lb_config: {ignore_new_hosts_until_first_hc: true}"
    assert cluster(with_check + common).value.load_balancing.ignore_new_hosts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", EndpointHealthCheck()),
        ("{port_value: 2, hostname: h}", EndpointHealthCheck(2, "h")),
        ("{disable_active_health_check: true}", EndpointHealthCheck(disabled=True)),
        (
            "{address: {socket_address: {address: 9.9.9.9, port_value: 1}}}",
            EndpointHealthCheck(address=AddressConfig("9.9.9.9", 1)),
        ),
    ],
)
def test_endpoints(text, expected):
    address = "address: {socket_address: {address: 127.0.0.1, port_value: 1}}"
    found = cluster(
        f"load_assignment: {{cluster_name: a, endpoints: [{{lb_endpoints: [{{endpoint: {{{address},"
        f" health_check_config: {text}}}}}]}}]}}"
    )
    assert found.value.localities[0].endpoints[0].health_check == expected
    assert found.unread == []


def test_runtime_layers():
    runtime = {"health_check.min_interval": 500, "health_check.max_interval": 2000, "health_check.verify_cluster": 0}
    config = value_of(build_health_check, CHECK, f"{{{TIMES}, tcp_health_check: {{}}}}", BuildContext(runtime=runtime))
    assert (config.min_interval_s, config.max_interval_s, config.verify_percent) == (0.5, 2.0, 0)
    assert made().max_interval_s == float("inf")
