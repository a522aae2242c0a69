"""Fault injection: delays, aborts, slow responses, by configuration, header and runtime."""

from __future__ import annotations

from tests.conformance.exchanges.filter_configurations import EXTENSION, OFF, ROUTER_FILTER, UP, http_filter, on
from tests.support.bootstrap import LOG_FIELDS, Data, bootstrap, file_log, hcm, route, vhost
from tests.support.exchange import Exchange

NAME = "fault"
FAULT = EXTENSION + "fault.v3.HTTPFault"
ALL = {"numerator": 100}
NONE = {"numerator": 0}
LOG = file_log({**LOG_FIELDS, "fault": "%DYNAMIC_METADATA(fault)%"})


def faulty(prefix: str, **config: object) -> Data:
    """A route with faults of its own."""
    return on(NAME, prefix, {"@type": FAULT, **config})


def abort(percentage: Data = ALL, **kind: object) -> Data:
    return {**(kind or {"http_status": 418}), "percentage": percentage}


def delay(percentage: Data = ALL, **kind: object) -> Data:
    return {**(kind or {"fixed_delay": "0.01s"}), "percentage": percentage}


def rate(percentage: Data = ALL, **kind: object) -> Data:
    return {**(kind or {"fixed_limit": {"limit_kbps": 1000}}), "percentage": percentage}


BY_HEADER: Data = {"header_abort": {}}
RUNTIME = {
    "mine.abort": 100, "mine.status": 503, "mine.grpc": 5, "mine.delay": {"numerator": 100}, "mine.ms": 11, "mine.most": 0,
    "mine.rate": 0,
    "fault.http.shop.abort.abort_percent": 100, "fault.http.shop.abort.http_status": 409,
    "fault.http.slow.delay.fixed_delay_percent": 100, "fault.http.slow.delay.fixed_duration_ms": 7,
}  # fmt: skip


def faults() -> Data:
    weighted = {"name": "up", "weight": 1}
    routes = [
        faulty("/abort", abort=abort()),
        faulty("/grpc", abort=abort(grpc_status=14)),
        faulty("/never", abort=abort(NONE), delay=delay(NONE), response_rate_limit=rate(NONE)),
        faulty("/no-percentage", abort={"http_status": 500}),
        faulty("/by-header", abort=abort(header_abort={}), delay=delay(header_delay={}),
               response_rate_limit=rate(header_limit={})),
        faulty("/half-header", abort=abort({"numerator": 50}, header_abort={})),
        faulty("/share-header", abort=abort(http_status=400)),
        faulty("/delay", delay=delay()),
        faulty("/no-delay", delay=delay(fixed_delay="0.0001s")),
        faulty("/both", delay=delay(), abort=abort()),
        faulty("/rate", response_rate_limit=rate()),
        faulty("/three", delay=delay(), response_rate_limit=rate(), abort=abort(NONE)),
        faulty("/to-up", abort=abort(), upstream_cluster="up"),
        faulty("/to-other", abort=abort(), upstream_cluster="other"),
        {"match": {"prefix": "/weighted"}, "route": {"weighted_clusters": {"clusters": [weighted]}},
         "typed_per_filter_config": {NAME: {"@type": FAULT, "abort": abort(), "upstream_cluster": "up"}}},
        {"match": {"prefix": "/named"}, "route": {"cluster_header": "x-cluster"},
         "typed_per_filter_config": {NAME: {"@type": FAULT, "abort": abort(), "upstream_cluster": "up"}}},
        {"match": {"prefix": "/direct-to"}, "direct_response": {"status": 200},
         "typed_per_filter_config": {NAME: {"@type": FAULT, "abort": abort(), "upstream_cluster": "up"}}},
        {"match": {"prefix": "/direct"}, "direct_response": {"status": 200, "body": {"inline_string": "hello"}},
         "typed_per_filter_config": {NAME: {"@type": FAULT, "abort": abort(NONE), "response_rate_limit": rate()}}},
        faulty("/headers", abort=abort(), headers=[{"name": "x-a", "string_match": {"exact": "1"}}, {"name": "x-b"}]),
        faulty("/nodes", abort=abort(), downstream_nodes=["n1", "n2"]),
        faulty("/overflow", abort=abort(), max_active_faults=0),
        faulty("/most", delay=delay(), abort=abort(), max_active_faults=1),
        faulty("/metadata", abort=abort(), filter_metadata={"why": "test", "n": 1}),
        faulty("/slow-metadata", delay=delay(), filter_metadata={"why": "test"}),
        faulty("/runtime-abort", abort=abort(NONE), abort_percent_runtime="mine.abort", abort_http_status_runtime="mine.status"),
        faulty("/runtime-grpc", abort=abort(grpc_status=1), abort_grpc_status_runtime="mine.grpc"),
        faulty("/runtime-header", abort=abort(header_abort={}), abort_http_status_runtime="mine.status",
               abort_percent_runtime="mine.abort"),
        faulty("/runtime-delay", delay=delay(NONE), delay_percent_runtime="mine.delay", delay_duration_runtime="mine.ms"),
        faulty("/runtime-most", abort=abort(), max_active_faults_runtime="mine.most"),
        faulty("/runtime-rate", response_rate_limit=rate(), response_rate_limit_percent_runtime="mine.rate"),
        faulty("/cluster", abort=abort(NONE), delay=delay(NONE), disable_downstream_cluster_stats=True),
        {"match": {"prefix": "/bad-request"}, "direct_response": {"status": 400}},
        on(NAME, "/off", OFF),
        route("/"),
    ]  # fmt: skip
    routes.sort(key=lambda each: -len(each["match"]["prefix"]))
    table = {"virtual_hosts": [vhost(*routes, domains=("h",))]}
    own = http_filter(NAME, "fault.v3.HTTPFault", abort=abort(http_status=599), headers=[{"name": "x-own"}])
    runtime = {"layers": [{"name": "static", "static_layer": RUNTIME}]}
    manager = hcm(table, http_filters=[own, ROUTER_FILTER], access_log=LOG)
    return bootstrap([manager], [UP], layered_runtime=runtime)


CONFIGURATIONS = {"faults": faults()}


def ask(
    path: str, lines: bytes = b"", method: bytes = b"GET", host: bytes = b"h", more: bytes = b"", **how: object
) -> Exchange:
    head = method + b" " + path.encode() + b" HTTP/1.1\r\nhost: " + host + b"\r\n" + lines + b"\r\n" + more
    shown = lines.replace(b"\r\n", b"; ").decode()
    title = f"fault: {method.decode()} {host.decode()}{path} {shown}".rstrip(" ;")
    return Exchange(title, (head,), config="faults", **how)  # type: ignore[arg-type]


def fault_header(name: str, value: object) -> bytes:
    return f"x-envoy-fault-{name}: {value}\r\n".encode()


GRPC = b"content-type: application/grpc\r\n"
STATUS = [fault_header("abort-request", value) for value in (404, 199, 600, "x", "", -1)]
FIVE_KIB = b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n" + b"x" * 5000
CHUNKS = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
EMPTY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"

EXCHANGES = [
    *(ask(path, lines)
      for path in ("/abort", "/grpc", "/both", "/runtime-grpc", "/overflow", "/metadata", "/slow-metadata", "/most")
      for lines in (b"", GRPC)),
    *(ask(path) for path in (
        "/never", "/no-percentage", "/no-delay", "/delay", "/rate", "/three", "/to-up", "/to-other", "/weighted", "/direct-to",
        "/direct", "/headers", "/nodes", "/runtime-abort", "/runtime-header", "/runtime-delay", "/runtime-most",
        "/runtime-rate", "/cluster", "/off", "/", "/by-header", "/share-header", "/half-header")),
    *(ask("/by-header", lines) for lines in (*STATUS, STATUS[0] + STATUS[1], STATUS[1] + STATUS[0])),
    *(ask("/by-header", fault_header("abort-grpc-request", value)) for value in (5, 99, "x")),
    ask("/by-header", fault_header("abort-grpc-request", 5) + GRPC),
    ask("/by-header", fault_header("abort-grpc-request", 5) + STATUS[0]),
    *(ask("/by-header", fault_header("delay-request", value)) for value in (5, 0, "x")),
    ask("/by-header", fault_header("delay-request", 5) + STATUS[0]),
    ask("/by-header", fault_header("delay-request", 5) + fault_header("delay-request-percentage", 0)),
    *(ask("/by-header", fault_header("throughput-response", value)) for value in (5000, 0, "x")),
    ask("/by-header", fault_header("throughput-response", 5000) + fault_header("throughput-response-percentage", 0)),
    *(ask(path, STATUS[0] + fault_header("abort-request-percentage", value))
      for path in ("/by-header", "/half-header", "/share-header", "/runtime-header") for value in (0, 100, "x")
      if (path, value) not in (("/half-header", 100), ("/half-header", "x"))),
    ask("/runtime-header", STATUS[0]),
    ask("/named", b"x-cluster: up\r\n"), ask("/named", b"x-cluster: other\r\n"), ask("/named"),
    ask("/headers", b"x-a: 1\r\n"), ask("/headers", b"x-a: 1\r\nx-b: 2\r\n"),
    *(ask("/nodes", b"x-envoy-downstream-service-node: " + node + b"\r\n") for node in (b"n1", b"n3")),
    *(ask("/cluster", b"x-envoy-downstream-service-cluster: " + name + b"\r\n") for name in (b"shop", b"slow", b"none")),
    ask("/share-header", GRPC), ask("/bad-request"),
    ask("/abort", method=b"HEAD"),
    ask("/", b"x-own: 1\r\n"), ask("/off", b"x-own: 1\r\n"), ask("/", b"x-own: 1\r\n", host=b"nobody"),
    ask("/abort", host=b"nobody"),
    ask("/delay", b"content-length: 5\r\n", method=b"POST", more=b"hello"),
    ask("/abort", b"content-length: 5\r\n", method=b"POST"),
    ask("/rate", b"x-is: long\r\n", answers=((FIVE_KIB,),)),
    ask("/rate", b"x-is: chunked\r\n", answers=((CHUNKS,),)),
    ask("/rate", b"x-is: empty\r\n", answers=((EMPTY,),)),
    ask("/rate", method=b"HEAD"),
]  # fmt: skip
