"""What the supervisor itself counts, under Envoy's names: server, listener_manager, cluster_manager, runtime, and its files."""

from __future__ import annotations

import os
from collections.abc import Iterable

from forkproxy.config.build.bootstrap import BootstrapConfig
from forkproxy.stats.counters import Registry
from forkproxy.stats.groups import ClusterManagerStats, FilesystemStats, ListenerManagerStats, RuntimeStats, ServerStats

STATES = {"LIVE": 0, "DRAINING": 1, "PRE_INITIALIZING": 2, "INITIALIZING": 3}
"""Envoy's server.state by the name that /ready says."""


class OwnFigures:
    """The supervisor's local groups, and when they change."""

    def __init__(self, registry: Registry) -> None:
        self.server = registry.local_group(ServerStats, "server")
        self.listeners = registry.local_group(ListenerManagerStats, "listener_manager")
        self.clusters = registry.local_group(ClusterManagerStats, "cluster_manager")
        self.runtime = registry.local_group(RuntimeStats, "runtime")
        self.filesystem = registry.local_group(FilesystemStats, "filesystem")

    def on_lost_log_line(self) -> None:
        """A line of the supervisor's own log could not be written."""
        self.filesystem.write_failed += 1

    def on_ready(self, took_s: float) -> None:
        """The first generation serves."""
        self.server.initialization_time_ms[round(took_s * 1000)] += 1
        self.listeners.workers_started = 1

    def on_generation(self, before: BootstrapConfig | None, now: BootstrapConfig) -> None:
        """Another configuration is in force."""
        listeners = self.listeners
        old = {listener.name: listener for listener in before.listeners} if before else {}
        new = {listener.name: listener for listener in now.listeners}
        listeners.listener_added += len(new.keys() - old.keys())
        listeners.listener_removed += len(old.keys() - new.keys())
        listeners.listener_modified += sum(new[name] != old[name] for name in new.keys() & old.keys())
        listeners.total_listeners_active = len(new)
        clusters = self.clusters
        had = {cluster.name: cluster for cluster in before.clusters} if before else {}
        has = {cluster.name: cluster for cluster in now.clusters}
        clusters.cluster_added += len(has.keys() - had.keys())
        clusters.cluster_removed += len(had.keys() - has.keys())
        clusters.cluster_modified += sum(has[name] != had[name] for name in has.keys() & had.keys())
        clusters.active_clusters = len(has)
        self.runtime.load_success += 1
        self.runtime.num_keys = len(now.runtime)

    def update(self, *, state: str, uptime_s: float, workers: int, connections: int, version: int) -> None:
        """Bring the gauges up to date, before they are read."""
        server = self.server
        server.state = STATES[state]
        server.live = int(state == "LIVE")
        server.uptime = int(uptime_s)
        server.concurrency = workers
        server.total_connections = connections
        server.version = version


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
