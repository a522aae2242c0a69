"""The decompressor: bodies come out plain, in pieces, and end with their trailers."""

import gzip

from forkproxy.config.build.compression import GzipDecompression
from forkproxy.config.build.compressor import DecompressorConfig
from forkproxy.config.build.listener import FilterEntry
from forkproxy.http.filter import HttpFilter
from tests.support.playbook import WHERE, play

TEXT = b"to be or not to be " * 10
PACKED = gzip.compress(TEXT, mtime=0)
TYPE = "envoy.extensions.filters.http.decompressor.v3.Decompressor"


def talk(*before, **fields):
    made = DecompressorConfig(GzipDecompression(window_bits=15), "Zip", **fields)
    return play(*before, filters=[FilterEntry("d", TYPE, made, WHERE)])


class Trailers(HttpFilter):
    """Sees the trailers of responses."""

    def __init__(self):
        self.seen = []

    def encode_trailers(self, stream, trailers):
        self.seen.append(list(trailers))


def test_a_response_in_pieces():
    p = talk().downstream(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    p.expect_upstream(b"GET / HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n")
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(PACKED)
    p.upstream(head, *(PACKED[at : at + 1] for at in range(len(PACKED))))
    head, _, body = p.down.read().partition(b"\r\n\r\n")
    assert b"content-encoding" not in head
    assert b"transfer-encoding: chunked" in head
    assert unchunked(body) == TEXT
    assert body.endswith(b"\r\n0\r\n\r\n")
    stats = p.manager.chain.filters[0].stats[1]
    assert (stats.decompressed, stats.total_compressed_bytes, stats.total_uncompressed_bytes) == (1, len(PACKED), 190)


def unchunked(data):
    made = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        made, data = made + data[: int(size, 16)], data[int(size, 16) + 2 :]
    return made


def test_the_trailers_tell_the_sizes():
    trailers = Trailers()
    p = talk(trailers).downstream(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    p.upstream(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(PACKED) + PACKED)
    name = b"x-envoy-decompressor-zip-"
    assert trailers.seen == [
        [(name + b"compressed-bytes", b"%d" % len(PACKED)), (name + b"uncompressed-bytes", b"190")]
    ]


def test_a_request():
    head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-encoding: gzip, br\r\ncontent-length: %d\r\n\r\n" % len(PACKED)
    p = talk(advertises=False).downstream(head, PACKED[:20], PACKED[20:])
    head, _, body = p.upstreams[0].read().partition(b"\r\n\r\n")
    assert b"content-encoding: br" in head
    assert b"accept-encoding" not in head
    assert unchunked(body) == TEXT
