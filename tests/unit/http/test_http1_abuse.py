"""The codecs under bytes that are meant to harm: nothing grows without bound, and one message stays one message."""

import pytest

from forkproxy.http import http1
from forkproxy.http.codec import CodecError
from forkproxy.http.http1 import ClientCodec, ServerCodec, ServerSettings

UPGRADE = b"connection: upgrade\r\nupgrade: h2c\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"


class Requests:
    """A ServerSink that writes down what it is told."""

    def __init__(self, **settings):
        self.codec = ServerCodec(self, ServerSettings(**settings))
        self.calls = []

    def decode_headers(self, end_stream):
        self.calls.append((self.codec.method, self.codec.path, end_stream))

    def decode_data(self, data):
        self.calls.append(data)

    def decode_complete(self, trailers):
        self.calls.append(("end", trailers))


class Responses:
    """A ClientSink that writes down what it is told."""

    def __init__(self, head_request=False):
        self.codec = ClientCodec(self)
        self.codec.expect(head_request)
        self.calls = []

    def decode_interim(self, status, headers):
        self.calls.append(status)

    def decode_headers(self, status, headers, end_stream):
        self.calls.append((status, end_stream))

    def decode_data(self, data):
        self.calls.append(data)

    def decode_complete(self, trailers):
        self.calls.append(("end", trailers))


def feed(side, data, cut):
    for start in range(0, len(data), cut or len(data)):
        side.codec.feed(data[start : start + (cut or len(data))])
    return side.calls


@pytest.mark.parametrize("cut", [0, 1, 7])
def test_the_body_of_an_ignored_upgrade_is_a_body_and_no_request(cut):
    head = b"POST /a HTTP/1.1\r\nhost: a\r\n" + UPGRADE + b"content-length: %d\r\n\r\n" % len(SMUGGLED)
    calls = feed(Requests(), head + SMUGGLED + b"GET /b HTTP/1.1\r\nhost: a\r\n\r\n", cut)
    assert calls[0] == (b"POST", b"/a", False)
    assert b"".join(calls[1:-2]) == SMUGGLED
    assert calls[-2:] == [("end", None), (b"GET", b"/b", True)]


@pytest.mark.parametrize("cut", [0, 1, 7])
def test_the_chunks_of_an_ignored_upgrade_are_a_body_and_no_request(cut):
    head = b"POST /a HTTP/1.1\r\nhost: a\r\n" + UPGRADE + b"transfer-encoding: chunked\r\n\r\n"
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)
    calls = feed(Requests(), head + chunks + b"GET /b HTTP/1.1\r\nhost: a\r\n\r\n", cut)
    assert calls[0] == (b"POST", b"/a", False)
    assert b"".join(calls[1:-2]) == SMUGGLED
    assert calls[-2:] == [("end", None), (b"GET", b"/b", True)]


def test_a_thousand_ignored_upgrades_in_one_read_are_a_thousand_requests():
    calls = feed(Requests(), (b"GET / HTTP/1.1\r\nhost: a\r\n" + UPGRADE + b"\r\n") * 1200, 0)
    assert calls == [(b"GET", b"/", True)] * 1200


def test_a_read_is_searched_for_other_protocols_once_not_once_per_request(monkeypatch):
    searched = []
    monkeypatch.setattr(http1, "_rtsp_lines", lambda data: frozenset(searched.append(data) or ()))
    feed(Requests(), b"GET / HTTP/1.1\r\nhost: a\r\n\r\n" * 1000, 0)
    assert len(list(filter(None, searched))) == 1


def test_an_idle_codec_keeps_nothing_of_what_it_read():
    side = Requests()
    feed(side, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n" * 1000, 0)
    kept = [getattr(side.codec, name, None) for name in dir(side.codec)]
    assert max(len(value) for value in kept if isinstance(value, bytes)) < 100


def test_a_version_is_that_of_its_own_request_line():
    side = Requests()
    side.codec.feed(b"GET /1 HTTP/1.1\r\nhost: a\r\n\r\nGET /2 HTTP/1.0\r\nhost: a\r\nx: ")
    with pytest.raises(CodecError, match="low_version"):
        side.codec.feed(b"y HTTP/1.1\r\n\r\n")


def test_a_head_that_began_behind_another_message_is_not_between_messages():
    side = Requests()
    side.codec.feed(b"GET /1 HTTP/1.1\r\nhost: a\r\n\r\nGET /2")
    assert not side.codec.fresh


@pytest.mark.parametrize("line", [b"x: %b\r\n" % (b"y" * 1000), b"y" * 1000], ids=["many trailers", "one trailer"])
def test_request_trailers_end_somewhere(line):
    side = Requests()
    side.codec.feed(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: y")
    with pytest.raises(CodecError) as caught:
        feed(side, line * 200, len(line))
    assert caught.value.status == 431


def test_chunk_extensions_end_somewhere():
    side = Requests()
    side.codec.feed(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5;")
    with pytest.raises(CodecError):
        feed(side, b"y" * 200_000, 1000)


def test_a_long_body_is_no_trailer():
    side = Requests()
    side.codec.feed(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(200):
        side.codec.feed(b"3e8\r\n" + b"y" * 1000 + b"\r\n")
    side.codec.feed(b"0\r\n\r\n")
    assert side.calls[-1] == ("end", None)
    assert len(side.calls) == 202


@pytest.mark.parametrize("line", [b"x: %b\r\n" % (b"y" * 1000), b"y" * 1000], ids=["many trailers", "one trailer"])
def test_response_trailers_end_somewhere(line):
    side = Responses()
    side.codec.feed(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: y")
    with pytest.raises(CodecError):
        feed(side, line * 1000, len(line))


def test_long_names_and_authorities_are_not_remembered():
    name, authority = b"x" * 5000, b"a" * 5000
    feed(Requests(), b"GET / HTTP/1.1\r\nhost: " + authority + b"\r\n" + name + b": 1\r\n\r\n", 0)
    feed(Responses(), b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n" + name + b": 1\r\n\r\n", 0)
    assert name not in http1._plain_request_names
    assert name not in http1._plain_response_names
    assert authority not in http1._valid_authorities


def test_a_nominated_header_counts_as_absent():
    side = Requests()
    feed(side, b"POST / HTTP/1.1\r\nhost: a\r\nconnection: x-request-id\r\nx-request-id: mine\r\n", 0)
    side.codec.feed(b"content-length: 1\r\n\r\n")
    assert not side.codec.flags & http1.HAS_REQUEST_ID


@pytest.mark.parametrize(
    "lines",
    [
        b"connection: X-Forwarded-For",
        b"connection: close, x-forwarded-proto",
        b"connection: :path",
        b"connection: a, b, c, d, e\r\nconnection: f, g, h, i, j",
    ],
)
def test_what_must_not_be_nominated(lines):
    side = Requests()
    with pytest.raises(CodecError, match=r"http1\.connection_header_rejected"):
        side.codec.feed(b"GET / HTTP/1.1\r\nhost: a\r\n" + lines + b"\r\n\r\n")
    assert not side.calls


def test_who_nominates_host_has_none():
    side = Requests()
    side.codec.feed(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: host\r\n\r\n")
    assert not side.codec.has_host


@pytest.mark.parametrize(("count", "refused"), [(100, False), (101, True)])
def test_trailers_are_counted(count, refused):
    side = Requests(enable_trailers=True)
    trailers = b"".join([b"x-%d: 1\r\n" % number for number in range(count)])
    data = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + trailers + b"\r\n"
    if refused:
        with pytest.raises(CodecError, match=r"http1\.too_many_headers"):
            side.codec.feed(data)
    else:
        side.codec.feed(data)
        assert len(side.calls[-1][1]) == count


def test_trailers_of_responses_are_counted():
    side = Responses()
    trailers = b"".join([b"x-%d: 1\r\n" % number for number in range(101)])
    with pytest.raises(CodecError, match="protocol_error"):
        side.codec.feed(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + trailers + b"\r\n")


def feed_in_steps(side, data, step):
    for position in range(0, len(data), step):
        side.codec.feed(data[position : position + step])


@pytest.mark.parametrize("start", [b"RTSP/1.0 200 OK", b"ICY 200 OK", b"\r\nHTTP/1.1 200 OK", b"\nHTTP/1.1 200 OK"])
@pytest.mark.parametrize("step", [1, 1000])
def test_a_response_begins_with_its_version(start, step):
    side = Responses()
    data = start + b"\r\ncontent-length: 0\r\n\r\n"
    with pytest.raises(CodecError, match="protocol_error"):
        feed_in_steps(side, data, step)
    assert not side.calls


def test_a_response_may_come_byte_by_byte():
    side = Responses()
    feed_in_steps(side, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 1)
    assert side.codec.complete
