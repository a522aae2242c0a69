"""``config.accesslog.v3.AccessLog`` → AccessLogConfig."""

from __future__ import annotations

import os
from dataclasses import replace

from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import (
    HeaderMatcher,
    Where,
    build_fractional_percent,
    build_header_matcher,
    build_runtime_uint,
    build_where,
)
from forkproxy.config.build.metadata import MetadataMatcher, build_metadata_matcher
from forkproxy.config.build.tls import build_data_source
from forkproxy.config.values import frozen
from forkproxy.config.view import View

default_text_format = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" '
    "%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% "
    '%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" '
    '"%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%"\n'
)
"""Envoy's default format, for access logs that name none."""

type_urls = (
    "envoy.extensions.access_loggers.file.v3.FileAccessLog",
    "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
    "envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
)


@frozen
class AccessLogFilter:
    """``config.accesslog.v3.AccessLogFilter`` as a small tree.

    ``kind``: "status_code", "duration" (``op`` "EQ"|"GE"|"LE"|"NE", ``value``), "not_health_check", "traceable",
    "runtime" (``value`` numerator of ``denominator``, ``op`` "NE" for a choice of its own, not by the request id), "and", "or"
    (``filters``), "header" (``header``), "response_flag" (``flags``), "grpc_status" (``flags`` the statuses, ``op`` "NE" to
    exclude them), "log_type" (the same with types), "metadata" (``metadata``; ``default`` when there is no such value).
    """

    kind: str
    op: str = ""
    value: int = 0
    denominator: int = 100
    filters: tuple[AccessLogFilter, ...] = ()
    header: HeaderMatcher | None = None
    flags: tuple[str, ...] = ()
    metadata: MetadataMatcher | None = None
    default: bool = True


@frozen
class AccessLogConfig:
    """One access log.

    ``path`` is a file path, "/dev/stdout" or "/dev/stderr". Exactly one of ``text_format`` and ``json_format`` is set;
    ``text_format`` is Envoy's default format when the file names none. ``json_format`` is the nested structure of the file:
    dicts, lists, and format strings (numbers and booleans as they are).
    """

    path: str
    text_format: str | None
    json_format: dict[str, object] | None
    omit_empty_values: bool
    sort_properties: bool
    filter: AccessLogFilter | None
    where: Where
    formatters: tuple[str, ...] = ()
    """Operators that an extension brings: "REQ_WITHOUT_QUERY"."""


@frozen
class LogOptions:
    """When logs are written besides the end. ``on_start``: when a request has come, or a connection upstream stands."""

    on_start: bool = False
    interval_s: float = 0.0
    """0: not every so often."""


def build_log_options(options: View | None, on_start: str, interval: str) -> LogOptions:
    """A message with a bool field ``on_start`` and a duration field ``interval``."""
    if options is None:
        return LogOptions()
    return LogOptions(options.bool(on_start), options.duration_s(interval, 0.0))


def build_access_log_options(view: View, on_start: str) -> LogOptions:
    """``access_log_options``, or the deprecated fields beside it, which do not stand together with it."""
    interval = "access_log_flush_interval"
    beside = build_log_options(view, on_start, interval)
    options = view.message("access_log_options")
    if options is None:
        return beside
    if beside.on_start:
        view.report(f"Only one of {on_start} or access_log_options can be specified.", field=on_start)
    if view.has(interval):
        view.report(f"Only one of {interval} or access_log_options can be specified.", field=interval)
    return build_log_options(options, on_start, interval)


def build_access_log_filter(view: View, context: BuildContext) -> AccessLogFilter | None:
    """``AccessLogFilter``; extension filters (CEL and the like) stay unread."""
    kind = view.which("filter_specifier")
    match kind:
        case "status_code_filter" | "duration_filter":
            comparison = view.require(kind).require("comparison")
            return AccessLogFilter(
                kind=kind.removesuffix("_filter"),
                op=comparison.enum("op", supported=("EQ", "GE", "LE", "NE")),
                value=build_runtime_uint(comparison.require("value"), context),
            )
        case "not_health_check_filter" | "traceable_filter":
            view.require(kind)
            return AccessLogFilter(kind=kind.removesuffix("_filter"))
        case "runtime_filter":
            return _runtime_filter(view.require(kind), context)
        case "and_filter" | "or_filter":
            parts = [build_access_log_filter(part, context) for part in view.require(kind).repeated("filters")]
            return AccessLogFilter(
                kind=kind.removesuffix("_filter"), filters=tuple(part for part in parts if part is not None)
            )
        case "header_filter":
            header = build_header_matcher(view.require(kind).require("header"), context)
            return AccessLogFilter(kind="header", header=header)
        case "grpc_status_filter":
            grpc = view.require(kind)
            op = "NE" if grpc.bool("exclude") else "EQ"
            return AccessLogFilter(kind="grpc_status", op=op, flags=grpc.enums("statuses"))
        case "response_flag_filter":
            return AccessLogFilter(kind="response_flag", flags=view.require(kind).strings("flags"))
        case "log_type_filter":
            types = view.require(kind)
            op = "NE" if types.bool("exclude") else "EQ"
            return AccessLogFilter(kind="log_type", op=op, flags=types.enums("types"))
        case "metadata_filter":
            metadata = view.require(kind)
            matcher = metadata.message("matcher")
            return AccessLogFilter(
                kind="metadata",
                metadata=build_metadata_matcher(matcher, context) if matcher is not None else None,
                default=metadata.bool("match_if_key_not_found", True),
            )
    return None


def _runtime_filter(view: View, context: BuildContext) -> AccessLogFilter:
    """A static runtime layer's integer replaces the percentage, and then counts in percent."""
    percent = view.message("percent_sampled")
    numerator, denominator = 0, 100
    if percent is not None:
        fraction = build_fractional_percent(percent, context)
        numerator, denominator = fraction.numerator, fraction.denominator
    value = context.runtime_value(view.str("runtime_key"))
    if isinstance(value, int | float) and not isinstance(value, bool):
        numerator, denominator = min(int(value), 100), 100
    op = "NE" if view.bool("use_independent_randomness") else "EQ"
    return AccessLogFilter(kind="runtime", op=op, value=numerator, denominator=denominator)


@frozen
class _Format:
    text: str | None = default_text_format
    json: dict[str, object] | None = None
    omit_empty_values: bool = False
    sort_properties: bool = False
    formatters: tuple[str, ...] = ()


_FORMATTERS = {
    "envoy.extensions.formatter.req_without_query.v3.ReqWithoutQuery": "REQ_WITHOUT_QUERY",
    "envoy.extensions.formatter.metadata.v3.Metadata": "",  # %METADATA% needs no extension
}


def _formatters(views: list[View]) -> tuple[str, ...]:
    found = []
    for view in views:
        name = view.str("name")
        typed = view.any("typed_config")
        if typed is not None and typed.type_name in _FORMATTERS:
            found.append(_FORMATTERS[typed.type_name])
        elif typed is not None:
            typed.unsupported(f'the formatter "{name}" ({typed.type_name}) is not implemented')
        else:
            view.unsupported(f'the formatter "{name}" is not implemented', field="name")
    return tuple(each for each in found if each)


def _substitution_format(view: View, context: BuildContext) -> _Format:
    """``SubstitutionFormatString``; of extra formatters, those of ``_FORMATTERS``."""
    made = _plain_format(view, context)
    return replace(made, formatters=_formatters(view.repeated("formatters")))


def _plain_format(view: View, context: BuildContext) -> _Format:
    view.ignore("content_type", why="an access log has none")
    omit_empty_values = view.bool("omit_empty_values")
    options = view.message("json_format_options")
    sort_properties = options.bool("sort_properties") if options is not None else False
    kind = view.which("format")
    if kind == "json_format":
        return _Format(None, view.struct("json_format"), omit_empty_values, sort_properties)
    if kind == "text_format":
        return _Format(view.str("text_format"), None, omit_empty_values, sort_properties)
    if kind == "text_format_source":
        source = build_data_source(view.require("text_format_source"), context)
        return _Format(source.data.decode("utf-8", "surrogateescape"), None, omit_empty_values, sort_properties)
    return _Format(omit_empty_values=omit_empty_values)


def _log_format(view: View, context: BuildContext) -> _Format:
    log_format = view.message("log_format")
    return _Format() if log_format is None else _substitution_format(log_format, context)


def build_file_access_log(view: View, context: BuildContext) -> tuple[str, _Format]:
    """``FileAccessLog`` → path and format; an empty ``format`` means the default one."""
    path = view.str("path")
    directory = os.path.dirname(path) or "."
    if not os.path.isdir(directory):
        view.report(f"there is no directory {directory}: the log cannot be opened", field="path", kind="warning")
    kind = view.which("access_log_format")
    if kind == "format":
        return path, _Format(view.str("format") or default_text_format)
    if kind in ("json_format", "typed_json_format"):
        return path, _Format(None, view.struct(kind))
    return path, _log_format(view, context)


def build_stdout_access_log(view: View, context: BuildContext) -> tuple[str, _Format]:
    """``StdoutAccessLog``."""
    return "/dev/stdout", _log_format(view, context)


def build_stderr_access_log(view: View, context: BuildContext) -> tuple[str, _Format]:
    """``StderrAccessLog``."""
    return "/dev/stderr", _log_format(view, context)


def build_access_logs(views: list[View], context: BuildContext) -> tuple[AccessLogConfig, ...]:
    """``repeated AccessLog``; an access logger of another kind is reported as not implemented and left out."""
    return tuple(log for log in context.each(views, build_access_log) if log is not None)


def build_access_log(view: View, context: BuildContext) -> AccessLogConfig | None:
    """``config.accesslog.v3.AccessLog``."""
    filter_view = view.message("filter")
    log_filter = build_access_log_filter(filter_view, context) if filter_view is not None else None
    made = context.extension(view, "access logger")
    if made is None:
        return None
    path, log_format = made.value
    return AccessLogConfig(
        path=path,
        text_format=log_format.text,
        json_format=log_format.json,
        omit_empty_values=log_format.omit_empty_values,
        sort_properties=log_format.sort_properties,
        filter=log_filter,
        where=build_where(view),
        formatters=log_format.formatters,
    )
