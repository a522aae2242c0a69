"""Idle connections of the benchmark."""

import os
import resource
import socket
import threading

import pytest

from tests.benchmarks.idle import affordable, descriptors, idle_connections
from tests.benchmarks.measure import LoadFailed


@pytest.mark.parametrize(("limit", "count"), [(20_000, 10_000), (4096, 2572), (64, 1)])
def test_as_many_as_descriptors_allow(monkeypatch, limit, count):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert affordable(10_000) == count


@pytest.fixture
def accepted():
    socks = []
    listening = socket.create_server(("127.0.0.1", 0))

    def accept():
        try:
            while True:
                socks.append(listening.accept()[0])
                socks[-1].sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\npong")
        except OSError:
            return

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield listening.getsockname()[1], socks
    listening.shutdown(socket.SHUT_RDWR)
    thread.join()
    listening.close()
    for sock in socks:
        sock.close()


def test_they_are_open_within_the_block(accepted):
    port, socks = accepted
    before = descriptors(os.getpid())
    with idle_connections(os.getpid(), port, 5, asked=True):
        assert descriptors(os.getpid()) >= before + 10
        assert {sock.getpeername()[0] for sock in socks} == {"127.0.0.2"}
    assert len(socks) == 5


def test_one_that_does_not_last_is_told(accepted):
    port, socks = accepted
    idle = idle_connections(os.getpid(), port, 5, asked=True)
    idle.__enter__()
    socks[2].shutdown(socket.SHUT_RDWR)
    socks[2].close()
    with pytest.raises(LoadFailed, match="1 of 5 idle"):
        idle.__exit__(None, None, None)


def test_nobody_answers():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        idle = idle_connections(os.getpid(), bound.getsockname()[1], 5, asked=False)
        with pytest.raises(LoadFailed, match="idle connection 1 of 5"):
            idle.__enter__()
