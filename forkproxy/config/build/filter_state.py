"""``type.matcher.v3.FilterStateMatcher``: conditions on what filters have left under a name."""

from __future__ import annotations

from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import StringMatcher, Where, build_cidr_range, build_string_matcher, build_where
from forkproxy.config.values import frozen
from forkproxy.config.view import View


@frozen
class FilterStateMatcher:
    """What stands under ``key`` is a text that matches ``string``, or else an IP address in one of ``ranges``."""

    key: str
    string: StringMatcher | None
    ranges: tuple[str, ...]
    where: Where


def build_filter_state_matcher(view: View, context: BuildContext) -> FilterStateMatcher:
    """``FilterStateMatcher``."""
    key = view.str("key")
    if view.which("matcher") == "address_match":
        address = view.require("address_match")
        ranges = context.each(address.repeated("ranges"), build_cidr_range)
        return FilterStateMatcher(key, None, ranges, build_where(view))
    string = build_string_matcher(view.require("string_match"), context)
    return FilterStateMatcher(key, string, (), build_where(view))
