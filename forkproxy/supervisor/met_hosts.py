"""ORIGINAL_DST clusters: a host that one worker met is known to all, until nobody uses it any more.

(Envoy: "Original destination"; a host without connections that got none since the last look is removed at every
``cleanup_interval``.)

Everybody is told all hosts at a time, so that slots agree. The more there are, the longer who was told last is left in peace:
meanwhile a worker that met a host uses it all the same.
"""

from __future__ import annotations

from collections.abc import Callable

from forkproxy.net.address import SocketAddress
from forkproxy.net.loop import Loop
from forkproxy.net.timers import Timer
from forkproxy.stats.counters import Registry
from forkproxy.stats.groups import EndpointStats
from forkproxy.supervisor.fleet import Fleet
from forkproxy.supervisor.generation_run import GenerationRun
from forkproxy.supervisor.generations import Generations
from forkproxy.supervisor.slot import WorkerHandle
from forkproxy.upstream.dynamic_cluster import OriginalDstCluster
from forkproxy.worker.control import Message

PEACE_S_PER_HOST = 0.001
"""To tell of a host, or to be told, takes some 30 µs."""


class MetHosts:
    """Keeps the hosts of all such clusters. ``set_endpoints(run, cluster, endpoints)`` tells everybody of a change."""

    def __init__(
        self,
        loop: Loop,
        registry: Registry,
        fleet: Fleet,
        generations: Generations,
        set_endpoints: Callable[[GenerationRun, str, list[dict[str, object]]], None],
    ) -> None:
        self._loop = loop
        self._registry = registry
        self._fleet = fleet
        self._generations = generations
        self._set_endpoints = set_endpoints
        self._timers: dict[str, Timer] = {}
        self._connections: dict[str, dict[SocketAddress, int]] = {}
        """How many connections each host had ever had at the last look."""
        self._met: dict[str, dict[SocketAddress, None]] = {}
        """Whom the workers have met since everybody was told. With a key, a cluster is left in peace."""
        fleet.serve("host_met", self._on_met)

    def _on_met(self, worker: WorkerHandle, message: Message) -> None:
        run, name = worker.run, message["cluster"]
        cluster = run.generation.clusters[name]
        if run not in (self._generations.running, self._generations.newest) or not isinstance(
            cluster, OriginalDstCluster
        ):
            return  # a worker that drains keeps its figures to itself
        host, port = message["address"]
        if name in self._met:
            self._met[name][host, port] = None
            return
        self._tell(name, run, {(host, port): None})
        if name not in self._timers:
            self._timers[name] = self._loop.call_later(cluster.config.cleanup_interval_s, lambda: self._clean_up(name))

    def _tell(self, name: str, run: GenerationRun, met: dict[SocketAddress, None]) -> None:
        cluster = run.generation.clusters.get(name)
        if not isinstance(cluster, OriginalDstCluster):
            return
        # Also when another worker was faster: this one has to be told.
        known = list(dict.fromkeys([*(endpoint.socket_address for endpoint in cluster.endpoints), *met]))
        self._set_endpoints(run, name, cluster.told(known))
        self._met[name] = {}
        self._loop.call_later(len(known) * PEACE_S_PER_HOST, lambda: self._on_peace_over(name))

    def _on_peace_over(self, name: str) -> None:
        met = self._met.pop(name)
        if met:
            self._tell(name, self._generations.running, met)

    def _clean_up(self, name: str) -> None:
        del self._timers[name]
        run = self._generations.running
        cluster = run.generation.clusters.get(name)
        if not isinstance(cluster, OriginalDstCluster):
            self._connections.pop(name, None)
            return
        before = self._connections.get(name, {})
        slabs = [worker.slab for worker in self._fleet.workers()]
        kept: list[SocketAddress] = []
        now: dict[SocketAddress, int] = {}
        for endpoint, slot in cluster.endpoint_slots():
            figures = self._registry.figures(EndpointStats, f"cluster.{cluster.stat_name}.endpoint.slot_{slot}", slabs)
            ever = figures["cx_total"] + figures["rq_total"]
            if figures["cx_active"] or ever != before.get(endpoint.socket_address):
                kept.append(endpoint.socket_address)
                now[endpoint.socket_address] = ever
        self._connections[name] = now
        if len(kept) < len(cluster.endpoints):
            self._set_endpoints(run, name, cluster.told(kept))
        if kept:
            self._timers[name] = self._loop.call_later(cluster.config.cleanup_interval_s, lambda: self._clean_up(name))
