"""Connections to the endpoints that will be picked next (Envoy: ``predictive_preconnect_ratio``).

Before a request gets its connection, the picks of requests to come are made, as many as the cluster is short of connections for;
each of those endpoints gets a connection, and later requests get the endpoints in that order.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from forkproxy.upstream import health
from forkproxy.upstream.http_pool import PreconnectingPool
from forkproxy.upstream.schedulers import Picker

if TYPE_CHECKING:
    from forkproxy.upstream.cluster import Cluster
    from forkproxy.upstream.endpoint import Endpoint

MOST_AT_ONCE = 3
"""Picks ahead that one request makes, as in Envoy."""
PREDICTABLE = ("ROUND_ROBIN", "RANDOM")
"""The policies whose next pick does not depend on what happens until then."""


class Ahead:
    """The picks of one cluster that have been made and not used."""

    __slots__ = ("_cluster", "_made", "_pick", "_ratio")

    def __init__(self, cluster: Cluster, ratio: float) -> None:
        self._cluster = cluster
        self._ratio = ratio
        self._made: deque[Endpoint] = deque()
        self._pick: Picker

    def use(self, pick: Picker) -> Picker:
        """There is another picker, perhaps of other endpoints. Returns what requests are to ask."""
        self._pick = pick
        self._made.clear()
        return self._next

    def _next(self) -> Endpoint | None:
        return self._made.popleft() if self._made else self._pick()

    def preconnect(self) -> None:
        """A request is about to get its connection."""
        cluster = self._cluster
        stats = cluster.stats
        for _ in range(MOST_AT_ONCE):
            expected = stats.upstream_rq_pending_active + stats.upstream_rq_active + 1
            if expected * self._ratio <= cluster.connections or len(self._made) >= stats.membership_healthy:
                return
            endpoint = self._pick()
            if endpoint is None:
                return
            self._made.append(endpoint)
            pool = endpoint.pool
            if health.coarse(endpoint.health_flags) != health.HEALTHY or not isinstance(pool, PreconnectingPool):
                return
            if not pool.preconnect(self._ratio):
                return


def make_ahead(cluster: Cluster) -> Ahead | None:
    """None when the file does not ask for it, or the load balancer cannot tell."""
    config = cluster.config
    ratio = config.pool.predictive_ratio
    balancing = config.load_balancing
    if ratio <= 1.0 or balancing.policy not in PREDICTABLE or balancing.subset is not None:
        return None
    return Ahead(cluster, ratio)
