"""The groups of statistics that Envoy has by default, complete, so that /stats shows what operators look for.

Names, kinds and prefixes are real Envoy's (1.40). A figure that nothing counts costs a cell in the slab and shows as 0,
which is what Envoy shows for it too. The prefix each group goes under is in its docstring.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from forkproxy.stats.counters import (
    Counter,
    Gauge,
    Histogram,
    Labels,
    SharedGauge,
    StatGroup,
    StatusClasses,
    StatusCodes,
)

# What OpenSSL and Envoy can name; anything else is not counted by name.
TLS_VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
TLS_CIPHERS = (
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-RSA-AES256-SHA",
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
)


class AdminHttpStats(StatGroup):
    """``http.admin``: the admin port's. The supervisor's, a local group."""

    downstream_cx_active: Gauge
    downstream_cx_delayed_close_timeout: Counter
    downstream_cx_destroy: Counter
    downstream_cx_destroy_active_rq: Counter
    downstream_cx_destroy_local: Counter
    downstream_cx_destroy_local_active_rq: Counter
    downstream_cx_destroy_remote: Counter
    downstream_cx_destroy_remote_active_rq: Counter
    downstream_cx_drain_close: Counter
    downstream_cx_http1_active: Gauge
    downstream_cx_http1_soft_drain: Gauge
    downstream_cx_http1_total: Counter
    downstream_cx_http2_active: Gauge
    downstream_cx_http2_total: Counter
    downstream_cx_http3_active: Gauge
    downstream_cx_http3_total: Counter
    downstream_cx_idle_timeout: Counter
    downstream_cx_max_duration_reached: Counter
    downstream_cx_max_requests_reached: Counter
    downstream_cx_overload_disable_keepalive: Counter
    downstream_cx_protocol_error: Counter
    downstream_cx_rx_bytes_buffered: Gauge
    downstream_cx_rx_bytes_total: Counter
    downstream_cx_ssl_active: Gauge
    downstream_cx_ssl_total: Counter
    downstream_cx_total: Counter
    downstream_cx_tx_bytes_buffered: Gauge
    downstream_cx_tx_bytes_total: Counter
    downstream_cx_upgrades_active: Gauge
    downstream_cx_upgrades_total: Counter
    downstream_flow_control_paused_reading_total: Counter
    downstream_flow_control_resumed_reading_total: Counter
    downstream_rq_active: Gauge
    downstream_rq_failed_path_normalization: Counter
    downstream_rq_header_timeout: Counter
    downstream_rq_http1_total: Counter
    downstream_rq_http2_total: Counter
    downstream_rq_http3_total: Counter
    downstream_rq_idle_timeout: Counter
    downstream_rq_max_duration_reached: Counter
    downstream_rq_non_relative_path: Counter
    downstream_rq_overload_close: Counter
    downstream_rq_redirected_with_normalized_path: Counter
    downstream_rq_rejected_via_ip_detection: Counter
    downstream_rq_response_before_rq_complete: Counter
    downstream_rq_rx_reset: Counter
    downstream_rq_timeout: Counter
    downstream_rq_too_large: Counter
    downstream_rq_too_many_premature_resets: Counter
    downstream_rq_total: Counter
    downstream_rq_tx_reset: Counter
    downstream_rq_ws_on_non_ws_route: Counter
    rs_too_large: Counter
    downstream_cx_length_ms: Histogram
    downstream_rq_time: Histogram


class HttpConnectionManagerStats(AdminHttpStats):
    """``http.<stat_prefix>``: what a connection manager counts. Statuses are counted by ListenerHttpStats."""

    tracing__client_enabled: Counter
    tracing__health_check: Counter
    tracing__not_traceable: Counter
    tracing__random_sampling: Counter
    tracing__service_forced: Counter


class RouterStats(StatGroup):
    """``http.<stat_prefix>``: what the router filter counts."""

    no_cluster: Counter
    no_route: Counter
    passthrough_internal_redirect_bad_location: Counter
    passthrough_internal_redirect_no_route: Counter
    passthrough_internal_redirect_predicate: Counter
    passthrough_internal_redirect_too_many_redirects: Counter
    passthrough_internal_redirect_unsafe_scheme: Counter
    rq_direct_response: Counter
    rq_overload_local_reply: Counter
    rq_redirect: Counter
    rq_reset_after_downstream_response_started: Counter
    rq_total: Counter


class ListenerHttpStats(StatGroup):
    """``listener.<address>.http.<stat_prefix>``, rolled up to ``http.<stat_prefix>``: answers by class.

    ``registry.group(ListenerHttpStats, f"listener.{address}.http.{prefix}", rolls_up_to=(f"http.{prefix}",))``
    """

    downstream_rq: StatusClasses


class Http1Stats(StatGroup):
    """``http1`` for all connection managers together."""

    dropped_headers_with_underscores: Counter
    metadata_not_supported_error: Counter
    requests_rejected_with_underscores_in_headers: Counter
    response_flood: Counter


class AdminListenerStats(StatGroup):
    """``listener.admin``: the admin port's. The supervisor's, a local group."""

    downstream_cx_active: Gauge
    downstream_cx_destroy: Counter
    downstream_cx_overflow: Counter
    downstream_cx_overload_reject: Counter
    downstream_cx_total: Counter
    downstream_cx_transport_socket_connect_timeout: Counter
    downstream_global_cx_overflow: Counter
    downstream_listener_filter_error: Counter
    downstream_listener_filter_remote_close: Counter
    downstream_pre_cx_active: Gauge
    downstream_pre_cx_timeout: Counter
    no_filter_chain_match: Counter
    connections_accepted_per_socket_event: Histogram
    downstream_cx_length_ms: Histogram


class ListenerStats(AdminListenerStats):
    """``listener.<address>``, the address as ``127.0.0.1_8080``."""

    extension_config_missing: Counter
    network_extension_config_missing: Counter


class ListenerWorkerStats(StatGroup):
    """``listener.<address>.worker_<slot>``."""

    downstream_cx_active: Gauge
    downstream_cx_total: Counter


class ClusterStats(StatGroup):
    """``cluster.<stat_name>``.

    A finished request counts once, as external or internal (internal: x-envoy-internal says so); the plain
    ``upstream_rq_200``, ``_2xx``, ``_completed`` and ``upstream_rq_time`` are the sums of the two::

        stats.external__upstream_rq[status] += 1
        stats.external__upstream_rq_time[milliseconds] += 1
    """

    totals: ClassVar[Mapping[str, str]] = {
        "external__upstream_rq": "upstream_rq",
        "internal__upstream_rq": "upstream_rq",
        "external__upstream_rq_time": "upstream_rq_time",
        "internal__upstream_rq_time": "upstream_rq_time",
    }
    lazy: ClassVar[frozenset[str]] = frozenset(("canary__upstream_rq_time",))
    used_with: ClassVar[Mapping[str, str]] = {
        "membership_degraded": "membership_total",
        "membership_excluded": "membership_total",
        "membership_healthy": "membership_total",
        "warming_state": "",
    }
    zeros: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "upstream_cx_http1_total": (
            "http1.dropped_headers_with_underscores",
            "http1.metadata_not_supported_error",
            "http1.requests_rejected_with_underscores_in_headers",
            "http1.response_flood",
        )
    }

    assignment_stale: Counter
    assignment_timeout_received: Counter
    assignment_use_cached: Counter
    bind_errors: Counter
    circuit_breakers__default__cx_open: SharedGauge
    circuit_breakers__default__cx_pool_open: SharedGauge
    circuit_breakers__default__rq_open: SharedGauge
    circuit_breakers__default__rq_pending_open: SharedGauge
    circuit_breakers__default__rq_retry_open: SharedGauge
    circuit_breakers__high__cx_open: SharedGauge
    circuit_breakers__high__cx_pool_open: SharedGauge
    circuit_breakers__high__rq_open: SharedGauge
    circuit_breakers__high__rq_pending_open: SharedGauge
    circuit_breakers__high__rq_retry_open: SharedGauge
    default__total_match_count: Counter
    lb_healthy_panic: Counter
    lb_local_cluster_not_ok: Counter
    lb_recalculate_zone_structures: Counter
    lb_subsets_active: SharedGauge
    lb_subsets_created: Counter
    lb_subsets_fallback: Counter
    lb_subsets_fallback_panic: Counter
    lb_subsets_removed: Counter
    lb_subsets_selected: Counter
    lb_zone_cluster_too_small: Counter
    lb_zone_no_capacity_left: Counter
    lb_zone_routing_all_directly: Counter
    lb_zone_routing_cross_zone: Counter
    lb_zone_routing_sampled: Counter
    max_host_weight: SharedGauge
    membership_degraded: SharedGauge
    membership_excluded: SharedGauge
    membership_healthy: SharedGauge
    membership_total: SharedGauge
    original_dst_host_invalid: Counter
    retry_or_shadow_abandoned: Counter
    upstream_cx_active: Gauge
    upstream_cx_close_notify: Counter
    upstream_cx_connect_attempts_exceeded: Counter
    upstream_cx_connect_fail: Counter
    upstream_cx_connect_timeout: Counter
    upstream_cx_connect_with_0_rtt: Counter
    upstream_cx_destroy: Counter
    upstream_cx_destroy_local: Counter
    upstream_cx_destroy_local_with_active_rq: Counter
    upstream_cx_destroy_remote: Counter
    upstream_cx_destroy_remote_with_active_rq: Counter
    upstream_cx_destroy_with_active_rq: Counter
    upstream_cx_http1_total: Counter
    upstream_cx_http2_total: Counter
    upstream_cx_http3_total: Counter
    upstream_cx_idle_timeout: Counter
    upstream_cx_max_duration_reached: Counter
    upstream_cx_max_requests: Counter
    upstream_cx_none_healthy: Counter
    upstream_cx_overflow: Counter
    upstream_cx_pool_overflow: Counter
    upstream_cx_preconnect_skipped: Counter
    upstream_cx_protocol_error: Counter
    upstream_cx_rx_bytes_buffered: Gauge
    upstream_cx_rx_bytes_total: Counter
    upstream_cx_total: Counter
    upstream_cx_tx_bytes_buffered: Gauge
    upstream_cx_tx_bytes_total: Counter
    upstream_flow_control_backed_up_total: Counter
    upstream_flow_control_drained_total: Counter
    upstream_flow_control_paused_reading_total: Counter
    upstream_flow_control_resumed_reading_total: Counter
    upstream_http3_broken: Counter
    upstream_internal_redirect_failed_total: Counter
    upstream_internal_redirect_succeeded_total: Counter
    upstream_queue_overloaded: Gauge
    upstream_rq_0rtt: Counter
    upstream_rq_active: Gauge
    upstream_rq_active_overflow: Counter
    upstream_rq_cancelled: Counter
    upstream_rq_maintenance_mode: Counter
    upstream_rq_max_duration_reached: Counter
    upstream_rq_pending_active: Gauge
    upstream_rq_pending_failure_eject: Counter
    upstream_rq_pending_overflow: Counter
    upstream_rq_pending_total: Counter
    upstream_rq_per_try_idle_timeout: Counter
    upstream_rq_per_try_timeout: Counter
    upstream_rq_retry: Counter
    upstream_rq_retry_backoff_exponential: Counter
    upstream_rq_retry_backoff_ratelimited: Counter
    upstream_rq_retry_limit_exceeded: Counter
    upstream_rq_retry_overflow: Counter
    upstream_rq_retry_success: Counter
    upstream_rq_rx_reset: Counter
    upstream_rq_rx_reset_no_error: Counter
    upstream_rq_timeout: Counter
    upstream_rq_total: Counter
    upstream_rq_tx_reset: Counter
    warming_state: SharedGauge
    upstream_cx_connect_ms: Histogram
    upstream_cx_length_ms: Histogram
    upstream_rq_per_cx: Histogram
    external__upstream_rq: StatusCodes
    internal__upstream_rq: StatusCodes
    canary__upstream_rq: StatusCodes
    retry__upstream_rq: StatusCodes
    external__upstream_rq_time: Histogram
    internal__upstream_rq_time: Histogram
    canary__upstream_rq_time: Histogram

    @property
    def upstream_rq_active_of_all(self) -> int:
        """Over all workers, where ``hash_balance_factor`` goes by it (upstream/active_requests.py); else of this one."""
        return self.upstream_rq_active


class RequestsStats(StatGroup):
    """``vhost.<virtual host>.vcluster.<name>`` and ``vhost.<virtual host>.route.<stat_prefix>``: some of the requests to
    clusters, those of a virtual cluster or of a route."""

    lazy: ClassVar[frozenset[str]] = frozenset(("upstream_rq_time",))

    upstream_rq_retry: Counter
    upstream_rq_retry_limit_exceeded: Counter
    upstream_rq_retry_overflow: Counter
    upstream_rq_retry_success: Counter
    upstream_rq_timeout: Counter
    upstream_rq_total: Counter
    upstream_rq: StatusCodes
    upstream_rq_time: Histogram


class HealthCheckStats(StatGroup):
    """``cluster.<stat_name>.health_check``: what the process that checks counts."""

    attempt: Counter
    degraded: Gauge
    failure: Counter
    healthy: Gauge
    network_failure: Counter
    passive_failure: Counter
    success: Counter
    verify_cluster: Counter


class RedisHealthCheckStats(StatGroup):
    """``cluster.<stat_name>.health_check.redis``."""

    exists_failure: Counter


class OutlierDetectionStats(StatGroup):
    """``cluster.<stat_name>.outlier_detection``. The supervisor's, a local group."""

    ejections_active: Gauge
    ejections_consecutive_5xx: Counter
    ejections_detected_consecutive_5xx: Counter
    ejections_detected_consecutive_gateway_failure: Counter
    ejections_detected_consecutive_local_origin_failure: Counter
    ejections_detected_degradation: Counter
    ejections_detected_failure_percentage: Counter
    ejections_detected_local_origin_failure_percentage: Counter
    ejections_detected_local_origin_success_rate: Counter
    ejections_detected_success_rate: Counter
    ejections_enforced_consecutive_5xx: Counter
    ejections_enforced_consecutive_gateway_failure: Counter
    ejections_enforced_consecutive_local_origin_failure: Counter
    ejections_enforced_failure_percentage: Counter
    ejections_enforced_local_origin_failure_percentage: Counter
    ejections_enforced_local_origin_success_rate: Counter
    ejections_enforced_success_rate: Counter
    ejections_enforced_total: Counter
    ejections_overflow: Counter
    ejections_success_rate: Counter
    ejections_total: Counter


class CircuitBreakerRemainingStats(StatGroup):
    """``cluster.<name>.circuit_breakers.<priority>``: what is left of each limit, where the file asks for it."""

    remaining_cx: SharedGauge
    remaining_pending: SharedGauge
    remaining_retries: SharedGauge
    remaining_rq: SharedGauge


class EndpointStats(StatGroup):
    """``cluster.<name>.endpoint.<address>``: the figures of one endpoint, shown by /clusters and not by /stats."""

    hidden = True

    cx_active: Gauge
    cx_connect_fail: Counter
    cx_total: Counter
    rq_active: Gauge
    rq_error: Counter
    rq_pending_active: Gauge
    rq_success: Counter
    rq_timeout: Counter
    rq_total: Counter

    @property
    def rq_active_of_all(self) -> int:
        """Over all workers, where the cluster's policy goes by it (upstream/active_requests.py); else of this one."""
        return self.rq_active


class TcpProxyStats(StatGroup):
    """``tcp.<stat_prefix>``."""

    downstream_cx_drain_close: Counter
    downstream_cx_no_route: Counter
    downstream_cx_overload_close: Counter
    downstream_cx_rx_bytes_buffered: Gauge
    downstream_cx_rx_bytes_total: Counter
    downstream_cx_total: Counter
    downstream_cx_tx_bytes_buffered: Gauge
    downstream_cx_tx_bytes_total: Counter
    downstream_flow_control_paused_reading_total: Counter
    downstream_flow_control_resumed_reading_total: Counter
    early_data_received_count_total: Counter
    idle_timeout: Counter
    max_downstream_connection_duration: Counter
    route_delayed_total: Counter
    upstream_flush_active: Gauge
    upstream_flush_total: Counter


class TlsStats(StatGroup):
    """``listener.<address>.ssl`` and ``cluster.<name>.ssl``."""

    labels: ClassVar[Mapping[str, tuple[str, ...]]] = {"versions": TLS_VERSIONS, "ciphers": TLS_CIPHERS}

    connection_error: Counter
    fail_verify_cert_hash: Counter
    fail_verify_error: Counter
    fail_verify_no_cert: Counter
    fail_verify_san: Counter
    handshake: Counter
    no_certificate: Counter
    ocsp_staple_failed: Counter
    ocsp_staple_omitted: Counter
    ocsp_staple_requests: Counter
    ocsp_staple_responses: Counter
    session_reused: Counter
    versions: Labels
    ciphers: Labels


class SocketFactoryStats(StatGroup):
    """``listener.<address>.server_ssl_socket_factory`` and ``cluster.<name>.client_ssl_socket_factory``."""

    zeros: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "": (
            "downstream_context_secrets_not_ready",
            "ssl_context_update_by_sds",
            "upstream_context_secrets_not_ready",
        )
    }


class ServerStats(StatGroup):
    """``server``: the supervisor's, a local group. ``state``: 0 live, 1 draining, 2 pre-initializing, 3 initializing.

    The names with a number of their own, ``worker_<slot>.watchdog_miss``, are not here.
    """

    compilation_settings__fips_mode: Gauge
    concurrency: Gauge
    days_until_first_cert_expiring: Gauge
    debug_assertion_failures: Counter
    dropped_stat_flushes: Counter
    dynamic_unknown_fields: Counter
    envoy_bug_failures: Counter
    envoy_notifications: Counter
    hot_restart_epoch: Gauge
    hot_restart_generation: Gauge
    live: Gauge
    main_thread__watchdog_mega_miss: Counter
    main_thread__watchdog_miss: Counter
    memory_allocated: Gauge
    memory_heap_size: Gauge
    memory_physical_size: Gauge
    parent_connections: Gauge
    seconds_until_first_ocsp_response_expiring: Gauge
    state: Gauge
    static_unknown_fields: Counter
    stats_recent_lookups: Gauge
    total_connections: Gauge
    uptime: Gauge
    version: Gauge
    wip_protos: Counter
    initialization_time_ms: Histogram


class WatchdogStats(StatGroup):
    """``main_thread``, ``workers`` and ``server.worker_<slot>``: hearts that did not beat. The supervisor's, local groups."""

    watchdog_mega_miss: Counter
    watchdog_miss: Counter


class InflatedClustersStats(StatGroup):
    """``thread_local_cluster_manager.<thread>``: the clusters of a process. The supervisor's, local groups."""

    clusters_inflated: Gauge


class ClusterUpdateStats(StatGroup):
    """``cluster.<stat_name>``: how its endpoints came and changed. The supervisor's, a local group."""

    membership_change: Counter
    update_attempt: Counter
    update_empty: Counter
    update_failure: Counter
    update_no_rebuild: Counter
    update_success: Counter
    version: Gauge


class ClusterSubscriptionStats(StatGroup):
    """``cluster.<stat_name>`` of an EDS cluster, besides. The supervisor's, a local group. ``update_time`` in ms since 1970."""

    init_fetch_timeout: Counter
    update_rejected: Counter
    update_time: Gauge


class StatefulSessionStats(StatGroup):
    """``http.<stat_prefix>.stateful_session.<stat_prefix>``."""

    failed_closed: Counter
    failed_open: Counter
    no_session: Counter
    routed: Counter


class DnsCacheStats(StatGroup):
    """``dns_cache.<name>``. The supervisor's, a local group; what workers count of it is in ``DnsCacheWorkerStats``."""

    cache_load: Counter
    dns_query_attempt: Counter
    dns_query_failure: Counter
    dns_query_success: Counter
    dns_query_timeout: Counter
    host_added: Counter
    host_address_changed: Counter
    host_overflow: Counter
    host_removed: Counter
    num_hosts: Gauge


class DnsCacheWorkerStats(StatGroup):
    """``dns_cache.<name>``: the requests that wait."""

    dns_rq_pending_overflow: Counter


class ListenerManagerStats(StatGroup):
    """``listener_manager``: the supervisor's, a local group."""

    listener_added: Counter
    listener_create_failure: Counter
    listener_create_success: Counter
    listener_in_place_updated: Counter
    listener_modified: Counter
    listener_removed: Counter
    listener_stopped: Counter
    total_filter_chains_draining: Gauge
    total_listeners_active: Gauge
    total_listeners_draining: Gauge
    total_listeners_warming: Gauge
    workers_pinned: Gauge
    workers_started: Gauge


class ClusterManagerStats(StatGroup):
    """``cluster_manager``: the supervisor's, a local group."""

    active_clusters: Gauge
    cluster_added: Counter
    cluster_modified: Counter
    cluster_removed: Counter
    cluster_updated: Counter
    cluster_updated_via_merge: Counter
    update_merge_cancelled: Counter
    update_out_of_merge_window: Counter
    warming_clusters: Gauge


class RuntimeStats(StatGroup):
    """``runtime``: the supervisor's, a local group."""

    admin_overrides_active: Gauge
    deprecated_feature_seen_since_process_start: Gauge
    deprecated_feature_use: Counter
    load_error: Counter
    load_success: Counter
    num_keys: Gauge
    num_layers: Gauge
    override_dir_exists: Counter
    override_dir_not_exists: Counter


class FilesystemStats(StatGroup):
    """``filesystem``: access log files."""

    flushed_by_timer: Counter
    reopen_failed: Counter
    write_buffered: Counter
    write_completed: Counter
    write_failed: Counter
    write_total_buffered: Gauge
