"""The compressor: what accept-encoding chooses, and bodies that pass piece by piece."""

import zlib

import pytest

from forkproxy.config.build.compression import GzipCompression
from forkproxy.config.build.compressor import CompressorConfig, CompressorRouteConfig, DirectionConfig, ResponseConfig
from forkproxy.config.build.context import PerFilterConfig
from forkproxy.config.build.listener import FilterEntry
from forkproxy.filters.http.compressor import Decision, choose
from tests.support.playbook import WHERE, play, route

ASKED = b"GET / HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n"
TYPE = "envoy.extensions.filters.http.compressor.v3.Compressor"


def config(**fields):
    return CompressorConfig(GzipCompression(), "zip", **fields)


def talk(made=None, **fields):
    return play(filters=[FilterEntry("c", TYPE, made or config(), WHERE)], **fields)


def counted(p):
    stats = p.manager.chain.filters[0].response_stats
    return stats.compressed, stats.not_compressed, stats.total_uncompressed_bytes


@pytest.mark.parametrize(
    ("accepts", "chosen", "by"),
    [
        (b"gzip, br", b"gzip", b"gzip"),
        (b"br, gzip", b"br", b"br"),
        (b"br;q=0.5, gzip;q=0.7", b"gzip", b"gzip"),
        (b"gzip, zstd", b"zstd", b"zstd"),
        (b"zstd;q=0, gzip", b"gzip", b"gzip"),
        (b"*", b"gzip", b"*"),
        (b"gzip;q=0, *", b"br", b"*"),
        (b"identity", b"identity", b"identity"),
        (b"x", b"identity", "not valid"),
        (b"", b"identity", "not valid"),
        (b"gzip;q=1_0", b"identity", "not valid"),
        (b"gzip;q=0,br;q=0,zstd;q=0", b"identity", "not valid"),
    ],
)
def test_choice(accepts, chosen, by):
    assert choose(accepts, [(b"gzip", False), (b"br", False), (b"zstd", True)]) == Decision(chosen, by)


def test_pieces_leave_as_they_come():
    p = talk().downstream(ASKED)
    p.upstream(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
    head, _, sent = p.down.read().partition(b"\r\n\r\n")
    assert b"content-encoding: gzip\r\nvary: Accept-Encoding\r\n" in head
    unzip = zlib.decompressobj(31)
    assert unzip.decompress(unchunked(sent)) == b"first"
    p.upstream(b"6\r\nsecond\r\n")
    assert unzip.decompress(unchunked(p.down.read())) == b"second"
    p.upstream(b"0\r\n\r\n")
    unzip.decompress(unchunked(p.down.read()))
    assert unzip.eof
    assert counted(p) == (1, 0, 11)


def unchunked(data):
    made = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        made, data = made + data[: int(size, 16)], data[int(size, 16) + 2 :]
    return made


def test_a_request_is_compressed_only_when_asked_for():
    post = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 40\r\n\r\n" + b"x" * 40
    talk().downstream(post).expect_upstream(post)
    p = talk(config(request=DirectionConfig())).downstream(post)
    head, _, body = p.upstreams[0].read().partition(b"\r\n\r\n")
    assert b"content-encoding: gzip" in head
    assert b"content-length" not in head
    assert zlib.decompress(unchunked(body), 31) == b"x" * 40


def test_a_route_switches_it():
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\n" + b"x" * 40
    for said, own, compressed in ((False, True, 0), (True, False, 1), (None, True, 1), (None, False, 0)):
        response = ResponseConfig(DirectionConfig(enabled=own))
        routes = [route(per_filter_config={"c": PerFilterConfig(CompressorRouteConfig(said))})]
        p = talk(config(response=response), routes=routes).downstream(ASKED).upstream(answer)
        assert counted(p)[0] == compressed


def test_an_answer_before_the_filter_has_seen_the_request():
    p = talk().downstream(b"GET / HTTP/1.1\r\n\r\n")
    assert p.down.read().startswith(b"HTTP/1.1 400 ")


def test_the_answer_may_say_why():
    response = ResponseConfig(uncompressible_codes=frozenset((206,)), shows_status=True)
    for status, length, said in (
        (b"200 OK", 40, b"gzip;Compressed;OriginalLength=40"),
        (b"206 Partial Content", 40, b"gzip;StatusCodeNotAllowed"),
        (b"200 OK", 2, b"gzip;ContentLengthTooSmall"),
    ):
        p = talk(config(response=response)).downstream(ASKED)
        p.upstream(b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (status, length, b"x" * length))
        assert b"\r\nx-envoy-compression-status: %b\r\n" % said in p.down.read()
