"""``config.route.v3.RateLimit``: the descriptors that a request has, for the filters that limit rates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import (
    HeaderMatcher,
    QueryParameterMatcher,
    Where,
    build_header_matcher,
    build_query_parameter_matcher,
    build_where,
)
from forkproxy.config.values import frozen
from forkproxy.config.view import View

_KEYS = {
    "generic_key": "generic_key",
    "header_value_match": "header_match",
    "query_parameter_value_match": "query_match",
}


_ONE_OPERATOR = re.compile(r"%[A-Z0-9_]+(\([^)]*\))?(:[0-9]+)?%")


@frozen
class RateLimitAction:
    """One ``RateLimit.Action``. ``kind`` is the field's name: "remote_address", "request_headers" …

    ``key``: the descriptor's key. ``name``: of the header or query parameter that is read, or the namespace of metadata with
    ``path`` in it. ``value``: the descriptor's value, or its default.
    ``expected`` and the matchers are for the kinds that match; the prefix lengths for "masked_remote_address".
    """

    kind: str
    key: str = ""
    name: str = ""
    value: str = ""
    skip_if_absent: bool = False
    expected: bool = True
    headers: tuple[HeaderMatcher, ...] = ()
    query_parameters: tuple[QueryParameterMatcher, ...] = ()
    v4_prefix: int = 32
    v6_prefix: int = 128
    path: tuple[str, ...] = ()


@frozen
class RateLimit:
    """``RateLimit``: its actions make one descriptor, or none.

    ``hits``: how many tokens a request takes; ``hits_format``, where there is one, is the format that says so.
    """

    actions: tuple[RateLimitAction, ...]
    stage: int = 0
    disable_key: str = ""
    hits: int = 1
    hits_format: str = ""
    at_the_end: bool = False
    """For the end of the stream, when local limits are not asked any more."""
    where: Where = Where()


def build_rate_limits(views: Sequence[View], context: BuildContext) -> tuple[RateLimit, ...]:
    """The ``rate_limits`` of a route or virtual host. The local_ratelimit filter takes one token by each of them, as the
    request begins, whatever else they say."""
    why = "of use to a rate limit service alone: a local limit takes one token as the request begins, in Envoy too"
    for view in views:
        view.ignore("hits_addend", "apply_on_stream_done", "limit", why=why)
    return context.each(list(views), _build_rate_limit)


def build_own_rate_limits(views: Sequence[View], context: BuildContext) -> tuple[RateLimit, ...]:
    """The ``rate_limits`` of a filter itself."""
    return context.each(list(views), _build_own_rate_limit)


def _build_own_rate_limit(view: View, context: BuildContext) -> RateLimit:
    made = replace(_build_rate_limit(view, context), at_the_end=view.bool("apply_on_stream_done"))
    hits = view.message("hits_addend")
    if hits is None:
        return made
    number, text = hits.uint("number", None), hits.str("format")
    if (number is None) != bool(text):
        view.report("hits_addend must contain either a format or a number", field="hits_addend")
    elif text and not _ONE_OPERATOR.fullmatch(text):
        hits.report("hits_addend format must contain exactly one substitution", field="format")
    return replace(made, hits=1 if number is None else number, hits_format=text)


def _build_rate_limit(view: View, context: BuildContext) -> RateLimit:
    return RateLimit(
        actions=context.each(view.repeated("actions"), _build_action),
        stage=view.uint("stage"),
        disable_key=view.str("disable_key"),
        where=build_where(view),
    )


def _build_action(view: View, context: BuildContext) -> RateLimitAction:
    """``RateLimit.Action``; extensions, and metadata of routes, stay unread."""
    kind = view.which("action_specifier") or ""
    match kind:
        case "source_cluster" | "destination_cluster" | "remote_address":
            view.require(kind)
            return RateLimitAction(kind, kind)
        case "request_headers":
            inner = view.require(kind)
            name = inner.str("header_name").lower()
            return RateLimitAction(kind, inner.str("descriptor_key"), name, skip_if_absent=inner.bool("skip_if_absent"))
        case "query_parameters":
            inner = view.require(kind)
            name = inner.str("query_parameter_name")
            return RateLimitAction(kind, inner.str("descriptor_key"), name, skip_if_absent=inner.bool("skip_if_absent"))
        case "generic_key" | "header_value_match" | "query_parameter_value_match":
            inner = view.require(kind)
            return _build_fixed(kind, inner, context)
        case "metadata":
            return _build_metadata(view.require(kind))
        case "masked_remote_address":
            inner = view.require(kind)
            v4, v6 = inner.uint("v4_prefix_mask_len", 32), inner.uint("v6_prefix_mask_len", 128)
            return RateLimitAction(kind, kind, v4_prefix=v4, v6_prefix=v6)
    return RateLimitAction("")


def _build_metadata(view: View) -> RateLimitAction:
    view.enum("source", supported=("DYNAMIC",))
    place = view.require("metadata_key")
    return RateLimitAction(
        "metadata",
        view.str("descriptor_key"),
        place.str("key"),
        value=view.str("default_value"),
        skip_if_absent=view.bool("skip_if_absent"),
        path=tuple(segment.str("key") for segment in place.repeated("path")),
    )


def _build_fixed(kind: str, view: View, context: BuildContext) -> RateLimitAction:
    headers: tuple[HeaderMatcher, ...] = ()
    parameters: tuple[QueryParameterMatcher, ...] = ()
    if kind == "header_value_match":
        headers = context.each(view.repeated("headers"), build_header_matcher)
    elif kind == "query_parameter_value_match":
        parameters = context.each(view.repeated("query_parameters"), build_query_parameter_matcher)
    return RateLimitAction(
        kind,
        view.str("descriptor_key") or _KEYS[kind],
        value=view.str("descriptor_value"),
        expected=kind == "generic_key" or view.bool("expect_match", True),
        headers=headers,
        query_parameters=parameters,
    )
