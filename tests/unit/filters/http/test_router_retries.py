"""Attempts after the first: what each sends, what is waited for, and that nothing is left behind."""

import errno
import gc

import pytest

from forkproxy.config.build.circuit_breakers import CircuitBreakers, Thresholds
from forkproxy.config.build.load_balancing import LoadBalancingConfig
from forkproxy.config.build.retry import RetryPolicy
from forkproxy.http.filter import HttpFilter
from tests.support.playbook import endpoint, play, route

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
BUSY = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n"
BACK_OFF_S = 0.25  # the longest of Envoy's default


def policy(*conditions, **fields):
    return RetryPolicy(frozenset(conditions or ("5xx",)), **fields)


def retrying(*conditions, timeout_s=15.0, virtual_host=None, cluster=None, router=None, limit=1 << 20, **fields):
    routes = [route(timeout_s=timeout_s, retry_policy=policy(*conditions, **fields))]
    return play(
        routes=routes, virtual_host=virtual_host, cluster=cluster, router=router, buffer_limit_bytes=limit
    )  # fmt: skip


def quiet(p):
    """Nothing is under way, no retry is held, no timer of ours waits."""
    assert p.cluster.breakers.retries.count == 0
    return p.expect_quiet()


def test_a_second_attempt_on_the_same_connection():
    p = retrying().downstream(GET).expect_upstream(GET).upstream(BUSY)
    assert p.cluster.breakers.retries.count == 1
    p.expect_downstream(b"").advance(BACK_OFF_S).expect_upstream(GET, on=0).upstream(OK)
    p.expect_downstream(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    stats = p.cluster.stats
    assert (stats.upstream_rq_retry, stats.upstream_rq_retry_success, stats.upstream_rq_total) == (1, 1, 2)
    assert (dict(stats.retry__upstream_rq), dict(stats.external__upstream_rq)) == ({503: 1}, {200: 1})
    assert p.logged == [(b"GET", b"/", 200, "via_upstream", "")]
    quiet(p).exchange()


def test_an_answer_with_a_body_costs_its_connection():
    p = retrying().downstream(GET).expect_upstream(GET)
    p.upstream(b"HTTP/1.1 503 Busy\r\ncontent-length: 2\r\n\r\nno").expect_upstream_closed(on=0)
    p.advance(BACK_OFF_S).expect_upstream(GET, on=1).upstream(OK)
    p.expect_downstream(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    quiet(p)


@pytest.mark.parametrize("cut", [1, 20, 45])
def test_an_answer_in_pieces(cut):
    answer = b"HTTP/1.1 503 Busy\r\ncontent-length: 5\r\n\r\nhello"
    p = retrying().downstream(GET).expect_upstream(GET).upstream(answer[:cut], answer[cut:])
    p.advance(BACK_OFF_S).expect_upstream(GET, on=1).upstream(OK)
    p.expect_downstream(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    quiet(p)


def test_the_last_answer_goes_on_when_there_are_no_more_attempts():
    p = retrying(num_retries=1).downstream(GET).expect_upstream(GET).upstream(BUSY)
    p.advance(BACK_OFF_S).expect_upstream(GET).upstream(b"HTTP/1.1 502 Bad\r\ncontent-length: 3\r\n\r\nbad")
    p.expect_downstream(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 3\r\n\r\nbad")
    assert p.logged[0][2:] == (502, "via_upstream", "URX")
    quiet(p)


def test_a_failed_attempt_says_that_it_was_not_the_first():
    p = retrying().downstream(GET).expect_upstream(GET).upstream_resets().advance(BACK_OFF_S)
    p.expect_upstream(GET, on=1).upstream_ends()
    assert b"headers. retried and the latest reset reason: connection termination" in p.down.read()
    assert p.logged[0][2:] == (503, "upstream_reset_before_response_started{connection_termination}", "URX,UC")
    assert p.cluster.endpoints[0].stats.rq_error == 2
    quiet(p)


def test_connections_that_are_refused():
    p = retrying("connect-failure", num_retries=2)
    p.auto_accept = False
    p.downstream(GET)
    for attempt in range(3):
        assert len(p.upstreams) == attempt + 1
        p.upstreams[-1].refuse(errno.ECONNREFUSED)
        p.advance(BACK_OFF_S)
    assert p.logged[0][4] == "URX,UF"
    assert p.cluster.stats.upstream_rq_retry == 2
    quiet(p)


def test_an_early_end_is_no_reason_for_reset_before_request():
    p = retrying("reset-before-request").downstream(GET).expect_upstream(GET).upstream_ends()
    assert p.logged[0][4] == "UC"
    quiet(p)


def test_no_retry_beyond_max_retries():
    limits = CircuitBreakers(Thresholds(max_retries=0))
    p = retrying(cluster={"circuit_breakers": limits}).downstream(GET).expect_upstream(GET).upstream(BUSY)
    assert p.logged[0][2:] == (503, "via_upstream", "UO")
    assert p.cluster.stats.upstream_rq_retry_overflow == 1
    quiet(p)


def test_other_endpoints_are_preferred():
    def tried(**fields):
        cluster = {"endpoints": [endpoint(1), endpoint(2)], "load_balancing": LoadBalancingConfig("RANDOM")}
        p = retrying(num_retries=3, cluster=cluster, **fields)
        p.downstream(GET)
        p.upstreams[0].read()
        p.upstreams[0].end()
        p.advance(BACK_OFF_S)
        return len({peer.connection.remote_address for peer in p.upstreams})

    assert all(tried(avoid_previous_hosts=True, host_selection_max_attempts=60) == 2 for _ in range(20))
    assert not all(tried() == 2 for _ in range(60))


def test_endpoints_that_are_gone_by_then():
    p = retrying().downstream(GET).expect_upstream(GET).upstream(BUSY)
    p.cluster.set_endpoints([])
    p.advance(BACK_OFF_S)
    assert p.logged[0][2:] == (503, "no_healthy_upstream", "UH")
    assert p.cluster.breakers.retries.count == 0


def test_without_retries_in_the_policy_only_the_time_counts():
    p = play(routes=[route(retry_policy=RetryPolicy(per_try_timeout_s=1.0))]).downstream(GET).expect_upstream(GET)
    p.advance(1.0)
    assert p.logged[0][2:] == (504, "upstream_per_try_timeout", "UT")
    quiet(p.expect_upstream_closed())


def test_the_virtual_hosts_policy_is_for_routes_without_one():
    p = play(virtual_host={"retry_policy": policy("5xx")}).downstream(GET).expect_upstream(GET).upstream(BUSY)
    p.advance(BACK_OFF_S).expect_upstream(GET)
    p = play(routes=[route(retry_policy=policy("reset"))], virtual_host={"retry_policy": policy("5xx")})
    p.downstream(GET).expect_upstream(GET).upstream(BUSY)
    assert p.logged[0][2] == 503


def test_a_route_without_a_policy_has_none():
    p = play().downstream(GET).expect_upstream(GET).upstream(BUSY)
    assert p.logged[0][2] == 503


# -- the request's body


@pytest.mark.parametrize("pieces", [[b"abcd"], [b"ab", b"cd"]])
def test_the_body_is_sent_again(pieces):
    p = retrying().downstream(POST, *pieces).expect_upstream(POST + b"abcd").upstream(BUSY).advance(BACK_OFF_S)
    p.expect_upstream(POST + b"abcd").upstream(OK).expect_downstream(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    quiet(p).exchange()


def test_a_chunked_body_is_sent_again():
    head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    p = retrying().downstream(head, b"2\r\nab\r\n", b"2\r\ncd\r\n0\r\n\r\n")
    sent = head + b"2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n"
    p.expect_upstream(sent).upstream(BUSY).advance(BACK_OFF_S).expect_upstream(sent).upstream(OK)
    quiet(p)


def test_a_body_that_is_still_coming_goes_on_in_the_next_attempt():
    p = retrying().downstream(POST, b"a").expect_upstream(POST + b"a").upstream(BUSY).expect_upstream_closed()
    p.downstream(b"b").advance(BACK_OFF_S).expect_upstream(POST + b"ab", on=1).downstream(b"cd")
    p.expect_upstream(b"cd", on=1).upstream(OK).expect_downstream(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    quiet(p)


def test_a_body_that_ends_in_the_back_off():
    p = retrying(timeout_s=1.0).downstream(POST, b"ab").expect_upstream(POST + b"ab").upstream(BUSY)
    p.downstream(b"cd").advance(BACK_OFF_S).expect_upstream(POST + b"abcd", on=1).advance(1.0)
    assert p.logged[0][2:] == (504, "response_timeout", "UT")
    quiet(p)


def test_too_large_a_body_is_not_sent_again():
    p = retrying(limit=3).downstream(POST, b"abcd").expect_upstream(POST + b"abcd").upstream(BUSY)
    assert p.logged[0][2:] == (503, "via_upstream", "")
    assert p.cluster.stats.retry_or_shadow_abandoned == 1
    quiet(p)


def test_a_filters_limit_takes_the_place_of_the_connections():
    class Limit(HttpFilter):
        def decode_headers(self, stream, headers, end_stream):
            stream.decode_buffer_limit = 3

    p = play(Limit(), routes=[route(retry_policy=policy())]).downstream(POST, b"abcd").expect_upstream(POST + b"abcd")
    p.upstream(BUSY)
    assert p.cluster.stats.retry_or_shadow_abandoned == 1


def test_too_much_of_a_body_in_the_back_off():
    p = retrying(limit=3).downstream(POST, b"ab").expect_upstream(POST + b"ab").upstream(BUSY).downstream(b"cd")
    assert b"exceeded request buffer limit while retrying upstream" in p.down.read()
    assert p.logged[0][2:4] == (507, "request_payload_exceeded_retry_buffer_limit")
    p.advance(BACK_OFF_S)
    assert len(p.upstreams) == 1
    assert p.cluster.breakers.retries.count == 0


# -- what an attempt is told


def test_attempt_counts():
    counting = {"include_request_attempt_count": True, "include_attempt_count_in_response": True}
    p = retrying(virtual_host=counting).downstream(GET)
    sent = b"GET / HTTP/1.1\r\nhost: a\r\nx-envoy-attempt-count: %d\r\n\r\n"
    p.expect_upstream(sent % 1).upstream(BUSY).advance(BACK_OFF_S).expect_upstream(sent % 2).upstream(OK)
    assert b"x-envoy-attempt-count: 2\r\n" in p.down.read()


def test_our_own_answers_tell_the_attempts():
    p = play(virtual_host={"include_attempt_count_in_response": True}).downstream(GET).upstream_ends()
    assert b"x-envoy-attempt-count: 1\r\n" in p.down.read()
    p = play(virtual_host={"include_attempt_count_in_response": True}).downstream(GET).advance(15.0)
    assert b"x-envoy-attempt-count: 1\r\n" in p.down.read()


def expected_ms(p):
    head = next(peer for peer in p.upstreams if peer.sock.outbox).read()
    return int(head.partition(b"x-envoy-expected-rq-timeout-ms: ")[2].partition(b"\r\n")[0])


def test_the_expected_time_is_what_is_left():
    p = retrying().downstream(GET)
    assert expected_ms(p) == 15000
    p.advance(4.0).upstream(BUSY).advance(BACK_OFF_S)
    assert 15000 - 4000 - 250 <= expected_ms(p) <= 11000


def test_the_expected_time_of_one_attempt():
    p = retrying(per_try_timeout_s=3.0, num_retries=9, timeout_s=5.0).downstream(GET)
    assert expected_ms(p) == 3000
    p.advance(1.0).upstream(BUSY).advance(BACK_OFF_S)
    assert expected_ms(p) == 3000
    p.advance(2.5).upstream(BUSY).advance(BACK_OFF_S)
    assert 0 < expected_ms(p) < 1501


# -- time


def test_the_time_of_an_attempt_begins_with_its_connection():
    p = retrying(per_try_timeout_s=1.0)
    p.auto_accept = False
    p.downstream(GET).advance(2.0)
    p.upstreams[0].accept()
    p.advance(0.99)
    assert p.cluster.stats.upstream_rq_per_try_timeout == 0
    p.auto_accept = True
    p.advance(0.01 + BACK_OFF_S)
    assert p.cluster.stats.upstream_rq_per_try_timeout == 1
    p.expect_upstream_closed(on=0).expect_upstream(GET, on=1).upstream(OK)
    quiet(p)


def test_the_time_of_an_attempt_begins_with_the_end_of_the_request():
    p = retrying(per_try_timeout_s=1.0).downstream(POST).advance(5.0).downstream(b"abcd").advance(0.9)
    assert p.cluster.stats.upstream_rq_per_try_timeout == 0
    p.advance(0.1)
    assert p.cluster.stats.upstream_rq_per_try_timeout == 1


def test_an_answer_that_has_begun_may_take_longer():
    p = retrying(per_try_timeout_s=1.0).downstream(GET).upstream(OK[:-1]).advance(5.0).upstream(b"k")
    p.expect_downstream(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    quiet(p)


def test_idle_attempts():
    p = retrying(per_try_idle_timeout_s=1.0).downstream(GET).expect_upstream(GET).advance(1.0 + BACK_OFF_S)
    assert p.cluster.stats.upstream_rq_per_try_idle_timeout == 1
    p.expect_upstream(GET, on=1).advance(0.7).upstream(OK[:-2]).advance(0.9).upstream(b"o").advance(0.9).upstream(b"k")
    p.expect_downstream(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    quiet(p)


def test_an_answer_that_stops_is_idle():
    p = retrying(per_try_idle_timeout_s=1.0).downstream(GET).expect_upstream(GET).upstream(OK[:-1]).advance(1.0)
    p.expect_closed()
    assert p.logged[0][3:] == ("upstream_per_try_idle_timeout", "UT")
    assert p.cluster.stats.upstream_rq_retry == 0
    quiet(p)


def test_the_whole_time_ends_a_back_off():
    asked = RetryPolicy(frozenset(("5xx",)), reset_headers=(("retry-after", "SECONDS"),))
    p = play(routes=[route(timeout_s=2.0, retry_policy=asked)]).downstream(GET).expect_upstream(GET)
    p.upstream(b"HTTP/1.1 503 Busy\r\nretry-after: 9\r\ncontent-length: 0\r\n\r\n").advance(2.0)
    assert p.logged[0][2:] == (504, "response_timeout", "UT")
    assert p.cluster.stats.upstream_rq_timeout == 0
    p.advance(20.0)
    assert p.cluster.stats.upstream_rq_total == 1
    quiet(p)


# -- the downstream leaves


def test_the_downstream_leaves_in_the_back_off():
    p = retrying().downstream(GET).expect_upstream(GET).upstream(BUSY).downstream_resets().advance(BACK_OFF_S)
    assert p.cluster.stats.upstream_rq_total == 1
    quiet(p)


def test_the_downstream_leaves_in_the_second_attempt():
    p = retrying().downstream(GET).expect_upstream(GET).upstream(BUSY).advance(BACK_OFF_S).downstream_resets()
    quiet(p.expect_upstream_closed())


def test_an_interim_answer_is_the_last_attempt():
    p = retrying().downstream(GET).expect_upstream(GET).upstream(b"HTTP/1.1 103 Hints\r\n\r\n" + BUSY)
    assert p.logged[0][2:4] == (503, "via_upstream")
    quiet(p)


def test_retried_requests_leave_nothing_behind():
    p = retrying(per_try_timeout_s=1.0, per_try_idle_timeout_s=1.0)
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            p.downstream(POST + b"abcd").upstream(BUSY).advance(BACK_OFF_S).upstream(OK)
            p.advance(2.0)
            p.down.read()
            p.upstreams[-1].read()
        assert len(p.logged) == 20
        assert gc.collect() == 0
    finally:
        gc.enable()
