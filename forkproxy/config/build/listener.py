"""``config.listener.v3.Listener`` → ListenerConfig."""

from __future__ import annotations

from dataclasses import dataclass

from forkproxy.config.build.access_log import AccessLogConfig
from forkproxy.config.build.core import AddressConfig, Where
from forkproxy.config.build.tls import DownstreamTlsConfig


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class FilterChain:
    """``FilterChain``. ``tls`` None means raw TCP."""

    name: str
    match: FilterChainMatch
    filters: tuple[FilterEntry, ...]
    tls: DownstreamTlsConfig | None
    transport_socket_connect_timeout_s: float | None
    where: Where


@dataclass(frozen=True, slots=True)
class ListenerConfig:
    """``Listener``. ``addresses``: the main address, then the additional ones. ``stat_prefix``: Envoy's, e.g. "0.0.0.0_10000"."""

    name: str
    addresses: tuple[AddressConfig, ...]
    stat_prefix: str
    filter_chains: tuple[FilterChain, ...]
    default_filter_chain: FilterChain | None
    listener_filters: tuple[FilterEntry, ...]
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
