"""Numbers, and what is refused at load; what becomes of headers is played beside Envoy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkproxy.config.build.header_to_metadata import HeaderToMetadataConfig, Rule, Target, build, build_per_route
from forkproxy.config.build.listener import FilterEntry
from forkproxy.filters.http.header_to_metadata import number_of
from tests.support.playbook import WHERE, play
from tests.unit.config.build.building import built

MESSAGE = "envoy.extensions.filters.http.header_to_metadata.v3.Config"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_read_as_it_was_written(number):
    assert number_of(repr(number).encode()) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [(b" 7 ", 7), (b"0x1F", 31), (b"-0x1f", -31), (b"1.50", 1.5), (b"1e400", None), (b"nan", None), (b"inf", None),
     (b"1_0", None), (b"", None), (b".", None), (b"0x", None)],
)  # fmt: skip
def test_numbers(text, number):
    assert number_of(text) == number


@pytest.mark.parametrize(
    ("rule", "wrong"),
    [
        ("{header: a, cookie: b, on_header_present: {key: c}}", "Cannot specify both header and cookie"),
        ("{on_header_present: {key: c}}", "One of Cookie or Header option needs to be specified"),
        ("{header: a}", "rule for a has neither `on_header_present` nor `on_header_missing` set"),
        ("{cookie: a, remove: true, on_header_present: {key: c}}", "Cannot specify remove for cookie"),
        ("{header: a, on_header_missing: {key: c}}", "Cannot specify on_header_missing rule with an empty value"),
        (
            "{header: a, on_header_present: {key: c, value: d, regex_value_rewrite: {pattern: {regex: e}}}}",
            "Cannot specify both value and regex_value_rewrite",
        ),
    ],
)
def test_rules_that_are_refused(rule, wrong):
    assert wrong in "".join(built(build, MESSAGE, f"{{request_rules: [{rule}]}}").errors)


@pytest.mark.parametrize(
    "rule",
    [
        "{header: a, on_header_present: {key: c, type: PROTOBUF_VALUE}}",
        "{header: ':path', remove: true, on_header_present: {key: c}}",
    ],
)
def test_what_is_not_implemented(rule):
    assert built(build, MESSAGE, f"{{request_rules: [{rule}]}}").unsupported


def test_a_route_must_say_something():
    assert "must at least specify" in built(build_per_route, MESSAGE, "{}").errors[0]
    assert built(build, MESSAGE, "{}").errors == []


def test_a_removed_header_does_not_go_on_and_is_counted():
    rule = Rule("x-a", "", Target("n", "k"), None, True, WHERE)
    entry = FilterEntry("m", MESSAGE, HeaderToMetadataConfig((rule,), (), "p"), WHERE)
    p = play(filters=[entry]).downstream(b"GET / HTTP/1.1\r\nhost: a\r\nx-a: 1\r\nx-b: 2\r\n\r\n")
    p.expect_upstream(b"GET / HTTP/1.1\r\nhost: a\r\nx-b: 2\r\n\r\n")
    stats = p.manager.chain.filters[0].rules.stats
    assert (stats.request_rules_processed, stats.request_metadata_added, stats.request_header_not_found) == (1, 1, 0)


def test_routes_with_one_configuration_share_their_rules():
    config = HeaderToMetadataConfig()
    asked = play(filters=[FilterEntry("m", MESSAGE, config, WHERE)]).manager.chain.filters[0]
    other = HeaderToMetadataConfig((Rule("a", "", Target("n", "k"), None, False, WHERE),))
    assert asked.route_config([other], None) is asked.route_config([other, config], None)
    assert asked.route_config([], None) is None
