"""Limits over several processes, which are played by this one: it sits now on one seat, now on another."""

from dataclasses import replace

import pytest

from forkproxy.config.build.circuit_breakers import CircuitBreakers, RetryBudget, Thresholds
from forkproxy.stats.counters import Registry
from forkproxy.stats.groups import ClusterStats, EndpointStats
from forkproxy.stats.shared import SharedCells
from forkproxy.upstream.circuit_breakers import (
    OUT_OF_REACH,
    BreakerCells,
    Breakers,
    Limit,
    breaker_cells,
    host_limits,
)
from tests.support.playbook import cluster_config


class Workers:
    """Each with a Limit of its own on the same number."""

    def __init__(self, count, maximum, *, exact=True):
        self.cells = SharedCells()
        number = self.cells.number("requests", "cluster.up")
        self.seats = [self.cells.take_seat() for _ in range(count)]
        self.limits = [Limit(maximum, number, exact=exact) for _ in self.seats]
        self.each(Limit.share_out)

    def of(self, worker, act):
        self.cells.sit(self.seats[worker])
        return act(self.limits[worker])

    def each(self, act):
        return [self.of(worker, act) for worker in range(len(self.seats))]

    def admit(self, worker):
        """As a pool does it: True when there was room."""

        def ask(limit):
            if limit.is_full():
                return False
            limit.add()
            return True

        return self.of(worker, ask)


@pytest.fixture
def workers():
    made = []

    def make(*args, **fields):
        made.append(Workers(*args, **fields))
        return made[-1]

    yield make
    for each in made:
        each.cells.close()


# -- one process


def test_alone_a_limit_counts_for_itself():
    for number in (None, SharedCells().number("requests", "up")):
        limit = Limit(2, number, exact=True)
        assert not limit.is_full()
        limit.add()
        limit.add()
        assert limit.is_full()
        limit.remove()
        assert (limit.is_full(), limit.total()) == (False, 1)


def test_a_limit_of_nothing_is_always_full():
    for exact in (True, False):
        limit = Limit(0, exact=exact)
        limit.share_out()
        assert limit.is_full()


def test_alone_nobody_is_asked_below_the_limit():
    limit = Limit(1024, SharedCells().number("requests", "up"))
    limit.share_out()
    assert limit.free_below == 1024


# -- exact


@pytest.mark.parametrize("count", [2, 4])
def test_workers_keep_one_limit_exactly(workers, count):
    team = workers(count, 5)
    admitted = [team.admit(turn % count) for turn in range(20)]
    assert sum(admitted) == 5
    team.of(1, Limit.remove)
    assert [team.admit(0), team.admit(1)] == [True, False]


@pytest.mark.parametrize("count", [2, 4])
def test_at_worst_each_further_worker_lets_in_one_too_many(workers, count):
    team = workers(count, 5)
    for _ in range(4):
        assert team.admit(0)
    # All ask before any of them writes.
    assert team.each(Limit.is_full) == [False] * count
    team.each(Limit.add)
    assert team.of(0, Limit.total) == 5 + count - 1
    assert team.each(Limit.is_full) == [True] * count


def test_what_a_dead_worker_held_is_free(workers):
    team = workers(2, 3)
    assert [team.admit(0), team.admit(0), team.admit(1), team.admit(1)] == [True, True, True, False]
    team.cells.free_seat(team.seats[0])
    assert [team.admit(1), team.admit(1), team.admit(1)] == [True, True, False]


def test_the_worker_of_the_next_generation_counts_too(workers):
    team = workers(1, 3)
    assert [team.admit(0), team.admit(0)] == [True, True]
    team.seats.append(team.cells.take_seat())
    team.limits.append(Limit(3, team.cells.number("requests", "cluster.up"), exact=True))
    assert [team.admit(1), team.admit(1), team.admit(0)] == [True, False, False]
    team.cells.free_seat(team.seats[0])
    assert [team.admit(1), team.admit(1), team.admit(1)] == [True, True, False]


def test_a_limit_out_of_reach_is_not_counted_exactly():
    number = SharedCells().number("requests", "up")
    assert Limit(OUT_OF_REACH, number, exact=True).is_exact
    assert not Limit(OUT_OF_REACH + 1, number, exact=True).is_exact


# -- not exact


def test_an_even_share_is_free(workers):
    team = workers(4, 1024, exact=False)
    assert [limit.free_below for limit in team.limits] == [256] * 4
    assert all(team.admit(0) for _ in range(256))
    assert team.of(1, Limit.total) == 0  # nobody was told yet


def test_beyond_its_share_a_worker_asks_and_tells(workers):
    team = workers(2, 100, exact=False)
    assert sum(team.admit(0) for _ in range(200)) == 100
    # The other one does not look before it has its own share; then it is told the truth.
    assert sum(team.admit(1) for _ in range(200)) == 50
    assert not team.admit(0)


@pytest.mark.parametrize("count", [2, 4, 8])
def test_less_than_twice_the_limit_at_worst(workers, count):
    team = workers(count, 64, exact=False)
    admitted = sum(team.admit(worker) for worker in range(count) for _ in range(100))
    assert 64 <= admitted < 2 * 64


def test_once_a_second_everybody_is_told(workers):
    team = workers(2, 100, exact=False)
    for _ in range(40):
        team.admit(0)
    team.each(Limit.share_out)
    assert sum(team.admit(1) for _ in range(200)) == 60
    for _ in range(40):
        team.of(0, Limit.remove)
    assert not team.admit(1)
    team.each(Limit.share_out)
    assert team.admit(1)


# -- a priority


def breakers(stats=None, high=False, **fields):
    return Breakers(Thresholds(**fields), BreakerCells(), high=high)


def test_what_is_configured_is_exact():
    registry = Registry()
    fields = {"max_connections": 1, "max_pending_requests": 2, "max_requests": 3, "max_retries": 4}
    for configured in fields:
        limits = CircuitBreakers(Thresholds(**fields, configured=frozenset((configured,))))
        made = Breakers(
            limits.default, breaker_cells(registry, cluster_config(configured, circuit_breakers=limits), [])
        )
        exact = [made.connections, made.pending, made.requests, made.retries]
        assert [limit.is_exact for limit in exact] == [name == configured for name in fields]
        assert made.counts_requests == (configured == "max_requests")
    registry.shared.close()


def test_a_retry_budget_needs_exact_counts():
    registry = Registry()
    limits = CircuitBreakers(Thresholds(retry_budget=RetryBudget()))
    made = Breakers(limits.default, breaker_cells(registry, cluster_config("up", circuit_breakers=limits), []))
    assert made.counts_requests
    assert [made.pending.is_exact, made.requests.is_exact, made.retries.is_exact] == [True, True, True]
    assert not made.connections.is_exact
    registry.shared.close()


@pytest.mark.parametrize(
    ("percent", "minimum", "under_way", "allowed"),
    [(20.0, 3, 0, 3), (20.0, 3, 15, 3), (20.0, 3, 20, 4), (20.0, 3, 24, 4), (50.0, 0, 3, 1), (0.0, 0, 100, 0)],
)
def test_retry_budget(percent, minimum, under_way, allowed):
    made = breakers(retry_budget=RetryBudget(percent, minimum), max_retries=0)
    for turn in range(under_way):
        (made.requests, made.pending)[turn % 2].add()
    count = 0
    while not made.retries_full():
        made.retries.add()
        count += 1
    assert count == allowed


def test_without_a_budget_max_retries_counts():
    made = breakers(max_retries=1)
    assert not made.retries_full()
    made.retries.add()
    assert made.retries_full()


@pytest.mark.parametrize("high", [False, True])
def test_gauges(high):
    stats = ClusterStats()
    made = breakers(max_connections=1, max_pending_requests=1, max_requests=1, max_retries=1, high=high)
    prefix = f"circuit_breakers__{'high' if high else 'default'}__"
    names = {"connections": "cx_open", "pending": "rq_pending_open", "requests": "rq_open", "retries": "rq_retry_open"}
    for attribute, name in names.items():
        getattr(made, attribute).add()
        made.show(stats)
        assert getattr(stats, prefix + name) == 1
        getattr(made, attribute).remove()
        made.show(stats)
        assert getattr(stats, prefix + name) == 0
    other = f"circuit_breakers__{'default' if high else 'high'}__"
    assert not any(getattr(stats, other + name) for name in names.values())


def test_a_limit_of_nothing_shows_no_open_breaker():
    stats = ClusterStats()
    breakers(max_requests=0).show(stats)
    assert stats.circuit_breakers__default__rq_open == 0


def test_what_remains():
    registry = Registry()
    tracked = Thresholds(max_connections=5, max_requests=2, max_retries=7, max_connection_pools=3, track_remaining=True)
    limits = CircuitBreakers(tracked, Thresholds())
    made = Breakers(limits.default, breaker_cells(registry, cluster_config("up", circuit_breakers=limits), []))
    for limit in (made.connections, made.requests, made.requests, made.requests, made.pools):
        limit.add()
    made.show(ClusterStats())
    shown = {
        name.removeprefix("cluster.up.circuit_breakers.default.remaining_"): value
        for name, value in read(registry).gauges.items()
    }
    assert shown == {"cx": 4, "cx_pools": 2, "pending": 1024, "retries": 7, "rq": 0}
    registry.shared.close()


def read(registry):
    from forkproxy.stats.slab import Slab

    slab = Slab.create(registry.cells)
    registry.flush(slab)
    return registry.read([slab])


# -- hosts


def test_hosts_are_limited_where_the_file_says_so():
    figures = [EndpointStats(), EndpointStats()]
    assert host_limits(CircuitBreakers(), BreakerCells(), figures) is None
    registry = Registry()
    limits = CircuitBreakers(high=Thresholds(max_connections_per_host=1))
    found = host_limits(
        limits, breaker_cells(registry, cluster_config("up", circuit_breakers=limits), ["a", "b"]), figures
    )
    found[figures[0]].add()
    assert [found[each].total() for each in figures] == [1, 0]
    # Another generation counts the same addresses.
    again = host_limits(
        limits, breaker_cells(registry, cluster_config("up", circuit_breakers=limits), ["b", "a"]), figures
    )
    registry.shared.take_seat(), registry.shared.take_seat()
    assert [again[each].total() for each in figures] == [0, 1]
    registry.shared.close()


def test_clusters_that_share_their_statistics_do_not_share_limits():
    registry = Registry()
    limits = CircuitBreakers(Thresholds(max_connections=1, configured=frozenset(("max_connections",))))
    configs = [replace(cluster_config(name, circuit_breakers=limits), stat_name="same") for name in ("a", "b")]
    made = [Breakers(limits.default, breaker_cells(registry, config, [])) for config in configs]
    registry.shared.take_seat(), registry.shared.take_seat()
    made[0].connections.add()
    assert [each.connections.is_full() for each in made] == [True, False]
    registry.shared.close()
