"""Connections whose peers do not play along: they must end, and a slow peer must not lose what it still takes."""

import pytest

from forkproxy.net.connection import LOCAL_CLOSE, Connection
from forkproxy.net.poller import WRITE
from tests.support.fakes import FakeLoop
from tests.support.live_loop import socket_pair
from tests.support.playbook import ScriptedSocket

BIG = b"x" * (16 << 20)


@pytest.fixture
def pair(loop):
    connection, record, peer = socket_pair(loop)
    yield connection, record, peer
    connection.abort()
    peer.close()


@pytest.mark.parametrize("how", ["close", "close_lingering"])
def test_a_peer_that_reads_nothing_does_not_keep_a_closing_connection(loop, pair, how):
    connection, record, _ = pair
    connection.start()
    connection.write(BIG)
    getattr(connection, how)(0.05)
    loop.run_until(lambda: connection.closed)
    assert record.events[-1] == LOCAL_CLOSE


@pytest.mark.parametrize("how", ["close", "close_lingering"])
def test_a_peer_that_reads_slowly_gets_everything(how):
    loop = FakeLoop()
    sock = ScriptedSocket()
    sock.window = 0
    connection = Connection(loop, sock, ("192.0.2.1", 1))
    connection.start()
    connection.write(b"x" * 10_000)
    getattr(connection, how)(1.0)
    loop.settle()
    for _ in range(10):
        loop.advance(0.9)
        sock.window = 1000
        connection.on_event(WRITE)
        loop.settle()
    assert len(sock.outbox) == 10_000
    loop.advance(1.1)
    assert sock.closed


def test_lingering_for_no_time_still_sends_everything(loop, pair):
    connection, _, peer = pair
    connection.start()
    connection.write(BIG)
    connection.close_lingering(0)
    peer.setblocking(False)
    got = 0
    while got < len(BIG):
        loop.run_once(0)
        try:
            got += len(peer.recv(1 << 20))
        except BlockingIOError:
            continue
    assert got == len(BIG)
