"""Header mutations; the expected orders were observed on Envoy 1.40."""

import pytest

from forkproxy.config.build.core import HeaderMutations
from forkproxy.config.problems import ConfigError
from forkproxy.router.header_mutation import append, compile_request, compile_response, replace
from tests.unit.router.fakes import WHERE, FakeStream, compile_fake_format, option


def request(*levels):
    return compile_request([(level, WHERE) for level in levels], compile_fake_format)


def response(*levels):
    return compile_response([(level, WHERE) for level in levels], compile_fake_format)


def changed(mutations, *lines):
    stream = FakeStream()
    stream.request_headers = list(lines)
    request(*mutations)(stream)
    return stream.request_headers


def adds(*options, remove=()):
    return HeaderMutations(request_add=options, request_remove=remove, response_add=options, response_remove=remove)


def test_nothing_to_do_is_none():
    assert request() is None
    assert request(HeaderMutations(), HeaderMutations()) is None
    assert response(HeaderMutations()) is None
    assert request(adds(option("x-a", ""))) is None


def test_static_values_are_bytes_made_at_load():
    def never(text, where):
        raise AssertionError(text)

    apply = compile_request([(adds(option("X-A", "100%%"), option("x-a", "two")), WHERE)], never)
    stream = FakeStream()
    stream.request_headers = [(b"x-a", b"one")]
    apply(stream)
    assert stream.request_headers == [(b"x-a", b"one"), (b"x-a", b"100%"), (b"x-a", b"two")]


@pytest.mark.parametrize(
    ("action", "absent", "present"),
    [
        ("APPEND_IF_EXISTS_OR_ADD", [(b"y", b"1"), (b"x", b"n")], [(b"x", b"o"), (b"y", b"1"), (b"x", b"n")]),
        ("ADD_IF_ABSENT", [(b"y", b"1"), (b"x", b"n")], [(b"x", b"o"), (b"y", b"1")]),
        ("OVERWRITE_IF_EXISTS_OR_ADD", [(b"y", b"1"), (b"x", b"n")], [(b"y", b"1"), (b"x", b"n")]),
        ("OVERWRITE_IF_EXISTS", [(b"y", b"1")], [(b"y", b"1"), (b"x", b"n")]),
    ],
)
def test_append_actions(action, absent, present):
    level = adds(option("x", "n", action))
    assert changed([level], (b"y", b"1")) == absent
    assert changed([level], (b"x", b"o"), (b"y", b"1")) == present


def test_overwriting_removes_every_line():
    level = adds(option("x", "n", "OVERWRITE_IF_EXISTS_OR_ADD"))
    assert changed([level], (b"x", b"1"), (b"y", b"1"), (b"x", b"2")) == [(b"y", b"1"), (b"x", b"n")]


def test_overwrites_are_written_before_additions():
    level = adds(option("a", "1"), option("b", "2", "OVERWRITE_IF_EXISTS_OR_ADD"))
    assert changed([level]) == [(b"b", b"2"), (b"a", b"1")]


def test_removal_comes_first_and_formats_see_what_is_left():
    level = adds(option("x-see", "%REQ(x-gone)%", keep_empty=True), option("x-gone", "new"), remove=("X-Gone",))
    assert changed([level], (b"x-gone", b"old")) == [(b"x-see", b""), (b"x-gone", b"new")]
    assert changed([adds(remove=("a", "b"))], (b"a", b"1"), (b"c", b"2"), (b"b", b"3")) == [(b"c", b"2")]


def test_every_value_of_a_level_is_known_before_the_first_is_written():
    level = adds(option("x", "new"), option("x-see", "%REQ(x)%"))
    assert changed([level], (b"x", b"old")) == [(b"x", b"old"), (b"x", b"new"), (b"x-see", b"old")]


def test_later_levels_see_earlier_ones():
    assert changed([adds(option("x", "1")), adds(option("x", "2"), option("x-see", "%REQ(x)%"))]) == [
        (b"x", b"1"),
        (b"x", b"2"),
        (b"x-see", b"1"),
    ]


def test_empty_values_are_left_out_unless_kept():
    assert changed([adds(option("a", "%NOTHING%"), option("b", "%NOTHING%", keep_empty=True))]) == [(b"b", b"")]
    assert changed([adds(option("b", "", keep_empty=True))]) == [(b"b", b"")]


def test_headers_of_one_value_are_joined():
    assert changed([adds(option("via", "new"))], (b"via", b"old"), (b"z", b"1")) == [(b"via", b"old,new"), (b"z", b"1")]
    assert changed([adds(option("via", "new"))], (b"via", b"")) == [(b"via", b"new")]
    assert changed([adds(option("via", "new"))]) == [(b"via", b"new")]
    assert changed([adds(option("via", "", keep_empty=True))], (b"via", b"old")) == [(b"via", b"old")]
    assert changed([adds(option("cookie", "new"))], (b"cookie", b"old")) == [(b"cookie", b"old"), (b"cookie", b"new")]


def test_joined_headers_differ_between_request_and_response():
    headers = [(b"server", b"s"), (b"user-agent", b"u")]
    response(adds(option("server"), option("user-agent")))(FakeStream(), headers)
    assert headers == [(b"server", b"s,added"), (b"user-agent", b"u"), (b"user-agent", b"added")]
    assert changed([adds(option("server"), option("user-agent"))], (b"server", b"s"), (b"user-agent", b"u")) == [
        (b"server", b"s"),
        (b"user-agent", b"u,added"),
        (b"server", b"added"),
    ]


def test_response_changes_the_headers_it_is_given():
    headers = [(b"x", b"1")]
    stream = FakeStream()
    response(adds(option("x-p", "%PATH%"), remove=("x",)))(stream, headers)
    assert headers == [(b"x-p", b"/")]
    assert stream.request_headers == [(b"x-forwarded-proto", b"http")]


def test_response_formats_see_the_headers_as_earlier_levels_left_them():
    def compile_resp(text, where):
        return lambda stream: b"+".join(value for name, value in stream.response_headers if name == b"x")

    first = HeaderMutations(response_add=(option("x", "1"),))
    second = HeaderMutations(response_add=(option("x-see", "%RESP(x)%"),))
    apply = compile_response([(first, WHERE), (second, WHERE)], compile_resp)
    stream, headers = FakeStream(), [(b"x", b"0")]
    apply(stream, headers)
    assert headers == [(b"x", b"0"), (b"x", b"1"), (b"x-see", b"0+1")]


@pytest.mark.parametrize("name", [":path", ":authority", "host", "Host"])
def test_what_may_not_be_changed(name):
    with pytest.raises(ConfigError, match="may not be modified"):
        request(adds(option(name)))
    with pytest.raises(ConfigError, match="may not be removed"):
        request(adds(remove=(name,)))


def test_append_and_replace():
    headers = [(b"a", b"1"), (b"b", b"2")]
    append(headers, b"a", b"x")
    replace(headers, b"b", b"y")
    replace(headers, b"c", b"z")
    assert headers == [(b"a", b"1,x"), (b"b", b"y"), (b"c", b"z")]
