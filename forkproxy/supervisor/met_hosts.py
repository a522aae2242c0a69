"""ORIGINAL_DST clusters: a host that one worker met is known to all, until nobody uses it any more.

(Envoy: "Original destination"; a host without connections that got none since the last look is removed at every
``cleanup_interval``.)
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
        fleet.serve("host_met", self._on_met)

    def _on_met(self, worker: WorkerHandle, message: Message) -> None:
        run, name = worker.run, message["cluster"]
        cluster = run.generation.clusters[name]
        if run not in (self._generations.running, self._generations.newest) or not isinstance(
            cluster, OriginalDstCluster
        ):
            return  # a worker that drains keeps its figures to itself
        host, port = message["address"]
        known: list[SocketAddress] = [endpoint.socket_address for endpoint in cluster.endpoints]
        if (host, port) not in known:
            known.append((host, port))
        # Also when another worker was faster: this one has to be told.
        self._set_endpoints(run, name, cluster.told(known))
        if name not in self._timers:
            self._timers[name] = self._loop.call_later(cluster.config.cleanup_interval_s, lambda: self._clean_up(name))

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
