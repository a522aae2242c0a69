"""What the supervisor itself counts, under Envoy's names: server, listener_manager, cluster_manager, runtime, and its files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from forkproxy.config.build.bootstrap import BootstrapConfig
from forkproxy.stats.counters import Registry
from forkproxy.stats.groups import (
    ClusterManagerStats,
    FilesystemStats,
    Http1Stats,
    InflatedClustersStats,
    ListenerManagerStats,
    RouterStats,
    RuntimeStats,
    ServerStats,
    WatchdogStats,
)

NO_CERTIFICATE = (1 << 32) - 1
"""What ``server.days_until_first_cert_expiring`` shows where there is none."""
STATES = {"LIVE": 0, "DRAINING": 1, "PRE_INITIALIZING": 2, "INITIALIZING": 3}
"""Envoy's server.state by the name that /ready says."""


class OwnFigures:
    """The supervisor's local groups, and when they change."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.server = registry.local_group(ServerStats, "server")
        self.listeners = registry.local_group(ListenerManagerStats, "listener_manager")
        self.clusters = registry.local_group(ClusterManagerStats, "cluster_manager")
        self.runtime = registry.local_group(RuntimeStats, "runtime")
        self.filesystem = registry.local_group(FilesystemStats, "filesystem")
        self.workers = registry.local_group(WatchdogStats, "workers")
        # Envoy shows these from the start, whoever counts them.
        registry.local_group(WatchdogStats, "main_thread")
        registry.local_group(Http1Stats, "http1")
        registry.local_group(RouterStats, "http.async-client")

    def on_lost_log_line(self) -> None:
        """A line of the supervisor's own log could not be written."""
        self.filesystem.write_failed += 1

    def on_ready(self, took_s: float) -> None:
        """The first generation serves."""
        self.server.initialization_time_ms[round(took_s * 1000)] += 1
        self.listeners.workers_started = 1
        # A generation before the first one that serves is empty, as in Envoy.
        self._count_load()

    def on_generation(self, before: BootstrapConfig | None, now: BootstrapConfig, workers: int) -> None:
        """Another configuration is in force, for so many workers."""
        listeners = self.listeners
        old = {listener.name: listener for listener in before.listeners} if before else {}
        new = {listener.name: listener for listener in now.listeners}
        listeners.listener_added += len(new.keys() - old.keys())
        listeners.listener_removed += len(old.keys() - new.keys())
        modified = sum(new[name] != old[name] for name in new.keys() & old.keys())
        listeners.listener_modified += modified
        listeners.listener_create_success += (len(new.keys() - old.keys()) + modified) * workers
        listeners.total_listeners_active = len(new)
        clusters = self.clusters
        had = {cluster.name: cluster for cluster in before.clusters} if before else {}
        has = {cluster.name: cluster for cluster in now.clusters}
        clusters.cluster_added += len(has.keys() - had.keys())
        clusters.cluster_removed += len(had.keys() - has.keys())
        clusters.cluster_modified += sum(has[name] != had[name] for name in has.keys() & had.keys())
        clusters.active_clusters = len(has)
        self._count_load()
        self.runtime.num_keys = len(now.runtime)
        self.runtime.num_layers = now.runtime_layers

    def _count_load(self) -> None:
        self.runtime.load_success += 1
        self.runtime.override_dir_not_exists += 1

    def watchdog(self, slot: int) -> WatchdogStats:
        """Of the worker in that slot."""
        return self._registry.local_group(WatchdogStats, f"server.worker_{slot}")

    def on_hang(self, slot: int) -> None:
        """A worker's heart does not beat."""
        for group in (self.workers, self.watchdog(slot)):
            group.watchdog_miss += 1
            group.watchdog_mega_miss += 1

    def update(self, *, state: str, uptime_s: float, workers: Sequence[int], connections: int, version: int) -> None:
        """Bring the gauges up to date, before they are read; ``workers``: the numbers of the slots."""
        server = self.server
        server.state = STATES[state]
        server.live = int(state == "LIVE")
        server.uptime = int(uptime_s)
        server.concurrency = len(workers)
        clusters = self.clusters.active_clusters
        for thread in ("main_thread", *(f"worker_{slot}" for slot in workers)):
            prefix = f"thread_local_cluster_manager.{thread}"
            self._registry.local_group(InflatedClustersStats, prefix).clusters_inflated = clusters
        for slot in workers:
            self.watchdog(slot)
        server.total_connections = connections
        server.version = version

    def update_rare(
        self, *, allocated: int, heap_size: int, physical_size: int, first_certificate_ends: datetime | None
    ) -> None:
        """The same with what takes long to find out; memory in bytes, of all processes."""
        server = self.server
        server.memory_allocated = allocated
        server.memory_heap_size = heap_size
        server.memory_physical_size = physical_size
        server.days_until_first_cert_expiring = NO_CERTIFICATE
        if first_certificate_ends is not None:
            server.days_until_first_cert_expiring = max((first_certificate_ends - datetime.now(UTC)).days, 0)


def memory_of(pids: Iterable[int]) -> tuple[int, int]:
    """(anonymous bytes, proportional set size in bytes) of some processes together; what has gone counts nothing."""
    anonymous = proportional = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup") as file:
                fields = dict(line.split(":", 1) for line in file if line[0].isupper() and ":" in line)
        except OSError:
            continue
        anonymous += _kilobytes(fields.get("Anonymous"))
        proportional += _kilobytes(fields.get("Pss"))
    return anonymous, proportional


def memory_of_one(pid: int) -> int | None:
    """Memory of a process in bytes: its proportional set size, or its resident set where we may not know that; None: gone."""
    _anonymous, proportional = memory_of([pid])
    if proportional:
        return proportional
    # A process of another user: smaps_rollup needs CAP_SYS_PTRACE then, statm nothing.
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return None


def _kilobytes(text: str | None) -> int:
    return int(text.split()[0]) * 1024 if text else 0
