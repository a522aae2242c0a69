"""The configurations that the exchanges run on, by name. Each is started once per session, on both programs."""

from __future__ import annotations

from tests.conformance.exchanges import (
    addresses,
    client_certificates,
    compressions,
    dynamic,
    envoy_filters,
    header_levels,
    heads,
    local_replies,
    logs,
    messages,
    policies,
    rate_limits,
    retries,
    route_actions,
    route_matching,
    route_tables,
    sessions,
    statistics,
    timeouts,
    upgrades,
    upstream_filters,
)
from tests.conformance.exchanges.filter_configurations import FILTERED
from tests.support.bootstrap import (
    TYPE,
    Data,
    bootstrap,
    cluster,
    file_log,
    hcm,
    port,
    route,
    tcp_proxy,
    tls_downstream,
    tls_upstream,
    vhost,
)

UP = cluster("up", "up")


def plain(clusters: list[Data] | None = None, **more: object) -> Data:
    """One listener, one virtual host, everything to cluster `up`."""
    return bootstrap([hcm({"virtual_hosts": [vhost(route("/"))]}, **more)], clusters or [UP])


def rewriting() -> Data:
    """Routes by every kind of match, and every rewriting and header mutation of the issue."""

    def added(key: str, value: str, action: str | None = None) -> Data:
        entry: Data = {"header": {"key": key, "value": value}}
        return {**entry, "append_action": action} if action else entry

    exact = vhost(
        route("/", match={"path": "/exact"}, action={"prefix_rewrite": "/changed"}),
        route("/prefix/", action={"prefix_rewrite": "/p/"}),
        route("/strip", action={"prefix_rewrite": "/"}),
        route("/host", action={"host_rewrite_literal": "rewritten.example"}),
        route("/autohost", "named", action={"auto_host_rewrite": True}),
        route("/toheader", action={"host_rewrite_header": "x-to"}),
        route(
            "/",
            match={"safe_regex": {"regex": "/re/[0-9]+/.*"}},
            action={"regex_rewrite": {"pattern": {"regex": "^/re/([0-9]+)/(.*)$"}, "substitution": r"/\2/id/\1"}},
        ),
        route("/", match={"path_separated_prefix": "/sep"}, action={"prefix_rewrite": "/separated"}),
        route("/", match={"prefix": "/case", "case_sensitive": False}, action={"prefix_rewrite": "/insensitive"}),
        route(
            "/", match={"prefix": "/h", "headers": [{"name": "x-v", "string_match": {"exact": "1"}}]},
            action={"prefix_rewrite": "/header-exact"},
        ),
        route(
            "/", match={"prefix": "/h", "headers": [{"name": "x-v", "string_match": {"prefix": "p"}}]},
            action={"prefix_rewrite": "/header-prefix"},
        ),
        route(
            "/", match={"prefix": "/h", "headers": [{"name": "x-v", "present_match": True, "invert_match": True}]},
            action={"prefix_rewrite": "/header-absent"},
        ),
        route(
            "/", match={"prefix": "/h", "headers": [{"name": "x-v", "range_match": {"start": 10, "end": 20}}]},
            action={"prefix_rewrite": "/header-range"},
        ),
        route(
            "/", match={"prefix": "/h", "headers": [{"name": "x-v", "string_match": {"safe_regex": {"regex": "r.*"}}}]},
            action={"prefix_rewrite": "/header-regex"},
        ),
        route("/h", action={"prefix_rewrite": "/header-else"}),
        route(
            "/", match={"prefix": "/q", "query_parameters": [{"name": "a", "string_match": {"exact": "1"}}]},
            action={"prefix_rewrite": "/query-exact"},
        ),
        route(
            "/", match={"prefix": "/q", "query_parameters": [{"name": "b", "present_match": True}]},
            action={"prefix_rewrite": "/query-present"},
        ),
        route("/q", action={"prefix_rewrite": "/query-else"}),
        {
            "match": {"prefix": "/direct"}, "name": "direct",
            "direct_response": {"status": 418, "body": {"inline_string": "short and stout\n"}},
            "response_headers_to_add": [added("x-direct", "%RESPONSE_CODE%"), added("content-type", "text/x-tea")],
        },
        {"match": {"prefix": "/nobody"}, "direct_response": {"status": 200}},
        {"match": {"prefix": "/redirect/https"}, "redirect": {"https_redirect": True}},
        {"match": {"prefix": "/redirect/host"}, "redirect": {"host_redirect": "other.example"}},
        {"match": {"prefix": "/redirect/port"}, "redirect": {"port_redirect": 8443}},
        {"match": {"prefix": "/redirect/httpsport"}, "redirect": {"scheme_redirect": "https", "port_redirect": 443}},
        {"match": {"prefix": "/redirect/path"}, "redirect": {"path_redirect": "/new?z=1", "response_code": "FOUND"}},
        {"match": {"prefix": "/redirect/plainpath"}, "redirect": {"path_redirect": "/new", "response_code": "SEE_OTHER"}},
        {"match": {"prefix": "/redirect/prefix"},
         "redirect": {"prefix_rewrite": "/moved", "response_code": "PERMANENT_REDIRECT"}},
        {"match": {"prefix": "/redirect/strip"},
         "redirect": {"prefix_rewrite": "/s", "strip_query": True, "response_code": "TEMPORARY_REDIRECT"}},
        {"match": {"prefix": "/redirect/regex"},
         "redirect": {"regex_rewrite": {"pattern": {"regex": "redirect/(regex)"}, "substitution": r"\1"}}},
        {
            "match": {"prefix": "/mutate"}, "route": {"cluster": "up"},
            "request_headers_to_add": [
                added("x-append", "route"),
                added("x-overwrite", "route", "OVERWRITE_IF_EXISTS_OR_ADD"),
                added("x-if-absent", "route", "ADD_IF_ABSENT"),
                added("x-if-exists", "route", "OVERWRITE_IF_EXISTS"),
                added("x-address", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
                added("x-proto", "%PROTOCOL% 100%%"),
                added("x-req", "%REQ(x-in)% %REQ(x-none)%|%REQ(x-none?x-in):2%"),
            ],
            "request_headers_to_remove": ["x-remove"],
            "response_headers_to_add": [
                added("x-resp-append", "route"),
                added("x-resp-code", "%RESPONSE_CODE% %UPSTREAM_CLUSTER%"),
                added("x-resp-from", "%RESP(x-from)%"),
            ],
            "response_headers_to_remove": ["x-secret"],
        },
        {"match": {"prefix": "/weighted"}, "route": {"weighted_clusters": {"clusters": [
            {"name": "up", "weight": 100, "request_headers_to_add": [added("x-cluster", "%UPSTREAM_CLUSTER%")],
             "response_headers_to_add": [added("x-weighted", "yes")]},
            {"name": "named", "weight": 0},
        ]}}},
        {"match": {"prefix": "/byheader"}, "route": {"cluster_header": "x-cluster-name"}},
        name="exact", domains=("exact.example", "port.example:8080"),
        request_headers_to_add=[added("x-append", "vhost"), added("x-overwrite", "vhost", "OVERWRITE_IF_EXISTS_OR_ADD")],
        response_headers_to_add=[added("x-resp-append", "vhost")],
    )  # fmt: skip
    suffix = vhost(route("/", action={"prefix_rewrite": "/suffix/"}), name="suffix", domains=("*.suffix.example",))
    longer = vhost(route("/", action={"prefix_rewrite": "/longer/"}), name="longer", domains=("*.b.suffix.example",))
    prefix = vhost(route("/", action={"prefix_rewrite": "/prefixed/"}), name="prefix", domains=("prefix.*",))
    tls = vhost(route("/"), name="tls", domains=("tls.example", "tls.example:8080"), require_tls="ALL")
    return bootstrap(
        [
            hcm(
                {
                    "name": "rewriting",
                    "virtual_hosts": [exact, suffix, longer, prefix, tls],
                    "request_headers_to_add": [added("x-append", "config")],
                    "response_headers_to_add": [added("x-resp-append", "config")],
                    "response_headers_to_remove": ["x-config-secret"],
                },
            )
        ],
        [
            UP,
            cluster(
                "named",
                type="STRICT_DNS",
                load_assignment={
                    "cluster_name": "named",
                    "endpoints": [
                        {"lb_endpoints": [{"endpoint": {"address": {"socket_address": {
                            "address": "localhost", "port_value": {"@port": "up"}}}}}]}
                    ],
                },
                dns_lookup_family="V4_ONLY",
            ),
        ],
    )  # fmt: skip


def failing() -> Data:
    """Clusters that cannot answer, and routes that give up."""
    return bootstrap(
        [
            hcm(
                {
                    "validate_clusters": False,
                    "virtual_hosts": [
                        vhost(
                            route("/refused", "refused"),
                            route("/empty", "empty"),
                            route("/unknown", "unknown"),
                            route("/unknown404", "unknown", action={"cluster_not_found_response_code": "NOT_FOUND"}),
                            route("/timeout", action={"timeout": "0.2s"}),
                            route("/forever", action={"timeout": "0s"}),
                            route("/idle", action={"timeout": "0s", "idle_timeout": "0.2s"}),
                            route("/only"),
                            domains=("*",),
                        ),
                    ],
                },
            )
        ],
        [UP, cluster("refused", "refused"), cluster("empty", load_assignment={"cluster_name": "empty"})],
    )


def named(discovery: str, name: str = "localhost") -> Data:
    """Cluster `up` found by name."""
    endpoint = {"address": {"socket_address": {"address": name, "port_value": {"@port": "up"}}}}
    return cluster(
        "up",
        type=discovery,
        dns_lookup_family="V4_ONLY",
        load_assignment={"cluster_name": "up", "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
    )


def secured(data: Data) -> Data:
    """`data` with TLS on its first listener."""
    data["static_resources"]["listeners"][0]["filter_chains"][0]["transport_socket"] = tls_downstream()
    return data


# What FEATURES and Envoy's default format name; times and ports of this run are left out.
OPERATORS = (
    "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG%"
    " %BYTES_RECEIVED% %BYTES_SENT% %REQ(X-LONG):5% %REQ(X-NONE?X-LONG):3% %REQ(X-NONE)% %RESP(X-ANSWER)% %RESP(X-NONE)%"
    " %UPSTREAM_HOST% %UPSTREAM_CLUSTER% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"
    " %DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT% %ROUTE_NAME%"
    " %REQUESTED_SERVER_NAME% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS%"
    " %UPSTREAM_TRANSPORT_FAILURE_REASON% %UPSTREAM_REQUEST_ATTEMPT_COUNT% 100%% end\n"
)
JSON_OPERATORS = {
    "text": "%REQ(:METHOD)% to %REQ(:PATH)%",
    "number": "%RESPONSE_CODE%",
    "bytes": "%BYTES_SENT%",
    "absent": "%REQ(X-NONE)%",
    "mixed_absent": "<%REQ(X-NONE)%>",
    "quoted": "%REQ(X-LONG)%",
    "nested": {"flags": "%RESPONSE_FLAGS%", "list": ["%PROTOCOL%", "literal"]},
    "literal": "100%%",
}


def tcp() -> Data:
    """TCP listeners: to the upstream, to nobody, to a closed port, and the two filters that answer by themselves."""

    def listener(name: str, *filters: Data) -> Data:
        return {"name": name, "address": port(name), "filter_chains": [{"filters": list(filters)}]}

    text = (
        "%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_CLUSTER% %UPSTREAM_HOST% %PROTOCOL% %RESPONSE_CODE%"
        " %UPSTREAM_TRANSPORT_FAILURE_REASON% %CONNECTION_TERMINATION_DETAILS% %RESPONSE_CODE_DETAILS%\n"
    )
    log = {"access_log": file_log(text=text)}
    return bootstrap(
        [tcp_proxy("up", **log)],
        [UP, cluster("refused", "refused"), cluster("empty", load_assignment={"cluster_name": "empty"})],
        more_listeners=[
            listener("tcp_refused", tcp_proxy("refused", **log)),
            listener("tcp_empty", tcp_proxy("empty", **log)),
            listener("tcp_unknown", tcp_proxy("unknown", **log)),
            listener("tcp_idle", tcp_proxy("up", idle_timeout="0.2s", **log)),
            listener(
                "echo",
                {"name": "envoy.filters.network.echo",
                 "typed_config": {"@type": TYPE + "envoy.extensions.filters.network.echo.v3.Echo"}},
            ),
            listener(
                "direct",
                {"name": "envoy.filters.network.direct_response", "typed_config": {
                    "@type": TYPE + "envoy.extensions.filters.network.direct_response.v3.Config",
                    "response": {"inline_string": "answered here\n"}}},
            ),
        ],
    )  # fmt: skip


UPSTREAM_TRAILERS = {
    "typed_extension_protocol_options": {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": TYPE + "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http_protocol_options": {"enable_trailers": True}},
        }
    }
}

CONFIGURATIONS: dict[str, Data] = {
    "plain": plain(),
    "default_log": plain(access_log=file_log()),
    "edge": plain(use_remote_address=True),
    "edge_hops": plain(use_remote_address=True, xff_num_trusted_hops=1),
    "skip_xff": plain(use_remote_address=True, skip_xff_append=True),
    "no_request_id": plain(generate_request_id=False),
    "keep_request_id": plain(use_remote_address=True, preserve_external_request_id=True, always_set_request_id_in_response=True),
    "named": plain(
        server_name="nobody", via="1.1 nobody", add_user_agent=True, proxy_100_continue=True,
        http_protocol_options={"allow_absolute_url": False},
    ),
    "server_pass": plain(server_header_transformation="PASS_THROUGH"),
    "server_absent": plain(server_header_transformation="APPEND_IF_ABSENT"),
    "http10": plain(http_protocol_options={"accept_http_10": True, "default_host_for_http_10": "ten.example"}),
    "trailers": plain([{**UP, **UPSTREAM_TRAILERS}], http_protocol_options={"enable_trailers": True}),
    "limits": plain(max_request_headers_kb=8, common_http_protocol_options={"max_headers_count": 20}),
    "underscores": plain(common_http_protocol_options={"headers_with_underscores_action": "REJECT_REQUEST"}),
    "drop_underscores": plain(common_http_protocol_options={"headers_with_underscores_action": "DROP_HEADER"}),
    "lenient": plain(http_protocol_options={"allow_chunked_length": True}, stream_error_on_invalid_http_message=True),
    "paths": plain(
        normalize_path=True, merge_slashes=True, path_with_escaped_slashes_action="UNESCAPE_AND_REDIRECT",
        strip_any_host_port=True,
    ),
    "escaped_slashes": plain(normalize_path=True, path_with_escaped_slashes_action="REJECT_REQUEST"),
    "timers": plain(
        common_http_protocol_options={"idle_timeout": "0.3s", "max_requests_per_connection": 2},
        request_headers_timeout="0.25s", request_timeout="0.35s", drain_timeout="0.1s",
    ),
    "stream_idle": plain(stream_idle_timeout="0.2s"),
    "case": plain(
        [{**UP, "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": TYPE + "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http_protocol_options": {
                    "header_key_format": {"proper_case_words": {}}}},
            }}}],
        http_protocol_options={"header_key_format": {"proper_case_words": {}}},
    ),
    "one_request": plain([cluster("up", "up", typed_extension_protocol_options={
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": TYPE + "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "common_http_protocol_options": {"max_requests_per_connection": 1},
            "explicit_http_config": {"http_protocol_options": {}},
        }})]),
    "rewriting": rewriting(),
    "route_actions": route_actions.CONFIGURATION,
    "route_tables": route_tables.CONFIGURATION,
    "route_matching": route_matching.configuration(),
    "retries": retries.configuration(),
    "policies": policies.configuration(),
    "failing": failing(),
    "stuck": plain([cluster("up", "stuck", connect_timeout="0.2s")]),
    "logical_dns": plain([named("LOGICAL_DNS")]),
    "strict_dns": plain([named("STRICT_DNS")]),
    "unresolvable": plain([named("STRICT_DNS", "nobody.invalid")]),
    "tls": secured(plain()),
    "tls_upstream": plain([cluster("up", "up_tls", **tls_upstream("ca", sni="good.example", names=("good.example",)))]),
    "tls_trusting": plain([cluster("up", "up_tls", **tls_upstream())]),
    "tls_wrong_authority": plain([cluster("up", "up_tls", **tls_upstream("other-ca", sni="good.example"))]),
    "tls_wrong_name": plain([cluster("up", "up_tls", **tls_upstream("ca", sni="good.example", names=("evil.example",)))]),
    "tls_to_plain": plain([cluster("up", "up", **tls_upstream())]),
    "operators": plain(access_log=file_log(text=OPERATORS)),
    "json_log": plain(access_log=file_log(JSON_OPERATORS)),
    "tcp": tcp(),
    **FILTERED,
    **addresses.CONFIGURATIONS,
    **client_certificates.CONFIGURATIONS,
    **dynamic.CONFIGURATIONS,
    **timeouts.CONFIGURATIONS,
    **logs.CONFIGURATIONS,
    **compressions.CONFIGURATIONS,
    **rate_limits.CONFIGURATIONS,
    **sessions.CONFIGURATIONS,
    **upstream_filters.CONFIGURATIONS,
    **envoy_filters.CONFIGURATIONS,
    **upgrades.CONFIGURATIONS,
    **statistics.CONFIGURATIONS,
    **header_levels.CONFIGURATIONS,
    **heads.CONFIGURATIONS,
    **local_replies.CONFIGURATIONS,
    **messages.CONFIGURATIONS,
}  # fmt: skip

RAW_UPSTREAM = frozenset({"tcp", "tcp logs"})
"""Configurations whose upstream speaks no HTTP: an answer is played when a connection is accepted."""
