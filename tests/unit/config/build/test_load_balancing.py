"""Load balancing: old and typed forms."""

from __future__ import annotations

import pytest

from forkproxy.config.build.cluster import build_cluster
from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.hash_policy import HashPolicy
from forkproxy.config.build.load_balancing import (
    LoadBalancingConfig,
    SlowStart,
    SubsetConfig,
    SubsetSelector,
    ZoneAware,
    criteria,
)
from tests.unit.config.build.building import TYPE, built, value_of

CLUSTER = "envoy.config.cluster.v3.Cluster"
POLICIES = TYPE + "envoy.extensions.load_balancing_policies."
INNER = (
    f"{{policies: [{{typed_extension_config: {{name: x, typed_config: {{'@type': {POLICIES}random.v3.Random}}}}}}]}}"
)
SLOW = "slow_start_config: {slow_start_window: 10s, aggression: {default_value: 2, runtime_key: a}}"


def made(rest, context=None):
    return value_of(build_cluster, CLUSTER, f"{{name: c, {rest}}}", context).load_balancing


def typed(name, config="", policy="x"):
    config = f"{{'@type': {POLICIES}{name}{', ' if config else ''}{config}}}"
    return (
        f"load_balancing_policy: {{policies: [{{typed_extension_config: {{name: {policy}, typed_config: {config}}}}}]}}"
    )


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("type: STATIC", LoadBalancingConfig()),
        ("lb_policy: random", LoadBalancingConfig("RANDOM")),
        ("lb_policy: LEAST_REQUEST", LoadBalancingConfig("LEAST_REQUEST")),
        (
            f"lb_policy: LEAST_REQUEST, least_request_lb_config: {{choice_count: 5, {SLOW},"
            " active_request_bias: {default_value: 0.5, runtime_key: b}}",
            LoadBalancingConfig(
                "LEAST_REQUEST", choice_count=5, active_request_bias=0.5, slow_start=SlowStart(10.0, 2.0)
            ),
        ),
        (
            "lb_policy: LEAST_REQUEST, least_request_lb_config: {active_request_bias: {default_value: -1, runtime_key: b}}",
            LoadBalancingConfig("LEAST_REQUEST"),
        ),
        (
            "round_robin_lb_config: {slow_start_config: {slow_start_window: 1s, min_weight_percent: {value: 25},"
            " aggression: {default_value: 0, runtime_key: a}}}",
            LoadBalancingConfig(slow_start=SlowStart(1.0, 1.0, 0.25)),
        ),
        ("round_robin_lb_config: {slow_start_config: {slow_start_window: 0s}}", LoadBalancingConfig()),
        (
            "lb_policy: RING_HASH, ring_hash_lb_config:"
            " {minimum_ring_size: 3, maximum_ring_size: 9, hash_function: MURMUR_HASH_2}",
            LoadBalancingConfig("RING_HASH", min_ring_size=3, max_ring_size=9, hash_function="MURMUR_HASH_2"),
        ),
        ("lb_policy: RING_HASH", LoadBalancingConfig("RING_HASH")),
        ("lb_policy: MAGLEV, maglev_lb_config: {table_size: 11}", LoadBalancingConfig("MAGLEV", table_size=11)),
        ("lb_policy: RANDOM, ring_hash_lb_config: {minimum_ring_size: 5}", LoadBalancingConfig("RANDOM")),
        (
            "common_lb_config: {healthy_panic_threshold: {value: 29}, locality_weighted_lb_config: {},"
            " close_connections_on_host_set_change: true, ignore_new_hosts_until_first_hc: true, update_merge_window: 1s}",
            LoadBalancingConfig(
                panic_threshold=28, locality_weighted=True, close_connections_on_change=True, ignore_new_hosts=True
            ),
        ),
        (
            "common_lb_config: {zone_aware_lb_config: {routing_enabled: {value: 40}, min_cluster_size: 0,"
            " fail_traffic_on_panic: true}}",
            LoadBalancingConfig(zone_aware=ZoneAware(40, 0, True)),
        ),
        (
            "lb_policy: MAGLEV, common_lb_config: {consistent_hashing_lb_config: {hash_balance_factor: 120}}",
            LoadBalancingConfig("MAGLEV", hash_balance_factor=120),
        ),
        ("lb_subset_config: {fallback_policy: ANY_ENDPOINT}", LoadBalancingConfig()),
        (
            "lb_subset_config: {fallback_policy: DEFAULT_SUBSET, default_subset: {b: 1, a: true}, panic_mode_any: true,"
            " list_as_any: true, metadata_fallback_policy: FALLBACK_LIST, subset_selectors: [{keys: [b, a, b],"
            " fallback_policy: KEYS_SUBSET, fallback_keys_subset: [a]}, {keys: [c], single_host_per_subset: true}]}",
            LoadBalancingConfig(
                subset=SubsetConfig(
                    "DEFAULT_SUBSET",
                    (("a", (True,)), ("b", 1)),
                    (
                        SubsetSelector(("a", "b"), "KEYS_SUBSET", ("a",)),
                        SubsetSelector(("c",), single_endpoint=True),
                    ),
                    panic_mode_any=True,
                    list_as_any=True,
                    fallback_list=True,
                )
            ),
        ),
    ],
)
def test_old_forms(rest, expected):
    assert made(rest) == expected


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        (typed("round_robin.v3.RoundRobin", SLOW), LoadBalancingConfig(slow_start=SlowStart(10.0, 2.0))),
        (
            typed("least_request.v3.LeastRequest", "choice_count: 4, selection_method: FULL_SCAN"),
            LoadBalancingConfig("LEAST_REQUEST", choice_count=4, full_scan=True),
        ),
        (
            typed(
                "random.v3.Random",
                "locality_lb_config: {zone_aware_lb_config: {force_local_zone: {min_size: 3},"
                " locality_basis: HEALTHY_HOSTS_WEIGHT}}",
            ),
            LoadBalancingConfig("RANDOM", zone_aware=ZoneAware(force_local_min_size=3, by_weight=True)),
        ),
        (
            typed(
                "random.v3.Random", "locality_lb_config: {zone_aware_lb_config: {force_locality_direct_routing: true}}"
            ),
            LoadBalancingConfig("RANDOM", zone_aware=ZoneAware(force_local_min_size=1)),
        ),
        (
            typed("round_robin.v3.RoundRobin", "locality_lb_config: {locality_weighted_lb_config: {}}"),
            LoadBalancingConfig(locality_weighted=True),
        ),
        (
            typed("ring_hash.v3.RingHash", "use_hostname_for_hashing: true, hash_balance_factor: 110"),
            LoadBalancingConfig("RING_HASH", use_hostname=True, hash_balance_factor=110),
        ),
        (
            typed(
                "ring_hash.v3.RingHash",
                "hash_function: MURMUR_HASH_2, consistent_hashing_lb_config: {hash_balance_factor: 110}",
            ),
            LoadBalancingConfig("RING_HASH", hash_function="MURMUR_HASH_2", hash_balance_factor=110),
        ),
        (
            typed("maglev.v3.Maglev", "table_size: 7, locality_weighted_lb_config: {}"),
            LoadBalancingConfig("MAGLEV", table_size=7, locality_weighted=True),
        ),
        (
            typed("subset.v3.Subset", f"subset_selectors: [{{keys: [a]}}], subset_lb_policy: {INNER}"),
            LoadBalancingConfig("RANDOM", subset=SubsetConfig(selectors=(SubsetSelector(("a",)),))),
        ),
        (
            typed(
                "subset.v3.Subset",
                f"allow_redundant_keys: true, subset_selectors: [{{keys: [a]}}], subset_lb_policy: {INNER}",
            ),
            LoadBalancingConfig(
                "RANDOM", subset=SubsetConfig(selectors=(SubsetSelector(("a",)),), redundant_keys=True)
            ),
        ),
        (
            typed(
                "maglev.v3.Maglev",
                "consistent_hashing_lb_config: {hash_policy: [{query_parameter: {name: k}, terminal: true}]}",
            ),
            LoadBalancingConfig("MAGLEV", hash_policies=(HashPolicy("query_parameter", "k", terminal=True),)),
        ),
        (typed("random.v3.Random") + ", lb_policy: MAGLEV, maglev_lb_config: {}", LoadBalancingConfig("RANDOM")),
        (
            typed("random.v3.Random") + ", common_lb_config: {healthy_panic_threshold: {value: 5}}",
            LoadBalancingConfig("RANDOM", panic_threshold=5),
        ),
    ],
)
def test_typed_forms(rest, expected):
    assert made(rest) == expected
    assert (
        made("lb_policy: LOAD_BALANCING_POLICY_CONFIG, " + rest.partition(", lb_policy")[0]).policy == expected.policy
    )


def policies(*configs):
    entries = [f"{{typed_extension_config: {{name: {name}, typed_config: {config}}}}}" for name, config in configs]
    return f"load_balancing_policy: {{policies: [{', '.join(entries)}]}}"


RANDOM = ("r", f"{{'@type': {POLICIES}random.v3.Random}}")
FOREIGN = ("mine", f"{{'@type': {TYPE}xds.type.v3.TypedStruct, type_url: {TYPE}my.Policy}}")


def test_the_first_that_envoy_knows_counts():
    maglev = ("m", f"{{'@type': {POLICIES}maglev.v3.Maglev}}")
    assert made(policies(RANDOM, maglev)).policy == "RANDOM"
    assert made(policies(FOREIGN, maglev, RANDOM)).policy == "MAGLEV"
    struct = ("mine", f"{{'@type': {TYPE}google.protobuf.Struct}}")
    assert made(policies(struct, RANDOM)).policy == "RANDOM"


@pytest.mark.parametrize(
    "first",
    [
        ("w", f"{{'@type': {POLICIES}client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin}}"),
        ("envoy.load_balancing_policies.random", f"{{'@type': {TYPE}google.protobuf.Struct}}"),
    ],
)
def test_one_that_only_envoy_has_is_not_passed_over(first):
    outcome = built(build_cluster, CLUSTER, f"{{name: c, {policies(first, RANDOM)}}}")
    assert len(outcome.unsupported) == 1
    assert "is not implemented" in outcome.unsupported[0]


@pytest.mark.parametrize(
    ("rest", "error"),
    [
        (policies(FOREIGN), "didn't find a registered load balancer factory implementation"),
        ("load_balancing_policy: {}", "didn't find a registered load balancer factory implementation"),
        (
            typed("random.v3.Random") + ", lb_subset_config: {subset_selectors: [{keys: [a]}]}",
            "load_balancing_policy cannot be combined with lb_subset_config",
        ),
        (
            typed("random.v3.Random") + ", common_lb_config: {locality_weighted_lb_config: {}}",
            "load_balancing_policy cannot be combined with partial fields",
        ),
        (typed("cluster_provided.v3.ClusterProvided"), "cluster provided LB specified"),
        ("lb_policy: MAGLEV, maglev_lb_config: {table_size: 12}", "The table size of maglev must be prime number"),
        (
            "lb_policy: RING_HASH, ring_hash_lb_config: {maximum_ring_size: 3}",
            "ring hash: minimum_ring_size (1024) > maximum_ring_size (3)",
        ),
        (
            "common_lb_config: {consistent_hashing_lb_config: {use_hostname_for_hashing: true}}",
            "Cannot use hostname for consistent hashing loadbalancing for cluster of type: 'envoy.cluster.static'",
        ),
        (
            "lb_subset_config: {locality_weight_aware: true, subset_selectors: [{keys: [a]}]}",
            "Locality weight aware subset LB requires that a locality_weighted_lb_config be set",
        ),
        ("lb_subset_config: {subset_selectors: [{keys: [a], fallback_policy: KEYS_SUBSET}]}", "cannot be empty"),
        (
            "lb_subset_config: {subset_selectors: [{keys: [a], fallback_policy: KEYS_SUBSET, fallback_keys_subset: [b]}]}",
            "must be a subset of selector keys",
        ),
        (
            "lb_subset_config: {subset_selectors: [{keys: [a], fallback_policy: KEYS_SUBSET, fallback_keys_subset: [a]}]}",
            "cannot be equal to keys",
        ),
        (
            "lb_subset_config: {subset_selectors: [{keys: [a, b], fallback_keys_subset: [a]}]}",
            "can be set only for KEYS_SUBSET fallback_policy",
        ),
    ],
)
def test_what_envoy_refuses(rest, error):
    (found,) = built(build_cluster, CLUSTER, f"{{name: c, {rest}}}").errors
    assert error in found


def test_hostnames_are_hashed_in_strict_dns_clusters():
    rest = "common_lb_config: {consistent_hashing_lb_config: {use_hostname_for_hashing: true}}"
    assert made(f"type: STRICT_DNS, lb_policy: MAGLEV, {rest}").use_hostname


def test_the_runtime_decides_where_envoy_asks_it():
    runtime = {
        "upstream.healthy_panic_threshold": 7,
        "upstream.zone_routing.enabled": 30,
        "upstream.zone_routing.min_cluster_size": 2,
        "bias": 0.25,
    }
    found = made(
        "lb_policy: LEAST_REQUEST, least_request_lb_config: {active_request_bias: {default_value: 3, runtime_key: bias}},"
        " common_lb_config: {zone_aware_lb_config: {}}",
        BuildContext(runtime=runtime),
    )
    assert (found.panic_threshold, found.active_request_bias) == (7, 0.25)
    assert (found.zone_aware.routing_percent, found.zone_aware.min_cluster_size) == (30, 2)


def test_metadata_of_endpoints():
    metadata = "metadata: {filter_metadata: {envoy.lb: {b: 1, a: [x, true]}, other: {c: 1}}}"
    text = (
        "load_assignment: {cluster_name: c, endpoints: [{load_balancing_weight: 3, lb_endpoints:"
        f" [{{endpoint: {{address: {{pipe: {{path: x}}}}}}, {metadata}}}]}}]}}"
    )
    cluster = value_of(build_cluster, CLUSTER, f"{{name: c, {text}}}")
    assert cluster.localities[0].endpoints[0].metadata == '{"a":["x",true],"b":1}'


def test_an_assignments_policy_goes_with_its_localities():
    text = (
        "load_assignment: {cluster_name: c, endpoints: [{priority: 0}, {priority: 1}],"
        " policy: {overprovisioning_factor: 200, weighted_priority_health: true}}"
    )
    cluster = value_of(build_cluster, CLUSTER, f"{{name: c, {text}}}")
    assert [(each.overprovisioning_factor, each.weighted_priority_health) for each in cluster.localities] == [
        (200, True)
    ] * 2


def test_criteria():
    assert criteria({"b": 1, "a": {"z": [True], "y": None}}) == (
        ("a", ("struct", ("y", None), ("z", ("list", (True,))))),
        ("b", 1),
    )
    assert criteria({"a": True}) != criteria({"a": 1})
