"""What forkproxy.http.http1 relies on httptools to do (ARCHITECTURE.md, facts 1–6): an upgrade that changes it is seen here."""

import httptools
import pytest

from tests.support.wirefile import cuts


class Events:
    """Every callback, written down."""

    def __init__(self, parser_class):
        self.seen = []
        self.parser = parser_class(self)

    def on_message_begin(self):
        self.seen.append("begin")

    def on_url(self, url):
        self.seen.append(("url", url))

    def on_header(self, name, value):
        self.seen.append((name, value))

    def on_headers_complete(self):
        self.seen.append("headers")

    def on_body(self, data):
        self.seen.append(("body", data))

    def on_message_complete(self):
        self.seen.append("complete")

    def feed(self, *pieces):
        for piece in pieces:
            self.parser.feed_data(piece)
        return self.seen


def request():
    return Events(httptools.HttpRequestParser)


def response():
    return Events(httptools.HttpResponseParser)


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


def test_the_answer_to_head_swallows_the_next_response():
    events = response()
    events.feed(OK)
    with pytest.raises(httptools.HttpParserError):
        events.feed(b"HTTP/1.1 404 Not Found\r\n\r\n")
    assert ("body", b"HT") in events.seen


@pytest.mark.parametrize("status", [204, 304])
def test_204_and_304_have_no_body_whatever_the_length_says(status):
    parser = response()
    parser.feed(b"HTTP/1.1 %d X\r\ncontent-length: 2\r\n\r\n" % status, OK + b"ok")
    assert parser.seen.count("complete") == 2
    assert parser.parser.get_status_code() == 200


def test_a_response_without_framing_is_never_complete():
    seen = response().feed(b"HTTP/1.1 200 OK\r\n\r\n", b"all of it")
    assert seen[-1] == ("body", b"all of it")
    assert "complete" not in seen


def test_100_is_a_message_of_its_own():
    seen = response().feed(b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"ok")
    assert seen.count("complete") == seen.count("headers") == 2


def test_101_raises_with_the_offset_where_the_new_protocol_starts():
    head = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"
    with pytest.raises(httptools.HttpParserUpgrade) as raised:
        response().feed(head + b"new")
    assert raised.value.args == (len(head),)


def test_one_feed_runs_all_pipelined_requests():
    seen = request().feed(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n")
    assert seen.count("complete") == 2


@pytest.mark.parametrize("wish", [b"Connection: upgrade\r\nUpgrade: x", b"Connection: upgrade\r\nUpgrade: h2c"])
def test_an_upgrade_request_with_a_body_stops_at_the_head(wish):
    head = b"POST / HTTP/1.1\r\n" + wish + b"\r\nContent-Length: 2\r\n\r\n"
    events = request()
    with pytest.raises(httptools.HttpParserUpgrade) as raised:
        events.feed(head + b"ok")
    assert raised.value.args == (len(head),)
    assert "headers" in events.seen
    assert ("body", b"ok") not in events.seen


def test_the_target_comes_in_pieces_and_headers_whole():
    data = b"GET /path HTTP/1.1\r\nName: a value\r\n\r\n"
    for way, pieces in cuts(data, 7).items():
        seen = request().feed(*pieces)
        assert b"".join([event[1] for event in seen if event[0] == "url"]) == b"/path", way
        assert seen.count((b"Name", b"a value")) == 1, way
    assert len([event for event in request().feed(*[data[i : i + 1] for i in range(20)]) if event[0] == "url"]) > 1


def test_trailers_come_as_headers_after_the_body():
    seen = request().feed(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nSum: 1\r\n\r\n")
    assert seen[-3:] == [("body", b"a"), (b"Sum", b"1"), "complete"]


@pytest.mark.parametrize(
    "data",
    [
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: \0\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n",
        b"NONE / HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n",
    ],
)
def test_refused_by_itself(data):
    with pytest.raises(httptools.HttpParserError):
        request().feed(data)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        b"GET / RTSP/1.0\r\nHost: a\r\n\r\n",
        b"SOURCE / ICE/1.0\r\nHost: a\r\n\r\n",
        b"GET http:///x HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_accepted_so_that_the_codec_must_look(data):
    assert request().feed(data)[-1] == "complete"


def test_values_keep_their_trailing_white_space():
    assert (b"A", b"b \t") in request().feed(b"GET / HTTP/1.1\r\nA:  b \t\r\n\r\n")


def test_what_a_callback_raises_is_the_context_of_the_error():
    class Broken(Events):
        def on_headers_complete(self):
            raise ValueError("mine")

    with pytest.raises(httptools.HttpParserCallbackError) as raised:
        Broken(httptools.HttpRequestParser).feed(b"GET / HTTP/1.1\r\n\r\n")
    assert repr(raised.value.__context__) == "ValueError('mine')"
