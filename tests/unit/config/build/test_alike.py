"""What says the same is made once, and nobody can tell: not by values, not by places, not by what is reported."""

from __future__ import annotations

import pytest

from forkproxy.config.build.alike import Alike
from forkproxy.config.build.cluster import build_cluster
from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import HeaderMutations, Where
from forkproxy.config.build.route import ForwardAction, RouteMatch, build_route_table
from forkproxy.config.tree import load
from forkproxy.config.view import View, unread
from tests.unit.config.build.building import TYPE, built, view_of

CLUSTER = "envoy.config.cluster.v3.Cluster"
METADATA = "envoy.config.core.v3.Metadata"
TABLE = "envoy.config.route.v3.RouteConfiguration"
EARLY_DATA = "envoy.extensions.early_data.v3.DefaultEarlyDataPolicy"
ACTION = "envoy.config.route.v3.RouteAction"


def table(*routes):
    lines = "".join(f"  - {route}\n" for route in routes)
    return built(build_route_table, TABLE, f"virtual_hosts:\n- name: v\n  domains: ['*']\n  routes:\n{lines}")


def routes(*texts):
    outcome = table(*texts)
    assert (outcome.errors, outcome.unsupported, outcome.unread) == ([], [], [])
    return outcome.value.virtual_hosts[0].routes


def test_what_is_said_again_is_the_same_object():
    one, same, other, insensitive = routes(
        "{match: {prefix: /a}, route: {cluster: c, timeout: 3s}}",
        "{match: {prefix: /a}, route: {timeout: 3s, cluster: c}}",
        "{match: {prefix: /b}, route: {cluster: d, timeout: 3s}, name: its}",
        "{match: {prefix: /a, case_sensitive: false}, route: {cluster: c, timeout: 4s}}",
    )
    assert one.match is same.match
    assert (one.match, other.match) == (RouteMatch("prefix", "/a"), RouteMatch("prefix", "/b"))
    assert insensitive.match == RouteMatch("prefix", "/a", case_sensitive=False)
    assert one.action == same.action == ForwardAction(cluster="c", timeout_s=3.0)
    assert other.action == ForwardAction(cluster="d", timeout_s=3.0)
    assert other.action.policies is one.action.policies
    assert insensitive.action == ForwardAction(cluster="c", timeout_s=4.0)
    assert (one.name, other.name) == ("", "its")


def test_each_stands_where_it_stands():
    mutations = "request_headers_to_add: [{header: {key: a, value: b}}]"
    retries = "retry_policy: {retry_on: 5xx}"
    text = f"{{match: {{prefix: /}}, {mutations}, route: {{cluster: c, {retries}}}}}"
    made = routes(text, text, text)
    assert [str(route.where) for route in made] == [
        f"Where('virtual_hosts[0].routes[{index}]', {index + 5}, 5)" for index in range(3)
    ]
    assert [route.headers.request_add[0].where.line for route in made] == [5, 6, 7]
    assert [route.action.retry_policy.where.line for route in made] == [5, 6, 7]
    assert made[1].action.retry_policy.where.path == "virtual_hosts[0].routes[1].route.retry_policy"
    assert made[0].headers == made[1].headers != HeaderMutations()


def test_what_is_wrong_is_said_of_each():
    wrong = "{match: {prefix: /}, route: {cluster: c, internal_redirect_policy: {response_headers_to_copy: [host]}}}"
    at = "route.internal_redirect_policy.response_headers_to_copy: :-prefixed headers or Hosts may not be specified here."
    assert table(wrong, wrong).errors == [f"virtual_hosts[0].routes[{index}].{at}" for index in range(2)]


def test_what_nobody_reads_is_said_of_each():
    policy = f'{{name: e, typed_config: {{"@type": {TYPE}{EARLY_DATA}}}}}'
    unread_here = f"{{match: {{prefix: /}}, route: {{cluster: c, early_data_policy: {policy}}}}}"
    assert table(unread_here, unread_here).unread == [
        f"virtual_hosts[0].routes[{index}].route.early_data_policy" for index in range(2)
    ]
    context = BuildContext()
    for _ in range(3):
        text = "{name: c, track_cluster_stats: {per_endpoint_stats: true}}"
        assert built(build_cluster, CLUSTER, text, context).unread == ["track_cluster_stats"]


def test_clusters_share_what_they_say_alike():
    context = BuildContext()
    text = "{{name: {0}, alt_stat_name: 'a:{0}', load_assignment: {{cluster_name: {0}, endpoints: []}}}}"
    one, other = [built(build_cluster, CLUSTER, text.format(name), context).value for name in ("one", "two")]
    assert (one.name, one.stat_name, other.name, other.stat_name) == ("one", "a_one", "two", "a_two")
    assert one.load_balancing is other.load_balancing


def content_of(text, apart=()):
    return View.root(load(text, "f.json").root, METADATA).content(apart)


def test_what_only_python_holds_equal_is_another_content():
    values = [
        "1",
        "true",
        '"1"',
        "1.0",
        "0",
        "false",
        "0.0",
        "-0.0",
        "null",
        '""',
        "{}",
        "[]",
        '{"k": "v"}',
        '["k", "v"]',
    ]
    contents = [content_of(f'{{"filter_metadata": {{"n": {{"k": {value}}}}}}}') for value in values]
    assert len(set(contents)) == len(values)
    assert content_of('{"filter_metadata": {"n": {"k":   1}}}') == contents[0]


def test_of_a_field_that_is_apart_it_only_counts_that_it_is_there():
    one, other = [content_of(f'{{"a": {value}, "b": 1}}', {"a"}) for value in (1, 2)]
    assert one == other != content_of('{"b": 1}', {"a"})


def made_of(build, texts, apart=frozenset()):
    """What ``build`` made of each, and how often it was asked."""
    context, asked = BuildContext(), []

    def count(view, context):
        asked.append(view)
        return build(view)

    made = []
    for text in texts:
        view = view_of(text, ACTION)
        made.append(context.alike.rest(view, count, context, apart))
        view.str("cluster")
        assert unread(view) == []
    return made, len(asked)


@pytest.mark.parametrize(
    ("build", "times"),
    [
        (lambda view: view.str("cluster"), 1),
        (lambda view: (view.str("cluster"), 1.5, None, frozenset((b"",)), Where(), {}, []), 1),
        (lambda view: Where("here", 3), 3),
        (lambda view: ("x", (Where("here", 3),)), 3),
        (lambda view: HeaderMutations((Where("here", 3),)), 3),
        (lambda view: {"k": "v"}, 3),
        (lambda view: [1], 3),
        (lambda view: BuildContext(), 3),
        (lambda view: view.report("odd", kind="warning"), 3),
    ],
)
def test_what_cannot_be_everybodys_is_made_each_time(build, times):
    assert made_of(build, ["{cluster: c}"] * 3)[1] == times


def test_a_field_that_is_apart_makes_no_difference_unless_it_is_read():
    texts = ["{cluster: c}", "{cluster: d}", "{cluster: e}"]
    assert made_of(lambda view: 1, texts, {"cluster"})[1] == 1
    made, times = made_of(lambda view: view.str("cluster"), ["{cluster: c}", "{cluster: d}"], {"cluster"})
    assert (made, times) == (["c", "d"], 2)


def test_variations():
    alike = Alike()
    one = RouteMatch("prefix", "/")
    assert alike.varied(one, value="/a") == RouteMatch("prefix", "/a")
    assert alike.varied(one, value="/a") is alike.varied(one, value="/a")
    other = RouteMatch("path", "/")
    assert alike.varied(other, value="/a") == RouteMatch("path", "/a")
    assert (one.value, other.value) == ("/", "/")
