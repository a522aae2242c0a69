"""Choosing an endpoint: the balancer of a cluster, made when it is first needed and again when its endpoints change.

A thousand clusters cost a start nothing, and ten health changes in a row cost one balancer. ``pick`` is the cheapest callable
that does the job: for equal endpoints of one priority it is the ``next`` of a cycle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from forkproxy.config.build.load_balancing import LoadBalancingConfig
from forkproxy.net.loop import Loop
from forkproxy.stats.counters import Registry
from forkproxy.stats.groups import ClusterStats
from forkproxy.upstream.balancers import Balancer, PickContext, make_balancer
from forkproxy.upstream.consistent_hashing import MaglevStats, RingHashStats, TableCache
from forkproxy.upstream.endpoint import Endpoint
from forkproxy.upstream.levels import Level, LocalityName, by_priority
from forkproxy.upstream.schedulers import Picker, pick_none
from forkproxy.upstream.subsets import SubsetBalancer, SubsetKey

__all__ = ["LoadBalancer", "PickContext", "Picker", "pick_none"]


class LoadBalancer:
    """What stays while balancers come and go.

    ``on_change(pick)`` is told of every ``pick`` that replaces the one before. ``local``: the load balancer of the local cluster,
    for zone aware routing. ``needs_hash``, ``needs_criteria``, ``needs_context``: what a pick needs beyond ``pick()``.
    """

    def __init__(
        self,
        config: LoadBalancingConfig,
        stats: ClusterStats,
        on_change: Callable[[Picker], None],
        hash_stats: RingHashStats | MaglevStats | None = None,
    ) -> None:
        self.config = config
        self.stats = stats
        self.hash_stats = hash_stats
        self.loop: Loop | None = None
        self.node_locality: LocalityName | None = None
        self.tables = TableCache()
        self.needs_hash = config.hashes
        self.needs_criteria = config.subset is not None
        self.needs_context = self.needs_hash or self.needs_criteria
        self.on_change = on_change
        self._endpoints: Sequence[Endpoint] = ()
        self._balancer: Balancer | None = None
        self._known_subsets: set[SubsetKey] = set()
        self._local: LoadBalancer | None = None
        self.followers: list[LoadBalancer] = []
        """Those that go by this one's endpoints, too: they recompile with it."""

    def set_endpoints(self, endpoints: Sequence[Endpoint]) -> None:
        """These are the endpoints from now on."""
        self._endpoints = endpoints
        self.recompile()

    def set_locality(self, node_locality: LocalityName, local: LoadBalancer | None) -> None:
        """Where this node is; ``local``: the cluster of its likes, to route zone aware."""
        self.node_locality = node_locality
        self._local = local
        if local is not None:
            local.followers.append(self)
        self.recompile()

    def recompile(self) -> None:
        """Endpoints or their health have changed: the next pick finds out."""
        self._balancer = None
        self.on_change(self._compile_and_pick)
        for other in self.followers:
            if other is not self:
                other.recompile()

    def choose(self, context: PickContext) -> Endpoint | None:
        """The endpoint for a request that brings something with it."""
        balancer = self._balancer
        if balancer is None:
            balancer = self._compile()
        return balancer.choose(context)

    def _compile_and_pick(self) -> Endpoint | None:
        balancer = self._balancer
        if balancer is None:
            balancer = self._compile()
        return balancer.pick()

    def _compile(self) -> Balancer:
        self._balancer = balancer = self._make()
        self.on_change(balancer.pick)
        return balancer

    def _make(self) -> Balancer:
        subset = self.config.subset
        if self.config.policy == "CLUSTER_PROVIDED":
            return Nobody()
        if subset is not None:
            return SubsetBalancer(self._endpoints, self, subset, self._known_subsets)
        return make_balancer(self._endpoints, self)

    # -- what balancers ask

    def local_levels(self) -> list[Level] | None:
        """The endpoints of the local cluster; None when there is none."""
        return None if self._local is None else by_priority(self._local._endpoints, self.node_locality)

    def set_hash_figure(self, name: str, value: int) -> None:
        """A figure of the ring or table that has just been made."""
        if self.hash_stats is not None:
            setattr(self.hash_stats, name, value)

    def within(self, config: LoadBalancingConfig) -> _Within:
        """The same surroundings with another configuration, for a subset."""
        return _Within(self, config)


class Nobody:
    """The balancer of a cluster that balances nothing: its type finds an endpoint for each request."""

    pick: Picker = staticmethod(pick_none)

    def choose(self, context: PickContext) -> None:
        """Nobody."""


def hash_stats(registry: Registry, policy: str, prefix: str) -> RingHashStats | MaglevStats | None:
    """The figures of a policy's tables, for a cluster whose statistics stand under ``prefix``."""
    if policy == "RING_HASH":
        return registry.group(RingHashStats, f"{prefix}.ring_hash_lb")
    return registry.group(MaglevStats, f"{prefix}.maglev_lb") if policy == "MAGLEV" else None


class _Within:
    """A cluster as the balancer of one of its subsets sees it."""

    def __init__(self, cluster: LoadBalancer, config: LoadBalancingConfig) -> None:
        self.config = config
        self.stats = cluster.stats
        self.loop = cluster.loop
        self.node_locality = cluster.node_locality
        self.tables = TableCache(1)
        self.recompile = cluster.recompile
        self.local_levels = cluster.local_levels
        self.set_hash_figure = cluster.set_hash_figure

    def within(self, config: LoadBalancingConfig) -> _Within:
        """A subset has no subsets."""
        raise AssertionError(config)
