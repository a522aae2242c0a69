"""Requests under way over two workers, which are played by this one: it sits now on one seat, now on another."""

import random
from collections import Counter

import pytest

from forkproxy.config.build.load_balancing import LoadBalancingConfig
from forkproxy.stats.counters import Registry
from forkproxy.stats.groups import ClusterStats, EndpointStats
from forkproxy.stats.slab import Slab
from forkproxy.upstream.active_requests import SCAN_AGE_S, CountingTogether, Scan
from forkproxy.upstream.consistent_hashing import bounded
from tests.support.balancing import balancer, endpoint, picks
from tests.support.fakes import FakeLoop
from tests.support.playbook import cluster_config

LEAST = LoadBalancingConfig(policy="LEAST_REQUEST")
BOUNDED = LoadBalancingConfig(policy="RING_HASH", hash_balance_factor=150)
NAMES = "abcd"


def figures_of(registry, *configs):
    """Of the clusters that these configurations make, all called "up": (ClusterStats, EndpointStats of NAMES)."""
    together = CountingTogether([cluster_config("up", load_balancing=config) for config in configs])
    return together.cluster_stats(registry, "up"), together.endpoint_stats(registry, "up", NAMES)


class Workers:
    """Two, each with the endpoints called NAMES."""

    def __init__(self, config, **fields):
        self.registry = Registry()
        self.cells = self.registry.shared
        self.seats = [self.cells.take_seat() for _ in range(2)]
        self.stats = []
        self.endpoints = []
        for _ in self.seats:
            self.registry.begin_generation()  # so that each has objects of its own, as after a fork
            stats, figures = figures_of(self.registry, config)
            self.stats.append(stats)
            self.endpoints.append([endpoint(name, **fields) for name in NAMES])
            for each, its_figures in zip(self.endpoints[-1], figures, strict=True):
                each.stats = its_figures

    def sit(self, worker):
        self.cells.sit(self.seats[worker])

    def busy(self, worker, *active):
        """So many requests of ``worker`` are under way at a, b, c, …."""
        self.sit(worker)
        for each, number in zip(self.endpoints[worker], active, strict=False):
            self.stats[worker].upstream_rq_active += number - each.stats.rq_active
            each.stats.rq_active += number - each.stats.rq_active

    def active(self, worker):
        self.sit(worker)
        return [each.stats.rq_active_of_all for each in self.endpoints[worker]]


@pytest.fixture
def workers():
    made = []

    def make(*args, **fields):
        made.append(Workers(*args, **fields))
        return made[-1]

    random.seed(7)
    yield make
    for each in made:
        each.cells.close()


@pytest.fixture
def registry():
    made = Registry()
    yield made
    made.shared.close()


# -- the figures


@pytest.mark.parametrize(("config", "cluster_too"), [(LEAST, False), (BOUNDED, True)])
def test_each_worker_knows_the_sum(workers, config, cluster_too):
    team = workers(config)
    team.busy(0, 3, 0, 1)
    team.busy(1, 1, 2)
    for worker, own in ((0, [3, 0, 1, 0]), (1, [1, 2, 0, 0])):
        assert team.active(worker) == [4, 2, 1, 0]
        assert [each.stats.rq_active for each in team.endpoints[worker]] == own
        stats = team.stats[worker]
        assert stats.upstream_rq_active_of_all == (7 if cluster_too else stats.upstream_rq_active)
    team.busy(1, 0, 0)
    assert team.active(0) == [3, 0, 1, 0]


def test_a_dead_worker_has_nothing_under_way(workers):
    team = workers(LEAST)
    team.busy(0, 3)
    team.busy(1, 1)
    team.cells.free_seat(team.seats[1])
    assert team.active(0) == [3, 0, 0, 0]


def test_a_worker_that_is_alone_goes_by_its_own_number(registry):
    _, (first, *_) = figures_of(registry, LEAST)
    registry.shared.sit(registry.shared.take_seat())
    first.rq_active += 2
    assert first.rq_active_of_all == 2
    # Whoever comes later knows of it.
    registry.shared.sit(registry.shared.take_seat())
    registry.begin_generation()
    _, (same, *_) = figures_of(registry, LEAST)
    assert (same.rq_active, same.rq_active_of_all) == (0, 2)


def test_the_supervisor_that_makes_figures_writes_nothing(workers):
    team = workers(LEAST)
    team.busy(0, 3)
    team.cells.sit(0)  # where the supervisor, which has no seat, would write
    team.registry.begin_generation()
    figures_of(team.registry, LEAST)
    assert team.active(1) == [3, 0, 0, 0]


@pytest.mark.parametrize("policy", ["ROUND_ROBIN", "RANDOM", "RING_HASH", "MAGLEV"])
def test_other_policies_count_plainly(registry, policy):
    stats, endpoints = figures_of(registry, LoadBalancingConfig(policy=policy))
    assert type(stats) is ClusterStats
    assert {type(each) for each in endpoints} == {EndpointStats}
    stats.upstream_rq_active = endpoints[0].rq_active = 3
    assert (stats.upstream_rq_active_of_all, endpoints[0].rq_active_of_all) == (3, 3)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_clusters_with_one_name_for_statistics_one_is_enough(registry, order):
    configs = (LoadBalancingConfig(), LEAST)
    _, endpoints = figures_of(registry, *[configs[index] for index in order])
    assert EndpointStats not in {type(each) for each in endpoints}


def test_they_are_figures_like_all_others(workers):
    team = workers(BOUNDED)
    slab = Slab.create(team.registry.cells)
    stats, figures = team.stats[1], [each.stats for each in team.endpoints[1]]
    team.busy(1, 0, 5)
    figures[1].rq_total += 6
    team.registry.flush(slab)
    told = team.registry.figures(EndpointStats, "cluster.up.endpoint.b", [slab])
    assert (told["rq_active"], told["rq_total"]) == (5, 6)
    assert team.registry.figures(ClusterStats, "cluster.up", [slab])["upstream_rq_active"] == 5
    assert repr(figures[1]) == "<SharedEndpointStats rq_active=5 rq_total=6>"
    assert repr(stats) == "<SharedClusterStats upstream_rq_active=5>"
    slab.close()


def test_an_endpoint_takes_its_requests_to_another_slot(workers):
    team = workers(LEAST)
    team.busy(0, 2)
    team.endpoints[0][0].count_on(team.endpoints[0][3].stats)
    assert team.active(1) == [0, 0, 0, 2]


# -- who goes by them


def test_least_request_avoids_whom_another_worker_keeps_busy(workers):
    team = workers(LEAST)
    team.busy(0, 3)
    team.sit(1)
    pick = balancer(team.endpoints[1], policy="LEAST_REQUEST", choice_count=30).pick
    assert set(picks(pick, 300)) == {"b", "c", "d"}
    team.busy(1, 0, 4, 4, 4)
    assert set(picks(pick, 300)) == {"a"}


def test_weights_are_divided_by_the_requests_of_all(workers):
    team = workers(LEAST)
    for each, weight in zip(team.endpoints[1], (8, 2, 2, 2), strict=True):
        each.weight = weight
    team.busy(0, 3)  # 8 / (3 + 1) is as much as 2
    team.sit(1)
    counted = Counter(picks(balancer(team.endpoints[1], policy="LEAST_REQUEST").pick, 4000))
    assert [round(counted[name] / 100) for name in NAMES] == [10, 10, 10, 10]


def test_a_full_scan_knows_the_others_as_they_were(workers):
    team = workers(LEAST)
    loop = FakeLoop()
    team.busy(0, 3)
    team.sit(1)
    pick = balancer(team.endpoints[1], loop, policy="LEAST_REQUEST", full_scan=True).pick
    assert set(picks(pick, 300)) == {"b", "c", "d"}
    team.busy(0, 0, 3)
    team.busy(1, 0, 0, 1)
    assert set(picks(pick, 300)) == {"b", "d"}  # one's own number is always the last
    loop.now += SCAN_AGE_S
    assert set(picks(pick, 300)) == {"a", "d"}
    team.busy(0, 0, 0)
    loop.now += SCAN_AGE_S
    assert set(picks(pick, 300)) == {"a", "b", "d"}


def test_without_a_loop_a_scan_is_of_now(workers):
    team = workers(LEAST)
    scan = Scan(team.endpoints[1], None)
    for number in (1, 2, 0):
        team.busy(0, number)
        team.sit(1)
        assert scan() == [number, 0, 0, 0]


def test_bounded_load_is_of_all(workers):
    team = workers(BOUNDED)
    parts = [(each, 0.25) for each in team.endpoints[1]]
    choose = bounded(lambda _hash, _attempt: parts[0][0], parts, 150, team.stats[1])
    assert choose(1, 0) is parts[0][0]
    team.busy(0, 4)  # of (4 + 1) * 1.5 every endpoint may have 2
    team.sit(1)
    assert choose(1, 0) is not parts[0][0]
    team.busy(0, 4, 4, 4, 4)  # of 25.5, 7
    team.sit(1)
    assert choose(1, 0) is parts[0][0]
