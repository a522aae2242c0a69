"""Users, passwords and what is refused at load; the answers are played beside Envoy."""

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkproxy.config.build.basic_auth import BasicAuthConfig, build, build_per_route
from forkproxy.config.build.listener import FilterEntry
from forkproxy.filters.http.basic_auth import decoded, knows
from tests.support.playbook import WHERE, play
from tests.unit.config.build.building import built, value_of

MESSAGE = "envoy.extensions.filters.http.basic_auth.v3.BasicAuth"
HASH = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="  # of "secret"


def hashed(password):
    return base64.b64encode(hashlib.sha1(password).digest())


@given(st.binary(max_size=30))
def test_a_token_is_read_with_its_padding_and_without(text):
    token = base64.b64encode(text)
    assert decoded(token) == decoded(token.rstrip(b"=")) == text


@pytest.mark.parametrize("token", [b"=", b"a", b"YQ===", b"Y Q", b"Y-_Q", b"YQ=x"])
def test_what_is_no_token(token):
    assert decoded(token) == b""


def test_who_is_known():
    users = {b"ann": hashed(b"secret")}
    assert knows(users, b"ann", b"secret")
    assert not knows(users, b"ann", b"Secret")
    assert not knows(users, b"bob", b"secret")
    assert not knows({b"ann": b""}, b"ann", b"")


def test_users_of_a_file():
    made = value_of(
        build, MESSAGE, f'{{users: {{inline_string: "# x\\n\\nann:{HASH}\\nb:{HASH}\\n"}}, authentication_header: X-A}}'
    )
    assert made.users == {b"ann": hashed(b"secret"), b"b": hashed(b"secret")}
    assert made.authentication_header == "x-a"
    assert "5en6" not in repr(made)


@pytest.mark.parametrize(
    ("lines", "wrong"),
    [
        ("ann", "invalid htpasswd format, username:password is expected"),
        (f":{HASH}", "empty user name or password"),
        ("ann:", "empty user name or password"),
        (f"ann:{HASH}\\nann:{HASH}", "duplicate user 'ann'"),
        ("ann:$apr1$x", "unsupported htpasswd format: please use {SHA} for 'ann'"),
        ("ann:{SHA}abc", "invalid SHA hash length for 'ann'"),
        (f"ann:{HASH}\\r", "invalid SHA hash length for 'ann'"),
    ],
)
def test_files_that_are_refused(lines, wrong):
    per_route = MESSAGE + "PerRoute"
    outcome = built(build_per_route, per_route, f'{{users: {{inline_string: "{lines}"}}}}')
    assert outcome.errors == [f"users: basic auth: {wrong}"]


def test_nobody_gets_past_without_a_password():
    entry = FilterEntry("auth", MESSAGE, BasicAuthConfig({b"ann": hashed(b"secret")}), WHERE)
    p = play(filters=[entry]).downstream(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    p.expect_upstream(b"")
    assert b"401 Unauthorized" in p.down.read()
    good = b"GET / HTTP/1.1\r\nhost: a\r\nauthorization: Basic %b\r\n\r\n" % base64.b64encode(b"ann:secret")
    p.downstream(good).expect_upstream(good)
    stats = p.manager.chain.filters[0].stats
    assert (stats.allowed, stats.denied) == (1, 1)
