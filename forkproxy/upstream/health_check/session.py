"""The checks of one endpoint: when the next is due, and what the results so far add up to.

Rules, all Envoy's
- The very first result decides at once when it is good; after that ``healthy_threshold`` successes in a row are asked for.
- An answer that says "unhealthy" decides at once. What may be the network's fault (no connection, no answer in time) or is
  *retriable* counts up to ``unhealthy_threshold``.
- The next check is due an interval after the *result*. Which interval: ``_interval_s``.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final, Protocol

from forkproxy.upstream import health
from forkproxy.upstream.health_check import event_log as events

if TYPE_CHECKING:
    from forkproxy.upstream.endpoint import Endpoint
    from forkproxy.upstream.health_check.checker import HealthChecker

# Why a check failed: Envoy's HealthCheckFailureType.
ACTIVE: Final = "ACTIVE"
PASSIVE: Final = "PASSIVE"
NETWORK: Final = "NETWORK"
NETWORK_TIMEOUT: Final = "NETWORK_TIMEOUT"

CHECKED_FLAGS: Final = (
    health.FAILED_ACTIVE_HC
    | health.DEGRADED_ACTIVE_HC
    | health.PENDING_ACTIVE_HC
    | health.EXCLUDED_VIA_IMMEDIATE_HC_FAIL
    | health.ACTIVE_HC_TIMEOUT
)
"""The flags that active health checking owns; the others are nothing to a session."""

MIN_INTERVAL_S = 0.001

# What a result means for the endpoint's state.
_UNCHANGED: Final = 0
_PENDING: Final = 1
_CHANGED: Final = 2


class Probe(Protocol):
    """Checks one endpoint by one protocol. It tells the session ``on_success`` or ``on_failure``, once per check."""

    def check(self) -> None:
        """Begin a check. The one before has had its result, or was given up."""

    def give_up(self) -> None:
        """The time is over: forget the check under way."""

    def close(self) -> None:
        """The endpoint is no longer checked; nothing is told any more."""


class Session:
    """``flags``: what stands against the endpoint. ``is_known``: there was a result, here or in a process before this one.

    ``reports_success``: outlier detection has ejected the endpoint and wants to hear of a good check.
    """

    __slots__ = (
        *("_checker", "_interval_timer", "_probe", "_successes", "_failures", "_timeout_timer"),
        *("endpoint", "flags", "is_known", "reports_success"),
    )

    def __init__(self, checker: HealthChecker, endpoint: Endpoint, *, is_known: bool) -> None:
        self.endpoint = endpoint
        self.flags = endpoint.health_flags & CHECKED_FLAGS
        self.is_known = is_known
        self.reports_success = bool(endpoint.health_flags & health.FAILED_OUTLIER_CHECK)
        self._checker = checker
        self._successes = 0
        self._failures = 0
        loop = checker.loop
        self._interval_timer = loop.timer(self._begin)
        self._timeout_timer = loop.timer(self._on_timeout)
        self._probe = checker.make_probe(self)
        if not self.flags & health.FAILED_ACTIVE_HC:
            checker.stats.healthy += 1
        if self.flags & health.DEGRADED_ACTIVE_HC:
            checker.stats.degraded += 1

    def __repr__(self) -> str:
        return f"<Session {self.endpoint.address} {''.join(health.names(self.flags)) or 'healthy'}>"

    def start(self) -> None:
        """Check now, or within the initial jitter."""
        jitter_s = self._checker.config.initial_jitter_s
        if jitter_s:
            self._interval_timer.arm(self._checker.loop.now + self._with_jitter(0.0, jitter_s))
        else:
            self._begin()

    def stop(self) -> None:
        """The endpoint is gone from the cluster, or the process ends."""
        self._interval_timer.cancel()
        self._timeout_timer.cancel()
        self._probe.close()
        if not self.flags & health.FAILED_ACTIVE_HC:
            self._checker.stats.healthy -= 1
        if self.flags & health.DEGRADED_ACTIVE_HC:
            self._checker.stats.degraded -= 1

    def _begin(self) -> None:
        checker = self._checker
        checker.stats.attempt += 1
        checker.changed()
        # Before the check: a probe may have its result on the spot, which disarms it.
        self._timeout_timer.arm(checker.loop.now + checker.config.timeout_s)
        self._probe.check()

    def _on_timeout(self) -> None:
        self._probe.give_up()
        self.on_failure(NETWORK_TIMEOUT)

    # -- results

    def on_success(self, *, degraded: bool = False) -> None:
        """The endpoint is well; ``degraded``: it serves, but would rather not."""
        checker = self._checker
        log = checker.events
        before = self.flags
        self._failures = 0
        transition = _UNCHANGED
        if before & health.FAILED_ACTIVE_HC:
            self._successes += 1
            if not self.is_known or self._successes == checker.config.healthy_threshold:
                self.flags &= ~(
                    health.FAILED_ACTIVE_HC | health.ACTIVE_HC_TIMEOUT | health.EXCLUDED_VIA_IMMEDIATE_HC_FAIL
                )
                checker.stats.healthy += 1
                transition = _CHANGED
                log.add_healthy(self.endpoint, first_check=not self.is_known)
            else:
                transition = _PENDING
        if transition != _CHANGED and checker.config.always_log_success:
            log.successful(self.endpoint)
        transition = self._leave_pending(transition)
        if degraded != bool(self.flags & health.DEGRADED_ACTIVE_HC):
            self.flags ^= health.DEGRADED_ACTIVE_HC
            checker.stats.degraded += 1 if degraded else -1
            log.write_plain(self.endpoint, events.DEGRADED if degraded else events.NO_LONGER_DEGRADED)
            if transition == _UNCHANGED:
                transition = _CHANGED
        checker.stats.success += 1
        self._finish(before, transition, is_well=True)
        if self.reports_success and not self.flags & health.FAILED_ACTIVE_HC:
            checker.on_passed(self.endpoint)

    def on_failure(self, kind: str, *, retriable: bool = False, status: int = 0, excluded: bool = False) -> None:
        """The endpoint is not well. ``status``: what it answered. ``excluded``: it asks to be left out of every reckoning."""
        before = self.flags
        if excluded:
            self.flags |= health.EXCLUDED_VIA_IMMEDIATE_HC_FAIL
        self._finish(before, self._fail(kind, retriable, status), is_well=False)

    def fail_passively(self) -> None:
        """A response to a request said x-envoy-immediate-health-check-fail. The check that is due stays due."""
        before = self.flags
        self.flags |= health.EXCLUDED_VIA_IMMEDIATE_HC_FAIL
        self._fail(PASSIVE, False, 0)
        self._tell(before)

    def _fail(self, kind: str, retriable: bool, status: int) -> int:
        checker = self._checker
        is_network = kind in (NETWORK, NETWORK_TIMEOUT)
        self._successes = 0
        transition = _UNCHANGED
        if not self.flags & health.FAILED_ACTIVE_HC:
            at_once = not is_network and not retriable
            if not at_once:
                self._failures += 1
            if at_once or self._failures == checker.config.unhealthy_threshold:
                self.flags |= health.FAILED_ACTIVE_HC
                checker.stats.healthy -= 1
                transition = _CHANGED
                checker.events.eject(self.endpoint, kind, status)
            else:
                transition = _PENDING
        if kind == NETWORK_TIMEOUT and self.flags & health.FAILED_ACTIVE_HC:
            self.flags |= health.ACTIVE_HC_TIMEOUT
        else:
            self.flags &= ~health.ACTIVE_HC_TIMEOUT
        transition = self._leave_pending(transition)
        if not self.is_known or checker.config.always_log_failures:
            checker.events.failure(self.endpoint, kind, status, first_check=not self.is_known)
        checker.stats.failure += 1
        if is_network:
            checker.stats.network_failure += 1
        elif kind == PASSIVE:
            checker.stats.passive_failure += 1
        return transition

    def _leave_pending(self, transition: int) -> int:
        if self.flags & health.PENDING_ACTIVE_HC:
            self.flags &= ~health.PENDING_ACTIVE_HC
            return _CHANGED
        return transition

    def _finish(self, before: int, transition: int, *, is_well: bool) -> None:
        self._timeout_timer.disarm()
        self._interval_timer.arm(self._checker.loop.now + self._interval_s(transition, is_well=is_well))
        self._tell(before)

    def _tell(self, before: int) -> None:
        is_first = not self.is_known
        self.is_known = True
        self._checker.on_result(self, changed=self.flags != before, is_first=is_first)

    # -- intervals

    def _interval_s(self, transition: int, *, is_well: bool) -> float:
        # By the last result, not by what stands against the endpoint: they differ while a threshold is counted.
        config = self._checker.config
        is_pending = transition == _PENDING
        if not self._checker.has_traffic():
            if is_well and not is_pending:
                base_s = config.no_traffic_healthy_interval_s
            else:
                base_s = config.no_traffic_interval_s
        elif is_well:
            base_s = config.healthy_edge_interval_s if is_pending else config.interval_s
        else:
            base_s = config.unhealthy_edge_interval_s if is_pending else config.unhealthy_interval_s
        return self._with_jitter(base_s, config.interval_jitter_s)

    def _with_jitter(self, base_s: float, jitter_s: float) -> float:
        config = self._checker.config
        share_s = config.interval_jitter_percent * base_s / 100
        wanted_s = base_s + random.random() * share_s + random.random() * jitter_s
        return max(min(wanted_s, config.max_interval_s), config.min_interval_s, MIN_INTERVAL_S)
