"""Names of extensions and of messages: ``envoy.router``, ``envoy.filters.http.router`` and the @type URL are one thing.

Envoy 1.40 finds an extension by the type of its ``typed_config``; the 2018 form, and a quarter of today's files, go by
name. The table below says which message belongs to which name. Its v2 message is the one that the v3 message was made
from (``udpa.annotations.versioning``), unless the row gives it: v2 ``config:`` structs are validated against that.

A name alone does not say enough (``envoy.ratelimit`` is an HTTP filter and a network filter), so every look-up takes a
category, which follows from the message that holds the name: see :func:`category_of`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Final

from forkproxy.config.schema import schema
from forkproxy.config.values import frozen

TYPE_URL_PREFIX: Final = "type.googleapis.com/"
TYPED_STRUCTS: Final = frozenset(("xds.type.v3.TypedStruct", "udpa.type.v1.TypedStruct"))


@frozen
class Extension:
    """One extension: its current name, its old names, and the messages of its configuration ("" when there is none)."""

    category: str
    name: str
    v3: str
    v2: str
    old_names: tuple[str, ...]
    per_route: str
    per_route_v2: str

    @property
    def type_url(self) -> str:
        """The @type of its v3 configuration."""
        return TYPE_URL_PREFIX + self.v3 if self.v3 else ""


# category: rows of (name, v3 message, old names, v2 message or "" for the annotated one, v3 per-route message).
# "~" stands for envoy.extensions, "@" for envoy.config.
_Row = tuple[str, str, tuple[str, ...], str, str]
_TABLE: Final[dict[str, tuple[_Row, ...]]] = {
    "http": (
        ("envoy.filters.http.router", "~filters.http.router.v3.Router", ("envoy.router",), "", ""),
        ("envoy.filters.http.buffer", "~filters.http.buffer.v3.Buffer", ("envoy.buffer",), "", "BufferPerRoute"),
        ("envoy.filters.http.cors", "~filters.http.cors.v3.Cors", ("envoy.cors",), "", "CorsPolicy"),
        ("envoy.filters.http.csrf", "~filters.http.csrf.v3.CsrfPolicy", ("envoy.csrf",), "", "CsrfPolicy"),
        (
            "envoy.filters.http.ext_authz",
            "~filters.http.ext_authz.v3.ExtAuthz",
            ("envoy.ext_authz",),
            "",
            "ExtAuthzPerRoute",
        ),
        (
            "envoy.filters.http.ext_proc",
            "~filters.http.ext_proc.v3.ExternalProcessor",
            ("envoy.ext_proc",),
            "",
            "ExtProcPerRoute",
        ),
        ("envoy.filters.http.fault", "~filters.http.fault.v3.HTTPFault", ("envoy.fault",), "", "HTTPFault"),
        (
            "envoy.filters.http.grpc_http1_bridge",
            "~filters.http.grpc_http1_bridge.v3.Config",
            ("envoy.grpc_http1_bridge",),
            "",
            "",
        ),
        (
            "envoy.filters.http.grpc_http1_reverse_bridge",
            "~filters.http.grpc_http1_reverse_bridge.v3.FilterConfig",
            (),
            "",
            "FilterConfigPerRoute",
        ),
        (
            "envoy.filters.http.grpc_json_transcoder",
            "~filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
            ("envoy.grpc_json_transcoder",),
            "",
            "GrpcJsonTranscoder",
        ),
        (
            "envoy.filters.http.grpc_json_reverse_transcoder",
            "~filters.http.grpc_json_reverse_transcoder.v3.GrpcJsonReverseTranscoder",
            (),
            "",
            "GrpcJsonReverseTranscoder",
        ),
        ("envoy.filters.http.grpc_web", "~filters.http.grpc_web.v3.GrpcWeb", ("envoy.grpc_web",), "", ""),
        ("envoy.filters.http.grpc_stats", "~filters.http.grpc_stats.v3.FilterConfig", ("envoy.grpc_stats",), "", ""),
        ("envoy.filters.http.gzip", "~filters.http.gzip.v3.Gzip", ("envoy.gzip",), "", ""),
        ("envoy.filters.http.compressor", "~filters.http.compressor.v3.Compressor", (), "", "CompressorPerRoute"),
        ("envoy.filters.http.decompressor", "~filters.http.decompressor.v3.Decompressor", (), "", ""),
        (
            "envoy.filters.http.health_check",
            "~filters.http.health_check.v3.HealthCheck",
            ("envoy.health_check",),
            "",
            "",
        ),
        ("envoy.filters.http.dynamo", "", ("envoy.http_dynamo_filter",), "@filter.http.dynamo.v2.Dynamo", ""),
        (
            "envoy.filters.http.ip_tagging",
            "~filters.http.ip_tagging.v3.IPTagging",
            ("envoy.ip_tagging",),
            "",
            "IPTagging",
        ),
        ("envoy.filters.http.lua", "~filters.http.lua.v3.Lua", ("envoy.lua",), "", "LuaPerRoute"),
        (
            "envoy.filters.http.local_ratelimit",
            "~filters.http.local_ratelimit.v3.LocalRateLimit",
            ("envoy.local_rate_limit",),
            "",
            "LocalRateLimit",
        ),
        (
            "envoy.filters.http.ratelimit",
            "~filters.http.ratelimit.v3.RateLimit",
            ("envoy.rate_limit", "envoy.ratelimit"),
            "",
            "RateLimitPerRoute",
        ),
        (
            "envoy.filters.http.rate_limit_quota",
            "~filters.http.rate_limit_quota.v3.RateLimitQuotaFilterConfig",
            (),
            "",
            "RateLimitQuotaOverride",
        ),
        ("envoy.filters.http.rbac", "~filters.http.rbac.v3.RBAC", ("envoy.rbac",), "", "RBACPerRoute"),
        ("envoy.filters.http.squash", "", ("envoy.squash",), "@filter.http.squash.v2.Squash", ""),
        ("envoy.filters.http.tap", "~filters.http.tap.v3.Tap", ("envoy.tap",), "", ""),
        ("envoy.filters.http.header_to_metadata", "~filters.http.header_to_metadata.v3.Config", (), "", "Config"),
        (
            "envoy.filters.http.header_mutation",
            "~filters.http.header_mutation.v3.HeaderMutation",
            (),
            "",
            "HeaderMutationPerRoute",
        ),
        (
            "envoy.filters.http.jwt_authn",
            "~filters.http.jwt_authn.v3.JwtAuthentication",
            ("envoy.jwt_authn", "envoy.extensions.filters.http.jwt_authn"),
            "",
            "PerRouteConfig",
        ),
        ("envoy.filters.http.oauth2", "~filters.http.oauth2.v3.OAuth2", ("envoy.filters.http.oauth",), "", "OAuth2"),
        ("envoy.filters.http.basic_auth", "~filters.http.basic_auth.v3.BasicAuth", (), "", "BasicAuthPerRoute"),
        ("envoy.filters.http.api_key_auth", "~filters.http.api_key_auth.v3.ApiKeyAuth", (), "", "ApiKeyAuthPerRoute"),
        (
            "envoy.filters.http.credential_injector",
            "~filters.http.credential_injector.v3.CredentialInjector",
            (),
            "",
            "",
        ),
        ("envoy.filters.http.gcp_authn", "~filters.http.gcp_authn.v3.GcpAuthnFilterConfig", (), "", ""),
        ("envoy.filters.http.on_demand", "~filters.http.on_demand.v3.OnDemand", (), "", "PerRouteConfig"),
        ("envoy.filters.http.original_src", "~filters.http.original_src.v3.OriginalSrc", (), "", ""),
        (
            "envoy.filters.http.dynamic_forward_proxy",
            "~filters.http.dynamic_forward_proxy.v3.FilterConfig",
            (),
            "",
            "PerRouteConfig",
        ),
        (
            "envoy.filters.http.adaptive_concurrency",
            "~filters.http.adaptive_concurrency.v3.AdaptiveConcurrency",
            (),
            "",
            "",
        ),
        ("envoy.filters.http.admission_control", "~filters.http.admission_control.v3.AdmissionControl", (), "", ""),
        ("envoy.filters.http.aws_lambda", "~filters.http.aws_lambda.v3.Config", (), "", "PerRouteConfig"),
        (
            "envoy.filters.http.aws_request_signing",
            "~filters.http.aws_request_signing.v3.AwsRequestSigning",
            (),
            "",
            "AwsRequestSigningPerRoute",
        ),
        (
            "envoy.filters.http.bandwidth_limit",
            "~filters.http.bandwidth_limit.v3.BandwidthLimit",
            ("envoy.bandwidth_limit",),
            "",
            "BandwidthLimit",
        ),
        ("envoy.filters.http.cache", "~filters.http.cache.v3.CacheConfig", (), "", "CacheConfig"),
        ("envoy.filters.http.cdn_loop", "~filters.http.cdn_loop.v3.CdnLoopConfig", (), "", ""),
        ("envoy.filters.http.composite", "~filters.http.composite.v3.Composite", (), "", ""),
        ("envoy.filters.http.connect_grpc_bridge", "~filters.http.connect_grpc_bridge.v3.FilterConfig", (), "", ""),
        (
            "envoy.filters.http.custom_response",
            "~filters.http.custom_response.v3.CustomResponse",
            (),
            "",
            "CustomResponse",
        ),
        (
            "envoy.filters.http.file_system_buffer",
            "~filters.http.file_system_buffer.v3.FileSystemBufferFilterConfig",
            (),
            "",
            "FileSystemBufferFilterConfig",
        ),
        ("envoy.filters.http.geoip", "~filters.http.geoip.v3.Geoip", (), "", ""),
        (
            "envoy.filters.http.json_to_metadata",
            "~filters.http.json_to_metadata.v3.JsonToMetadata",
            (),
            "",
            "JsonToMetadata",
        ),
        ("envoy.filters.http.kill_request", "~filters.http.kill_request.v3.KillRequest", (), "", "KillRequest"),
        ("envoy.filters.http.set_filter_state", "~filters.http.set_filter_state.v3.Config", (), "", ""),
        ("envoy.filters.http.set_metadata", "~filters.http.set_metadata.v3.Config", (), "", ""),
        (
            "envoy.filters.http.stateful_session",
            "~filters.http.stateful_session.v3.StatefulSession",
            (),
            "",
            "StatefulSessionPerRoute",
        ),
        ("envoy.filters.http.upstream_codec", "~filters.http.upstream_codec.v3.UpstreamCodec", (), "", ""),
        ("envoy.filters.http.wasm", "~filters.http.wasm.v3.Wasm", (), "", ""),
    ),
    "network": (
        (
            "envoy.filters.network.http_connection_manager",
            "~filters.network.http_connection_manager.v3.HttpConnectionManager",
            ("envoy.http_connection_manager",),
            "",
            "",
        ),
        ("envoy.filters.network.tcp_proxy", "~filters.network.tcp_proxy.v3.TcpProxy", ("envoy.tcp_proxy",), "", ""),
        (
            "envoy.filters.network.client_ssl_auth",
            "",
            ("envoy.client_ssl_auth",),
            "@filter.network.client_ssl_auth.v2.ClientSSLAuth",
            "",
        ),
        ("envoy.filters.network.connection_limit", "~filters.network.connection_limit.v3.ConnectionLimit", (), "", ""),
        ("envoy.filters.network.direct_response", "~filters.network.direct_response.v3.Config", (), "", ""),
        ("envoy.filters.network.dubbo_proxy", "~filters.network.dubbo_proxy.v3.DubboProxy", (), "", ""),
        ("envoy.filters.network.echo", "~filters.network.echo.v3.Echo", ("envoy.echo",), "", ""),
        ("envoy.filters.network.ext_authz", "~filters.network.ext_authz.v3.ExtAuthz", ("envoy.ext_authz",), "", ""),
        ("envoy.filters.network.kafka_broker", "", (), "@filter.network.kafka_broker.v2alpha1.KafkaBroker", ""),
        ("envoy.filters.network.local_ratelimit", "~filters.network.local_ratelimit.v3.LocalRateLimit", (), "", ""),
        (
            "envoy.filters.network.mongo_proxy",
            "~filters.network.mongo_proxy.v3.MongoProxy",
            ("envoy.mongo_proxy",),
            "",
            "",
        ),
        ("envoy.filters.network.mysql_proxy", "", (), "@filter.network.mysql_proxy.v1alpha1.MySQLProxy", ""),
        ("envoy.filters.network.ratelimit", "~filters.network.ratelimit.v3.RateLimit", ("envoy.ratelimit",), "", ""),
        ("envoy.filters.network.rbac", "~filters.network.rbac.v3.RBAC", (), "", ""),
        (
            "envoy.filters.network.redis_proxy",
            "~filters.network.redis_proxy.v3.RedisProxy",
            ("envoy.redis_proxy",),
            "",
            "",
        ),
        ("envoy.filters.network.set_filter_state", "~filters.network.set_filter_state.v3.Config", (), "", ""),
        ("envoy.filters.network.sni_cluster", "~filters.network.sni_cluster.v3.SniCluster", (), "", ""),
        (
            "envoy.filters.network.sni_dynamic_forward_proxy",
            "~filters.network.sni_dynamic_forward_proxy.v3.FilterConfig",
            (),
            "",
            "",
        ),
        ("envoy.filters.network.thrift_proxy", "~filters.network.thrift_proxy.v3.ThriftProxy", (), "", ""),
        ("envoy.filters.network.wasm", "~filters.network.wasm.v3.Wasm", (), "", ""),
        ("envoy.filters.network.zookeeper_proxy", "~filters.network.zookeeper_proxy.v3.ZooKeeperProxy", (), "", ""),
    ),
    "listener": (
        (
            "envoy.filters.listener.http_inspector",
            "~filters.listener.http_inspector.v3.HttpInspector",
            ("envoy.listener.http_inspector",),
            "",
            "",
        ),
        ("envoy.filters.listener.local_ratelimit", "~filters.listener.local_ratelimit.v3.LocalRateLimit", (), "", ""),
        (
            "envoy.filters.listener.original_dst",
            "~filters.listener.original_dst.v3.OriginalDst",
            ("envoy.listener.original_dst",),
            "",
            "",
        ),
        (
            "envoy.filters.listener.original_src",
            "~filters.listener.original_src.v3.OriginalSrc",
            ("envoy.listener.original_src",),
            "",
            "",
        ),
        (
            "envoy.filters.listener.proxy_protocol",
            "~filters.listener.proxy_protocol.v3.ProxyProtocol",
            ("envoy.listener.proxy_protocol",),
            "",
            "",
        ),
        (
            "envoy.filters.listener.tls_inspector",
            "~filters.listener.tls_inspector.v3.TlsInspector",
            ("envoy.listener.tls_inspector",),
            "",
            "",
        ),
        ("envoy.filters.udp_listener.udp_proxy", "~filters.udp.udp_proxy.v3.UdpProxyConfig", (), "", ""),
        ("envoy.filters.udp.dns_filter", "~filters.udp.dns_filter.v3.DnsFilterConfig", (), "", ""),
    ),
    "access_log": (
        ("envoy.access_loggers.file", "~access_loggers.file.v3.FileAccessLog", ("envoy.file_access_log",), "", ""),
        (
            "envoy.access_loggers.stdout",
            "~access_loggers.stream.v3.StdoutAccessLog",
            ("envoy.stdout_access_log",),
            "",
            "",
        ),
        (
            "envoy.access_loggers.stderr",
            "~access_loggers.stream.v3.StderrAccessLog",
            ("envoy.stderr_access_log",),
            "",
            "",
        ),
        (
            "envoy.access_loggers.http_grpc",
            "~access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
            ("envoy.http_grpc_access_log",),
            "",
            "",
        ),
        (
            "envoy.access_loggers.tcp_grpc",
            "~access_loggers.grpc.v3.TcpGrpcAccessLogConfig",
            ("envoy.tcp_grpc_access_log",),
            "",
            "",
        ),
        (
            "envoy.access_loggers.open_telemetry",
            "~access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig",
            ("envoy.open_telemetry_access_log",),
            "",
            "",
        ),
        ("envoy.access_loggers.wasm", "~access_loggers.wasm.v3.WasmAccessLog", ("envoy.wasm_access_log",), "", ""),
    ),
    "access_log_filter": (
        ("envoy.access_loggers.extension_filters.cel", "~access_loggers.filters.cel.v3.ExpressionFilter", (), "", ""),
    ),
    "transport_socket.downstream": (
        ("envoy.transport_sockets.tls", "~transport_sockets.tls.v3.DownstreamTlsContext", ("tls",), "", ""),
        ("envoy.transport_sockets.raw_buffer", "~transport_sockets.raw_buffer.v3.RawBuffer", ("raw_buffer",), "", ""),
        ("envoy.transport_sockets.alts", "~transport_sockets.alts.v3.Alts", (), "", ""),
        ("envoy.transport_sockets.quic", "~transport_sockets.quic.v3.QuicDownstreamTransport", (), "", ""),
        ("envoy.transport_sockets.starttls", "~transport_sockets.starttls.v3.StartTlsConfig", ("starttls",), "", ""),
        ("envoy.transport_sockets.tap", "~transport_sockets.tap.v3.Tap", (), "", ""),
    ),
    "transport_socket.upstream": (
        ("envoy.transport_sockets.tls", "~transport_sockets.tls.v3.UpstreamTlsContext", ("tls",), "", ""),
        ("envoy.transport_sockets.raw_buffer", "~transport_sockets.raw_buffer.v3.RawBuffer", ("raw_buffer",), "", ""),
        ("envoy.transport_sockets.alts", "~transport_sockets.alts.v3.Alts", (), "", ""),
        ("envoy.transport_sockets.quic", "~transport_sockets.quic.v3.QuicUpstreamTransport", (), "", ""),
        (
            "envoy.transport_sockets.starttls",
            "~transport_sockets.starttls.v3.UpstreamStartTlsConfig",
            ("starttls",),
            "",
            "",
        ),
        ("envoy.transport_sockets.tap", "~transport_sockets.tap.v3.Tap", (), "", ""),
        (
            "envoy.transport_sockets.upstream_proxy_protocol",
            "~transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
            (),
            "",
            "",
        ),
        (
            "envoy.transport_sockets.internal_upstream",
            "~transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
            (),
            "",
            "",
        ),
    ),
    "tracer": (
        ("envoy.tracers.zipkin", "@trace.v3.ZipkinConfig", ("envoy.zipkin",), "", ""),
        ("envoy.tracers.lightstep", "@trace.v3.LightstepConfig", ("envoy.lightstep",), "", ""),
        ("envoy.tracers.datadog", "@trace.v3.DatadogConfig", ("envoy.datadog",), "", ""),
        ("envoy.tracers.dynamic_ot", "@trace.v3.DynamicOtConfig", ("envoy.dynamic.ot",), "", ""),
        ("envoy.tracers.opencensus", "@trace.v3.OpenCensusConfig", ("envoy.opencensus",), "", ""),
        ("envoy.tracers.opentelemetry", "@trace.v3.OpenTelemetryConfig", (), "", ""),
        ("envoy.tracers.skywalking", "@trace.v3.SkyWalkingConfig", (), "", ""),
        ("envoy.tracers.xray", "@trace.v3.XRayConfig", (), "@trace.v2alpha.XRayConfig", ""),
        ("envoy.tracers.trace_service", "@trace.v3.TraceServiceConfig", (), "", ""),
    ),
    "stat_sink": (
        ("envoy.stat_sinks.statsd", "@metrics.v3.StatsdSink", ("envoy.statsd",), "", ""),
        ("envoy.stat_sinks.dog_statsd", "@metrics.v3.DogStatsdSink", ("envoy.dog_statsd",), "", ""),
        ("envoy.stat_sinks.metrics_service", "@metrics.v3.MetricsServiceConfig", ("envoy.metrics_service",), "", ""),
        ("envoy.stat_sinks.hystrix", "@metrics.v3.HystrixSink", (), "", ""),
        (
            "envoy.stat_sinks.graphite_statsd",
            "~stat_sinks.graphite_statsd.v3.GraphiteStatsdSink",
            ("envoy.graphite_statsd",),
            "",
            "",
        ),
        ("envoy.stat_sinks.open_telemetry", "~stat_sinks.open_telemetry.v3.SinkConfig", (), "", ""),
    ),
    "resource_monitor": (
        ("envoy.resource_monitors.fixed_heap", "~resource_monitors.fixed_heap.v3.FixedHeapConfig", (), "", ""),
        (
            "envoy.resource_monitors.injected_resource",
            "~resource_monitors.injected_resource.v3.InjectedResourceConfig",
            (),
            "",
            "",
        ),
    ),
    "health_checker": (
        ("envoy.health_checkers.redis", "~health_checkers.redis.v3.Redis", (), "", ""),
        ("envoy.health_checkers.thrift", "~health_checkers.thrift.v3.Thrift", (), "", ""),
    ),
    "retry_host_predicate": (
        (
            "envoy.retry_host_predicates.previous_hosts",
            "~retry.host.previous_hosts.v3.PreviousHostsPredicate",
            (),
            "",
            "",
        ),
        (
            "envoy.retry_host_predicates.omit_canary_hosts",
            "~retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate",
            (),
            "",
            "",
        ),
        (
            "envoy.retry_host_predicates.omit_host_metadata",
            "~retry.host.omit_host_metadata.v3.OmitHostMetadataConfig",
            (),
            "",
            "",
        ),
    ),
    "retry_priority": (
        (
            "envoy.retry_priorities.previous_priorities",
            "~retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
            (),
            "@retry.previous_priorities.PreviousPrioritiesConfig",
            "",
        ),
    ),
    "cluster": (
        ("envoy.clusters.aggregate", "~clusters.aggregate.v3.ClusterConfig", (), "", ""),
        ("envoy.clusters.dynamic_forward_proxy", "~clusters.dynamic_forward_proxy.v3.ClusterConfig", (), "", ""),
        ("envoy.clusters.redis", "~clusters.redis.v3.RedisClusterConfig", (), "@cluster.redis.RedisClusterConfig", ""),
        ("envoy.cluster.dns", "~clusters.dns.v3.DnsCluster", (), "", ""),
    ),
    "thrift": (
        ("envoy.filters.thrift.router", "~filters.network.thrift_proxy.router.v3.Router", (), "", ""),
        ("envoy.filters.thrift.rate_limit", "~filters.network.thrift_proxy.filters.ratelimit.v3.RateLimit", (), "", ""),
    ),
    "protocol_options": (
        (
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "~upstreams.http.v3.HttpProtocolOptions",
            ("envoy.upstreams.http.http_protocol_options",),
            "",
            "",
        ),
        (
            "envoy.extensions.upstreams.tcp.v3.TcpProtocolOptions",
            "~upstreams.tcp.v3.TcpProtocolOptions",
            ("envoy.upstreams.tcp.tcp_protocol_options",),
            "",
            "",
        ),
        (
            "envoy.filters.network.redis_proxy",
            "~filters.network.redis_proxy.v3.RedisProtocolOptions",
            ("envoy.redis_proxy",),
            "",
            "",
        ),
        ("envoy.filters.network.thrift_proxy", "~filters.network.thrift_proxy.v3.ThriftProtocolOptions", (), "", ""),
    ),
}

# The message that holds ``name`` and ``config``/``typed_config``, v3 and v2 → the category of the name in it.
_HOLDERS: Final[dict[str, str]] = {
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter": "http",
    "envoy.config.filter.network.http_connection_manager.v2.HttpFilter": "http",
    "envoy.config.listener.v3.Filter": "network",
    "envoy.api.v2.listener.Filter": "network",
    "envoy.config.cluster.v3.Filter": "network",
    "envoy.api.v2.cluster.Filter": "network",
    "envoy.config.listener.v3.ListenerFilter": "listener",
    "envoy.api.v2.listener.ListenerFilter": "listener",
    "envoy.config.accesslog.v3.AccessLog": "access_log",
    "envoy.config.filter.accesslog.v2.AccessLog": "access_log",
    "envoy.config.accesslog.v3.ExtensionFilter": "access_log_filter",
    "envoy.config.filter.accesslog.v2.ExtensionFilter": "access_log_filter",
    "envoy.config.trace.v3.Tracing.Http": "tracer",
    "envoy.config.trace.v2.Tracing.Http": "tracer",
    "envoy.config.metrics.v3.StatsSink": "stat_sink",
    "envoy.config.metrics.v2.StatsSink": "stat_sink",
    "envoy.config.overload.v3.ResourceMonitor": "resource_monitor",
    "envoy.config.overload.v2alpha.ResourceMonitor": "resource_monitor",
    "envoy.config.core.v3.HealthCheck.CustomHealthCheck": "health_checker",
    "envoy.api.v2.core.HealthCheck.CustomHealthCheck": "health_checker",
    "envoy.config.route.v3.RetryPolicy.RetryHostPredicate": "retry_host_predicate",
    "envoy.api.v2.route.RetryPolicy.RetryHostPredicate": "retry_host_predicate",
    "envoy.config.route.v3.RetryPolicy.RetryPriority": "retry_priority",
    "envoy.api.v2.route.RetryPolicy.RetryPriority": "retry_priority",
    "envoy.config.cluster.v3.Cluster.CustomClusterType": "cluster",
    "envoy.api.v2.Cluster.CustomClusterType": "cluster",
    "envoy.extensions.filters.network.thrift_proxy.v3.ThriftFilter": "thrift",
    "envoy.config.filter.network.thrift_proxy.v2alpha1.ThriftFilter": "thrift",
}
_TRANSPORT_SOCKETS: Final = frozenset(("envoy.config.core.v3.TransportSocket", "envoy.api.v2.core.TransportSocket"))


def _expand(name: str) -> str:
    return name.replace("~", "envoy.extensions.", 1).replace("@", "envoy.config.", 1)


@cache
def extensions() -> dict[tuple[str, str], Extension]:
    """(category, name) → extension, under every name it ever had."""
    found: dict[tuple[str, str], Extension] = {}
    for category, rows in _TABLE.items():
        for name, v3, old_names, v2, per_route in rows:
            extension = Extension(
                category,
                name,
                _expand(v3),
                _expand(v2),
                old_names,
                f"{_expand(v3).rpartition('.')[0]}.{per_route}" if per_route else "",
                "",
            )
            for each in (name, *old_names):
                found[category, each] = extension
    return found


@cache
def extension(category: str, name: str) -> Extension | None:
    """The extension called ``name`` (new or old) in ``category``; its v2 messages filled in from the schema."""
    found = extensions().get((category, name))
    if found is None:
        return None
    v2 = found.v2 or _previous(found.v3)
    return Extension(
        found.category, found.name, found.v3, v2, found.old_names, found.per_route, _previous(found.per_route)
    )


def _previous(full_name: str) -> str:
    """The v2 message that became ``full_name``, or ""."""
    known = schema()
    if not full_name or full_name not in known:
        return ""
    previous = known.message(full_name).previous
    # Envoy's annotation of the HTTP ext_authz filter names a v3 package that never was.
    return previous if previous in known else previous.replace(".v3.", ".v2.")


def named(name: str) -> list[Extension]:
    """Every extension that has, or had, ``name``, over all categories."""
    return [found for (_, each), found in extensions().items() if each == name]


def categories() -> Iterator[str]:
    """All categories."""
    return iter(_TABLE)


def category_of(message: str, holder: str = "") -> str | None:
    """The category of the extension named in ``message``.

    ``holder`` is the message around it, which a transport socket needs: in a filter chain it is downstream's, else
    upstream's.
    """
    if message in _TRANSPORT_SOCKETS:
        return "transport_socket.downstream" if holder.endswith(".FilterChain") else "transport_socket.upstream"
    return _HOLDERS.get(message)


def message_name(type_url: str) -> str | None:
    """The message that a ``@type`` names, or None when it has no host part (``type.googleapis.com/`` or another)."""
    host, slash, name = type_url.rpartition("/")
    return name if slash and host and name else None


def type_url(full_name: str) -> str:
    """The ``@type`` of a message."""
    return TYPE_URL_PREFIX + full_name
