"""Answers made here, rewritten by ``local_reply_config``: of the router, of filters, of the connection manager and its codec."""

from __future__ import annotations

from tests.conformance.exchanges.filter_configurations import ALWAYS, EXTENSION, ROUTER_FILTER, UP, http_filter
from tests.support.bootstrap import LOG_FIELDS, Data, bootstrap, cluster, file_log, hcm, port, route, vhost
from tests.support.exchange import Exchange
from tests.support.upstream import Close, Hang


def added(key: str, value: str, action: str = "", **more: object) -> Data:
    entry: Data = {"header": {"key": key, "value": value}, **more}
    return {**entry, "append_action": action} if action else entry


def asked(number: str) -> Data:
    return {"header_filter": {"header": {"name": "x-m", "string_match": {"exact": number}}}}


def text(value: str, **more: object) -> Data:
    return {"text_format_source": {"inline_string": value}, **more}


MAPPERS: dict[str, Data] = {
    "status": {"status_code": 418},
    "status same": {"status_code": 404},
    "body": {"body": {"inline_string": "mapped body"}},
    "empty body": {"body": {"inline_string": ""}},
    "format": {"body_format_override": text("<%LOCAL_REPLY_BODY%|%RESPONSE_CODE%|%RESP(:STATUS)%>")},
    "old format": {"body_format_override": {"text_format": "old %LOCAL_REPLY_BODY%\n", "content_type": "text/html"}},
    "empty format": {"body_format_override": text("%REQ(x-none)%", omit_empty_values=True)},
    "all": {
        "status_code": 299,
        "body": {"inline_string": "all"},
        "body_format_override": text("[%LOCAL_REPLY_BODY% %RESPONSE_CODE% %RESP(x-new)%]", content_type="text/x-all"),
        "headers_to_add": [added("x-new", "new"), added("x-new", "newer")],
    },
    "json": {
        "body_format_override": {
            "json_format": {
                "b": "%LOCAL_REPLY_BODY%",
                "a": "%RESPONSE_CODE%",
                "path": "%REQ(:path)%",
                "no": "%REQ(x-none)%",
            }
        }
    },
    "json sparse": {
        "body_format_override": {
            "json_format": {"body": "<%LOCAL_REPLY_BODY%>", "no": "%REQ(x-none)%", "none": {"a": "%REQ(x-none)%"}},
            "omit_empty_values": True,
            "json_format_options": {"sort_properties": True},
            "content_type": "application/problem+json",
        }
    },
    "content type": {"headers_to_add": [added("content-type", "text/x-own", "OVERWRITE_IF_EXISTS_OR_ADD")]},
    "content type, body": {
        "body": {"inline_string": "other"},
        "headers_to_add": [added("content-type", "text/x-own", "OVERWRITE_IF_EXISTS_OR_ADD")],
    },
    "content type, joined": {
        "body": {"inline_string": "other"},
        "headers_to_add": [added("content-type", "text/x-own")],
    },
    "headers": {
        "headers_to_add": [
            added("x-route", "mapper"),
            added("x-a", "%REQ(x-m)% %RESPONSE_CODE% %RESPONSE_FLAGS% %LOCAL_REPLY_BODY%"),
            added("x-over", "mapper", "OVERWRITE_IF_EXISTS_OR_ADD"),
            added("x-absent", "mapper", "ADD_IF_ABSENT"),
            added("x-exists", "mapper", "OVERWRITE_IF_EXISTS"),
            added("x-empty", ""),
            added("x-kept", "", keep_empty_value=True),
            added("x-see", "%RESP(x-route)% %RESP(:status)% %RESP(content-length)%"),
        ],
        "status_code": 217,
    },
    "grpc status": {"headers_to_add": [added("grpc-status", "5"), added("content-length", "77")]},
    "no content": {"status_code": 204},
    "not modified": {"status_code": 304},
    "operators": {
        "body_format_override": text(
            "%REQ(:method)% %REQ(host)% %PROTOCOL% %RESPONSE_CODE_DETAILS% %RESPONSE_FLAGS_LONG% %UPSTREAM_CLUSTER% %ROUTE_NAME%"
            " %UPSTREAM_HOST% %BYTES_RECEIVED% %BYTES_SENT% %REQ(x-none?x-m):3% %RESP(x-route)% %TRAILER(x)%"
            " %DYNAMIC_METADATA(a)% %GRPC_STATUS% %CONNECTION_TERMINATION_DETAILS% 100%%\n"
        )
    },
    "close": {"headers_to_add": [added("connection", "close")]},
}


def mapping() -> Data:
    mappers = [{"filter": asked(name), **what} for name, what in MAPPERS.items()]
    own = [added("x-route", "route"), added("x-over", "route"), added("x-absent", "route"), added("x-exists", "route")]
    routes = [
        {"match": {"prefix": "/direct"}, "name": "direct", "response_headers_to_add": own,
         "direct_response": {"status": 200, "body": {"inline_string": "direct"}}},
        {"match": {"prefix": "/typed"}, "direct_response": {"status": 200, "body": {"inline_string": "direct"}},
         "response_headers_to_add": [added("content-type", "text/x-tea", "OVERWRITE_IF_EXISTS_OR_ADD")]},
        {"match": {"prefix": "/empty"}, "name": "empty", "direct_response": {"status": 404}},
        {"match": {"prefix": "/redirect"}, "redirect": {"path_redirect": "/new"},
         "response_headers_to_add": [*own, added("x-code", "%RESPONSE_CODE%")]},
        route("/refused", "refused", response_headers_to_add=own, name="refused"),
        route("/nobody", "nobody"),
        route("/timeout", action={"timeout": "0.1s"}),
        route("/"),
    ]  # fmt: skip
    rules: Data = {
        "action": "DENY",
        "policies": {"no": {"permissions": [{"header": {"name": "x-deny"}}], "principals": [{"any": True}]}},
    }
    abort: Data = {"header_abort": {}, "percentage": {"numerator": 100}}
    table = {"virtual_hosts": [vhost(*routes, domains=("h",), include_attempt_count_in_response=True)]}
    clusters = [UP, cluster("refused", "refused"), cluster("nobody", load_assignment={"cluster_name": "nobody"})]
    return bootstrap(
        [
            hcm(
                table,
                http_filters=[
                    http_filter("rbac", "rbac.v3.RBAC", rules=rules),
                    http_filter("fault", "fault.v3.HTTPFault", abort=abort),
                    ROUTER_FILTER,
                ],
                local_reply_config={"mappers": mappers},
                via="1.1 here",
                request_headers_timeout="0.2s",
                access_log=file_log({**LOG_FIELDS, "body": "%LOCAL_REPLY_BODY%", "answer": "%RESP(x-route)%"}),
            )
        ],
        clusters,
    )


def formatting() -> Data:
    """Mappers by every kind of filter, in order, and a format for what none of them has."""

    def comparing(kind: str, op: str, value: int) -> Data:
        return {kind: {"comparison": {"op": op, "value": {"default_value": value, "runtime_key": "r"}}}}

    def mapper(name: str, which: Data, **more: object) -> Data:
        return {"filter": which, "headers_to_add": [added("x-mapper", name)], **more}

    mappers = [
        mapper("flag", {"response_flag_filter": {"flags": ["UF", "NR"]}}, status_code=599),
        mapper("and", {"and_filter": {"filters": [comparing("status_code_filter", "EQ", 403), asked("and")]}}),
        mapper("or", {"or_filter": {"filters": [comparing("status_code_filter", "EQ", 431), asked("or")]}}),
        mapper("grpc", {"grpc_status_filter": {"statuses": ["UNAVAILABLE"]}}),
        mapper("status", comparing("status_code_filter", "GE", 500), body={"inline_string": "five hundred"}),
        mapper("duration", {"and_filter": {"filters": [asked("duration"), comparing("duration_filter", "LE", 100000)]}}),
        mapper("health", {"and_filter": {"filters": [asked("health"), {"not_health_check_filter": {}}]}}),
        mapper("trace", {"traceable_filter": {}}),
        mapper("runtime", {"and_filter": {"filters": [
            asked("runtime"), {"runtime_filter": {"runtime_key": "k", "percent_sampled": {"numerator": 100}}}]}}),
        mapper("second", comparing("status_code_filter", "EQ", 400), status_code=200),
    ]  # fmt: skip
    routes = [
        {"match": {"prefix": "/direct"}, "direct_response": {"status": 200, "body": {"inline_string": "direct"}}},
        route("/refused", "refused"),
        route("/nobody", "nobody"),
        route("/timeout", action={"timeout": "0.1s"}),
        route("/"),
    ]
    rules: Data = {
        "action": "DENY",
        "policies": {"no": {"permissions": [{"header": {"name": "x-deny"}}], "principals": [{"any": True}]}},
    }
    body_format = {
        "json_format": {"body": "%LOCAL_REPLY_BODY%", "code": "%RESPONSE_CODE%", "flags": "%RESPONSE_FLAGS%"}
    }
    return bootstrap(
        [
            hcm(
                {"virtual_hosts": [vhost(*routes, domains=("h",))]},
                http_filters=[http_filter("rbac", "rbac.v3.RBAC", rules=rules), ROUTER_FILTER],
                local_reply_config={"mappers": mappers, "body_format": body_format},
                proxy_status_config={"use_node_id": True},
                max_request_headers_kb=8,
            )
        ],
        [UP, cluster("refused", "refused"), cluster("nobody", load_assignment={"cluster_name": "nobody"})],
        node={"id": "the-node", "cluster": "the-cluster"},
    )


def telling() -> Data:
    """The Proxy-Status header: a listener for each way to say it, with every failure that has a flag of its own here."""
    slow: Data = {"retry_policy": {"retry_on": "5xx", "num_retries": 1, "retry_back_off": {"base_interval": "0.001s"}}}
    limit = {"@type": EXTENSION + "local_ratelimit.v3.LocalRateLimit", "stat_prefix": "limit",
             "token_bucket": {"max_tokens": 1, "fill_interval": "3600s"},
             "filter_enabled": ALWAYS, "filter_enforced": ALWAYS}  # fmt: skip
    routes = [
        route("/refused", "refused"), route("/nobody", "nobody"), route("/unknown", "unknown"),
        route("/timeout", action={"timeout": "0.1s"}), route("/idle", action={"timeout": "0s", "idle_timeout": "0.1s"}),
        route("/retried", action=slow), route("/limited", typed_per_filter_config={"limit": limit}),
        route("/long", action={"timeout": "0s"}),
        {"match": {"prefix": "/direct"}, "direct_response": {"status": 503, "body": {"inline_string": "direct"}}},
        route("/"),
    ]  # fmt: skip
    abort: Data = {"header_abort": {}, "percentage": {"numerator": 100}}
    ways: dict[str, Data] = {
        "main": {},
        "literal": {"literal_proxy_name": 'a "proxy"', "set_recommended_response_code": True},
        "flagless": {"remove_response_flags": True, "use_node_id": False},
        "bare": {"remove_details": True, "use_node_id": True},
        "plain": {"remove_connection_termination_details": True, "use_node_id": True},
    }

    def manager(way: Data) -> Data:
        table = {"validate_clusters": False, "virtual_hosts": [vhost(*routes, domains=("h",))]}
        filters = [
            http_filter("limit", "local_ratelimit.v3.LocalRateLimit", stat_prefix="none"),
            http_filter("fault", "fault.v3.HTTPFault", abort=abort),
            ROUTER_FILTER,
        ]
        own = {"server_name": "the server", "via": "1.1 here", "proxy_status_config": way}
        return hcm(table, http_filters=filters, common_http_protocol_options={"max_stream_duration": "0.4s"}, **own)

    more = [
        {"name": name, "address": port(name), "filter_chains": [{"filters": [manager(way)]}]}
        for name, way in ways.items() if name != "main"
    ]  # fmt: skip
    clusters = [UP, cluster("refused", "refused"), cluster("nobody", load_assignment={"cluster_name": "nobody"})]
    return bootstrap([manager({})], clusters, more_listeners=more, node={"id": "the-node", "cluster": "c"})


CONFIGURATIONS = {"local_replies": mapping(), "local_reply_filters": formatting(), "proxy_status": telling()}
GRPC = b"content-type: application/grpc\r\n"


def ask(
    config: str,
    path: str,
    mapper: str = "",
    lines: bytes = b"",
    method: bytes = b"GET",
    host: bytes = b"h",
    **how: object,
) -> Exchange:
    wish = b"x-m: %b\r\n" % mapper.encode() if mapper else b""
    head = b"%b %b HTTP/1.1\r\nhost: %b\r\n%b%b\r\n" % (method, path.encode(), host, wish, lines)
    shown = lines.replace(b"\r\n", b"; ").decode("latin-1")[:40]
    title = f"{config}: {method.decode()} {host.decode()}{path} {mapper} {shown}".rstrip(" ;")
    return Exchange(title, (head,), config=config, **how)  # type: ignore[arg-type]


def status(path: str, lines: bytes = b"", listener: str = "main", **how: object) -> Exchange:
    host = b"nobody" if path == "/no-route" else b"h"
    head = b"GET %b HTTP/1.1\r\nhost: %b\r\n%b\r\n" % (path.encode(), host, lines)
    title = f"proxy_status: {listener} {path} {lines.decode()[:20].strip()}".rstrip()
    return Exchange(title, (head,), config="proxy_status", listener=listener, **how)  # type: ignore[arg-type]


NEVER = ((Hang(),),)
TOLD = b'HTTP/1.1 503 No\r\nproxy-status: theirs; error="x"\r\nvia: theirs\r\ncontent-length: 2\r\n\r\nno'
UNTIMED = ("downstream", "log", "stats")
WAYS = ("main", "literal", "flagless", "bare", "plain")
OWN = b"HTTP/1.1 503 No\r\nx-route: theirs\r\ncontent-length: 2\r\n\r\nno"
EXCHANGES = [
    *(ask("local_replies", path, mapper) for path in ("/direct", "/empty", "/refused") for mapper in ("", *MAPPERS)),
    *(ask("local_replies", path, mapper)
      for path in ("/typed", "/redirect", "/nobody") for mapper in ("", "all", "headers", "content type, body", "format")),
    *(ask("local_replies", path, mapper, GRPC)
      for path in ("/direct", "/refused") for mapper in ("", "all", "headers", "json", "grpc status", "status", "empty body")),
    *(ask("local_replies", path, mapper, method=b"HEAD")
      for path in ("/direct", "/refused") for mapper in ("", "all", "headers", "json", "empty body")),
    *(ask("local_replies", "/", mapper, b"x-deny: 1\r\n") for mapper in ("", "all", "headers", "json")),
    *(ask("local_replies", path, lines=b"x-deny: 1\r\n") for path in ("/direct", "/redirect", "/refused")),
    *(ask("local_replies", "/", mapper, b"x-envoy-fault-abort-request: 507\r\n") for mapper in ("", "all", "json")),
    *(ask("local_replies", "/", mapper, host=b"nobody") for mapper in ("", "all", "headers", "json", "operators")),
    ask("local_replies", "/timeout", "operators", answers=((Hang(),),)),
    ask("local_replies", "/", "all", answers=((OWN,),)),
    ask("local_replies", "/", "all", b"upgrade: websocket\r\nconnection: upgrade\r\n"),
    ask("local_replies", "http://h/direct#x", "all"),
    Exchange("local_replies: no host", (b"GET / HTTP/1.1\r\nx-m: all\r\n\r\n",), config="local_replies"),
    Exchange("local_replies: no request", (b"GET / HTTP/1.1\r\nx-m: all\r\nbad header\r\n\r\n",), config="local_replies"),
    Exchange("local_replies: half a head", (b"GET / HTTP/1.1\r\nx-m: all\r\n",), config="local_replies"),
    Exchange("local_replies: http/1.0", (b"GET / HTTP/1.0\r\nx-m: all\r\n\r\n",), config="local_replies"),
    *(ask("local_reply_filters", path, mapper)
      for path in ("/direct", "/refused", "/nobody")
      for mapper in ("", "and", "or", "duration", "health", "runtime")),
    *(ask("local_reply_filters", path, "", GRPC) for path in ("/direct", "/refused", "/nobody")),
    *(ask("local_reply_filters", "/", mapper, b"x-deny: 1\r\n") for mapper in ("", "and", "or")),
    ask("local_reply_filters", "/", host=b"nobody"),
    ask("local_reply_filters", "/direct", method=b"HEAD"),
    ask("local_reply_filters", "/timeout", answers=((Hang(),),)),
    ask("local_reply_filters", "/direct", lines=b"x-long: " + b"l" * 9000 + b"\r\n"),
    Exchange("local_reply_filters: bad", (b"GET / HTTP/1.1\r\nbad header\r\n\r\n",), config="local_reply_filters"),
    Exchange("local_reply_filters: no host", (b"GET / HTTP/1.1\r\n\r\n",), config="local_reply_filters"),
    *(status(path, listener=way) for path in ("/no-route", "/refused", "/nobody") for way in WAYS),
    *(status(path, listener=way)
      for path in ("/unknown", "/limited", "/direct", "/direct#x") for way in ("main", "literal")),
    *(status(path, answers=NEVER, listener=way)
      for path in ("/timeout", "/idle", "/long") for way in ("main", "literal")),
    status("/limited", GRPC), status("/limited", b"x: 1\r\n"),
    *(status("/", b"x-envoy-fault-abort-request: 418\r\n", way) for way in ("main", "literal")),
    *(status("/closed", answers=((Close(),),), listener=way) for way in ("main", "literal")),
    *(status("/bad", answers=((b"nonsense\r\n\r\n",),), listener=way) for way in ("main", "literal", "plain")),
    *(status("/retried", answers=((TOLD,), (TOLD,)), listener=way, compare=UNTIMED) for way in ("main", "literal")),
    status("/told", answers=((TOLD,),)), status("/refused", GRPC, "literal"),
    Exchange("proxy_status: bad", (b"GET / HTTP/1.1\r\nbad header\r\n\r\n",), config="proxy_status"),
]  # fmt: skip
