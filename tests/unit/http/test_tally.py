"""Where a response counts besides its cluster's plain figures."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from forkproxy.http.tally import Tally
from forkproxy.stats.dynamic import DynamicStats
from forkproxy.stats.groups import ClusterStats, RequestsStats


@pytest.fixture
def cluster():
    return SimpleNamespace(stat_name="web", stats=ClusterStats())


@pytest.fixture
def tally():
    made = Tally()
    made.dynamic = DynamicStats()
    return made


def endpoint(zone=""):
    return SimpleNamespace(config=SimpleNamespace(zone=zone))


def test_an_external_response(tally, cluster):
    tally.response(cluster, endpoint(), 200)
    tally.time(cluster, endpoint(), 5)
    assert cluster.stats.external__upstream_rq == {200: 1}
    assert cluster.stats.external__upstream_rq_time == {5: 1}
    others = (cluster.stats.internal__upstream_rq, cluster.stats.canary__upstream_rq, tally.dynamic.counters)
    assert not any(others)


def test_an_internal_response_of_a_canary(tally, cluster):
    tally.is_internal = tally.is_canary = True
    tally.response(cluster, endpoint(), 503)
    tally.time(cluster, endpoint(), 5)
    stats = cluster.stats
    assert stats.internal__upstream_rq == stats.canary__upstream_rq == {503: 1}
    assert stats.internal__upstream_rq_time == stats.canary__upstream_rq_time == {5: 1}
    assert not any((stats.external__upstream_rq, stats.external__upstream_rq_time))


def test_groups(tally, cluster):
    tally.groups = groups = (RequestsStats(), RequestsStats())
    tally.begin()
    tally.response(cluster, None, 404)
    tally.time(cluster, endpoint(), 5)
    tally.timeout()
    for group in groups:
        assert (group.upstream_rq_total, group.upstream_rq_timeout) == (1, 1)
        assert (group.upstream_rq, group.upstream_rq_time) == ({404: 1}, {5: 1})


def test_zones(tally, cluster):
    tally.zone = "here"
    tally.response(cluster, endpoint("there"), 204)
    tally.response(cluster, endpoint(), 204)
    tally.response(cluster, None, 503)
    assert tally.dynamic.counters == {
        "cluster.web.zone.here.there.upstream_rq_204": 1,
        "cluster.web.zone.here.there.upstream_rq_2xx": 1,
        "cluster.web.zone.here.there.upstream_rq_completed": 1,
    }


def test_an_alternative_name(tally, cluster):
    tally.alternative = "alt"
    tally.zone = "here"
    tally.is_canary = True
    tally.response(cluster, endpoint("there"), 700)
    names = {f"cluster.web.alt.{each}upstream_rq" for each in ("", "external.", "canary.", "zone.here.there.")}
    names.add("cluster.web.zone.here.there.upstream_rq")
    assert tally.dynamic.counters == {name + end: 1 for name in names for end in ("_unknown", "_completed")}
    tally.time(cluster, endpoint("there"), 5)
    assert tally.dynamic.histograms == {f"{name}_time": {5: 1} for name in names}


def test_plain_figures_without_the_status(tally, cluster):
    tally.hides_codes = True
    tally.groups = (group,) = (RequestsStats(),)
    tally.response(cluster, endpoint(), 503)
    tally.retried(cluster, 503)
    assert tally.dynamic.counters == {
        "cluster.web.upstream_rq_completed": 1,
        "cluster.web.external.upstream_rq_503": 1,
        "cluster.web.external.upstream_rq_5xx": 1,
        "cluster.web.external.upstream_rq_completed": 1,
        "cluster.web.retry.upstream_rq_completed": 1,
    }
    assert group.upstream_rq == {503: 1}
    assert not any((cluster.stats.external__upstream_rq, cluster.stats.retry__upstream_rq))


def test_a_response_that_is_retried(tally, cluster):
    tally.retried(cluster, 503)
    assert cluster.stats.retry__upstream_rq == {503: 1}
