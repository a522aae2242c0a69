"""How connections are made and kept: protocol options, preconnecting, source addresses."""

from __future__ import annotations

import struct

import pytest

from forkproxy.config.build.cluster import build_cluster
from forkproxy.config.build.connection_pool import BindOptions, HttpOptions, PoolOptions, SourceAddress
from forkproxy.config.build.core import AddressConfig
from tests.unit.config.build.building import TYPE, built, value_of

CLUSTER = "envoy.config.cluster.v3.Cluster"
OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
V4 = AddressConfig("10.0.0.1", 0)
V6 = AddressConfig("::1", 0)
FIRST = "source_address: {address: 10.0.0.1, port_value: 0}"
SECOND = "{address: '::1', port_value: 0}"
MARK = (1, 36, struct.pack("=i", 7), "STATE_PREBIND")
MARKED = "socket_options: [{description: d, level: 1, name: 36, int_value: 7}]"


def made(rest):
    return value_of(build_cluster, CLUSTER, f"{{name: c, {rest}}}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("idle_timeout: 0s", HttpOptions(idle_timeout_s=None)),
        ("max_connection_duration: 1.5s", HttpOptions(max_connection_duration_s=1.5)),
        ("max_connection_duration: 0s", HttpOptions()),
        ("max_stream_duration: 2s", HttpOptions(max_stream_duration_s=2.0)),
        ("max_requests_per_connection: 3", HttpOptions(max_requests_per_connection=3)),
        (
            "max_headers_count: 9, max_response_headers_kb: 8",
            HttpOptions(max_headers_count=9, max_response_headers_kb=8),
        ),
        ("headers_with_underscores_action: DROP_HEADER", HttpOptions()),
    ],
)
def test_protocol_options(text, expected):
    assert made(f"common_http_protocol_options: {{{text}}}").pool.http == expected
    typed = f"'@type': {TYPE}{OPTIONS}, explicit_http_config: {{http_protocol_options: {{}}}}"
    options = f"{{{OPTIONS}: {{{typed}, common_http_protocol_options: {{{text}}}}}}}"
    assert made(f"typed_extension_protocol_options: {options}").pool.http == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("preconnect_policy: {}", PoolOptions()),
        ("preconnect_policy: {per_upstream_preconnect_ratio: 1.5}", PoolOptions(preconnect_ratio=1.5)),
        ("preconnect_policy: {predictive_preconnect_ratio: 2}", PoolOptions(predictive_ratio=2.0)),
        ("connection_pool_per_downstream_connection: true", PoolOptions(per_downstream=True)),
        ("close_connections_on_host_health_failure: true", PoolOptions(close_on_health_failure=True)),
        ("upstream_connection_options: {set_local_interface_name_on_upstream_connections: true}", PoolOptions()),
    ],
)
def test_pools(text, expected):
    assert made(text).pool == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", BindOptions()),
        ("freebind: true", BindOptions(freebind=True)),
        (FIRST, BindOptions((SourceAddress(V4),))),
        (MARKED, BindOptions((SourceAddress(None, (MARK,)),))),
        (f"{FIRST}, freebind: true, {MARKED}", BindOptions((SourceAddress(V4, (MARK,)),), freebind=True)),
        (
            f"{FIRST}, extra_source_addresses: [{{address: {SECOND}}}]",
            BindOptions((SourceAddress(V4), SourceAddress(V6))),
        ),
        (
            f"{FIRST}, {MARKED}, extra_source_addresses: [{{address: {SECOND}}}]",
            BindOptions((SourceAddress(V4, (MARK,)), SourceAddress(V6, (MARK,)))),
        ),
        (
            f"{FIRST}, extra_source_addresses: [{{address: {SECOND}, socket_options: {{{MARKED}}}}}]",
            BindOptions((SourceAddress(V4), SourceAddress(V6, (MARK,)))),
        ),
        (
            f"{FIRST}, additional_source_addresses: [{SECOND}]",
            BindOptions((SourceAddress(V4), SourceAddress(V6))),
        ),
    ],
)
def test_sources(text, expected):
    assert made(f"upstream_bind_config: {{{text}}}").pool.bind == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"extra_source_addresses: [{{address: {SECOND}}}]", "an extra source address needs a source_address"),
        (
            f"{FIRST}, extra_source_addresses: [{{address: {SECOND}}}, {{address: {SECOND}}}]",
            "there can be one extra source address only",
        ),
        (
            f"{FIRST}, extra_source_addresses: [{{address: {{address: 10.0.0.2, port_value: 0}}}}]",
            "the extra source address must be of the other IP version",
        ),
    ],
)
def test_sources_that_envoy_refuses(text, message):
    outcome = built(build_cluster, CLUSTER, f"{{name: c, upstream_bind_config: {{{text}}}}}")
    assert [error.rpartition(": ")[2] for error in outcome.errors] == [message]
