"""One configuration made live: clusters, filter chains, listeners.

``build_generation`` runs in the supervisor and opens nothing, so that whatever is wrong with a configuration shows before a
worker is forked; ``Generation.start`` runs in each worker. A worker's whole view of the configuration is one Generation.
"""

from __future__ import annotations

import gc
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

from forkproxy import log
from forkproxy.access_log.access_log import AccessLog
from forkproxy.access_log.filters import Compilers
from forkproxy.access_log.sinks import FLUSH_INTERVAL_S, Sinks
from forkproxy.config.build.access_log import AccessLogConfig
from forkproxy.config.build.aggregate import AggregateConfig
from forkproxy.config.build.bootstrap import BootstrapConfig
from forkproxy.config.build.cluster import ClusterConfig
from forkproxy.config.build.core import AddressConfig, Where
from forkproxy.config.build.dynamic_forward_proxy import DnsCacheConfig, DynamicForwardProxyCluster
from forkproxy.config.build.listener import FilterChain, FilterChainMatch, ListenerConfig
from forkproxy.config.build.original_dst import OriginalDstConfig
from forkproxy.config.build.transport_sockets import UpstreamSocket
from forkproxy.config.problems import ConfigError, Problem
from forkproxy.filters import factory
from forkproxy.filters.context import FilterContext, WorkerContext
from forkproxy.filters.network.http_connection_manager import HttpConnectionManagerFilter
from forkproxy.net.connection import Connection
from forkproxy.net.filter import NetworkFilter, NetworkFilterChain, WriteFilteredConnection
from forkproxy.net.loop import Loop
from forkproxy.net.sockets import own_ipv4_addresses
from forkproxy.router.hash_policy import compile_hash_policies
from forkproxy.router.matcher import compile_header_matcher
from forkproxy.router.metadata import compile_value
from forkproxy.stats.counters import Registry
from forkproxy.stats.group import CounterValue
from forkproxy.stats.groups import (
    ClusterStats,
    DnsCacheWorkerStats,
    EndpointStats,
    FilesystemStats,
    ListenerStats,
    ListenerWorkerStats,
    SocketFactoryStats,
    TlsStats,
)
from forkproxy.upstream.active_requests import CountingTogether
from forkproxy.upstream.aggregate_cluster import AggregateCluster
from forkproxy.upstream.circuit_breakers import BreakerCells, breaker_cells
from forkproxy.upstream.cluster import Cluster
from forkproxy.upstream.dns_cache import DnsCache
from forkproxy.upstream.dynamic_cluster import ForwardProxyCluster, OriginalDstCluster
from forkproxy.upstream.health_check.checker import HealthChecker, Report
from forkproxy.upstream.load_balancer import hash_stats
from forkproxy.upstream.outlier_detection import EndpointCells, Watch
from forkproxy.upstream.transports import SocketMatcher, Transport, announcing
from forkproxy.worker import statistics
from forkproxy.worker.connection_limits import ConnectionLimits, LimitedListener
from forkproxy.worker.failure_log import FailureLog
from forkproxy.worker.filter_failures import FilterFailures
from forkproxy.worker.handover import Handover
from forkproxy.worker.handshake_timeout import within
from forkproxy.worker.health_checks import make_checker, noting_traffic, tls_of_checks, traffic_cell
from forkproxy.worker.listener import ChainMatch, Listener, LiveFilterChain, MakeConnection

DNS_ENDPOINT_SLOTS = 64
"""Statistics of a DNS cluster's endpoints are kept apart for this many addresses at a time."""
ENDPOINT_SLOTS = {"EDS": 256, "ORIGINAL_DST": 256, "DYNAMIC_FORWARD_PROXY": 1024, "AGGREGATE": 0}
"""The same for others."""
IDLE_GRACE_S = 1.0
"""While draining, a connection without a request for this long is closed: it is no longer likely that one is under way."""
IDLE_SWEEP_S = 0.25

_log = log.get_logger("worker")
_ANY = FilterChainMatch()
_COMPILERS = Compilers(compile_header_matcher, compile_value)


class Generation:
    """What one worker runs. Everything before ``start`` happens in the supervisor."""

    def __init__(
        self, number: int, clusters: dict[str, Cluster], listeners: list[Listener], sinks: Sinks, built: _Building
    ) -> None:
        self.number = number
        self.clusters = clusters
        self.listeners = listeners
        self.outlier_cells = built.outlier_cells
        """By cluster: where the results of requests are counted."""
        self.outlier_log = built.outlier_log
        self.health_checkers = built.health_checkers
        """By cluster; they run in a process of their own."""
        self._built = built
        self.dns_caches = built.dns_caches
        self._filters = built.filters
        self._sinks = sinks
        self._loop: Loop | None = None
        self._sockets: dict[tuple[str, int], list[socket.socket]] = {}
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

    def has_too_many_connections(self) -> bool:
        """As many as the limit that the admin keeps, too."""
        return self._built.connection_limits.are_reached()

    @property
    def log_paths(self) -> list[str]:
        """The files that workers log accesses to."""
        return self._sinks.paths

    def set_endpoints(self, cluster: str, endpoints: Sequence[Mapping[str, object]]) -> None:
        """What DNS says of a cluster now; addresses it had keep their connections."""
        live = self.clusters.get(cluster)
        if live is not None:
            live.set_resolved(endpoints)

    def set_health(self, cluster: str, address: str, *, set: int, clear: int) -> None:
        """What was found out about an endpoint (upstream/health.py)."""
        live = self.clusters.get(cluster)
        if live is not None:
            live.set_health_flags(address, set=set, clear=clear)

    def start_outlier_log(self, loop: Loop) -> None:
        """In the supervisor: the event log of outlier detection is written from now on."""
        self._built.outlier_sinks.start(loop)

    def stop_outlier_log(self) -> None:
        """In the supervisor: no more; what it holds is written."""
        self._built.outlier_sinks.close()

    def reopen_outlier_log(self) -> None:
        """In the supervisor: open it again under its name."""
        self._built.outlier_sinks.reopen()

    # -- in the process that checks health

    def start_health_checks(self, loop: Loop, report: Report, *, unchecked: Collection[str]) -> None:
        """Check. ``unchecked``: the clusters of which nothing is known yet."""
        self._built.health_sinks.start(loop)
        for name, checker in self.health_checkers.items():
            checker.start(loop, report, is_known=name not in unchecked)

    def reopen_health_logs(self) -> None:
        """Open the event logs again under their names."""
        self._built.health_sinks.reopen()

    def flush_health_logs(self) -> None:
        """Write out what the event logs hold."""
        self._built.health_sinks.flush()

    def prepare_slot(self, slot: int) -> None:
        """A worker of this number is about to be forked: lay out what is counted per worker."""
        self._built.prepare_slot(slot)

    # -- the worker's life

    def start(self, loop: Loop, sockets: dict[tuple[str, int], list[socket.socket]], slot: int = 0) -> None:
        """Serve ``sockets``. OSError or ConfigError when that cannot be."""
        self._loop = loop
        self._sockets = sockets
        self._sinks.start(loop)
        log.count_losses(self._sinks.on_lost_log_line)
        for cluster in self.clusters.values():
            cluster.start(loop)
        context = WorkerContext(loop, slot)
        for network_filter in self._filters:
            network_filter.start(context)
        for listener in self.listeners:
            name = listener.config.name
            own = [sock for index in range(len(listener.config.addresses)) for sock in sockets.get((name, index), ())]
            listener.start(loop, own, slot)

    def adopt(self, key: tuple[str, int], sock: socket.socket) -> None:
        """Serve one socket more of a listener, by its name and address index; it is closed where that cannot be."""
        if any(listener.config.name == key[0] and listener.adopt(sock) for listener in self.listeners):
            self._sockets.setdefault(key, []).append(sock)
        else:
            sock.close()

    def keep_in_touch(self, send: Callable[[dict[str, Any]], None]) -> None:
        """``send`` reaches the supervisor: for what workers find out and others must know."""
        for cache in self.dns_caches.values():
            assert self._loop is not None
            cache.start(self._loop, send)
        for cluster in self.clusters.values():
            cluster.keep_in_touch(send)

    def on_dns(self, message: Mapping[str, Any]) -> None:
        """What the supervisor says of a host of a DNS cache."""
        cache = self.dns_caches.get(message["cache"])
        if cache is None:
            return
        if message["op"] == "dns_gone":
            cache.remove_host(message["host"])
        else:
            cache.set_host(message["host"], message["addresses"], message["reason"])

    def balance(self, handover: Handover) -> None:
        """Hand connections to workers that have fewer, and take theirs."""
        for number, listener in enumerate(self.listeners):
            listener.share = handover.share(number, listener.take_from_another, exact=listener.config.exact_balance)

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
            cluster.sync_stats()
        self._sinks.sync_stats()

    def drain(self, going: Collection[tuple[str, int]] = ()) -> None:
        """Stop accepting; every connection is asked to go and may finish what it does.

        The sockets that are ``going``, by listener name and address index, are served until ``close_listeners``.
        """
        kept = [sock for key in going for sock in self._sockets.get(key, ())]
        for listener in self.listeners:
            listener.stop_accepting(kept)
        for network_filter in self._filters:
            try:
                network_filter.stop()
            except Exception as error:
                self._built.failures.on_stop(type(network_filter).__qualname__, error)
        self._close_idle()

    @property
    def is_listening(self) -> bool:
        """Whether connections may still come."""
        return any(listener.is_listening for listener in self.listeners)

    def close_listeners(self) -> None:
        """The sockets that are left go with this worker: take what waits in their queues, then close them."""
        for listener in self.listeners:
            listener.close_listening()

    def stop_listening(self, listeners: Collection[str]) -> None:
        """The operator drains these listeners: take what waits in their queues, then close them. Connections stay."""
        for listener in self.listeners:
            if listener.config.name in listeners:
                listener.close_listening()

    def drain_connections(self, listeners: Collection[str], since: float, time_s: float) -> None:
        """Responses on connections of these listeners ask to close, more and more of them until ``since + time_s``."""
        for listener in self.listeners:
            if listener.config.name in listeners:
                for chain in listener.all_chains:
                    for found in chain.chain.filters:
                        if isinstance(found, HttpConnectionManagerFilter):
                            found.manager.leave_gradually(since, time_s)

    def fail_health_check(self, failed: bool) -> None:
        """The operator fails this host's health check, or lets it pass again."""
        for found in self._managers():
            found.manager.fail_health_check(failed)

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


def build_generation(
    bootstrap: BootstrapConfig,
    registry: Registry,
    *,
    number: int,
    options: Mapping[str, object] | None = None,
) -> Generation:
    """Make a configuration live, short of opening anything.

    ConfigError when a filter, a format or a certificate is wrong: with one problem for each cluster and filter chain in which
    something is.

    ``options``: ``file_flush_interval_s``, how long access logs may hold lines back.
    """
    # Nothing of it is garbage; to look for some takes longer than all the rest (1.0 of 1.2 s for 10,000 endpoints).
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return _build(bootstrap, registry, number, options or {})
    finally:
        if was_enabled:
            gc.enable()


def _build(bootstrap: BootstrapConfig, registry: Registry, number: int, options: Mapping[str, object]) -> Generation:
    statistics.check_tags(bootstrap.stats)
    registry.show_only(statistics.name_filter(bootstrap.stats))
    flush_s = options.get("file_flush_interval_s")
    sinks = Sinks(
        flush_interval_s=float(flush_s) if isinstance(flush_s, int | float) else FLUSH_INTERVAL_S,
        stats=registry.group(FilesystemStats, "filesystem"),
    )
    building = _Building(bootstrap, registry, sinks, FilterFailures(registry.counter("forkproxy.filter_exception")))
    building.clusters.update({config.name: building.cluster(config) for config in bootstrap.clusters})
    building.route_by_zone()
    for cluster in building.clusters.values():
        if isinstance(cluster, AggregateCluster):
            cluster.join(building.clusters)
    if bootstrap.outlier_event_log:
        building.open_outlier_log(bootstrap.outlier_event_log)
    listeners = [building.listener(config) for config in bootstrap.listeners]
    if building.problems:
        raise ConfigError.of(building.problems)
    return Generation(number, building.clusters, listeners, sinks, building)


def local_address() -> str:
    """This machine's first IPv4 address that is not loopback, else "" (Envoy's "local address")."""
    try:
        return next((address for address in own_ipv4_addresses() if not address.startswith("127.")), "")
    except OSError:
        return ""  # a sandbox without AF_INET: not worth a start that fails


class _Building:
    """A generation under construction. ``problems`` collects what is wrong; the parts that are not are built all the same."""

    def __init__(self, bootstrap: BootstrapConfig, registry: Registry, sinks: Sinks, failures: FilterFailures) -> None:
        self.bootstrap = bootstrap
        self.registry = registry
        self.sinks = sinks
        self.failures = failures
        self.local_ip = local_address()
        self.connection_limits = ConnectionLimits(bootstrap.connection_limits, registry.shared)
        self.health_sinks = Sinks(flush_interval_s=sinks.flush_interval_s)
        self.health_checkers: dict[str, HealthChecker] = {}
        self.outlier_sinks = Sinks(flush_interval_s=sinks.flush_interval_s)
        self.outlier_log: Callable[[bytes], None] | None = None
        self.outlier_cells: dict[str, list[EndpointCells]] = {}
        self.together = CountingTogether(bootstrap.clusters)
        self.clusters: dict[str, Cluster] = {}
        self.dns_caches: dict[str, DnsCache] = {}
        self.filters: list[NetworkFilter] = []
        self._configured: dict[LiveFilterChain, FilterChain] = {}  # of listeners with access logs
        self.problems: list[Problem] = []
        self.worker_stats: dict[str, dict[int, ListenerWorkerStats]] = {}
        """By the listener's prefix, then by slot."""

    def cluster(self, config: ClusterConfig) -> Cluster:
        registry = self.registry
        stats = self.together.cluster_stats(registry, config.stat_name)
        if config.type == "STATIC":
            names = [str(endpoint.address) for locality in config.localities for endpoint in locality.endpoints]
        else:
            slots = ENDPOINT_SLOTS.get(config.type, DNS_ENDPOINT_SLOTS)
            names = [f"slot_{slot}" for slot in range(slots)]
        groups = self.together.endpoint_stats(registry, config.stat_name, names)
        transport: Transport = Connection
        checked: Transport = Connection
        matcher: SocketMatcher | None = None
        try:
            own = UpstreamSocket(config.tls, config.proxy_protocol)
            transport, checked = _transports(config, own, registry)
            if config.socket_matches:
                matcher = _socket_matcher(config, registry)
        except ConfigError as error:
            # Listeners that use the cluster are looked at all the same, and do not miss it.
            self.problems += error.problems
        cells = breaker_cells(registry, config, names)
        cluster = self._make_cluster(config, stats, groups, transport, cells)
        cluster.use_matches(matcher, registry.local_group(ClusterStats, f"cluster.{config.stat_name}"))
        if config.health_check is not None or config.outlier_detection is not None:
            self._watch(cluster, names)
        if config.health_check is not None:
            try:
                self.health_checkers[config.name] = make_checker(
                    cluster, config.health_check, registry, self.health_sinks, checked
                )
            except ConfigError as error:
                self.problems += error.problems
        return cluster

    def _watch(self, cluster: Cluster, names: Sequence[str]) -> None:
        config = cluster.config
        cells: list[EndpointCells] = []
        if config.outlier_detection is not None:
            shared = self.registry.shared
            cells = [EndpointCells(shared, f"cluster.{config.stat_name}.endpoint.{name}") for name in names]
            self.outlier_cells[config.name] = cells
        is_checked = config.health_check is not None
        cluster.watch_results(Watch(config.name, config.outlier_detection, cells, is_checked=is_checked))

    def open_outlier_log(self, path: str) -> None:
        """The path of the event log, which is tried here and opened by the supervisor."""
        try:
            self.outlier_log = self.outlier_sinks.get(
                path, Where("cluster_manager.outlier_detection.event_log_path")
            ).write
        except ConfigError as error:
            self.problems += error.problems

    def _make_cluster(
        self,
        config: ClusterConfig,
        stats: ClusterStats,
        groups: Sequence[EndpointStats],
        transport: Transport,
        cells: BreakerCells,
    ) -> Cluster:
        match config.dynamic:
            case AggregateConfig():
                return AggregateCluster(config, stats, groups, transport, cells)
            case OriginalDstConfig():
                return OriginalDstCluster(config, stats, groups, transport, cells)
            case DynamicForwardProxyCluster(cache=cache):
                forward = ForwardProxyCluster(
                    self.dns_cache(cache, config.where), config, stats, groups, transport, cells
                )
                with suppress(ConfigError):  # told above
                    forward.transports = _host_transports(config, self.registry)
                return forward
        figures = hash_stats(self.registry, config.load_balancing.policy, f"cluster.{config.stat_name}")
        made = Cluster(config, stats, groups, transport, cells, figures)
        made.hash_method = compile_hash_policies(config.load_balancing.hash_policies, cookies=False)
        return made

    def route_by_zone(self) -> None:
        """Tell clusters where this node is, and which cluster its likes are in."""
        node = self.bootstrap.node
        locality = (node.region, node.zone, node.sub_zone)
        local = self.clusters.get(self.bootstrap.local_cluster_name)
        for cluster in self.clusters.values():
            cluster.balancer.set_locality(locality, local.balancer if local is not None else None)

    def dns_cache(self, config: DnsCacheConfig, where: Where) -> DnsCache:
        known = self.dns_caches.get(config.name)
        if known is None:
            stats = self.registry.group(DnsCacheWorkerStats, f"dns_cache.{config.name}")
            known = self.dns_caches[config.name] = DnsCache(config, stats)
        elif known.config != config:
            message = f"config specified DNS cache '{config.name}' with different settings"
            raise ConfigError(where.path, where.line, where.column, message)
        return known

    def listener(self, config: ListenerConfig) -> Listener:
        prefix = f"listener.{config.stat_prefix}"
        all_chains = [*config.filter_chains, *([config.default_filter_chain] if config.default_filter_chain else [])]
        has_tls = any(chain.tls for chain in all_chains)
        tls_stats = self.registry.group(TlsStats, f"{prefix}.ssl") if has_tls else None
        if has_tls:
            self.registry.group(SocketFactoryStats, f"{prefix}.server_ssl_socket_factory")
        chains: list[LiveFilterChain] = []
        default: LiveFilterChain | None = None
        for chain in all_chains:
            try:
                live = self._chain(config, chain, tls_stats)
            except ConfigError as error:
                self.problems += error.problems
                continue
            if chain is config.default_filter_chain:
                default = live
            else:
                chains.append(live)
        worker_stats = self.worker_stats.setdefault(prefix, {})
        stats = self.registry.group(ListenerStats, prefix)
        limits = self.connection_limits.of(config)
        if limits.counted:
            limited = LimitedListener(config, chains, default, stats, worker_stats.get)
            limited.limits = limits
            listener: Listener = limited
        else:
            listener = Listener(config, chains, default, stats, worker_stats.get)
        if config.access_logs:
            import_module("forkproxy.worker.connection_log").install(listener, partial(self._connection_logs, config))
        return listener

    def _connection_logs(self, config: ListenerConfig, live: LiveFilterChain | None) -> list[Callable[[Any], None]]:
        chain = self._configured.get(live) if live is not None else None
        logs = self._access_logs(_static(config, chain), config.access_logs, "NotSet")
        return [log.log for log in logs]

    def _chain(self, config: ListenerConfig, chain: FilterChain, tls_stats: TlsStats | None) -> LiveFilterChain:
        static = _static(config, chain)
        context = FilterContext(
            registry=self.registry,
            cluster=self.clusters.get,
            clusters=self.clusters.values,
            access_logs=partial(self._access_logs, static),
            static=static,
            listener_name=config.name,
            listener_stat_prefix=config.stat_prefix,
            node=self.bootstrap.node,
            stat_prefix=f"listener.{config.stat_prefix}",
            where=chain.where,
            report_exception=self.failures.in_stream,
            tls=chain.tls is not None,
            certificates=tuple([each.certificate_chain.data for each in chain.tls.common.certificates])
            if chain.tls
            else (),
            local_ip=self.local_ip,
            dns_cache=self.dns_cache,
        )
        filters = factory.network_filters(chain.filters, context)
        self.filters += filters
        network_chain = NetworkFilterChain(filters, self.failures.in_connection)
        transport = _downstream_transport(
            chain,
            tls_stats,
            self.registry.group(ListenerStats, f"listener.{config.stat_prefix}"),
            write_filters=network_chain.has_write_filters,
        )
        live = LiveFilterChain(ChainMatch(chain.match) if chain.match != _ANY else None, network_chain, transport)
        if config.access_logs:
            self._configured[live] = chain
        return live

    def _access_logs(
        self, static: dict[str, Any], configs: Sequence[AccessLogConfig], log_type: str = "DownstreamEnd", /
    ) -> list[AccessLog]:
        return [
            AccessLog(
                config,
                self.sinks.get(config.path, config.where),
                compilers=_COMPILERS,
                static={**static, "ACCESS_LOG_TYPE": log_type},
            )
            for config in configs
        ]

    def prepare_slot(self, slot: int) -> None:
        for prefix, by_slot in self.worker_stats.items():
            if slot not in by_slot:
                by_slot[slot] = self.registry.group(ListenerWorkerStats, f"{prefix}.worker_{slot}")


def _static(config: ListenerConfig, chain: FilterChain | None) -> dict[str, Any]:
    """What formats say of a place."""
    return {
        "FILTER_CHAIN_NAME": chain.name if chain is not None else "",
        "LISTENER_NAME": config.name,
        "LISTENER_METADATA": config.metadata,
        "FILTER_CHAIN_METADATA": chain.metadata if chain is not None else {},
    }


def _upstream_transport(config: ClusterConfig, registry: Registry) -> Transport:
    if config.tls is None:
        return Connection
    from forkproxy.net.tls_context import upstream_transport

    registry.group(SocketFactoryStats, f"cluster.{config.stat_name}.client_ssl_socket_factory")
    return upstream_transport(config.tls, registry.group(TlsStats, f"cluster.{config.stat_name}.ssl"))


def _transports(config: ClusterConfig, sock: UpstreamSocket, registry: Registry) -> tuple[Transport, Transport]:
    """A transport socket for traffic and for active health checks."""
    header = sock.proxy_protocol
    transport = announcing(_upstream_transport(replace(config, tls=sock.tls), registry), header)
    if config.health_check is None:
        return transport, transport
    checked = announcing(_upstream_transport(tls_of_checks(replace(config, tls=sock.tls)), registry), header)
    return noting_traffic(transport, traffic_cell(registry, config)), checked


def _socket_matcher(config: ClusterConfig, registry: Registry) -> SocketMatcher:
    pairs = [_transports(config, match.socket, registry) for match in config.socket_matches]
    prefix = f"cluster.{config.stat_name}"
    return SocketMatcher(
        config.socket_matches,
        [transport for transport, _ in pairs],
        [checked for _, checked in pairs],
        [
            registry.local_group(CounterValue, f"{prefix}.{each.name}.total_match_count")
            for each in config.socket_matches
        ],
    )


def _host_transports(config: ClusterConfig, registry: Registry) -> Callable[[str], Transport] | None:
    if config.tls is None:
        return None
    from forkproxy.net.tls_context import host_transports

    to = host_transports(config.tls, registry.group(TlsStats, f"cluster.{config.stat_name}.ssl"))
    return lambda host: announcing(to(host), config.proxy_protocol)


def _downstream_transport(
    chain: FilterChain, stats: TlsStats | None, listener_stats: ListenerStats, *, write_filters: bool
) -> MakeConnection:
    if chain.tls is None:
        return WriteFilteredConnection if write_filters else Connection
    from forkproxy.net.tls_context import downstream_transport

    transport = downstream_transport(chain.tls, stats, write_filters=write_filters)
    if chain.transport_socket_connect_timeout_s is None:
        return transport
    return within(chain.transport_socket_connect_timeout_s, transport, listener_stats)
