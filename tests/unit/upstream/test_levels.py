"""How load is divided over priorities. The expected figures are Envoy's (asked, and its documentation's tables)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkproxy.upstream.levels import (
    DEGRADED,
    HEALTHY,
    Locality,
    availability,
    by_priority,
    effective_weight,
    is_in_panic,
    reckon_loads,
)
from tests.support.balancing import endpoint, endpoints, names


def loads(text, panic_threshold=50, **fields):
    found = reckon_loads(by_priority(endpoints(text, **fields)), panic_threshold=panic_threshold)
    return found.healthy, found.degraded, found.panic


@pytest.mark.parametrize(
    ("text", "healthy", "degraded", "panic"),
    [
        ("a", [100], [0], [False]),
        ("aaaa aa", [100, 0], [0, 0], [False, False]),
        ("aaaa! aa", [100, 0], [0, 0], [False, False]),  # 75 % healthy, times 1.4
        ("aaa!a! aa", [70, 30], [0, 0], [False, False]),
        ("a!a! aa", [0, 100], [0, 0], [False, False]),
        ("aa! aa!", [70, 30], [0, 0], [False, False]),
        # not enough anywhere: scaled to 100, the rest of the rounding goes to the first
        ("aa!a!a!a! aa!a!a!a!", [50, 50], [0, 0], [True, True]),
        # degraded endpoints take what the healthy cannot
        ("aa~a!a!", [50], [50], [False]),
        ("aaa~a!", [70], [30], [False]),
        ("a~a~ aa", [0, 100], [0, 0], [False, False]),
        ("a~a~", [0], [100], [False]),
        # all in panic: by the number of endpoints
        ("a!a! a!a!a!", [40, 60], [0, 0], [True, True]),
        ("a!a!a! a!a!a! a!a!a!", [34, 33, 33], [0, 0, 0], [True, True, True]),
        # one that does not count neither helps nor harms
        ("aa-a-", [100], [0], [False]),
        ("aaa!-", [100], [0], [False]),
        # a priority that nobody has
        (" aa", [0, 100], [0, 0], [False, False]),
    ],
)
def test_loads(text, healthy, degraded, panic):
    assert loads(text) == (healthy, degraded, panic)


def test_nobody_at_all():
    assert loads("") == ([100], [0], [True])
    assert loads("", 0) == ([100], [0], [False])


def test_without_panic_nobody_healthy_gets_everything():
    assert loads("a!a! a!", 0) == ([100, 0], [0, 0], [False, False])


@pytest.mark.parametrize(("factor", "expected"), [(100, [75, 25]), (140, [100, 0]), (120, [90, 10])])
def test_overprovisioning(factor, expected):
    assert loads("aaaa! aa", overprovisioning_factor=factor)[0] == expected


def test_health_by_weight():
    def found(**fields):
        level = [
            endpoint("a", weight=3, **fields),
            endpoint("b", flags=1, **fields),
            endpoint("c", priority=1, **fields),
        ]
        return reckon_loads(by_priority(level), panic_threshold=50).healthy

    assert found(overprovisioning_factor=100, weighted_priority_health=True) == [75, 25]
    assert found(overprovisioning_factor=100) == [50, 50]


LETTERS = st.lists(st.sampled_from(["a", "a!", "a~", "a-", "a!-"]), max_size=6).map("".join)


@given(st.lists(LETTERS, min_size=1, max_size=4), st.integers(0, 100), st.integers(100, 200))
def test_every_part_of_the_load_goes_somewhere(words, threshold, factor):
    levels = by_priority(endpoints(" ".join(words), overprovisioning_factor=factor))
    found = reckon_loads(levels, panic_threshold=threshold)
    table = found.table()
    assert len(table) == 100
    assert min(found.healthy + found.degraded) >= 0
    assert sum(found.healthy) + sum(found.degraded) in (0, 100)
    available = [(at, HEALTHY) for at, level in enumerate(levels) if level.healthy]
    available += [(at, DEGRADED) for at, level in enumerate(levels) if level.degraded]
    if not any(found.panic) and any(sum(availability(level)) for level in levels):
        assert set(table) <= set(available)


@pytest.mark.parametrize(
    ("text", "threshold", "expected"),
    [
        ("aa!", 50, False),
        ("aa!a!", 50, True),
        ("aa~a!", 50, False),
        ("aa!-a!-", 50, False),
        ("a!", 0, False),
        ("", 50, True),
        ("", 0, False),
    ],
)
def test_panic(text, threshold, expected):
    assert is_in_panic(by_priority(endpoints(text))[0], threshold) is expected


def test_localities_are_in_the_order_of_their_names_the_nodes_own_first():
    made = [endpoint(name, locality=zone, locality_weight=7) for name, zone in zip("abcd", "zyxz", strict=True)]
    (level,) = by_priority(made)
    assert [locality.name[1] for locality in level.localities] == ["x", "y", "z"]
    assert not level.has_local
    (level,) = by_priority(made, ("", "z", ""))
    assert [locality.name[1] for locality in level.localities] == ["z", "x", "y"]
    assert level.has_local
    assert names(level.localities[0].endpoints) == ["a", "d"]
    assert level.localities[0].weight == 7
    assert not by_priority(made, ("", "", ""))[0].has_local


@pytest.mark.parametrize(("text", "expected"), [("aa", 10), ("aa!", 7), ("a!", 0), ("aaa-!", 10), ("", 0)])
def test_effective_weight(text, expected):
    locality = Locality(weight=10)
    for each in endpoints(text):
        locality.add(each)
    assert effective_weight(locality, HEALTHY, 140) == pytest.approx(expected)
