"""The codecs' own decisions. The corpus of wire files in tests/conformance/http1 shows the rest of the grammar.

Every message is fed whole, byte by byte and cut at random (the seed stands in the failure's text).
"""

import random

import pytest

from forkproxy.http import http1
from forkproxy.http.codec import CodecError
from forkproxy.http.http1 import REFUSED, ClientCodec, ServerCodec, ServerSettings
from tests.support.wirefile import RequestTranscript, ResponseTranscript, cuts

# -- reading requests


def read(pieces, **settings):
    """(transcript, refusal or None, codec) of a server codec."""
    sink = RequestTranscript()
    sink.codec = codec = ServerCodec(sink, ServerSettings(**settings))
    refusal = None
    try:
        for piece in pieces:
            codec.feed(piece)
    except CodecError as error:
        refusal = (error.status, error.details)
    sink.flush()
    codec.close()
    return sink.lines, refusal, codec


def read_all_ways(data, **settings):
    """The transcript and refusal, the same in whatever pieces ``data`` comes."""
    outcomes = {way: read(pieces, **settings)[:2] for way, pieces in cuts(data, random.randrange(1 << 30)).items()}
    for way, outcome in outcomes.items():
        assert outcome == outcomes["whole"], way
    return outcomes["whole"]


def lines(data, **settings):
    found, refusal = read_all_ways(data, **settings)
    assert refusal is None
    return found


def refusal(data, **settings):
    """The refusal of the whole; pieces are refused too (perhaps with other details, when the reason is not there yet)."""
    for way, pieces in cuts(data, random.randrange(1 << 30)).items():
        assert read(pieces, **settings)[1] is not None, way
    return read([data], **settings)[1]


GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"


def get(*headers):
    return b"GET /x HTTP/1.1\r\n" + b"".join([header + b"\r\n" for header in headers]) + b"\r\n"


def post(body, *headers):
    return b"POST /x HTTP/1.1\r\nHost: a\r\n" + b"".join([header + b"\r\n" for header in headers]) + b"\r\n" + body


def test_a_request_without_a_body():
    assert lines(GET) == ["head GET /x a end"]


def test_pipelined_requests_in_order():
    data = (
        GET + post(b"two", b"Content-Length: 3") + post(b"3\r\nodd\r\n0\r\n\r\n", b"Transfer-Encoding: chunked") + GET
    )
    assert lines(data) == [
        "head GET /x a end",
        "head POST /x a",
        "header content-length: 3",
        "body two",
        "end",
        "head POST /x a",
        "body odd",
        "end",
        "head GET /x a end",
    ]


def test_nothing_of_one_request_stays_for_the_next():
    first = post(
        b"0\r\n\r\n",
        b"Transfer-Encoding: chunked",
        b"Expect: 100-continue",
        b"Connection: keep-alive, x",
        b"Via: v",
        b"X: 1",
    )
    data = first + get(b"Host: b", b"X: 2")
    assert lines(data)[-2:] == ["head GET /x b end", "header x: 2"]
    codec = read([data])[2]
    assert (codec.connection_keep_alive, codec.expect_continue, codec.flags) == (False, False, 0)


@pytest.mark.parametrize("length", [b"0", b"00"])
def test_a_length_of_zero_is_the_end(length):
    assert lines(post(b"", b"Content-Length: " + length)) == [
        "head POST /x a end",
        f"header content-length: {length.decode()}",
    ]


def test_trailing_white_space_of_values_goes():
    assert lines(get(b"Host: a", b"A:  b \t ", b"C: ")) == ["head GET /x a end", "header a: b", "header c: "]


@pytest.mark.parametrize(
    ("enabled", "shown"), [(False, []), (True, ["trailer sum: 1", "trailer under_score: 2", "trailer x-request-id: 3"])]
)
def test_trailers_only_when_enabled_and_none_that_means_something(enabled, shown):
    trailers = b"Sum: 1\r\nHost: evil\r\nKeep-Alive: 3\r\nTE: x\r\nUnder_score: 2\r\nX-Request-Id: 3\r\n"
    data = post(b"1\r\na\r\n0\r\n" + trailers + b"\r\n", b"Transfer-Encoding: chunked") + GET
    assert lines(data, enable_trailers=enabled) == [
        "head POST /x a",
        "body a",
        *shown,
        "end",
        "head GET /x a end",
    ]


def test_trailers_are_limited_like_heads():
    data = post(b"1\r\na\r\n0\r\n" + b"Sum: 1\r\n" * 2000, b"Transfer-Encoding: chunked")
    for enabled in (False, True):
        pieces = [data[i : i + 1000] for i in range(0, len(data), 1000)]
        assert read(pieces, max_headers_bytes=4096, enable_trailers=enabled)[1] == (431, "http1.headers_too_large")


def test_one_endless_trailer_is_limited_too():
    pieces = [post(b"1\r\na\r\n0\r\nSum: ", b"Transfer-Encoding: chunked"), *[b"a" * 1000] * 10]
    assert read(pieces, max_headers_bytes=4096)[1] == (431, "http1.headers_too_large")


def test_a_long_body_after_a_long_head_is_not_a_long_head():
    head = post(b"", b"A: " + b"a" * 3900, b"Transfer-Encoding: chunked")
    chunks = [b"3e8\r\n" + b"b" * 1000 + b"\r\n"] * 20
    assert read([head, *chunks, b"0\r\n\r\n"], max_headers_bytes=4096)[1] is None
    tiny = [b"1\r\nb\r\n"] * 2000
    assert read([head, b"".join(tiny), b"0\r\n\r\n"], max_headers_bytes=4096)[1] is None


@pytest.mark.parametrize("form", [b"http://b:81/y?q=1", b"HTTP://b:81/y?q=1", b"https://user@b:81/y?q=1"])
def test_absolute_form_replaces_host(form):
    assert lines(b"GET " + form + b" HTTP/1.1\r\nHost: a\r\n\r\n") == ["head GET /y?q=1 b:81 end"]


@pytest.mark.parametrize(("form", "path"), [(b"http://b", "/"), (b"http://b?q", "?q"), (b"http://b/#f", "/#f")])
def test_absolute_form_without_a_path(form, path):
    assert lines(b"GET " + form + b" HTTP/1.1\r\nHost: a\r\n\r\n") == [f"head GET {path} b end"]


def test_absolute_form_stays_as_it_is_when_not_allowed():
    data = b"GET http://b/y HTTP/1.1\r\nHost: a\r\n\r\n"
    assert lines(data, allow_absolute_url=False) == ["head GET http://b/y a end"]


@pytest.mark.parametrize(
    ("target", "details"),
    [(b"ftp://b/", "http1.invalid_scheme"), (b"http://", "http1.invalid_url"), (b"http://a@/", "http1.invalid_url")],
)
def test_absolute_form_that_is_none(target, details):
    refused = refusal(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    assert refused in ((400, details), (400, "http1.codec_error"))


def test_asterisk_form_is_for_options():
    assert lines(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n") == ["head OPTIONS * a end"]
    assert refusal(b"GET * HTTP/1.1\r\nHost: a\r\n\r\n")[0] == 400


def test_authority_form_is_for_connect():
    sink_lines = lines(b"CONNECT b:443 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert sink_lines == ["head CONNECT  b:443"]
    assert refusal(b"CONNECT b HTTP/1.1\r\nHost: a\r\n\r\n") == (400, "http1.invalid_url")


def test_a_missing_host_is_told_from_an_empty_one():
    assert lines(get()) == ["head GET /x - end"]
    assert lines(get(b"Host:")) == ["head GET /x  end"]


def test_two_hosts():
    assert refusal(get(b"Host: a", b"Host: a")) == (400, "http1.duplicate_host")


@pytest.mark.parametrize("host", [b"a/b", b"a b", b"a?b", b"a\\b", b"a\xffb", b"<a>"])
def test_hosts_that_are_none(host):
    assert refusal(get(b"Host: " + host)) == (400, "http.invalid_authority")


def test_authorities_are_remembered_but_not_without_end(monkeypatch):
    monkeypatch.setattr(http1, "MAX_KNOWN_AUTHORITIES", 3)
    monkeypatch.setattr(http1, "_valid_authorities", set())
    assert [http1.is_authority(b"a%d" % number) for number in range(10)] == [True] * 10
    assert len(http1._valid_authorities) <= 3
    assert not http1.is_authority(b"a b")


def test_spellings_are_remembered_but_not_without_end(monkeypatch):
    monkeypatch.setattr(http1, "MAX_KNOWN_NAMES", 3)
    plain, special = {}, {}
    for number in range(10):
        name = b"X-%d" % number
        assert http1._learn(plain, special, name, name.lower(), number % 2) == (name.lower(), number % 2)
    assert (len(plain), len(special)) == (2, 1)
    assert http1._learn({}, special, b"Y" * 200, b"y" * 200, 0) == (b"y" * 200, 0)
    assert len(special) == 1


# -- versions


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/0.9"])
def test_low_versions_are_refused_unless_configured(version):
    data = b"GET /x " + version + b"\r\nHost: a\r\n\r\n"
    assert refusal(data) == (426, "low_version")


def test_http_10_when_configured():
    data = b"GET /x HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"
    assert lines(data, accept_http_10=True) == ["head GET /x a end"]
    sink = RequestTranscript()
    codec = sink.codec = ServerCodec(sink, ServerSettings(accept_http_10=True))
    seen = []
    sink.head = lambda *told: seen.append((codec.http_10, codec.connection_keep_alive))
    codec.feed(data + GET)
    assert seen == [(True, True), (False, False)]


def test_http_10_without_host_gets_the_default():
    data = b"GET /x HTTP/1.0\r\n\r\n"
    assert lines(data, accept_http_10=True, default_host_for_http_10=b"d") == ["head GET /x d end"]
    assert lines(data, accept_http_10=True) == ["head GET /x - end"]
    assert lines(get(), accept_http_10=True, default_host_for_http_10=b"d") == ["head GET /x - end"]


def test_transfer_encoding_on_http_10():
    data = b"POST /x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert refusal(data, accept_http_10=True) == (400, "http1.transfer_encoding_on_http_10")


@pytest.mark.parametrize("before", [b"", GET])
@pytest.mark.parametrize(
    "line",
    [
        b"GET / RTSP/1.0",
        b"GET / RTSP/1.1",
        b"OPTIONS / RTSP/1.1",
        b"OPTIONS * RTSP/1.1",
        b"POST /abc RTSP/1.1",
        b"DESCRIBE / RTSP/1.1",
        b"DESCRIBE / HTTP/1.1",
        b"SOURCE / ICE/1.1",
        b"SOURCE / HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"GET / HTTP/2.0",
        b"GET / HTTP/1.2",
    ],
)
def test_other_protocols_are_refused_in_whatever_pieces(line, before):
    found = refusal(before + line + b"\r\nHost: a\r\n\r\n", accept_http_10=True)
    assert found[0] in (400, 426)


def test_a_body_that_speaks_of_rtsp_does_not_make_the_next_request_rtsp():
    body = b"GET /y RTSP/1.0\r\nfoo RTSP/1.0\r\n"
    data = post(body, b"Content-Length: %d" % len(body)) + GET
    assert lines(data)[-1] == "head GET /x a end"


def test_a_header_that_speaks_of_rtsp():
    assert lines(get(b"Host: a", b"X: GET /x RTSP/1.0"))[0] == "head GET /x a end"


# -- framing


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([b"Transfer-Encoding: gzip, chunked"], (501, "http1.invalid_transfer_encoding")),
        ([b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], (501, "http1.invalid_transfer_encoding")),
        ([b"Transfer-Encoding: identity"], (501, "http1.invalid_transfer_encoding")),
        (
            [b"Transfer-Encoding: chunked", b"Content-Length: 1"],
            (400, "http1.content_length_and_chunked_not_allowed"),
        ),
    ],
)
def test_framing_in_doubt(headers, found):
    assert refusal(post(b"0\r\n\r\n", *headers)) == found


def test_chunked_with_a_length_when_allowed_loses_the_length():
    data = post(b"1\r\na\r\n0\r\n\r\n", b"Content-Length: 9", b"Transfer-Encoding: chunked")
    assert lines(data, allow_chunked_length=True) == ["head POST /x a", "body a", "end"]


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (get(b"Host: a", b"A: \x01"), (400, "http1.invalid_characters")),
        (b"GET /x HTTP/1.1\r\nHost : a\r\n\r\n", (400, "http1.codec_error")),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", (400, "http1.codec_error")),
        (post(b"x\r\n", b"Transfer-Encoding: chunked"), (400, "http1.codec_error")),
    ],
)
def test_what_the_parser_refuses_has_envoys_words(data, found):
    assert refusal(data) == found


# -- limits


def test_head_size():
    fits = get(b"Host: a", b"A: " + b"a" * 900)
    assert lines(fits, max_headers_bytes=1024)[0] == "head GET /x a end"
    assert refusal(get(b"Host: a", b"A: " + b"a" * 1100), max_headers_bytes=1024) == (431, "http1.headers_too_large")


def test_a_head_that_never_ends_is_refused_before_it_does():
    pieces = [b"GET /x HTTP/1.1\r\nA: ", *[b"a" * 100] * 20]
    assert read(pieces, max_headers_bytes=1024)[1] == (431, "http1.headers_too_large")


def test_a_long_target_counts():
    assert refusal(b"GET /" + b"x" * 2000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", max_headers_bytes=1024)[0] == 431


@pytest.mark.parametrize("more", [
    [], [b"Connection: close"], [b"Connection: keep-alive"], [b"Connection: keep-alive", b"Connection: close"],
    [b"Connection: keep-alive", b"X-Request-Id: 1"], [b"Connection: keep-alive", b"Connection: keep-alive"],
])  # fmt: skip
def test_header_count(more):
    host = [b"Host: a", *more]
    fits = get(*host, *[b"A: b"] * (10 - len(host)))
    assert lines(fits, max_headers_count=10)[0] == "head GET /x a end"
    assert refusal(get(*host, *[b"A: b"] * (11 - len(host))), max_headers_count=10) == (431, "http1.too_many_headers")


def test_pipelined_heads_are_limited_one_by_one():
    data = get(b"Host: a", b"A: " + b"a" * 700) * 10
    assert len([line for line in lines(data, max_headers_bytes=1024) if line.startswith("head ")]) == 10


# -- headers with a meaning


def test_hop_by_hop_headers_go():
    data = get(
        *(b"Host: a", b"Connection: close, X-Hop, te", b"Keep-Alive: 5", b"Proxy-Connection: x", b"Upgrade: h2c"),
        *(b"HTTP2-Settings: x", b"X-Hop: 1", b"Kept: 1", b"TE: gzip, trailers"),
    )
    sink_lines, _, codec = read([data])
    assert sink_lines == ["head GET /x a end", "header kept: 1"]  # "te" is not compared
    assert codec.connection_close is False  # the next message has begun


@pytest.mark.parametrize(("more", "plain", "close"), [
    ([], True, False), ([b"keep-alive"], True, False), ([b"Keep-Alive"], False, False), ([b"close"], False, True),
    ([b"keep-alive", b"keep-alive"], False, False), ([b"keep-alive", b"close"], False, True),
    ([b"close", b"keep-alive"], False, True), ([b"keep-alive, close"], False, True), ([b"x-hop"], False, False),
])  # fmt: skip
def test_keep_alive_alone_says_nothing(more, plain, close):
    seen = []
    sink = RequestTranscript()
    codec = sink.codec = ServerCodec(sink, ServerSettings())
    sink.head = lambda _line, headers, _end: seen.append((codec.plain, codec.connection_close, headers))
    # The one before and the one behind are not touched by it. Behind "close" there is none.
    for data in (GET, get(b"Host: a", *[b"Connection: " + value for value in more]), *([] if close else [GET])):
        codec.feed(data)
    assert seen == [(True, False, []), (plain, close, []), *([] if close else [(True, False, [])])]


def test_keep_alive_does_not_keep_http_10_from_being_what_it_is():
    seen = []
    sink = RequestTranscript()
    codec = sink.codec = ServerCodec(sink, ServerSettings(accept_http_10=True))
    sink.head = lambda *_: seen.append((codec.plain, codec.http_10, codec.connection_keep_alive))
    data = get(b"Host: a", b"Connection: keep-alive")
    codec.feed(data.replace(b"1.1", b"1.0"))
    codec.feed(data)
    codec.feed(get(b"Host: a").replace(b"1.1", b"1.0"))
    assert seen == [(False, True, True), (True, False, False), (False, True, False)]


@pytest.mark.parametrize("lines", [
    [b"keep-alive", b", ".join([b"a"] * 8)], [b"close", b", ".join([b"a"] * 8)], [b"keep-alive"] * 9, [b"close"] * 9,
])  # fmt: skip
def test_words_of_connection_are_limited_over_all_lines(lines):
    fits = [b"Host: a", *[b"Connection: " + value for value in lines]]
    assert read([get(*fits)])[1] is None
    assert refusal(get(*fits, b"Connection: b")) == (400, "http1.connection_header_rejected")


def test_of_te_only_trailers_passes():
    for value, passes in ((b"trailers", True), (b"gzip, Trailers", True), (b"gzip", False)):
        seen = []
        sink = RequestTranscript()
        sink.codec = ServerCodec(sink, ServerSettings())
        sink.head = lambda line, headers, end, seen=seen: seen.extend(headers)
        sink.codec.feed(get(b"Host: a", b"TE: " + value))
        assert ((b"te", b"trailers") in seen) is passes


def test_content_length_cannot_be_nominated_away():
    data = post(b"two", b"Content-Length: 3", b"Connection: content-length")
    assert "header content-length: 3" in lines(data)


@pytest.mark.parametrize(("keep", "shown"), [(False, []), (True, [(b"expect", b"100-Continue")])])
def test_expect(keep, shown):
    seen = []
    sink = RequestTranscript()
    codec = sink.codec = ServerCodec(sink, ServerSettings(keep_expect=keep))
    sink.head = lambda line, headers, end: seen.append(
        (codec.expect_continue, [h for h in headers if h[0] == b"expect"])
    )
    codec.feed(post(b"two", b"Content-Length: 3", b"Expect: 100-Continue"))
    codec.feed(post(b"two", b"Content-Length: 3", b"Expect: other"))
    assert seen == [(True, shown), (False, [(b"expect", b"other")])]


def test_flags_say_what_stands_in_the_head():
    seen = []
    sink = RequestTranscript()
    codec = sink.codec = ServerCodec(sink, ServerSettings())
    sink.head = lambda *told: seen.append(codec.flags)
    for name in (b"X-Forwarded-For", b"X-Forwarded-Proto", b"X-Request-Id", b"X-Envoy-Anything", b"X"):
        codec.feed(get(b"Host: a", name + b": 1"))
    assert seen == [
        http1.HAS_FORWARDED_FOR,
        http1.HAS_FORWARDED_PROTO,
        http1.HAS_REQUEST_ID,
        http1.HAS_ENVOY,
        0,
    ]


def test_underscores():
    data = get(b"Host: a", b"x_y: 1", b"z: 2")
    assert lines(data) == ["head GET /x a end", "header x_y: 1", "header z: 2"]
    assert lines(data, drop_underscores=True) == ["head GET /x a end", "header z: 2"]
    assert read([data], drop_underscores=True)[2].dropped_underscores == 1
    assert refusal(data, reject_underscores=True) == (400, "http1.unexpected_underscore")


# -- other protocols behind HTTP

WISH = (b"Connection: Upgrade", b"Upgrade: h2c", b"HTTP2-Settings: x")


@pytest.mark.parametrize(
    ("body", "headers", "shown"),
    [
        (b"", (), ["head POST /x a end"]),
        (b"two", (b"Content-Length: 3",), ["head POST /x a", "header content-length: 3", "body two", "end"]),
        (b"3\r\ntwo\r\n0\r\n\r\n", (b"Transfer-Encoding: chunked",), ["head POST /x a", "body two", "end"]),
    ],
)
def test_h2c_is_ignored_and_the_message_goes_on(body, headers, shown):
    data = post(body, *WISH, *headers) + GET
    assert lines(data) == [*shown, "head GET /x a end"]


def test_trailers_after_an_ignored_h2c():
    data = post(b"0\r\nSum: 1\r\n\r\n", *WISH, b"Transfer-Encoding: chunked") + GET
    assert lines(data, enable_trailers=True) == ["head POST /x a", "trailer sum: 1", "end", "head GET /x a end"]


def test_many_h2c_wishes_in_one_read_do_not_recurse():
    one = get(b"Host: a", *WISH)
    assert len(read([one * 3000])[0]) == 3000


@pytest.mark.parametrize(
    ("value", "wanted"), [(b"websocket", b"websocket"), (b"h2c", b""), (b"H2C", b""), (b"", REFUSED)]
)
def test_what_upgrade_is_asked_for(value, wanted):
    seen = []
    sink = RequestTranscript()
    codec = sink.codec = ServerCodec(sink, ServerSettings())
    sink.head = lambda *told: seen.append(codec.upgrade)
    codec.feed(get(b"Host: a", b"Connection: upgrade", b"Upgrade: " + value))
    assert seen == [wanted]


def test_closing_inside_a_feed():
    # The sink may close the connection, and so the codec, from any callback.
    sink = RequestTranscript()
    codec = sink.codec = ServerCodec(sink, ServerSettings())
    sink.head = lambda *told: codec.close()
    codec.feed(get(b"Host: a", *WISH) + GET)


def test_fresh_is_between_messages():
    codec = ServerCodec(RequestTranscript(), ServerSettings())
    codec._sink.codec = codec
    told = []
    for piece in (GET[:5], GET[5:] + b"GET /", b" HTTP/1.1\r\nHost: a\r\n\r\n"):
        codec.feed(piece)
        told.append(codec.fresh)
    assert told == [False, False, True]


# -- reading responses


class Exchange:
    """A client codec and what it says."""

    def __init__(self, trailers=False, **limits):
        self.sink = ResponseTranscript()
        self.codec = self.sink.codec = ClientCodec(self.sink, **limits)
        self.codec.enable_trailers = trailers

    def answer(self, pieces, head=False):
        self.sink.lines.clear()
        self.codec.expect(head)
        for piece in pieces:
            self.codec.feed(piece)
        self.sink.flush()
        return list(self.sink.lines)

    @property
    def after(self):
        codec = self.codec
        return (codec.complete, codec.reusable, codec.unsolicited)


DONE = (True, True, False)


def responses(data, head=False, **options):
    """What is said of the same response twice on one connection, and the codec's state after it, in whatever pieces."""
    outcomes = {}
    for way, pieces in cuts(data, random.randrange(1 << 30)).items():
        exchange = Exchange(**options)
        first = exchange.answer(pieces, head)
        if exchange.after == DONE:
            assert exchange.answer(pieces, head) == first, way
        outcomes[way] = (first, exchange.after)
    for way, outcome in outcomes.items():
        assert outcome == outcomes["whole"], way
    return outcomes["whole"]


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_a_response_and_another():
    assert responses(OK) == (["head 200", "header content-length: 2", "body ok", "end"], DONE)


@pytest.mark.parametrize(("pieces", "offered", "given"), [
    ([OK], b"ok", []), ([OK[:-2], b"ok"], b"", [b"ok"]), ([OK[:-1], b"k"], b"o", [b"k"]), ([OK[:9], OK[9:]], b"ok", []),
])  # fmt: skip
@pytest.mark.parametrize("takes", [True, False])
def test_with_the_head_the_sink_is_offered_what_is_there_of_the_body(pieces, offered, given, takes):
    said = []

    class Taker(ResponseTranscript):
        def decode_headers(self, status, headers, end_stream):
            said.append((status, codec.body, codec.status, codec.complete, end_stream))
            if takes:
                codec.body = b""

        def decode_data(self, data):
            said.append(data)

        def decode_complete(self, trailers):
            said.append("end")

    codec = ClientCodec(Taker())
    for _ in range(2):
        codec.expect(False)
        for piece in pieces:
            codec.feed(piece)
        assert said == [(200, offered, 200, False, False), *([offered] if offered and not takes else []), *given, "end"]
        assert codec.body == b""
        said.clear()


@pytest.mark.parametrize(("enabled", "shown"), [(False, []), (True, ["trailer sum: 1"])])
def test_a_chunked_response(enabled, shown):
    trailers = b"Sum: 1\r\nKeep-Alive: 3\r\nX-Envoy-Upstream-Canary: true\r\n"
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nok\r\n0\r\n" + trailers + b"\r\n"
    assert responses(data, trailers=enabled) == (["head 200", "body ok", *shown, "end"], DONE)


def test_interim_responses_come_before():
    data = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK
    assert responses(data) == (
        ["interim 100", "interim 103", "header link: x", "head 200", "header content-length: 2", "body ok", "end"],
        DONE,
    )


@pytest.mark.parametrize("framing", [b"Content-Length: 5", b"Transfer-Encoding: chunked", b"A: b"])
def test_the_answer_to_head_ends_with_its_head(framing):
    data = b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n"
    said, after = responses(data, head=True)
    assert (said[0], after) == ("head 200 end", DONE)
    exchange = Exchange()
    exchange.answer([data], head=True)
    assert exchange.answer([OK])[-2:] == ["body ok", "end"]


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body(status):
    assert responses(b"HTTP/1.1 %d X\r\n\r\n" % status) == ([f"head {status} end"], DONE)


def test_304_may_have_a_length():
    said, after = responses(b"HTTP/1.1 304 X\r\nContent-Length: 5\r\n\r\n")
    assert (said[0], after) == ("head 304 end", DONE)


def test_a_length_of_zero():
    assert responses(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")[0][0] == "head 200 end"


@pytest.mark.parametrize(
    ("head", "reusable"),
    [
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n", False),
        (b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\n", False),
        (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n", True),
    ],
)
def test_may_the_connection_be_used_again(head, reusable):
    assert responses(head + b"Content-Length: 2\r\n\r\nok")[1] == (True, reusable, False)


def test_a_response_without_framing_ends_by_the_close():
    exchange = Exchange()
    assert exchange.answer([b"HTTP/1.1 200 OK\r\n\r\nall", b" of it"]) == ["head 200", "body all of it"]
    assert exchange.after == (False, False, False)
    assert exchange.codec.finish()
    assert exchange.after == (True, False, False)
    assert exchange.sink.lines[-1] == "end"
    assert not exchange.codec.finish()


@pytest.mark.parametrize(
    "begun", [b"", b"HTTP/1.1 200", OK[:-1], b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n"]
)
def test_a_close_elsewhere_is_no_end(begun):
    exchange = Exchange()
    exchange.answer([begun] if begun else [])
    assert exchange.codec.between_messages is (not begun)
    assert not exchange.codec.finish()
    assert not exchange.codec.complete


@pytest.mark.parametrize("more", [OK, b"x", b"HTTP/1.1 100 Continue\r\n\r\n"])
@pytest.mark.parametrize("head", [False, True])
def test_what_follows_a_response_unasked(more, head):
    exchange = Exchange()
    message = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + (b"" if head else b"ok")
    said = exchange.answer([message + more], head)
    assert said[0].startswith("head 200")
    assert said.count("head 200") + said.count("head 200 end") == 1
    assert exchange.after == (True, True, True)


def test_bytes_before_any_request():
    exchange = Exchange()
    with pytest.raises(CodecError) as raised:
        exchange.codec.feed(OK)
    assert raised.value.details == "unsolicited_response"
    assert exchange.codec.unsolicited


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 099 What\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
    ],
)
def test_responses_that_are_refused(data):
    for way, pieces in cuts(data, random.randrange(1 << 30)).items():
        with pytest.raises(CodecError) as raised:
            Exchange().answer(pieces)
        assert raised.value.status == 502, way


def test_response_head_limits():
    def answer(*headers):
        return b"HTTP/1.1 200 OK\r\n" + b"".join(headers) + b"Content-Length: 0\r\n\r\n"

    assert responses(answer(b"A: b\r\n" * 9), max_headers_count=10)[1] == DONE
    with pytest.raises(CodecError):
        Exchange(max_headers_count=10).answer([answer(b"A: b\r\n" * 10)])
    assert responses(answer(b"A: " + b"a" * 900 + b"\r\n"), max_headers_bytes=1024)[1] == DONE
    with pytest.raises(CodecError):
        Exchange(max_headers_bytes=1024).answer([answer(b"A: " + b"a" * 1100 + b"\r\n")])
    with pytest.raises(CodecError):
        Exchange(max_headers_bytes=1024).answer([b"HTTP/1.1 200 OK\r\nA: ", *[b"a" * 100] * 20])


def test_response_trailers_are_limited_too():
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    with pytest.raises(CodecError):
        Exchange(max_headers_bytes=1024).answer([head, *[b"Sum: 1\r\n" * 100] * 20])


def test_a_long_body_after_a_head_is_not_a_long_head():
    head = b"HTTP/1.1 200 OK\r\nA: " + b"a" * 900 + b"\r\nContent-Length: 20000\r\n\r\n"
    assert Exchange(max_headers_bytes=1024).answer([head, *[b"b" * 1000] * 20])[-1] == "end"


def test_service_time_and_canary_are_seen():
    exchange = Exchange()
    exchange.codec.expect(False)
    exchange.codec.feed(b"HTTP/1.1 200 OK\r\nX-Envoy-Upstream-Service-Time: 1\r\nX-Envoy-Upstream-Canary: true\r\n\r\n")
    assert (exchange.codec.has_service_time, exchange.codec.is_canary) == (True, True)
    other = Exchange()
    other.codec.expect(False)
    other.codec.feed(b"HTTP/1.1 200 OK\r\nX-Envoy-Upstream-Canary: false\r\n\r\n")
    assert (other.codec.has_service_time, other.codec.is_canary) == (False, False)


def test_hop_by_hop_response_headers_go():
    hops = b"Connection: keep-alive\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nUpgrade: h2\r\n"
    data = b"HTTP/1.1 200 OK\r\n" + hops + b"Content-Length: 0\r\nA: b\r\n\r\n"
    exchange = Exchange()
    seen = []
    exchange.sink.head = lambda line, headers, end: seen.append(headers)
    exchange.answer([data])
    assert seen == [[(b"content-length", b"0"), (b"a", b"b")]]
