"""``config.cluster.v3.Cluster`` → ClusterConfig."""

from __future__ import annotations

from dataclasses import field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from forkproxy.config import registry
from forkproxy.config.build.aggregate import AggregateConfig
from forkproxy.config.build.circuit_breakers import CircuitBreakers, build_circuit_breakers
from forkproxy.config.build.connection_pool import (
    DEFAULT_POOL_OPTIONS,
    HttpOptions,
    PoolOptions,
    build_http_options,
    build_pool_options,
)
from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import (
    AddressConfig,
    Where,
    build_address,
    build_header_key_format,
    build_where,
)
from forkproxy.config.build.eds import EdsConfig, build_eds
from forkproxy.config.build.header_formatters import PreserveCaseConfig, build_stateful_formatter
from forkproxy.config.build.health_check import (
    EndpointHealthCheck,
    HealthCheckConfig,
    build_endpoint_health_check,
    build_health_check,
)
from forkproxy.config.build.load_balancing import LoadBalancingConfig, build_load_balancing, metadata_json
from forkproxy.config.build.metadata import NO_METADATA, build_filter_metadata, filter_metadata_json
from forkproxy.config.build.original_dst import OriginalDstConfig, build_original_dst
from forkproxy.config.build.outlier_detection import OutlierDetectionConfig, build_outlier_detection
from forkproxy.config.build.tls import UpstreamTlsConfig
from forkproxy.config.build.transport_sockets import (
    ProxyProtocol,
    SocketMatch,
    build_socket,
    build_socket_matches,
    match_metadata,
)
from forkproxy.config.values import frozen, replaced
from forkproxy.config.view import View

if TYPE_CHECKING:
    from forkproxy.config.build.dynamic_forward_proxy import DynamicForwardProxyCluster

    Dynamic: TypeAlias = OriginalDstConfig | DynamicForwardProxyCluster | AggregateConfig

default_connect_timeout_s = 5.0
default_dns_refresh_rate_s = 5.0
default_cleanup_interval_s = 5.0
SUPPORTED_TYPES = ("STATIC", "STRICT_DNS", "LOGICAL_DNS", "EDS", "ORIGINAL_DST")
_CHECKED_TYPES = ("STATIC", "STRICT_DNS", "LOGICAL_DNS", "EDS")
"""The types whose endpoints can be checked: of the others only requests know them."""
cluster_types_by_name = {
    "envoy.cluster.static": "STATIC",
    "envoy.cluster.strict_dns": "STRICT_DNS",
    "envoy.cluster.logical_dns": "LOGICAL_DNS",
    "envoy.cluster.eds": "EDS",
    "envoy.cluster.original_dst": "ORIGINAL_DST",
}
"""The cluster types that need no ``typed_config``: they follow the fields of ``Cluster``."""


@frozen
class EndpointConfig:
    """``LbEndpoint``: ``health_status`` is Envoy's enum name; ``hostname`` "" when not given."""

    address: AddressConfig
    weight: int
    hostname: str
    health_status: str
    where: Where
    metadata: str = ""
    """What load balancers read of its metadata, as JSON."""
    match_metadata: str = ""
    """What chooses its transport socket, as JSON."""
    filter_metadata: str = ""
    """All of its metadata, as JSON, for formats."""
    additional_addresses: tuple[AddressConfig, ...] = ()
    health_check: EndpointHealthCheck = EndpointHealthCheck()


@frozen
class LocalityEndpoints:
    """``LocalityLbEndpoints``; ``weight`` 0 when not given."""

    endpoints: tuple[EndpointConfig, ...]
    region: str = ""
    zone: str = ""
    sub_zone: str = ""
    priority: int = 0
    weight: int = 0
    overprovisioning_factor: int = 140
    weighted_priority_health: bool = False
    match_metadata: str = ""


@frozen
class TcpKeepalive:
    """``TcpKeepalive``; 0 leaves the kernel's value."""

    probes: int = 0
    time_s: int = 0
    interval_s: int = 0


@frozen
class ClusterConfig:
    """``Cluster``.

    ``type``: "STATIC", "STRICT_DNS", "LOGICAL_DNS", "EDS", "ORIGINAL_DST", "AGGREGATE" or "DYNAMIC_FORWARD_PROXY".
    ``stat_name``: alt_stat_name or the name, with ":" replaced by "_" as Envoy does. ``dns_lookup_family``: "AUTO", "V4_ONLY",
    "V6_ONLY", "V4_PREFERRED" or "ALL". ``idle_timeout_s`` None: pooled connections never time out.
    """

    name: str
    stat_name: str
    type: str
    connect_timeout_s: float
    localities: tuple[LocalityEndpoints, ...]
    tls: UpstreamTlsConfig | None
    per_connection_buffer_limit_bytes: int
    dns_lookup_family: str
    dns_refresh_rate_s: float
    dns_failure_refresh_base_s: float
    dns_failure_refresh_max_s: float
    respect_dns_ttl: bool
    dns_jitter_s: float
    dns_resolvers: tuple[AddressConfig, ...]
    use_tcp_for_dns_lookups: bool
    circuit_breakers: CircuitBreakers
    max_requests_per_connection: int
    idle_timeout_s: float | None
    enable_trailers: bool
    """HTTP/1 trailers pass, both ways."""
    header_key_format: str
    """ "" (lower-case) or "proper_case_words"; of requests."""
    tcp_keepalive: TcpKeepalive | None
    where: Where
    eds: EdsConfig | None = None
    """Where the endpoints of an EDS cluster come from."""
    dynamic: Dynamic | None = None
    """Where those come from that only requests, or other clusters, know."""
    override_health: frozenset[int] = frozenset((0, 1))
    """Which health (0 healthy, 1 degraded, 2 unhealthy) lets an endpoint be chosen by its address (stateful sessions)."""
    happy_eyeballs: tuple[str, int] = ("", 1)
    """("V4", "V6" or "" for the first address's, how many addresses of that family come first)."""
    cleanup_interval_s: float = default_cleanup_interval_s
    """After how long hosts of an ORIGINAL_DST cluster that nobody uses are removed."""
    load_balancing: LoadBalancingConfig = field(default_factory=LoadBalancingConfig)
    pool: PoolOptions = DEFAULT_POOL_OPTIONS
    proxy_protocol: ProxyProtocol | None = None
    """What connections begin with, before TLS."""
    socket_matches: tuple[SocketMatch, ...] = ()
    health_check: HealthCheckConfig | None = None
    ignore_health_on_host_removal: bool = False
    preserve_case: PreserveCaseConfig | None = None
    send_fully_qualified_url: bool = False
    outlier_detection: OutlierDetectionConfig | None = None
    metadata: dict[str, Any] = field(default_factory=lambda: NO_METADATA)
    """By namespace, for formats."""


@frozen
class DnsResolver:
    """What a DNS resolver configuration says; ``addresses`` empty: the system's resolvers."""

    addresses: tuple[AddressConfig, ...] = ()
    use_tcp: bool = False


@frozen
class DnsSettings:
    """The DNS fields of ``Cluster`` or of ``extensions.clusters.dns.v3.DnsCluster``."""

    refresh_rate_s: float
    failure_base_s: float
    failure_max_s: float
    respect_ttl: bool
    jitter_s: float
    lookup_family: str
    resolver: DnsResolver | None
    all_addresses_in_single_endpoint: bool = False


def build_cares_resolver(view: View, context: BuildContext) -> DnsResolver:
    """``CaresDnsResolverConfig``; its time-outs and tries stay unread."""
    view.ignore("udp_max_queries", why="every query has its own socket")
    view.ignore("max_udp_channel_duration", why="every query has its own socket")
    view.ignore("reinit_channel_on_timeout", why="every query has its own socket")
    view.ignore("edns0_max_payload_size", why="a truncated answer is asked again over TCP")
    return _resolver(view, context)


def build_getaddrinfo_resolver(view: View, context: BuildContext) -> DnsResolver:
    """``GetAddrInfoDnsResolverConfig``: the system's resolvers."""
    view.ignore("num_resolver_threads", why="names are resolved outside the workers")
    return DnsResolver()


def _resolver(view: View, context: BuildContext) -> DnsResolver:
    options = view.message("dns_resolver_options")
    return DnsResolver(
        addresses=context.each(view.repeated("resolvers"), build_address),
        use_tcp=options is not None and options.bool("use_tcp_for_dns_lookups"),
    )


def build_dns_resolver(view: View, context: BuildContext) -> DnsResolver | None:
    """The resolver that ``Cluster`` or ``Bootstrap`` names: typed, else ``dns_resolution_config``, else the old fields."""
    use_tcp = view.bool("use_tcp_for_dns_lookups")
    old = view.message("dns_resolution_config")
    made = _typed_resolver(view, context)
    if made is not None:
        return made
    if old is not None:
        return _resolver(old, context)
    return DnsResolver((), use_tcp) if use_tcp else None


def _typed_resolver(view: View, context: BuildContext) -> DnsResolver | None:
    typed = view.message("typed_dns_resolver_config")
    if typed is None:
        return None
    made = context.extension(typed, "DNS resolver")
    return None if made is None else made.value


def _failure_refresh(view: View, refresh_rate_s: float) -> tuple[float, float]:
    """Without its own settings a failed resolution is repeated at the normal rate; the maximum is ten times the base."""
    rate = view.message("dns_failure_refresh_rate")
    if rate is None:
        return refresh_rate_s, refresh_rate_s
    base_s = rate.duration_s("base_interval", refresh_rate_s)
    max_s = rate.duration_s("max_interval", base_s * 10)
    if max_s < base_s:
        rate.report("must be greater than or equal to base_interval", field="max_interval")
    return base_s, max_s


def build_dns_cluster(view: View, context: BuildContext) -> DnsSettings:
    """``extensions.clusters.dns.v3.DnsCluster``."""
    refresh_rate_s = view.duration_s("dns_refresh_rate", default_dns_refresh_rate_s)
    base_s, max_s = _failure_refresh(view, refresh_rate_s)
    family = view.enum("dns_lookup_family")
    return DnsSettings(
        refresh_rate_s=refresh_rate_s,
        failure_base_s=base_s,
        failure_max_s=max_s,
        respect_ttl=view.bool("respect_dns_ttl"),
        jitter_s=view.duration_s("dns_jitter", 0.0),
        lookup_family="AUTO" if family == "UNSPECIFIED" else family,
        resolver=_typed_resolver(view, context),
        all_addresses_in_single_endpoint=view.bool("all_addresses_in_single_endpoint"),
    )


def _cluster_dns(view: View, context: BuildContext) -> DnsSettings:
    """The DNS fields of ``Cluster`` itself."""
    refresh_rate_s = view.duration_s("dns_refresh_rate", default_dns_refresh_rate_s)
    base_s, max_s = _failure_refresh(view, refresh_rate_s)
    old_addresses = context.each(view.repeated("dns_resolvers"), build_address)
    resolver = build_dns_resolver(view, context)
    if old_addresses and (resolver is None or not resolver.addresses):
        resolver = DnsResolver(old_addresses, resolver is not None and resolver.use_tcp)
    return DnsSettings(
        refresh_rate_s=refresh_rate_s,
        failure_base_s=base_s,
        failure_max_s=max_s,
        respect_ttl=view.bool("respect_dns_ttl"),
        jitter_s=view.duration_s("dns_jitter", 0.0),
        lookup_family=view.enum("dns_lookup_family"),
        resolver=resolver,
    )


def build_endpoint(view: View, context: BuildContext) -> EndpointConfig | None:
    """``LbEndpoint``; named endpoints stay unread."""
    metadata = metadata_json(view.message("metadata"))
    endpoint = view.message("endpoint")
    weight = view.uint("load_balancing_weight", 1)
    health_status = view.enum("health_status")
    if endpoint is None:
        return None
    health_check = build_endpoint_health_check(endpoint.message("health_check_config"), context)
    address = endpoint.message("address")
    if address is None:
        endpoint.report("an endpoint without an address is never reached", kind="warning")
        return None
    return EndpointConfig(
        address=build_address(address, context),
        weight=weight,
        hostname=endpoint.str("hostname"),
        health_status=health_status,
        where=build_where(view),
        metadata=metadata,
        match_metadata=match_metadata(view.message("metadata")),
        filter_metadata=filter_metadata_json(view.message("metadata")),
        additional_addresses=tuple(
            build_address(each.require("address"), context) for each in endpoint.repeated("additional_addresses")
        ),
        health_check=health_check,
    )


def build_locality(view: View, context: BuildContext) -> LocalityEndpoints:
    """``LocalityLbEndpoints``; LEDS stays unread."""
    view.ignore("proximity", why="Envoy does not use it either")
    locality = view.message("locality")
    endpoints = context.each(view.repeated("lb_endpoints"), build_endpoint)
    return LocalityEndpoints(
        endpoints=tuple(endpoint for endpoint in endpoints if endpoint is not None),
        region=locality.str("region") if locality is not None else "",
        zone=locality.str("zone") if locality is not None else "",
        sub_zone=locality.str("sub_zone") if locality is not None else "",
        priority=view.uint("priority"),
        weight=view.uint("load_balancing_weight"),
        match_metadata=match_metadata(view.message("metadata")),
    )


def build_load_assignment(view: View | None, context: BuildContext) -> tuple[LocalityEndpoints, ...]:
    """``ClusterLoadAssignment``; drop policies and named endpoints stay unread."""
    if view is None:
        return ()
    view.ignore("cluster_name", why="a static assignment belongs to the cluster that holds it")
    localities = context.each(view.repeated("endpoints"), build_locality)
    policy = view.message("policy")
    if policy is None:
        return localities
    factor, weighted = policy.uint("overprovisioning_factor", 140), policy.bool("weighted_priority_health")
    return tuple(
        replace(locality, overprovisioning_factor=factor, weighted_priority_health=weighted) for locality in localities
    )


@frozen
class _Http1:
    """``Http1ProtocolOptions`` of the upstream side."""

    enable_trailers: bool = False
    header_key_format: str = ""
    preserve_case: PreserveCaseConfig | None = None
    send_fully_qualified_url: bool = False


@frozen
class _UpstreamHttp:
    """What the HttpProtocolOptions extension, or the cluster's old fields, say of HTTP upstream."""

    options: HttpOptions
    http1: _Http1


def _http1_options(view: View | None, context: BuildContext) -> _Http1:
    if view is not None:
        view.ignore("allow_absolute_url", why="it concerns requests from downstream")
        view.ignore("accept_http_10", why="it concerns requests from downstream")
        view.ignore("default_host_for_http_10", why="it concerns requests from downstream")
        view.ignore("use_balsa_parser", why="it chooses between Envoy's own parsers")
        return _Http1(
            view.bool("enable_trailers"),
            build_header_key_format(view),
            build_stateful_formatter(view, context),
            view.bool("send_fully_qualified_url"),
        )
    return _Http1()


def build_http_protocol_options(view: View, context: BuildContext) -> _UpstreamHttp:
    """``extensions.upstreams.http.v3.HttpProtocolOptions`` with an explicit HTTP/1 configuration; HTTP/2 and 3 stay unread."""
    explicit = view.message("explicit_http_config")
    http1 = _http1_options(explicit.message("http_protocol_options"), context) if explicit is not None else _Http1()
    return _UpstreamHttp(build_http_options(view.message("common_http_protocol_options")), http1)


def _tcp_keepalive(view: View) -> TcpKeepalive | None:
    options = view.message("upstream_connection_options")
    keepalive = options.message("tcp_keepalive") if options is not None else None
    if keepalive is None:
        return None
    return TcpKeepalive(
        probes=keepalive.uint("keepalive_probes"),
        time_s=keepalive.uint("keepalive_time"),
        interval_s=keepalive.uint("keepalive_interval"),
    )


_OVERRIDE_HEALTH = {"UNKNOWN": 0, "HEALTHY": 0, "DEGRADED": 1, "UNHEALTHY": 2, "DRAINING": 2, "TIMEOUT": 2}


def _override_health(view: View) -> frozenset[int]:
    common = view.message("common_lb_config")
    status = common.message("override_host_status") if common is not None else None
    if status is None:
        return frozenset((0, 1))
    return frozenset(_OVERRIDE_HEALTH[each] for each in status.enums("statuses"))


def _happy_eyeballs(view: View) -> tuple[str, int]:
    options = view.message("upstream_connection_options")
    settings = options.message("happy_eyeballs_config") if options is not None else None
    if settings is None:
        return "", 1
    version = settings.enum("first_address_family_version")
    return version if version in ("V4", "V6") else "", settings.uint("first_address_family_count", 1)


def _health_check(view: View, context: BuildContext) -> HealthCheckConfig | None:
    checks = context.each(view.repeated("health_checks"), build_health_check)
    if len(checks) > 1:
        view.unsupported("several health checks of one cluster are not implemented", field="health_checks")
    return checks[0] if checks else None


def build_cluster(view: View, context: BuildContext) -> ClusterConfig:
    """``Cluster``. HTTP/2 and whatever is not named here stay unread."""
    localities = build_load_assignment(view.message("load_assignment"), context)
    rest = context.alike.rest(view, _build_rest, context, _APART)
    name = view.str("name")
    stat_name = (view.str("alt_stat_name") or name).replace(":", "_")
    return replaced(rest, name=name, stat_name=stat_name, localities=localities, where=build_where(view))


_APART = frozenset(("name", "alt_stat_name", "load_assignment"))
"""What nearly every cluster says in its own way (build/alike.py)."""


def _build_rest(view: View, context: BuildContext) -> ClusterConfig:
    view.ignore("wait_for_warm_on_init", why="a worker is ready when its names are resolved or have failed once")
    health_check = _health_check(view, context)
    outlier_detection = build_outlier_detection(view.message("outlier_detection"), context)
    cluster_type, dns, dynamic = _type_and_dns(view, context)
    if health_check is not None and cluster_type not in _CHECKED_TYPES:
        view.unsupported(f"health checks of {cluster_type} clusters are not implemented", field="health_checks")
    if cluster_type == "ORIGINAL_DST":
        dynamic = build_original_dst(view)
    else:
        view.ignore("cleanup_interval", why="only ORIGINAL_DST clusters use it")
    http1 = _http1_options(view.message("http_protocol_options"), context)
    options = build_http_options(view.message("common_http_protocol_options"))
    max_requests = view.uint("max_requests_per_connection") or options.max_requests_per_connection
    for name_of_options, typed in view.map_("typed_extension_protocol_options").items():
        if not registry.named(name_of_options):
            typed.report(f'no extension "{name_of_options}" takes protocol options')
        made = context.typed(typed, f'protocol options "{name_of_options}"')
        if made is not None:
            http: _UpstreamHttp = made.value
            options = http.options
            max_requests = options.max_requests_per_connection or max_requests
            http1 = http.http1
    socket = build_socket(view.message("transport_socket"), context)
    balancing = build_load_balancing(view, context, cluster_type)
    resolver = dns.resolver or context.dns_resolver or DnsResolver()
    return ClusterConfig(
        name="",
        stat_name="",
        type=cluster_type,
        connect_timeout_s=view.duration_s("connect_timeout", default_connect_timeout_s),
        localities=(),
        tls=socket.tls,
        proxy_protocol=socket.proxy_protocol,
        socket_matches=build_socket_matches(view, context),
        per_connection_buffer_limit_bytes=view.uint("per_connection_buffer_limit_bytes", 1 << 20),
        dns_lookup_family=dns.lookup_family,
        dns_refresh_rate_s=dns.refresh_rate_s,
        dns_failure_refresh_base_s=dns.failure_base_s,
        dns_failure_refresh_max_s=dns.failure_max_s,
        respect_dns_ttl=dns.respect_ttl,
        dns_jitter_s=dns.jitter_s,
        dns_resolvers=resolver.addresses,
        use_tcp_for_dns_lookups=resolver.use_tcp,
        circuit_breakers=build_circuit_breakers(view.message("circuit_breakers"), context),
        max_requests_per_connection=max_requests,
        idle_timeout_s=options.idle_timeout_s,
        enable_trailers=http1.enable_trailers,
        header_key_format=http1.header_key_format,
        preserve_case=http1.preserve_case,
        send_fully_qualified_url=http1.send_fully_qualified_url,
        tcp_keepalive=_tcp_keepalive(view),
        pool=build_pool_options(view, context, options),
        where=Where(),
        eds=build_eds(view, context) if cluster_type == "EDS" else None,
        load_balancing=balancing,
        dynamic=dynamic,
        happy_eyeballs=_happy_eyeballs(view),
        override_health=_override_health(view),
        cleanup_interval_s=view.duration_s("cleanup_interval", default_cleanup_interval_s),
        health_check=health_check,
        outlier_detection=outlier_detection,
        ignore_health_on_host_removal=view.bool("ignore_health_on_host_removal"),
        metadata=build_filter_metadata(view.message("metadata")),
    )


def _type_and_dns(view: View, context: BuildContext) -> tuple[str, DnsSettings, Dynamic | None]:
    """The discovery type by its enum, or by the DNS cluster extension."""
    dns = _cluster_dns(view, context)
    if view.which("cluster_discovery_type") != "cluster_type":
        return view.enum("type", supported=SUPPORTED_TYPES), dns, None
    custom = view.require("cluster_type")
    name = custom.str("name")
    if not custom.has("typed_config"):
        kind = cluster_types_by_name.get(name)
        if kind is None:
            custom.unsupported(f'the cluster type "{name}" is not implemented', field="name")
        return kind or "STATIC", dns, None
    made = context.extension(custom, "cluster type")
    if made is None:
        return "STATIC", dns, None
    match made.value:
        case DnsSettings() as settings:
            return "LOGICAL_DNS" if settings.all_addresses_in_single_endpoint else "STRICT_DNS", settings, None
        case AggregateConfig() as aggregate:
            return "AGGREGATE", dns, aggregate
        case other:
            return "DYNAMIC_FORWARD_PROXY", dns, other
