"""``xds.type.matcher.v3.Matcher`` where it chooses among routes: a tree of conditions on request headers (Envoy: "Matching API").

``keep_matching`` and inputs other than request headers are refused by Envoy, too; ``custom_match`` stays unread.
"""

from __future__ import annotations

from collections.abc import Callable

from forkproxy.config.build.core import StringMatcher, Where, build_where
from forkproxy.config.values import frozen
from forkproxy.config.view import View

_HEADER_INPUT = "envoy.type.matcher.v3.HttpRequestHeaderMatchInput"
_REFUSED = "requirement violation while creating route match tree: "


@frozen
class Predicate:
    """``Predicate``. ``kind``: "header" (``header`` and ``string``), or "or", "and", "not" of ``inner``."""

    kind: str
    header: str = ""
    string: StringMatcher | None = None
    inner: tuple[Predicate, ...] = ()
    where: Where = Where()


@frozen
class MatchTree:
    """``Matcher``. ``kind``: "list" (``predicates``), or "exact", "prefix" (``keys``, of the value of ``header``).

    ``outcomes`` belong to predicates or keys, one each. An outcome is another tree, or what the action stands for.
    """

    kind: str
    outcomes: tuple[Outcome, ...]
    predicates: tuple[Predicate, ...] = ()
    header: str = ""
    keys: tuple[str, ...] = ()
    otherwise: Outcome | None = None


Outcome = MatchTree | tuple[int, ...]
"""Another tree, or the numbers of routes, of which the first that matches is taken."""
BuildAction = Callable[[View], tuple[int, ...]]


def build_match_tree(view: View, build_action: BuildAction) -> MatchTree:
    """``Matcher``; ``build_action`` is asked for every action, in the order of the file."""
    if view.which("matcher_type") == "matcher_tree":
        return _build_tree(view, view.require("matcher_tree"), build_action)
    matchers = view.require("matcher_list").repeated("matchers") if view.has("matcher_list") else []
    return MatchTree(
        "list",
        predicates=tuple(_build_predicate(each.require("predicate")) for each in matchers),
        outcomes=tuple(_build_outcome(each.require("on_match"), build_action) for each in matchers),
        otherwise=_build_otherwise(view, build_action),
    )


def _build_tree(view: View, tree: View, build_action: BuildAction) -> MatchTree:
    kind = tree.which("tree_type") or ""
    outcomes = {}
    if kind in ("exact_match_map", "prefix_match_map"):
        outcomes = tree.require(kind).map_("map")
    return MatchTree(
        kind.removesuffix("_match_map"),
        keys=tuple(outcomes),
        outcomes=tuple(_build_outcome(each, build_action) for each in outcomes.values()),
        header=_build_input(tree.require("input")),
        otherwise=_build_otherwise(view, build_action),
    )


def _build_otherwise(view: View, build_action: BuildAction) -> Outcome | None:
    on_no_match = view.message("on_no_match")
    return _build_outcome(on_no_match, build_action) if on_no_match is not None else None


def _build_outcome(view: View, build_action: BuildAction) -> Outcome:
    if view.bool("keep_matching"):
        view.report(f"{_REFUSED}keep_matching is not supported in this context", field="keep_matching")
    if view.which("on_match") == "matcher":
        return build_match_tree(view.require("matcher"), build_action)
    return build_action(view.require("action"))


def _build_input(view: View) -> str:
    view.str("name")
    typed = view.any("typed_config")
    if typed is None or typed.type_name != _HEADER_INPUT:
        if typed is not None:
            typed.ignore_all(why="what is wrong with it has been said")
        saw = typed.type_url if typed is not None else ""
        view.report(f"{_REFUSED}Route table can only match on request headers, saw {saw}", field="typed_config")
        return ""
    return typed.str("header_name").lower()


def _build_predicate(view: View) -> Predicate:
    match view.which("match_type"):
        case "or_matcher" | "and_matcher" as kind:
            inner = tuple(_build_predicate(each) for each in view.require(kind).repeated("predicate"))
            return Predicate(kind.removesuffix("_matcher"), inner=inner)
        case "not_matcher":
            return Predicate("not", inner=(_build_predicate(view.require("not_matcher")),))
    single = view.require("single_predicate")
    header = _build_input(single.require("input"))
    if single.which("matcher") != "value_match":
        return Predicate("or")  # a custom match: unread, and so refused
    return Predicate("header", header, _build_string(single.require("value_match")), where=build_where(single))


def _build_string(view: View) -> StringMatcher:
    kind = view.which("match_pattern") or "custom"
    if kind == "custom":
        return StringMatcher("exact", "")  # unread, and so refused
    if kind == "safe_regex":
        regex = view.require("safe_regex")
        regex.message("google_re2")
        return StringMatcher(kind, regex.str("regex"))
    return StringMatcher(kind, view.str(kind), view.bool("ignore_case"))
