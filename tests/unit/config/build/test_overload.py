"""Limits of downstream connections: the runtime keys and the overload manager's monitor."""

from __future__ import annotations

import pytest

from forkproxy.config.load import load

KEY = "overload.global_downstream_max_connections"
MONITOR = (
    "{name: envoy.resource_monitors.global_downstream_max_connections, typed_config: {"
    "'@type': type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig,"
    " max_active_downstream_connections: 9}}"
)
HEAP = (
    "{name: envoy.resource_monitors.fixed_heap, typed_config: {"
    "'@type': type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig, max_heap_size_bytes: 1}}"
)


def loaded(*parts):
    return load("{" + ", ".join(parts) + "}", "f.yaml")


def layer(text):
    return f"layered_runtime: {{layers: [{{name: s, static_layer: {text}}}]}}"


def test_without_anything():
    limits = loaded("admin: {}").bootstrap.connection_limits
    assert (limits.by_key, limits.by_monitor) == (None, None)


@pytest.mark.parametrize(("value", "found"), [("5", 5), ("'5'", 5), ("0", 0), ("5.5", None), ("-1", None), ("x", None)])
def test_the_key(value, found):
    assert loaded(layer(f"{{{KEY}: {value}}}")).bootstrap.connection_limits.by_key == found


def test_the_monitor():
    result = loaded(f"overload_manager: {{resource_monitors: [{MONITOR}]}}")
    assert (result.verdict, result.bootstrap.connection_limits.by_monitor) == ("runs", 9)


@pytest.mark.parametrize(
    "rest",
    [
        f"{HEAP}]",
        f"{MONITOR}], actions: [{{name: a, triggers: [{{name: b, threshold: {{value: 0.5}}}}]}}]",
        f"{MONITOR}], loadshed_points: [{{name: a, triggers: [{{name: b, threshold: {{value: 0.5}}}}]}}]",
    ],
)
def test_other_monitors_and_actions_are_refused_by_name(rest):
    result = loaded(f"overload_manager: {{resource_monitors: [{rest}}}")
    assert [problem.kind for problem in result.problems if problem.path.startswith("overload")] == ["unsupported"]


def test_of_a_listener():
    echo = "{name: e, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo}}"
    address = "{socket_address: {address: 127.0.0.1, port_value: 0}}"
    one = f"{{name: l, address: {address}, filter_chains: [{{filters: [{echo}]}}]}}"
    limit = layer("{envoy: {resource_limits: {listener: {l: {connection_limit: 4}}}}}")
    result = loaded(f"static_resources: {{listeners: [{one}]}}", limit)
    assert result.bootstrap.listeners[0].connection_limit == 4
