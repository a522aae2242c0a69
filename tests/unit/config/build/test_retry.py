"""RetryPolicy, as routes and virtual hosts carry it."""

import pytest

from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import HeaderMatcher
from forkproxy.config.build.retry import RetryPolicy, build_retry_policy
from tests.unit.config.build.building import built, value_of

POLICY = "envoy.config.route.v3.RetryPolicy"
PREVIOUS = "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
CANARY = "type.googleapis.com/envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate"
OMIT = "type.googleapis.com/envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig"
PRIORITIES = "type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"


def policy(text, context=None):
    made = value_of(build_retry_policy, POLICY, text, context)
    return {
        name: getattr(made, name)
        for name in RetryPolicy.__slots__
        if name != "where" and getattr(made, name) != getattr(RetryPolicy(), name)
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", {}),
        ("{retry_on: 'nonsense, 5xx,reset'}", {"retry_on": {"5xx", "reset"}}),
        ("{retry_on: 'unavailable'}", {"retry_on": {"unavailable"}}),
        ("{num_retries: 0}", {"num_retries": 0}),
        ("{per_try_timeout: 2s, per_try_idle_timeout: 1s}", {"per_try_timeout_s": 2.0, "per_try_idle_timeout_s": 1.0}),
        ("{per_try_timeout: 0s}", {}),
        ("{retriable_status_codes: [418, 419]}", {"retriable_status_codes": (418, 419)}),
        ("{retriable_headers: [{name: X-A}]}", {"retriable_headers": (HeaderMatcher("x-a", "present"),)}),
        ("{retriable_request_headers: [{name: x}]}", {"retriable_request_headers": (HeaderMatcher("x", "present"),)}),
        ("{retry_back_off: {base_interval: 0.1s}}", {"base_interval_ms": 100, "max_interval_ms": 1000}),
        ("{retry_back_off: {base_interval: 0.1s, max_interval: 0.1s}}", {"base_interval_ms": 100, "max_interval_ms": 100}),
        ("{retry_back_off: {base_interval: 0.0001s, max_interval: 0.0002s}}", {"base_interval_ms": 1, "max_interval_ms": 1}),
        ("{host_selection_retry_max_attempts: 4}", {"host_selection_max_attempts": 4}),
        (f"{{retry_host_predicate: [{{name: a, typed_config: {{'@type': {PREVIOUS}}}}}]}}", {"avoid_previous_hosts": True}),
        (
            "{rate_limited_retry_back_off: {reset_headers: [{name: Retry-After}, {name: x, format: UNIX_TIMESTAMP}]}}",
            {"reset_headers": (("retry-after", "SECONDS"), ("x", "UNIX_TIMESTAMP"))},
        ),
        (
            "{rate_limited_retry_back_off: {reset_headers: [{name: a}], max_interval: 9s}}",
            {"reset_headers": (("a", "SECONDS"),), "reset_max_interval_ms": 9000},
        ),
    ],
)  # fmt: skip
def test_fields(text, expected):
    assert policy(text) == expected


def test_no_policy():
    assert build_retry_policy(None, BuildContext()) is None


def test_the_runtime_base_interval():
    context = BuildContext(runtime={"upstream.base_retry_backoff_ms": 3})
    assert policy("{}", context) == {"base_interval_ms": 3, "max_interval_ms": 30}


def test_the_maximum_is_not_below_the_base():
    outcome = built(build_retry_policy, POLICY, "{retry_back_off: {base_interval: 2s, max_interval: 1s}}")
    assert outcome.errors == [
        "retry_back_off.max_interval: retry_policy.max_interval must greater than or equal to the base_interval"
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{{retry_host_predicate: [{{name: a, typed_config: {{'@type': {CANARY}}}}}]}}", {"omit_canaries": True}),
        (
            f"{{retry_host_predicate: [{{name: a, typed_config: {{'@type': {OMIT}, metadata_match:"
            f" {{filter_metadata: {{envoy.lb: {{b: 1, a: x}}}}}}}}}}, {{name: b, typed_config: {{'@type': {PREVIOUS}}}}}]}}",
            {"omit_metadata": ((("a", "x"), ("b", 1)),), "avoid_previous_hosts": True},
        ),
        (
            f"{{retry_priority: {{name: a, typed_config: {{'@type': {PRIORITIES}, update_frequency: 2}}}}}}",
            {"previous_priorities": 2},
        ),
    ],
)
def test_which_endpoints_a_retry_avoids(text, expected):
    assert policy(text) == expected


def test_what_is_not_had_is_said():
    struct = "{'@type': type.googleapis.com/google.protobuf.Struct}"
    outcome = built(
        build_retry_policy,
        POLICY,
        f"{{retry_host_predicate: [{{name: a, typed_config: {struct}}}], retry_priority: {{name: a, typed_config: {struct}}}}}",
    )
    assert [problem.partition(": ")[2] for problem in outcome.unsupported] == [
        "the host predicate (google.protobuf.Struct) is not implemented",
        "the retry priority (google.protobuf.Struct) is not implemented",
    ]
