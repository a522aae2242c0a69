"""Subset load balancing: requests with metadata criteria go to the endpoints that have this metadata (``lb_subset_config``).

Endpoints are grouped once per selector by the values of its keys; a request's criteria choose a group when their names are
exactly a selector's keys. Otherwise the fallback decides: the selector's own, else the cluster's. Each group has a balancer of
the cluster's policy, made when it is first needed. (Envoy: "Load balancer subsets".)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from forkproxy.config.build.load_balancing import SubsetConfig, SubsetSelector, has_metadata, metadata_choices
from forkproxy.stats.groups import ClusterStats
from forkproxy.upstream.balancers import Balancer, Criteria, PickContext, Surroundings, balancer_of
from forkproxy.upstream.endpoint import Endpoint
from forkproxy.upstream.levels import Level, Locality, Members, by_priority
from forkproxy.upstream.schedulers import Picker

SubsetKey = tuple[tuple[str, ...], tuple[object, ...]]
"""(a selector's keys, their values)."""
_FALLBACK_LIST = "fallback_list"


class Subset:
    """A group of endpoints and, from the first pick on, its balancer."""

    __slots__ = ("_balancer", "_members", "_subsets")

    def __init__(self, subsets: SubsetBalancer, members: Sequence[Endpoint]) -> None:
        self._subsets = subsets
        self._members = members
        self._balancer: Balancer | None = None

    def choose(self, context: PickContext) -> Endpoint | None:
        """One of them."""
        if self._balancer is None:
            self._balancer = self._subsets.balancer(self._members)
        return self._balancer.choose(context)


class SingleEndpoint:
    """``single_host_per_subset``: there is nothing to balance, and health does not matter."""

    __slots__ = ("_endpoint",)

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def choose(self, _context: PickContext) -> Endpoint:
        """It."""
        return self._endpoint


class SubsetBalancer:
    """The balancer of a cluster with subsets. ``known``: the subsets there were before, for the counters."""

    def __init__(
        self, endpoints: Sequence[Endpoint], cluster: Surroundings, config: SubsetConfig, known: set[SubsetKey]
    ) -> None:
        self._config = config
        self._stats: ClusterStats = cluster.stats
        self._levels = by_priority(endpoints, cluster.node_locality)
        inner = replace(
            cluster.config,
            subset=None,
            locality_weighted=cluster.config.locality_weighted and config.locality_weight_aware,
        )
        self._within = cluster.within(inner)
        selectors = list(config.selectors)
        if config.redundant_keys:
            selectors.sort(key=lambda selector: -len(selector.keys))
        self._longest_first = [frozenset(selector.keys) for selector in selectors]
        self._own_fallbacks = _own_fallbacks(selectors)
        self._subsets: dict[SubsetKey, Subset | SingleEndpoint] = {}
        for keys, selector in {each.keys: each for each in reversed(config.selectors)}.items():
            self._group(keys, selector, endpoints)
        self._count(known)
        self._any = Subset(self, endpoints)
        self._default = Subset(self, [each for each in endpoints if self._matches(each, config.default_subset)])
        self._fallback = self._policy(config.fallback)
        self.pick: Picker = self._pick

    def _group(self, keys: tuple[str, ...], selector: SubsetSelector, endpoints: Sequence[Endpoint]) -> None:
        groups: dict[tuple[object, ...], list[Endpoint]] = {}
        for endpoint in endpoints:
            for values in self._values(endpoint, keys):
                groups.setdefault(values, []).append(endpoint)
        for values, members in groups.items():
            if selector.single_endpoint:
                first = min(members, key=lambda endpoint: endpoint.config.priority)
                self._subsets[keys, values] = SingleEndpoint(first)
            else:
                self._subsets[keys, values] = Subset(self, members)

    def _values(self, endpoint: Endpoint, keys: tuple[str, ...]) -> Iterator[tuple[object, ...]]:
        metadata = endpoint.lb_metadata
        if not all(key in metadata for key in keys):
            return iter(())
        as_any = self._config.list_as_any
        return itertools.product(*[dict.fromkeys(metadata_choices(metadata[key], as_any)) for key in keys])

    def _matches(self, endpoint: Endpoint, wanted: Criteria) -> bool:
        return has_metadata(endpoint.lb_metadata, wanted, list_as_any=self._config.list_as_any)

    def _count(self, known: set[SubsetKey]) -> None:
        stats = self._stats
        now = set(self._subsets)
        stats.lb_subsets_created += len(now - known)
        stats.lb_subsets_removed += len(known - now)
        stats.lb_subsets_active = len(now)
        known.clear()
        known.update(now)

    def _policy(self, name: str) -> Subset | None:
        if name == "ANY_ENDPOINT":
            return self._any
        return self._default if name == "DEFAULT_SUBSET" else None

    def balancer(self, members: Sequence[Endpoint]) -> Balancer:
        """A balancer over some of the endpoints: their priorities and localities stay what they were."""
        chosen = set(map(id, members))
        scaled = self._config.scale_locality_weight
        return balancer_of([_restricted(level, chosen, scaled=scaled) for level in self._levels], self._within)

    # -- picking

    def _pick(self) -> Endpoint | None:
        return self.choose(PickContext())

    def choose(self, context: PickContext) -> Endpoint | None:
        """The endpoint for the context's criteria; with FALLBACK_LIST, for the first alternative that has one."""
        if self._config.fallback_list:
            alternatives = dict(context.criteria).get(_FALLBACK_LIST)
            if isinstance(alternatives, tuple) and alternatives[:1] == ("list",):
                return self._choose_first(context, alternatives[1:])
        return self._choose(context)

    def _choose_first(self, context: PickContext, alternatives: tuple[object, ...]) -> Endpoint | None:
        own = {key: value for key, value in context.criteria if key != _FALLBACK_LIST}
        if not alternatives:
            return self._choose(context.narrowed(tuple(sorted(own.items()))))
        for alternative in alternatives:
            more = dict(alternative[1:]) if isinstance(alternative, tuple) and alternative[:1] == ("struct",) else {}
            endpoint = self._choose(context.narrowed(tuple(sorted((own | more).items()))))
            if endpoint is not None:
                return endpoint
        return None

    def _choose(self, context: PickContext) -> Endpoint | None:
        if self._config.redundant_keys and context.criteria:
            context = context.narrowed(self._covered(context.criteria))
        if context.criteria:
            keys, values = zip(*context.criteria, strict=True)
            subset = self._subsets.get((keys, values))
            if subset is not None:
                self._stats.lb_subsets_selected += 1
                return subset.choose(context)
            selector = self._own_fallbacks.get(keys)
            if selector is not None:
                return self._fall_back(selector, context)
        if self._fallback is None:
            return None
        endpoint = self._fallback.choose(context)
        if endpoint is not None:
            self._stats.lb_subsets_fallback += 1
        elif self._config.panic_mode_any:
            endpoint = self._any.choose(context)
            if endpoint is not None:
                self._stats.lb_subsets_fallback_panic += 1
        return endpoint

    def _covered(self, wanted: Criteria) -> Criteria:
        """As much of the criteria as the selector wants that counts; all of them when none does."""
        given = {key for key, _ in wanted}
        for keys in self._longest_first:
            if keys <= given:
                return tuple(entry for entry in wanted if entry[0] in keys)
        return wanted

    def _fall_back(self, selector: SubsetSelector, context: PickContext) -> Endpoint | None:
        if selector.fallback == "KEYS_SUBSET":
            kept = tuple(entry for entry in context.criteria if entry[0] in selector.fallback_keys)
            return self._choose(context.narrowed(kept))
        subset = self._policy(selector.fallback)
        return None if subset is None else subset.choose(context)


def _own_fallbacks(selectors: Sequence[SubsetSelector]) -> dict[tuple[str, ...], SubsetSelector]:
    """The selectors whose own fallback counts.

    In Envoy it does not when their keys are the beginning (by name) of those of a selector that stands before.
    """
    found: dict[tuple[str, ...], SubsetSelector] = {}
    taken: set[tuple[str, ...]] = set()
    for selector in selectors:
        keys = selector.keys
        if keys not in taken and selector.fallback != "NOT_DEFINED":
            found[keys] = selector
        taken.update(keys[: length + 1] for length in range(len(keys)))
    return found


def _restricted(level: Level, chosen: set[int], *, scaled: bool) -> Level:
    """A level without the endpoints that are not ``chosen``; its localities stay, if only as empty ones."""
    localities: list[Locality] = []
    for locality in level.localities:
        kept = _keep(locality, chosen)
        weight = locality.weight
        if scaled:
            weight = math.floor(weight * len(kept.endpoints) / len(locality.endpoints) + 0.5)
        localities.append(Locality(kept.endpoints, kept.healthy, kept.degraded, kept.excluded, locality.name, weight))
    kept = _keep(level, chosen)
    return Level(
        *(kept.endpoints, kept.healthy, kept.degraded, kept.excluded, localities),
        *(level.has_local, level.overprovisioning_factor, level.weighted_health),
    )


def _keep(members: Members, chosen: set[int]) -> Members:
    def of(endpoints: list[Endpoint]) -> list[Endpoint]:
        return [endpoint for endpoint in endpoints if id(endpoint) in chosen]

    return Members(of(members.endpoints), of(members.healthy), of(members.degraded), of(members.excluded))
