"""A finished stream as access logs see it: the request and answer for which Envoy 1.40 wrote the expected values of the tests."""

from __future__ import annotations

import sys
from types import SimpleNamespace

from forkproxy.config.build.core import Where

WHERE = Where("access_log", 9, 5)
WALL = 1795361589.597518


class FakeLoop:
    """A clock that a test advances."""

    def __init__(self):
        self.now = 1000.0
        self.soon = []
        self.timers = []

    def wall(self):
        return WALL + 0.003

    def call_soon(self, callback):
        self.soon.append(callback)

    def call_later(self, delay_s, callback):
        timer = FakeTimer(self.now + delay_s, callback)
        self.timers.append(timer)
        return timer

    def advance(self, seconds):
        """Run what is due, and what was wanted soon."""
        self.now += seconds
        soon, self.soon = self.soon, []
        for callback in soon:
            callback()
        due = [timer for timer in self.timers if timer.due <= self.now and not timer.cancelled]
        self.timers = [timer for timer in self.timers if timer not in due]
        for timer in due:
            timer.callback()


class FakeTimer:
    def __init__(self, due, callback):
        self.due = due
        self.callback = callback
        self.cancelled = False

    def cancel(self):
        self.cancelled = True


class FakeSocket:
    def getsockopt(self, level, option, size):
        info = bytearray(size)
        info[68:72] = (2500).to_bytes(4, sys.byteorder)
        return bytes(info)


class FakeConnection:
    def __init__(self, number, local=("127.0.0.1", 33719), remote=("127.0.0.1", 41120), tls=None, loop=None):
        self.id = number
        self.loop = loop or FakeLoop()
        self.local = local
        self.remote_address = remote
        self.tls = tls
        self.requested_server_name = ""
        self.transport_failure_reason = ""
        self.handshake_done_at = 0.0
        self.sock = FakeSocket()

    def local_socket_address(self):
        return self.local


def stream(**changes):
    """POST /up/x, answered by an upstream."""
    values = {
        "connection": FakeConnection(1),
        "method": b"POST",
        "path": b"/up/x?a=b%20c&c=12345&q=\"'\\",
        "authority": b"h.example",
        "scheme": b"http",
        "protocol": b"HTTP/1.1",
        "request_headers": [
            (b"user-agent", b'curl/8 "q" \\'),
            (b"dup", b"1"),
            (b"dup", b"2"),
            (b"empty", b""),
            (b"x-forwarded-proto", b"http"),
        ],
        "request_trailers": None,
        "status": 200,
        "response_headers": [(b"content-length", b"235"), (b"x-envoy-upstream-service-time", b"1")],
        "response_trailers": None,
        "wall_start": WALL,
        "start": 50.0,
        "request_complete": 50.0001,
        "upstream_first_tx": 50.001,
        "upstream_last_tx": 50.0011,
        "upstream_first_rx": 50.002,
        "upstream_last_rx": 50.0021,
        "downstream_first_tx": 50.0022,
        "downstream_last_tx": 50.0024,
        "end": 50.002486,
        "bytes_received": 0,
        "bytes_sent": 235,
        "response_flags": 0,
        "details": "via_upstream",
        "upstream_connection": FakeConnection(2, ("127.0.0.1", 43548), ("127.0.0.1", 42177)),
        "upstream_transport_failure_reason": "",
        "connection_termination_details": "",
        "local_reply_body": b"",
        "tally": None,
        "route": SimpleNamespace(name="r1", config=SimpleNamespace(metadata={"n": {"k": 2.0}})),
        "cluster": SimpleNamespace(
            name="up", stat_name="up", config=SimpleNamespace(metadata={"n": {"k": [1, {"x": None}]}})
        ),
        "endpoint": SimpleNamespace(
            address="127.0.0.1:42177",
            hostname="ep.example",
            config=SimpleNamespace(filter_metadata='{"n":{"k":"of the endpoint"}}'),
        ),
        "attempt_count": 1,
        "request_id": b"8f857e8f-8d58-440a-bab9-f6f66df6b899",
        "filter_state": {},
        "http": None,
        "meters": None,
        "pool_was_ready": True,
        "attempted_endpoints": (SimpleNamespace(address="127.0.0.1:42177", hostname="ep.example"),),
        "virtual_host": SimpleNamespace(config=SimpleNamespace(metadata={"n": {"k": True}})),
        "downstream_close_type": b"Normal",
        "upstream_close_type": b"Normal",
        "downstream_local_close_reason": "",
        "upstream_local_close_reason": "",
        "dynamic_metadata": {},
        "downstream_remote_address": "127.0.0.1:41120",
        "downstream_direct_remote_address": "127.0.0.1:41120",
        "downstream_local_address": "127.0.0.1:33719",
    }
    values.update(changes)
    return SimpleNamespace(**values)


def local_reply(**changes):
    """GET /d, answered by a direct response."""
    return stream(
        **{
            "method": b"GET",
            "path": b"/d",
            "request_headers": [(b"x-forwarded-proto", b"http")],
            "status": 418,
            "response_headers": [(b"content-length", b"10")],
            "upstream_first_tx": 0.0,
            "upstream_last_tx": 0.0,
            "upstream_first_rx": 0.0,
            "upstream_last_rx": 0.0,
            "end": 50.00007,
            "bytes_sent": 10,
            "details": "direct_response",
            "upstream_connection": None,
            "route": SimpleNamespace(name="", config=None),
            "virtual_host": None,
            "cluster": None,
            "endpoint": None,
            "attempted_endpoints": (),
            "attempt_count": 0,
            **changes,
        }
    )


def unparsed(**changes):
    """A request that never was one: no head was read."""
    return local_reply(
        **{
            "method": b"",
            "path": b"",
            "authority": None,
            "protocol": b"",
            "request_headers": [],
            "status": 400,
            **changes,
        }
    )
