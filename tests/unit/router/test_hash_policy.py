"""The hash of a request. tests/conformance/test_hashing.py asks Envoy where such requests go."""

from types import SimpleNamespace

import pytest
import xxhash

from forkproxy.config.build.hash_policy import HashPolicy
from forkproxy.router.hash_policy import compile_hash_policies, cookie_value, ip_hash, makes_cookies

_hash = xxhash.xxh64_intdigest


def stream(path=b"/", peer="192.0.2.7:1234", **headers):
    pairs = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    return SimpleNamespace(
        path=path,
        authority=b"h",
        method=b"GET",
        scheme=b"http",
        request_headers=pairs,
        set_cookies=(),
        downstream_remote_address=peer,
        downstream_direct_remote_address="192.0.2.9:5",
        downstream_local_address="192.0.2.1:80",
    )


def header(name, **fields):
    return HashPolicy("header", name, **fields)


def hashed(request, *policies):
    return compile_hash_policies(policies)(request)


def test_no_policy():
    assert compile_hash_policies([]) is None


def test_a_header():
    assert hashed(stream(x_a=b"v"), header("x-a")) == _hash(b"v")
    assert hashed(stream(x_b=b"v"), header("x-a")) is None
    assert hashed(stream(x_a=b""), header("x-a")) == _hash(b"")


@pytest.mark.parametrize(
    ("name", "value"), [(":path", b"/p?q"), (":authority", b"h"), ("host", b"h"), (":method", b"GET")]
)
def test_what_is_kept_outside_of_the_headers(name, value):
    assert hashed(stream(b"/p?q"), header(name)) == _hash(value)


def test_headers_of_one_name_count_in_whatever_order():
    one = stream()
    one.request_headers = [(b"x-a", b"2"), (b"y", b"0"), (b"x-a", b"1")]
    other = stream()
    other.request_headers = [(b"x-a", b"1"), (b"x-a", b"2")]
    assert hashed(one, header("x-a")) == hashed(other, header("x-a")) == _hash(b"2", _hash(b"1"))


def test_a_header_rewritten():
    policy = header("x-a", regex="^user-(\\d+)$", substitution="\\1")
    assert hashed(stream(x_a=b"user-15"), policy) == _hash(b"15")
    assert hashed(stream(x_a=b"other"), policy) == _hash(b"other")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (b"/?k=v", b"v"),
        (b"/?a=1&k=v%20w&k=x", b"v%20w"),
        (b"/?k", b""),
        (b"/?k=#k=v", b""),
        (b"/?kk=v", None),
        (b"/k=v", None),
    ],
)
def test_a_query_parameter(path, value):
    found = hashed(stream(path), HashPolicy("query_parameter", "k"))
    assert found == (None if value is None else _hash(value))


@pytest.mark.parametrize(
    ("address", "ip"),
    [("192.0.2.7:80", b"192.0.2.7"), ("[2001:db8::1]:80", b"2001:db8::1"), ("/run/x", None), ("@x:1", None)],
)
def test_the_source_address(address, ip):
    assert ip_hash(address) == (None if ip is None else _hash(ip))
    assert hashed(stream(peer=address), HashPolicy("source_ip")) == ip_hash(address)


@pytest.mark.parametrize(
    ("cookie", "value"),
    [
        (b"s=v", b"v"),
        (b"a=1; s=v; s=w", b"v"),
        (b'a=1;s="v w"', b"v w"),
        (b'  s="', b'"'),
        (b"s", b""),
        (b"ss=v", b""),
        (b"s=a=b", b"a=b"),
    ],
)
def test_the_value_of_a_cookie(cookie, value):
    assert cookie_value(stream(cookie=cookie), b"s") == value


def test_a_cookie():
    policy = HashPolicy("cookie", "s")
    assert hashed(stream(cookie=b"s=v"), policy) == _hash(b"v")
    request = stream(cookie=b"s=")
    assert hashed(request, policy) is None
    assert request.set_cookies == ()
    assert not makes_cookies([policy, header("a")])


@pytest.mark.parametrize(
    ("fields", "tail"),
    [
        ({"ttl_s": 0}, b"; HttpOnly"),
        ({"ttl_s": 9}, b"; Max-Age=9; HttpOnly"),
        ({"ttl_s": 9, "path": "/p"}, b"; Max-Age=9; Path=/p; HttpOnly"),
        (
            {"ttl_s": 0, "attributes": (("SameSite", "Lax"), ("Secure", ""))},
            b"; SameSite=Lax; Secure; HttpOnly",
        ),
    ],
)
def test_a_cookie_is_made(fields, tail):
    policy = HashPolicy("cookie", "s", **fields)
    assert makes_cookies([policy])
    request = stream()
    first = hashed(request, policy)
    value = b"%016x" % _hash(b"192.0.2.9:5192.0.2.1:80")
    assert first == _hash(value)
    assert request.set_cookies == (b's="' + value + b'"' + tail,)
    assert hashed(request, policy) == first  # a retry asks again
    assert len(request.set_cookies) == 1


def test_without_leave_no_cookie_is_made():
    policy = HashPolicy("cookie", "s", ttl_s=5)
    request = stream()
    assert compile_hash_policies([policy], cookies=False)(request) is None
    assert request.set_cookies == ()
    assert compile_hash_policies([policy], cookies=False)(stream(cookie=b"s=v")) == _hash(b"v")


def test_several_are_joined():
    both = stream(x_a=b"1", x_b=b"2")
    first, second = _hash(b"1"), _hash(b"2")
    rotated = ((first << 1) | (first >> 63)) & ((1 << 64) - 1)
    assert hashed(both, header("x-a"), header("x-b")) == rotated ^ second
    assert hashed(stream(x_b=b"2"), header("x-a"), header("x-b")) == second
    assert hashed(stream(), header("x-a"), header("x-b")) is None


def test_a_terminal_one_ends_it_when_there_is_a_hash():
    policies = header("x-a", terminal=True), header("x-b")
    assert hashed(stream(x_a=b"1", x_b=b"2"), *policies) == _hash(b"1")
    assert hashed(stream(x_b=b"2"), *policies) == _hash(b"2")
