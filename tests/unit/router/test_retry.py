"""Which outcome asks for another attempt, how many there are, and how long to wait for each."""

from types import SimpleNamespace

import pytest

from forkproxy.config.build.circuit_breakers import Thresholds
from forkproxy.config.build.core import HeaderMatcher, StringMatcher
from forkproxy.config.build.retry import RetryPolicy
from forkproxy.router.retry import (
    LIMIT_EXCEEDED,
    LOCAL_RESET,
    NO,
    TOO_MANY,
    YES,
    Retries,
    RetryState,
    compile_retries,
    milliseconds,
)
from forkproxy.stats.groups import ClusterStats
from forkproxy.upstream.circuit_breakers import BreakerCells, Breakers

FAILURES = [
    "connection termination",
    "protocol error",
    "remote connection failure",
    "local connection failure",
    "connection timeout",
    LOCAL_RESET,
]
CONNECTING = FAILURES[2:5]


def retries(*conditions, timeout_s=None, **fields):
    return Retries(RetryPolicy(frozenset(conditions), **fields), timeout_s)


def cluster(max_retries=3):
    breakers = Breakers(Thresholds(max_retries=max_retries), BreakerCells())
    return SimpleNamespace(stats=ClusterStats(), breakers=breakers)


def state(*conditions, target=None, draw=lambda: 0.999999, **fields):
    target = target or cluster()
    return RetryState(retries(*conditions, **fields), target, target.breakers, draw)


@pytest.mark.parametrize(
    ("condition", "statuses"),
    [
        ("5xx", {500, 502, 503, 504, 505, 599}),
        ("gateway-error", {502, 503, 504}),
        ("retriable-4xx", {409}),
        ("retriable-status-codes", {418}),
        ("reset", set()),
        ("refused-stream", set()),
    ],
)
def test_statuses(condition, statuses):
    policy = retries(condition, retriable_status_codes=(418,))
    tried = [200, 404, 409, 418, 429, 499, 500, 502, 503, 504, 505, 599, 600]
    assert {status for status in tried if policy.after_headers(status, [])} == statuses


@pytest.mark.parametrize(
    ("condition", "reasons", "before_request"),
    [
        ("5xx", FAILURES, FAILURES),
        ("gateway-error", FAILURES, FAILURES),
        ("reset", FAILURES, FAILURES),
        ("reset-before-request", [], FAILURES),
        ("connect-failure", CONNECTING, CONNECTING),
        ("refused-stream", [], []),
        ("retriable-4xx", [], []),
    ],
)
def test_resets(condition, reasons, before_request):
    policy = retries(condition)
    tried = [*FAILURES, "overflow"]
    assert [reason for reason in tried if policy.after_reset(reason, True)] == reasons
    assert [reason for reason in tried if policy.after_reset(reason, False)] == before_request


def test_a_rate_limited_answer_is_a_case_of_its_own():
    limited = [(b"x-envoy-ratelimited", b"true")]
    assert not retries("5xx").after_headers(503, limited)
    assert retries("envoy-ratelimited").after_headers(200, limited)
    assert not retries("envoy-ratelimited").after_headers(429, [])


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        ("cancelled", b"1"),
        ("deadline-exceeded", b"4"),
        ("resource-exhausted", b"8"),
        ("internal", b"13"),
        ("unavailable", b"14"),
    ],
)
def test_grpc(condition, code):
    policy = retries(condition)
    tried = [b"%d" % number for number in range(17)]
    assert [each for each in tried if policy.after_headers(200, [(b"grpc-status", each)])] == [code]
    assert not policy.after_headers(200, [])


def test_headers():
    matchers = (HeaderMatcher("x-a", "present"), HeaderMatcher(":status", "string", StringMatcher("exact", "419")))
    policy = retries("retriable-headers", retriable_headers=matchers)
    assert policy.after_headers(200, [(b"x-a", b"")])
    assert policy.after_headers(419, [])
    assert not policy.after_headers(418, [])
    assert not retries("reset", retriable_headers=matchers).after_headers(419, [])


def test_request_headers():
    policy = retries("5xx", retriable_request_headers=(HeaderMatcher("x-may", "present"),))
    assert policy.wants(SimpleNamespace(request_headers=[(b"x-may", b"1")]))
    assert not policy.wants(SimpleNamespace(request_headers=[(b"x-other", b"1")]))
    assert retries("5xx").wants(SimpleNamespace(request_headers=[]))
    assert not retries().wants(SimpleNamespace(request_headers=[]))


def test_the_time_of_an_attempt_counts_only_within_the_whole():
    assert retries("5xx", per_try_timeout_s=1.0, timeout_s=2.0).per_try_timeout_s == 1.0
    assert retries("5xx", per_try_timeout_s=2.0, timeout_s=2.0).per_try_timeout_s is None
    assert retries("5xx", per_try_timeout_s=2.0).per_try_timeout_s == 2.0


def test_a_policy_that_changes_nothing_is_none():
    assert compile_retries(None, 15.0) is None
    assert compile_retries(RetryPolicy(), 15.0) is None
    assert compile_retries(RetryPolicy(per_try_timeout_s=20.0), 15.0) is None
    assert compile_retries(RetryPolicy(per_try_timeout_s=1.0), 15.0).retries is False
    assert compile_retries(RetryPolicy(per_try_idle_timeout_s=1.0), 15.0) is not None


def test_the_number_of_attempts():
    target = cluster()
    left = state("5xx", num_retries=2, target=target)
    assert [left.after_headers(503, [], 0.0) for _ in range(3)] == [YES, YES, LIMIT_EXCEEDED]
    assert target.stats.upstream_rq_retry_limit_exceeded == 1
    assert target.breakers.retries.count == 0


def test_success_is_counted_after_a_retry_only():
    target = cluster()
    left = state("5xx", target=target)
    assert left.after_headers(200, [], 0.0) == NO
    assert target.stats.upstream_rq_retry_success == 0
    assert left.after_reset("connection termination") == YES
    assert target.breakers.retries.count == 1
    assert left.after_headers(404, [], 0.0) == NO
    assert target.stats.upstream_rq_retry_success == 1
    assert target.breakers.retries.count == 0


def test_max_retries_is_a_limit_of_the_cluster():
    target = cluster(max_retries=1)
    first, second = state("5xx", target=target), state("5xx", target=target)
    assert first.after_headers(503, [], 0.0) == YES
    assert second.after_headers(503, [], 0.0) == TOO_MANY
    assert target.stats.upstream_rq_retry_overflow == 1
    first.release()
    first.release()
    assert target.breakers.retries.count == 0


def test_a_sent_head_is_remembered_over_attempts():
    left = state("reset-before-request", num_retries=2)
    assert left.after_reset("connection timeout") == YES
    left.request_started = True
    assert left.after_reset("connection timeout") == NO


def test_the_interval_doubles_up_to_the_maximum():
    left = state("5xx", base_interval_ms=100, max_interval_ms=350)
    assert [left.back_off_s() for _ in range(4)] == [0.099, 0.199, 0.349, 0.349]
    assert state("5xx", draw=lambda: 0.0).back_off_s() == 0.0
    assert state("5xx", draw=lambda: 0.5).back_off_s() == 0.012


NOW = 1_000_000.7
ASKING = {"reset_headers": (("retry-after", "SECONDS"), ("x-reset", "UNIX_TIMESTAMP")), "reset_max_interval_ms": 60_000}


@pytest.mark.parametrize(
    ("headers", "asked_ms"),
    [
        ([(b"retry-after", b"10")], 10_000),
        ([(b"retry-after", b"60")], 60_000),
        ([(b"retry-after", b"61")], 0),
        ([(b"retry-after", b"0")], 0),
        ([(b"retry-after", b"soon")], 0),
        ([(b"retry-after", b"61"), (b"x-reset", b"1000005")], 5_000),
        ([(b"x-reset", b"1000000")], 0),
        ([(b"x-reset", b"9")], 0),
        ([], 0),
    ],
)
def test_what_a_response_asks_for(headers, asked_ms):
    assert retries("5xx", **ASKING).asked_interval_ms(headers, NOW) == asked_ms


def test_an_interval_that_was_asked_for_is_a_lower_bound_once():
    target = cluster()
    left = state("5xx", num_retries=2, target=target, draw=lambda: 0.5, **ASKING)
    assert left.after_headers(503, [(b"retry-after", b"10")], NOW) == YES
    assert left.back_off_s() == 12.5
    left.begin()
    assert left.after_headers(503, [], NOW) == YES
    assert left.back_off_s() == 0.012
    left.begin()
    stats = target.stats
    assert (stats.upstream_rq_retry_backoff_ratelimited, stats.upstream_rq_retry_backoff_exponential) == (1, 1)
    assert stats.upstream_rq_retry == 2


@pytest.mark.parametrize(
    ("seconds", "whole"), [(None, 0), (0.0, 0), (1.001, 1001), (0.0019, 1), (4.35, 4350), (15.0, 15000)]
)
def test_milliseconds(seconds, whole):
    assert milliseconds(seconds) == whole
