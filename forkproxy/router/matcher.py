"""String, header, query and fraction matchers, compiled once into closures over bytes.

Facts from Envoy 1.40 that the closures keep:

- a regular expression is RE2 and matches the whole string;
- each line of a repeated header is matched on its own and one match is enough, except for the headers that Envoy keeps
  as a single value (``JOINED_REQUEST_HEADERS``): those match against the lines joined by commas;
- a missing header never matches a value, not even an inverted one;
- a query parameter is matched undecoded, and only where it first occurs.

``re2`` (google-re2) is used when it is installed. Without it ``re`` takes its place, and because ``re`` may need
exponential time, a value of more than ``MAX_BACKTRACKING_BYTES`` then never matches.
"""

from __future__ import annotations

import operator
import random
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from forkproxy.config.build.core import (
    FractionalPercent,
    HeaderMatcher,
    QueryParameterMatcher,
    StringMatcher,
    Where,
)
from forkproxy.config.problems import ConfigError
from forkproxy.router.header_mutation import JOINED_REQUEST_HEADERS
from forkproxy.router.regex_sets import PATTERNS_PER_SET, Ask, Pattern, RegexSets

if TYPE_CHECKING:
    from forkproxy.http.stream import Stream

try:
    import re2
except ImportError:  # pragma: no cover (the tests run with it)
    re2 = None

BytesTest = Callable[[bytes], bool]
StreamTest = Callable[["Stream"], bool]
Dice = Callable[[int], Callable[[], float]]
"""For so many sides, what is rolled: a number from 0 up to 1."""

MAX_BACKTRACKING_BYTES = 4096


def _options() -> Any:
    options = re2.Options()
    options.log_errors = False
    return options


def _invalid(pattern: str, reason: object, where: Where) -> ConfigError:
    return ConfigError(where.path, where.line, where.column, f'invalid regex "{pattern}": {_text(reason)}')


def _text(reason: object) -> str:
    first = reason.args[0] if isinstance(reason, Exception) and reason.args else reason
    return first.decode("utf-8", "replace") if isinstance(first, bytes) else str(first)


def compile_regex(pattern: str, where: Where) -> BytesTest:
    """A test for "the whole value matches ``pattern``". Raises ConfigError for what RE2 refuses."""
    if re2 is None:
        return _compile_backtracking(pattern, where)
    _check_regex(pattern, where)
    automaton = re2.Set.FullMatchSet(_options())
    automaton.Add(pattern.encode())
    automaton.Compile()
    match = automaton.Match

    # A set of one answers "does it match" in 0.6 µs; fullmatch() also makes a match object: 1.5 µs.
    def matches(value: bytes) -> bool:
        return match(value) is not None

    return matches


def _check_regex(pattern: str, where: Where) -> None:
    try:
        re2.compile(pattern.encode(), _options())
    except re2.error as error:
        raise _invalid(pattern, error, where) from None


def _compile_backtracking(pattern: str, where: Where) -> BytesTest:
    try:
        fullmatch = re.compile(pattern.encode()).fullmatch
    except re.error as error:
        raise _invalid(pattern, error, where) from None

    def matches(value: bytes) -> bool:
        return len(value) <= MAX_BACKTRACKING_BYTES and fullmatch(value) is not None

    return matches


def compile_regex_set(patterns: Sequence[Pattern]) -> Callable[[bytes], list[int]]:
    """For (number, pattern, where) triples: a function from a value to the numbers of all patterns that match it
    whole.
    """
    if re2 is None:
        tests = tuple((number, _compile_backtracking(pattern, where)) for number, pattern, where in patterns)
        return lambda value: [number for number, test in tests if test(value)]
    for _, pattern, where in patterns:
        _check_regex(pattern, where)
    if len(patterns) > PATTERNS_PER_SET:
        return RegexSets(patterns, _compile_set).matching
    ask = _compile_set(patterns)
    numbers = tuple(number for number, *_ in patterns)
    return lambda value: [numbers[position] for position in ask(value)]


def _compile_set(patterns: Sequence[Pattern]) -> Ask:
    automaton = re2.Set.FullMatchSet(_options())
    for _, pattern, _ in patterns:
        automaton.Add(pattern.encode())
    automaton.Compile()
    match = automaton.Match
    return lambda value: match(value) or ()


def _substitution_parts(substitution: str) -> list[bytes | int]:
    """Literal bytes and group numbers.

    From an escape that RE2 does not know on, nothing: Envoy takes such a text, and so it acts.
    """
    parts: list[bytes | int] = []
    characters = iter(substitution)
    for character in characters:
        if character != "\\":
            parts.append(character.encode())
            continue
        escape = next(characters, "")
        if escape == "\\":
            parts.append(b"\\")
        elif escape in tuple("0123456789"):
            parts.append(int(escape))
        else:
            break
    return parts


def compile_substitution(pattern: str, substitution: str, where: Where) -> Callable[[bytes], bytes]:
    """``RegexMatchAndSubstitute``: every match replaced; ``\\0`` to ``\\9`` are groups (empty when there is no
    such), ``\\\\`` a backslash.
    """
    if re2 is None:
        try:
            compiled: Any = re.compile(pattern.encode())
        except re.error as error:
            raise _invalid(pattern, error, where) from None
    else:
        _check_regex(pattern, where)
        compiled = re2.compile(pattern.encode(), _options())
    parts = [
        part if isinstance(part, bytes) or part <= compiled.groups else b""
        for part in _substitution_parts(substitution)
    ]
    finditer = compiled.finditer

    def substitute(value: bytes) -> bytes:
        out: list[bytes] = []
        end = -1
        copied = 0
        for match in finditer(value):
            start, stop = match.span()
            # RE2 does not replace an empty match that touches the match before it; Python's iterators report it.
            if start == stop == end:
                continue
            out.append(value[copied:start])
            out.extend(part if isinstance(part, bytes) else match.group(part) or b"" for part in parts)
            copied = end = stop
        out.append(value[copied:])
        return b"".join(out)

    return substitute


def compile_template_rewrite(regex: str, parts: Sequence[tuple[str, bool]], where: Where) -> Callable[[bytes], bytes]:
    """What becomes of a path that ``regex`` matches whole: literals, and (where the bool is True) its named groups. Of any
    other path, which a filter may have made meanwhile, nothing: b"".
    """
    if re2 is None:
        fullmatch = re.compile(regex.encode()).fullmatch
    else:
        _check_regex(regex, where)
        fullmatch = re2.compile(regex.encode(), _options()).fullmatch
    names = list(re.compile(regex).groupindex)  # in the order of their numbers
    compiled = tuple(names.index(text) + 1 if is_name else text.encode() for text, is_name in parts)

    def substitute(path: bytes) -> bytes:
        found = fullmatch(path)
        if found is None:
            return b""
        return b"".join([part if isinstance(part, bytes) else found.group(part) for part in compiled])

    return substitute


def compile_string(matcher: StringMatcher, where: Where = Where()) -> BytesTest:  # noqa: B008 (an immutable value)
    """``StringMatcher`` as a test of bytes. ``ignore_case`` is ASCII's, and does not apply to regular expressions."""
    if matcher.kind == "safe_regex":
        return compile_regex(matcher.value, where)
    value = matcher.value.encode()
    if matcher.ignore_case:
        test = _plain_test(matcher.kind, value.lower())
        return lambda candidate: test(candidate.lower())
    return _plain_test(matcher.kind, value)


def _plain_test(kind: str, value: bytes) -> BytesTest:
    if kind == "exact":
        return lambda candidate: candidate == value
    if kind == "prefix":
        return operator.methodcaller("startswith", value)
    if kind == "suffix":
        return operator.methodcaller("endswith", value)
    assert kind == "contains", kind
    return lambda candidate: value in candidate


def _range_test(start: int, end: int) -> BytesTest:
    def in_range(value: bytes) -> bool:
        if b"_" in value:  # int() takes 1_000
            return False
        try:
            return start <= int(value) < end
        except ValueError:
            return False

    return in_range


def _any_value(_value: bytes) -> bool:
    return True


_PSEUDO: dict[bytes, Callable[[Any], bytes]] = {
    b":method": operator.attrgetter("method"),
    b":path": operator.attrgetter("path"),
    b":authority": operator.attrgetter("authority"),
    b":scheme": operator.attrgetter("scheme"),
    b"host": operator.attrgetter("authority"),
}


def compile_header_matcher(matcher: HeaderMatcher, where: Where = Where()) -> StreamTest:  # noqa: B008
    """``HeaderMatcher`` against a stream's request headers."""
    name = matcher.name.lower().encode()
    if matcher.kind == "present":
        # treat_missing_as_empty makes every header "present"
        if_found = matcher.present != matcher.invert
        if_missing = if_found if matcher.treat_missing_as_empty else not if_found
        test: BytesTest = _any_value
        if_not_matched = if_found
    else:
        if matcher.kind == "range":
            test = _range_test(matcher.range_start, matcher.range_end)
        else:
            assert matcher.string is not None
            test = compile_string(matcher.string, where)
        if_found = not matcher.invert
        if_not_matched = matcher.invert
        if_missing = matcher.treat_missing_as_empty and test(b"") != matcher.invert
    read = _PSEUDO.get(name)
    if read is not None:
        return _compile_pseudo(read, test, if_found, if_not_matched, if_missing)
    if name in JOINED_REQUEST_HEADERS:
        return _compile_joined(name, test, if_found, if_not_matched, if_missing)

    def matches(stream: Stream) -> bool:
        outcome = if_missing
        for key, value in stream.request_headers:
            if key == name:
                if test(value):
                    return if_found
                outcome = if_not_matched
        return outcome

    return matches


def _compile_pseudo(
    read: Callable[[Any], bytes], test: BytesTest, if_found: bool, if_not_matched: bool, if_missing: bool
) -> StreamTest:
    def matches(stream: Stream) -> bool:
        value = read(stream)
        if not value:
            return if_missing
        return if_found if test(value) else if_not_matched

    return matches


def _compile_joined(name: bytes, test: BytesTest, if_found: bool, if_not_matched: bool, if_missing: bool) -> StreamTest:
    def matches(stream: Stream) -> bool:
        values = [value for key, value in stream.request_headers if key == name]
        if not values:
            return if_missing
        return if_found if test(b",".join(values)) else if_not_matched

    return matches


def query_of(path: bytes) -> bytes:
    """What stands between "?" and "#" in a request target, b"" when there is no "?"."""
    return path.partition(b"#")[0].partition(b"?")[2]


def compile_query_matcher(matcher: QueryParameterMatcher, where: Where = Where()) -> StreamTest:  # noqa: B008
    """``QueryParameterMatcher`` against the first occurrence of the parameter, without percent-decoding."""
    name = matcher.name.encode()
    test = compile_string(matcher.string, where) if matcher.string is not None else None
    present = matcher.present

    def matches(stream: Stream) -> bool:
        for pair in query_of(stream.path).split(b"&"):
            key, _, value = pair.partition(b"=")
            if key == name:
                return test(value) if test is not None else present
        return test is None and not present

    return matches


def is_grpc(stream: Stream) -> bool:
    """Whether the request is gRPC by its content-type: ``application/grpc`` alone or with a ``+suffix``."""
    for key, value in stream.request_headers:
        if key == b"content-type":
            return value == b"application/grpc" or value.startswith(b"application/grpc+")
    return False


def fair(_sides: int) -> Callable[[], float]:
    """The dice of requests that are really served. (``router.explain`` has loaded ones.)"""
    return random.random


def compile_fraction(fraction: FractionalPercent, dice: Dice = fair) -> StreamTest | None:
    """A test that is true for that share of requests; None when it is true for all of them."""
    if fraction.numerator >= fraction.denominator:
        return None
    share = fraction.numerator / fraction.denominator
    draw = dice(fraction.denominator)

    def matches(_stream: Stream) -> bool:
        return draw() < share

    return matches


def all_of(tests: Sequence[StreamTest]) -> StreamTest | None:
    """One test for all of ``tests``; None when there are none."""
    if len(tests) < 2:
        return tests[0] if tests else None
    if len(tests) == 2:
        first, second = tests
        return lambda stream: first(stream) and second(stream)
    every = tuple(tests)

    def matches(stream: Stream) -> bool:
        return all(test(stream) for test in every)

    return matches
