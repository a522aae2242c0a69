"""Which Envoy extension is built by what: one literal table, message name → "module:function", imported when first met."""

from __future__ import annotations

BUILDERS: dict[str, str] = {
    # network filters
    "envoy.extensions.filters.network.direct_response.v3.Config": "forkproxy.config.build.direct_response:build",
    "envoy.extensions.filters.network.echo.v3.Echo": "forkproxy.config.build.echo:build",
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager": (
        "forkproxy.config.build.http_connection_manager:build"
    ),
    "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy": "forkproxy.config.build.tcp_proxy:build",
    # HTTP filters
    "envoy.extensions.filters.http.router.v3.Router": "forkproxy.config.build.router:build",
    "envoy.extensions.filters.http.basic_auth.v3.BasicAuth": "forkproxy.config.build.basic_auth:build",
    "envoy.extensions.filters.http.buffer.v3.Buffer": "forkproxy.config.build.buffer:build",
    "envoy.extensions.filters.http.compressor.v3.Compressor": "forkproxy.config.build.compressor:build",
    "envoy.extensions.filters.http.decompressor.v3.Decompressor": "forkproxy.config.build.compressor:build_decompressor",
    "envoy.extensions.compression.brotli.compressor.v3.Brotli": (
        "forkproxy.config.build.compression:build_brotli_compressor"
    ),
    "envoy.extensions.compression.brotli.decompressor.v3.Brotli": (
        "forkproxy.config.build.compression:build_brotli_decompressor"
    ),
    "envoy.extensions.compression.zstd.compressor.v3.Zstd": "forkproxy.config.build.compression:build_zstd_compressor",
    "envoy.extensions.compression.zstd.decompressor.v3.Zstd": (
        "forkproxy.config.build.compression:build_zstd_decompressor"
    ),
    "envoy.extensions.compression.gzip.compressor.v3.Gzip": "forkproxy.config.build.compression:build_gzip_compressor",
    "envoy.extensions.compression.gzip.decompressor.v3.Gzip": (
        "forkproxy.config.build.compression:build_gzip_decompressor"
    ),
    "envoy.extensions.filters.http.cors.v3.Cors": "forkproxy.config.build.cors:build",
    "envoy.extensions.filters.http.csrf.v3.CsrfPolicy": "forkproxy.config.build.csrf:build",
    "envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig": (
        "forkproxy.config.build.dynamic_forward_proxy:build_filter"
    ),
    "envoy.extensions.filters.http.fault.v3.HTTPFault": "forkproxy.config.build.fault:build",
    "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation": "forkproxy.config.build.header_mutation:build",
    "envoy.extensions.filters.http.header_to_metadata.v3.Config": "forkproxy.config.build.header_to_metadata:build",
    "envoy.extensions.filters.http.rbac.v3.RBAC": "forkproxy.config.build.rbac:build",
    "envoy.extensions.filters.http.ip_tagging.v3.IPTagging": "forkproxy.config.build.ip_tagging:build",
    "envoy.extensions.filters.http.health_check.v3.HealthCheck": "forkproxy.config.build.health_check_filter:build",
    "envoy.extensions.filters.http.set_metadata.v3.Config": "forkproxy.config.build.set_metadata:build",
    "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit": "forkproxy.config.build.local_ratelimit:build",
    "envoy.extensions.filters.http.stateful_session.v3.StatefulSession": "forkproxy.config.build.stateful_session:build",
    "envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState": (
        "forkproxy.config.build.stateful_session:build_cookie"
    ),
    "envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState": (
        "forkproxy.config.build.stateful_session:build_header"
    ),
    # overload manager
    "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig": (
        "forkproxy.config.build.overload:build_downstream_connections"
    ),
    # original IP detection
    "envoy.extensions.http.original_ip_detection.custom_header.v3.CustomHeaderConfig": (
        "forkproxy.config.build.client_address:build_custom_header"
    ),
    "envoy.extensions.http.original_ip_detection.xff.v3.XffConfig": "forkproxy.config.build.client_address:build_xff",
    # what a connection manager does to messages
    "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation": (
        "forkproxy.config.build.request_head:build_early_header_mutation"
    ),
    "envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig": (
        "forkproxy.config.build.header_formatters:build_preserve_case"
    ),
    "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig": (
        "forkproxy.config.build.request_head:build_uuid_request_id"
    ),
    # access loggers
    "envoy.extensions.access_loggers.file.v3.FileAccessLog": "forkproxy.config.build.access_log:build_file_access_log",
    "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog": (
        "forkproxy.config.build.access_log:build_stdout_access_log"
    ),
    "envoy.extensions.access_loggers.stream.v3.StderrAccessLog": (
        "forkproxy.config.build.access_log:build_stderr_access_log"
    ),
    # listener filters
    "envoy.extensions.filters.listener.original_dst.v3.OriginalDst": (
        "forkproxy.config.build.original_dst:build_listener_filter"
    ),
    # transport sockets
    "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport": (
        "forkproxy.config.build.transport_sockets:build_upstream_proxy_protocol"
    ),
    "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer": "forkproxy.config.build.tls:build_raw_buffer",
    "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext": "forkproxy.config.build.tls:build_downstream_tls",
    "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext": "forkproxy.config.build.tls:build_upstream_tls",
    # clusters, load balancing, names
    "envoy.extensions.clusters.aggregate.v3.ClusterConfig": "forkproxy.config.build.aggregate:build_aggregate",
    "envoy.extensions.clusters.dns.v3.DnsCluster": "forkproxy.config.build.cluster:build_dns_cluster",
    "envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig": (
        "forkproxy.config.build.dynamic_forward_proxy:build_cluster_type"
    ),
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": (
        "forkproxy.config.build.cluster:build_http_protocol_options"
    ),
    "envoy.extensions.load_balancing_policies.cluster_provided.v3.ClusterProvided": (
        "forkproxy.config.build.load_balancing:build_cluster_provided"
    ),
    "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest": (
        "forkproxy.config.build.load_balancing:build_least_request"
    ),
    "envoy.extensions.load_balancing_policies.maglev.v3.Maglev": "forkproxy.config.build.load_balancing:build_maglev",
    "envoy.extensions.load_balancing_policies.random.v3.Random": "forkproxy.config.build.load_balancing:build_random",
    "envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash": (
        "forkproxy.config.build.load_balancing:build_ring_hash"
    ),
    "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin": (
        "forkproxy.config.build.load_balancing:build_round_robin"
    ),
    "envoy.extensions.load_balancing_policies.subset.v3.Subset": "forkproxy.config.build.load_balancing:build_subset",
    "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig": (
        "forkproxy.config.build.cluster:build_cares_resolver"
    ),
    "envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig": (
        "forkproxy.config.build.cluster:build_getaddrinfo_resolver"
    ),
    # paths
    "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig": (
        "forkproxy.config.build.uri_template:build_matcher"
    ),
    "envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig": (
        "forkproxy.config.build.uri_template:build_rewriter"
    ),
    # rules of access
    "envoy.extensions.rbac.matchers.upstream_ip_port.v3.UpstreamIpPortMatcher": (
        "forkproxy.config.build.rbac:build_upstream_address"
    ),
    "envoy.extensions.rbac.principals.mtls_authenticated.v3.Config": (
        "forkproxy.config.build.rbac:build_client_certificate"
    ),
    # health checks
    "envoy.extensions.health_checkers.redis.v3.Redis": "forkproxy.config.build.health_check:build_redis",
    "envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink": (
        "forkproxy.config.build.health_check:build_file_sink"
    ),
    "envoy.extensions.regex_engines.v3.GoogleRE2": "forkproxy.config.build.bootstrap:build_google_re2",
}

PER_ROUTE: dict[str, str] = {
    "envoy.extensions.filters.http.basic_auth.v3.BasicAuthPerRoute": "forkproxy.config.build.basic_auth:build_per_route",
    "envoy.extensions.filters.http.buffer.v3.BufferPerRoute": "forkproxy.config.build.buffer:build_per_route",
    "envoy.extensions.filters.http.compressor.v3.CompressorPerRoute": "forkproxy.config.build.compressor:build_per_route",
    "envoy.extensions.filters.http.cors.v3.CorsPolicy": "forkproxy.config.build.cors:build_policy",
    "envoy.extensions.filters.http.csrf.v3.CsrfPolicy": "forkproxy.config.build.csrf:build",
    "envoy.extensions.filters.http.dynamic_forward_proxy.v3.PerRouteConfig": (
        "forkproxy.config.build.dynamic_forward_proxy:build_per_route"
    ),
    "envoy.extensions.filters.http.fault.v3.HTTPFault": "forkproxy.config.build.fault:build",
    "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute": (
        "forkproxy.config.build.header_mutation:build_per_route"
    ),
    "envoy.extensions.filters.http.header_to_metadata.v3.Config": (
        "forkproxy.config.build.header_to_metadata:build_per_route"
    ),
    "envoy.extensions.filters.http.rbac.v3.RBACPerRoute": "forkproxy.config.build.rbac:build_per_route",
    "envoy.extensions.filters.http.set_metadata.v3.Config": "forkproxy.config.build.set_metadata:build",
    "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit": (
        "forkproxy.config.build.local_ratelimit:build_per_route"
    ),
    "envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute": (
        "forkproxy.config.build.stateful_session:build_per_route"
    ),
}
"""The same for the messages of ``typed_per_filter_config``."""
