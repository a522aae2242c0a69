"""Health flags: what follows from them, and how a cluster keeps them."""

import pytest

from forkproxy.upstream import health, load_balancer
from forkproxy.upstream.endpoint import ResolvedEndpoint
from tests.support.fakes import FakeLoop
from tests.support.playbook import cluster_config, endpoint, make_cluster


@pytest.mark.parametrize(
    ("flags", "state", "names"),
    [
        (0, health.HEALTHY, ()),
        (health.FAILED_ACTIVE_HC, health.UNHEALTHY, ("/failed_active_hc",)),
        (health.FAILED_OUTLIER_CHECK, health.UNHEALTHY, ("/failed_outlier_check",)),
        (health.FAILED_EDS_HEALTH, health.UNHEALTHY, ("/failed_eds_health",)),
        (health.EDS_STATUS_DRAINING, health.UNHEALTHY, ("/eds_status_draining",)),
        (health.DEGRADED_ACTIVE_HC, health.DEGRADED, ("/degraded_active_hc",)),
        (health.DEGRADED_EDS_HEALTH, health.DEGRADED, ("/degraded_eds_health",)),
        (health.PENDING_ACTIVE_HC, health.HEALTHY, ("/pending_active_hc",)),
        (health.EXCLUDED_VIA_IMMEDIATE_HC_FAIL, health.HEALTHY, ("/excluded_via_immediate_hc_fail",)),
        (
            health.DEGRADED_EDS_HEALTH | health.FAILED_ACTIVE_HC | health.ACTIVE_HC_TIMEOUT,
            health.UNHEALTHY,
            ("/failed_active_hc", "/degraded_eds_health", "/active_hc_timeout"),
        ),
    ],
)
def test_what_follows_from_flags(flags, state, names):
    assert health.coarse(flags) == state
    assert health.names(flags) == names


@pytest.mark.parametrize(
    ("status", "flags"),
    [
        ("UNKNOWN", 0),
        ("HEALTHY", 0),
        ("UNHEALTHY", health.FAILED_EDS_HEALTH),
        ("TIMEOUT", health.FAILED_EDS_HEALTH),
        ("DRAINING", health.EDS_STATUS_DRAINING),
        ("DEGRADED", health.DEGRADED_EDS_HEALTH),
    ],
)
def test_configured_status(status, flags):
    cluster = make_cluster(cluster_config(endpoints=[endpoint(1, health_status=status)]))
    assert cluster.endpoints[0].health_flags == flags


def counts(cluster):
    stats = cluster.stats
    return (
        stats.membership_total,
        stats.membership_healthy,
        stats.membership_degraded,
        stats.membership_excluded,
    )


def addresses(cluster):
    return [each.address for each in cluster.endpoints]


def picked(cluster, number=12):
    return {cluster.pick().address for _ in range(number)}


ONE, TWO, THREE = "192.0.2.10:80", "192.0.2.11:80", "192.0.2.12:80"


def test_membership_is_counted_with_every_change():
    cluster = make_cluster(cluster_config(endpoints=3))
    assert counts(cluster) == (3, 3, 0, 0)
    assert cluster.set_health_flags(ONE, set=health.FAILED_ACTIVE_HC)
    assert cluster.set_health_flags(TWO, set=health.DEGRADED_ACTIVE_HC)
    assert cluster.set_health_flags(THREE, set=health.PENDING_ACTIVE_HC)
    assert counts(cluster) == (3, 1, 1, 1)
    assert cluster.set_health_flags(ONE, clear=health.FAILED_ACTIVE_HC)
    assert cluster.set_health_flags(TWO, set=health.FAILED_OUTLIER_CHECK)
    assert cluster.set_health_flags(THREE, clear=health.PENDING_ACTIVE_HC | health.FAILED_ACTIVE_HC)
    assert counts(cluster) == (3, 2, 0, 0)


def test_nothing_changes():
    cluster = make_cluster(cluster_config(endpoints=2))
    cluster.pick()
    compiled = cluster.pick
    assert not cluster.set_health_flags("192.0.2.99:80", set=health.FAILED_ACTIVE_HC)
    assert not cluster.set_health_flags(ONE, clear=health.FAILED_ACTIVE_HC)
    assert cluster.pick is compiled


def test_picks_follow_and_many_changes_cost_one_picker(monkeypatch):
    compiled = []
    real = load_balancer.make_balancer
    monkeypatch.setattr(load_balancer, "make_balancer", lambda *args: compiled.append(args) or real(*args))
    cluster = make_cluster(cluster_config(endpoints=3))
    cluster.start(FakeLoop())
    assert compiled == []
    assert picked(cluster) == {ONE, TWO, THREE}
    for flag in (health.FAILED_ACTIVE_HC, health.ACTIVE_HC_TIMEOUT, health.FAILED_OUTLIER_CHECK):
        cluster.set_health_flags(TWO, set=flag)
    assert picked(cluster) == {ONE, THREE}
    assert len(compiled) == 2


def test_an_endpoint_that_changes_keeps_what_was_found_out():
    cluster = make_cluster(cluster_config(endpoints=2))
    cluster.set_health_flags(ONE, set=health.FAILED_ACTIVE_HC)
    cluster.set_endpoints(
        [ResolvedEndpoint(("192.0.2.10", 80), weight=5), ResolvedEndpoint(("192.0.2.11", 80), health_status="DEGRADED")]
    )
    assert [each.health_flags for each in cluster.endpoints] == [health.FAILED_ACTIVE_HC, health.DEGRADED_EDS_HEALTH]
    assert counts(cluster) == (2, 0, 1, 0)


def test_new_endpoints_and_who_is_told_of_them():
    cluster = make_cluster(cluster_config(endpoints=2), slots=4)
    told = []
    cluster.on_membership_change = lambda *change: told.append(change)
    cluster.initial_health_flags = health.FAILED_ACTIVE_HC | health.PENDING_ACTIVE_HC
    kept, gone = cluster.endpoints
    cluster.set_endpoints([kept.config, ResolvedEndpoint(("192.0.2.77", 80))])
    new = cluster.endpoints[1]
    assert (kept.health_flags, new.health_flags) == (0, cluster.initial_health_flags)
    cluster.set_endpoints([kept.config, new.config])
    assert told == [(cluster, [new], [gone])]


def test_endpoints_that_pass_their_checks_stay_when_they_are_no_longer_listed():
    cluster = make_cluster(cluster_config(endpoints=3))
    cluster.keeps_healthy = True
    first, second, third = cluster.endpoints
    cluster.set_health_flags(THREE, set=health.FAILED_ACTIVE_HC)
    cluster.set_endpoints([first.config])
    assert cluster.endpoints == [first, second]
    assert (first.health_flags, second.health_flags) == (0, health.PENDING_DYNAMIC_REMOVAL)
    assert (second.pool.draining, third.pool.draining) == (False, True)
    cluster.set_endpoints([first.config, second.config])
    assert second.health_flags == 0
    cluster.set_endpoints([first.config])
    cluster.set_health_flags(ONE, set=health.FAILED_ACTIVE_HC)
    assert cluster.endpoints == [first, second]
    cluster.set_health_flags(TWO, set=health.FAILED_ACTIVE_HC)
    assert cluster.endpoints == [first]
    assert counts(cluster) == (1, 0, 0, 0)
    assert second.pool.draining


def test_a_reload_keeps_what_was_found_out_of_unchanged_clusters():
    before = make_cluster(cluster_config(endpoints=2))
    before.set_health_flags(ONE, set=health.FAILED_ACTIVE_HC | health.ACTIVE_HC_TIMEOUT)
    same = make_cluster(cluster_config(endpoints=2))
    same.adopt_health(before)
    assert [each.health_flags for each in same.endpoints] == [health.FAILED_ACTIVE_HC | health.ACTIVE_HC_TIMEOUT, 0]
    assert counts(same) == (2, 1, 0, 0)
    assert picked(same) == {TWO}
    changed = make_cluster(cluster_config(endpoints=2, connect_timeout_s=77.0))
    changed.adopt_health(before)
    assert counts(changed) == (2, 2, 0, 0)
