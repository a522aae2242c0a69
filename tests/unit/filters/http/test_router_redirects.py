"""Redirects that the router follows by itself: connections, limits, and what is left behind."""

import pytest

from forkproxy.config.build.route_policies import InternalRedirectPolicy, RedirectPredicate, RoutePolicies
from forkproxy.http.filter import HttpFilter
from forkproxy.http.header_case import SpelledHeaders
from tests.support.playbook import play, route

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
GET = b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n"
THERE = b"GET /b HTTP/1.1\r\nhost: a\r\nx-envoy-original-url: http://a/a\r\n\r\n"
MOVED = b"HTTP/1.1 302 Found\r\nlocation: http://a/b\r\ncontent-length: 0\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n"


class Counting(HttpFilter):
    """How often it saw a head, and the end of a stream."""

    def __init__(self):
        self.heads = self.ends = 0

    def decode_headers(self, stream, headers, end_stream):
        self.heads += 1

    def on_stream_complete(self, stream):
        self.ends += 1


def following(*filters, limit=1 << 20, **policy):
    policies = RoutePolicies(internal_redirect=InternalRedirectPolicy(**policy))
    return play(*filters, routes=[route(policies=policies, timeout_s=None)], buffer_limit_bytes=limit)


def test_a_redirect_is_followed_and_all_filters_run_anew():
    counting = Counting()
    p = following(counting).downstream(GET).expect_upstream(GET).upstream(MOVED).expect_upstream(THERE, on=0)
    p.upstream(OK).expect_downstream(OK).expect_quiet()
    assert (counting.heads, counting.ends) == (2, 2)
    assert p.logged == [(b"GET", b"/b", 302, "internal_redirect", ""), (b"GET", b"/b", 200, "via_upstream", "")]
    assert (p.stats.downstream_rq_total, dict(p.codes)) == (2, {200: 1})
    assert p.cluster.stats.upstream_internal_redirect_succeeded_total == 1


def test_the_connection_goes_on_after_it():
    p = following().downstream(GET + GET).expect_upstream(GET).upstream(MOVED).expect_upstream(THERE, on=0)
    p.upstream(OK).expect_downstream(OK).expect_upstream(GET).upstream(OK).expect_downstream(OK).expect_quiet()


def test_a_body_is_sent_again():
    p = following().downstream(POST + b"ab").expect_upstream(POST + b"ab").downstream(b"cd").expect_upstream(b"cd")
    p.upstream(MOVED)
    again = b"POST /b HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\nx-envoy-original-url: http://a/a\r\n\r\nabcd"
    p.expect_upstream(again, on=0).upstream(OK).expect_downstream(OK).expect_quiet()


def test_a_body_beyond_the_limit_is_not():
    p = following(limit=3).downstream(POST + b"abcd").expect_upstream(POST + b"abcd").upstream(MOVED)
    p.expect_downstream(MOVED).expect_quiet()
    stats = p.cluster.stats
    assert (stats.upstream_internal_redirect_failed_total, stats.retry_or_shadow_abandoned) == (1, 1)


def test_redirects_to_itself_have_an_end():
    loop = b"HTTP/1.1 302 Found\r\nlocation: http://a/a\r\ncontent-length: 0\r\n\r\n"
    p = following(max_redirects=20).downstream(GET)
    for _ in range(21):
        p.up = next(peer for peer in p.upstreams if peer.sock.outbox)
        p.up.read()
        p.upstream(loop)
    p.expect_downstream(loop).expect_quiet()
    assert p.router.stats.passthrough_internal_redirect_too_many_redirects == 1


def test_a_client_that_leaves_during_the_second_request():
    p = following().downstream(GET).expect_upstream(GET).upstream(MOVED).expect_upstream(THERE, on=0)
    p.down.reset()
    p.expect_upstream_closed(on=0).expect_quiet()


@pytest.mark.parametrize(
    ("location", "stat"),
    [
        (b"/b", "bad_location"),
        (b"http://a b/", "bad_location"),
        (b"http://a\\@b/", "bad_location"),
        (b"http://a:65536/", "bad_location"),
        (b"https://a/b", "unsafe_scheme"),
    ],
)
def test_what_is_not_followed(location, stat):
    p = following().downstream(GET).expect_upstream(GET)
    answer = b"HTTP/1.1 302 Found\r\nlocation: %b\r\ncontent-length: 0\r\n\r\n" % location
    p.upstream(answer).expect_downstream(answer).expect_quiet()
    assert getattr(p.router.stats, f"passthrough_internal_redirect_{stat}") == 1


def test_a_predicate_says_no():
    predicate = RedirectPredicate("allow_listed_routes", frozenset(("elsewhere",)))
    p = following(predicates=(predicate,)).downstream(GET).expect_upstream(GET).upstream(MOVED).expect_downstream(MOVED)
    assert p.router.stats.passthrough_internal_redirect_predicate == 1
    p.expect_quiet()


def test_names_stay_as_they_were_spelled():
    p = following().downstream(GET).expect_upstream(GET)
    spelled = SpelledHeaders(bytes.upper)
    stream = next(iter(p.manager.connections)).stream
    spelled.extend(stream.request_headers)
    stream.request_headers = spelled
    p.upstream(MOVED).expect_upstream(THERE, on=0)
    assert isinstance(next(iter(p.manager.connections)).stream.request_headers, SpelledHeaders)
    p.upstream(OK).expect_downstream(OK).expect_quiet()
