"""Which routes count where, and that the others stay plain."""

from __future__ import annotations

from dataclasses import replace

from forkproxy.config.build.core import HeaderMatcher, StringMatcher
from forkproxy.config.build.route import ForwardAction, WeightedCluster
from forkproxy.config.build.virtual_cluster import VirtualClusterConfig
from forkproxy.http.tally import Tally
from forkproxy.router.virtual_clusters import attach
from forkproxy.stats.counters import Registry
from forkproxy.stats.groups import RequestsStats
from tests.unit.router.fakes import NO_HEADERS, WHERE, FakeStream, direct, entry, table, vhost


def registry():
    made = Registry()
    made.begin_generation()
    return made


def virtual_cluster(name, *headers):
    matchers = tuple(HeaderMatcher(key, "string", StringMatcher("exact", value)) for key, value in headers)
    return VirtualClusterConfig(name, matchers, WHERE)


def counted(route, stream):
    tally = Tally()
    route.count(stream, tally)
    return tally


def test_a_route_without_anything_is_left_alone():
    made = table(vhost(entry()))
    attach(made, registry(), "")
    [route] = made.all_routes()
    assert route.count is None
    assert route.is_plain


def test_the_prefix_of_a_route():
    stats = registry()
    made = table(vhost(replace(entry(), stat_prefix="mine"), entry(value="/x")))
    attach(made, stats, "")
    first, second = made.all_routes()
    assert (first.is_plain, second.is_plain) == (False, True)
    tally = counted(first, FakeStream())
    assert tally.groups == (stats.group(RequestsStats, "vhost.v.route.mine"),)
    assert tally.virtual_cluster == b""


def test_every_cluster_of_a_weighted_route_counts():
    weighted = ForwardAction(
        weighted_clusters=(WeightedCluster("up", 1, NO_HEADERS), WeightedCluster("up2", 1, NO_HEADERS))
    )
    made = table(vhost(replace(entry(action=weighted), stat_prefix="mine")))
    attach(made, registry(), "")
    assert [route.count is not None and not route.is_plain for route in made.all_routes()] == [True, True]


def test_the_first_virtual_cluster_whose_headers_all_match():
    stats = registry()
    clusters = (
        virtual_cluster("both", (":method", "POST"), ("x-a", "1")),
        virtual_cluster("post", (":method", "POST")),
    )
    made = table(replace(vhost(replace(entry(), stat_prefix="mine")), virtual_clusters=clusters))
    attach(made, stats, "")
    [route] = made.all_routes()
    own = stats.group(RequestsStats, "vhost.v.route.mine")

    def group(name):
        return (stats.group(RequestsStats, f"vhost.v.vcluster.{name}"), own)

    found = counted(route, FakeStream(method=b"POST", headers=[(b"x-a", b"1")]))
    assert (found.virtual_cluster, found.groups) == (b"both", group("both"))
    found = counted(route, FakeStream(method=b"POST"))
    assert (found.virtual_cluster, found.groups) == (b"post", group("post"))
    found = counted(route, FakeStream())
    assert (found.virtual_cluster, found.groups) == (b"", group("other"))


def test_the_zone_of_the_node():
    made = table(vhost(entry(), entry(value="/d", action=direct())))
    attach(made, registry(), "here")
    route = next(made.all_routes())
    assert counted(route, FakeStream()).zone == "here"
