"""Zone aware routing: requests stay in this node's zone as far as that leaves no zone with more than its share.

What each zone of ours sends is taken from the *local cluster* (``cluster_manager.local_cluster_name``), whose endpoints are the
proxies themselves. Only the first priority is routed so, as in Envoy. (Envoy: "Zone aware routing".)
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence

from forkproxy.config.build.load_balancing import ZoneAware
from forkproxy.stats.groups import ClusterStats
from forkproxy.upstream.endpoint import Endpoint
from forkproxy.upstream.levels import Level, Locality, is_in_panic
from forkproxy.upstream.schedulers import Picker

_WHOLE = 10_000


class ZoneRouting:
    """How the requests of one priority are divided over localities. ``is_routing`` False: they are not."""

    def __init__(
        self, config: ZoneAware, panic_threshold: int, level: Level, local: Level, stats: ClusterStats
    ) -> None:
        self._config = config
        self._stats = stats
        self._local_in_panic = is_in_panic(local, panic_threshold)
        self._to_local = 0
        """Of 10,000 requests, how many stay."""
        self._direct = False
        self._residual: list[int] = []
        """Capacity that localities have to spare, summed up from the first."""
        stats.lb_recalculate_zone_structures += 1
        self.is_routing = self._can_route(level, local)
        if self.is_routing:
            self._reckon(level, local)

    def _can_route(self, level: Level, local: Level) -> bool:
        if len(level.localities) < 2:
            return False
        if not local.has_local:
            self._stats.lb_local_cluster_not_ok += 1
            return False
        if len(level.healthy) < self._config.min_cluster_size:
            self._stats.lb_zone_cluster_too_small += 1
            return False
        return True

    def _reckon(self, level: Level, local: Level) -> None:
        mine = {locality.name: self._size(locality) for locality in local.localities}
        mine_total = sum(mine.values())
        theirs = [self._size(locality) for locality in level.localities]
        total = sum(theirs)
        shares: list[tuple[int, int]] = []
        for locality, size in zip(level.localities, theirs, strict=True):
            sent = _WHOLE * mine.get(locality.name, 0) // mine_total if mine_total and locality.healthy else 0
            shares.append((sent, _WHOLE * size // total if total and locality.healthy else 0))
        if level.has_local:
            sent, taken = shares[0]
            force = self._config.force_local_min_size
            if (taken > 0 and taken >= sent) or (force is not None and len(level.localities[0].healthy) >= force):
                self._direct = True
                return
            self._to_local = taken * _WHOLE // sent if sent else 0
        spare = 0
        for at, (sent, taken) in enumerate(shares):
            if not (at == 0 and level.has_local):
                spare += max(taken - sent, 0)
            self._residual.append(spare)

    def _size(self, locality: Locality) -> int:
        if self._config.by_weight:
            return sum(endpoint.weight for endpoint in locality.healthy)
        return len(locality.healthy)

    def picker(self, localities: Sequence[Picker], whole: Picker) -> Picker:
        """The picker over ``localities``, in the level's order; ``whole`` picks from all of them."""
        stats = self._stats
        config = self._config
        draw = random.random
        in_panic = self._local_in_panic

        def pick() -> Endpoint | None:
            if config.routing_percent < 100 and draw() * 100 >= config.routing_percent:
                return whole()
            if in_panic:
                stats.lb_local_cluster_not_ok += 1
                return None if config.fail_traffic_on_panic else whole()
            return localities[self._locality()]()

        return pick

    def _locality(self) -> int:
        stats = self._stats
        if self._direct:
            stats.lb_zone_routing_all_directly += 1
            return 0
        draw = random.random
        if draw() * _WHOLE < self._to_local:
            stats.lb_zone_routing_sampled += 1
            return 0
        stats.lb_zone_routing_cross_zone += 1
        residual = self._residual
        if not residual[-1]:
            stats.lb_zone_no_capacity_left += 1
            return int(draw() * len(residual))
        return bisect_right(residual, int(draw() * residual[-1]))
