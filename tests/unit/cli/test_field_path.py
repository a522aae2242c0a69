"""From what a user calls a field to the field."""

import pytest

from forkproxy.cli.field_path import NoSuchPath, resolve
from forkproxy.config import tree

HCM = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
FILTERS = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config"


@pytest.mark.parametrize(
    ("path", "message", "field"),
    [
        ("static_resources.clusters[0].lb_policy", "envoy.config.cluster.v3.Cluster", "lb_policy"),
        ("staticResources.clusters.lbPolicy", "envoy.config.cluster.v3.Cluster", "lb_policy"),
        ("admin", "envoy.config.bootstrap.v3.Bootstrap", "admin"),
        ("Cluster.lb_policy", "envoy.config.cluster.v3.Cluster", "lb_policy"),
        ("cluster.lb_policy", "envoy.config.cluster.v3.Cluster", "lb_policy"),
        ("route_action.timeout", "envoy.config.route.v3.RouteAction", "timeout"),
        ("Cluster.RingHashLbConfig", "envoy.config.cluster.v3.Cluster.RingHashLbConfig", None),
        ("RingHashLbConfig.hash_function", "envoy.config.cluster.v3.Cluster.RingHashLbConfig", "hash_function"),
        ("envoy.config.route.v3.RouteAction", "envoy.config.route.v3.RouteAction", None),
        ("envoy.config.route.v3.RouteAction.timeout", "envoy.config.route.v3.RouteAction", "timeout"),
        ("per_try_timeout", "envoy.config.route.v3.RetryPolicy", "per_try_timeout"),
        ("envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router", None),
        ("envoy.router.dynamic_stats", "envoy.extensions.filters.http.router.v3.Router", "dynamic_stats"),
        (f"{FILTERS}.http_filters", HCM, "http_filters"),
        (
            "Route.typed_per_filter_config.envoy.filters.http.fault.abort",
            "envoy.extensions.filters.http.fault.v3.HTTPFault",
            "abort",
        ),
        (
            'Route.typed_per_filter_config["envoy.filters.http.fault"].abort',
            "envoy.extensions.filters.http.fault.v3.HTTPFault",
            "abort",
        ),
    ],
)
def test_what_a_path_names(path, message, field):
    target = resolve(path)
    assert (target.message.full_name, target.field and target.field.name) == (message, field)


def test_an_enum():
    assert resolve("LbPolicy").enum.full_name == "envoy.config.cluster.v3.Cluster.LbPolicy"
    assert resolve("envoy.config.cluster.v3.Cluster.LbPolicy").enum.full_name.endswith(".LbPolicy")


def test_a_name_of_version_2():
    target = resolve("RouteAction.auto_host_rewrite_header")
    assert target.field.name == "host_rewrite_header"
    assert target.notes == ('"auto_host_rewrite_header" is version 2; its name is "host_rewrite_header" now',)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("RouteAction.timout", 'has no field "timout": did you mean "timeout"'),
        ("Rute", 'did you mean "Route"'),
        ("per_try_timout", 'did you mean "per_try_timeout"'),
        ("timeout", "is a field of several messages: ask for HealthCheck.timeout, RouteAction.timeout"),
        ("Cluster.hosts", 'has no field "hosts", version 2 had'),
        ("Wasm", "is one of envoy.extensions.filters.http.wasm.v3.Wasm"),
        ("Cluster.name.x", "there is nothing in it"),
        ("Filter.typed_config.stat_prefix", "holds any message"),
        ("admin[0]", "leads nowhere"),
        ("", "names nothing"),
        ("[1]", "names nothing"),
        ("a[", "is no path"),
        ("a..b", "is no path"),
    ],
)
def test_what_names_nothing(path, why):
    with pytest.raises(NoSuchPath) as info:
        resolve(path if not path.startswith("Filter.") else f"envoy.config.listener.v3.{path}")
    assert why in str(info.value)


def test_the_file_says_what_is_in_an_any():
    tcp = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
    filters = [{"name": "x", "typed_config": {"@type": tcp, "stat_prefix": "a"}}]
    config = {"static_resources": {"listeners": [{"filter_chains": [{"filters": filters}]}]}}
    root = tree.Node.from_python(config, tree.Mark(1, 1))
    target = resolve(f"{FILTERS}.stat_prefix", root)
    assert target.message.name == "TcpProxy"
    assert target.pieces[-2:] == ("typed_config", "stat_prefix")
    assert target.notes == ()
