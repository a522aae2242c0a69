"""Which endpoint is chosen. Chance is counted over many picks with a seed."""

import random
from collections import Counter

import pytest

from forkproxy.config.build.load_balancing import SlowStart
from forkproxy.upstream import health
from tests.support.balancing import balancer, endpoint, picks
from tests.support.fakes import FakeLoop


def compile_picker(policy, endpoints, choice_count=2, **fields):
    made = balancer(endpoints, policy=policy, choice_count=choice_count, **fields)
    return lambda: made.pick()


@pytest.fixture(autouse=True)
def seed():
    random.seed(7)


@pytest.mark.parametrize("policy", ["ROUND_ROBIN", "LEAST_REQUEST", "RANDOM"])
class TestEveryPolicy:
    def test_nothing_to_choose(self, policy):
        assert compile_picker(policy, [])() is None

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


def test_full_scan_takes_one_of_the_least_busy():
    endpoints = [endpoint("a", active=2), endpoint("b", active=1), endpoint("c", active=1), endpoint("d", active=9)]
    counted = Counter(picks(compile_picker("LEAST_REQUEST", endpoints, full_scan=True), 1_000))
    assert set(counted) == {"b", "c"}
    assert 400 < counted["b"] < 600


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


@pytest.mark.parametrize(("bias", "share"), [(0.0, 3 / 4), (1.0, 3 / 6), (2.0, 3 / 12)])
def test_active_request_bias(bias, share):
    endpoints = [endpoint("a", 3, active=2), endpoint("b", 1, active=0)]
    got = Counter(picks(compile_picker("LEAST_REQUEST", endpoints, active_request_bias=bias), 4_000))["a"] / 4_000
    assert got == pytest.approx({0.0: 3 / 4, 1.0: 1 / 2, 2.0: 1 / 4}[bias], abs=0.01)
    assert share == {0.0: 3 / 4, 1.0: 1 / 2, 2.0: 1 / 4}[bias]


class TestSlowStart:
    def make(self, aggression=1.0, min_weight=0.1, **fields):
        self.loop = FakeLoop(now=1000.0)
        self.endpoints = [endpoint("old"), endpoint("new")]
        for each, since in zip(self.endpoints, (0.0, 1000.0), strict=True):
            each.healthy_since = since
        slow_start = SlowStart(window_s=100.0, aggression=aggression, min_weight=min_weight)
        self.balancer = balancer(self.endpoints, self.loop, slow_start=slow_start, **fields)

    def share(self):
        got = Counter(picks(self.balancer.pick, 2_200))
        return got["new"] / got["old"]

    def test_a_new_endpoint_gets_more_and_more(self):
        self.make()
        assert self.share() == pytest.approx(0.1, abs=0.01)  # not less than min_weight
        self.loop.now = 1050.0
        picks(self.balancer.pick, 50)
        assert self.share() == pytest.approx(0.5, abs=0.02)
        self.loop.now = 1090.0
        picks(self.balancer.pick, 50)
        assert self.share() == pytest.approx(0.9, abs=0.02)

    def test_aggression(self):
        self.make(aggression=2.0)
        self.loop.now = 1025.0
        picks(self.balancer.pick, 50)
        assert self.share() == pytest.approx(0.25**0.5, abs=0.02)

    def test_afterwards_it_costs_nothing(self):
        self.make()
        slow = self.balancer.pick
        self.loop.now = 1100.0
        picks(lambda: self.balancer.pick(), 2)
        assert self.balancer.pick is not slow
        assert Counter(picks(self.balancer.pick, 100)) == {"old": 50, "new": 50}

    def test_passing_checks_again_begins_it(self):
        self.make()
        self.endpoints[1].health_flags = health.FAILED_ACTIVE_HC
        self.balancer.balancer.recompile()
        assert set(picks(lambda: self.balancer.pick(), 10)) == {"old"}

    def test_with_least_request(self):
        self.make(policy="LEAST_REQUEST")
        self.endpoints[0].stats.rq_active = self.endpoints[1].stats.rq_active = 1
        self.loop.now = 1050.0
        assert self.share() == pytest.approx(0.5, abs=0.05)
