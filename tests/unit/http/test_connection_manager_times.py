"""Every timeout of a downstream connection, on a clock that the test moves. Flow control and memory at the end."""

import gc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.playbook import play, route

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
OK_CLOSE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
POST = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n"
NO_ROUTE_TIMEOUT = {"routes": [route(timeout_s=None)]}


def local_reply(status, reason, body, *more):
    lines = [b"content-length: %d" % len(body), b"content-type: text/plain", *more]
    return b"HTTP/1.1 %d %b\r\n" % (status, reason) + b"\r\n".join(lines) + b"\r\n\r\n" + body


# -- idle connections


def test_a_connection_that_never_says_anything():
    p = play(idle_timeout_s=10)
    p.connect()
    p.advance(9.9).expect_open().advance(0.2).expect_closed()
    assert p.stats.downstream_cx_idle_timeout == 1
    assert p.logged == []


def test_the_idle_timeout_counts_from_the_last_answer():
    p = play(idle_timeout_s=10, drain_timeout_s=0)
    p.connect()
    p.advance(8).exchange().advance(9.9).expect_open().advance(0.2).expect_closed()
    assert p.stats.downstream_cx_idle_timeout == 1


def test_the_idle_timeout_does_not_end_a_request():
    p = (
        play(idle_timeout_s=2, drain_timeout_s=0)
        .downstream(GET)
        .advance(6)
        .expect_open()
        .upstream(OK)
        .expect_downstream(OK)
    )
    p.advance(1.9).expect_open().advance(0.2).expect_closed()


def test_after_the_idle_timeout_one_more_request_may_come():
    p = play(idle_timeout_s=10, drain_timeout_s=5).exchange()
    p.advance(10.1).expect_open()
    assert p.stats.downstream_cx_idle_timeout == 1
    p.downstream(GET).upstream(OK).expect_downstream(OK_CLOSE).expect_closed()
    assert (p.stats.downstream_cx_max_requests_reached, p.stats.downstream_cx_drain_close) == (0, 0)


def test_the_idle_timeout_and_the_drain_timeout_end_a_connection():
    p = play(idle_timeout_s=10, drain_timeout_s=5).exchange()
    p.advance(14.9).expect_open().advance(0.2).expect_closed()
    assert p.stats.downstream_cx_idle_timeout == 1


def test_no_idle_timeout():
    p = play(idle_timeout_s=None).exchange().advance(1_000_000).expect_open()
    p.exchange()


# -- heads


def test_a_head_may_be_ended_by_the_stream_idle_timeout():
    p = play(stream_idle_timeout_s=5, request_headers_timeout_s=9).downstream(b"GET / HTTP/1.1\r\n").advance(5.1)
    p.expect_downstream(local_reply(408, b"Request Timeout", b"stream timeout", b"connection: close"))
    assert p.logged == [(b"", b"", 408, "stream_idle_timeout", "SI")]
    assert (p.stats.downstream_rq_idle_timeout, p.stats.downstream_rq_header_timeout) == (1, 0)


def test_a_head_that_takes_too_long():
    p = (
        play(request_headers_timeout_s=5)
        .downstream(b"GET / HTTP/1.1\r\n")
        .advance(4.9)
        .expect_downstream()
        .advance(0.2)
    )
    p.expect_downstream(local_reply(408, b"Request Timeout", b"request header timeout", b"connection: close"))
    assert p.logged == [(b"", b"", 408, "request_header_timeout", "")]
    assert p.stats.downstream_rq_header_timeout == 1
    p.advance(2).expect_closed().expect_quiet()


def test_dripping_does_not_move_the_deadline_of_a_head():
    p = play(request_headers_timeout_s=5)
    for byte in b"GET /":
        p.downstream(bytes((byte,))).advance(1)
    p.advance(0.1)
    assert p.down.read().startswith(b"HTTP/1.1 408 ")


def test_every_head_has_the_whole_time():
    p = play(request_headers_timeout_s=5).exchange().advance(30).downstream(GET[:10]).advance(4.9).downstream(GET[10:])
    p.expect_upstream(GET).upstream(OK).expect_downstream(OK)


def test_without_a_timeout_of_its_own_a_head_ends_with_the_streams_idle_timeout():
    p = play(stream_idle_timeout_s=7).downstream(GET[:10]).advance(6.9).expect_downstream().advance(0.2)
    assert p.down.read().startswith(b"HTTP/1.1 408 ")


def test_a_head_that_began_behind_a_request_is_timed_from_the_answer():
    p = play(request_headers_timeout_s=5).downstream(GET + GET[:10]).expect_upstream(GET).advance(3).upstream(OK)
    p.expect_downstream(OK).advance(4.9).expect_open().expect_downstream().advance(0.2)
    assert p.down.read().startswith(b"HTTP/1.1 408 ")


# -- requests and streams


def test_request_timeout():
    p = play(request_timeout_s=5).downstream(POST + b"abc").advance(4.9).expect_downstream().advance(0.2)
    p.expect_downstream(local_reply(408, b"Request Timeout", b"request timeout", b"connection: close"))
    assert p.logged == [(b"POST", b"/", 408, "request_overall_timeout", "")]
    assert p.stats.downstream_rq_timeout == 1
    p.expect_upstream_closed()


def test_request_timeout_ends_with_the_request():
    p = play(request_timeout_s=5).downstream(GET).advance(14).expect_downstream().upstream(OK).expect_downstream(OK)
    assert p.stats.downstream_rq_timeout == 0


@pytest.mark.parametrize(
    ("data", "status", "reason", "more"),
    [(GET, 504, b"Gateway Timeout", ()), (POST, 408, b"Request Timeout", (b"connection: close",))],
)
def test_stream_idle_timeout(data, status, reason, more):
    p = play(stream_idle_timeout_s=5, **NO_ROUTE_TIMEOUT).downstream(data).advance(4.9).expect_downstream().advance(0.2)
    p.expect_downstream(local_reply(status, reason, b"stream timeout", *more))
    assert p.logged[0][3:] == ("stream_idle_timeout", "SI")
    assert p.stats.downstream_rq_idle_timeout == 1
    p.expect_upstream_closed().advance(2).expect_quiet()


def test_activity_keeps_a_stream_alive():
    p = play(stream_idle_timeout_s=5, **NO_ROUTE_TIMEOUT).downstream(POST)
    for byte in b"0123456789":
        p.advance(4).downstream(bytes((byte,)))
    p.upstream(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n")
    for byte in b"012345678":
        p.advance(4).upstream(bytes((byte,)))
    p.expect_open().advance(5.1)
    assert p.down.sock.write_shut or p.down.closed
    assert p.logged[0][3:] == ("stream_idle_timeout", "SI")


def test_a_routes_own_idle_timeout():
    p = play(stream_idle_timeout_s=300, routes=[route(timeout_s=None, idle_timeout_s=3.0, idle_timeout_set=True)])
    p.downstream(GET).advance(2.9).expect_downstream().advance(0.2)
    assert p.down.read().startswith(b"HTTP/1.1 504 ")
    p = (
        play(stream_idle_timeout_s=3, routes=[route(timeout_s=None, idle_timeout_set=True)])
        .downstream(GET)
        .advance(1000)
    )
    p.upstream(OK).expect_downstream(OK)


def test_max_stream_duration():
    p = play(max_stream_duration_s=5, **NO_ROUTE_TIMEOUT).downstream(GET).advance(4.9).expect_downstream().advance(0.2)
    p.expect_downstream(local_reply(504, b"Gateway Timeout", b"downstream duration timeout"))
    assert p.logged[0][3:] == ("max_duration_timeout", "")
    assert p.stats.downstream_rq_max_duration_reached == 1
    p.expect_upstream_closed()


def test_max_stream_duration_of_a_pipelined_request_begins_with_its_turn():
    p = play(max_stream_duration_s=5, routes=[route(timeout_s=None)]).downstream(GET + GET)
    p.advance(4).upstream(OK).expect_downstream(OK).advance(4).upstream(OK).expect_downstream(OK)
    assert p.stats.downstream_rq_max_duration_reached == 0


def test_max_stream_duration_does_not_mind_activity():
    p = play(max_stream_duration_s=5, **NO_ROUTE_TIMEOUT).downstream(GET)
    p.upstream(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n")
    for byte in b"0123":
        p.advance(1).upstream(bytes((byte,)))
    p.expect_open().advance(1.1)
    assert p.down.sock.write_shut or p.down.closed


def test_route_timeout():
    p = play(routes=[route(timeout_s=2.0)]).downstream(GET).expect_upstream(GET).advance(1.9).expect_downstream()
    p.advance(0.2).expect_downstream(local_reply(504, b"Gateway Timeout", b"upstream request timeout"))
    assert p.logged == [(b"GET", b"/", 504, "response_timeout", "UT")]
    cluster = p.cluster.stats
    assert (cluster.upstream_rq_timeout, cluster.external__upstream_rq, p.cluster.endpoints[0].stats.rq_timeout) == (
        1,
        {504: 1},
        1,
    )
    p.expect_upstream_closed().expect_quiet()
    p.exchange()


def test_the_route_timeout_begins_with_the_end_of_the_request():
    p = play(routes=[route(timeout_s=2.0)]).downstream(POST).advance(5).downstream(b"0123456789").advance(1.9)
    p.expect_downstream().advance(0.2)
    assert p.down.read().startswith(b"HTTP/1.1 504 ")


def test_the_route_timeout_covers_the_whole_response():
    p = (
        play(routes=[route(timeout_s=2.0)])
        .downstream(GET)
        .upstream(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
    )
    p.advance(2.1).expect_downstream(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
    assert p.down.sock.write_shut or p.down.closed
    assert p.logged[0][3:] == ("response_timeout", "UT")
    p.expect_upstream_closed()


def test_the_route_timeout_covers_the_wait_for_a_connection():
    p = play(routes=[route(timeout_s=2.0)])
    p.auto_accept = False
    p.downstream(GET).advance(2.1)
    assert p.down.read().startswith(b"HTTP/1.1 504 ")
    p.expect_quiet()


def test_each_stream_has_a_timeout_of_its_own():
    p = play(routes=[route(timeout_s=2.0)]).downstream(GET).advance(1.5).upstream(OK).expect_downstream(OK)
    p.downstream(GET).advance(1.9).upstream(OK).expect_downstream(OK)


# -- what access logs say of time

POINTS = (
    *("request_complete", "upstream_first_tx", "upstream_last_tx", "upstream_first_rx", "upstream_last_rx"),
    *("downstream_first_tx", "downstream_last_tx"),
)


def points(stream):
    """Seconds after the request's first byte; None for what never was."""
    times = [getattr(stream, name) for name in POINTS]
    return tuple(round(time - stream.start, 3) if time else None for time in times)


def test_every_point_in_time_of_an_exchange_is_known():
    p = play()
    p.manager.access_logs = ((streams := []).append,)
    p.downstream(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n12").advance(1).downstream(b"34")
    p.advance(1).upstream(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n").advance(1).upstream(b"ok")
    assert points(streams[0]) == (1, 0, 1, 2, 3, 2, 3)


def test_a_local_reply_has_no_times_of_an_upstream():
    p = play(routes=[route(direct=(200, b"ok"))])
    p.manager.access_logs = ((streams := []).append,)
    p.downstream(GET)
    assert points(streams[0]) == (0, None, None, None, None, 0, 0)


def test_an_answer_that_is_broken_off_has_no_last_byte():
    p = play()
    p.manager.access_logs = ((streams := []).append,)
    p.downstream(GET).advance(1).upstream(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no").upstream_resets()
    assert points(streams[0]) == (0, 0, 0, 1, None, 1, None)


# -- the connection's own end


def test_max_connection_duration_between_requests():
    p = play(max_connection_duration_s=10).exchange().advance(9.9).expect_open().advance(0.2).expect_open()
    assert p.stats.downstream_cx_max_duration_reached == 1
    p.advance(4.8).expect_open().advance(0.2).expect_closed()
    assert p.stats.downstream_cx_max_duration_reached == 1


def test_max_connection_duration_before_the_first_byte():
    p = play(max_connection_duration_s=10)
    p.connect()
    p.advance(10.1).expect_closed()
    assert p.stats.downstream_cx_max_duration_reached == 1


@pytest.mark.parametrize("safe", [False, True])
def test_after_max_connection_duration_one_more_request(safe):
    p = play(max_connection_duration_s=10, safe_max_connection_duration=safe).exchange().advance(11)
    p.downstream(GET).upstream(OK).expect_downstream(OK_CLOSE).expect_closed()
    assert p.stats.downstream_cx_drain_close == p.stats.downstream_cx_max_requests_reached == 0


def test_safe_max_connection_duration_waits_for_the_next_request():
    p = play(max_connection_duration_s=10, safe_max_connection_duration=True).exchange().advance(100).expect_open()
    assert p.stats.downstream_cx_max_duration_reached == 1


def test_max_connection_duration_with_the_timeout_of_a_request_in_the_same_pass():
    p = play(max_connection_duration_s=10, routes=[route(timeout_s=10.0)]).downstream(GET).advance(10.5)
    assert p.down.read().startswith(b"HTTP/1.1 504 ")
    p.expect_open().advance(5).expect_closed()
    assert p.stats.downstream_cx_max_duration_reached == 1


def test_max_connection_duration_lets_a_request_finish():
    p = play(max_connection_duration_s=10)
    p.connect()
    p.advance(9).downstream(GET).advance(5).upstream(OK)
    p.expect_downstream(OK_CLOSE).expect_closed()
    assert p.stats.downstream_cx_max_duration_reached == 1


def test_delayed_close_reads_on_so_that_no_reset_overtakes_the_answer():
    p = play(delayed_close_timeout_s=3).downstream(b"garbage\r\n\r\n")
    assert p.down.read().startswith(b"HTTP/1.1 400 ")
    assert p.down.sock.write_shut
    p.advance(1).downstream(b"more garbage").expect_open().advance(1.9).expect_open().advance(0.2).expect_closed()
    assert (p.stats.downstream_cx_destroy_local, p.stats.downstream_cx_delayed_close_timeout) == (1, 1)


def test_delayed_close_ends_when_the_client_does():
    p = play(delayed_close_timeout_s=3).downstream(b"garbage\r\n\r\n").downstream_ends().expect_closed()
    assert p.loop.next_deadline() == float("inf")
    assert (p.stats.downstream_cx_destroy_remote, p.stats.downstream_cx_delayed_close_timeout) == (1, 0)


def test_timers_do_not_pile_up():
    p = play()
    for _ in range(3000):
        p.connect()
        p.exchange().downstream_ends()
        p.forget_closed()
    assert len(p.loop._timers.heap) < 3000


# -- flow control


def test_a_slow_client_stops_the_upstream_and_a_fast_one_lets_it_go_on():
    p = play(buffer_limit_bytes=1000).downstream(GET).expect_upstream(GET)
    p.down.sock.window = 0
    p.upstream(b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n", b"x" * 2000)
    up = p.up.connection
    assert up.read_pauses == 1
    p.upstream(b"x" * 3000)
    assert p.up.sock.inbox
    p.down.take(1500)
    assert up.read_pauses == 1  # not before half
    p.down.take()
    assert not p.up.sock.inbox
    assert p.down.read().endswith(b"x" * 5000)
    stats, cluster = p.stats, p.cluster.stats
    assert (
        stats.downstream_flow_control_paused_reading_total == stats.downstream_flow_control_resumed_reading_total >= 1
    )
    assert (
        cluster.upstream_flow_control_paused_reading_total == cluster.upstream_flow_control_resumed_reading_total >= 1
    )
    p.expect_quiet()


def test_a_slow_upstream_stops_the_client_and_a_fast_one_lets_it_go_on():
    p = play(cluster={"per_connection_buffer_limit_bytes": 1000})
    p.downstream(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5000\r\n\r\n").upstreams[0].sock.window = 0
    p.downstream(b"x" * 2000)
    assert p.down.connection.read_pauses == 1
    p.downstream(b"x" * 3000)
    assert p.down.sock.inbox
    p.upstreams[0].take()
    assert p.upstreams[0].read().endswith(b"x" * 5000)
    cluster = p.cluster.stats
    assert cluster.upstream_flow_control_backed_up_total == cluster.upstream_flow_control_drained_total >= 1
    p.upstream(OK).expect_downstream(OK).expect_quiet()


def test_a_body_that_waits_for_a_connection_is_bounded():
    p = play(buffer_limit_bytes=1000)
    p.auto_accept = False
    p.downstream(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5000\r\n\r\n", b"x" * 1001)
    assert p.down.connection.read_pauses == 1
    p.auto_accept = True
    p.downstream(b"x" * 3999)
    assert p.upstreams[0].read().endswith(b"x" * 5000)
    p.upstream(OK).expect_downstream(OK).expect_quiet()


@pytest.mark.parametrize("pipelined", [False, True])
def test_a_request_waits_until_the_client_has_read_the_answers_before(pipelined):
    p = play(buffer_limit_bytes=1000)
    p.down.sock.window = 0
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n" + b"x" * 2000
    p.downstream(GET * 2 if pipelined else GET).expect_upstream(GET).upstream(answer)
    if not pipelined:
        p.downstream(GET)
    p.expect_upstream()
    p.down.take()
    p.expect_upstream(GET).upstream(answer)
    assert p.down.read().count(b"x" * 2000) == 2
    p.expect_quiet()


@pytest.mark.parametrize("end", ["upstream resets", "downstream resets", "timeout"])
def test_no_pause_outlives_an_exchange(end):
    p = play(buffer_limit_bytes=1000).downstream(GET)
    p.down.sock.window = 0
    p.upstream(b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n", b"x" * 2000)
    if end == "upstream resets":
        p.upstream_resets()
    elif end == "downstream resets":
        p.downstream_resets()
    else:
        p.advance(16)
    p.down.take()
    p.advance(2).expect_closed().expect_quiet()


def test_a_client_that_was_stopped_for_an_upstream_is_read_again_when_that_is_given_up():
    p = play(cluster={"per_connection_buffer_limit_bytes": 1000})
    p.downstream(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2000\r\n\r\n").upstreams[0].sock.window = 0
    p.downstream(b"x" * 2000)
    assert p.down.connection.read_pauses == 1
    p.advance(16)
    assert p.down.read().startswith(b"HTTP/1.1 504 ")
    p.expect_open().expect_quiet()
    p.exchange()


def content(response):
    """The body of a whole response, without chunks."""
    head, _, body = response.partition(b"\r\n\r\n")
    if b"chunked" not in head:
        return body
    assert body.endswith(b"\r\n0\r\n\r\n")
    return b"".join(body.split(b"\r\n")[1::2])


STEPS = st.lists(
    st.tuples(st.sampled_from(["down takes", "up takes", "down sends", "up sends"]), st.integers(1, 700)), max_size=40
)


@settings(max_examples=40, deadline=None)
@given(steps=STEPS, request_bytes=st.integers(1, 4000), response_bytes=st.integers(1, 4000), chunked=st.booleans())
def test_flow_control_is_balanced_and_never_stuck(steps, request_bytes, response_bytes, chunked):
    p = play(buffer_limit_bytes=300, cluster={"per_connection_buffer_limit_bytes": 300}, **NO_ROUTE_TIMEOUT)
    p.down.sock.window = 0
    p.downstream(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % request_bytes)
    up = p.upstreams[0]
    up.sock.window = 0
    request = b"q" * request_bytes
    body = b"r" * response_bytes
    framing = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % response_bytes
    response = b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % framing
    response += b"%x\r\n%b\r\n0\r\n\r\n" % (response_bytes, body) if chunked else body
    # The response ends only after the request, as a well-behaved upstream does.
    kept = response[-1:]
    response = response[:-1]
    for what, size in steps:
        if what == "down takes":
            p.down.take(size)
        elif what == "up takes":
            up.take(size)
        elif what == "down sends" and request:
            p.downstream(request[:size])
            request = request[size:]
        elif what == "up sends" and response:
            p.upstream(response[:size], on=0)
            response = response[size:]
        assert p.down.connection.out_bytes <= 300 + 1000
        assert up.connection.out_bytes <= 300 + 1000
    up.take()
    if request:
        p.downstream(request)
    p.down.take()
    if response:
        p.upstream(response, on=0)
    p.upstream(kept, on=0)
    assert up.read().endswith(b"q" * request_bytes)
    received = p.down.read()
    assert content(received) == body
    p.expect_quiet()
    stats, cluster = p.stats, p.cluster.stats
    assert stats.downstream_flow_control_paused_reading_total == stats.downstream_flow_control_resumed_reading_total
    assert cluster.upstream_flow_control_paused_reading_total == cluster.upstream_flow_control_resumed_reading_total
    assert cluster.upstream_flow_control_backed_up_total == cluster.upstream_flow_control_drained_total


# -- memory


@pytest.mark.parametrize("keep_alive", [True, False])
def test_10000_requests_leave_nothing_for_gc(keep_alive):
    p = play()
    request = GET if keep_alive else b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"

    def exchanges(number):
        for _ in range(number):
            p.downstream(request).expect_upstream(GET).upstream(OK).down.read()
            if not keep_alive:
                p.connect()
                p.forget_closed()
        p.logged.clear()
        # Counted values are one entry each; they are the statistics' to flush.
        p.stats.downstream_rq_time.clear()

    exchanges(300)  # whatever grows once has grown: tables of known names, batches of ids
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        exchanges(10_000)
        after = len(gc.get_objects())
        found = gc.collect()
    finally:
        gc.enable()
    assert found < 10
    assert after - before < (100 if keep_alive else 4 * 1024)  # cancelled timers are swept by the thousand
    p.expect_quiet()


@pytest.mark.parametrize(
    "what", ["refused", "local reply", "upstream gone", "downstream gone", "pipelined", "post", "timeout"]
)
def test_other_ends_leave_nothing_for_gc_either(what):
    p = play(routes=[route("/direct", direct=(200, b"ok")), route()])

    def once():
        p.connect()
        if what == "refused":
            p.downstream(b"GET / HTTP/1.1\r\n\r\n").downstream_ends()
        elif what == "local reply":
            p.downstream(GET.replace(b"/ ", b"/direct ")).downstream_ends()
        elif what == "upstream gone":
            p.downstream(GET).expect_upstream(GET).upstream_resets().downstream_ends()
        elif what == "downstream gone":
            p.downstream(GET).downstream_resets()
        elif what == "pipelined":
            p.downstream(GET * 3)
            for _ in range(3):
                p.expect_upstream(GET).upstream(OK)
            p.downstream_ends()
        elif what == "post":
            p.downstream(POST + b"0123456789").upstream(OK).downstream_ends()
            p.upstreams[0].read()
        else:
            p.downstream(GET).advance(16).downstream_ends()
        p.advance(2)
        p.up = None
        p.forget_closed()
        p.logged.clear()

    for _ in range(20):
        once()
    gc.collect()
    gc.disable()
    try:
        for _ in range(100):
            once()
        found = gc.collect()
    finally:
        gc.enable()
    assert found < 10
