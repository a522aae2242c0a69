"""View: typed getters that remember what was read, and what was set and never read."""

from __future__ import annotations

import pytest

from forkproxy.config.problems import ConfigError
from forkproxy.config.tree import Mark, load
from forkproxy.config.validate import BOOTSTRAP_V3, validate
from forkproxy.config.view import READS, AnyView, View, door, unread

CLUSTER = "envoy.config.cluster.v3.Cluster"
TYPE = "type.googleapis.com/"
LUA = "envoy.extensions.filters.http.lua.v3.Lua"
RBAC = "envoy.extensions.filters.http.rbac.v3.RBAC"
FILTER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter"


def view(text, message=CLUSTER):
    root = load(text, "f").root
    assert [p.text("f") for p in validate(root, message) if p.kind == "error"] == []
    return View.root(root, message)


def left(root):
    return [problem.path for problem in unread(root)]


# --- getters -----------------------------------------------------------------------------------------------------------


def test_scalars():
    root = view("{name: c, alt_stat_name: a, ignore_health_on_host_removal: yes, dns_jitter: 0.5s, lb_policy: maglev}")
    assert root.str("name") == "c"
    assert root.str("alt_stat_name", "z") == "a"
    assert root.bool("ignore_health_on_host_removal") is True
    assert root.duration_s("dns_jitter") == 0.5
    assert root.enum("lb_policy") == "MAGLEV"
    assert left(root) == []


def test_absent_is_the_default():
    root = view("{name: c}")
    assert root.str("alt_stat_name") == ""
    assert root.bool("ignore_health_on_host_removal") is False
    assert root.uint("per_connection_buffer_limit_bytes", 1048576) == 1048576
    assert root.uint("per_connection_buffer_limit_bytes", None) is None
    assert root.duration_s("connect_timeout") is None
    assert root.duration_s("connect_timeout", 5.0) == 5.0
    assert root.enum("lb_policy") == "ROUND_ROBIN"
    assert root.message("load_assignment") is None
    assert root.repeated("health_checks") == []
    assert root.map_("typed_extension_protocol_options") == {}
    assert left(root) == ["name"]


@pytest.mark.parametrize(("text", "value"), [("5", 5), ("0", 0), ("{value: 7}", 7), ("{}", 1)])
def test_wrappers(text, value):
    assert (
        view(f"{{name: c, per_connection_buffer_limit_bytes: {text}}}").uint("per_connection_buffer_limit_bytes", 1)
        == value
    )


def test_numbers_bytes_and_lists():
    percent = view("{value: 20.5}", "envoy.type.v3.Percent")
    assert percent.float("value") == 20.5
    assert view("{start: -5, end: 7}", "envoy.type.v3.Int64Range").int("start") == -5
    payload = view("{binary: aGk=}", "envoy.config.core.v3.HealthCheck.Payload")
    assert payload.bytes("binary") == b"hi"
    policy = view("{retriable_status_codes: [500, 503]}", "envoy.config.route.v3.RetryPolicy")
    assert policy.uints("retriable_status_codes") == (500, 503)
    host = view("{name: v, domains: ['*', a]}", "envoy.config.route.v3.VirtualHost")
    assert host.strings("domains") == ("*", "a")
    assert host.strings("request_headers_to_remove") == ()


def test_lists_of_ints_floats_durations_enums_and_structs():
    buckets = view("{match: {prefix: a}, buckets: [0.5, 1]}", "envoy.config.metrics.v3.HistogramBucketSettings")
    assert buckets.floats("buckets") == (0.5, 1.0)
    health = view("{statuses: [HEALTHY, DRAINING]}", "envoy.config.core.v3.HealthStatusSet")
    assert health.enums("statuses") == ("HEALTHY", "DRAINING")
    assert health.enums("statuses", supported=("HEALTHY",)) == ("HEALTHY",)
    assert [p.message for p in health.problems] == ["DRAINING is not implemented"]


def test_messages():
    root = view("name: c\nload_assignment:\n  cluster_name: c\n  endpoints:\n  - lb_endpoints: []\n  - priority: 1\n")
    assignment = root.message("load_assignment")
    endpoints = assignment.repeated("endpoints")
    assert [each.path for each in endpoints] == ["load_assignment.endpoints[0]", "load_assignment.endpoints[1]"]
    assert endpoints[1].mark == Mark(6, 5)
    assert endpoints[1].uint("priority") == 1
    assert endpoints[1].path_of("priority") == "load_assignment.endpoints[1].priority"
    assert endpoints[1].mark_of("priority") == Mark(6, 5)
    assert endpoints[0].mark_of("priority") == endpoints[0].mark
    assert root.message("load_assignment") is assignment
    assert root.require("load_assignment") is assignment
    assert repr(endpoints[0]) == "<View LocalityLbEndpoints load_assignment.endpoints[0]>"
    assert repr(root) == "<View Cluster root>"
    assert root.type_name == CLUSTER
    with pytest.raises(ConfigError, match='"metadata" is missing'):
        root.require("metadata")


def test_maps_structs_and_values():
    root = view(
        "{id: x, metadata: {a: [1, {b: 1.5}]}, dynamic_parameters: {t: {params: {k: v}}}}", "envoy.config.core.v3.Node"
    )
    assert root.struct("metadata") == {"a": [1, {"b": "1.5"}]}
    assert root.struct("metadata") is not root.struct("metadata")
    parameters = root.map_("dynamic_parameters")
    assert parameters["t"].map_("params") == {"k": "v"}
    assert view("{name: x, admin_layer: {}}", "envoy.config.bootstrap.v3.RuntimeLayer").struct("static_layer") == {}
    with pytest.raises(TypeError):
        root.json("metadata")


def test_an_any_is_the_message_in_it():
    root = view(f'{{name: l, typed_config: {{"@type": {TYPE}{LUA}, inline_code: x}}}}', FILTER)
    assert root.str("name") == "l"
    typed = root.any("typed_config")
    assert (typed.type_url, typed.type_name, typed.view) == (TYPE + LUA, LUA, typed)
    assert typed.str("inline_code") == "x"
    assert left(root) == []
    assert repr(typed) == f"<AnyView {LUA} typed_config>"


def test_an_any_that_holds_a_struct():
    root = view(f'{{name: l, typed_config: {{"@type": {TYPE}google.protobuf.Struct, value: {{a: 5}}}}}}', FILTER)
    typed = root.any("typed_config")
    assert isinstance(typed, AnyView)
    assert (typed.value, typed.view, typed.type_name) == ({"a": 5}, None, "google.protobuf.Struct")


def test_an_any_of_an_unknown_type_and_an_empty_one():
    typed = view(f'{{name: l, typed_config: {{"@type": {TYPE}acme.Guard, a: 1}}}}', FILTER).any("typed_config")
    assert (typed.view, typed.type_name, typed.opens_door) == (None, "acme.Guard", True)
    options = view("{name: c, typed_extension_protocol_options: {x: {}}}").map_("typed_extension_protocol_options")
    assert (options["x"].type_name, options["x"].opens_door, options["x"].view) == ("", False, None)


def test_a_wrong_name_or_kind_is_a_bug_here():
    root = view("{name: c}")
    for wrong in (
        lambda: root.str("nmae"), lambda: root.uint("name"), lambda: root.str("health_checks"), lambda: root.message("name"),
        lambda: root.repeated("load_assignment"), lambda: root.enum("name"), lambda: root.any("name"), lambda: root.anys("name"),
        lambda: root.map_("name"), lambda: root.has("nothing"), lambda: root.which("nothing"), lambda: root.strings("name"),
        lambda: root.duration_s("name"), lambda: root.struct("name"), lambda: root.peek("name"),
        lambda: root.ignore("x", why="y"),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=CLUSTER):
            wrong()


# --- what was not read -------------------------------------------------------------------------------------------------


def test_has_which_and_peek_do_not_read():
    root = view("{name: c, type: STATIC, load_assignment: {cluster_name: c}}")
    root.str("name")
    assert root.has("type")
    assert not root.has("metadata")
    assert root.which("cluster_discovery_type") == "type"
    assert root.which("lb_config") is None
    assert root.peek("load_assignment").str("cluster_name") == "c"
    assert root.peek("metadata") is None
    assert left(root) == ["type", "load_assignment"]


def test_only_the_top_of_an_unread_subtree_is_reported():
    root = view(
        "name: c\nload_assignment: {cluster_name: c, endpoints: [{priority: 1}]}\noutlier_detection: {interval: 1s}\n"
    )
    root.str("name")
    root.message("load_assignment").repeated("endpoints")
    assert [p.text("f") for p in unread(root)] == [
        "f:2:19: load_assignment.cluster_name: is not implemented",
        "f:2:49: load_assignment.endpoints[0].priority: is not implemented",
        "f:3:1: outlier_detection: is not implemented",
    ]
    assert {p.kind for p in unread(root)} == {"unsupported"}


def test_a_zero_without_presence_is_as_good_as_not_set():
    text = (
        "{name: '', alt_stat_name: '', lb_policy: ROUND_ROBIN, health_checks: [], typed_extension_protocol_options: {}}"
    )
    root = load(text, "f").root
    validate(root, CLUSTER)
    assert left(View.root(root, CLUSTER)) == []
    assert left(view("{name: c, type: STATIC, per_connection_buffer_limit_bytes: 0}")) == [
        "name", "type", "per_connection_buffer_limit_bytes"]  # fmt: skip


def test_unread_any_payloads():
    root = view(f'{{name: l, typed_config: {{"@type": {TYPE}{LUA}, inline_code: x}}}}', FILTER)
    root.str("name")
    assert left(root) == ["typed_config"]
    root.any("typed_config")
    assert left(root) == ["typed_config.inline_code"]


def test_ignored_fields_are_not_reported():
    root = view("{name: c, metadata: {}, alt_stat_name: a}")
    root.ignore("name", "metadata", why="opaque")
    assert left(root) == ["alt_stat_name"]
    assert READS[CLUSTER]["metadata"].ignored == "opaque"
    root.ignore_all(why="reported as a whole")
    assert left(root) == []


def test_only_default():
    root = view(
        "{name: c, ignore_health_on_host_removal: false, dns_jitter: 0s, common_lb_config: {}, alt_stat_name: a}"
    )
    root.str("name")
    root.only_default("ignore_health_on_host_removal", "dns_jitter", "common_lb_config", "alt_stat_name", "metadata")
    assert [p.text("f") for p in root.problems] == ["f:1:87: alt_stat_name: is not implemented"]
    assert left(root) == []
    nested = view("{name: c, common_lb_config: {close_connections_on_host_set_change: true}}")
    nested.only_default("common_lb_config")
    assert [p.path for p in nested.problems] == ["common_lb_config"]


def test_enum_with_what_is_supported():
    root = view("{name: c, lb_policy: MAGLEV}")
    assert root.enum("lb_policy", supported=("ROUND_ROBIN", "RANDOM")) == "ROUND_ROBIN"
    assert [p.text("f") for p in root.problems] == [
        "f:1:22: lb_policy: MAGLEV is not implemented (implemented: ROUND_ROBIN, RANDOM)"]  # fmt: skip
    assert view("{name: c, lb_policy: MAGLEV}").enum("lb_policy", supported=("RANDOM",)) == "RANDOM"
    assert READS[CLUSTER]["lb_policy"].supported >= {"ROUND_ROBIN", "RANDOM"}
    assert "enum" in READS[CLUSTER]["lb_policy"].getters


# --- reporting ---------------------------------------------------------------------------------------------------------


def test_errors_stand_at_the_field():
    root = view("name: c\nload_assignment:\n  cluster_name: c\n")
    inner = root.message("load_assignment")
    error = inner.error("is unknown", "try x", field="cluster_name")
    assert isinstance(error, ConfigError)
    assert error.problems[0].text("f") == "f:3:17: load_assignment.cluster_name: is unknown (try x)"
    assert inner.error("is odd").problems[0].text("f") == "f:3:3: load_assignment: is odd"
    assert root.error("m").problems[0].text("f") == "f:1:1: m"
    inner.report("a", field="cluster_name", kind="warning")
    inner.unsupported(field="cluster_name")
    assert [(p.kind, p.path, p.message) for p in root.problems] == [
        ("warning", "load_assignment.cluster_name", "a"),
        ("unsupported", "load_assignment.cluster_name", "is not implemented"),
    ]
    assert left(root) == ["name"]


def test_an_extension_reported_as_a_whole():
    root = view(f'{{name: l, typed_config: {{"@type": {TYPE}{RBAC}, rules: {{}}}}}}', FILTER)
    root.str("name")
    root.any("typed_config").unsupported()
    [problem] = root.problems
    assert problem.opens_door
    assert problem.text("f") == (
        f"f:1:35: typed_config: {RBAC} is not implemented (it authorizes requests: cannot be waived by --allow-unsupported)"
    )
    assert left(root) == []


# --- doors -------------------------------------------------------------------------------------------------------------

CHAIN = "envoy.config.listener.v3.FilterChain"
ROUTE = "envoy.config.route.v3."


@pytest.mark.parametrize(
    ("message", "field", "opens"),
    [
        (RBAC, "", True), ("envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication", "rules", True),
        ("envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit", "", True), (LUA, "", True),
        ("envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext", "require_client_certificate", True),
        (ROUTE + "VirtualHost", "require_tls", True), (ROUTE + "RouteMatch", "headers", True),
        (CHAIN, "transport_socket", True), (CHAIN, "name", False), (CLUSTER, "outlier_detection", False),
        ("envoy.extensions.filters.http.buffer.v3.Buffer", "", False),
        ("envoy.type.matcher.v3.StringMatcher", "ignore_case", True),
    ],
)  # fmt: skip
def test_doors(message, field, opens):
    assert (door(message, field) != "") is opens


def test_an_unread_subtree_with_a_door_in_it_opens_one():
    hcm = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    root = view(f"""
stat_prefix: s
route_config: {{virtual_hosts: [{{name: v, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: c}}}}]}}]}}
http_filters:
- name: r
  typed_config: {{"@type": {TYPE}{RBAC}}}
access_log: []
via: x
""", hcm)  # fmt: skip
    assert {p.path: p.opens_door for p in unread(root)} == {
        "stat_prefix": False, "route_config": False, "http_filters": True, "via": False}  # fmt: skip


def test_a_condition_that_is_not_read_opens_a_door():
    match = view("{prefix: /, query_parameters: [{name: x, present_match: true}]}", ROUTE + "RouteMatch")
    match.str("prefix")
    [problem] = unread(match)
    assert problem.opens_door
    assert "is a condition: cannot be waived" in problem.hint


def test_unknown_types_in_unread_maps_open_a_door():
    host = view(
        f'{{name: v, domains: ["*"], typed_per_filter_config: {{a: {{"@type": {TYPE}acme.X}}}}}}', ROUTE + "VirtualHost"
    )
    assert {p.path for p in unread(host) if p.opens_door} == {"typed_per_filter_config"}


def test_a_whole_bootstrap():
    root = view("{admin: {address: {socket_address: {address: 127.0.0.1, port_value: 9901}}}}", BOOTSTRAP_V3)
    socket = root.require("admin").require("address").require("socket_address")
    assert (socket.str("address"), socket.uint("port_value")) == ("127.0.0.1", 9901)
    assert socket.path == "admin.address.socket_address"
    assert left(root) == []
