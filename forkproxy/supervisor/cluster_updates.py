"""How the endpoints of clusters came and changed, counted once for the program: ``cluster.*.update_*``, ``membership_change``."""

from __future__ import annotations

from datetime import UTC, datetime

import xxhash

from forkproxy.net.address import SocketAddress
from forkproxy.stats.counters import Registry
from forkproxy.stats.groups import ClusterSubscriptionStats, ClusterUpdateStats
from forkproxy.supervisor.generation_run import GenerationRun
from forkproxy.upstream.dynamic_cluster import ForwardProxyCluster


class ClusterUpdates:
    """Counts; knows which endpoints a cluster had, over all generations that have it."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._members: dict[str, dict[int, set[SocketAddress | str]]] = {}
        """By cluster and priority: Envoy counts the changes of each priority's set."""
        self._prefixes: dict[str, str] = {}

    def on_generation(self, run: GenerationRun) -> None:
        """``run`` is in force: its clusters have figures, and those of STATIC ones may have changed."""
        clusters = run.generation.clusters
        for name in self._members.keys() - clusters.keys():
            del self._members[name]
            self._registry.forget_local(self._prefixes.pop(name))
        for name in clusters:
            self.on_membership(run, name)

    def on_membership(self, run: GenerationRun, cluster: str) -> None:
        """The endpoints of a cluster are set."""
        live = run.generation.clusters.get(cluster)
        if live is None:
            return
        stats = self._registry.local_group(ClusterUpdateStats, f"cluster.{live.stat_name}")
        # Two hosts of a forward proxy may have one address, and one that moves is still the same.
        is_by_name = isinstance(live, ForwardProxyCluster)
        members: dict[int, set[SocketAddress | str]] = {}
        for endpoint in live.endpoints:
            member = endpoint.hostname if is_by_name else endpoint.socket_address
            members.setdefault(endpoint.config.priority, set()).add(member)
        before = self._members.get(cluster, {})
        stats.membership_change += sum(
            before.get(priority) != members.get(priority) for priority in before.keys() | members.keys()
        )
        self._members[cluster] = members
        self._prefixes[cluster] = f"cluster.{live.stat_name}"

    def count(self, run: GenerationRun, cluster: str, results: list[str], version: str | None) -> None:
        """``results`` as the messages of resolver processes name them. ``version``: the version_info of an EDS file that
        was taken."""
        live = run.generation.clusters.get(cluster)
        if live is None:
            return
        prefix = f"cluster.{live.stat_name}"
        stats = self._registry.local_group(ClusterUpdateStats, prefix)
        for result in results:
            match result:
                case "attempt":
                    stats.update_attempt += 1
                case "success":
                    stats.update_success += 1
                case "empty":
                    stats.update_empty += 1
                case "failure":
                    stats.update_failure += 1
                case "no_rebuild":
                    stats.update_no_rebuild += 1
        if version is not None:
            stats.version = xxhash.xxh64_intdigest(version.encode())
        if live.config.type == "EDS":
            subscription = self._registry.local_group(ClusterSubscriptionStats, prefix)
            subscription.update_rejected += results.count("rejected")
            if version is not None:
                subscription.update_time = int(datetime.now(UTC).timestamp() * 1000)
