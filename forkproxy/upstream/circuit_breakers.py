"""Circuit breakers: how much a cluster may have under way, over all workers together (Envoy: "Circuit breaking").

A ``Limit`` counts one thing (connections, waiting requests, requests, retries) in this process. The workers of a program know of
each other's counts through shared cells (stats/shared.py), in one of two ways:

- **exact**, what the file configures: every change is written to this worker's cell at once, and whoever asks sums all cells.
  Two workers that ask in the same moment may both be let in: at most one too many for each further worker.
- otherwise, for Envoy's default limits: each worker may have its even share without asking anybody. Beyond that it asks, and
  writes; below, its count is written once a second. At worst this lets in less than twice the limit, and refuses for a
  second longer than it should.

A worker that is alone counts by itself. The cells of a worker that died are zeroed by the supervisor. While an upgrade hands
over, the old and the new program count apart.

As in Envoy, a pool that has no connection gets one whatever ``max_connections`` says, lest its requests wait for ever: so there
may be one more for each worker and endpoint.
"""

from __future__ import annotations

from collections.abc import Sequence

from forkproxy.config.build.circuit_breakers import CircuitBreakers, Thresholds
from forkproxy.config.build.cluster import ClusterConfig
from forkproxy.config.values import frozen
from forkproxy.stats.counters import Registry
from forkproxy.stats.group import SharedGaugeValue
from forkproxy.stats.groups import CircuitBreakerRemainingStats, ClusterStats, EndpointStats
from forkproxy.stats.shared import SharedBlock, SharedNumber

OUT_OF_REACH = 1_000_000
"""A limit above this (files set 2^31 and the like for "none") is not worth counting exactly: no host comes there."""
NUMBERS = 5
"""Shared numbers of one priority: connections, pending, requests, retries, pools."""


@frozen
class BreakerCells:
    """What the limits of one cluster share with other processes; all empty: nothing, and this process counts for itself.

    ``hosts``: for each place of endpoint figures the number of connections to the address that has it. ``remaining``: the
    gauges of the priorities DEFAULT and HIGH that show what is left, where the file asks for them.
    """

    numbers: SharedBlock | None = None
    hosts: Sequence[SharedNumber] = ()
    remaining: tuple[CircuitBreakerRemainingStats | None, ...] = (None, None)
    remaining_pools: tuple[SharedGaugeValue | None, ...] = (None, None)


def breaker_cells(registry: Registry, config: ClusterConfig, endpoint_names: Sequence[str]) -> BreakerCells:
    """In the supervisor: lay out what the workers share of one cluster's limits.

    Clusters may share the name of their statistics, but not these numbers: they go by the cluster's own name.
    """
    limits = config.circuit_breakers
    prefix = f"cluster.{config.stat_name}"
    hosts: Sequence[SharedNumber] = ()
    if is_limited_per_host(limits):
        hosts = [registry.shared.number("connections", f"{config.name}\n{name}") for name in endpoint_names]
    remaining: list[CircuitBreakerRemainingStats | None] = []
    pools: list[SharedGaugeValue | None] = []
    for name, thresholds in (("default", limits.default), ("high", limits.high)):
        place = f"{prefix}.circuit_breakers.{name}"
        tracked = thresholds.track_remaining
        limits_pools = tracked and thresholds.max_connection_pools is not None
        remaining.append(registry.group(CircuitBreakerRemainingStats, place) if tracked else None)
        pools.append(registry.group(SharedGaugeValue, f"{place}.remaining_cx_pools") if limits_pools else None)
    return BreakerCells(
        registry.shared.block("breakers", config.name, 2 * NUMBERS), hosts, tuple(remaining), tuple(pools)
    )


def is_limited_per_host(limits: CircuitBreakers) -> bool:
    """Whether there is a limit of connections to one address."""
    return any(each.max_connections_per_host is not None for each in (limits.default, limits.high))


def host_limits(
    limits: CircuitBreakers, cells: BreakerCells, figures: Sequence[EndpointStats]
) -> dict[EndpointStats, Limit] | None:
    """By an endpoint's figures: its connections; None when nobody limits them. How many there may be depends on the priority."""
    if not is_limited_per_host(limits):
        return None
    hosts: Sequence[SharedNumber | None] = cells.hosts or [None] * len(figures)
    return {each: Limit(0, number, exact=True) for each, number in zip(figures, hosts, strict=True)}


class Limit:
    """At most ``maximum`` of something. ``count`` is what this process has of it; others are asked only when need be."""

    __slots__ = ("_free_below", "_number", "_told", "count", "is_exact", "maximum")

    def __init__(self, maximum: int, number: SharedNumber | None = None, *, exact: bool = False) -> None:
        self.maximum = maximum
        self.count = 0
        self.is_exact = exact and number is not None and maximum <= OUT_OF_REACH
        self._number = number
        self._told = 0
        self._free_below = 0

    def __repr__(self) -> str:
        return f"<Limit {self.count} of {self.maximum}>"

    @property
    def free_below(self) -> int:
        """While ``count`` is less than this, nobody need be asked."""
        return self._free_below

    def is_full(self) -> bool:
        """No more of it."""
        count = self.count
        if count < self._free_below:
            return False
        number = self._number
        if number is None or number.is_alone:
            return count >= self.maximum
        return self.total() >= self.maximum

    def total(self) -> int:
        """How much of it all processes have: exact, or as of the last second."""
        number = self._number
        if number is None or number.is_alone:
            return self.count
        if self._told != self.count:
            self.tell()
        return number.total()

    def add(self) -> None:
        """One more. Whoever calls has asked ``is_full``, or goes ahead all the same."""
        self.count = count = self.count + 1
        if self.is_exact:
            self._told = count
            self._number.set(count)  # type: ignore[union-attr]

    def remove(self) -> None:
        """One less."""
        self.count = count = self.count - 1
        if self.is_exact:
            self._told = count
            self._number.set(count)  # type: ignore[union-attr]

    def tell(self) -> None:
        """Write this process's count for the others."""
        if self._number is not None and self._told != self.count:
            self._told = self.count
            self._number.set(self.count)

    def share_out(self) -> None:
        """Tell the count, and find out anew what this worker may have without asking."""
        self.tell()
        number = self._number
        if self.is_exact:
            self._free_below = 0
        else:
            self._free_below = self.maximum // (number.processes if number is not None else 1)


class Breakers:
    """What one priority of a cluster may have under way. ``high``: the priority HIGH.

    ``requests`` is counted by those pools that look after it (``counts_requests``); for the others the cluster's own figure
    is brought here when it has reached ``request_trip``.
    """

    __slots__ = (
        *("_names", "budget", "connections", "counts_requests", "is_high", "max_per_host", "pending", "pools"),
        *("remaining", "remaining_pools", "request_trip", "requests", "retries"),
    )

    def __init__(
        self,
        thresholds: Thresholds,
        cells: BreakerCells,
        *,
        high: bool = False,
    ) -> None:
        self.is_high = high
        self.budget = budget = thresholds.retry_budget
        configured = thresholds.configured
        first = NUMBERS if high else 0
        block = cells.numbers
        numbers = [block.number(first + index) if block is not None else None for index in range(NUMBERS)]
        exact_requests = "max_requests" in configured or budget is not None
        self.connections = Limit(thresholds.max_connections, numbers[0], exact="max_connections" in configured)
        self.pending = Limit(
            thresholds.max_pending_requests,
            numbers[1],
            exact="max_pending_requests" in configured or budget is not None,
        )
        self.requests = Limit(thresholds.max_requests, numbers[2], exact=exact_requests)
        self.retries = Limit(
            thresholds.max_retries, numbers[3], exact="max_retries" in configured or budget is not None
        )
        self.pools: Limit | None = None
        if thresholds.max_connection_pools is not None:
            self.pools = Limit(thresholds.max_connection_pools, numbers[4], exact=True)
        self.max_per_host = thresholds.max_connections_per_host
        self.counts_requests = high or (exact_requests and thresholds.max_requests <= OUT_OF_REACH)
        self.remaining = cells.remaining[high]
        self.remaining_pools = cells.remaining_pools[high]
        self.request_trip = 0
        prefix = f"circuit_breakers__{'high' if high else 'default'}__"
        self._names = tuple(prefix + name for name in ("cx_open", "rq_pending_open", "rq_open", "rq_retry_open"))
        self.share_out()

    def __repr__(self) -> str:
        return f"<Breakers {'HIGH' if self.is_high else 'DEFAULT'} {self.connections} {self.requests}>"

    def share_out(self) -> None:
        """Bring the limits up to date with how many workers there are, and the others with this one's counts."""
        for limit in (self.connections, self.pending, self.requests, self.retries):
            limit.share_out()
        self.request_trip = self.requests.free_below

    def requests_full(self, active: int) -> bool:
        """No more requests; ``active``: how many of this priority there are in this process."""
        self.requests.count = active
        return self.requests.is_full()

    def retries_full(self) -> bool:
        """No more retries: as many as ``max_retries``, or as the retry budget allows."""
        budget = self.budget
        if budget is None:
            return self.retries.is_full()
        under_way = self.requests.total() + self.pending.total()
        return self.retries.total() >= max(int(budget.percent / 100.0 * under_way), budget.min_concurrency)

    def show(self, stats: ClusterStats) -> None:
        """Set the gauges."""
        limits = (self.connections, self.pending, self.requests, self.retries)
        totals = [limit.total() for limit in limits]
        for name, limit, total in zip(self._names, limits, totals, strict=True):
            # As in Envoy, where a limit of 0 is never seen to be reached.
            setattr(stats, name, int(total >= limit.maximum > 0))
        pools = self.pools
        if pools is not None:
            setattr(stats, self._names[0].replace("cx_open", "cx_pool_open"), int(pools.total() >= pools.maximum > 0))
        remaining = self.remaining
        if remaining is not None:
            left = [max(limit.maximum - total, 0) for limit, total in zip(limits, totals, strict=True)]
            remaining.remaining_cx, remaining.remaining_pending, remaining.remaining_rq, remaining.remaining_retries = (
                left
            )
            if self.budget is not None:
                remaining.remaining_retries = 0
        if pools is not None and self.remaining_pools is not None:
            self.remaining_pools.value = max(pools.maximum - pools.total(), 0)
