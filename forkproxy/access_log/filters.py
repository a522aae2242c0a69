"""Which streams are logged: ``AccessLogFilter`` compiled to one test of a finished stream."""

from __future__ import annotations

import operator
import random
from collections.abc import Callable
from typing import Any

from forkproxy.access_log.operators import GRPC_NAMES, milliseconds, response_grpc_status
from forkproxy.config.build.access_log import AccessLogFilter
from forkproxy.config.build.core import HeaderMatcher, Where
from forkproxy.config.problems import ConfigError
from forkproxy.http import response_flags
from forkproxy.http.stream import HEALTH_CHECK

Test = Callable[[Any], bool]
CompileHeaderMatcher = Callable[[HeaderMatcher, Where], Test]

_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "EQ": operator.eq,
    "GE": operator.ge,
    "LE": operator.le,
    "NE": operator.ne,
}

_UNKNOWN = 2


def _always(_stream: Any) -> bool:
    return True


def _not_health_check(stream: Any) -> bool:
    return HEALTH_CHECK not in stream.filter_state


def _traceable(stream: Any) -> bool:
    # As in Envoy, what was merely sampled does not count.
    return bool(getattr(stream, "is_forced_to_trace", False))


def _status_code(config: AccessLogFilter) -> Test:
    compare, value = _COMPARISONS[config.op], config.value
    return lambda stream: compare(stream.status, value)


def _duration(config: AccessLogFilter) -> Test:
    compare, value = _COMPARISONS[config.op], config.value
    return lambda stream: compare(milliseconds(stream.start, stream.end or stream.connection.loop.now) or 0, value)


def _runtime(config: AccessLogFilter) -> Test:
    if config.value >= config.denominator:
        return _always
    share = config.value / config.denominator
    draw = random.random
    return lambda _stream: draw() < share


def _response_flag(config: AccessLogFilter, where: Where) -> Test:
    by_name = {name: bit for bit, name in response_flags.SHORT.items()}
    mask = 0
    for name in config.flags:
        if name not in by_name:
            raise ConfigError(
                where.path, where.line, where.column, f'no response flag "{name}"', f"flags: {', '.join(by_name)}"
            )
        mask |= by_name[name]
    # No flag named means any flag at all.
    mask = mask or -1
    return lambda stream: bool(stream.response_flags & mask)


def _grpc_status(config: AccessLogFilter) -> Test:
    """``flags``: the statuses by name; ``op`` "NE" is ``exclude``."""
    statuses = frozenset(GRPC_NAMES.index("CANCELLED" if name == "CANCELED" else name) for name in config.flags)
    wanted = config.op != "NE"

    def test(stream: Any) -> bool:
        status = response_grpc_status(stream)
        return ((_UNKNOWN if status is None else status) in statuses) is wanted

    return test


def compile_filter(config: AccessLogFilter, where: Where, compile_header_matcher: CompileHeaderMatcher) -> Test:
    """A test that is true for the streams to log. Raises ConfigError for a flag that does not exist."""
    kind = config.kind
    if kind == "status_code":
        return _status_code(config)
    if kind == "duration":
        return _duration(config)
    if kind == "not_health_check":
        return _not_health_check
    if kind == "traceable":
        return _traceable
    if kind == "runtime":
        return _runtime(config)
    if kind == "response_flag":
        return _response_flag(config, where)
    if kind == "grpc_status":
        return _grpc_status(config)
    if kind == "header":
        assert config.header is not None
        return compile_header_matcher(config.header, where)
    tests = tuple(compile_filter(part, where, compile_header_matcher) for part in config.filters)
    if kind == "and":
        return lambda stream: all(test(stream) for test in tests)
    assert kind == "or", kind
    return lambda stream: any(test(stream) for test in tests)
