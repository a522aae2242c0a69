"""A mix of traffic after which every figure of both programs is compared: test_stats_audit.py."""

from __future__ import annotations

from tests.conformance.exchanges.statistics import BAD, ODD, OK, RETRY
from tests.support.bootstrap import (
    TYPE,
    Data,
    bootstrap,
    cluster,
    hcm,
    port,
    route,
    tcp_proxy,
    tls_downstream,
    tls_upstream,
    vhost,
)
from tests.support.exchange import Exchange, Gap, HalfClose, ReadUntil, Reset, SendStep, UpstreamHas
from tests.support.upstream import Answer, Close, Hang
from tests.support.upstream import Reset as UpstreamReset

H = b"host: h.example\r\n"


def listener(name: str, *filters: Data, **chain: object) -> Data:
    """A listener on its own port."""
    return {"name": name, "address": port(name), "filter_chains": [{"filters": list(filters), **chain}]}


def canary(data: Data) -> Data:
    """Its endpoint is one."""
    endpoint: Data = data["load_assignment"]["endpoints"][0]["lb_endpoints"][0]
    endpoint["metadata"] = {"filter_metadata": {"envoy.lb": {"canary": True}}}
    return data


def configuration() -> Data:
    """HTTP, HTTP over TLS, TCP; clusters that answer, refuse, have nobody, cannot be reached, speak TLS."""
    routes = vhost(
        {"match": {"prefix": "/direct"}, "direct_response": {"status": 404, "body": {"inline_string": "no\n"}}},
        {"match": {"prefix": "/moved"}, "redirect": {"host_redirect": "other.example"}},
        route("/retry", action=RETRY),
        route("/slow", action={"timeout": "0.1s"}),
        route("/idle", action={"timeout": "0s", "idle_timeout": "0.1s"}),
        route("/dead", "dead"),
        route("/again", "dead", action=RETRY),
        route("/stuck", "stuck"),
        route("/empty", "empty"),
        route("/unknown", "unknown"),
        route("/secret", "secret"),
        route("/wrong", "wrong"),
        route("/"),
        domains=("h.example",),
    )
    table = {"virtual_hosts": [routes], "validate_clusters": False}
    http = hcm(table)
    endpoints = {"cluster_name": "empty"}
    return bootstrap(
        [http],
        [
            cluster("up", "up"),
            cluster("dead", "dead"),
            cluster("stuck", "stuck", connect_timeout="0.2s"),
            cluster("empty", load_assignment=endpoints),
            cluster("secret", "up_tls", **tls_upstream("ca", sni="good.example", names=("good.example",))),
            cluster("wrong", "up_tls", **tls_upstream("other-ca", sni="good.example")),
            cluster(
                "limited", "up", circuit_breakers={"thresholds": [{"max_connections": 1, "track_remaining": True}]}
            ),
            canary(cluster("canary", "up")),
        ],
        more_listeners=[
            listener("tls", hcm(table, stat_prefix="tls"), transport_socket=tls_downstream()),
            listener("tcp", tcp_proxy("up")),
            listener("tcp_dead", tcp_proxy("dead", stat_prefix="tcp_dead")),
            listener("tcp_empty", tcp_proxy("empty", stat_prefix="tcp_empty")),
            listener(
                "echo",
                {
                    "name": "envoy.filters.network.echo",
                    "typed_config": {"@type": TYPE + "envoy.extensions.filters.network.echo.v3.Echo"},
                },
            ),
        ],
    )


def get(path: str, headers: bytes = b"", *, method: bytes = b"GET", host: bytes = H) -> bytes:
    """A request without a body."""
    return method + b" " + path.encode() + b" HTTP/1.1\r\n" + host + headers + b"\r\n"


def post(path: str, body: bytes, headers: bytes = b"") -> bytes:
    """A request with one."""
    return get(path, headers + b"content-length: %d\r\n" % len(body), method=b"POST") + body


def played(
    name: str, send: SendStep | tuple[SendStep, ...], *answers: Answer, responses: int = 1, **more: object
) -> Exchange:
    """An exchange of which only the figures count."""
    steps = send if isinstance(send, tuple) else (send,)
    return Exchange(name, steps, answers, responses=responses, log_lines=0, compare=("downstream",), **more)  # type: ignore[arg-type]


NOTHING: Answer = (Hang(),)
CUT: Answer = (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", Close())
CLOSING: Answer = (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", Close())
UNTIL_CLOSE: Answer = (b"HTTP/1.1 200 OK\r\n\r\nall of it", Close())
CHUNKED: Answer = (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",)
NO_CONTENT: Answer = (b"HTTP/1.1 204 No Content\r\n\r\n",)
MOVED: Answer = (b"HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n",)
MISSING: Answer = (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",)
NONSENSE: Answer = (b"nonsense\r\n\r\n", Close())

EXCHANGES = [
    *[played(f"plain {number}", get("/"), OK) for number in range(3)],
    played("three in a row", (get("/"), ReadUntil(b"ok"), get("/"), get("/")), OK, OK, OK, responses=3),
    played("pipelined", get("/") + get("/") + get("/direct"), OK, OK, responses=3),
    played("head", get("/", method=b"HEAD"), (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n",)),
    played("no content", get("/"), NO_CONTENT),
    played("moved by the upstream", get("/"), MOVED),
    played("missing", get("/"), MISSING),
    played("teapot", get("/"), ODD),
    played("bad", get("/"), BAD),
    played("chunked", get("/"), CHUNKED),
    played("body", post("/", b"x" * 3000), OK),
    played(
        "body in chunks",
        get("/", b"transfer-encoding: chunked\r\n", method=b"POST") + b"2\r\nab\r\n0\r\n\r\n",
        OK,
    ),
    played("connection: close from downstream", get("/", b"connection: close\r\n"), OK),
    played("connection: close from upstream", get("/"), CLOSING),
    played("until close", get("/"), UNTIL_CLOSE),
    played("upstream closes", get("/"), (Close(),)),
    played("upstream resets", get("/"), (UpstreamReset(),)),
    played("response cut", get("/"), CUT),
    played("response is nonsense", get("/"), NONSENSE),
    played("direct", get("/direct")),
    played("moved", get("/moved")),
    played("no host", b"GET / HTTP/1.1\r\n\r\n"),
    played("other host", get("/", host=b"host: other\r\n")),
    played("nonsense", b"\x00\x01\r\n\r\n"),
    played("http/1.0", b"GET / HTTP/1.0\r\nhost: h.example\r\n\r\n"),
    played("head too large", get("/", b"x-large: " + b"a" * 70_000 + b"\r\n")),
    played("retried", get("/retry"), BAD, OK),
    played("retried in vain", get("/retry"), BAD, BAD),
    played("timeout", get("/slow"), NOTHING),
    played("timeout after the head", get("/slow"), (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhal", Hang())),
    played("idle", get("/idle"), NOTHING),
    played("refused", get("/dead")),
    played("refused and retried", get("/again")),
    played("cannot be reached", get("/stuck")),
    played("nobody", get("/empty")),
    played("unknown cluster", get("/unknown")),
    played("tls upstream", get("/secret")),
    played("tls upstream, wrong authority", get("/wrong")),
    played("downstream leaves", (get("/left"), UpstreamHas(b"/left"), Reset()), NOTHING, responses=0),
    played("downstream leaves in the head", (b"GET / HTTP/1.1\r\nho", Gap(0.05), Reset()), responses=0),
    played("connection without a request", (Gap(0.02),), responses=0),
    *[
        played(f"over tls {number}", get("/", b"connection: close\r\n"), OK, listener="tls", tls_name="good.example")
        for number in range(2)
    ],
    played("direct over tls", get("/direct"), listener="tls", tls_name="good.example"),
    played("no tls on tls", get("/"), listener="tls", responses=0, quiet_s=0.1),
    played("tcp", (get("/"), ReadUntil(b"ok")), OK, listener="tcp", responses=0),
    played("tcp, half-closed", (get("/"), ReadUntil(b"ok"), HalfClose()), OK, listener="tcp", responses=0),
    played("tcp, upstream closes", get("/"), CLOSING, listener="tcp", quiet_s=0.1),
    played("tcp, reset", (get("/"), UpstreamHas(b"GET"), Reset()), NOTHING, listener="tcp", responses=0),
    played("tcp, refused", (Gap(0.1),), listener="tcp_dead", responses=0),
    played("tcp, nobody", (Gap(0.1),), listener="tcp_empty", responses=0),
    played("echo", (b"hello", ReadUntil(b"hello")), listener="echo", responses=0),
]
