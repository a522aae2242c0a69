"""How long a client may take for its TLS handshake."""

from __future__ import annotations

import socket
import ssl

import pytest

from forkproxy.net.connection import Connection
from forkproxy.net.tls import TlsConnection
from forkproxy.stats.groups import ListenerStats
from forkproxy.worker.handshake_timeout import within
from tests.support.fakes import FakeLoop

PEER = ("192.0.2.1", 4000)


@pytest.fixture
def ends():
    here, there = socket.socketpair()
    here.setblocking(False)
    yield here
    here.close()
    there.close()


def tls(loop, sock, peer, limit):
    return TlsConnection(loop, sock, peer, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), server_side=True)


def test_a_handshake_that_takes_too_long(ends):
    loop, stats = FakeLoop(), ListenerStats()
    connection = within(5.0, tls, stats)(loop, ends, PEER, 1000)
    loop.advance(4.9)
    assert not connection.closed
    loop.advance(0.2)
    assert connection.closed
    assert stats.downstream_cx_transport_socket_connect_timeout == 1


@pytest.mark.parametrize("reason", ["", "bad certificate"])
def test_one_that_ends_in_time_is_told_as_before(ends, reason):
    loop, stats, told = FakeLoop(), ListenerStats(), []

    def counting(*args):
        connection = tls(*args)
        connection.on_handshake = told.append
        return connection

    connection = within(5.0, counting, stats)(loop, ends, PEER, 1000)
    connection.on_handshake(reason)
    assert told == [reason]
    loop.advance(10)
    assert not connection.closed
    connection.abort()


def test_a_raw_connection_has_no_handshake(ends):
    loop, stats = FakeLoop(), ListenerStats()
    connection = within(5.0, Connection, stats)(loop, ends, PEER, 1000)
    loop.advance(10)
    assert not connection.closed
    connection.abort()
