"""What a session's cookie says; the filter as a whole is played beside Envoy (tests/conformance/exchanges/sessions.py)."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkproxy.config.build.stateful_session import CookieState
from forkproxy.filters.http.stateful_session import (
    Settings,
    StatefulSession,
    cookie_value,
    path_matches,
    session_address,
    session_message,
)


def test_a_message_as_envoy_writes_it():
    assert session_message("127.0.0.1:19101", 0) == b"\x0a\x0f127.0.0.1:19101"
    assert session_message("127.0.0.1:19101", 1795374283) == b"\x0a\x0f127.0.0.1:19101\x10\xcb\xf9\x8c\xd8\x06"


@given(st.text(st.characters(max_codepoint=127, min_codepoint=32), max_size=300), st.integers(0, 1 << 40))
def test_what_was_written_is_read(address, expires):
    assert session_address(session_message(address, expires), expires - 1) == address
    assert session_address(session_message(address, expires), expires + 1) == ("" if expires else address)


@given(st.binary(max_size=40))
def test_garbage_is_no_address_and_no_error(data):
    assert isinstance(session_address(data, 0.0), str)


@pytest.mark.parametrize(
    ("data", "address"),
    [
        (b"127.0.0.1:80", "127.0.0.1:80"),
        (b"\x0a\x05short", "short"),
        (b"\x0a\x7fshort", "short"),
        (b"\x0a\xff", ""),
        (b"\x0a" + b"\x85" + b"\x80" * 8 + b"\x00short", "short"),
        (b"\x0a" + b"\x85" + b"\x80" * 9 + b"\x00short", ""),
        (b"\x0a\x01a\x18\x01", ""),
        (b"", ""),
    ],
)
def test_messages(data, address):
    assert session_address(data, 0.0) == address


@pytest.mark.parametrize(
    ("cookie", "target", "matches"),
    [
        ("", b"/x", True),
        ("/", b"/x", True),
        ("/p", b"/p", True),
        ("/p", b"/p?x", True),
        ("/p", b"/p/x", True),
        ("/p", b"/px", False),
        ("/p/", b"/p/x", True),
        ("/p/", b"/p", False),
        ("/p", b"/", False),
    ],
)
def test_paths(cookie, target, matches):
    assert path_matches(cookie, target) is matches


@pytest.mark.parametrize(
    ("header", "value"),
    [
        (b"s=1", b"1"),
        (b"a=b; s=1; c", b"1"),
        (b'x; s="1"', b"1"),
        (b's="', b'"'),
        (b"s", None),
        (b"as=1", None),
        (b"s=", b""),
    ],
)
def test_cookies(header, value):
    assert cookie_value(header, b"s") == value


def test_a_ttl_is_told_twice():
    session = StatefulSession(
        "s", Settings(CookieState("c", "/p", 60, (("SameSite", "Lax"), ("Secure", ""))), False, None)
    )
    session.start(SimpleNamespace(loop=SimpleNamespace(wall=lambda: 1795374223.5)))
    assert session._set_cookie(session.settings.state, "127.0.0.1:19101") == (
        b'c="Cg8xMjcuMC4wLjE6MTkxMDEQy/mM2AY="; Max-Age=60; Path=/p; SameSite=Lax; Secure; HttpOnly'
    )
