"""``config.metrics.v3.StatsConfig``: which statistics there are, and how they are shown."""

from __future__ import annotations

from dataclasses import field

from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import StringMatcher, Where, build_string_matcher, build_where
from forkproxy.config.values import frozen
from forkproxy.config.view import View


@frozen
class StatsTag:
    """``TagSpecifier``: a regular expression, "" for the default rule of that name, or a value for all."""

    name: str
    regex: str = ""
    fixed_value: str | None = None
    where: Where = field(default_factory=Where)


@frozen
class HistogramBuckets:
    """``HistogramBucketSettings``: ascending bounds for the histograms that match; () for the default ones."""

    match: StringMatcher
    buckets: tuple[float, ...]
    where: Where = field(default_factory=Where)


@frozen
class StatsConfig:
    """``StatsConfig``. ``matcher``: "all", "reject_all", "inclusion_list" or "exclusion_list"."""

    tags: tuple[StatsTag, ...] = ()
    use_all_default_tags: bool = True
    matcher: str = "all"
    patterns: tuple[StringMatcher, ...] = ()
    patterns_where: Where = field(default_factory=Where)
    histogram_buckets: tuple[HistogramBuckets, ...] = ()


def build_stats(view: View | None, context: BuildContext) -> StatsConfig:
    """``StatsConfig``."""
    if view is None:
        return StatsConfig()
    matcher = view.message("stats_matcher")
    kind = matcher.which("stats_matcher") or "all" if matcher is not None else "all"
    patterns: tuple[StringMatcher, ...] = ()
    if matcher is not None and kind == "reject_all":
        kind = "reject_all" if matcher.bool("reject_all") else "all"
    elif matcher is not None and kind != "all":
        patterns = context.each(matcher.require(kind).repeated("patterns"), build_string_matcher)
    return StatsConfig(
        tags=context.each(view.repeated("stats_tags"), build_stats_tag),
        use_all_default_tags=view.bool("use_all_default_tags", True),
        matcher=kind,
        patterns=patterns,
        patterns_where=build_where(matcher or view),
        histogram_buckets=context.each(view.repeated("histogram_bucket_settings"), build_histogram_buckets),
    )


def build_stats_tag(view: View, context: BuildContext) -> StatsTag:
    """``TagSpecifier``."""
    kind = view.which("tag_value")
    return StatsTag(
        name=view.str("tag_name"),
        regex=view.str("regex") if kind == "regex" else "",
        fixed_value=view.str("fixed_value") if kind == "fixed_value" else None,
        where=build_where(view),
    )


def build_histogram_buckets(view: View, context: BuildContext) -> HistogramBuckets:
    """``HistogramBucketSettings``."""
    view.ignore("bins", why="it is the room that Envoy makes for a histogram at first")
    return HistogramBuckets(
        match=build_string_matcher(view.require("match"), context),
        buckets=tuple(sorted(view.floats("buckets"))),
        where=build_where(view),
    )
