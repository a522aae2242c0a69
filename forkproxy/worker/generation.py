"""One configuration made live: clusters, filter chains, listeners.

``build_generation`` runs in the supervisor and opens nothing, so that whatever is wrong with a configuration shows before a
worker is forked; ``Generation.start`` runs in each worker. A worker's whole view of the configuration is one Generation.
"""

from __future__ import annotations

import socket
import traceback
from collections.abc import Mapping, Sequence
from functools import partial

import psutil

from forkproxy import log
from forkproxy.access_log.access_log import AccessLog
from forkproxy.access_log.sinks import Sinks
from forkproxy.config.build.access_log import AccessLogConfig
from forkproxy.config.build.bootstrap import BootstrapConfig
from forkproxy.config.build.cluster import ClusterConfig
from forkproxy.config.build.core import AddressConfig
from forkproxy.config.build.listener import FilterChain, FilterChainMatch, ListenerConfig
from forkproxy.filters import factory
from forkproxy.filters.context import FilterContext, WorkerContext
from forkproxy.filters.network.http_connection_manager import HttpConnectionManagerFilter
from forkproxy.net.connection import Connection
from forkproxy.net.filter import NetworkFilter, NetworkFilterChain, WriteFilteredConnection
from forkproxy.net.loop import Loop
from forkproxy.router.matcher import compile_header_matcher
from forkproxy.stats.counters import Registry
from forkproxy.stats.groups import ClusterStats, EndpointStats, ListenerStats, ListenerWorkerStats, TlsStats
from forkproxy.upstream.cluster import Cluster, Transport, static_endpoints
from forkproxy.worker.failure_log import FailureLog
from forkproxy.worker.listener import ChainMatch, Listener, LiveFilterChain, MakeConnection

DNS_ENDPOINT_SLOTS = 64
"""Statistics of a DNS cluster's endpoints are kept apart for this many addresses at a time."""
IDLE_GRACE_S = 1.0
"""While draining, a connection without a request for this long is closed: it is no longer likely that one is under way."""
IDLE_SWEEP_S = 0.25

_log = log.get_logger("worker")
_ANY = FilterChainMatch()


class Generation:
    """What one worker runs. Everything before ``start`` happens in the supervisor."""

    def __init__(self, number: int, clusters: dict[str, Cluster], listeners: list[Listener], sinks: Sinks) -> None:
        self.number = number
        self.clusters = clusters
        self.listeners = listeners
        self._filters: list[NetworkFilter] = []
        self._sinks = sinks
        self._loop: Loop | None = None
        self._failures = FailureLog()
        for cluster in clusters.values():
            cluster.on_upstream_failure = self._failures.on_upstream_failure

    # -- what the supervisor asks

    @property
    def listen_addresses(self) -> list[tuple[str, int, AddressConfig, ListenerConfig]]:
        """What must be bound: (listener name, index, address, listener)."""
        return [
            (listener.config.name, index, address, listener.config)
            for listener in self.listeners
            for index, address in enumerate(listener.config.addresses)
        ]

    def set_endpoints(self, cluster: str, endpoints: Sequence[Mapping[str, object]]) -> None:
        """What DNS says of a cluster now; addresses it had keep their connections."""
        live = self.clusters.get(cluster)
        if live is not None:
            live.set_resolved(endpoints)

    # -- the worker's life

    def start(self, loop: Loop, sockets: dict[tuple[str, int], list[socket.socket]], slot: int = 0) -> None:
        """Serve ``sockets``. OSError or ConfigError when that cannot be."""
        self._loop = loop
        self._sinks.start(loop)
        for cluster in self.clusters.values():
            cluster.start(loop)
        context = WorkerContext(loop, slot)
        for network_filter in self._filters:
            network_filter.start(context)
        for listener in self.listeners:
            name = listener.config.name
            own = [sock for index in range(len(listener.config.addresses)) for sock in sockets.get((name, index), ())]
            listener.start(loop, own, slot)

    @property
    def connections(self) -> int:
        """Downstream connections open now."""
        return sum([len(listener.connections) for listener in self.listeners])

    @property
    def accepted(self) -> int:
        """Downstream connections accepted so far."""
        return sum([listener.accepted for listener in self.listeners])

    @property
    def requests(self) -> int:
        """HTTP requests so far."""
        return sum([manager.manager.stats.downstream_rq_total for manager in self._managers()])

    def _managers(self) -> list[HttpConnectionManagerFilter]:
        return [found for found in self._filters if isinstance(found, HttpConnectionManagerFilter)]

    def sync_stats(self) -> None:
        """Bring up to date what is not counted as it happens. Before statistics are flushed."""
        for found in self._managers():
            found.manager.sync_stats()
        for cluster in self.clusters.values():
            if cluster.connections:
                cluster.sync_bytes()

    def drain(self) -> None:
        """Stop accepting; every connection is asked to go and may finish what it does."""
        for listener in self.listeners:
            listener.stop_accepting()
        for network_filter in self._filters:
            network_filter.stop()
        self._close_idle()

    def _close_idle(self) -> None:
        for found in self._managers():
            found.manager.close_idle(IDLE_GRACE_S)
        if self._loop is not None and self.connections:
            self._loop.call_later(IDLE_SWEEP_S, self._close_idle)

    def stop(self) -> None:
        """Close everything now."""
        for listener in self.listeners:
            listener.stop()
        for cluster in self.clusters.values():
            cluster.drain()
        self.sync_stats()
        self._sinks.flush()

    def reopen_logs(self) -> None:
        """Open the access logs again under their names (SIGUSR1)."""
        self._sinks.reopen()

    def flush_logs(self) -> None:
        """Write out what the access logs hold."""
        self._sinks.flush()

    def add_filters(self, filters: Sequence[NetworkFilter]) -> None:
        """Filters to start and stop with this generation."""
        self._filters.extend(filters)


def build_generation(
    bootstrap: BootstrapConfig,
    registry: Registry,
    *,
    number: int,
    options: Mapping[str, object] | None = None,
) -> Generation:
    """Make a configuration live, short of opening anything. ConfigError when a filter, a format or a certificate is wrong.

    ``options``: ``file_flush_interval_s``, how long access logs may hold lines back.
    """
    flush_s = (options or {}).get("file_flush_interval_s")
    sinks = Sinks(flush_interval_s=float(flush_s)) if isinstance(flush_s, int | float) else Sinks()
    clusters = {config.name: _build_cluster(config, registry) for config in bootstrap.clusters}
    filters: list[NetworkFilter] = []
    local_ip = local_address()
    listeners = [
        _build_listener(config, bootstrap, registry, clusters, sinks, filters, local_ip)
        for config in bootstrap.listeners
    ]
    generation = Generation(number, clusters, listeners, sinks)
    generation.add_filters(filters)
    return generation


def local_address() -> str:
    """This machine's first IPv4 address that is not loopback, else "" (Envoy's "local address")."""
    for interface in psutil.net_if_addrs().values():
        for entry in interface:
            if entry.family == socket.AF_INET and not entry.address.startswith("127."):
                return str(entry.address)
    return ""


def _build_cluster(config: ClusterConfig, registry: Registry) -> Cluster:
    stats = registry.group(ClusterStats, f"cluster.{config.stat_name}")
    if config.type == "STATIC":
        names = [str(endpoint.address) for locality in config.localities for endpoint in locality.endpoints]
        assert len(names) == len(static_endpoints(config))
    else:
        names = [f"slot_{slot}" for slot in range(DNS_ENDPOINT_SLOTS)]
    groups = [registry.group(EndpointStats, f"cluster.{config.stat_name}.endpoint.{name}") for name in names]
    return Cluster(config, stats, groups, _upstream_transport(config, registry))


def _upstream_transport(config: ClusterConfig, registry: Registry) -> Transport:
    if config.tls is None:
        return Connection
    from forkproxy.net.tls_context import upstream_transport

    return upstream_transport(config.tls, registry.group(TlsStats, f"cluster.{config.stat_name}.ssl"))


def _build_listener(
    config: ListenerConfig,
    bootstrap: BootstrapConfig,
    registry: Registry,
    clusters: dict[str, Cluster],
    sinks: Sinks,
    filters: list[NetworkFilter],
    local_ip: str,
) -> Listener:
    def access_logs(static: dict[str, str], configs: Sequence[AccessLogConfig]) -> list[AccessLog]:
        return [
            AccessLog(
                log_config,
                sinks.get(log_config.path, log_config.where),
                compile_header_matcher=compile_header_matcher,
                static=static,
            )
            for log_config in configs
        ]

    def live(chain: FilterChain) -> LiveFilterChain:
        static = {"FILTER_CHAIN_NAME": chain.name, "LISTENER_NAME": config.name}
        context = FilterContext(
            registry=registry,
            cluster=clusters.get,
            access_logs=partial(access_logs, static),
            listener_name=config.name,
            listener_stat_prefix=config.stat_prefix,
            node=bootstrap.node,
            stat_prefix=f"listener.{config.stat_prefix}",
            where=chain.where,
            report_exception=report_filter_exception,
            tls=chain.tls is not None,
            local_ip=local_ip,
        )
        chain_filters = factory.network_filters(chain.filters, context)
        filters.extend(chain_filters)
        network_chain = NetworkFilterChain(chain_filters)
        match = ChainMatch(chain.match) if chain.match != _ANY else None
        return LiveFilterChain(
            match, network_chain, _downstream_transport(chain, tls_stats, network_chain.has_write_filters)
        )

    all_chains = [*config.filter_chains, *([config.default_filter_chain] if config.default_filter_chain else [])]
    tls_stats = (
        registry.group(TlsStats, f"listener.{config.stat_prefix}.ssl")
        if any(chain.tls for chain in all_chains)
        else None
    )
    chains = [live(chain) for chain in config.filter_chains]
    default = live(config.default_filter_chain) if config.default_filter_chain is not None else None
    prefix = f"listener.{config.stat_prefix}"
    worker_groups: dict[int, ListenerWorkerStats] = {}

    def worker_stats(slot: int) -> ListenerWorkerStats | None:
        return worker_groups.get(slot)

    return Listener(config, chains, default, registry.group(ListenerStats, prefix), worker_stats)


def _downstream_transport(chain: FilterChain, stats: TlsStats | None, write_filters: bool) -> MakeConnection:
    if chain.tls is None:
        return WriteFilteredConnection if write_filters else Connection
    from forkproxy.net.tls_context import downstream_transport

    return downstream_transport(chain.tls, stats, write_filters=write_filters)


def report_filter_exception(filter_name: str, error: Exception) -> None:
    """A filter raised: its stream got 500 and the worker goes on; the traceback is for its author."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    _log.exception("a filter raised an exception: its stream ends with 500", error, filter=filter_name, place=place)
