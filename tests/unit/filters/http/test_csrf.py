"""What is a page's origin, and whose policy counts; the filter as a whole is played beside Envoy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkproxy.config.build.core import FractionalPercent, StringMatcher
from forkproxy.config.build.csrf import CsrfPolicy
from forkproxy.config.build.listener import FilterEntry
from forkproxy.filters.http.csrf import host_and_port, source_of
from tests.support.playbook import WHERE, play

ALWAYS, NEVER = FractionalPercent(100), FractionalPercent(0)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        (b"http://h", b"h"),
        (b"https://h:443/p?q", b"h:443"),
        (b"http://u:p@h/", b"h"),
        (b"http://[::1]:8", b"[::1]:8"),
        (b"http://h:65536", b"http://h:65536"),
        (b"http://h@evil", b"evil"),
        (b"http://evil\\@h", b"http://evil\\@h"),
        (b"http://evil#@h", b"http://evil#@h"),
        (b"h", b"h"),
        (b"", b""),
    ],
)
def test_where_a_page_is(url, host):
    assert host_and_port(url) == host


@given(st.text("abh:/?#@\\.[]1 ", max_size=12))
def test_only_what_is_a_url_of_the_host_is_of_the_host(text):
    found = host_and_port(b"http://" + text.encode())
    if found == b"h":
        authority = text.partition("/")[0].partition("?")[0]
        assert authority.rpartition("@")[2] == "h"


@pytest.mark.parametrize(
    ("headers", "source"),
    [
        ([(b"origin", b"http://a"), (b"referer", b"http://b/")], b"a"),
        ([(b"origin", b""), (b"referer", b"http://b/")], b"b"),
        ([(b"origin", b"null"), (b"referer", b"http://b/")], b""),
        ([(b"origin", b"http://a"), (b"origin", b"http://b")], b"http://a,http://b"),
        ([(b"referer", b"http://a/x#y")], b""),
        ([(b"referer", b"http://u@a/x")], b""),
        ([(b"referer", b"http://a/@x")], b"a"),
        ([], b""),
    ],
)
def test_who_tells(headers, source):
    assert source_of(headers) == source


def talk(own, **more):
    entry = FilterEntry("c", "envoy.extensions.filters.http.csrf.v3.CsrfPolicy", own, WHERE)
    return play(filters=[entry], **more)


def post(origin):
    return b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\norigin: " + origin + b"\r\n\r\n"


def test_a_forged_request_reaches_nobody():
    p = talk(CsrfPolicy(ALWAYS, additional_origins=(StringMatcher("exact", "b"),))).downstream(post(b"http://evil"))
    p.expect_upstream(b"")
    assert b"403 Forbidden" in p.down.read()
    p.downstream(post(b"http://b")).expect_upstream(post(b"http://b"))


def test_in_the_shadow_it_is_only_counted():
    p = talk(CsrfPolicy(NEVER, ALWAYS)).downstream(post(b"http://evil"))
    p.expect_upstream(post(b"http://evil"))
    assert p.manager.chain.filters[0].stats.request_invalid == 1


def test_routes_with_one_policy_share_it():
    asked = talk(CsrfPolicy(ALWAYS)).manager.chain.filters[0]
    shared = CsrfPolicy(NEVER)
    assert asked.route_config([shared], None) is asked.route_config([shared, CsrfPolicy(ALWAYS)], None)
    assert asked.route_config([], None) is None
