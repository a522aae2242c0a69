"""The router's own answers, what it adds to heads, and what it counts."""

import pytest

from forkproxy.config.build.core import HeaderMutations, HeaderValueOption
from forkproxy.config.build.router import RouterConfig
from forkproxy.net.connection import Connection
from tests.support.playbook import WHERE, endpoint, play, route

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


def add(key, value):
    return HeaderValueOption(key, value, "APPEND_IF_EXISTS_OR_ADD", False, WHERE)


def upstream_head(p):
    """The lines that arrived upstream, without the request line."""
    [peer] = [peer for peer in p.upstreams if peer.sock.outbox]
    head = peer.read().decode().partition("\r\n\r\n")[0]
    return head.split("\r\n")[1:]


# -- answers without an endpoint


def test_no_route():
    p = (
        play(routes=[route("/only")])
        .downstream(GET)
        .expect_downstream(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
    )
    assert p.logged == [(b"GET", b"/", 404, "route_not_found", "NR")]
    assert (p.router.stats.no_route, p.router.stats.rq_total) == (1, 1)


@pytest.mark.parametrize("status", [503, 404, 500])
def test_no_cluster(status):
    p = play(routes=[route(cluster="gone", cluster_not_found_response_code=status)]).downstream(GET)
    assert p.down.read().startswith(b"HTTP/1.1 %d " % status)
    assert p.logged[0][3:] == ("cluster_not_found", "NC")
    assert p.router.stats.no_cluster == 1


def test_no_healthy_upstream():
    p = play(cluster={"endpoints": 0}).downstream(GET)
    p.expect_downstream(
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 19\r\ncontent-type: text/plain\r\n\r\nno healthy upstream"
    )
    assert p.logged[0][2:] == (503, "no_healthy_upstream", "UH")
    assert p.cluster.stats.upstream_cx_none_healthy == 1
    assert p.cluster.stats.external__upstream_rq == {503: 1}


def test_a_direct_response():
    p = play(routes=[route(direct=(299, b"here"))]).downstream(GET)
    p.expect_downstream(b"HTTP/1.1 299 Unknown\r\ncontent-length: 4\r\ncontent-type: text/plain\r\n\r\nhere")
    assert p.logged[0][3] == "direct_response"
    assert p.router.stats.rq_direct_response == 1


def test_a_direct_response_to_a_body_closes():
    p = play(routes=[route(direct=(200, b""))]).downstream(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n")
    p.expect_downstream(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")


# -- the head towards upstream


def test_the_expected_timeout():
    p = play().downstream(GET)
    assert "x-envoy-expected-rq-timeout-ms: 15000" in upstream_head(p)
    p = play(routes=[route(timeout_s=None)]).downstream(GET)
    assert not [line for line in upstream_head(p) if "timeout" in line]


def test_envoy_headers_can_be_suppressed():
    p = play(router=RouterConfig(suppress_envoy_headers=True)).downstream(GET)
    assert [line.split(":")[0] for line in upstream_head(p)] == ["host", "x-forwarded-proto", "x-request-id"]
    p.upstream(OK)
    assert b"x-envoy" not in p.down.read()


def test_an_expected_timeout_from_before_is_replaced_when_respected():
    sent = b"GET / HTTP/1.1\r\nhost: a\r\nx-envoy-expected-rq-timeout-ms: 7\r\n\r\n"
    p = play(router=RouterConfig(respect_expected_rq_timeout=True)).downstream(sent)
    assert [line for line in upstream_head(p) if "expected" in line] == ["x-envoy-expected-rq-timeout-ms: 15000"]


def test_routes_rewrite_and_add():
    mutations = HeaderMutations(request_add=(add("x-added", "%REQ(:path)%"),), response_add=(add("x-back", "yes"),))
    p = play(routes=[route("/a", prefix_rewrite="/b", host_rewrite_literal="h", mutations=mutations)])
    p.downstream(b"GET /a/c HTTP/1.1\r\nhost: a\r\n\r\n")
    originals = b"x-envoy-original-host: a\r\nx-envoy-original-path: /a/c\r\n"
    p.expect_upstream(b"GET /b/c HTTP/1.1\r\nhost: h\r\nx-added: /a/c\r\n" + originals + b"\r\n")
    p.upstream(OK).expect_downstream(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-back: yes\r\n\r\nok")


def test_auto_host_rewrite():
    p = play(routes=[route(auto_host_rewrite=True)], cluster={"endpoints": [endpoint(1, hostname="h.example")]})
    p.downstream(GET).expect_upstream(b"GET / HTTP/1.1\r\nhost: h.example\r\nx-envoy-original-host: a\r\n\r\n")
    p = play(routes=[route(auto_host_rewrite=True)]).downstream(GET).expect_upstream(GET)


def test_attempt_counts():
    p = play(virtual_host={"include_request_attempt_count": True, "include_attempt_count_in_response": True})
    p.downstream(GET).expect_upstream(b"GET / HTTP/1.1\r\nhost: a\r\nx-envoy-attempt-count: 1\r\n\r\n").upstream(OK)
    assert b"x-envoy-attempt-count: 1\r\n" in p.down.read()


def test_proper_case_towards_upstream():
    p = play(cluster={"header_key_format": "proper_case_words"}, generate_request_id=False)
    p.downstream(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
    names = [line.split(":")[0] for line in upstream_head(p)]
    assert names == ["Host", "X-Forwarded-Proto", "X-Envoy-Expected-Rq-Timeout-Ms", "Transfer-Encoding"]


@pytest.mark.parametrize(
    ("method", "framed"),
    [(b"GET", False), (b"HEAD", False), (b"DELETE", False), (b"POST", True), (b"PUT", True), (b"PATCH", True)],
)
def test_methods_that_usually_have_a_body_say_that_there_is_none(method, framed):
    p = play().downstream(method + b" / HTTP/1.1\r\nhost: a\r\n\r\n")
    assert ("content-length: 0" in upstream_head(p)) is framed


def test_a_length_of_zero_is_not_said_twice():
    p = play().downstream(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")
    assert upstream_head(p).count("content-length: 0") == 1


# -- the head towards downstream


def test_service_time_counts_from_the_end_of_the_request():
    p = play().downstream(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n").advance(3).downstream(b"ok")
    p.advance(1.25).upstream(OK)
    assert b"x-envoy-upstream-service-time: 1250\r\n" in p.down.read()
    assert p.cluster.stats.external__upstream_rq_time == {1250: 1}


def test_an_upstreams_own_service_time_is_replaced():
    p = (
        play()
        .downstream(GET)
        .upstream(b"HTTP/1.1 200 OK\r\nx-envoy-upstream-service-time: 9\r\ncontent-length: 0\r\n\r\n")
    )
    sent = p.down.read()
    assert sent.count(b"x-envoy-upstream-service-time") == 1
    assert b"x-envoy-upstream-service-time: 0\r\n" in sent


# -- figures


def test_what_is_counted_per_cluster():
    p = play()
    for status in (200, 404, 500):
        p.downstream(GET).upstream(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % status)
    figures = p.cluster.endpoints[0].stats
    assert p.cluster.stats.external__upstream_rq == {200: 1, 404: 1, 500: 1}
    assert (figures.rq_success, figures.rq_error) == (2, 1)


def test_dynamic_stats_can_be_switched_off():
    p = play(router=RouterConfig(dynamic_stats=False)).exchange()
    assert (p.cluster.stats.external__upstream_rq, p.cluster.stats.external__upstream_rq_time) == ({}, {})
    p.downstream(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").upstream_resets()
    assert p.cluster.stats.external__upstream_rq == {}
    assert p.cluster.stats.upstream_rq_total == 2


def test_canaries():
    p = (
        play()
        .downstream(GET)
        .upstream(b"HTTP/1.1 200 OK\r\nx-envoy-upstream-canary: true\r\ncontent-length: 0\r\n\r\n")
    )
    p.downstream(GET).upstream(OK)
    assert p.cluster.stats.canary__upstream_rq == {200: 1}


def test_a_reset_after_the_head_is_counted():
    p = play().downstream(GET).upstream(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab").upstream_resets()
    assert p.logged[0][3].startswith("upstream_reset_after_response_started{")
    assert p.cluster.stats.external__upstream_rq == {200: 1}


@pytest.mark.parametrize("length", [1, 16384, 16385])
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize(("last", "told"), [(b"", b""), (b"connection: close\r\n", b"connection: close\r\n")])
def test_a_body_that_is_there_leaves_with_its_head(monkeypatch, length, begun, last, told):
    written = []
    write = Connection.write
    monkeypatch.setattr(Connection, "write", lambda self, data: (written.append((self, data)), write(self, data)))
    p = play().downstream(GET[:-2] + last + b"\r\n")
    written.clear()
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (length + begun)
    p.upstream(head + b"x" * length)
    if begun:
        p.upstream(b"y")
    assert [len(data) for _, data in written][1:] == [*([length] if length > 16384 else []), *([1] if begun else [])]
    assert p.down.read().endswith(b"\r\n" + told + b"\r\n" + b"x" * length + b"y" * begun)
    assert p.codes == {200: 1}


def test_endpoints_take_turns():
    p = play(cluster={"endpoints": 3})
    for _ in range(6):
        p.exchange()
    assert sorted(each.stats.rq_total for each in p.cluster.endpoints) == [2, 2, 2]
    assert len(p.upstreams) == 3
