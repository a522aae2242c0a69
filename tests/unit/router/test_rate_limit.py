"""What a request is to those who limit rates."""

from types import SimpleNamespace

import pytest

from forkproxy.config.build.rate_limit import RateLimit, RateLimitAction
from forkproxy.router.rate_limit import compile_rate_limits


def stream(address="192.0.2.7:4000", path=b"/p?a=1&b%63=%41+b", headers=()):
    route = SimpleNamespace(cluster_name="up", cluster_header=b"")
    return SimpleNamespace(
        downstream_remote_address=address, path=path, request_headers=list(headers), route=route, authority=b"h"
    )


def describe(*actions, of=None, hits=1):
    return compile_rate_limits([RateLimit(actions, hits=hits)], b"here")(of or stream())


def entry(action, of=None):
    found = describe(action, of=of)
    return found[0][0] if found else None


@pytest.mark.parametrize(
    ("address", "plain", "masked"),
    [
        ("192.0.2.7:4000", b"192.0.2.7", b"192.0.0.0/16"),
        ("[2001:db8::1]:4000", b"2001:db8::1", b"2001:db8::/32"),
        ("/run/socket", None, None),
        ("@abstract", None, None),
    ],
)
def test_the_clients_address(address, plain, masked):
    of = stream(address)
    mask = RateLimitAction("masked_remote_address", "masked_remote_address", v4_prefix=16, v6_prefix=32)
    assert entry(RateLimitAction("remote_address", "remote_address"), of) == (plain and ((b"remote_address", plain),))
    assert entry(mask, of) == (masked and ((b"masked_remote_address", masked),))


def test_query_parameters_are_decoded():
    assert entry(RateLimitAction("query_parameters", "k", "bc")) == ((b"k", b"A+b"),)
    assert entry(RateLimitAction("query_parameters", "k", "none")) is None
    assert entry(RateLimitAction("query_parameters", "k", "none", skip_if_absent=True)) == ()


def test_metadata_is_text_or_nothing():
    of = stream()
    of.dynamic_metadata = {"n": {"a": {"b": "deep"}, "c": 7, "d": ""}}
    for path, default, skips, expected in (
        (("a", "b"), "", False, ((b"k", b"deep"),)),
        (("a",), "", False, None),
        (("c",), "def", False, ((b"k", b"def"),)),
        (("c", "x"), "", True, ()),
        (("d",), "", False, None),
        ((), "", True, ()),
    ):
        action = RateLimitAction("metadata", "k", "n", value=default, skip_if_absent=skips, path=path)
        assert entry(action, of) == expected


def test_clusters():
    assert entry(RateLimitAction("source_cluster", "source_cluster")) == ((b"source_cluster", b"here"),)
    assert entry(RateLimitAction("destination_cluster", "destination_cluster")) == ((b"destination_cluster", b"up"),)
    of = stream(headers=[(b"x-to", b"other")])
    of.route = SimpleNamespace(cluster_name="", cluster_header=b"x-to")
    assert entry(RateLimitAction("destination_cluster", "d"), of) == ((b"d", b"other"),)
    of.route = None
    assert entry(RateLimitAction("destination_cluster", "d"), of) == ((b"d", b""),)


def test_one_action_without_an_entry_spoils_the_descriptor_but_no_other():
    fixed = RateLimitAction("generic_key", "k", value="v")
    missing = RateLimitAction("request_headers", "h", "x-none")
    made = compile_rate_limits([RateLimit((fixed, missing)), RateLimit((fixed, fixed), hits=3)], b"")
    assert made(stream()) == [(((b"k", b"v"), (b"k", b"v")), 3)]


def test_nothing_to_describe():
    assert compile_rate_limits([], b"") is None


@pytest.mark.parametrize(
    ("text", "hits"),
    [
        (b"3", 3), (b"+3", 3), (b" 3 ", 3), (b"1.9", 1), (b"0", 0), (b"0x2", 2), (b"nan", 0), (b"1000000000", 10**9),
        (b"1000000001", None), (b"-1", None), (b"-0.5", None), (b"", None), (b"x", None), (b"1_0", None), (b"inf", None),
        (b"0x", None), (b"\xff0x1", None),
    ],
)  # fmt: skip
def test_a_format_says_how_many_tokens(text, hits):
    limit = RateLimit((RateLimitAction("generic_key", "k", value="v"),), hits_format="%REQ(x-hits)%")
    described = compile_rate_limits([limit], b"", lambda _text, _where: lambda _stream: text)(stream())
    assert described == ([(((b"k", b"v"),), hits)] if hits is not None else [])


def test_what_is_for_the_end_of_the_stream_describes_nothing():
    limit = RateLimit((RateLimitAction("generic_key", "k", value="v"),), at_the_end=True)
    assert compile_rate_limits([limit], b"") is None
