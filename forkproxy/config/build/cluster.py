"""``config.cluster.v3.Cluster`` → ClusterConfig."""

from __future__ import annotations

from dataclasses import dataclass

from forkproxy.config.build.core import AddressConfig, Where
from forkproxy.config.build.tls import UpstreamTlsConfig


@dataclass(frozen=True, slots=True)
class EndpointConfig:
    """``LbEndpoint``: ``health_status`` is Envoy's enum name; ``hostname`` "" when not given."""

    address: AddressConfig
    weight: int
    hostname: str
    health_status: str
    where: Where


@dataclass(frozen=True, slots=True)
class LocalityEndpoints:
    """``LocalityLbEndpoints``; ``weight`` 0 when not given."""

    endpoints: tuple[EndpointConfig, ...]
    region: str = ""
    zone: str = ""
    sub_zone: str = ""
    priority: int = 0
    weight: int = 0


@dataclass(frozen=True, slots=True)
class CircuitBreakerThresholds:
    """``CircuitBreakers.Thresholds``; Envoy's defaults (1024, 1024, 1024, 3)."""

    max_connections: int = 1024
    max_pending_requests: int = 1024
    max_requests: int = 1024
    max_retries: int = 3


@dataclass(frozen=True, slots=True)
class TcpKeepalive:
    """``TcpKeepalive``; 0 leaves the kernel's value."""

    probes: int = 0
    time_s: int = 0
    interval_s: int = 0


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """``Cluster``.

    ``type``: "STATIC", "STRICT_DNS" or "LOGICAL_DNS". ``lb_policy``: "ROUND_ROBIN", "LEAST_REQUEST" or "RANDOM".
    ``stat_name``: alt_stat_name or the name, with ":" replaced by "_" as Envoy does. ``dns_lookup_family``: "AUTO", "V4_ONLY",
    "V6_ONLY", "V4_PREFERRED" or "ALL". ``idle_timeout_s`` None: pooled connections never time out.
    """

    name: str
    stat_name: str
    type: str
    lb_policy: str
    connect_timeout_s: float
    localities: tuple[LocalityEndpoints, ...]
    tls: UpstreamTlsConfig | None
    per_connection_buffer_limit_bytes: int
    dns_lookup_family: str
    dns_refresh_rate_s: float
    dns_failure_refresh_base_s: float
    dns_failure_refresh_max_s: float
    respect_dns_ttl: bool
    dns_resolvers: tuple[AddressConfig, ...]
    use_tcp_for_dns_lookups: bool
    least_request_choice_count: int
    circuit_breakers: CircuitBreakerThresholds
    max_requests_per_connection: int
    idle_timeout_s: float | None
    tcp_keepalive: TcpKeepalive | None
    upstream_bind_address: AddressConfig | None
    where: Where
