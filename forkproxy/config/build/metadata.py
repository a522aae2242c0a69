"""``core.v3.Metadata``, and conditions on it: ``type.matcher.v3.MetadataMatcher`` and ``ValueMatcher``."""

from __future__ import annotations

import json
from typing import Any

from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import StringMatcher, Where, build_string_matcher, build_where
from forkproxy.config.values import frozen
from forkproxy.config.view import View

NO_METADATA: dict[str, Any] = {}


def build_filter_metadata(view: View | None) -> dict[str, Any]:
    """``core.v3.Metadata``: the values by namespace. What is in them means something to formats and filters only."""
    if view is None:
        return NO_METADATA
    view.ignore("typed_filter_metadata", why="formats and load balancers read filter_metadata only")
    return view.map_("filter_metadata")


def filter_metadata_json(view: View | None) -> str:
    """The same as JSON with sorted keys; "" when there is none."""
    found = build_filter_metadata(view)
    return json.dumps(found, sort_keys=True, separators=(",", ":")) if found else ""


@frozen
class ValueMatcher:
    """``ValueMatcher``.

    ``kind``: "null", "exact" (``number``), "range" (``number`` <= value < ``end``), "string", "bool" (``wanted``), "present"
    (never true without ``wanted``), "list" (one of its values matches ``inner[0]``) or "or" (one of ``inner`` matches).
    """

    kind: str
    number: float = 0.0
    end: float = 0.0
    string: StringMatcher | None = None
    wanted: bool = True
    inner: tuple[ValueMatcher, ...] = ()


@frozen
class MetadataMatcher:
    """``MetadataMatcher``: the value at ``path`` below ``namespace`` matches ``value``, or with ``invert`` does not."""

    namespace: str
    path: tuple[str, ...]
    value: ValueMatcher
    invert: bool
    where: Where


def build_metadata_matcher(view: View, context: BuildContext) -> MetadataMatcher:
    """``MetadataMatcher``."""
    return MetadataMatcher(
        namespace=view.str("filter"),
        path=tuple(segment.str("key") for segment in view.repeated("path")),
        value=build_value_matcher(view.require("value"), context),
        invert=view.bool("invert"),
        where=build_where(view),
    )


def build_value_matcher(view: View, context: BuildContext) -> ValueMatcher:
    """``ValueMatcher``."""
    match view.which("match_pattern"):
        case "double_match":
            number = view.require("double_match")
            if number.which("match_pattern") == "range":
                bounds = number.require("range")
                return ValueMatcher("range", bounds.float("start"), bounds.float("end"))
            return ValueMatcher("exact", number.float("exact"))
        case "string_match":
            return ValueMatcher("string", string=build_string_matcher(view.require("string_match"), context))
        case "bool_match":
            return ValueMatcher("bool", wanted=view.bool("bool_match"))
        case "present_match":
            return ValueMatcher("present", wanted=view.bool("present_match"))
        case "list_match":
            inner = build_value_matcher(view.require("list_match").require("one_of"), context)
            return ValueMatcher("list", inner=(inner,))
        case "or_match":
            choices = context.each(view.require("or_match").repeated("value_matchers"), build_value_matcher)
            return ValueMatcher("or", inner=choices)
    view.message("null_match")
    return ValueMatcher("null")
