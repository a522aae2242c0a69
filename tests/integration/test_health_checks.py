"""Health checks once per machine: one view for all workers, kept over a crash of the checker and over a reload."""

from __future__ import annotations

import os
import signal

import pytest

from tests.support import bootstrap
from tests.support.answering import AnsweringUpstream, http_answer
from tests.support.forkproxy import Forkproxy
from tests.support.health_views import counted, flags, wait_for
from tests.support.proxy import free_ports, process_name
from tests.support.wire import Downstream

FAILED = "/failed_active_hc"
CHECK = {
    "timeout": "2s",
    "interval": "0.1s",
    "no_traffic_interval": "0.1s",
    "unhealthy_threshold": 1,
    "healthy_threshold": 1,
    "http_health_check": {"path": "/health"},
}


class TwoWorkers(Forkproxy):
    def command(self):
        command = super().command()
        command[command.index("--concurrency") + 1] = "2"
        command[command.index("warning")] = "info"
        return command


@pytest.fixture
def upstreams():
    with AnsweringUpstream() as first, AnsweringUpstream() as second:
        yield first, second


@pytest.fixture
def start(upstreams):
    running = []

    def starter(**check):
        addresses = [{"socket_address": {"address": "127.0.0.1", "port_value": each.port}} for each in upstreams]
        endpoints = [{"endpoint": {"address": address}} for address in addresses]
        cluster = bootstrap.cluster(
            "up",
            load_assignment={"cluster_name": "up", "endpoints": [{"lb_endpoints": endpoints}]},
            health_checks=[{**CHECK, **check}],
        )
        data = bootstrap.bootstrap(
            [bootstrap.hcm({"virtual_hosts": [bootstrap.vhost(bootstrap.route("/", "up"))]})], [cluster]
        )
        main, admin = free_ports(2)
        proxy = TwoWorkers(bootstrap.render(data, {"main": main, "admin": admin}), admin_port=admin)
        proxy.main = main
        proxy.start()
        running.append(proxy)
        return proxy

    yield starter
    for proxy in running:
        proxy.stop()
        proxy.close()


def checkers(proxy):
    """The pids of the processes that check."""
    return [pid for pid in proxy.pids() if process_name(pid) == "forkproxy:hc"]


def ask(proxy, times):
    """Each on a connection of its own, so that both workers have some."""
    statuses = []
    for _ in range(times):
        with Downstream(("127.0.0.1", proxy.main)) as downstream:
            downstream.send(b"GET /data HTTP/1.1\r\nhost: h\r\n\r\n")
            assert downstream.read_responses(1, [b"GET"])
            statuses.append(bytes(downstream.received[9:12]))
    return statuses


def test_two_workers_have_one_view(start, upstreams):
    first, second = upstreams
    proxy = start()
    assert len(checkers(proxy)) == 1
    wait_for(lambda: len(second.received) > 3, True)
    assert first.connections == second.connections == 1
    first.answer = lambda data: http_answer(503 if b"/health" in data else 200)
    wait_for(lambda: flags(proxy), [FAILED, "healthy"])
    before = sum(b"/data" in data for data in first.received)
    assert ask(proxy, 20) == [b"200"] * 20
    assert sum(b"/data" in data for data in first.received) == before
    wait_for(lambda: counted(proxy, "cluster.up.")["membership_healthy"], 1)
    first.answer = http_answer(200)
    wait_for(lambda: flags(proxy), ["healthy", "healthy"])
    assert ask(proxy, 20) == [b"200"] * 20
    assert sum(b"/data" in data for data in first.received) > before


def test_a_checker_that_is_killed_is_replaced_and_nothing_is_forgotten(start, upstreams):
    first, second = upstreams
    proxy = start(healthy_threshold=50, interval="0.05s", no_traffic_interval="0.05s")
    first.answer = http_answer(503)
    wait_for(lambda: flags(proxy), [FAILED, "healthy"])
    attempts = counted(proxy, "cluster.up.health_check.")["attempt"]
    (pid,) = checkers(proxy)
    os.kill(pid, signal.SIGKILL)
    first.answer = http_answer(200)
    wait_for(lambda: [each for each in checkers(proxy) if each != pid] != [], True)
    received = len(second.received)
    wait_for(lambda: len(second.received) > received, True)
    # A checker that knew nothing would take the first good answer for enough.
    assert flags(proxy) == [FAILED, "healthy"]
    wait_for(lambda: flags(proxy), ["healthy", "healthy"])
    assert counted(proxy, "cluster.up.health_check.")["attempt"] > attempts
    assert "the health checker died" in proxy.output()


def test_what_is_known_survives_a_reload(start, upstreams):
    first, second = upstreams
    proxy = start(unhealthy_threshold=1000, healthy_threshold=1000)
    assert flags(proxy) == ["healthy", "healthy"]
    first.answer = http_answer(503)
    wait_for(lambda: flags(proxy), [FAILED, "healthy"])
    second.down()
    first.answer = http_answer(200)
    (pid,) = checkers(proxy)
    proxy.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "reloaded generation=2" in proxy.output(), True)
    wait_for(lambda: pid in checkers(proxy), False)
    assert flags(proxy) == [FAILED, "healthy"]
    assert ask(proxy, 4) == [b"503"] * 4


def test_events_are_written_at_the_end_too(start, upstreams):
    proxy = start(event_log_path="@DIR@/events.log")
    upstreams[0].answer = http_answer(503)
    wait_for(lambda: flags(proxy), [FAILED, "healthy"])
    proxy.stop()
    assert proxy.access_log("events.log").count("eject_unhealthy_event") == 1
