"""``config.cluster.v3.CircuitBreakers`` → CircuitBreakers."""

from __future__ import annotations

from dataclasses import field, replace

from forkproxy.config.build.context import BuildContext
from forkproxy.config.values import frozen
from forkproxy.config.view import View


@frozen
class RetryBudget:
    """``RetryBudget``: how many of the requests under way may be retries."""

    percent: float = 20.0
    min_concurrency: int = 3


@frozen
class Thresholds:
    """``CircuitBreakers.Thresholds`` of one priority, with Envoy's defaults (1024, 1024, 1024, 3).

    ``configured``: the names of those that the file sets. ``max_connection_pools`` and ``max_connections_per_host`` None: no
    limit.
    """

    max_connections: int = 1024
    max_pending_requests: int = 1024
    max_requests: int = 1024
    max_retries: int = 3
    max_connection_pools: int | None = None
    max_connections_per_host: int | None = None
    retry_budget: RetryBudget | None = None
    track_remaining: bool = False
    configured: frozenset[str] = frozenset()


@frozen
class CircuitBreakers:
    """Those of the priorities DEFAULT and HIGH."""

    default: Thresholds = field(default_factory=Thresholds)
    high: Thresholds = field(default_factory=Thresholds)


_LIMITS = ("max_connections", "max_pending_requests", "max_requests", "max_retries", "max_connection_pools")


def build_retry_budget(view: View) -> RetryBudget:
    """``CircuitBreakers.Thresholds.RetryBudget``."""
    percent = view.message("budget_percent")
    return RetryBudget(20.0 if percent is None else percent.float("value"), view.uint("min_retry_concurrency", 3))


def build_thresholds(view: View, context: BuildContext) -> tuple[str, Thresholds]:
    """``CircuitBreakers.Thresholds`` with its priority. A retry budget makes ``max_retries`` unimportant."""
    budget = view.message("retry_budget")
    return view.enum("priority"), Thresholds(
        max_connections=view.uint("max_connections", 1024),
        max_pending_requests=view.uint("max_pending_requests", 1024),
        max_requests=view.uint("max_requests", 1024),
        max_retries=view.uint("max_retries", 3),
        max_connection_pools=view.uint("max_connection_pools", None),
        retry_budget=build_retry_budget(budget) if budget is not None else None,
        track_remaining=view.bool("track_remaining"),
        configured=frozenset(name for name in _LIMITS if view.has(name)),
    )


def build_per_host(view: View, context: BuildContext) -> tuple[str, int | None]:
    """The only limit of a host that Envoy knows, with its priority; it refuses the others, and shows nothing of what is left."""
    view.ignore("track_remaining", why="Envoy shows nothing of it either")
    return view.enum("priority"), view.uint("max_connections", None)


def build_circuit_breakers(view: View | None, context: BuildContext) -> CircuitBreakers:
    """``CircuitBreakers``. Of several entries for one priority the first counts, as in Envoy."""
    found: dict[str, Thresholds] = {}
    per_host: dict[str, int | None] = {}
    if view is not None:
        for priority, thresholds in context.each(view.repeated("thresholds"), build_thresholds):
            found.setdefault(priority, thresholds)
        for priority, maximum in context.each(view.repeated("per_host_thresholds"), build_per_host):
            per_host.setdefault(priority, maximum)
    default, high = (
        replace(found.get(priority, Thresholds()), max_connections_per_host=per_host.get(priority))
        for priority in ("DEFAULT", "HIGH")
    )
    return CircuitBreakers(default, high)
