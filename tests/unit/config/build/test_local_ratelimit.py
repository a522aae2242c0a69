"""``LocalRateLimit`` and ``rate_limits``."""

import pytest

from forkproxy.config.build import local_ratelimit, rate_limit
from forkproxy.config.build.local_ratelimit import TokenBucketConfig
from tests.unit.config.build.building import built, value_of

TYPE = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
BUCKET = "token_bucket: {max_tokens: 1, fill_interval: 1s}"


def value(text):
    return value_of(local_ratelimit.build, TYPE, f"{{stat_prefix: s, {text}}}")


def messages(text, build=local_ratelimit.build):
    outcome = built(build, TYPE, f"{{stat_prefix: s, {text}}}")
    return [each.partition(": ")[2] for each in outcome.errors + outcome.unsupported]


def test_defaults():
    made = value(BUCKET)
    assert made.bucket == TokenBucketConfig(1, 1, 1000)
    assert (made.status, made.enabled, made.enforced, made.always_takes_default) == (429, None, None, True)
    assert (made.stage, made.per_connection, made.shows_limit, made.vh_rate_limits) == (0, False, False, "OVERRIDE")


@pytest.mark.parametrize(("code", "status"), [("503", 503), ("ServiceUnavailable", 503), ("200", 429), ("OK", 429)])
def test_only_an_error_is_a_refusal(code, status):
    assert value(f"status: {{code: {code}}}").status == status


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "token_bucket: {max_tokens: 1, fill_interval: 0.049s}",
            "local rate limit token bucket fill timer must be >= 50ms",
        ),
        (
            "descriptors: [{entries: [{key: a, value: b}], token_bucket: {max_tokens: 1, fill_interval: 0.01s}}]",
            "local rate limit descriptor token bucket fill timer must be >= 50ms",
        ),
        (
            f"descriptors: [&d {{entries: [{{key: a, value: b}}, {{key: c, value: d}}], {BUCKET}}}, *d]",
            "duplicate descriptor in the local rate descriptor: a=b, c=d",
        ),
        (
            "rate_limits: [{stage: 1, actions: [{remote_address: {}}]}]",
            "'stage' field and 'disable_key' field are not supported",
        ),
        (
            "rate_limits: [{disable_key: k, actions: [{remote_address: {}}]}]",
            "'stage' field and 'disable_key' field are not supported",
        ),
        (
            f"descriptors: [{{entries: [{{key: a}}], {BUCKET}}}]",
            "an entry without a value, which stands for any value, is not implemented",
        ),
    ],
)
def test_refusals(text, message):
    assert message in messages(text)


def test_a_route_needs_a_bucket():
    assert messages("stage: 1", local_ratelimit.build_per_route) == [
        "local rate limit token bucket must be set for per filter configs"
    ]
    assert messages(BUCKET, local_ratelimit.build_per_route) == []


def test_what_is_not_done_stays_unread():
    assert built(local_ratelimit.build, TYPE, "{stat_prefix: s, local_cluster_rate_limit: {}}").unread == [
        "local_cluster_rate_limit"
    ]


def test_metadata_of_routes_is_not_read():
    text = "rate_limits: [{actions: [{metadata: {descriptor_key: a, metadata_key: {key: b, path: [{key: c}]}, source: %s}}]}]"
    (action,) = value(text % "DYNAMIC").rate_limits[0].actions
    assert (action.kind, action.key, action.name, action.path) == ("metadata", "a", "b", ("c",))
    assert messages(text % "ROUTE_ENTRY") == ["ROUTE_ENTRY is not implemented"]


def test_hits_count_for_the_filters_own_rate_limits_only():
    text = "rate_limits: [{hits_addend: {number: 3}, actions: [{remote_address: {}}]}]"
    assert [each.hits for each in value(text).rate_limits] == [3]
    host = "envoy.config.route.v3.VirtualHost"

    def build(view, context):
        return rate_limit.build_rate_limits(view.repeated("rate_limits"), context)

    assert [each.hits for each in built(build, host, f"{{name: h, domains: ['*'], {text}}}").value] == [1]
