"""Tree + message → problems, each as the user reads it, and the tree normalised."""

from __future__ import annotations

from pathlib import Path

import pytest

from forkproxy.config.tree import load
from forkproxy.config.validate import BOOTSTRAP_V2, BOOTSTRAP_V3, base64_bytes, duration_ns, path_text, validate

SEED = Path(__file__).parents[2] / "data" / "seed"
CLUSTER = "envoy.config.cluster.v3.Cluster"
TYPE = "type.googleapis.com/"
HCM = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


def check(text, message=BOOTSTRAP_V3):
    """The problems of ``text`` as ``message``: (errors, all others), each a line without the file's name; and the root."""
    root = load(text, "f").root
    problems = validate(root, message)
    errors = [p.text("f").removeprefix("f:") for p in problems if p.kind == "error"]
    return errors, [p for p in problems if p.kind != "error"], root


def cluster(fields):
    """The errors of a Cluster with one more field, without line and column, and its tree as Python."""
    errors, _, root = check(f"{{name: c, {fields}}}", CLUSTER)
    return [error.split(": ", 1)[1] for error in errors], root.to_python()


def accepted(field, value):
    errors, tree = cluster(f"{field}: {value}")
    assert errors == []
    return tree.get(field)


def refused(field, value):
    errors, _ = cluster(f"{field}: {value}")
    assert len(errors) == 1, errors
    return errors[0]


# --- scalars: what Envoy 1.40 takes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [("5", 5), ('"5"', 5), ("0x10", 16), ('"0x10"', 16), ("010", 8), ("08", 8), ("5.0", 5), ('"1e3"', 1000), ("null", None),
     ("4294967295", 4294967295), ("{value: 5}", {"value": 5})],
)  # fmt: skip
def test_integers(text, value):
    assert accepted("per_connection_buffer_limit_bytes", text) == value


@pytest.mark.parametrize(
    ("text", "why"),
    [("5.5", 'must be a whole number, not "5.5"'), ("-1", "must be between 0 and 4294967295, not -1"),
     ("4294967296", "must be between 0 and 4294967295, not 4294967296"), ("true", "must be a whole number, not true"),
     ("[5]", "must be a whole number, not a list"), ('""', 'must be a whole number, not ""'),
     ('" 5"', 'must be a whole number, not " 5"'), ("1_000", 'must be a whole number, not "1_000"')],
)  # fmt: skip
def test_what_is_no_integer(text, why):
    assert refused("per_connection_buffer_limit_bytes", text) == f"per_connection_buffer_limit_bytes: {why}"


@pytest.mark.parametrize(
    ("text", "value"), [("yes", True), ("N", False), ('"True"', True), ('"0"', False), ("on", True)]
)
def test_booleans(text, value):
    assert accepted("ignore_health_on_host_removal", text) is value


def test_what_is_no_boolean():
    name = "ignore_health_on_host_removal"
    assert refused(name, "1") == f"{name}: must be true or false, not 1 (did you mean true?)"
    assert refused(name, "yup") == f'{name}: must be true or false, not "yup"'


@pytest.mark.parametrize(
    ("text", "value"), [("x", "x"), ("5000000000", "5000000000"), ("1.5", "1.5"), ("! 5", "5"), ("null", None)]
)
def test_strings(text, value):
    assert accepted("alt_stat_name", text) == value


def test_what_is_no_string():
    assert refused("alt_stat_name", "5") == 'alt_stat_name: must be a string, not 5 (quote it: "5")'
    assert refused("alt_stat_name", "yes") == 'alt_stat_name: must be a string, not yes (quote it: "yes")'
    assert refused("alt_stat_name", "[a]") == "alt_stat_name: must be a string, not a list"


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1.0), ("1.5", 1.5), ('"1e0"', 1.0), ("0x2", 2.0), ("{value: 2}", {"value": 2.0})]
)
def test_floats(text, value):
    assert accepted("preconnect_policy", f"{{per_upstream_preconnect_ratio: {text}}}") == {
        "per_upstream_preconnect_ratio": value
    }


def test_a_nan_passes_ranges_as_in_pgv():
    assert cluster("preconnect_policy: {per_upstream_preconnect_ratio: NaN}")[0] == []
    path = "preconnect_policy.per_upstream_preconnect_ratio"
    assert (
        refused("preconnect_policy", "{per_upstream_preconnect_ratio: inf}")
        == f"{path}: must be at least 1 and at most 3"
    )
    assert (
        refused("preconnect_policy", "{per_upstream_preconnect_ratio: .nan}") == f'{path}: must be a number, not ".nan"'
    )


@pytest.mark.parametrize(("text", "ns"), [("5s", 5 * 10**9), ("0.25s", 250 * 10**6), ("{seconds: 5}", 5 * 10**9),
                                          ('{seconds: "1", nanos: 5}', 10**9 + 5), ("0.000000001s", 1)])  # fmt: skip
def test_durations(text, ns):
    _, _, root = check(f"{{name: c, connect_timeout: {text}}}", CLUSTER)
    assert accepted("connect_timeout", text) is not None
    assert duration_ns(root.get("connect_timeout")) == ns


@pytest.mark.parametrize(
    ("text", "hint"),
    [("5", "5s"), ('"5"', "5s"), ("250ms", "0.25s"), ("1m", "60s"), ("1.s", None), (".5s", None), ("+1s", None), ('"1 s"', None),
     ("0.0000000001s", None), ("315576000001s", None), ("[1s]", None)],
)  # fmt: skip
def test_what_is_no_duration(text, hint):
    why = refused("connect_timeout", text)
    assert why.startswith("connect_timeout: must be seconds with an s, such as 0.25s, not ")
    assert (f"(did you mean {hint}?)" in why) is (hint is not None)


@pytest.mark.parametrize(("text", "value"), [("round_robin", "ROUND_ROBIN"), ("Maglev", "MAGLEV"), ("1", "LEAST_REQUEST"),
                                             ('"0x2"', "RING_HASH"), ("null", None)])  # fmt: skip
def test_enums(text, value):
    assert accepted("lb_policy", text) == value


def test_what_is_no_enum():
    assert refused("lb_policy", "99") == (
        "lb_policy: must be one of ROUND_ROBIN, LEAST_REQUEST, RING_HASH, RANDOM, MAGLEV, CLUSTER_PROVIDED, "
        "LOAD_BALANCING_POLICY_CONFIG, not 99"
    )
    assert refused("lb_policy", "ROUND_ROBBIN").endswith('not "ROUND_ROBBIN" (did you mean "ROUND_ROBIN"?)')
    assert refused("lb_policy", "true").endswith("not true")


def test_an_unknown_number_where_no_rule_asks_for_a_known_one():
    errors, [problem], root = check("{traffic_direction: 99}", "envoy.config.listener.v3.Listener")
    assert errors == []
    assert (problem.kind, problem.path, problem.message) == (
        "unsupported", "traffic_direction", "99 is no TrafficDirection that forkproxy knows")  # fmt: skip
    assert root.to_python() == {"traffic_direction": "UNSPECIFIED"}


@pytest.mark.parametrize(
    ("text", "value"), [("aGk=", b"hi"), ("aGk", b"hi"), ("a_-=", b"k\xff"), ("", b""), ("!!", None), ("é", None)]
)
def test_base64(text, value):
    assert base64_bytes(text) == value


def test_bytes_in_place():
    send = "[{timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {send: {binary: %s}}}]"
    assert accepted("health_checks", send % "aGk=")
    assert refused("health_checks", send % '"!!"') == (
        'health_checks[0].tcp_health_check.send.binary: must be base64 in a string, not "!!"')  # fmt: skip


def test_timestamps_and_field_masks():
    message = "envoy.config.core.v3.BuildVersion"
    assert check("metadata: {a: 1}", message)[0] == []
    stamp = "envoy.admin.v3.BootstrapConfigDump"
    assert check("last_updated: 2018-11-29T12:00:00.5Z", stamp)[0] == []
    assert check("last_updated: {seconds: 5}", stamp)[0] == []
    assert check("last_updated: yesterday", stamp)[0] == [
        "1:15: last_updated: must be a time such as 2018-11-29T12:00:00Z"
    ]


# --- shapes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["{locality: {}}", "[{locality: {}}]", "[[{locality: {}}]]"])
def test_a_lone_value_and_lists_in_lists_are_lists(text):
    assert accepted("load_assignment", f"{{cluster_name: a, endpoints: {text}}}")["endpoints"] == [{"locality": {}}]


def test_a_null_in_a_list_is_a_zero():
    assert accepted("load_assignment", "{cluster_name: a, endpoints: [null]}")["endpoints"] == [{}]
    assert check("{retriable_status_codes: [null, 200]}", "envoy.config.route.v3.RetryPolicy")[2].to_python() == {
        "retriable_status_codes": [0, 200]}  # fmt: skip
    errors, _, _ = check(
        "{name: v, domains: ['*'], request_headers_to_remove: [null]}", "envoy.config.route.v3.VirtualHost"
    )
    assert errors == ["1:55: request_headers_to_remove[0]: must not be empty"]


def test_wrong_shapes():
    assert refused("load_assignment", "{cluster_name: a, endpoints: 5}") == (
        "load_assignment.endpoints[0]: must be fields of LocalityLbEndpoints (name: value), not 5")  # fmt: skip
    assert refused("metadata", "[]") == "metadata: must be fields of Metadata (name: value), not a list"
    assert (
        refused("metadata", "{filter_metadata: []}")
        == "metadata.filter_metadata: must be a mapping (key: value), not a list"
    )
    assert refused("metadata", "{filter_metadata: {x: 5}}") == (
        "metadata.filter_metadata.x: must be a mapping (key: value), not 5")  # fmt: skip


def test_null_is_not_set_but_in_a_struct():
    assert accepted("metadata", "{filter_metadata: {x: null}}") == {"filter_metadata": {"x": {}}}
    assert accepted("metadata", "{filter_metadata: {x: {a: null, b: [1, null]}}}") == {
        "filter_metadata": {"x": {"a": None, "b": [1, None]}}}  # fmt: skip
    assert cluster("cluster_type: null, type: STATIC")[0] == []


def test_camel_case():
    errors, others, root = check("{name: c, connectTimeout: 2s, altStatName: why}", CLUSTER)
    assert (errors, others) == ([], [])
    assert root.to_python() == {"name": "c", "connect_timeout": "2s", "alt_stat_name": "why"}
    assert cluster("AltStatName: x")[0] == ['Cluster has no field "AltStatName" (did you mean "alt_stat_name"?)']


def test_two_spellings_the_last_counts():
    errors, others, root = check("name: c\nalt_stat_name: a\naltStatName: b\n", CLUSTER)
    assert errors == []
    assert [p.text("f") for p in others] == [
        "f:3:1: alt_stat_name: is set twice, in two spellings (also in line 2); the last one counts"]  # fmt: skip
    assert root.to_python() == {"name": "c", "alt_stat_name": "b"}


def test_validating_again_changes_nothing():
    text = "{name: c, connectTimeout: 1s, lbPolicy: maglev, dnsResolvers: {pipe: {path: x}}, altStatName: '5'}"
    _, first, root = check(text, CLUSTER)
    before = root.to_python()
    assert validate(root, CLUSTER) == first
    assert root.to_python() == before


# --- oneofs and rules --------------------------------------------------------------------------------------------------


def test_a_oneof_set_twice():
    errors, _, _ = check("name: c\ntype: STATIC\ncluster_type: {name: x}\n", CLUSTER)
    assert errors[0] == '3:1: "cluster_type" and "type" (line 2) exclude each other'


def test_a_required_oneof():
    errors, _, _ = check("{}", "envoy.config.core.v3.Address")
    assert errors == ['1:1: one of "socket_address", "pipe", "envoy_internal_address" is missing']


def test_rules_of_an_unset_choice_do_not_apply():
    assert check("{prefix: /}", "envoy.config.route.v3.RouteMatch")[0] == []


def test_what_is_missing():
    assert check("{}", CLUSTER)[0] == ['1:1: "name" is missing']
    assert check("{name: ''}", CLUSTER)[0] == ["1:8: name: must not be empty"]
    address = "envoy.config.core.v3.SocketAddress"
    assert check("{}", address)[0] == ['1:1: "address" is missing', '1:1: one of "port_value", "named_port" is missing']
    assert check("{timeout: 1s, interval: 1s}", "envoy.config.core.v3.HealthCheck")[0] == [
        '1:1: "unhealthy_threshold" is missing',
        '1:1: "healthy_threshold" is missing',
        '1:1: one of "http_health_check", "tcp_health_check", "grpc_health_check", "custom_health_check" is missing',
    ]


@pytest.mark.parametrize(
    ("message", "text", "why"),
    [
        (CLUSTER, "{name: c, connect_timeout: 0s}", "connect_timeout: must be greater than 0s"),
        (CLUSTER, "{name: c, wait_for_warm_on_init: true, max_requests_per_connection: -1}",
         "max_requests_per_connection: must be between 0 and 4294967295, not -1"),
        ("envoy.config.core.v3.SocketAddress", "{address: a, port_value: 65536}", "port_value: must be at most 65535"),
        ("envoy.config.route.v3.VirtualHost", "{name: v, domains: []}", "domains: must not be empty"),
        ("envoy.config.route.v3.VirtualHost", '{name: v, domains: ["a\\nb"]}',
         "domains[0]: must not hold NUL, CR or LF (an HTTP header value)"),
        ("envoy.config.core.v3.HeaderValue", '{key: "a\\nb"}', "key: must not hold NUL, CR or LF (an HTTP header name)"),
        ("envoy.config.route.v3.DirectResponseAction", "{status: 99}", "status: must be at least 200 and less than 600"),
        ("envoy.config.core.v3.Pipe", "{path: a, mode: 512}", "mode: must be at most 511"),
        ("envoy.type.matcher.v3.StringMatcher", '{prefix: ""}', "prefix: must not be empty"),
        ("envoy.config.accesslog.v3.ResponseFlagFilter", "{flags: [UH, XX]}", "flags[1]: must be one of"),
        ("envoy.config.route.v3.RetryPolicy.RetryBackOff", "{base_interval: 0s}", "base_interval: must be greater than 0s"),
        ("envoy.config.route.v3.RouteAction.HashPolicy.Cookie", "{name: c, ttl: 1}", "ttl: must be seconds"),
    ],
)  # fmt: skip
def test_rules(message, text, why):
    errors, _, _ = check(text, message)
    assert len(errors) == 1, errors
    assert errors[0].split(": ", 1)[1].startswith(why)


def test_a_rule_on_a_wrapper_is_for_the_value_within():
    path = "outlier_detection.max_ejection_percent"
    assert cluster("outlier_detection: {max_ejection_percent: {value: 101}}")[0] == [f"{path}: must be at most 100"]
    assert cluster("outlier_detection: {max_ejection_percent: 101}")[0] == [f"{path}: must be at most 100"]
    assert cluster("outlier_detection: {max_ejection_percent: {}}")[0] == []


# --- Any ---------------------------------------------------------------------------------------------------------------


def extension(content):
    errors, others, root = check(
        f"{{name: x, typed_config: {{{content}}}}}", "envoy.config.core.v3.TypedExtensionConfig"
    )
    return [error.split(": ", 1)[1] for error in errors], [p.text("f").split(": ", 1)[1] for p in others], root


def test_an_any_is_checked_as_what_it_holds():
    errors, others, _ = extension(f'"@type": {TYPE}envoy.config.core.v3.Pipe, mode: 512')
    assert errors == ['typed_config: "path" is missing', "typed_config.mode: must be at most 511"]
    assert others == []
    assert extension('"@type": foo.com/x/envoy.config.core.v3.Pipe, path: p')[0] == []


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("a: b", 'typed_config: "@type" is missing ("@type": type.googleapis.com/ and the message\'s full name)'),
        ('"@type": envoy.config.core.v3.Pipe',
         'typed_config.@type: must be type.googleapis.com/ and a message\'s full name, not "envoy.config.core.v3.Pipe"'),
        (f'"@type": {TYPE}envoy.config.core.v3.Pip',
         "typed_config.@type: no such message: envoy.config.core.v3.Pip (did you mean envoy.config.core.v3.Pipe?)"),
        (f'"@type": {TYPE}ENVOY.CONFIG.CORE.V3.PIPE',
         "typed_config.@type: no such message: ENVOY.CONFIG.CORE.V3.PIPE (did you mean envoy.config.core.v3.Pipe?)"),
        (f'"@type": {TYPE}envoy.config.filter.http.router.v2.Router',
         "typed_config.@type: envoy.config.filter.http.router.v2.Router belongs to the v2 API, which has ended "
         "(its v3 name is envoy.extensions.filters.http.router.v3.Router)"),
        (f'"@type": {TYPE}google.protobuf.Struct, a: 5',
         'typed_config: "a" must stand under "value" when "@type" is google.protobuf.Struct'),
        (f'"@type": {TYPE}google.protobuf.Struct, value: 5', "typed_config.value: must be a mapping (key: value), not 5"),
    ],
)  # fmt: skip
def test_what_is_no_any(content, why):
    assert extension(content)[0] == [why]


def test_an_unknown_type_is_not_called_invalid():
    errors, others, _ = check(f'{{name: x, typed_config: {{"@type": {TYPE}acme.filters.Guard}}}}',
                                 "envoy.config.core.v3.TypedExtensionConfig")  # fmt: skip
    assert errors == []
    [problem] = others
    assert problem.kind == "unsupported"
    assert problem.opens_door
    assert problem.message == "acme.filters.Guard is unknown to forkproxy's schema (Envoy API of 2025-12)"


def test_structs_are_taken_as_they_are():
    assert extension(f'"@type": {TYPE}google.protobuf.Struct, value: {{a: 5}}')[:2] == ([], [])
    assert extension(f'"@type": {TYPE}xds.type.v3.TypedStruct, type_url: acme.X, value: {{a: 5}}')[:2] == ([], [])


def test_a_typed_struct_of_a_known_type_becomes_that_type():
    content = f'"@type": {TYPE}xds.type.v3.TypedStruct, type_url: {TYPE}envoy.config.core.v3.Pipe, value: {{path: p}}'
    errors, _, root = extension(content)
    assert errors == []
    assert root.get("typed_config").to_python() == {"@type": f"{TYPE}envoy.config.core.v3.Pipe", "path": "p"}
    assert extension(content.replace("path", "paht"))[0] == [
        'typed_config: "path" is missing', 'typed_config: Pipe has no field "paht" (did you mean "path"?)']  # fmt: skip


FILTER = "envoy.config.listener.v3.Filter"


def test_a_named_filter_without_typed_config_gets_an_empty_one():
    errors, [warning], root = check("name: envoy.echo\n", FILTER)
    assert errors == []
    assert warning.kind == "warning"
    assert warning.text("f").startswith('f:1:7: "envoy.echo" has no typed_config; an empty one is assumed')
    url = f"{TYPE}envoy.extensions.filters.network.echo.v3.Echo"
    assert root.to_python() == {"name": "envoy.echo", "typed_config": {"@type": url}}
    assert root.get("typed_config").mark == (1, 7)


def test_what_an_empty_typed_config_lacks_is_said():
    errors, _, _ = check("name: envoy.tcp_proxy\n", FILTER)
    assert errors[0] == '1:7: typed_config: "stat_prefix" is missing'


def test_a_name_that_says_nothing():
    assert check("name: envoy.tcp_prox\n", FILTER)[0] == [
        '1:7: name: "envoy.tcp_prox" has no typed_config, and its type does not follow from the name '
        '(did you mean "envoy.tcp_proxy"?)']  # fmt: skip


# --- unknown fields and the hints -------------------------------------------------------------------------------------


def test_hints_for_unknown_fields():
    assert cluster("conect_timeout: 1s")[0] == [
        'Cluster has no field "conect_timeout" (did you mean "connect_timeout"?)'
    ]
    assert cluster("zzz: 1s")[0] == ['Cluster has no field "zzz"']
    assert cluster("hosts: []")[0] == [
        'Cluster has no field "hosts" ("hosts" belongs to the v2 API; `forkproxy migrate` prints the v3 form)']  # fmt: skip
    assert cluster("<<: {}")[0] == ['Cluster has no field "<<" (Envoy\'s YAML has no merge keys)']


def test_the_seed_half_fixed():
    filename = "google_com_proxy.half-fixed.v2.yaml"
    document = load((SEED / filename).read_bytes(), filename)
    assert [p.text(filename) for p in validate(document.root, BOOTSTRAP_V2)] == [
        'google_com_proxy.half-fixed.v2.yaml:45:1: Bootstrap has no field "tls_context" ("tls_context" is a field of '
        "static_resources.clusters[0] (line 35): check the indentation)"
    ]


def test_every_problem_is_listed_in_the_files_order():
    errors, _, _ = check(
        "stats_flush_interval: 5\nnode: {id: 7}\nfoo: 1\nstatic_resources:\n  clusters:\n  - {nam: x}\n"
    )
    assert [error.partition(": ")[0] for error in errors] == ["1:23", "2:12", "3:1", "6:5", "6:6"]


def test_deprecated_fields_are_warned_about():
    errors, others, _ = check("admin: {access_log_path: /dev/null}")
    assert errors == []
    assert [p.text("f") for p in others] == ["f:1:9: admin.access_log_path: is deprecated since Envoy API 3.0"]


# --- v2 ----------------------------------------------------------------------------------------------------------------


def test_v2_config_is_checked_as_the_message_of_the_name():
    text = "{name: envoy.tcp_proxy, config: {stat_prefix: s, cluster: c, %s}}"
    message = "envoy.api.v2.listener.Filter"
    assert check(text % "idleTimeout: 1s", message)[:2] == ([], [])
    assert check(text % "idle_timeout: 1", message)[0][0].startswith("1:76: config.idle_timeout: must be seconds")
    errors, [unknown], _ = check("{name: acme.x, config: {a: 1}}", message)
    assert errors == []
    assert unknown.opens_door


def test_v2_transport_sockets_go_by_their_holder():
    chain = "{transport_socket: {name: tls, config: {require_client_certificate: true}}}"
    assert check(chain, "envoy.api.v2.listener.FilterChain")[0] == []
    cluster_text = "{name: c, transport_socket: {name: tls, config: {require_client_certificate: true}}}"
    errors, _, _ = check(cluster_text, "envoy.api.v2.Cluster")
    assert 'UpstreamTlsContext has no field "require_client_certificate"' in errors[0]


def test_v2_per_filter_config_is_checked_by_name():
    text = "{name: v, domains: ['*'], per_filter_config: {envoy.buffer: {disabled: %s}}}"
    message = "envoy.api.v2.route.VirtualHost"
    assert check(text % "true", message)[0] == []
    assert check(text % "5", message)[0][0].endswith(
        "per_filter_config.envoy.buffer.disabled: must be true or false, not 5"
    )


def test_v3_fields_in_a_v2_file_are_a_warning():
    errors, [warning], _ = check(
        "{name: c, connect_timeout: 1s, typed_dns_resolver_config: {}}", "envoy.api.v2.Cluster"
    )
    assert errors == []
    assert warning.message == '"typed_dns_resolver_config" belongs to another version of Cluster'


def test_fields_of_1_8_that_later_v2_dropped_are_left_alone():
    assert check("{sni_domains: [a]}", "envoy.api.v2.listener.FilterChainMatch")[:2] == ([], [])


def test_paths():
    assert path_text(None) == ""
    assert path_text((((None, "a"), 0), "b")) == "a[0].b"
