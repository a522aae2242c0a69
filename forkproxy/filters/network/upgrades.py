"""The ``upgrade_configs`` of a connection manager and its routes, made ready to run."""

from __future__ import annotations

from functools import partial

from forkproxy.config.build.http_connection_manager import HttpConnectionManagerConfig
from forkproxy.filters import factory, per_route
from forkproxy.filters.context import FilterContext
from forkproxy.filters.http import tunnel
from forkproxy.http.chain import HttpFilterChain
from forkproxy.http.filter import HttpFilter
from forkproxy.http.header_case import match_upstream_scheme
from forkproxy.http.upgrades import Upgrades, UpgradeType
from forkproxy.router.table import Route, RouteTable


def build_upgrades(
    config: HttpConnectionManagerConfig, context: FilterContext, routes: RouteTable
) -> tuple[Upgrades, list[HttpFilter]]:
    """With the filters of the chains that some types have of their own. ConfigError as for any chain."""
    types: dict[bytes, UpgradeType] = {}
    made: list[HttpFilter] = []
    context.router_class = context.router_class or "policies"  # whose filters may direct it is not asked again
    for upgrade in config.upgrades:
        chain: HttpFilterChain | None = None
        copies: dict[Route, Route] = {}
        if upgrade.filters:
            used, switches = per_route.used_filters(upgrade.filters, config.route_table)
            filters = factory.http_filters(used, context)
            copies = per_route.resolve_apart(routes.all_routes(), used, filters)
            chain = HttpFilterChain(filters, switches)
            if config.match_upstream_scheme:
                chain.on_stream_complete += (match_upstream_scheme,)
            made += filters
        types[upgrade.upgrade_type.lower().encode()] = UpgradeType(upgrade.enabled, chain, copies)
    for route in routes.all_routes():
        if route.connect is not None and route.connect.allow_post:
            route.tunnel = tunnel.begin
    return Upgrades(types, routes.match_connect, partial(Route.as_tunnel, tunnel=tunnel.begin)), made
