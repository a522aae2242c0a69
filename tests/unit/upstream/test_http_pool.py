"""Connections to an endpoint: who gets which, and when one may be used again. Played as conversations."""

import errno

import pytest

from forkproxy.config.build.circuit_breakers import CircuitBreakers, Thresholds
from forkproxy.config.build.connection_pool import HttpOptions, PoolOptions
from forkproxy.config.build.load_balancing import LoadBalancingConfig
from forkproxy.config.build.retry import RetryPolicy
from forkproxy.upstream import health
from forkproxy.upstream.endpoint import ResolvedEndpoint
from tests.support.playbook import play, route

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
EVIL = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"


def get(path, *headers):
    lines = b"".join([header + b"\r\n" for header in headers])
    return b"GET %b HTTP/1.1\r\nhost: a\r\n%b\r\n" % (path, lines)


def refused(reason):
    body = b"upstream connect error or disconnect/reset before headers. reset reason: " + reason
    return (
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: %d\r\ncontent-type: text/plain\r\n\r\n" % len(body) + body
    )


def three_requests(p):
    """Three clients ask /0, /1, /2 at once."""
    downs = []
    for number in range(3):
        downs.append(p.connect())
        p.downstream(get(b"/%d" % number))
    return downs


# -- reuse


def test_a_free_connection_is_used_again():
    p = play().exchange().exchange()
    assert len(p.upstreams) == 1
    stats = p.cluster.stats
    assert (stats.upstream_cx_total, stats.upstream_rq_total, stats.upstream_rq_pending_total) == (1, 2, 1)
    assert (p.cluster.endpoints[0].stats.rq_total, p.cluster.endpoints[0].stats.rq_success) == (2, 2)


def test_the_one_that_was_used_last_is_used_first():
    p = play()
    three_requests(p)
    for number in (0, 2, 1):
        p.upstream(OK, on=number)
        p.upstreams[number].read()
    p.downstream(GET).expect_upstream(GET, on=1)
    p.connect()
    p.downstream(GET).expect_upstream(GET, on=2)


def test_every_waiting_request_gets_a_connection():
    p = play()
    p.auto_accept = False
    three_requests(p)
    assert len(p.upstreams) == 3
    assert p.cluster.stats.upstream_rq_pending_active == 3
    p.upstreams[2].accept()
    p.expect_upstream(get(b"/0"), on=2)  # the oldest takes the first that stands
    p.upstreams[0].accept()
    p.expect_upstream(get(b"/1"), on=0)
    assert p.cluster.stats.upstream_rq_pending_active == 1
    p.upstream(OK, on=0).expect_upstream(get(b"/2"), on=0)


def test_a_connection_nobody_waits_for_any_more_serves_the_next():
    p = play()
    p.auto_accept = False
    p.downstream(GET).downstream_resets()
    assert p.cluster.stats.upstream_rq_cancelled == 1
    p.expect_quiet()
    p.upstreams[0].accept()
    p.connect()
    p.exchange()
    assert len(p.upstreams) == 1


def test_no_reuse_after_connection_close():
    p = play().downstream(GET).upstream(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")
    p.expect_downstream(OK).expect_upstream_closed(0)
    p.upstreams[0].read()
    p.exchange()
    assert len(p.upstreams) == 2


def test_max_requests_per_connection():
    p = play(cluster={"max_requests_per_connection": 2}).exchange().exchange().expect_upstream_closed(0).exchange()
    assert len(p.upstreams) == 2
    assert p.cluster.stats.upstream_cx_max_requests == 1
    assert p.cluster.stats.upstream_rq_per_cx == {2: 1}


def test_an_idle_connection_ages():
    p = play(cluster={"idle_timeout_s": 10}).exchange().advance(9).exchange().advance(9.9)
    assert not p.upstreams[0].closed
    p.advance(0.2).expect_upstream_closed(0)
    assert p.cluster.stats.upstream_cx_idle_timeout == 1
    p.exchange().expect_quiet()
    assert len(p.upstreams) == 2


def test_a_busy_connection_does_not():
    p = play(cluster={"idle_timeout_s": 10}, routes=[route(timeout_s=None)]).exchange().downstream(GET)
    p.expect_upstream(GET).advance(60).upstream(OK).expect_downstream(OK).advance(9.9)
    assert not p.upstreams[0].closed
    p.advance(0.2).expect_upstream_closed(0)


def test_without_an_idle_timeout_it_stays():
    p = play(cluster={"idle_timeout_s": None}).exchange().advance(100_000)
    assert not p.upstreams[0].closed


@pytest.mark.parametrize("how", ["end", "reset"])
def test_an_idle_connection_that_the_upstream_closes_is_not_used(how):
    p = play().exchange()
    getattr(p.upstreams[0], how)()
    p.expect_upstream_closed(0).exchange()
    assert len(p.upstreams) == 2
    stats = p.cluster.stats
    assert (stats.upstream_cx_destroy_remote, stats.upstream_cx_active, p.cluster.connections) == (1, 1, 1)


# -- response desynchronisation


def test_bytes_of_an_idle_connection_reach_nobody():
    p = play().exchange().upstream(EVIL).expect_upstream_closed(0).exchange()
    assert p.cluster.stats.upstream_cx_protocol_error == 1
    assert len(p.upstreams) == 2


def test_a_second_response_in_the_same_read_reaches_nobody():
    p = play().downstream(GET + get(b"/2")).expect_upstream(GET).upstream(OK + EVIL).expect_downstream(OK)
    p.expect_upstream_closed(0).expect_upstream(get(b"/2"), on=1).upstream(OK).expect_downstream(OK)
    assert p.cluster.stats.upstream_cx_protocol_error == 1


@pytest.mark.parametrize("more", [b"x", b"HTTP/1.1 100 Continue\r\n\r\n", b"\0", EVIL])
def test_whatever_follows_a_head_answer_reaches_nobody(more):
    p = (
        play()
        .downstream(b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n")
        .upstream(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n" + more)
    )
    p.expect_downstream(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n").expect_upstream_closed(0)
    p.connect()
    p.exchange().expect_quiet()


def test_a_response_before_the_whole_request_ends_the_connection():
    p = play().downstream(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc").upstream(OK)
    p.expect_upstream_closed(0)


def test_a_cancelled_exchange_ends_its_connection():
    p = play().downstream(GET).downstream_resets().expect_upstream_closed(0)
    p.connect()
    p.exchange().expect_quiet()
    assert len(p.upstreams) == 2


def test_garbage_instead_of_a_response():
    p = play().downstream(GET).upstream(b"SSH-2.0\r\n").expect_upstream_closed(0)
    assert p.down.read().startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert p.logged[0][2:] == (502, "upstream_reset_before_response_started{protocol_error}", "UPE")
    p.expect_quiet()


# -- failures


def test_a_connection_that_is_cut_before_the_response():
    p = play().downstream(GET).upstream_resets().expect_downstream(refused(b"connection termination"))
    assert p.logged[0][2:] == (503, "upstream_reset_before_response_started{connection_termination}", "UC")
    p.expect_quiet()


def test_a_connection_that_cannot_be_made():
    p = play()
    p.auto_accept = False
    failures = []
    p.cluster.on_upstream_failure = lambda cluster, endpoint, reason, seconds: failures.append((reason, seconds))
    p.downstream(GET).advance(1)
    p.upstreams[0].refuse(errno.ECONNREFUSED)
    p.expect_downstream(refused(b"remote connection failure"))
    assert p.logged[0][2:] == (
        503,
        "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}",
        "UF",
    )
    assert failures == [("delayed connect error: Connection refused", 1.0)]
    stats = p.cluster.stats
    assert (stats.upstream_cx_connect_fail, stats.upstream_rq_pending_failure_eject, p.cluster.connections) == (1, 1, 0)
    p.expect_quiet()


def test_all_who_wait_fail_together():
    p = play()
    p.auto_accept = False
    downs = three_requests(p)
    p.upstreams[1].refuse(errno.ECONNREFUSED)
    assert [down.read()[:12] for down in downs] == [b"HTTP/1.1 503"] * 3
    p.upstreams[0].accept()
    p.upstreams[2].refuse(errno.ECONNREFUSED)
    p.expect_quiet()
    p.exchange()


def test_connect_timeout():
    p = play(cluster={"connect_timeout_s": 2})
    p.auto_accept = False
    p.downstream(GET).advance(1.9).expect_downstream().advance(0.2).expect_downstream(refused(b"connection timeout"))
    assert p.cluster.stats.upstream_cx_connect_timeout == 1
    assert p.logged[0][2:] == (503, "upstream_reset_before_response_started{connection_timeout}", "UF")
    p.expect_quiet().expect_upstream_closed(0)


def test_the_connect_timeout_ends_with_the_connect():
    p = play(cluster={"connect_timeout_s": 2}).downstream(GET).advance(5).upstream(OK).expect_downstream(OK)
    p.advance(5)
    assert not p.upstreams[0].closed


def test_a_connect_that_fails_at_once():
    p = play()
    p.cluster.refuses = OSError(errno.ENETUNREACH, "no")
    failures = []
    p.cluster.on_upstream_failure = lambda cluster, endpoint, reason, seconds: failures.append(reason)
    p.downstream(GET)
    assert p.down.read().startswith(b"HTTP/1.1 503 ")
    assert p.logged[0][3].startswith(
        "upstream_reset_before_response_started{local_connection_failure|immediate_connect_error:"
    )
    assert failures == ["immediate connect error: Network is unreachable"]
    assert p.cluster.connections == 0
    p.cluster.refuses = None
    p.expect_quiet().exchange()


# -- limits


def limits(**fields):
    return {"circuit_breakers": CircuitBreakers(Thresholds(**fields))}


def test_max_pending_requests():
    p = play(cluster=limits(max_pending_requests=2))
    p.auto_accept = False
    downs = three_requests(p)
    assert [down.read()[:12] for down in downs] == [b"", b"", b"HTTP/1.1 503"]
    assert p.logged[0][2:] == (503, "upstream_reset_before_response_started{overflow}", "UO")
    assert p.cluster.stats.upstream_rq_pending_overflow == 1


def test_max_connections_makes_requests_wait():
    p = play(cluster=limits(max_connections=1))
    downs = three_requests(p)
    assert len(p.upstreams) == 1
    assert p.cluster.stats.upstream_cx_overflow == 2
    for number in range(3):
        p.expect_upstream(get(b"/%d" % number)).upstream(OK)
    assert [down.read()[-2:] for down in downs] == [b"ok"] * 3
    p.expect_quiet()


def test_who_waits_gets_a_new_connection_when_the_old_one_goes():
    p = play(cluster=limits(max_connections=1))
    three_requests(p)
    p.expect_upstream(get(b"/0")).upstream_resets()
    p.expect_upstream(get(b"/1"), on=1).upstream(OK).expect_upstream(get(b"/2"), on=1)


def test_max_requests():
    p = play(cluster=limits(max_requests=2))
    downs = three_requests(p)
    assert [down.read()[:12] for down in downs] == [b"", b"", b"HTTP/1.1 503"]
    assert b"x-envoy-overloaded" not in downs[0].read()


def test_max_requests_refuses_when_there_is_a_connection():
    for configured in (frozenset(), frozenset(("max_requests",))):
        p = play(cluster=limits(max_requests=2, configured=configured))
        downs = three_requests(p)
        assert len(p.upstreams) == 3
        p.upstream(OK, on=0)
        p.run()
        stats = p.cluster.stats
        assert (stats.upstream_rq_active_overflow, stats.upstream_rq_total, stats.upstream_rq_active) == (1, 2, 1)
        assert b"x-envoy-overloaded: true" in downs[2].read()
        p.upstreams[0].read()
        p.connect()
        p.downstream(GET).expect_upstream(GET, on=0)
        p.connect()
        p.downstream(GET)
        assert p.down.read().startswith(b"HTTP/1.1 503 ")
        assert stats.upstream_rq_active_overflow == 2
        assert len(p.upstreams) == 3  # refused with an idle connection at hand
        p.upstream(OK, on=0).upstream(OK, on=1).expect_quiet()


def test_who_waits_is_refused_when_a_connection_is_free():
    p = play(cluster=limits(max_connections=1, max_requests=1))
    p.auto_accept = False
    downs = three_requests(p)
    p.cluster.stats.upstream_rq_active = 1  # by another endpoint
    p.upstreams[0].accept()
    p.run()
    assert [down.read()[:12] for down in downs] == [b"HTTP/1.1 503"] * 3
    assert p.cluster.stats.upstream_rq_pending_active == 0
    p.cluster.stats.upstream_rq_active = 0
    p.connect()
    p.exchange()


def test_max_connection_pools():
    p = play(cluster=limits(max_connection_pools=1) | {"endpoints": 2, "idle_timeout_s": 10})
    downs = three_requests(p)
    refused_ones = [down for down in downs if down.read().startswith(b"HTTP/1.1 503 Service Unavailable")]
    stats = p.cluster.stats
    assert len(refused_ones) == stats.upstream_cx_pool_overflow == p.logged.count(
        (b"GET", b"/1", 503, "no_healthy_upstream", "UH")
    ) == 1  # fmt: skip
    p.upstream(OK, on=0).upstream(OK, on=1).advance(11)
    assert p.cluster.breakers.pools.total() == 0
    p.connect()
    p.exchange()
    assert p.cluster.breakers.pools.total() == 1


def test_connections_of_one_host():
    p = play(cluster=limits(max_connections_per_host=1) | {"endpoints": 2})
    three_requests(p)
    assert len(p.upstreams) == 2
    assert p.cluster.stats.upstream_cx_overflow == 1
    assert sorted(each.pool.host_connections.count for each in p.cluster.endpoints) == [1, 1]
    p.upstream(OK, on=0).upstream(OK, on=1).upstream(OK, on=0)
    for peer in p.upstreams:
        peer.end()
    assert [each.pool.host_connections.count for each in p.cluster.endpoints] == [0, 0]
    p.expect_quiet()


def test_the_priority_high_has_connections_and_limits_of_its_own():
    routes = [route("/high", is_high=True), route("/")]
    breakers = CircuitBreakers(Thresholds(max_requests=1), Thresholds(max_requests=1))
    p = play(cluster={"circuit_breakers": breakers}, routes=routes)
    p.downstream(get(b"/high/1")).expect_upstream(get(b"/high/1"), on=0)
    p.connect()
    p.downstream(get(b"/1")).expect_upstream(get(b"/1"), on=1)
    for path in (b"/high/2", b"/2"):
        p.connect()
        p.downstream(get(path))
        assert p.down.read().startswith(b"HTTP/1.1 503 ")
    p.upstream(OK, on=0)
    p.connect()
    p.downstream(get(b"/2"))
    assert p.down.read().startswith(b"HTTP/1.1 503 ")  # the free connection is the other priority's
    p.connect()
    p.downstream(get(b"/high/3")).expect_upstream(get(b"/high/3"), on=0).upstream(OK, on=0).upstream(OK, on=1)
    p.expect_quiet()
    assert p.cluster.connections == 2 + 2
    p.cluster.drain()
    p.run()
    assert p.cluster.connections == 0


def test_a_waiting_request_of_the_priority_high_may_leave():
    p = play(routes=[route(is_high=True)])
    p.auto_accept = False
    p.downstream(GET).downstream_resets()
    assert p.cluster.stats.upstream_rq_cancelled == 1
    assert p.cluster.high_breakers().pending.count == 0


def test_gauges_are_there_when_asked():
    p = play(cluster=limits(max_connections=1, max_requests=1)).downstream(GET)
    p.cluster.sync_stats()
    stats = p.cluster.stats
    assert (stats.circuit_breakers__default__cx_open, stats.circuit_breakers__default__rq_open) == (1, 1)
    p.upstream(OK)
    p.upstreams[0].end()
    p.cluster.sync_stats()
    assert (stats.circuit_breakers__default__cx_open, stats.circuit_breakers__default__rq_open) == (0, 0)


# -- a connection that ends when it is used again


def test_a_request_on_a_connection_that_was_idle_too_long_is_sent_again():
    for end in ("upstream_ends", "upstream_resets"):
        p = play().exchange().downstream(GET).expect_upstream(GET, on=0)
        getattr(p, end)(on=0)
        p.expect_upstream(GET, on=1).upstream(OK, on=1).expect_downstream(OK)
        stats = p.cluster.stats
        assert (stats.upstream_cx_destroy_remote_with_active_rq, stats.upstream_rq_total) == (1, 3)
        assert p.logged[-1][2:] == (200, "via_upstream", "")
        p.expect_quiet()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx",
        b"PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 16384\r\n\r\n" + b"x" * 16384,
        b"GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
    ],
)
def test_a_short_body_goes_with_it(request_bytes):
    p = play().exchange().downstream(request_bytes).expect_upstream(request_bytes, on=0)
    p.upstream_ends(on=0).expect_upstream(request_bytes, on=1).upstream(OK, on=1).expect_downstream(OK)
    p.expect_quiet()


def test_a_body_under_way_goes_on_where_the_request_goes():
    head = b"PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n"
    p = play().exchange().downstream(head + b"ab").expect_upstream(head + b"ab", on=0)
    p.upstream_ends(on=0).expect_upstream(head + b"ab", on=1)
    p.downstream(b"cd").expect_upstream(b"cd", on=1).upstream(OK, on=1).expect_downstream(OK)


def test_it_goes_to_a_fresh_connection_although_others_are_idle():
    p = play()
    three_requests(p)
    for number in range(3):
        p.upstream(OK, on=number)
        p.upstreams[number].read()
    p.downstream(GET).expect_upstream(GET, on=2).upstream_ends(on=2)
    p.expect_upstream(GET, on=3)


def test_with_no_room_for_a_fresh_one_it_goes_to_an_idle_one():
    p = play(cluster=limits(max_connections=2))
    for path in (b"/0", b"/1"):
        p.connect()
        p.downstream(get(path))
    for number in range(2):
        p.upstream(OK, on=number)
        p.upstreams[number].read()
    p.cluster.breakers.connections.add()  # by another endpoint, in between
    p.downstream(GET).expect_upstream(GET, on=1).upstream_ends(on=1)
    p.expect_upstream(GET, on=0)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx",
        b"PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 16385\r\n\r\n" + b"x" * 16385,
    ],
)
def test_what_may_not_be_sent_twice_is_not(request_bytes):
    p = play().exchange().downstream(request_bytes)
    p.upstreams[0].read()
    p.upstream_ends(on=0).expect_downstream(refused(b"connection termination"))
    assert len(p.upstreams) == 1


def test_what_has_an_answer_begun_is_not_sent_twice():
    for begun, status in ((b"H", 502), (b"HTTP/1.1 103 Early Hints\r\n\r\n", 503), (b"HTTP/1.1 200 OK\r\n", 502)):
        p = play().exchange().downstream(GET).expect_upstream(GET).upstream(begun, on=0).upstream_ends(on=0)
        assert len(p.upstreams) == 1
        assert b" %d " % status in p.down.read()


def test_a_fresh_connection_that_ends_is_an_error():
    p = play().downstream(GET).expect_upstream(GET).upstream_ends(on=0)
    p.expect_downstream(refused(b"connection termination"))
    p = play().exchange().downstream(GET).expect_upstream(GET, on=0).upstream_ends(on=0)
    p.expect_upstream(GET, on=1).upstream_ends(on=1).expect_downstream(refused(b"connection termination"))
    assert len(p.upstreams) == 2


# -- how connections are made and how long they live


def pool_options(**fields):
    return {"pool": PoolOptions(**fields)}


def http_options(**fields):
    return pool_options(http=HttpOptions(**fields))


def test_a_connection_that_has_lived_long_enough_goes_at_once_when_idle():
    p = play(cluster=http_options(max_connection_duration_s=10)).exchange().advance(9.9)
    assert not p.upstreams[0].closed
    p.advance(0.2).expect_upstream_closed(0)
    assert p.cluster.stats.upstream_cx_max_duration_reached == 1
    p.exchange().expect_quiet()


def test_and_after_its_response_when_busy():
    p = play(cluster=http_options(max_connection_duration_s=10)).downstream(GET).expect_upstream(GET).advance(11)
    assert not p.upstreams[0].closed
    assert p.cluster.stats.upstream_cx_max_duration_reached == 1
    p.upstream(OK).expect_downstream(OK).expect_upstream_closed(0).expect_quiet()


def test_the_time_that_connecting_takes_is_not_its_life():
    p = play(cluster=http_options(max_connection_duration_s=2) | {"connect_timeout_s": 5})
    p.auto_accept = False
    p.downstream(GET).advance(4)
    p.upstreams[0].accept()
    p.advance(1).expect_upstream(GET).upstream(OK).expect_downstream(OK)
    assert not p.upstreams[0].closed


def test_a_stream_that_lasts_too_long():
    p = play(cluster=http_options(max_stream_duration_s=3)).downstream(GET).expect_upstream(GET).advance(2.9)
    assert not p.down.read()
    p.advance(0.2)
    answer = p.down.read()
    assert answer.startswith(b"HTTP/1.1 504 ")
    assert answer.endswith(b"upstream max stream duration reached")
    assert p.logged[-1][2:] == (504, "upstream_max_stream_duration_reached", "UMSDR")
    p.expect_upstream_closed(0).expect_quiet()
    stats = p.cluster.stats
    assert (stats.upstream_rq_max_duration_reached, stats.external__upstream_rq) == (1, {})


def test_each_stream_has_its_own_time():
    p = play(cluster=http_options(max_stream_duration_s=3))
    for _ in range(3):
        p.exchange().advance(2)
    p.downstream(GET).expect_upstream(GET).advance(2.9).upstream(OK).expect_downstream(OK).advance(10)
    assert p.cluster.stats.upstream_rq_max_duration_reached == 0
    assert not p.upstreams[0].closed


def test_a_stream_that_lasts_too_long_after_its_head_is_cut():
    p = play(cluster=http_options(max_stream_duration_s=3)).downstream(GET)
    p.upstream(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok").advance(4)
    assert p.down.read().endswith(b"ok")
    p.expect_closed().expect_upstream_closed(0).expect_quiet()


def test_an_attempt_that_lasts_too_long_may_be_followed_by_another():
    policy = RetryPolicy(frozenset(("5xx",)), num_retries=1)
    p = play(cluster=http_options(max_stream_duration_s=3), routes=[route(retry_policy=policy)]).downstream(GET)
    p.expect_upstream(GET, on=0).advance(3.1).advance(0.1).expect_upstream(GET, on=1).advance(3.1)
    assert p.logged[-1][2:] == (504, "upstream_max_stream_duration_reached", "URX,UMSDR")
    assert p.cluster.stats.upstream_rq_max_duration_reached == 2
    p.expect_quiet()


@pytest.mark.parametrize(("ratio", "counts"), [(1.0, [1, 2, 2]), (1.5, [2, 3, 3]), (2.0, [2, 4, 4]), (3.0, [3, 6, 6])])
def test_connections_are_made_before_they_are_needed(ratio, counts):
    p = play(cluster=pool_options(preconnect_ratio=ratio))
    seen = []
    for path in (b"/0", b"/1"):
        p.connect()
        p.downstream(get(path))
        seen.append(len(p.upstreams))
    for peer in list(p.upstreams):
        if peer.read():
            p.upstream(OK, on=p.upstreams.index(peer))
    p.connect()
    p.downstream(get(b"/2"))
    assert [*seen, len(p.upstreams)] == counts
    assert p.cluster.stats.upstream_rq_active == 1


def test_an_unhealthy_endpoint_gets_no_more_than_it_needs():
    p = play(cluster=pool_options(preconnect_ratio=3.0))
    p.cluster.set_health_flags(p.cluster.endpoints[0].address, set=health.FAILED_ACTIVE_HC)
    p.downstream(GET)
    assert len(p.upstreams) == 1


@pytest.mark.parametrize(
    ("ratio", "counts"), [(1.0, [1, 2, 3, 4]), (1.5, [3, 3, 5, 6]), (2.0, [3, 4, 6, 7]), (3.0, [3, 4, 5, 6])]
)
def test_connections_to_the_endpoints_that_are_picked_next(ratio, counts):
    p = play(cluster=pool_options(predictive_ratio=ratio) | {"endpoints": 3})
    p.cluster.stats.membership_healthy = 3
    seen = []
    for number in range(4):
        p.connect()
        p.downstream(get(b"/%d" % number))
        seen.append(len(p.upstreams))
    assert seen == counts
    # Each endpoint has its turn, ahead or not.
    assert sorted(each.stats.rq_active for each in p.cluster.endpoints) == [1, 1, 2]


def test_picks_ahead_are_forgotten_with_the_endpoints():
    p = play(cluster=pool_options(predictive_ratio=3.0) | {"endpoints": 3}).downstream(GET)
    # Its figures may be those of the endpoint that still has the first request: what is there before is not its own.
    p.cluster.set_endpoints([ResolvedEndpoint(("192.0.2.77", 80))])
    before = p.cluster.endpoints[0].stats.rq_active
    p.connect()
    p.downstream(GET)
    assert [each.stats.rq_active - before for each in p.cluster.endpoints] == [1]


def test_least_request_cannot_look_ahead():
    balancing = LoadBalancingConfig("LEAST_REQUEST")
    p = play(cluster=pool_options(predictive_ratio=3.0) | {"endpoints": 3, "load_balancing": balancing}).downstream(GET)
    assert len(p.upstreams) == 1


def test_connections_of_one_downstream_connection():
    p = play(cluster=pool_options(per_downstream=True))
    first, second = p.connect(), p.connect()
    for _ in range(2):
        for number, down in enumerate((first, second)):
            down.send(GET)
            p.expect_upstream(GET, on=number).upstream(OK, on=number)
    assert len(p.upstreams) == 2
    first.end()
    p.run()
    assert [peer.closed for peer in p.upstreams] == [True, False]
    p.cluster.drain()
    p.run()
    assert [peer.closed for peer in p.upstreams] == [True, True]
    p.expect_quiet()


def test_who_waits_in_a_pool_of_its_own_may_leave():
    p = play(cluster=pool_options(per_downstream=True))
    p.auto_accept = False
    p.downstream(GET).downstream_resets()
    assert p.cluster.stats.upstream_rq_cancelled == 1
    assert p.cluster.breakers.pending.count == 0


@pytest.mark.parametrize(
    ("options", "head"),
    [
        ({"max_headers_count": 2}, b"a: 1\r\nb: 2\r\nc: 3\r\n"),
        ({"max_response_headers_kb": 1}, b"a: %b\r\n" % (b"x" * 1100)),
    ],
)
def test_limits_of_a_responses_head(options, head):
    answer = b"HTTP/1.1 200 OK\r\n%bcontent-length: 0\r\n\r\n" % head
    assert play().downstream(GET).upstream(answer).down.read().startswith(b"HTTP/1.1 200 ")
    assert (
        play(cluster=http_options(**options)).downstream(GET).upstream(answer).down.read().startswith(b"HTTP/1.1 502 ")
    )


# -- health


def test_connections_to_an_endpoint_that_turns_unhealthy_serve_nobody_new():
    for flag in (health.FAILED_ACTIVE_HC, health.FAILED_OUTLIER_CHECK):
        p = play()
        three_requests(p)
        p.upstream(OK, on=0)
        p.cluster.set_health_flags(p.cluster.endpoints[0].address, set=flag)
        p.run()
        assert [peer.closed for peer in p.upstreams] == [True, False, False]
        p.upstream(OK, on=1).upstream(OK, on=2)
        assert [peer.closed for peer in p.upstreams] == [True, True, True]
        assert p.cluster.stats.upstream_cx_destroy_local == 3
        p.cluster.set_health_flags(p.cluster.endpoints[0].address, clear=flag)
        p.connect()
        p.exchange().exchange()
        assert len(p.upstreams) == 4


def test_what_the_file_says_of_health_closes_nothing():
    p = play().exchange()
    p.cluster.set_health_flags(p.cluster.endpoints[0].address, set=health.FAILED_EDS_HEALTH)
    p.run()
    assert not p.upstreams[0].closed


# -- draining and removal


def test_draining_closes_idle_connections_now_and_busy_ones_after_their_response():
    p = play()
    three_requests(p)
    p.upstream(OK, on=0)
    p.cluster.drain()
    p.run()
    assert [peer.closed for peer in p.upstreams] == [True, False, False]
    p.upstream(OK, on=2).expect_upstream_closed(2).upstream(OK, on=1).expect_upstream_closed(1).expect_quiet()


def test_a_connection_that_stands_after_draining_has_begun_is_closed():
    p = play()
    p.auto_accept = False
    p.downstream(GET).downstream_resets()
    p.cluster.drain()
    p.upstreams[0].accept()
    p.run()
    p.expect_upstream_closed(0)


def test_an_endpoint_that_is_removed_while_busy_finishes_its_exchange():
    p = play().downstream(GET).expect_upstream(GET)
    old = p.cluster.endpoints[0]
    p.cluster.set_endpoints([ResolvedEndpoint(("192.0.2.77", 80))])
    p.upstream(OK).expect_downstream(OK).expect_upstream_closed(0)
    assert (old.stats.rq_active, p.cluster.stats.upstream_rq_active) == (0, 0)
    p.exchange()
    assert p.upstreams[1].connection.remote_address == ("192.0.2.77", 80)


# -- figures


def test_bytes_are_counted_when_asked_and_at_the_end():
    p = play().exchange()
    stats = p.cluster.stats
    assert (stats.upstream_cx_rx_bytes_total, stats.upstream_cx_tx_bytes_total) == (0, 0)
    p.cluster.sync_stats()
    counted = (stats.upstream_cx_rx_bytes_total, stats.upstream_cx_tx_bytes_total)
    assert counted[0] == len(OK)
    assert counted[1] > len(GET)
    p.upstreams[0].end()
    assert (stats.upstream_cx_rx_bytes_total, stats.upstream_cx_tx_bytes_total) == counted


def test_times_are_counted():
    p = play()
    p.auto_accept = False
    p.downstream(GET).advance(0.25)
    p.auto_accept = True
    p.run()
    p.advance(1).upstream(OK)
    assert p.cluster.stats.upstream_cx_connect_ms == {250: 1}
    assert p.cluster.stats.external__upstream_rq_time == {1250: 1}
    assert "busy" not in repr(next(iter(p.cluster.endpoints[0].pool._all)))


HALF = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no"


@pytest.mark.parametrize(
    ("end", "remote", "local"),
    [
        (lambda p: p.upstream(HALF).upstream_ends(), 1, 0),
        (lambda p: p.upstream_resets(), 1, 0),
        (lambda p: p.upstream(b"garbage"), 0, 1),
        (lambda p: p.downstream_ends(), 0, 1),
        (lambda p: p.advance(20), 0, 1),
        (lambda p: p.upstream(b"HTTP/1.1 200 OK\r\n\r\nok").upstream_ends(), 0, 0),  # the end of the response
        (lambda p: p.upstream(OK).upstream_ends(), 0, 0),
    ],
)
def test_connections_that_end_inside_an_exchange_are_counted(end, remote, local):
    p = play().downstream(GET).expect_upstream(GET)
    end(p)
    stats = p.cluster.stats
    assert stats.upstream_cx_destroy_with_active_rq == remote + local
    assert stats.upstream_cx_destroy_remote_with_active_rq == remote
    assert stats.upstream_cx_destroy_local_with_active_rq == local
