"""Rings and tables: what always holds of them. Whether they are Envoy's, tests/conformance/test_hashing.py asks Envoy."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkproxy.stats.groups import ClusterStats
from forkproxy.upstream import consistent_hashing
from forkproxy.upstream.consistent_hashing import TableCache, bounded, hash_key, maglev, normalised_shares, ring
from forkproxy.upstream.hashing import murmurhash2, xxhash64
from forkproxy.upstream.levels import by_priority
from tests.support.balancing import endpoint

_draw = random.Random(4)
KEYS = [_draw.getrandbits(64) for _ in range(400)]


def shares(*weights):
    total = sum(weights)
    return [(endpoint(f"e{number}", weight), weight / total) for number, weight in enumerate(weights)]


def make_ring(parts, min_size=1024, max_size=1 << 23, function=xxhash64):
    return ring(parts, min_size=min_size, max_size=max_size, function=function, use_hostname=False)


def make_maglev(parts, table_size=251):
    return maglev(parts, table_size=table_size, use_hostname=False)


def placed(choose):
    return [choose(key, 0) for key in KEYS]


@pytest.mark.parametrize("make", [make_ring, make_maglev])
def test_nobody(make):
    choose, figures = make([])
    assert choose(5, 0) is None
    assert figures == {}


@pytest.mark.parametrize("function", [xxhash64, murmurhash2])
def test_who_leaves_a_ring_takes_nobody_else_along(function):
    parts = shares(1, 1, 1, 1)
    before = placed(make_ring(parts, function=function)[0])
    gone = parts.pop(1)[0]
    after = placed(make_ring([(each, 1 / 3) for each, _ in parts], min_size=768, function=function)[0])
    assert [one for one, other in zip(before, after, strict=True) if one is not other and one is not gone] == []
    assert gone not in after


def test_who_leaves_a_maglev_table_takes_few_along():
    parts = shares(*[1] * 10)
    before = placed(make_maglev(parts, 5003)[0])
    gone = parts.pop(4)[0]
    after = placed(make_maglev([(each, 1 / 9) for each, _ in parts], 5003)[0])
    moved = sum(1 for one, other in zip(before, after, strict=True) if one is not other and one is not gone)
    assert moved < 0.1 * len(KEYS)


@pytest.mark.parametrize("make", [lambda parts: make_ring(parts, 4096), lambda parts: make_maglev(parts, 5003)])
def test_weights(make):
    parts = shares(1, 2, 5)
    choose, _ = make(parts)
    counted = Counter(choose(random.Random(number).getrandbits(64), 0).weight for number in range(8000))
    for weight in (1, 2, 5):
        assert counted[weight] == pytest.approx(weight * 1000, rel=0.2)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(1, 60), st.integers(0, 60))
def test_the_size_of_a_ring(weights, min_size, more):
    parts = shares(*weights)
    _, figures = make_ring(parts, min_size, min_size + more)
    least = min(share for _, share in parts)
    assert figures["size"] <= max(min_size + more, len(weights)) + 1
    assert figures["min_hashes_per_host"] <= figures["max_hashes_per_host"] <= figures["size"]
    if round(least * min_size) >= 1 and more == 60:
        assert figures["min_hashes_per_host"] >= 1


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_every_place_of_a_maglev_table_is_filled(weights):
    parts = shares(*weights)
    choose, figures = make_maglev(parts, 101)
    counted = Counter(choose(place, 0) for place in range(101))
    assert counted.total() == 101
    assert figures == {"min_entries_per_host": min(counted[each] for each, _ in parts),
                       "max_entries_per_host": max(counted.values())}  # fmt: skip
    for each, share in parts:
        assert abs(counted[each] - share * 101) <= len(parts) + 1


def test_the_order_of_endpoints_does_not_matter():
    parts = shares(1, 2, 3)
    assert placed(make_maglev(parts)[0]) == placed(make_maglev(parts[::-1])[0])
    assert placed(make_ring(parts)[0]) == placed(make_ring(parts[::-1])[0])


@pytest.mark.parametrize("make", [make_ring, make_maglev])
def test_further_attempts_go_elsewhere(make):
    choose, _ = make(shares(1, 1, 1, 1))
    for key in KEYS[:20]:
        assert len({choose(key, attempt) for attempt in range(40)}) == 4


def test_a_ring_is_searched_as_a_circle(monkeypatch):
    numbers = iter([10, 20, 30, 40])
    parts = shares(1, 1)
    choose, _ = make_ring(parts, 4, 4, lambda _key: next(numbers))
    first, second = (each for each, _ in parts)
    assert [choose(key, 0) for key in (0, 10, 11, 20, 21, 40, 41)] == [
        *(first, first, first, first),
        *(second, second, first),
    ]
    assert [choose(35, attempt) for attempt in range(4)] == [second, first, first, second]


@pytest.mark.parametrize(
    ("fields", "use_hostname", "key"),
    [
        ({}, False, b"e:80"),
        ({"hostname": "h"}, False, b"e:80"),
        ({"hostname": "h"}, True, b"h"),
        ({"metadata": {"hash_key": "k"}, "hostname": "h"}, True, b"k"),
        ({"metadata": {"hash_key": 5}}, False, b"e:80"),
        ({"metadata": {"other": "k"}}, False, b"e:80"),
    ],
)
def test_what_an_endpoint_is_hashed_by(fields, use_hostname, key):
    assert hash_key(endpoint("e", **fields), use_hostname=use_hostname) == key


def test_shares():
    made = [
        endpoint("a", 1, locality="x", locality_weight=3),
        endpoint("b", 3, locality="x", locality_weight=3),
        endpoint("c", 1, locality="y", locality_weight=1),
        endpoint("d", 1, locality="y", locality_weight=1, flags=1),
        endpoint("e", 1, locality="z"),
    ]
    (level,) = by_priority(made)

    def found(**options):
        return {each.address[0]: share for each, share in normalised_shares(level, **options)}

    assert found(in_panic=False, locality_weighted=False) == pytest.approx(
        {"a": 1 / 6, "b": 3 / 6, "c": 1 / 6, "e": 1 / 6}
    )
    assert found(in_panic=True, locality_weighted=False) == pytest.approx(
        {"a": 1 / 7, "b": 3 / 7, "c": 1 / 7, "d": 1 / 7, "e": 1 / 7}
    )
    assert found(in_panic=False, locality_weighted=True) == pytest.approx({"a": 3 / 16, "b": 9 / 16, "c": 1 / 4})
    assert found(in_panic=True, locality_weighted=True) == pytest.approx(
        {"a": 3 / 16, "b": 9 / 16, "c": 1 / 8, "d": 1 / 8}
    )


def test_tables_are_kept_for_a_while():
    made = []

    def make(parts):
        made.append(len(parts))
        return make_maglev(parts)

    parts = shares(1, 1, 1)
    cache = TableCache(2)
    whole = cache.get(parts, use_hostname=False, make=make)
    less = cache.get(parts[:2], use_hostname=False, make=make)
    assert cache.get(list(parts), use_hostname=False, make=make) == whole
    assert cache.get(parts[:2], use_hostname=False, make=make) == less
    assert made == [3, 2]
    cache.get(parts[:1], use_hostname=False, make=make)  # now the whole is the one not asked for the longest
    assert cache.get(parts[:2], use_hostname=False, make=make) == less
    cache.get(parts, use_hostname=False, make=make)
    assert made == [3, 2, 1, 3]
    parts[0][0].lb_metadata = {"hash_key": "other"}
    cache.get(parts, use_hostname=False, make=make)
    assert made == [3, 2, 1, 3, 3]


class TestBoundedLoad:
    def make(self, *active, factor=150):
        self.parts = shares(*[1] * len(active))
        self.stats = ClusterStats()
        self.stats.upstream_rq_active = sum(active)
        for (each, _), number in zip(self.parts, active, strict=True):
            each.stats.rq_active = number
        self.choose = bounded(self.first, self.parts, factor, self.stats)

    def first(self, hash_, attempt):
        return self.parts[0][0]

    def index(self, hash_):
        return [each for each, _ in self.parts].index(self.choose(hash_, 0))

    def test_within_its_share(self):
        self.make(3, 2, 3)  # 9 requests times 1.5 over 3 are 4.5
        assert {self.index(key) for key in KEYS[:20]} == {0}

    def test_beyond_it_the_hash_finds_another_one(self):
        self.make(9, 0, 0, 0)
        found = [self.index(key) for key in KEYS[:60]]
        assert set(found) == {1, 2, 3}
        assert found == [self.index(key) for key in KEYS[:60]]

    def test_all_overloaded_the_least_is_taken(self):
        self.make(60, 60, 60, 20, factor=100)
        self.stats.upstream_rq_active = 40
        assert {self.index(key) for key in KEYS[:20]} == {3}

    def test_nobody(self):
        self.make(1)
        self.choose = bounded(lambda _hash, _attempt: None, self.parts, 150, self.stats)
        assert self.choose(1, 0) is None


def test_the_generator_is_the_standards():
    # C++ standard, [rand.predef]: the 10,000th number of a default-constructed mt19937.
    draw = consistent_hashing._mersenne_twister(5489)
    assert [draw() for _ in range(10_000)][-1] == 4123659995
