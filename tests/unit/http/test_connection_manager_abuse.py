"""Connections that pipeline and do not read, close in odd moments, or would make two requests of one."""

import socket

import pytest

from tests.support.playbook import play, route

GET = b"GET %b HTTP/1.1\r\nhost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
DIRECT = [route("/direct", direct=(200, b"d" * 1000)), route()]
SMUGGLED = GET % b"/smuggled"


def test_pipelined_answers_that_nobody_reads_are_made_only_up_to_the_watermark():
    p = play(routes=DIRECT, buffer_limit_bytes=10_000)
    p.down.sock.window = 0
    for _ in range(20):
        p.down.sock.inbox.append((GET % b"/direct") * 100)
    p.run()
    assert p.down.connection.out_bytes < 13_000
    assert len(p.down.sock.inbox) >= 18
    for _ in range(500):
        p.down.take(20_000)
    assert p.down.read().count(b"HTTP/1.1 200 OK") == 2000
    p.expect_quiet()


def test_a_pipelined_request_waits_until_the_answers_before_it_are_read():
    p = play(buffer_limit_bytes=1000)
    p.down.sock.window = 0
    p.downstream((GET % b"/1") * 3)
    p.upstream(b"HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n" + b"x" * 2000)
    assert p.upstreams[0].read().count(b"GET") == 1
    p.down.take()
    assert p.upstreams[0].read().count(b"GET") == 1


def test_who_does_not_read_the_last_answer_is_closed():
    p = play()
    p.down.sock.window = 0
    p.downstream(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").upstream(OK).expect_open()
    p.advance(1.5).expect_closed().expect_quiet()


def test_an_idle_connection_that_does_not_read_is_closed():
    p = play(drain_timeout_s=0)
    p.down.sock.window = 0
    p.downstream(GET % b"/").upstream(OK).advance(3600.5).expect_open()
    p.advance(1.5).expect_closed().expect_quiet()


def test_a_closing_answer_from_the_queue_leaves_no_pause_below_zero():
    p = play(routes=DIRECT)
    p.downstream((GET % b"/1") + b"GET /direct HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\nGET /x")
    p.upstream(OK)
    assert p.down.connection.read_pauses >= 0
    p.downstream(b" HTTP/1.1\r\n").advance(1.5).expect_closed().expect_quiet()


@pytest.mark.parametrize("wish", [b"connection: close", b"connection: close, upgrade\r\nupgrade: h2c"])
@pytest.mark.parametrize("first", [b"", GET % b"/0"])
def test_what_follows_the_last_request_goes_nowhere(wish, first):
    p = play()
    last = b"POST /1 HTTP/1.1\r\nhost: a\r\n" + wish + b"\r\ncontent-length: 2\r\n\r\nhi"
    p.downstream(first + last + b"POST /2 HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED)
    p.upstream(OK)
    if first:
        p.upstream(OK)
    seen = b"".join(peer.read() for peer in p.upstreams)
    assert seen.count(b"HTTP/1.1") == (2 if first else 1)
    assert seen.endswith(b"hi")
    assert b"smuggled" not in seen
    p.advance(1.5).expect_closed().expect_quiet()


def test_a_cut_answer_that_ends_by_close_ends_by_reset():
    # An HTTP/1.0 answer without a length is complete when the connection ends: a broken one must not look so.
    p = play(accept_http_10=True)
    options = []
    p.downstream(b"GET / HTTP/1.0\r\nhost: a\r\n\r\n")
    p.down.sock.setsockopt = lambda level, option, value: options.append(option)
    p.upstream(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n").upstream_ends()
    assert options == [socket.SO_LINGER]
    p.expect_closed().expect_quiet()


def test_a_cut_answer_with_a_length_needs_no_reset():
    p = play(accept_http_10=True)
    p.downstream(b"GET / HTTP/1.0\r\nhost: a\r\n\r\n")
    p.down.sock.setsockopt = lambda level, option, value: pytest.fail("reset")
    p.upstream(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").upstream_ends()
    p.advance(1.5).expect_closed().expect_quiet()


def test_expect_continue_of_a_queued_request_is_answered_in_its_turn():
    p = play()
    p.downstream((GET % b"/1") + b"POST /2 HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
    p.upstream(OK)
    p.expect_downstream(OK + b"HTTP/1.1 100 Continue\r\n\r\n")
    p.downstream(b"hi").upstream(OK).expect_downstream(OK).expect_quiet()


def test_a_1_0_client_gets_no_100():
    p = play(accept_http_10=True)
    p.downstream(b"POST / HTTP/1.0\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
    p.expect_downstream(b"")
