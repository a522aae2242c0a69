"""Messages that mean harm, from downstream and from upstream: framing, targets, nominated headers, floods."""

from __future__ import annotations

from tests.conformance.exchanges.requests import H, get, header, line, post
from tests.conformance.exchanges.responses import GET, HEAD, OK, answer
from tests.support.exchange import Exchange, Gap, ReadResponses, ReadUntil
from tests.support.upstream import Close
from tests.support.upstream import Gap as UpstreamGap

CHUNKED = b"transfer-encoding: chunked\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\n"
EVIL = ANSWER + b"content-length: 4\r\n\r\nevil"
SECOND = ANSWER + b"content-length: 6\r\n\r\nsecond"
NEXT = b"GET /second HTTP/1.1\r\n" + H + b"\r\n"
MANY = b"".join(b"x-%d: 1\r\n" % number for number in range(120))


def smuggled(name: str, *steps: object, send: bytes = GET) -> Exchange:
    """The upstream says more than it was asked; then comes the downstream's second request."""
    sends = (send, ReadResponses(1), Gap(0.05), NEXT)
    return Exchange(name, sends, (steps, (SECOND,)), responses=2, log_lines=2)  # type: ignore[arg-type]


FRAMING = [
    post("te with a tab before it", b"transfer-encoding:\tchunked\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
    post("te with a tab behind it", b"transfer-encoding: chunked\t\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
    post("te with a parameter", b"transfer-encoding: chunked;q=1\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
    post("te with an empty element", b"transfer-encoding: ,chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
    post("te in quotes", b'transfer-encoding: "chunked"\r\n', b"3\r\nabc\r\n0\r\n\r\n"),
    post("te identity, chunked", b"transfer-encoding: identity, chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
    post("te gzip and te chunked", b"transfer-encoding: gzip\r\n" + CHUNKED, b"3\r\nabc\r\n0\r\n\r\n"),
    post("te chunked and te identity", CHUNKED + b"transfer-encoding: identity\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
    post("te by an underscore", b"transfer_encoding: chunked\r\ncontent-length: 3\r\n", b"abc"),
    post("length by an underscore", b"content_length: 7\r\ncontent-length: 3\r\n", b"abc"),
    post("length 0 and te", b"content-length: 0\r\n" + CHUNKED, b"3\r\nabc\r\n0\r\n\r\n"),
    post("length with a fraction", b"content-length: 3.0\r\n", b"abc"),
    post("length in other digits", b"content-length: \xd9\xa3\r\n", b"abc"),
    post("chunk extensions", CHUNKED, b'3;a\r\nabc\r\n2;b="c;\\"d"\r\nde\r\n0;z=y\r\n\r\n'),
    post("a line end in a chunk extension", CHUNKED, b'3;a="\r\nabc"\r\n0\r\n\r\n'),
    post("white space before a chunk extension", CHUNKED, b"3 ;a=b\r\nabc\r\n0\r\n\r\n"),
    post("nul in a chunk extension", CHUNKED, b"3;a=\0\r\nabc\r\n0\r\n\r\n"),
    post("a chunk extension without end", CHUNKED, b"3;" + b"a" * 70_000 + b"\r\nabc\r\n0\r\n\r\n"),
    post("a chunk size of 40 digits", CHUNKED, b"0" * 39 + b"3\r\nabc\r\n0\r\n\r\n"),
    post("a chunk longer than its size", CHUNKED, b"2\r\nabc\r\n0\r\n\r\n"),
    post("a request behind the last chunk", CHUNKED, b"3\r\nabc\r\n0\r\nGET /x HTTP/1.1\r\nhost: h\r\n\r\n"),
    post("a length among the trailers", CHUNKED, b"3\r\nabc\r\n0\r\ncontent-length: 5\r\n\r\n"),
    post("a host among the trailers", CHUNKED, b"3\r\nabc\r\n0\r\nhost: evil\r\nx-t: 1\r\n\r\n", config="trailers"),
    post("folded trailers", CHUNKED, b"3\r\nabc\r\n0\r\nx: a\r\n b\r\n\r\n", config="trailers"),
    post("too many trailers", CHUNKED, b"3\r\nabc\r\n0\r\n" + MANY + b"\r\n", config="trailers"),
    post("too many trailers, dropped", CHUNKED, b"3\r\nabc\r\n0\r\n" + MANY + b"\r\n"),
    post("trailers too large", CHUNKED, b"3\r\nabc\r\n0\r\nx: " + b"y" * 70_000 + b"\r\n\r\n"),
    Exchange(
        "an expected body and a request behind it",
        (
            b"POST /1 HTTP/1.1\r\n" + H + b"expect: 100-continue\r\ncontent-length: 3\r\n\r\n",
            ReadUntil(b"100 Continue\r\n\r\n"),
            b"abc" + NEXT,
        ),
        responses=2,
        log_lines=2,
    ),
    Exchange(
        "chunks that nobody has waited to be asked for",
        (b"POST /1 HTTP/1.1\r\n" + H + b"expect: 100-continue\r\n" + CHUNKED + b"\r\n3\r\nabc\r\n0\r\n\r\n" + NEXT,),
        responses=2,
        log_lines=2,
    ),
    Exchange(
        "an upgrade that is refused, with a body and a request behind it",
        (
            b"POST /1 HTTP/1.1\r\n"
            + H
            + b"connection: upgrade\r\nupgrade: websocket\r\ncontent-length: 3\r\n\r\nabc"
            + NEXT,
        ),
    ),
    get("connect with a body", b"CONNECT h.example:443 HTTP/1.1\r\n" + H + b"content-length: 3\r\n"),
]

NOMINATED = [
    header(f"connection: {name}", b"connection: close, %b\r\n%b: 8.8.8.8\r\n" % (name.encode(), name.encode()))
    for name in (
        "X-Forwarded-For",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-forwarded-port",
        "authorization",
        "cookie",
    )
] + [
    header("connection: a pseudo header", b"connection: :path\r\n"),
    header("connection: host", b"connection: host\r\n"),
    header("connection: itself", b"connection: connection\r\n"),
    header("connection: nine words", b"connection: a, b, c, d, e, f, g, h, i\r\n"),
    header("connection: ten words", b"connection: a, b, c, d, e\r\nconnection: f, g, h, i, j\r\n"),
    post("connection: content-length", b"connection: content-length\r\ncontent-length: 3\r\n", b"abc"),
    post("connection: transfer-encoding", b"connection: transfer-encoding\r\n" + CHUNKED, b"3\r\nabc\r\n0\r\n\r\n"),
]

TARGETS = [
    *[
        line(f"absolute form, {name}", b"GET " + target + b" HTTP/1.1")
        for name, target in {
            "two ports": b"http://h.example:80:90/",
            "no port": b"http://h.example:/x",
            "a port too large": b"http://h.example:65536/x",
            "the largest port": b"http://h.example:65535/x",
            "port letters": b"http://h.example:abc/x",
            "an escape": b"http://h%2eexample/",
            "an underscore": b"http://h_example/",
            "ipv6": b"http://[fd00::1]:80/",
            "ipv6 without end": b"http://[::1/x",
            "behind ipv6": b"http://[::1]evil/x",
            "two users": b"http://u@evil@h.example/",
            "a host in the user": b"http://h.example@evil/",
            "a backslash": b"http://h.example\\@evil/",
            "no host": b"http:///x",
            "only a fragment": b"http://h.example#x",
        }.items()
    ],
    get("absolute form, two hosts", b"GET http://h.example/x HTTP/1.1\r\nhost: evil\r\nhost: evil2\r\n"),
    *[
        line(f"connect, {name}", b"CONNECT " + target + b" HTTP/1.1")
        for name, target in {
            "no port": b"h.example:",
            "a port too large": b"h.example:70000",
            "a user": b"u@h.example:443",
            "a path": b"h.example:443/x",
            "an underscore": b"h_example:443",
        }.items()
    ],
    line("star and more", b"GET *x HTTP/1.1"),
    line("escaped line ends in the path", b"GET /%0d%0ax:%20y HTTP/1.1"),
]

RESPONSES = [
    smuggled("an answer behind the answer", ANSWER + b"content-length: 2\r\n\r\nok" + EVIL),
    smuggled("an answer behind the last chunk", ANSWER + CHUNKED + b"\r\n2\r\nok\r\n0\r\n\r\n" + EVIL),
    smuggled("an answer behind 204", b"HTTP/1.1 204 No Content\r\n\r\n" + EVIL),
    smuggled("an answer behind 304", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 50\r\n\r\n" + EVIL),
    smuggled("an answer behind that to HEAD", ANSWER + b"content-length: 50\r\n\r\n" + EVIL, send=HEAD),
    smuggled("an answer after the answer", ANSWER + b"content-length: 2\r\n\r\nok", UpstreamGap(0.02), EVIL),
    answer("5000 interim answers", b"HTTP/1.1 100 Continue\r\n\r\n" * 5000 + OK),
    answer("an interim answer with a body", b"HTTP/1.1 103 Early Hints\r\ncontent-length: 5\r\n\r\nhello" + OK),
    answer("an interim answer in chunks", b"HTTP/1.1 100 Continue\r\n" + CHUNKED + b"\r\n" + OK),
    answer("an interim answer behind the answer", OK + b"HTTP/1.1 100 Continue\r\n\r\n"),
    *[
        answer(f"from upstream: te {value.decode()}", ANSWER + b"transfer-encoding: %b\r\n\r\nok" % value, Close())
        for value in (b"identity", b"xchunked", b"chunked, chunked", b"gzip, chunked")
    ],
    *[
        answer(f"from upstream: length {value!r}", ANSWER + b"content-length: %b\r\n\r\nok" % value, Close())
        for value in (b"+2", b"2,2", b"0x2", b"", b"18446744073709551617")
    ],
    answer("from upstream: a chunk longer than its size", ANSWER + CHUNKED + b"\r\n1\r\nok\r\n0\r\n\r\n", Close()),
    answer(
        "from upstream: too many trailers",
        ANSWER + CHUNKED + b"\r\n2\r\nok\r\n0\r\n" + MANY + b"\r\n",
        config="trailers",
    ),
    answer("from upstream: a head without end", ANSWER + b"x: " + b"y" * 400_000, Close()),
    *[
        answer(f"from upstream: {first.decode()!r}", first + b"\r\ncontent-length: 2\r\n\r\nok", Close())
        for first in (
            *(b"RTSP/1.0 200 OK", b"ICY 200 OK", b"HTTP/2 200 OK", b"HTTP/1.2 200 OK", b"http/1.1 200 OK"),
            *(b"\r\nHTTP/1.1 200 OK", b" HTTP/1.1 200 OK", b"HTTP/1.1 20 OK", b"HTTP/1.1 -200 OK", b"HTTP/1.1 099 OK"),
        )
    ],
    answer("from upstream: a bare cr in a value", ANSWER + b"x: a\rb\r\ncontent-length: 2\r\n\r\nok", Close()),
]

EXCHANGES = [*FRAMING, *NOMINATED, *TARGETS, *RESPONSES]
