"""Which endpoint is chosen. Chance is counted over many picks with a seed."""

import random
from collections import Counter

import pytest

from forkproxy.stats.groups import EndpointStats
from forkproxy.upstream.endpoint import Endpoint, ResolvedEndpoint
from forkproxy.upstream.load_balancer import candidates, compile_picker, pick_none


def endpoint(name, weight=1, priority=0, health="UNKNOWN", active=0):
    made = Endpoint(
        ResolvedEndpoint((name, 80), weight=weight, priority=priority, health_status=health),
        EndpointStats(),
        lambda _: None,
    )
    made.stats.rq_active = active
    return made


def names(endpoints):
    return [each.socket_address[0] for each in endpoints]


def picks(pick, number):
    return names([pick() for _ in range(number)])


@pytest.fixture(autouse=True)
def seed():
    random.seed(7)


@pytest.mark.parametrize("policy", ["ROUND_ROBIN", "LEAST_REQUEST", "RANDOM"])
class TestEveryPolicy:
    def test_nothing_to_choose(self, policy):
        assert compile_picker(policy, []) is pick_none
        assert pick_none() is None
        assert compile_picker(policy, [endpoint("a", health="DRAINING")])() is None

    def test_one(self, policy):
        only = endpoint("a")
        pick = compile_picker(policy, [only])
        assert [pick(), pick()] == [only, only]

    def test_all_get_some(self, policy):
        pick = compile_picker(policy, [endpoint(name) for name in "abc"])
        assert set(picks(pick, 100)) == set("abc")


def test_round_robin_goes_round():
    order = "".join(picks(compile_picker("ROUND_ROBIN", [endpoint(name) for name in "abc"]), 9))
    assert order in ("abcabcabc", "bcabcabca", "cabcabcab")


@pytest.mark.parametrize("weights", [(1, 1, 1), (3, 1, 1)])
def test_workers_start_elsewhere(weights):
    endpoints = [endpoint(name, weight) for name, weight in zip("abc", weights, strict=True)]
    firsts = {tuple(picks(compile_picker("ROUND_ROBIN", endpoints), 5)) for _ in range(50)}
    assert len({first[0] for first in firsts}) > 1


@pytest.mark.parametrize("weights", [(1, 2), (5, 3, 2), (1, 1, 98), (7, 7, 1), (128, 1)])
def test_weights_are_met_exactly_in_every_round(weights):
    endpoints = [endpoint(str(number), weight) for number, weight in enumerate(weights)]
    pick = compile_picker("ROUND_ROBIN", endpoints)
    total = sum(weights)
    for _ in range(5):
        counted = Counter(picks(pick, total))
        for number, weight in enumerate(weights):
            assert abs(counted[str(number)] - weight) <= 1
    counted = Counter(picks(pick, 100 * total))
    assert [round(counted[str(number)] / 100) for number in range(len(weights))] == list(weights)


def test_weights_are_mixed_not_in_blocks():
    order = "".join(picks(compile_picker("ROUND_ROBIN", [endpoint("a", 2), endpoint("b", 1)]), 30))
    assert "aaa" not in order
    assert "bb" not in order


def test_random_is_even_and_does_not_look_at_weights():
    counted = Counter(picks(compile_picker("RANDOM", [endpoint("a", 9), endpoint("b", 1)]), 10_000))
    assert 4_700 < counted["a"] < 5_300


def test_least_request_prefers_the_less_busy_of_two():
    busy, free = endpoint("a", active=5), endpoint("b", active=1)
    counted = Counter(picks(compile_picker("LEAST_REQUEST", [busy, free]), 10_000))
    assert 2_200 < counted["a"] < 2_800  # only when both draws hit it


def test_least_request_with_more_choices_is_stricter():
    endpoints = [endpoint("a", active=5), *[endpoint(f"b{number}", active=1) for number in range(3)]]
    two = Counter(picks(compile_picker("LEAST_REQUEST", endpoints, 2), 10_000))["a"]
    five = Counter(picks(compile_picker("LEAST_REQUEST", endpoints, 5), 10_000))["a"]
    assert five < two / 10


def test_least_request_looks_at_each_pick():
    first, second = endpoint("a"), endpoint("b")
    pick = compile_picker("LEAST_REQUEST", [first, second], 20)
    first.stats.rq_active = 3
    assert set(picks(pick, 20)) == {"b"}
    second.stats.rq_active = 9
    assert set(picks(pick, 20)) == {"a"}


def test_least_request_with_weights():
    endpoints = [endpoint("a", 3), endpoint("b", 1)]
    pick = compile_picker("LEAST_REQUEST", endpoints)
    assert 2_900 < Counter(picks(pick, 4_000))["a"] < 3_100
    endpoints[0].stats.rq_active = 5  # 3 / 6 against 1 / 1
    picks(pick, 50)
    assert 1_250 < Counter(picks(pick, 4_000))["a"] < 1_450


@pytest.mark.parametrize(
    ("endpoints", "chosen"),
    [
        ([("a", 0, "UNKNOWN"), ("b", 0, "HEALTHY")], "ab"),
        ([("a", 0, "UNHEALTHY"), ("b", 0, "HEALTHY")], "b"),
        ([("a", 0, "DRAINING"), ("b", 0, "HEALTHY")], "b"),
        ([("a", 0, "DEGRADED"), ("b", 0, "HEALTHY")], "b"),
        # panic: fewer than half are healthy, so health is ignored
        ([("a", 0, "UNHEALTHY"), ("b", 0, "UNHEALTHY"), ("c", 0, "HEALTHY")], "abc"),
        ([("a", 0, "UNHEALTHY"), ("b", 0, "TIMEOUT")], "ab"),
        # those that drain do not count
        ([("a", 0, "DRAINING"), ("b", 0, "DRAINING"), ("c", 0, "HEALTHY")], "c"),
        # priorities: the first that has enough healthy ones
        ([("a", 0, "UNKNOWN"), ("b", 1, "UNKNOWN")], "a"),
        ([("a", 0, "UNHEALTHY"), ("b", 1, "UNKNOWN")], "b"),
        ([("a", 2, "UNKNOWN"), ("b", 1, "UNKNOWN")], "b"),
        ([("a", 0, "UNHEALTHY"), ("b", 1, "UNHEALTHY")], "a"),
        ([("a", 0, "DRAINING"), ("b", 1, "UNKNOWN")], "b"),
        ([("a", 0, "DRAINING")], ""),
        ([], ""),
    ],
)
def test_candidates(endpoints, chosen):
    made = [endpoint(name, priority=priority, health=health) for name, priority, health in endpoints]
    assert "".join(names(candidates(made))) == chosen
