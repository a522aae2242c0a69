"""One generation of the configuration as the supervisor keeps it: what the workers run, what it needs bound, what DNS said."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Protocol

from forkproxy.config.build.bootstrap import BootstrapConfig
from forkproxy.net.loop import Loop
from forkproxy.stats.counters import Registry
from forkproxy.supervisor.endpoint_files import EndpointFile
from forkproxy.supervisor.listening import Binding, ListenAddress
from forkproxy.upstream.cluster import Cluster
from forkproxy.upstream.dns import Target
from forkproxy.upstream.dns_cache import DnsCache
from forkproxy.upstream.health_check.checker import HealthChecker, Report
from forkproxy.upstream.outlier_detection import EndpointCells
from forkproxy.worker.after_fork import Identity
from forkproxy.worker.worker import Endpoints, RunnableGeneration


class BuiltGeneration(RunnableGeneration, Protocol):
    """A generation as ``build_generation`` returns it."""

    @property
    def clusters(self) -> dict[str, Cluster]:
        """Its clusters by name."""

    @property
    def dns_caches(self) -> dict[str, DnsCache]:
        """Its DNS caches by name."""

    def has_too_many_connections(self) -> bool:
        """As many as the limit that the admin keeps, too."""

    @property
    def log_paths(self) -> Collection[str]:
        """The files that its workers log accesses to."""

    @property
    def outlier_cells(self) -> dict[str, list[EndpointCells]]:
        """Of clusters with outlier detection: where the results of requests are counted, by slot."""

    @property
    def outlier_log(self) -> Callable[[bytes], None] | None:
        """Takes lines of the event log of outlier detection."""

    def start_outlier_log(self, loop: Loop) -> None:
        """Open it."""

    def stop_outlier_log(self) -> None:
        """Write what it holds, and close it."""

    def reopen_outlier_log(self) -> None:
        """Open it again under its name."""

    @property
    def health_checkers(self) -> dict[str, HealthChecker]:
        """Its health checkers by cluster."""

    def start_health_checks(self, loop: Loop, report: Report, *, unchecked: Collection[str]) -> None:
        """In the process that checks: begin. ``unchecked``: the clusters of which nothing is known yet."""

    def reopen_health_logs(self) -> None:
        """In that process: open the event logs again."""

    def flush_health_logs(self) -> None:
        """In that process: write out what event logs have buffered."""

    @property
    def listen_addresses(self) -> list[ListenAddress]:
        """What must be bound for it."""


BuildGeneration = Callable[[BootstrapConfig, Registry, int], BuiltGeneration]
"""(bootstrap, registry, generation number) → the generation. ConfigError when it cannot be built."""


@dataclass(eq=False, slots=True)
class GenerationRun:
    """``bindings`` by (listener name, address index). Times are ``loop.now`` seconds.

    ``endpoints``: what DNS or an EDS file last said, by cluster. ``unresolved``: the clusters that have had no answer for all
    their names yet; workers wait for them as Envoy warms clusters before it listens, but not beyond ``warm_deadline``.
    """

    number: int
    bootstrap: BootstrapConfig
    generation: BuiltGeneration
    bindings: dict[tuple[str, int], Binding]
    identity: Identity | None = None
    admin_socket: socket.socket | None = None
    """Bound for this generation's admin address, when it is another than the one before."""
    dns_targets: list[Target] = field(default_factory=list)
    endpoint_files: list[EndpointFile] = field(default_factory=list)
    endpoints: dict[str, Endpoints] = field(default_factory=dict)
    unresolved: set[str] = field(default_factory=set)
    unchecked: set[str] = field(default_factory=set)
    """Clusters whose endpoints have not all had the result of a first health check; workers wait for it likewise."""
    warm_deadline: float = 0.0

    @property
    def sources(self) -> list[Target | EndpointFile]:
        """Where the endpoints come from that the configuration itself does not list."""
        return [*self.dns_targets, *self.endpoint_files]

    def begin_warming(self, before: GenerationRun | None, deadline: float) -> None:
        """Take over what the generation before knows of unchanged DNS and EDS clusters; the others come first."""
        self.warm_deadline = deadline
        self._adopt(before)
        self.warm_deadline += self._first_round_s()

    def _adopt(self, before: GenerationRun | None) -> None:
        self.unresolved = {source.cluster for source in self.sources}
        self.unchecked = set(self.generation.health_checkers)
        if before is None:
            return
        self._adopt_names(before)
        for name, cluster in self.generation.clusters.items():
            old = before.generation.clusters.get(name)
            if old is not None:
                cluster.adopt_health(old)
                if old.config == cluster.config and name not in before.unchecked:
                    self.unchecked.discard(name)

    def _first_round_s(self) -> float:
        # How long it takes at most until endpoints of which nothing is known have had their first result.
        configs = [self.generation.health_checkers[name].config for name in self.unchecked]
        return max((config.initial_jitter_s + config.timeout_s + 1.0 for config in configs), default=0.0)

    def _adopt_names(self, before: GenerationRun) -> None:
        for name, cluster in self.generation.clusters.items():
            old = before.generation.clusters.get(name)
            known = before.endpoints.get(name)
            if cluster.config.type == "ORIGINAL_DST" and known and old is not None and old.config == cluster.config:
                cluster.adopt_slots(old)
                self.set_endpoints(name, known)
        sources_before = set(before.sources)
        for source in self.sources:
            name = source.cluster
            old, new = before.generation.clusters.get(name), self.generation.clusters.get(name)
            if old is not None and new is not None and old.config.type != "STATIC":
                new.adopt_slots(old)
            known = before.endpoints.get(name)
            if known and source in sources_before:
                self.unresolved.discard(name)
                self.set_endpoints(name, known)

    def is_warm(self, now: float) -> bool:
        """Whether workers may start."""
        return not (self.unresolved or self.unchecked) or now >= self.warm_deadline

    def set_endpoints(self, cluster: str, endpoints: Endpoints) -> None:
        """What DNS or the file says now, for the workers to be born."""
        self.endpoints[cluster] = endpoints
        self.generation.set_endpoints(cluster, endpoints)
