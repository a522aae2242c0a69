"""Metadata matchers, compiled to closures over dynamic metadata (namespace → key → value; numbers, texts, lists, dicts)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from forkproxy.config.build.core import Where
from forkproxy.config.build.metadata import MetadataMatcher, ValueMatcher
from forkproxy.router.matcher import compile_string

if TYPE_CHECKING:
    from forkproxy.http.stream import Stream

ValueTest = Callable[[Any], bool]

ABSENT: Final = object()
"""What a test is given where there is no value: neither null nor anything else."""


def compile_metadata(matcher: MetadataMatcher, *, of_route: bool = False) -> Callable[[Stream], bool]:
    """``MetadataMatcher`` against a stream's dynamic metadata, or its route's. ConfigError for a regular expression that is
    wrong."""
    namespace, path, invert = matcher.namespace, matcher.path, matcher.invert
    test = compile_value(matcher.value, matcher.where)

    def matches(stream: Stream) -> bool:
        value: Any = (_of_route(stream) if of_route else stream.dynamic_metadata).get(namespace, ABSENT)
        for key in path:
            value = value.get(key, ABSENT) if isinstance(value, dict) else ABSENT
        return test(value) != invert

    return matches


def _of_route(stream: Stream) -> dict[str, Any]:
    route = stream.route
    return route.config.metadata if route is not None and route.config is not None else {}


def compile_value(matcher: ValueMatcher, where: Where) -> ValueTest:
    """``ValueMatcher`` as a test of a value or of ABSENT."""
    number, end, wanted = matcher.number, matcher.end, matcher.wanted
    match matcher.kind:
        case "null":
            return lambda value: value is None
        case "exact":
            return lambda value: _is_number(value) and value == number
        case "range":
            return lambda value: _is_number(value) and number <= value < end
        case "bool":
            return lambda value: value is wanted
        case "present":
            return lambda value: wanted and value is not ABSENT  # as in Envoy: wanted absent, it never matches
        case "string":
            assert matcher.string is not None
            matches = compile_string(matcher.string, where)
            return lambda value: isinstance(value, str) and matches(value.encode())
    tests = tuple(compile_value(each, where) for each in matcher.inner)
    if matcher.kind == "or":
        return lambda value: any(test(value) for test in tests)
    one = tests[0]
    return lambda value: isinstance(value, list) and any(one(each) for each in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
