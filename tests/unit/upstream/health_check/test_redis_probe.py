"""What a Redis check asks, and which answers are good."""

import pytest

from forkproxy.config.build.health_check import RedisCheck
from forkproxy.net.connection import REMOTE_CLOSE
from forkproxy.stats.groups import RedisHealthCheckStats
from tests.support.health_checks import Rig

PING = b"*1\r\n$4\r\nPING\r\n"
EXISTS = b"*2\r\n$6\r\nEXISTS\r\n$2\r\nk1\r\n"


def rig(key="", **fields):
    checked = Rig(RedisCheck(key), flags=0, unhealthy_threshold=1, traffic=False, **fields).start(is_known=True)
    checked.last.connect()
    return checked


def test_ping_and_exists():
    assert rig().last.written == PING
    assert rig("k1").last.written == EXISTS


@pytest.mark.parametrize(
    ("key", "answer", "result"),
    [
        ("", b"+PONG\r\n", "success"),
        ("", b"+pong\r\n", "failure"),
        ("", b"$4\r\nPONG\r\n", "failure"),
        ("", b"-NOAUTH Authentication required.\r\n", "failure"),
        ("", b"-MOVED 1 127.0.0.1:1\r\n", "success"),
        ("k1", b":0\r\n", "success"),
        ("k1", b":1\r\n", "failure"),
        ("k1", b"-ASK 1 127.0.0.1:1\r\n", "success"),
        ("k1", b"+OK\r\n", "failure"),
        ("", b"HTTP/1.1 400 Bad Request\r\n", "failure"),
        ("", b"-" + b"x" * 5000, "network_failure"),
    ],
)
def test_answers(key, answer, result):
    checked = rig(key)
    checked.last.receive(answer)
    assert checked.stats[result] == 1
    assert ("network_failure" in checked.stats) == (result == "network_failure")


def test_a_key_that_exists_is_counted_apart():
    stats = RedisHealthCheckStats()
    checked = Rig(RedisCheck("k1"), flags=0)
    checked.checker.redis_stats = stats
    checked.start(is_known=True)
    checked.last.receive(b":1\r\n")
    assert stats.exists_failure == 1


def test_an_answer_may_come_in_pieces_and_the_connection_is_kept():
    checked = rig()
    checked.last.receive(b"+PO")
    checked.last.receive(b"NG\r\n")
    assert checked.stats["success"] == 1
    checked.loop.advance(10.0)
    assert checked.last.written == PING * 2
    checked.last.receive(b"+PONG\r\n")
    assert len(checked.connections) == 1


@pytest.mark.parametrize(("answer", "reuse"), [(b"+PONG\r\n", False), (b"+PONG\r\n+PONG\r\n", True)])
def test_a_connection_that_is_not_kept(answer, reuse):
    checked = rig(reuse_connection=reuse)
    checked.last.receive(answer)
    assert checked.last.closed
    assert checked.stats["success"] == 1


def test_an_idle_connection_may_end_but_not_speak():
    for event in (
        lambda connection: connection.peer_closes(REMOTE_CLOSE),
        lambda connection: connection.receive(b"+PONG\r\n"),
    ):
        checked = rig()
        checked.last.receive(b"+PONG\r\n")
        event(checked.last)
        assert checked.last.closed
        assert checked.stats == {"attempt": 1, "success": 1, "healthy": 1}


def test_an_endpoint_that_goes_or_does_not_answer():
    checked = rig()
    checked.last.peer_closes(REMOTE_CLOSE)
    assert checked.stats["network_failure"] == 1
    checked = rig()
    checked.loop.advance(1.0)
    assert checked.last.closed
    assert checked.flags() == ("/failed_active_hc", "/active_hc_timeout")


def test_a_refusal_on_the_spot():
    checked = Rig(RedisCheck(), flags=0)
    checked.refuse = OSError(101, "unreachable")
    checked.start(is_known=True)
    assert checked.stats["network_failure"] == 1


def test_what_is_no_answer_costs_the_connection():
    for answer in (b"$4\r\n", b"HTTP/1.1 400 Bad Request\r\n", b"-" + b"x" * 5000):
        checked = rig()
        checked.last.receive(answer)
        assert checked.last.closed
