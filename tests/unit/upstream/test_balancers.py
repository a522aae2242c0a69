"""Priorities, localities, zones and what a pick brings with it."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkproxy.config.build.load_balancing import ZoneAware
from forkproxy.upstream import health
from forkproxy.upstream.balancers import PickContext
from forkproxy.upstream.levels import Loads, by_priority, reckon_loads
from forkproxy.upstream.load_balancer import LoadBalancer
from tests.support.balancing import BAD, DEGRADED, balancer, endpoint, endpoints, names, picks


def share(made, name, number=4000):
    counted = Counter(picks(made.pick, number))
    return sum(count for host, count in counted.items() if host and host.startswith(name)) / number


@pytest.mark.parametrize("policy", ["ROUND_ROBIN", "LEAST_REQUEST", "RANDOM", "RING_HASH", "MAGLEV"])
class TestEveryPolicy:
    def make(self, text, policy, **config):
        return balancer(endpoints(text), policy=policy, min_ring_size=64, table_size=251, **config)

    def test_priorities(self, policy):
        made = self.make("aa!a!a aa", policy)
        assert share(made, "p0") == pytest.approx(0.7, abs=0.03)
        assert set(picks(made.pick, 300)) == {"p0e0", "p0e3", "p1e0", "p1e1"}

    def test_panic(self, policy):
        made = self.make("aa!a!", policy)
        assert set(picks(made.pick, 200)) == {"p0e0", "p0e1", "p0e2"}
        assert made.stats.lb_healthy_panic == 200

    def test_never_in_panic(self, policy):
        made = self.make("a!a!", policy, panic_threshold=0)
        assert set(picks(made.pick, 20)) == {None}
        assert made.stats.lb_healthy_panic == 0

    def test_nobody(self, policy):
        assert self.make("", policy).pick() is None

    def test_endpoints_to_avoid(self, policy):
        made = self.make("aaaa", policy)
        avoided = made.balancer._endpoints[:3]
        for number in range(40):
            context = PickContext(number * 977, rejects=avoided.__contains__, attempts=100)
            assert names([made.choose(context)]) == ["p0e3"]

    def test_who_is_to_be_avoided_is_better_than_nobody(self, policy):
        made = self.make("a", policy)
        context = PickContext(5, rejects=lambda _: True, attempts=3)
        assert names([made.choose(context)]) == ["p0e0"]


def test_the_hash_chooses_the_priority_too():
    made = balancer(endpoints("aa! aa!"), policy="MAGLEV", table_size=251)
    for hash_ in range(300):
        (name,) = names([made.choose(PickContext(hash_))])
        assert name.startswith("p0" if hash_ % 100 < 70 else "p1")


def test_degraded_endpoints_get_what_is_left():
    made = balancer([endpoint("good"), endpoint("bad", flags=BAD), endpoint("so-so", flags=DEGRADED)])
    assert share(made, "so-so") == pytest.approx(0.5, abs=0.03)
    assert set(picks(made.pick, 200)) == {"good", "so-so"}


def test_other_loads_than_the_healths():
    made = balancer(endpoints("aa aa"))
    asked = []

    def adjust(levels, loads):
        asked.append((len(levels), loads.healthy))
        return Loads([0, 100], [0, 0], loads.panic)

    context = PickContext(adjust_loads=adjust)
    assert {names([made.choose(context)])[0] for _ in range(10)} == {"p1e0", "p1e1"}
    assert asked[0] == (2, [100, 0])
    context = PickContext(adjust_loads=lambda _levels, loads: loads)
    assert {names([made.choose(context)])[0] for _ in range(10)} == {"p0e0", "p0e1"}


def localities(spec, **fields):
    """Endpoints of "x3:aa y1:a!": zone, weight, endpoints."""
    made = []
    for word in spec.split(" "):
        name, _, letters = word.partition(":")
        for each in endpoints(letters):
            number = len(made)
            zone, weight = name[0], int(name[1:] or 0)
            made.append(
                endpoint(f"{zone}{number}", locality=zone, locality_weight=weight, flags=each.health_flags, **fields)
            )
    return made


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("x3:aa y1:aaa", 3 / 4),
        ("x3:aa! y1:a", 2.1 / 3.1),
        ("x3:a!a! y1:aa", 0),
        ("x:aa y1:a", 0),
        ("x1:aaa y1:a", 1 / 2),
    ],
)
def test_localities_by_weight(spec, expected):
    made = balancer(localities(spec), locality_weighted=True)
    assert share(made, "x") == pytest.approx(expected, abs=0.01)


def test_without_any_locality_weight_all_are_equal():
    made = balancer(localities("x:a y:aaa"), locality_weighted=True)
    assert share(made, "x") == pytest.approx(1 / 4, abs=0.01)


class TestZones:
    def make(self, spec, own, node="x", panic=False, **zone_aware):
        self.told = []
        local = balancer(localities(own))
        self.local = local.balancer
        made = balancer(localities(spec), zone_aware=ZoneAware(min_cluster_size=1, **zone_aware))
        made.balancer.set_locality(("", node, ""), self.local)
        made.pick()
        return made

    def test_all_stays_when_the_zone_can_take_it(self):
        made = self.make("x:aa y:aa", "x:a y:a")
        assert share(made, "x") == 1.0
        assert made.stats.lb_zone_routing_all_directly == 4001

    def test_what_it_cannot_take_goes_where_there_is_room(self):
        # We send half of all, our zone can take a sixth: a third of ours stays, two thirds go to z, which has all the room.
        made = self.make("x:a y:aa z:aaa", "x:aaa y:aa z:a")
        counted = Counter(name[0] for name in picks(made.pick, 6000))
        assert counted["x"] / 6000 == pytest.approx(1 / 3, abs=0.03)
        assert counted["z"] / 6000 == pytest.approx(2 / 3, abs=0.03)
        assert made.stats.lb_zone_routing_sampled + made.stats.lb_zone_routing_cross_zone == 6001

    @pytest.mark.parametrize(
        ("spec", "own", "options", "counter"),
        [
            ("x:aaaa", "x:a", {}, None),
            ("x:aa y:aa", "y:a", {}, "lb_local_cluster_not_ok"),
            ("x:aa y:aa", "x:a y:a", {"min_cluster_size": 5}, "lb_zone_cluster_too_small"),
        ],
    )
    def test_when_zones_do_not_matter(self, spec, own, options, counter):
        local = balancer(localities(own))
        made = balancer(localities(spec), zone_aware=ZoneAware(**{"min_cluster_size": 1, **options}))
        made.balancer.set_locality(("", "x", ""), local.balancer)
        assert len(set(picks(lambda: made.pick(), 8))) == 4
        assert made.stats.lb_recalculate_zone_structures == 1
        if counter:
            assert getattr(made.stats, counter) == 1

    def test_half_of_the_time(self):
        made = self.make("x:aa y:aa", "x:a y:a", routing_percent=50)
        assert share(made, "x") == pytest.approx(0.75, abs=0.03)

    def test_by_force(self):
        made = self.make("x:a y:aaa", "x:aaa y:a", force_local_min_size=1)
        assert share(made, "x") == 1.0
        made = self.make("x:a y:aaa", "x:aaa y:a", force_local_min_size=2)
        assert share(made, "x") < 0.5

    def test_by_weight(self):
        upstream = [*localities("x:a", weight=6), *localities("y:aaa", weight=2)]
        own = localities("x:a y:a")
        made = balancer(upstream, zone_aware=ZoneAware(min_cluster_size=1, by_weight=True))
        made.balancer.set_locality(("", "x", ""), balancer(own).balancer)
        made.pick()
        assert share(made, "x") == 1.0

    @pytest.mark.parametrize(("fails", "expected"), [(False, 4), (True, 0)])
    def test_our_own_zone_in_panic(self, fails, expected):
        made = self.make("x:aa y:aa", "x:a y:a!a!", fail_traffic_on_panic=fails)
        assert len(set(picks(made.pick, 40)) - {None}) == expected
        assert made.stats.lb_local_cluster_not_ok >= 40

    def test_changes_of_the_local_cluster_count(self):
        made = self.make("x:aa y:aa", "x:a y:a")
        assert share(made, "x") == 1.0
        self.local.set_endpoints(localities("x:aaa y:a"))
        assert made.pick() is not None
        assert share(made, "x") < 0.9
        assert made.stats.lb_recalculate_zone_structures == 2


@pytest.mark.parametrize(("fails", "expected"), [(False, {"p0e0", "p0e1", "p0e2"}), (True, {None})])
def test_fail_traffic_on_panic(fails, expected):
    made = balancer(endpoints("aa!a!"), zone_aware=ZoneAware(fail_traffic_on_panic=fails))
    assert set(picks(made.pick, 30)) == expected
    assert made.stats.lb_healthy_panic == 30


FLAGS = st.sampled_from([0, 0, 0, BAD, DEGRADED, health.EDS_STATUS_DRAINING, health.PENDING_ACTIVE_HC | BAD])
ENDPOINTS = st.lists(st.tuples(st.integers(0, 2), st.sampled_from("xyz"), st.integers(1, 5), FLAGS), max_size=12)


@given(
    ENDPOINTS,
    st.sampled_from(["ROUND_ROBIN", "LEAST_REQUEST", "RANDOM", "RING_HASH", "MAGLEV"]),
    st.booleans(),
    st.sampled_from([0, 50, 100]),
    st.booleans(),
)
def test_whoever_is_chosen_may_be(spec, policy, locality_weighted, threshold, zones):
    made = [
        endpoint(f"e{number}", weight, priority, flags, locality=zone, locality_weight="xyz".index(zone))
        for number, (priority, zone, weight, flags) in enumerate(spec)
    ]
    fields = {"locality_weighted": locality_weighted, "panic_threshold": threshold, "zone_aware": ZoneAware(100, 1)}
    found = balancer(made, policy=policy, min_ring_size=16, table_size=31, **fields)
    if zones:
        found.balancer.set_locality(("", "x", ""), balancer(localities("x:a y:aa")).balancer)
    levels = by_priority(made)
    panic = reckon_loads(levels, panic_threshold=threshold).panic
    for number in range(12):
        chosen = found.choose(PickContext(number * 7919)) if number % 2 else found.pick()
        if chosen is None:
            continue
        assert chosen in made
        if not panic[chosen.config.priority]:
            assert health.coarse(chosen.health_flags) != health.UNHEALTHY
        if locality_weighted and policy in ("RING_HASH", "MAGLEV"):
            assert chosen.config.locality_weight > 0
    if made and all(not each.health_flags for each in made) and not locality_weighted:
        assert found.pick() is not None


def test_a_balancer_is_made_when_it_is_needed():
    used = []
    made = balancer(endpoints("aa"))
    made.balancer = LoadBalancer(made.balancer.config, made.stats, used.append)
    made.balancer.set_endpoints(endpoints("aa"))
    assert made.balancer._balancer is None
    assert used[-1]() is not None
    assert made.balancer._balancer is not None
    assert made.balancer.choose(PickContext()) is not None
