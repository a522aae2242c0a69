"""When an endpoint is checked, and what results add up to."""

import pytest

from forkproxy.upstream import health
from tests.support.health_checks import Rig

FAILED = ("/failed_active_hc",)


def test_the_first_good_check_decides_at_once():
    rig = Rig(healthy_threshold=5).start()
    assert rig.flags() == FAILED
    rig.succeed()
    assert rig.flags() == ()
    assert rig.told == [("192.0.2.10:80", ()), "round"]
    assert rig.events() == [("add_healthy_event", {"first_check": True})]
    assert rig.stats == {"attempt": 1, "success": 1, "healthy": 1}


def test_the_first_bad_check_ends_the_round_too():
    rig = Rig().start()
    rig.fail()
    assert rig.told == ["round"]
    assert rig.flags() == FAILED
    failure = {"failure_type": "NETWORK", "first_check": True, "http_status_code": 0}
    assert rig.events() == [("health_check_failure_event", failure)]
    assert rig.stats == {"attempt": 1, "failure": 1, "network_failure": 1}


def check(rig, good):
    rig.loop.advance(rig.due_s())
    if good:
        rig.succeed()
    else:
        rig.fail()


def test_failures_count_up_to_the_threshold_and_a_success_begins_anew():
    rig = Rig(flags=0).start(is_known=True)
    rig.fail()
    check(rig, True)
    check(rig, False)
    assert rig.flags() == ()
    check(rig, False)
    assert rig.flags() == FAILED
    assert rig.told == [("192.0.2.10:80", FAILED)]
    assert rig.events() == [("eject_unhealthy_event", {"failure_type": "NETWORK", "http_status_code": 0})]
    assert rig.stats == {"attempt": 4, "failure": 3, "network_failure": 3, "success": 1}


def test_after_the_first_time_successes_count_up_to_the_threshold():
    rig = Rig().start()
    rig.fail()
    check(rig, True)
    assert rig.flags() == FAILED
    check(rig, False)
    check(rig, True)
    assert rig.flags() == FAILED
    check(rig, True)
    assert rig.flags() == ()
    assert rig.events()[1:] == [("add_healthy_event", {"first_check": False})]


def test_a_process_that_follows_another_knows_what_that_one_knew():
    rig = Rig(flags=health.FAILED_ACTIVE_HC).start(is_known=True)
    rig.succeed()
    assert rig.flags() == FAILED
    check(rig, True)
    assert rig.flags() == ()
    assert "round" not in rig.told
    assert rig.events() == [("add_healthy_event", {"first_check": False})]


def test_a_check_that_takes_too_long_fails():
    rig = Rig(flags=0, unhealthy_threshold=1).start(is_known=True)
    rig.loop.advance(0.999)
    assert rig.stats == {"attempt": 1, "healthy": 1}
    rig.loop.advance(0.002)
    assert rig.last.closed
    assert rig.flags() == ("/failed_active_hc", "/active_hc_timeout")
    assert rig.events() == [("eject_unhealthy_event", {"failure_type": "NETWORK_TIMEOUT", "http_status_code": 0})]
    check(rig, False)
    assert rig.flags() == FAILED


@pytest.mark.parametrize(
    ("flags", "results", "due_s"),
    [
        (0, [True], 10.0),
        (0, [False], 25.0),
        (0, [False, False], 20.0),
        (0, [False, False, False], 20.0),
        (health.FAILED_ACTIVE_HC, [True], 15.0),
        (health.FAILED_ACTIVE_HC, [True, True], 10.0),
    ],
)
def test_intervals(flags, results, due_s):
    rig = Rig(flags=flags).start(is_known=True)
    rig.succeed() if results[0] else rig.fail()
    for good in results[1:]:
        check(rig, good)
    assert rig.due_s() == due_s


def test_without_traffic_the_intervals_are_others():
    rig = Rig(traffic=False, no_traffic_interval_s=7.0, no_traffic_healthy_interval_s=70.0).start()
    rig.fail()
    assert rig.due_s() == 7.0
    check(rig, True)
    assert rig.due_s() == 7.0
    check(rig, True)
    assert rig.due_s() == 70.0


def test_jitter(monkeypatch):
    monkeypatch.setattr("random.random", lambda: 0.5)
    rig = Rig(initial_jitter_s=3.0, interval_jitter_s=4.0, interval_jitter_percent=10)
    rig.start()
    assert not rig.connections
    assert rig.due_s() == 1.5
    rig.loop.advance(1.5)
    rig.succeed()
    assert rig.due_s() == 10.0 + 0.5 + 2.0


def test_a_refusal_on_the_spot_fails_the_check():
    rig = Rig()
    rig.refuse = OSError(101, "unreachable")
    rig.start()
    assert rig.stats == {"attempt": 1, "failure": 1, "network_failure": 1}
    assert rig.due_s() == 20.0
    rig.refuse = None
    check(rig, True)
    assert rig.stats["success"] == 1


def test_what_is_always_logged():
    rig = Rig(flags=0, always_log_failures=True, always_log_success=True).start(is_known=True)
    rig.succeed()
    check(rig, False)
    failure = {"failure_type": "NETWORK", "first_check": False, "http_status_code": 0}
    assert rig.events() == [("successful_health_check_event", {}), ("health_check_failure_event", failure)]


def test_the_round_is_over_when_the_last_endpoint_has_a_result():
    rig = Rig(endpoints=2).start()
    rig.connections[0].connect()
    assert "round" not in rig.told
    rig.connections[1].peer_closes()
    assert rig.told[-1] == "round"


def test_a_pending_endpoint_is_counted_after_its_first_check():
    rig = Rig(flags=health.FAILED_ACTIVE_HC | health.PENDING_ACTIVE_HC).start()
    assert rig.flags() == ("/failed_active_hc", "/pending_active_hc")
    rig.fail()
    assert rig.told == [("192.0.2.10:80", FAILED), "round"]


def test_a_response_elsewhere_can_fail_an_endpoint_at_once():
    rig = Rig(flags=0).start(is_known=True)
    rig.succeed()
    rig.checker.fail_passively("192.0.2.10:80")
    assert rig.flags() == ("/failed_active_hc", "/excluded_via_immediate_hc_fail")
    assert rig.stats == {"attempt": 1, "success": 1, "failure": 1, "passive_failure": 1}
    assert rig.due_s() == 10.0
    check(rig, True)
    check(rig, True)
    assert rig.flags() == ()
    rig.checker.fail_passively("192.0.2.99:80")


def test_outlier_detection_hears_of_good_checks_of_what_it_ejected():
    rig = Rig(flags=0).start(is_known=True)
    rig.succeed()
    assert rig.told == []
    rig.checker.watch_ejected("192.0.2.10:80", True)
    check(rig, True)
    assert rig.told == [("passed", "192.0.2.10:80")]
    rig.checker.watch_ejected("192.0.2.10:80", False)
    check(rig, True)
    assert len(rig.told) == 1


def test_endpoints_come_and_go():
    rig = Rig(endpoints=2).start()
    _first, second = rig.cluster.endpoints
    rig.cluster.initial_health_flags = health.FAILED_ACTIVE_HC
    rig.connections[0].connect()
    rig.cluster.set_endpoints([second.config, type(second.config)(("192.0.2.77", 80))])
    assert rig.stats["attempt"] == 3
    assert "healthy" not in rig.stats
    assert [c.endpoint.address for c in rig.connections] == ["192.0.2.10:80", "192.0.2.11:80", "192.0.2.77:80"]
    rig.connections[1].connect()
    assert "round" not in rig.told
    rig.connections[2].connect()
    assert rig.told[-1] == "round"
    assert rig.stats["healthy"] == 2
    assert [each.address for each in rig.checker.sessions] == ["192.0.2.11:80", "192.0.2.77:80"]


def test_an_endpoint_that_goes_is_not_waited_for():
    rig = Rig(endpoints=2).start()
    rig.connections[0].connect()
    rig.cluster.set_endpoints([rig.cluster.endpoints[0].config])
    assert rig.connections[1].closed
    assert rig.told[-1] == "round"


def test_a_repr_tells_the_state():
    rig = Rig().start()
    (session,) = rig.checker.sessions.values()
    assert repr(session) == "<Session 192.0.2.10:80 /failed_active_hc>"
    assert repr(rig.checker) == "<HealthChecker up 1 endpoints>"


@pytest.mark.parametrize(("fields", "due_s"), [({"min_interval_s": 30.0}, 30.0), ({"max_interval_s": 3.0}, 3.0)])
def test_bounds_of_all_intervals(fields, due_s):
    rig = Rig(flags=0, **fields).start(is_known=True)
    rig.succeed()
    assert rig.due_s() == due_s


def test_an_endpoint_that_is_gone_is_not_checked_again():
    rig = Rig(endpoints=2, flags=0).start(is_known=True)
    rig.succeed()
    rig.connections[0].connect()
    rig.cluster.keeps_healthy = False
    rig.cluster.set_endpoints([rig.cluster.endpoints[0].config])
    made = len(rig.connections)
    rig.loop.advance(9.0)
    assert len(rig.connections) == made
    rig.loop.advance(1.0)
    assert len(rig.connections) == made + 1
    rig.loop.advance(0.5)
    assert rig.stats["attempt"] == 3


def test_who_recovers_has_nothing_against_it():
    everything = health.FAILED_ACTIVE_HC | health.ACTIVE_HC_TIMEOUT | health.EXCLUDED_VIA_IMMEDIATE_HC_FAIL
    rig = Rig(flags=everything, healthy_threshold=1).start(is_known=True)
    rig.succeed()
    assert rig.flags() == ()


def test_a_check_of_an_endpoint_that_goes_has_no_result():
    rig = Rig(endpoints=2, flags=0).start(is_known=True)
    rig.succeed()
    rig.cluster.keeps_healthy = False
    first, second = rig.connections
    assert not first.closed
    rig.cluster.set_endpoints([rig.cluster.endpoints[1].config])
    assert first.closed
    rig.loop.advance(5.0)
    assert rig.stats == {"attempt": 2, "success": 1, "healthy": 1}
    assert second.closed
