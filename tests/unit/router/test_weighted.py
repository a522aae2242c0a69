"""Which weighted cluster a number, a hash or chance chooses: what Envoy 1.40 chose of the same weights."""

import pytest

from forkproxy.config.build.core import HeaderMutations
from forkproxy.config.build.hash_policy import HashPolicy
from forkproxy.config.build.route import ForwardAction, WeightedCluster
from forkproxy.router.weighted import compile_pick
from tests.unit.router.fakes import WHERE, FakeStream

CLUSTERS = tuple(WeightedCluster(name, weight, HeaderMutations()) for name, weight in (("a", 10), ("b", 0), ("c", 90)))


def pick(**more):
    return compile_pick(ForwardAction(weighted_clusters=CLUSTERS, **more), ("a", "b", "c"), WHERE)


@pytest.mark.parametrize(
    ("number", "chosen"),
    [(b"0", "a"), (b"9", "a"), (b"10", "c"), (b"99", "c"), (b"105", "a"), (b"+5", "a"), (b"18446744073709551615", "c")],
)
def test_a_number_chooses(number, chosen):
    by_number = pick(weighted_header="x-n")
    assert {by_number(FakeStream(headers=[(b"x-n", number)])) for _ in range(20)} == {chosen}


@pytest.mark.parametrize("values", [[], [b"1", b"1"], [b"x"], [b"-1"], [b"18446744073709551616"], [b"9" * 5000]])
def test_what_is_no_number_is_left_to_chance(values):
    by_number = pick(weighted_header="x-n")
    stream = FakeStream(headers=[(b"x-n", value) for value in values])
    assert {by_number(stream) for _ in range(300)} == {"a", "c"}


def test_the_hash_chooses_and_chance_without_one():
    by_hash = pick(weighted_by_hash=True, hash_policies=(HashPolicy("header", "x-h"),))
    for value in (b"0", b"1", b"2"):
        assert len({by_hash(FakeStream(headers=[(b"x-h", value)])) for _ in range(20)}) == 1
    assert {by_hash(FakeStream(headers=[(b"x-h", b"%d" % n)])) for n in range(100)} == {"a", "c"}
    assert {by_hash(FakeStream()) for _ in range(300)} == {"a", "c"}
