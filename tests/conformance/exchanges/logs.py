"""Access logs: operators, filters, and the lines of requests, attempts, connections and listeners.

No operator here tells a time or a port that differs between two runs; where a line's bytes would differ with the digits of
x-envoy-upstream-service-time, the router adds none.
"""

from __future__ import annotations

from tests.support.bootstrap import ROUTER, TYPE, Data, bootstrap, cluster, file_log, hcm, port, route, tcp_proxy, vhost
from tests.support.exchange import Exchange, Gap, ReadResponses, ReadToEnd, ReadUntil, Reset, UpstreamHas
from tests.support.upstream import DEFAULT_ANSWER, Close, Early, Hang, Until
from tests.support.upstream import Gap as UpstreamGap
from tests.support.upstream import Reset as UpstreamReset

ECHO = TYPE + "envoy.extensions.filters.network.echo.v3.Echo"
DIRECT = TYPE + "envoy.extensions.filters.network.direct_response.v3.Config"
WITHOUT_QUERY = TYPE + "envoy.extensions.formatter.req_without_query.v3.ReqWithoutQuery"
METADATA: Data = {"filter_metadata": {"a": {"b": "text", "n": 3, "t": True, "o": {"x": [1, "2", None]}}}}

PLAIN = (
    *("ACCESS_LOG_TYPE", "RESPONSE_CODE", "RESPONSE_CODE_DETAILS", "RESPONSE_FLAGS", "RESPONSE_FLAGS_LONG"),
    *("CONNECTION_TERMINATION_DETAILS", "UPSTREAM_TRANSPORT_FAILURE_REASON", "BYTES_RECEIVED", "BYTES_SENT"),
    *(
        f"{side}_{what}_BYTES_{way}"
        for side in ("DOWNSTREAM", "UPSTREAM")
        for what in ("WIRE", "HEADER", "DECOMPRESSED_HEADER")
        for way in ("RECEIVED", "SENT")
    ),
    *("REQUEST_HEADERS_BYTES", "RESPONSE_HEADERS_BYTES", "RESPONSE_TRAILERS_BYTES", "PROTOCOL", "UPSTREAM_PROTOCOL"),
    *("UPSTREAM_HOST", "UPSTREAM_HOST_NAME", "UPSTREAM_HOST_NAME_WITHOUT_PORT", "UPSTREAM_HOSTS_ATTEMPTED"),
    *("UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT", "UPSTREAM_HOST_NAMES_ATTEMPTED", "UPSTREAM_CLUSTER"),
    *("UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT", "UPSTREAM_CLUSTER_RAW", "UPSTREAM_REQUEST_ATTEMPT_COUNT"),
    *("UPSTREAM_REMOTE_ADDRESS", "UPSTREAM_DETECTED_CLOSE_TYPE", "UPSTREAM_LOCAL_CLOSE_REASON", "ROUTE_NAME"),
    *("DOWNSTREAM_DETECTED_CLOSE_TYPE", "DOWNSTREAM_LOCAL_CLOSE_REASON", "DOWNSTREAM_LOCAL_ADDRESS", "STREAM_ID"),
    *("LISTENER_NAME", "FILTER_CHAIN_NAME", "LOCAL_REPLY_BODY", "CUSTOM_FLAGS", "GRPC_STATUS_NUMBER", "UNIQUE_ID"),
    *("DOWNSTREAM_HANDSHAKE_DURATION", "DOWNSTREAM_TLS_VERSION", "DOWNSTREAM_PEER_SUBJECT", "UPSTREAM_SERVER_NAME"),
)
WITH_PARAMETERS = (
    *(
        "REQUEST_HEADER(dup)",
        "RESPONSE_HEADER(x?server):3",
        "RESPONSE_TRAILER(tr)",
        "STREAM_INFO_REQ(:path)",
        "RESP(date):3",
    ),
    *(
        "RESP(connection)",
        "FILTER_STATE(a)",
        "FILTER_STATE(a:PLAIN):3",
        "UPSTREAM_FILTER_STATE(a:FIELD:x)",
        "PATH(NQ):4",
    ),
    *(
        "CLUSTER_METADATA(a)",
        "CLUSTER_METADATA(a:o:x)",
        "CLUSTER_METADATA(a:zz)",
        "UPSTREAM_METADATA(a:n)",
        "METADATA(ROUTE)",
    ),
    *(
        "METADATA(ROUTE:a:b):2",
        "METADATA(UPSTREAM_HOST:a:t)",
        "METADATA(LISTENER:a:b)",
        "METADATA(LISTENER_FILTER_CHAIN:a:o)",
    ),
    *("METADATA(CLUSTER:a)", "METADATA(DYNAMIC:a)", "QUERY_PARAMS(DECODED)", "QUERY_PARAMS:3", "QUERY_PARAM(b):2"),
    *('COALESCE({"operators":["ROUTE_NAME","PROTOCOL"]})', 'COALESCE({"operators":["RESPONSE_CODE"]}):2'),
    'COALESCE({"operators":[{"command":"REQ","param":"none"},{"command":"REQ","param":"dup","max_length":1}]})',
    'COALESCE({"operators":["CUSTOM_FLAGS","RESPONSE_FLAGS"]})',
    *("COMMON_DURATION(DS_RX_BEG:foo)", "RESPONSE_CODE_DETAILS(X)"),
    *("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(8)", "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(99)"),
    *("UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(16)", "REQUESTED_SERVER_NAME(HOST_FIRST:HOST)"),
)
FIELDS: Data = {name: f"%{name}%" for name in (*PLAIN, *WITH_PARAMETERS)} | {
    f"as text {name}": f"[%{name}%]" for name in WITH_PARAMETERS
}
LINES: Data = {name: f"%{name}%" for name in PLAIN} | {"path": "%REQ(:PATH)%", "status": "%RESP(:STATUS)%"}


def router(**more: object) -> list[Data]:
    return [
        {"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER, "suppress_envoy_headers": True, **more}}
    ]


def listener(called: str, /, *filters: Data, log: list[Data] | None = None, **chain: object) -> Data:
    made: Data = {"name": called, "address": port(called), "filter_chains": [{"filters": list(filters), **chain}]}
    return {**made, "access_log": log} if log is not None else made


def filtered(name: str, **log_filter: object) -> Data:
    """A log of nothing but a name, for streams that pass."""
    log = file_log(text=f"{name}\n")[0]
    return {**log, "filter": log_filter} if log_filter else log


def all_of(*parts: Data) -> Data:
    return {"filters": list(parts)}


def compared(op: str, value: int) -> Data:
    return {"comparison": {"op": op, "value": {"default_value": value, "runtime_key": "nobody.sets.this"}}}


LOG_FILTERS = [
    filtered("any"),
    filtered("ge 500", status_code_filter=compared("GE", 500)),
    filtered("le 200", status_code_filter=compared("LE", 200)),
    filtered("eq 404", status_code_filter=compared("EQ", 404)),
    filtered("ne 200", status_code_filter=compared("NE", 200)),
    filtered("long", duration_filter=compared("GE", 60_000)),
    filtered("short", duration_filter=compared("LE", 60_000)),
    filtered("not health", not_health_check_filter={}),
    filtered("traced", traceable_filter={}),
    filtered("runtime none", runtime_filter={"runtime_key": "x", "percent_sampled": {"numerator": 0}}),
    filtered("runtime half", runtime_filter={"runtime_key": "x", "percent_sampled": {"numerator": 50}}),
    filtered(
        "runtime of 10000",
        runtime_filter={"runtime_key": "x", "percent_sampled": {"numerator": 5000, "denominator": "TEN_THOUSAND"}},
    ),
    filtered("header", header_filter={"header": {"name": "x-v", "string_match": {"prefix": "a", "ignore_case": True}}}),
    filtered("flag", response_flag_filter={"flags": ["UC", "NR", "UF"]}),
    filtered("any flag", response_flag_filter={}),
    filtered("grpc", grpc_status_filter={"statuses": ["NOT_FOUND", "UNAVAILABLE"]}),
    filtered("not grpc", grpc_status_filter={"statuses": ["OK", "NOT_FOUND"], "exclude": True}),
    filtered("metadata", metadata_filter={}),
    filtered("no metadata", metadata_filter={"match_if_key_not_found": False}),
    filtered(
        "metadata value",
        metadata_filter={
            "matcher": {
                "filter": "m",
                "path": [{"key": "k"}],
                "value": {"string_match": {"exact": "v"}},
                "invert": True,
            },
            "match_if_key_not_found": False,
        },
    ),
    filtered("type", log_type_filter={"types": ["DownstreamEnd"]}),
    filtered("other type", log_type_filter={"types": ["TcpPeriodic"]}),
    filtered("not that type", log_type_filter={"types": ["TcpPeriodic"], "exclude": True}),
    filtered(
        "nested",
        or_filter=all_of(
            {"status_code_filter": compared("EQ", 404)},
            {
                "and_filter": all_of(
                    {"status_code_filter": compared("EQ", 200)}, {"header_filter": {"header": {"name": "x-v"}}}
                )
            },
        ),
    ),
]

SET_METADATA: Data = {
    "name": "envoy.filters.http.set_metadata",
    "typed_config": {
        "@type": TYPE + "envoy.extensions.filters.http.set_metadata.v3.Config",
        "metadata": [{"metadata_namespace": "m", "value": {"k": "v"}}],
    },
}
RETRIED = {"retry_policy": {"retry_on": "5xx,reset,connect-failure", "num_retries": 2,
                            "retry_back_off": {"base_interval": "0.005s"}}}  # fmt: skip


def http() -> Data:
    """Every HTTP log: of operators, of early lines, of attempts, by filters."""
    up: Data = {
        **cluster("up", "up"),
        "metadata": METADATA,
    }
    endpoint = up["load_assignment"]["endpoints"][0]["lb_endpoints"][0]
    endpoint["metadata"] = METADATA
    endpoint["endpoint"]["hostname"] = "up.example:8080"
    routes = {
        "virtual_hosts": [
            vhost(
                {"match": {"prefix": "/direct"}, "direct_response": {"status": 200, "body": {"inline_string": "hi"}}},
                {"match": {"prefix": "/missing"}, "direct_response": {"status": 404}},
                route("/retry", name="r", action=RETRIED),
                route("/refused", "refused"),
                route("/refused-again", "refused", match={"path": "/again"}, action=RETRIED),
                route("/limited", "limited"),
                route("/empty", "empty"),
                {"match": {"prefix": "/nobody"}, "route": {"cluster_header": "x-cluster"}},
                route(
                    "/try", action={"retry_policy": {"retry_on": "5xx", "num_retries": 1, "per_try_timeout": "0.2s"}}
                ),
                route("/time", action={"timeout": "0.2s"}),
                route("/only", match={"prefix": "/x"}, name="all", metadata=METADATA),
                route("/y"),
                metadata=METADATA,
            )
        ]
    }
    filters = {"http_filters": router()}
    text = (
        "%REQ(:METHOD)% %REQ_WITHOUT_QUERY(:PATH):9% %RESP(none)%|%ROUTE_NAME%|%UPSTREAM_HOST_NAME%|"
        "%CLUSTER_METADATA(a:zz)%|%%\n"
    )
    sparse: Data = {
        "typed": {"code": "%RESPONSE_CODE%", "none": "%ROUTE_NAME%", "deep": {"none": "%RESP(none)%"}, "literal": 1.5},
        "mixed": "a %RESP(none)% %PROTOCOL%",
        "list": ["%RESP(none)%", True, None, ["%RESPONSE_CODE%"], {"empty": "%ROUTE_NAME%"}],
        "metadata": "%METADATA(LISTENER:a)%",
    }
    formats = [
        {"text_format_source": {"inline_string": text}, "omit_empty_values": True},
        {"text_format": text},
        {"json_format": sparse, "omit_empty_values": True, "json_format_options": {"sort_properties": True}},
        {"json_format": sparse},
    ]
    formatters = [{"name": "envoy.formatter.req_without_query", "typed_config": {"@type": WITHOUT_QUERY}}]
    written = [file_log()[0] for _ in formats]
    for log, chosen in zip(written, formats, strict=True):
        log["typed_config"]["log_format"] = {**chosen, "formatters": formatters}
    deprecated = file_log()[0]
    deprecated["typed_config"]["format"] = "%RESPONSE_CODE% of old\n"
    typed = file_log()[0]
    typed["typed_config"]["typed_json_format"] = {"code": "%RESPONSE_CODE%", "none": "%ROUTE_NAME%"}
    attempts = {"upstream_log": file_log(LINES)}
    data = bootstrap(
        [hcm(routes, access_log=file_log(FIELDS), **filters)],
        [
            up,
            cluster("refused", "nobody"),
            {**cluster("limited", "up"), "circuit_breakers": {"thresholds": [{"max_requests": 0}]}},
            {**cluster("empty"), "load_assignment": {"cluster_name": "empty"}},
        ],
        more_listeners=[
            listener("formats", hcm(routes, access_log=[*written, deprecated, typed], **filters)),
            listener("filters", hcm(routes, access_log=LOG_FILTERS, http_filters=[SET_METADATA, *router()])),
            listener(
                "early",
                hcm(
                    routes,
                    access_log=file_log(LINES),
                    access_log_options={"flush_access_log_on_new_request": True},
                    **filters,
                ),
            ),
            listener(
                "periodic",
                hcm(
                    routes,
                    access_log=[
                        {
                            **file_log(
                                {"type": "%ACCESS_LOG_TYPE%", "code": "%RESPONSE_CODE%", "sent": "%BYTES_SENT%"}
                            )[0],
                            # How many periodic lines there are is a matter of time: of those, only that there are any.
                            "filter": {"log_type_filter": {"types": ["DownstreamStart", "DownstreamEnd"]}},
                        },
                        {
                            **file_log(text="a periodic line\n", path="periodic.log")[0],
                            "filter": {"log_type_filter": {"types": ["DownstreamPeriodic"]}},
                        },
                    ],
                    access_log_flush_interval="0.05s",
                    flush_access_log_on_new_request=True,
                    **filters,
                ),
            ),
            listener("attempts", hcm(routes, access_log=file_log(LINES), http_filters=router(**attempts))),
            listener(
                "ready",
                hcm(
                    routes,
                    access_log=[],
                    http_filters=router(
                        **attempts, upstream_log_options={"flush_upstream_log_on_upstream_stream": True}
                    ),
                ),
            ),
        ],
    )
    main = data["static_resources"]["listeners"][0]
    main["metadata"] = main["filter_chains"][0]["metadata"] = METADATA
    main["filter_chains"][0]["name"] = "chain"
    data["static_resources"]["listeners"][1]["metadata"] = METADATA
    return data


def tcp() -> Data:
    """TCP sessions, and listeners with logs of their own."""
    log = file_log(LINES)
    echo = {"name": "envoy.filters.network.echo", "typed_config": {"@type": ECHO}}
    direct = {
        "name": "envoy.filters.network.direct_response",
        "typed_config": {"@type": DIRECT, "response": {"inline_string": "hi"}},
    }
    web = hcm(
        {"virtual_hosts": [vhost(route("/"))]},
        access_log=[],
        http_filters=router(),
        common_http_protocol_options={"idle_timeout": "0.2s"},
    )
    connected = {"access_log_options": {"flush_access_log_on_connected": True}}
    only_from = {"filter_chain_match": {"source_prefix_ranges": [{"address_prefix": "10.9.9.9", "prefix_len": 32}]}}
    session = {"access_log": log}
    return bootstrap(
        [tcp_proxy("up", **session, **connected)],
        [
            cluster("up", "up"),
            cluster("refused", "nobody"),
            {**cluster("empty"), "load_assignment": {"cluster_name": "empty"}},
            {**cluster("full", "up"), "circuit_breakers": {"thresholds": [{"max_connections": 0}]}},
        ],
        more_listeners=[
            listener("tcp_refused", tcp_proxy("refused", **session, **connected, max_connect_attempts=2)),
            listener("tcp_empty", tcp_proxy("empty", **session)),
            listener("tcp_unknown", tcp_proxy("unknown", **session)),
            listener("tcp_full", tcp_proxy("full", **session)),
            listener("tcp_idle", tcp_proxy("up", **session, idle_timeout="0.2s")),
            listener("tcp_short", tcp_proxy("up", **session, max_downstream_connection_duration="0.2s")),
            listener("of_http", web, log=log),
            listener("of_tcp", tcp_proxy("up"), log=log, name="chain"),
            listener("of_echo", echo, log=log),
            listener("of_direct", direct, log=log),
            listener("of_nobody", tcp_proxy("up"), log=log, **only_from),
        ],
    )


CONFIGURATIONS: dict[str, Data] = {"logs": http(), "tcp logs": tcp()}


def get(path: bytes, *lines: bytes) -> bytes:
    head = b"GET " + path + b" HTTP/1.1\r\nhost: h.example:80\r\n"
    return head + b"".join([line + b"\r\n" for line in lines]) + b"\r\n"


def post(path: bytes, *lines: bytes) -> bytes:
    return get(path, b"content-length: 5", *lines).replace(b"GET", b"POST")


def of(name: str, *send: object, on: str = "main", lines: int = 1, **more: object) -> Exchange:
    options = {"config": "logs", "listener": on, "log_lines": lines, "compare": ("downstream", "log"), **more}
    return Exchange(f"log {on}: {name}", send, **options)  # type: ignore[arg-type]


def of_tcp(name: str, *send: object, on: str = "main", lines: int = 1, **more: object) -> Exchange:
    options = {"config": "tcp logs", "listener": on, "log_lines": lines, "compare": ("log",), "responses": 0, **more}
    return Exchange(f"log {on} of tcp: {name}", send, **options)  # type: ignore[arg-type]


BAD = (b"HTTP/1.1 503 Bad\r\ncontent-length: 3\r\n\r\nbad",)
OK = (DEFAULT_ANSWER,)
LARGE = b"x" * 1_000_000
HALF = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab"
TRAILED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx: value\r\n\r\n2\r\nok\r\n0\r\ntr: trailed\r\n\r\n"


def common(on: str, per_request: int, per_attempt: int) -> list[Exchange]:
    """Ends of every kind. So many lines for a request, and for an attempt that had a connection (one less where not)."""

    def lines(attempts: int, unconnected: int = 0) -> int:
        return per_request + per_attempt * attempts + min(per_attempt, 1) * unconnected

    def one(name: str, *send: object, attempts: int = 1, unconnected: int = 0, **more: object) -> Exchange:
        return of(name, *send, on=on, lines=lines(attempts, unconnected), **more)

    return [
        one("get", get(b"/x?a=1%20&b=cde&e", b"dup: 1", b"dup: 2")),
        one("post", post(b"/x"), UpstreamHas(b"POST"), b"hello"),
        one("chunked", get(b"/x", b"transfer-encoding: chunked").replace(b"GET", b"PUT") + b"5\r\nhello\r\n0\r\n\r\n"),
        one("trailers", get(b"/x"), answers=((TRAILED,),)),
        one("head", get(b"/x").replace(b"GET", b"HEAD")),
        one("not modified", get(b"/x"), answers=((b"HTTP/1.1 304 Not Modified\r\netag: x\r\n\r\n",),)),
        one("no content", get(b"/x"), answers=((b"HTTP/1.1 204 No Content\r\n\r\n",),)),
        one("close", get(b"/x", b"connection: close"), ReadToEnd()),
        one("grpc", post(b"/x", b"content-type: application/grpc") + b"hello"),
        one(
            "continue", post(b"/x", b"expect: 100-continue"), ReadUntil(b"100 Continue"), UpstreamHas(b"POST"), b"hello"
        ),
        one("early answer", post(b"/x"), ReadResponses(1), answers=((Early(), DEFAULT_ANSWER),)),
        one("reset", get(b"/x"), answers=((UpstreamReset(),),)),
        one("closed", get(b"/x"), answers=((Close(),),)),
        one("garbage", get(b"/x"), answers=((b"xyz\r\n\r\n",),)),
        one("reset within", get(b"/x"), ReadToEnd(), responses=0, answers=((HALF, UpstreamGap(), UpstreamReset()),)),
        one("closed within", get(b"/x"), ReadToEnd(), responses=0, answers=((HALF, UpstreamGap(), Close()),)),
        one("timeout", get(b"/time"), answers=((Hang(),),)),
        one("left", get(b"/x"), UpstreamHas(b"GET"), responses=0, quiet_s=0.0, answers=((Hang(),),)),
        one("left by reset", get(b"/x"), UpstreamHas(b"GET"), Reset(), responses=0, answers=((Hang(),),)),
        one("left within", get(b"/x"), ReadUntil(b"ab"), responses=0, quiet_s=0.0, answers=((HALF, Hang()),)),
        one("refused", get(b"/refused"), attempts=0, unconnected=1),
        one("overflow", get(b"/limited"), attempts=0, unconnected=1),
        one("retried", get(b"/retry"), attempts=3, answers=(BAD, BAD, OK)),
        one("retried in vain", get(b"/retry"), attempts=3, answers=(BAD,)),
        one("retried after a reset", get(b"/retry"), attempts=2, answers=((UpstreamReset(),), OK)),
        one("refused again", get(b"/again"), attempts=0, unconnected=3),
        one("too long a try", get(b"/try"), attempts=2, answers=((Hang(),), OK)),
    ]


def without_attempt(on: str, lines: int) -> list[Exchange]:
    return [
        of("direct", get(b"/direct"), on=on, lines=lines),
        of("no route", get(b"/other"), on=on, lines=lines),
        of("no cluster", get(b"/nobody", b"x-cluster: none"), on=on, lines=lines),
        of("no endpoint", get(b"/empty"), on=on, lines=lines),
    ]


FORMAT_LINES = 6
EXCHANGES = [
    *common("main", 1, 0),
    *without_attempt("main", 1),
    of("unparsed", b"BLA\r\n\r\n"),
    of("two on a connection", get(b"/x"), ReadResponses(1), get(b"/y?second"), responses=2, lines=2),
    of("pipelined", get(b"/x") + get(b"/y?second", b"more: lines"), responses=2, lines=2),
    of("with a body, pipelined", post(b"/x") + b"hello" + get(b"/y?second"), responses=2, lines=2),
    *common("attempts", 1, 1),
    *without_attempt("attempts", 1),
    of("large body", post(b"/x").replace(b"length: 5", b"length: 1000000") + LARGE, on="attempts", lines=2, compare=("log",)),
    of(
        "large answer", get(b"/x"), on="attempts", lines=2, compare=("log",),
        answers=((b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + LARGE,),),
    ),
    *common("ready", 0, 2),
    of("get", get(b"/x"), on="early", lines=2),
    of("post", post(b"/x"), UpstreamHas(b"POST"), b"hello", on="early", lines=2),
    of("refused", get(b"/refused"), on="early", lines=2),
    of("left", get(b"/x"), UpstreamHas(b"GET"), on="early", lines=2, responses=0, quiet_s=0.0, answers=((Hang(),),)),
    *without_attempt("early", 2),
    of("unparsed", b"BLA\r\n\r\n", on="early"),
    of("no host", b"GET / HTTP/1.1\r\n\r\n", on="early"),
    of("slow answer", get(b"/x"), on="periodic", lines=2, answers=((HALF, UpstreamGap(0.15), b"cd"),)),
    of("get", get(b"/x?query"), on="formats", lines=FORMAT_LINES),
    of("direct", get(b"/direct"), on="formats", lines=FORMAT_LINES),
    of("unparsed", b"BLA\r\n\r\n", on="formats", lines=FORMAT_LINES),
    *(
        of(f"{name}", request, on="filters", lines=10, answers=answers)
        for name, request, answers in (
            ("ok", get(b"/x", b"x-v: A", b"x-request-id: 00000031-58cc-4372-a567-0e02b2c3d479"), ()),
            ("of another half", get(b"/x", b"x-request-id: 00000032-58cc-4372-a567-0e02b2c3d479"), ()),
            ("traced", get(b"/x", b"x-v: b", b"x-request-id: 0000ffff-58cc-9372-a567-0e02b2c3d479"), ()),
            ("missing", get(b"/missing", b"x-request-id: 00000064-58cc-4372-a567-0e02b2c3d479"), ()),
            ("closed", get(b"/x", b"x-request-id: 000f4240-58cc-4372-a567-0e02b2c3d479"), ((Close(),),)),
            (
                "grpc",
                post(b"/x", b"content-type: application/grpc", b"x-request-id: 00001388-58cc-4372-a567-0e02b2c3d479")
                + b"hello",
                ((b"HTTP/1.1 200 OK\r\ngrpc-status: 14\r\ncontent-length: 0\r\n\r\n",),),
            ),
        )
    ),
    of_tcp("both ways", b"hello", ReadUntil(b"bye"), lines=2, answers=((Until(b"hello"), b"bye", Hang()),)),
    of_tcp("upstream closes", ReadUntil(b"bye"), ReadToEnd(), lines=2, answers=((b"bye", Close()),)),
    of_tcp("upstream resets", b"hello", ReadToEnd(), lines=2, answers=((Until(b"hello"), UpstreamReset()),)),
    of_tcp("reset", b"hello", UpstreamHas(b"hello"), Reset(), lines=2, answers=((Hang(),),)),
    of_tcp("refused", ReadToEnd(), on="tcp_refused"),
    of_tcp("no endpoint", ReadToEnd(), on="tcp_empty"),
    of_tcp("no cluster", ReadToEnd(), on="tcp_unknown"),
    of_tcp("no room", ReadToEnd(), on="tcp_full"),
    of_tcp("idle", b"hello", UpstreamHas(b"hello"), ReadToEnd(), on="tcp_idle", answers=((Hang(),),)),
    of_tcp("for too long", b"hello", UpstreamHas(b"hello"), ReadToEnd(), on="tcp_short", answers=((Hang(),),)),
    of_tcp("both ways", b"hello", ReadUntil(b"bye"), on="of_tcp", answers=((Until(b"hello"), b"bye", Hang()),)),
    of_tcp("upstream resets", b"hello", ReadToEnd(), on="of_tcp", answers=((Until(b"hello"), UpstreamReset()),)),
    of_tcp("echo", b"hello", ReadUntil(b"hello"), on="of_echo"),
    of_tcp("reset", b"hello", ReadUntil(b"hello"), Reset(), on="of_echo"),
    of_tcp("direct response", ReadToEnd(), on="of_direct"),
    of_tcp("no filter chain", ReadToEnd(), on="of_nobody"),
    of_tcp("nothing", Gap(), on="of_http"),
    of_tcp("no http", b"BLA\r\n\r\n", ReadToEnd(), on="of_http"),
    of_tcp("half a head", b"GET /", Gap(), on="of_http"),
    of_tcp("get", get(b"/x"), ReadUntil(b"ok"), on="of_http", answers=((Until(b"GET"), DEFAULT_ANSWER, Hang()),)),
    of_tcp(
        "close", get(b"/x", b"connection: close"), ReadToEnd(), on="of_http",
        answers=((Until(b"GET"), DEFAULT_ANSWER, Hang()),),
    ),
    of_tcp(
        "reset", get(b"/x"), ReadUntil(b"ok"), Reset(), on="of_http",
        answers=((Until(b"GET"), DEFAULT_ANSWER, Hang()),),
    ),
]  # fmt: skip
