"""Aggregate clusters: which part a request goes to."""

import random

import pytest

from forkproxy.config.build.aggregate import AggregateConfig
from forkproxy.upstream import health
from forkproxy.upstream.aggregate_cluster import AggregateCluster
from forkproxy.upstream.balancers import PickContext
from tests.support.playbook import cluster_config, endpoint, make_cluster


@pytest.fixture(autouse=True)
def seed():
    random.seed(1)


def part(name, *hosts, statuses=None):
    endpoints = [endpoint(host, health_status=(statuses or {}).get(host, "HEALTHY")) for host in hosts]
    return make_cluster(cluster_config(name, endpoints=endpoints))


def aggregate(*parts, names=None):
    config = cluster_config(
        "all", type="AGGREGATE", localities=(), dynamic=AggregateConfig(names or tuple(each.name for each in parts))
    )
    cluster = make_cluster(config, slots=0, cls=AggregateCluster)
    cluster.join({each.name: each for each in (*parts, cluster)})
    return cluster


def shares(cluster, picks=1000, **context):
    found = {}
    for _ in range(picks):
        chosen = cluster.pick() if not context else cluster.choose(PickContext(**context))
        host = chosen and int(chosen.address.split(".")[3].split(":")[0])
        found[host] = found.get(host, 0) + 1
    return found


def test_the_first_part_takes_all_while_it_is_sound():
    assert shares(aggregate(part("a", 1, 2), part("b", 3))) == {1: 500, 2: 500}


def test_what_the_first_cannot_take_goes_to_the_next():
    first = part("a", 1, 2, statuses={2: "UNHEALTHY"})
    cluster = aggregate(first, part("b", 3))
    found = shares(cluster)
    assert set(found) == {1, 3}
    assert 620 < found[1] < 780  # 50 % healthy by an overprovisioning factor of 1.4


def test_a_change_of_a_part_is_noticed():
    first, second = part("a", 1), part("b", 2)
    cluster = aggregate(first, second)
    assert shares(cluster, 10) == {1: 10}
    first.set_health_flags("192.0.2.1:80", set=health.FAILED_ACTIVE_HC)
    assert shares(cluster, 10) == {2: 10}
    first.set_health_flags("192.0.2.1:80", clear=health.FAILED_ACTIVE_HC)
    assert shares(cluster, 10) == {1: 10}


def test_the_endpoints_of_a_part_use_its_own_pools():
    first = part("a", 1)
    assert aggregate(first).pick() is first.endpoints[0]


def test_nobody_to_choose():
    assert aggregate(names=("nobody",)).pick() is None
    assert aggregate(part("a")).pick() is None
    inner = aggregate(part("a", 1))
    assert aggregate(inner).pick() is None
    assert aggregate(names=("all",)).pick() is None


def test_a_hash_chooses_the_part():
    first = part("a", 1, 2, statuses={2: "UNHEALTHY"})
    cluster = aggregate(first, part("b", 3))
    assert shares(cluster, 20, hash_=5) == {1: 20}
    assert shares(cluster, 20, hash_=99) == {3: 20}


def test_endpoints_to_avoid_are_avoided():
    cluster = aggregate(part("a", 1, 2))
    avoid = cluster.pick()
    found = {cluster.choose(PickContext(rejects=lambda each: each is avoid, attempts=5)) for _ in range(20)}
    assert avoid not in found


def test_priorities_of_the_parts_follow_each_other():
    def by_priority(name, first, second):
        low = cluster_config(name, endpoints=[first]).localities[0]
        high = cluster_config(name, endpoints=[second]).localities[0]
        localities = (low, type(high)(high.endpoints, priority=1))
        return make_cluster(cluster_config(name, localities=localities))

    first = by_priority("a", endpoint(1, health_status="UNHEALTHY"), endpoint(2, health_status="UNHEALTHY"))
    second = by_priority("b", endpoint(3, health_status="UNHEALTHY"), endpoint(4))
    assert shares(aggregate(first, second), 50) == {4: 50}
