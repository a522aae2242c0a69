"""Redirects that are followed here instead of by the client."""

from __future__ import annotations

from tests.support.bootstrap import TYPE, Data, hcm, route, vhost
from tests.support.exchange import Exchange, ReadUntil, SendStep, UpstreamHas
from tests.support.upstream import Answer, Close, Early, Hang

H = b"host: h.example\r\n"
PREDICATE = TYPE + "envoy.extensions.internal_redirect."
PREVIOUS = {"name": "previous", "typed_config": {"@type": PREDICATE + "previous_routes.v3.PreviousRoutesConfig"}}
SAFE = {"name": "safe", "typed_config": {"@type": PREDICATE + "safe_cross_scheme.v3.SafeCrossSchemeConfig"}}


def listed(*names: str) -> Data:
    """The predicate that allows these routes."""
    kind = PREDICATE + "allow_listed_routes.v3.AllowListedRoutesConfig"
    return {"name": "listed", "typed_config": {"@type": kind, "allowed_route_names": list(names)}}


def following(path: str, name: str = "", **policy: object) -> Data:
    """A route that follows redirects."""
    return {**route(path, action={"internal_redirect_policy": policy, "timeout": "0s"}), "name": name or path[1:]}


def manager() -> Data:
    """A route per policy, by path."""
    both = [PREVIOUS, listed("previous", "target")]
    routes = [
        following("/once"),
        following("/thrice", max_internal_redirects=3),
        following("/never", max_internal_redirects=0),
        following("/codes", redirect_response_codes=[301, 303, 307, 308]),
        following("/odd", redirect_response_codes=[400]),
        following("/copies", response_headers_to_copy=["x-copied", "X-Gone"], redirect_response_codes=[302, 303]),
        following("/cross", allow_cross_scheme_redirect=True),
        following("/safe", allow_cross_scheme_redirect=True, predicates=[SAFE]),
        following("/listed", predicates=[listed("target", "other")], max_internal_redirects=5),
        following("/previous", predicates=[PREVIOUS], max_internal_redirects=5),
        following("/both", predicates=both, max_internal_redirects=5),
        {
            **route(
                "/old",
                action={
                    "internal_redirect_action": "HANDLE_INTERNAL_REDIRECT",
                    "max_internal_redirects": 2,
                    "timeout": "0s",
                },
            )
        },
        {**route("/elder", action={"max_internal_redirects": 2, "timeout": "0s"})},
        {
            **route(
                "/again",
                action={
                    "internal_redirect_policy": {},
                    "timeout": "0s",
                    "retry_policy": {"retry_on": "5xx", "retry_back_off": {"base_interval": "0.001s"}},
                },
            )
        },
        {
            **route(
                "/rewritten",
                action={
                    "internal_redirect_policy": {},
                    "timeout": "0s",
                    "prefix_rewrite": "/new",
                    "host_rewrite_literal": "new.example",
                },
            ),
            "request_headers_to_add": [{"header": {"key": "x-route", "value": "rewritten"}}],
        },
        {**route("/timed", action={"internal_redirect_policy": {}})},
        {**route("/target", action={"timeout": "0s"}), "name": "target"},
        {**route("/other", action={"timeout": "0s"}), "name": "other"},
        {"match": {"prefix": "/direct"}, "direct_response": {"status": 418}, "name": "direct"},
        {"match": {"prefix": "/moved"}, "redirect": {"path_redirect": "/target"}},
    ]
    return hcm(
        {
            "virtual_hosts": [
                vhost(*routes, domains=("h.example", "other.example", "127.0.0.1", "h.example:8080")),
                vhost(
                    {**route("/vhost", action={"internal_redirect_policy": {}, "timeout": "0s"})},
                    {**route("/", action={"timeout": "0s"})},
                    name="counted",
                    domains=("counted.example",),
                    include_request_attempt_count=True,
                    include_attempt_count_in_response=True,
                ),
            ]
        }
    )


def to(location: bytes, status: int = 302, headers: bytes = b"", body: bytes = b"moved") -> Answer:
    """A redirect."""
    return (
        b"HTTP/1.1 %d Moved\r\nlocation: %s\r\n%scontent-length: %d\r\n\r\n%s"
        % (status, location, headers, len(body), body),
    )


def get(path: str, headers: bytes = b"", host: bytes = H) -> bytes:
    """A GET."""
    return b"GET %s HTTP/1.1\r\n%s%s\r\n" % (path.encode(), host, headers)


def follow(name: str, send: bytes | tuple[SendStep, ...], *answers: Answer, **more: object) -> Exchange:
    """An exchange on the configuration above."""
    sends = send if isinstance(send, tuple) else (send,)
    fields = {"config": "policies", "listener": "redirects", "log_lines": 2, **more}
    return Exchange(f"internal redirect: {name}", sends, answers, **fields)  # type: ignore[arg-type]


OK: Answer = (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",)
NO: Answer = (b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n",)
TARGET = b"http://h.example/target?a=1"
THERE = to(TARGET)
ONE = {"log_lines": 1}


def post(path: str, method: bytes = b"POST") -> bytes:
    """A request with a body."""
    return b"%s %s HTTP/1.1\r\n%scontent-length: 10\r\n\r\n0123456789" % (method, path.encode(), H)


CHUNKED = (
    b"POST /once HTTP/1.1\r\n"
    + H
    + b"transfer-encoding: chunked\r\n\r\n5\r\n01234\r\n5\r\n56789\r\n0\r\nx-t: 1\r\n\r\n"
)
LARGE = b"POST /once HTTP/1.1\r\n" + H + b"content-length: 2000000\r\n\r\n" + b"x" * 2_000_000
EXCHANGES = [
    follow("followed", get("/once"), THERE, OK),
    follow("answered with 404", get("/once"), THERE, (b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n",)),
    follow("another host", get("/once"), to(b"http://other.example/target"), OK),
    follow("with a port", get("/once"), to(b"http://h.example:8080/target"), OK),
    follow("default port", get("/once"), to(b"http://h.example:80/target"), OK, **ONE),
    follow("no path", get("/once"), to(b"http://h.example"), OK, **ONE),
    follow("fragment", get("/once"), to(b"http://h.example/target#there"), OK),
    follow("userinfo", get("/once"), to(b"http://me@h.example/target"), OK),
    follow("relative", get("/once"), to(b"/target"), OK, **ONE),
    follow("no scheme", get("/once"), to(b"//h.example/target"), OK, **ONE),
    follow("empty", get("/once"), to(b""), OK, **ONE),
    follow("nonsense", get("/once"), to(b"h t t p"), OK, **ONE),
    follow("spaces", get("/once"), to(b"http://h.example/tar get"), OK, **ONE),
    follow("upper case", get("/once"), to(b"HTTP://H.EXAMPLE/target"), OK),
    follow("ftp", get("/once"), to(b"ftp://h.example/target"), OK, **ONE),
    follow("https", get("/once"), to(b"https://h.example/target"), OK, **ONE),
    follow("https allowed", get("/cross"), to(b"https://h.example/target"), OK),
    follow("https allowed and safe", get("/safe"), to(b"https://h.example/target"), OK, **ONE),
    follow("http safe", get("/safe"), to(b"http://h.example/target"), OK),
    follow("no location", get("/once"), (b"HTTP/1.1 302 Moved\r\ncontent-length: 0\r\n\r\n",), OK, **ONE),
    follow("no route", get("/once"), to(b"http://h.example/nowhere"), OK, **ONE),
    follow("no virtual host", get("/once"), to(b"http://nobody.example/target"), OK, **ONE),
    follow("direct response", get("/once"), to(b"http://h.example/direct")),
    follow("another redirect", get("/once"), to(b"http://h.example/moved")),
    *(
        follow(
            f"status {code}", get("/codes"), to(TARGET, code), OK, log_lines=1 if code in (300, 302, 304, 305) else 2
        )
        for code in (300, 301, 302, 303, 305, 307, 308)
    ),
    follow("odd codes", get("/odd"), to(TARGET, 400), OK, **ONE),
    follow("odd codes, 302", get("/odd"), to(TARGET, 302), OK, **ONE),
    follow("thrice", get("/thrice"), *[to(b"http://h.example/thrice?%d" % n) for n in range(3)], OK, log_lines=4),
    follow(
        "once too often", get("/thrice"), *[to(b"http://h.example/thrice?%d" % n) for n in range(4)], OK, log_lines=4
    ),
    follow("twice where one is allowed", get("/once"), to(b"http://h.example/once"), to(b"http://h.example/once"), OK),
    follow("never", get("/never"), THERE, OK, **ONE),
    follow(
        "copied headers",
        get("/copies", b"x-gone: 1\r\nx-copied: 0\r\nx-kept: 1\r\n"),
        to(TARGET, 302, b"x-copied: 1\r\nx-copied: 2\r\n"),
        OK,
    ),
    follow("copied headers, none", get("/copies"), to(TARGET, 302), OK),
    follow(
        "copied headers, refused",
        get("/copies", b"x-gone: 1\r\n"),
        to(b"http://h.example/nowhere", 302, b"x-copied: 1\r\n"),
        OK,
        **ONE,
    ),
    follow("listed", get("/listed"), THERE, OK),
    follow("not listed", get("/listed"), to(b"http://h.example/once"), OK, **ONE),
    follow("previous", get("/previous"), to(b"http://h.example/previous"), to(b"http://h.example/previous"), OK),
    follow(
        "previous, another",
        get("/previous"),
        to(b"http://h.example/both"),
        to(b"http://h.example/previous"),
        OK,
        log_lines=3,
    ),
    follow("old", get("/old"), THERE, OK),
    follow("old, without the action", get("/elder"), THERE, OK, **ONE),
    follow("retried, then followed", get("/again"), NO, THERE, OK),
    follow("rewritten", get("/rewritten/x"), THERE, OK),
    follow("timed", get("/timed"), THERE, OK),
    follow("counted", get("/vhost", host=b"host: counted.example\r\n"), to(b"http://counted.example/x"), OK),
    follow("body", post("/once"), THERE, OK),
    follow("PUT 307", post("/codes", b"PUT"), to(TARGET, 307), OK),
    follow("body and 303", post("/codes"), to(TARGET, 303), OK),
    follow(
        "HEAD and 303",
        b"HEAD /codes HTTP/1.1\r\n" + H + b"\r\n",
        (b"HTTP/1.1 303 M\r\nlocation: " + TARGET + b"\r\ncontent-length: 0\r\n\r\n",),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n",),
    ),
    follow("DELETE and 303", b"DELETE /codes HTTP/1.1\r\n" + H + b"\r\n", to(TARGET, 303), OK),
    follow("chunked", CHUNKED, THERE, OK),
    follow("chunked and 303", CHUNKED.replace(b"/once", b"/codes"), to(TARGET, 303), OK),
    follow("too large a body", LARGE, THERE, OK, compare=("downstream", "ending", "log"), **ONE),
    follow(
        "before the body's end",
        (post("/once")[:-5], UpstreamHas(b"01234")),
        (Early(), *THERE, Hang()),
        compare=("downstream", "log", "stats"),
        **ONE,
    ),
    follow(
        "original url from outside",
        get("/once", b"x-envoy-original-url: http://a/\r\nx-envoy-attempt-count: 7\r\n"),
        THERE,
        OK,
    ),
    follow(
        "answer without end",
        get("/once"),
        (b"HTTP/1.1 302 Moved\r\nlocation: " + TARGET + b"\r\ncontent-length: 10\r\n\r\nno", Hang()),
        OK,
    ),
    follow(
        "answer chunked",
        get("/once"),
        (b"HTTP/1.1 302 Moved\r\nlocation: " + TARGET + b"\r\ntransfer-encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",),
        OK,
    ),
    follow(
        "answer that closes",
        get("/once"),
        (b"HTTP/1.1 302 Moved\r\nlocation: " + TARGET + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", Close()),
        OK,
    ),
    follow("letters beyond ASCII", get("/once"), to(b"http://h.example/target/\xc3\xa9"), OK, **ONE),
    follow("backslash", get("/once"), to(b"http://h.example\\@other.example/target"), OK, **ONE),
    follow("host with odd letters", get("/once"), to(b"http://h$!.example/target"), OK, **ONE),
    follow("query without a path", get("/once"), to(b"http://h.example?a"), OK, **ONE),
    follow("port too large", get("/once"), to(b"http://h.example:99999/target"), OK, **ONE),
    follow("port empty", get("/once"), to(b"http://h.example:/target"), OK, **ONE),
    follow("odd path", get("/once"), to(b'http://h.example/target/%zz/"<>^`{|}?"<>'), OK),
    follow("two locations", get("/once"), to(TARGET, 302, b"location: http://h.example/other\r\n"), OK),
    follow("white space around", get("/once"), to(b"   " + TARGET + b"  "), OK),
    follow(
        "the next request", (get("/once"), ReadUntil(b"ok"), get("/target")), THERE, OK, OK, responses=2, log_lines=3
    ),
    follow("pipelined", get("/once") + get("/target"), THERE, OK, OK, responses=2, log_lines=3),
    follow("last request", get("/once", b"connection: close\r\n"), THERE, OK),
    follow("then cut", get("/once"), THERE, (Close(),)),
]
