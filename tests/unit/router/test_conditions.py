"""What a route asks of a request beyond its path."""

import pytest

from forkproxy.config.build.core import StringMatcher
from forkproxy.config.build.filter_state import FilterStateMatcher
from forkproxy.config.build.metadata import MetadataMatcher, ValueMatcher
from forkproxy.config.build.route import RouteMatch
from forkproxy.router.conditions import compile_condition
from tests.support.fakes import FakeConnection
from tests.unit.router.fakes import WHERE, FakeStream


class Certificate:
    def __init__(self, der):
        self.der = der

    def getpeercert(self, binary):
        assert binary
        return self.der


def stream(tls=None, filter_state=None, of_connection=None, metadata=None):
    made = FakeStream()
    made.connection = FakeConnection()
    made.connection.tls = tls
    made.connection.filter_state.update(of_connection or {})
    made.filter_state = filter_state or {}
    made.dynamic_metadata = metadata or {}
    return made


def condition(**fields):
    return compile_condition(RouteMatch("prefix", "/", **fields), WHERE)


def test_only_the_path_counts():
    assert condition() is None


@pytest.mark.parametrize(("tls", "presented"), [(None, False), (Certificate(None), False), (Certificate(b"der"), True)])
@pytest.mark.parametrize("field", ["presented", "validated"])
def test_tls_context(tls, presented, field):
    assert condition(**{field: True})(stream(tls)) is presented
    assert condition(**{field: False})(stream(tls)) is not presented


def test_dynamic_metadata():
    value = ValueMatcher("string", string=StringMatcher("exact", "v"))
    wanted = MetadataMatcher("ns", ("k",), value, False, WHERE)
    test = condition(dynamic_metadata=(wanted,))
    assert test(stream(metadata={"ns": {"k": "v"}}))
    assert not test(stream(metadata={"ns": {"k": "w"}}))
    assert not test(stream())


def test_filter_state():
    text = FilterStateMatcher("k", StringMatcher("prefix", "v"), (), WHERE)
    test = condition(filter_state=(text,))
    assert test(stream(filter_state={"k": "value"}))
    assert test(stream(of_connection={"k": b"value"}))
    assert not test(stream(filter_state={"k": "other"}, of_connection={"k": "value"}))
    assert not test(stream(filter_state={"k": 7}))
    assert not test(stream())
    address = FilterStateMatcher("k", None, ("10.0.0.0/8", "::1/128"), WHERE)
    test = condition(filter_state=(address,))
    assert test(stream(filter_state={"k": "10.1.2.3"}))
    assert not test(stream(filter_state={"k": "11.1.2.3"}))
    assert not test(stream(filter_state={"k": "no address"}))
