"""``extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`` → HttpConnectionManagerConfig."""

from __future__ import annotations

from dataclasses import field

from forkproxy.config.build.access_log import AccessLogConfig, LogOptions, build_access_log_options, build_access_logs
from forkproxy.config.build.client_address import ClientAddressConfig, build_client_address
from forkproxy.config.build.client_certificate import ForwardClientCertConfig, build_forward_client_cert
from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import (
    HeaderMutations,
    StringMatcher,
    Where,
    build_header_key_format,
    build_string_matcher,
    build_where,
)
from forkproxy.config.build.header_formatters import PreserveCaseConfig, build_stateful_formatter
from forkproxy.config.build.header_mutation import MutationStep
from forkproxy.config.build.listener import FilterEntry, build_filter_entry
from forkproxy.config.build.local_reply import (
    LocalReplyConfig,
    ProxyStatusConfig,
    build_local_reply,
    build_proxy_status,
)
from forkproxy.config.build.request_head import (
    TracingConfig,
    UuidRequestIdConfig,
    build_early_mutations,
    build_request_id_extension,
    build_tracing,
)
from forkproxy.config.build.route import RouteTableConfig, build_route_table
from forkproxy.config.build.upgrades import Upgrade, build_upgrade_type
from forkproxy.config.values import frozen
from forkproxy.config.view import View

type_url = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


@frozen
class HttpConnectionManagerConfig:
    """All times in seconds; None means disabled (the file says ``0s``), the builder writes Envoy's defaults when absent."""

    stat_prefix: str
    route_table: RouteTableConfig
    http_filters: tuple[FilterEntry, ...]
    access_logs: tuple[AccessLogConfig, ...]
    codec_type: str
    """ "AUTO" or "HTTP1" (HTTP/1 either way until HTTP/2 has its codec)."""
    add_user_agent: bool
    server_name: str
    server_header_transformation: str
    """ "OVERWRITE", "APPEND_IF_ABSENT" or "PASS_THROUGH"."""
    via: str
    client_address: ClientAddressConfig
    forward_client_cert: ForwardClientCertConfig
    generate_request_id: bool
    preserve_external_request_id: bool
    always_set_request_id_in_response: bool
    proxy_100_continue: bool
    normalize_path: bool
    merge_slashes: bool
    path_with_escaped_slashes_action: str
    strip_matching_host_port: bool
    strip_any_host_port: bool
    strip_trailing_host_dot: bool
    # http_protocol_options
    accept_http_10: bool
    default_host_for_http_10: str
    allow_absolute_url: bool
    enable_trailers: bool
    allow_chunked_length: bool
    header_key_format: str
    """ "" (lower-case) or "proper_case_words"."""
    # limits and times
    max_request_headers_kb: int
    max_headers_count: int
    headers_with_underscores_action: str
    """ "ALLOW", "REJECT_REQUEST" or "DROP_HEADER"."""
    idle_timeout_s: float | None
    max_connection_duration_s: float | None
    max_stream_duration_s: float | None
    max_requests_per_connection: int
    stream_idle_timeout_s: float | None
    request_timeout_s: float | None
    request_headers_timeout_s: float | None
    drain_timeout_s: float
    delayed_close_timeout_s: float | None
    stream_error_on_invalid_http_message: bool
    upgrades: tuple[Upgrade, ...]
    ignored_upgrades: tuple[StringMatcher, ...]
    """Names in Upgrade headers that are as if they were not there."""
    where: Where
    local_reply: LocalReplyConfig | None = None
    proxy_status: ProxyStatusConfig | None = None
    early_mutations: tuple[MutationStep, ...] = ()
    scheme_to_overwrite: str = ""
    match_upstream_scheme: bool = False
    request_id: UuidRequestIdConfig = field(default_factory=UuidRequestIdConfig)
    tracing: TracingConfig | None = None
    safe_max_connection_duration: bool = False
    preserve_case: PreserveCaseConfig | None = None
    log_options: LogOptions = LogOptions()  # frozen


@frozen
class _ConnectionOptions:
    """``config.core.v3.HttpProtocolOptions``, downstream."""

    idle_timeout_s: float | None = 3600.0
    max_connection_duration_s: float | None = None
    max_stream_duration_s: float | None = None
    max_headers_count: int = 100
    max_requests_per_connection: int = 0
    headers_with_underscores_action: str = "ALLOW"


@frozen
class _Http1Options:
    """``config.core.v3.Http1ProtocolOptions``, downstream."""

    accept_http_10: bool = False
    default_host_for_http_10: str = ""
    allow_absolute_url: bool = True
    enable_trailers: bool = False
    allow_chunked_length: bool = False
    header_key_format: str = ""
    preserve_case: PreserveCaseConfig | None = None
    stream_error_on_invalid_http_message: bool | None = None
    ignored_upgrades: tuple[StringMatcher, ...] = ()


def build(view: View, context: BuildContext) -> HttpConnectionManagerConfig:
    """``HttpConnectionManager``. What is not named here (tracing, RDS, HTTP/2, …) stays unread."""
    connection = _connection_options(view.message("common_http_protocol_options"))
    http1 = _http1_options(view.message("http_protocol_options"), context)
    stream_error = view.bool("stream_error_on_invalid_http_message")
    if http1.stream_error_on_invalid_http_message is not None:
        stream_error = http1.stream_error_on_invalid_http_message
    strip_any = view.bool("strip_any_host_port") if view.which("strip_port_mode") == "strip_any_host_port" else False
    strip_matching = view.bool("strip_matching_host_port")
    _ignore_what_does_nothing(view)
    local_reply = view.message("local_reply_config")
    proxy_status = view.message("proxy_status_config")
    scheme = view.message("scheme_header_transformation")
    route_config = view.message("route_config")
    if route_config is not None:
        route_table = build_route_table(route_config, context)
    else:
        route_table = RouteTableConfig(name="", virtual_hosts=(), headers=HeaderMutations())
    return HttpConnectionManagerConfig(
        stat_prefix=view.str("stat_prefix"),
        route_table=route_table,
        http_filters=build_http_filters(view.repeated("http_filters"), context),
        access_logs=build_access_logs(view.repeated("access_log"), context),
        log_options=build_access_log_options(view, "flush_access_log_on_new_request"),
        codec_type=view.enum("codec_type", supported=("AUTO", "HTTP1")),
        add_user_agent=view.bool("add_user_agent"),
        server_name=view.str("server_name") or "envoy",
        server_header_transformation=view.enum(
            "server_header_transformation", supported=("OVERWRITE", "APPEND_IF_ABSENT", "PASS_THROUGH")
        ),
        via=view.str("via"),
        client_address=build_client_address(view, context),
        forward_client_cert=build_forward_client_cert(view),
        generate_request_id=view.bool("generate_request_id", True),
        preserve_external_request_id=view.bool("preserve_external_request_id"),
        always_set_request_id_in_response=view.bool("always_set_request_id_in_response"),
        proxy_100_continue=view.bool("proxy_100_continue"),
        normalize_path=view.bool("normalize_path"),
        merge_slashes=view.bool("merge_slashes"),
        path_with_escaped_slashes_action=_escaped_slashes(view),
        strip_matching_host_port=strip_matching,
        strip_any_host_port=strip_any,
        strip_trailing_host_dot=view.bool("strip_trailing_host_dot"),
        accept_http_10=http1.accept_http_10,
        default_host_for_http_10=http1.default_host_for_http_10,
        allow_absolute_url=http1.allow_absolute_url,
        enable_trailers=http1.enable_trailers,
        allow_chunked_length=http1.allow_chunked_length,
        header_key_format=http1.header_key_format,
        max_request_headers_kb=view.uint("max_request_headers_kb", 60),
        max_headers_count=connection.max_headers_count,
        headers_with_underscores_action=connection.headers_with_underscores_action,
        idle_timeout_s=connection.idle_timeout_s,
        max_connection_duration_s=connection.max_connection_duration_s,
        max_stream_duration_s=connection.max_stream_duration_s,
        max_requests_per_connection=connection.max_requests_per_connection,
        stream_idle_timeout_s=view.duration_s("stream_idle_timeout", 300.0) or None,
        request_timeout_s=view.duration_s("request_timeout") or None,
        request_headers_timeout_s=view.duration_s("request_headers_timeout") or None,
        drain_timeout_s=view.duration_s("drain_timeout", 5.0),
        delayed_close_timeout_s=view.duration_s("delayed_close_timeout", 1.0) or None,
        stream_error_on_invalid_http_message=stream_error,
        local_reply=build_local_reply(local_reply, context) if local_reply is not None else None,
        proxy_status=build_proxy_status(proxy_status, context) if proxy_status is not None else None,
        early_mutations=build_early_mutations(view, context),
        scheme_to_overwrite=scheme.str("scheme_to_overwrite") if scheme is not None else "",
        match_upstream_scheme=scheme.bool("match_upstream") if scheme is not None else False,
        request_id=build_request_id_extension(view, context),
        tracing=build_tracing(view.message("tracing")),
        preserve_case=http1.preserve_case,
        safe_max_connection_duration=view.bool("http1_safe_max_connection_duration"),
        upgrades=context.each(view.repeated("upgrade_configs"), build_upgrade),
        ignored_upgrades=http1.ignored_upgrades,
        where=build_where(view),
    )


def _connection_options(view: View | None) -> _ConnectionOptions:
    if view is None:
        return _ConnectionOptions()
    return _ConnectionOptions(
        idle_timeout_s=view.duration_s("idle_timeout", 3600.0) or None,
        max_connection_duration_s=view.duration_s("max_connection_duration") or None,
        max_stream_duration_s=view.duration_s("max_stream_duration") or None,
        max_headers_count=view.uint("max_headers_count", 100),
        max_requests_per_connection=view.uint("max_requests_per_connection"),
        headers_with_underscores_action=view.enum(
            "headers_with_underscores_action", supported=("ALLOW", "REJECT_REQUEST", "DROP_HEADER")
        ),
    )


def _http1_options(view: View | None, context: BuildContext) -> _Http1Options:
    if view is None:
        return _Http1Options()
    view.ignore("use_balsa_parser", why="it chooses between Envoy's own parsers")
    view.ignore("send_fully_qualified_url", why="it concerns requests to upstream")
    override = "override_stream_error_on_invalid_http_message"
    return _Http1Options(
        accept_http_10=view.bool("accept_http_10"),
        default_host_for_http_10=view.str("default_host_for_http_10"),
        allow_absolute_url=view.bool("allow_absolute_url", True),
        enable_trailers=view.bool("enable_trailers"),
        allow_chunked_length=view.bool("allow_chunked_length"),
        header_key_format=build_header_key_format(view),
        preserve_case=build_stateful_formatter(view, context),
        stream_error_on_invalid_http_message=view.bool(override) if view.has(override) else None,
        ignored_upgrades=context.each(view.repeated("ignore_http_11_upgrade"), build_string_matcher),
    )


def _escaped_slashes(view: View) -> str:
    action = view.enum("path_with_escaped_slashes_action")
    return "KEEP_UNCHANGED" if action == "IMPLEMENTATION_SPECIFIC_DEFAULT" else action


def _ignore_what_does_nothing(view: View) -> None:
    view.ignore("represent_ipv4_remote_address_as_ipv4_mapped_ipv6", why="Envoy does nothing with it either")
    view.ignore(
        "stream_flush_timeout", why="HTTP/1 writes to the connection at once, and stream_idle_timeout looks after it"
    )
    view.ignore("append_local_overload", why="there is no overload manager whose answers it would mark")
    if view.has("path_normalization_options"):
        view.report(
            "Envoy does nothing with this yet, and so does forkproxy",
            "normalize_path and merge_slashes change what filters and upstream see",
            field="path_normalization_options",
            kind="warning",
        )
    view.ignore("path_normalization_options", why="Envoy does nothing with it: a warning says so")


def build_upgrade(view: View, context: BuildContext) -> Upgrade:
    """``UpgradeConfig``."""
    return Upgrade(
        upgrade_type=build_upgrade_type(view),
        enabled=view.bool("enabled", True),
        filters=build_http_filters(view.repeated("filters"), context),
    )


def build_http_filters(views: list[View], context: BuildContext) -> tuple[FilterEntry, ...]:
    """``repeated HttpFilter``; a filter that we do not have is reported and left out, unless it is optional and unknown."""
    entries = context.each(views, build_http_filter)
    return tuple(entry for entry in entries if entry is not None)


def build_http_filter(view: View, context: BuildContext) -> FilterEntry | None:
    """``HttpFilter``; filter configuration discovery stays unread."""
    disabled = view.bool("disabled")
    view.ignore("is_optional", why="an extension that is not implemented is refused all the same")
    return build_filter_entry(view, context, "HTTP filter", disabled=disabled)
