"""Which priority, which locality, which endpoint: what a cluster's policy makes of its endpoints.

A balancer is made for one state of the endpoints and thrown away with it. ``pick()`` is what a request calls that brings
nothing with it; ``choose(context)`` takes a hash, metadata criteria, endpoints to avoid or other priorities into account.
(Envoy: "Priority levels", "Panic threshold", "Locality weighted load balancing", "Zone aware routing".)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from forkproxy.config.build.load_balancing import LoadBalancingConfig
from forkproxy.net.loop import Loop
from forkproxy.stats.groups import ClusterStats
from forkproxy.upstream.consistent_hashing import (
    Choose,
    Shares,
    TableCache,
    bounded,
    maglev,
    normalised_shares,
    ring,
)
from forkproxy.upstream.endpoint import Endpoint
from forkproxy.upstream.hashing import FUNCTIONS
from forkproxy.upstream.levels import (
    Level,
    Loads,
    LocalityName,
    by_priority,
    effective_weight,
    reckon_loads,
    spread,
)
from forkproxy.upstream.schedulers import Picker, earliest_deadline, pick_none, scheduler
from forkproxy.upstream.zone_aware import ZoneRouting

Criteria = tuple[tuple[str, object], ...]
"""Sorted (key, value) pairs that an endpoint's metadata must hold, to choose a subset."""
AdjustLoads = Callable[[Sequence[Level], Loads], Loads]
"""The loads that a retry wants."""


class PickContext:
    """What one pick brings with it.

    ``rejects``: endpoints to avoid, for at most ``attempts`` further tries. ``source``: the stream or TCP session that asks, for
    clusters that know their endpoints only then (CLUSTER_PROVIDED).
    """

    __slots__ = ("adjust_loads", "attempts", "criteria", "hash", "rejects", "source")

    def __init__(
        self,
        hash_: int | None = None,
        criteria: Criteria = (),
        rejects: Callable[[Endpoint], bool] | None = None,
        attempts: int = 0,
        adjust_loads: AdjustLoads | None = None,
        source: object = None,
    ) -> None:
        self.hash = hash_
        self.criteria = criteria
        self.rejects = rejects
        self.attempts = attempts
        self.adjust_loads = adjust_loads
        self.source = source

    def narrowed(self, criteria: Criteria) -> PickContext:
        """The same with other criteria."""
        return PickContext(self.hash, criteria, self.rejects, self.attempts, self.adjust_loads, self.source)


class Balancer(Protocol):
    """``pick`` and ``choose``: see the module's text; both return None when there is nobody to choose."""

    pick: Picker

    def choose(self, context: PickContext) -> Endpoint | None: ...


class Surroundings(Protocol):
    """What a balancer needs to know of its cluster besides the endpoints."""

    config: LoadBalancingConfig
    stats: ClusterStats
    loop: Loop | None
    node_locality: LocalityName | None

    @property
    def recompile(self) -> Callable[[], None]:
        """Throws the balancers away."""

    @property
    def local_levels(self) -> Callable[[], list[Level] | None]:
        """The endpoints of ``cluster_manager.local_cluster_name``, None when there is none."""

    @property
    def tables(self) -> TableCache:
        """The rings or tables that it had."""

    @property
    def set_hash_figure(self) -> Callable[[str, int], None]:
        """Takes the figures of a ring or table."""

    def within(self, config: LoadBalancingConfig) -> Surroundings:
        """The same with another configuration."""


class EndpointBalancer:
    """ROUND_ROBIN, LEAST_REQUEST and RANDOM: a scheduler for each priority, availability and locality that gets load."""

    def __init__(self, levels: Sequence[Level], cluster: Surroundings) -> None:
        self._cluster = cluster
        self._levels = levels
        config = cluster.config
        self._loads = loads = reckon_loads(
            levels,
            panic_threshold=config.panic_threshold,
        )
        local = cluster.local_levels()
        self._zones: ZoneRouting | None = None
        if local is not None and not config.locality_weighted:
            self._zones = ZoneRouting(config.zone_aware, config.panic_threshold, levels[0], local[0], cluster.stats)
        self._sources: dict[tuple[int, int], Picker] = {}
        self.pick = self._compile(loads.table())

    def choose(self, context: PickContext) -> Endpoint | None:
        """As ``pick``, but for the endpoints and priorities that the context wants to avoid."""
        pick = self.pick
        if context.adjust_loads is not None:
            loads = context.adjust_loads(self._levels, self._loads)
            if loads is not self._loads:
                pick = self._compile(spread(loads.healthy, loads.degraded))
        endpoint = pick()
        rejects = context.rejects
        if rejects is None:
            return endpoint
        for _ in range(context.attempts):
            if endpoint is None or not rejects(endpoint):
                break
            endpoint = pick()
        return endpoint

    def _compile(self, table: Sequence[tuple[int, int]]) -> Picker:
        if len(set(table)) == 1:
            return self._source(*table[0])
        parts = [self._source(priority, availability) for priority, availability in table]
        draw = random.random

        def pick() -> Endpoint | None:
            return parts[int(draw() * 100)]()

        return pick

    def _source(self, priority: int, availability: int) -> Picker:
        found = self._sources.get((priority, availability))
        if found is None:
            found = self._sources[priority, availability] = self._make_source(priority, availability)
        return found

    def _make_source(self, priority: int, availability: int) -> Picker:
        cluster = self._cluster
        config = cluster.config
        level = self._levels[priority]
        if self._loads.panic[priority]:
            everyone = pick_none if config.zone_aware.fail_traffic_on_panic else self._schedule(level.endpoints)
            return _counting_panic(everyone, cluster.stats)
        if config.locality_weighted:
            pick = self._by_locality(level, availability)
            if pick is not None:
                return pick
        whole = self._schedule(level.available(availability))
        if priority == 0 and self._zones is not None and self._zones.is_routing:
            localities = [self._schedule(locality.available(availability)) for locality in level.localities]
            return self._zones.picker(localities, whole)
        return whole

    def _by_locality(self, level: Level, availability: int) -> Picker | None:
        factor = level.overprovisioning_factor
        if not level.available(availability):
            return None
        weighted = [
            (effective_weight(locality, availability, factor), self._schedule(locality.available(availability)))
            for locality in level.localities
        ]
        turns = [entry for entry in weighted if entry[0] > 0]
        if not turns:
            return None
        if len(turns) == 1:
            return turns[0][1]
        whose_turn = earliest_deadline(turns, lambda entry: entry[0], len(turns) * 4)
        return lambda: whose_turn()[1]()

    def _schedule(self, endpoints: Sequence[Endpoint]) -> Picker:
        cluster = self._cluster
        return scheduler(cluster.config, endpoints, cluster.loop, cluster.recompile)


def _counting_panic(pick: Picker, stats: ClusterStats) -> Picker:
    def pick_in_panic() -> Endpoint | None:
        stats.lb_healthy_panic += 1
        return pick()

    return pick_in_panic


class HashBalancer:
    """RING_HASH and MAGLEV: a table for each priority; the hash chooses the priority, too. Without one, chance does."""

    def __init__(self, levels: Sequence[Level], cluster: Surroundings) -> None:
        config = cluster.config
        self._cluster = cluster
        self._stats = cluster.stats
        self._levels = levels
        self._loads = loads = reckon_loads(
            levels,
            panic_threshold=config.panic_threshold,
        )
        self._tables: list[Choose | None] = [None] * len(levels)
        self._parts = [priority for priority, _ in loads.table()]
        self.pick: Picker = self._pick

    def _pick(self) -> Endpoint | None:
        return self._find(random.getrandbits(64), 0)

    def choose(self, context: PickContext) -> Endpoint | None:
        """The endpoint of the context's hash, or where the hash leads next when that one is to be avoided."""
        hash_ = context.hash if context.hash is not None else random.getrandbits(64)
        endpoint = self._find(hash_, 0)
        rejects = context.rejects
        if rejects is None:
            return endpoint
        for attempt in range(1, context.attempts + 1):
            if endpoint is None or not rejects(endpoint):
                break
            endpoint = self._choose_from(self._parts[hash_ % 100], hash_, attempt)
        return endpoint

    def _find(self, hash_: int, attempt: int) -> Endpoint | None:
        priority = self._parts[hash_ % 100]
        if self._loads.panic[priority]:
            self._stats.lb_healthy_panic += 1
        return self._choose_from(priority, hash_, attempt)

    def _choose_from(self, priority: int, hash_: int, attempt: int) -> Endpoint | None:
        table = self._tables[priority]
        if table is None:
            table = self._tables[priority] = self._table(priority)
        return table(hash_, attempt)

    def _table(self, priority: int) -> Choose:
        config = self._cluster.config
        shares = normalised_shares(
            self._levels[priority], in_panic=self._loads.panic[priority], locality_weighted=config.locality_weighted
        )
        make: Callable[[Shares], tuple[Choose, dict[str, int]]]
        if config.policy == "MAGLEV":
            make = partial(maglev, table_size=config.table_size, use_hostname=config.use_hostname)
        else:
            make = partial(
                ring,
                min_size=config.min_ring_size,
                max_size=config.max_ring_size,
                function=FUNCTIONS[config.hash_function],
                use_hostname=config.use_hostname,
            )
        choose, figures = self._cluster.tables.get(shares, use_hostname=config.use_hostname, make=make)
        for name, value in figures.items():
            self._cluster.set_hash_figure(name, value)
        if config.hash_balance_factor and shares:
            return bounded(choose, shares, config.hash_balance_factor, self._stats)
        return choose


def make_balancer(endpoints: Sequence[Endpoint], cluster: Surroundings) -> Balancer:
    """The balancer of a cluster, or of one subset of it, without looking at subsets."""
    levels = by_priority(endpoints, cluster.node_locality)
    return balancer_of(levels, cluster)


def balancer_of(levels: Sequence[Level], cluster: Surroundings) -> Balancer:
    """The same for endpoints that are already ordered by priority."""
    if cluster.config.hashes:
        return HashBalancer(levels, cluster)
    return EndpointBalancer(levels, cluster)
