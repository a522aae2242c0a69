"""Long connections are shared evenly by the workers, whatever the kernel's hash says."""

import contextlib
import json
import os
import re
import signal
import socket

import pytest

from tests.integration.test_serving import ANSWER, TwoWorkers
from tests.support import bootstrap as b
from tests.support.proxy import free_ports
from tests.support.supervised import until

EXACT = {"connection_balance_config": {"exact_balance": {}}}


@pytest.fixture
def ports():
    return dict(zip(("main", "admin", "exact"), free_ports(3), strict=True))


@pytest.fixture
def proxy(ports):
    filters = [b.hcm({"virtual_hosts": [b.vhost(ANSWER)]}, access_log=[])]
    exact = {"name": "exact", "address": b.port("exact"), "filter_chains": [{"filters": filters}], **EXACT}
    running = TwoWorkers(b.render(b.bootstrap(filters, [], more_listeners=[exact]), ports), admin_port=ports["admin"])
    running.start()
    yield running
    running.close()


@pytest.fixture
def connect():
    """``connect(port, number)``: so many connections that have been answered once and stay."""
    open_ = []

    def make(port, number):
        made = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(number)]
        open_.extend(made)
        for sock in made:
            sock.sendall(b"GET / HTTP/1.1\r\nhost: h.example\r\n\r\n")
        for sock in made:
            assert sock.recv(4096).startswith(b"HTTP/1.1 200 OK")
        return made

    yield make
    for sock in open_:
        sock.close()


def shares(proxy, port):
    """The connections of each worker, by slot."""
    name = re.compile(rf"listener\.127\.0\.0\.1_{port}\.worker_(\d+)\.downstream_cx_active")
    found = {name.fullmatch(key): value for key, value in proxy.counters().items() if name.fullmatch(key)}
    return [value for _, value in sorted((int(match[1]), value) for match, value in found.items())]


def test_sixty_four_connections_are_shared_evenly(proxy, ports, connect):
    exact = connect(ports["exact"], 64)
    assert shares(proxy, ports["exact"]) == [32, 32]
    # Those that end make room where they were.
    for sock in exact[:20]:
        sock.close()
    until(lambda: sum(shares(proxy, ports["exact"])) == 44)
    connect(ports["exact"], 20)
    assert shares(proxy, ports["exact"]) == [32, 32]
    # Without asking for it, as far as the budget goes.
    connect(ports["main"], 64)
    assert max(shares(proxy, ports["main"])) <= 34


def shown(proxy):
    return [(entry["generation"], entry["state"]) for entry in json.loads(proxy.admin("/workers")[1])["workers"]]


def test_shares_are_even_with_another_worker_and_another_generation(proxy, ports, connect):
    proxy.process.send_signal(signal.SIGTTIN)
    until(lambda: shown(proxy) == [(1, "ready")] * 3)
    connect(ports["exact"], 30)
    assert shares(proxy, ports["exact"]) == [10, 10, 10]
    proxy.process.send_signal(signal.SIGHUP)
    # The third has its turn, too, before the configuration's number of two holds again.
    until(lambda: [each for each in shown(proxy) if each[1] == "ready"] == [(2, "ready")] * 2)
    until(lambda: sum(shares(proxy, ports["exact"])) == 0)
    connect(ports["exact"], 30)
    assert [share for share in shares(proxy, ports["exact"]) if share] == [15, 15]


def test_a_worker_s_death_breaks_only_its_own_connections(proxy, ports, connect):
    connections = connect(ports["exact"], 20)
    os.kill(proxy.pids()[1], signal.SIGKILL)
    until(lambda: shown(proxy) == [(1, "ready")] * 2 and shares(proxy, ports["exact"]) == [0, 10])
    connect(ports["exact"], 10)
    assert shares(proxy, ports["exact"]) == [10, 10]
    alive = 0
    for sock in connections:
        with contextlib.suppress(OSError):
            sock.sendall(b"GET / HTTP/1.1\r\nhost: h.example\r\n\r\n")
            alive += bool(sock.recv(4096))
    assert alive == 10
