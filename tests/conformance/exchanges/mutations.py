"""The header_mutation filter beyond adding and removing: queries, trailers, removal by a match."""

from __future__ import annotations

from tests.conformance.exchanges.filter_configurations import EXTENSION, ROUTER_FILTER, UP, http_filter, on
from tests.support.bootstrap import TYPE, Data, bootstrap, hcm, route, vhost
from tests.support.exchange import Exchange

NAME = "m"
OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
TRAILERS = {OPTIONS: {
    "@type": TYPE + OPTIONS, "explicit_http_config": {"http_protocol_options": {"enable_trailers": True}}}}  # fmt: skip
ACTIONS = ("APPEND_IF_EXISTS_OR_ADD", "ADD_IF_ABSENT", "OVERWRITE_IF_EXISTS_OR_ADD", "OVERWRITE_IF_EXISTS")


def mutating(prefix: str, **mutations: object) -> Data:
    return on(NAME, prefix, {"@type": EXTENSION + "header_mutation.v3.HeaderMutationPerRoute", "mutations": mutations})


def parameter(key: str, value: str, action: str = "") -> Data:
    return {"append": {"record": {"key": key, "value": value}, **({"action": action} if action else {})}}


def header(key: str, value: str, action: str = "APPEND_IF_EXISTS_OR_ADD") -> Data:
    return {"append": {"header": {"key": key, "value": value}, "append_action": action}}


def matching(**matcher: object) -> Data:
    return {"remove_on_match": {"key_matcher": matcher}}


def configuration() -> Data:
    routes = [
        *(mutating(f"/q{number}", query_parameter_mutations=[parameter("a", "v", action)])
          for number, action in enumerate(("", *ACTIONS))),
        mutating("/remove", query_parameter_mutations=[{"remove": "a"}]),
        mutating("/format", query_parameter_mutations=[parameter("a", "%REQ(x-in)% %REQ(x-none)%|%PROTOCOL%|%%/?#+é")]),
        mutating("/none", query_parameter_mutations=[parameter("a", "%REQ(x-none)%"), parameter("b", "")]),
        mutating("/sequence", request_mutations=[header("x-path", "%PATH%")], query_parameter_mutations=[
            parameter("a", "1"), {"remove": "b"}, parameter("b", "2"), parameter("a", "3", "OVERWRITE_IF_EXISTS")]),
        mutating("/match", request_mutations=[matching(prefix="x-a"), header("x-a3", "new")],
                 response_mutations=[matching(safe_regex={"regex": "x-r.*"})]),
        mutating("/fold", request_mutations=[matching(contains="X-A", ignore_case=True)]),
        mutating("/exact", request_mutations=[matching(exact="X-A1")]),
        mutating("/raw", request_mutations=[
            {"append": {"header": {"key": "x-raw", "raw_value": "YQ=="}}},
            {"append": {"header": {"key": "x-both", "value": "v", "raw_value": "YQ=="}}}]),
        mutating("/trailers",
                 request_trailers_mutations=[header("x-t", "t%REQ(x-in)%"), {"remove": "x-gone"},
                                             header("x-over", "o", "OVERWRITE_IF_EXISTS_OR_ADD")],
                 response_trailers_mutations=[header("x-rt", "%TRAILER(x-orig)% %REQ(x-in)% %RESP(x-k)%"),
                                              {"remove": "x-gone"}, matching(prefix="x-pre")]),
        route("/"),
    ]  # fmt: skip
    own = {
        "query_parameter_mutations": [parameter("own", "1")],
        "response_trailers_mutations": [header("x-own", "own")],
    }
    filters = [http_filter(NAME, "header_mutation.v3.HeaderMutation", mutations=own), ROUTER_FILTER]
    manager = hcm(
        {"virtual_hosts": [vhost(*routes)]}, http_filters=filters, http_protocol_options={"enable_trailers": True}
    )
    return bootstrap([manager], [{**UP, "typed_extension_protocol_options": TRAILERS}])


CONFIGURATIONS = {"mutations": configuration()}


def ask(path: str, lines: bytes = b"", **how: object) -> Exchange:
    head = b"GET %b HTTP/1.1\r\nhost: h\r\n%b\r\n" % (path.encode(), lines)
    return Exchange(f"mutations: {path}", (head,), config="mutations", **how)  # type: ignore[arg-type]


def post(name: str, path: bytes, end: bytes) -> Exchange:
    head = b"POST %b HTTP/1.1\r\nhost: h\r\nx-in: in\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n%b\r\n"
    return Exchange(f"mutations: {name}", (head % (path, end),), config="mutations", answers=((ANSWER,),))


ANSWER = (
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx-r1: a\r\nX-R2: b\r\nx-k: k\r\n\r\n2\r\nok\r\n0\r\n"
    b"x-gone: g\r\nx-orig: orig\r\nx-pre: 1\r\nx-prefix: 2\r\n\r\n"
)
END = b"x-gone: g\r\nx-over: 1\r\nx-keep: k\r\n"
QUERIES = ("", "?a=1", "?a=1&a=2&b=3", "?b=x&a", "?", "?c=1&&b=2&a=x+z", "?A=1")
EXCHANGES = [
    *(ask(f"/q{number}{query}") for number in range(5) for query in QUERIES),
    *(ask(path + query) for path in ("/remove", "/sequence") for query in QUERIES),
    *(ask(path + query, b"x-in: i n&\r\n") for path in ("/format", "/none") for query in ("", "?a=0&x+y=2")),
    ask("/q1?b=%20x"),
    *(ask(path, b"x-a1: 1\r\nX-A2: 2\r\nx-b: b\r\n", answers=((ANSWER,),)) for path in ("/match", "/fold", "/exact")),
    ask("/raw"),
    post("trailers", b"/trailers", END), post("no trailers", b"/trailers", b""), post("other trailers", b"/", END),
]  # fmt: skip
