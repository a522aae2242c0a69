"""Outlier detection judged over all workers together, kept over a reload and over the death of a worker."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from tests.integration.test_health_checks import TwoWorkers
from tests.support import bootstrap
from tests.support.answering import AnsweringUpstream, http_answer
from tests.support.health_views import counted, flags, wait_for
from tests.support.proxy import free_ports, process_name
from tests.support.wire import Downstream

EJECTED = "/failed_outlier_check"
REQUEST = b"GET /data HTTP/1.1\r\nhost: h\r\n\r\n"


@pytest.fixture
def upstreams():
    with AnsweringUpstream() as first, AnsweringUpstream() as second:
        yield first, second


@pytest.fixture
def start(upstreams):
    running = []

    def starter(endpoints=2, **outliers):
        addresses = [{"socket_address": {"address": "127.0.0.1", "port_value": each.port}} for each in upstreams]
        cluster = bootstrap.cluster(
            "up",
            load_assignment={
                "cluster_name": "up",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": a}} for a in addresses[:endpoints]]}],
            },
            outlier_detection={
                "interval": "60s",
                "base_ejection_time": "60s",
                "max_ejection_percent": 100,
                **outliers,
            },
            common_lb_config={"healthy_panic_threshold": {"value": 0}},
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


class Client:
    """A connection that is kept, and the statuses it was answered with."""

    def __init__(self, proxy):
        self._downstream = Downstream(("127.0.0.1", proxy.main))
        self._asked = 0

    def ask(self):
        self._asked += 1
        before = len(self._downstream.received)
        self._downstream.send(REQUEST)
        assert self._downstream.read_responses(self._asked, [b"GET"] * self._asked)
        return int(self._downstream.received[before + 9 : before + 12])

    def close(self):
        self._downstream.close()


def workers_with_connections(proxy):
    """How many worker processes have a connection of a client."""
    found = 0
    for pid in worker_pids(proxy):
        serving = [each for each in psutil.Process(pid).net_connections("tcp") if each.status == "ESTABLISHED"]
        found += any(each.laddr.port == proxy.main for each in serving)
    return found


def test_failures_of_two_workers_are_one_row(start, upstreams):
    upstreams[0].answer = http_answer(500)
    proxy = start(endpoints=1, consecutive_5xx=6)
    clients = [Client(proxy), Client(proxy)]
    try:
        for client in clients:
            assert client.ask() == 500
        # Connections go to the worker with the fewest: one each.
        assert workers_with_connections(proxy) == 2
        for client in clients * 2:
            assert client.ask() == 500
        wait_for(lambda: flags(proxy), [EJECTED])
        assert [client.ask() for client in clients] == [503, 503]
        assert counted(proxy, "cluster.up.outlier_detection.")["ejections_detected_consecutive_5xx"] == 1
        assert len(upstreams[0].received) == 6
    finally:
        for client in clients:
            client.close()


def test_who_is_ejected_stays_so_over_a_reload_and_a_crash(start, upstreams):
    first, _second = upstreams
    first.answer = http_answer(500)
    proxy = start(consecutive_5xx=1)
    client = Client(proxy)
    statuses = {client.ask() for _ in range(4)}
    client.close()
    assert 500 in statuses
    wait_for(lambda: flags(proxy), [EJECTED, "healthy"])
    received = len(first.received)
    for pid in worker_pids(proxy):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: len(worker_pids(proxy)), 2)
    serves_well(proxy)
    proxy.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "reloaded generation=2" in proxy.output(), True)
    serves_well(proxy)
    assert len(first.received) == received
    assert flags(proxy) == [EJECTED, "healthy"]
    assert counted(proxy, "cluster.up.outlier_detection.")["ejections_active"] == 1


def worker_pids(proxy):
    return [pid for pid in proxy.pids() if process_name(pid).startswith("forkproxy:w")]


def serves_well(proxy):
    for _ in range(4):
        client = Client(proxy)
        assert client.ask() == 200
        client.close()


def test_the_end_of_an_interval_takes_back_in_all_workers(start, upstreams):
    first, _second = upstreams
    first.answer = http_answer(500)
    proxy = start(consecutive_5xx=1, interval="0.2s", base_ejection_time="0.5s")
    client = Client(proxy)
    wait_for(lambda: client.ask(), 500)
    wait_for(lambda: counted(proxy, "cluster.up.outlier_detection.").get("ejections_total"), 1)
    first.answer = http_answer(200)
    wait_for(lambda: flags(proxy), ["healthy", "healthy"])
    received = len(first.received)
    wait_for(lambda: client.ask() == 200 and len(first.received) > received, True)
    client.close()
