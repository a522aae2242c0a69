"""Who the client is, short of the messages themselves (those are in tests/conformance/exchanges/addresses.py)."""

from __future__ import annotations

import pytest

from forkproxy.config.build.client_address import HeaderDetectionConfig, XffDetectionConfig
from forkproxy.http.client_address import ClientAddresses, ip_literal, last_forwarded
from tests.support.playbook import play


@pytest.mark.parametrize(
    ("value", "ip"),
    [
        (b"10.1.2.3", "10.1.2.3"),
        (b"FD00:0:0::1", "fd00::1"),
        (b"::ffff:10.0.0.1", "::ffff:10.0.0.1"),
        *[
            (value, "")
            for value in (b"", b"10.1.2", b"10.1.2.3:80", b"[::1]", b"fe80::1%eth0", b"10.1.2.3\x00", b"caf\xe9")
        ],
    ],
)
def test_ip_literals(value, ip):
    assert ip_literal(value) == ip


def test_the_last_forwarded_address():
    assert last_forwarded(b"1.1.1.1, 2.2.2.2 ,3.3.3.3", 1) == "2.2.2.2"
    assert last_forwarded(b"1.1.1.1", 1) == ""
    assert last_forwarded(b"", 0) == ""


def test_only_who_asks_for_it_sees_every_request():
    assert not ClientAddresses(hops=2, internal=[lambda ip: True]).looks_at_every_request
    for settings in (
        {"use_remote_address": True},
        {"append_port": True},
        {"detectors": [None]},
        {"internal_only": {b"x"}},
    ):
        assert ClientAddresses(**settings).looks_at_every_request


def request(*lines):
    return b"\r\n".join([b"GET / HTTP/1.1", b"host: a", *lines, b"\r\n"])


def upstream_headers(p, *lines):
    p.downstream(request(*lines))
    lines = p.upstreams[0].read().decode("latin-1").split("\r\n\r\n")[0].split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines)


def test_a_unix_socket_is_inside_only_where_that_is_said():
    for says, inside in ((True, "true"), (False, None)):
        headers = upstream_headers(play(use_remote_address=True, internal_unix_sockets=says, peer="/run/socket"))
        assert headers.get("x-envoy-internal") == inside
        assert "x-forwarded-for" not in headers
        assert "x-envoy-external-address" not in headers


def test_the_peer_must_be_trusted_for_its_x_forwarded_for_to_be():
    detection = XffDetectionConfig(0, ("198.51.100.0/24",), True)
    sent = b"x-forwarded-for: 10.0.0.1"
    for peer, inside in (("198.51.100.1", "true"), ("192.0.2.1", None)):
        p = play(detections=(detection,), internal_ranges=("10.0.0.0/8",), peer=(peer, 1))
        assert upstream_headers(p, sent).get("x-envoy-internal") == inside


def test_a_request_without_the_header_is_rejected():
    p = play(detections=(HeaderDetectionConfig("x-real-ip", False, 403),))
    p.downstream(request())
    assert p.down.read().startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert not p.upstreams
