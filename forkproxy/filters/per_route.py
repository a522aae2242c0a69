"""What routes say about filters (``typed_per_filter_config``), resolved once, when a connection manager is made.

Each level (weighted cluster, route, virtual host, route configuration) may configure a filter, switch it off, or switch on
one that the chain has ``disabled``. Configuration and switch are looked for apart, and the most specific level that says
something wins. A filter that no level switches has no test in its hooks; one that is off everywhere is not made at all.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence

from forkproxy.config.build.context import PerFilterConfig
from forkproxy.config.build.listener import FilterEntry
from forkproxy.config.build.route import ForwardAction, RouteTableConfig
from forkproxy.config.problems import ConfigError
from forkproxy.filters.factory import bug
from forkproxy.http.filter import HttpFilter
from forkproxy.router.table import FilterLevel, Route

Switches = Mapping[int, tuple[str, bool]]


def used_filters(entries: Sequence[FilterEntry], table: RouteTableConfig) -> tuple[list[FilterEntry], Switches]:
    """The filters that some request passes, and the switches of those that not all pass (HttpFilterChain tells their form).

    ConfigError when the chain's last filter is disabled: a request would end nowhere.
    """
    on: set[str] = set()
    off: set[str] = set()
    for level in _levels(table):
        for name, said in level.items():
            (off if said.disabled else on).add(name)
    last = entries[-1] if entries else None
    if last is not None and (last.disabled or last.name in off):
        where = last.where
        message = f'the last (terminal) filter "{last.name}" in the chain cannot be disabled'
        raise ConfigError(where.path, where.line, where.column, message)
    used = [entry for entry in entries if not entry.disabled or entry.name in on]
    switched = [entry.disabled or entry.name in off for entry in used]
    return used, {place: (entry.name, entry.disabled) for place, entry in enumerate(used) if switched[place]}


def _levels(table: RouteTableConfig) -> Iterable[FilterLevel]:
    yield table.per_filter_config
    for virtual_host in table.virtual_hosts:
        yield virtual_host.per_filter_config
        for entry in virtual_host.routes:
            yield entry.per_filter_config
            if isinstance(entry.action, ForwardAction):
                for weighted in entry.action.weighted_clusters:
                    yield weighted.per_filter_config


def resolve(routes: Iterable[Route], entries: Sequence[FilterEntry], filters: Sequence[HttpFilter]) -> None:
    """Give each route what each filter needs there, and whether it is on. ``entries``: those that ``filters`` were made of.

    ConfigError also for whatever a third party's ``route_config`` raises.
    """
    pairs = list(zip(entries, filters, strict=True))
    for each in filters:
        pairs += getattr(each, "upstream_filters", ())  # the router's own
    askers = [(entry, each) for entry, each in pairs if type(each).route_config is not HttpFilter.route_config]
    for route in routes:
        if not route.filter_levels and not askers:
            continue
        said: dict[str, list[PerFilterConfig]] = {}
        for level in route.filter_levels:
            for name, config in level.items():
                said.setdefault(name, []).append(config)
        configs = {name: [each.config for each in levels if each.config is not None] for name, levels in said.items()}
        found = {name: found[0] for name, found in configs.items() if found}
        for entry, asker in askers:
            made = _ask(asker, entry, configs.get(entry.name, []), route)
            found.pop(entry.name, None)
            if made is not None:
                found[entry.name] = made
        if found:
            route.per_filter_config = found
        if said:
            route.filters_disabled = {name: levels[0].disabled for name, levels in said.items()}


def resolve_apart(
    routes: Iterable[Route], entries: Sequence[FilterEntry], filters: Sequence[HttpFilter]
) -> dict[Route, Route]:
    """The same for a chain beside the connection manager's: on copies of the routes that say something about filters."""
    copies = {route: copy.copy(route) for route in routes if route.filter_levels or route.per_filter_config}
    for route in copies.values():
        route.per_filter_config = {}
        route.filters_disabled = {}
    resolve(copies.values(), entries, filters)
    return copies


def _ask(asker: HttpFilter, entry: FilterEntry, configs: list[object], route: Route) -> object:
    try:
        return asker.route_config(configs, route)
    except ConfigError:
        raise
    except Exception as error:
        raise bug(entry, "cannot use what a route says about it", error) from error
