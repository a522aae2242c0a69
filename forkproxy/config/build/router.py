"""``extensions.filters.http.router.v3.Router`` → RouterConfig."""

from __future__ import annotations

from dataclasses import dataclass

from forkproxy.config.build.access_log import AccessLogConfig, LogOptions, build_access_logs, build_log_options
from forkproxy.config.build.context import BuildContext
from forkproxy.config.view import View

type_url = "envoy.extensions.filters.http.router.v3.Router"


@dataclass(frozen=True, slots=True)
class RouterConfig:
    """``dynamic_stats`` False switches the per-cluster response-code counters and histograms off."""

    dynamic_stats: bool = True
    start_child_span: bool = False
    suppress_envoy_headers: bool = False
    respect_expected_rq_timeout: bool = False
    strict_check_headers: tuple[str, ...] = ()
    hides_grpc_codes: bool = False
    """``suppress_grpc_request_failure_code_stats``: the cluster's plain figures do not tell the statuses of gRPC requests."""
    upstream_logs: tuple[AccessLogConfig, ...] = ()
    upstream_log_options: LogOptions = LogOptions()  # noqa: RUF009  # frozen


def build(view: View, context: BuildContext) -> RouterConfig:
    """``Router``; upstream filters stay unread."""
    view.ignore("start_child_span", why="nothing is traced")
    options = build_log_options(
        view.message("upstream_log_options"), "flush_upstream_log_on_upstream_stream", "upstream_log_flush_interval"
    )
    return RouterConfig(
        upstream_logs=build_access_logs(view.repeated("upstream_log"), context),
        upstream_log_options=options,
        dynamic_stats=view.bool("dynamic_stats", True),
        suppress_envoy_headers=view.bool("suppress_envoy_headers"),
        respect_expected_rq_timeout=view.bool("respect_expected_rq_timeout"),
        strict_check_headers=view.strings("strict_check_headers"),
        hides_grpc_codes=view.bool("suppress_grpc_request_failure_code_stats"),
    )
