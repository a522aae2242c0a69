"""What the router tells of the results of requests, to whoever wants to know them of an endpoint."""

import errno

import pytest

from tests.support.playbook import play, route
from tests.unit.filters.http.test_router_retries import BACK_OFF_S, BUSY, GET, OK, policy


class Monitor:
    def __init__(self):
        self.told = []

    def on_response(self, status, headers):
        self.told.append((status, [name for name, _ in headers if name.startswith(b"x-imm")]))

    def on_reset(self, *, connected):
        self.told.append(("reset", connected))

    def on_timeout(self, *, connected):
        self.told.append(("timeout", connected))


def watched(**fields):
    p = play(**fields)
    p.monitor = Monitor()
    for endpoint in p.cluster.endpoints:
        endpoint.monitor = p.monitor
    return p


@pytest.mark.parametrize("status", [200, 404, 500, 503])
def test_a_response(status):
    p = watched().downstream(GET)
    p.upstream(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\nx-imm: 1\r\n\r\n" % status)
    assert p.monitor.told == [(status, [b"x-imm"])]


def test_a_head_counts_before_its_body():
    p = watched().downstream(GET).upstream(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\na")
    assert p.monitor.told == [(200, [])]
    p.upstream_resets()
    assert p.monitor.told == [(200, []), ("reset", True)]


def test_a_connection_that_is_refused():
    p = watched()
    p.auto_accept = False
    p.downstream(GET)
    p.upstreams[-1].refuse(errno.ECONNREFUSED)
    assert p.monitor.told == [("reset", False)]


def test_a_connect_that_takes_too_long():
    p = watched()
    p.auto_accept = False
    p.downstream(GET).advance(5.1)
    assert p.monitor.told == [("reset", False)]


def test_a_connection_that_ends_before_the_response():
    p = watched().downstream(GET).upstream_ends()
    assert p.monitor.told == [("reset", True)]


def test_no_response_in_time():
    p = watched(routes=[route(timeout_s=1.0)]).downstream(GET).advance(1.1)
    assert p.monitor.told == [("timeout", True)]


def test_a_response_that_does_not_end_in_time_is_one():
    p = watched(routes=[route(timeout_s=1.0)]).downstream(GET)
    p.upstream(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\na").advance(1.1)
    assert p.monitor.told == [(200, [])]


def test_a_client_that_leaves_says_nothing():
    p = watched().downstream(GET).downstream_resets()
    assert p.monitor.told == []


def test_every_attempt_counts():
    p = watched(routes=[route(retry_policy=policy())]).downstream(GET).upstream(BUSY)
    p.advance(BACK_OFF_S).upstream(OK)
    assert p.monitor.told == [(503, []), (200, [])]


def test_attempts_that_fail_count_once_each():
    p = watched(routes=[route(retry_policy=policy())]).downstream(GET).upstream_ends()
    p.advance(BACK_OFF_S).upstream_ends(on=1)
    assert p.monitor.told == [("reset", True), ("reset", True)]


def test_the_time_of_an_attempt():
    p = watched(routes=[route(retry_policy=policy(per_try_timeout_s=1.0))]).downstream(GET).advance(1.1)
    p.advance(BACK_OFF_S).upstream(OK)
    assert p.monitor.told == [("timeout", True), (200, [])]
