"""Requests under way over all workers, for the policies that go by them: LEAST_REQUEST and ``hash_balance_factor``.

In Envoy ``rq_active`` of a host is one number for all threads. Here each worker has its own, so of a cluster with such a
policy the figures write it to a shared cell (stats/shared.py) as well, at every change, and ``rq_active_of_all`` is the sum of
all workers' cells at the moment of the pick. A ``full_scan`` of many endpoints sums those of the others once in ``SCAN_AGE_S``
instead. Two workers that pick in the same moment do not see each other's request, as two threads of Envoy do not.

What other clusters count on is plain: they pay nothing. A worker that is alone reads its own number. The cells of a worker that
died are zeroed by the supervisor; those of the workers before a reload count until these are gone; while an upgrade hands over,
the old and the new program count apart. Cells have the names of the figures, so that an endpoint found by DNS or EDS has the
cell of its slot (StatSlots).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from forkproxy.config.build.cluster import ClusterConfig
from forkproxy.net.loop import Loop
from forkproxy.stats.counters import Registry
from forkproxy.stats.groups import ClusterStats, EndpointStats
from forkproxy.stats.shared import SharedNumber
from forkproxy.upstream.endpoint import Endpoint

SCAN_AGE_S = 0.002
"""How old what a ``full_scan`` knows of the other workers may be, in seconds."""


class SharedEndpointStats(EndpointStats):
    """Whose ``rq_active`` other workers see."""

    __slots__ = ("_active", "_number")

    def __init__(self, number: SharedNumber) -> None:
        self._number = number
        self._active = 0
        super().__init__()

    @property
    def rq_active(self) -> int:
        """Of this worker."""
        return self._active

    @rq_active.setter
    def rq_active(self, value: int) -> None:
        # Without a change nothing is written: the supervisor, which makes the figures, has no cell of its own.
        if value != self._active:
            self._active = value
            self._number.set(value)

    @property
    def rq_active_of_all(self) -> int:
        """Of all workers, now."""
        number = self._number
        return self._active if number.is_alone else number.total()


class SharedClusterStats(ClusterStats):
    """Whose ``upstream_rq_active`` other workers see."""

    __slots__ = ("_active", "_number")

    def __init__(self, number: SharedNumber) -> None:
        self._number = number
        self._active = 0
        super().__init__()

    @property
    def upstream_rq_active(self) -> int:
        """Of this worker."""
        return self._active

    @upstream_rq_active.setter
    def upstream_rq_active(self, value: int) -> None:
        if value != self._active:
            self._active = value
            self._number.set(value)

    @property
    def upstream_rq_active_of_all(self) -> int:
        """Of all workers, now."""
        number = self._number
        return self._active if number.is_alone else number.total()


class CountingTogether:
    """Which of the clusters have a policy that goes by requests, by the name of their statistics: some have one name."""

    def __init__(self, clusters: Sequence[ClusterConfig]) -> None:
        bounded = {each.stat_name for each in clusters if each.load_balancing.hash_balance_factor}
        self._bounded = bounded
        self._any = bounded | {each.stat_name for each in clusters if each.load_balancing.policy == "LEAST_REQUEST"}

    def cluster_stats(self, registry: Registry, stat_name: str) -> ClusterStats:
        """In the supervisor: the figures of a cluster."""
        prefix = f"cluster.{stat_name}"
        if stat_name not in self._bounded:
            return registry.group(ClusterStats, prefix)
        number = registry.shared.number("upstream_rq_active", prefix)
        return registry.group(ClusterStats, prefix, make=partial(SharedClusterStats, number))

    def endpoint_stats(self, registry: Registry, stat_name: str, names: Sequence[str]) -> list[EndpointStats]:
        """In the supervisor: the figures of its endpoints, or of the slots for them."""
        prefixes = [f"cluster.{stat_name}.endpoint.{name}" for name in names]
        if stat_name not in self._any:
            return [registry.group(EndpointStats, prefix) for prefix in prefixes]
        shared = registry.shared
        return [
            registry.group(EndpointStats, prefix, make=partial(SharedEndpointStats, shared.number("rq_active", prefix)))
            for prefix in prefixes
        ]


class Scan:
    """The requests under way at many endpoints, where asking all workers about each at every pick would be too dear."""

    __slots__ = ("_elsewhere", "_endpoints", "_loop", "_until")

    def __init__(self, endpoints: Sequence[Endpoint], loop: Loop | None) -> None:
        self._endpoints = endpoints
        self._loop = loop
        self._elsewhere: list[int] | None = None
        self._until = 0.0

    def __call__(self) -> list[int]:
        """Of each endpoint: this worker's now, and those of the others as of ``SCAN_AGE_S`` ago at most."""
        endpoints = self._endpoints
        now = self._loop.now if self._loop is not None else self._until
        if now >= self._until:
            self._until = now + SCAN_AGE_S if self._loop is not None else now
            figures = [endpoint.stats for endpoint in endpoints]
            elsewhere = [each.rq_active_of_all - each.rq_active for each in figures]
            self._elsewhere = elsewhere if any(elsewhere) else None
        if self._elsewhere is None:
            return [endpoint.stats.rq_active for endpoint in endpoints]
        return [endpoint.stats.rq_active + more for endpoint, more in zip(endpoints, self._elsewhere, strict=True)]
