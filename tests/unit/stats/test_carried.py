"""Figures go from one supervisor to the next, and what goes on being counted there counts here too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import ClassVar

import pytest

from forkproxy.stats.counters import Counter, Gauge, Histogram, Labels, Registry, StatGroup, StatusClasses, StatusCodes
from forkproxy.stats.slab import Slab


class Traffic(StatGroup):
    labels: ClassVar[Mapping[str, tuple[str, ...]]] = {"versions": ("one", "two")}
    rq_total: Counter
    rq_active: Gauge
    time_ms: Histogram
    rq: StatusCodes
    downstream_rq: StatusClasses
    versions: Labels


class Life(StatGroup):
    started: Counter
    state: Gauge


class Side:
    """A supervisor's registry and one worker's slab."""

    def __init__(self, *prefixes):
        self.registry = Registry()
        self.registry.begin_generation()
        self.groups = [self.registry.group(Traffic, prefix) for prefix in prefixes]
        self.life = self.registry.local_group(Life, "server")
        self.slab = Slab.create(self.registry.cells)

    def count(self, times):
        for _ in range(times):
            self.groups[0].rq_total += 1
            self.groups[0].rq[200] += 1
            self.groups[0].downstream_rq[200] += 1
            self.groups[0].versions["two"] += 1
            self.groups[0].time_ms[7] += 1
        self.registry.flush(self.slab)

    def totals(self):
        """As they travel."""
        return json.loads(json.dumps(self.registry.totals([self.slab])))

    def read(self):
        snapshot = self.registry.read([self.slab])
        return {**snapshot.counters, **snapshot.gauges}


@pytest.fixture
def old():
    side = Side("a")
    side.groups[0].rq_active = 3
    side.life.started, side.life.state = 1, 2
    side.count(10)
    return side


def test_sums_go_on(old):
    new = Side("a")
    new.registry.carry(old.totals())
    new.count(5)
    old.count(2)
    new.registry.carry(old.totals())
    read = new.read()
    assert read["a.rq_total"] == 17
    assert read["a.rq_200"] == read["a.rq_2xx"] == 17
    assert read["a.downstream_rq_2xx"] == 17
    assert read["a.versions.two"] == 17
    assert new.totals()[0]["blocks"]["time_ms"][0][1] == 17


def test_gauges_count_as_long_as_the_other_one_is_there(old):
    new = Side("a")
    new.groups[0].rq_active = 1
    new.count(1)
    new.registry.carry(old.totals())
    assert new.read()["a.rq_active"] == 4
    new.registry.forget_carried_gauges()
    assert new.read()["a.rq_active"] == 1
    assert new.read()["a.rq_total"] == 11


def test_the_supervisors_own_gauges_are_its_own(old):
    new = Side("a")
    new.life.started, new.life.state = 1, 0
    new.registry.carry(old.totals())
    assert new.read()["server.started"] == 2
    assert new.read()["server.state"] == 0


def test_what_is_not_configured_is_kept_for_later(old):
    new = Side("b")
    new.registry.carry(old.totals())
    assert "a.rq_total" not in new.read()
    new.registry.begin_generation()
    new.registry.group(Traffic, "a")
    assert new.read()["a.rq_total"] == 10


def test_a_figure_that_another_version_does_not_know_is_left_out(old):
    totals = old.totals()
    for entry in totals:
        entry["cells"]["invented"] = 5
        entry["blocks"]["invented_ms"] = [[1, 5]]
    new = Side("a")
    new.registry.carry([*totals, {"group": "Invented", "prefix": "a", "cells": {"x": 1}, "blocks": {}}])
    assert new.read()["a.rq_total"] == 10


def test_counters_that_were_reset_stay_reset(old):
    new = Side("a")
    new.registry.carry(old.totals())
    new.registry.reset_counters([new.slab])
    old.count(2)
    new.registry.carry(old.totals())
    assert new.read()["a.rq_total"] == 2
    assert new.read()["a.rq_active"] == 3
    new.registry.forget_carried_gauges()
    assert new.read()["a.rq_active"] == 0
