"""``stats_config`` compiled: which statistics there are, how their names are taken apart, and the buckets of histograms."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from forkproxy.config.build.core import StringMatcher, Where
from forkproxy.config.build.stats import StatsConfig
from forkproxy.config.problems import ConfigError
from forkproxy.router.matcher import compile_string
from forkproxy.stats.counters import NameFilter
from forkproxy.stats.histogram import BUCKETS
from forkproxy.stats.tags import TAG_NAMES, Tag, TagExtractor, compile_tag_regex

BucketsOf = Callable[[str], Sequence[float]]


def check_tags(config: StatsConfig) -> None:
    """ConfigError for a tag that has no rule, in Envoy's words."""
    for tag in config.tags:
        if tag.fixed_value is not None:
            continue
        if not tag.regex:
            if tag.name not in TAG_NAMES:
                complaint = f"No regex specified for tag specifier and no default regex for name: '{tag.name}'"
                raise _error(tag.where, complaint)
            continue
        try:
            compile_tag_regex(tag.regex)
        except ValueError as error:
            raise _error(tag.where, f"Invalid regex '{tag.regex}': {error}") from None


def _error(where: Where, message: str) -> ConfigError:
    return ConfigError(where.path, where.line, where.column, message)


def tag_extractor(config: StatsConfig) -> TagExtractor:
    """What cuts tags out of names, by a configuration that has been checked."""
    tags = [Tag(tag.name, tag.regex, tag.fixed_value) for tag in config.tags]
    return TagExtractor(tags, use_all_default_tags=config.use_all_default_tags)


def buckets_of(config: StatsConfig) -> BucketsOf:
    """The bounds of a histogram's buckets, by its name."""
    if not config.histogram_buckets:
        return lambda name: BUCKETS
    settings = [(compile_string(entry.match, entry.where), entry.buckets) for entry in config.histogram_buckets]

    def find(name: str) -> Sequence[float]:
        encoded = name.encode()
        return next((buckets for matches, buckets in settings if matches(encoded)), ()) or BUCKETS

    return find


def name_filter(config: StatsConfig) -> NameFilter | None:
    """Which statistics there are; None: all of them. ConfigError for a regular expression that is none."""
    if config.matcher == "all":
        return None
    if config.matcher == "reject_all":
        return _NoNames()
    tests = [compile_string(pattern, config.patterns_where) for pattern in config.patterns]

    def listed(name: str) -> bool:
        encoded = name.encode()
        return any(test(encoded) for test in tests)

    if config.matcher == "inclusion_list":
        return _Included(listed, config.patterns)
    return _Excluded(listed, config.patterns)


class _NoNames:
    def __call__(self, name: str) -> bool:
        return False

    def refuses_all(self, beginning: str) -> bool:
        return True


class _Included:
    def __init__(self, listed: Callable[[str], bool], patterns: Sequence[StringMatcher]) -> None:
        self._listed = listed
        known = all(pattern.kind in ("exact", "prefix") for pattern in patterns)
        self._beginnings = tuple(pattern.value.lower() for pattern in patterns) if known else None

    def __call__(self, name: str) -> bool:
        return self._listed(name)

    def refuses_all(self, beginning: str) -> bool:
        if self._beginnings is None:
            return False
        lower = beginning.lower()
        return not any(each.startswith(lower) or lower.startswith(each) for each in self._beginnings)


class _Excluded:
    def __init__(self, listed: Callable[[str], bool], patterns: Sequence[StringMatcher]) -> None:
        self._listed = listed
        self._prefixes = tuple(
            pattern.value for pattern in patterns if pattern.kind == "prefix" and not pattern.ignore_case
        )

    def __call__(self, name: str) -> bool:
        return not self._listed(name)

    def refuses_all(self, beginning: str) -> bool:
        return beginning.startswith(self._prefixes)
