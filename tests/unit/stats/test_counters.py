from __future__ import annotations

import os
from collections.abc import Mapping
from typing import ClassVar

import pytest

from forkproxy.stats.counters import (
    Counter,
    Gauge,
    Histogram,
    Labels,
    Registry,
    SharedGauge,
    StatGroup,
    StatusClasses,
    StatusCodes,
)
from forkproxy.stats.slab import HEADER_CELLS, Slab


class Connections(StatGroup):
    cx_total: Counter
    cx_active: Gauge
    rx_active: Gauge


class Things(StatGroup):
    made: Counter
    circuit_breakers__default__cx_open: Gauge
    members: SharedGauge
    time_ms: Histogram


class Answers(StatGroup):
    totals: ClassVar[Mapping[str, str]] = {
        "external__rq": "rq",
        "internal__rq": "rq",
        "external__rq_time": "rq_time",
        "internal__rq_time": "rq_time",
    }
    external__rq: StatusCodes
    internal__rq: StatusCodes
    external__rq_time: Histogram
    internal__rq_time: Histogram


class Classes(StatGroup):
    downstream_rq: StatusClasses


class Versions(StatGroup):
    labels: ClassVar[Mapping[str, tuple[str, ...]]] = {"versions": ("TLSv1.2", "TLSv1.3")}
    versions: Labels


class Hidden(StatGroup):
    hidden = True
    rq_total: Counter
    rq_active: Gauge


class Worker:
    """What a forked worker is to the registry: the same objects, a slab of its own."""

    def __init__(self, registry):
        self.registry = registry
        self.slab = Slab.create(registry.cells)

    def flush(self):
        self.registry.flush(self.slab)
        return self


@pytest.fixture
def registry():
    registry = Registry()
    registry.begin_generation()
    return registry


def in_child(registry, work):
    """Fork; the child counts and flushes into a slab of its own."""
    worker = Worker(registry)
    pid = os.fork()
    if not pid:
        try:
            work()
            worker.flush()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    return worker.slab


# Names and sums


def test_figures_are_named_by_prefix_and_attribute(registry):
    things = registry.group(Things, "cluster.web")
    things.made += 3
    things.circuit_breakers__default__cx_open += 1
    things.members = 4
    worker = Worker(registry).flush()
    snapshot = registry.read([worker.slab])
    assert snapshot.counters == {"cluster.web.made": 3}
    assert snapshot.gauges == {"cluster.web.circuit_breakers.default.cx_open": 1, "cluster.web.members": 4}
    assert snapshot.histograms["cluster.web.time_ms"].used is False


def test_workers_are_summed_and_shared_gauges_are_not(registry):
    things = registry.group(Things, "t")

    def work():
        things.made += 2
        things.circuit_breakers__default__cx_open += 1
        things.members = 5
        things.time_ms[3] += 1

    slabs = [in_child(registry, work) for _ in range(3)]
    snapshot = registry.read(slabs)
    assert snapshot.counters["t.made"] == 6
    assert snapshot.gauges == {"t.circuit_breakers.default.cx_open": 3, "t.members": 5}
    assert snapshot.histograms["t.time_ms"].cumulative.detail() == [(3, 0.1, 3)]
    assert registry.read([slabs[0]], with_base=False).counters["t.made"] == 2


def test_status_codes_expand_only_when_counted(registry):
    answers = registry.group(Answers, "cluster.c")
    worker = Worker(registry).flush()
    assert registry.read([worker.slab]).counters == {"cluster.c.rq_completed": 0}
    assert registry.read([worker.slab]).histograms == {}
    answers.external__rq[200] += 2
    answers.external__rq[204] += 1
    answers.internal__rq[503] += 1
    answers.external__rq[999] += 1
    answers.external__rq_time[12] += 1
    worker.flush()
    snapshot = registry.read([worker.slab])
    assert snapshot.counters == {
        "cluster.c.external.rq_200": 2,
        "cluster.c.external.rq_204": 1,
        "cluster.c.external.rq_2xx": 3,
        "cluster.c.external.rq_completed": 4,
        "cluster.c.external.rq_unknown": 1,
        "cluster.c.internal.rq_503": 1,
        "cluster.c.internal.rq_5xx": 1,
        "cluster.c.internal.rq_completed": 1,
        "cluster.c.rq_200": 2,
        "cluster.c.rq_204": 1,
        "cluster.c.rq_2xx": 3,
        "cluster.c.rq_503": 1,
        "cluster.c.rq_5xx": 1,
        "cluster.c.rq_completed": 5,
        "cluster.c.rq_unknown": 1,
    }
    assert set(snapshot.histograms) == {"cluster.c.external.rq_time", "cluster.c.rq_time"}


def test_status_classes_are_always_shown_and_roll_up(registry):
    for address in ("a", "b"):
        group = registry.group(Classes, f"listener.{address}.http.in", rolls_up_to=("http.in",))
        group.downstream_rq[200] += 1
        group.downstream_rq[404] += 1
    counters = registry.read([Worker(registry).flush().slab]).counters
    assert counters["http.in.downstream_rq_2xx"] == counters["http.in.downstream_rq_4xx"] == 2
    assert counters["http.in.downstream_rq_5xx"] == 0
    assert counters["http.in.downstream_rq_completed"] == 4
    assert counters["listener.a.http.in.downstream_rq_completed"] == 2


def test_labels_are_shown_when_counted_and_unknown_ones_never(registry):
    registry.group(Versions, "ssl").versions["TLSv1.3"] += 1
    registry.group(Versions, "ssl").versions["SSLv2"] += 1
    assert registry.read([Worker(registry).flush().slab]).counters == {"ssl.versions.TLSv1.3": 1}


def test_hidden_groups_are_kept_apart(registry):
    group = registry.group(Hidden, "cluster.c.endpoint.1.2.3.4:80")
    group.rq_total += 1
    snapshot = registry.read([Worker(registry).flush().slab])
    assert snapshot.hidden == {
        "cluster.c.endpoint.1.2.3.4:80.rq_total": 1,
        "cluster.c.endpoint.1.2.3.4:80.rq_active": 0,
    }
    assert not snapshot.counters
    assert not snapshot.gauges


def test_single_stats_for_other_peoples_filters(registry):
    registry.counter("my.filter.seen").value += 2
    registry.gauge("my.filter.now").value = 3
    registry.histogram("my.filter.size").value[10] += 1
    snapshot = registry.read([Worker(registry).flush().slab])
    assert (snapshot.counters, snapshot.gauges) == ({"my.filter.seen": 2}, {"my.filter.now": 3})
    assert snapshot.histograms["my.filter.size"].cumulative.count == 1


def test_an_empty_prefix_adds_no_dot(registry):
    registry.group(Hidden, "")
    assert "rq_total" in registry.read([]).hidden


# Life


def test_the_same_group_is_one_object_within_a_generation_and_keeps_its_cells_over_a_reload(registry):
    first = registry.group(Things, "t")
    assert registry.group(Things, "t") is first
    cells = registry.cells
    registry.begin_generation()
    second = registry.group(Things, "t")
    assert second is not first
    assert registry.cells == cells


def test_counters_go_on_over_a_reload_while_both_generations_live(registry):
    things = registry.group(Things, "t")
    things.made += 5
    old = Worker(registry).flush()
    registry.begin_generation()
    new_things, others = registry.group(Things, "t"), registry.group(Things, "other")
    new_things.made += 1
    others.made += 1
    new = Worker(registry).flush()
    assert len(new.slab) > len(old.slab)
    counters = registry.read([old.slab, new.slab]).counters
    assert counters == {"t.made": 6, "other.made": 1}


def test_groups_that_the_new_configuration_does_not_use_are_not_shown(registry):
    registry.group(Things, "gone")
    registry.begin_generation()
    registry.group(Things, "here")
    assert set(registry.read([]).counters) == {"here.made"}


def test_an_abandoned_generation_leaves_the_old_groups_in_force(registry):
    things = registry.group(Things, "t")
    registry.begin_generation()
    registry.group(Things, "half.built")
    registry.abandon_generation()
    registry.abandon_generation()  # only one step back, however often
    assert registry.group(Things, "t") is things
    things.made += 1
    assert registry.read([Worker(registry).flush().slab]).counters == {"t.made": 1}


def test_a_dead_workers_counters_stay_and_its_gauges_go(registry):
    things, answers = registry.group(Things, "t"), registry.group(Answers, "c")
    versions, classes = registry.group(Versions, "ssl"), registry.group(Classes, "h")

    def work():
        things.made += 2
        things.circuit_breakers__default__cx_open = 1
        things.members = 9
        things.time_ms[40] += 1
        answers.external__rq[200] += 1
        versions.versions["TLSv1.2"] += 1
        classes.downstream_rq[302] += 1

    for _ in range(2):
        slab = in_child(registry, work)
        registry.absorb(slab)
        slab.close()
    snapshot = registry.read([])
    assert snapshot.counters["t.made"] == 4
    assert snapshot.counters["c.rq_200"] == 2
    assert snapshot.counters["ssl.versions.TLSv1.2"] == 2
    assert snapshot.counters["h.downstream_rq_3xx"] == snapshot.counters["h.downstream_rq_completed"] == 2
    assert snapshot.gauges == {"t.circuit_breakers.default.cx_open": 0, "t.members": 0}
    assert snapshot.histograms["t.time_ms"].cumulative.detail() == [(40, 1, 2)]
    assert registry.read([], with_base=False).counters["t.made"] == 0


def test_a_slab_from_before_the_registry_grew_can_be_absorbed(registry):
    registry.group(Things, "t").made += 1
    worker = Worker(registry).flush()
    registry.begin_generation()
    registry.group(Things, "t")
    for number in range(2000):
        registry.group(Things, f"new.{number}")
    registry.absorb(worker.slab)
    assert registry.read([]).counters["t.made"] == 1


def test_reset_counters_keeps_gauges_and_histograms(registry):
    things, answers = registry.group(Things, "t"), registry.group(Answers, "c")
    local = registry.local_group(Things, "t")
    things.made, local.made = 3, 4
    things.circuit_breakers__default__cx_open = 2
    things.time_ms[1] += 1
    answers.external__rq[200] += 1
    worker = Worker(registry).flush()
    assert registry.read([worker.slab]).counters["t.made"] == 7
    registry.reset_counters([worker.slab])
    snapshot = registry.read([worker.slab])
    assert set(snapshot.counters.values()) == {0}
    assert snapshot.counters["c.rq_200"] == 0
    assert snapshot.used >= {"t.made", "c.external.rq_2xx"}
    assert snapshot.gauges["t.circuit_breakers.default.cx_open"] == 2
    assert snapshot.histograms["t.time_ms"].cumulative.count == 1
    things.made += 1
    answers.external__rq[200] += 1
    worker.flush()
    counters = registry.read([worker.slab]).counters
    assert (counters["t.made"], counters["c.rq_200"]) == (1, 1)
    registry.absorb(worker.slab)
    counters = registry.read([]).counters
    assert (counters["t.made"], counters["c.rq_200"]) == (1, 1)
    registry.reset_counters([])
    assert set(registry.read([]).counters.values()) == {0}


def test_local_groups_need_no_slab_and_add_up_with_the_workers(registry):
    local = registry.local_group(Things, "t")
    local.made += 1
    local.members = 2
    local.time_ms[5] += 1
    registry.group(Things, "t").made += 10
    worker = Worker(registry).flush()
    registry.begin_generation()
    registry.group(Answers, "c")
    for _ in range(2):  # reading twice must not count twice
        snapshot = registry.read([worker.slab])
        assert snapshot.counters["t.made"] == 11
        assert snapshot.gauges["t.members"] == 2
        assert snapshot.histograms["t.time_ms"].cumulative.count == 1
    assert registry.local_group(Things, "t") is local


def test_workers_do_not_flush_local_groups(registry):
    registry.local_group(Things, "t").made += 1
    registry.group(Things, "t")
    worker = Worker(registry).flush()
    assert registry.read([worker.slab], with_base=False).counters["t.made"] == 0


def test_an_interval_is_what_came_in_between_two_ticks(registry):
    things = registry.group(Things, "t")
    worker = Worker(registry)

    def interval():
        return registry.read([worker.slab]).histograms["t.time_ms"].interval.detail()

    things.time_ms[1] += 1
    worker.flush()
    assert interval() == []
    registry.end_interval([worker.slab])
    assert interval() == [(1, 0.1, 1)]
    things.time_ms[2] += 1
    worker.flush()
    assert interval() == [(1, 0.1, 1)]
    registry.absorb(worker.slab)  # a worker that died counts in the interval it died in
    worker.slab.close()
    worker.slab = Slab.create(registry.cells)
    registry.end_interval([worker.slab])
    assert interval() == [(2, 0.1, 1)]
    registry.end_interval([worker.slab])
    assert interval() == []


def test_used_are_counted_ones_and_the_gauges_of_the_same_things(registry):
    registry.group(Things, "idle")
    registry.group(Things, "member").members = 1
    registry.group(Things, "busy").made = 1
    registry.group(Classes, "h").downstream_rq[200] += 1
    registry.group(Connections, "c").cx_total = 1
    assert registry.read([Worker(registry).flush().slab]).used == {
        *("member.members", "busy.made", "c.cx_total", "c.cx_active"),
        *("h.downstream_rq_2xx", "h.downstream_rq_completed"),
    }


def test_a_gauge_may_fall_below_what_was_flushed(registry):
    things = registry.group(Things, "t")
    worker = Worker(registry)
    for value in (3, 0, -1):
        things.circuit_breakers__default__cx_open = value
        worker.flush()
        assert registry.read([worker.slab]).gauges["t.circuit_breakers.default.cx_open"] == value


def test_groups_do_not_overlap(registry):
    groups = [registry.group(cls, f"p{n}") for n in range(300) for cls in (Things, Hidden)]
    for number, group in enumerate(groups):
        first = type(group).layout.counters[0]
        setattr(group, first, number + 1)
    snapshot = registry.read([Worker(registry).flush().slab])
    counted = snapshot.counters | snapshot.hidden
    assert [counted[f"p{n}.made"] for n in range(300)] == list(range(1, 600, 2))
    assert [counted[f"p{n}.rq_total"] for n in range(300)] == list(range(2, 601, 2))


# Which statistics there are


def counters_of(registry):
    return registry.read([Worker(registry).flush().slab]).counters


class Beginning:
    """Only what begins so."""

    def __init__(self, beginning):
        self.beginning = beginning

    def __call__(self, name):
        return name.startswith(self.beginning)

    def refuses_all(self, beginning):
        return not (self.beginning.startswith(beginning) or beginning.startswith(self.beginning))


def test_names_that_are_refused_are_nowhere(registry):
    registry.show_only(Beginning("t.made"))
    things = registry.group(Things, "t")
    registry.local_group(Things, "own").made += 1
    things.made += 1
    things.time_ms[3] += 1
    snapshot = registry.read([Worker(registry).flush().slab])
    assert (snapshot.counters, snapshot.gauges, snapshot.histograms, snapshot.used) == (
        {"t.made": 1},
        {},
        {},
        {"t.made"},
    )


def test_a_group_that_is_refused_costs_no_cell_and_keeps_nothing(registry):
    registry.show_only(Beginning("t."))
    before = registry.cells
    things = registry.group(Things, "u")
    answers = registry.group(Answers, "v")
    assert registry.group(Things, "u") is things
    assert registry.counter("w") is registry.counter("w")
    for number in range(100):
        things.time_ms[number] += 1
        answers.external__rq[200 + number] += 1
    things.made += 5
    assert (registry.cells, things.made, things.time_ms, answers.external__rq) == (before, 5, {}, {})
    assert counters_of(registry) == {}


def test_one_whose_sum_is_shown_is_kept(registry):
    registry.show_only(Beginning("sum."))
    registry.group(Things, "part", rolls_up_to=("sum",)).made += 1
    assert counters_of(registry) == {"sum.made": 1}


def test_endpoints_are_no_statistics(registry):
    registry.show_only(Beginning("nothing"))
    registry.group(Hidden, "e").rq_total += 1
    assert registry.read([Worker(registry).flush().slab]).hidden["e.rq_total"] == 1


def test_the_next_generation_has_its_own(registry):
    registry.show_only(Beginning("nothing"))
    registry.group(Things, "t")
    registry.begin_generation()
    registry.group(Things, "t").made += 1
    assert counters_of(registry)["t.made"] == 1
    registry.abandon_generation()
    assert counters_of(registry) == {}


# Memory


def test_idle_groups_touch_no_pages(registry):
    for number in range(200):
        registry.group(Things, f"t{number}")
        registry.group(Answers, f"c{number}")
    worker = Worker(registry)
    before = _shared_kib()
    worker.flush()
    registry.read([worker.slab])
    # Reading looks at the plain cells (32 KiB pages of them), never at the 6 MiB of blocks.
    assert _shared_kib() - before <= 64
    assert registry.cells * 8 > 6 * 2**20


def test_a_used_histogram_touches_one_page(registry):
    things = registry.group(Things, "t")
    worker = Worker(registry).flush()
    registry.read([worker.slab])
    before = _shared_kib()
    things.time_ms[150] += 1
    worker.flush()
    registry.read([worker.slab])
    assert _shared_kib() - before <= 4


def test_the_header_belongs_to_nobody_else(registry):
    registry.group(Things, "t").made = 77
    worker = Worker(registry).flush()
    assert not any(worker.slab.cells[:HEADER_CELLS])


def _shared_kib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssShmem"))
