"""HTTP as a network filter: makes the connection manager of a filter chain from its configuration.

    - name: envoy.filters.network.http_connection_manager
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: ingress_http
        route_config: {…}
        http_filters: [{name: envoy.filters.http.router, typed_config: {…}}]

Everything that can be decided now is decided here; ``http.connection_manager`` runs what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any

from forkproxy.access_log.formatter import Format, compile_header_value
from forkproxy.access_log.operators import noting_needs
from forkproxy.access_log.tls_operators import PEER
from forkproxy.config.build.client_address import ClientAddressConfig, HeaderDetectionConfig, XffDetectionConfig
from forkproxy.config.build.client_certificate import ForwardClientCertConfig
from forkproxy.config.build.header_mutation import MutationStep
from forkproxy.config.build.http_connection_manager import HttpConnectionManagerConfig
from forkproxy.config.build.listener import FilterEntry
from forkproxy.config.build.local_reply import BodyFormat, ProxyStatusConfig
from forkproxy.config.build.route import RouteTableConfig
from forkproxy.config.problems import ConfigError
from forkproxy.filters import factory, per_route
from forkproxy.filters.context import FilterContext, WorkerContext
from forkproxy.http.chain import HttpFilterChain
from forkproxy.http.client_address import ClientAddresses, Detector, header_detector, xff_detector
from forkproxy.http.client_certificate import ForwardClientCert
from forkproxy.http.connection_manager import ConnectionManager, ConnectionManagerSettings, HttpConnection, Upgrades
from forkproxy.http.filter import HttpFilter
from forkproxy.http.header_case import as_it_is, match_upstream_scheme
from forkproxy.http.headers import proper_case
from forkproxy.http.http1 import ServerSettings
from forkproxy.http.log_flush import LogFlush
from forkproxy.http.proxy_status import ProxyStatus
from forkproxy.http.stream import LocalReplyRewriter
from forkproxy.http.trace_reason import TraceSampling
from forkproxy.net.connection import Connection
from forkproxy.net.der import uris
from forkproxy.net.filter import NetworkFilter
from forkproxy.net.timers import NEVER
from forkproxy.router import virtual_clusters
from forkproxy.router.durations import limiting
from forkproxy.router.header_mutation import Apply
from forkproxy.router.matcher import Dice, compile_string, fair
from forkproxy.router.policies import Policies
from forkproxy.router.ranges import compile_range
from forkproxy.router.table import ClusterLookup, RouteTable
from forkproxy.stats.groups import Http1Stats, HttpConnectionManagerStats, ListenerHttpStats

_ADD_HEADERS = ("", "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation")
"""Filters that may add any header to a request: third parties', and Envoy's own."""
_NO_STATIC: Mapping[str, Any] = {}


class HttpConnectionManagerFilter(NetworkFilter):
    """See the module's text."""

    terminal = True

    def __init__(self, manager: ConnectionManager, routes: RouteTable, filters: Sequence[HttpFilter]) -> None:
        self.manager = manager
        self.routes = routes
        self.filters = tuple(filters)
        """Of all chains."""
        self.http_connection = HttpConnection

    @classmethod
    def from_config(cls, config: HttpConnectionManagerConfig, context: FilterContext) -> HttpConnectionManagerFilter:
        """Compile routes, filters and access logs. ConfigError for what only shows then."""
        with noting_needs() as needs:
            made = cls._make(config, context)
        if needs:
            # Somebody wants to know what messages weigh: others than the usual connections and requests find that out.
            made.http_connection = import_module("forkproxy.http.meters").MeteredHttpConnection
            for each in made.filters:
                if getattr(each, "upstream_logs", needs) is None:  # a router that is not observed yet
                    import_module("forkproxy.filters.http.upstream_log").observe(each)
        return made

    @classmethod
    def _make(cls, config: HttpConnectionManagerConfig, context: FilterContext) -> HttpConnectionManagerFilter:
        prefix = f"http.{config.stat_prefix}"
        listener_prefix = f"listener.{context.listener_stat_prefix}.http.{config.stat_prefix}"
        registry = context.registry
        routes = make_routes(config.route_table, context.cluster, static=context.static)
        virtual_clusters.attach(routes, registry, context.node.zone)
        where, context.stat_prefix = context.where, prefix
        addresses = config.client_address
        context.internal_addresses = bool(addresses.internal_ranges) or addresses.internal_unix_sockets
        used, switches = per_route.used_filters(config.http_filters, config.route_table)
        policies = routes.policies()
        context.router_class = _router_class(policies, used, context)
        filters = factory.http_filters(used, context)
        per_route.resolve(routes.all_routes(), used, filters)
        upgrades: Upgrades | None = None
        if _has_upgrades(config, routes):
            # Imported when there are some: most configurations have none.
            from forkproxy.filters.network.upgrades import build_upgrades

            upgrades, more = build_upgrades(config, context, routes)
            filters += more
        context.where = where
        chain = HttpFilterChain(filters[: len(used)], switches)
        _flush_logs(config, context, chain)
        if config.match_upstream_scheme:
            chain.on_stream_complete += (match_upstream_scheme,)
        manager = ConnectionManager(
            _settings(config, context),
            chain,
            limiting(routes.match) if any(each.max_stream_duration for each in policies) else routes.match,
            stats=registry.group(HttpConnectionManagerStats, prefix),
            codes=registry.group(ListenerHttpStats, listener_prefix, rolls_up_to=(prefix,)).downstream_rq,
            http1_stats=registry.group(Http1Stats, "http1"),
            access_logs=context.access_logs(config.access_logs, "DownstreamEnd"),
            log_filter_exception=context.report_exception,
            rewrite_local_reply=_local_reply(config, context),
            upgrades=upgrades,
        )
        made = cls(manager, routes, filters)
        if upgrades is not None:
            made.http_connection = import_module("forkproxy.http.upgrades").Upgradable
        return made

    def start(self, worker: WorkerContext) -> None:
        """Start the HTTP filters too."""
        self.manager.start(worker.loop)
        for http_filter in self.filters:
            http_filter.start(worker)

    def stop(self) -> None:
        """Answer with ``connection: close`` from now on."""
        self.manager.drain()
        for http_filter in self.filters:
            try:
                http_filter.stop()
            except Exception as error:
                self.manager.on_filter_exception(type(http_filter).__qualname__, error)

    def reader(self, connection: Connection) -> Callable[[bytes], None]:
        """An HttpConnection reads the connection."""
        connection.session = http = self.http_connection(self.manager, connection)
        return http.on_data

    def on_close(self, connection: Connection, reason: str) -> None:
        """Tell the HttpConnection."""
        if connection.session is not None:
            connection.session.on_close(reason)


def make_routes(
    config: RouteTableConfig, cluster_lookup: ClusterLookup, dice: Dice = fair, static: Mapping[str, Any] = _NO_STATIC
) -> RouteTable:
    """The route table of a connection manager, bound to its clusters. ``static``: what formats say of its place."""
    routes = RouteTable(
        config,
        compile_format=partial(compile_header_value, static=static),
        compile_host_format=partial(compile_header_value, omit_empty_values=False, static=static),
        compile_body=_direct_body,
        cluster_lookup=cluster_lookup,
        dice=dice,
    )
    routes.bind()
    return routes


def _direct_body(config: BodyFormat) -> tuple[Format, bytes]:
    from forkproxy.filters.local_replies import compile_body

    made = compile_body(config, {"ACCESS_LOG_TYPE": "NotSet"})
    return made.render, made.content_type if config.content_type or config.json is not None else b""


def _local_reply(config: HttpConnectionManagerConfig, context: FilterContext) -> LocalReplyRewriter | None:
    if config.local_reply is None:
        return None
    from forkproxy.filters.local_replies import compile_local_reply

    return compile_local_reply(config.local_reply, {**context.static, "ACCESS_LOG_TYPE": "NotSet"})


def _early_mutations(steps: tuple[MutationStep, ...]) -> Apply | None:
    from forkproxy.router.mutation_steps import compile_steps

    return compile_steps(steps, compile_header_value, of_request=True)


def _proxy_status(config: ProxyStatusConfig, server_name: bytes, context: FilterContext) -> ProxyStatus:
    name = server_name
    if config.literal_proxy_name is not None:
        name = config.literal_proxy_name.encode()
    elif config.use_node_id:
        name = context.node.id.encode()
    return ProxyStatus(
        name,
        config.details,
        config.connection_termination_details,
        config.response_flags,
        config.set_recommended_response_code,
    )


def _router_class(policies: Sequence[Policies], used: Sequence[FilterEntry], context: FilterContext) -> str:
    if any(each.mirrors for each in policies):
        return "mirrors"
    # Who is inside, and filters, may say in a request's head what is to be done with it.
    directs = context.internal_addresses or any(entry.type_url in _ADD_HEADERS for entry in used)
    return "policies" if policies or directs else ""


def _has_upgrades(config: HttpConnectionManagerConfig, routes: RouteTable) -> bool:
    return bool(config.upgrades) or any(route.upgrades or route.takes_connect for route in routes.all_routes())


def _flush_logs(config: HttpConnectionManagerConfig, context: FilterContext, chain: HttpFilterChain) -> None:
    """Access logs that do not wait for the end of a stream."""
    options = config.log_options
    if not config.access_logs or not (options.on_start or options.interval_s):
        return

    def logs(log_type: str) -> list[Callable[[Any], None]]:
        return [each.log for each in context.access_logs(config.access_logs, log_type)]

    from_start = logs("DownstreamStart") if options.on_start else []
    periodic = logs("DownstreamPeriodic") if options.interval_s else []
    LogFlush(from_start, periodic, options.interval_s).install(chain)


def _settings(config: HttpConnectionManagerConfig, context: FilterContext) -> ConnectionManagerSettings:
    codec = ServerSettings(
        max_headers_bytes=config.max_request_headers_kb * 1024,
        max_headers_count=config.max_headers_count,
        accept_http_10=config.accept_http_10,
        default_host_for_http_10=config.default_host_for_http_10.encode(),
        allow_absolute_url=config.allow_absolute_url,
        allow_chunked_length=config.allow_chunked_length,
        enable_trailers=config.enable_trailers,
        reject_underscores=config.headers_with_underscores_action == "REJECT_REQUEST",
        drop_underscores=config.headers_with_underscores_action == "DROP_HEADER",
        keep_expect=config.proxy_100_continue,
        ignored_upgrades=[compile_string(matcher, config.where) for matcher in config.ignored_upgrades],
    )
    settings = ConnectionManagerSettings(codec)
    settings.scheme = b"https" if context.tls else b"http"
    internal_only = frozenset(name.encode() for name in config.route_table.internal_only_headers)
    settings.forward_client_cert = _forward_client_cert(config.forward_client_cert, context)
    settings.client_addresses = _client_addresses(config.client_address, internal_only, context)
    settings.client_addresses.keeps_client_certificate = settings.forward_client_cert is not None
    settings.add_user_agent = config.add_user_agent
    settings.service_cluster = context.node.cluster.encode()
    settings.service_node = context.node.id.encode()
    settings.server_name = config.server_name.encode()
    settings.server_header_transformation = config.server_header_transformation
    settings.via = config.via.encode()
    if config.proxy_status is not None:
        settings.proxy_status = _proxy_status(config.proxy_status, settings.server_name, context)
    settings.match_upstream_scheme = config.match_upstream_scheme
    if config.preserve_case is not None:
        settings.keeps_spelling = True
        settings.proper_case_others = config.preserve_case.proper_case_others
        for cluster in context.clusters():
            cluster.keep_spelling()
    if config.early_mutations:
        settings.early_mutations = _early_mutations(config.early_mutations)
    settings.scheme_to_overwrite = config.scheme_to_overwrite.encode()
    settings.pack_trace_reason = config.request_id.pack_trace_reason
    if config.tracing is not None:
        ids, shares = config.request_id, config.tracing
        settings.trace_sampling = TraceSampling(
            shares.client, shares.sampled, shares.overall, ids.pack_trace_reason, ids.use_for_sampling
        )
    settings.drain_timeout_s = config.drain_timeout_s
    settings.safe_max_connection_duration = config.safe_max_connection_duration
    settings.generate_request_id = config.generate_request_id
    settings.preserve_external_request_id = config.preserve_external_request_id
    settings.request_id_in_response = config.always_set_request_id_in_response
    settings.proxy_100_continue = config.proxy_100_continue
    settings.normalize_path = config.normalize_path
    settings.merge_slashes = config.merge_slashes
    settings.path_with_escaped_slashes_action = config.path_with_escaped_slashes_action
    settings.strip_matching_host_port = config.strip_matching_host_port
    settings.strip_any_host_port = config.strip_any_host_port
    settings.strip_trailing_host_dot = config.strip_trailing_host_dot
    if config.header_key_format == "proper_case_words":
        settings.header_key_format = proper_case
    elif any(cluster.config.preserve_case is not None for cluster in context.clusters()):
        settings.header_key_format = as_it_is
    settings.idle_timeout_s = _or_never(config.idle_timeout_s)
    settings.stream_idle_timeout_s = _or_never(config.stream_idle_timeout_s)
    settings.request_timeout_s = _or_never(config.request_timeout_s)
    settings.request_headers_timeout_s = _or_never(config.request_headers_timeout_s)
    settings.max_connection_duration_s = _or_never(config.max_connection_duration_s)
    settings.max_stream_duration_s = _or_never(config.max_stream_duration_s)
    settings.max_requests_per_connection = config.max_requests_per_connection
    settings.delayed_close_timeout_s = config.delayed_close_timeout_s or 0.0
    settings.stream_error_on_invalid_http_message = config.stream_error_on_invalid_http_message
    return settings


def _forward_client_cert(config: ForwardClientCertConfig, context: FilterContext) -> ForwardClientCert | None:
    """None: the header is dropped, like others that clients may not set."""
    if config.mode == "SANITIZE":
        return None
    own = {uris(chain) for chain in context.certificates}
    if len(own) > 1 and config.mode in ("APPEND_FORWARD", "SANITIZE_SET"):
        where = context.where
        message = "certificates that differ in their URIs are not implemented with forward_client_cert_details"
        raise ConfigError(where.path, where.line, where.column, message)
    return ForwardClientCert(
        config.mode,
        next(iter(own), ()),
        cert=config.cert,
        chain=config.chain,
        subject=config.subject,
        uri=config.uri,
        dns=config.dns,
        subject_of=PEER["PEER_SUBJECT"],
    )


def _client_addresses(
    config: ClientAddressConfig, internal_only: frozenset[bytes], context: FilterContext
) -> ClientAddresses:
    return ClientAddresses(
        use_remote_address=config.use_remote_address,
        hops=config.xff_num_trusted_hops,
        append_xff=not config.skip_xff_append,
        append_port=config.append_x_forwarded_port,
        detectors=[_detector(each) for each in config.detections],
        internal=[compile_range(each) for each in config.internal_ranges],
        internal_only=internal_only,
        internal_pipes=config.internal_unix_sockets,
        local_ip=context.local_ip.encode(),
        scheme=b"https" if context.tls else b"http",
    )


def _detector(config: XffDetectionConfig | HeaderDetectionConfig) -> Detector:
    if isinstance(config, HeaderDetectionConfig):
        return header_detector(config.header_name.encode(), config.is_trusted, config.reject_status)
    trusted = [compile_range(each) for each in config.trusted_ranges]
    return xff_detector(config.num_trusted_hops, trusted, not config.skip_append)


def _or_never(seconds: float | None) -> float:
    return NEVER if seconds is None else seconds
