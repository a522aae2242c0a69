"""``stats_config`` compiled."""

from __future__ import annotations

import pytest

from forkproxy.config.build.core import StringMatcher, Where
from forkproxy.config.build.stats import HistogramBuckets, StatsConfig, StatsTag
from forkproxy.config.problems import ConfigError
from forkproxy.stats.histogram import BUCKETS
from forkproxy.worker.statistics import buckets_of, check_tags, name_filter, tag_extractor

WHERE = Where("stats_config.stats_tags[0]", 3, 5)


def listing(kind, *patterns):
    return name_filter(StatsConfig(matcher=kind, patterns=patterns))


def test_all_of_them():
    assert name_filter(StatsConfig()) is None


def test_none_of_them():
    shows = name_filter(StatsConfig(matcher="reject_all"))
    assert (shows("server.live"), shows.refuses_all("server.")) == (False, True)


MATCHERS = (
    StringMatcher("prefix", "cluster.A.", ignore_case=True),
    StringMatcher("exact", "server.live"),
    StringMatcher("suffix", "_total"),
    StringMatcher("contains", "RQ", ignore_case=True),
    StringMatcher("safe_regex", "a[bc]+"),
)
NAMES = ("cluster.a.x", "server.live", "server.live2", "x_total", "xrqx", "abcb", "abcbd", "other")
LISTED = ("cluster.a.x", "server.live", "x_total", "xrqx", "abcb")


@pytest.mark.parametrize("kind", ["inclusion_list", "exclusion_list"])
def test_lists(kind):
    shows = listing(kind, *MATCHERS)
    listed = tuple(name for name in NAMES if shows(name) == (kind == "inclusion_list"))
    assert listed == LISTED


def test_groups_that_an_inclusion_list_refuses_as_a_whole():
    shows = listing("inclusion_list", StringMatcher("prefix", "cluster.a."), StringMatcher("exact", "server.live"))
    assert [shows.refuses_all(each) for each in ("cluster.a.", "cluster.", "cluster.a.ssl.", "server.")] == [False] * 4
    assert [shows.refuses_all(each) for each in ("cluster.b.", "http.in.")] == [True, True]
    assert not listing("inclusion_list", StringMatcher("suffix", "_total")).refuses_all("cluster.b.")
    assert not listing("inclusion_list", StringMatcher("prefix", "CLUSTER", ignore_case=True)).refuses_all("cluster.")


def test_groups_that_an_exclusion_list_refuses_as_a_whole():
    shows = listing("exclusion_list", StringMatcher("prefix", "cluster.a"), StringMatcher("suffix", "_total"))
    assert [shows.refuses_all(each) for each in ("cluster.a.", "cluster.ab.", "cluster.b.", "cluster.")] == [
        *(True, True, False, False)
    ]


def test_a_matcher_that_is_no_regular_expression():
    with pytest.raises(ConfigError):
        listing("inclusion_list", StringMatcher("safe_regex", "("))


def test_tags():
    config = StatsConfig(tags=(StatsTag("a", "^x(y)"), StatsTag("b", fixed_value=""), StatsTag("envoy.cluster_name")))
    check_tags(config)
    assert tag_extractor(config).cut("xy") == ("x", [("a", "y"), ("b", "")])


def test_a_tag_without_a_rule():
    with pytest.raises(ConfigError) as refused:
        check_tags(StatsConfig(tags=(StatsTag("mine", where=WHERE),)))
    assert str(refused.value) == (
        "3:5: stats_config.stats_tags[0]: No regex specified for tag specifier and no default regex for name: 'mine'"
    )


def test_a_tag_with_a_bad_rule():
    with pytest.raises(ConfigError, match=r"Invalid regex '\(x': "):
        check_tags(StatsConfig(tags=(StatsTag("mine", "(x", where=WHERE),)))


def test_buckets():
    assert buckets_of(StatsConfig())("x") is BUCKETS
    settings = (
        HistogramBuckets(StringMatcher("suffix", "_ms"), (1.0, 2.0)),
        HistogramBuckets(StringMatcher("prefix", "a"), (3.0,)),
        HistogramBuckets(StringMatcher("prefix", "b"), ()),
    )
    find = buckets_of(StatsConfig(histogram_buckets=settings))
    assert [find(name) for name in ("a_ms", "a", "b", "c")] == [(1.0, 2.0), (3.0,), BUCKETS, BUCKETS]
