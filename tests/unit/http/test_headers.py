"""Header lists."""

import pytest

from forkproxy.http import headers as h


def sample():
    return [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]


def test_get():
    assert (h.get(sample(), b"a"), h.get(sample(), b"z")) == (b"1", None)
    assert (h.get_all(sample(), b"a"), h.get_all(sample(), b"z")) == ([b"1", b"3"], [])


@pytest.mark.parametrize(
    ("name", "after"),
    [
        (b"a", [(b"a", b"x"), (b"b", b"2")]),
        (b"b", [(b"a", b"1"), (b"b", b"x"), (b"a", b"3")]),
        (b"z", [*sample(), (b"z", b"x")]),
    ],
)
def test_set_replaces_where_it_stands(name, after):
    headers = sample()
    h.set_(headers, name, b"x")
    assert headers == after


def test_add_and_remove():
    headers = sample()
    h.add(headers, b"a", b"4")
    assert headers[-1] == (b"a", b"4")
    same = headers
    assert h.remove(headers, b"a")
    assert same == [(b"b", b"2")]
    assert not h.remove(headers, b"a")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"close", True),
        (b"Close", True),
        (b"x, close", True),
        (b"x,\tclose ,y", True),
        (b"closed", False),
        (b"", False),
        (b"x close", False),
    ],
)
def test_has_token(value, found):
    assert h.has_token(value, b"close") is found


@pytest.mark.parametrize(
    ("name", "proper"), [(b"x-request-id", b"X-Request-Id"), (b"a", b"A"), (b"te-", b"Te-"), (b"x-1a", b"X-1a")]
)
def test_proper_case(name, proper):
    assert h.proper_case(name) == proper
