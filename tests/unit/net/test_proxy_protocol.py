"""PROXY headers, byte by byte."""

import pytest

from forkproxy.net import proxy_protocol
from forkproxy.net.proxy_protocol import LOCAL, SIGNATURE, UNKNOWN, version_1, version_2

V4 = ("192.0.2.1", 40000), ("192.0.2.2", 443)
V6 = ("2001:db8::1", 40000), ("2001:db8::2", 443)


def test_version_1():
    assert version_1(*V4) == b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 443\r\n"
    assert version_1(*V6) == b"PROXY TCP6 2001:db8::1 2001:db8::2 40000 443\r\n"


def test_version_2():
    head = SIGNATURE + b"\x21\x11\x00\x0c" + bytes([192, 0, 2, 1, 192, 0, 2, 2]) + b"\x9c\x40\x01\xbb"
    assert version_2(*V4) == head
    six = bytes.fromhex("20010db8000000000000000000000001") + bytes.fromhex("20010db8000000000000000000000002")
    assert version_2(*V6) == SIGNATURE + b"\x21\x21\x00\x24" + six + b"\x9c\x40\x01\xbb"


def test_what_a_header_of_version_2_has_besides():
    header = version_2(*V4, [(0xF1, b"hello"), (0x04, b"")])
    assert header[14:16] == b"\x00\x17"
    assert header.endswith(b"\xf1\x00\x05hello\x04\x00\x00")


@pytest.mark.parametrize(
    ("source", "destination"), [(None, None), (V4[0], None), (V4[0], V6[1]), ("/run/s", "/run/t"), (V4[0], "/run/t")]
)
def test_addresses_that_cannot_be_told(source, destination):
    assert version_1(source, destination) == UNKNOWN
    assert version_2(source, destination, [(1, b"x")]) == LOCAL


def test_the_signature():
    assert bytes.fromhex("0d0a0d0a000d0a515549540a") == proxy_protocol.SIGNATURE
