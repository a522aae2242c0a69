"""The health checkers of a generation, made in the supervisor; they run in a process of their own, not in workers.

What stands above the floor of health checks (header formats, string matchers, log files) is compiled here and handed down.
"""

from __future__ import annotations

import socket
from dataclasses import replace

from forkproxy.access_log.formatter import compile_header_value
from forkproxy.access_log.sinks import Sinks
from forkproxy.config.build.cluster import ClusterConfig
from forkproxy.config.build.core import HeaderMutations
from forkproxy.config.build.health_check import HealthCheckConfig, HttpCheck, RedisCheck
from forkproxy.net.address import SocketAddress
from forkproxy.net.connection import Connection
from forkproxy.net.loop import Loop
from forkproxy.router.header_mutation import compile_request
from forkproxy.router.matcher import compile_string
from forkproxy.stats.counters import Registry
from forkproxy.stats.groups import HealthCheckStats, RedisHealthCheckStats, TlsStats
from forkproxy.stats.shared import CommonCell
from forkproxy.upstream.cluster import Cluster
from forkproxy.upstream.health_check.checker import HealthChecker
from forkproxy.upstream.transports import Transport


def traffic_cell(registry: Registry, config: ClusterConfig) -> CommonCell:
    """Where it stands, over reloads, whether a cluster ever had a connection for traffic."""
    return registry.shared.common("traffic", f"cluster.{config.stat_name}")


def noting_traffic(transport: Transport, traffic: CommonCell) -> Transport:
    """``transport`` that tells of the first connection; for clusters with health checks, whose intervals depend on it."""

    def make(loop: Loop, sock: socket.socket, address: SocketAddress, buffer_limit_bytes: int) -> Connection:
        if not traffic.get():
            traffic.set(1)
        return transport(loop, sock, address, buffer_limit_bytes)

    return make


def tls_of_checks(config: ClusterConfig) -> ClusterConfig:
    """The cluster with the TLS settings that its checks use: ``tls_options`` replace the ALPN protocols."""
    check, tls = config.health_check, config.tls
    if check is None or tls is None or not check.alpn_protocols:
        return config
    return replace(config, tls=replace(tls, common=replace(tls.common, alpn_protocols=check.alpn_protocols)))


def make_checker(
    cluster: Cluster, config: HealthCheckConfig, registry: Registry, sinks: Sinks, transport: Transport
) -> HealthChecker:
    """The checker of a cluster. ConfigError for a format, a regex or a path that is wrong."""
    check = config.check
    finalize = matches_service = None
    if isinstance(check, HttpCheck):
        mutations = HeaderMutations(request_add=check.headers_to_add, request_remove=check.headers_to_remove)
        finalize = compile_request([(mutations, config.where)], compile_header_value)
        if check.service_name is not None:
            matches_service = compile_string(check.service_name, config.where)
    prefix = f"cluster.{cluster.stat_name}"
    return HealthChecker(
        cluster,
        config,
        registry.group(HealthCheckStats, f"{prefix}.health_check"),
        transport=transport,
        traffic=traffic_cell(registry, cluster.config),
        sinks=[sinks.get(path, config.where).write for path in config.event_logs],
        finalize=finalize,
        matches_service=matches_service,
        transport_stats=registry.group(TlsStats, f"{prefix}.ssl") if cluster.config.tls else None,
        redis_stats=(
            registry.group(RedisHealthCheckStats, f"{prefix}.health_check.redis")
            if isinstance(check, RedisCheck)
            else None
        ),
    )
