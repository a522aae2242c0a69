"""Route tables."""

from __future__ import annotations

import pytest

from forkproxy.config.build.context import BuildContext, PerFilterConfig
from forkproxy.config.build.core import FractionalPercent, HeaderMutations, StringMatcher
from forkproxy.config.build.route import (
    DirectResponseAction,
    ForwardAction,
    RedirectAction,
    RegexRewrite,
    RouteMatch,
    build_route_table,
)
from tests.unit.config.build.building import TYPE, built, value_of

TABLE = "envoy.config.route.v3.RouteConfiguration"


def table(routes, rest=""):
    return f"{{virtual_hosts: [{{name: v, domains: ['*'], routes: [{routes}]}}]{rest}}}"


def route(text, context=None):
    made = value_of(build_route_table, TABLE, table(text), context)
    return made.virtual_hosts[0].routes[0]


def action(text, context=None):
    return route(f"{{match: {{prefix: /}}, {text}}}", context).action


def test_table_and_virtual_host():
    text = """
        name: local
        most_specific_header_mutations_wins: true
        ignore_port_in_host_matching: true
        validate_clusters: false
        request_headers_to_remove: [x]
        virtual_hosts:
        - name: v
          domains: [WWW.example, "*.b"]
          require_tls: ALL
          include_request_attempt_count: true
          include_attempt_count_in_response: true
          response_headers_to_remove: [y]
        """.replace("[y]", "[z]")
    made = value_of(build_route_table, TABLE, text)
    assert made.name == "local"
    assert (made.most_specific_header_mutations_wins, made.ignore_port_in_host_matching) == (True, True)
    assert made.headers == HeaderMutations(request_remove=("x",))
    (host,) = made.virtual_hosts
    assert (host.name, host.domains, host.require_tls) == ("v", ("www.example", "*.b"), "ALL")
    assert (host.include_request_attempt_count, host.include_attempt_count_in_response) == (True, True)
    assert host.headers == HeaderMutations(response_remove=("z",))
    assert host.where.path == "virtual_hosts[0]"


def test_defaults():
    made = value_of(build_route_table, TABLE, table("{match: {prefix: /}, route: {cluster: c}}"))
    assert made.max_direct_response_body_size_bytes == 4096
    assert made.virtual_hosts[0].require_tls == "NONE"
    entry = made.virtual_hosts[0].routes[0]
    assert entry.match == RouteMatch("prefix", "/")
    assert entry.action == ForwardAction(cluster="c")
    assert entry.action.timeout_s == 15.0
    assert entry.headers == HeaderMutations()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{path: /a, case_sensitive: false}", RouteMatch("path", "/a", case_sensitive=False)),
        ("{path_separated_prefix: /a}", RouteMatch("path_separated_prefix", "/a")),
        ("{safe_regex: {regex: '/.*'}}", RouteMatch("safe_regex", "/.*")),
        ("{prefix: /, grpc: {}}", RouteMatch("prefix", "/", grpc=True)),
        (
            "{prefix: /, runtime_fraction: {default_value: {numerator: 1}, runtime_key: k}}",
            RouteMatch("prefix", "/", runtime_fraction=FractionalPercent(1, 100, "k")),
        ),
    ],
)
def test_matches(text, expected):
    assert route(f"{{match: {text}, route: {{cluster: c}}}}").match == expected


def test_header_and_query_matches():
    text = "{prefix: /, headers: [{name: A, exact_match: b}], query_parameters: [{name: q}]}"
    match = route(f"{{match: {text}, route: {{cluster: c}}}}").match
    assert (match.headers[0].name, match.headers[0].string) == ("a", StringMatcher("exact", "b"))
    assert match.query_parameters[0].name == "q"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cluster_header: x", ForwardAction(cluster_header="x")),
        ("cluster: c, timeout: 0s", ForwardAction(cluster="c", timeout_s=None)),
        ("cluster: c, timeout: 2.5s", ForwardAction(cluster="c", timeout_s=2.5)),
        ("cluster: c, priority: HIGH", ForwardAction(cluster="c", is_high=True)),
        ("cluster: c, priority: DEFAULT", ForwardAction(cluster="c")),
        ("cluster: c, idle_timeout: 0s", ForwardAction(cluster="c", idle_timeout_set=True)),
        ("cluster: c, idle_timeout: 3s", ForwardAction(cluster="c", idle_timeout_s=3.0, idle_timeout_set=True)),
        ("cluster: c, prefix_rewrite: /b", ForwardAction(cluster="c", prefix_rewrite="/b")),
        (
            "cluster: c, regex_rewrite: {pattern: {regex: a}, substitution: '\\1'}",
            ForwardAction(cluster="c", regex_rewrite=RegexRewrite("a", "\\1")),
        ),
        ("cluster: c, host_rewrite_literal: h", ForwardAction(cluster="c", host_rewrite_literal="h")),
        ("cluster: c, host_rewrite_header: h", ForwardAction(cluster="c", host_rewrite_header="h")),
        ("cluster: c, auto_host_rewrite: true", ForwardAction(cluster="c", auto_host_rewrite=True)),
        ("cluster: c, append_x_forwarded_host: true", ForwardAction(cluster="c", append_x_forwarded_host=True)),
        (
            "cluster: c, cluster_not_found_response_code: INTERNAL_SERVER_ERROR",
            ForwardAction(cluster="c", cluster_not_found_response_code=500),
        ),
        (
            "cluster: c, cluster_not_found_response_code: NOT_FOUND",
            ForwardAction(cluster="c", cluster_not_found_response_code=404),
        ),
    ],
)
def test_forward(text, expected):
    assert action(f"route: {{{text}}}") == expected


def test_weighted_clusters():
    text = """
        {match: {prefix: /}, route: {weighted_clusters: {runtime_key_prefix: split, total_weight: 3, clusters: [
          {name: a, weight: 1, request_headers_to_remove: [x], host_rewrite_literal: h}, {name: b, weight: 2}]}}}
        """
    clusters = route(text).action.weighted_clusters
    assert [(each.name, each.weight, each.host_rewrite_literal) for each in clusters] == [("a", 1, "h"), ("b", 2, "")]
    assert clusters[0].headers.request_remove == ("x",)
    clusters = route(text, BuildContext(runtime={"split.a": 9, "split.b": "no number"})).action.weighted_clusters
    assert [each.weight for each in clusters] == [9, 2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", RedirectAction()),
        ("{https_redirect: true, port_redirect: 8443}", RedirectAction(https_redirect=True, port_redirect=8443)),
        ("{scheme_redirect: http, strip_query: true}", RedirectAction(scheme_redirect="http", strip_query=True)),
        ("{host_redirect: h, path_redirect: /p}", RedirectAction(host_redirect="h", path_redirect="/p")),
        ("{prefix_rewrite: /p, response_code: SEE_OTHER}", RedirectAction(prefix_rewrite="/p", response_code=303)),
        (
            "{regex_rewrite: {pattern: {regex: a}, substitution: b}, response_code: PERMANENT_REDIRECT}",
            RedirectAction(regex_rewrite=RegexRewrite("a", "b"), response_code=308),
        ),
        ("{response_code: FOUND}", RedirectAction(response_code=302)),
        ("{response_code: TEMPORARY_REDIRECT}", RedirectAction(response_code=307)),
    ],
)
def test_redirect(text, expected):
    assert action(f"redirect: {text}") == expected


def test_direct_response(tmp_path):
    assert action("direct_response: {status: 404}") == DirectResponseAction(404)
    (tmp_path / "b").write_bytes(b"\xff")
    text = f"direct_response: {{status: 200, body: {{filename: {tmp_path}/b}}}}"
    assert action(text) == DirectResponseAction(200, b"\xff")


def test_direct_response_is_bounded():
    text = "{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: abcd}}}"
    outcome = built(build_route_table, TABLE, table(text, ", max_direct_response_body_size_bytes: 3"))
    assert outcome.errors == [
        "virtual_hosts[0].routes[0].direct_response.body: the response body has 4 bytes; the maximum is 3"
    ]


@pytest.mark.parametrize(
    "text",
    [],
)
def test_what_a_route_cannot_do_stays_unread(text):
    outcome = built(build_route_table, TABLE, table(f"{{match: {{prefix: /}}, route: {{cluster: c, {text}}}}}"))
    assert outcome.unread == [f"virtual_hosts[0].routes[0].route.{text.partition(':')[0]}"]


def test_retry_policies_of_routes_and_virtual_hosts():
    text = "{match: {prefix: /}, route: {cluster: c, retry_policy: {num_retries: 2}}}"
    host = built(build_route_table, TABLE, table(text)).value.virtual_hosts[0]
    assert (host.retry_policy, host.routes[0].action.retry_policy.num_retries) == (None, 2)
    text = "{virtual_hosts: [{name: a, domains: ['*'], retry_policy: {num_retries: 3}}]}"
    assert built(build_route_table, TABLE, text).value.virtual_hosts[0].retry_policy.num_retries == 3


@pytest.mark.parametrize("name", ["non_forwarding_action", "filter_action"])
def test_an_action_that_forwards_nothing_has_no_cluster(name):
    assert action(f"{name}: {{}}") == ForwardAction()


def per_filter(text):
    """A table whose one route says ``text`` about filters."""
    return table(f"{{match: {{prefix: /}}, route: {{cluster: c}}, typed_per_filter_config: {text}}}")


STRUCT = f"{{'@type': {TYPE}google.protobuf.Struct, value: {{a: 1}}}}"
CORS = f"{{'@type': {TYPE}envoy.extensions.filters.http.cors.v3.CorsPolicy, max_age: '1'}}"
FILTER_CONFIG = f"'@type': {TYPE}envoy.config.route.v3.FilterConfig"


@pytest.mark.parametrize(
    ("text", "made"),
    [
        (f"{{'my.mod:Filter': {STRUCT}}}", {"my.mod:Filter": PerFilterConfig({"a": 1})}),
        (f"{{'my.mod:Filter': {{{FILTER_CONFIG}, config: {STRUCT}}}}}", {"my.mod:Filter": PerFilterConfig({"a": 1})}),
        (f"{{x: {{{FILTER_CONFIG}, disabled: true}}}}", {"x": PerFilterConfig(disabled=True)}),
        (f"{{x: {{{FILTER_CONFIG}, disabled: true, config: {CORS}}}}}", {"x": PerFilterConfig(disabled=True)}),
        (f"{{x: {{{FILTER_CONFIG}, is_optional: true, config: {{}}}}}}", {"x": PerFilterConfig()}),
    ],
)
def test_per_filter_config(text, made):
    assert value_of(build_route_table, TABLE, per_filter(text)).virtual_hosts[0].routes[0].per_filter_config == made


@pytest.mark.parametrize("text", [CORS, f"{{{FILTER_CONFIG}, config: {CORS}}}"])
def test_a_filters_own_message(text):
    built_table = value_of(build_route_table, TABLE, per_filter(f"{{x: {text}}}"))
    assert built_table.virtual_hosts[0].routes[0].per_filter_config["x"].config.max_age == "1"


def test_per_filter_config_on_every_level():
    said = f"typed_per_filter_config: {{x: {{{FILTER_CONFIG}, disabled: true}}}}"
    weighted = f"{{prefix: /}}, route: {{weighted_clusters: {{clusters: [{{name: c, weight: 1, {said}}}]}}}}"
    text = f"{{{said}, virtual_hosts: [{{name: v, domains: ['*'], {said}, routes: [{{match: {weighted}, {said}}}]}}]}}"
    made = value_of(build_route_table, TABLE, text)
    host = made.virtual_hosts[0]
    for level in (made, host, host.routes[0], host.routes[0].action.weighted_clusters[0]):
        assert level.per_filter_config == {"x": PerFilterConfig(disabled=True)}


@pytest.mark.parametrize(
    "text",
    [
        f"{{'@type': {TYPE}envoy.extensions.filters.http.lua.v3.LuaPerRoute, disabled: true}}",
        f"{{'@type': {TYPE}envoy.extensions.filters.http.router.v3.Router}}",
        STRUCT,
        f"{{{FILTER_CONFIG}, is_optional: true, config: {STRUCT}}}",
    ],
)
def test_per_filter_config_that_is_not_implemented(text):
    outcome = built(build_route_table, TABLE, per_filter(f"{{x: {text}}}"))
    assert [said.partition(": ")[2] for said in outcome.unsupported] == [
        'the per-route configuration of "x" is not implemented'
    ]
    assert outcome.unread == []
    assert outcome.value.virtual_hosts[0].routes[0].per_filter_config == {}


def test_an_empty_filter_config_is_an_error_as_in_envoy():
    outcome = built(build_route_table, TABLE, per_filter(f"{{x: {{{FILTER_CONFIG}}}}}"))
    assert [said.partition(": ")[2] for said in outcome.errors] == ['the per-route configuration of "x" is empty']


def test_the_deprecated_cors_fields():
    cors = "{allow_origin_string_match: [{prefix: '*'}], filter_enabled: {default_value: {numerator: 5}}, max_age: '7'}"
    text = (
        f"{{virtual_hosts: [{{name: v, domains: ['*'], cors: {cors},"
        f" routes: [{{match: {{prefix: /}}, route: {{cluster: c, cors: {cors}}}}}]}}]}}"
    )
    [host] = value_of(build_route_table, TABLE, text).virtual_hosts
    for policy in (host.cors, host.routes[0].action.cors):
        assert policy.allow_origins == (StringMatcher("prefix", "*"),)
        assert policy.filter_enabled == FractionalPercent(5)
        assert (policy.max_age, policy.allow_credentials, policy.shadow_enabled) == ("7", None, None)
