"""``extensions.filters.http.router.v3.Router`` → RouterConfig."""

from __future__ import annotations

from typing import Final

from forkproxy.config.build.access_log import AccessLogConfig, LogOptions, build_access_logs, build_log_options
from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import build_where
from forkproxy.config.build.listener import FilterEntry
from forkproxy.config.values import frozen
from forkproxy.config.view import View

type_url = "envoy.extensions.filters.http.router.v3.Router"
CODEC: Final = "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"
HEADER_MUTATION: Final = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"


@frozen
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
    upstream_log_options: LogOptions = LogOptions()  # frozen
    upstream_filters: tuple[FilterEntry, ...] = ()
    """``upstream_http_filters`` without the codec at their end."""


def build(view: View, context: BuildContext) -> RouterConfig:
    """``Router``."""
    view.ignore("start_child_span", why="nothing is traced")
    options = build_log_options(
        view.message("upstream_log_options"), "flush_upstream_log_on_upstream_stream", "upstream_log_flush_interval"
    )
    return RouterConfig(
        upstream_logs=build_access_logs(view.repeated("upstream_log"), context),
        upstream_log_options=options,
        upstream_filters=build_upstream_filters(view.repeated("upstream_http_filters"), context),
        dynamic_stats=view.bool("dynamic_stats", True),
        suppress_envoy_headers=view.bool("suppress_envoy_headers"),
        respect_expected_rq_timeout=view.bool("respect_expected_rq_timeout"),
        strict_check_headers=view.strings("strict_check_headers"),
        hides_grpc_codes=view.bool("suppress_grpc_request_failure_code_stats"),
    )


def build_upstream_filters(views: list[View], context: BuildContext) -> tuple[FilterEntry, ...]:
    """``repeated HttpFilter`` of the upstream side: Envoy's rules for its end, and of its filters those that we have."""
    found: list[FilterEntry] = []
    for place, view in enumerate(views):
        name, typed = view.str("name"), view.any("typed_config")
        is_last = place == len(views) - 1
        if typed is not None and typed.type_name == CODEC:
            if not is_last:
                raise view.error(f'terminal filter "{name}" must be the last of the upstream filters')
            if view.bool("disabled"):
                raise view.error(f'the last (terminal) filter "{name}" of the upstream filters cannot be disabled')
        elif is_last:
            raise view.error(
                f'"{name}" is the last of the upstream filters and not terminal',
                "end them with envoy.filters.http.upstream_codec",
            )
        elif typed is not None and typed.type_name != HEADER_MUTATION:
            typed.unsupported(f'"{name}" is not implemented as an upstream filter (implemented: header_mutation)')
        else:
            made = context.extension(view, "HTTP filter")
            if made is not None:
                found.append(FilterEntry(name, made.type_url, made.value, build_where(view)))
    return tuple(found)
