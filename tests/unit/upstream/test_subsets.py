"""Subsets: who is in them and what happens when there is none. tests/conformance/test_subsets.py asks Envoy the same."""

import pytest

from forkproxy.config.build.load_balancing import SubsetConfig, SubsetSelector, criteria
from forkproxy.upstream.balancers import PickContext
from tests.support.balancing import BAD, balancer, endpoint, names, picks

SELECTORS = (SubsetSelector(("stage",)), SubsetSelector(("stage", "version")))


def make(*endpoints, loop=None, subset=None, **config):
    fields = {"selectors": SELECTORS, **(subset or {})}
    return balancer(list(endpoints), loop, subset=SubsetConfig(**fields), **config)


def some():
    return [
        endpoint("a", metadata={"stage": "prod", "version": 1}),
        endpoint("b", metadata={"stage": "prod", "version": 2}),
        endpoint("c", metadata={"stage": "dev", "version": 2}),
        endpoint("d"),
    ]


def chosen(made, number=12, **wanted):
    context = PickContext(criteria=criteria(wanted))
    return "".join(sorted(set(names([made.choose(context) for _ in range(number)])) - {None})) or None


def test_exactly_a_selectors_keys():
    made = make(*some())
    assert chosen(made, stage="prod") == "ab"
    assert chosen(made, stage="prod", version=2) == "b"
    assert chosen(made, version=2) is None
    assert chosen(made, stage="prod", version=2, more=1) is None
    assert chosen(made) is None
    assert made.pick() is None
    assert (made.stats.lb_subsets_selected, made.stats.lb_subsets_fallback) == (24, 0)


@pytest.mark.parametrize(
    ("value", "wanted", "matches"),
    [
        (1, 1.0, True),
        (1, True, False),
        (True, True, True),
        ("1", 1, False),
        (None, None, True),
        (None, False, False),
        ([1, 2], [1, 2], True),
        ([1, 2], [2, 1], False),
        ({"a": 1}, {"a": 1}, True),
        ({"a": 1}, {"a": True}, False),
    ],
)
def test_values_are_protobufs(value, wanted, matches):
    made = make(endpoint("a", metadata={"stage": value}))
    assert chosen(made, stage=wanted) == ("a" if matches else None)


def test_a_list_as_any_of_its_values():
    both = endpoint("a", metadata={"stage": ["prod", "dev"], "version": [1, 2]})
    made = make(both, endpoint("b", metadata={"stage": "dev"}), subset={"list_as_any": True})
    assert (chosen(made, stage="prod"), chosen(made, stage="dev")) == ("a", "ab")
    assert chosen(made, stage="prod", version=2) == "a"
    assert chosen(made, stage=["prod", "dev"]) is None


@pytest.mark.parametrize(
    ("config", "expected", "fallbacks"),
    [
        ({}, None, 0),
        ({"fallback": "ANY_ENDPOINT"}, "abcd", 12),
        ({"fallback": "DEFAULT_SUBSET", "default_subset": criteria({"version": 2})}, "bc", 12),
        ({"fallback": "DEFAULT_SUBSET"}, "abcd", 12),
        ({"fallback": "DEFAULT_SUBSET", "default_subset": criteria({"version": 3})}, None, 0),
    ],
)
def test_fallback(config, expected, fallbacks):
    made = make(*some(), subset=config)
    assert chosen(made, stage="none") == expected
    assert made.stats.lb_subsets_fallback == fallbacks


def test_panic_mode_any():
    default = {"fallback": "DEFAULT_SUBSET", "default_subset": criteria({"version": 3}), "panic_mode_any": True}
    made = make(*some(), subset=default)
    assert chosen(made, stage="none") == "abcd"
    assert (made.stats.lb_subsets_fallback, made.stats.lb_subsets_fallback_panic) == (0, 12)


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (SubsetSelector(("stage", "version"), "KEYS_SUBSET", ("stage",)), "ab"),
        (SubsetSelector(("stage", "version"), "NO_FALLBACK"), None),
        (SubsetSelector(("stage", "version"), "ANY_ENDPOINT"), "abcd"),
        (SubsetSelector(("stage", "version"), "DEFAULT_SUBSET"), "bc"),
    ],
)
def test_a_selectors_own_fallback(selector, expected):
    config = {
        "selectors": (SELECTORS[0], selector),
        "fallback": "NO_FALLBACK" if expected else "ANY_ENDPOINT",
        "default_subset": criteria({"version": 2}),
    }
    made = make(*some(), subset=config)
    assert chosen(made, stage="prod", version=9) == expected


@pytest.mark.parametrize(
    ("selectors", "expected"),
    [
        ((SubsetSelector(("a",), "ANY_ENDPOINT"), SubsetSelector(("a", "b"))), "xy"),
        ((SubsetSelector(("a", "b")), SubsetSelector(("a",), "ANY_ENDPOINT")), None),
        ((SubsetSelector(("b", "c")), SubsetSelector(("a",), "ANY_ENDPOINT")), "xy"),
        ((SubsetSelector(("a",), "ANY_ENDPOINT"), SubsetSelector(("a",), "NO_FALLBACK")), "xy"),
        ((SubsetSelector(("a",)), SubsetSelector(("a",), "ANY_ENDPOINT")), None),
    ],
)
def test_whose_own_fallback_counts(selectors, expected):
    made = make(endpoint("x", metadata={"a": 1}), endpoint("y"), subset={"selectors": selectors})
    assert chosen(made, a=9) == expected


@pytest.mark.parametrize(
    ("keys", "wanted", "expected"),
    [
        (["a", "ab"], {"a": 1, "b": 1, "c": 1}, "y"),  # the longest
        (["ab", "a"], {"a": 1, "b": 1}, "y"),
        (["a", "b"], {"a": 1, "b": 1}, "xy"),  # of equals the first, and only that
        (["b", "a"], {"a": 1, "b": 1}, "yz"),
        (["a", "b"], {"a": 9, "b": 1}, None),
        (["a", "b"], {"b": 1, "c": 1}, "yz"),
        (["a", "b"], {"c": 1}, None),
    ],
)
def test_redundant_keys(keys, wanted, expected):
    members = [
        endpoint("x", metadata={"a": 1}),
        endpoint("y", metadata={"a": 1, "b": 1}),
        endpoint("z", metadata={"b": 1}),
    ]
    selectors = tuple(SubsetSelector(tuple(each)) for each in keys)
    assert chosen(make(*members, subset={"selectors": selectors, "redundant_keys": True}), **wanted) == expected


def test_fallback_list():
    made = make(*some(), subset={"fallback_list": True})
    assert chosen(made, stage="gone", fallback_list=[{"stage": "nowhere"}, {"stage": "dev"}]) == "c"
    assert chosen(made, version=2, fallback_list=[{"stage": "gone"}, {"stage": "prod"}]) == "b"
    assert chosen(made, stage="prod", fallback_list=[{"stage": "gone"}]) is None
    assert chosen(made, stage="prod") == "ab"


def test_one_endpoint_for_each_value():
    low = endpoint("low", priority=1, metadata={"id": "x"})
    ill = endpoint("ill", flags=BAD, metadata={"id": "y"})
    first = endpoint("first", metadata={"id": "x"})
    made = make(low, ill, first, subset={"selectors": (SubsetSelector(("id",), single_endpoint=True),)})
    assert chosen(made, id="x") == "first"
    assert names([made.choose(PickContext(criteria=criteria({"id": "y"})))]) == ["ill"]


def test_within_a_subset_the_policy_goes_on():
    made = make(
        endpoint("a", weight=3, metadata={"stage": "x"}),
        endpoint("b", weight=1, metadata={"stage": "x"}),
        endpoint("c", priority=1, metadata={"stage": "x"}),
        endpoint("d", flags=BAD, metadata={"stage": "y"}),
        endpoint("e", priority=1, metadata={"stage": "y"}),
    )
    context = PickContext(criteria=criteria({"stage": "x"}))
    assert sorted(picks(lambda: made.choose(context), 8)) == ["a"] * 6 + ["b"] * 2
    assert chosen(made, stage="y") == "e"


def test_a_hash_within_a_subset():
    made = make(
        *[endpoint(f"e{number}", metadata={"stage": "x"}) for number in range(4)], endpoint("z"), policy="MAGLEV"
    )
    found = {names([made.choose(PickContext(hash_, criteria({"stage": "x"})))])[0] for hash_ in range(0, 5000, 7)}
    assert found == {"e0", "e1", "e2", "e3"}


@pytest.mark.parametrize(("aware", "scaled", "expected"), [(False, False, 0.5), (True, False, 0.75), (True, True, 0.5)])
def test_locality_weights(aware, scaled, expected):
    made = make(
        endpoint("a", locality="x", locality_weight=3, metadata={"stage": "p"}),
        *[endpoint(f"x{number}", locality="x", locality_weight=3) for number in range(2)],
        endpoint("b", locality="y", locality_weight=1, metadata={"stage": "p"}),
        subset={"locality_weight_aware": aware, "scale_locality_weight": scaled},
        locality_weighted=True,
    )
    context = PickContext(criteria=criteria({"stage": "p"}))
    got = picks(lambda: made.choose(context), 400).count("a") / 400
    assert got == pytest.approx(expected, abs=0.02)


def test_subsets_are_counted_as_they_come_and_go():
    endpoints = some()
    made = make(*endpoints)
    stats = made.stats
    assert (stats.lb_subsets_active, stats.lb_subsets_created, stats.lb_subsets_removed) == (5, 5, 0)
    made.balancer.set_endpoints(endpoints[:2])
    made.balancer.choose(PickContext())
    assert (stats.lb_subsets_active, stats.lb_subsets_created, stats.lb_subsets_removed) == (3, 5, 2)
    made.balancer.set_endpoints(endpoints)
    made.balancer.choose(PickContext())
    assert (stats.lb_subsets_active, stats.lb_subsets_created, stats.lb_subsets_removed) == (5, 7, 2)
