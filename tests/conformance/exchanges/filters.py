"""HTTP filters other than the router, and what routes, virtual hosts and weighted clusters say about them."""

from __future__ import annotations

from tests.support.exchange import Exchange

OWN = (
    b"HTTP/1.1 200 OK\r\naccess-control-allow-origin: own\r\naccess-control-expose-headers: x-own\r\n"
    b"access-control-max-age: 99\r\naccess-control-allow-credentials: own\r\ncontent-length: 2\r\n\r\nok"
)
PREFLIGHT = b"access-control-request-method: PUT\r\n"


def ask(
    name: str,
    target: bytes,
    origin: bytes = b"",
    *,
    config: str = "cors",
    host: bytes = b"typed.example",
    method: bytes = b"GET",
    lines: bytes = b"",
    **more: object,
) -> Exchange:
    """A request, from a page of `origin` if that is given."""
    if origin:
        lines = b"origin: " + origin + b"\r\n" + lines
    head = method + b" " + target + b" HTTP/1.1\r\nhost: " + host + b"\r\n" + lines + b"\r\n"
    return Exchange(name, (head,), config=config, **more)  # type: ignore[arg-type]


def preflight(name: str, target: bytes, origin: bytes, *, lines: bytes = b"", **more: object) -> Exchange:
    """A browser's question whether a page of `origin` may ask for `target`."""
    return ask(name, target, origin, method=b"OPTIONS", lines=PREFLIGHT + lines, **more)  # type: ignore[arg-type]


ROUTED = b"https://route.example"
HOSTED = b"https://vhost.example"
PRIVATE = b"access-control-request-private-network: "

CORS = [
    ask("cors: no origin", b"/both"),
    ask("cors: empty origin", b"/both", lines=b"origin:\r\n"),
    ask("cors: allowed by the route", b"/both", ROUTED),
    ask("cors: allowed by the virtual host only", b"/both", HOSTED),
    ask("cors: the virtual host's policy", b"/", HOSTED),
    ask("cors: not allowed", b"/", b"https://evil.example"),
    ask("cors: two origins", b"/", lines=b"origin: https://vhost.example\r\norigin: https://vhost.example\r\n"),
    ask("cors: upper case header name", b"/", lines=b"Origin: https://vhost.example\r\n"),
    ask("cors: the upstream's own headers give way", b"/both", ROUTED, answers=((OWN,),)),
    ask("cors: the upstream's own headers stay", b"/both", b"https://evil.example", answers=((OWN,),)),
    ask("cors: no policy", b"/", ROUTED, host=b"none.example"),
    ask("cors: star", b"/star", b"anything"),
    ask("cors: literal star", b"/literal", b"anything"),
    ask("cors: suffix, without credentials", b"/suffix", b"https://a.example"),
    ask("cors: regex", b"/regex", b"https://abc.regex.example"),
    ask("cors: regex must match whole", b"/regex", b"https://abc.regex.example.evil"),
    ask("cors: ignore case", b"/regex", b"HTTPS://case"),
    ask("cors: case counts", b"/", b"HTTPS://vhost.example"),
    ask("cors: off on the route", b"/off", HOSTED),
    ask("cors: explicitly on", b"/on", HOSTED),
    ask("cors: never enabled", b"/never", HOSTED),
    ask("cors: only shadow", b"/shadow", b"https://s.example"),
    ask("cors: only shadow, not allowed", b"/shadow", b"https://other.example"),
    ask("cors: shadow and enabled", b"/watched", b"https://s.example"),
    ask("cors: weighted cluster", b"/weighted", HOSTED),
    ask("cors: direct response", b"/direct", HOSTED),
    ask("cors: redirect", b"/redirect", HOSTED),
    ask("cors: redirect to https", b"/", HOSTED, host=b"tls.example"),
    ask("cors: no virtual host", b"/", HOSTED, host=b"nobody.example"),
    ask("cors: the route's own header", b"/mutate", HOSTED),
    ask("cors: the deprecated field beside a typed policy", b"/cors-field", HOSTED),
    ask("cors: HEAD", b"/both", ROUTED, method=b"HEAD"),
    ask("cors: OPTIONS that is no preflight", b"/both", ROUTED, method=b"OPTIONS"),
    ask("cors: empty request method", b"/both", ROUTED, method=b"OPTIONS", lines=b"access-control-request-method:\r\n"),
    ask("cors: GET with a request method", b"/both", ROUTED, lines=PREFLIGHT),
    preflight("cors: preflight", b"/both", ROUTED),
    preflight("cors: preflight of the virtual host", b"/", HOSTED),
    preflight("cors: preflight without credentials", b"/suffix", b"https://a.example"),
    preflight("cors: preflight not allowed", b"/both", HOSTED),
    preflight("cors: preflight to any origin", b"/star", b"null"),
    preflight("cors: preflight to a private network", b"/star", b"null", lines=PRIVATE + b"true\r\n"),
    preflight("cors: preflight to a private network, other value", b"/star", b"null", lines=PRIVATE + b"yes\r\n"),
    preflight("cors: preflight to a private network, not said", b"/both", ROUTED, lines=PRIVATE + b"true\r\n"),
    preflight("cors: preflight where off", b"/off", HOSTED),
    preflight("cors: preflight where never enabled", b"/never", HOSTED),
    preflight("cors: preflight in the shadow", b"/shadow", b"https://s.example"),
    preflight("cors: preflight forwarded", b"/forward", b"https://other.example"),
    preflight("cors: preflight not to be forwarded", b"/hold", b"https://other.example"),
    preflight("cors: preflight not to be forwarded, private", b"/hold", b"a", lines=PRIVATE + b"true\r\n"),
    preflight("cors: preflight that matches is not forwarded", b"/forward", b"https://s.example"),
    preflight("cors: preflight to a weighted cluster", b"/weighted", HOSTED),
    preflight("cors: preflight to a direct response", b"/direct", HOSTED),
    preflight("cors: preflight without policy", b"/", HOSTED, host=b"none.example"),
    preflight("cors: preflight to the upstream's mutation", b"/mutate", HOSTED),
    preflight("cors: preflight beside the deprecated field", b"/cors-field", HOSTED),
    preflight("cors: preflight with an empty body", b"/both", ROUTED, lines=b"content-length: 0\r\n"),
    ask("cors field: route", b"/route", b"anything", host=b"old.example"),
    ask("cors field: virtual host", b"/", b"https://old.example", host=b"old.example"),
    ask("cors field: not allowed", b"/", b"https://evil.example", host=b"old.example"),
    ask("cors field: off on the route", b"/off", b"https://old.example", host=b"old.example"),
    preflight("cors field: preflight, route", b"/route", b"anything", host=b"old.example"),
    preflight("cors field: preflight, inherited", b"/inherit", b"https://old.example", host=b"old.example"),
    preflight("cors field: preflight, virtual host", b"/", b"https://old.example", host=b"old.example"),
    preflight("cors field: typed route wins", b"/typed", b"https://typed.example", host=b"old.example"),
    preflight("cors field: typed route shuts the host's out", b"/typed", b"https://old.example", host=b"old.example"),
]

SWITCHES = [
    preflight(f"{config}: {host.decode()}{path.decode()}", path, origin, config=config, host=host + b".example")
    for config in ("switched", "disabled")
    for host, path, origin in (
        (b"host", b"/on", b"a"),
        (b"host", b"/off", b"a"),
        (b"host", b"/typed", b"a"),
        (b"host", b"/wrapped", b"https://w.example"),
        (b"host", b"/both", b"https://w.example"),
        (b"host", b"/other", b"a"),
        (b"host", b"/weighted", b"a"),
        (b"host", b"/direct", b"a"),
        (b"host", b"/", b"a"),
        (b"off", b"/on", b"a"),
        (b"off", b"/", b"a"),
        (b"on", b"/off", b"a"),
        (b"on", b"/", b"a"),
        (b"nobody", b"/", b"a"),
    )
]


def post(name: str, target: bytes, *pieces: bytes, host: bytes = b"a", lines: bytes = b"", **more: object) -> Exchange:
    """A request whose head comes first and whose body follows, piece by piece."""
    head = b"POST " + target + b" HTTP/1.1\r\nhost: " + host + b"\r\n" + lines + b"\r\n"
    steps: list[object] = [head, *pieces]
    return Exchange("buffer: " + name, tuple(steps), config="buffering", **more)  # type: ignore[arg-type]


def sized(name: str, target: bytes, *pieces: bytes, **more: object) -> Exchange:
    """The same with a content-length."""
    return post(name, target, *pieces, lines=b"content-length: %d\r\n" % sum(map(len, pieces)), **more)  # type: ignore[arg-type]


# Beyond the listener's limit Envoy counts pauses of its own buffers, which are not ours.
WITHOUT_STATS = ("downstream", "ending", "upstream", "log")
CHUNKED = b"transfer-encoding: chunked\r\n"

BUFFER = [
    ask("buffer: GET", b"/", config="buffering", host=b"a"),
    sized("one piece", b"/", b"0123456789"),
    sized("two pieces", b"/", b"01234", b"56789"),
    sized("exactly the limit", b"/", b"x" * 20),
    sized("exactly the limit, two pieces", b"/", b"x" * 10, b"x" * 10),
    sized("one too many", b"/", b"x" * 21),
    sized("one too many in the last piece", b"/", b"x" * 20, b"x"),
    sized("empty", b"/"),
    post("chunked", b"/", b"5\r\nabcde\r\n", b"3\r\nfgh\r\n0\r\n\r\n", lines=CHUNKED),
    post("chunked, empty", b"/", b"0\r\n\r\n", lines=CHUNKED),
    post("chunked, too large", b"/", b"15\r\nabcdefghijklmnopqrstu\r\n", lines=CHUNKED),
    sized("off on the route", b"/off", b"x" * 50),
    sized("disabled on the route", b"/streamed", b"x" * 50),
    post("disabled on the route, chunked", b"/streamed", b"2\r\nab\r\n0\r\n\r\n", lines=CHUNKED),
    sized("a larger limit on the route", b"/more", b"x" * 50),
    sized("a larger limit than the listener's", b"/more", b"x" * 1500, compare=WITHOUT_STATS),
    sized("beyond the larger limit", b"/more", b"x" * 2001, compare=WITHOUT_STATS),
    sized("a smaller limit on the route", b"/less", b"x" * 6),
    sized("the virtual host's limit", b"/", b"1234", host=b"small"),
    sized("direct response", b"/direct", b"x" * 10),
    sized("direct response, too large", b"/direct", b"x" * 21),
]

MUTABLE = (
    b"x-append: own\r\nx-overwrite: own\r\nx-overwrite: own2\r\nx-if-absent: own\r\nx-if-exists: own\r\nx-remove: own\r\n"
    b"x-gone: own\r\nx-in: hello\r\nx-own: 1\r\nx-last: 1\r\n"
)
MUTATION = [
    ask(
        f"{config}: {host.decode()}{path.decode()}{', nothing there before' if not lines else ''}",
        path, config=config, host=host, lines=lines,
        answers=((b"HTTP/1.1 200 OK\r\n" + lines + b"content-length: 2\r\n\r\nok",),),
    )
    for config in ("mutating", "mutating_reversed")
    for host, path in (
        (b"host", b"/off"), (b"host", b"/route"), (b"host", b"/weighted"), (b"host", b"/direct"), (b"host", b"/"),
        (b"o", b"/"), (b"nobody", b"/"),
    )
    for lines in (MUTABLE, b"")
]  # fmt: skip

EXCHANGES = [*MUTATION, *CORS, *SWITCHES, *BUFFER]
