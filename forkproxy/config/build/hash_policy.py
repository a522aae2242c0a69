"""What of a request is hashed for RING_HASH and MAGLEV clusters: ``hash_policy`` of routes and of the TCP proxy."""

from __future__ import annotations

from dataclasses import field

from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import Where, build_regex, build_where
from forkproxy.config.values import frozen
from forkproxy.config.view import View


@frozen
class HashPolicy:
    """``RouteAction.HashPolicy``.

    ``kind``: "header", "cookie", "source_ip", "query_parameter" or "filter_state", each but source_ip with a ``name`` (of a
    header in lower case).
    ``regex`` and ``substitution`` rewrite a header's values; without a ``regex`` they stay. ``ttl_s`` None: a cookie that is not
    there is not made; else Set-Cookie has ``path`` and ``attributes``, and Max-Age when ``ttl_s`` is not 0.
    """

    kind: str
    name: str = ""
    regex: str = ""
    substitution: str = ""
    ttl_s: int | None = None
    path: str = ""
    attributes: tuple[tuple[str, str], ...] = ()
    terminal: bool = False
    where: Where = field(default_factory=Where)


def build_hash_policies(views: list[View], context: BuildContext) -> tuple[HashPolicy, ...]:
    """Those that hash anything; ``connection_properties`` without ``source_ip`` does not."""
    return tuple(policy for policy in context.each(views, build_hash_policy) if policy is not None)


def build_hash_policy(view: View, context: BuildContext) -> HashPolicy | None:
    """``RouteAction.HashPolicy``."""
    kind = view.which("policy_specifier")
    terminal = view.bool("terminal")
    where = build_where(view)
    if kind == "header":
        header = view.require("header")
        rewrite = header.message("regex_rewrite")
        return HashPolicy(
            "header",
            header.str("header_name").lower(),
            regex=build_regex(rewrite.require("pattern")) if rewrite is not None else "",
            substitution=rewrite.str("substitution") if rewrite is not None else "",
            terminal=terminal,
            where=where,
        )
    if kind == "cookie":
        cookie = view.require("cookie")
        ttl_s = cookie.duration_s("ttl")
        return HashPolicy(
            "cookie",
            cookie.str("name"),
            ttl_s=None if ttl_s is None else int(ttl_s),
            path=cookie.str("path"),
            attributes=tuple((each.str("name"), each.str("value")) for each in cookie.repeated("attributes")),
            terminal=terminal,
            where=where,
        )
    if kind == "connection_properties":
        has_ip = view.require("connection_properties").bool("source_ip")
        return HashPolicy("source_ip", terminal=terminal, where=where) if has_ip else None
    if kind == "query_parameter":
        name = view.require("query_parameter").str("name")
        return HashPolicy("query_parameter", name, terminal=terminal, where=where)
    if kind == "filter_state":
        return HashPolicy("filter_state", view.require("filter_state").str("key"), terminal=terminal, where=where)
    return None


def build_tcp_hash_policy(views: list[View]) -> bool:
    """``type.v3.HashPolicy`` of the TCP proxy, of which there is at most one: whether the source address is hashed."""
    found = False
    for view in views:
        if view.which("policy_specifier") == "source_ip":
            view.require("source_ip")
            found = True
        elif view.has("filter_state"):
            view.unsupported("hashing an object of the filter state is not implemented", field="filter_state")
    return found
