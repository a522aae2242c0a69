"""What a route asks of a request beyond its path, as one test: fraction, gRPC, headers, query, TLS, metadata, filter state."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from forkproxy.config.build.core import Where
from forkproxy.config.build.filter_state import FilterStateMatcher
from forkproxy.config.build.route import RouteMatch
from forkproxy.router.filter_state import filter_state_text
from forkproxy.router.matcher import (
    Dice,
    StreamTest,
    all_of,
    compile_fraction,
    compile_header_matcher,
    compile_query_matcher,
    compile_string,
    fair,
    is_grpc,
)
from forkproxy.router.metadata import compile_metadata
from forkproxy.router.ranges import compile_range

if TYPE_CHECKING:
    from forkproxy.http.stream import Stream


def compile_condition(match: RouteMatch, where: Where, dice: Dice = fair) -> StreamTest | None:
    """None when only the path counts. ConfigError for a regular expression that is wrong."""
    tests: list[StreamTest] = []
    if match.runtime_fraction is not None:
        fraction = compile_fraction(match.runtime_fraction, dice)
        if fraction is not None:
            tests.append(fraction)
    if match.grpc:
        tests.append(is_grpc)
    tests += [compile_header_matcher(header, where) for header in match.headers]
    tests += [compile_query_matcher(parameter, where) for parameter in match.query_parameters]
    # A connection here has a peer's certificate only when it was verified: otherwise the handshake fails.
    tests += [
        has_certificate if wanted else lacks_certificate
        for wanted in (match.presented, match.validated)
        if wanted is not None
    ]
    tests += [compile_metadata(matcher) for matcher in match.dynamic_metadata]
    tests += [compile_filter_state(matcher) for matcher in match.filter_state]
    return all_of(tests)


def has_certificate(stream: Stream) -> bool:
    """Whether the client has presented a certificate, which then is a valid one."""
    tls = stream.connection.tls
    return tls is not None and bool(tls.getpeercert(True))


def lacks_certificate(stream: Stream) -> bool:
    """Whether the client has presented none."""
    return not has_certificate(stream)


def compile_filter_state(matcher: FilterStateMatcher) -> StreamTest:
    """``FilterStateMatcher``; where there is nothing under the key, nothing matches."""
    key = matcher.key
    test: Callable[[bytes], bool]
    if matcher.string is not None:
        test = compile_string(matcher.string, matcher.where)
    else:
        ranges = tuple(compile_range(each) for each in matcher.ranges)

        def test(value: bytes) -> bool:
            address = value.decode("latin-1")
            return any(contains(address) for contains in ranges)

    def matches(stream: Stream) -> bool:
        value = filter_state_text(stream, key)
        return value is not None and test(value)

    return matches
