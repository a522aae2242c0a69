"""``extensions.filters.http.rbac.v3``: who may do what, as rules over the request and its connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import (
    StringMatcher,
    Where,
    build_cidr_range,
    build_header_matcher,
    build_string_matcher,
    build_where,
)
from forkproxy.config.build.filter_state import build_filter_state_matcher
from forkproxy.config.build.metadata import build_metadata_matcher
from forkproxy.config.build.tls import build_san_matcher
from forkproxy.config.values import frozen
from forkproxy.config.view import View


@frozen
class Rule:
    """A ``Permission`` or a ``Principal``.

    ``kind`` and ``value``: "and", "or" (tuples of rules), "not" (a rule), "any", "header" (HeaderMatcher), "url_path",
    "server_name" (StringMatcher), "authenticated" (StringMatcher or None), "destination_ip", "direct_remote_ip", "remote_ip"
    (the text of a range), "destination_port" ((first, after the last)), "metadata", "route_metadata"
    (MetadataMatcher), "filter_state"
    (FilterStateMatcher), "uri_template" (the regular expression that it means), "client_certificate" ((kind of name,
    StringMatcher) or None), "upstream" (UpstreamAddress), "none" (never true).
    """

    kind: str
    value: Any
    where: Where


@frozen
class UpstreamAddress:
    """``UpstreamIpPortMatcher``. ``ip``: the text of a range; ``ports``: the first, and the one after the last."""

    ip: str | None
    ports: tuple[int, int] | None


@frozen
class Policy:
    """``Policy``: one of the permissions and one of the principals."""

    name: str
    permissions: tuple[Rule, ...]
    principals: tuple[Rule, ...]


@frozen
class RbacRules:
    """``config.rbac.v3.RBAC``. ``action``: "ALLOW", "DENY" or "LOG"; the policies in the order they are asked in."""

    action: str
    policies: tuple[Policy, ...]


@frozen
class RbacConfig:
    """``RBAC``. Rules that are None are not asked: everything passes."""

    rules: RbacRules | None = None
    shadow_rules: RbacRules | None = None
    rules_stat_prefix: str = ""
    shadow_rules_stat_prefix: str = ""
    track_per_rule_stats: bool = False


def build(view: View, context: BuildContext) -> RbacConfig:
    """``RBAC``; ``matcher`` and ``shadow_matcher`` stay unread."""
    return RbacConfig(
        rules=build_rules(view.message("rules"), context),
        shadow_rules=build_rules(view.message("shadow_rules"), context),
        rules_stat_prefix=view.str("rules_stat_prefix"),
        shadow_rules_stat_prefix=view.str("shadow_rules_stat_prefix"),
        track_per_rule_stats=view.bool("track_per_rule_stats"),
    )


def build_per_route(view: View, context: BuildContext) -> RbacConfig:
    """``RBACPerRoute``; empty, it switches the filter off."""
    inner = view.message("rbac")
    return RbacConfig() if inner is None else build(inner, context)


def build_rules(view: View | None, context: BuildContext) -> RbacRules | None:
    """``config.rbac.v3.RBAC``; audit logging stays unread."""
    if view is None:
        return None
    policies: dict[str, View] = view.map_("policies")
    return RbacRules(
        action=view.enum("action"),
        policies=tuple(build_policy(name, policies[name], context) for name in sorted(policies)),
    )


def build_policy(name: str, view: View, context: BuildContext) -> Policy:
    """``Policy``; conditions in CEL stay unread."""
    return Policy(
        name=name,
        permissions=context.each(view.repeated("permissions"), build_permission),
        principals=context.each(view.repeated("principals"), build_principal),
    )


def build_permission(view: View, context: BuildContext) -> Rule:
    """``Permission``."""
    kind = view.which("rule") or ""
    where = build_where(view)
    match kind:
        case "destination_ip":
            return Rule("destination_ip", build_cidr_range(view.require("destination_ip"), context), where)
        case "destination_port":
            port = view.uint("destination_port")
            return Rule("destination_port", (port, port + 1), where)
        case "destination_port_range":
            return Rule("destination_port", _port_range(view.require("destination_port_range")), where)
        case "requested_server_name":
            return Rule("server_name", build_string_matcher(view.require("requested_server_name"), context), where)
        case "uri_template":
            made = context.extension(view.require("uri_template"), "path matcher")
            return Rule("none", None, where) if made is None else Rule("uri_template", made.value[1], where)
        case "matcher":
            made = context.extension(view.require("matcher"), "RBAC matcher")
            return Rule("none", None, where) if made is None else Rule("upstream", made.value, where)
    return _either(view, kind, where, context, build_permission)


def build_principal(view: View, context: BuildContext) -> Rule:
    """``Principal``."""
    kind = view.which("identifier") or ""
    where = build_where(view)
    match kind:
        case "authenticated":
            name = view.require("authenticated").message("principal_name")
            return Rule("authenticated", build_string_matcher(name, context) if name is not None else None, where)
        case "source_ip":
            return Rule("direct_remote_ip", build_cidr_range(view.require("source_ip"), context), where)
        case "direct_remote_ip":
            return Rule("direct_remote_ip", build_cidr_range(view.require("direct_remote_ip"), context), where)
        case "remote_ip":
            return Rule("remote_ip", build_cidr_range(view.require("remote_ip"), context), where)
        case "filter_state":
            return Rule("filter_state", build_filter_state_matcher(view.require("filter_state"), context), where)
        case "custom":
            made = context.extension(view.require("custom"), "RBAC principal")
            return Rule("none", None, where) if made is None else Rule("client_certificate", made.value, where)
    return _either(view, kind, where, context, build_principal)


def build_upstream_address(view: View, context: BuildContext) -> UpstreamAddress:
    """``rbac.matchers.upstream_ip_port.v3.UpstreamIpPortMatcher``."""
    ip, ports = view.message("upstream_ip"), view.message("upstream_port_range")
    if ip is None and ports is None:
        raise view.error(
            "Invalid UpstreamIpPortMatcher configuration - missing `upstream_ip` and/or `upstream_port_range`"
        )
    return UpstreamAddress(
        build_cidr_range(ip, context) if ip is not None else None,
        (ports.int("start"), ports.int("end")) if ports is not None else None,
    )


def build_client_certificate(view: View, context: BuildContext) -> tuple[str, StringMatcher] | None:
    """``rbac.principals.mtls_authenticated.v3.Config``: a kind of name and its matcher; None: any valid certificate."""
    san = view.message("san_matcher")
    if not view.bool("any_validated_client_certificate") and san is None:
        raise view.error("no validation is configured: san_matcher or any_validated_client_certificate must be set")
    return build_san_matcher(san, context) if san is not None else None


def _either(
    view: View, kind: str, where: Where, context: BuildContext, build: Callable[[View, BuildContext], Rule]
) -> Rule:
    # What permissions and principals have in common. ``build``: which of the two this is.
    match kind:
        case "and_rules" | "or_rules" | "and_ids" | "or_ids":
            operator, _, members = kind.partition("_")
            return Rule(operator, context.each(view.require(kind).repeated(members), build), where)
        case "not_rule" | "not_id":
            return Rule("not", build(view.require(kind), context), where)
        case "any":
            view.bool("any")
            return Rule("any", None, where)
        case "header":
            return Rule("header", build_header_matcher(view.require("header"), context), where)
        case "metadata":
            return Rule("metadata", build_metadata_matcher(view.require("metadata"), context), where)
        case "sourced_metadata":
            sourced = view.require("sourced_metadata")
            kind = "route_metadata" if sourced.enum("metadata_source") == "ROUTE" else "metadata"
            return Rule(kind, build_metadata_matcher(sourced.require("metadata_matcher"), context), where)
        case "url_path":
            return Rule("url_path", build_string_matcher(view.require("url_path").require("path"), context), where)
    return Rule("none", None, where)


def _port_range(view: View) -> tuple[int, int]:
    start, end = view.int("start"), view.int("end")
    for name, value in (("start", start), ("end", end)):
        if not 0 <= value <= 65536:
            raise view.error(f"range {name} {value} is out of bounds", field=name)
    if start >= end:
        raise view.error(f"range start {start} cannot be greater or equal than range end {end}")
    return start, end
