"""``config.core.v3.HealthCheck`` → HealthCheckConfig. What Envoy refuses when it makes the checker is refused here."""

from __future__ import annotations

import binascii
import json

from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import (
    AddressConfig,
    HeaderValueOption,
    StringMatcher,
    Where,
    build_address,
    build_header_value_option,
    build_string_matcher,
    build_where,
)
from forkproxy.config.values import frozen
from forkproxy.config.view import View

default_no_traffic_interval_s = 60.0
default_response_buffer_bytes = 1024

Statuses = tuple[tuple[int, int], ...]
"""Half-open ranges, as ``Int64Range``."""

_BODILESS = ("GET", "HEAD", "DELETE", "TRACE")
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH")


@frozen
class HttpCheck:
    """``HealthCheck.HttpHealthCheck``.

    ``response_buffer_bytes``: how much of a body is looked at for ``receive``; 0: all of it.
    """

    path: str
    host: str = ""
    method: str = "GET"
    send: bytes = b""
    receive: tuple[bytes, ...] = ()
    response_buffer_bytes: int = default_response_buffer_bytes
    headers_to_add: tuple[HeaderValueOption, ...] = ()
    headers_to_remove: tuple[str, ...] = ()
    expected: Statuses = ((200, 201),)
    retriable: Statuses = ()
    service_name: StringMatcher | None = None


@frozen
class TcpCheck:
    """``HealthCheck.TcpHealthCheck``; ``proxy_protocol``: "", "V1" or "V2"."""

    send: bytes = b""
    receive: tuple[bytes, ...] = ()
    proxy_protocol: str = ""


@frozen
class RedisCheck:
    """``extensions.health_checkers.redis.v3.Redis``: EXISTS of the key, which must not be there; PING without one."""

    key: str = ""


@frozen
class HealthCheckConfig:
    """``HealthCheck``. ``alpn_protocols`` None: those of the cluster's TLS context. ``event_logs``: paths."""

    check: HttpCheck | TcpCheck | RedisCheck
    timeout_s: float
    interval_s: float
    unhealthy_threshold: int
    healthy_threshold: int
    initial_jitter_s: float
    interval_jitter_s: float
    interval_jitter_percent: int
    no_traffic_interval_s: float
    no_traffic_healthy_interval_s: float
    unhealthy_interval_s: float
    unhealthy_edge_interval_s: float
    healthy_edge_interval_s: float
    reuse_connection: bool
    alpn_protocols: tuple[str, ...] | None
    match_criteria: str
    """``transport_socket_match_criteria`` as JSON with sorted keys; "" when not given: the endpoint's metadata counts."""
    event_logs: tuple[str, ...]
    always_log_failures: bool
    always_log_success: bool
    where: Where
    min_interval_s: float = 0.0
    max_interval_s: float = float("inf")
    """What a static runtime layer says: health_check.min_interval and max_interval, in milliseconds there."""
    verify_percent: int = 100
    """health_check.verify_cluster: of how many checks the service name is looked at."""


@frozen
class EndpointHealthCheck:
    """``Endpoint.HealthCheckConfig``: where and under which name one endpoint is checked, or that it is not.

    ``port`` 0, ``hostname`` "", ``address`` None: as the endpoint itself.
    """

    port: int = 0
    hostname: str = ""
    address: AddressConfig | None = None
    disabled: bool = False


def build_endpoint_health_check(view: View | None, context: BuildContext) -> EndpointHealthCheck:
    """``Endpoint.HealthCheckConfig``."""
    if view is None:
        return EndpointHealthCheck()
    address = view.message("address")
    return EndpointHealthCheck(
        port=view.uint("port_value"),
        hostname=view.str("hostname"),
        address=build_address(address, context) if address is not None else None,
        disabled=view.bool("disable_active_health_check"),
    )


def build_health_check(view: View, context: BuildContext) -> HealthCheckConfig | None:
    """``HealthCheck``; None when its kind is not implemented. gRPC and the event service stay unread."""
    check = _build_check(view, context)
    interval_s = view.duration_s("interval", 0.0)
    no_traffic_s = view.duration_s("no_traffic_interval", default_no_traffic_interval_s)
    unhealthy_s = view.duration_s("unhealthy_interval", interval_s)
    tls_options = view.message("tls_options")
    view.ignore("alt_port", why="Envoy does not use it either")
    old_log = view.str("event_log_path")
    logs = [old_log] if old_log else []
    for logger in view.repeated("event_logger"):
        made = context.extension(logger, "health check event sink")
        if made is not None:
            logs.append(made.value)
    criteria = view.struct("transport_socket_match_criteria")
    config = HealthCheckConfig(
        check=check or TcpCheck(),
        timeout_s=view.duration_s("timeout", 0.0),
        interval_s=interval_s,
        unhealthy_threshold=view.uint("unhealthy_threshold"),
        healthy_threshold=view.uint("healthy_threshold"),
        initial_jitter_s=view.duration_s("initial_jitter", 0.0),
        interval_jitter_s=view.duration_s("interval_jitter", 0.0),
        interval_jitter_percent=view.uint("interval_jitter_percent"),
        no_traffic_interval_s=no_traffic_s,
        no_traffic_healthy_interval_s=view.duration_s("no_traffic_healthy_interval", no_traffic_s),
        unhealthy_interval_s=unhealthy_s,
        unhealthy_edge_interval_s=view.duration_s("unhealthy_edge_interval", unhealthy_s),
        healthy_edge_interval_s=view.duration_s("healthy_edge_interval", interval_s),
        reuse_connection=view.bool("reuse_connection", True),
        alpn_protocols=tuple(tls_options.strings("alpn_protocols")) if tls_options is not None else None,
        match_criteria=json.dumps(criteria, sort_keys=True) if criteria else "",
        event_logs=tuple(logs),
        always_log_failures=view.bool("always_log_health_check_failures"),
        always_log_success=view.bool("always_log_health_check_success"),
        where=build_where(view),
        min_interval_s=_runtime(context, "min_interval", 0.0) / 1000,
        max_interval_s=_runtime(context, "max_interval", float("inf")) / 1000,
        verify_percent=int(_runtime(context, "verify_cluster", 100)),
    )
    return config if check is not None else None


def _build_check(view: View, context: BuildContext) -> HttpCheck | TcpCheck | RedisCheck | None:
    kind = view.which("health_checker")
    if kind == "http_health_check":
        return _build_http(view.require(kind), context)
    if kind == "tcp_health_check":
        return _build_tcp(view.require(kind), context)
    if kind == "custom_health_check":
        made = context.extension(view.require(kind), "health checker")
        return made.value if made is not None else None
    return None


def _build_http(view: View, context: BuildContext) -> HttpCheck:
    # The enum's zero is HTTP1, the only one there is here.
    view.enum("codec_client_type", supported=("HTTP1",))
    method = view.enum("method", supported=("METHOD_UNSPECIFIED", *_METHODS))
    if method == "METHOD_UNSPECIFIED":
        method = "GET"
    send = _payload(view.message("send"))
    if send and method in _BODILESS:
        view.report(
            f"HTTP health check cannot specify a request payload with method '{method}'",
            field="send",
            hint="POST, PUT, PATCH and OPTIONS take one",
        )
    receive = tuple(_payload(payload) for payload in view.repeated("receive"))
    limit = view.uint("response_buffer_size", default_response_buffer_bytes)
    expected_bytes = sum(len(segment) for segment in receive)
    if limit and expected_bytes > limit:
        view.report(
            f"The expected response length '{expected_bytes}' is over than http health response buffer size '{limit}'",
            field="receive",
        )
    service_name = view.message("service_name_matcher")
    return HttpCheck(
        path=view.str("path"),
        host=view.str("host"),
        method=method,
        send=send,
        receive=receive,
        response_buffer_bytes=limit,
        headers_to_add=context.each(view.repeated("request_headers_to_add"), build_header_value_option),
        headers_to_remove=tuple(name.lower() for name in view.strings("request_headers_to_remove")),
        expected=_statuses(view, "expected_statuses") or ((200, 201),),
        retriable=_statuses(view, "retriable_statuses"),
        service_name=build_string_matcher(service_name, context) if service_name is not None else None,
    )


def _build_tcp(view: View, context: BuildContext) -> TcpCheck:
    proxy_protocol = view.message("proxy_protocol_config")
    return TcpCheck(
        send=_payload(view.message("send")),
        receive=tuple(_payload(payload) for payload in view.repeated("receive")),
        proxy_protocol=proxy_protocol.enum("version", supported=("V1", "V2")) if proxy_protocol is not None else "",
    )


def build_redis(view: View, context: BuildContext) -> RedisCheck:
    """``extensions.health_checkers.redis.v3.Redis``; AWS IAM authentication stays unread."""
    return RedisCheck(view.str("key"))


def build_file_sink(view: View, context: BuildContext) -> str:
    """``extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink`` → its path."""
    return view.str("event_log_path")


def _runtime(context: BuildContext, key: str, default: float) -> float:
    value = context.runtime_value(f"health_check.{key}")
    return value if isinstance(value, int | float) and not isinstance(value, bool) else default


def _payload(view: View | None) -> bytes:
    if view is None:
        return b""
    if view.which("payload") == "binary":
        return view.bytes("binary")
    text = view.str("text")
    try:
        return binascii.unhexlify(text)
    except (binascii.Error, ValueError):
        view.report(f"invalid hex string '{text}'", field="text")
        return b""


def _statuses(view: View, field: str) -> Statuses:
    kind = field.removesuffix("_statuses")
    ranges = []
    for each in view.repeated(field):
        start, end = each.int("start"), each.int("end")
        if start >= end:
            problem = f"expecting start < end, but found start={start} and end={end}"
        elif start < 100:
            problem = f"expecting start >= 100, but found start={start}"
        elif end > 600:
            problem = f"expecting end <= 600, but found end={end}"
        else:
            ranges.append((start, end))
            continue
        each.report(f"Invalid http {kind} status range: {problem}")
    return tuple(ranges)
