"""Of several addresses the first that answers, on a live loop and real sockets."""

import contextlib
import socket

import pytest

from forkproxy.net import happy_eyeballs as module
from forkproxy.net.connection import CONNECT_FAILURE, CONNECT_TIMEOUT, Connection
from forkproxy.net.happy_eyeballs import Race, in_turns
from forkproxy.net.sockets import connecting_socket
from tests.support.live_loop import LiveLoop, Record

FOUR, SIX = [(f"192.0.2.{n}", 80) for n in range(1, 4)], [(f"2001:db8::{n}", 80) for n in range(1, 4)]


@pytest.mark.parametrize(
    ("addresses", "settings", "order"),
    [
        (FOUR, (), FOUR),
        ([*FOUR[:2], *SIX[:2]], (), [FOUR[0], SIX[0], FOUR[1], SIX[1]]),
        ([*SIX[:2], *FOUR], (), [SIX[0], FOUR[0], SIX[1], FOUR[1], FOUR[2]]),
        ([*FOUR[:2], *SIX[:2]], ("V6", 1), [SIX[0], FOUR[0], SIX[1], FOUR[1]]),
        ([*FOUR, *SIX[:2]], ("", 2), [FOUR[0], FOUR[1], SIX[0], FOUR[2], SIX[1]]),
        ([*SIX, FOUR[0]], ("V4", 2), [FOUR[0], *SIX]),
        (["/run/x"], (), ["/run/x"]),
    ],
)
def test_families_take_turns(addresses, settings, order):
    assert in_turns(addresses, *settings) == order


class Runners:
    """``answering()``, ``silent()`` and ``refusing()`` give addresses."""

    def __init__(self):
        self.loop = LiveLoop()
        self.open = contextlib.ExitStack()
        self.listening = {}

    def answering(self):
        server = self.open.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.listening[server.getsockname()] = server
        return server.getsockname()

    def silent(self):
        # A full queue: the kernel does not answer the handshake.
        server = self.open.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            filler = self.open.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        return server.getsockname()

    def refusing(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            return server.getsockname()

    def race(self, first, *others):
        connection = Connection(self.loop, connecting_socket(first), first)
        record = Record(connection)
        Race(connection, others, connecting_socket).start()
        return connection, record

    def ends(self, record):
        self.loop.run_until(lambda: record.events)
        self.loop.passes(3)
        return record.events


@pytest.fixture
def runners(monkeypatch):
    monkeypatch.setattr(module, "ATTEMPT_DELAY_S", 0.02)
    runners = Runners()
    yield runners
    runners.open.close()
    runners.loop.close()


def test_the_first_wins_when_it_answers(runners):
    first, second = runners.answering(), runners.answering()
    connection, record = runners.race(first, second)
    assert runners.ends(record) == ["connected"]
    assert connection.remote_address == first
    connection.abort()
    runners.loop.passes()


def test_the_next_is_tried_when_the_first_does_not_answer(runners):
    connection, record = runners.race(runners.silent(), second := runners.answering())
    assert runners.ends(record) == ["connected"]
    assert connection.remote_address == second
    accepted, _ = runners.listening[second].accept()
    with accepted:
        connection.write(b"hello")
        runners.loop.run_until(lambda: not connection.out_bytes)
        assert accepted.recv(10) == b"hello"
        accepted.sendall(b"back")
        runners.loop.run_until(lambda: record.data == b"back")
        connection.close()
        runners.loop.passes()
        assert accepted.recv(10) == b""


def test_the_next_is_tried_at_once_when_the_first_refuses(runners, monkeypatch):
    monkeypatch.setattr(module, "ATTEMPT_DELAY_S", 1000.0)
    connection, record = runners.race(runners.refusing(), runners.refusing(), last := runners.answering())
    assert runners.ends(record) == ["connected"]
    assert connection.remote_address == last
    connection.abort()
    runners.loop.passes()


def test_nobody_answers(runners):
    connection, record = runners.race(runners.refusing(), runners.refusing())
    assert runners.ends(record) == [CONNECT_FAILURE]
    assert "ECONNREFUSED" in str(connection.error)


def test_an_address_that_cannot_even_be_tried_is_passed_over(runners):
    connection, record = runners.race(runners.refusing(), ("255.255.255.255", 80), last := runners.answering())
    assert runners.ends(record) == ["connected"]
    assert connection.remote_address == last
    connection.abort()
    runners.loop.passes()


def test_who_gives_up_leaves_nothing_open(runners):
    connection, record = runners.race(runners.silent(), runners.silent())
    runners.loop.run_until(lambda: len(runners.loop.handlers) == 2)
    connection.abort(CONNECT_TIMEOUT)
    assert record.events == [CONNECT_TIMEOUT]
    runners.loop.run_until(lambda: not runners.loop.handlers)
