"""Requests that are counted together: those of a virtual cluster, and those of a route with a ``stat_prefix``.

``attach`` is called once per route table, when it is built. Routes that count nowhere else than with their cluster are left
as they are; the others get ``Route.count``, which the router calls, and are plain no more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from forkproxy.router.matcher import StreamTest, compile_header_matcher
from forkproxy.stats.counters import Registry
from forkproxy.stats.groups import RequestsStats

if TYPE_CHECKING:
    from forkproxy.http.stream import Stream
    from forkproxy.http.tally import Tally
    from forkproxy.router.table import RouteTable, VirtualHost

OTHER = "other"
"""What counts the requests that no virtual cluster takes, where a virtual host has any. No request is said to be of it."""

Entry = tuple[StreamTest, bytes, RequestsStats]
Count = Callable[["Stream", "Tally"], None]


def attach(table: RouteTable, registry: Registry, zone: str) -> None:
    """Let the routes of the table count where the configuration says. ``zone``: this node's, or ""."""
    for virtual_host in table.virtual_hosts:
        clusters = _virtual_clusters(virtual_host, registry)
        for route in virtual_host.routes:
            prefix = route.config.stat_prefix if route.config is not None else ""
            if not (clusters or prefix or zone):
                continue
            name = f"vhost.{virtual_host.name}.route.{prefix}"
            own = (registry.group(RequestsStats, name),) if prefix else ()
            count = _compile(clusters, own, zone)
            for each in route.weighted or (route,):
                each.count = count
                each.is_plain = False


def _virtual_clusters(virtual_host: VirtualHost, registry: Registry) -> list[Entry]:
    configs = virtual_host.config.virtual_clusters
    if not configs:
        return []

    def group(name: str) -> RequestsStats:
        return registry.group(RequestsStats, f"vhost.{virtual_host.name}.vcluster.{name}")

    entries: list[Entry] = []
    for config in configs:
        tests = [compile_header_matcher(matcher, config.where) for matcher in config.headers]
        entries.append((_all(tests), config.name.encode(), group(config.name)))
    return [*entries, (_always, b"", group(OTHER))]


def _all(tests: list[StreamTest]) -> StreamTest:
    return tests[0] if len(tests) == 1 else lambda stream: all(test(stream) for test in tests)


def _always(_stream: Stream) -> bool:
    return True


def _compile(clusters: list[Entry], own: tuple[RequestsStats, ...], zone: str) -> Count:
    def count(stream: Stream, tally: Tally) -> None:
        tally.zone = zone
        for test, name, group in clusters:
            if test(stream):
                tally.virtual_cluster = name
                tally.groups = (group, *own)
                return
        tally.groups = own

    return count
