"""``config.listener.v3.Listener`` → ListenerConfig."""

from __future__ import annotations

import struct
from dataclasses import field
from functools import partial
from typing import Any

from forkproxy.config.build.access_log import AccessLogConfig, build_access_logs
from forkproxy.config.build.context import BuildContext, is_third_party, third_party_config
from forkproxy.config.build.core import AddressConfig, Where, build_address, build_cidr_range, build_where
from forkproxy.config.build.metadata import NO_METADATA, build_filter_metadata
from forkproxy.config.build.overload import build_listener_limit
from forkproxy.config.build.tls import DownstreamTlsConfig
from forkproxy.config.values import frozen
from forkproxy.config.view import View

max_backlog = 65_535
ORIGINAL_DST = "envoy.extensions.filters.listener.original_dst.v3.OriginalDst"
"""What ``listen`` is given when the file says nothing: the kernel reduces it to net.core.somaxconn, Envoy's default."""


@frozen
class FilterEntry:
    """One filter as configured: a network filter of a chain or an HTTP filter of a connection manager.

    ``type_url`` is the message's full name without the "type.googleapis.com/" part; for a third party's class it is "" and
    ``name`` is "module:Class". ``config`` is the value that the extension's builder made, a plain dict for third parties.
    """

    name: str
    type_url: str
    config: object
    where: Where
    disabled: bool = False


@frozen
class FilterChainMatch:
    """``FilterChainMatch``; CIDR ranges as "address/len" text; ``transport_protocol`` "" | "raw_buffer" | "tls"."""

    destination_port: int | None = None
    prefix_ranges: tuple[str, ...] = ()
    source_prefix_ranges: tuple[str, ...] = ()
    direct_source_prefix_ranges: tuple[str, ...] = ()
    source_ports: tuple[int, ...] = ()
    source_type: str = "ANY"
    server_names: tuple[str, ...] = ()
    transport_protocol: str = ""
    application_protocols: tuple[str, ...] = ()


@frozen
class FilterChain:
    """``FilterChain``. ``tls`` None means raw TCP."""

    name: str
    match: FilterChainMatch
    filters: tuple[FilterEntry, ...]
    tls: DownstreamTlsConfig | None
    transport_socket_connect_timeout_s: float | None
    where: Where
    metadata: dict[str, Any] = field(default_factory=lambda: NO_METADATA)
    """By namespace, for formats."""


@frozen
class ListenerConfig:
    """``Listener``. ``addresses``: the main address, then the additional ones. ``stat_prefix``: Envoy's, e.g. "0.0.0.0_10000"."""

    name: str
    addresses: tuple[AddressConfig, ...]
    stat_prefix: str
    filter_chains: tuple[FilterChain, ...]
    default_filter_chain: FilterChain | None
    original_dst: bool
    """The listener filter of that name: where the client wanted to go before the kernel redirected it here is restored."""
    per_connection_buffer_limit_bytes: int
    access_logs: tuple[AccessLogConfig, ...]
    tcp_backlog_size: int
    freebind: bool
    transparent: bool
    ignore_global_conn_limit: bool
    max_connections_to_accept_per_socket_event: int
    socket_options: tuple[tuple[int, int, bytes, str], ...]
    """(level, name, value, state): state "STATE_PREBIND", "STATE_BOUND" or "STATE_LISTENING"."""
    where: Where
    exact_balance: bool = False
    """``connection_balance_config.exact_balance``: every connection goes to the worker that has the fewest."""
    traffic_direction: str = "UNSPECIFIED"
    """Or "INBOUND", "OUTBOUND": which ones /drain_listeners?inboundonly means."""
    bypass_overload_manager: bool = False
    connection_limit: int | None = None
    """So many connections at a time, by the runtime key envoy.resource_limits.listener.NAME.connection_limit."""
    metadata: dict[str, Any] = field(default_factory=lambda: NO_METADATA)
    """By namespace, for formats."""


def build_filter_entry(
    view: View, context: BuildContext, category: str, *, disabled: bool = False
) -> FilterEntry | None:
    """``Filter``, ``ListenerFilter`` or ``HttpFilter``; None when forkproxy does not have it, which is then reported.

    A third party's filter is named "module:Class"; its configuration is a Struct (or nothing) and becomes a dict.
    """
    name = view.str("name")
    if is_third_party(name):
        return FilterEntry(name, "", third_party_config(view), build_where(view), disabled)
    made = context.extension(view, category)
    if made is None:
        return None
    return FilterEntry(name, made.type_url, made.value, build_where(view), disabled)


def build_network_filters(views: list[View], context: BuildContext) -> tuple[FilterEntry, ...]:
    """``repeated Filter``; filter configuration discovery stays unread."""
    entries = context.each(views, partial(build_filter_entry, category="network filter"))
    return tuple(entry for entry in entries if entry is not None)


def build_filter_chain_match(view: View | None, context: BuildContext) -> FilterChainMatch:
    """``FilterChainMatch``. What needs a TLS inspector (server names, protocols) stays unread, for there is none yet."""
    if view is None:
        return FilterChainMatch()
    return FilterChainMatch(
        destination_port=view.uint("destination_port") if view.has("destination_port") else None,
        prefix_ranges=context.each(view.repeated("prefix_ranges"), build_cidr_range),
        source_prefix_ranges=context.each(view.repeated("source_prefix_ranges"), build_cidr_range),
        direct_source_prefix_ranges=context.each(view.repeated("direct_source_prefix_ranges"), build_cidr_range),
        source_ports=view.uints("source_ports"),
        source_type=view.enum("source_type", supported=("ANY", "SAME_IP_OR_LOOPBACK", "EXTERNAL")),
    )


def build_filter_chain(view: View, context: BuildContext) -> FilterChain:
    """``FilterChain``. The transport socket is TLS or raw; another kind is reported as not implemented."""
    view.only_default("use_proxy_proto")
    tls: DownstreamTlsConfig | None = None
    socket = view.message("transport_socket")
    if socket is not None:
        made = context.extension(socket, "transport socket")
        if made is not None:
            tls = made.value
    return FilterChain(
        name=view.str("name"),
        match=build_filter_chain_match(view.message("filter_chain_match"), context),
        filters=build_network_filters(view.repeated("filters"), context),
        tls=tls,
        transport_socket_connect_timeout_s=view.duration_s("transport_socket_connect_timeout") or None,
        where=build_where(view),
        metadata=build_filter_metadata(view.message("metadata")),
    )


def build_socket_option(view: View, context: BuildContext) -> tuple[int, int, bytes, str]:
    """``SocketOption`` as (level, name, value, state); an integer becomes a C int."""
    view.ignore("description", why="a comment")
    if view.which("value") == "buf_value":
        value = view.bytes("buf_value")
    else:
        value = struct.pack("=i", view.int("int_value"))
    return view.int("level"), view.int("name"), value, view.enum("state")


def _restores_destination(view: View, context: BuildContext) -> bool:
    """Whether this is ``envoy.filters.listener.original_dst``; the other listener filters are reported by their names."""
    name = view.str("name")
    typed = view.any("typed_config")
    if typed is not None and typed.type_name == ORIGINAL_DST:
        context.typed(typed, f'the listener filter "{name}"')
        return True
    text = f'the listener filter "{name}" is not implemented'
    if typed is not None and typed.type_name:
        typed.unsupported(text)
    else:
        view.unsupported(text, field="name")
    return False


def _is_balanced_exactly(view: View | None) -> bool:
    """``ConnectionBalanceConfig``; ``extend_balance`` (hardware, Intel DLB) stays unread."""
    return view is not None and view.message("exact_balance") is not None


def build_listener(view: View, context: BuildContext) -> ListenerConfig | None:
    """``Listener``, TCP. UDP, internal and API listeners, original destination and filter chain matchers stay unread."""
    view.ignore("enable_reuse_port", why="every worker has its own SO_REUSEPORT socket")
    view.ignore("reuse_port", why="every worker has its own SO_REUSEPORT socket")
    view.only_default("use_original_dst", "tcp_fast_open_queue_length")
    if not view.bool("bind_to_port", True):
        view.unsupported("a listener that does not bind its port is not implemented", field="bind_to_port")
    address_view = view.message("address")
    if address_view is None or view.has("internal_listener") or view.has("api_listener"):
        kind = "api_listener" if view.has("api_listener") else "internal_listener"
        view.unsupported("a listener without a socket of its own is not implemented", field=kind)
        view.ignore_all(why="reported as a whole")
        return None
    addresses = [build_address(address_view, context)]
    socket_options = list(context.each(view.repeated("socket_options"), build_socket_option))
    addresses += [
        build_address(additional.require("address"), context) for additional in view.repeated("additional_addresses")
    ]
    stat_prefix = (view.str("stat_prefix") or str(addresses[0])).replace(":", "_")
    default_chain = view.message("default_filter_chain")
    restored = [_restores_destination(each, context) for each in view.repeated("listener_filters")]
    if all(restored):
        view.ignore("listener_filters_timeout", why="there are no listener filters to wait for")
        view.ignore("continue_on_listener_filters_timeout", why="there are no listener filters to wait for")
    return ListenerConfig(
        name=view.str("name") or str(addresses[0]),
        addresses=tuple(addresses),
        stat_prefix=stat_prefix,
        filter_chains=context.each(view.repeated("filter_chains"), build_filter_chain),
        default_filter_chain=build_filter_chain(default_chain, context) if default_chain is not None else None,
        original_dst=any(restored),
        per_connection_buffer_limit_bytes=view.uint("per_connection_buffer_limit_bytes", 1 << 20),
        access_logs=build_access_logs(view.repeated("access_log"), context),
        tcp_backlog_size=view.uint("tcp_backlog_size", max_backlog),
        freebind=view.bool("freebind"),
        transparent=view.bool("transparent"),
        ignore_global_conn_limit=view.bool("ignore_global_conn_limit"),
        bypass_overload_manager=view.bool("bypass_overload_manager"),
        max_connections_to_accept_per_socket_event=view.uint("max_connections_to_accept_per_socket_event"),
        socket_options=tuple(socket_options),
        where=build_where(view),
        exact_balance=_is_balanced_exactly(view.message("connection_balance_config")),
        traffic_direction=view.enum("traffic_direction"),
        connection_limit=build_listener_limit(view.str("name"), context),
        metadata=build_filter_metadata(view.message("metadata")),
    )
