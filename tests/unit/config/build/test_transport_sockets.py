"""PROXY protocol before a transport socket, and transport sockets by metadata."""

from __future__ import annotations

import pytest

from forkproxy.config.build.cluster import build_cluster
from forkproxy.config.build.load_balancing import criteria
from forkproxy.config.build.transport_sockets import ProxyProtocol, SocketMatch, UpstreamSocket
from tests.unit.config.build.building import TYPE, built, value_of

CLUSTER = "envoy.config.cluster.v3.Cluster"
SOCKETS = TYPE + "envoy.extensions.transport_sockets."
RAW = f"{{name: raw, typed_config: {{'@type': {SOCKETS}raw_buffer.v3.RawBuffer}}}}"
TLS = f"{{name: tls, typed_config: {{'@type': {SOCKETS}tls.v3.UpstreamTlsContext, sni: s}}}}"


def proxied(config, inner=RAW, more=""):
    kind = f"{SOCKETS}proxy_protocol.v3.ProxyProtocolUpstreamTransport"
    return f"{{name: p, typed_config: {{'@type': {kind}, config: {{{config}}}, transport_socket: {inner}{more}}}}}"


def made(rest):
    return value_of(build_cluster, CLUSTER, f"{{name: c, {rest}}}")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("", ProxyProtocol(1)),
        ("version: V1", ProxyProtocol(1)),
        ("version: V2", ProxyProtocol(2)),
        ("version: V2, added_tlvs: [{type: 240, value: aGk=}]", ProxyProtocol(2, ((240, b"hi"),))),
        ("version: V2, pass_through_tlvs: {match_type: INCLUDE_ALL}", ProxyProtocol(2)),
    ],
)
def test_proxy_protocol(config, expected):
    cluster = made(f"transport_socket: {proxied(config)}")
    assert (cluster.tls, cluster.proxy_protocol) == (None, expected)
    cluster = made(f"transport_socket: {proxied(config, TLS)}")
    assert (cluster.tls.sni, cluster.proxy_protocol) == ("s", expected)


def test_other_sockets_have_no_header():
    assert made(f"transport_socket: {RAW}").proxy_protocol is None
    assert made(f"transport_socket: {TLS}").proxy_protocol is None
    assert made("type: STATIC").proxy_protocol is None


@pytest.mark.parametrize(
    ("config", "more", "path"),
    [
        (
            "version: V2, added_tlvs: [{type: 1, format_string: {text_format: x}}]",
            "",
            "config.added_tlvs[0].format_string",
        ),
        ("", ", tlv_as_pool_key: true", "tlv_as_pool_key"),
    ],
)
def test_what_is_not_there_stays_unread(config, more, path):
    outcome = built(build_cluster, CLUSTER, f"{{name: c, transport_socket: {proxied(config, more=more)}}}")
    found = outcome.unread + [each.partition(": ")[0] for each in outcome.unsupported]
    assert any(path in each for each in found), outcome


def test_matches():
    entries = f"{{name: a, match: {{a: b, c: 1}}, transport_socket: {proxied('')}}}, {{name: rest, match: {{}}}}"
    found = made(f"transport_socket_matches: [{entries}]").socket_matches
    assert found == (
        SocketMatch("a", criteria({"a": "b", "c": 1}), UpstreamSocket(None, ProxyProtocol())),
        SocketMatch("rest", (), UpstreamSocket()),
    )


def test_metadata_that_chooses():
    own = "{filter_metadata: {envoy.transport_socket_match: {a: b}, envoy.lb: {c: 1}}}"
    far = "{filter_metadata: {envoy.transport_socket_match: {d: e}}}"
    address = "{socket_address: {address: 192.0.2.1, port_value: 1}}"
    endpoints = f"[{{lb_endpoints: [{{metadata: {own}, endpoint: {{address: {address}}}}}], metadata: {far}}}]"
    (locality,) = made(f"load_assignment: {{cluster_name: c, endpoints: {endpoints}}}").localities
    assert (locality.match_metadata, locality.endpoints[0].match_metadata) == ('{"d":"e"}', '{"a":"b"}')
    assert locality.endpoints[0].metadata == '{"c":1}'
