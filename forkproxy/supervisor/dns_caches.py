"""The DNS caches of dynamic forward proxies: hosts are resolved once for all workers, and forgotten when nobody uses them.

A worker that meets a host it does not know sends ``dns_ask``. The resolver process resolves it and goes on doing so; every
worker is told each change with ``dns_host``. From time to time workers tell which hosts they used (``dns_used``); one that
nobody has used for ``host_ttl`` is taken back with ``dns_gone``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from time import monotonic

from forkproxy.config.build.dynamic_forward_proxy import DnsCacheConfig
from forkproxy.net.loop import Loop
from forkproxy.net.timers import NEVER
from forkproxy.stats.counters import Registry
from forkproxy.stats.groups import DnsCacheStats
from forkproxy.supervisor.cluster_updates import ClusterUpdates
from forkproxy.supervisor.fleet import Fleet
from forkproxy.supervisor.generation_run import GenerationRun
from forkproxy.supervisor.generations import Generations
from forkproxy.supervisor.resolver import Resolvers
from forkproxy.supervisor.slot import WorkerHandle
from forkproxy.upstream.dns_cache import OVERFLOW, SEPARATOR, DnsCache, target_of
from forkproxy.worker.control import Message

SWEEP_INTERVAL_S = 1.0


@dataclass(slots=True)
class _Hosts:
    """When each host of one cache was last used, and what is ``known`` of those that have had an answer."""

    config: DnsCacheConfig
    known: dict[str, tuple[tuple[str, ...], str]] = field(default_factory=dict)
    last_used: dict[str, float] = field(default_factory=dict)


class DnsCaches:
    """All caches, by name. They outlive generations: workers that drain share the cache of those that follow."""

    def __init__(
        self,
        loop: Loop,
        registry: Registry,
        fleet: Fleet,
        resolvers: Resolvers,
        generations: Generations,
        updates: ClusterUpdates,
    ) -> None:
        self._loop = loop
        self._updates = updates
        self._registry = registry
        self._fleet = fleet
        self._resolvers = resolvers
        self._generations = generations
        self._caches: dict[str, _Hosts] = {}
        self._timer = loop.timer(self._sweep)
        fleet.serve("dns_ask", self._on_ask)
        fleet.serve("dns_used", self._on_used)
        resolvers.on_start = self._on_resolver_start
        resolvers.on_host = self._on_host
        generations.on_made = self.on_made

    def on_made(self, run: GenerationRun) -> None:
        """``run`` was made: its workers are to know what the caches know, and some hosts are resolved beforehand."""
        for name, cache in run.generation.dns_caches.items():
            hosts = self._caches.get(name)
            if hosts is None or hosts.config != cache.config:
                before, hosts = hosts, _Hosts(cache.config)
                self._caches[name] = hosts
                self._resolvers.needed_for_good = True
                if before is not None:
                    self._take_over(before, hosts)
            for key, (addresses, reason) in hosts.known.items():
                cache.set_host(key, addresses, reason)
            for host, port in cache.config.preresolve:
                self._want(hosts, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
            self._count_hosts(hosts)

    def _take_over(self, before: _Hosts, hosts: _Hosts) -> None:
        """Requests wait for what the cache was asked with its configuration before."""
        for key in before.last_used.keys() - before.known.keys():
            if not self._want(hosts, key):
                self._fleet.tell(_host_message(hosts, key, (), OVERFLOW))

    # -- workers

    def _on_ask(self, worker: WorkerHandle, message: Message) -> None:
        key = message["host"]
        hosts = self._caches[message["cache"]]
        if key in hosts.known:
            # Another worker asked, and this one has not read the answer yet.
            hosts.last_used[key] = monotonic()
            worker.channel.send(_told(hosts, key))
        elif not self._want(hosts, key):
            self._stats(hosts).host_overflow += 1
            worker.channel.send(_host_message(hosts, key, (), OVERFLOW))

    def _on_used(self, _worker: WorkerHandle, message: Message) -> None:
        hosts = self._caches[message["cache"]]
        now = monotonic()
        hosts.last_used.update((key, now) for key in message["hosts"] if key in hosts.last_used)

    # -- the resolver

    def _want(self, hosts: _Hosts, key: str) -> bool:
        """Have a host resolved; False when the cache is full."""
        if key in hosts.last_used:
            return True
        if len(hosts.last_used) >= hosts.config.max_hosts:
            return False
        hosts.last_used[key] = monotonic()
        self._stats(hosts).host_added += 1
        self._count_hosts(hosts)
        self._resolvers.send(_request(hosts, key))
        if self._timer.deadline == NEVER:
            self._timer.arm(self._loop.now + SWEEP_INTERVAL_S)
        return True

    def _on_resolver_start(self, send: Callable[[Message], None]) -> None:
        """A resolver process has been born: it knows of no host."""
        for hosts in self._caches.values():
            for key in hosts.last_used:
                send(_request(hosts, key))

    def _on_host(self, message: Message) -> None:
        name, _, key = message["host"].partition(SEPARATOR)
        hosts = self._caches.get(name)
        if hosts is None or key not in hosts.last_used:
            return
        before = hosts.known.get(key)
        addresses = tuple(message["addresses"])
        self._count(hosts, before[0] if before is not None else (), message)
        hosts.known[key] = now = (addresses, message["reason"])
        if now != before:
            for cache in self._copies(name):
                cache.set_host(key, *now)
            self._count_members(name)
            self._fleet.tell(_told(hosts, key))

    def _copies(self, name: str) -> list[DnsCache]:
        """Those of the generations of which workers may still be born."""
        runs = {self._generations.running, self._generations.newest}
        return [run.generation.dns_caches[name] for run in runs if run and name in run.generation.dns_caches]

    def _count_members(self, name: str) -> None:
        run = self._generations.running
        for cluster in run.generation.clusters.values():
            if cluster.dns_cache is not None and cluster.dns_cache.name == name:
                self._updates.on_membership(run, cluster.name)

    # -- the passing of time

    def _sweep(self) -> None:
        """Forget what has not been used for so long."""
        now = monotonic()
        for hosts in self._caches.values():
            old = [key for key, used in hosts.last_used.items() if now - used > hosts.config.host_ttl_s]
            for key in old:
                if key in hosts.known:
                    self._forget(hosts, key)
        if any(hosts.last_used for hosts in self._caches.values()):
            self._timer.arm(self._loop.now + SWEEP_INTERVAL_S)

    def _forget(self, hosts: _Hosts, key: str) -> None:
        del hosts.last_used[key]
        del hosts.known[key]
        name = hosts.config.name
        for cache in self._copies(name):
            cache.remove_host(key)
        self._count_members(name)
        self._stats(hosts).host_removed += 1
        self._count_hosts(hosts)
        self._resolvers.send({"op": "forget", "host": name + SEPARATOR + key})
        self._fleet.tell({"op": "dns_gone", "cache": name, "host": key})

    # -- figures

    def _stats(self, hosts: _Hosts) -> DnsCacheStats:
        return self._registry.local_group(DnsCacheStats, f"dns_cache.{hosts.config.name}")

    def _count_hosts(self, hosts: _Hosts) -> None:
        self._stats(hosts).num_hosts = len(hosts.last_used)

    def _count(self, hosts: _Hosts, before: tuple[str, ...], message: Message) -> None:
        stats = self._stats(hosts)
        stats.dns_query_attempt += 1
        results = message["results"]
        if "timeout" in results:
            stats.dns_query_timeout += 1
        if "failure" in results and not message["reason"].startswith("cares_norecords"):
            stats.dns_query_failure += 1
        else:
            stats.dns_query_success += 1
        if message["addresses"] and tuple(message["addresses"]) != before:
            stats.host_address_changed += 1


def _told(hosts: _Hosts, key: str) -> Message:
    return _host_message(hosts, key, *hosts.known[key])


def _host_message(hosts: _Hosts, key: str, addresses: tuple[str, ...], reason: str) -> Message:
    return {"op": "dns_host", "cache": hosts.config.name, "host": key, "addresses": list(addresses), "reason": reason}


def _request(hosts: _Hosts, key: str) -> Message:
    return {"op": "resolve", "target": asdict(target_of(hosts.config, hosts.config.name + SEPARATOR + key))}
