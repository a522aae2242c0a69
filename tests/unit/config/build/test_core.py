"""What several messages share."""

from __future__ import annotations

import pytest

from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import (
    AddressConfig,
    FractionalPercent,
    HeaderMatcher,
    QueryParameterMatcher,
    StringMatcher,
    build_address,
    build_cidr_range,
    build_header_matcher,
    build_header_mutations,
    build_query_parameter_matcher,
    build_runtime_fraction,
    build_runtime_uint,
    build_string_matcher,
    build_where,
)
from tests.unit.config.build.building import built, value_of, view_of

ADDRESS = "envoy.config.core.v3.Address"
HEADER = "envoy.config.route.v3.HeaderMatcher"
STRING = "envoy.type.matcher.v3.StringMatcher"
FRACTION = "envoy.config.core.v3.RuntimeFractionalPercent"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{socket_address: {address: 127.0.0.1, port_value: 80}}", AddressConfig("127.0.0.1", 80)),
        (
            "{socket_address: {address: '::', port_value: 0, ipv4_compat: true}}",
            AddressConfig("::", 0, ipv4_compat=True),
        ),
        (
            "{pipe: {path: /run/x, mode: 0o600}}".replace("0o600", "384"),
            AddressConfig(pipe_path="/run/x", pipe_mode=384),
        ),
    ],
)
def test_addresses(text, expected):
    assert value_of(build_address, ADDRESS, text) == expected


def test_address_that_the_data_path_has_not():
    udp = built(build_address, ADDRESS, "{socket_address: {address: 127.0.0.1, port_value: 80, protocol: UDP}}")
    assert udp.unsupported == ["socket_address.protocol: UDP is not implemented"]
    named = built(build_address, ADDRESS, "{socket_address: {address: a, named_port: http, resolver_name: x}}")
    assert named.unread == ["socket_address.named_port", "socket_address.resolver_name"]
    internal = built(build_address, ADDRESS, "{envoy_internal_address: {server_listener_name: x}}")
    assert internal.unread == ["envoy_internal_address"]


def test_addresses_print_as_envoy_prints_them():
    assert str(AddressConfig("::1", 80)) == "[::1]:80"
    assert str(AddressConfig("127.0.0.1", 80)) == "127.0.0.1:80"
    assert str(AddressConfig(pipe_path="@x")) == "@x"


def test_where_is_the_place_of_the_message():
    view = view_of("\n\n  pipe: {path: x}", ADDRESS)
    assert (build_where(view).line, build_where(view).column) == (3, 3)
    assert build_where(view.require("pipe")).path == "pipe"


def test_header_mutations():
    text = """
        request_headers_to_add:
        - {header: {key: X-A, value: "%PROTOCOL%"}}
        - {header: {key: x-b}, append: false, keep_empty_value: true}
        - {header: {key: x-c, value: v}, append: true}
        - {header: {key: x-d, value: v}, append_action: ADD_IF_ABSENT}
        - {header: {key: x-e, value: v}, append_action: OVERWRITE_IF_EXISTS}
        request_headers_to_remove: [X-Gone]
        response_headers_to_add: [{header: {key: x-f, value: v}}]
        response_headers_to_remove: [server]
        """
    made = value_of(build_header_mutations, "envoy.config.route.v3.RouteConfiguration", text)
    assert [(o.key, o.value, o.append_action, o.keep_empty_value) for o in made.request_add] == [
        ("x-a", "%PROTOCOL%", "APPEND_IF_EXISTS_OR_ADD", False),
        ("x-b", "", "OVERWRITE_IF_EXISTS_OR_ADD", True),
        ("x-c", "v", "APPEND_IF_EXISTS_OR_ADD", False),
        ("x-d", "v", "ADD_IF_ABSENT", False),
        ("x-e", "v", "OVERWRITE_IF_EXISTS", False),
    ]
    assert made.request_remove == ("x-gone",)
    assert [option.key for option in made.response_add] == ["x-f"]
    assert made.response_remove == ("server",)
    assert made.request_add[1].where.path == "request_headers_to_add[1]"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{exact: a}", StringMatcher("exact", "a")),
        ("{prefix: a, ignore_case: true}", StringMatcher("prefix", "a", True)),
        ("{suffix: a}", StringMatcher("suffix", "a")),
        ("{contains: a}", StringMatcher("contains", "a")),
        ("{safe_regex: {google_re2: {max_program_size: 99}, regex: 'a+'}}", StringMatcher("safe_regex", "a+")),
    ],
)
def test_string_matchers(text, expected):
    assert value_of(build_string_matcher, STRING, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{name: X-A}", HeaderMatcher("x-a", "present")),
        ("{name: x, present_match: false}", HeaderMatcher("x", "present", present=False)),
        ("{name: x, exact_match: A}", HeaderMatcher("x", "string", StringMatcher("exact", "A"))),
        ("{name: x, prefix_match: a}", HeaderMatcher("x", "string", StringMatcher("prefix", "a"))),
        ("{name: x, suffix_match: a}", HeaderMatcher("x", "string", StringMatcher("suffix", "a"))),
        ("{name: x, contains_match: a}", HeaderMatcher("x", "string", StringMatcher("contains", "a"))),
        ("{name: x, safe_regex_match: {regex: a}}", HeaderMatcher("x", "string", StringMatcher("safe_regex", "a"))),
        ("{name: x, range_match: {start: -1, end: 5}}", HeaderMatcher("x", "range", range_start=-1, range_end=5)),
        (
            "{name: ':path', string_match: {exact: /, ignore_case: true}, invert_match: true}",
            HeaderMatcher(":path", "string", StringMatcher("exact", "/", True), invert=True),
        ),
        (
            "{name: x, exact_match: a, treat_missing_header_as_empty: true}",
            HeaderMatcher("x", "string", StringMatcher("exact", "a"), treat_missing_as_empty=True),
        ),
    ],
)
def test_header_matchers(text, expected):
    assert value_of(build_header_matcher, HEADER, text) == expected


def test_a_custom_string_matcher_stays_unread():
    text = (
        "{name: x, string_match: {custom: {name: lua, typed_config: "
        "{'@type': type.googleapis.com/envoy.extensions.string_matcher.lua.v3.Lua, source_code: {inline_string: x}}}}}"
    )
    assert built(build_header_matcher, HEADER, text).unread == ["string_match.custom"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{name: a}", QueryParameterMatcher("a")),
        ("{name: a, present_match: false}", QueryParameterMatcher("a", None, False)),
        ("{name: a, string_match: {exact: b}}", QueryParameterMatcher("a", StringMatcher("exact", "b"))),
    ],
)
def test_query_parameter_matchers(text, expected):
    assert value_of(build_query_parameter_matcher, "envoy.config.route.v3.QueryParameterMatcher", text) == expected


@pytest.mark.parametrize(
    ("runtime", "expected"),
    [
        ({}, FractionalPercent(5, 10_000, "k")),
        ({"k": 30}, FractionalPercent(30, 100, "k")),  # an integer counts in percent
        ({"k": 130}, FractionalPercent(100, 100, "k")),
        ({"k": {"numerator": 7, "denominator": "MILLION"}}, FractionalPercent(7, 1_000_000, "k")),
        ({"k": True}, FractionalPercent(5, 10_000, "k")),
        ({"other": 1}, FractionalPercent(5, 10_000, "k")),
    ],
)
def test_a_static_runtime_layer_replaces_a_fraction(runtime, expected):
    text = "{default_value: {numerator: 5, denominator: TEN_THOUSAND}, runtime_key: k}"
    assert value_of(build_runtime_fraction, FRACTION, text, BuildContext(runtime=runtime)) == expected


def test_a_static_runtime_layer_replaces_an_integer():
    text = "{default_value: 5, runtime_key: k}"
    assert value_of(build_runtime_uint, "envoy.config.core.v3.RuntimeUInt32", text) == 5
    context = BuildContext(runtime={"k": 6})
    assert value_of(build_runtime_uint, "envoy.config.core.v3.RuntimeUInt32", text, context) == 6
    assert context.runtime_used == {"k"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{address_prefix: 10.1.2.3, prefix_len: 8}", "10.0.0.0/8"),
        ("{address_prefix: 10.1.2.3}", "0.0.0.0/0"),
        ("{address_prefix: 10.1.2.3, prefix_len: 99}", "10.1.2.3/32"),  # as Envoy
        ("{address_prefix: '::1', prefix_len: 128}", "::1/128"),
    ],
)
def test_address_ranges(text, expected):
    assert value_of(build_cidr_range, "envoy.config.core.v3.CidrRange", text) == expected


def test_an_address_range_that_is_none():
    outcome = built(build_cidr_range, "envoy.config.core.v3.CidrRange", "{address_prefix: here}")
    assert outcome.errors == ["address_prefix: malformed IP address: here"]
