"""What the upstream answers, and how the answer (or its absence) reaches the downstream."""

from __future__ import annotations

from tests.support.exchange import Exchange, Gap, HalfClose, ReadResponses, ReadUntil, Reset, SendStep, UpstreamHas
from tests.support.upstream import Close, Early, Hang, OnAccept, Step, Until
from tests.support.upstream import Gap as UpstreamGap
from tests.support.upstream import HalfClose as UpstreamHalfClose
from tests.support.upstream import Reset as UpstreamReset

H = b"host: h.example\r\n"
GET = b"GET /g HTTP/1.1\r\n" + H + b"\r\n"
HEAD = b"HEAD /g HTTP/1.1\r\n" + H + b"\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
# A body that comes after the answer meets a socket that is closing: FIN or RST is then the kernel's choice.
WITHOUT_ENDING = ("downstream", "upstream", "log", "stats")
MANY_HEADERS = b"".join(b"x-%d: 1\r\n" % number for number in range(100))
POST_10 = b"POST /p HTTP/1.1\r\n" + H + b"content-length: 10\r\n\r\n"


def answer(name: str, *steps: Step, send: SendStep | tuple[SendStep, ...] = GET, **more: object) -> Exchange:
    """A GET (or `send`) and the upstream's answer."""
    sends = send if isinstance(send, tuple) else (send,)
    return Exchange(name, sends, (tuple(steps),), **more)  # type: ignore[arg-type]


def head(name: str, lines: bytes, body: bytes = b"", **more: object) -> Exchange:
    """A whole answer given as its head lines."""
    return answer(name, lines + b"\r\n" + body, **more)  # type: ignore[arg-type]


OWN = (
    b"HTTP/1.1 200 Fine By Me\r\nServer: own\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nX-Odd-Case: 1\r\nKeep-Alive: timeout=5\r\n"
    b"Proxy-Connection: keep-alive\r\nConnection: keep-alive, X-Drop\r\nX-Drop: 1\r\nContent-Length: 2\r\nSet-Cookie: a=1\r\n"
    b"Set-Cookie: b=2\r\nVia: 1.0 u\r\nX-Envoy-Upstream-Service-Time: 99\r\nX-Request-Id: r\r\nUpgrade: h2c\r\nTrailer: x\r\n"
)

HEADS = [
    head("own headers", OWN, b"ok"),
    head("own headers, server passed", OWN, b"ok", config="server_pass"),
    head("own headers, server if absent", OWN, b"ok", config="server_absent"),
    head("no server, server if absent", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n", b"ok", config="server_absent"),
    head("no server, server passed", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n", b"ok", config="server_pass"),
    head("own headers, named", OWN, b"ok", config="named"),
    head("own headers, proper case", OWN, b"ok", config="case"),
    head("own headers, request id in the response", OWN, b"ok", config="keep_request_id"),
    head("own headers, default log", OWN, b"ok", config="default_log"),
    *[
        head(f"status {status}", b"HTTP/1.1 %d Whatever\r\ncontent-length: 2\r\n" % status, b"ok")
        for status in (
            201,
            202,
            206,
            299,
            300,
            301,
            400,
            404,
            418,
            429,
            451,
            499,
            500,
            502,
            503,
            504,
            511,
            599,
            600,
            799,
            999,
        )
    ],
    head("status 099", b"HTTP/1.1 099 Odd\r\ncontent-length: 2\r\n", b"ok"),
    head("status 1000", b"HTTP/1.1 1000 Odd\r\ncontent-length: 2\r\n", b"ok"),
    head("status 20", b"HTTP/1.1 20 Odd\r\ncontent-length: 2\r\n", b"ok"),
    head("status words", b"HTTP/1.1 abc Odd\r\ncontent-length: 2\r\n", b"ok"),
    head("no reason", b"HTTP/1.1 200\r\ncontent-length: 2\r\n", b"ok"),
    head("empty reason", b"HTTP/1.1 200 \r\ncontent-length: 2\r\n", b"ok"),
    head("version 1.0", b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n", b"ok"),
    head("version 1.0 keep-alive", b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n", b"ok"),
    head("version 1.0 without length", b"HTTP/1.0 200 OK\r\n", b"ok"),
    head("version 2.0 from upstream", b"HTTP/2.0 200 OK\r\ncontent-length: 2\r\n", b"ok"),
    head("underscore name from upstream", b"HTTP/1.1 200 OK\r\nx_y: 1\r\ncontent-length: 0\r\n"),
    head("bad name from upstream", b"HTTP/1.1 200 OK\r\nx y: 1\r\ncontent-length: 0\r\n"),
    head("nul in value from upstream", b"HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 0\r\n"),
    head("obs-fold from upstream", b"HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 0\r\n"),
    answer("bare lf from upstream", b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok"),
    head("high bytes from upstream", b"HTTP/1.1 200 OK\r\nx: caf\xc3\xa9\r\ncontent-length: 0\r\n"),
    head("head of 59 KiB from upstream", b"HTTP/1.1 200 OK\r\nx: " + b"a" * 59 * 1024 + b"\r\ncontent-length: 0\r\n"),
    head("head of 61 KiB from upstream", b"HTTP/1.1 200 OK\r\nx: " + b"a" * 61 * 1024 + b"\r\ncontent-length: 0\r\n"),
    head(
        "101 headers from upstream",
        b"HTTP/1.1 200 OK\r\n" + MANY_HEADERS + b"content-length: 0\r\n",
    ),
    head("connection close from upstream", b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n", b"ok"),
    head(
        "envoy headers from upstream",
        b"HTTP/1.1 200 OK\r\nx-envoy-upstream-canary: true\r\nx-envoy-degraded: 1\r\nx-envoy-immediate-health-check-fail: 1\r\n"
        b"x-envoy-decorator-operation: o\r\nx-envoy-overloaded: true\r\nx-envoy-upstream-healthchecked-cluster: c\r\n"
        b"content-length: 0\r\n",
    ),
]

BODIES = [
    head("head, content-length", b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n", send=HEAD),
    head("head, chunked", CHUNKED, send=HEAD),
    head("head, no framing", b"HTTP/1.1 200 OK\r\n", send=HEAD),
    answer(
        "head, then a GET",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n",
        send=(HEAD, ReadResponses(1), HEAD),
        responses=2,
        log_lines=2,
    ),
    head("204", b"HTTP/1.1 204 No Content\r\n"),
    head("204 with length 0", b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n"),
    head("204 with a length", b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n"),
    head("204 chunked", b"HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n", b"0\r\n\r\n"),
    head("205", b"HTTP/1.1 205 Reset Content\r\ncontent-length: 0\r\n"),
    head("304", b"HTTP/1.1 304 Not Modified\r\netag: x\r\n"),
    head("304 with a length", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 100\r\n"),
    head("304 chunked", b"HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked\r\n"),
    head("content-length 0 from upstream", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n"),
    head("chunked from upstream", CHUNKED, b"3\r\nabc\r\n5;x=y\r\nhello\r\n0\r\n\r\n"),
    answer(
        "chunked in packets",
        CHUNKED + b"\r\n",
        UpstreamGap(),
        b"3\r\nabc\r\n",
        UpstreamGap(),
        b"5\r\nhel",
        UpstreamGap(),
        b"lo\r\n0\r\n\r\n",
    ),
    answer(
        "length in packets",
        b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n",
        UpstreamGap(),
        b"abc",
        UpstreamGap(),
        b"def",
    ),
    answer(
        "head in packets",
        b"HTTP/1.1 20",
        UpstreamGap(),
        b"0 OK\r\ncontent-le",
        UpstreamGap(),
        b"ngth: 2\r\n\r",
        UpstreamGap(),
        b"\nok",
    ),
    head(
        "chunked trailers from upstream",
        CHUNKED + b"trailer: x-t\r\n",
        b"3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n",
    ),
    head(
        "chunked trailers from upstream, enabled",
        CHUNKED + b"trailer: x-t\r\n",
        b"3\r\nabc\r\n0\r\nX-T: 1\r\nX-U: 2\r\n\r\n",
        config="trailers",
    ),
    head("odd case chunked", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
    answer(
        "close-delimited",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nhello ",
        UpstreamGap(),
        b"world",
        Close(),
    ),
    answer("close-delimited, half close", b"HTTP/1.1 200 OK\r\n\r\nhello", UpstreamHalfClose()),
    answer("close-delimited, reset", b"HTTP/1.1 200 OK\r\n\r\nhello", UpstreamGap(0.05), UpstreamReset()),
    answer("close-delimited, connection close", b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello", Close()),
    answer("close-delimited, empty", b"HTTP/1.1 200 OK\r\n\r\n", Close()),
    answer(
        "close-delimited to 1.0",
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        Close(),
        send=b"GET / HTTP/1.0\r\nhost: h\r\n\r\n",
        config="http10",
    ),
    answer("length cut short", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello", Close()),
    answer(
        "length cut short before the body", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n", UpstreamGap(), Close()
    ),
    answer(
        "length cut short by reset",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello",
        UpstreamGap(0.05),
        UpstreamReset(),
    ),
    answer("chunked cut short", CHUNKED + b"\r\n5\r\nhello\r\n", Close()),
    answer(
        "chunked cut inside a chunk",
        CHUNKED + b"\r\na\r\nhello",
        UpstreamGap(),
        Close(),
    ),
    answer(
        "chunked bad size",
        CHUNKED + b"\r\n5\r\nhello\r\n",
        UpstreamGap(),
        b"zz\r\n",
        responses=1,
    ),
    answer("chunked bad size at once", CHUNKED + b"\r\nzz\r\n", responses=1),
    answer("longer than its length", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokEXTRA"),
    answer("two answers to one request", OK + OK),
    answer(
        "te and cl from upstream",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ),
    answer("two lengths from upstream", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nokk"),
    answer("two equal lengths from upstream", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok"),
    answer("bad length from upstream", b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\nok"),
    answer(
        "te gzip from upstream", b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    ),
    answer("body of 300 KiB", b"HTTP/1.1 200 OK\r\ncontent-length: 307200\r\n\r\n" + b"z" * 307200),
    answer(
        "chunked body of 300 KiB",
        CHUNKED + b"\r\n" + b"4b000\r\n" + b"z" * 307200 + b"\r\n0\r\n\r\n",
        compare=("ending", "log", "stats"),
    ),
]

INTERIM = [
    answer("100 from upstream", b"HTTP/1.1 100 Continue\r\n\r\n", UpstreamGap(), OK),
    answer("100 and the answer together", b"HTTP/1.1 100 Continue\r\n\r\n" + OK),
    answer("102 from upstream", b"HTTP/1.1 102 Processing\r\nx-p: 1\r\n\r\n" + OK),
    answer("103 from upstream", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + OK),
    answer(
        "two interim answers",
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </b>\r\n\r\n" + OK,
    ),
    answer("199 from upstream", b"HTTP/1.1 199 Odd\r\n\r\n" + OK),
    answer("101 unasked", b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nraw", Close()),
    answer("100 with length", b"HTTP/1.1 100 Continue\r\ncontent-length: 0\r\n\r\n" + OK),
    Exchange(
        "expect continue, upstream asked",
        (
            b"POST /p HTTP/1.1\r\n" + H + b"expect: 100-continue\r\ncontent-length: 5\r\n\r\n",
            ReadUntil(b"100 Continue\r\n"),
            b"hello",
        ),
        ((Early(), b"HTTP/1.1 100 Continue\r\n\r\n", Until(b"hello"), OK),),
        config="named",
    ),
    Exchange(
        "expect continue, upstream refuses",
        (b"POST /p HTTP/1.1\r\n" + H + b"expect: 100-continue\r\ncontent-length: 5\r\n\r\n",),
        ((Early(), b"HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\n\r\n"),),
        config="named",
    ),
    Exchange(
        "expect continue, default, upstream refuses",
        (b"POST /p HTTP/1.1\r\n" + H + b"expect: 100-continue\r\ncontent-length: 5\r\n\r\n",),
        ((Early(), b"HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\n\r\n"),),
    ),
]

FAILURES = [
    answer("upstream closes before the answer", Close()),
    answer("upstream resets before the answer", UpstreamReset()),
    answer("upstream half closes before the answer", UpstreamHalfClose()),
    answer("upstream closes inside the head", b"HTTP/1.1 200 OK\r\ncontent-le", UpstreamGap(), Close()),
    answer("upstream resets inside the head", b"HTTP/1.1 200 OK\r\ncontent-le", UpstreamGap(0.05), UpstreamReset()),
    answer("garbage from upstream", b"\x00\x01garbage\r\n\r\n"),
    answer("ssh banner from upstream", b"SSH-2.0-OpenSSH_9.2\r\n"),
    answer("upstream speaks first", OnAccept(), b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Hang()),
    answer("upstream closes at accept", OnAccept(), Close()),
    answer("post, upstream closes", Close(), send=b"POST /p HTTP/1.1\r\n" + H + b"content-length: 2\r\n\r\nok"),
    Exchange(
        "reused connection closed by upstream",
        (GET, ReadResponses(1), GET),
        ((OK,), (Close(),), (OK,)),
        responses=2,
        log_lines=2,
    ),
    Exchange(
        "body on a reused connection closed by upstream",
        (GET, ReadResponses(1), b"PUT /p HTTP/1.1\r\n" + H + b"content-length: 5\r\n\r\nhello"),
        ((OK,), (Close(),), (OK,)),
        responses=2,
        log_lines=2,
    ),
    Exchange(
        "chunks on a reused connection closed by upstream",
        (
            GET,
            ReadResponses(1),
            b"PUT /p HTTP/1.1\r\n" + H + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ),
        ((OK,), (Close(),), (OK,)),
        responses=2,
        log_lines=2,
    ),
    Exchange(
        "post on a reused connection closed by upstream",
        (GET, ReadResponses(1), b"POST /p HTTP/1.1\r\n" + H + b"content-length: 5\r\n\r\nhello"),
        ((OK,), (Close(),), (OK,)),
        responses=2,
        log_lines=2,
    ),
    answer(
        "early answer, body follows",
        Early(),
        OK,
        send=(POST_10 + b"hello", ReadResponses(1), b"world"),
        compare=WITHOUT_ENDING,
    ),
    answer(
        "early answer, then close",
        Early(),
        b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        send=(POST_10 + b"hello", ReadResponses(1), b"world"),
        compare=WITHOUT_ENDING,
    ),
    answer(
        "early answer, fin",
        Early(),
        b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n",
        Close(),
        send=(POST_10 + b"hello", ReadResponses(1), b"world"),
        compare=WITHOUT_ENDING,
    ),
    answer(
        "early answer, chunked request",
        Early(),
        OK,
        send=(
            b"POST /p HTTP/1.1\r\n" + H + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
            ReadResponses(1),
            b"0\r\n\r\n",
            GET,
        ),
        responses=2,
        log_lines=2,
        compare=WITHOUT_ENDING,
    ),
    Exchange(
        "downstream leaves while waiting",
        (GET, UpstreamHas(b"\r\n\r\n"), Reset()),
        ((Hang(),),),
        responses=0,
        quiet_s=0.1,
    ),
    Exchange(
        "downstream fin while waiting",
        (GET, UpstreamHas(b"\r\n\r\n"), HalfClose()),
        ((UpstreamGap(0.1), OK),),
        responses=1,
    ),
    Exchange(
        "downstream leaves during the body",
        (GET, ReadUntil(b"hello"), Reset()),
        ((b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello", Hang()),),
        responses=0,
    ),
    Exchange(
        "downstream leaves during its own body",
        (POST_10 + b"hello", UpstreamHas(b"hello"), Reset()),
        ((Hang(),),),
        responses=0,
    ),
    Exchange("connect refused", (b"GET /refused HTTP/1.1\r\n" + H + b"\r\n",), config="failing"),
    Exchange(
        "connect refused, post", (b"POST /refused HTTP/1.1\r\n" + H + b"content-length: 2\r\n\r\nok",), config="failing"
    ),
    Exchange("connect refused, head", (b"HEAD /refused HTTP/1.1\r\n" + H + b"\r\n",), config="failing"),
    Exchange("no healthy upstream", (b"GET /empty HTTP/1.1\r\n" + H + b"\r\n",), config="failing"),
    Exchange("unknown cluster", (b"GET /unknown HTTP/1.1\r\n" + H + b"\r\n",), config="failing"),
    Exchange("unknown cluster 404", (b"GET /unknown404 HTTP/1.1\r\n" + H + b"\r\n",), config="failing"),
    Exchange("no route", (b"GET /nothing HTTP/1.1\r\n" + H + b"\r\n",), config="failing"),
    Exchange(
        "no route, post with body",
        (b"POST /nothing HTTP/1.1\r\n" + H + b"content-length: 5\r\n\r\nhello",),
        config="failing",
    ),
    Exchange(
        "no route, post, body later",
        (b"POST /nothing HTTP/1.1\r\n" + H + b"content-length: 5\r\n\r\n", ReadResponses(1), b"hello", GET),
        config="failing",
        responses=1,
        compare=WITHOUT_ENDING,
        log_lines=1,
    ),
    Exchange(
        "no route, grpc",
        (b"POST /nothing HTTP/1.1\r\n" + H + b"content-type: application/grpc\r\ncontent-length: 5\r\n\r\nhello",),
        config="failing",
    ),
    Exchange(
        "no route, then a good one",
        (b"GET /nothing HTTP/1.1\r\n" + H + b"\r\n", ReadResponses(1), b"GET /only HTTP/1.1\r\n" + H + b"\r\n"),
        config="failing",
        responses=2,
        log_lines=2,
    ),
    answer("route timeout", Hang(), send=b"GET /timeout HTTP/1.1\r\n" + H + b"\r\n", config="failing"),
    answer(
        "route timeout inside the body",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello",
        Hang(),
        send=b"GET /timeout HTTP/1.1\r\n" + H + b"\r\n",
        config="failing",
    ),
    answer(
        "route timeout from inside",
        Hang(),
        send=b"GET /only HTTP/1.1\r\n"
        + H
        + b"x-forwarded-for: 10.0.0.1\r\nx-envoy-upstream-rq-timeout-ms: 100\r\n\r\n",
        config="failing",
    ),
    answer("route timeout 0", UpstreamGap(0.3), OK, send=b"GET /forever HTTP/1.1\r\n" + H + b"\r\n", config="failing"),
    answer("route idle timeout", Hang(), send=b"GET /idle HTTP/1.1\r\n" + H + b"\r\n", config="failing"),
    answer(
        "route timeout waits for the body",
        Early(),
        Hang(),
        send=(b"POST /timeout HTTP/1.1\r\n" + H + b"content-length: 5\r\n\r\nhel", Gap(0.3), b"lo"),
        config="failing",
    ),
]

EXCHANGES: list[Exchange] = [*HEADS, *BODIES, *INTERIM, *FAILURES]
