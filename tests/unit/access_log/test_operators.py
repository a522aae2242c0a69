"""Every command operator: the expected texts are those that Envoy 1.40 logged for the same two requests."""

import json
import os
import socket
import uuid
from types import SimpleNamespace

import pytest

from forkproxy.access_log import operators
from forkproxy.access_log.formatter import compile_json, compile_text
from forkproxy.config.problems import ConfigError
from forkproxy.http import response_flags
from tests.unit.access_log.fakes import WHERE, FakeConnection, FakeLoop, local_reply, stream, unparsed

STATIC = {
    "FILTER_CHAIN_NAME": "",
    "LISTENER_NAME": "main",
    "ACCESS_LOG_TYPE": "DownstreamEnd",
    "LISTENER_METADATA": {"n": {"k": "of the listener"}},
    "FILTER_CHAIN_METADATA": {},
}


def text_of(operator, of):
    return compile_text(f"%{operator}%", WHERE, static=STATIC)(of).decode("latin-1")


def json_of(operator, of):
    return json.loads(compile_json({"k": f"%{operator}%"}, WHERE, static=STATIC)(of))["k"]


# operator, upstream request as text, direct response as text; a number or None says what JSON has
TABLE = [
    ("REQUEST_DURATION", 0, 0),
    ("REQUEST_TX_DURATION", 1, None),
    ("RESPONSE_DURATION", 2, None),
    ("RESPONSE_TX_DURATION", 0, None),
    ("ROUNDTRIP_DURATION", None, None),
    ("DURATION", 2, 0),
    ("BYTES_RECEIVED", 0, 0),
    ("BYTES_RETRANSMITTED", 0, 0),
    ("PACKETS_RETRANSMITTED", 0, 0),
    ("PROTOCOL", "HTTP/1.1", "HTTP/1.1"),
    ("UPSTREAM_PROTOCOL", "HTTP/1.1", None),
    ("RESPONSE_CODE", 200, 418),
    ("RESPONSE_CODE_DETAILS", "via_upstream", "direct_response"),
    ("RESPONSE_CODE_DETAILS(ALLOW_WHITESPACES)", "via_upstream", "direct_response"),
    ("CONNECTION_TERMINATION_DETAILS", None, None),
    ("BYTES_SENT", 235, 10),
    ("UPSTREAM_REQUEST_ATTEMPT_COUNT", 1, 0),
    ("UPSTREAM_TLS_CIPHER", None, None),
    ("UPSTREAM_TLS_VERSION", None, None),
    ("UPSTREAM_TLS_SESSION_ID", None, None),
    ("UPSTREAM_PEER_ISSUER", None, None),
    ("UPSTREAM_PEER_CERT", None, None),
    ("UPSTREAM_PEER_SUBJECT", None, None),
    ("UPSTREAM_HOST", "127.0.0.1:42177", None),
    ("UPSTREAM_HOST_NAME", "ep.example", None),
    ("UPSTREAM_CLUSTER", "up", None),
    ("UPSTREAM_CLUSTER_RAW", "up", None),
    ("UPSTREAM_LOCAL_ADDRESS", "127.0.0.1:43548", None),
    ("UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", "127.0.0.1", None),
    ("UPSTREAM_LOCAL_PORT", 43548, None),
    ("UPSTREAM_REMOTE_ADDRESS", "127.0.0.1:42177", None),
    ("UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "127.0.0.1", None),
    ("UPSTREAM_REMOTE_PORT", 42177, None),
    ("UPSTREAM_TRANSPORT_FAILURE_REASON", None, None),
    ("UPSTREAM_CONNECTION_ID", 2, 0),
    ("DOWNSTREAM_LOCAL_ADDRESS", "127.0.0.1:33719", "127.0.0.1:33719"),
    ("DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", "127.0.0.1", "127.0.0.1"),
    ("DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID", "", ""),
    ("DOWNSTREAM_LOCAL_PORT", 33719, 33719),
    ("DOWNSTREAM_DIRECT_LOCAL_ADDRESS", "127.0.0.1:33719", "127.0.0.1:33719"),
    ("DOWNSTREAM_REMOTE_ADDRESS", "127.0.0.1:41120", "127.0.0.1:41120"),
    ("DOWNSTREAM_REMOTE_PORT", 41120, 41120),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", "127.0.0.1", "127.0.0.1"),
    ("DOWNSTREAM_TRANSPORT_FAILURE_REASON", None, None),
    ("CONNECTION_ID", 1, 1),
    ("STREAM_ID", "8f857e8f-8d58-440a-bab9-f6f66df6b899", "8f857e8f-8d58-440a-bab9-f6f66df6b899"),
    ("REQUESTED_SERVER_NAME", None, None),
    ("REQUESTED_SERVER_NAME(SNI_FIRST)", "h.example", "h.example"),
    ("REQUESTED_SERVER_NAME(HOST_FIRST)", "h.example", "h.example"),
    ("ROUTE_NAME", "r1", None),
    ("VIRTUAL_CLUSTER_NAME", None, None),
    ("FILTER_CHAIN_NAME", None, None),
    ("LISTENER_NAME", "main", "main"),
    ("LOCAL_REPLY_BODY", "", ""),
    ("ACCESS_LOG_TYPE", "DownstreamEnd", "DownstreamEnd"),
    ("CUSTOM_FLAGS", "", ""),
    ("PATH", "/up/x?a=b%20c&c=12345&q=\"'\\", "/d"),
    ("PATH(NQ)", "/up/x", "/d"),
    ("PATH(WQ:PATH)", "/up/x?a=b%20c&c=12345&q=\"'\\", "/d"),
    ("PATH(NQ:ORIG)", None, None),
    ("PATH:3", "/up", "/d"),
    ("QUERY_PARAM(a)", "b c", None),
    ("QUERY_PARAM(c):3", "123", None),
    ("QUERY_PARAM(z)", None, None),
    ("QUERY_PARAMS", "a=b%20c&c=12345&q=\"'\\", None),
    ("START_TIME", "2026-11-22T15:33:09.597Z", "2026-11-22T15:33:09.597Z"),
    ("EMIT_TIME", "2026-11-22T15:33:09.600Z", "2026-11-22T15:33:09.600Z"),
    ("START_TIME(%s.%3f)", "1795361589.597", "1795361589.597"),
    ("START_TIME()", "2026-11-22T15:33:09.597Z", "2026-11-22T15:33:09.597Z"),
    ("COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)", 2400, 2400),
    ("COMMON_DURATION(DS_RX_BEG:US_RX_BEG:ms)", 2, None),
    ("GRPC_STATUS", None, None),
    ("GRPC_STATUS_NUMBER", None, None),
    ("REQUEST_HEADERS_BYTES", 129, 68),
    ("RESPONSE_HEADERS_BYTES", 57, 26),
    ("RESPONSE_TRAILERS_BYTES", 0, 0),
    ("DOWNSTREAM_TLS_VERSION", None, None),
    ("DOWNSTREAM_TLS_CIPHER", None, None),
    ("DOWNSTREAM_TLS_SESSION_ID", None, None),
    ("DOWNSTREAM_PEER_SUBJECT", None, None),
    ("DOWNSTREAM_PEER_CERT_V_START", None, None),
    ("TLS_JA3_FINGERPRINT", None, None),
    ("TRACE_ID", None, None),
    ("SPAN_ID", None, None),
    ("REQ(user-agent)", 'curl/8 "q" \\', None),
    ("REQ(nope)", None, None),
    ("REQ(:path)", "/up/x?a=b%20c&c=12345&q=\"'\\", "/d"),
    ("REQ(:METHOD)", "POST", "GET"),
    ("REQ(Host)", "h.example", "h.example"),
    ("REQ(:scheme)", "http", "http"),
    ("REQ(nope?User-Agent)", 'curl/8 "q" \\', None),
    ("REQ(nope?:path):2", "/u", "/d"),
    ("REQ(:path?nope)", "/up/x?a=b%20c&c=12345&q=\"'\\", "/d"),
    ("REQ(empty?dup)", "", None),
    ("REQ(nope?nope2)", None, None),
    ("REQ(user-agent):4", "curl", None),
    ("REQ(user-agent):0", "", None),
    ("REQ(dup)", "1", None),
    ("REQ(empty)", "", None),
    ("RESP(Content-Length)", "235", "10"),
    ("RESP(:status)", "200", "418"),
    ("TRAILER(x)", None, None),
    ("DYNAMIC_METADATA(a:b)", None, None),
    ("METADATA(DYNAMIC:x)", None, None),
    ("REQUEST_HEADER(dup)", "1", None),
    ("STREAM_INFO_REQ(:method)", "POST", "GET"),
    ("RESPONSE_HEADER(:status)", "200", "418"),
    ("RESPONSE_TRAILER(x)", None, None),
    ("UPSTREAM_HOST_NAME_WITHOUT_PORT", "ep.example", None),
    ("UPSTREAM_HOSTS_ATTEMPTED", "127.0.0.1:42177", None),
    ("UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT", "127.0.0.1", None),
    ("UPSTREAM_HOST_NAMES_ATTEMPTED", "ep.example", None),
    ("UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT", "ep.example", None),
    ("UPSTREAM_CONNECTION_IDS_ATTEMPTED", "2", None),
    ("UPSTREAM_DETECTED_CLOSE_TYPE", "Normal", "Normal"),
    ("UPSTREAM_LOCAL_CLOSE_REASON", None, None),
    ("DOWNSTREAM_DETECTED_CLOSE_TYPE", "Normal", "Normal"),
    ("DOWNSTREAM_LOCAL_CLOSE_REASON", None, None),
    ("DOWNSTREAM_HANDSHAKE_DURATION", None, None),
    ("DOWNSTREAM_CX_RTT", 2, 2),
    ("UPSTREAM_CONNECTION_POOL_READY_DURATION", None, None),
    *((name, 0, 0) for name in sorted(operators.NEEDS_METERS) if "BYTES" in name),
    ("UPSTREAM_SERVER_NAME", None, None),
    ("UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID", "", None),
    ("FILTER_STATE(x)", None, None),
    ("UPSTREAM_FILTER_STATE(x)", None, None),
    ("DYNAMIC_METADATA(n)", None, None),
    ("CLUSTER_METADATA(n:z)", None, None),
    ("UPSTREAM_METADATA(n:k)", "of the endpoint", None),
    ("METADATA(CLUSTER:n:k:x)", None, None),
    ("METADATA(ROUTE:n:k)", 2, None),
    ("METADATA(VIRTUAL_HOST:n:z):2", None, None),
    ("METADATA(LISTENER:n:k)", "of the listener", "of the listener"),
    ("METADATA(LISTENER_FILTER_CHAIN:n)", None, None),
    ("METADATA(UPSTREAM_HOST:n:k):2", "of", None),
    ('COALESCE({"operators":["ROUTE_NAME","PROTOCOL"]})', "r1", "HTTP/1.1"),
    ('COALESCE({"operators":[{"command":"REQ","param":"dup"},"RESPONSE_CODE"]})', "1", 418),
    ('COALESCE({"operators":[{"command":"REQ","param":"user-agent","max_length":4}]})', "curl", None),
    ('COALESCE({"operators":["ROUTE_NAME","UPSTREAM_HOST_NAME"]}):1', "r", None),
    ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(8)", "127.0.0.0/8", "127.0.0.0/8"),
    ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(99)", "127.0.0.1/32", "127.0.0.1/32"),
    ("UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT(x)", "127.0.0.1", None),
    ("RESPONSE_CODE_DETAILS(x)", "via_upstream", "direct_response"),
    ("COMMON_DURATION(DS_RX_BEG:US_RX_BEG)", 2, None),
    ("COMMON_DURATION(US_RX_BEG:DS_RX_BEG:us)", None, None),
    ("COMMON_DURATION(DS_RX_BEG:set_by_a_filter)", None, None),
    ("QUERY_PARAMS(DECODED):3", "a=b", None),
]


@pytest.mark.parametrize(("operator", "of_request", "of_reply"), TABLE)
def test_operator(operator, of_request, of_reply):
    for value, of in ((of_request, stream()), (of_reply, local_reply())):
        assert text_of(operator, of) == ("-" if value is None else str(value))
        assert json_of(operator, of) == value


def test_the_table_names_every_operator_but_those_with_a_test_of_their_own():
    named = {operator.partition("(")[0].partition(":")[0] for operator, *_ in TABLE}
    elsewhere = {"RESPONSE_FLAGS", "RESPONSE_FLAGS_LONG", "UNIQUE_ID", "HOSTNAME", "ENVIRONMENT", "START_TIME_LOCAL"}
    same_reader = {"EMIT_TIME_LOCAL", "DOWNSTREAM_PEER_CERT_V_END", "TLS_JA4_FINGERPRINT"}
    assert {"METADATA", "COALESCE"} <= named
    left = operators.SUPPORTED - named - elsewhere - same_reader
    assert not {name for name in left if "_PEER_" not in name and not name.startswith("DOWNSTREAM_DIRECT")}


@pytest.mark.parametrize(
    "operator",
    [
        name
        for name in sorted(operators.SUPPORTED)
        if name not in operators._WITH_PARAMETERS and "METADATA" not in name and name != "COALESCE"
    ],
)
def test_a_request_that_was_never_read_has_a_line_too(operator):
    compile_text(f"%{operator}%", WHERE, static=STATIC)(
        unparsed(response_headers=None, connection=FakeConnection(1, None, None))
    )


def test_nothing_is_known_of_an_unparsed_request():
    of = unparsed()
    assert [text_of(f"REQ({name})", of) for name in (":method", ":path", ":authority", "a")] == ["-"] * 4
    assert text_of("PROTOCOL", of) == "-"


@pytest.mark.parametrize(
    ("flags", "short", "long"),
    [
        (0, "-", "-"),
        (response_flags.UF, "UF", "UpstreamConnectionFailure"),
        (response_flags.URX | response_flags.UF, "UF,URX", "UpstreamConnectionFailure,UpstreamRetryLimitExceeded"),
    ],
)
def test_response_flags_are_never_null(flags, short, long):
    of = stream(response_flags=flags)
    assert (text_of("RESPONSE_FLAGS", of), text_of("RESPONSE_FLAGS_LONG", of)) == (short, long)
    assert json_of("RESPONSE_FLAGS", of) == short


def test_blanks_in_details_and_reasons_become_underscores():
    of = stream(
        details="upstream reset {connection refused}", upstream_transport_failure_reason="delayed connect error: 111"
    )
    assert text_of("RESPONSE_CODE_DETAILS", of) == "upstream_reset_{connection_refused}"
    assert text_of("RESPONSE_CODE_DETAILS(ALLOW_WHITESPACES)", of) == "upstream reset {connection refused}"
    assert text_of("UPSTREAM_TRANSPORT_FAILURE_REASON", of) == "delayed_connect_error:_111"


def test_values_of_the_process(monkeypatch):
    monkeypatch.setitem(os.environb, b"FORKPROXY_TEST", b"value")
    assert text_of("ENVIRONMENT(FORKPROXY_TEST)", stream()) == "value"
    assert text_of("ENVIRONMENT(FORKPROXY_TEST):2", stream()) == "va"
    assert text_of("HOSTNAME", stream()) == socket.gethostname()
    assert json_of("ENVIRONMENT(FORKPROXY_NO_SUCH)", stream()) == "-"
    first, second = text_of("UNIQUE_ID", stream()), text_of("UNIQUE_ID", stream())
    assert uuid.UUID(first).version == 4
    assert first != second


def test_duration_of_a_stream_that_goes_on():
    loop = FakeLoop()
    loop.now = 51.5
    assert text_of("DURATION", stream(end=0.0, connection=FakeConnection(1, loop=loop))) == "1500"


def test_a_duration_is_not_one_short_by_the_last_bit_of_a_float():
    assert operators.milliseconds(1000.1, 1000.35) == 250
    assert operators.milliseconds(0.1, 0.0) is None


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [("[::1]:80", "::1", 80), ("/run/x.sock", "/run/x.sock", None), ("@name", "@name", None), ("", None, None)],
)
def test_addresses_without_port(address, host, port):
    of = stream(downstream_remote_address=address)
    assert json_of("DOWNSTREAM_REMOTE_ADDRESS", of) == (address or None)
    assert json_of("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", of) == host
    assert json_of("DOWNSTREAM_REMOTE_PORT", of) == port


def test_the_cluster_is_shown_by_its_alternative_name_but_with_its_colons():
    assert text_of("UPSTREAM_CLUSTER", stream(cluster=SimpleNamespace(name="a:b", stat_name="a_b"))) == "a:b"
    of = stream(cluster=SimpleNamespace(name="a:b", stat_name="alt"))
    assert (text_of("UPSTREAM_CLUSTER", of), text_of("UPSTREAM_CLUSTER_RAW", of)) == ("alt", "a:b")


def test_an_endpoint_without_a_name_is_its_address():
    assert (
        text_of("UPSTREAM_HOST_NAME", stream(endpoint=SimpleNamespace(address="1.2.3.4:5", hostname=""))) == "1.2.3.4:5"
    )


def test_original_path():
    of = stream(path=b"/new?q", request_headers=[(b"x-envoy-original-path", b"/old?p")])
    wanted = {"PATH": "/old?p", "PATH(NQ)": "/old", "PATH(NQ:PATH)": "/new", "PATH(WQ:ORIG)": "/old?p"}
    assert {operator: text_of(operator, of) for operator in wanted} == wanted


def test_server_name():
    connection = FakeConnection(1)
    connection.requested_server_name = "sni.example"
    of = stream(connection=connection)
    assert text_of("REQUESTED_SERVER_NAME", of) == "sni.example"
    assert text_of("REQUESTED_SERVER_NAME(SNI_FIRST)", of) == "sni.example"
    assert text_of("REQUESTED_SERVER_NAME(HOST_FIRST)", of) == "h.example"


GRPC = [(b"content-type", b"application/grpc+proto")]


@pytest.mark.parametrize(
    ("changes", "camel", "snake", "number"),
    [
        ({"response_trailers": [(b"grpc-status", b"0")]}, "OK", "OK", 0),
        ({"response_trailers": [(b"x", b"1"), (b"grpc-status", b"5")]}, "NotFound", "NOT_FOUND", 5),
        ({"response_headers": [(b"grpc-status", b"1")]}, "Canceled", "CANCELLED", 1),
        ({"status": 503}, "Unavailable", "UNAVAILABLE", 14),
        ({"status": 200}, "Unknown", "UNKNOWN", 2),
        ({"response_trailers": [(b"grpc-status", b"77")]}, "77", "77", 77),
        ({"response_trailers": [(b"grpc-status", b"x")]}, "-", "-", None),
        ({"status": 0}, "-", "-", None),
        ({"request_headers": [(b"content-type", b"text/plain")]}, "-", "-", None),
    ],
)
def test_grpc_status(changes, camel, snake, number):
    of = stream(**{"request_headers": GRPC, **changes})
    assert text_of("GRPC_STATUS", of) == text_of("GRPC_STATUS(CAMEL_STRING)", of) == camel
    assert text_of("GRPC_STATUS(SNAKE_STRING)", of) == snake
    assert json_of("GRPC_STATUS(NUMBER)", of) == json_of("GRPC_STATUS_NUMBER", of) == number


def test_trailers():
    of = stream(response_trailers=[(b"a", b"1"), (b"a", b"2")])
    assert text_of("TRAILER(nope?A)", of) == "1"
    assert text_of("RESPONSE_TRAILERS_BYTES", of) == "4"


METADATA = {"ns": {"k": "vs", "n": 3, "f": 1.5, "whole": 2.0, "b": True, "o": {"p": "deep"}, "l": [1, "x", None]}}


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("ns:k", "vs", "vs"),
        ("ns:k:deeper", "-", None),
        ("ns:n", "3", 3),
        ("ns:f", "1.5", 1.5),
        ("ns:whole", "2", 2),
        ("ns:b", "true", True),
        ("ns:o:p", "deep", "deep"),
        ("ns:l", '[1,"x",null]', [1, "x", None]),
        ("ns:o", '{"p":"deep"}', {"p": "deep"}),
        ("other", "-", None),
    ],
)
def test_dynamic_metadata(path, text, value):
    of = stream(dynamic_metadata=METADATA)
    assert text_of(f"DYNAMIC_METADATA({path})", of) == text_of(f"METADATA(DYNAMIC:{path})", of) == text
    assert json_of(f"DYNAMIC_METADATA({path})", of) == value


def test_metadata_is_cut():
    of = stream(dynamic_metadata={"ns": {"k": "abcdef", "o": {"p": 1}}})
    assert text_of("DYNAMIC_METADATA(ns:k):3", of) == json_of("DYNAMIC_METADATA(ns:k):3", of) == "abc"
    assert text_of("DYNAMIC_METADATA(ns:o):3", of) == '{"p'


def refusal(text, static=STATIC):
    with pytest.raises(ConfigError) as caught:
        compile_text(text, WHERE, static=static)
    problem = caught.value.problems[0]
    assert (problem.path, problem.line, problem.column) == ("access_log", 9, 5)
    return problem.kind, problem.message, problem.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("%REQ(a)", "Couldn't find valid command at position 0"),
        ("50% off", "at position 2"),
        ("%%%", "at position 2"),
        ("%REQ(a)b%", "at position 0"),
        ("%req(a)%", "at position 0"),
        ("%START_TIME%%", "at position 12"),
        ("%REQ(a):x%", "at position 0"),
        ("%REQ(a):-1%", "at position 0"),
        ("%REQ(a)%)%", "at position 9"),
        ("%REQ%", "REQ requires parameters"),
        ("%REQ()%", "REQ requires parameters"),
        ("%REQ(a?b?c)%", "more than 1 alternative header"),
        ("%PROTOCOL:3%", "PROTOCOL does not take any parameters or length"),
        ("%RESPONSE_CODE(x)%", "RESPONSE_CODE does not take any parameters or length"),
        ("%START_TIME:3%", "START_TIME does not allow length"),
        ("%START_TIME(%s\r)%", "newline"),
        ("%ENVIRONMENT%", "ENVIRONMENT requires parameters"),
        ("%QUERY_PARAM%", "QUERY_PARAM requires parameters"),
        ("%QUERY_PARAMS(x)%", "only 'ORIG'/'DECODED'"),
        ("%PATH(x)%", "only 'WQ'/'NQ'"),
        ("%PATH(WQ:x)%", "only 'ORIG'/'PATH'"),
        ("%DYNAMIC_METADATA%", "requires parameters"),
        ("%METADATA(x)%", "x is not supported type of metadata"),
        ("%GRPC_STATUS(x)%", "only supports CAMEL_STRING"),
        ("%REQUESTED_SERVER_NAME(x)%", "only 'SNI_ONLY'"),
        ("%COMMON_DURATION%", "requires parameters"),
        ("%COMMON_DURATION(x)%", "Invalid common duration configuration: x."),
        ("%COMMON_DURATION(a:b:c)%", "Invalid common duration precision: c."),
        ("%CLUSTER_METADATA(a):3%", "does not allow length"),
        ("%METADATA(X:a)%", "X is not supported type of metadata"),
        ("%FILTER_STATE%", "key cannot be empty"),
        ("%FILTER_STATE(a:FOO)%", "only support PLAIN/TYPED/FIELD"),
        ("%UPSTREAM_FILTER_STATE(a:FIELD)%", "FIELD should be used with the field name"),
        ("%REQUESTED_SERVER_NAME(SNI_FIRST:X)%", "only 'ORIG_OR_HOST'/'HOST'/'ORIG' are allowed"),
        ("%COALESCE%", "requires parameters"),
        ("%COALESCE(x)%", "failed to parse JSON"),
        ("%COALESCE({})%", "must contain 'operators'"),
        ('%COALESCE({"operators":"x"})%', "must be an array"),
        ('%COALESCE({"operators":[]})%', "must not be empty"),
        ('%COALESCE({"operators":["FOO"]})%', "index 0: unknown command: 'FOO'"),
        ('%COALESCE({"operators":[1]})%', "must be either a string"),
        ('%COALESCE({"operators":["PROTOCOL",{}]})%', "index 1: operator object must have 'command'"),
        ('%COALESCE({"operators":[{"command":"REQ","param":1}]})%', "'param' field must be a string"),
        ('%COALESCE({"operators":[{"command":"REQ","param":"a","max_length":0}]})%', "positive integer"),
        ('%COALESCE({"operators":[{"command":"REQ"}]})%', "REQ requires parameters"),
    ],
)
def test_what_envoy_refuses(text, message):
    kind, found, _ = refusal(text)
    assert kind == "error"
    assert message in found


def test_an_unknown_operator_gets_a_suggestion():
    kind, message, hint = refusal("%RESPONSE_COD%")
    assert (kind, hint) == ("error", "did you mean RESPONSE_CODE?")
    assert "RESPONSE_COD" in message
    assert refusal("%QQQQ%")[2] == ""


@pytest.mark.parametrize(
    "text",
    ["%CEL(x)%", "%TYPED_CEL(x)%", "%UPSTREAM_TLS_GROUP%", "%DOWNSTREAM_LOCAL_URI_SAN%", "%ROUTE_RESOLUTION_COUNT%",
     "%COMMON_DURATION(DS_RX_BEG:US_CX_BEG:ms)%",
     '%COALESCE({"operators":["PROTOCOL",{"command":"CEL","param":"x"}]})%'],
)  # fmt: skip
def test_what_envoy_has_and_we_have_not_is_unsupported(text):
    kind, message, _ = refusal(text)
    assert kind == "unsupported"
    assert "does not implement" in message


def test_an_operator_of_a_place_needs_that_place():
    assert refusal("%FILTER_CHAIN_NAME%", {})[0] == "unsupported"
    assert refusal("%METADATA(LISTENER:a)%", {})[0] == "unsupported"


def test_metadata_of_any_kind():
    assert (text_of("CLUSTER_METADATA(n:k)", stream()), json_of("CLUSTER_METADATA(n:k)", stream())) == (
        '[1,{"x":null}]',
        [1, {"x": None}],
    )
    assert (text_of("METADATA(VIRTUAL_HOST:n:k):2", stream()), json_of("METADATA(VIRTUAL_HOST:n:k):2", stream())) == (
        "tr",
        True,
    )


def test_supported_and_unsupported_do_not_overlap():
    assert not operators.SUPPORTED & operators.UNSUPPORTED


def test_a_formats_needs_are_noted_where_it_is_compiled():
    with operators.noting_needs() as outside:
        with operators.noting_needs() as inside:
            compile_text('%COALESCE({"operators":["DOWNSTREAM_WIRE_BYTES_SENT"]})%', WHERE)
        compile_text("%BYTES_SENT%", WHERE)
    assert inside == {"DOWNSTREAM_WIRE_BYTES_SENT"} == outside
    with operators.noting_needs() as later:
        compile_text("%BYTES_SENT%", WHERE)
    assert not later


def test_filter_state_is_what_filters_have_left():
    of = stream(filter_state={"a": "text", "b": {"x": [1], "y": b"bytes"}, "c": object()})
    read = [
        text_of(f"FILTER_STATE({argument})", of)
        for argument in ("a", "a:PLAIN", "b", "b:FIELD:x", "b:FIELD:y", "c", "d")
    ]
    assert read == ["text", "text", '{"x":[1],"y":"bytes"}', "[1]", "bytes", "-", "-"]
    assert text_of("FILTER_STATE(b:FIELD:x):2", of) == "[1"
    assert json_of("FILTER_STATE(b:FIELD:x)", of) == [1]


def test_requested_server_name_by_host():
    of = stream(request_headers=[(b"x-envoy-original-host", b"before.example")])
    assert text_of("REQUESTED_SERVER_NAME(HOST_FIRST)", of) == "before.example"
    assert text_of("REQUESTED_SERVER_NAME(HOST_FIRST:HOST)", of) == "h.example"
    assert text_of("REQUESTED_SERVER_NAME(SNI_FIRST:ORIG)", stream()) == "-"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a:80", "a"), ("a", "a"), ("[::1]:80", "[::1]"), ("::1", "::1"), ("a:b", "a:b"), ("10.0.0.1:1", "10.0.0.1")],
)
def test_a_host_name_without_its_port(name, expected):
    of = stream(endpoint=SimpleNamespace(address="127.0.0.1:1", hostname=name))
    assert text_of("UPSTREAM_HOST_NAME_WITHOUT_PORT", of) == expected


def test_the_handshake_is_counted_from_the_request():
    connection = FakeConnection(1)
    connection.handshake_done_at = 49.5
    assert text_of("DOWNSTREAM_HANDSHAKE_DURATION", stream(connection=connection)) == "-500"


def test_the_formatter_extension_without_query():
    static = {"formatters": ("REQ_WITHOUT_QUERY",)}
    render = compile_text(
        "%REQ_WITHOUT_QUERY(:PATH)% %REQ_WITHOUT_QUERY(x?:path):3% %REQ_WITHOUT_QUERY(x)%", WHERE, static=static
    )
    assert render(stream(path=b"/up/x?a=b?c")) == b"/up/x /up -"
    assert refusal("%REQ_WITHOUT_QUERY(:path)%")[0] == "error"
