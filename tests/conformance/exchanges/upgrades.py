"""Upgrades and CONNECT: WebSockets and other tunnels, granted, refused and ignored."""

from __future__ import annotations

from tests.support.bootstrap import (
    LOG_FIELDS,
    ROUTER,
    TYPE,
    Data,
    bootstrap,
    cluster,
    file_log,
    hcm,
    port,
    route,
    vhost,
)
from tests.support.exchange import (
    Exchange,
    Gap,
    HalfClose,
    ReadResponses,
    ReadToEnd,
    ReadUntil,
    Reset,
    UpstreamHas,
    UpstreamLeft,
)
from tests.support.upstream import Close, Hang, OnAccept, Until
from tests.support.upstream import Gap as UpstreamGap
from tests.support.upstream import HalfClose as UpstreamHalfClose
from tests.support.upstream import Reset as UpstreamReset

WEIGHTS = {
    f"{side}_{what}_{way}".lower(): f"%{side}_{what}_{way}%"
    for side in ("DOWNSTREAM", "UPSTREAM") for what in ("WIRE_BYTES", "HEADER_BYTES") for way in ("RECEIVED", "SENT")
}  # fmt: skip
ROUTER_FILTER = {"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}
MUTATION = "envoy.filters.http.header_mutation"


def mutation(value: str) -> Data:
    added = [{"append": {"header": {"key": "x-chain", "value": value}}}]
    return {
        "name": MUTATION,
        "typed_config": {
            "@type": TYPE + "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
            "mutations": {"request_mutations": added, "response_mutations": added},
        },
    }


def connects(authority: str, cluster_name: str = "up", *, config: Data | None = None, **action: object) -> Data:
    """A virtual host that takes CONNECT to one authority."""
    upgrade: Data = {"upgrade_type": "CONNECT"}
    if config is not None:
        upgrade["connect_config"] = config
    return vhost(
        route("", cluster_name, match={"connect_matcher": {}}, action={"upgrade_configs": [upgrade], **action}),
        name=authority,
        domains=(authority,),
    )


def upgrades() -> Data:
    def allows(prefix: str, kind: str, enabled: bool | None = None, **action: object) -> Data:
        upgrade: Data = {"upgrade_type": kind}
        if enabled is not None:
            upgrade["enabled"] = enabled
        return route(prefix, action={"upgrade_configs": [upgrade], **action})

    terminated: Data = {}
    everything = [vhost(route("/"))]
    main = vhost(
        allows("/no", "WebSocket", False),
        allows("/yes", "off"),
        allows("/new", "New"),
        route("/idle", action={"idle_timeout": "0.3s"}),
        route("/short", action={"timeout": "0.2s"}),
        route("/retry", action={"retry_policy": {"retry_on": "5xx", "num_retries": 2}}),
        route("/try", action={"retry_policy": {"retry_on": "5xx", "num_retries": 2, "per_try_timeout": "0.2s"}}),
        route("/refused", "refused"),
        route("/rewritten", action={"prefix_rewrite": "/other", "host_rewrite_literal": "other.example"}),
        {"match": {"prefix": "/direct"}, "direct_response": {"status": 200, "body": {"inline_string": "here"}}},
        {"match": {"prefix": "/redirect"}, "redirect": {"path_redirect": "/there"}},
        route(
            "/post", "up",
            action={"upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {"allow_post": True}}]},
        ),
        route(
            "/onlyconnect", "up",
            action={"upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]},
        ),
        {"match": {"prefix": "/absent"}, "route": {"cluster_header": "x-cluster"}},
        route("/", match={"safe_regex": {"regex": "/.*"}}),
    )  # fmt: skip
    return bootstrap(
        [
            hcm(
                {
                    "virtual_hosts": [
                        main,
                        connects("forward.example:80"),
                        connects("rewritten.example:80", host_rewrite_literal="other.example:1"),
                        connects("plainhost.example"),
                        vhost({"match": {"connect_matcher": {}}, "direct_response": {"status": 200}},
                              name="direct", domains=("direct.example:80",)),
                        vhost({"match": {"connect_matcher": {}}, "redirect": {"host_redirect": "there"}},
                              name="redirect", domains=("redirect.example:80",)),
                        connects("short.example:80", timeout="0.2s"),
                        connects("terminated.example:80", "up", config=terminated),
                        connects("idle.example:80", "up", config=terminated, idle_timeout="0.3s"),
                        connects("proxy1.example:80", "up", config={"proxy_protocol_config": {"version": "V1"}}),
                        connects("proxy2.example:80", "up", config={"proxy_protocol_config": {"version": "V2"}}),
                        connects("refused.example:80", "refused", config=terminated),
                        connects("refused-forward.example:80", "refused"),
                        connects("none.example:80", "none", config=terminated),
                        vhost(
                            route("", match={"connect_matcher": {}}), name="unnamed", domains=("unnamed.example:80",)
                        ),
                        vhost(route("/"), name="plain", domains=("plain.example:80",)),
                        vhost(route(""), name="empty", domains=("empty.example:80",)),
                        vhost(
                            route(
                                "/", match={"connect_matcher": {}, "headers": [{"name": "x-a", "present_match": True}]},
                                action={"upgrade_configs": [{"upgrade_type": "connect"}], "append_x_forwarded_host": True},
                            ),
                            route("/", match={"connect_matcher": {}},
                                  action={"upgrade_configs": [{"upgrade_type": "connect", "enabled": False}]}),
                            route("/"),
                            name="both", domains=("both.example", "both.example:80"),
                        ),
                    ]
                },
                upgrade_configs=[
                    {"upgrade_type": "websocket"},
                    {"upgrade_type": "Own", "filters": [mutation("own"), ROUTER_FILTER]},
                    {"upgrade_type": "off", "enabled": False},
                ],
                http_filters=[mutation("main"), ROUTER_FILTER],
            ),
        ],
        [
            cluster("up", "up"),
            cluster("refused", "nobody"),
            cluster("none"),
        ],
        more_listeners=[
            {
                "name": name,
                "address": port(name),
                "filter_chains": [{"filters": [hcm({"virtual_hosts": hosts}, **more)]}],
            }
            for name, hosts, more in (
                ("ignoring", everything, {
                    "http_protocol_options": {"ignore_http_11_upgrade": [{"exact": "foo"}, {"prefix": "b", "ignore_case": True}]},
                    "upgrade_configs": [{"upgrade_type": "websocket"}],
                }),
                ("timed", everything, {
                    "upgrade_configs": [{"upgrade_type": "websocket"}],
                    "stream_idle_timeout": "0.3s",
                    "request_timeout": "0.2s",
                }),
                ("lasting", everything, {
                    "upgrade_configs": [{"upgrade_type": "websocket"}],
                    "common_http_protocol_options": {"max_stream_duration": "0.3s"},
                }),
                ("old", everything, {
                    "upgrade_configs": [{"upgrade_type": "websocket"}, {"upgrade_type": "CONNECT"}],
                    "http_protocol_options": {"accept_http_10": True},
                }),
                ("edge", everything, {
                    "upgrade_configs": [{"upgrade_type": "websocket"}],
                    "via": "v",
                    "http_protocol_options": {"header_key_format": {"proper_case_words": {}}},
                    "common_http_protocol_options": {"max_requests_per_connection": 1},
                }),
                ("strict", [connects("stripped.example"), connects("stripped.example:81", "refused")], {
                    "upgrade_configs": [{"upgrade_type": "CONNECT"}],
                    "strip_any_host_port": True,
                    "strip_trailing_host_dot": True,
                }),
                ("metered", everything, {
                    "upgrade_configs": [{"upgrade_type": "websocket"}],
                    "access_log": file_log({**LOG_FIELDS, **WEIGHTS}),
                }),
                ("none", everything, {}),
            )
        ],
    )  # fmt: skip


CONFIGURATIONS: dict[str, Data] = {"upgrades": upgrades()}

NEXT = b"GET /next HTTP/1.1\r\nhost: h.example\r\n\r\n"
"""Behind a head that asks for a tunnel this is no request."""
OK = b"HTTP/1.1 200 OK\r\n\r\n"
SHORT = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
GRANTED = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nx-a: b\r\n\r\n"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
ECHO = (GRANTED, Until(b"ping"), b"pong", Hang())
RAW = (OnAccept(), Until(b"ping"), b"pong", Hang())
LEAVE = (HalfClose(), ReadToEnd(), UpstreamLeft())
PONG = (ReadUntil(b"pong"), *LEAVE)
PING = (ReadUntil(b"\r\n\r\n"), b"ping", *PONG)


def wants(kind: bytes) -> bytes:
    return b"connection: upgrade\r\nupgrade: " + kind + b"\r\n"


WS = wants(b"websocket")


def ask(path: bytes = b"/", headers: bytes = WS, method: bytes = b"GET", after: bytes = b"") -> bytes:
    return method + b" " + path + b" HTTP/1.1\r\nhost: h.example\r\n" + headers + b"\r\n" + after


def connect(authority: bytes, headers: bytes = b"", after: bytes = b"") -> bytes:
    return b"CONNECT " + authority + b" HTTP/1.1\r\nhost: " + authority + b"\r\n" + headers + b"\r\n" + after


WITHOUT_STATS = ("downstream", "ending", "upstream", "log")


def play(name: str, *send: object, answer: tuple[object, ...] = (), **more: object) -> Exchange:
    """A conversation; ``answer``: the endpoint's, each time."""
    options = {"responses": 0, "config": "upgrades", **more}
    return Exchange(name, send, (answer,) if answer else (), **options)  # type: ignore[arg-type]


def up(name: str, *send: object, answer: tuple[object, ...] = ECHO, **more: object) -> Exchange:
    """An upgrade that is granted, unless the answer is another."""
    return play("upgrade: " + name, *send, answer=answer, **more)


def no(name: str, request: bytes, **more: object) -> Exchange:
    """A request that is answered by the proxy itself, and closes the connection."""
    return play(name, request, ReadToEnd(), **more)


def both(name: str, request: bytes, **more: object) -> Exchange:
    """A request in which the wish for an upgrade means nothing: another one may follow."""
    return play("upgrade: " + name, request, ReadResponses(2), log_lines=2, **more)


def answered(name: str, answer: bytes, *steps: object, kind: bytes = b"websocket", **more: object) -> Exchange:
    """An answer that does not grant."""
    return up(
        name, ask(headers=wants(kind), after=b"early"), ReadToEnd(), answer=(answer, *(steps or (Hang(),))), **more
    )


def con(name: str, authority: bytes, *send: object, answer: tuple[object, ...] = (), **more: object) -> Exchange:
    """A CONNECT."""
    return play("connect: " + name, connect(authority), *send, answer=answer, **more)


FORWARD, END = b"forward.example:80", b"terminated.example:80"
POST = ask(b"/post", b"content-length: 4\r\n", b"POST", b"ping")

GRANTS = [
    up("both ways", ask(), ReadUntil(b"\r\n\r\n"), b"ping", ReadUntil(b"pong"), *LEAVE),
    up("early bytes", ask(after=b"ping"), ReadUntil(b"pong"), *LEAVE),
    up("early bytes wait", ask(after=b"early"), ReadUntil(b"\r\n\r\n"), UpstreamHas(b"early"), *LEAVE,
       answer=(UpstreamGap(0.1), GRANTED, Hang())),
    up("early bytes are never sent", ask(after=b"early"), UpstreamHas(b"\r\n\r\n"), Gap(0.1), Reset(), answer=(Hang(),)),
    up("bytes behind the 101", ask(), ReadUntil(b"hello"), Reset(), answer=(GRANTED + b"hello", Hang())),
    up("a response behind the 101", ask(), ReadUntil(b"ok"), Reset(), answer=(GRANTED + SHORT, Hang())),
    up("100 before the 101", ask(), *PONG, answer=(b"HTTP/1.1 100 Continue\r\n\r\n" + GRANTED + b"pong", Hang())),
    up("the 101 in pieces", ask(), *PONG, answer=(
        GRANTED[:30], UpstreamGap(), GRANTED[30:-3], UpstreamGap(), GRANTED[-3:-1], UpstreamGap(), GRANTED[-1:] + b"pong", Hang()
    )),
    up("upstream closes", ask(), ReadToEnd(), answer=(GRANTED + b"hello", Close())),
    up("upstream half-closes", ask(), ReadUntil(b"hello"), ReadToEnd(), answer=(GRANTED + b"hello", UpstreamHalfClose(), Hang())),
    up("upstream resets", ask(), ReadUntil(b"\r\n\r\n"), b"ping", ReadToEnd(), answer=(GRANTED, Until(b"ping"), UpstreamReset())),
    up("downstream half-closes", ask(), ReadUntil(b"\r\n\r\n"), b"ping", UpstreamHas(b"ping"), *LEAVE, answer=(GRANTED, Hang())),
    up("downstream resets", ask(), ReadUntil(b"\r\n\r\n"), b"ping", UpstreamHas(b"ping"), Reset(), answer=(GRANTED, Hang())),
    up("downstream leaves before the 101", ask(), UpstreamHas(b"\r\n\r\n"), *LEAVE, answer=(Hang(),)),
    up("large both ways", ask(), ReadUntil(b"\r\n\r\n"), b"x" * 1_000_000, UpstreamHas(b"x" * 1_000_000), ReadToEnd(),
       answer=(GRANTED, Until(b"x" * 1_000_000), b"y" * 1_000_000, Close())),
    Exchange("upgrade: pipelined behind a request", (NEXT + ask(), ReadUntil(b"101 "), b"ping", *PONG), ((SHORT,), ECHO),
             config="upgrades", responses=0, log_lines=2),
    up("case of the type", ask(headers=b"Connection: keep-alive, UPGRADE\r\nUpgrade: WebSocket\r\n"), *PING),
    up("two connection lines", ask(headers=b"connection: keep-alive\r\n" + WS), *PING),
    up("connection names another header", ask(headers=b"connection: upgrade, x-h\r\nupgrade: websocket\r\nx-h: 1\r\n"), *PING),
    up("connection with close", ask(headers=b"connection: upgrade, close\r\nupgrade: websocket\r\n"), *PING),
    up("with a length of 0", ask(headers=WS + b"content-length: 0\r\n"), *PING),
    up("head", ask(method=b"HEAD"), Gap(0.05), b"ping", ReadUntil(b"pong"), Reset()),
    up("expect", ask(method=b"POST", headers=WS + b"expect: 100-continue\r\n"), ReadUntil(b"101 "), b"ping", *PONG),
    up("on on the route alone", ask(b"/yes", headers=wants(b"OFF")), *PING),
    up("named on the route alone", ask(b"/new", headers=wants(b"new")), *PING),
    up("filters of its own", ask(headers=wants(b"own")), *PING),
    up("filters of its own, early bytes wait", ask(headers=wants(b"own"), after=b"early"), UpstreamHas(b"\r\n\r\n"), Gap(0.1),
       Reset(), answer=(Hang(),)),
    up("rewritten", ask(b"/rewritten"), *PING),
    up("edge", ask(), *PING, listener="edge"),
    up("metered", ask(after=b"early"), *PING, listener="metered"),
    no("upgrade: metered, refused", ask(headers=wants(b"other")), listener="metered"),
    answered("metered, not granted", SHORT, listener="metered"),
    up("one of two is ignored", ask(headers=wants(b"foo, websocket")), *PING, listener="ignoring"),
    up("two lines, one is ignored", ask(headers=wants(b"foo") + b"upgrade: websocket\r\n"), *PING, listener="ignoring"),
    up("101 with another type", ask(), *PING, answer=(SWITCHING.replace(b"websocket", b"other") + b"\r\n", *ECHO[1:])),
    up("101 and HTTP/1.0", ask(), *PING, answer=(b"HTTP/1.0" + GRANTED[8:], *ECHO[1:])),
    up("101 with a length of 0", ask(), *PING, answer=(SWITCHING + b"content-length: 0\r\n\r\n", *ECHO[1:])),
]  # fmt: skip

BODIES = [
    up("with a body", ask(method=b"POST", headers=WS + b"content-length: 4\r\n", after=b"ping"), Gap(0.2), Reset(),
       compare=("downstream", "upstream")),
    up("with a body, not granted", ask(method=b"POST", headers=WS + b"content-length: 4\r\n", after=b"ping" + NEXT), Gap(0.2),
       Reset(), answer=(SHORT,), compare=("downstream", "upstream")),
    up("chunked", ask(method=b"POST", headers=WS + b"transfer-encoding: chunked\r\n", after=b"4\r\nping\r\n0\r\n\r\n"),
       ReadUntil(b"\r\n\r\n"), Reset(), answer=(GRANTED, Hang()), compare=WITHOUT_STATS),
]  # fmt: skip

NOT_GRANTED = [
    answered("200", SHORT),
    answered("201", b"HTTP/1.1 201 Created\r\nx-a: b\r\n\r\n"),
    answered("200 chunked", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n"),
    answered("200 of another type", SHORT, kind=b"own"),
    answered("302", b"HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n"),
    answered("204", b"HTTP/1.1 204 No Content\r\n\r\n"),
    answered("403 chunked", b"HTTP/1.1 403 Forbidden\r\ntransfer-encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n"),
    answered("404 that ends with the connection", b"HTTP/1.1 404 Not Found\r\n\r\nno", Close()),
    answered("426", b"HTTP/1.1 426 Upgrade Required\r\ncontent-length: 2\r\n\r\nno"),
    answered("426 with upgrade",
             b"HTTP/1.1 426 Upgrade Required\r\n" + WS + b"content-length: 2\r\n\r\nno", Close(), compare=WITHOUT_STATS),
    answered("200 with upgrade", b"HTTP/1.1 200 OK\r\n" + WS + b"content-length: 2\r\n\r\nno", compare=WITHOUT_STATS),
    answered("head cut off", GRANTED[:-2], Close()),
    answered("closed before the 101", b"", Close()),
    answered("101 without headers", b"HTTP/1.1 101 Switching Protocols\r\n\r\nhello", compare=WITHOUT_STATS),
    answered("101 with a length", SWITCHING + b"content-length: 3\r\n\r\nhello"),
    answered("101 chunked", SWITCHING + b"transfer-encoding: chunked\r\n\r\nhello"),
    up("head, not granted", ask(method=b"HEAD"), ReadToEnd(), answer=(SHORT[:-2], Hang())),
    up("retried before the 101", ask(b"/retry"), ReadToEnd(), answer=(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n",)),
    Exchange("upgrade: granted at the second attempt", (ask(b"/retry", after=b"ping"), *PONG),
             ((b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n",), ECHO), config="upgrades", responses=0),
    up("connect refused", ask(b"/refused", after=b"early"), ReadToEnd()),
    no("upgrade: no cluster", ask(b"/absent", after=NEXT)),
    no("upgrade: direct response", ask(b"/direct", after=NEXT)),
    no("upgrade: asterisk", ask(b"*", method=b"OPTIONS", after=NEXT)),
    no("upgrade: no route", ask(after=NEXT), listener="strict"),
]  # fmt: skip

REFUSED = [
    no("upgrade: not named", ask(headers=wants(b"foo"), after=NEXT)),
    no("upgrade: not named, post", ask(method=b"POST", headers=wants(b"foo") + b"content-length: 3\r\n", after=b"abc" + NEXT)),
    no("upgrade: nowhere configured", ask(after=NEXT), listener="none"),
    no("upgrade: two values", ask(headers=WS + b"upgrade: foo\r\n", after=NEXT)),
    no("upgrade: a list of values", ask(headers=wants(b"websocket, foo"), after=NEXT)),
    no("upgrade: an empty value", ask(headers=wants(b""), after=NEXT)),
    no("upgrade: h2c and websocket", ask(headers=wants(b"h2c, websocket"), after=NEXT)),
    no("upgrade: h2c and websocket, others ignored", ask(headers=wants(b"h2c, websocket"), after=NEXT), listener="ignoring"),
    no("upgrade: ignored in another case", ask(headers=wants(b"FOO"), after=NEXT), listener="ignoring"),
    no("upgrade: off on the route", ask(b"/no", after=NEXT)),
    no("upgrade: off in the manager", ask(headers=wants(b"off"), after=NEXT)),
    no("upgrade: 1.0", b"GET / HTTP/1.0\r\nhost: h.example\r\n" + WS + b"\r\n", listener="old", compare=WITHOUT_STATS),
    no("upgrade: 1.0, another type", b"GET / HTTP/1.0\r\nhost: h.example\r\n" + wants(b"x") + b"\r\n" + NEXT, listener="old"),
    no("upgrade: 1.0, not taken", b"GET / HTTP/1.0\r\nhost: h.example\r\n" + WS + b"\r\n" + NEXT),
    both("connection alone", ask(headers=b"connection: upgrade\r\n", after=NEXT)),
    both("upgrade alone", ask(headers=b"upgrade: websocket\r\n", after=NEXT)),
    both("h2c", ask(headers=b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AA\r\n", after=NEXT)),
    both("h2c with a body", ask(method=b"POST", headers=wants(b"H2C") + b"content-length: 3\r\n", after=b"abc" + NEXT)),
    both("ignored", ask(headers=b"connection: upgrade, keep-alive\r\nupgrade: foo\r\n", after=NEXT), listener="ignoring"),
    both("ignored, with a body", ask(method=b"POST", headers=wants(b"BAR") + b"content-length: 3\r\n", after=b"abc" + NEXT),
         listener="ignoring"),
    both("ignored, chunked", ask(method=b"POST", headers=wants(b"bar") + b"transfer-encoding: chunked\r\n",
                                 after=b"3\r\nabc\r\n0\r\n\r\n" + NEXT), listener="ignoring"),
    both("all of a list ignored", ask(headers=wants(b"foo, Boo"), after=NEXT), listener="ignoring"),
]  # fmt: skip

TIMES = [
    up("idle", ask(b"/idle"), ReadUntil(b"\r\n\r\n"), b"ping", ReadUntil(b"pong"), ReadToEnd()),
    up("idle before the 101", ask(b"/idle"), ReadToEnd(), answer=(Hang(),)),
    up("stream idle timeout", ask(), ReadUntil(b"\r\n\r\n"), b"ping", ReadUntil(b"pong"), ReadToEnd(), listener="timed"),
    up("no request timeout", ask(), ReadUntil(b"\r\n\r\n"), Gap(0.25), b"ping", *PONG, listener="timed"),
    up("request timeout before the 101", ask(), ReadToEnd(), answer=(Hang(),), listener="timed"),
    up("max stream duration", ask(), ReadUntil(b"\r\n\r\n"), b"ping", ReadUntil(b"pong"), ReadToEnd(), listener="lasting"),
    up("max stream duration before the 101", ask(), ReadToEnd(), answer=(Hang(),), listener="lasting"),
    up("no route timeout", ask(b"/short"), ReadUntil(b"\r\n\r\n"), Gap(0.3), b"ping", *PONG),
    up("route timeout before the 101", ask(b"/short"), ReadToEnd(), answer=(Hang(),)),
    up("no route timeout of another type", ask(b"/short", headers=wants(b"own")), Gap(0.3), Reset(), answer=(Hang(),)),
    up("per try timeout before the 101", ask(b"/try"), ReadToEnd(), answer=(Hang(),)),
    up("no per try timeout", ask(b"/try"), ReadUntil(b"\r\n\r\n"), Gap(0.3), b"ping", *PONG),
    con("no route timeout", b"short.example:80", *PONG, answer=(UpstreamGap(0.3), OK + b"pong", Hang())),
    con("terminated, idle", b"idle.example:80", ReadToEnd(), answer=(OnAccept(), Hang())),
]  # fmt: skip

CONNECTS = [
    con("forwarded", FORWARD, ReadUntil(b"\r\n\r\n"), b"ping", ReadUntil(b"pong"), *LEAVE, answer=(OK, *ECHO[1:])),
    play("connect: early bytes", connect(FORWARD, after=b"ping"), *PONG, answer=(UpstreamGap(0.1), OK, *ECHO[1:])),
    con("bytes behind the 200", FORWARD, *PONG, answer=(OK + b"pong", Hang())),
    con("200 with a length", FORWARD, *PONG, answer=(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\npong", Hang())),
    con("200 chunked", FORWARD, *PONG, answer=(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\npong", Hang())),
    con("201", FORWARD, *PONG, answer=(b"HTTP/1.1 201 Created\r\nx-a: b\r\n\r\npong", Hang())),
    play("connect: refused by upstream", connect(FORWARD, after=b"early"), ReadToEnd(),
         answer=(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno", Hang())),
    con("407 chunked", FORWARD, ReadToEnd(),
        answer=(b"HTTP/1.1 407 Auth\r\ntransfer-encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n", Hang())),
    con("upstream closes", FORWARD, ReadToEnd(), answer=(OK + b"hello", Close())),
    play("connect: nobody there", connect(b"refused-forward.example:80", after=b"early"), ReadToEnd()),
    con("host rewritten", b"rewritten.example:80", *PONG, answer=(OK + b"pong", Hang())),
    no("connect: not configured", connect(b"unnamed.example:80", after=NEXT)),
    no("connect: no connect route", connect(b"plain.example:80", after=NEXT)),
    no("connect: a route of an empty prefix", connect(b"empty.example:80", after=NEXT)),
    no("connect: off on the route", connect(b"both.example:80", after=NEXT)),
    no("connect: direct response", connect(b"direct.example:80", after=NEXT)),
    no("connect: domain without its port", connect(b"plainhost.example:80", after=NEXT)),
    no("connect: allowed, no route", connect(b"h.example:80", after=NEXT), listener="old"),
    no("connect: 1.0", b"CONNECT forward.example:80 HTTP/1.0\r\n\r\n", listener="old"),
    no("connect: with a body", connect(FORWARD, b"content-length: 3\r\n", b"abc" + NEXT)),
    no("connect: chunked", connect(FORWARD, b"transfer-encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n")),
    no("connect: without a port", connect(b"both.example", b"x-a: 1\r\n")),
    no("connect: with an upgrade", connect(FORWARD, WS), answer=(OK, Close()), compare=WITHOUT_STATS),
    no("connect: with an upgrade, not named", connect(FORWARD, wants(b"foo"), NEXT)),
    no("connect: path", b"CONNECT /x HTTP/1.1\r\nhost: forward.example:80\r\n\r\n"),
    no("connect: absolute form", b"CONNECT http://forward.example:80/ HTTP/1.1\r\nhost: forward.example:80\r\n\r\n"),
    no("connect: authority form of another method", b"GET forward.example:80 HTTP/1.1\r\nhost: forward.example:80\r\n\r\n"),
    play("connect: header match", connect(b"both.example:80", b"x-a: 1\r\n"), *PONG, answer=(OK + b"pong", Hang())),
    play("connect: get beside", b"GET / HTTP/1.1\r\nhost: both.example\r\n\r\n", ReadResponses(1), answer=(SHORT,)),
    play("connect: with a length of 0", connect(FORWARD, b"content-length: 0\r\n"), *PONG, answer=(OK + b"pong", Hang())),
    play("connect: another host", b"CONNECT forward.example:80 HTTP/1.1\r\nhost: other.example\r\n\r\n", *PONG,
         answer=(OK + b"pong", Hang())),
    play("connect: no host", b"CONNECT forward.example:80 HTTP/1.1\r\n\r\n", *PONG, answer=(OK + b"pong", Hang())),
    play("connect: with an upgrade of h2c", connect(FORWARD, wants(b"h2c")), *PONG, answer=(OK + b"pong", Hang())),
    con("stripped port", b"stripped.example:81", *PONG, answer=(OK + b"pong", Hang()), listener="strict"),
    con("stripped dot", b"stripped.example.:80", *PONG, answer=(OK + b"pong", Hang()), listener="strict"),
]  # fmt: skip

TERMINATED = [
    con("terminated", END, ReadUntil(b"\r\n\r\n"), b"ping", ReadUntil(b"pong"), *LEAVE, answer=RAW),
    play("connect: terminated, early bytes", connect(END, after=b"ping"), ReadUntil(b"pong"), *LEAVE, answer=RAW),
    con("terminated, upstream speaks first", END, *PONG, answer=(OnAccept(), b"pong", Hang())),
    con("terminated, upstream closes", END, ReadToEnd(), answer=(OnAccept(), b"pong", Close())),
    con("terminated, upstream half-closes", END, ReadToEnd(), answer=(OnAccept(), b"pong", UpstreamHalfClose(), Hang())),
    con("terminated, upstream resets", END, ReadUntil(b"\r\n\r\n"), b"ping", ReadToEnd(),
        answer=(OnAccept(), Until(b"ping"), UpstreamReset())),
    con("terminated, downstream resets", END, ReadUntil(b"\r\n\r\n"), b"ping", UpstreamHas(b"ping"), Reset(),
        answer=(OnAccept(), Hang())),
    play("connect: terminated, nobody there", connect(b"refused.example:80", after=b"early"), ReadToEnd()),
    play("connect: terminated, no endpoint", connect(b"none.example:80", after=b"early"), ReadToEnd()),
    play("connect: terminated, PROXY 1", connect(b"proxy1.example:80", after=b"ping"), *PONG, answer=RAW),
    play("connect: terminated, PROXY 2", connect(b"proxy2.example:80", after=b"ping"), *PONG, answer=RAW,
         compare=("downstream", "log", "stats")),
    play("connect: post", POST, ReadResponses(1),
         answer=(OnAccept(), Until(b"ping"), b"pong", Close())),
    play("connect: post, then a request", POST,
         ReadResponses(1), b"GET /direct HTTP/1.1\r\nhost: h.example\r\n\r\n", ReadResponses(2), log_lines=2,
         answer=(OnAccept(), Until(b"ping"), b"pong", Close())),
    play("connect: post, the end is passed on", POST,
         ReadResponses(1), answer=(OnAccept(), Hang())),
    play("connect: chunked post", ask(b"/post", b"transfer-encoding: chunked\r\n", b"POST", b"4\r\nping\r\n"),
         ReadUntil(b"pong"), b"0\r\n\r\n", ReadResponses(1), answer=RAW, compare=("downstream", "upstream", "log")),
    play("connect: empty post", ask(b"/post", b"", b"POST"), ReadResponses(1), answer=(OnAccept(), b"pong", Hang())),
    play("connect: get where post is allowed", ask(b"/post", b""), ReadResponses(1), answer=(SHORT,)),
    play("connect: get where connect ends", ask(b"/onlyconnect", b""), ReadResponses(1),
         answer=(SHORT,)),
    play("connect: post where connect ends", POST.replace(b"post", b"onlyconnect"),
         ReadResponses(1), answer=(SHORT,)),
]  # fmt: skip

EXCHANGES = [*GRANTS, *BODIES, *NOT_GRANTED, *REFUSED, *TIMES, *CONNECTS, *TERMINATED]
