"""Access logs: path, format and filter."""

from __future__ import annotations

import pytest

from forkproxy.config.build.access_log import (
    AccessLogFilter,
    LogOptions,
    build_access_log_options,
    build_access_logs,
    default_text_format,
)
from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import HeaderMatcher
from tests.unit.config.build.building import TYPE, built, value_of

FILE = TYPE + "envoy.extensions.access_loggers.file.v3.FileAccessLog"
STREAM = TYPE + "envoy.extensions.access_loggers.stream.v3."


def logs(view, context):
    return build_access_logs(view.repeated("access_log"), context)


def log(typed, *, filter_="{}", context=None):
    text = f"access_log: [{{name: x, filter: {filter_}, typed_config: {typed}}}]"
    text = text.replace("filter: {}, ", "")
    (made,) = value_of(logs, "envoy.config.listener.v3.Listener", text, context)
    return made


def file_log(rest=""):
    return f"{{'@type': {FILE}, path: /dev/null{rest}}}"


def test_the_default_format_is_envoys():
    made = log(file_log())
    assert made.path == "/dev/null"
    assert made.text_format == default_text_format
    assert made.text_format.startswith('[%START_TIME%] "%REQ(:METHOD)% ')
    assert made.text_format.endswith('"%UPSTREAM_HOST%"\n')
    assert made.json_format is None
    assert made.filter is None
    assert (made.omit_empty_values, made.sort_properties) == (False, False)


@pytest.mark.parametrize(
    ("rest", "text", "json"),
    [
        (", format: 'x\n'", "x ", None),
        (", format: ''", default_text_format, None),
        (", log_format: {text_format: '%PROTOCOL%'}", "%PROTOCOL%", None),
        (", log_format: {text_format_source: {inline_string: a}}", "a", None),
        (", json_format: {a: b}", None, {"a": "b"}),
        (", typed_json_format: {a: {b: [1, true, null]}}", None, {"a": {"b": [1, True, None]}}),
        (", log_format: {json_format: {a: 1}}", None, {"a": 1}),
    ],
)
def test_formats(rest, text, json):
    made = log(file_log(rest))
    assert (made.text_format, made.json_format) == (text, json)


def test_format_options():
    made = log(
        file_log(
            ", log_format: {json_format: {b: 1}, omit_empty_values: true, content_type: x,"
            " json_format_options: {sort_properties: true}}"
        )
    )
    assert (made.omit_empty_values, made.sort_properties) == (True, True)


def test_standard_streams():
    assert log(f"{{'@type': {STREAM}StdoutAccessLog}}").path == "/dev/stdout"
    made = log(f"{{'@type': {STREAM}StderrAccessLog, log_format: {{text_format: a}}}}")
    assert (made.path, made.text_format) == ("/dev/stderr", "a")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "{status_code_filter: {comparison: {op: GE, value: {default_value: 500, runtime_key: k}}}}",
            AccessLogFilter("status_code", "GE", 500),
        ),
        (
            "{duration_filter: {comparison: {op: LE, value: {default_value: 9, runtime_key: set}}}}",
            AccessLogFilter("duration", "LE", 40),
        ),
        ("{not_health_check_filter: {}}", AccessLogFilter("not_health_check")),
        ("{traceable_filter: {}}", AccessLogFilter("traceable")),
        (
            "{runtime_filter: {runtime_key: k, percent_sampled: {numerator: 3, denominator: MILLION}}}",
            AccessLogFilter("runtime", op="EQ", value=3, denominator=1_000_000),
        ),
        (
            "{runtime_filter: {runtime_key: k, use_independent_randomness: true, percent_sampled: {numerator: 3}}}",
            AccessLogFilter("runtime", op="NE", value=3),
        ),
        (
            "{log_type_filter: {types: [TcpPeriodic, UpstreamEnd], exclude: true}}",
            AccessLogFilter("log_type", op="NE", flags=("TcpPeriodic", "UpstreamEnd")),
        ),
        ("{metadata_filter: {match_if_key_not_found: false}}", AccessLogFilter("metadata", default=False)),
        ("{runtime_filter: {runtime_key: set}}", AccessLogFilter("runtime", op="EQ", value=40, denominator=100)),
        ("{runtime_filter: {runtime_key: k}}", AccessLogFilter("runtime", op="EQ", value=0, denominator=100)),
        (
            "{grpc_status_filter: {statuses: [OK, CANCELED], exclude: true}}",
            AccessLogFilter("grpc_status", "NE", flags=("OK", "CANCELED")),
        ),
        ("{grpc_status_filter: {statuses: [UNKNOWN]}}", AccessLogFilter("grpc_status", "EQ", flags=("UNKNOWN",))),
        ("{response_flag_filter: {flags: [UH, NR]}}", AccessLogFilter("response_flag", flags=("UH", "NR"))),
        ("{header_filter: {header: {name: x}}}", AccessLogFilter("header", header=HeaderMatcher("x", "present"))),
        (
            "{and_filter: {filters: [{traceable_filter: {}}, {or_filter: {filters: [{traceable_filter: {}}, "
            "{not_health_check_filter: {}}]}}]}}",
            AccessLogFilter(
                "and",
                filters=(
                    AccessLogFilter("traceable"),
                    AccessLogFilter("or", filters=(AccessLogFilter("traceable"), AccessLogFilter("not_health_check"))),
                ),
            ),
        ),
    ],
)
def test_filters(text, expected):
    assert log(file_log(), filter_=text, context=BuildContext(runtime={"set": 40})).filter == expected


def test_what_is_not_there():
    listener = "envoy.config.listener.v3.Listener"
    grpc = TYPE + "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig"
    text = (
        f"access_log: [{{name: g, typed_config: {{'@type': {grpc}, common_config: {{log_name: x, grpc_service: "
        "{envoy_grpc: {cluster_name: c}}}}}]"
    )
    outcome = built(logs, listener, text)
    assert outcome.value == ()
    assert outcome.unsupported == [
        'access_log[0].typed_config: the access logger "g" '
        "(envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig) is not implemented"
    ]
    assert outcome.unread == []
    formatter = file_log(
        ", log_format: {text_format: a, formatters: [{name: x, typed_config: {'@type': " + FILE + ", path: /a}}]}"
    )
    unfit = f"access_log: [{{name: f, typed_config: {formatter}}}]"
    assert built(logs, listener, unfit).unsupported == [
        'access_log[0].typed_config.log_format.formatters[0].typed_config: the formatter "x" '
        "(envoy.extensions.access_loggers.file.v3.FileAccessLog) is not implemented"
    ]


def test_formatters():
    text = file_log(
        ", log_format: {text_format: a, formatters: [{name: q, typed_config: {'@type': "
        + TYPE
        + "envoy.extensions.formatter.req_without_query.v3.ReqWithoutQuery}}, {name: m, typed_config: {'@type': "
        + TYPE
        + "envoy.extensions.formatter.metadata.v3.Metadata}}]}"
    )
    assert log(text).formatters == ("REQ_WITHOUT_QUERY",)


def test_a_missing_directory_is_a_warning(tmp_path):
    text = f"access_log: [{{name: f, typed_config: {{'@type': {FILE}, path: {tmp_path}/no/log}}}}]"
    outcome = built(logs, "envoy.config.listener.v3.Listener", text)
    assert outcome.warnings == [
        f"access_log[0].typed_config.path: there is no directory {tmp_path}/no: the log cannot be opened"
    ]
    assert outcome.value[0].path == f"{tmp_path}/no/log"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ("flush_access_log_on_connected: true", "flush_access_log_on_connected"),
        ("access_log_flush_interval: 1s", "access_log_flush_interval"),
        ("flush_access_log_on_connected: false", None),
    ],
)
def test_options_do_not_stand_with_the_fields_that_they_replace(fields, said):
    proxy = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
    text = f"{{stat_prefix: a, cluster: c, {fields}, access_log_options: {{access_log_flush_interval: 2s}}}}"
    outcome = built(lambda view, context: build_access_log_options(view, "flush_access_log_on_connected"), proxy, text)
    expected = f"{said}: Only one of {said} or access_log_options can be specified."
    assert outcome.errors == ([expected] if said else [])
    assert outcome.value == LogOptions(False, 2.0)
