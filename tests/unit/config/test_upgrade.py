"""forkproxy.config.upgrade and v2_rules: what a v2 tree becomes, row by row of the table in CONFIG.md."""

import pathlib

import pytest

from forkproxy.config.schema import Schema, schema
from forkproxy.config.tree import Document, Entry, Mark, Node, load
from forkproxy.config.upgrade import detect_version, type_extensions, upgrade
from forkproxy.config.v2_rules import AFTER, BEFORE, FIELDS_OF_1_8, FROM_1_8
from forkproxy.config.validate import validate

HCM = "envoy.config.filter.network.http_connection_manager.v2.HttpConnectionManager"
HTTP = "envoy.config.filter.http."
NETWORK = "envoy.config.filter.network."
ROUTE = "envoy.api.v2.route."
URL = "type.googleapis.com/"


def run(message, text):
    """The v3 form of a v2 message, and the problems met on the way."""
    document = load(text, "file.yaml")
    problems = upgrade(document, message)
    return document.root.to_python(), problems


def warnings(problems):
    assert [p.text("f") for p in problems if p.kind == "error"] == []
    return [p for p in problems if p.kind == "warning"]


def keys(tree):
    if isinstance(tree, list):
        return [key for item in tree for key in keys(item)]
    return [*tree, *(key for value in tree.values() for key in keys(value))] if isinstance(tree, dict) else []


# One row: what it shows, the v2 message, the file, and the v3 form.
ROWS = [
    (
        "hosts become load_assignment",
        "envoy.api.v2.Cluster",
        """
        name: one
        connect_timeout: 1s
        hosts:
        - socket_address: {address: a, port_value: 80}
        - pipe: {path: /x}
        """,
        """
        name: one
        connect_timeout: 1s
        load_assignment:
          cluster_name: one
          endpoints:
          - lb_endpoints:
            - endpoint: {address: {socket_address: {address: a, port_value: 80}}}
            - endpoint: {address: {pipe: {path: /x}}}
        """,
    ),
    (
        "a single host without its dash",
        "envoy.api.v2.Cluster",
        "{name: one, connect_timeout: 1s, hosts: {pipe: {path: /x}}}",
        """
        name: one
        connect_timeout: 1s
        load_assignment: {cluster_name: one, endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: /x}}}}]}]}
        """,
    ),
    (
        "camelCase is the same field",
        "envoy.api.v2.Cluster",
        "{name: one, connectTimeout: 1s, tlsContext: {sni: a}}",
        """
        name: one
        connect_timeout: 1s
        transport_socket:
          name: envoy.transport_sockets.tls
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
            sni: a
        """,
    ),
    (
        "a filter chain's tls_context is downstream's",
        "envoy.api.v2.listener.FilterChain",
        "{tls_context: {require_client_certificate: true}}",
        """
        transport_socket:
          name: envoy.transport_sockets.tls
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
            require_client_certificate: true
        """,
    ),
    (
        "an untyped tls socket of a filter chain is downstream's",
        "envoy.api.v2.listener.FilterChain",
        "{transport_socket: {name: tls, config: {require_client_certificate: true}}}",
        """
        transport_socket:
          name: envoy.transport_sockets.tls
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
            require_client_certificate: true
        """,
    ),
    (
        "an untyped tls socket of a cluster is upstream's",
        "envoy.api.v2.Cluster",
        "{name: one, connect_timeout: 1s, transport_socket: {name: envoy.transport_sockets.tls, config: {sni: a}}}",
        """
        name: one
        connect_timeout: 1s
        transport_socket:
          name: envoy.transport_sockets.tls
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
            sni: a
        """,
    ),
    (
        "config beside a name, with an old name",
        "envoy.api.v2.listener.Filter",
        "{name: envoy.tcp_proxy, config: {stat_prefix: a, cluster: b}}",
        """
        name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: a
          cluster: b
        """,
    ),
    (
        "a Python class keeps its Struct",
        "envoy.config.filter.network.http_connection_manager.v2.HttpFilter",
        "{name: 'my.package:Filter', config: {a: 1}}",
        """
        name: my.package:Filter
        typed_config: {"@type": type.googleapis.com/google.protobuf.Struct, value: {a: 1}}
        """,
    ),
    (
        "a name alone",
        "envoy.api.v2.listener.ListenerFilter",
        "{name: envoy.listener.tls_inspector}",
        """
        name: envoy.filters.listener.tls_inspector
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}
        """,
    ),
    (
        "an empty typed_config",
        "envoy.api.v2.listener.ListenerFilter",
        "{name: envoy.listener.original_dst, typed_config: {}}",
        """
        name: envoy.filters.listener.original_dst
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst}
        """,
    ),
    (
        "a null config",
        "envoy.config.filter.network.http_connection_manager.v2.HttpFilter",
        "{name: envoy.router, config: }",
        """
        name: envoy.filters.http.router
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
        """,
    ),
    (
        "typed_config of v2",
        "envoy.config.filter.accesslog.v2.AccessLog",
        """
        name: envoy.file_access_log
        typed_config: {"@type": type.googleapis.com/envoy.config.accesslog.v2.FileAccessLog, path: /x}
        """,
        """
        name: envoy.access_loggers.file
        typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /x}
        """,
    ),
    (
        "an access logger",
        "envoy.config.filter.accesslog.v2.AccessLog",
        "{name: envoy.file_access_log, config: {path: /x}}",
        """
        name: envoy.access_loggers.file
        typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /x}
        """,
    ),
    (
        "a stats sink",
        "envoy.config.metrics.v2.StatsSink",
        "{name: envoy.statsd, config: {tcp_cluster_name: a}}",
        """
        name: envoy.stat_sinks.statsd
        typed_config: {"@type": type.googleapis.com/envoy.config.metrics.v3.StatsdSink, tcp_cluster_name: a}
        """,
    ),
    (
        "a resource monitor",
        "envoy.config.overload.v2alpha.ResourceMonitor",
        "{name: envoy.resource_monitors.fixed_heap, config: {max_heap_size_bytes: 5}}",
        """
        name: envoy.resource_monitors.fixed_heap
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig
          max_heap_size_bytes: 5
        """,
    ),
    (
        "a custom health checker",
        "envoy.api.v2.core.HealthCheck.CustomHealthCheck",
        "{name: envoy.health_checkers.redis, config: {key: a}}",
        """
        name: envoy.health_checkers.redis
        typed_config: {"@type": type.googleapis.com/envoy.extensions.health_checkers.redis.v3.Redis, key: a}
        """,
    ),
    (
        "a retry predicate",
        ROUTE + "RetryPolicy.RetryHostPredicate",
        "{name: envoy.retry_host_predicates.previous_hosts}",
        """
        name: envoy.retry_host_predicates.previous_hosts
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate
        """,
    ),
    (
        "a tracer, and Zipkin's first version",
        "envoy.config.trace.v2.Tracing",
        "{http: {name: envoy.zipkin, config: {collector_cluster: a, collector_endpoint: /api/v1/spans}}}",
        """
        http:
          name: envoy.tracers.zipkin
          typed_config:
            "@type": type.googleapis.com/envoy.config.trace.v3.ZipkinConfig
            collector_cluster: a
            collector_endpoint: /api/v2/spans
            collector_endpoint_version: HTTP_JSON
        """,
    ),
    (
        "Zipkin's version by its old name",
        "envoy.config.trace.v2.ZipkinConfig",
        "{collector_cluster: a, collector_endpoint: /api/v2/spans, collector_endpoint_version: http_json_v1}",
        "{collector_cluster: a, collector_endpoint: /api/v2/spans, collector_endpoint_version: HTTP_JSON}",
    ),
    (
        "the connection manager inside config, recursively",
        "envoy.api.v2.listener.Filter",
        """
        name: envoy.http_connection_manager
        config:
          stat_prefix: a
          idle_timeout: 5s
          route_config:
            virtual_hosts:
            - {name: v, domains: "*", routes: [{match: {prefix: /}, route: {cluster: c, host_rewrite: h}}]}
          access_log: {name: envoy.file_access_log, config: {path: /x}}
          http_filters: [{name: envoy.router, type: decoder, config: {dynamic_stats: false}}]
        """,
        """
        name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: a
          common_http_protocol_options: {idle_timeout: 5s}
          route_config:
            virtual_hosts:
            - {name: v, domains: "*", routes: [{match: {prefix: /}, route: {cluster: c, host_rewrite_literal: h}}]}
          access_log:
            name: envoy.access_loggers.file
            typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /x}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
              dynamic_stats: false
        """,
    ),
    (
        "per_filter_config, by the filter's per-route message",
        ROUTE + "VirtualHost",
        """
        name: a
        domains: ["*"]
        per_filter_config: {envoy.buffer: {disabled: true}, envoy.csrf: {filter_enabled: {default_value: {numerator: 1}}}}
        """,
        """
        name: a
        domains: ["*"]
        typed_per_filter_config:
          envoy.filters.http.buffer:
            "@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute
            disabled: true
          envoy.filters.http.csrf:
            "@type": type.googleapis.com/envoy.extensions.filters.http.csrf.v3.CsrfPolicy
            filter_enabled: {default_value: {numerator: 1}}
        """,
    ),
    (
        "per_filter_config joins typed_per_filter_config",
        ROUTE + "WeightedCluster.ClusterWeight",
        """
        name: a
        per_filter_config: {envoy.buffer: {disabled: true}}
        typed_per_filter_config:
          envoy.fault: {"@type": type.googleapis.com/envoy.config.filter.http.fault.v2.HTTPFault}
        """,
        """
        name: a
        typed_per_filter_config:
          envoy.filters.http.fault: {"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault}
          envoy.filters.http.buffer:
            "@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute
            disabled: true
        """,
    ),
    (
        "extension_protocol_options",
        "envoy.api.v2.Cluster",
        "{name: a, connect_timeout: 1s, extension_protocol_options: {envoy.filters.network.thrift_proxy: {protocol: BINARY}}}",
        """
        name: a
        connect_timeout: 1s
        typed_extension_protocol_options:
          envoy.filters.network.thrift_proxy:
            "@type": type.googleapis.com/envoy.extensions.filters.network.thrift_proxy.v3.ThriftProtocolOptions
            protocol: BINARY
        """,
    ),
    (
        "request_mirror_policy and its runtime key",
        ROUTE + "RouteAction",
        "{cluster: a, request_mirror_policy: {cluster: b, runtime_key: k}}",
        """
        cluster: a
        request_mirror_policies:
        - cluster: b
          runtime_fraction: {default_value: {numerator: 0, denominator: TEN_THOUSAND}, runtime_key: k}
        """,
    ),
    (
        "auto_host_rewrite_header",
        ROUTE + "RouteAction",
        "{cluster: a, auto_host_rewrite_header: x-h}",
        "{cluster: a, host_rewrite_header: x-h}",
    ),
    (
        "websocket",
        ROUTE + "RouteAction",
        "{cluster: a, use_websocket: true}",
        "{cluster: a, upgrade_configs: [{upgrade_type: websocket}]}",
    ),
    ("websocket switched off", ROUTE + "RouteAction", "{cluster: a, use_websocket: false}", "{cluster: a}"),
    ("route regex", ROUTE + "RouteMatch", "{regex: /a.*}", "{safe_regex: {regex: /a.*}}"),
    (
        "route runtime",
        ROUTE + "RouteMatch",
        "{prefix: /, runtime: {default_value: 5, runtime_key: k}}",
        "{prefix: /, runtime_fraction: {default_value: {numerator: 5, denominator: HUNDRED}, runtime_key: k}}",
    ),
    (
        "header regex",
        ROUTE + "HeaderMatcher",
        "{name: a, regex_match: b+}",
        "{name: a, string_match: {safe_regex: {regex: b+}}}",
    ),
    ("header value", ROUTE + "HeaderMatcher", "{name: a, value: b}", "{name: a, string_match: {exact: b}}"),
    ("header without value", ROUTE + "HeaderMatcher", "{name: a, value: ''}", "{name: a, present_match: true}"),
    (
        "header value as regex",
        ROUTE + "HeaderMatcher",
        "{name: a, value: b+, regex: true}",
        "{name: a, string_match: {safe_regex: {regex: b+}}}",
    ),
    (
        "string regex",
        "envoy.config.rbac.v2.Principal",
        "{authenticated: {principal_name: {regex: b+}}}",
        "{authenticated: {principal_name: {safe_regex: {regex: b+}}}}",
    ),
    (
        "query parameter",
        ROUTE + "QueryParameterMatcher",
        "{name: a, value: b}",
        "{name: a, string_match: {exact: b}}",
    ),
    (
        "query parameter by regex",
        ROUTE + "QueryParameterMatcher",
        "{name: a, value: b+, regex: true}",
        "{name: a, string_match: {safe_regex: {regex: b+}}}",
    ),
    ("query parameter by presence", ROUTE + "QueryParameterMatcher", "{name: a}", "{name: a}"),
    (
        "virtual cluster",
        ROUTE + "VirtualCluster",
        "{name: a, pattern: /b+, method: post}",
        """
        name: a
        headers:
        - {name: ":path", string_match: {safe_regex: {regex: /b+}}}
        - {name: ":method", string_match: {exact: POST}}
        """,
    ),
    (
        "virtual cluster, the method as a number",
        ROUTE + "VirtualCluster",
        "{name: a, pattern: /b, method: 1}",
        """
        name: a
        headers:
        - {name: ":path", string_match: {safe_regex: {regex: /b}}}
        - {name: ":method", string_match: {exact: GET}}
        """,
    ),
    (
        "CORS",
        ROUTE + "CorsPolicy",
        "{allow_origin: ['*', a], allow_origin_regex: [b+], enabled: false, max_age: '5'}",
        """
        max_age: "5"
        allow_origin_string_match: [{exact: "*"}, {exact: a}, {safe_regex: {regex: b+}}]
        filter_enabled: {default_value: {numerator: 0, denominator: HUNDRED}}
        """,
    ),
    (
        "CORS, enabled",
        ROUTE + "CorsPolicy",
        "{enabled: true}",
        "{filter_enabled: {default_value: {numerator: 100, denominator: HUNDRED}}}",
    ),
    (
        "idle_timeout joins the options",
        HCM,
        "{stat_prefix: a, rds: {config_source: {ads: {}}, route_config_name: r}, idle_timeout: 1s, "
        "common_http_protocol_options: {max_headers_count: 5}}",
        """
        stat_prefix: a
        rds: {config_source: {ads: {}, resource_api_version: V3}, route_config_name: r}
        common_http_protocol_options: {max_headers_count: 5, idle_timeout: 1s}
        """,
    ),
    (
        "request_headers_for_tags",
        HCM + ".Tracing",
        "{operation_name: ingress, request_headers_for_tags: [a]}",
        "{custom_tags: [{tag: a, request_header: {name: a}}]}",
    ),
    (
        "HTTP health check",
        "envoy.api.v2.core.HealthCheck.HttpHealthCheck",
        "{path: /, use_http2: true, service_name: s, receive: {text: '00'}}",
        "{path: /, codec_client_type: HTTP2, service_name_matcher: {prefix: s}, receive: [{text: '00'}]}",
    ),
    (
        "Redis health check",
        "envoy.api.v2.core.HealthCheck",
        "{timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, redis_health_check: {key: k}}",
        """
        timeout: 1s
        interval: 1s
        unhealthy_threshold: 1
        healthy_threshold: 1
        custom_health_check:
          name: envoy.health_checkers.redis
          typed_config: {"@type": type.googleapis.com/envoy.extensions.health_checkers.redis.v3.Redis, key: k}
        """,
    ),
    (
        "verify_subject_alt_name",
        "envoy.api.v2.auth.CertificateValidationContext",
        "{verify_subject_alt_name: [a, b]}",
        "{match_subject_alt_names: [{exact: a}, {exact: b}]}",
    ),
    (
        "RedisProxy.cluster",
        NETWORK + "redis_proxy.v2.RedisProxy",
        "{stat_prefix: a, cluster: b, settings: {op_timeout: 1s}}",
        "{stat_prefix: a, settings: {op_timeout: 1s}, prefix_routes: {catch_all_route: {cluster: b}}}",
    ),
    (
        "RedisProxy.catch_all_cluster",
        NETWORK + "redis_proxy.v2.RedisProxy",
        "{stat_prefix: a, settings: {op_timeout: 1s}, prefix_routes: {catch_all_cluster: b}}",
        "{stat_prefix: a, settings: {op_timeout: 1s}, prefix_routes: {catch_all_route: {cluster: b}}}",
    ),
    (
        "the gzip filter",
        "envoy.config.filter.network.http_connection_manager.v2.HttpFilter",
        """
        name: envoy.gzip
        config:
          memory_level: 3
          compression_level: best
          compression_strategy: huffman
          content_length: 100
          content_type: [text/html]
          disable_on_etag_header: true
        """,
        """
        name: envoy.filters.http.compressor
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.compressor.v3.Compressor
          response_direction_config:
            disable_on_etag_header: true
            common_config: {min_content_length: 100, content_type: [text/html]}
          compressor_library:
            name: gzip
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip
              memory_level: 3
              compression_level: BEST_COMPRESSION
              compression_strategy: HUFFMAN_ONLY
        """,
    ),
    (
        "the gzip filter without fields",
        "envoy.config.filter.network.http_connection_manager.v2.HttpFilter",
        "{name: envoy.gzip}",
        """
        name: envoy.filters.http.compressor
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.compressor.v3.Compressor
          compressor_library:
            name: gzip
            typed_config: {"@type": type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip}
        """,
    ),
    (
        "headers of a route action go before those of the route",
        ROUTE + "Route",
        """
        match: {prefix: /}
        route: {cluster: a, request_headers_to_add: {header: {key: b}}, response_headers_to_remove: [c]}
        request_headers_to_add: [{header: {key: d}}]
        """,
        """
        match: {prefix: /}
        route: {cluster: a}
        request_headers_to_add: [{header: {key: b}}, {header: {key: d}}]
        response_headers_to_remove: [c]
        """,
    ),
    (
        "fault percent",
        HTTP + "fault.v2.HTTPFault",
        "{delay: {type: FIXED, percent: 5, fixed_delay: 1s}, abort: {percent: 6, http_status: 503}}",
        """
        delay: {fixed_delay: 1s, percentage: {numerator: 5, denominator: HUNDRED}}
        abort: {http_status: 503, percentage: {numerator: 6, denominator: HUNDRED}}
        """,
    ),
    (
        "sni_domains, LOCAL",
        "envoy.api.v2.listener.FilterChainMatch",
        "{sni_domains: [a], source_type: local}",
        "{source_type: SAME_IP_OR_LOOPBACK, server_names: [a]}",
    ),
    (
        "health check filter's endpoint",
        HTTP + "health_check.v2.HealthCheck",
        "{pass_through_mode: false, endpoint: /h}",
        "{pass_through_mode: false, headers: [{name: ':path', string_match: {exact: /h}}]}",
    ),
    (
        "ORIGINAL_DST_LB",
        "envoy.api.v2.Cluster",
        "{name: a, type: original_dst, connect_timeout: 1s, lb_policy: original_dst_lb}",
        "{name: a, type: original_dst, connect_timeout: 1s, lb_policy: CLUSTER_PROVIDED}",
    ),
    (
        "ORIGINAL_DST_LB as a number",
        "envoy.api.v2.Cluster",
        "{name: a, type: 4, connect_timeout: 1s, lb_policy: 4}",
        "{name: a, type: 4, connect_timeout: 1s, lb_policy: CLUSTER_PROVIDED}",
    ),
    (
        "drain_connections_on_host_removal",
        "envoy.api.v2.Cluster",
        "{name: a, connect_timeout: 1s, drain_connections_on_host_removal: true}",
        "{name: a, connect_timeout: 1s, ignore_health_on_host_removal: true}",
    ),
    (
        "cluster_names of a gRPC source",
        "envoy.api.v2.core.ApiConfigSource",
        "{api_type: grpc, cluster_names: [a]}",
        "{api_type: grpc, grpc_services: [{envoy_grpc: {cluster_name: a}}], transport_api_version: V3}",
    ),
    (
        "cluster_names of a REST source stay",
        "envoy.api.v2.core.ConfigSource",
        "{api_config_source: {api_type: REST, cluster_names: [a], refresh_delay: 1s}}",
        """
        api_config_source: {api_type: REST, cluster_names: [a], refresh_delay: 1s, transport_api_version: V3}
        resource_api_version: V3
        """,
    ),
    (
        "Listener.deprecated_v1",
        "envoy.api.v2.Listener",
        """
        address: {pipe: {path: /x}}
        deprecated_v1: {bind_to_port: false}
        filter_chains: [{}]
        """,
        "{address: {pipe: {path: /x}}, filter_chains: [{}], bind_to_port: false}",
    ),
    (
        "RBACPerRoute.disabled",
        HTTP + "rbac.v2.RBACPerRoute",
        "{disabled: true}",
        "{}",
    ),
    (
        "Authenticated.name",
        "envoy.config.rbac.v2.Principal",
        "{authenticated: {name: a}}",
        "{authenticated: {principal_name: {exact: a}}}",
    ),
    (
        "SetCurrentClientCertDetails.san",
        HCM + ".SetCurrentClientCertDetails",
        "{san: true}",
        "{uri: true}",
    ),
    (
        "ext_authz's lists of 1.8",
        HTTP + "ext_authz.v2.HttpService",
        """
        server_uri: {uri: "http://a", cluster: a, timeout: 1s}
        allowed_request_headers: [b]
        allowed_authorization_headers: [c]
        authorization_headers_to_add: [{key: d, value: e}]
        """,
        """
        server_uri: {uri: "http://a", cluster: a, timeout: 1s}
        authorization_request:
          allowed_headers: {patterns: [{exact: b, ignore_case: true}]}
          headers_to_add: [{key: d, value: e}]
        authorization_response:
          allowed_upstream_headers: {patterns: [{exact: c, ignore_case: true}]}
          allowed_client_headers: {patterns: [{exact: c, ignore_case: true}]}
        """,
    ),
    (
        "ext_authz ignored the case of header names",
        HTTP + "ext_authz.v2.AuthorizationRequest",
        """
        allowed_headers:
          patterns: [{prefix: X-A}, {exact: b, ignore_case: false}, {safe_regex: {google_re2: {}, regex: c}}]
        """,
        """
        allowed_headers:
          patterns: [{prefix: X-A, ignore_case: true}, {exact: b, ignore_case: false}, {safe_regex: {regex: c}}]
        """,
    ),
    (
        "runtime becomes layers",
        "envoy.config.bootstrap.v2.Bootstrap",
        "{runtime: {symlink_root: /r, subdirectory: s, override_subdirectory: o, base: {k: 1}}}",
        """
        layered_runtime:
          layers:
          - {name: base, static_layer: {k: 1}}
          - {name: root, disk_layer: {symlink_root: /r, subdirectory: s}}
          - {name: override, disk_layer: {symlink_root: /r, subdirectory: o, append_service_cluster: true}}
          - {name: admin, admin_layer: {}}
        """,
    ),
    (
        "fields that v3 keeps",
        "envoy.config.bootstrap.v2.Bootstrap",
        """
        admin: {access_log_path: /x, address: {pipe: {path: /y}}}
        static_resources:
          clusters: [{name: a, connect_timeout: 1s, http2_protocol_options: {}, dns_lookup_family: v4_only}]
        """,
        """
        admin: {access_log_path: /x, address: {pipe: {path: /y}}}
        static_resources:
          clusters: [{name: a, connect_timeout: 1s, http2_protocol_options: {}, dns_lookup_family: v4_only}]
        """,
    ),
    (
        "a TypedStruct of a v2 message",
        "envoy.config.filter.network.http_connection_manager.v2.HttpFilter",
        """
        name: envoy.buffer
        typed_config:
          "@type": type.googleapis.com/udpa.type.v1.TypedStruct
          type_url: type.googleapis.com/envoy.config.filter.http.buffer.v2.Buffer
          value: {max_request_bytes: 5}
        """,
        """
        name: envoy.filters.http.buffer
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer
          max_request_bytes: 5
        """,
    ),
]


@pytest.mark.parametrize(("message", "before", "after"), [pytest.param(*row[1:], id=row[0]) for row in ROWS])
def test_row(message, before, after):
    result, expected = load(before, "f"), load(after, "f")
    warnings(upgrade(result, message))
    for document in (result, expected):  # validation gives both one spelling
        assert [p.text("f") for p in validate(document.root, schema().v3_of(message)) if p.kind == "error"] == []
    assert result.root.to_python() == expected.root.to_python()


DROPPED = [
    ("envoy.config.filter.network.http_connection_manager.v2.HttpFilter", "{name: envoy.router, type: both}", "type"),
    (
        "envoy.config.filter.network.http_connection_manager.v2.HttpFilter",
        "{name: envoy.router, deprecated_v1: {type: decoder}}",
        "deprecated_v1",
    ),
    (HCM, "{stat_prefix: a, route_config: {}, bugfix_reverse_encode_order: true}", "bugfix_reverse_encode_order"),
    (
        "envoy.api.v2.Listener",
        "{address: {pipe: {path: /x}}, filter_chains: [{}], bugfix_reverse_write_filter_order: false}",
        "bugfix_reverse_write_filter_order",
    ),
    ("envoy.api.v2.core.Node", "{id: a, build_version: b}", "build_version"),
    ("envoy.api.v2.Cluster.RingHashLbConfig", "{deprecated_v1: {use_std_hash: true}}", "deprecated_v1"),
    ("envoy.api.v2.auth.CommonTlsContext", "{deprecated_v1: {alt_alpn_protocols: h2}}", "deprecated_v1"),
    (
        "envoy.config.bootstrap.v2.Bootstrap.DynamicResources",
        "{deprecated_v1: {sds_config: {}}}",
        "deprecated_v1",
    ),
    (ROUTE + "RouteAction", "{cluster: a, websocket_config: {max_connect_attempts: 2}}", "websocket_config"),
    ("envoy.api.v2.ClusterLoadAssignment.Policy", "{disable_overprovisioning: true}", "disable_overprovisioning"),
    ("envoy.api.v2.listener.UdpListenerConfig", "{udp_listener_name: raw_udp_listener}", "udp_listener_name"),
    (
        ROUTE + "VirtualHost",
        "{name: a, domains: ['*'], per_filter_config: {envoy.grpc_web: {}}}",
        'per_filter_config["envoy.grpc_web"]',
    ),
    (HTTP + "buffer.v2.BufferPerRoute", "{buffer: {max_request_bytes: 1, max_request_time: 1s}}", "max_request_time"),
    (
        "envoy.config.ratelimit.v2.RateLimitServiceConfig",
        "{grpc_service: {envoy_grpc: {cluster_name: a}}, use_data_plane_proto: true}",
        "use_data_plane_proto",
    ),
]


@pytest.mark.parametrize(("message", "text", "field"), DROPPED, ids=[f"{row[0]}.{row[2]}" for row in DROPPED])
def test_what_is_dropped_is_told(message, text, field):
    result, problems = run(message, text)
    told = warnings(problems)
    assert any(p.path.endswith(field) and p.message.startswith("dropped: ") for p in told)
    assert field not in keys(result)


def test_hosts_beside_load_assignment_are_dropped():
    result, problems = run(
        "envoy.api.v2.Cluster",
        "{name: a, connect_timeout: 1s, load_assignment: {cluster_name: b}, hosts: [{pipe: {path: /x}}]}",
    )
    assert result["load_assignment"] == {"cluster_name": "b"}
    assert [p.path for p in warnings(problems)] == ["hosts"]


@pytest.mark.parametrize("regex", ["/(?=a)", "/(?!a)", "(?<=a)b", "(a)\\1", "\\\\(?=a)"])
def test_a_regular_expression_that_re2_has_not_is_refused(regex):
    _, problems = run(ROUTE + "RouteMatch", f"\nregex: '{regex}'\n")
    (error,) = [p for p in problems if p.kind == "error"]
    assert (error.line, error.path) == (2, "regex")
    assert "RE2" in error.message


@pytest.mark.parametrize("regex", ["/(?:a)", "/[ab]+\\d", "\\(?=", "(?i)a", "\\\\1"])
def test_a_regular_expression_that_both_have_is_left_alone(regex):
    result, problems = run(ROUTE + "RouteMatch", f"regex: '{regex}'")
    assert problems == []
    assert result == {"safe_regex": {"regex": regex}}


def test_the_name_of_the_engine_goes_unless_it_has_fields():
    result, _ = run(ROUTE + "RouteMatch", "{safe_regex: {google_re2: {}, regex: a}}")
    assert result == {"safe_regex": {"regex": "a"}}
    result, _ = run(ROUTE + "RouteMatch", "{safe_regex: {google_re2: {max_program_size: 5}, regex: a}}")
    assert result == {"safe_regex": {"google_re2": {"max_program_size": 5}, "regex": "a"}}


@pytest.mark.parametrize("match", ["exact", "prefix", "suffix"])
def test_header_matches_by_today_s_name(match):
    result, _ = run(ROUTE + "HeaderMatcher", f"{{name: a, {match}_match: b, invert_match: true}}")
    assert result == {"name": "a", "string_match": {match: "b"}, "invert_match": True}


def test_buffer_max_request_time_becomes_the_request_timeout():
    result, problems = run(
        HCM,
        """
        stat_prefix: a
        route_config: {}
        http_filters:
        - {name: envoy.buffer, config: {max_request_bytes: 5, max_request_time: 120s}}
        - {name: envoy.router}
        """,
    )
    assert warnings(problems) == []
    assert result["request_timeout"] == "120s"
    assert "max_request_time" not in result["http_filters"][0]["typed_config"]


def test_a_request_timeout_of_its_own_wins():
    result, _ = run(
        HCM,
        """
        stat_prefix: a
        route_config: {}
        request_timeout: 1s
        http_filters: [{name: envoy.buffer, config: {max_request_bytes: 5, max_request_time: 120s}}, {name: envoy.router}]
        """,
    )
    assert result["request_timeout"] == "1s"


BOOTSTRAP = """
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: 1}}}}
    filter_chains:
    - filters:
      - name: envoy.http_connection_manager
        config:
          stat_prefix: a
          route_config: {{}}
          {hcm}
          http_filters:
          - name: envoy.rate_limit
            config: {{domain: d}}
          - name: envoy.router
{top}
"""


def bootstrap(hcm="", top=""):
    result, problems = run("envoy.config.bootstrap.v2.Bootstrap", BOOTSTRAP.format(hcm=hcm, top=top))
    listener = result["static_resources"]["listeners"][0]
    return result, listener, listener["filter_chains"][0]["filters"][0]["typed_config"], problems


def test_the_rate_limit_service_goes_to_the_filters():
    service = "rate_limit_service: {grpc_service: {envoy_grpc: {cluster_name: r}}}"
    result, _, manager, problems = bootstrap(top=service)
    assert "rate_limit_service" not in result
    assert manager["http_filters"][0]["typed_config"]["rate_limit_service"] == {
        "grpc_service": {"envoy_grpc": {"cluster_name": "r"}},
        "transport_api_version": "V3",
    }
    assert [p.message for p in warnings(problems)] == ["this service is spoken to in v3 now"]


def test_the_rate_limit_service_by_cluster_name():
    _, _, manager, _ = bootstrap(top="rate_limit_service: {cluster_name: r}")
    service = manager["http_filters"][0]["typed_config"]["rate_limit_service"]
    assert service["grpc_service"] == {"envoy_grpc": {"cluster_name": "r"}}


def test_a_rate_limit_service_that_nobody_uses_is_told():
    _, problems = run("envoy.config.bootstrap.v2.Bootstrap", "{rate_limit_service: {cluster_name: r}}")
    assert [p.path for p in warnings(problems)] == ["rate_limit_service"]


def test_egress_tracing_becomes_the_listener_s_direction():
    _, listener, manager, _ = bootstrap(
        hcm="tracing: {operation_name: egress}", top="rate_limit_service: {cluster_name: r}"
    )
    assert listener["traffic_direction"] == "OUTBOUND"
    assert manager["tracing"] == {}


def test_ingress_tracing_needs_no_direction():
    _, listener, _, _ = bootstrap(hcm="tracing: {operation_name: INGRESS}", top="rate_limit_service: {cluster_name: r}")
    assert "traffic_direction" not in listener


REFUSED = [
    (NETWORK + "tcp_proxy.v2.TcpProxy", "{stat_prefix: a, deprecated_v1: {routes: [{cluster: b}]}}", "deprecated_v1"),
    ("envoy.api.v2.listener.Filter", "{name: envoy.tcp_proxy, config: {deprecated_v1: true, value: {}}}", "config"),
    ("envoy.api.v2.listener.Filter", "{name: my.own, config: {a: 1}}", "config"),
    (
        ROUTE + "VirtualHost",
        "{name: a, domains: ['*'], per_filter_config: {my.own: {a: 1}}}",
        'per_filter_config["my.own"]',
    ),
    ("envoy.api.v2.core.ApiConfigSource", "{cluster_names: [a]}", "api_type"),
]


@pytest.mark.parametrize(("message", "text", "path"), REFUSED, ids=[row[2] for row in REFUSED])
def test_what_has_no_successor_is_refused_with_advice(message, text, path):
    _, problems = run(message, text)
    errors = [p for p in problems if p.kind == "error"]
    assert path in [p.path for p in errors]
    assert all(p.hint for p in errors if p.path == path)


def test_what_is_new_carries_the_line_of_what_it_replaces():
    document = load("name: a\nconnect_timeout: 1s\nhosts:\n- pipe:\n    path: /x\ntls_context:\n  sni: b\n", "f")
    assert warnings(upgrade(document, "envoy.api.v2.Cluster")) == []
    assignment = document.root.entry("load_assignment")
    assert (assignment.key_mark.line, assignment.value.mark.line) == (4, 4)
    endpoint = assignment.value.get("endpoints").items[0].get("lb_endpoints").items[0].get("endpoint")
    assert endpoint.get("address").get("pipe").get("path").mark == (5, 11)
    assert document.root.get("transport_socket").get("typed_config").get("sni").mark == (7, 8)


def test_unknown_fields_of_v2_are_errors_with_their_place():
    _, problems = run("envoy.api.v2.Cluster", "name: a\nconnect_timeout: 1s\nhosts: [{pipe: {path: /x}}]\nhost: 5\n")
    (error,) = [p for p in problems if p.kind == "error"]
    assert (error.line, error.column) == (4, 1)
    assert 'no field "host"' in error.message


def test_unknown_fields_within_config_are_errors():
    _, problems = run(
        "envoy.api.v2.listener.Filter", "name: envoy.tcp_proxy\nconfig:\n  stat_prefix: a\n  cluster: b\n  clutser: c\n"
    )
    (error,) = [p for p in problems if p.kind == "error"]
    assert (error.line, error.column) == (5, 3)
    assert 'no field "clutser"' in error.message


def test_a_v2_rule_is_checked():
    _, problems = run("envoy.api.v2.Cluster", "{name: '', connect_timeout: 1s}")
    assert [p.path for p in problems if p.kind == "error"] == ["name"]


# -- versions and mixtures


HALF_V3 = """
static_resources:
  clusters:
  - name: a
    connect_timeout: 1s
    ignore_health_on_host_removal: true
    hosts: [{pipe: {path: /x}}]
"""


@pytest.mark.parametrize(
    ("version", "text"),
    [
        ("v3", "{}"),
        ("v3", "admin: {access_log_path: /x, address: {pipe: {path: /y}}}"),
        ("v3", "static_resources: {clusters: [{name: a, type: static, lb_policy: maglev}]}"),
        ("v3", "tls_context: {sni: a}"),
        ("v3", "forkproxy: {workers: 1}"),
        ("v2", "static_resources: {clusters: [{name: a, hosts: []}]}"),
        ("v2", "static_resources: {clusters: [{name: a, tlsContext: {}}]}"),
        ("v2", "static_resources: {clusters: {name: a, lb_policy: Original_Dst_LB}}"),
        ("v2", "runtime: {symlink_root: /x}"),
        ("v2", "rate_limit_service: {cluster_name: a}"),
        ("v2", "stats_sinks: [{name: envoy.statsd, config: {}}]"),
        ("v2", f'stats_sinks: [{{name: a, typed_config: {{"@type": {URL}envoy.config.metrics.v2.StatsdSink}}}}]'),
        ("v3", f'stats_sinks: [{{name: a, typed_config: {{"@type": {URL}envoy.config.metrics.v3.StatsdSink}}}}]'),
        ("v2", HALF_V3),
    ],
)
def test_detect_version(version, text):
    assert detect_version(load(text, "f").root) == version


def test_what_has_nothing_of_v2_needs_no_schema_of_v2(monkeypatch):
    asked = []
    look_up = Schema.message
    monkeypatch.setattr(Schema, "message", lambda self, name: asked.append(name) or look_up(self, name))
    assert detect_version(load(pathlib.Path("etc/forkproxy.yaml").read_bytes(), "f").root) == "v3"
    assert [name for name in asked if ".v3." not in name and not name.startswith("google.")] == []
    assert detect_version(load("static_resources: {clusters: [{name: a, hosts: []}]}", "f").root) == "v2"
    assert "envoy.config.bootstrap.v2.Bootstrap" in asked


def version_of(message):
    name = schema().v3_of(message.full_name)
    return schema().message(name) if name else message


def test_what_v2_and_v3_call_alike_is_of_one_kind():
    """What lets a file be judged by v3's schema alone, when nothing in it is unknown there."""
    odd = []
    for name in filter(schema().is_message, schema().names()):
        old = schema().message(name)
        new = version_of(old)
        for key, before in old.lookup.items() if new is not old else ():
            after = new.lookup.get(key)
            if after is None:
                continue
            kinds = [field.map_value if field.shape == "map" else field for field in (before, after)]
            shapes = {
                (field.shape, field.repeated, kind.shape) for field, kind in zip((before, after), kinds, strict=True)
            }
            if len(shapes) > 1 or (
                kinds[0].shape == "message" and version_of(kinds[0].message) is not kinds[1].message
            ):
                odd.append(f"{name}.{key}")
    # A Payload, which v3 may have several of. Nothing in it is of one version.
    assert odd == ["envoy.api.v2.core.HealthCheck.HttpHealthCheck.receive"]


V3_MANAGER = """
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: 1}}
    filter_chains:
    - filters:
      - name: envoy.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: a
          route_config:
            virtual_hosts:
            - {name: v, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: c, host_rewrite: "%REQ(x)%"}}]}
          access_log:
          - name: envoy.file_access_log
            typed_config: {"@type": type.googleapis.com/envoy.config.accesslog.v2.FileAccessLog, path: /x}
          http_filters: [{name: envoy.router}]
"""


def manager(root):
    return root["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]


def test_host_rewrite_of_v3_stays_what_it_is():
    document = load(V3_MANAGER, "f")
    assert detect_version(document.root) == "v2"  # for its access log
    assert warnings(upgrade(document)) == []
    result = manager(document.root.to_python())
    route = result["route_config"]["virtual_hosts"][0]["routes"][0]["route"]
    assert route == {"cluster": "c", "host_rewrite": "%REQ(x)%"}
    assert (
        result["access_log"][0]["typed_config"]["@type"]
        == URL + "envoy.extensions.access_loggers.file.v3.FileAccessLog"
    )
    assert result["http_filters"][0]["typed_config"]["@type"] == URL + "envoy.extensions.filters.http.router.v3.Router"


def test_fields_of_v2_in_a_v3_message_of_a_mixed_file_are_read_as_v2():
    mixed = V3_MANAGER.replace("host_rewrite", "cors: {allow_origin: [o]}, host_rewrite")
    document = load(mixed, "f")
    assert [p.message for p in warnings(upgrade(document))] == [
        "fields of v2 in a v3 HttpConnectionManager: read as v2"
    ]
    route = manager(document.root.to_python())["route_config"]["virtual_hosts"][0]["routes"][0]["route"]
    assert route["cors"] == {"allow_origin_string_match": [{"exact": "o"}]}


def test_a_v3_field_in_a_v2_message_is_no_error():
    document = load(HALF_V3, "f")
    assert [p.line for p in warnings(upgrade(document))] == [6]
    (cluster,) = document.root.to_python()["static_resources"]["clusters"]
    assert sorted(cluster) == ["connect_timeout", "ignore_health_on_host_removal", "load_assignment", "name"]


def test_after_the_upgrade_a_tree_is_v3():
    document = load(V3_MANAGER, "f")
    upgrade(document)
    assert detect_version(document.root) == "v3"
    before = document.root.to_python()
    assert type_extensions(document) == []
    assert document.root.to_python() == before


def test_type_extensions_leaves_everything_else_alone():
    text = V3_MANAGER.replace("envoy.config.accesslog.v2", "envoy.extensions.access_loggers.file.v3")
    document = load(text, "f")
    assert detect_version(document.root) == "v3"
    assert type_extensions(document) == []
    expected = load(text, "f").root.to_python()
    router = {"@type": URL + "envoy.extensions.filters.http.router.v3.Router"}
    manager(expected)["http_filters"][0] = {"name": "envoy.filters.http.router", "typed_config": router}
    result = document.root.to_python()
    for tree in (result, expected):
        tree["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0].pop("name")
        manager(tree)["access_log"][0].pop("name")
    assert result == expected


# -- no tree makes it fail

EVERYTHING = (pathlib.Path(__file__).parents[2] / "conformance" / "v2" / "everything.yaml").read_text()


def with_one_wrong(node, wrong):
    """Copies of a tree, each with ``wrong`` at another place, and without what stands beside that place in lists."""
    if node.kind == "map":
        for position, entry in enumerate(node.entries):
            for value in (wrong, *with_one_wrong(entry.value, wrong)):
                copy = Node.map(node.mark, [Entry(each.key, each.key_mark, each.value) for each in node.entries])
                copy.entries[position].value = value
                yield copy
    elif node.kind == "seq":
        for item in node.items:
            for value in (wrong, *with_one_wrong(item, wrong)):
                yield Node.seq(node.mark, [value])


@pytest.mark.parametrize("wrong", [5, [], {"a": {"b": 1}}, None])
def test_a_wrong_value_anywhere_is_reported_and_never_raises(wrong):
    root = load(EVERYTHING, "f").root
    refused = 0
    for tree in with_one_wrong(root, Node.from_python(wrong, Mark(1, 1))):
        document = Document(tree.copy(), "f", EVERYTHING, [])
        detect_version(document.root)
        problems = upgrade(document)
        if not any(p.kind == "error" for p in problems):
            problems = validate(document.root, "envoy.config.bootstrap.v3.Bootstrap")
        refused += any(p.kind == "error" for p in problems)
    assert refused >= (0 if wrong is None else 100)


def test_everything_is_told_where_it_changes():
    document = load(EVERYTHING, "f")
    problems = warnings(upgrade(document))
    assert [p for p in problems if not p.line] == []
    assert {p.path.rpartition(".")[2] for p in problems} >= {
        "build_version",
        "runtime_key",
        "bugfix_reverse_encode_order",
    }


# -- the tables against the schema


def test_every_rule_names_a_message_of_v2():
    for table in (FROM_1_8, BEFORE, AFTER, FIELDS_OF_1_8):
        for name in table:
            assert schema().is_message(name), name
            assert ".v3." not in name


def test_the_fields_of_1_8_are_gone_from_the_last_v2_and_have_a_rule():
    for name, fields in FIELDS_OF_1_8.items():
        assert not set(fields) & set(schema().message(name).fields), name
        assert name in FROM_1_8 or name.endswith("RouteAction"), name


def test_every_field_that_v3_lost_has_an_answer():
    """No field of the v2 configuration API may be lost without a rule: a new rule is needed when this fails."""
    lost = {
        f"{new.previous}.{field.name}"
        for new in map(schema().message, filter(schema().is_message, schema().names()))
        if ".v3." in new.full_name
        and new.previous in schema()
        and schema().message(new.previous).package != new.package
        for field in schema().message(new.previous).fields.values()
        if field.number not in {candidate.number for candidate in new.fields.values()}
        if new.previous.startswith(("envoy.api.", "envoy.config.", "envoy.type."))
        if field.name not in ("config", "per_filter_config", "extension_protocol_options")  # typed by name
    }
    ruled = set(FROM_1_8) | set(BEFORE) | set(AFTER)
    assert {field for field in lost if field.rpartition(".")[0] not in ruled} == set()
