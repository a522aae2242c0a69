"""upgrade_configs, of connection managers and of routes."""

from __future__ import annotations

from functools import partial

import pytest

from forkproxy.config.build.core import StringMatcher
from forkproxy.config.build.http_connection_manager import build
from forkproxy.config.build.http_connection_manager import type_url as HCM
from forkproxy.config.build.route import build_route
from forkproxy.config.build.transport_sockets import ProxyProtocol
from forkproxy.config.build.upgrades import ConnectConfig
from tests.unit.config.build.building import TYPE, built, value_of

ROUTE = "envoy.config.route.v3.Route"
ROUTER = f"{{name: r, typed_config: {{'@type': {TYPE}envoy.extensions.filters.http.router.v3.Router}}}}"
build_it = partial(build_route, max_body_bytes=0)


def manager(text):
    return value_of(build, HCM, f"{{stat_prefix: x, route_config: {{}}, http_filters: [{ROUTER}], {text}}}")


def route(match, action):
    return built(build_it, ROUTE, f"{{match: {match}, route: {{cluster: c, {action}}}}}")


def test_of_the_connection_manager():
    found = manager(
        f"upgrade_configs: [{{upgrade_type: WebSocket}}, {{upgrade_type: a, enabled: false, filters: [{ROUTER}]}}]"
    )
    assert [(each.upgrade_type, each.enabled, len(each.filters)) for each in found.upgrades] == [
        ("WebSocket", True, 0),
        ("a", False, 1),
    ]
    assert manager("stat_prefix: x").upgrades == ()


def test_ignored_types():
    found = manager("http_protocol_options: {ignore_http_11_upgrade: [{exact: a}, {prefix: b, ignore_case: true}]}")
    assert found.ignored_upgrades == (StringMatcher("exact", "a"), StringMatcher("prefix", "b", True))


def test_of_a_route():
    action = route(
        "{prefix: /}", "upgrade_configs: [{upgrade_type: a}, {upgrade_type: b, enabled: false}]"
    ).value.action
    assert (action.upgrades, action.connect) == ((("a", True), ("b", False)), None)


def test_connect_that_ends_here():
    outcome = route("{connect_matcher: {}}", "upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]")
    assert (outcome.value.match.kind, outcome.value.action.connect) == ("connect_matcher", ConnectConfig())
    config = "{allow_post: true, proxy_protocol_config: {version: V2, added_tlvs: [{type: 238, value: YWI=}]}}"
    outcome = route("{prefix: /}", f"upgrade_configs: [{{upgrade_type: CONNECT, connect_config: {config}}}]")
    assert outcome.value.action.connect == ConnectConfig(ProxyProtocol(2, ((238, b"ab"),)), True)


@pytest.mark.parametrize("kind", ["CONNECT-UDP", "connect-udp"])
def test_connect_udp_is_refused_by_name(kind):
    outcome = route("{prefix: /}", f"upgrade_configs: [{{upgrade_type: {kind}}}]")
    assert outcome.unsupported == [
        "route.upgrade_configs[0].upgrade_type: CONNECT-UDP is not implemented: it is for HTTP/2 and HTTP/3"
    ]
    outcome = built(
        build,
        HCM,
        f"{{stat_prefix: x, route_config: {{}}, http_filters: [{ROUTER}], upgrade_configs: [{{upgrade_type: {kind}}}]}}",
    )
    assert len(outcome.unsupported) == 1


@pytest.mark.parametrize("rewrite", ["prefix_rewrite: /x", "path_rewrite: /x", "regex_rewrite: {pattern: {regex: a}}"])
def test_a_connect_has_no_path_to_rewrite(rewrite):
    assert route("{prefix: /}", rewrite).unsupported == []
    assert len(route("{connect_matcher: {}}", rewrite).unsupported) == 1
