"""Where requests count besides their cluster: virtual clusters, routes with a prefix, zones, canaries."""

from __future__ import annotations

from tests.support.bootstrap import LOG_FIELDS, ROUTER, Data, bootstrap, cluster, file_log, hcm, route, vhost
from tests.support.exchange import Exchange, ReadUntil, SendStep
from tests.support.upstream import Answer, Close, Hang

H = b"host: h.example\r\n"
OK: Answer = (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",)
ODD: Answer = (b"HTTP/1.1 418 Teapot\r\ncontent-length: 0\r\n\r\n",)
BAD: Answer = (b"HTTP/1.1 503 Bad\r\ncontent-length: 0\r\n\r\n",)
CANARY: Answer = (b"HTTP/1.1 200 OK\r\nx-envoy-upstream-canary: true\r\ncontent-length: 0\r\n\r\n",)
INSIDE = b"x-forwarded-for: 10.0.0.1\r\n"
ALTERNATIVE = b"x-envoy-upstream-alt-stat-name: al.t\r\n"
RETRY = {"retry_policy": {"retry_on": "5xx", "retry_back_off": {"base_interval": "0.001s"}}, "timeout": "0s"}


def zoned(name: str, zone: str, metadata: Data | None = None) -> Data:
    """A cluster in a zone."""
    made = cluster(name, "up")
    endpoints: Data = made["load_assignment"]["endpoints"][0]
    endpoints["locality"] = {"region": "r", "zone": zone}
    if metadata is not None:
        endpoints["lb_endpoints"][0]["metadata"] = {"filter_metadata": {"envoy.lb": metadata}}
    return made


def header(name: str, **match: object) -> Data:
    """A header matcher."""
    return {"name": name, **(match or {"present_match": True})}


def configuration() -> Data:
    """Two virtual hosts: one with virtual clusters, one without."""
    counted = vhost(
        {"match": {"path": "/direct"}, "direct_response": {"status": 200}, "stat_prefix": "direct"},
        route("/api", stat_prefix="api"),
        route("/retry", action=RETRY, stat_prefix="again"),
        route("/slow", action={"timeout": "0.05s"}, stat_prefix="slow"),
        route("/nobody", "nobody", stat_prefix="nobody"),
        route("/missing", "missing"),
        route("/zoned", "zoned"),
        route("/canary", "canary"),
        {
            "match": {"prefix": "/weighted"},
            "route": {"weighted_clusters": {"clusters": [{"name": "up", "weight": 1}]}},
            "stat_prefix": "w.x",
        },
        route("/"),
        name="counted",
        domains=("h.example",),
        virtual_clusters=[
            {"name": "both", "headers": [header(":method", string_match={"exact": "POST"}), header("x-both")]},
            {"name": "posted", "headers": [header(":method", string_match={"exact": "POST"})]},
            {
                "name": "by.path",
                "headers": [header(":path", string_match={"safe_regex": {"regex": "/(api|retry|slow|nobody).*"}})],
            },
            {"name": "rewritten", "headers": [header(":path", string_match={"prefix": "/other"})]},
        ],
    )
    plain = vhost(route("/prefixed", stat_prefix="pre fixed:1"), route("/"), name="plain")
    fields = {**LOG_FIELDS, "virtual cluster": "%VIRTUAL_CLUSTER_NAME%"}
    table = {"virtual_hosts": [counted, plain], "validate_clusters": False}
    nobody = cluster("nobody", load_assignment={"cluster_name": "nobody"})
    clusters = [
        *(zoned("up", ""), zoned("zoned", "there"), zoned("canary", "there", {"canary": True})),
        nobody,
    ]
    node = {"id": "node", "cluster": "service", "locality": {"zone": "here"}}
    inside = {"cidr_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]}
    return bootstrap([hcm(table, access_log=file_log(fields), internal_address_config=inside)], clusters, node=node)


def grpc_configuration() -> Data:
    """A router that hides the codes of gRPC requests."""
    config = {"@type": ROUTER, "suppress_grpc_request_failure_code_stats": True}
    router = [{"name": "envoy.filters.http.router", "typed_config": config}]
    routes = vhost(route("/retry", action=RETRY), route("/nobody", "nobody", stat_prefix="no"), route("/"))
    nobody = cluster("nobody", load_assignment={"cluster_name": "nobody"})
    return bootstrap([hcm({"virtual_hosts": [routes]}, http_filters=router)], [cluster("up", "up"), nobody])


CONFIGURATIONS = {"statistics": configuration(), "statistics_of_grpc": grpc_configuration()}
GRPC = b"content-type: application/grpc\r\n"


def get(path: str, headers: bytes = b"", *, method: bytes = b"GET", host: bytes = H) -> bytes:
    """A request without a body."""
    return method + b" " + path.encode() + b" HTTP/1.1\r\n" + host + headers + b"\r\n"


def counted(name: str, send: SendStep | tuple[SendStep, ...], *answers: Answer, responses: int = 1) -> Exchange:
    """An exchange on the configuration above."""
    steps = send if isinstance(send, tuple) else (send,)
    return Exchange(
        f"counted: {name}", steps, answers, config="statistics", responses=responses, log_lines=max(responses, 1)
    )


def hidden(name: str, send: bytes, *answers: Answer) -> Exchange:
    """The same on the second one."""
    return Exchange(f"counted without codes: {name}", (send,), answers, config="statistics_of_grpc")


EXCHANGES = [
    counted("virtual cluster and route", get("/api/1"), OK),
    counted("the first virtual cluster wins", get("/api/1", b"x-both: 1\r\n", method=b"POST"), ODD),
    counted("all headers must match", get("/", method=b"POST"), OK),
    counted("no virtual cluster matches", get("/"), OK),
    counted("of a virtual host without", get("/", host=b"host: plain\r\n"), OK),
    counted("route prefix of a virtual host without", get("/prefixed", host=b"host: plain\r\n"), BAD),
    counted("weighted cluster", get("/weighted"), OK),
    counted("direct response", get("/direct")),
    counted("unknown cluster", get("/missing")),
    counted("nobody there", get("/nobody")),
    counted("upstream closes", get("/api/x"), (Close(),)),
    counted("response timeout", get("/slow"), (Hang(),)),
    counted("retried with success", get("/retry"), BAD, OK),
    counted("retried in vain", get("/retry"), BAD, BAD),
    counted("zone", get("/zoned"), OK),
    counted("zone and a failure", get("/zoned"), (Close(),)),
    counted("canary endpoint", get("/canary"), OK),
    counted("canary endpoint that fails", get("/canary"), (Close(),)),
    counted("canary response", get("/api"), CANARY),
    counted("a canary response and another one", (get("/"), ReadUntil(b"\r\n\r\n"), get("/")), CANARY, OK, responses=2),
    counted("alternative name from outside", get("/api", ALTERNATIVE), OK),
    hidden("gRPC", get("/", GRPC), OK),
    hidden("no gRPC", get("/"), OK),
    hidden("gRPC, nobody there", get("/nobody", GRPC)),
    hidden("gRPC, a failure", get("/", GRPC), (Close(),)),
    hidden("gRPC, retried", get("/retry", GRPC), BAD, OK),
    counted("internal", get("/api", INSIDE), OK),
    counted("internal, nobody there", get("/nobody", INSIDE)),
    counted("alternative name", get("/", INSIDE + ALTERNATIVE), OK),
    counted("alternative name and a failure", get("/api", INSIDE + ALTERNATIVE), (Close(),)),
    counted("alternative name and zones, a canary's", get("/canary", INSIDE + ALTERNATIVE), OK),
]
