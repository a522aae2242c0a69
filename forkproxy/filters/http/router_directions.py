"""What a request's own x-envoy-* headers say of its timeouts and retries (Envoy: "Router", "HTTP headers (consumed)").

The connection manager lets them pass from inside only; filters and routes may add them. They change the route for this one
request, which then has a Route of its own, and do not reach the upstream. ``time_limits`` is asked before the route has finished
the head, RetryDirections after it, as in Envoy: what a route adds to its requests directs retries, but not timeouts.
"""

from __future__ import annotations

import copy
import re
from dataclasses import replace

from forkproxy.config.build.core import HeaderMatcher
from forkproxy.config.build.retry import RetryPolicy, parse_retry_on
from forkproxy.http.headers import Headers
from forkproxy.http.headers import set_ as set_header
from forkproxy.http.stream import Stream
from forkproxy.router.durations import grpc_timeout, grpc_timeout_ms
from forkproxy.router.matcher import is_grpc
from forkproxy.router.policies import NO_POLICIES, RETRY_DIRECTIONS
from forkproxy.router.retry import Retries, milliseconds
from forkproxy.router.table import Route

_EXPECTED = b"x-envoy-expected-rq-timeout-ms"
_TIMEOUT = b"x-envoy-upstream-rq-timeout-ms"
_PER_TRY = b"x-envoy-upstream-rq-per-try-timeout-ms"
_HEDGE = b"x-envoy-hedge-on-per-try-timeout"
_DURATION = b"x-envoy-upstream-stream-duration-ms"
_ALTERNATIVE = b"x-envoy-upstream-rq-timeout-alt-response"
_RETRY_ON, _GRPC_ON, _MAX = b"x-envoy-retry-on", b"x-envoy-retry-grpc-on", b"x-envoy-max-retries"
_CODES, _NAMES = b"x-envoy-retriable-status-codes", b"x-envoy-retriable-header-names"

DIRECTIONS = RETRY_DIRECTIONS | {_EXPECTED, _TIMEOUT, _PER_TRY, _HEDGE, _DURATION, _ALTERNATIVE}
_LIMITS = frozenset((_TIMEOUT, _PER_TRY, _HEDGE, _DURATION, _ALTERNATIVE))
_INTEGER = re.compile(rb"[ \t]*\+?([0-9]{1,20})[ \t]*")
_NOBODY = RetryPolicy(num_retries=1)
_KEPT = 256
"""So many policies that requests have asked for are kept, for the next that ask for the same."""


def integer(value: bytes | None) -> int | None:
    """The number that a header holds; None when it is none of 64 bits without a sign."""
    found = _INTEGER.fullmatch(value) if value is not None else None
    number = int(found[1]) if found is not None else 1 << 64
    return number if number < 1 << 64 else None


def invalid_header(name: bytes, headers: Headers) -> bytes | None:
    """The value of the header ``name``, if it is there and says nothing that could be meant (``strict_check_headers``)."""
    values = [value for key, value in headers if key == name]
    if not values:
        return None
    value = b",".join(values)
    if name in (_RETRY_ON, _GRPC_ON):
        return None if parse_retry_on(value.decode("latin-1"), grpc=name == _GRPC_ON)[1] else value
    return None if integer(value) is not None else value


def is_directed(route: Route, stream: Stream) -> bool:
    """Whether there is anything to heed before the route finishes the head."""
    policies = route.policies
    if policies is not None and policies.grpc_max_s is not None and is_grpc(stream):
        return True
    return not DIRECTIONS.isdisjoint(dict(stream.request_headers))


def time_limits(route: Route, stream: Stream, *, respects_expected: bool) -> Route:
    """The route of this request: its timeouts, and what happens when they are over."""
    headers = stream.request_headers
    said: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in DIRECTIONS:
            said[name] = said[name] + b"," + value if name in said else value
    route = copy.copy(route)
    route.is_plain = False
    policies = route.policies
    if said.get(_HEDGE) in (b"true", b"false"):
        policies = route.policies = copy.copy(policies or NO_POLICIES)
        policies.hedges = said[_HEDGE] == b"true"
    is_old_grpc = policies is not None and policies.grpc_max_s is not None and is_grpc(stream)
    timeout_ms = milliseconds(route.timeout_s)
    if policies is not None and is_old_grpc and policies.max_stream_duration is None:
        timeout_ms = _grpc_limit(headers, policies.grpc_max_s or 0.0, policies.grpc_offset_s or 0.0)
    dropped = _LIMITS
    if respects_expected and _EXPECTED in said:
        asked_ms = integer(said[_EXPECTED])
        dropped -= {_TIMEOUT}
    else:
        asked_ms = integer(said.get(_TIMEOUT))
    if asked_ms is not None:
        timeout_ms = asked_ms
    per_try_ms = milliseconds(route.retries.policy.per_try_timeout_s) if route.retries is not None else 0
    asked_ms = integer(said.get(_PER_TRY))
    if asked_ms is not None:
        per_try_ms = asked_ms
    if timeout_ms and per_try_ms >= timeout_ms:
        per_try_ms = 0
    if not dropped.isdisjoint(said):
        headers[:] = [header for header in headers if header[0] not in dropped]
    route.timeout_s = timeout_ms / 1000 if timeout_ms else None
    expected_ms = timeout_ms if (policies is not None and policies.hedges) or not per_try_ms else per_try_ms
    route.timeout_header = (_EXPECTED, b"%d" % expected_ms) if expected_ms else None
    if is_old_grpc and expected_ms and policies is not None and policies.max_stream_duration is None:
        route.tells_grpc_timeout = True
    if _DURATION in said:
        duration_ms = integer(said[_DURATION])
        route.upstream_duration_s = None if duration_ms is None else duration_ms / 1000
    if _ALTERNATIVE in said:
        route.timeout_status = 204
    if route.retries is not None or per_try_ms or route.upstream_duration_s is not None or route.policies is not None:
        retries = copy.copy(route.retries) if route.retries is not None else Retries(_NOBODY, route.timeout_s)
        retries.per_try_timeout_s = per_try_ms / 1000 or None
        route.retries = retries
    return route


def tell_grpc_timeout(route: Route, headers: Headers, expected_ms: int) -> None:
    """The upstream is told its time in gRPC's own words."""
    if route.tells_grpc_timeout:
        set_header(headers, b"grpc-timeout", grpc_timeout(expected_ms))


def _grpc_limit(headers: Headers, most_s: float, offset_s: float) -> int:
    most_ms, offset_ms = milliseconds(most_s), milliseconds(offset_s)
    ms = grpc_timeout_ms(headers) or 0
    if offset_ms < ms:
        ms -= offset_ms
    return most_ms if most_ms and (not ms or ms > most_ms) else ms


class RetryDirections:
    """Reads the headers about retries, and remembers the policies that they made."""

    def __init__(self) -> None:
        self._made: dict[tuple[object, ...], Retries] = {}

    def heed(self, route: Route, stream: Stream) -> Route:
        """The route of this request, whose head is finished: what is said there of retries."""
        headers = stream.request_headers
        said: dict[bytes, bytes] = {}
        for name, value in headers:
            if name in RETRY_DIRECTIONS:
                said[name] = said[name] + b"," + value if name in said else value
        if not said:
            return route
        headers[:] = [header for header in headers if header[0] not in RETRY_DIRECTIONS]
        before = route.retries
        if _RETRY_ON not in said and _GRPC_ON not in said and (before is None or not before.retries):
            return route
        policy = before.policy if before is not None else _NOBODY
        per_try_s = before.per_try_timeout_s if before is not None else None
        key = (id(policy), per_try_s, route.timeout_s, *map(said.get, (_RETRY_ON, _GRPC_ON, _MAX, _CODES, _NAMES)))
        retries = self._made.get(key)
        if retries is None:
            if len(self._made) >= _KEPT:
                self._made.clear()
            retries = self._made[key] = _directed(policy, per_try_s, said, route.timeout_s)
        directed = copy.copy(route)
        directed.retries = retries
        return directed


def _directed(
    policy: RetryPolicy, per_try_s: float | None, said: dict[bytes, bytes], timeout_s: float | None
) -> Retries:
    conditions, _ = parse_retry_on(said.get(_RETRY_ON, b"").decode("latin-1"), grpc=False)
    grpc_conditions, _ = parse_retry_on(said.get(_GRPC_ON, b"").decode("latin-1"), grpc=True)
    codes = [integer(code) for code in said.get(_CODES, b"").split(b",")]
    names = [name.strip().lower().decode("latin-1") for name in said.get(_NAMES, b"").split(b",")]
    wanted = integer(said.get(_MAX))
    policy = replace(
        policy,
        retry_on=policy.retry_on | conditions | grpc_conditions,
        num_retries=policy.num_retries if wanted is None else wanted,
        retriable_status_codes=policy.retriable_status_codes + tuple(code for code in codes if code is not None),
        retriable_headers=policy.retriable_headers + tuple(HeaderMatcher(name, "present") for name in names if name),
    )
    retries = Retries(policy, timeout_s)
    retries.per_try_timeout_s = per_try_s
    return retries
