"""What the downstream sends: heads, header rules, methods, framing of requests, and what is refused."""

from __future__ import annotations

from tests.support.exchange import Exchange, Gap, HalfClose, ReadResponses, ReadUntil, UpstreamHas

H = b"host: h.example\r\n"


def get(name: str, head: bytes, **more: object) -> Exchange:
    """A request given as its complete head without the last empty line."""
    return Exchange(name, (head + b"\r\n",), **more)  # type: ignore[arg-type]


def line(name: str, request_line: bytes, **more: object) -> Exchange:
    """A request given by its first line."""
    return get(name, request_line + b"\r\n" + H, **more)


def header(name: str, lines: bytes, **more: object) -> Exchange:
    """A GET with these header lines after Host."""
    return get(name, b"GET / HTTP/1.1\r\n" + H + lines, **more)


def post(name: str, lines: bytes, body: bytes, **more: object) -> Exchange:
    """A POST with these header lines and body bytes."""
    return Exchange(name, (b"POST /p HTTP/1.1\r\n" + H + lines + b"\r\n" + body,), **more)  # type: ignore[arg-type]


CASED = (
    b"GET /x?y=1 HTTP/1.1\r\nHoSt: Ex.Com:80\r\nX-Odd-CASE: A  B \r\naccept: */*\r\nX-Odd-CASE: c\r\nUser-Agent: t\r\n"
    b"Cookie: a=1\r\nCookie: b=2\r\nX-Empty:\r\nX-Tab:\tv\t\r\n"
)
FORWARDED = (
    b"GET / HTTP/1.1\r\nhost: h.example\r\nx-forwarded-for: 8.8.8.8, 10.0.0.1\r\nx-forwarded-proto: https\r\n"
    b"x-request-id: 11111111-2222-4333-8444-555555555555\r\nx-forwarded-host: fh\r\nx-forwarded-port: 99\r\n"
    b"x-envoy-original-path: /o\r\nx-envoy-internal: true\r\nx-envoy-external-address: 9.9.9.9\r\n"
    b"x-envoy-downstream-service-cluster: dsc\r\nx-envoy-expected-rq-timeout-ms: 7\r\nx-envoy-attempt-count: 5\r\n"
    b"x-envoy-upstream-rq-timeout-ms: 9000\r\n"
    b"x-envoy-max-retries: 2\r\nx-envoy-retry-on: 5xx\r\nx-envoy-decorator-operation: op\r\n"
    b"x-envoy-force-trace: 1\r\nx-envoy-ip-tags: t\r\nx-client-trace-id: c\r\nx-envoy-upstream-alt-stat-name: alt\r\n"
    b"x-forwarded-client-cert: By=x\r\nx-envoy-hedge-on-per-try-timeout: true\r\nx-envoy-original-host: oh\r\n"
)
CASED_END = CASED + b"\r\n"
IDS = b"GET / HTTP/1.1\r\nhost: h.example\r\nx-request-id: mine\r\n"

HEADS = [
    get("cased headers", CASED),
    get("cased headers, use_remote_address", CASED, config="edge"),
    get("cased headers, proper case out", CASED, config="case"),
    get("default access log format", CASED, config="default_log"),
    get("forwarded headers from outside", FORWARDED),
    get("forwarded headers, use_remote_address", FORWARDED, config="edge"),
    get("forwarded headers, one trusted hop", FORWARDED, config="edge_hops"),
    get("forwarded headers, skip_xff_append", FORWARDED, config="skip_xff"),
    get(
        "internal xff",
        b"GET / HTTP/1.1\r\nhost: h\r\nx-forwarded-for: 10.1.2.3\r\n"
        b"x-envoy-upstream-rq-timeout-ms: 9000\r\nx-envoy-internal: true\r\n",
    ),
    get(
        "external xff",
        b"GET / HTTP/1.1\r\nhost: h\r\nx-forwarded-for: 8.8.8.8\r\nx-envoy-upstream-rq-timeout-ms: 9000\r\n",
    ),
    get("bad xff", b"GET / HTTP/1.1\r\nhost: h\r\nx-forwarded-for: nonsense\r\n"),
    get("bad xfp", b"GET / HTTP/1.1\r\nhost: h\r\nx-forwarded-proto: ftp\r\n"),
    get(
        "two xff lines, edge",
        b"GET / HTTP/1.1\r\nhost: h\r\nx-forwarded-for: 1.1.1.1\r\nx-forwarded-for: 2.2.2.2\r\n",
        config="edge",
    ),
    get("no request id", CASED, config="no_request_id"),
    get("own request id, internal", IDS),
    get("own request id, edge", IDS, config="edge"),
    get("own request id, preserved and returned", IDS, config="keep_request_id"),
    get(
        "server_name, via, user agent",
        b"GET / HTTP/1.1\r\nhost: h\r\nuser-agent: mine\r\nvia: 1.0 before\r\n",
        config="named",
    ),
    get("user agent added", b"GET / HTTP/1.1\r\nhost: h\r\n", config="named"),
    get(
        "timeout header from inside",
        b"GET / HTTP/1.1\r\nhost: h\r\nx-forwarded-for: 10.0.0.1\r\nx-envoy-upstream-rq-timeout-ms: 100\r\n"
        b"x-envoy-upstream-rq-per-try-timeout-ms: 50\r\n",
    ),
    get(
        "expected timeout from outside",
        b"GET / HTTP/1.1\r\nhost: h\r\nx-envoy-expected-rq-timeout-ms: 100\r\n",
        config="edge",
    ),
    header("duplicate ordinary headers", b"x-a: 1\r\nx-b: 2\r\nx-a: 3\r\n"),
    header("underscore name", b"x_y: 1\r\n"),
    header("underscore name, rejected", b"x_y: 1\r\n", config="underscores"),
    header("underscore name, dropped", b"x_y: 1\r\nx-z: 2\r\n", config="drop_underscores"),
    header("high bytes in a value", b"x-y: caf\xc3\xa9 \xff\r\n"),
    header("thirty headers", b"".join(b"x-%d: %d\r\n" % (i, i) for i in range(30))),
    header("connection nominates", b"Connection: keep-alive, X-Drop\r\nX-Drop: 1\r\nX-Stay: 2\r\n"),
    header("connection nominates close", b"Connection: close, X-Drop\r\nX-Drop: 1\r\n"),
    header(
        "keep-alive and proxy-connection",
        b"Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nConnection: keep-alive\r\n",
    ),
    header("te trailers", b"TE: trailers\r\nConnection: TE\r\n"),
    header("te gzip", b"TE: gzip, trailers\r\n"),
    header("te without connection", b"TE: trailers\r\n"),
    header("upgrade without configuration", b"Connection: Upgrade\r\nUpgrade: websocket\r\n"),
    header(
        "upgrade h2c", b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    ),
    header("upgrade without connection", b"Upgrade: websocket\r\n"),
    header(
        "proxy-authorization passes", b"Proxy-Authorization: Basic eA==\r\nProxy-Authenticate: x\r\nTrailer: x-t\r\n"
    ),
]

METHODS = [
    line("method " + method.decode(), method + b" /m HTTP/1.1", responses=1)
    for method in (
        b"GET",
        b"HEAD",
        b"OPTIONS",
        b"DELETE",
        b"TRACE",
        b"PATCH",
        b"PUT",
        b"POST",
        b"PROPFIND",
        b"PURGE",
        b"M-SEARCH",
        b"QUERY",
        b"PRI",
        b"get",
        b"FOO",
        b"FOO-BAR",
        b"G@T",
    )
] + [
    line("connect", b"CONNECT h.example:443 HTTP/1.1"),
    line("connect path", b"CONNECT /x HTTP/1.1"),
    line("options star", b"OPTIONS * HTTP/1.1"),
    line("get star", b"GET * HTTP/1.1"),
]

REQUEST_LINES = [
    get("absolute form", b"GET http://abs.example:81/p?q=1 HTTP/1.1\r\nhost: other\r\n"),
    get("absolute form without path", b"GET http://abs.example HTTP/1.1\r\nhost: other\r\n"),
    get("absolute form, only query", b"GET http://abs.example?a=1 HTTP/1.1\r\nhost: other\r\n"),
    get("absolute form https", b"GET https://abs.example/p HTTP/1.1\r\nhost: other\r\n"),
    get("absolute form ftp", b"GET ftp://abs.example/p HTTP/1.1\r\nhost: other\r\n"),
    get("absolute form without host header", b"GET http://abs.example/p HTTP/1.1\r\n"),
    get("absolute form with user", b"GET http://u:p@abs.example/p HTTP/1.1\r\nhost: abs.example\r\n"),
    get("absolute form upper case", b"GET HTTP://ABS.example/p HTTP/1.1\r\nhost: other\r\n"),
    get("absolute form not allowed", b"GET http://abs.example/p HTTP/1.1\r\nhost: other\r\n", config="named"),
    get("absolute form options", b"OPTIONS http://abs.example HTTP/1.1\r\nhost: other\r\n"),
    line("authority form with GET", b"GET h.example:80 HTTP/1.1"),
    line("relative path", b"GET x HTTP/1.1"),
    line("double slash", b"GET //h.example/x HTTP/1.1"),
    line("fragment", b"GET /a?b=1#frag HTTP/1.1"),
    line("fragment only", b"GET /#frag HTTP/1.1"),
    line("backslash", b"GET /a\\b HTTP/1.1"),
    line("percent escapes", b"GET /%41%2f%zz%00?%zz HTTP/1.1"),
    line("dots", b"GET /a/../b/./c HTTP/1.1"),
    line("dots, normalized", b"GET /a/../b/./c//d?x=../y HTTP/1.1", config="paths"),
    line("dots above the root, normalized", b"GET /../../x HTTP/1.1", config="paths"),
    line("escapes, normalized", b"GET /%41%7e%2e%2e/x%20y HTTP/1.1", config="paths"),
    line("escaped slash redirects", b"GET /a%2Fb%5cc?q=1 HTTP/1.1", config="paths"),
    line("escaped slash rejected", b"GET /a%2Fb HTTP/1.1", config="escaped_slashes"),
    line("backslash, normalized", b"GET /a\\b HTTP/1.1", config="paths"),
    get("host port stripped", b"GET / HTTP/1.1\r\nhost: h.example:1234\r\n", config="paths"),
    line("semicolons and odd characters", b"GET /a;b=c|d^e\"f'g{h}<i>`j HTTP/1.1"),
    line("high byte in path", b"GET /caf\xc3\xa9 HTTP/1.1"),
    line("control byte in path", b"GET /a\x01b HTTP/1.1"),
    line("tab in path", b"GET /a\tb HTTP/1.1"),
    line("nul in path", b"GET /a\0b HTTP/1.1"),
    line("delete byte in path", b"GET /a\x7fb HTTP/1.1"),
    line("two spaces after the method", b"GET  / HTTP/1.1"),
    line("two spaces before the version", b"GET /  HTTP/1.1"),
    line("space in path", b"GET /a b HTTP/1.1"),
    line("trailing space after the version", b"GET / HTTP/1.1 "),
    line("leading space", b" GET / HTTP/1.1"),
    line("leading crlf", b"\r\n\r\nGET / HTTP/1.1"),
    line("leading lf", b"\nGET / HTTP/1.1"),
    line("tab between", b"GET\t/\tHTTP/1.1"),
    line("version 1.2", b"GET / HTTP/1.2"),
    line("version 2.0", b"GET / HTTP/2.0"),
    line("version 3", b"GET / HTTP/3"),
    line("version 0.9", b"GET / HTTP/0.9"),
    line("version 1.10", b"GET / HTTP/1.10"),
    line("version lower case", b"GET / http/1.1"),
    line("no version", b"GET /"),
    line("rtsp", b"GET / RTSP/1.0"),
    line("ice", b"SOURCE / ICE/1.0"),
    line("no path", b"GET HTTP/1.1"),
    line("only a method", b"GET"),
    Exchange("http/0.9", (b"GET /\r\n",)),
    Exchange("empty line only", (b"\r\n", Gap(), HalfClose()), responses=0),
    Exchange("nothing at all", (HalfClose(),), responses=0, log_lines=0),
    Exchange("garbage", (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",)),
    Exchange("half a head, then fin", (b"GET / HTTP/1.1\r\nhost: h", HalfClose()), responses=0),
    line("path of 4 KiB", b"GET /" + b"a" * 4096 + b" HTTP/1.1"),
    line("path of 59 KiB", b"GET /" + b"a" * 59 * 1024 + b" HTTP/1.1"),
    line("path of 61 KiB", b"GET /" + b"a" * 61 * 1024 + b" HTTP/1.1"),
    header("header of 61 KiB", b"x-long: " + b"b" * 61 * 1024 + b"\r\n"),
    header("many headers over 60 KiB", b"".join(b"x-%d: %s\r\n" % (i, b"c" * 1000) for i in range(70))),
    header("99 headers", b"".join(b"x-%d: 1\r\n" % i for i in range(98))),
    header("100 headers", b"".join(b"x-%d: 1\r\n" % i for i in range(99))),
    header("101 headers", b"".join(b"x-%d: 1\r\n" % i for i in range(100))),
    header("150 headers", b"".join(b"x-%d: 1\r\n" % i for i in range(149))),
    header("header limit configured", b"x-long: " + b"b" * 9 * 1024 + b"\r\n", config="limits"),
    header("header count configured", b"".join(b"x-%d: 1\r\n" % i for i in range(20)), config="limits"),
    header("header count just fits", b"".join(b"x-%d: 1\r\n" % i for i in range(19)), config="limits"),
]

HEADER_RULES = [
    get("no host", b"GET / HTTP/1.1\r\nx: y\r\n"),
    get("empty host", b"GET / HTTP/1.1\r\nhost:\r\n"),
    get("two hosts", b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n"),
    get("two equal hosts", b"GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n"),
    get("host with space", b"GET / HTTP/1.1\r\nhost: a b\r\n"),
    get("host with slash", b"GET / HTTP/1.1\r\nhost: a/b\r\n"),
    get("host with user", b"GET / HTTP/1.1\r\nhost: u@a\r\n"),
    get("host with comma", b"GET / HTTP/1.1\r\nhost: a,b\r\n"),
    get("host ipv6", b"GET / HTTP/1.1\r\nhost: [::1]:80\r\n"),
    get("host with high byte", b"GET / HTTP/1.1\r\nhost: caf\xc3\xa9\r\n"),
    get("host with bad port", b"GET / HTTP/1.1\r\nhost: a:b\r\n"),
    get("host with query characters", b"GET / HTTP/1.1\r\nhost: a?b#c\r\n"),
    header("space in name", b"x y: 1\r\n"),
    header("space before colon", b"x-y : 1\r\n"),
    header("tab before colon", b"x-y\t: 1\r\n"),
    header("empty name", b": 1\r\n"),
    header("no colon", b"nonsense\r\n"),
    header("bad character in name", b"x@y: 1\r\n"),
    header("high byte in name", b"x\xc3\xa9: 1\r\n"),
    header("nul in value", b"x-y: a\0b\r\n"),
    header("control in value", b"x-y: a\x01b\r\n"),
    header("delete in value", b"x-y: a\x7fb\r\n"),
    header("bare cr in value", b"x-y: a\rb\r\n"),
    header("obs-fold", b"x-y: a\r\n b\r\n"),
    header("obs-fold tab", b"x-y: a\r\n\tb\r\n"),
    get("leading space on the first header", b"GET / HTTP/1.1\r\n host: h\r\n"),
    Exchange("bare lf", (b"GET / HTTP/1.1\nhost: h\n\n",)),
    Exchange("bare lf in one header", (b"GET / HTTP/1.1\r\nhost: h\nx: y\r\n\r\n",)),
    Exchange("bare lf at the end", (b"GET / HTTP/1.1\r\nhost: h\r\n\n",)),
    header("pseudo header", b":path: /x\r\n"),
    header("colon name", b":: 1\r\n"),
]

FRAMING = [
    post("content-length", b"content-length: 5\r\n", b"hello"),
    post("content-length 0", b"content-length: 0\r\n", b""),
    post("post without length", b"", b""),
    post("odd case content-length", b"CONTENT-LENGTH: 5\r\n", b"hello"),
    Exchange(
        "body in pieces",
        (
            b"POST /p HTTP/1.1\r\n" + H + b"content-length: 10\r\n\r\n",
            UpstreamHas(b"\r\n\r\n"),
            b"hello",
            UpstreamHas(b"hello"),
            b"world",
        ),
    ),
    post("chunked", b"transfer-encoding: chunked\r\n", b"3\r\nabc\r\n5;ext=1\r\nhello\r\n0\r\n\r\n"),
    Exchange(
        "chunked in pieces",
        (
            b"POST /p HTTP/1.1\r\n" + H + b"Transfer-Encoding: Chunked\r\n\r\n",
            UpstreamHas(b"\r\n\r\n"),
            b"3\r\nabc\r\n",
            UpstreamHas(b"abc"),
            b"5\r\nhel",
            UpstreamHas(b"hel"),
            b"lo\r\n0\r\n\r\n",
        ),
    ),
    post("chunked empty", b"transfer-encoding: chunked\r\n", b"0\r\n\r\n"),
    post(
        "chunked trailers",
        b"transfer-encoding: chunked\r\ntrailer: x-t\r\n",
        b"3\r\nabc\r\n0\r\nX-T: 1\r\nX-U: 2\r\n\r\n",
    ),
    post(
        "chunked trailers enabled",
        b"transfer-encoding: chunked\r\ntrailer: x-t\r\n",
        b"3\r\nabc\r\n0\r\nX-T: 1\r\nX-U: 2\r\n\r\n",
        config="trailers",
    ),
    post("chunked bad trailer", b"transfer-encoding: chunked\r\n", b"0\r\nX T: 1\r\n\r\n", config="trailers"),
    post("chunk size upper case", b"transfer-encoding: chunked\r\n", b"A\r\n0123456789\r\n0\r\n\r\n"),
    post("chunk size with leading zeros", b"transfer-encoding: chunked\r\n", b"0003\r\nabc\r\n000\r\n\r\n"),
    post("chunk size bad", b"transfer-encoding: chunked\r\n", b"zz\r\nabc\r\n0\r\n\r\n"),
    post("chunk size empty", b"transfer-encoding: chunked\r\n", b"\r\nabc\r\n0\r\n\r\n"),
    post("chunk size with space", b"transfer-encoding: chunked\r\n", b"3 \r\nabc\r\n0\r\n\r\n"),
    post("chunk size negative", b"transfer-encoding: chunked\r\n", b"-3\r\nabc\r\n0\r\n\r\n"),
    post("chunk size 0x", b"transfer-encoding: chunked\r\n", b"0x3\r\nabc\r\n0\r\n\r\n"),
    post("chunk size overflows", b"transfer-encoding: chunked\r\n", b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
    post("chunk without crlf after", b"transfer-encoding: chunked\r\n", b"3\r\nabcX\r\n0\r\n\r\n"),
    post("chunk lf only", b"transfer-encoding: chunked\r\n", b"3\nabc\n0\n\n"),
    post("te and cl", b"transfer-encoding: chunked\r\ncontent-length: 3\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
    post("cl and te", b"content-length: 3\r\ntransfer-encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
    post(
        "te and cl allowed",
        b"transfer-encoding: chunked\r\ncontent-length: 3\r\n",
        b"3\r\nabc\r\n0\r\n\r\n",
        config="lenient",
    ),
    post("two lengths", b"content-length: 5\r\ncontent-length: 6\r\n", b"hello"),
    post("two equal lengths", b"content-length: 5\r\ncontent-length: 5\r\n", b"hello"),
    post("length list", b"content-length: 5, 5\r\n", b"hello"),
    post("length list different", b"content-length: 5,6\r\n", b"hello"),
    post("length plus", b"content-length: +5\r\n", b"hello"),
    post("length minus", b"content-length: -1\r\n", b"hello"),
    post("length hex", b"content-length: 0x5\r\n", b"hello"),
    post("length empty", b"content-length:\r\n", b"hello"),
    post("length letters", b"content-length: five\r\n", b"hello"),
    post("length with space", b"content-length: 5 5\r\n", b"hello"),
    post("length leading zeros", b"content-length: 0005\r\n", b"hello"),
    post("length overflow", b"content-length: 18446744073709551616\r\n", b"hello"),
    post("te gzip, chunked", b"transfer-encoding: gzip, chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
    post("te chunked, gzip", b"transfer-encoding: chunked, gzip\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
    post("te identity", b"transfer-encoding: identity\r\n", b""),
    post("te identity with length", b"transfer-encoding: identity\r\ncontent-length: 3\r\n", b"abc"),
    post("te chunked twice", b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
    post("te chunked list twice", b"transfer-encoding: chunked, chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
    post("te xchunked", b"transfer-encoding: xchunked\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
    post("te empty", b"transfer-encoding:\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
    post("te with vertical tab", b"transfer-encoding: \x0bchunked\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
    Exchange("get with body", (b"GET /g HTTP/1.1\r\n" + H + b"content-length: 3\r\n\r\nabc",)),
    Exchange("get chunked", (b"GET /g HTTP/1.1\r\n" + H + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",)),
    Exchange("head with body", (b"HEAD /g HTTP/1.1\r\n" + H + b"content-length: 3\r\n\r\nabc",)),
    Exchange(
        "expect continue",
        (
            b"POST /p HTTP/1.1\r\n" + H + b"expect: 100-continue\r\ncontent-length: 5\r\n\r\n",
            ReadUntil(b"100 Continue\r\n"),
            b"hello",
        ),
    ),
    Exchange(
        "expect continue, body at once",
        (b"POST /p HTTP/1.1\r\n" + H + b"Expect: 100-Continue\r\ncontent-length: 5\r\n\r\nhello",),
    ),
    Exchange(
        "expect something else", (b"POST /p HTTP/1.1\r\n" + H + b"expect: magic\r\ncontent-length: 5\r\n\r\nhello",)
    ),
    Exchange(
        "body cut by fin",
        (
            b"POST /p HTTP/1.1\r\n" + H + b"content-length: 10\r\n\r\n",
            UpstreamHas(b"\r\n\r\n"),
            b"hello",
            UpstreamHas(b"hello"),
            HalfClose(),
        ),
        responses=1,
    ),
    Exchange(
        "chunked body cut by fin",
        (
            b"POST /p HTTP/1.1\r\n" + H + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
            UpstreamHas(b"hello"),
            HalfClose(),
        ),
        responses=1,
    ),
    Exchange(
        "bad chunk after the upstream has the head",
        (
            b"POST /p HTTP/1.1\r\n" + H + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
            UpstreamHas(b"hello"),
            b"zz\r\n",
        ),
    ),
]

CONNECTIONS = [
    header("close from the downstream", b"connection: close\r\n"),
    header("close odd case", b"Connection: Close\r\n"),
    header("connection other", b"connection: foo\r\n"),
    Exchange("two requests", (CASED_END, ReadResponses(1), CASED_END), responses=2, log_lines=2),
    Exchange(
        "pipelined",
        (b"GET /1 HTTP/1.1\r\n" + H + b"\r\nGET /2 HTTP/1.1\r\n" + H + b"\r\nGET /3 HTTP/1.1\r\n" + H + b"\r\n",),
        responses=3,
        log_lines=3,
        answers=(
            (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1",),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n2",),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n3",),
        ),
    ),
    Exchange(
        "pipelined posts",
        (
            b"POST /1 HTTP/1.1\r\n"
            + H
            + b"content-length: 2\r\n\r\nabPOST /2 HTTP/1.1\r\n"
            + H
            + b"transfer-encoding: chunked\r\n\r\n1\r\nc\r\n0\r\n\r\nGET /3 HTTP/1.1\r\n"
            + H
            + b"\r\n",
        ),
        responses=3,
        log_lines=3,
    ),
    Exchange(
        "pipelined after close",
        (b"GET /1 HTTP/1.1\r\n" + H + b"connection: close\r\n\r\nGET /2 HTTP/1.1\r\n" + H + b"\r\n",),
        responses=1,
        log_lines=1,
    ),
    Exchange(
        "pipelined bad second",
        (b"GET /1 HTTP/1.1\r\n" + H + b"\r\nGET /2 HTTP/1.1\r\nbad\r\n\r\n",),
        responses=2,
        log_lines=2,
    ),
    Exchange(
        "crlf between requests",
        (b"POST /1 HTTP/1.1\r\n" + H + b"content-length: 2\r\n\r\nab\r\nGET /2 HTTP/1.1\r\n" + H + b"\r\n",),
        responses=2,
        log_lines=2,
    ),
    Exchange("1.0 refused", (b"GET / HTTP/1.0\r\nhost: h\r\n\r\n",)),
    Exchange("1.0 keep-alive refused", (b"GET / HTTP/1.0\r\nhost: h\r\nconnection: keep-alive\r\n\r\n",)),
    Exchange("1.0", (b"GET / HTTP/1.0\r\nhost: h\r\n\r\n",), config="http10"),
    Exchange("1.0 without host", (b"GET / HTTP/1.0\r\n\r\n",), config="http10"),
    Exchange("1.0 keep-alive", (b"GET / HTTP/1.0\r\nhost: h\r\nconnection: keep-alive\r\n\r\n",), config="http10"),
    Exchange(
        "1.0 chunked answer",
        (b"GET / HTTP/1.0\r\nhost: h\r\n\r\n",),
        ((b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",),),
        config="http10",
    ),
    Exchange(
        "1.0 keep-alive chunked answer",
        (b"GET / HTTP/1.0\r\nhost: h\r\nconnection: keep-alive\r\n\r\n",),
        ((b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",),),
        config="http10",
    ),
    Exchange(
        "1.0 with te",
        (b"POST / HTTP/1.0\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",),
        config="http10",
    ),
    Exchange("1.0 post", (b"POST / HTTP/1.0\r\nhost: h\r\ncontent-length: 2\r\n\r\nok",), config="http10"),
    Exchange("0.9 with 1.0 accepted", (b"GET /\r\n\r\n",), config="http10"),
    Exchange("1.1 without host, 1.0 accepted", (b"GET / HTTP/1.1\r\n\r\n",), config="http10"),
    Exchange(
        "one request per upstream connection",
        (CASED_END, ReadResponses(1), CASED_END),
        config="one_request",
        responses=2,
        log_lines=2,
    ),
    Exchange(
        "max requests per connection",
        (CASED_END, ReadResponses(1), CASED_END),
        config="timers",
        responses=2,
        log_lines=2,
        quiet_s=0.2,
    ),
    Exchange("idle connection", (CASED_END, ReadResponses(1)), config="timers", quiet_s=0.6),
    Exchange("slow head", (b"GET / HTTP/1.1\r\n",), config="timers", quiet_s=0.2),
    Exchange(
        "slow body", (b"POST / HTTP/1.1\r\n" + H + b"content-length: 5\r\n\r\nhel",), config="timers", quiet_s=0.2
    ),
    Exchange(
        "stream idle",
        (b"POST / HTTP/1.1\r\n" + H + b"content-length: 5\r\n\r\nhel",),
        config="stream_idle",
        quiet_s=0.2,
    ),
    Exchange(
        "error on one message only",
        (b"GET / HTTP/1.1\r\nx: y\r\n\r\n", ReadResponses(1), CASED_END),
        config="lenient",
        responses=2,
        log_lines=2,
    ),
]

EXCHANGES = [*HEADS, *METHODS, *REQUEST_LINES, *HEADER_RULES, *FRAMING, *CONNECTIONS]
