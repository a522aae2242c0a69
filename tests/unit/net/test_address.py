import socket

import pytest

from forkproxy.net import address


@pytest.mark.parametrize(
    ("raw", "normal", "text"),
    [
        (("127.0.0.1", 80), ("127.0.0.1", 80), "127.0.0.1:80"),
        (("::1", 80, 0, 0), ("::1", 80), "[::1]:80"),
        (("::ffff:10.0.0.1", 80, 0, 0), ("10.0.0.1", 80), "10.0.0.1:80"),
        ("/run/a.sock", "/run/a.sock", "/run/a.sock"),
        (b"\0name", "\0name", "@name"),
        ("", "", ""),
    ],
)
def test_normal_form_and_text(raw, normal, text):
    assert address.normalise(raw) == normal
    assert address.text(normal) == text


def test_no_address_is_empty_text():
    assert address.text(None) == ""


def test_family():
    assert address.family_of(("1.2.3.4", 1)) == socket.AF_INET
    assert address.family_of(("::1", 1)) == socket.AF_INET6
    assert address.family_of("/x") == socket.AF_UNIX
