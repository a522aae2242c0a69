"""Thresholds of both priorities."""

from __future__ import annotations

import pytest

from forkproxy.config.build.circuit_breakers import CircuitBreakers, RetryBudget, Thresholds, build_circuit_breakers
from tests.unit.config.build.building import value_of


def made(text):
    return value_of(build_circuit_breakers, "envoy.config.cluster.v3.CircuitBreakers", text)


def configured(*names):
    return frozenset(f"max_{name}" for name in names)


def test_nothing():
    assert made("{}") == CircuitBreakers()
    assert Thresholds() == Thresholds(1024, 1024, 1024, 3, None, None, None, False, frozenset())


@pytest.mark.parametrize(
    ("text", "thresholds"),
    [
        ("max_connections: 1", Thresholds(max_connections=1, configured=configured("connections"))),
        ("max_connections: 0", Thresholds(max_connections=0, configured=configured("connections"))),
        ("max_pending_requests: 2", Thresholds(max_pending_requests=2, configured=configured("pending_requests"))),
        ("max_requests: 3", Thresholds(max_requests=3, configured=configured("requests"))),
        ("max_retries: 4", Thresholds(max_retries=4, configured=configured("retries"))),
        ("max_connection_pools: 5", Thresholds(max_connection_pools=5, configured=configured("connection_pools"))),
        ("track_remaining: true", Thresholds(track_remaining=True)),
        ("retry_budget: {}", Thresholds(retry_budget=RetryBudget(20.0, 3))),
        ("retry_budget: {budget_percent: {}}", Thresholds(retry_budget=RetryBudget(0.0, 3))),
        (
            "retry_budget: {budget_percent: {value: 12.5}, min_retry_concurrency: 0}",
            Thresholds(retry_budget=RetryBudget(12.5, 0)),
        ),
    ],
)
def test_thresholds(text, thresholds):
    assert made(f"{{thresholds: [{{{text}}}]}}") == CircuitBreakers(thresholds)
    assert made(f"{{thresholds: [{{priority: HIGH, {text}}}]}}") == CircuitBreakers(Thresholds(), thresholds)


def test_the_first_of_a_priority_counts():
    found = made("{thresholds: [{max_requests: 1}, {priority: HIGH, max_requests: 2}, {max_requests: 3}]}")
    assert (found.default.max_requests, found.high.max_requests) == (1, 2)


def test_per_host():
    found = made(
        "{per_host_thresholds: [{max_connections: 1, track_remaining: true}, {priority: HIGH, max_connections: 2}]}"
    )
    assert (found.default.max_connections_per_host, found.high.max_connections_per_host) == (1, 2)
    assert found.default.max_connections == 1024
    assert made("{per_host_thresholds: [{}]}") == CircuitBreakers()
