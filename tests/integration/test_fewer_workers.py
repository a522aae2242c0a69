"""Workers go and come back while connections are made all the time: none is lost, and those that stay take everything."""

import contextlib
import json
import os
import signal
import socket
import threading

import pytest

from tests.integration.test_serving import ANSWER
from tests.support import bootstrap as b
from tests.support.forkproxy import Forkproxy
from tests.support.proxy import free_ports
from tests.support.supervised import Load, Supervised, exchange, until

ROUNDS = 4
"""With the queues of retired slots closed, four rounds lost a connection two times in three."""


class FourWorkers(Forkproxy):
    """forkproxy with four worker processes."""

    workers = 4

    def shown(self):
        return [worker["state"] for worker in json.loads(self.admin("/workers")[1])["workers"]]

    def change(self, number, count):
        """Send a signal and wait until there are so many workers and no others."""
        self.process.send_signal(number)
        until(lambda: self.shown() == ["ready"] * count)


class Connections:
    """Threads that make connections, each for one request."""

    def __init__(self, port, number=4):
        self.done = 0
        self.failures = []
        self._address = ("127.0.0.1", port)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(number)]

    def _run(self):
        while not self._stop.is_set():
            try:
                with socket.create_connection(self._address, timeout=10) as sock:
                    sock.sendall(b"GET / HTTP/1.1\r\nhost: h.example\r\n\r\n")
                    assert sock.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
                self.done += 1
            except (OSError, AssertionError) as error:
                self.failures.append(error)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc):
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def ports():
    return dict(zip(("main", "admin"), free_ports(2), strict=True))


@pytest.fixture
def proxy(ports):
    filters = [b.hcm({"virtual_hosts": [b.vhost(ANSWER)]}, access_log=[])]
    running = FourWorkers(b.render(b.bootstrap(filters, []), ports), admin_port=ports["admin"])
    running.start()
    yield running
    running.close()


def test_four_workers_one_and_four_again_lose_no_connection(proxy, ports):
    with Connections(ports["main"]) as load:
        for _ in range(ROUNDS):
            for count in (3, 2, 1):
                proxy.change(signal.SIGTTOU, count)
            for count in (2, 3, 4):
                proxy.change(signal.SIGTTIN, count)
    assert load.failures == []
    assert load.done > 200


@pytest.fixture
def make(tmp_path):
    with contextlib.ExitStack() as stack:

        def make(where="127.0.0.1:0", **settings):
            options = {"concurrency": None} if "concurrency" in settings else {}
            listeners = {"listeners": {"main": where.replace("@DIR@", str(tmp_path))}}
            return stack.enter_context(Supervised(tmp_path, {**listeners, **settings}, **options))

        yield make


@pytest.mark.parametrize("where", ["127.0.0.1:0", "@DIR@/listening"])
def test_who_waits_for_a_worker_that_goes_is_served_by_one_that_stays(make, where):
    supervised = make(where)
    stays, goes = (worker["pid"] for worker in sorted(supervised.workers(), key=lambda worker: worker["slot"]))
    os.kill(goes, signal.SIGSTOP)
    waiting = [supervised.connect() for _ in range(40)]
    supervised.signal(signal.SIGTTOU)
    until(lambda: supervised.workers("draining"))
    waiting += [supervised.connect() for _ in range(40)]
    assert {exchange(sock)[0] for sock in waiting} == {stays}
    # The one that was born after it went serves its queue just as well.
    os.kill(stays, signal.SIGKILL)
    until(lambda: supervised.pids() - {stays})
    (born,) = supervised.pids()
    for _ in range(20):
        with supervised.connect() as sock:
            assert exchange(sock)[0] == born
    os.kill(goes, signal.SIGCONT)
    for sock in waiting:
        sock.close()


def test_a_file_with_fewer_workers_loses_no_connection_either(make):
    supervised = make(concurrency=3)
    where = {"listeners": {"main": "127.0.0.1:0"}}
    with Load(supervised) as load:
        for count in (1, 3, 2, 1):
            supervised.configure({**where, "concurrency": count})
            assert supervised.ask({"op": "reload"})["workers"] == count
    assert load.failures == []
    (pid,) = supervised.pids()
    for _ in range(20):
        with supervised.connect() as sock:
            assert exchange(sock)[0] == pid


def is_refused(address):
    try:
        with socket.create_connection(address, timeout=10):
            return False
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return False  # the socket has been closed while it was answering us


def test_a_listener_that_goes_takes_along_what_retired_slots_have_left(make):
    supervised = make(concurrency=3)
    supervised.signal(signal.SIGTTOU)
    until(lambda: len(supervised.pids()) == 2)
    address = supervised.address()
    supervised.configure({"listeners": {"other": "127.0.0.1:0"}, "concurrency": 2})
    assert supervised.ask({"op": "reload"})["ok"]
    until(lambda: is_refused(address))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_what_retired_slots_have_left_goes_over_an_upgrade(make, count):
    supervised = make(concurrency=3)
    supervised.signal(signal.SIGTTOU)
    until(lambda: len(supervised.pids()) == 2)
    supervised.configure({"listeners": {"main": "127.0.0.1:0"}, "concurrency": count})
    address = supervised.address()
    with Load(supervised) as load:
        assert supervised.ask({"op": "upgrade"})["ok"]
        assert supervised.wait() == 0
        until(lambda: 2 in load.generations)
    assert load.failures == []
    assert supervised.address() == address
    pids = supervised.pids()
    assert len(pids) == count
    for _ in range(40):
        with supervised.connect() as sock:
            assert exchange(sock)[0] in pids
