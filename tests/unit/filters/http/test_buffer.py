"""The buffer filter: the whole request first, its limit, and what routes say."""

import pytest

from forkproxy.config.build.buffer import BufferConfig, build, build_per_route
from forkproxy.config.build.context import PerFilterConfig
from forkproxy.config.build.listener import FilterEntry
from tests.support.playbook import WHERE, play, route
from tests.unit.config.build.building import value_of

BUFFER = FilterEntry("b", "envoy.extensions.filters.http.buffer.v3.Buffer", BufferConfig(10), WHERE)
PACKAGE = "envoy.extensions.filters.http.buffer.v3."
CHUNKED = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def sized(size, target=b"/"):
    return b"POST %b HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % (target, size)


def talk(limit=None, **fields):
    said = {} if limit is None else {"b": PerFilterConfig(BufferConfig(limit))}
    return play(filters=[BUFFER], routes=[route(per_filter_config=said)], **fields)


def test_a_request_without_body_goes_on_at_once():
    talk().exchange().expect_quiet()


def test_nothing_goes_upstream_before_the_last_piece():
    p = talk().downstream(sized(6), b"ab", b"cd")
    assert p.upstreams == []
    p.downstream(b"ef").expect_upstream(sized(6) + b"abcdef")
    p.upstream(OK).expect_downstream(OK).expect_quiet()


def test_a_chunked_request_gets_a_length():
    p = talk().downstream(CHUNKED, b"3\r\nabc\r\n", b"2\r\nde\r\n")
    assert p.upstreams == []
    p.downstream(b"0\r\n\r\n").expect_upstream(sized(5) + b"abcde")


def test_an_empty_chunked_request():
    talk().downstream(CHUNKED, b"0\r\n\r\n").expect_upstream(sized(0))


def test_trailers_let_go_too():
    p = talk(enable_trailers=True)
    p.downstream(CHUNKED, b"3\r\nabc\r\n", b"0\r\nx-t: 1\r\n\r\n")
    p.expect_upstream(sized(3) + b"abc")


@pytest.mark.parametrize("pieces", [(10,), (5, 5), (1,) * 10])
def test_up_to_the_limit(pieces):
    p = talk().downstream(sized(10), *(b"x" * size for size in pieces))
    p.expect_upstream(sized(10) + b"x" * 10)


@pytest.mark.parametrize("pieces", [(11,), (10, 1), (5, 6)])
def test_beyond_the_limit(pieces):
    p = talk().downstream(sized(11), *(b"x" * size for size in pieces))
    assert p.down.read().startswith(b"HTTP/1.1 413 Payload Too Large\r\n")
    assert p.upstreams == []
    assert p.logged[0][2:4] == (413, "request_payload_too_large")
    assert p.stats.downstream_rq_too_large == 1


def test_the_limit_takes_the_place_of_the_listeners():
    p = talk(100, buffer_limit_bytes=20).downstream(sized(50), b"x" * 25, b"x" * 25)
    p.expect_upstream(sized(50) + b"x" * 50)


@pytest.mark.parametrize(("limit", "held", "too_large"), [(0, False, False), (3, True, True), (12, True, False)])
def test_what_a_route_says(limit, held, too_large):
    p = talk(limit).downstream(sized(11), b"x" * 4)
    assert (not p.upstreams) is held
    if too_large:
        assert p.down.read().startswith(b"HTTP/1.1 413 ")
    else:
        p.downstream(b"x" * 7).expect_upstream(sized(11) + b"x" * 11)


def test_a_virtual_host_says_it_for_its_routes():
    p = play(filters=[BUFFER], virtual_host={"per_filter_config": {"b": PerFilterConfig(BufferConfig(0))}})
    p.downstream(sized(11), b"x").expect_upstream(sized(11) + b"x")


def test_no_route_waits_for_the_body_too():
    p = play(filters=[BUFFER], routes=[route("/only")]).downstream(sized(2), b"a")
    p.expect_downstream(b"")
    p.downstream(b"b")
    assert p.down.read().startswith(b"HTTP/1.1 404 ")


def test_a_client_that_leaves():
    p = talk().downstream(sized(6), b"ab").downstream_resets()
    assert p.upstreams == []
    p.expect_quiet()


def test_configuration():
    assert value_of(build, PACKAGE + "Buffer", "{max_request_bytes: 7}") == BufferConfig(7)
    assert value_of(build_per_route, PACKAGE + "BufferPerRoute", "{disabled: true}") == BufferConfig(0)
    text = "{buffer: {max_request_bytes: 8}}"
    assert value_of(build_per_route, PACKAGE + "BufferPerRoute", text) == BufferConfig(8)
