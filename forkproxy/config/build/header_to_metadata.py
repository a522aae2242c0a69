"""``extensions.filters.http.header_to_metadata.v3``: which headers and cookies go into dynamic metadata."""

from __future__ import annotations

from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import Where, build_regex, build_where
from forkproxy.config.values import frozen
from forkproxy.config.view import View


@frozen
class Target:
    """``KeyValuePair``. ``value`` "": that of the header, rewritten when there is a ``regex``."""

    namespace: str
    key: str
    value: str = ""
    regex: str = ""
    substitution: str = ""
    is_number: bool = False
    is_base64: bool = False


@frozen
class Rule:
    """``Rule``: of a ``header`` (lower-case, or ":path" and the like) or of a ``cookie``."""

    header: str
    cookie: str
    present: Target | None
    missing: Target | None
    remove: bool
    where: Where


@frozen
class HeaderToMetadataConfig:
    """``Config``."""

    request_rules: tuple[Rule, ...] = ()
    response_rules: tuple[Rule, ...] = ()
    stat_prefix: str = ""


def build(view: View, context: BuildContext) -> HeaderToMetadataConfig:
    """``Config``."""
    return HeaderToMetadataConfig(
        context.each(view.repeated("request_rules"), build_rule),
        context.each(view.repeated("response_rules"), build_rule),
        view.str("stat_prefix"),
    )


def build_per_route(view: View, context: BuildContext) -> HeaderToMetadataConfig:
    """The same on a route, where it must not be empty."""
    made = build(view, context)
    if not (made.request_rules or made.response_rules):
        view.report("per-filter configs must at least specify either request or response rules")
    return made


def build_rule(view: View, context: BuildContext) -> Rule:
    """``Rule``. ConfigError for combinations that Envoy refuses."""
    header, cookie, remove = view.str("header").lower(), view.str("cookie"), view.bool("remove")
    present, missing = view.message("on_header_present"), view.message("on_header_missing")
    if header and cookie:
        raise view.error("Cannot specify both header and cookie")
    if not (header or cookie):
        raise view.error("One of Cookie or Header option needs to be specified")
    if present is None and missing is None:
        raise view.error(f"rule for {header or cookie} has neither `on_header_present` nor `on_header_missing` set")
    if cookie and remove:
        raise view.error("Cannot specify remove for cookie", field="remove")
    if remove and header.startswith(":"):
        view.unsupported("is not implemented for what is no header line", field="remove")
    if missing is not None and not missing.str("value"):
        raise missing.error("Cannot specify on_header_missing rule with an empty value")
    return Rule(
        header=header,
        cookie=cookie,
        present=build_target(present) if present is not None else None,
        missing=build_target(missing) if missing is not None else None,
        remove=remove,
        where=build_where(view),
    )


def build_target(view: View) -> Target:
    """``KeyValuePair``; values that are serialized messages are not implemented."""
    value, rewrite = view.str("value"), view.message("regex_value_rewrite")
    if value and rewrite is not None:
        raise view.error("Cannot specify both value and regex_value_rewrite")
    return Target(
        namespace=view.str("metadata_namespace"),
        key=view.str("key"),
        value=value,
        regex=build_regex(rewrite.require("pattern")) if rewrite is not None else "",
        substitution=rewrite.str("substitution") if rewrite is not None else "",
        is_number=view.enum("type", supported=("STRING", "NUMBER")) == "NUMBER",
        is_base64=view.enum("encode", supported=("NONE", "BASE64")) == "BASE64",
    )
