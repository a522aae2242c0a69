"""Transport sockets of clusters: PROXY protocol before another one, and which endpoint gets which."""

from __future__ import annotations

import json
from typing import Any

from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.load_balancing import criteria
from forkproxy.config.build.tls import UpstreamTlsConfig
from forkproxy.config.values import frozen
from forkproxy.config.view import View

_MATCHED = "envoy.transport_socket_match"


@frozen
class ProxyProtocol:
    """``core.v3.ProxyProtocolConfig``: ``version`` is 1 or 2, ``tlvs`` what a header of version 2 has besides: (type, value)."""

    version: int = 1
    tlvs: tuple[tuple[int, bytes], ...] = ()


@frozen
class UpstreamSocket:
    """A transport socket of a cluster: TLS or none, and what is sent before it."""

    tls: UpstreamTlsConfig | None = None
    proxy_protocol: ProxyProtocol | None = None


@frozen
class SocketMatch:
    """``Cluster.TransportSocketMatch``. ``wanted``: sorted (key, value as the load balancers compare it) pairs."""

    name: str
    wanted: tuple[tuple[str, object], ...]
    socket: UpstreamSocket


def _tlv(view: View, context: BuildContext) -> tuple[int, bytes]:
    """``TlvEntry``; formats stay unread."""
    return view.uint("type"), view.bytes("value")


def build_upstream_proxy_protocol(view: View, context: BuildContext) -> UpstreamSocket:
    """``ProxyProtocolUpstreamTransport``."""
    view.only_default("tlv_as_pool_key")
    view.ignore("allow_unspecified_address", why="an address that was not specified is never sent")
    config = view.message("config")
    inner = build_socket(view.require("transport_socket"), context)
    header = build_proxy_protocol(config, context) if config is not None else ProxyProtocol()
    return UpstreamSocket(inner.tls, header)


def build_proxy_protocol(view: View, context: BuildContext) -> ProxyProtocol:
    """``core.v3.ProxyProtocolConfig``."""
    view.ignore("pass_through_tlvs", why="no listener reads PROXY headers, so there are none to pass")
    tlvs = context.each(view.repeated("added_tlvs"), _tlv)
    return ProxyProtocol(1 if view.enum("version") == "V1" else 2, tlvs)


def build_socket(view: View | None, context: BuildContext) -> UpstreamSocket:
    """``core.v3.TransportSocket`` of a cluster; none is a raw one."""
    made = context.extension(view, "transport socket") if view is not None else None
    if made is None or made.value is None:
        return UpstreamSocket()
    if isinstance(made.value, UpstreamSocket):
        return made.value
    return UpstreamSocket(made.value)


def _match(view: View, context: BuildContext) -> SocketMatch:
    return SocketMatch(
        view.str("name"), criteria(view.struct("match")), build_socket(view.message("transport_socket"), context)
    )


def build_socket_matches(view: View, context: BuildContext) -> tuple[SocketMatch, ...]:
    """``Cluster.transport_socket_matches``; a ``transport_socket_matcher`` stays unread."""
    return context.each(view.repeated("transport_socket_matches"), _match)


def match_metadata(view: View | None) -> str:
    """What of ``core.v3.Metadata`` chooses the transport socket, as JSON with sorted keys; "" when there is none."""
    if view is None:
        return ""
    view.ignore("typed_filter_metadata", why="Envoy does not read it here")
    found: dict[str, Any] = view.map_("filter_metadata").get(_MATCHED, {})
    return json.dumps(found, sort_keys=True, separators=(",", ":")) if found else ""
