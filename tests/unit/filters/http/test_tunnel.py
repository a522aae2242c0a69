"""Tunnels: upgrades, CONNECT that goes on, CONNECT that ends here. Beside what real Envoy is asked (tests/conformance)."""

import errno
from dataclasses import replace

import pytest

from forkproxy.config.build.circuit_breakers import CircuitBreakers, Thresholds
from forkproxy.config.build.listener import FilterEntry
from forkproxy.config.build.retry import RetryPolicy
from forkproxy.config.build.route import RouteMatch
from forkproxy.config.build.router import RouterConfig
from forkproxy.config.build.transport_sockets import ProxyProtocol
from forkproxy.config.build.upgrades import ConnectConfig, Upgrade
from forkproxy.http.filter import HttpFilter
from forkproxy.http.upgrades import Tunnel
from forkproxy.net.proxy_protocol import SIGNATURE
from tests.support.playbook import ROUTER, WHERE, play, route

ASK = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: WebSocket\r\n\r\n"
GRANTED = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n"
CONNECT = b"CONNECT b:443 HTTP/1.1\r\nhost: b:443\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
SHORT = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
BUSY = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"
WEBSOCKET = (Upgrade("websocket"),)


def upgrading(*filters, **fields):
    return play(*filters, **{"upgrades": WEBSOCKET, **fields})


def connecting(connect=None, *, is_high=False, **fields):
    made = route(upgrades=(("CONNECT", True),), connect=connect, timeout_s=None, is_high=is_high)
    return play(routes=[replace(made, match=RouteMatch("connect_matcher", "")), route()], **fields)


def ending_here(**fields):
    return connecting(ConnectConfig(), **fields)


def tunnel(**fields):
    """One that stands."""
    p = upgrading(**fields).downstream(ASK).expect_upstream(ASK).upstream(GRANTED).expect_downstream(GRANTED)
    assert type(p.http) is Tunnel
    return p


# -- bytes


def test_bytes_pass_as_they_are():
    p = tunnel().downstream(b"\x81\x05hello", b"\0" * 3).expect_upstream(b"\x81\x05hello\0\0\0")
    p.upstream(b"HTTP/1.1 200 OK\r\n\r\n", b"0\r\n\r\n").expect_downstream(
        b"HTTP/1.1 200 OK\r\n\r\n0\r\n\r\n", raw=True
    )
    assert p.logged == []
    p.downstream_ends().expect_closed().expect_upstream_closed()
    assert p.logged == [(b"GET", b"/", 101, "downstream_remote_disconnect", "DC")]
    p.expect_quiet()


def test_the_gauge_and_the_counter():
    p = tunnel()
    p.manager.sync_stats()
    assert (p.stats.downstream_cx_upgrades_active, p.stats.downstream_cx_upgrades_total) == (1, 1)
    p.upstream_ends().downstream_ends().expect_closed().expect_quiet()
    assert (p.stats.downstream_cx_upgrades_active, p.stats.downstream_cx_upgrades_total) == (0, 1)


def test_a_pooled_connection_carries_a_tunnel_and_then_nothing():
    p = upgrading().exchange()
    p.downstream(ASK).expect_upstream(ASK, on=0).upstream(GRANTED).expect_downstream(GRANTED)
    p.downstream_ends().expect_upstream_closed(on=0)
    p.connect()
    p.exchange()
    assert len(p.upstreams) == 2
    p.expect_quiet()


def test_a_pooled_connection_that_was_closed_meanwhile():
    p = upgrading().exchange().downstream(ASK + b"early").expect_upstream(ASK, on=0)
    p.upstream_ends(on=0).expect_upstream(ASK, on=1).upstream(GRANTED).expect_downstream(GRANTED)
    p.expect_upstream(b"early", on=1)
    assert p.stats.downstream_cx_upgrades_total == 1


def test_a_body_has_gone_with_the_connection():
    head = ASK.replace(b"\r\n\r\n", b"\r\ncontent-length: 3\r\n\r\n").replace(b"GET", b"PUT")
    p = upgrading().exchange().downstream(head + b"abcdef").expect_upstream(head + b"abc", on=0)
    p.upstream_ends(on=0)
    assert len(p.upstreams) == 1
    assert p.logged[-1][2:4] == (503, "upstream_reset_before_response_started{connection_termination}")


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_the_announced_body_goes_on_and_no_more(cut):
    head = ASK.replace(b"\r\n\r\n", b"\r\ncontent-length: 3\r\n\r\n").replace(b"GET", b"POST")
    body = b"abcdef"
    p = upgrading().downstream(head + body[:cut], body[cut:]).expect_upstream(head + b"abc")
    p.upstream(GRANTED).expect_downstream(GRANTED).expect_upstream(b"def")


def test_early_bytes_wait_for_the_connection_and_the_answer():
    p = upgrading()
    p.auto_accept = False
    p.downstream(ASK + b"one", b"two").expect_upstream()
    p.upstreams[0].accept()
    p.expect_upstream(ASK, on=0).upstream(GRANTED).expect_upstream(b"onetwo", on=0)


def test_nothing_of_them_is_sent_after_another_answer():
    p = upgrading().downstream(ASK + GET).expect_upstream(ASK)
    p.upstream(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
    p.expect_downstream(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    p.downstream(GET).expect_upstream().expect_upstream_closed()
    p.down.end()
    p.expect_closed().expect_quiet()
    assert len(p.logged) == 1


# -- flow control


def test_early_bytes_stop_at_the_mark():
    p = upgrading(buffer_limit_bytes=100).downstream(ASK + b"x" * 90).expect_upstream(ASK)
    assert not p.down.connection.read_pauses
    p.downstream(b"y" * 90, b"z" * 90)
    assert p.down.connection.read_pauses
    assert p.down.sock.inbox  # the third stays where it is
    p.upstream(GRANTED).expect_upstream(b"x" * 90 + b"y" * 90 + b"z" * 90)
    assert not p.down.connection.read_pauses


def test_an_endpoint_that_does_not_take_it_stops_the_client():
    p = tunnel(cluster={"per_connection_buffer_limit_bytes": 100})
    p.up.sock.window = 0
    p.downstream(b"x" * 150)
    assert p.down.connection.read_pauses
    p.up.take()
    assert not p.down.connection.read_pauses
    p.expect_upstream(b"x" * 150)


def test_a_client_that_does_not_take_it_stops_the_endpoint():
    p = tunnel(buffer_limit_bytes=100)
    p.down.sock.window = 0
    p.upstream(b"x" * 150)
    assert p.up.connection.read_pauses
    p.down.take()
    assert not p.up.connection.read_pauses
    p.expect_downstream(b"x" * 150, raw=True)


def test_what_the_client_has_sent_is_still_written():
    p = tunnel()
    p.up.sock.window = 2
    p.downstream(b"hello").downstream_ends().expect_closed()
    assert not p.up.closed
    p.up.take()
    p.expect_upstream(b"hello", on=0).expect_upstream_closed().expect_quiet()


def test_but_not_for_ever():
    p = tunnel()
    p.up.sock.window = 0
    p.downstream(b"hello").downstream_ends().advance(11)
    p.expect_upstream_closed().expect_quiet()


def test_a_client_that_resets_has_cut_it():
    p = tunnel()
    p.up.sock.window = 0
    p.downstream(b"hello").downstream_resets().expect_upstream_closed().expect_quiet()


def test_what_the_endpoint_has_sent_is_still_written():
    p = tunnel()
    p.down.sock.window = 0
    p.upstream(b"hello").upstream_ends()
    p.expect_open()
    p.down.take()
    p.expect_downstream(b"hello", raw=True)
    p.downstream_ends().expect_closed().expect_quiet()


# -- time, and draining


def test_it_is_idle_when_neither_side_sends():
    p = tunnel(stream_idle_timeout_s=10)
    for _ in range(3):
        p.advance(9).downstream(b"x").advance(9).upstream(b"y")
    p.expect_open().advance(10.1)
    assert p.logged[-1][2:] == (101, "stream_idle_timeout", "SI")
    p.expect_upstream_closed().expect_quiet()


def test_no_other_timeout_ends_it():
    p = tunnel(request_timeout_s=1, request_headers_timeout_s=1, idle_timeout_s=1, stream_idle_timeout_s=None)
    p.advance(10_000).expect_open().downstream(b"x").expect_upstream(b"x")


def test_the_handshake_has_the_routes_time():
    p = upgrading(routes=[route(timeout_s=3)]).downstream(ASK).expect_upstream(ASK).advance(3.1)
    assert p.logged[-1][2:] == (504, "response_timeout", "UT")
    p.expect_upstream_closed()


def test_draining_leaves_it():
    p = tunnel()
    p.filter.stop()
    p.manager.close_idle(0.0)
    for endpoint in p.cluster.endpoints:
        endpoint.pool.drain()
    p.run()
    p.downstream(b"x").expect_upstream(b"x").upstream(b"y").expect_downstream(b"y", raw=True).expect_open()
    p.downstream_ends().expect_upstream_closed().expect_quiet()


def test_the_101_does_not_announce_the_end():
    p = upgrading()
    p.filter.stop()
    p.downstream(ASK).expect_upstream(ASK).upstream(GRANTED).expect_downstream(GRANTED).expect_open()


# -- filters


class Meddler(HttpFilter):
    """Sees a tunnel as bodies, and may refuse it."""

    def __init__(self, refuses=False):
        self.refuses = refuses

    def encode_headers(self, stream, headers, end_stream):
        if self.refuses and stream.status == 101:
            raise ValueError("not this")

    def decode_data(self, stream, data, end_stream):
        return data.upper()

    def encode_data(self, stream, data, end_stream):
        return data[::-1]


def test_filters_see_the_bytes():
    p = upgrading(Meddler()).downstream(ASK + b"early").expect_upstream(ASK).upstream(GRANTED + b"abc")
    p.expect_downstream(GRANTED + b"cba").expect_upstream(b"EARLY").downstream(b"more").expect_upstream(b"MORE")


def test_a_filter_that_fails_at_the_101():
    p = upgrading(Meddler(refuses=True)).downstream(ASK + b"early").expect_upstream(ASK).upstream(GRANTED + b"abc")
    p.expect_downstream(b"HTTP/1.1 500 Internal Server Error\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
    p.expect_upstream_closed()
    assert p.up.read() == b""


def test_filters_of_its_own():
    entry = FilterEntry("tests.unit.filters.http.test_tunnel:Marker", "", None, WHERE)
    entries = (entry, FilterEntry("router", ROUTER, RouterConfig(), WHERE))
    p = upgrading(upgrades=(Upgrade("websocket", True, entries),))
    marked = ASK.replace(b"\r\n\r\n", b"\r\nmark: 1\r\n\r\n")
    p.downstream(ASK).expect_upstream(marked).upstream(GRANTED).expect_downstream(GRANTED).downstream_ends()
    p.connect()
    p.exchange()
    assert len(p.filter.filters) == 3


class Marker(HttpFilter):
    """Marks requests."""

    @classmethod
    def from_config(cls, config, context):
        return cls()

    def decode_headers(self, stream, headers, end_stream):
        headers.append((b"mark", b"1"))


# -- attempts


def retrying(**fields):
    policy = RetryPolicy(frozenset(("5xx",)), num_retries=2, **fields)
    return upgrading(routes=[route(retry_policy=policy)])


def test_the_second_attempt_gets_the_early_bytes():
    p = retrying().downstream(ASK + b"early").expect_upstream(ASK).upstream(BUSY).advance(0.3)
    p.expect_upstream(ASK, on=1).upstream(GRANTED, on=1).expect_downstream(GRANTED).expect_upstream(b"early", on=1)
    for _ in range(40):
        p.downstream(b"x" * 50_000)
        assert len(p.upstreams[1].read()) == 50_000  # nothing is kept any more
    p.downstream_ends().expect_quiet()
    assert p.cluster.breakers.retries.count == 0


def test_the_time_of_an_attempt():
    p = retrying(per_try_timeout_s=1.0).downstream(ASK).expect_upstream(ASK).advance(1.3)
    p.expect_upstream(ASK, on=1).upstream(GRANTED, on=1).expect_downstream(GRANTED).advance(20).expect_open()
    p.downstream(b"x").expect_upstream(b"x", on=1)


# -- CONNECT


def test_connect_goes_on():
    p = connecting().downstream(CONNECT + b"early").expect_upstream(CONNECT).upstream(OK).expect_downstream(OK)
    p.expect_upstream(b"early").upstream(b"x").expect_downstream(b"x", raw=True)
    p.upstream_ends().downstream_ends().expect_closed().expect_quiet()
    assert p.logged == [(b"CONNECT", b"", 200, "upstream_reset_after_response_started{connection_termination}", "UC")]


def test_connect_ends_here():
    p = ending_here().downstream(CONNECT + b"early").expect_downstream(OK).expect_upstream(b"early")
    p.upstream(b"HTTP/1.1 101 x\r\n\r\n").expect_downstream(b"HTTP/1.1 101 x\r\n\r\n", raw=True)
    p.upstream_ends().downstream_ends().expect_closed().expect_quiet()
    assert p.logged == [(b"CONNECT", b"", 200, "via_upstream", "")]
    stats = p.cluster.stats
    assert (stats.upstream_cx_total, stats.upstream_cx_http1_total, stats.upstream_rq_total) == (1, 0, 1)


def test_its_connection_is_nobody_elses():
    p = ending_here().exchange().downstream(CONNECT).expect_downstream(OK)
    assert len(p.upstreams) == 2
    p.downstream_ends().expect_upstream_closed(on=1)
    p.connect()
    p.exchange()
    assert len(p.upstreams) == 2
    p.expect_quiet()


def test_priority_high():
    p = ending_here(is_high=True).downstream(CONNECT + b"x").expect_downstream(OK).expect_upstream(b"x")
    p.downstream_ends().expect_quiet()


def test_a_client_that_leaves_while_connecting():
    p = ending_here()
    p.auto_accept = False
    p.downstream(CONNECT + b"x").downstream_ends()
    p.upstreams[0].accept()
    p.expect_quiet()
    assert p.cluster.stats.upstream_rq_cancelled == 1
    p.connect()
    p.downstream(CONNECT).expect_downstream(OK)  # the connection that had been begun
    assert len(p.upstreams) == 1


def test_bytes_that_nobody_has_asked_for_end_such_a_connection():
    p = ending_here()
    p.auto_accept = False
    p.downstream(CONNECT).downstream_ends()
    p.upstreams[0].accept()
    p.upstreams[0].send(b"hello")
    p.expect_upstream_closed(on=0).expect_quiet()


def test_the_limits_of_the_cluster_hold():
    limits = CircuitBreakers(default=Thresholds(max_pending_requests=1))
    p = ending_here(cluster={"circuit_breakers": limits})
    p.auto_accept = False
    p.downstream(CONNECT)
    p.connect()
    p.downstream(CONNECT)
    assert p.logged[-1][2:] == (503, "upstream_reset_before_response_started{overflow}", "UO")


def test_nobody_there():
    p = ending_here()
    p.auto_accept = False
    p.downstream(CONNECT + b"x")
    p.upstreams[0].refuse(errno.ECONNREFUSED)
    assert p.logged[-1][2] == 503
    p.downstream_ends().expect_closed().expect_quiet()


@pytest.mark.parametrize("version", [1, 2])
def test_the_proxy_header(version):
    p = connecting(ConnectConfig(ProxyProtocol(version, ((238, b"ab"),) if version == 2 else ())))
    p.downstream(CONNECT + b"x").expect_downstream(OK)
    line = b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 10000\r\n"
    ports = (40000).to_bytes(2, "big") + (10000).to_bytes(2, "big")
    binary = SIGNATURE + b"\x21\x11\x00\x11\xc0\x00\x02\x01\xc0\x00\x02\x02" + ports + b"\xee\x00\x02ab"
    p.expect_upstream((line if version == 1 else binary) + b"x", raw=True)


def post(body=b"", head=b"content-length: 4\r\n"):
    return b"POST / HTTP/1.1\r\nhost: a\r\n" + head + b"\r\n" + body


def posting():
    return play(routes=[route(upgrades=(("CONNECT", True),), connect=ConnectConfig(allow_post=True))])


def test_a_post_ends_here_too():
    p = posting().downstream(post(b"pi"), b"ng").expect_upstream(b"ping")
    assert p.up.sock.write_shut
    p.upstream(b"pong").expect_downstream(
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n4\r\npong\r\n"
    )
    p.upstream_ends().expect_downstream(b"0\r\n\r\n").expect_quiet()


def test_a_whole_post_leaves_the_connection_to_others():
    p = posting()
    p.auto_accept = False
    p.downstream(post(b"ping"))
    p.auto_accept = True
    p.run()
    p.expect_upstream(b"ping").upstream(b"pong").upstream_ends()
    p.expect_downstream(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npong\r\n0\r\n\r\n").expect_open()
    p.exchange().expect_quiet()


def test_a_get_does_not():
    posting().exchange().expect_quiet()


@pytest.mark.parametrize("request_head", [CONNECT, ASK])
def test_what_is_not_configured_is_refused_and_the_rest_is_dropped(request_head):
    p = play().downstream(request_head + GET + SHORT)
    assert p.upstreams == []
    status = p.logged[0][2]
    assert (status, len(p.logged)) == (404 if request_head is CONNECT else 403, 1)
    p.downstream(GET).downstream_ends().expect_closed().expect_quiet()
    assert len(p.logged) == 1
