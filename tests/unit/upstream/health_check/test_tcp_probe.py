"""What a TCP check sends, and what must come back."""

import pytest

from forkproxy.config.build.health_check import TcpCheck
from forkproxy.net.connection import REMOTE_CLOSE
from forkproxy.upstream.health_check import tcp_probe
from tests.support.health_checks import Rig


def rig(is_known=True, reuse=True, **check):
    return Rig(TcpCheck(**check), flags=0, unhealthy_threshold=1, reuse_connection=reuse).start(is_known=is_known)


def test_without_anything_to_receive_connecting_is_enough_and_nothing_is_sent():
    checked = rig(send=b"ping")
    checked.last.connect()
    assert checked.last.closed
    assert checked.last.written == b""
    assert checked.stats["success"] == 1


def test_segments_may_come_in_pieces_and_with_others_between():
    checked = rig(send=b"ping", receive=(b"po", b"ng"))
    checked.last.connect()
    assert checked.last.written == b"ping"
    checked.last.receive(b"xx p")
    checked.last.receive(b"o --")
    assert "success" not in checked.stats
    checked.last.receive(b"ng")
    assert checked.stats["success"] == 1
    assert not checked.last.closed
    checked.loop.advance(10.0)
    assert len(checked.connections) == 1
    assert checked.last.written == b"pingping"
    checked.last.receive(b"po")
    checked.loop.advance(1.0)
    assert checked.last.closed
    assert checked.flags() == ("/failed_active_hc", "/active_hc_timeout")


def test_no_connection_is_kept_where_the_configuration_says_so():
    checked = rig(receive=(b"a",), reuse=False)
    checked.last.connect()
    checked.last.receive(b"a")
    assert checked.last.closed
    assert checked.stats["success"] == 1


def test_an_idle_connection_may_end_or_speak():
    checked = rig(receive=(b"a",))
    checked.last.connect()
    checked.last.receive(b"a")
    checked.last.receive(b"more")
    assert not checked.last.closed
    checked.last.peer_closes(REMOTE_CLOSE)
    assert checked.stats == {"attempt": 1, "success": 1, "healthy": 1}
    checked.loop.advance(10.0)
    assert len(checked.connections) == 2


@pytest.mark.parametrize("end", ["close", "too much"])
def test_what_fails(end, monkeypatch):
    monkeypatch.setattr(tcp_probe, "MAX_RECEIVED_BYTES", 100)
    checked = rig(receive=(b"a",))
    checked.last.connect()
    if end == "close":
        checked.last.peer_closes(REMOTE_CLOSE)
    else:
        checked.last.receive(b"x" * 101)
    assert checked.last.closed
    assert checked.stats == {"attempt": 1, "failure": 1, "network_failure": 1}


@pytest.mark.parametrize(
    ("version", "header"),
    [("V1", b"PROXY TCP4 192.0.2.2 192.0.2.10 10000 80\r\n"), ("V2", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")],
)
def test_the_proxy_protocol_goes_first(version, header):
    checked = rig(send=b"ping", receive=(b"a",), proxy_protocol=version)
    checked.last.connect()
    assert checked.last.written == header + b"ping"


def test_a_pipe_has_no_addresses_to_tell():
    checked = rig(receive=(b"a",), proxy_protocol="V1")
    checked.last.remote_address = "/run/x"
    checked.last.connect()
    assert checked.last.written == b"PROXY UNKNOWN\r\n"


def test_ipv6_is_named():
    checked = rig(receive=(b"a",), proxy_protocol="V1")
    checked.last.remote_address = ("2001:db8::1", 80)
    checked.last.local_address = ("2001:db8::2", 9)
    checked.last.connect()
    assert checked.last.written == b"PROXY TCP6 2001:db8::2 2001:db8::1 9 80\r\n"


def test_what_came_before_a_check_does_not_count_for_it():
    checked = rig(receive=(b"ab",))
    checked.last.connect()
    checked.last.receive(b"ab")
    checked.loop.advance(10.0)
    checked.last.receive(b"a")
    assert checked.stats["success"] == 1
    checked.last.receive(b"b")
    assert checked.stats["success"] == 2
