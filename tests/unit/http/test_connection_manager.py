"""Downstream connections, played as conversations: order, keep-alive, headers, closing. Times and flow control have files of
their own."""

import re
import time
import uuid

import pytest

from forkproxy.config.build.bootstrap import NodeConfig
from tests.support.playbook import play, route

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
OK_CLOSE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
DIRECT = {"routes": [route(direct=(200, b"ok"))]}


def get(path=b"/", *headers, method=b"GET", version=b"HTTP/1.1"):
    lines = b"".join([header + b"\r\n" for header in headers])
    return b"%b %b %b\r\nhost: a\r\n%b\r\n" % (method, path, version, lines)


def sent_upstream(p, *headers, **options):
    """The head that arrives upstream for a GET with ``headers``, as a dict."""
    p.downstream(get(b"/", *headers, **options))
    [peer] = [peer for peer in p.upstreams if peer.sock.outbox]
    lines = peer.read().decode().split("\r\n\r\n")[0].split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines)


def received(p):
    """(status line, headers as a dict, body) of the one response that arrived."""
    head, _, body = p.down.read().decode().partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    return first, dict(line.split(": ", 1) for line in lines), body


# -- keep-alive and closing


def test_many_requests_on_one_connection():
    p = play().exchange(b"/1").exchange(b"/2").expect_open().expect_quiet()
    assert (len(p.upstreams), p.http.requests) == (1, 2)
    assert p.codes == {200: 2}
    assert (p.stats.downstream_cx_total, p.stats.downstream_rq_total, p.stats.downstream_cx_active) == (1, 2, 1)


def test_connection_close():
    p = play().downstream(get(b"/", b"connection: close")).expect_upstream(GET).upstream(OK)
    p.expect_downstream(OK_CLOSE).expect_closed()
    assert p.stats.downstream_cx_destroy_local == 1
    p.expect_quiet()


def test_what_follows_the_last_request_is_not_looked_at():
    p = play().downstream(get(b"/", b"connection: close") + GET).expect_upstream(GET).upstream(OK)
    p.expect_downstream(OK_CLOSE)
    assert len(p.logged) == 1
    assert p.stats.downstream_cx_protocol_error == 0


def test_max_requests_per_connection():
    p = play(max_requests_per_connection=2).exchange().downstream(GET).upstream(OK).expect_downstream(OK_CLOSE)
    p.expect_closed()
    assert p.stats.downstream_cx_max_requests_reached == 1


def test_draining_ends_keep_alive_with_the_next_answer():
    p = play().exchange()
    p.filter.stop()
    p.run()
    p.expect_open().downstream(GET).upstream(OK).expect_downstream(OK_CLOSE).expect_closed()
    assert p.stats.downstream_cx_drain_close == 1


def test_idle_connections_are_closed_and_busy_ones_are_not():
    p = play()
    idle = p.connect()
    p.exchange()
    p.connect()
    p.downstream(GET)
    inside_a_head = p.connect()
    p.downstream(b"GET / HT")
    p.advance(2)
    fresh = p.connect()
    p.manager.close_idle(1.0)
    p.run()
    assert [each.closed for each in p.downstreams] == [True, False, False, False]
    assert idle.closed
    assert not inside_a_head.closed
    p.advance(1)
    p.manager.close_idle(1.0)
    p.run()
    assert fresh.closed
    p.upstream(OK).run()
    p.advance(1).manager.close_idle(1.0)
    p.run()
    assert [each.closed for each in p.downstreams] == [True, True, False, True]


def test_a_client_that_leaves_takes_its_exchange_along():
    p = play().downstream(GET).expect_upstream(GET).downstream_resets().expect_upstream_closed().expect_quiet()
    assert p.logged == [(b"GET", b"/", 0, "downstream_remote_disconnect", "DC")]
    stats = p.stats
    assert (stats.downstream_cx_destroy_remote_active_rq, stats.downstream_rq_rx_reset) == (1, 1)
    assert (stats.downstream_cx_active, stats.downstream_cx_http1_active) == (0, 0)


def test_a_client_that_leaves_inside_a_head():
    p = play().downstream(b"GET / HT").downstream_ends()
    assert p.logged == [(b"", b"", 0, "downstream_remote_disconnect", "DC")]


def test_a_client_that_leaves_between_requests_is_nobodys_loss():
    p = play().exchange().downstream_ends()
    assert len(p.logged) == 1
    assert p.stats.downstream_cx_destroy_remote == 1


def test_an_answer_before_the_end_of_the_request_closes():
    p = play().downstream(get(b"/", b"content-length: 10", method=b"POST") + b"abc")
    p.expect_upstream(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc").upstream(OK)
    p.expect_downstream(OK_CLOSE).expect_upstream_closed()
    assert p.down.sock.write_shut
    assert p.stats.downstream_rq_response_before_rq_complete == 1
    p.downstream(b"the rest").downstream_ends().expect_closed().expect_quiet()


# -- pipelining


def test_pipelined_requests_are_answered_in_order():
    p = play().downstream(get(b"/1") + get(b"/2") + get(b"/3"))
    for number in b"123":
        path = b"/%c" % number
        p.expect_upstream(get(path)).upstream(OK).expect_downstream(OK)
    p.expect_upstream().expect_quiet()
    assert [entry[1] for entry in p.logged] == [b"/1", b"/2", b"/3"]
    assert len(p.upstreams) == 1  # each waited until the connection of the one before was free


def test_reading_is_paused_while_requests_wait():
    p = play().downstream(get(b"/1") + get(b"/2"))
    assert p.down.connection.read_pauses == 1
    p.downstream(get(b"/3"))
    assert p.down.sock.inbox
    for number in b"123":
        p.expect_upstream(get(b"/%c" % number)).upstream(OK).expect_downstream(OK)
    p.expect_quiet()


def test_bodies_wait_with_their_requests():
    post = get(b"/2", b"transfer-encoding: chunked", method=b"POST")
    p = play().downstream(get(b"/1") + post + b"1\r\nx\r\n0\r\n\r\n" + get(b"/3"))
    p.expect_upstream(get(b"/1")).upstream(OK).expect_downstream(OK)
    p.expect_upstream(post + b"1\r\nx\r\n0\r\n\r\n").upstream(OK).expect_downstream(OK)
    p.expect_upstream(get(b"/3")).upstream(OK).expect_downstream(OK).expect_quiet()


def test_half_a_body_waits_and_the_rest_follows():
    post = get(b"/2", b"content-length: 4", method=b"POST")
    p = play().downstream(get(b"/1") + post + b"ab").expect_upstream(get(b"/1")).downstream(b"cd" + get(b"/3"))
    p.upstream(OK).expect_downstream(OK).expect_upstream(post + b"abcd").upstream(OK).expect_downstream(OK)
    p.expect_upstream(get(b"/3")).upstream(OK).expect_downstream(OK).expect_quiet()


def test_trailers_wait_too():
    post = get(b"/2", b"transfer-encoding: chunked", method=b"POST")
    p = play(enable_trailers=True, cluster={"enable_trailers": True})
    p.downstream(get(b"/1") + post + b"0\r\nt: 1\r\n\r\n").expect_upstream(get(b"/1")).upstream(OK).expect_downstream(
        OK
    )
    p.expect_upstream(post + b"0\r\nt: 1\r\n\r\n")


BAD = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 11\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\nBad Request"


def test_garbage_behind_a_request_is_answered_after_it():
    p = play().downstream(get(b"/1") + b"garbage\r\n\r\n").expect_upstream(get(b"/1")).expect_downstream()
    p.upstream(OK).expect_downstream(OK + BAD).expect_quiet()
    assert [entry[2:] for entry in p.logged] == [(200, "via_upstream", ""), (400, "http1.codec_error", "DPE")]
    assert p.stats.downstream_cx_protocol_error == 1


def test_a_broken_body_in_the_queue_is_answered_in_its_turn():
    post = get(b"/2", b"transfer-encoding: chunked", method=b"POST")
    p = play().downstream(get(b"/1") + post + b"1\r\nx\r\nno\r\n").expect_upstream(get(b"/1")).expect_downstream()
    p.upstream(OK).expect_downstream(OK + BAD)
    assert [entry[:3] for entry in p.logged] == [(b"GET", b"/1", 200), (b"POST", b"/2", 400)]
    p.expect_quiet()


def test_the_last_pipelined_request_may_say_close():
    p = play().downstream(get(b"/1") + get(b"/2", b"connection: close") + get(b"/3"))
    p.expect_upstream(get(b"/1")).upstream(OK).expect_downstream(OK).expect_upstream(get(b"/2")).upstream(OK)
    p.expect_downstream(OK_CLOSE).expect_closed().expect_quiet()
    assert len(p.logged) == 2


def test_a_pipelined_http_10_request_does_not_change_the_answer_before_it():
    p = play(accept_http_10=True).downstream(get(b"/1") + get(b"/2", version=b"HTTP/1.0"))
    p.expect_upstream(get(b"/1")).upstream(OK).expect_downstream(OK).expect_upstream(get(b"/2")).upstream(OK)
    p.expect_downstream(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").expect_closed()


def test_a_failed_exchange_does_not_stop_those_behind_it():
    p = play().downstream(get(b"/1") + get(b"/2")).expect_upstream(get(b"/1")).upstream_resets()
    assert p.down.read().startswith(b"HTTP/1.1 503 ")
    p.expect_upstream(get(b"/2")).upstream(OK).expect_downstream(OK).expect_quiet()


def test_a_close_drops_the_queue():
    p = play().downstream(get(b"/1") + get(b"/2"))
    p.down.connection.abort()
    p.advance(1).expect_upstream_closed().expect_quiet()
    assert [entry[1] for entry in p.logged] == [b"/1"]


def test_thousands_of_pipelined_requests_do_not_recurse():
    p = play(**DIRECT)
    p.downstream(get() * 3000)
    assert p.down.read().count(b"HTTP/1.1 200 OK\r\n") == 3000
    p.expect_quiet()


def test_thousands_behind_an_exchange_do_not_recurse():
    p = play(routes=[route("/up"), route(direct=(200, b"ok"))])
    p.downstream(get(b"/up") + get() * 3000).expect_downstream()
    p.upstream(OK)
    assert p.down.read().count(b"HTTP/1.1 200 OK\r\n") == 3001
    p.expect_quiet()


# -- what is wrong with a request


@pytest.mark.parametrize(
    ("data", "status", "details"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400, "missing_host_header"),
        (get(b"/#x"), 400, "path_normalization_failed"),
        (b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n", 404, "absolute_path_rejected"),
        (b"GET / HTTP/1.0\r\nhost: a\r\n\r\n", 426, "low_version"),
        (get(b"/", b"connection: upgrade", b"upgrade: websocket"), 403, "upgrade_failed"),
        (get(b"/", b"x: \x01"), 400, "http1.invalid_characters"),
        (b"\x16\x03\x01\x00\xa5", 400, "http1.codec_error"),
        (get(b"/", b"transfer-encoding: gzip", method=b"POST"), 501, "http1.invalid_transfer_encoding"),
        (get(b"/", b"x: " + b"x" * 61440), 431, "http1.headers_too_large"),
    ],
)
def test_requests_that_are_refused(data, status, details):
    p = play().downstream(data)
    assert p.down.read().startswith(b"HTTP/1.1 %d " % status)
    assert [entry[2:4] for entry in p.logged] == [(status, details)]
    assert p.codes == {status: 1}
    p.expect_upstream().expect_quiet()


def test_stream_error_on_invalid_http_message_keeps_the_connection():
    p = play(stream_error_on_invalid_http_message=True).downstream(b"GET / HTTP/1.1\r\n\r\n")
    assert b"connection: close" not in p.down.read()
    p.exchange()


def test_a_broken_body_ends_the_exchange():
    p = play().downstream(get(b"/", b"transfer-encoding: chunked", method=b"POST"), b"no\r\n")
    assert p.down.read().startswith(b"HTTP/1.1 400 ")
    p.expect_upstream_closed().expect_quiet()


def test_underscores_are_counted():
    p = play(headers_with_underscores_action="DROP_HEADER").downstream(get(b"/", b"a_b: 1")).expect_upstream(GET)
    assert p.manager.http1_stats.dropped_headers_with_underscores == 1
    p = play(headers_with_underscores_action="REJECT_REQUEST").downstream(get(b"/", b"a_b: 1"))
    assert p.manager.http1_stats.requests_rejected_with_underscores_in_headers == 1


# -- framing of answers


def chunked(*pieces):
    return b"".join([b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces])


def test_chunked_both_ways():
    post = get(b"/", b"transfer-encoding: chunked", method=b"POST")
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    p = play().downstream(post, chunked(b"a"), chunked(b"b") + b"0\r\n\r\n")
    p.expect_upstream(post + chunked(b"a", b"b") + b"0\r\n\r\n")
    p.upstream(answer).expect_downstream(answer).upstream(chunked(b"x" * 20000))
    p.expect_downstream(chunked(b"x" * 20000)).upstream(b"0\r\n\r\n").expect_downstream(b"0\r\n\r\n").expect_quiet()


def test_an_answer_that_ends_by_close_becomes_chunked():
    p = play().downstream(GET).expect_upstream(GET).upstream(b"HTTP/1.1 200 OK\r\n\r\n", b"all").upstream_ends()
    p.expect_downstream(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunked(b"all") + b"0\r\n\r\n")
    p.expect_open().expect_quiet()


@pytest.mark.parametrize("framing", [b"content-length: 10", b"transfer-encoding: chunked"])
def test_a_truncated_answer_arrives_incomplete(framing):
    body = b"abc" if b"length" in framing else chunked(b"abc")
    head = b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n"
    p = play().downstream(GET).expect_upstream(GET).upstream(head + body).upstream_ends().expect_downstream(head + body)
    assert p.down.sock.write_shut or p.down.closed
    p.advance(2).expect_closed().expect_quiet()
    assert p.logged[0][4] == "UPE"


def test_a_truncated_answer_to_http_10_is_reset():
    """Its end is the close: a clean one would make it whole."""
    p = play(accept_http_10=True).downstream(get(version=b"HTTP/1.0")).expect_upstream(GET)
    p.upstream(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunked(b"abc")).upstream_resets()
    assert p.down.closed
    assert not p.down.sock.write_shut
    assert p.downstreams[0].connection.error is not None


@pytest.mark.parametrize("framing", [b"content-length: 10", b"transfer-encoding: chunked"])
def test_head(framing):
    head = b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n"
    p = play().downstream(get(method=b"HEAD")).upstream(head).expect_downstream(head).expect_quiet()
    p.upstreams[0].read()
    p.exchange()


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body(status):
    p = play().downstream(GET).expect_upstream(GET).upstream(b"HTTP/1.1 %d X\r\n\r\n" % status)
    assert p.down.read().count(b"content-length") == 0
    p.expect_quiet().exchange()


def test_hop_by_hop_headers_of_answers_go():
    answer = b"HTTP/1.1 200 OK\r\nconnection: keep-alive\r\nkeep-alive: 5\r\ncontent-length: 2\r\nproxy-connection: x\r\n\r\nok"
    play().downstream(GET).upstream(answer).expect_downstream(OK)


def test_unfinished_business_of_http_10():
    p = play(accept_http_10=True)
    p.downstream(get(b"/", b"connection: keep-alive", version=b"HTTP/1.0")).expect_upstream(GET).upstream(OK)
    p.expect_downstream(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nok").expect_open()
    p.downstream(get(b"/", b"connection: keep-alive", version=b"HTTP/1.0"))
    p.expect_upstream(GET).upstream(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunked(b"ab") + b"0\r\n\r\n"
    )
    p.expect_downstream(b"HTTP/1.0 200 OK\r\nconnection: close\r\n\r\nab").expect_closed().expect_quiet()


def test_a_default_host_for_http_10():
    p = play(accept_http_10=True, default_host_for_http_10="d").downstream(b"GET / HTTP/1.0\r\n\r\n")
    p.expect_upstream(b"GET / HTTP/1.1\r\nhost: d\r\n\r\n")


# -- 100-continue

EXPECTING = get(b"/", b"content-length: 2", b"expect: 100-continue", method=b"POST")


def test_the_proxy_says_100_itself():
    p = play().downstream(EXPECTING).expect_downstream(b"HTTP/1.1 100 Continue\r\n\r\n")
    p.downstream(b"ok").expect_upstream(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nok")
    p.upstream(b"HTTP/1.1 100 Continue\r\n\r\n" + OK).expect_downstream(OK)
    assert p.codes == {100: 1, 200: 1}


def test_or_passes_it_on():
    p = (
        play(proxy_100_continue=True)
        .downstream(EXPECTING)
        .expect_downstream()
        .expect_upstream(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n")
    )
    p.upstream(b"HTTP/1.1 100 Continue\r\nx: y\r\n\r\n").expect_downstream(b"HTTP/1.1 100 Continue\r\nx: y\r\n\r\n")
    p.downstream(b"ok").upstream(OK).expect_downstream(OK)


def test_other_interim_answers_stop_here():
    play(proxy_100_continue=True).downstream(GET).upstream(
        b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK
    ).expect_downstream(OK)


# -- request headers


def test_what_every_request_gets():
    p = play()
    headers = sent_upstream(p)
    assert list(headers) == ["host", "x-forwarded-proto", "x-request-id", "x-envoy-expected-rq-timeout-ms"]
    assert (headers["x-forwarded-proto"], headers["x-envoy-expected-rq-timeout-ms"]) == ("http", "15000")


def test_request_ids_are_version_4_and_unique():
    p = play()
    seen = set()
    for _ in range(600):
        made = uuid.UUID(sent_upstream(p)["x-request-id"])
        assert (made.version, made.variant) == (4, uuid.RFC_4122)
        seen.add(made)
        p.upstream(OK).expect_downstream(OK)
    assert len(seen) == 600


def test_workers_do_not_share_request_ids():
    p = play().exchange()
    inherited = list(p.manager.request_ids)
    p.manager.start(p.loop)
    p.exchange()
    assert inherited
    assert not set(inherited) & set(p.manager.request_ids)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, True),
        ({"use_remote_address": True}, False),
        ({"use_remote_address": True, "preserve_external_request_id": True}, True),
        ({"generate_request_id": False}, True),
        ({"generate_request_id": False, "use_remote_address": True}, True),
    ],
)
def test_a_request_id_from_outside(settings, kept):
    found = sent_upstream(play(**settings), b"x-request-id: mine").get("x-request-id")
    assert found == "mine" if kept else found != "mine"
    assert (found is None) is (kept is None)


def test_no_request_id_when_switched_off():
    assert "x-request-id" not in sent_upstream(play(generate_request_id=False))


def test_the_request_id_in_the_response():
    p = play(always_set_request_id_in_response=True)
    found = sent_upstream(p)["x-request-id"]
    assert received(p.upstream(OK))[1]["x-request-id"] == found
    p.downstream(get(b"/", b"x-request-id: mine"))
    p.upstream(b"HTTP/1.1 200 OK\r\nx-request-id: theirs\r\ncontent-length: 0\r\n\r\n")
    assert received(p)[1]["x-request-id"] == "mine"


@pytest.mark.parametrize(
    ("settings", "sent", "forwarded", "external"),
    [
        ({}, None, None, None),
        ({}, "198.51.100.7", "198.51.100.7", None),
        ({"use_remote_address": True}, None, "192.0.2.1", "192.0.2.1"),
        ({"use_remote_address": True}, "198.51.100.7", "198.51.100.7,192.0.2.1", "192.0.2.1"),
        ({"use_remote_address": True, "skip_xff_append": True}, "198.51.100.7", "198.51.100.7", "192.0.2.1"),
        (
            {"use_remote_address": True, "xff_num_trusted_hops": 1},
            "198.51.100.7, 203.0.113.9",
            "198.51.100.7, 203.0.113.9,192.0.2.1",
            "203.0.113.9",
        ),
        (
            {"use_remote_address": True, "xff_num_trusted_hops": 2},
            "198.51.100.7",
            "198.51.100.7,192.0.2.1",
            "192.0.2.1",
        ),
        ({"use_remote_address": True, "xff_num_trusted_hops": 1}, "nonsense", "nonsense,192.0.2.1", "192.0.2.1"),
    ],
)
def test_x_forwarded_for(settings, sent, forwarded, external):
    headers = sent_upstream(play(**settings), *([b"x-forwarded-for: " + sent.encode()] if sent else []))
    assert headers.get("x-forwarded-for") == forwarded
    assert headers.get("x-envoy-external-address") == external


def test_a_client_on_this_machine_is_known_by_this_machines_address():
    p = play(use_remote_address=True, local_ip="192.0.2.99", peer=("127.0.0.1", 5))
    assert sent_upstream(p)["x-forwarded-for"] == "192.0.2.99"


@pytest.mark.parametrize(
    ("settings", "sent", "found"),
    [
        ({}, "https", "https"),
        ({"use_remote_address": True}, "https", "http"),
        ({"use_remote_address": True, "xff_num_trusted_hops": 1}, "https", "https"),
        ({"use_remote_address": True, "xff_num_trusted_hops": 1}, None, "http"),
        ({"tls": True}, None, "https"),
    ],
)
def test_x_forwarded_proto(settings, sent, found):
    headers = sent_upstream(play(**settings), *([b"x-forwarded-proto: " + sent.encode()] if sent else []))
    assert headers["x-forwarded-proto"] == found


@pytest.mark.parametrize("edge", [False, True])
def test_internal_headers_from_outside_are_dropped(edge):
    always = ["x-envoy-internal", "x-envoy-retry-on", "x-envoy-upstream-rq-timeout-ms", "x-envoy-max-retries"]
    at_the_edge = ["x-envoy-original-path", "x-envoy-downstream-service-cluster"]
    sent = [f"{name}: 1".encode() for name in (*always, *at_the_edge, "x-envoy-other")]
    headers = sent_upstream(play(use_remote_address=edge), *sent)
    assert not set(always) & set(headers)
    assert bool(set(at_the_edge) & set(headers)) is not edge
    assert "x-envoy-other" in headers


def test_user_agent_and_service():
    p = play(add_user_agent=True, node=NodeConfig(id="n1", cluster="c1"))
    headers = sent_upstream(p)
    assert headers["user-agent"] == headers["x-envoy-downstream-service-cluster"] == "c1"
    assert headers["x-envoy-downstream-service-node"] == "n1"
    p.upstream(OK)
    assert sent_upstream(p, b"user-agent: mine")["user-agent"] == "mine"


def test_via_both_ways():
    p = play(via="me")
    assert sent_upstream(p)["via"] == "me"
    assert received(p.upstream(OK))[1]["via"] == "me"
    assert sent_upstream(p, b"via: 1.1 other")["via"] == "1.1 other, me"
    p.upstream(b"HTTP/1.1 200 OK\r\nvia: theirs\r\ncontent-length: 0\r\n\r\n")
    assert received(p)[1]["via"] == "theirs, me"


@pytest.mark.parametrize(
    ("settings", "path", "found"),
    [
        ({}, b"/a/../b%41//c", b"/a/../b%41//c"),
        ({"normalize_path": True}, b"/a/../b%41//c", b"/bA//c"),
        ({"merge_slashes": True}, b"/a//b?x//y", b"/a/b?x//y"),
        ({"path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD"}, b"/a%2Fb", b"/a/b"),
    ],
)
def test_paths_are_normalised(settings, path, found):
    play(**settings).downstream(get(path)).expect_upstream(get(found))


def test_paths_that_are_refused_or_redirected():
    p = play(path_with_escaped_slashes_action="REJECT_REQUEST").downstream(get(b"/a%2fb"))
    assert received(p)[0] == "HTTP/1.1 400 Bad Request"
    p = play(path_with_escaped_slashes_action="UNESCAPE_AND_REDIRECT").downstream(get(b"/a%2fb"))
    first, headers, _ = received(p)
    assert (first, headers["location"]) == ("HTTP/1.1 307 Temporary Redirect", "/a/b")
    assert p.stats.downstream_rq_redirected_with_normalized_path == 1


@pytest.mark.parametrize(
    ("settings", "host", "found"),
    [
        ({"strip_any_host_port": True}, b"a:81", b"a"),
        ({"strip_any_host_port": True}, b"[::1]:81", b"[::1]"),
        ({"strip_any_host_port": True}, b"[::1]", b"[::1]"),
        ({"strip_matching_host_port": True}, b"a:10000", b"a"),
        ({"strip_matching_host_port": True}, b"a:81", b"a:81"),
        ({"strip_trailing_host_dot": True}, b"a.:81", b"a:81"),
    ],
)
def test_hosts_are_stripped(settings, host, found):
    p = play(**settings).downstream(b"GET / HTTP/1.1\r\nhost: %b\r\n\r\n" % host)
    p.expect_upstream(b"GET / HTTP/1.1\r\nhost: %b\r\n\r\n" % found)


# -- response headers


def test_server_and_date():
    p = play(server_name="me").downstream(GET).upstream(OK)
    p.expect_downstream(
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-envoy-upstream-service-time: 0\r\n"
        b"date: Tue, 14 Nov 2023 22:13:20 GMT\r\nserver: me\r\n\r\nok",
        raw=True,
    )


@pytest.mark.parametrize(
    ("how", "with_theirs", "without"),
    [("OVERWRITE", "envoy", "envoy"), ("APPEND_IF_ABSENT", "theirs", "envoy"), ("PASS_THROUGH", "theirs", None)],
)
def test_server_header_transformation(how, with_theirs, without):
    p = play(server_header_transformation=how)
    p.downstream(GET).upstream(b"HTTP/1.1 200 OK\r\nserver: theirs\r\ncontent-length: 0\r\n\r\n")
    assert received(p)[1]["server"] == with_theirs
    p.downstream(GET).upstream(OK)
    assert received(p)[1].get("server") == without


def test_an_upstreams_date_stays():
    p = play().downstream(GET).upstream(b"HTTP/1.1 200 OK\r\ndate: theirs\r\ncontent-length: 0\r\n\r\n")
    sent = p.down.read()
    assert sent.count(b"date: ") == 1
    assert b"date: theirs" in sent


def test_the_date_is_made_once_a_second(monkeypatch):
    p = play()
    p.loop.now += 0.4  # the wall clock now shows .4
    lines = [p.manager.date_line(p.loop.now)]
    for _ in range(3):
        p.loop.now += 0.1
        lines.append(p.manager.date_line(p.loop.now))
    assert all(line is lines[0] for line in lines)
    p.loop.now += 0.31
    later = p.manager.date_line(p.loop.now)
    assert (lines[0][-12:], later[-12:]) == (b"22:13:20 GMT", b"22:13:21 GMT")


def test_proper_case():
    p = play(header_key_format="proper_case_words").downstream(GET).upstream(OK)
    assert re.findall(rb"^[A-Za-z-]+(?=: )", p.down.read(), re.MULTILINE) == [
        b"Content-Length",
        b"X-Envoy-Upstream-Service-Time",
        b"Date",
        b"Server",
    ]


# -- figures


def test_bytes_are_counted_when_asked():
    p = play().exchange()
    p.manager.sync_stats()
    first = (p.stats.downstream_cx_rx_bytes_total, p.stats.downstream_cx_tx_bytes_total)
    assert first[0] == len(GET)
    assert first[1] > len(OK)
    p.manager.sync_stats()
    assert (p.stats.downstream_cx_rx_bytes_total, p.stats.downstream_cx_tx_bytes_total) == first
    p.downstream_ends()
    assert p.stats.downstream_cx_rx_bytes_total == first[0]


def test_active_requests_are_counted_when_asked():
    p = play().downstream(get(b"/1") + get(b"/2"))
    p.manager.sync_stats()
    assert p.stats.downstream_rq_active == 1
    assert "queue=1" in repr(p.http)


def test_a_pipelined_request_counts_when_its_turn_comes():
    p = play().downstream(get(b"/1") + get(b"/2") + get(b"/3"))
    assert p.stats.downstream_rq_total == 1
    p.manager.drain()
    p.upstream(OK)
    assert p.stats.downstream_rq_total == 2
    # The drain closes the connection behind the second: as in Envoy, which has not read on, there was no third.
    p.upstream(OK)
    p.expect_closed()
    assert p.stats.downstream_rq_total == len(p.logged) == 2


def test_a_client_that_leaves_inside_a_head_had_a_request():
    p = play().downstream(b"GET / HTTP/1.1\r\nho").downstream_ends()
    stats = p.stats
    assert (stats.downstream_rq_total, stats.downstream_rq_rx_reset) == (1, 1)
    assert (stats.downstream_cx_destroy_active_rq, stats.downstream_cx_destroy_remote_active_rq) == (1, 1)


def test_tls_connections_are_counted():
    p = play(tls=True).exchange()
    assert (p.stats.downstream_cx_ssl_total, p.stats.downstream_cx_ssl_active) == (1, 1)
    p.downstream_ends()
    assert p.stats.downstream_cx_ssl_active == 0


def test_a_gradual_drain_asks_by_chance_and_at_its_end_always():
    p = play().exchange()
    p.manager.leave_gradually(time.monotonic() - 5.0, 10.0)
    asked = sum(bool(p.manager.draining) for _ in range(2000))
    assert 800 < asked < 1200
    p.manager.fail_health_check(True)
    assert p.manager.draining is True
    p.manager.fail_health_check(False)
    assert p.manager.draining is not True
    q = play().exchange()
    q.manager.leave_gradually(time.monotonic(), 0.0)
    q.expect_open().downstream(GET).upstream(OK).expect_downstream(OK_CLOSE).expect_closed()
    assert q.stats.downstream_cx_drain_close == 1
    r = play().exchange()
    r.manager.leave_gradually(time.monotonic(), 3600.0)
    r.downstream(GET).upstream(OK).expect_downstream(OK).expect_open()
