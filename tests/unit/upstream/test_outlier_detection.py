"""What results make of an endpoint, who is ejected, and for how long."""

import json
from dataclasses import replace

import pytest

from forkproxy.config.build.outlier_detection import OutlierDetectionConfig
from forkproxy.stats.groups import OutlierDetectionStats
from forkproxy.stats.shared import SharedCells
from forkproxy.upstream import health
from forkproxy.upstream.endpoint import ResolvedEndpoint
from forkproxy.upstream.outlier_detection import (
    CONSECUTIVE_5XX,
    CONSECUTIVE_GATEWAY_FAILURE,
    CONSECUTIVE_LOCAL_ORIGIN_FAILURE,
    Detector,
    EndpointCells,
    Watch,
)
from tests.support.playbook import cluster_config, make_cluster

CONFIG = OutlierDetectionConfig(max_ejection_percent=100)


class Rig:
    """A cluster whose results the test tells; a message of a worker reaches the detector at once."""

    def __init__(self, endpoints=5, is_checked=False, **fields):
        self.config = replace(CONFIG, **fields)
        self.now = 1000.0
        self.told = []
        self.lines = []
        self.cluster = make_cluster(cluster_config(endpoints=endpoints), slots=endpoints)
        self.shared = SharedCells()
        self.cells = [EndpointCells(self.shared, f"cluster.up.endpoint.{slot}") for slot in range(endpoints)]
        watch = Watch("up", self.config, self.cells, is_checked=is_checked)
        watch.send = self.on_message
        self.cluster.watch_results(watch)
        self.messages = []
        self.detector = self.make_detector()

    def make_detector(self):
        return Detector(
            self.cluster,
            self.config,
            self.cells,
            OutlierDetectionStats(),
            set_ejected=self.set_ejected,
            now=lambda: self.now,
            wall=lambda: 1_700_000_000.0 + self.now,
            log=self.lines.append,
        )

    def on_message(self, message):
        self.messages.append(message)
        if message["op"] == "outlier":
            self.detector.on_consecutive(message["address"], message["kind"])

    def set_ejected(self, address, ejected):
        self.told.append((address, ejected))
        flag = health.FAILED_OUTLIER_CHECK
        self.cluster.set_health_flags(address, set=flag if ejected else 0, clear=0 if ejected else flag)

    def monitor(self, index=0):
        return self.cluster.endpoints[index].monitor

    def respond(self, *statuses, index=0, headers=()):
        for status in statuses:
            self.monitor(index).on_response(status, list(headers))

    def interval(self, seconds=10.0):
        self.now += seconds
        self.detector.on_interval()

    @property
    def kinds(self):
        return [message["kind"] for message in self.messages]

    @property
    def ejected(self):
        return [index for index, each in enumerate(self.cluster.endpoints) if each.health_flags]

    @property
    def stats(self):
        stats = self.detector.stats
        return {
            name.removeprefix("ejections_"): getattr(stats, name) for name in type(stats).fields if getattr(stats, name)
        }

    def events(self):
        return [json.loads(line) for line in self.lines]


# -- rows of failures


def test_failures_in_a_row_eject():
    rig = Rig(consecutive_5xx=3)
    rig.respond(500, 500, 200, 500, 500)
    assert rig.kinds == []
    rig.respond(500)
    assert rig.kinds == [CONSECUTIVE_5XX]
    assert rig.ejected == [0]
    assert rig.stats == {
        "active": 1,
        "consecutive_5xx": 1,
        "detected_consecutive_5xx": 1,
        "enforced_consecutive_5xx": 1,
        "enforced_total": 1,
        "total": 1,
    }


def test_gateway_failures_are_a_row_of_their_own():
    rig = Rig(consecutive_5xx=100, consecutive_gateway_failure=3, enforcing_consecutive_gateway_failure=100)
    rig.respond(502, 503, 500, 503, 504)
    assert rig.kinds == []
    rig.respond(502)
    assert rig.kinds == [CONSECUTIVE_GATEWAY_FAILURE]
    assert rig.ejected == [0]


@pytest.mark.parametrize("connected", [True, False])
def test_without_a_split_failures_count_as_responses(connected):
    rig = Rig(consecutive_5xx=3)
    rig.monitor().on_reset(connected=connected)
    rig.monitor().on_timeout(connected=connected)
    rig.respond(500)
    assert rig.kinds == [CONSECUTIVE_5XX]


def test_a_tcp_connection_is_a_success():
    rig = Rig(consecutive_5xx=2)
    rig.monitor().on_reset(connected=False)
    rig.monitor().on_connected()
    rig.monitor().on_reset(connected=False)
    assert rig.kinds == []


def test_with_a_split_failures_to_connect_count_apart():
    rig = Rig(split_local_origin=True, consecutive_5xx=2, consecutive_local_origin_failure=2)
    rig.monitor().on_reset(connected=False)
    rig.monitor().on_connected()
    rig.monitor().on_timeout(connected=False)
    rig.respond(500)
    rig.monitor().on_reset(connected=False)
    rig.respond(200)
    assert rig.kinds == []
    rig.monitor().on_reset(connected=False)
    rig.monitor().on_timeout(connected=False)
    assert rig.kinds == [CONSECUTIVE_LOCAL_ORIGIN_FAILURE]
    assert rig.ejected == [0]
    assert rig.stats["enforced_consecutive_local_origin_failure"] == 1


def test_with_a_split_a_failure_after_a_connection_begins_the_row_anew():
    rig = Rig(split_local_origin=True, consecutive_local_origin_failure=2)
    for _ in range(5):
        rig.monitor().on_reset(connected=True)
    assert rig.kinds == []


def test_workers_count_together():
    # Two monitors of one endpoint on the same cells: what two workers have.
    rig = Rig(consecutive_5xx=4)
    other = Watch("up", rig.config, rig.cells, is_checked=False)
    other.send = rig.on_message
    second = other.monitor(rig.cluster.endpoints[0], 0)
    rig.respond(500, 500)
    second.on_response(500, [])
    assert rig.kinds == []
    second.on_response(500, [])
    assert rig.kinds == [CONSECUTIVE_5XX]
    rig.detector.on_consecutive("192.0.2.10:80", CONSECUTIVE_5XX)  # the other worker had seen the same
    assert rig.stats["detected_consecutive_5xx"] == 1


def test_a_row_begins_anew_when_it_was_judged():
    rig = Rig(consecutive_5xx=2, enforcing_consecutive_5xx=0)
    rig.respond(500, 500, 500, 500)
    assert rig.kinds == [CONSECUTIVE_5XX] * 2
    assert rig.ejected == []
    assert rig.stats == {"consecutive_5xx": 2, "detected_consecutive_5xx": 2, "total": 2}
    assert [(event["enforced"], event["num_ejections"]) for event in rig.events()] == [(False, 0)] * 2


def test_an_unknown_endpoint_is_nobody():
    rig = Rig()
    rig.detector.on_consecutive("192.0.2.99:80", CONSECUTIVE_5XX)
    rig.detector.on_passed("192.0.2.99:80")
    assert rig.stats == {}


# -- how many, how long


def test_no_more_than_the_percentage_is_ejected():
    rig = Rig(consecutive_5xx=1, max_ejection_percent=40)
    for index in (0, 1, 2):
        rig.respond(500, index=index)
    assert rig.ejected == [0, 1]
    assert rig.stats["overflow"] == 1


@pytest.mark.parametrize(("always", "ejected"), [(False, []), (True, [0])])
def test_one_may_be_ejected_all_the_same(always, ejected):
    rig = Rig(consecutive_5xx=1, max_ejection_percent=10, always_eject_one_endpoint=always)
    rig.respond(500, index=0)
    rig.respond(500, index=1)
    assert rig.ejected == ejected


@pytest.mark.parametrize(("draw", "ejected"), [(0.29, [0]), (0.31, [])])
def test_enforcing_is_a_chance(draw, ejected, monkeypatch):
    monkeypatch.setattr("random.random", lambda: draw)
    rig = Rig(consecutive_5xx=1, enforcing_consecutive_5xx=30)
    rig.respond(500)
    assert rig.ejected == ejected


def test_time_is_up_at_the_end_of_an_interval():
    rig = Rig(consecutive_5xx=1, base_ejection_time_s=25.0)
    rig.respond(500)
    rig.interval()
    rig.interval()
    assert rig.ejected == [0]
    rig.interval()
    assert rig.ejected == []
    assert rig.told == [("192.0.2.10:80", True), ("192.0.2.10:80", False)]
    assert "active" not in rig.stats


def eject_again(rig):
    rig.respond(500)
    waited = 0
    while rig.ejected:
        rig.interval()
        waited += 10
    return waited


def test_each_ejection_is_longer_up_to_the_maximum_and_good_times_are_forgiven():
    rig = Rig(consecutive_5xx=1, base_ejection_time_s=20.0, max_ejection_time_s=50.0)
    # The interval that takes it back is followed by others without failures only at the end.
    assert [eject_again(rig) for _ in range(4)] == [20, 40, 50, 50]
    for _ in range(10):
        rig.interval()
    assert eject_again(rig) == 20


def test_jitter_makes_it_longer(monkeypatch):
    monkeypatch.setattr("random.random", lambda: 0.5)
    rig = Rig(consecutive_5xx=1, base_ejection_time_s=20.0, max_ejection_time_jitter_s=30.0)
    assert eject_again(rig) == 40


def test_a_row_does_not_go_on_after_an_ejection():
    rig = Rig(consecutive_5xx=3, base_ejection_time_s=5.0)
    rig.respond(500, 500, 500, 500, 500)
    rig.interval()
    rig.respond(500)
    assert rig.ejected == []


def test_an_active_health_check_takes_back_unless_it_may_not():
    for unejects, ejected in ((True, []), (False, [0])):
        rig = Rig(consecutive_5xx=1, active_check_unejects=unejects)
        rig.respond(500)
        rig.detector.on_passed("192.0.2.10:80")
        assert rig.ejected == ejected
        rig.detector.on_passed("192.0.2.11:80")


# -- rates

RATES = {
    "consecutive_5xx": 10_000,
    "consecutive_gateway_failure": 10_000,
    "success_rate_request_volume": 10,
    "success_rate_minimum_endpoints": 3,
    "failure_percentage_request_volume": 10,
    "failure_percentage_minimum_endpoints": 3,
}


def rates(failures, requests=20, **fields):
    """A rig after an interval in which endpoint i had ``failures[i]`` failures."""
    rig = Rig(**{**RATES, **fields})
    for index, failed in enumerate(failures):
        rig.respond(*[500] * failed, *[200] * (requests - failed), index=index)
    rig.interval()
    return rig


def test_the_success_rate_that_stands_out_ejects():
    rig = rates([10, 0, 0, 0, 0], success_rate_stdev_factor=1900)
    assert rig.ejected == [0]
    assert (rig.detector.external.mean, rig.detector.external.threshold) == (90.0, 52.0)
    assert rig.detector.records["192.0.2.10:80"].external.rate == 50.0
    assert rig.stats == {
        "active": 1,
        "detected_success_rate": 1,
        "enforced_success_rate": 1,
        "enforced_total": 1,
        "success_rate": 1,
        "total": 1,
    }
    (event,) = rig.events()
    assert event["eject_success_rate_event"] == {
        "host_success_rate": 50,
        "cluster_average_success_rate": 90,
        "cluster_success_rate_ejection_threshold": 52,
    }


def test_when_all_are_bad_nobody_stands_out():
    assert rates([10] * 5).ejected == []


@pytest.mark.parametrize("fields", [{"success_rate_minimum_endpoints": 6}, {"success_rate_request_volume": 21}])
def test_too_few_endpoints_or_requests_are_not_judged(fields):
    rig = rates([20, 0, 0, 0, 0], **fields)
    assert rig.ejected == []
    assert rig.detector.external.mean == -1


def test_an_interval_without_requests_is_unknown():
    rig = rates([10, 0, 0, 0, 0])
    rig.interval()
    assert rig.detector.external.mean == -1
    assert {record.external.rate for record in rig.detector.records.values()} == {-1.0}


def test_the_failure_percentage_ejects():
    rig = rates(
        [17, 16, 0, 0, 0], enforcing_success_rate=0, enforcing_failure_percentage=100, failure_percentage_threshold=85
    )
    assert rig.ejected == [0]
    assert rig.stats["enforced_failure_percentage"] == 1
    assert rig.events()[-1]["eject_failure_percentage_event"] == {"host_success_rate": 15}


def test_local_rates_are_judged_apart():
    rig = Rig(**RATES, split_local_origin=True, consecutive_local_origin_failure=10_000)
    for index in range(5):
        for _ in range(20):
            if index:
                rig.respond(200, index=index)
            else:
                rig.monitor().on_reset(connected=False)
    rig.interval()
    assert rig.ejected == [0]
    assert rig.stats["enforced_local_origin_success_rate"] == 1
    assert rig.detector.local.mean == 80.0


def test_local_failure_percentage():
    rig = Rig(
        **RATES,
        split_local_origin=True,
        consecutive_local_origin_failure=10_000,
        enforcing_local_origin_success_rate=0,
        enforcing_failure_percentage_local_origin=100,
    )
    for index in range(5):
        for _ in range(20):
            rig.monitor(index).on_reset(connected=False) if index < 1 else rig.respond(200, index=index)
    rig.interval()
    assert rig.ejected == [0]
    assert rig.stats["enforced_local_origin_failure_percentage"] == 1


def test_what_was_counted_before_the_detector_is_not_judged():
    rig = Rig(**RATES)
    for index in range(5):
        rig.respond(*[500] * (20 if index == 0 else 0), *[200] * 20, index=index)
    rig.detector = rig.make_detector()
    rig.interval()
    assert rig.ejected == []


def test_a_worker_that_dies_takes_its_counts_and_nobody_is_judged_by_the_rest():
    rig = Rig(**RATES)
    seat = rig.shared.take_seat()
    for index in range(5):
        rig.respond(*[200] * 20, index=index)
    rig.interval()
    rig.shared.free_seat(seat)
    for index in range(5):
        rig.respond(*[500] * (12 if index == 0 else 0), *[200] * 3, index=index)
    rig.interval()
    assert rig.ejected == []


# -- events


def test_events_are_envoys():
    rig = Rig(consecutive_5xx=1, base_ejection_time_s=5.0)
    rig.respond(500)
    rig.now += 2.5
    rig.interval()
    rig.now += 1
    rig.respond(500)
    first, back, again = rig.lines
    assert first == (
        b'{"type":"CONSECUTIVE_5XX","timestamp":"2023-11-14T22:30:00Z","cluster_name":"up","upstream_url":"192.0.2.10:80",'
        b'"action":"EJECT","num_ejections":1,"enforced":true,"eject_consecutive_event":{}}\n'
    )
    assert back == (
        b'{"type":"CONSECUTIVE_5XX","timestamp":"2023-11-14T22:30:12.500Z","secs_since_last_action":"12","cluster_name":"up",'
        b'"upstream_url":"192.0.2.10:80","action":"UNEJECT","num_ejections":1,"enforced":false}\n'
    )
    assert json.loads(again)["secs_since_last_action"] == "1"


# -- who is there


def test_endpoints_come_and_go():
    rig = Rig(endpoints=2, consecutive_5xx=1)
    rig.respond(500)
    assert rig.stats["active"] == 1
    rig.cluster.set_endpoints([rig.cluster.endpoints[1].config, ResolvedEndpoint(("192.0.2.77", 80))])
    rig.detector.look_for_members()
    assert "active" not in rig.stats
    assert sorted(rig.detector.records) == ["192.0.2.11:80", "192.0.2.77:80"]
    rig.respond(500, index=1)
    assert rig.ejected == [1]
    assert repr(rig.detector) == "<Detector up 2 endpoints, 1 ejected>"


def test_who_is_ejected_and_moves_is_taken_back_one_day():
    rig = Rig(endpoints=1, consecutive_5xx=1, base_ejection_time_s=15.0)
    rig.respond(500)
    (endpoint,) = rig.cluster.endpoints
    endpoint.move(ResolvedEndpoint(("192.0.2.77", 80)))
    rig.cluster._by_address = {endpoint.address: [endpoint]}
    rig.interval()
    assert rig.stats["active"] == 1
    rig.interval()
    rig.interval()
    assert rig.told[-1] == ("192.0.2.77:80", False)
    assert rig.ejected == []


def test_a_detector_goes_on_where_another_left_off():
    rig = Rig(consecutive_5xx=1, base_ejection_time_s=15.0)
    rig.respond(500)
    before, rig.detector = rig.detector, rig.make_detector()
    rig.detector.adopt(before)
    assert rig.stats == {"active": 1}
    rig.interval()
    assert rig.ejected == [0]
    rig.interval()
    assert rig.ejected == []


# -- x-envoy-immediate-health-check-fail

FAIL = (b"x-envoy-immediate-health-check-fail", b"1")


def test_a_response_can_fail_the_endpoints_health():
    rig = Rig(is_checked=True)
    rig.respond(200, headers=[FAIL])
    assert rig.messages == [{"op": "immediate_fail", "cluster": "up", "address": "192.0.2.10:80"}]
    rig.cluster.set_health_flags("192.0.2.10:80", set=health.FAILED_ACTIVE_HC | health.EXCLUDED_VIA_IMMEDIATE_HC_FAIL)
    rig.respond(200, headers=[FAIL])
    assert len(rig.messages) == 1


def test_without_health_checks_there_is_nothing_to_fail():
    rig = Rig()
    rig.respond(200, headers=[FAIL])
    assert rig.messages == []


def test_health_checks_alone_look_at_nothing_else():
    cluster = make_cluster(cluster_config())
    messages = []
    watch = Watch("up", None, (), is_checked=True)
    watch.send = messages.append
    cluster.watch_results(watch)
    monitor = cluster.endpoints[0].monitor
    monitor.on_response(500, [])
    monitor.on_reset(connected=False)
    monitor.on_timeout(connected=True)
    monitor.on_connected()
    assert messages == []
    monitor.on_response(200, [(b"x-a", b"b"), FAIL])
    assert len(messages) == 1


def test_one_good_interval_forgives_one_ejection():
    rig = Rig(consecutive_5xx=1, base_ejection_time_s=20.0)
    assert eject_again(rig) == 20
    rig.interval()
    assert eject_again(rig) == 20
    assert eject_again(rig) == 40


@pytest.mark.parametrize(("minimum", "ejected"), [(5, [0]), (6, [])])
def test_just_enough_endpoints(minimum, ejected):
    by_rate = {"success_rate_minimum_endpoints": minimum, "failure_percentage_minimum_endpoints": 100}
    assert rates([20, 0, 0, 0, 0], **by_rate).ejected == ejected
    by_percentage = {
        "failure_percentage_minimum_endpoints": minimum,
        "success_rate_minimum_endpoints": 100,
        "enforcing_failure_percentage": 100,
    }
    assert rates([20, 0, 0, 0, 0], **by_percentage).ejected == ejected


def test_local_results_from_before_the_detector_are_not_judged():
    rig = Rig(**RATES, split_local_origin=True, consecutive_local_origin_failure=10_000)
    for index in range(5):
        for _ in range(20):
            rig.monitor(index).on_reset(connected=False) if index < 1 else rig.respond(200, index=index)
    rig.detector = rig.make_detector()
    rig.interval()
    assert rig.ejected == []


def test_each_row_begins_anew_when_it_was_judged():
    rig = Rig(consecutive_5xx=100, consecutive_gateway_failure=2, enforcing_consecutive_gateway_failure=0)
    rig.respond(503, 503, 503, 503)
    assert rig.kinds == [CONSECUTIVE_GATEWAY_FAILURE] * 2
    rig = Rig(split_local_origin=True, consecutive_local_origin_failure=2, enforcing_consecutive_local_origin_failure=0)
    for _ in range(4):
        rig.monitor().on_reset(connected=False)
    assert rig.kinds == [CONSECUTIVE_LOCAL_ORIGIN_FAILURE] * 2


def test_no_row_goes_on_after_an_ejection():
    rig = Rig(
        split_local_origin=True,
        consecutive_5xx=1,
        consecutive_local_origin_failure=2,
        base_ejection_time_s=5.0,
    )
    rig.monitor().on_reset(connected=False)
    rig.detector.on_consecutive("192.0.2.10:80", CONSECUTIVE_5XX)
    assert rig.ejected == [0]
    rig.interval()
    rig.monitor().on_reset(connected=False)
    assert rig.ejected == []


def test_a_rate_is_known_from_the_lower_of_the_two_volumes_on():
    for requests, known in ((9, -1.0), (10, 100.0)):
        rig = rates([0] * 5, requests=requests, success_rate_request_volume=1000)
        assert rig.detector.records["192.0.2.10:80"].external.rate == known
