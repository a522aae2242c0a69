"""Access log filters."""

import pytest

from forkproxy.access_log import filters
from forkproxy.access_log.filters import Compilers, compile_filter
from forkproxy.config.build.access_log import AccessLogFilter
from forkproxy.config.build.core import HeaderMatcher
from forkproxy.config.build.metadata import MetadataMatcher, ValueMatcher
from forkproxy.config.problems import ConfigError
from forkproxy.http import response_flags
from forkproxy.router.metadata import compile_value
from tests.unit.access_log.fakes import WHERE, FakeConnection, FakeLoop, stream


def no_headers(matcher, where):
    raise AssertionError(matcher)


NO_HEADERS = Compilers(no_headers, compile_value)


def passes(config, **changes):
    return compile_filter(config, WHERE, NO_HEADERS, "DownstreamEnd")(stream(**changes))


@pytest.mark.parametrize(
    ("request_id", "expected"),
    [(b"00000031-x", True), (b"00000032-x", False), (b"000000c7", False), (b"0000012b", True)],
)
def test_runtime_by_request_id(request_id, expected):
    config = AccessLogFilter("runtime", op="EQ", value=50, denominator=250)
    assert passes(config, request_id=request_id) is expected


@pytest.mark.parametrize("request_id", [b"", b"123", b"not hexadecimal"])
def test_runtime_without_a_number_in_the_request_id(request_id, monkeypatch):
    config = AccessLogFilter("runtime", op="EQ", value=50)
    for draw, expected in ((0.49, True), (0.5, False)):
        monkeypatch.setattr(filters.random, "random", lambda draw=draw: draw)
        assert passes(config, request_id=request_id) is expected


@pytest.mark.parametrize(("op", "expected"), [("EQ", True), ("NE", False)])
def test_log_type(op, expected):
    config = AccessLogFilter("log_type", op=op, flags=("DownstreamEnd", "UpstreamEnd"))
    assert passes(config) is expected
    assert compile_filter(config, WHERE, NO_HEADERS, "TcpPeriodic")(stream()) is not expected


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, True),
        ({"n": {}}, True),
        ({"n": {"a": {"b": 1.0}}}, True),
        ({"n": {"a": {"b": 2.0}}}, False),
        ({"n": {"a": 1}}, True),
    ],
)
def test_metadata(metadata, expected):
    matcher = MetadataMatcher("n", ("a", "b"), ValueMatcher("exact", 1.0), False, WHERE)
    assert passes(AccessLogFilter("metadata", metadata=matcher), dynamic_metadata=metadata) is expected


def test_metadata_that_is_not_there():
    matcher = MetadataMatcher("n", ("a",), ValueMatcher("null"), False, WHERE)
    config = AccessLogFilter("metadata", metadata=matcher, default=False)
    assert not passes(config)
    assert passes(config, dynamic_metadata={"n": {"a": None}})
    assert not passes(AccessLogFilter("metadata", default=False))
    assert passes(AccessLogFilter("metadata"))


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        ("EQ", [False, True, False]),
        ("NE", [True, False, True]),
        ("GE", [False, True, True]),
        ("LE", [True, True, False]),
    ],
)
def test_comparisons(op, expected):
    status = AccessLogFilter("status_code", op=op, value=400)
    assert [passes(status, status=code) for code in (399, 400, 401)] == expected
    duration = AccessLogFilter("duration", op=op, value=400)
    assert [passes(duration, end=50 + ms / 1000) for ms in (399.9, 400, 401)] == expected


def test_duration_of_a_stream_that_goes_on():
    loop = FakeLoop()
    loop.now = 51.0
    assert passes(AccessLogFilter("duration", op="GE", value=1000), end=0.0, connection=FakeConnection(1, loop=loop))


def test_not_health_check_passes_all():
    assert passes(AccessLogFilter("not_health_check"))


def test_traceable():
    assert passes(AccessLogFilter("traceable"), is_forced_to_trace=True)
    assert not passes(AccessLogFilter("traceable"), is_forced_to_trace=False)
    assert not passes(AccessLogFilter("traceable"))  # what is no request has nothing to trace


def test_runtime(monkeypatch):
    assert passes(AccessLogFilter("runtime", value=100))
    draws = iter([0.0, 0.0099, 0.01, 0.99])
    monkeypatch.setattr(filters.random, "random", lambda: next(draws))
    config = AccessLogFilter("runtime", op="NE", value=100, denominator=10_000)
    test = compile_filter(config, WHERE, NO_HEADERS, "DownstreamEnd")
    assert [test(stream()) for _ in range(4)] == [True, True, False, False]
    monkeypatch.undo()
    assert not any(passes(AccessLogFilter("runtime", value=0)) for _ in range(100))


def test_response_flags():
    some = AccessLogFilter("response_flag", flags=("UF", "NR"))
    assert [passes(some, response_flags=flags) for flags in (0, response_flags.UF, response_flags.NR | 1, response_flags.DC)] == [
        False, True, True, False,
    ]  # fmt: skip
    anything = AccessLogFilter("response_flag")
    assert [passes(anything, response_flags=flags) for flags in (0, response_flags.DC)] == [False, True]
    with pytest.raises(ConfigError, match='no response flag "XX"'):
        compile_filter(
            AccessLogFilter("response_flag", flags=("XX",)),
            WHERE,
            Compilers(no_headers, compile_value),
            "DownstreamEnd",
        )


def test_grpc_status():
    grpc = [(b"content-type", b"application/grpc")]
    wanted = AccessLogFilter("grpc_status", flags=("NOT_FOUND", "CANCELED"))
    others = AccessLogFilter("grpc_status", op="NE", flags=("NOT_FOUND",))
    for status, is_wanted, is_other in ((b"5", True, False), (b"1", True, True), (b"0", False, True)):
        changes = {"request_headers": grpc, "response_trailers": [(b"grpc-status", status)]}
        assert passes(wanted, **changes) is is_wanted
        assert passes(others, **changes) is is_other


def test_and_or():
    server_error = AccessLogFilter("status_code", op="GE", value=500)
    slow = AccessLogFilter("duration", op="GE", value=1000)
    both = AccessLogFilter("and", filters=(server_error, slow))
    either = AccessLogFilter("or", filters=(server_error, slow))
    cases = [(200, 50.1), (500, 50.1), (200, 52.0), (503, 52.0)]
    assert [passes(both, status=status, end=end) for status, end in cases] == [False, False, False, True]
    assert [passes(either, status=status, end=end) for status, end in cases] == [False, True, True, True]


def test_a_header_filter_is_the_routers_matcher():
    matcher = HeaderMatcher("x", "present")
    asked = []

    def compile_header_matcher(config, where):
        asked.append((config, where))
        return lambda of: of.status == 200

    nested = AccessLogFilter("and", filters=(AccessLogFilter("header", header=matcher),))
    test = compile_filter(nested, WHERE, Compilers(compile_header_matcher, compile_value), "DownstreamEnd")
    assert [test(stream()), test(stream(status=404))] == [True, False]
    assert asked == [(matcher, WHERE)]
