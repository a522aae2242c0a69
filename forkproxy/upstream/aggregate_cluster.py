"""The aggregate cluster: other clusters' priorities, one cluster after the other (Envoy: "Aggregate cluster").

Its own endpoints it has none. A request goes to a priority by the health of all of them together, from there to the cluster that
the priority belongs to, whose policy chooses among the endpoints of that priority, and whose connections and limits are used.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from forkproxy.config.build.aggregate import AggregateConfig
from forkproxy.upstream.balancers import Balancer, PickContext
from forkproxy.upstream.cluster import Cluster
from forkproxy.upstream.endpoint import Endpoint
from forkproxy.upstream.levels import HEALTHY, Level, Loads, by_priority, reckon_loads
from forkproxy.upstream.load_balancer import LoadBalancer
from forkproxy.upstream.schedulers import Picker


class AggregateCluster(Cluster):
    """``clusters`` must be told with ``join`` before the first request; one that does not exist is passed over, as in Envoy."""

    __slots__ = ()

    def join(self, clusters: Mapping[str, Cluster]) -> None:
        """The clusters of the configuration: those that this one names are its parts.

        A part that is an aggregate itself has no endpoints and so gets nothing, as in Envoy.
        """
        config = self.config.dynamic
        assert isinstance(config, AggregateConfig)
        parts = [clusters[name] for name in config.clusters if name in clusters]
        balancer = AggregateLoadBalancer(self.balancer, parts)
        self.balancer = balancer
        for part in parts:
            part.balancer.followers.append(balancer)
        self.needs_hash = any(part.needs_hash for part in parts)
        self.needs_criteria = any(part.needs_criteria for part in parts)
        self.needs_context = any(part.needs_context for part in parts)
        balancer.recompile()


class AggregateLoadBalancer(LoadBalancer):
    """Takes the place of the one that the cluster was made with."""

    def __init__(self, before: LoadBalancer, parts: Sequence[Cluster]) -> None:
        super().__init__(before.config, before.stats, before.on_change)
        self._parts = parts

    def _make(self) -> Balancer:
        return AggregateBalancer(self._parts, self.config.panic_threshold)


class AggregateBalancer:
    """For one state of all the parts' endpoints."""

    def __init__(self, parts: Sequence[Cluster], panic_threshold: int) -> None:
        self._priorities: list[tuple[Cluster, int, int]] = []
        """(part, priority in it, how many it has) of every priority that has endpoints."""
        levels: list[Level] = []
        for part in parts:
            own = by_priority(part.endpoints)
            for priority, level in enumerate(own):
                if level.endpoints:
                    levels.append(level)
                    self._priorities.append((part, priority, len(own)))
        self._table: Sequence[tuple[int, int]] = ()
        if levels:
            self._table = reckon_loads(levels, panic_threshold=panic_threshold).table()
        self.pick: Picker = self._pick

    def _pick(self) -> Endpoint | None:
        return self.choose(PickContext())

    def choose(self, context: PickContext) -> Endpoint | None:
        """By the context's hash when it has one, as Envoy does, else by chance."""
        if not self._table:
            return None
        part_of_load = context.hash % 100 if context.hash is not None else int(random.random() * 100)
        index, availability = self._table[part_of_load]
        part, priority, count = self._priorities[index]
        if count == 1 and availability == HEALTHY and not part.needs_context and context.rejects is None:
            return part.pick()
        return part.choose(
            PickContext(
                context.hash, context.criteria, context.rejects, context.attempts, _only(priority, count, availability)
            )
        )


def _only(priority: int, count: int, availability: int) -> Callable[..., Loads]:
    """All load to one priority of a part, whatever its own reckoning says; its panic stays."""

    def adjust(_levels: Sequence[Level], loads: Loads) -> Loads:
        everything = [100 if each == priority else 0 for each in range(count)]
        nothing = [0] * count
        healthy, degraded = (everything, nothing) if availability == HEALTHY else (nothing, everything)
        return Loads(healthy, degraded, loads.panic)

    return adjust
