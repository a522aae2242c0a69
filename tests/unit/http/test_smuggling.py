"""Whatever a client sends: as many requests arrive upstream as were taken for requests here, and each with its own bytes."""

from __future__ import annotations

import random

import pytest

from forkproxy.http.codec import CodecError
from forkproxy.http.http1 import ServerCodec, ServerSettings
from tests.support.playbook import play

PIECES = [
    *(
        b"GET /1 HTTP/1.1\r\n",
        b"POST /2 HTTP/1.1\r\n",
        b"HEAD /3 HTTP/1.1\r\n",
        b"GET http://a/4 HTTP/1.1\r\n",
        b"\r\n",
    ),
    *(
        b"host: a\r\n",
        b"\r\n",
        b"\r\n\r\n",
        b"content-length: 5\r\n",
        b"content-length: 0\r\n",
        b"Content-Length : 5\r\n",
    ),
    *(b"transfer-encoding: chunked\r\n", b"Transfer-Encoding: chunked\r\n", b"transfer-encoding: identity\r\n"),
    *(
        b"connection: close\r\n",
        b"connection: keep-alive, upgrade\r\n",
        b"upgrade: h2c\r\n",
        b"expect: 100-continue\r\n",
    ),
    *(
        b"hello",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"0\r\n",
        b"x: y\r\n",
        b" folded\r\n",
        b"\n",
        b"\r",
        b"\0",
        b"\xff",
        b";a=b",
    ),
    *(
        b"x-odd: a\rb\r\n",
        b"GET /5 HTTP/1.1\nhost: a\n\n",
        b"3\r\nGET\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n",
        b"GET /6 HTTP/1.0\r\n",
    ),
]
HEADS = [
    b"GET /0 HTTP/1.1\r\nhost: a\r\n\r\n",
    b"POST /p HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello",
    b"POST /q HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
]


class Counting:
    """A ServerSink that counts; ``unfinished`` while a message has no end yet."""

    def __init__(self):
        self.heads = []
        self.unfinished = False
        self.codec = ServerCodec(self, ServerSettings())

    def decode_headers(self, end_stream):
        self.heads.append((self.codec.method, self.codec.path))
        self.unfinished = not end_stream

    def decode_data(self, data):
        pass

    def decode_complete(self, trailers):
        self.unfinished = False


def mutated(chance):
    """Messages cut up and put together with what does not belong there."""
    data = b"".join(
        [chance.choice(HEADS) if chance.random() < 0.4 else chance.choice(PIECES) for _ in range(chance.randint(2, 9))]
    )
    for _ in range(chance.randint(0, 3)):
        place = chance.randrange(len(data) + 1)
        data = data[:place] + chance.choice(PIECES) + data[place + chance.randint(0, 3) :]
    return data


@pytest.mark.parametrize("seed", range(40))
def test_no_request_becomes_two(seed):
    chance = random.Random(seed)
    for _ in range(10):
        data = mutated(chance)
        p = play()
        cut = chance.randrange(len(data) + 1)
        p.downstream(*[piece for piece in (data[:cut], data[cut:]) if piece])
        while waiting := [peer for peer in p.upstreams if peer.sock.outbox and not peer.closed]:
            for peer in waiting:
                # What one exchange sends is one request, whole or cut, and nothing else.
                sent = peer.read()
                upstream = Counting()
                try:
                    upstream.codec.feed(sent)
                except CodecError as error:
                    pytest.fail(f"{data!r} sent {sent!r} upstream: {error}")
                assert len(upstream.heads) == 1, (data, sent)
                if not upstream.unfinished:
                    peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        assert not p.exceptions
