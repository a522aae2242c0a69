"""The scripted upstream plays what it is told and records what it got."""

import socket

import pytest

from tests.support.upstream import Close, Early, Hang, Reset, ScriptedUpstream, Until

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@pytest.fixture
def upstream():
    scripted = ScriptedUpstream()
    yield scripted
    scripted.stop()


@pytest.fixture
def peer(upstream):
    with socket.create_connection(("127.0.0.1", upstream.port), timeout=5) as connected:
        yield connected


def test_default_answer_and_record(upstream, peer):
    peer.sendall(GET)
    assert peer.recv(100) == OK
    peer.sendall(b"HEAD / HTTP/1.1\r\n\r\n")
    assert peer.recv(100) == OK[:-2]
    assert upstream.received() == [GET + b"HEAD / HTTP/1.1\r\n\r\n"]


def test_answers_in_order_and_the_last_repeats(upstream, peer):
    upstream.script([(b"HTTP/1.1 201 A\r\ncontent-length: 0\r\n\r\n",), (OK,)])
    seen = []
    for _ in range(3):
        peer.sendall(GET)
        seen.append(peer.recv(100)[9:12])
    assert seen == [b"201", b"200", b"200"]


def test_waits_for_the_whole_request_unless_early(upstream, peer):
    upstream.script([(Early(), b"early", Until(b"world"), b" late", Close())])
    peer.sendall(b"POST / HTTP/1.1\r\ncontent-length: 10\r\n\r\nhello")
    assert peer.recv(100) == b"early"
    peer.sendall(b"world")
    assert peer.recv(100) == b" late"
    assert peer.recv(100) == b""


def test_reset(upstream, peer):
    upstream.script([(Reset(),)])
    peer.sendall(GET)
    with pytest.raises(ConnectionResetError):
        peer.recv(100)


def test_settle_tells_who_closed(upstream):
    upstream.script([(OK,), (OK, Close()), (Hang(),)])
    idle = socket.create_connection(("127.0.0.1", upstream.port), timeout=5)
    closed = socket.create_connection(("127.0.0.1", upstream.port), timeout=5)
    left = socket.create_connection(("127.0.0.1", upstream.port), timeout=5)
    for each in (idle, closed):
        each.sendall(GET)
        assert each.recv(100) == OK
    assert closed.recv(100) == b""
    left.sendall(GET)
    left.shutdown(socket.SHUT_WR)
    assert left.recv(100) == b""
    outcome = dict.fromkeys(how for _data, how in upstream.settle())
    for each in (idle, closed, left):
        each.close()
    assert set(outcome) == {"idle", "upstream", "proxy"}
