"""The HTTP connection manager: Envoy's defaults, and every setting where the file says otherwise."""

from __future__ import annotations

import pytest

from forkproxy.config.build.http_connection_manager import build, type_url
from forkproxy.config.build.router import RouterConfig
from tests.unit.config.build.building import TYPE, built, value_of

ROUTER = f"{{name: envoy.filters.http.router, typed_config: {{'@type': {TYPE}envoy.extensions.filters.http.router.v3.Router}}}}"

ZIPKIN = (
    f"{{name: z, typed_config: {{'@type': {TYPE}envoy.config.trace.v3.ZipkinConfig, "
    "collector_cluster: c, collector_endpoint: /}}"
)


def text(rest="", filters=ROUTER):
    return f"{{stat_prefix: s, route_config: {{name: r}}, http_filters: [{filters}]{', ' + rest if rest else ''}}}"


def made(rest=""):
    return value_of(build, type_url, text(rest))


def test_envoys_defaults():
    config = made()
    assert config.route_table.name == "r"
    assert (config.codec_type, config.server_name, config.server_header_transformation) == (
        "AUTO",
        "envoy",
        "OVERWRITE",
    )
    assert (config.generate_request_id, config.preserve_external_request_id) == (True, False)
    assert (config.max_request_headers_kb, config.max_headers_count) == (60, 100)
    assert (config.idle_timeout_s, config.stream_idle_timeout_s) == (3600.0, 300.0)
    assert (config.request_timeout_s, config.request_headers_timeout_s) == (None, None)
    assert (config.max_connection_duration_s, config.max_stream_duration_s) == (None, None)
    assert (config.drain_timeout_s, config.delayed_close_timeout_s) == (5.0, 1.0)
    assert (config.allow_absolute_url, config.accept_http_10, config.enable_trailers) == (True, False, False)
    assert config.path_with_escaped_slashes_action == "KEEP_UNCHANGED"
    assert config.headers_with_underscores_action == "ALLOW"
    assert config.max_requests_per_connection == 0
    assert config.header_key_format == ""


@pytest.mark.parametrize(
    ("rest", "name", "value"),
    [
        ("codec_type: HTTP1", "codec_type", "HTTP1"),
        ("generate_request_id: false", "generate_request_id", False),
        ("via: v", "via", "v"),
        ("add_user_agent: true", "add_user_agent", True),
        ("server_name: name", "server_name", "name"),
        ("server_header_transformation: PASS_THROUGH", "server_header_transformation", "PASS_THROUGH"),
        ("preserve_external_request_id: true", "preserve_external_request_id", True),
        ("always_set_request_id_in_response: true", "always_set_request_id_in_response", True),
        ("proxy_100_continue: true", "proxy_100_continue", True),
        ("normalize_path: true", "normalize_path", True),
        ("merge_slashes: true", "merge_slashes", True),
        ("path_with_escaped_slashes_action: REJECT_REQUEST", "path_with_escaped_slashes_action", "REJECT_REQUEST"),
        ("strip_matching_host_port: true", "strip_matching_host_port", True),
        ("strip_any_host_port: true", "strip_any_host_port", True),
        ("strip_trailing_host_dot: true", "strip_trailing_host_dot", True),
        ("max_request_headers_kb: 96", "max_request_headers_kb", 96),
        ("stream_idle_timeout: 0s", "stream_idle_timeout_s", None),
        ("request_timeout: 4s", "request_timeout_s", 4.0),
        ("request_headers_timeout: 4s", "request_headers_timeout_s", 4.0),
        ("delayed_close_timeout: 0s", "delayed_close_timeout_s", None),
        ("stream_error_on_invalid_http_message: true", "stream_error_on_invalid_http_message", True),
        ("common_http_protocol_options: {idle_timeout: 0s}", "idle_timeout_s", None),
        ("common_http_protocol_options: {max_connection_duration: 9s}", "max_connection_duration_s", 9.0),
        ("common_http_protocol_options: {max_stream_duration: 9s}", "max_stream_duration_s", 9.0),
        ("common_http_protocol_options: {max_headers_count: 9}", "max_headers_count", 9),
        ("common_http_protocol_options: {max_requests_per_connection: 9}", "max_requests_per_connection", 9),
        (
            "common_http_protocol_options: {headers_with_underscores_action: DROP_HEADER}",
            "headers_with_underscores_action",
            "DROP_HEADER",
        ),
        ("http_protocol_options: {accept_http_10: true}", "accept_http_10", True),
        ("http_protocol_options: {default_host_for_http_10: h}", "default_host_for_http_10", "h"),
        ("http_protocol_options: {allow_absolute_url: false}", "allow_absolute_url", False),
        ("http_protocol_options: {enable_trailers: true}", "enable_trailers", True),
        ("http_protocol_options: {allow_chunked_length: true}", "allow_chunked_length", True),
        (
            "http_protocol_options: {header_key_format: {proper_case_words: {}}}",
            "header_key_format",
            "proper_case_words",
        ),
        (
            "stream_error_on_invalid_http_message: true, "
            "http_protocol_options: {override_stream_error_on_invalid_http_message: false}",
            "stream_error_on_invalid_http_message",
            False,
        ),
    ],
)
def test_settings(rest, name, value):
    assert getattr(made(rest), name) == value


def test_http_filters():
    struct = f"{{'@type': {TYPE}google.protobuf.Struct, value: {{a: 1}}}}"
    python = f"{{name: 'my.mod:Filter', disabled: true, typed_config: {struct}}}"
    config = value_of(build, type_url, text(filters=f"{python}, {{name: 'my.mod:Bare'}}, {ROUTER}"))
    first, bare, router = config.http_filters
    assert (first.name, first.type_url, first.config, first.disabled) == ("my.mod:Filter", "", {"a": 1}, True)
    assert (bare.config, bare.disabled) == ({}, False)
    assert router.type_url == "envoy.extensions.filters.http.router.v3.Router"
    assert router.config == RouterConfig()
    assert router.where.path == "http_filters[2]"


def test_a_filter_that_is_not_there_is_left_out_and_named():
    lua = f"{{name: l, typed_config: {{'@type': {TYPE}envoy.extensions.filters.http.lua.v3.Lua}}}}"
    outcome = built(build, type_url, text(filters=f"{lua}, {ROUTER}"))
    assert outcome.unsupported == [
        'http_filters[0].typed_config: the HTTP filter "l" (envoy.extensions.filters.http.lua.v3.Lua) is not implemented'
    ]
    assert [entry.name for entry in outcome.value.http_filters] == ["envoy.filters.http.router"]


def test_a_python_filter_takes_no_message_of_envoys():
    wrong = (
        f"{{name: 'my.mod:Filter', typed_config: {{'@type': {TYPE}envoy.extensions.filters.http.router.v3.Router}}}}"
    )
    outcome = built(build, type_url, text(filters=f"{wrong}, {ROUTER}"))
    assert len(outcome.unsupported) == 1
    assert "takes a google.protobuf.Struct" in outcome.unsupported[0]


@pytest.mark.parametrize(
    ("rest", "paths"),
    [
        ("http2_protocol_options: {}", ["http2_protocol_options"]),
        (
            "local_reply_config: {body_format: {text_format: a, formatters: [{name: a, typed_config: {}}]}}",
            ["local_reply_config.body_format.formatters"],
        ),
        ("http_protocol_options: {allow_custom_methods: true}", ["http_protocol_options.allow_custom_methods"]),
        (f"tracing: {{provider: {ZIPKIN}, verbose: true}}", ["tracing.provider"]),
        ("tracing: {client_sampling: {value: 1}}", []),
    ],
)
def test_what_stays_unread(rest, paths):
    outcome = built(build, type_url, text(rest))
    assert outcome.unread == paths


def test_codecs_that_are_not_there():
    assert built(build, type_url, text("codec_type: HTTP2")).unsupported == ["codec_type: HTTP2 is not implemented"]


def test_rds_stays_unread():
    rds = "{stat_prefix: s, rds: {config_source: {ads: {}}, route_config_name: r}, http_filters: []}"
    outcome = built(build, type_url, rds)
    assert outcome.unread == ["rds"]
    assert outcome.value.route_table.virtual_hosts == ()
