"""What the connection manager does to messages: ids, schemes, early mutations, spelling, and the age of a connection.

A listener each, so that both programs start once.
"""

from __future__ import annotations

from tests.conformance.exchanges.filter_configurations import UP
from tests.support import upstream
from tests.support.bootstrap import TYPE, Data, bootstrap, cluster, file_log, hcm, port, route, tls_upstream, vhost
from tests.support.exchange import Exchange, Gap, ReadResponses

OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
EARLY = TYPE + "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
CASE = TYPE + "envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig"
UUID = TYPE + "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig"


def added(key: str, value: str, action: str = "APPEND_IF_EXISTS_OR_ADD") -> Data:
    return {"header": {"key": key, "value": value}, "append_action": action}


def listeners(ways: dict[str, Data], table: Data, clusters: list[Data]) -> Data:
    """The first way is the listener "main"."""
    (_, first), *others = ways.items()
    more = [
        {"name": name, "address": port(name), "filter_chains": [{"filters": [hcm(table, **way)]}]}
        for name, way in others
    ]
    return bootstrap([hcm(table, **first)], clusters, more_listeners=more)


def ids(**fields: object) -> Data:
    return {"request_id_extension": {"typed_config": {"@type": UUID, **fields}}}


def early(*mutations: Data) -> Data:
    return {"early_header_mutation_extensions": [
        {"name": "early", "typed_config": {"@type": EARLY, "mutations": list(mutations)}}]}  # fmt: skip


def watching(log: Data, **filtered: object) -> Data:
    return {**log, "filter": filtered}


def has_reason(digit: str) -> Data:
    return {"header": {"name": "x-request-id", "string_match": {"safe_regex": {"regex": f".{{14}}{digit}.*"}}}}


def reading() -> Data:
    """Ids, schemes, early mutations: what of them routes see, and the upstream, and the log."""
    edge: Data = {"use_remote_address": True, "preserve_external_request_id": True}
    sampling: Data = {"tracing": {"random_sampling": {"value": 100}}}
    seldom: Data = {"tracing": {"random_sampling": {"value": 50}, "client_sampling": {"value": 0}}}
    ways: dict[str, Data] = {
        "main": {**ids(pack_trace_reason=True), "always_set_request_id_in_response": True},
        "edge": edge,
        "edge_unpacked": {**edge, **ids(pack_trace_reason=False)},
        "traced": sampling,
        "traced_edge": {**sampling, **edge},
        "traced_unpacked": {**sampling, **ids(pack_trace_reason=False)},
        "seldom": {**seldom, "internal_address_config": {"cidr_ranges": [{"address_prefix": "127.0.0.0", "prefix_len": 8}]}},
        "nothing_traced": {"tracing": {"overall_sampling": {"value": 0}}, **ids(use_request_id_for_trace_sampling=True)},
        "http": {"scheme_header_transformation": {"scheme_to_overwrite": "http"}},
        "https": {"scheme_header_transformation": {"scheme_to_overwrite": "https"}, "use_remote_address": True},
        "matching": {"scheme_header_transformation": {"match_upstream": True}},
        "early": {
            "normalize_path": True, "strip_any_host_port": True, "via": "v", "add_user_agent": True,
            **early(
                {"append": added("x-early", "%PATH%|%REQ(:authority)%|%REQ(x-in)%|%REQ(:scheme)%|%ROUTE_NAME%|%PROTOCOL%")},
                {"remove": "x-gone"}, {"append": added("x-over", "o", "OVERWRITE_IF_EXISTS_OR_ADD")},
                {"append": added("x-envoy-max-retries", "3")}, {"append": added("x-forwarded-for", "9.8.7.6")},
                {"append": added("x-forwarded-proto", "https", "OVERWRITE_IF_EXISTS_OR_ADD")},
                {"append": added("x-request-id", "mine", "ADD_IF_ABSENT")}, {"remove": "user-agent"},
                {"append": added("transfer-encoding", "x")}, {"append": added("connection", "close")},
                {"append": added("te", "trailers, x")}, {"remove_on_match": {"key_matcher": {"prefix": "x-pre"}}},
            ),
        },
        "early_edge": {
            "use_remote_address": True,
            **early({"append": added("x-forwarded-for", "9.8.7.6")}, {"append": added("x-envoy-internal", "true")},
                    {"append": added("x-request-id", "mine", "OVERWRITE_IF_EXISTS_OR_ADD")}),
        },
        "unheard": {
            "append_local_overload": True, "http_protocol_options": {"send_fully_qualified_url": True},
            "path_normalization_options": {"http_filter_transformation": {"operations": [{"merge_slashes": {}}]}},
        },
    }  # fmt: skip
    logs = [
        *file_log({"path": "%REQ(:path)%", "scheme": "%REQ(:scheme)%", "proto": "%REQ(x-forwarded-proto)%",
                   "details": "%RESPONSE_CODE_DETAILS%", "early": "%REQ(x-early)%"}),
        *(watching(file_log(text=f"reason {digit}\n")[0], header_filter=has_reason(digit)) for digit in "49ab"),
        watching(file_log(text="traceable\n")[0], traceable_filter={}),
    ]  # fmt: skip
    told = [added("x-id", "%REQ(x-request-id)%"), added("x-scheme", "%REQ(:scheme)%")]
    routes = [
        route("/tls", "tls", request_headers_to_add=told),
        route("/early", match={"prefix": "/", "headers": [{"name": "x-early", "present_match": True}]},
              request_headers_to_add=told, response_headers_to_add=[added("x-route", "early")]),
        route("/", request_headers_to_add=told),
    ]  # fmt: skip
    table = {"virtual_hosts": [vhost(*routes)]}
    clusters = [UP, cluster("tls", "up_tls", **tls_upstream())]
    return listeners({name: {"access_log": logs, **way} for name, way in ways.items()}, table, clusters)


def preserving(**fields: object) -> Data:
    formatter = {"name": "preserve_case", "typed_config": {"@type": CASE, **fields}}
    return {"header_key_format": {"stateful_formatter": formatter}}


def spelling() -> Data:
    """Every spelling downstream with every spelling upstream."""
    proper: Data = {"header_key_format": {"proper_case_words": {}}}
    formats: dict[str, Data] = {
        "plain": {},
        "same": preserving(),
        "proper": proper,
        "added": preserving(formatter_type_on_envoy_headers="PROPER_CASE"),
        "reason": preserving(forward_reason_phrase=True),
        "url": {"send_fully_qualified_url": True},
        "trailers": {**preserving(), "enable_trailers": True},
    }
    clusters = [
        cluster(name, "up", typed_extension_protocol_options={OPTIONS: {
            "@type": TYPE + OPTIONS, "explicit_http_config": {"http_protocol_options": options}}})
        for name, options in formats.items()
    ]  # fmt: skip
    ways = {
        "main": {},
        "same": {**preserving(), "enable_trailers": True, "allow_chunked_length": True},
        "proper": proper,
        "added": preserving(formatter_type_on_envoy_headers="PROPER_CASE"),
    }
    routes = [route(f"/{name}", name) for name in formats]
    routes.append({"match": {"prefix": "/direct"}, "direct_response": {"status": 200, "body": {"inline_string": "x"}}})
    routes.append(route("/host", "url", action={"host_rewrite_literal": "new"}))
    changes = {
        "request_headers_to_add": [added("X-Added", "a"), added("x-TWICE", "b")],
        "response_headers_to_add": [added("X-Response", "r")],
    }
    table = {"virtual_hosts": [vhost(*routes, **changes)]}
    return listeners(
        {name: {"http_protocol_options": options, "use_remote_address": True} for name, options in ways.items()},
        table,
        clusters,
    )


def ageing() -> Data:
    """Connections that may not grow old."""
    old: Data = {"common_http_protocol_options": {"max_connection_duration": "0.2s"}}
    ways = {
        "main": {**old, "drain_timeout": "0.2s"},
        "safe": {**old, "drain_timeout": "0.2s", "http1_safe_max_connection_duration": True},
    }
    return listeners(ways, {"virtual_hosts": [vhost(route("/"))]}, [UP])


CONFIGURATIONS = {"reading": reading(), "spelling": spelling(), "ageing": ageing()}


def ask(listener: str, path: str = "/", lines: bytes = b"", log_lines: int = 2, **how: object) -> Exchange:
    head = b"GET %b HTTP/1.1\r\nhost: h\r\n%b\r\n" % (path.encode(), lines)
    shown = lines.replace(b"\r\n", b"; ").decode("latin-1")[:45]
    title = f"reading: {listener} {path} {shown}".rstrip(" ;")
    return Exchange(title, (head,), config="reading", listener=listener, log_lines=log_lines, **how)  # type: ignore[arg-type]


def spelled(
    listener: str, path: str, status: bytes = b"299 My Reason", lines: bytes = b"", method: bytes = b"GET"
) -> Exchange:
    head = (
        b"%b %b HTTP/1.1\r\nHoSt: h\r\nX-Mixed-CASE: 1\r\nx-twice: 1\r\nX-Twice: 2\r\nConnection: Keep-Alive\r\n%b\r\n"
    )
    answer = b"HTTP/1.1 %b\r\nX-RESPONSE-Mixed: 1\r\nServer: s\r\nContent-LENGTH: 2\r\n\r\nok" % status
    title = f"spelling: {listener} {method.decode()} {path} {status.decode('latin-1')}"
    return Exchange(title, (head % (method, path.encode(), lines),), ((answer,),), config="spelling", listener=listener)


def aged(name: str, *send: object, listener: str = "main", responses: int = 1, **how: object) -> Exchange:
    title = f"ageing: {listener} {name}"
    log_lines = responses
    return Exchange(title, send, config="ageing", listener=listener, responses=responses, log_lines=log_lines, **how)  # type: ignore[arg-type]


ID = "x-request-id: 4a3bb7a8-1c4b-%sa1e-8c33-1b3a4f9a1b2c\r\n"
GET = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"
MANY = b"Content-Length: 0\r\nX-Request-ID: abc\r\nX-Forwarded-FOR: 9.9.9.9\r\n"
SLOW = ((upstream.Gap(0.4), b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),)
BROKEN = b"GET / HTTP/1.1\r\nhost: h\r\nconnection: x-gone, te\r\nX-Gone: 1\r\nX-Kept: 1\r\n\r\n"
EXCHANGES = [
    *(ask(listener, lines=(ID % digit).encode())
      for listener in ("main", "edge", "edge_unpacked", "traced_edge", "traced_unpacked", "nothing_traced")
      for digit in "49ab"),
    *(ask("traced", lines=(ID % digit).encode(), log_lines=3 if digit == "a" else 2) for digit in "49ab"),
    *(ask(listener, lines=lines, log_lines=1 if b"odd" in lines else 2)
      for listener in ("main", "edge", "traced", "traced_edge", "traced_unpacked", "nothing_traced")
      for lines in (b"", b"x-request-id: odd\r\n", b"x-client-trace-id: 1\r\n", b"x-envoy-force-trace: 1\r\n")),
    ask("seldom", lines=b"x-forwarded-for: 127.0.0.1\r\nx-envoy-force-trace: 1\r\n", log_lines=3,
        compare=("upstream", "log")),
    *(ask("seldom", lines=b"x-request-id: %b-1c4b-4a1e-8c33-1b3a4f9a1b2c\r\n" % number)
      for number in (b"00001387", b"00001388", b"ffffffff", b"00000000")),
    ask("seldom", lines=b"x-client-trace-id: 1\r\nx-request-id: 00001388-1c4b-4a1e-8c33-1b3a4f9a1b2c\r\n"),
    *(ask(listener, path, lines)
      for listener in ("http", "https", "matching") for path in ("/", "/tls")
      for lines in (b"", b"x-forwarded-proto: https\r\n", b"x-forwarded-proto: ftp\r\n")),
    ask("early", "/b/../a", b"x-in: i\r\nx-gone: g\r\nx-over: 1\r\nx-over: 2\r\nuser-agent: u\r\nx-pre1: 1\r\nX-PRE: 2\r\n",
        log_lines=1),
    ask("early", lines=b"x-forwarded-for: 1.2.3.4\r\nx-request-id: theirs\r\n", log_lines=1),
    ask("early", "/a#b", log_lines=1),
    Exchange("reading: early without a host", (b"GET / HTTP/1.1\r\n\r\n",), config="reading", listener="early"),
    Exchange("reading: early, bad", (b"GET / HTTP/1.1\r\nbad header\r\n\r\n",), config="reading", listener="early"),
    ask("early_edge", lines=b"x-request-id: theirs\r\n"),
    ask("unheard", "/a//b/../c"),
    *(spelled(listener, f"/{path}")
      for listener in ("main", "same", "proper", "added")
      for path in ("plain", "same", "proper", "added", "reason", "direct")),
    *(spelled("same", f"/{path}", lines=MANY, method=b"POST") for path in ("plain", "same", "proper")),
    *(spelled("same", "/reason", status) for status in (b"200", b"200 ", b"204 Nothing")),
    *(spelled(listener, path) for listener in ("main", "same") for path in ("/url?a", "/host/x")),
    spelled("main", "/url", method=b"OPTIONS"),
    Exchange("spelling: nominated", (BROKEN.replace(b"/ ", b"/same "),), config="spelling", listener="same"),
    Exchange(
        "spelling: trailers",
        (b"POST /trailers HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Trail-ER: 1\r\n\r\n",),
        ((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Resp-TRAIL: 1\r\n\r\n",),),
        config="spelling", listener="same",
    ),
    Exchange(
        "spelling: pipelined",
        (b"GET /same HTTP/1.1\r\nHOST: h\r\nX-A: 1\r\n\r\nGET /same HTTP/1.1\r\nhosT: h\r\nx-A: 2\r\n\r\n",),
        config="spelling", listener="same", responses=2, log_lines=2,
    ),
    aged("second request", GET, ReadResponses(1), Gap(0.3), GET, responses=2),
    aged("idle", GET, ReadResponses(1), Gap(0.7)),
    aged("never used", Gap(0.5), responses=0),
    aged("slow answer", GET, answers=SLOW),
    aged("second request", GET, ReadResponses(1), Gap(0.3), GET, listener="safe", responses=2),
    aged("idle", GET, ReadResponses(1), Gap(0.7), listener="safe"),
]  # fmt: skip
