"""What is cut out of the names of statistics. The expected values are real Envoy's."""

from __future__ import annotations

import pytest

from forkproxy.stats.tags import TAG_NAMES, Tag, TagExtractor, compile_tag_regex

DEFAULTS = [
    ("vhost.a.vcluster.b.upstream_rq_200", "vhost.vcluster.upstream_rq", "response_code virtual_cluster virtual_host"),
    ("vhost.a.route.b.upstream_rq_total", "vhost.route.upstream_rq_total", "virtual_host route"),
    ("http.in.rbac.allowed", "http.rbac.allowed", "http_conn_manager_prefix"),
    ("http.in.rbac.rules.allowed", "http.rbac.allowed", "rbac_http_prefix http_conn_manager_prefix"),
    (
        "http.in.rbac.rules.policy.p.denied",
        "http.rbac.policy.denied",
        "rbac_policy_name rbac_http_prefix http_conn_manager_prefix",
    ),
    ("rules.http_local_rate_limit.ok", "http_local_rate_limit.ok", "local_http_ratelimit_prefix"),
    (
        "http.in.fault.me.delays_injected",
        "http.fault.delays_injected",
        "fault_downstream_cluster http_conn_manager_prefix",
    ),
    ("tcp.t.downstream_cx_total", "tcp.downstream_cx_total", "tcp_prefix"),
    ("listener.admin.downstream_cx_total", "listener.admin.downstream_cx_total", ""),
    ("dns_cache.a.host_added", "dns_cache.a.host_added", ""),
    ("cluster", "cluster", ""),
    ("", "", ""),
]


@pytest.mark.parametrize(("name", "rest", "tags"), DEFAULTS)
def test_defaults(name, rest, tags):
    left, found = TagExtractor().cut(name)
    assert (left, [tag.removeprefix("envoy.") for tag, _ in found]) == (rest, tags.split())


def test_no_defaults_but_one_of_them():
    extractor = TagExtractor([Tag("envoy.cluster_name")], use_all_default_tags=False)
    assert extractor.cut("cluster.a.upstream_rq_200") == ("cluster.upstream_rq_200", [("envoy.cluster_name", "a")])
    assert extractor.cut("http.a.x") == ("http.a.x", [])


def test_all_rules_see_the_whole_name_and_what_they_found_is_cut_out_together():
    tags = [Tag("one", r"^vhost\.((\w+)\.)"), Tag("two", r"(\.route)"), Tag("three", "(upstream)_rq")]
    left, found = TagExtractor(tags).cut("vhost.plain.route.r.upstream_rq_total")
    assert left == "vhost.._rq_total"
    assert found == [
        ("two", ".route"),
        ("three", "upstream"),
        ("envoy.virtual_host", "plain"),
        ("envoy.route", "r"),
        ("one", "plain"),
    ]


def test_the_first_rule_of_a_tag_wins():
    tags = [Tag("t", "(time)out"), Tag("t", "(rq)"), Tag("f", fixed_value="1"), Tag("f", fixed_value="2")]
    extractor = TagExtractor(tags, use_all_default_tags=False)
    assert extractor.cut("rq_timeout") == ("rq_out", [("t", "time"), ("f", "1")])
    assert extractor.cut("rq_total") == ("_total", [("t", "rq"), ("f", "1")])


def test_a_second_group_is_the_value_unless_it_is_empty():
    tags = [Tag("t", r"(a(b*)c)")]
    extractor = TagExtractor(tags, use_all_default_tags=False)
    assert extractor.cut("xabbcy") == ("xy", [("t", "bb")])
    assert extractor.cut("xacy") == ("xy", [("t", "ac")])


def test_regular_expressions():
    assert compile_tag_regex("a(b)")("xab").span(1) == (2, 3)
    assert compile_tag_regex("a(?=b)(.)")("xab").span(1) == (2, 3)
    assert compile_tag_regex("ab")("ab") is None
    with pytest.raises(ValueError, match="missing \\)"):
        compile_tag_regex("(a")


def test_names_that_need_no_rule():
    assert {"envoy.cluster_name", "envoy.response_code", "cipher_suite"} <= TAG_NAMES
