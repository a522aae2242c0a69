"""Local rate limits: buckets, descriptors, what is said about them, what is counted. No bucket fills while an exchange lasts."""

from __future__ import annotations

from tests.conformance.exchanges.filter_configurations import (
    ALWAYS,
    EXTENSION,
    NEVER,
    OFF,
    ROUTER_FILTER,
    UP,
    http_filter,
    on,
)
from tests.support.bootstrap import Data, bootstrap, hcm, route, vhost
from tests.support.exchange import Exchange, ReadResponses

NAME = "limit"
TYPE = EXTENSION + "local_ratelimit.v3.LocalRateLimit"
ON = {"filter_enabled": ALWAYS, "filter_enforced": ALWAYS}


def bucket(tokens: int, interval: str = "3600s", **more: object) -> Data:
    return {"max_tokens": tokens, "fill_interval": interval, **more}


def limit(prefix: str, tokens: int, **fields: object) -> Data:
    """A LocalRateLimit; ``on`` on a route it needs nothing more."""
    return {"@type": TYPE, "stat_prefix": prefix, "token_bucket": bucket(tokens), **ON, **fields}


def described(tokens: int, *entries: tuple[str, str]) -> Data:
    return {"entries": [{"key": key, "value": value} for key, value in entries], "token_bucket": bucket(tokens)}


def actions(*each: Data, **more: object) -> Data:
    return {"actions": list(each), **more}


def header(key: str, value: str) -> Data:
    return {"header": {"key": key, "value": value}}


HEADER = {"request_headers": {"header_name": "x-user", "descriptor_key": "user"}}
PATH = {"request_headers": {"header_name": ":path", "descriptor_key": "path"}}
SKIPPED = {"request_headers": {"header_name": "x-none", "descriptor_key": "none", "skip_if_absent": True}}
QUERY = {"query_parameters": {"query_parameter_name": "q", "descriptor_key": "query"}}
GENERIC = {"generic_key": {"descriptor_value": "v"}}
KEYED = {"generic_key": {"descriptor_key": "k", "descriptor_value": "v"}}
MATCH = {
    "header_value_match": {
        "descriptor_value": "m",
        "headers": [{"name": "x-user", "string_match": {"prefix": "a"}}, {"name": "x-two", "present_match": True}],
    }
}
NO_MATCH = {
    "header_value_match": {
        "descriptor_key": "not",
        "descriptor_value": "m",
        "expect_match": False,
        "headers": [{"name": "x-user", "string_match": {"exact": "a"}}],
    }
}
QUERY_MATCH = {
    "query_parameter_value_match": {
        "descriptor_value": "qm",
        "query_parameters": [{"name": "q", "string_match": {"exact": "a b"}}],
    }
}


def metadata(*path: str, **fields: object) -> Data:
    key = {"key": "meta", "path": [{"key": each} for each in path]}
    return {"metadata": {"descriptor_key": "meta", "metadata_key": key, **fields}}


MASKED = {"masked_remote_address": {"v4_prefix_mask_len": 8}}


def limited() -> Data:
    """Everything but descriptors, a bucket for each path."""
    both = {"response_headers_to_add": [header("x-limit", "%REQ(x-user)%"), header("x-limit", "b")]}
    host = vhost(
        on(NAME, "/one", limit("one", 1)),
        on(NAME, "/three", limit("three", 3, enable_x_ratelimit_headers="DRAFT_VERSION_03")),
        on(NAME, "/status", limit("status", 1, status={"code": "ServiceUnavailable"}, **both)),
        on(NAME, "/success", limit("success", 1, status={"code": 200})),
        on(
            NAME,
            "/shadow",
            limit(
                "shadow",
                1,
                filter_enforced=NEVER,
                request_headers_to_add_when_not_enforced=[header("x-over", "yes"), header("x-user", "%REQ(x-user)%2")],
                **both,
            ),
        ),
        on(
            NAME,
            "/unsaid",
            {"@type": TYPE, "stat_prefix": "unsaid", "token_bucket": bucket(1), "filter_enabled": ALWAYS},
        ),
        on(NAME, "/disabled", limit("disabled", 1, filter_enabled=NEVER)),
        on(NAME, "/off", OFF),
        on(
            NAME,
            "/mutate",
            limit("mutate", 1, **both),
            response_headers_to_add=[header("x-route", "route"), header("x-limit", "route")],
        ),
        on(NAME, "/grpc", limit("grpc", 1)),
        on(NAME, "/exhausted", limit("exhausted", 1, rate_limited_as_resource_exhausted=True, **both)),
        on(
            NAME,
            "/connection",
            limit("connection", 2, local_rate_limit_per_downstream_connection=True, enable_x_ratelimit_headers=1),
        ),
        on(NAME, "/another", limit("another", 5, local_rate_limit_per_downstream_connection=True)),
        {
            "match": {"prefix": "/direct"},
            "direct_response": {"status": 200},
            "typed_per_filter_config": {NAME: limit("direct", 1)},
        },
        route("/"),
        domains=("h",),
    )
    small = vhost(
        route("/"), name="small", domains=("small",), typed_per_filter_config={NAME: limit("small", 1)},
        response_headers_to_add=[header("x-host", "small")],
    )  # fmt: skip
    # The filter's own bucket is never empty: its requests only show that they are counted.
    filters = [{"name": NAME, "typed_config": limit("own", 1000)}, ROUTER_FILTER]
    return bootstrap([hcm({"virtual_hosts": [host, small]}, http_filters=filters)], [UP])


ENTRIES = {
    "header": ([HEADER], [("user", "a")]),
    "path": ([PATH], [("path", "/path?a")]),
    "skipped": ([SKIPPED, HEADER], [("user", "a")]),
    "only-skipped": ([SKIPPED], [("none", "a")]),
    "query": ([QUERY], [("query", "a%20b")]),
    "decoded": ([QUERY], [("query", "a b")]),
    "generic": ([GENERIC], [("generic_key", "v")]),
    "keyed": ([KEYED, HEADER], [("k", "v"), ("user", "a")]),
    "format": ([{"generic_key": {"descriptor_value": "%REQ(x-user)%"}}], [("generic_key", "a")]),
    "literal": ([{"generic_key": {"descriptor_value": "%REQ(x-user)%"}}], [("generic_key", "%REQ(x-user)%")]),
    "match-format": (
        [{"header_value_match": {"descriptor_value": "%REQ(x-user)%", "headers": [{"name": "x-two"}]}}],
        [("header_match", "a")],
    ),
    "order": ([HEADER, KEYED], [("k", "v"), ("user", "a")]),
    "match": ([MATCH], [("header_match", "m")]),
    "no-match": ([NO_MATCH], [("not", "m")]),
    "query-match": ([QUERY_MATCH], [("query_match", "qm")]),
    "remote": ([{"remote_address": {}}], [("remote_address", "127.0.0.1")]),
    "metadata": ([metadata("text")], [("meta", "told")]),
    "metadata-number": ([metadata("number")], [("meta", "1")]),
    "metadata-deep": ([metadata("in", "side")], [("meta", "deep")]),
    "metadata-default": ([metadata("number", default_value="d")], [("meta", "d")]),
    "metadata-skipped": ([metadata("none", skip_if_absent=True), HEADER], [("user", "a")]),
    "metadata-missing": ([metadata("none"), HEADER], [("user", "a")]),
    "masked": ([MASKED], [("masked_remote_address", "127.0.0.0/8")]),
    "source": ([{"source_cluster": {}}], [("source_cluster", "here")]),
    "destination": ([{"destination_cluster": {}}], [("destination_cluster", "up")]),
}
"""Path → what describes its requests, and the entries that have one token; everything else has plenty."""


def descriptors() -> Data:
    """A descriptor for each path, by ``rate_limits`` of the filter's configuration there."""
    plenty = {**limit("plenty", 1000)}
    routes = []
    for path, (rules, entries) in ENTRIES.items():
        own = {**plenty, "stat_prefix": path, "descriptors": [described(1, *entries)], "rate_limits": [actions(*rules)]}
        routes.append(on(NAME, "/" + path, own))
    rate_limits = [actions(HEADER)]
    two = [described(2, ("user", "a")), described(1, ("k", "v"))]
    shown = {"enable_x_ratelimit_headers": "DRAFT_VERSION_03"}

    def own(prefix: str, tokens: int, rules: list[Data], **fields: object) -> Data:
        return on(NAME, "/own-" + prefix, limit(prefix, tokens, descriptors=two, rate_limits=rules, **shown, **fields))

    routes += [
        own("default", 1, [actions(HEADER)]),
        own("only", 1, [actions(HEADER)], always_consume_default_token_bucket=False),
        own("two", 1000, [actions(HEADER), actions(KEYED)]),
        own("hits", 1000, [actions(HEADER, hits_addend={"number": 2})]),
        own("many-hits", 1000, [actions(HEADER, hits_addend={"number": 3})]),
        own("no-hits", 1000, [actions(HEADER, hits_addend={"number": 0})]),
        own("format-hits", 1000, [actions(HEADER, hits_addend={"format": "%REQ(x-hits)%"})]),
        own("at-the-end", 1000, [actions(HEADER, apply_on_stream_done=True)]),
        on(
            NAME,
            "/service",
            limit("service", 1000, descriptors=two),
            action={
                "rate_limits": [
                    actions(
                        HEADER,
                        apply_on_stream_done=True,
                        hits_addend={"format": "%BYTES_RECEIVED%"},
                        limit={"dynamic_metadata": {"metadata_key": {"key": "meta", "path": [{"key": "in"}]}}},
                    )
                ]
            },
        ),
        on(NAME, "/route", limit("route", 1000, descriptors=two), action={"rate_limits": rate_limits}),
        on(
            NAME,
            "/hits-route",
            limit("hits-route", 1000, descriptors=two),
            action={"rate_limits": [actions(HEADER, hits_addend={"number": 2})]},
        ),
        on(
            NAME,
            "/stage",
            limit("stage", 1000, descriptors=two, stage=1),
            action={"rate_limits": [actions(KEYED), actions(HEADER, stage=1)]},
        ),
        on(
            NAME,
            "/key",
            limit("key", 1000, descriptors=two),
            action={"rate_limits": [actions(HEADER, disable_key="x")]},
        ),
        on(NAME, "/host", limit("host", 1000, descriptors=two)),
        on(NAME, "/override", limit("override", 1000, descriptors=two), action={"rate_limits": rate_limits}),
        on(
            NAME,
            "/include",
            limit("include", 1000, descriptors=two, vh_rate_limits="INCLUDE"),
            action={"rate_limits": rate_limits},
        ),
        on(
            NAME,
            "/said",
            limit("said", 1000, descriptors=two),
            action={"rate_limits": rate_limits, "include_vh_rate_limits": True},
        ),
        on(NAME, "/ignore", limit("ignore", 1000, descriptors=two, vh_rate_limits="IGNORE")),
        on(
            NAME,
            "/both",
            limit("both", 1000, descriptors=two, rate_limits=[actions(HEADER)]),
            action={"rate_limits": [actions(KEYED)]},
        ),
        on(
            NAME,
            "/connection",
            limit("connection", 1000, descriptors=two, local_rate_limit_per_downstream_connection=True, **shown),
            action={"rate_limits": rate_limits},
        ),
        on(
            NAME,
            "/unbound",
            limit("unbound", 1000, descriptors=two, rate_limits=[actions(HEADER)]),
        ),
        route("/plain"),
    ]
    host = vhost(*routes, rate_limits=[actions(KEYED)])
    bare = {"@type": TYPE, "stat_prefix": "bare", **ON, "descriptors": two, "rate_limits": [actions(HEADER)], **shown}
    told = {"metadata_namespace": "meta", "value": {"text": "told", "number": 1, "in": {"side": "deep"}}}
    filters = [
        http_filter("set", "set_metadata.v3.Config", metadata=[told]),
        {"name": NAME, "typed_config": bare},
        ROUTER_FILTER,
    ]
    data = bootstrap([hcm({"virtual_hosts": [host]}, http_filters=filters)], [UP])
    return {**data, "node": {"id": "here-1", "cluster": "here"}}


CONFIGURATIONS = {"limited": limited(), "descriptors": descriptors()}


def ask(
    config: str, name: str, path: bytes, count: int, *, host: bytes = b"h", lines: bytes = b"", **more: object
) -> Exchange:
    """``count`` requests, one after the other on one connection."""
    steps: list[object] = []
    for number in range(count):
        steps += [b"GET " + path + b" HTTP/1.1\r\nhost: " + host + b"\r\n" + lines + b"\r\n", ReadResponses(number + 1)]
    return Exchange(f"{config}: {name}", tuple(steps), config=config, responses=count, log_lines=count, **more)  # type: ignore[arg-type]


USER = b"x-user: a\r\n"
GRPC = b"content-type: application/grpc\r\n"

LIMITED = [
    ask("limited", name, path, count, **more)  # type: ignore[arg-type]
    for name, path, count, more in (
        ("one token", b"/one", 3, {}),
        ("HEAD", b"/one", 1, {}),
        ("three tokens, and what is left", b"/three", 4, {}),
        ("a status and headers of its own", b"/status", 2, {"lines": USER}),
        ("a status that is no error", b"/success", 2, {}),
        ("in the shadow", b"/shadow", 2, {"lines": USER}),
        ("enforced not said", b"/unsaid", 2, {}),
        ("disabled by its fraction", b"/disabled", 2, {}),
        ("off on the route", b"/off", 2, {}),
        ("the route's headers, too", b"/mutate", 2, {"lines": USER}),
        ("gRPC", b"/grpc", 2, {"lines": GRPC}),
        ("gRPC, resource exhausted", b"/exhausted", 2, {"lines": GRPC + USER}),
        ("resource exhausted, not gRPC", b"/exhausted", 1, {"lines": USER}),
        ("a connection's own", b"/connection", 3, {}),
        ("another connection's own", b"/connection", 3, {}),
        ("a direct response", b"/direct", 2, {}),
        ("the filter's own", b"/", 2, {}),
        ("the virtual host's", b"/", 2, {"host": b"small"}),
        ("no virtual host", b"/", 2, {"host": b"nobody"}),
    )
]
LIMITED.append(
    Exchange(
        "limited: a connection's buckets are those of its first request",
        (
            b"GET /connection HTTP/1.1\r\nhost: h\r\n\r\n",
            ReadResponses(1),
            b"GET /another HTTP/1.1\r\nhost: h\r\n\r\n",
            ReadResponses(2),
            b"GET /another HTTP/1.1\r\nhost: h\r\n\r\n",
        ),
        config="limited",
        responses=3,
        log_lines=3,
    )
)

TARGETS = {
    "path": b"/path?a",
    "query": b"/query?x=1&q=a%20b&q=c",
    "decoded": b"/decoded?q=a%20b",
    "query-match": b"/query-match?q=a%20b",
}
DESCRIPTORS = [
    ask("descriptors", f"{path}{', and nothing that describes' if not lines else ''}", target, 2, lines=lines)
    for path in ENTRIES
    for target in (TARGETS.get(path, b"/" + path.encode()),)
    for lines in (USER + b"x-two: 2\r\n", b"")
]
DESCRIPTORS += [
    ask("descriptors", path.decode(), b"/" + path, count, lines=USER)
    for path, count in (
        (b"own-default", 2),
        (b"own-only", 3),
        (b"own-two", 2),
        (b"own-hits", 2),
        (b"own-many-hits", 1),
        (b"own-no-hits", 3),
        (b"own-at-the-end", 3),
        (b"service", 3),
        (b"route", 3),
        (b"stage", 3),
        (b"hits-route", 2),
        (b"key", 2),
        (b"host", 2),
        (b"override", 3),
        (b"include", 2),
        (b"said", 2),
        (b"ignore", 2),
        (b"both", 3),
        (b"connection", 3),
        (b"plain", 3),
    )
]
DESCRIPTORS += [
    ask("descriptors", f"{hits.decode()} hits", b"/own-format-hits", 1, lines=USER + b"x-hits: " + hits + b"\r\n")
    for hits in (b"3", b"x", b"-1", b"0", b"1e10", b"1.9", b"0x1")
]
DESCRIPTORS.append(ask("descriptors", "another user", b"/unbound", 3, lines=b"x-user: b\r\n"))
DESCRIPTORS.append(ask("descriptors", "two users in one request", b"/unbound", 3, lines=USER + b"x-user: b\r\n"))

EXCHANGES = [*LIMITED, *DESCRIPTORS]
