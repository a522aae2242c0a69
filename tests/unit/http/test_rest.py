"""Idle connections rest: they give back what only requests need, and nobody notices."""

import tracemalloc

import pytest

from forkproxy.http import connection_manager as module
from forkproxy.http.connection_manager import HASTE_S, REST_AFTER_S, REST_SOON_S, SWEEP_NUMBER, SWEEP_S
from forkproxy.net.filter import NetworkFilter, NetworkFilterChain
from tests.support.playbook import play

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
LATER = REST_AFTER_S + 2 * SWEEP_S


def rests(http):
    assert (http.codec is module._RESTING) == (http not in http.manager.awake)
    return http.codec is module._RESTING


def test_a_connection_rests_before_its_first_request_and_again_after_it():
    p = play()
    p.connect()
    assert rests(p.http)
    p.exchange()
    assert not rests(p.http)
    p.advance(REST_AFTER_S - 0.01)
    assert not rests(p.http)
    p.advance(2 * SWEEP_S)
    assert rests(p.http)
    p.exchange()
    assert not rests(p.http)
    p.advance(LATER)
    assert rests(p.http)
    assert (p.stats.downstream_cx_http1_total, p.stats.downstream_rq_total) == (1, 2)


def test_nobody_is_looked_at_while_all_rest():
    p = play().exchange().advance(LATER)
    assert not p.manager.awake
    assert p.manager._sweeper.deadline == float("inf")


def test_the_figures_of_a_connection_that_rests_are_whole():
    p = play().exchange().advance(LATER)
    assert rests(p.http)
    p.manager.sync_stats()
    received, sent = p.stats.downstream_cx_rx_bytes_total, p.stats.downstream_cx_tx_bytes_total
    assert (received, sent) == (p.down.connection.bytes_received, p.down.connection.bytes_sent)
    assert received > 0
    p.downstream_ends()
    assert (p.stats.downstream_cx_rx_bytes_total, p.stats.downstream_cx_tx_bytes_total) == (received, sent)


@pytest.mark.parametrize(
    "begin",
    [
        pytest.param(lambda p: p.downstream(GET), id="a request is under way"),
        pytest.param(lambda p: p.exchange().downstream(GET[:9]), id="a head has begun"),
        pytest.param(lambda p: p.downstream(b"\r\n"), id="an empty line"),
    ],
)
def test_what_has_begun_is_not_forgotten(begin):
    p = play()
    begin(p)
    p.advance(10 * LATER)
    assert not rests(p.http)


def test_half_a_head_is_read_to_its_end_later():
    p = play().exchange().advance(LATER)
    p.downstream(GET[:9]).advance(LATER).downstream(GET[9:]).upstream(OK).expect_downstream(OK)


def test_an_answer_that_is_not_read_yet_keeps_its_marks():
    p = play(buffer_limit_bytes=1000)
    p.connect()
    p.down.sock.window = 10
    p.downstream(GET).upstream(b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n" + b"x" * 5000)
    p.advance(LATER)
    assert not rests(p.http)
    p.down.take(100_000)
    p.advance(LATER)
    assert rests(p.http)
    assert p.down.read().endswith(b"x" * 5000)


def test_many_rest_one_after_the_other():
    p = play()
    p.loop.now += 1.0  # no look falls between them
    for _ in range(SWEEP_NUMBER + 10):
        p.connect()
        p.http.on_data(GET)
        p.http.reset_upstream(p.http.stream)
        p.http.stream.send_local_reply(200)
    p.loop.now += REST_AFTER_S
    p.manager._sweep()
    assert len(p.manager.awake) == 10
    p.advance(HASTE_S)
    assert not p.manager.awake


def test_where_many_are_awake_they_rest_sooner(monkeypatch):
    p = play().exchange()
    p.loop.now += REST_SOON_S
    p.manager._sweep()
    assert not rests(p.http)
    monkeypatch.setattr(module, "MANY_AWAKE", 0)
    p.manager._sweep()
    assert rests(p.http)


def test_closing_leaves_nobody_awake():
    p = play().exchange()
    p.downstream_ends()
    assert not p.manager.awake
    assert not p.manager.connections


def test_what_an_idle_connection_weighs():
    p = play()
    p.exchange()
    number = 100
    tracemalloc.start()
    try:
        before = tracemalloc.take_snapshot()
        for _ in range(number):
            p.connect()
            p.exchange()
        p.advance(LATER)
        p.logged.clear()
        after = tracemalloc.take_snapshot()
    finally:
        tracemalloc.stop()
    assert not p.manager.awake
    ours = [tracemalloc.Filter(True, "*/forkproxy/*")]
    grown = after.filter_traces(ours).compare_to(before.filter_traces(ours), "filename")
    assert sum([each.size_diff for each in grown]) / number < 2048


class Watching(NetworkFilter):
    def __init__(self):
        self.seen = []

    def on_data(self, connection, data, end_stream):
        self.seen.append(data)


def test_a_filter_before_it_sees_every_request():
    watching = Watching()
    p = play()
    p.chain = NetworkFilterChain([watching, p.filter])
    p.connect()
    p.exchange().exchange().advance(LATER).exchange()
    assert len(watching.seen) == 3
