"""Attempts beside each other: who answers, and that the others are gone."""

from forkproxy.config.build.retry import RetryPolicy
from forkproxy.config.build.route_policies import RoutePolicies
from tests.support.playbook import play, route

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
TRY_S = 2.0
BACK_OFF_S = 0.25


def hedging(*conditions, retries=1, timeout_s=15.0):
    policy = RetryPolicy(frozenset(conditions or ("5xx",)), num_retries=retries, per_try_timeout_s=TRY_S)
    return play(routes=[route(timeout_s=timeout_s, retry_policy=policy, policies=RoutePolicies(hedges=True))])


def two(*conditions, **fields):
    """Two attempts are under way, at upstreams 0 and 1."""
    p = hedging(*conditions, **fields).downstream(GET).expect_upstream(GET, on=0).advance(TRY_S + BACK_OFF_S)
    return p.expect_upstream(GET, on=1).expect_downstream()


def quiet(p):
    assert p.cluster.breakers.retries.count == 0
    return p.expect_quiet()


def test_the_second_answers():
    p = two().upstream(OK, on=1).expect_downstream(OK).expect_upstream_closed(on=0)
    assert p.logged == [(b"GET", b"/", 200, "via_upstream", "")]
    quiet(p)


def test_the_first_answers():
    p = two().upstream(OK, on=0).expect_downstream(OK).expect_upstream_closed(on=1)
    quiet(p)


def test_a_bad_answer_waits_for_a_better_one():
    p = two().upstream(BUSY, on=0).expect_downstream().upstream(OK, on=1).expect_downstream(OK)
    quiet(p)


def test_the_last_bad_answer_is_the_clients():
    p = two().upstream(BUSY, on=0).expect_downstream().upstream(BUSY, on=1).expect_downstream(BUSY)
    quiet(p)


def test_one_is_cut():
    p = two().upstream_resets(on=0).expect_downstream().upstream(OK, on=1).expect_downstream(OK)
    quiet(p)


def test_both_are_cut():
    p = two().upstream_resets(on=0).expect_downstream().upstream_resets(on=1)
    assert p.logged[0][2:4] == (503, "upstream_reset_before_response_started{connection_termination}")
    quiet(p)


def test_a_client_that_leaves():
    p = two()
    p.down.reset()
    p.expect_upstream_closed(on=0).expect_upstream_closed(on=1)
    quiet(p)


def test_a_client_that_leaves_before_the_second():
    p = hedging().downstream(GET).expect_upstream(GET, on=0).advance(TRY_S)
    p.down.reset()
    p.advance(BACK_OFF_S).expect_upstream_closed(on=0)
    quiet(p)


def test_the_whole_time_is_over():
    p = two(timeout_s=5.0).advance(5.0).expect_upstream_closed(on=0).expect_upstream_closed(on=1)
    assert p.logged[0][2:4] == (504, "response_timeout")
    assert p.cluster.stats.upstream_rq_timeout == 2
    quiet(p)


def test_three():
    p = two(retries=2).advance(TRY_S + BACK_OFF_S).expect_upstream(GET, on=2)
    p.upstream(OK, on=1).expect_downstream(OK).expect_upstream_closed(on=0).expect_upstream_closed(on=2)
    quiet(p)


def test_an_answer_that_is_cut_later():
    p = two().upstream(OK[:-1], on=1).expect_downstream(OK[:-1]).expect_upstream_closed(on=0).upstream_resets(on=1)
    assert p.logged[0][2] == 200
    quiet(p)
