"""The rest of a response's body from socket to socket: when it begins, when it ends, and what it does not take."""

import contextlib
import os
import types

import pytest

from forkproxy.net.connection import RECV_BYTES, Connection
from forkproxy.net.splice import WORTH_BYTES
from forkproxy.upstream.response_splice import response_splice
from tests.support.live_loop import LiveLoop, socket_pair

BODY = os.urandom(WORTH_BYTES)


class Taker:
    """Whose response it is, and the client that carries it."""

    def __init__(self, loop):
        self.loop = loop
        self.connection, self.read, self.upstream = socket_pair(loop, "unix")
        self.sink, _, self.downstream = socket_pair(loop, "unix")
        self.request = self
        self.codec = types.SimpleNamespace(unsolicited=False)
        self.moved = 0
        self.copied = b""
        self.ended = 0

    def decode_data(self, data):
        self.copied += data
        self.sink.write(data)

    def on_body_moved(self, size):
        self.moved += size

    def end_body(self):
        self.ended += 1
        self.connection.on_data = self.read._on_data  # as the codec gets its connection back

    def take(self, size):
        got = bytearray()
        self.downstream.setblocking(False)

        def has_come():
            with contextlib.suppress(BlockingIOError):
                got.extend(self.downstream.recv(1 << 20))
            return len(got) >= size

        self.loop.run_until(has_come)
        return bytes(got)

    def close(self):
        for sock in (self.upstream, self.downstream):
            sock.close()
        for connection in (self.connection, self.sink):
            connection.abort()
        self.loop.passes(1)


@pytest.fixture
def taker():
    loop = LiveLoop()
    taker = Taker(loop)
    yield taker
    taker.close()
    assert loop.pipes.in_use == 0
    loop.pipes.close()
    loop.close()


def begin(taker, left=WORTH_BYTES):
    start = response_splice(taker, taker.sink, left, taker)
    start()
    taker.connection.start()
    taker.sink.start()


def send(taker, *pieces):
    for piece in pieces:
        taker.upstream.sendall(piece)
        taker.loop.passes(3)


def test_the_whole_rest_and_then_the_codec_again(taker):
    begin(taker)
    send(taker, BODY[:RECV_BYTES])
    assert (taker.moved, taker.ended) == (RECV_BYTES, 0)
    send(taker, BODY[RECV_BYTES:])
    assert taker.take(len(BODY)) == BODY
    assert (taker.moved, taker.copied, taker.ended) == (len(BODY), b"", 1)
    assert taker.sink.inflow is None  # an idle connection keeps nothing of the response
    send(taker, b"next")
    assert taker.read.data == b"next"


def test_what_follows_the_body_is_not_taken(taker):
    begin(taker)
    taker.upstream.sendall(BODY[:RECV_BYTES])
    taker.loop.passes(3)
    send(taker, BODY[RECV_BYTES:] + b"more")
    assert taker.take(len(BODY)) == BODY
    assert (taker.ended, taker.read.data) == (1, b"more")


def test_copied_bytes_count(taker):
    begin(taker)
    taker.connection.read_by(None)  # as where there is no pipe
    send(taker, BODY[:100])
    assert (taker.copied, taker.moved, taker.ended) == (BODY[:100], 0, 0)
    send(taker, *[BODY[at : at + 50_000] for at in range(100, len(BODY), 50_000)])
    assert taker.take(len(BODY)) == BODY
    assert (taker.ended, taker.codec.unsolicited) == (1, False)


def test_bytes_beyond_that_were_copied_are_unsolicited(taker):
    begin(taker)
    taker.connection.read_by(None)
    for at in range(0, len(BODY), 50_000):
        send(taker, BODY[at : at + 50_000] if at + 50_000 < len(BODY) else BODY[at:] + b"HTTP/1.1 200 OK\r\n\r\n")
    assert taker.take(len(BODY)) == BODY
    assert (taker.ended, taker.codec.unsolicited) == (1, True)


def test_an_exchange_that_was_given_up_is_not_ended(taker):
    begin(taker)
    taker.request = None
    send(taker, BODY)
    taker.take(len(BODY))
    assert taker.ended == 0


def test_the_sink_goes_first(taker):
    begin(taker)
    taker.sink.abort()
    send(taker, BODY[:100])
    assert (taker.copied, taker.moved) == (BODY[:100], 0)


@pytest.mark.parametrize("what", ["too little", "other transport", "still full"])
def test_not_everything_is_spliced(taker, what):
    left = len(BODY)
    if what == "too little":
        left -= 1
    elif what == "other transport":
        taker.sink.abort()
        taker.sink = type("Filtered", (Connection,), {})(taker.loop, taker.downstream.dup(), ("127.0.0.1", 1))
    else:
        taker.sink.inflow = types.SimpleNamespace(piped=1, discard=lambda: None, pour=lambda: 1)
    assert response_splice(taker, taker.sink, left, taker) is None
    taker.sink.inflow = None
