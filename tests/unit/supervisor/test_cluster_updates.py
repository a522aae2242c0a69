"""What the supervisor counts of clusters' endpoints."""

from types import SimpleNamespace

import pytest

from forkproxy.stats.counters import Registry
from forkproxy.supervisor.cluster_updates import ClusterUpdates
from forkproxy.upstream.dynamic_cluster import ForwardProxyCluster


def cluster(*addresses, type="EDS", stat_name="c"):
    endpoints = [
        SimpleNamespace(socket_address=(host, port), config=SimpleNamespace(priority=priority[0] if priority else 0))
        for host, port, *priority in addresses
    ]
    return SimpleNamespace(stat_name=stat_name, endpoints=endpoints, config=SimpleNamespace(type=type))


def generation(**clusters):
    return SimpleNamespace(generation=SimpleNamespace(clusters=clusters))


class World:
    def __init__(self):
        self.registry = Registry()
        self.registry.begin_generation()
        self.updates = ClusterUpdates(self.registry)

    def shown(self):
        snapshot = self.registry.read([])
        return {name: value for name, value in {**snapshot.counters, **snapshot.gauges}.items() if value}


@pytest.fixture
def world():
    return World()


def test_a_change_of_the_set_counts_once(world):
    run = generation(c=cluster(("127.0.0.1", 1)))
    world.updates.on_generation(run)
    world.updates.on_membership(run, "c")
    assert world.shown() == {"cluster.c.membership_change": 1}
    run.generation.clusters["c"] = cluster(("127.0.0.1", 2))
    world.updates.on_membership(run, "c")
    assert world.shown() == {"cluster.c.membership_change": 2}


def test_a_host_of_a_forward_proxy_counts_by_its_name(world):
    hosts = ForwardProxyCluster.__new__(ForwardProxyCluster)
    hosts.stat_name = "c"
    run = generation(c=hosts)
    for names in (["a:1"], ["a:1", "b:1"], ["a:1", "b:1"]):
        hosts.endpoints = [
            SimpleNamespace(hostname=name, socket_address=("127.0.0.1", 1), config=SimpleNamespace(priority=0))
            for name in names
        ]
        world.updates.on_membership(run, "c")
    # It is the same one after it has moved.
    hosts.endpoints[0].socket_address = ("127.0.0.2", 1)
    world.updates.on_membership(run, "c")
    assert world.shown() == {"cluster.c.membership_change": 2}


def test_the_set_of_each_priority_counts(world):
    run = generation(c=cluster(("127.0.0.1", 1), ("127.0.0.2", 1, 1), ("127.0.0.3", 1, 2)))
    world.updates.on_generation(run)
    assert world.shown() == {"cluster.c.membership_change": 3}
    run.generation.clusters["c"] = cluster(("127.0.0.1", 1), ("127.0.0.4", 1, 1), ("127.0.0.3", 1, 2))
    world.updates.on_membership(run, "c")
    assert world.shown() == {"cluster.c.membership_change": 4}
    run.generation.clusters["c"] = cluster(("127.0.0.1", 1))
    world.updates.on_membership(run, "c")
    assert world.shown() == {"cluster.c.membership_change": 6}


def test_an_unchanged_cluster_does_not_change_with_the_generation(world):
    world.updates.on_generation(generation(c=cluster(("127.0.0.1", 1))))
    world.updates.on_generation(generation(c=cluster(("127.0.0.1", 1))))
    assert world.shown() == {"cluster.c.membership_change": 1}


def test_an_empty_cluster_shows_its_figures_too(world):
    world.updates.on_generation(generation(c=cluster()))
    assert world.registry.read([]).counters["cluster.c.membership_change"] == 0


def test_a_cluster_that_is_gone_takes_its_figures_along(world):
    world.updates.on_generation(generation(c=cluster(("127.0.0.1", 1)), d=cluster(stat_name="d")))
    world.updates.on_generation(generation(d=cluster(stat_name="d")))
    names = world.registry.read([]).counters
    assert "cluster.c.membership_change" not in names
    assert "cluster.d.membership_change" in names
    world.updates.on_generation(generation(c=cluster(("127.0.0.1", 1))))
    assert world.shown() == {"cluster.c.membership_change": 1}


def test_results_of_updates(world):
    run = generation(c=cluster())
    world.updates.count(run, "c", ["attempt", "success"], "7")
    world.updates.count(run, "c", ["attempt", "success", "empty"], "7")
    world.updates.count(run, "c", ["attempt", "failure"], None)
    world.updates.count(run, "c", ["attempt", "rejected"], None)
    world.updates.count(run, "c", ["attempt", "no_rebuild"], None)
    shown = world.shown()
    assert shown.pop("cluster.c.update_time") > 0
    assert shown == {
        "cluster.c.update_attempt": 5,
        "cluster.c.update_success": 2,
        "cluster.c.update_empty": 1,
        "cluster.c.update_failure": 1,
        "cluster.c.update_rejected": 1,
        "cluster.c.update_no_rebuild": 1,
        "cluster.c.version": 1750302349509622455,  # Envoy's, for "7"
    }


def test_only_eds_has_a_subscription(world):
    run = generation(c=cluster(type="STRICT_DNS"))
    world.updates.count(run, "c", ["attempt", "success"], None)
    assert "cluster.c.update_rejected" not in world.registry.read([]).counters
