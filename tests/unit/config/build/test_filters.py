"""The small filters: router, tcp_proxy, echo, direct_response."""

from __future__ import annotations

import pytest

from forkproxy.config.build import direct_response, echo, router, tcp_proxy
from forkproxy.config.build.echo import EchoConfig
from forkproxy.config.build.router import RouterConfig
from tests.unit.config.build.building import built, value_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", RouterConfig(dynamic_stats=True)),
        ("{dynamic_stats: false}", RouterConfig(dynamic_stats=False)),
        ("{suppress_envoy_headers: true}", RouterConfig(suppress_envoy_headers=True)),
        ("{start_child_span: true}", RouterConfig()),
        ("{respect_expected_rq_timeout: true}", RouterConfig(respect_expected_rq_timeout=True)),
    ],
)
def test_router(text, expected):
    assert value_of(router.build, router.type_url, text) == expected


def test_router_checks_headers():
    made = value_of(router.build, router.type_url, "{strict_check_headers: [x-envoy-max-retries]}")
    assert made.strict_check_headers == ("x-envoy-max-retries",)


def test_tcp_proxy():
    made = value_of(tcp_proxy.build, tcp_proxy.type_url, "{stat_prefix: s, cluster: c}")
    assert (made.stat_prefix, made.cluster, made.weighted_clusters) == ("s", "c", ())
    assert (made.idle_timeout_s, made.max_connect_attempts) == (3600.0, 1)
    assert made.max_downstream_connection_duration_s is None
    assert made.access_logs == ()


def test_tcp_proxy_with_everything():
    text = """
        {stat_prefix: s, weighted_clusters: {clusters: [{name: a, weight: 1}, {name: b, weight: 2}]}, idle_timeout: 0s,
         max_connect_attempts: 3, max_downstream_connection_duration: 60s}
        """
    made = value_of(tcp_proxy.build, tcp_proxy.type_url, text)
    assert (made.cluster, made.weighted_clusters) == ("", (("a", 1), ("b", 2)))
    assert (made.idle_timeout_s, made.max_connect_attempts) == (None, 3)
    assert made.max_downstream_connection_duration_s == 60.0


def test_tcp_proxy_waits_between_attempts():
    text = "{stat_prefix: s, cluster: c, backoff_options: {base_interval: 0.1s%s}}"
    made = value_of(tcp_proxy.build, tcp_proxy.type_url, text % "")
    assert made.backoff_s == (0.1, 1.0)
    assert value_of(tcp_proxy.build, tcp_proxy.type_url, text % ", max_interval: 0.2s").backoff_s == (0.1, 0.2)
    (error,) = built(tcp_proxy.build, tcp_proxy.type_url, text % ", max_interval: 0.05s").errors
    assert error.endswith("max_backoff_interval must be greater or equal to base_backoff_interval")


def test_tcp_proxy_with_jitter():
    text = "{stat_prefix: s, cluster: c, max_downstream_connection_duration_jitter_percentage: {value: 12.5}}"
    assert value_of(tcp_proxy.build, tcp_proxy.type_url, text).duration_jitter_percent == 12.5


def test_tcp_proxy_does_not_tunnel():
    text = "{stat_prefix: s, cluster: c, tunneling_config: {hostname: h}, on_demand: {}}"
    assert built(tcp_proxy.build, tcp_proxy.type_url, text).unread == ["tunneling_config", "on_demand"]


def test_echo():
    assert value_of(echo.build, echo.type_url, "{}") == EchoConfig()


@pytest.mark.parametrize(("text", "response"), [("{}", b""), ("{response: {inline_string: hi}}", b"hi")])
def test_direct_response(text, response):
    assert value_of(direct_response.build, direct_response.type_url, text).response == response
