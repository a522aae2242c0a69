"""Statistics that get their names in a worker, while it serves."""

from __future__ import annotations

import json

import pytest

from forkproxy.stats import dynamic
from forkproxy.stats.counters import Registry
from forkproxy.stats.slab import Slab


class Side:
    """A supervisor's registry and one worker: its counting and its slab."""

    def __init__(self):
        self.registry = Registry()
        self.registry.begin_generation()
        self.names = self.registry.use_dynamic()
        self.slab = Slab.create(self.registry.cells)

    def count(self, name, times=1):
        self.names.counters[name] += times
        self.registry.flush(self.slab)

    def counters(self):
        return self.registry.read([self.slab]).counters


@pytest.fixture
def side():
    return Side()


def test_a_counter_is_shown_once_it_counts(side):
    assert side.counters() == {}
    side.count("cluster.a.zone.x.y.upstream_rq_200")
    side.count("cluster.a.zone.x.y.upstream_rq_200", 2)
    side.count("b")
    assert side.counters() == {"cluster.a.zone.x.y.upstream_rq_200": 3, "b": 1}
    assert side.registry.read([side.slab]).used == {"cluster.a.zone.x.y.upstream_rq_200", "b"}


def test_a_histogram_too(side):
    for milliseconds in (3, 3, 250):
        side.names.histograms["b.upstream_rq_time"][milliseconds] += 1
    side.names.histograms["c.upstream_rq_time"][1] += 1
    side.registry.flush(side.slab)
    found = side.registry.read([side.slab]).histograms
    assert {name: pair.cumulative.count for name, pair in found.items()} == {
        "b.upstream_rq_time": 3,
        "c.upstream_rq_time": 1,
    }
    assert found["b.upstream_rq_time"].cumulative.detail()[0] == (3, 0.1, 2)
    side.registry.end_interval([side.slab])
    assert side.registry.read([side.slab]).histograms["b.upstream_rq_time"].interval.count == 3


def test_two_workers_add_up_and_a_dead_one_counts_on():
    registry = Registry()
    registry.begin_generation()
    start = registry.use_dynamic().start
    slabs = [Slab.create(registry.cells) for _ in range(2)]
    for slab in slabs:
        worker = dynamic.DynamicStats()
        worker.start = start
        worker.counters["n"] += 2
        worker.histograms["t"][7] += 1
        worker.flush(slab)
    assert registry.read(slabs).counters == {"n": 4}
    registry.absorb(slabs[0])
    after = registry.read(slabs[1:])
    assert (after.counters, after.histograms["t"].cumulative.count) == ({"n": 4}, 2)
    assert registry.read(slabs[1:], with_base=False).counters == {"n": 2}


def test_reset(side):
    side.count("n", 3)
    side.registry.reset_counters([side.slab])
    assert side.counters() == {"n": 0}
    side.count("n")
    assert side.counters() == {"n": 1}


def test_another_supervisor_goes_on(side):
    side.count("n", 3)
    side.names.histograms["t"][7] += 1
    side.registry.flush(side.slab)
    heir = Side()
    heir.registry.carry(json.loads(json.dumps(side.registry.totals([side.slab]))))
    side.count("n")
    heir.registry.carry(json.loads(json.dumps(side.registry.totals([side.slab]))))
    heir.count("n", 10)
    assert heir.counters() == {"n": 14}
    assert heir.registry.read([heir.slab]).histograms["t"].cumulative.count == 1


def test_more_names_than_there_is_room_for_are_not_counted(side):
    for number in range(dynamic.MAX_NAMES + 5):
        side.names.counters[f"n{number}"] += 1
    side.registry.flush(side.slab)
    assert len(side.counters()) == dynamic.MAX_NAMES
    side.count("n0")
    assert side.counters()["n0"] == 2
    assert not side.names.counters


def test_too_many_histograms_and_too_long_names_are_not_counted(side):
    for number in range(dynamic.MAX_HISTOGRAMS + 2):
        side.names.histograms[f"h{number}"][1] += 1
    side.names.counters["x" * (dynamic.MAX_NAME_BYTES + 1)] += 1
    side.names.counters["x" * dynamic.MAX_NAME_BYTES] += 1
    side.registry.flush(side.slab)
    found = side.registry.read([side.slab])
    assert len(found.histograms) == dynamic.MAX_HISTOGRAMS
    assert found.counters == {"x" * dynamic.MAX_NAME_BYTES: 1}


def test_a_worker_forked_before_there_was_a_region_has_none():
    registry = Registry()
    registry.begin_generation()
    slab = Slab.create(registry.cells)
    names = registry.use_dynamic()
    names.counters["n"] += 1
    registry.flush(slab)
    assert registry.read([slab]).counters == {}
