"""A worker is killed under HTTP load: whose connections break, who serves what waits, and what the figures say meanwhile."""

import http.client
import os
import signal
import socket
import threading

import psutil
import pytest

from tests.support import bootstrap as b
from tests.support.forkproxy import Forkproxy
from tests.support.load import HttpLoad
from tests.support.proxy import free_ports
from tests.support.supervised import until
from tests.support.upstream import ScriptedUpstream

NAMES = ("http.ingress.downstream_rq_total", "http.ingress.downstream_rq_2xx", "cluster.up.upstream_rq_total")


class TwoWorkers(Forkproxy):
    """forkproxy with two worker processes before one upstream that does not die with them."""

    def __init__(self):
        self.upstream = ScriptedUpstream()
        self.ports = dict(zip(("main", "admin"), free_ports(2), strict=True))
        hcm = b.hcm({"virtual_hosts": [b.vhost(b.route("/"))]}, access_log=[])
        data = b.bootstrap([hcm], [b.cluster("up", "up")])
        super().__init__(b.render(data, {**self.ports, "up": self.upstream.port}), admin_port=self.ports["admin"])

    def command(self):
        command = super().command()
        command[command.index("--concurrency") + 1] = "2"
        return command

    def close(self):
        super().close()
        self.upstream.stop()

    def workers(self):
        return self.pids()[1:]

    def peers_of(self, pid):
        """The ports of those who are connected to a worker."""
        found = psutil.Process(pid).net_connections("tcp")
        return {entry.raddr.port for entry in found if entry.raddr and entry.laddr.port == self.ports["main"]}


@pytest.fixture
def proxy():
    running = TwoWorkers()
    running.start()
    yield running
    running.close()


class Samples:
    """Reads the counters all the time; ``went_back`` has those that were ever less than before."""

    def __init__(self, proxy):
        self._proxy = proxy
        self.count = 0
        self.went_back = []
        self.last = dict.fromkeys(NAMES, 0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="samples")

    def _run(self):
        while not self._stop.is_set():
            counters = self._proxy.counters()
            found = {name: counters[name] for name in NAMES}
            self.went_back += [
                (name, self.last[name], value) for name, value in found.items() if value < self.last[name]
            ]
            self.last = found
            self.count += 1

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._stop.set()
        self._thread.join()


def test_only_the_killed_worker_s_connections_break_and_no_counter_goes_back(proxy):
    with HttpLoad(proxy.ports["main"], count=24) as load:
        until(lambda: load.done > 300)
        victim, other = proxy.workers()
        lost, kept = proxy.peers_of(victim), proxy.peers_of(other)
        assert len(lost | kept) == 24
        with Samples(proxy) as samples:
            until(lambda: samples.count > 3)
            os.kill(victim, signal.SIGKILL)
            until(lambda: victim not in proxy.workers() and len(proxy.workers()) == 2)
            done, count = load.done, samples.count
            until(lambda: load.done > done + 200 and samples.count > count + 3)
    assert {failure.port for failure in load.failures} == lost
    assert len(load.failures) == len(lost)
    assert samples.went_back == []
    assert samples.last[NAMES[0]] > 500


def test_what_waits_in_the_killed_worker_s_queue_is_served(proxy):
    # Both are stopped, so that connections wait in both queues; one of them never gets to them.
    victim, other = proxy.workers()
    for pid in (victim, other):
        os.kill(pid, signal.SIGSTOP)
    socks = [socket.create_connection(("127.0.0.1", proxy.ports["main"]), timeout=10) for _ in range(40)]
    for sock in socks:
        sock.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    os.kill(victim, signal.SIGKILL)
    os.kill(other, signal.SIGCONT)
    statuses = []
    for sock in socks:
        with sock:
            answer = http.client.HTTPResponse(sock)
            answer.begin()
            statuses.append((answer.status, answer.read()))
    assert statuses == [(200, b"ok")] * 40
