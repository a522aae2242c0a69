"""``extensions.filters.network.tcp_proxy.v3.TcpProxy`` → TcpProxyConfig."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from forkproxy.config.build.access_log import AccessLogConfig, LogOptions, build_access_log_options, build_access_logs
from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.hash_policy import build_tcp_hash_policy
from forkproxy.config.build.load_balancing import build_lb_metadata
from forkproxy.config.values import frozen
from forkproxy.config.view import View

type_url = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"


@frozen
class TcpProxyConfig:
    """Exactly one of ``cluster`` and ``weighted_clusters`` ((name, weight) pairs) is set.

    ``idle_timeout_s`` None: none (the file says ``0s``); the default is 3600.
    """

    stat_prefix: str
    cluster: str
    weighted_clusters: tuple[tuple[str, int], ...]
    idle_timeout_s: float | None
    max_connect_attempts: int
    max_downstream_connection_duration_s: float | None
    access_logs: tuple[AccessLogConfig, ...]
    duration_jitter_percent: float = 0.0
    """By up to so much a connection may last longer than ``max_downstream_connection_duration_s``."""
    backoff_s: tuple[float, float] | None = None
    """Between two attempts to connect: the first interval, and the longest one. None: no time."""
    log_options: LogOptions = LogOptions()  # frozen
    hash_source_ip: bool = False
    metadata_match: dict[str, Any] = field(default_factory=dict)
    weighted_metadata_match: tuple[dict[str, Any], ...] = ()
    """Of each weighted cluster; put over ``metadata_match``."""


def build(view: View, context: BuildContext) -> TcpProxyConfig:
    """``TcpProxy``; tunneling and on-demand clusters stay unread."""
    weighted: tuple[tuple[str, int], ...] = ()
    weighted_match: tuple[dict[str, Any], ...] = ()
    cluster = ""
    if view.which("cluster_specifier") == "weighted_clusters":
        clusters = view.require("weighted_clusters").repeated("clusters")
        weighted = tuple((each.str("name"), each.uint("weight")) for each in clusters)
        weighted_match = tuple(build_lb_metadata(each.message("metadata_match")) for each in clusters)
    else:
        cluster = view.str("cluster")
    idle_timeout_s = view.duration_s("idle_timeout", 3600.0)
    for idle in ("downstream_idle_timeout", "upstream_idle_timeout"):
        view.ignore(idle, why="Envoy does not implement it either")
    jitter = view.message("max_downstream_connection_duration_jitter_percentage")
    return TcpProxyConfig(
        stat_prefix=view.str("stat_prefix"),
        cluster=cluster,
        weighted_clusters=weighted,
        idle_timeout_s=idle_timeout_s or None,
        max_connect_attempts=view.uint("max_connect_attempts", 1),
        max_downstream_connection_duration_s=view.duration_s("max_downstream_connection_duration"),
        duration_jitter_percent=jitter.float("value") if jitter is not None else 0.0,
        backoff_s=_build_backoff(view.message("backoff_options")),
        access_logs=build_access_logs(view.repeated("access_log"), context),
        log_options=build_access_log_options(view, "flush_access_log_on_connected"),
        hash_source_ip=build_tcp_hash_policy(view.repeated("hash_policy")),
        metadata_match=build_lb_metadata(view.message("metadata_match")),
        weighted_metadata_match=weighted_match,
    )


def _build_backoff(view: View | None) -> tuple[float, float] | None:
    """``BackoffStrategy``."""
    if view is None:
        return None
    base_s = view.duration_s("base_interval", 0.0)
    longest_s = view.duration_s("max_interval", 10 * base_s)
    if longest_s < base_s:
        view.report("max_backoff_interval must be greater or equal to base_backoff_interval", field="max_interval")
    return base_s, longest_s
