"""Which streams are logged: ``AccessLogFilter`` compiled to one test of a finished stream."""

from __future__ import annotations

import operator
import random
from collections.abc import Callable
from typing import Any

from forkproxy.access_log.operators import GRPC_NAMES, milliseconds, response_grpc_status
from forkproxy.config.build.access_log import AccessLogFilter
from forkproxy.config.build.core import HeaderMatcher, Where
from forkproxy.config.build.metadata import ValueMatcher
from forkproxy.config.problems import ConfigError
from forkproxy.config.values import frozen
from forkproxy.http import response_flags
from forkproxy.http.stream import HEALTH_CHECK

Test = Callable[[Any], bool]
CompileHeaderMatcher = Callable[[HeaderMatcher, Where], Test]
CompileValue = Callable[[ValueMatcher, Where], Callable[[object], bool]]

_MISSING = object()


@frozen
class Compilers:
    """What the router has for conditions: it is a neighbour, so it is handed in."""

    header: CompileHeaderMatcher
    value: CompileValue


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
    value, denominator = config.value, config.denominator
    if value >= denominator:
        return _always
    draw = random.random
    share = value / denominator
    if config.op == "NE":
        return lambda _stream: draw() < share

    def by_request_id(stream: Any) -> bool:
        # Every proxy on the way of a request, and every line about it, chooses the same.
        try:
            return (
                int(stream.request_id[:8], 16) % denominator < value if len(stream.request_id) >= 8 else draw() < share
            )
        except ValueError:
            return draw() < share

    return by_request_id


def _metadata(config: AccessLogFilter, where: Where, compile_value: CompileValue) -> Test:
    default, matcher = config.default, config.metadata
    if matcher is None:
        return lambda _stream: default
    namespace, path = matcher.namespace, matcher.path
    matches = compile_value(matcher.value, where)

    def test(stream: Any) -> bool:
        value: Any = stream.dynamic_metadata.get(namespace, _MISSING)
        for key in path:
            value = value.get(key, _MISSING) if isinstance(value, dict) else _MISSING
        return default if value is _MISSING else matches(value)  # Envoy does not look at ``invert`` here

    return test


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


def compile_filter(config: AccessLogFilter, where: Where, compilers: Compilers, log_type: str) -> Test:
    """A test that is true for the streams to log, by a log of ``log_type``. Raises ConfigError for a flag that does not exist."""
    kind = config.kind
    if kind in _SIMPLE:
        return _SIMPLE[kind](config)
    if kind == "log_type":
        passes = (log_type in config.flags) is not (config.op == "NE")
        return lambda _stream: passes
    if kind == "response_flag":
        return _response_flag(config, where)
    if kind == "metadata":
        return _metadata(config, where, compilers.value)
    if kind == "header":
        assert config.header is not None
        return compilers.header(config.header, where)
    tests = tuple(compile_filter(part, where, compilers, log_type) for part in config.filters)
    if kind == "and":
        return lambda stream: all(test(stream) for test in tests)
    assert kind == "or", kind
    return lambda stream: any(test(stream) for test in tests)


_SIMPLE: dict[str, Callable[[AccessLogFilter], Test]] = {
    "status_code": _status_code,
    "duration": _duration,
    "not_health_check": lambda _config: _not_health_check,
    "traceable": lambda _config: _traceable,
    "runtime": _runtime,
    "grpc_status": _grpc_status,
}
