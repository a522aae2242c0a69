import pytest

from forkproxy.config.build import route_policies
from forkproxy.config.build.route_policies import InternalRedirectPolicy, MaxStreamDuration
from tests.unit.config.build.building import built

ACTION = "envoy.config.route.v3.RouteAction"


def policies(text):
    return built(route_policies.build_route_policies, ACTION, "{cluster: c, " + text.lstrip("{")).value


def test_nothing():
    made = policies("{}")
    assert made == route_policies.RoutePolicies()


def test_a_redirect_policy_without_fields_follows_302_once():
    assert policies("{internal_redirect_policy: {}}").internal_redirect == InternalRedirectPolicy()


def test_codes_that_are_no_redirects_do_not_count():
    text = "{internal_redirect_policy: {redirect_response_codes: [301, 400], response_headers_to_copy: [X-A]}}"
    made = policies(text).internal_redirect
    assert (made.codes, made.headers_to_copy) == (frozenset((301,)), ("x-a",))
    assert (
        policies("{internal_redirect_policy: {redirect_response_codes: [400]}}").internal_redirect.codes == frozenset()
    )


@pytest.mark.parametrize(
    ("text", "most"),
    [
        ("{internal_redirect_action: HANDLE_INTERNAL_REDIRECT, max_internal_redirects: 3}", 3),
        ("{internal_redirect_action: HANDLE_INTERNAL_REDIRECT}", 1),
        (
            "{internal_redirect_action: HANDLE_INTERNAL_REDIRECT, internal_redirect_policy: {max_internal_redirects: 7}}",
            7,
        ),
    ],
)
def test_the_deprecated_pair(text, most):
    assert policies(text).internal_redirect.max_redirects == most


@pytest.mark.parametrize(
    "text", ["{max_internal_redirects: 3}", "{internal_redirect_action: PASS_THROUGH_INTERNAL_REDIRECT}"]
)
def test_the_deprecated_pair_without_the_action(text):
    assert policies(text).internal_redirect is None


def test_durations():
    text = "{max_stream_duration: {max_stream_duration: 1s, grpc_timeout_header_max: 0s}, max_grpc_timeout: 2s}"
    made = policies(text)
    assert made.max_stream_duration == MaxStreamDuration(1.0, 0.0, None)
    assert (made.grpc_max_s, made.grpc_offset_s) == (2.0, None)
