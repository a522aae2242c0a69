"""How a cluster makes and keeps its connections: fields of ``Cluster`` and of ``HttpProtocolOptions``."""

from __future__ import annotations

import ipaddress
from dataclasses import field

from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import AddressConfig, build_socket_address
from forkproxy.config.build.listener import build_socket_option
from forkproxy.config.values import frozen
from forkproxy.config.view import View

default_idle_timeout_s = 3600.0


@frozen
class HttpOptions:
    """``core.v3.HttpProtocolOptions`` of the upstream side; None: no limit, and of headers Envoy's default."""

    idle_timeout_s: float | None = default_idle_timeout_s
    max_connection_duration_s: float | None = None
    max_stream_duration_s: float | None = None
    max_requests_per_connection: int = 0
    max_headers_count: int = 100
    max_response_headers_kb: int | None = None


@frozen
class SourceAddress:
    """An address to connect from, and the socket options that go with it: (level, name, value) each, and the state."""

    address: AddressConfig | None = None
    socket_options: tuple[tuple[int, int, bytes, str], ...] = ()


@frozen
class BindOptions:
    """``core.v3.BindConfig``: the sources, the first one for a family that none has. Empty: whatever the kernel takes."""

    sources: tuple[SourceAddress, ...] = ()
    freebind: bool = False


@frozen
class PoolOptions:
    """``preconnect_ratio``: connections per request under way or waiting, of each endpoint; ``predictive_ratio``: of the whole
    cluster, made to the endpoints that will be picked next. ``per_downstream``: a downstream
    connection shares its upstream connections with no other one. ``close_on_health_failure``: TCP sessions end with the health
    of their endpoint.
    """

    http: HttpOptions = field(default_factory=HttpOptions)
    preconnect_ratio: float = 1.0
    predictive_ratio: float = 1.0
    per_downstream: bool = False
    close_on_health_failure: bool = False
    bind: BindOptions = field(default_factory=BindOptions)


def build_http_options(view: View | None) -> HttpOptions:
    """``HttpProtocolOptions`` of the upstream side. A duration of 0 is no limit."""
    if view is None:
        return HttpOptions()
    view.ignore("headers_with_underscores_action", why="it concerns requests from downstream")
    return HttpOptions(
        idle_timeout_s=view.duration_s("idle_timeout", default_idle_timeout_s) or None,
        max_connection_duration_s=view.duration_s("max_connection_duration") or None,
        max_stream_duration_s=view.duration_s("max_stream_duration") or None,
        max_requests_per_connection=view.uint("max_requests_per_connection"),
        max_headers_count=view.uint("max_headers_count", 100),
        max_response_headers_kb=view.uint("max_response_headers_kb", None),
    )


def _source(view: View, context: BuildContext) -> SourceAddress:
    """``ExtraSourceAddress``."""
    options = view.message("socket_options")
    return SourceAddress(
        build_socket_address(view.require("address"), context),
        context.each(options.repeated("socket_options"), build_socket_option) if options is not None else (),
    )


def build_bind_options(view: View | None, context: BuildContext) -> BindOptions:
    """``BindConfig``; selectors of other kinds than Envoy's default stay unread."""
    if view is None:
        return BindOptions()
    first = view.message("source_address")
    options = context.each(view.repeated("socket_options"), build_socket_option)
    sources = [SourceAddress(build_socket_address(first, context) if first is not None else None, options)]
    # Options of its own replace those of all.
    extras = context.each(view.repeated("extra_source_addresses"), _source)
    sources += [extra if extra.socket_options else SourceAddress(extra.address, options) for extra in extras]
    older = context.each(view.repeated("additional_source_addresses"), build_socket_address)
    sources += [SourceAddress(address, options) for address in older]
    if len(sources) > 1 and first is None:
        view.report("an extra source address needs a source_address", field="source_address")
    elif len(sources) > 2:
        view.report("there can be one extra source address only", field="extra_source_addresses")
    elif len({_version(source.address) for source in sources}) < len(sources):
        view.report("the extra source address must be of the other IP version", field="extra_source_addresses")
    return BindOptions(tuple(sources) if first is not None or options else (), view.bool("freebind"))


def _version(address: AddressConfig | None) -> int:
    try:
        return ipaddress.ip_address(address.host if address is not None else "").version
    except ValueError:
        return 0


def build_pool_options(view: View, context: BuildContext, http: HttpOptions) -> PoolOptions:
    """The fields of ``Cluster``; ``http``: what its protocol options say."""
    preconnect = view.message("preconnect_policy")
    ratio = predictive = 1.0
    if preconnect is not None:
        ratio = preconnect.float("per_upstream_preconnect_ratio", 1.0)
        predictive = preconnect.float("predictive_preconnect_ratio", 1.0)
    connection = view.message("upstream_connection_options")
    if connection is not None:
        connection.ignore(
            "set_local_interface_name_on_upstream_connections", why="nothing shows the name of the interface"
        )
    bind = view.message("upstream_bind_config")
    return PoolOptions(
        http=http,
        preconnect_ratio=ratio,
        predictive_ratio=predictive,
        per_downstream=view.bool("connection_pool_per_downstream_connection"),
        close_on_health_failure=view.bool("close_connections_on_host_health_failure"),
        bind=build_bind_options(bind, context) if bind is not None else context.bind_options or BindOptions(),
    )


DEFAULT_POOL_OPTIONS = PoolOptions()
