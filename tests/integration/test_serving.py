"""The whole program under HTTP load: reloads and crashes, and what the figures say afterwards."""

import http.client
import json
import os
import signal
import socket
import threading

import pytest
import yaml

from tests.integration.test_cli import forkproxy
from tests.support import bootstrap as b
from tests.support.forkproxy import Forkproxy
from tests.support.proxy import free_ports
from tests.support.supervised import until

ANSWER = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "answer"}}}


class TwoWorkers(Forkproxy):
    """forkproxy with two worker processes."""

    def command(self):
        return [argument if argument != "1" or before != "--concurrency" else "2" for before, argument in self._pairs()]

    def _pairs(self):
        command = super().command()
        return zip(["", *command], command, strict=False)


@pytest.fixture
def ports():
    return dict(zip(("main", "admin", "answers"), free_ports(3), strict=True))


@pytest.fixture
def proxy(ports):
    hcm = b.hcm({"virtual_hosts": [b.vhost(b.route("/"))]}, access_log=[])
    answers = b.hcm({"virtual_hosts": [b.vhost(ANSWER)]}, access_log=[], stat_prefix="answers")
    listener = {"name": "answers", "address": b.port("answers"), "filter_chains": [{"filters": [answers]}]}
    data = b.bootstrap([hcm], [b.cluster("up", "answers")], more_listeners=[listener])
    running = TwoWorkers(b.render(data, ports), admin_port=ports["admin"])
    running.start()
    yield running
    running.close()


class Requests:
    """Requests in a thread, on connections that are kept while the proxy keeps them."""

    def __init__(self, port):
        self._port = port
        self.done = 0
        self.failures = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        while not self._stop.is_set():
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                body = answer.read()
                if (answer.status, body) != (200, b"answer"):
                    self.failures.append((answer.status, body))
                self.done += 1
                if answer.will_close:
                    connection.close()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(error)
                connection.close()
        connection.close()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._stop.set()
        self._thread.join()


def workers(proxy):
    """The serving processes, without the supervisor."""
    return proxy.pids()[1:]


def test_reloads_fail_no_request(proxy, ports):
    with Requests(ports["main"]) as first, Requests(ports["main"]) as second:
        for generation in range(2, 6):
            os.kill(proxy.pids()[0], signal.SIGHUP)
            shown = f'"generation": {generation},'.encode()
            until(lambda shown=shown: proxy.admin("/workers")[1].count(shown) == 2)
            done = first.done
            until(lambda done=done: first.done > done + 20)
    assert first.failures + second.failures == []


def test_counters_go_on_over_a_crash_and_a_reload(proxy, ports):
    with Requests(ports["main"]) as load:
        until(lambda: load.done >= 100)
    name = "http.ingress.downstream_rq_total"
    before = proxy.counters()[name]
    assert before >= 100
    old = set(workers(proxy))
    os.kill(min(old), signal.SIGKILL)
    until(lambda: len(set(workers(proxy)) - old) == 1 and len(workers(proxy)) == 2)
    # What the dead worker counted since its last flush is lost with it, no more.
    assert proxy.counters()[name] == before
    os.kill(proxy.pids()[0], signal.SIGHUP)
    until(lambda: not set(workers(proxy)) & old and len(workers(proxy)) == 2)
    assert proxy.counters()[name] == before
    with Requests(ports["main"]) as load:
        until(lambda: load.done >= 10)
    assert proxy.counters()[name] >= before + 10


def test_a_stop_under_load_exits_0(proxy, ports):
    with Requests(ports["main"]) as load:
        until(lambda: load.done >= 50)
        assert proxy.stop() == 0


def test_workers_show_what_they_do(proxy, ports):
    with Requests(ports["main"]) as load:
        until(lambda: load.done >= 10)
        until(lambda: sum(entry["requests_per_s"] for entry in shown_workers(proxy)) > 10)
    for entry in shown_workers(proxy):
        assert entry["memory_bytes"] > 1 << 20
        assert entry["cpu"] in os.sched_getaffinity(0)
    until(lambda: not any(entry["requests_per_s"] for entry in shown_workers(proxy)))


def test_every_worker_s_connections_are_told_apart(proxy, ports):
    with Requests(ports["main"]) as load:
        until(lambda: load.done >= 10)
    prefix = f"listener.127.0.0.1_{ports['main']}"
    for slots in (2, 3):
        until(lambda slots=slots: len(workers(proxy)) == slots)
        socks = [socket.create_connection(("127.0.0.1", ports["main"])) for _ in range(6)]
        until(lambda: proxy.counters()[f"{prefix}.downstream_cx_active"] == 6)
        counters = proxy.counters()
        for name in ("downstream_cx_total", "downstream_cx_active"):
            by_worker = [counters[f"{prefix}.worker_{slot}.{name}"] for slot in range(slots)]
            assert sum(by_worker) == counters[f"{prefix}.{name}"]
        assert f"{prefix}.worker_{slots}.downstream_cx_total" not in counters
        for sock in socks:
            sock.close()
        until(lambda: proxy.counters()[f"{prefix}.downstream_cx_active"] == 0)
        # One more slot, which the configuration did not know of.
        os.kill(proxy.pids()[0], signal.SIGTTIN)


class Queued:
    """Connections with a request each, made while every worker is stopped: all wait in the listening sockets' queues."""

    def __init__(self, proxy, port, count=80):
        self.pids = workers(proxy)
        for pid in self.pids:
            os.kill(pid, signal.SIGSTOP)
        self.socks = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(count)]
        for sock in self.socks:
            sock.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")

    def go_on(self):
        for pid in self.pids:
            os.kill(pid, signal.SIGCONT)

    def answers(self):
        """The status lines and bodies that came."""
        answered = []
        for sock in self.socks:
            with sock:
                answer = http.client.HTTPResponse(sock)
                answer.begin()
                answered.append((answer.status, answer.read()))
        return answered


def test_a_retired_slot_s_queue_is_served(proxy, ports):
    queued = Queued(proxy, ports["main"])
    os.kill(proxy.pids()[0], signal.SIGTTOU)
    until(lambda: [entry["state"] for entry in shown_workers(proxy)].count("draining") == 1)
    queued.go_on()
    assert queued.answers() == [(200, b"answer")] * 80
    until(lambda: len(workers(proxy)) == 1)


def test_the_queues_are_served_when_the_program_stops(proxy, ports):
    queued = Queued(proxy, ports["answers"])
    proxy.process.send_signal(signal.SIGTERM)
    until(lambda: all(entry["state"] == "draining" for entry in shown_workers(proxy)))
    queued.go_on()
    assert queued.answers() == [(200, b"answer")] * 80
    assert proxy.stop() == 0


def test_a_removed_listener_s_queue_is_served(proxy, ports):
    data = yaml.safe_load(proxy.config_path.read_text())
    del data["static_resources"]["listeners"][1]
    proxy.config_path.write_text(yaml.safe_dump(data))
    queued = Queued(proxy, ports["answers"])
    os.kill(proxy.pids()[0], signal.SIGHUP)
    until(lambda: [entry["generation"] for entry in shown_workers(proxy) if entry["state"] == "ready"] == [2, 2])
    queued.go_on()
    assert queued.answers() == [(200, b"answer")] * 80
    with pytest.raises(ConnectionRefusedError):
        until(lambda: socket.create_connection(("127.0.0.1", ports["answers"])).close())


def shown_workers(proxy):
    """What /workers tells of the processes, as far as it can while they are stopped."""
    return json.loads(forkproxy("status", "--json", "--pid-file", proxy.directory / "forkproxy.pid").stdout)["workers"]
