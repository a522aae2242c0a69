"""The rest of a request's body from socket to socket: when it begins, when it ends, and what it does not take."""

import contextlib
import os
import types

import pytest

from forkproxy.http.request_splice import request_splice
from forkproxy.net.connection import RECV_BYTES
from forkproxy.net.splice import WORTH_BYTES
from tests.support.live_loop import LiveLoop, socket_pair

BODY = os.urandom(WORTH_BYTES + 1000)
BEFORE = 1000
"""So much of it has passed the codec."""


class Http:
    """The downstream side as far as a splice knows it; itself its codec and its stream."""

    def __init__(self, loop):
        self.loop = loop
        self.connection, self.read, self.downstream = socket_pair(loop, "unix")
        self.sink, _, self.upstream = socket_pair(loop, "unix")
        self.http = self.codec = self
        self.chain = types.SimpleNamespace(decode_data=("the router's",))
        self.is_reading = True
        self.body_bytes = len(BODY)
        self.bytes_received = BEFORE
        self.last_activity = 0.0
        self.ended = 0
        self.connection.on_data = self.on_data
        self.behind = b""

    def is_reading_body_of(self, stream):
        assert stream is self
        return self.is_reading

    def on_data(self, data):
        self.behind += data

    def decode_data(self, data):
        self.bytes_received += len(data)
        self.sink.write(data)

    def end_body(self):
        self.ended += 1

    def take(self, size):
        got = bytearray()
        self.upstream.setblocking(False)

        def has_come():
            with contextlib.suppress(BlockingIOError):
                got.extend(self.upstream.recv(1 << 20))
            return len(got) >= size

        self.loop.run_until(has_come)
        return bytes(got)

    def send(self, *pieces):
        for piece in pieces:
            self.downstream.sendall(piece)
            self.loop.passes(3)

    def close(self):
        for sock in (self.upstream, self.downstream):
            sock.close()
        for connection in (self.connection, self.sink):
            connection.abort()
        self.loop.passes(1)


@pytest.fixture
def http():
    loop = LiveLoop()
    http = Http(loop)
    yield http
    http.close()
    assert loop.pipes.in_use == 0
    loop.pipes.close()
    loop.close()


def begin(http):
    request_splice(http, http.sink)()
    http.connection.start()
    http.sink.start()


def test_the_whole_rest_and_what_is_behind_it(http):
    begin(http)
    http.send(BODY[BEFORE : BEFORE + RECV_BYTES])
    assert (http.bytes_received, http.ended) == (BEFORE + RECV_BYTES, 0)
    http.send(BODY[BEFORE + RECV_BYTES :] + b"GET /")
    assert http.take(len(BODY) - BEFORE) == BODY[BEFORE:]
    assert (http.bytes_received, http.ended, http.behind) == (len(BODY), 1, b"GET /")
    assert http.last_activity > 0
    assert http.sink.inflow is None


def test_what_is_copied_counts_and_what_is_behind_it_is_the_next_request(http):
    begin(http)
    http.connection.read_by(None)  # as where there is no pipe
    pieces = [BODY[at : at + 50_000] for at in range(BEFORE, len(BODY), 50_000)]
    http.send(*pieces[:-1], pieces[-1] + b"GET /")
    assert http.take(len(BODY) - BEFORE) == BODY[BEFORE:]
    assert (http.bytes_received, http.ended, http.behind) == (len(BODY), 1, b"GET /")


def test_a_connection_that_closes_has_no_next_request(http):
    begin(http)
    http.connection.close_lingering(60)
    http.send(BODY[BEFORE:])
    assert (http.ended, http.behind) == (0, b"")


@pytest.mark.parametrize("what", ["no length", "nearly done", "filters", "held", "network filters", "still full"])
def test_not_everything_is_spliced(http, what):
    if what == "no length":
        http.body_bytes = 0
    elif what == "nearly done":
        http.bytes_received += 1
    elif what == "filters":
        http.chain.decode_data = ("one", "the router's")
    elif what == "held":
        http.is_reading = False
    elif what == "network filters":
        http.connection.on_data = http.read._on_data
    else:
        http.sink.inflow = types.SimpleNamespace(piped=1, discard=lambda: None)
    assert request_splice(http, http.sink) is None
    http.sink.inflow = None
