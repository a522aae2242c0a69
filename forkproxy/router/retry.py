"""Whether and when an attempt is followed by another one (Envoy: "Automatic retries", config.route.v3.RetryPolicy).

``Retries`` is a policy compiled once per route; ``RetryState`` is what one request has left of it. Neither knows sockets
or timers: the router tells what happened, and is told the seconds to wait or why there is no further attempt.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from forkproxy.config.build.retry import RetryPolicy
from forkproxy.http.headers import Headers
from forkproxy.http.headers import get as get_header
from forkproxy.router.matcher import StreamTest, compile_header_matcher
from forkproxy.stats.groups import RequestsStats

CONNECTION_FAILURES: Final = frozenset(("remote connection failure", "local connection failure", "connection timeout"))
OVERFLOW: Final = "overflow"
LOCAL_RESET: Final = "local reset"
"""The router itself gave an attempt up: its own timeout had passed."""

_GRPC: Final = {
    b"1": "cancelled",
    b"4": "deadline-exceeded",
    b"8": "resource-exhausted",
    b"13": "internal",
    b"14": "unavailable",
}

NO: Final = 0
LIMIT_EXCEEDED: Final = 1
TOO_MANY: Final = 2
YES: Final = 3


class _Response:
    """A response's headers, as the compiled header matchers read them."""

    __slots__ = ("request_headers",)

    method = path = authority = scheme = b""

    def __init__(self, headers: Headers) -> None:
        self.request_headers = headers


def milliseconds(seconds: float | None) -> int:
    """Whole ones, as Envoy counts: 1.001 s are 1001, whatever a float makes of it. None is 0."""
    return int(seconds * 1000 + 1e-6) if seconds else 0


class Retries:
    """A compiled RetryPolicy. ``retries`` is False when only its timeouts count."""

    __slots__ = (
        *(
            "back_off_ms",
            "host_attempts",
            "max_back_off_ms",
            "num_retries",
            "omit_canaries",
            "omit_metadata",
            "per_try_idle_timeout_s",
            "per_try_timeout_s",
            "policy",
        ),
        *(
            "previous_hosts",
            "previous_priorities",
            "reset_headers",
            "reset_max_ms",
            "retries",
            "retry_on",
            "_request_tests",
            "_response_tests",
        ),
        *("_codes", "_grpc"),
    )

    def __init__(self, policy: RetryPolicy, timeout_s: float | None) -> None:
        """``timeout_s``: the route's; an attempt's own counts only when it is shorter."""
        self.policy = policy
        self.retry_on = policy.retry_on
        self.retries = bool(policy.retry_on)
        self.num_retries = policy.num_retries
        per_try_s = policy.per_try_timeout_s
        self.per_try_timeout_s = None if per_try_s and timeout_s and per_try_s >= timeout_s else per_try_s
        self.per_try_idle_timeout_s = policy.per_try_idle_timeout_s
        self.back_off_ms = policy.base_interval_ms
        self.max_back_off_ms = policy.max_interval_ms
        self.reset_headers = tuple((name.encode(), kind) for name, kind in policy.reset_headers)
        self.reset_max_ms = policy.reset_max_interval_ms
        self.previous_hosts = policy.avoid_previous_hosts
        self.previous_priorities = policy.previous_priorities
        self.omit_canaries = policy.omit_canaries
        self.omit_metadata = policy.omit_metadata
        self.host_attempts = policy.host_selection_max_attempts
        where = policy.where
        self._request_tests = [compile_header_matcher(each, where) for each in policy.retriable_request_headers]
        headers = policy.retriable_headers if "retriable-headers" in policy.retry_on else ()
        self._response_tests: list[StreamTest] = [compile_header_matcher(each, where) for each in headers]
        codes: set[int] = set()
        if "retriable-status-codes" in policy.retry_on:
            codes.update(policy.retriable_status_codes)
        if "5xx" in policy.retry_on:
            codes.update(range(500, 600))
        if "gateway-error" in policy.retry_on:
            codes.update((502, 503, 504))
        if "retriable-4xx" in policy.retry_on:
            codes.add(409)
        self._codes = frozenset(codes)
        self._grpc = frozenset(code for code, name in _GRPC.items() if name in policy.retry_on)

    def __repr__(self) -> str:
        return f"<Retries {self.num_retries} on {','.join(sorted(self.retry_on))}>"

    def wants(self, stream: Any) -> bool:
        """Whether this request may be retried at all (``retriable_request_headers``)."""
        if not self.retries:
            return False
        tests = self._request_tests
        return not tests or any(test(stream) for test in tests)

    def after_headers(self, status: int, headers: Headers) -> bool:
        """Whether a response with this head asks for another attempt."""
        if get_header(headers, b"x-envoy-ratelimited") is not None:
            return "envoy-ratelimited" in self.retry_on
        if status in self._codes:
            return True
        if self._response_tests:
            response: Any = _Response([(b":status", b"%d" % status), *headers])
            if any(test(response) for test in self._response_tests):
                return True
        return bool(self._grpc) and get_header(headers, b"grpc-status") in self._grpc

    def after_reset(self, reason: str, request_started: bool) -> bool:
        """Whether an attempt that ended without a response asks for another; ``request_started``: a head has been sent."""
        if reason == OVERFLOW:
            return False
        conditions = self.retry_on
        if "reset" in conditions or "5xx" in conditions or "gateway-error" in conditions:
            return True
        if "reset-before-request" in conditions and not request_started:
            return True
        return "connect-failure" in conditions and reason in CONNECTION_FAILURES

    def asked_interval_ms(self, headers: Headers, wall: float) -> int:
        """How long the response asks to wait (``rate_limited_retry_back_off``); 0 when it does not say."""
        for name, kind in self.reset_headers:
            value = get_header(headers, name)
            if value is None or not value.strip().isdigit():
                continue
            number = int(value)
            if kind == "UNIX_TIMESTAMP":
                number -= int(wall)
            if 0 < number * 1000 <= self.reset_max_ms:
                return number * 1000
        return 0


def compile_retries(policy: RetryPolicy | None, timeout_s: float | None, *, always: bool = False) -> Retries | None:
    """None when the policy, or its absence, changes nothing, unless there is ``always`` to be one."""
    if policy is None:
        return Retries(RetryPolicy(), timeout_s) if always else None
    compiled = Retries(policy, timeout_s)
    if not (always or compiled.retries or compiled.per_try_timeout_s or compiled.per_try_idle_timeout_s):
        return None
    return compiled


class RetryState:
    """What is left of a policy for one request. ``breakers`` count the retries under way and say when there are too many."""

    __slots__ = (
        "_asked",
        "_asked_ms",
        "_breakers",
        "_cluster",
        "_interval_ms",
        "_left",
        "_pending",
        "_policy",
        "_random",
        "groups",
        "request_started",
    )

    def __init__(self, policy: Retries, cluster: Any, breakers: Any, draw: Callable[[], float] = random.random) -> None:
        self._policy = policy
        self._cluster = cluster
        self._breakers = breakers
        self._left = policy.num_retries
        self._interval_ms = policy.back_off_ms
        self._asked = False
        self._asked_ms = 0
        self._pending = False
        self._random = draw
        self.groups: tuple[RequestsStats, ...] = ()
        """Where retries count besides the cluster."""
        self.request_started = False
        """A head has been sent to some endpoint."""

    def after_headers(self, status: int, headers: Headers, wall: float) -> int:
        """NO, LIMIT_EXCEEDED, TOO_MANY or YES after a response's head; ``wall``: seconds since the epoch."""
        wanted = self._policy.after_headers(status, headers)
        if wanted and self._policy.reset_headers:
            self._asked_ms = self._policy.asked_interval_ms(headers, wall)
        return self._decide(wanted)

    def after_reset(self, reason: str) -> int:
        """The same after an attempt that ended without one."""
        return self._decide(self._policy.after_reset(reason, self.request_started))

    def after_soft_timeout(self) -> int:
        """The same after the time of an attempt that goes on all the same, whatever the conditions are (hedging)."""
        if not self._left:
            # The retry that is under way stays one, and may succeed.
            self._cluster.stats.upstream_rq_retry_limit_exceeded += 1
            return LIMIT_EXCEEDED
        return self._decide(True)

    def would_retry(self, status: int, headers: Headers) -> bool:
        """Whether this answer asks for another attempt, if there could be one."""
        return self._policy.after_headers(status, headers)

    def _decide(self, wanted: bool) -> int:
        stats = self._cluster.stats
        if self._pending and not wanted:
            stats.upstream_rq_retry_success += 1
            for group in self.groups:
                group.upstream_rq_retry_success += 1
        self.release()
        if not wanted:
            return NO
        if not self._left:
            stats.upstream_rq_retry_limit_exceeded += 1
            for group in self.groups:
                group.upstream_rq_retry_limit_exceeded += 1
            return LIMIT_EXCEEDED
        self._left -= 1
        if self._breakers.retries_full():
            stats.upstream_rq_retry_overflow += 1
            for group in self.groups:
                group.upstream_rq_retry_overflow += 1
            return TOO_MANY
        self._pending = True
        self._breakers.retries.add()
        return YES

    def back_off_s(self) -> float:
        """How long to wait before the attempt that was decided on: any time up to the interval, which doubles."""
        self._asked = bool(self._asked_ms)
        if self._asked:
            asked, self._asked_ms = self._asked_ms, 0
            return (asked + int(self._random() * (asked // 2))) / 1000
        interval = self._interval_ms
        self._interval_ms = min(interval * 2, self._policy.max_back_off_ms)
        return int(self._random() * interval) / 1000

    def begin(self) -> None:
        """The back-off is over. Envoy counts a retry only now."""
        stats = self._cluster.stats
        stats.upstream_rq_retry += 1
        for group in self.groups:
            group.upstream_rq_retry += 1
        if self._asked:
            stats.upstream_rq_retry_backoff_ratelimited += 1
        else:
            stats.upstream_rq_retry_backoff_exponential += 1

    def release(self) -> None:
        """The retry that was under way is one no more."""
        if self._pending:
            self._pending = False
            self._breakers.retries.remove()
