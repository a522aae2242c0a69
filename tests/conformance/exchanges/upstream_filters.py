"""Filters between the router and an endpoint: what an attempt is sent, what comes back, and what retries make of it."""

from __future__ import annotations

from tests.support.bootstrap import ROUTER, TYPE, Data, bootstrap, cluster, hcm, route, vhost
from tests.support.exchange import Exchange
from tests.support.upstream import Answer

MUTATION = TYPE + "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"
PER_ROUTE = TYPE + "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute"
OFF = {"@type": TYPE + "envoy.config.route.v3.FilterConfig", "disabled": True}
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def append(key: str, value: str, action: str = "APPEND_IF_EXISTS_OR_ADD") -> Data:
    return {"append": {"header": {"key": key, "value": value}, "append_action": action}}


def mutation(name: str, **mutations: list[Data]) -> Data:
    return {"name": name, "typed_config": {"@type": MUTATION, "mutations": mutations}}


def configuration() -> Data:
    """Two upstream filters, and routes that change what they do."""
    filters = [
        mutation(
            "first",
            request_mutations=[append("x-first", "%REQ(:PATH)%"), append("x-attempts", "%REQ(x-envoy-attempt-count)%"),
                               {"remove": "x-secret"}],
            response_mutations=[append("x-order", "first"), {"remove": "x-internal"}],
        ),
        mutation(
            "second",
            request_mutations=[append("x-second", "%REQ(x-first)%")],
            response_mutations=[append("x-order", "second"), append("x-code", "%RESPONSE_CODE%"),
                                append("x-marked", "%RESP(x-mark)%")],
        ),
        {
            "name": "envoy.filters.http.upstream_codec",
            "typed_config": {"@type": TYPE + "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"},
        },
    ]  # fmt: skip
    retried = {"retry_on": "retriable-headers,5xx", "num_retries": 2, "retry_back_off": {"base_interval": "0.001s"},
               "retriable_headers": [{"name": "x-marked", "string_match": {"exact": "again"}}]}  # fmt: skip
    more = {"@type": PER_ROUTE, "mutations": {"request_mutations": [append("x-route", "yes")],
                                              "response_mutations": [append("x-order", "route")]}}  # fmt: skip
    routes = [
        route("/retry", "up", action={"retry_policy": retried, "timeout": "0s"}),
        route("/off", "up", typed_per_filter_config={"first": OFF}),
        route("/more", "up", typed_per_filter_config={"second": more}),
        {"match": {"prefix": "/direct"}, "direct_response": {"status": 200}},
        route("/rewritten", "up", action={"prefix_rewrite": "/new", "host_rewrite_literal": "other"}),
        route("/", "up"),
    ]
    router = {"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER, "upstream_http_filters": filters}}
    hosts = [vhost(*routes, include_request_attempt_count=True)]
    return bootstrap([hcm({"virtual_hosts": hosts}, http_filters=[router])], [cluster("up", "up")])


CONFIGURATIONS = {"upstream_filters": configuration()}


def ask(
    name: str, path: str, *answers: bytes, lines: bytes = b"", method: bytes = b"GET", body: bytes = b""
) -> Exchange:
    head = method + b" " + path.encode() + b" HTTP/1.1\r\nhost: h\r\n" + lines + b"\r\n"
    scripted: tuple[Answer, ...] = tuple((each,) for each in answers)
    return Exchange(f"upstream filters: {name}", (head + body,), scripted, config="upstream_filters")


def answer(code: int, lines: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d Odd\r\n%bcontent-length: 0\r\n\r\n" % (code, lines)


EXCHANGES = [
    ask("there and back", "/a", OK, lines=b"x-secret: 1\r\nx-first: mine\r\n"),
    ask("a response's headers", "/a", answer(200, b"x-internal: 1\r\nx-order: up\r\n")),
    ask("an error", "/a", answer(503)),
    ask("a request with a body", "/a", OK, method=b"POST", lines=b"content-length: 3\r\n", body=b"abc"),
    ask("HEAD", "/a", answer(200), method=b"HEAD"),
    ask("retried", "/retry", answer(500), OK),
    ask("retried twice", "/retry", answer(500), answer(503), OK),
    ask("retried by what a filter has added", "/retry", answer(200, b"x-mark: again\r\n"), OK),
    ask("retries that end", "/retry", answer(500), answer(500), answer(500)),
    ask("one is off", "/off", OK),
    ask("more on a route", "/more", OK),
    ask("an answer of the proxy's own", "/direct"),
    ask("a rewritten path", "/rewritten/x", OK),
]
