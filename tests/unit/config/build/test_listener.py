"""Listeners and their filter chains."""

from __future__ import annotations

import struct

import pytest

from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import AddressConfig
from forkproxy.config.build.listener import FilterChainMatch, build_listener
from forkproxy.config.view import unread
from tests.unit.config.build.building import TYPE, built, value_of, view_of

LISTENER = "envoy.config.listener.v3.Listener"
ECHO = f"{{name: echo, typed_config: {{'@type': {TYPE}envoy.extensions.filters.network.echo.v3.Echo}}}}"


def text(rest="", address="{socket_address: {address: 127.0.0.1, port_value: 80}}", chain=""):
    tail = f", {rest}" if rest else ""
    return f"{{address: {address}, filter_chains: [{{filters: [{ECHO}]{', ' + chain if chain else ''}}}]{tail}}}"


def made(rest="", **more):
    return value_of(build_listener, LISTENER, text(rest, **more))


def test_defaults():
    listener = made()
    assert listener.name == "127.0.0.1:80"
    assert listener.stat_prefix == "127.0.0.1_80"
    assert listener.addresses == (AddressConfig("127.0.0.1", 80),)
    assert listener.per_connection_buffer_limit_bytes == 1 << 20
    assert listener.tcp_backlog_size == 65_535  # the kernel reduces it to net.core.somaxconn
    assert (listener.freebind, listener.transparent, listener.ignore_global_conn_limit) == (False, False, False)
    assert listener.max_connections_to_accept_per_socket_event == 0
    assert listener.default_filter_chain is None
    (chain,) = listener.filter_chains
    assert (chain.name, chain.match, chain.tls) == ("", FilterChainMatch(), None)
    assert chain.transport_socket_connect_timeout_s is None
    assert [entry.type_url for entry in chain.filters] == ["envoy.extensions.filters.network.echo.v3.Echo"]


@pytest.mark.parametrize(
    ("rest", "name", "value"),
    [
        ("name: x", "name", "x"),
        ("stat_prefix: 'a:b'", "stat_prefix", "a_b"),
        ("per_connection_buffer_limit_bytes: 9", "per_connection_buffer_limit_bytes", 9),
        ("tcp_backlog_size: 9", "tcp_backlog_size", 9),
        ("freebind: true", "freebind", True),
        ("transparent: true", "transparent", True),
        ("max_connections_to_accept_per_socket_event: 3", "max_connections_to_accept_per_socket_event", 3),
    ],
)
def test_settings(rest, name, value):
    assert getattr(made(rest), name) == value


def test_addresses_and_prefixes():
    listener = made("additional_addresses: [{address: {pipe: {path: /x}}}]")
    assert listener.addresses[1] == AddressConfig(pipe_path="/x")
    six = made(address="{socket_address: {address: '::1', port_value: 80}}")
    assert (six.name, six.stat_prefix) == ("[::1]:80", "[__1]_80")


def test_filter_chain_match():
    match = made(
        chain="""name: c, filter_chain_match: {destination_port: 0x50,
        prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}], source_type: EXTERNAL,
        source_prefix_ranges: [{address_prefix: '::1', prefix_len: 128}], source_ports: [1, 2],
        direct_source_prefix_ranges: [{address_prefix: 10.0.0.1, prefix_len: 32}]}"""
    ).filter_chains[0]
    assert match.name == "c"
    assert match.match == FilterChainMatch(
        destination_port=80,
        prefix_ranges=("10.0.0.0/8",),
        source_prefix_ranges=("::1/128",),
        direct_source_prefix_ranges=("10.0.0.1/32",),
        source_ports=(1, 2),
        source_type="EXTERNAL",
    )


def test_default_filter_chain():
    assert made(f"default_filter_chain: {{filters: [{ECHO}]}}").default_filter_chain.filters[0].name == "echo"


def test_socket_options():
    listener = made(
        "socket_options: [{level: 1, name: 9, int_value: 1, state: STATE_LISTENING},"
        " {level: 6, name: 2, buf_value: AQI=, description: x}]"
    )
    assert listener.socket_options == (
        (1, 9, struct.pack("=i", 1), "STATE_LISTENING"),
        (6, 2, b"\1\2", "STATE_PREBIND"),
    )


def test_raw_buffer_is_no_tls():
    raw = f"{{name: raw, typed_config: {{'@type': {TYPE}envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}}}"
    assert made(chain=f"transport_socket: {raw}").filter_chains[0].tls is None


def test_python_filters():
    struct_config = f"{{'@type': {TYPE}google.protobuf.Struct, value: {{a: [1]}}}}"
    listener = value_of(
        build_listener,
        LISTENER,
        "{address: {pipe: {path: x}}, filter_chains: [{filters: [{name: 'my.mod:Class', typed_config: "
        f"{struct_config}}}, {{name: 'm:C'}}, {ECHO}]}}]}}",
    )
    first, second, _ = listener.filter_chains[0].filters
    assert (first.name, first.type_url, first.config) == ("my.mod:Class", "", {"a": [1]})
    assert (second.name, second.config) == ("m:C", {})


@pytest.mark.parametrize(
    "rest",
    [
        "enable_reuse_port: false",
        "ignore_global_conn_limit: true",
        "listener_filters_timeout: 1s, continue_on_listener_filters_timeout: true",
        "use_original_dst: false, bind_to_port: true",
    ],
)
def test_what_makes_no_difference(rest):
    assert made(rest).name


def test_traffic_direction():
    assert made("traffic_direction: INBOUND").traffic_direction == "INBOUND"
    assert made("enable_reuse_port: false").traffic_direction == "UNSPECIFIED"


def test_exact_balance():
    assert made("connection_balance_config: {exact_balance: {}}").exact_balance
    assert not made("enable_reuse_port: false").exact_balance
    hardware = f"{{name: dlb, typed_config: {{'@type': {TYPE}google.protobuf.Struct}}}}"
    outcome = built(build_listener, LISTENER, text(f"connection_balance_config: {{extend_balance: {hardware}}}"))
    assert outcome.unread == ["connection_balance_config.extend_balance"]


def test_what_is_not_there():
    outcome = built(build_listener, LISTENER, text("use_original_dst: true, bind_to_port: false, enable_mptcp: true"))
    assert outcome.unread == ["enable_mptcp"]
    assert [each.partition(":")[0] for each in outcome.unsupported] == ["use_original_dst", "bind_to_port"]
    inspector = (
        f"{{name: i, typed_config: {{'@type': {TYPE}envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}}}"
    )
    outcome = built(build_listener, LISTENER, text(f"listener_filters: [{inspector}], listener_filters_timeout: 1s"))
    assert outcome.unread == ["listener_filters_timeout"]
    assert outcome.unsupported == ['listener_filters[0].typed_config: the listener filter "i" is not implemented']


def test_a_condition_that_is_not_looked_at_is_a_door():
    """A chain that is chosen by SNI or by protocol would otherwise take every connection."""
    match = "{server_names: [a], transport_protocol: tls, application_protocols: [h2]}"
    view = view_of(text(chain=f"filter_chain_match: {match}"), LISTENER)
    build_listener(view, BuildContext())
    problems = unread(view)
    assert [problem.path.rpartition(".")[2] for problem in problems] == [
        "server_names",
        "transport_protocol",
        "application_protocols",
    ]
    assert all(problem.opens_door for problem in problems)


def test_python_listener_filters_are_refused():
    outcome = built(build_listener, LISTENER, text("listener_filters: [{name: 'my.mod:Class'}]"))
    assert outcome.unsupported == ['listener_filters[0].name: the listener filter "my.mod:Class" is not implemented']


def test_a_listener_without_a_socket_is_one_problem():
    outcome = built(
        build_listener, LISTENER, f"{{name: x, internal_listener: {{}}, filter_chains: [{{filters: [{ECHO}]}}]}}"
    )
    assert outcome.value is None
    assert outcome.unsupported == ["internal_listener: a listener without a socket of its own is not implemented"]
    assert outcome.unread == []
