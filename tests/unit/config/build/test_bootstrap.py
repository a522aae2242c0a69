"""The bootstrap: admin, node, runtime layers, secrets, and its listeners and clusters."""

from __future__ import annotations

import pytest

from forkproxy.config.build.access_log import default_text_format
from forkproxy.config.build.bootstrap import AdminConfig, ForkproxyConfig, NodeConfig, build_bootstrap, flatten
from forkproxy.config.build.core import AddressConfig, StringMatcher
from tests.unit.config.build.building import TYPE, built, value_of

BOOTSTRAP = "envoy.config.bootstrap.v3.Bootstrap"
MORE = {"forkproxy": ForkproxyConfig(concurrency=3), "config_dump": {"a": 1}}
ECHO = f"{{name: e, typed_config: {{'@type': {TYPE}envoy.extensions.filters.network.echo.v3.Echo}}}}"


def made(text):
    return value_of(build_bootstrap, BOOTSTRAP, text, **MORE)


def outcome(text):
    return built(build_bootstrap, BOOTSTRAP, text, **MORE)


def listener(name, port):
    address = f"{{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}"
    return f"{{name: '{name}', address: {address}, filter_chains: [{{filters: [{ECHO}]}}]}}"


def test_empty():
    bootstrap = made("{}")
    assert (bootstrap.admin, bootstrap.node, bootstrap.listeners, bootstrap.clusters) == (
        AdminConfig(),
        NodeConfig(),
        (),
        (),
    )
    assert bootstrap.stats_flush_interval_s == 5.0
    assert (bootstrap.forkproxy.concurrency, bootstrap.config_dump, bootstrap.runtime) == (3, {"a": 1}, {})


def test_node():
    text = (
        "{node: {id: i, cluster: c, locality: {region: r, zone: z, sub_zone: s}, metadata: {a: b}, user_agent_name: u}}"
    )
    assert made(text).node == NodeConfig("i", "c", "r", "z", "s")


def test_admin():
    result = outcome(
        "{admin: {address: {pipe: {path: /x}}, access_log_path: /dev/null, profile_path: /y, ignore_global_conn_limit: true}}"
    )
    admin = result.value.admin
    assert admin.address == AddressConfig(pipe_path="/x")
    assert [(log.path, log.text_format) for log in admin.access_logs] == [("/dev/null", default_text_format)]
    assert result.unread == []
    assert made("{admin: {}}").admin == AdminConfig()


def test_runtime_layers():
    result = outcome(
        """{layered_runtime: {layers: [
          {name: one, static_layer: {a: {b: 1, c: yes}, f: {numerator: 1}}}, {name: two, static_layer: {a.b: 2}},
          {name: gone, disk_layer: {symlink_root: /nonexistent}}, {name: admin, admin_layer: {}}]}}"""
    )
    assert result.value.runtime == {"a.b": 2, "a.c": True, "f": {"numerator": 1}}
    assert result.value.runtime_layers == 4
    assert result.warnings == ["layered_runtime.layers: runtime keys without effect here: a.b, a.c, f"]
    assert result.unread == []


def test_a_disk_layer_that_is_there_is_refused(tmp_path):
    text = f"{{layered_runtime: {{layers: [{{name: d, disk_layer: {{symlink_root: {tmp_path}}}}}]}}}}"
    assert outcome(text).unread == ["layered_runtime.layers[0].disk_layer"]


def test_flatten():
    into = {"a": 0}
    flatten("", {"a": {"b": {"c": 1}}, "d": "e"}, into)
    assert into == {"a": 0, "a.b.c": 1, "d": "e"}


def test_runtime_values_reach_what_asks_for_them():
    log = (
        f"{{name: l, filter: {{runtime_filter: {{runtime_key: log.share}}}}, typed_config: {{'@type': "
        f"{TYPE}envoy.extensions.access_loggers.stream.v3.StdoutAccessLog}}}}"
    )
    text = f"{{layered_runtime: {{layers: [{{name: s, static_layer: {{log: {{share: 5}}}}}}]}}, admin: {{access_log: [{log}]}}}}"
    assert made(text).admin.access_logs[0].filter.value == 5


def test_a_flag_file_that_is_not_there(tmp_path):
    assert outcome(f"{{flags_path: {tmp_path}}}").unsupported == []
    (tmp_path / "drain").touch()
    assert outcome(f"{{flags_path: {tmp_path}}}").unsupported == [
        "flags_path: starting drained is not implemented, and there is a file named drain"
    ]


def test_listener_names():
    text = f"{{static_resources: {{listeners: [{listener('a', 1)}, {listener('a', 2)}, {listener('', 0)}, {listener('', 0)}]}}}}"
    names = [(each.name, each.addresses[0].port) for each in outcome(text).value.listeners]
    # Of two of one name Envoy runs the first; without a name each is itself.
    assert names == [("a", 1), ("127.0.0.1:0", 0), ("127.0.0.1:0#2", 0)]


def test_secrets_that_nobody_names_are_not_read():
    text = "{static_resources: {secrets: [{name: s, tls_certificate: {certificate_chain: {filename: /nonexistent}}}]}}"
    assert made(text).listeners == ()


def test_dns_resolver_for_all_clusters():
    text = """{dns_resolution_config: {resolvers: [{socket_address: {address: 9.9.9.9, port_value: 53}}],
      dns_resolver_options: {use_tcp_for_dns_lookups: true}}, static_resources: {clusters: [{name: c}]}}"""
    (cluster,) = outcome(text).value.clusters
    assert (cluster.dns_resolvers, cluster.use_tcp_for_dns_lookups) == ((AddressConfig("9.9.9.9", 53),), True)


def test_one_broken_cluster_does_not_hide_the_next():
    text = """{static_resources: {clusters: [
      {name: a, dns_failure_refresh_rate: {base_interval: 2s, max_interval: 1s}},
      {name: b, dns_failure_refresh_rate: {base_interval: 2s, max_interval: 1s}}]}}"""
    assert len(outcome(text).errors) == 2


@pytest.mark.parametrize(
    "field",
    [
        "dynamic_resources: {lds_config: {ads: {}}}",
        "stats_sinks: [{name: s, typed_config: {'@type': type.googleapis.com/envoy.config.metrics.v3.DogStatsdSink}}]",
        "enable_dispatcher_stats: true",
        "header_prefix: x",
    ],
)
def test_what_is_not_there(field):
    text = f"{{{field}}}"
    if "DogStatsd" in field:
        text = text.replace("DogStatsdSink}", "DogStatsdSink, address: {pipe: {path: /x}}}")
    assert outcome(text).unread == [field.partition(":")[0]]


@pytest.mark.parametrize(
    "field",
    [
        "watchdogs: {main_thread_watchdog: {miss_timeout: 1s}}",
        "watchdog: {}",
        "memory_allocator_manager: {}",
        "deferred_stat_options: {}",
        "node_context_params: [a]",
    ],
)
def test_what_makes_no_difference(field):
    assert outcome(f"{{{field}}}").unread == []


def test_source_addresses_for_clusters_that_have_none_of_their_own():
    bind = "upstream_bind_config: {{source_address: {{address: {}, port_value: 0}}}}"
    text = (
        f"{{cluster_manager: {{{bind.format('192.0.2.1')}}}, static_resources: {{clusters: ["
        f"{{name: a}}, {{name: b, {bind.format('192.0.2.2')}}}, {{name: c, upstream_bind_config: {{}}}}]}}}}"
    )
    sources = [cluster.pool.bind.sources for cluster in made(text).clusters]
    assert [[source.address.host for source in each] for each in sources] == [["192.0.2.1"], ["192.0.2.2"], []]


def test_statistics():
    bootstrap = made(
        """{stats_flush_on_admin: true, stats_server_version_override: 7, stats_config: {use_all_default_tags: false,
        stats_tags: [{tag_name: a}, {tag_name: b, regex: '(x)'}, {tag_name: c, fixed_value: ''}],
        stats_matcher: {exclusion_list: {patterns: [{prefix: p, ignore_case: true}, {safe_regex: {regex: r}}]}},
        histogram_bucket_settings: [{match: {suffix: _ms}, buckets: [5, 0.5], bins: 20}]}}"""
    )
    stats = bootstrap.stats
    assert (bootstrap.stats_flush_on_admin, bootstrap.server_version, stats.use_all_default_tags) == (True, 7, False)
    assert [(tag.name, tag.regex, tag.fixed_value) for tag in stats.tags] == [
        ("a", "", None),
        ("b", "(x)", None),
        ("c", "", ""),
    ]
    assert (stats.matcher, stats.patterns) == (
        "exclusion_list",
        (StringMatcher("prefix", "p", True), StringMatcher("safe_regex", "r")),
    )
    [buckets] = stats.histogram_buckets
    assert (buckets.match, buckets.buckets) == (StringMatcher("suffix", "_ms"), (0.5, 5.0))


@pytest.mark.parametrize(
    ("text", "kind"), [("{reject_all: true}", "reject_all"), ("{reject_all: false}", "all"), ("", "all")]
)
def test_which_statistics(text, kind):
    config = f"{{stats_matcher: {text}}}" if text else "{}"
    assert made(f"{{stats_config: {config}}}").stats.matcher == kind
