"""``HttpConnectionManager.local_reply_config`` and ``proxy_status_config``: what becomes of answers that are made here."""

from __future__ import annotations

from forkproxy.config.build.access_log import AccessLogFilter, build_access_log_filter
from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import HeaderValueOption, Where, build_header_value_option, build_where
from forkproxy.config.build.tls import build_data_source
from forkproxy.config.values import frozen
from forkproxy.config.view import View


@frozen
class BodyFormat:
    """``SubstitutionFormatString``: exactly one of ``text`` and ``json`` is set."""

    text: str | None
    json: dict[str, object] | None
    omit_empty_values: bool
    content_type: str
    """ "" means what belongs to the format."""
    where: Where


@frozen
class ResponseMapper:
    """``ResponseMapper``: what does not change is None. ``status`` is 0 where the code stays."""

    filter: AccessLogFilter | None
    status: int
    body: bytes | None
    body_format: BodyFormat | None
    headers: tuple[HeaderValueOption, ...]
    where: Where


@frozen
class LocalReplyConfig:
    """``LocalReplyConfig``: the first mapper whose filter passes is taken."""

    mappers: tuple[ResponseMapper, ...]
    body_format: BodyFormat | None


@frozen
class ProxyStatusConfig:
    """``ProxyStatusConfig``; without a name of its own the proxy calls itself by its server name."""

    details: bool
    connection_termination_details: bool
    response_flags: bool
    set_recommended_response_code: bool
    use_node_id: bool
    literal_proxy_name: str | None


def build_local_reply(view: View, context: BuildContext) -> LocalReplyConfig:
    """``LocalReplyConfig``."""
    body_format = view.message("body_format")
    return LocalReplyConfig(
        context.each(view.repeated("mappers"), build_response_mapper),
        build_body_format(body_format, context) if body_format is not None else None,
    )


def build_response_mapper(view: View, context: BuildContext) -> ResponseMapper:
    """``ResponseMapper``."""
    body = view.message("body")
    body_format = view.message("body_format_override")
    return ResponseMapper(
        filter=build_access_log_filter(view.require("filter"), context),
        status=view.uint("status_code"),
        body=build_data_source(body, context).data if body is not None else None,
        body_format=build_body_format(body_format, context) if body_format is not None else None,
        headers=context.each(view.repeated("headers_to_add"), build_header_value_option),
        where=build_where(view),
    )


def build_body_format(view: View, context: BuildContext) -> BodyFormat:
    """``SubstitutionFormatString``; formatters that are extensions stay unread."""
    text: str | None = None
    json: dict[str, object] | None = None
    options = view.message("json_format_options")
    if options is not None:
        options.ignore("sort_properties", why="properties are always sorted, as Envoy has it")
    match view.which("format"):
        case "json_format":
            json = view.struct("json_format")
        case "text_format_source":
            text = build_data_source(view.require("text_format_source"), context).data.decode(
                "utf-8", "surrogateescape"
            )
        case _:
            text = view.str("text_format")
    return BodyFormat(text, json, view.bool("omit_empty_values"), view.str("content_type"), build_where(view))


def build_proxy_status(view: View, context: BuildContext) -> ProxyStatusConfig:
    """``ProxyStatusConfig``."""
    name = view.which("proxy_name")
    if name == "use_node_id":
        view.bool("use_node_id")  # as in Envoy, false names the node too
    return ProxyStatusConfig(
        details=not view.bool("remove_details"),
        connection_termination_details=not view.bool("remove_connection_termination_details"),
        response_flags=not view.bool("remove_response_flags"),
        set_recommended_response_code=view.bool("set_recommended_response_code"),
        use_node_id=name == "use_node_id",
        literal_proxy_name=view.str("literal_proxy_name") if name == "literal_proxy_name" else None,
    )
