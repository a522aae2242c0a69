"""From text to verdict."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from forkproxy.config.build.bootstrap import ForkproxyConfig
from forkproxy.config.build.core import AddressConfig
from forkproxy.config.build.router import RouterConfig
from forkproxy.config.load import load, load_file

SEED = Path(__file__).parents[2] / "data" / "seed"
ECHO = "{name: e, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo}}"
LISTENER = "{name: l, address: {socket_address: {address: 127.0.0.1, port_value: 0}}, filter_chains: [{filters: [%s]}]}"
RUNS = "static_resources: {listeners: [" + LISTENER % ECHO + "]}\n"
RBAC = (
    "{name: r, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC,"
    " stat_prefix: s}}"
)
MONGO = (
    "{name: m, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.mongo_proxy.v3.MongoProxy,"
    " stat_prefix: s}}"
)


def with_filters(*filters):
    return "static_resources: {listeners: [" + LISTENER % ", ".join(filters) + "]}\n"


def judged(text, **more):
    result = load(text, "f.yaml", **more)
    return result.verdict, [(p.kind, p.line, p.message) for p in result.problems]


# --- verdicts ----------------------------------------------------------------------------------------------------------


def test_runs():
    result = load(RUNS.encode(), "f.yaml")
    assert (result.verdict, result.problems) == ("runs", ())
    assert result.bootstrap.listeners[0].name == "l"
    assert result.root is not None


def test_an_unread_field_is_unsupported_and_named_with_its_place():
    result = load(RUNS + "header_prefix: x-other\n", "f.yaml")
    assert result.verdict == "unsupported"
    assert result.bootstrap is None
    (problem,) = result.problems
    assert problem.text("f.yaml") == "f.yaml:2:1: header_prefix: is not implemented"


def test_invalid_lists_every_problem_in_the_order_of_the_file():
    verdict, problems = judged("admin: 5\nnonsense: 1\nstats_flush_interval: soon\n")
    assert verdict == "invalid"
    assert [line for _, line, _ in problems] == [1, 2, 3]


def test_semantics_and_builders_are_asked_together():
    text = (
        "static_resources:\n"
        "  clusters:\n"
        "  - {name: a}\n"
        "  - {name: a}\n"
        "  - {name: b, dns_failure_refresh_rate: {base_interval: 2s, max_interval: 1s}}\n"
        "  - {name: c, http2_protocol_options: {}}\n"
    )
    verdict, problems = judged(text)
    assert verdict == "invalid"
    assert [(kind, line) for kind, line, _ in problems if kind != "warning"] == [
        ("error", 4),
        ("error", 5),
        ("unsupported", 6),
    ]


def test_warnings_change_nothing():
    result = load(RUNS + "use_tcp_for_dns_lookups: true\n", "f.yaml")
    assert result.verdict == "runs"
    assert [problem.path for problem in result.warnings] == ["use_tcp_for_dns_lookups"]


# --- --allow-unsupported -----------------------------------------------------------------------------------------------


def test_allow_unsupported_runs_without_the_filter():
    text = with_filters(MONGO, ECHO)
    assert load(text, "f").verdict == "unsupported"
    result = load(text, "f", allow_unsupported=True)
    assert result.verdict == "runs"
    assert [problem.kind for problem in result.problems] == ["warning"]
    assert [entry.name for entry in result.bootstrap.listeners[0].filter_chains[0].filters] == ["e"]


def test_allow_unsupported_opens_no_door():
    result = load(with_filters(RBAC, ECHO), "f", allow_unsupported=True)
    assert (result.verdict, result.bootstrap) == ("unsupported", None)
    (problem,) = result.problems
    assert problem.opens_door
    assert "--allow-unsupported" in problem.hint


# --- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "reason"),
    [(lambda p: None, "No such file or directory"), (lambda p: p.mkdir(), "Is a directory")],
    ids=["missing", "directory"],
)
def test_a_file_that_cannot_be_read(tmp_path, make, reason):
    path = tmp_path / "f.yaml"
    make(path)
    result = load_file(str(path))
    assert result.verdict == "invalid"
    assert result.problems[0].text(str(path)) == f"{path}: cannot read the file: {reason}"


def test_a_file_without_end():
    assert load_file("/dev/zero").verdict == "invalid"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\x00\xff\xfe",
        b"%PDF-1.4\n\x80",
        b"&a [*a]",
        b"[" * 1000,
        b"a: &x {b: *x}",
        b"- 1\n",
        b"5",
        b"forkproxy",
        b"{",
    ],
    ids=repr,
)
def test_whatever_the_file_holds(text):
    result = load(text, "f.yaml")
    assert result.verdict == "invalid"
    assert result.problems


def test_json_form():
    result = load(RUNS + "header_prefix: x\n", "f.yaml")
    data = json.loads(json.dumps(result.as_json()))
    assert data == {
        "file": "f.yaml",
        "verdict": "unsupported",
        "problems": [
            {
                "kind": "unsupported",
                "path": "header_prefix",
                "line": 2,
                "column": 1,
                "message": "is not implemented",
                "hint": "",
            }
        ],
    }


# --- forkproxy: --------------------------------------------------------------------------------------------------------


def test_our_own_key():
    text = "forkproxy: {concurrency: 2, cpuset: 0-1, user: 'www:www', pid_file: /run/x.pid, drain_time_s: 1.5}\n"
    result = load(text + RUNS, "f.yaml")
    assert result.verdict == "runs"
    assert result.bootstrap.forkproxy == ForkproxyConfig(2, "0-1", "www:www", "/run/x.pid", 1.5)
    assert "forkproxy" not in result.bootstrap.config_dump


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", ForkproxyConfig()),
        ("~", ForkproxyConfig()),
        ("{concurrency: auto}", ForkproxyConfig()),
        ("{cpuset: 3}", ForkproxyConfig(cpuset="3")),
        ("{drain_time_s: '10'}", ForkproxyConfig(drain_time_s=10.0)),
    ],
)
def test_our_own_key_in_short(text, expected):
    assert load(f"forkproxy: {text}\n{RUNS}", "f").bootstrap.forkproxy == expected


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("5", "forkproxy", "must be a mapping (key: value)"),
        ("{concurency: 2}", "forkproxy", 'forkproxy has no setting "concurency"'),
        ("{concurrency: 0}", "forkproxy.concurrency", "must be a number of workers from 1 to 4096, or auto"),
        ("{concurrency: yes}", "forkproxy.concurrency", "must be a number of workers from 1 to 4096, or auto"),
        ("{cpuset: all}", "forkproxy.cpuset", "must be a list of CPUs and ranges, as in 0-3,8"),
        ("{cpuset: [1]}", "forkproxy.cpuset", "must be a list of CPUs and ranges, as in 0-3,8"),
        ("{drain_time_s: -1}", "forkproxy.drain_time_s", "must be a number of seconds, 0 or more"),
        ("{drain_time_s: 5s}", "forkproxy.drain_time_s", "must be a number of seconds, 0 or more"),
        ("{user: 5}", "forkproxy.user", "must be a non-empty text"),
        ("{pid_file: ''}", "forkproxy.pid_file", "must be a non-empty text"),
    ],
)
def test_our_own_key_is_checked(text, path, message):
    result = load(f"forkproxy: {text}\n{RUNS}", "f")
    assert result.verdict == "invalid"
    assert [(p.path, p.message, p.line) for p in result.problems] == [(path, message, 1)]


def test_a_near_miss_has_a_hint():
    (problem,) = load(f"forkproxy: {{concurency: 2}}\n{RUNS}", "f").problems
    assert problem.hint == 'did you mean "concurrency"?'


def test_our_own_key_belongs_at_the_top():
    result = load("admin: {forkproxy: {concurrency: 2}}\n", "f")
    assert result.verdict == "invalid"
    assert 'no field "forkproxy"' in result.problems[0].message


# --- --config-yaml -----------------------------------------------------------------------------------------------------


def test_overlay():
    result = load(
        RUNS, "f.yaml", overlay_yaml="admin: {address: {socket_address: {address: 127.0.0.1, port_value: 9}}}"
    )
    assert result.bootstrap.admin.address == AddressConfig("127.0.0.1", 9)


def test_a_problem_in_the_overlay_has_no_line_of_the_file():
    (problem,) = load(RUNS, "f.yaml", overlay_yaml="stats_flush_interval: soon").problems
    assert (problem.line, problem.path) == (0, "stats_flush_interval")
    result = load(RUNS, "f.yaml", overlay_yaml="a: [")
    assert result.verdict == "invalid"
    assert result.problems[0].message.startswith("--config-yaml (line ")
    assert result.problems[0].line == 0


# --- Python filters ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "config"),
    [
        ("{name: 'my.mod:Net', config: {a: [1]}}", {"a": [1]}),  # v2
        (
            "{name: 'my.mod:Net', typed_config: {'@type': type.googleapis.com/google.protobuf.Struct, value: {a: 1}}}",
            {"a": 1},
        ),
        ("{name: 'my.mod:Net'}", {}),
    ],
)
def test_a_python_filter_in_either_version(entry, config):
    result = load(with_filters(entry, ECHO), "f")
    assert (result.verdict, result.problems) == ("runs", ())
    first = result.bootstrap.listeners[0].filter_chains[0].filters[0]
    assert (first.name, first.type_url, first.config) == ("my.mod:Net", "", config)


# --- secrets -----------------------------------------------------------------------------------------------------------


def test_the_dump_holds_no_secret():
    text = """static_resources: {secrets: [{name: s, tls_certificate: {
        certificate_chain: {inline_string: public}, private_key: {inline_string: hidden}, password: {inline_bytes: aGlkZGVu}}},
        {name: g, generic_secret: {secret: {inline_string: hidden}}}]}"""
    dump = json.dumps(load(text, "f").bootstrap.config_dump)
    assert "hidden" not in dump
    assert "aGlkZGVu" not in dump
    assert "public" in dump
    assert dump.count("[redacted]") == 3


# --- the seed ----------------------------------------------------------------------------------------------------------


def seed(name):
    result = load_file(str(SEED / name))
    assert (result.verdict, [p for p in result.problems if p.kind != "warning"]) == ("runs", [])
    (listener,) = result.bootstrap.listeners
    (chain,) = listener.filter_chains
    (cluster,) = result.bootstrap.clusters
    return result.bootstrap, listener, chain.filters[0].config, cluster


def test_seed_google():
    bootstrap, listener, manager, cluster = seed("google_com_proxy.v2.yaml")
    assert bootstrap.admin.address == AddressConfig("127.0.0.1", 9901)
    assert bootstrap.admin.access_logs[0].path == "/tmp/admin_access.log"
    assert (listener.name, listener.stat_prefix) == ("listener_0", "0.0.0.0_10000")
    action = manager.route_table.virtual_hosts[0].routes[0].action
    assert (action.host_rewrite_literal, action.cluster) == ("www.google.com", "service_google")
    assert (cluster.type, cluster.dns_lookup_family, cluster.connect_timeout_s) == ("LOGICAL_DNS", "V4_ONLY", 0.25)
    assert cluster.localities[0].endpoints[0].address == AddressConfig("google.com", 443)
    assert cluster.tls.sni == "www.google.com"
    assert cluster.tls.common.validation is None


@pytest.mark.parametrize(
    ("name", "generate_request_id", "dynamic_stats", "kind"),
    [("webshell.v2.yaml", True, True, "LOGICAL_DNS"), ("webshell-tuned.v2.yaml", False, False, "STATIC")],
)
def test_seed_webshell(name, generate_request_id, dynamic_stats, kind):
    _, _, manager, cluster = seed(name)
    assert manager.generate_request_id is generate_request_id
    assert manager.http_filters[0].config == dataclasses.replace(RouterConfig(), dynamic_stats=dynamic_stats)
    assert manager.route_table.virtual_hosts[0].domains == ("webshell.com",)
    assert cluster.type == kind


def test_seed_as_printed():
    (problem,) = load_file(str(SEED / "google_com_proxy.as-printed.v2.yaml")).problems
    assert problem.text("google_com_proxy.as-printed.v2.yaml") == (
        'google_com_proxy.as-printed.v2.yaml:8:18: could not parse: "`" right after "static_resources:" '
        '(did you mean "static_resources:" alone?)'
    )


def test_seed_half_fixed():
    problems = load_file(str(SEED / "google_com_proxy.half-fixed.v2.yaml")).problems
    errors = [p.text("google_com_proxy.half-fixed.v2.yaml") for p in problems if p.kind == "error"]
    assert errors == [
        'google_com_proxy.half-fixed.v2.yaml:45:1: Bootstrap has no field "tls_context" ("tls_context" is a field of '
        "static_resources.clusters[0] (line 35): check the indentation)"
    ]
