"""A cluster's endpoints by priority, and how much of the load each priority gets.

The arithmetic is Envoy's, integers and all (docs: "Priority levels", "Degraded endpoints", "Panic threshold"): a priority's
health is the share of its endpoints that are healthy, times the overprovisioning factor, at most 100 %. Load goes to healthy
endpoints from the first priority on until 100 % are placed, what is left to degraded ones. A priority in panic ignores health;
when all of them are in panic, load goes by the number of endpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from forkproxy.upstream import health
from forkproxy.upstream.endpoint import Endpoint

LocalityName = tuple[str, str, str]
"""(region, zone, sub_zone)."""

ALL: Final = 0
HEALTHY: Final = 1
DEGRADED: Final = 2


@dataclass(slots=True)
class Members:
    """Endpoints, and which of them may be used. ``excluded`` ones do not count when shares are reckoned."""

    endpoints: list[Endpoint] = field(default_factory=list)
    healthy: list[Endpoint] = field(default_factory=list)
    degraded: list[Endpoint] = field(default_factory=list)
    excluded: list[Endpoint] = field(default_factory=list)

    def add(self, endpoint: Endpoint) -> None:
        """Put one where it belongs."""
        self.endpoints.append(endpoint)
        state = health.coarse(endpoint.health_flags)
        if state == health.HEALTHY:
            self.healthy.append(endpoint)
        elif state == health.DEGRADED:
            self.degraded.append(endpoint)
        if endpoint.health_flags & health.EXCLUDING_FLAGS:
            self.excluded.append(endpoint)

    @property
    def counted(self) -> int:
        """How many count."""
        return len(self.endpoints) - len(self.excluded)

    def available(self, availability: int) -> list[Endpoint]:
        """ALL, HEALTHY or DEGRADED ones."""
        return (self.endpoints, self.healthy, self.degraded)[availability]


@dataclass(slots=True)
class Locality(Members):
    """The endpoints of one priority in one locality. ``weight`` 0: none given, so that it gets nothing."""

    name: LocalityName = ("", "", "")
    weight: float = 0


@dataclass(slots=True)
class Level(Members):
    """One priority. ``localities``: the node's own first (``has_local``), the others in the order of their names.

    ``overprovisioning_factor`` in percent; ``weighted_health``: health goes by the weight of the endpoints, not their number.
    """

    localities: list[Locality] = field(default_factory=list)
    has_local: bool = False
    overprovisioning_factor: int = 140
    weighted_health: bool = False


def by_priority(endpoints: Sequence[Endpoint], node_locality: LocalityName | None = None) -> list[Level]:
    """A Level for each priority from 0 to the highest; there is always a first one."""
    count = max((endpoint.config.priority for endpoint in endpoints), default=0) + 1
    levels = [Level() for _ in range(count)]
    localities: list[dict[LocalityName, Locality]] = [{} for _ in range(count)]
    for endpoint in endpoints:
        config = endpoint.config
        level = levels[config.priority]
        level.add(endpoint)
        level.overprovisioning_factor = config.overprovisioning_factor
        level.weighted_health = config.weighted_priority_health
        name = (config.region, config.zone, config.sub_zone)
        locality = localities[config.priority].get(name)
        if locality is None:
            locality = localities[config.priority][name] = Locality(name=name)
        locality.weight = config.locality_weight  # of a locality that is listed twice, the last counts
        locality.add(endpoint)
    for level, found in zip(levels, localities, strict=True):
        local = found.pop(node_locality, None) if node_locality is not None and any(node_locality) else None
        level.localities = [found[name] for name in sorted(found)]
        if local is not None:
            level.has_local = True
            level.localities.insert(0, local)
    return levels


@dataclass(slots=True)
class Loads:
    """Percent of the load that healthy and degraded endpoints of each priority get; which priorities are in panic."""

    healthy: list[int]
    degraded: list[int]
    panic: list[bool]

    def table(self) -> list[tuple[int, int]]:
        """(priority, HEALTHY or DEGRADED) of each of a hundred parts of the load, in order."""
        return spread(self.healthy, self.degraded)


def spread(healthy: Sequence[int], degraded: Sequence[int]) -> list[tuple[int, int]]:
    """(priority, HEALTHY or DEGRADED) of each of a hundred parts of the load, in order; what nobody has is the first's."""
    parts: list[tuple[int, int]] = []
    for priority, load in enumerate(healthy):
        parts += [(priority, HEALTHY)] * load
    for priority, load in enumerate(degraded):
        parts += [(priority, DEGRADED)] * load
    return (parts + [(0, HEALTHY)] * (100 - len(parts)))[:100]


def availability(level: Level) -> tuple[int, int]:
    """(health, degraded) of a priority in percent."""
    if level.weighted_health:
        total = _weight(level.endpoints) - _weight(level.excluded)
        healthy, degraded = _weight(level.healthy), _weight(level.degraded)
    else:
        total = level.counted
        healthy, degraded = len(level.healthy), len(level.degraded)
    if level.counted <= 0 or total <= 0:
        return 0, 0
    return (
        min(100, level.overprovisioning_factor * healthy // total),
        min(100, level.overprovisioning_factor * degraded // total),
    )


def _weight(endpoints: Sequence[Endpoint]) -> int:
    return sum(endpoint.weight for endpoint in endpoints)


def is_in_panic(level: Members, panic_threshold: int) -> bool:
    """Whether so few are available that health is better ignored."""
    count = level.counted
    if count <= 0:
        return panic_threshold > 0
    return 100.0 * len(level.healthy) / count + 100.0 * len(level.degraded) / count < panic_threshold


def reckon_loads(levels: Sequence[Level], *, panic_threshold: int) -> Loads:
    """How the load is divided."""
    shares = [availability(level) for level in levels]
    healths = [healthy for healthy, _ in shares]
    degradeds = [degraded for _, degraded in shares]
    total = min(sum(healths) + sum(degradeds), 100)
    loads = Loads([0] * len(levels), [0] * len(levels), [False] * len(levels))
    if total:
        left = _distribute(loads.healthy, healths, 100, total)
        left = _distribute(loads.degraded, degradeds, left, total)
        if left:  # rounding: the first that has anything
            first = next((at for at, share in enumerate(healths) if share), None)
            if first is not None:
                loads.healthy[first] += left
            else:
                loads.degraded[next(at for at, share in enumerate(degradeds) if share)] += left
    if not panic_threshold and not total:
        loads.healthy[0] = 100
        return loads
    if total < 100:
        loads.panic = [is_in_panic(level, panic_threshold) for level in levels]
    if all(loads.panic):
        _load_by_number(loads, levels)
    return loads


def _distribute(loads: list[int], shares: Sequence[int], left: int, total: int) -> int:
    for at, share in enumerate(shares):
        loads[at] = min(left, share * 100 // total)
        left -= loads[at]
    return left


def _load_by_number(loads: Loads, levels: Sequence[Level]) -> None:
    counts = [len(level.endpoints) for level in levels]
    total = sum(counts)
    if not total:
        loads.healthy[0] = 100
        return
    loads.healthy = [100 * count // total for count in counts]
    loads.degraded = [0] * len(counts)
    loads.healthy[next(at for at, count in enumerate(counts) if count)] += 100 - sum(loads.healthy)


def effective_weight(locality: Locality, availability: int, overprovisioning_factor: int) -> float:
    """A locality's weight, less what its unavailable endpoints cost it (Envoy: "Locality weighted load balancing")."""
    if locality.counted <= 0:
        return 0.0
    ratio = len(locality.available(availability)) / locality.counted
    return locality.weight * min(1.0, overprovisioning_factor / 100.0 * ratio)
