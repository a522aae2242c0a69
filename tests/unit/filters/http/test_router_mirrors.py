"""Copies of requests: what they may cost, and that nothing of them is left behind."""

import errno

from forkproxy.config.build.route_policies import MirrorPolicy, RoutePolicies
from tests.support.playbook import play, route

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
OF_COPIES = b"x-envoy-internal: true\r\nx-forwarded-for: 127.0.0.1\r\n\r\n"
COPY = b"GET / HTTP/1.1\r\nhost: a-shadow\r\n" + OF_COPIES
POST = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4000\r\n\r\n"
POST_COPY = b"POST / HTTP/1.1\r\nhost: a-shadow\r\ncontent-length: 4000\r\n" + OF_COPIES
LIMIT = 1000


def mirrored(timeout_s=15.0, **fields):
    policy = MirrorPolicy("up", "", None, True, "", ())
    return play(routes=[route(timeout_s=timeout_s, policies=RoutePolicies(mirrors=(policy,)))], **fields)


def begun(**fields):
    """Both heads have arrived: the original's at upstream 0, the copy's at 1."""
    p = mirrored(**fields).downstream(GET)
    return p.expect_upstream(GET, on=0).expect_upstream(COPY, on=1)


def test_nobody_waits_for_the_copy():
    p = begun().upstream(OK, on=0).expect_downstream(OK)
    assert p.manager.chain.filters[-1].mirrored.rq_total == 1
    p.downstream(GET).expect_upstream(GET, on=0).upstream(OK, on=0).expect_downstream(OK)
    p.upstream(OK, on=1).upstream(OK, on=2).expect_quiet()


def test_the_copy_may_be_answered_first():
    p = begun().upstream(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", on=1).expect_downstream()
    p.upstream(OK, on=0).expect_downstream(OK).expect_quiet()
    assert dict(p.cluster.stats.internal__upstream_rq) == {500: 1}
    assert dict(p.cluster.stats.external__upstream_rq) == {200: 1}


def test_the_copys_time_is_the_routes():
    p = begun(timeout_s=5.0).upstream(OK, on=0).expect_downstream(OK)
    p.advance(4.9)
    assert p.cluster.stats.upstream_rq_timeout == 0
    p.advance(0.2).expect_upstream_closed(on=1).expect_quiet()
    assert p.cluster.stats.upstream_rq_timeout == 1
    assert dict(p.cluster.stats.internal__upstream_rq) == {504: 1}


def test_a_copy_waits_for_a_connection():
    p = mirrored()
    p.auto_accept = False
    p.downstream(GET)
    p.upstreams[0].accept()
    p.expect_upstream(GET, on=0).upstream(OK, on=0).expect_downstream(OK)
    p.expect_upstream(COPY, on=0).upstream(OK, on=0).expect_quiet()


def test_a_copy_that_finds_nobody():
    p = mirrored()
    p.auto_accept = False
    p.downstream(GET)
    for upstream in p.upstreams:
        upstream.refuse(errno.ECONNREFUSED)
    p.expect_quiet()
    assert dict(p.cluster.stats.internal__upstream_rq) == {503: 1}


def test_a_body_goes_to_both():
    p = mirrored().downstream(POST).expect_upstream(POST, on=0).expect_upstream(POST_COPY, on=1)
    p.downstream(b"a" * 4000).expect_upstream(b"a" * 4000, on=0).expect_upstream(b"a" * 4000, on=1)
    p.upstream(OK, on=0).expect_downstream(OK).upstream(OK, on=1).expect_quiet()


def test_a_copy_that_is_not_taken_is_given_up():
    p = mirrored(buffer_limit_bytes=LIMIT).downstream(POST).expect_upstream(POST, on=0).expect_upstream(POST_COPY, on=1)
    p.upstreams[1].sock.window = 0
    for _ in range(4):
        p.downstream(b"a" * 900).expect_upstream(b"a" * 900, on=0)
    p.expect_upstream_closed(on=1)
    p.downstream(b"a" * 400).expect_upstream(b"a" * 400, on=0).upstream(OK, on=0).expect_downstream(OK).expect_quiet()
    assert p.cluster.stats.retry_or_shadow_abandoned == 1


def test_a_copy_that_is_not_connected_is_given_up():
    p = mirrored(buffer_limit_bytes=LIMIT)
    p.auto_accept = False
    p.downstream(POST)
    p.upstreams[0].accept()
    p.expect_upstream(POST, on=0)
    for _ in range(4):
        p.downstream(b"a" * 1000).expect_upstream(b"a" * 1000, on=0)
    p.upstream(OK, on=0).expect_downstream(OK)
    assert p.cluster.stats.retry_or_shadow_abandoned == 1
    assert p.cluster.stats.upstream_rq_pending_active == 0


def test_a_client_that_leaves_takes_an_unfinished_copy_along():
    p = (
        mirrored()
        .downstream(POST + b"abc")
        .expect_upstream(POST + b"abc", on=0)
        .expect_upstream(POST_COPY + b"abc", on=1)
    )
    p.down.reset()
    p.expect_upstream_closed(on=0).expect_upstream_closed(on=1).expect_quiet()


def test_a_client_that_leaves_does_not_disturb_a_whole_copy():
    p = begun()
    p.down.reset()
    p.expect_upstream_closed(on=0)
    assert not p.upstreams[1].closed
    p.upstream(OK, on=1).expect_quiet()
