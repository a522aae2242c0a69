from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from forkproxy.stats.counters import Counter, Gauge, Histogram, StatGroup, StatusCodes
from forkproxy.stats.histogram import BinnedHistogram
from forkproxy.stats.snapshot import Snapshot, enter


class Things(StatGroup):
    made: Counter
    now: Gauge
    time_ms: Histogram
    answers: StatusCodes


def entered(row, written=None, blocks=({}, {}), snapshot=None):
    snapshot = snapshot or Snapshot()
    enter(snapshot, Things, "t", row, written or row, blocks, [BinnedHistogram()])
    return snapshot


def test_numbers_get_names():
    snapshot = entered([3, 1, 0, 0])
    assert (snapshot.counters, snapshot.gauges) == ({"t.made": 3}, {"t.now": 1})
    assert snapshot.used == {"t.made", "t.now"}


def test_entering_twice_adds_up():
    snapshot = entered([1, 2, 0, 0], snapshot=entered([3, 1, 0, 0]))
    assert (snapshot.counters, snapshot.gauges) == ({"t.made": 4}, {"t.now": 3})


def test_what_was_written_once_stays_used():
    assert entered([0, 0, 0, 0], written=[1, 0, 0, 0]).used == {"t.made"}
    assert entered([0, 0, 0, 0]).used == set()


def test_blocks_are_status_codes_and_bins():
    snapshot = entered([0, 0, 0, 0], blocks=({42: 1}, {0: 1, 104: 2, 500: 3}))
    assert snapshot.histograms["t.time_ms"].cumulative.detail() == [(42, 1, 1)]
    answers = {name.removeprefix("t.answers_"): n for name, n in snapshot.counters.items() if "answers" in name}
    assert answers == {"100": 1, "204": 2, "1xx": 1, "2xx": 2, "completed": 6, "unknown": 3}


class Quirks(StatGroup):
    lazy = frozenset(("later_ms",))
    zeros: ClassVar[Mapping[str, tuple[str, ...]]] = {"": ("never",), "made": ("a.b",)}
    used_with: ClassVar[Mapping[str, str]] = {"now": "", "then": "made"}
    made: Counter
    now: Gauge
    then: Gauge
    time_ms: Histogram
    later_ms: Histogram


def quirks(row, blocks=({}, {})):
    snapshot = Snapshot()
    enter(snapshot, Quirks, "q", row, row, blocks, [BinnedHistogram(), BinnedHistogram()])
    return snapshot


def test_names_that_are_zero_and_gauges_that_are_used():
    snapshot = quirks([0, 0, 0, 0, 0])
    assert (snapshot.counters, snapshot.used) == ({"q.made": 0, "q.never": 0}, {"q.now"})
    assert quirks([3, 0, 0, 0, 0]).used == {"q.made", "q.now", "q.then"}
    assert quirks([3, 0, 0, 0, 0]).counters == {"q.made": 3, "q.never": 0, "q.a.b": 0}


def test_a_histogram_that_is_not_shown_before_its_first_sample():
    assert list(quirks([0, 0, 0, 0, 0]).histograms) == ["q.time_ms"]
    assert list(quirks([0, 0, 0, 0, 1], ({}, {3: 1})).histograms) == ["q.time_ms", "q.later_ms"]
