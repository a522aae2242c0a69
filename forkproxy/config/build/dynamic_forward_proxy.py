"""The dynamic forward proxy: its DNS cache, its HTTP filter with what routes say about it, its cluster."""

from __future__ import annotations

from forkproxy.config.build.cluster import DnsResolver, build_dns_resolver
from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import Where, build_where
from forkproxy.config.values import frozen
from forkproxy.config.view import View


@frozen
class DnsCacheConfig:
    """``extensions.common.dynamic_forward_proxy.v3.DnsCacheConfig``. All of one name must be the same, as in Envoy.

    ``preresolve``: (host, port) pairs. ``failure_base_s`` None: a failed resolution is repeated at the normal rate.
    """

    name: str
    lookup_family: str
    refresh_rate_s: float = 60.0
    min_refresh_rate_s: float = 5.0
    host_ttl_s: float = 300.0
    max_hosts: int = 1024
    failure_base_s: float | None = None
    failure_max_s: float = 0.0
    max_pending_requests: int = 1024
    query_timeout_s: float = 5.0
    preresolve: tuple[tuple[str, int], ...] = ()
    resolver: DnsResolver = DnsResolver()


@frozen
class DynamicForwardProxyConfig:
    """``extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig``."""

    cache: DnsCacheConfig
    where: Where
    save_upstream_address: bool = False


@frozen
class HostRewrite:
    """``PerRouteConfig``: the host to go to instead of the request's; one of the two, or neither."""

    literal: str = ""
    header: str = ""


@frozen
class DynamicForwardProxyCluster:
    """``extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig``."""

    cache: DnsCacheConfig


def build_dns_cache(view: View, context: BuildContext) -> DnsCacheConfig:
    """``DnsCacheConfig``; a key-value store of addresses, and not to ask again after a failure, stay unread."""
    rate = view.message("dns_failure_refresh_rate")
    base_s = rate.duration_s("base_interval", 0.0) if rate is not None else None
    max_s = rate.duration_s("max_interval", (base_s or 0.0) * 10) if rate is not None else 0.0
    breaker = view.message("dns_cache_circuit_breaker")
    resolver = build_dns_resolver(view, context)
    return DnsCacheConfig(
        name=view.str("name"),
        lookup_family=view.enum("dns_lookup_family"),
        refresh_rate_s=view.duration_s("dns_refresh_rate", 60.0),
        min_refresh_rate_s=view.duration_s("dns_min_refresh_rate", 5.0),
        host_ttl_s=view.duration_s("host_ttl", 300.0),
        max_hosts=view.uint("max_hosts", 1024),
        failure_base_s=base_s,
        failure_max_s=max_s,
        max_pending_requests=breaker.uint("max_pending_requests", 1024) if breaker is not None else 1024,
        query_timeout_s=view.duration_s("dns_query_timeout", 5.0),
        preresolve=tuple(_host_and_port(each) for each in view.repeated("preresolve_hostnames")),
        resolver=resolver or context.dns_resolver or DnsResolver(),
    )


def _host_and_port(view: View) -> tuple[str, int]:
    view.enum("protocol", supported=("TCP",))
    return view.str("address"), view.uint("port_value")


def build_filter(view: View, context: BuildContext) -> DynamicForwardProxyConfig:
    """``FilterConfig``; sub-clusters and a host from filter state stay unread."""
    cache = view.message("dns_cache_config")
    if cache is None:
        raise view.error("needs a dns_cache_config", "sub-clusters are not implemented")
    return DynamicForwardProxyConfig(
        build_dns_cache(cache, context), build_where(view), save_upstream_address=view.bool("save_upstream_address")
    )


def build_per_route(view: View, context: BuildContext) -> HostRewrite:
    """``PerRouteConfig``."""
    return HostRewrite(view.str("host_rewrite_literal"), view.str("host_rewrite_header").lower())


def build_cluster_type(view: View, context: BuildContext) -> DynamicForwardProxyCluster:
    """``ClusterConfig``; sub-clusters stay unread."""
    view.ignore(
        "allow_insecure_cluster_options", why="the host is always the SNI, and where certificates are verified its name"
    )
    view.ignore("allow_coalesced_connections", why="HTTP/1 connections are not shared between hosts")
    cache = view.message("dns_cache_config")
    if cache is None:
        raise view.error("needs a dns_cache_config", "sub-clusters are not implemented")
    return DynamicForwardProxyCluster(build_dns_cache(cache, context))
