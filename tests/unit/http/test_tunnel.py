"""Where HTTP ends: heads that ask for tunnels, and heads that grant them. All in whatever pieces they come."""

import random

import pytest

from forkproxy.http.codec import CodecError
from forkproxy.http.http1 import CONNECT, REFUSED, ServerCodec, ServerSettings
from forkproxy.http.tunnel import RawCodec, TunnelCodec
from tests.support.wirefile import RequestTranscript, ResponseTranscript, cuts

NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: a\r\n"
ANYTHING = bytes(range(256)) * 3 + b"\r\n\r\nHTTP/1.1 200 OK\r\n\r\n" + NEXT


def read_all_ways(make, data):
    """What a transcript says, the same in whatever pieces ``data`` comes; then the refusal, if there is one."""
    outcomes = {}
    for way, pieces in cuts(data, random.randrange(1 << 30)).items():
        sink, codec = make()
        refusal = None
        try:
            for piece in pieces:
                codec.feed(piece)
        except CodecError as error:
            refusal = (error.status, error.details)
        sink.flush()
        codec.close()
        outcomes[way] = (sink.lines, refusal)
    for way, outcome in outcomes.items():
        assert outcome == outcomes["whole"], way
    return outcomes["whole"]


# -- asking


class Asked(RequestTranscript):
    """Also tells what was asked for."""

    def head(self, line, headers, end_stream):
        super().head(line, headers, end_stream)
        if self.codec.upgrade:
            self.flush()
            kept = [value.decode() for name, value in headers if name in (b"connection", b"upgrade")]
            self.lines.append(f"asks {self.codec.upgrade!r} {kept}")


def asked(data, **settings):
    def make():
        sink = Asked()
        sink.codec = ServerCodec(sink, ServerSettings(**settings))
        return sink, sink.codec

    lines, refusal = read_all_ways(make, data)
    assert refusal is None
    return lines


def get(*headers, version=b"1.1", method=b"GET"):
    return (
        method + b" /x HTTP/" + version + b"\r\nHost: a\r\n" + b"".join([each + b"\r\n" for each in headers]) + b"\r\n"
    )


def shown(data):
    """Body pieces as a transcript shows them."""
    sink = RequestTranscript()
    sink.decode_data(data)
    sink.flush()
    return sink.lines


def test_what_follows_is_handed_on_unparsed():
    head = get(b"Connection: keep-alive, Upgrade", b"Upgrade: WebSocket")
    assert asked(head + ANYTHING) == [
        "head GET /x a",
        "asks b'WebSocket' ['keep-alive, Upgrade', 'WebSocket']",
        *shown(ANYTHING),
    ]


def test_behind_another_request():
    data = NEXT + get(b"Connection: upgrade", b"Upgrade: a") + b"\x00\x01"
    assert asked(data)[:3] == ["head GET /next a end", "head GET /x a", "asks b'a' ['upgrade', 'a']"]


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ((b"Connection: upgrade", b"Upgrade: a", b"Upgrade: b"), b"a,b"),
        ((b"Upgrade: a, b", b"Connection: upgrade"), b"a, b"),
        ((b"Connection: upgrade", b"Upgrade:"), REFUSED),
        ((b"Connection: upgrade", b"Upgrade: a", b"Transfer-Encoding: chunked"), REFUSED),
    ],
)
def test_what_is_asked_for(headers, name):
    lines = asked(get(*headers, method=b"POST"))
    assert next(line for line in lines if line.startswith("asks")).startswith(f"asks {name!r} ")


def test_what_the_connection_names_stays_here():
    lines = asked(get(b"Connection: upgrade, X-Hop", b"Upgrade: a", b"X-Hop: 1", b"X: 2"))
    assert lines == ["head GET /x a", "header x: 2", "asks b'a' ['upgrade', 'a']"]


def test_not_by_http_10():
    lines = asked(get(b"Connection: upgrade", b"Upgrade: a", version=b"1.0") + b"abc", accept_http_10=True)
    assert lines[1] == f"asks {REFUSED!r} ['upgrade', 'a']"


def test_a_body_is_not_told_from_what_follows():
    lines = asked(get(b"Connection: upgrade", b"Upgrade: a", b"Content-Length: 3", method=b"POST") + b"abcdef")
    assert lines[-1] == "body abcdef"


@pytest.mark.parametrize(
    "headers", [(b"Connection: upgrade",), (b"Upgrade: a",), (b"Connection: upgrade", b"Upgrade: h2c")]
)
def test_what_asks_for_nothing(headers):
    assert asked(get(*headers) + NEXT) == ["head GET /x a end", "head GET /next a end"]


def ignoring(data):
    return asked(data, ignored_upgrades=[lambda name: name == b"foo", lambda name: name.startswith(b"b")])


def test_ignored_names():
    assert ignoring(get(b"Connection: upgrade", b"Upgrade: foo, bar") + NEXT) == [
        "head GET /x a end",
        "head GET /next a end",
    ]
    chunked = get(b"Connection: upgrade", b"Upgrade: foo", b"Transfer-Encoding: chunked", method=b"POST")
    assert ignoring(chunked + b"1\r\nx\r\n0\r\n\r\n" + NEXT) == [
        "head POST /x a",
        "body x",
        "end",
        "head GET /next a end",
    ]
    some = get(b"Connection: upgrade", b"Upgrade: foo", b"Upgrade: a", b"X: 1") + b"rest"
    assert ignoring(some) == ["head GET /x a", "header x: 1", "asks b'a' ['upgrade', 'a']", "body rest"]


def test_connect():
    lines = asked(b"CONNECT b:443 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n" + NEXT)
    assert lines == ["head CONNECT  b:443", f"asks {CONNECT!r} []", *shown(NEXT)]
    lines = asked(b"CONNECT b:443 HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n" + NEXT)
    assert lines[1].startswith(f"asks {REFUSED!r}")


@pytest.mark.parametrize(
    ("header", "refusal"),
    [
        (b"Content-Length: 3", (400, "http1.body_disallowed")),
        (b"Transfer-Encoding: chunked", (501, "http1.invalid_transfer_encoding")),
    ],
)
def test_connect_with_a_body(header, refusal):
    sink = RequestTranscript()
    sink.codec = codec = ServerCodec(sink, ServerSettings())
    with pytest.raises(CodecError) as caught:
        codec.feed(b"CONNECT b:443 HTTP/1.1\r\nHost: a\r\n" + header + b"\r\n\r\nabc")
    assert (caught.value.status, caught.value.details) == refusal
    codec.close()


def test_any_number_of_bytes_may_follow():
    sink = RequestTranscript()
    sink.codec = codec = ServerCodec(sink, ServerSettings(max_headers_bytes=1000))
    codec.feed(get(b"Connection: upgrade", b"Upgrade: a"))
    for _ in range(10):
        codec.feed(b"x" * 1000)
    sink.flush()
    assert sink.lines[-1].count("x") == 10_000
    codec.close()


# -- granting


def answered(data, is_connect=False, head_request=False):
    def make():
        sink = ResponseTranscript()
        codec = TunnelCodec(sink, 1000, 10, is_connect=is_connect)
        codec.expect(head_request)
        return sink, codec

    return read_all_ways(make, data)


def test_a_granted_upgrade():
    lines, refusal = answered(SWITCHING + b"X: 1\r\nContent-Length: 0\r\n\r\n" + ANYTHING)
    assert lines == ["head 101", "header x: 1", *shown(ANYTHING)]
    assert refusal is None


def test_interim_heads_before():
    lines, _ = answered(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nX: 1\r\n\r\n" + SWITCHING + b"\r\nrest"
    )
    assert lines == ["interim 100", "interim 103", "header x: 1", "head 101", "body rest"]


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 101 Switching Protocols\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: a\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n",
        SWITCHING + b"Content-Length: 1\r\n",
        SWITCHING + b"Transfer-Encoding: chunked\r\n",
        SWITCHING + b"X: " + b"x" * 1000 + b"\r\n",
        SWITCHING + b"X: 1\r\n" * 10,
    ],
)
def test_a_101_that_is_none(head):
    lines, refusal = answered(head + b"\r\nrest")
    assert (lines, refusal) == ([], (502, "protocol_error"))


@pytest.mark.parametrize("status", [b"200 OK", b"403 Forbidden", b"426 Upgrade Required"])
def test_another_answer_is_a_response_whatever_it_says_of_upgrades(status):
    head = b"HTTP/1.1 " + status + b"\r\nConnection: upgrade\r\nUpgrade: a\r\n"
    lines, refusal = answered(head + b"Content-Length: 2\r\n\r\nno")
    assert lines == [f"head {status[:3].decode()}", "header content-length: 2", "body no", "end"]
    assert refusal is None
    lines, refusal = answered(head + b"Transfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n")
    assert lines == [f"head {status[:3].decode()}", "body no", "end"]


def test_what_follows_another_answer_was_not_asked_for():
    sink = ResponseTranscript()
    codec = TunnelCodec(sink, 1000, 10)
    codec.expect(False)
    codec.feed(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")
    sink.flush()
    assert codec.complete
    assert codec.unsolicited
    assert sink.lines == ["head 403 end", "header content-length: 0"] or "head 200" not in sink.lines
    codec.close()


@pytest.mark.parametrize("status", [b"200 OK", b"204 No Content", b"299 x"])
def test_a_granted_connect(status):
    head = b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\nX: 1\r\n\r\n"
    assert answered(head + NEXT, is_connect=True) == (
        [f"head {status[:3].decode()}", "header x: 1", *shown(NEXT)],
        None,
    )


def test_a_refused_connect():
    lines, _ = answered(b"HTTP/1.1 407 x\r\nContent-Length: 2\r\n\r\nno", is_connect=True)
    assert lines == ["head 407", "header content-length: 2", "body no", "end"]


def test_how_a_tunnel_ends():
    sink = ResponseTranscript()
    codec = TunnelCodec(sink, 1000, 10)
    codec.expect(True)
    codec.feed(SWITCHING + b"\r\n")
    assert (codec.granted, codec.complete, codec.finish(), codec.between_messages) == (True, False, False, True)
    codec.close()


def test_raw_bytes():
    sink = ResponseTranscript()
    codec = RawCodec(sink)
    with pytest.raises(CodecError):
        codec.feed(b"nobody has asked")
    assert not codec.finish()
    codec.expect(False)
    codec.feed(SWITCHING)
    assert codec.finish()
    sink.flush()
    assert sink.lines == [*shown(SWITCHING), "end"]
    codec.close()
