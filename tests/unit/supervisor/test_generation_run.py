"""Which DNS clusters a generation must wait for."""

from types import SimpleNamespace

import pytest

from forkproxy.supervisor.generation_run import GenerationRun
from forkproxy.upstream.dns import Target

A = Target("a", "STRICT_DNS", (("a.test", 80),))
B = Target("b", "STRICT_DNS", (("b.test", 80),))
FOUND = [{"ip": "127.0.0.1", "port": 80, "index": 0}]


class FakeGeneration:
    def __init__(self):
        self.told = []
        self.clusters = {}
        self.health_checkers = {}

    def set_endpoints(self, cluster, endpoints):
        self.told.append((cluster, endpoints))


def run(*targets, before=None, deadline=10.0):
    generation_run = GenerationRun(1, None, FakeGeneration(), {}, dns_targets=list(targets))
    generation_run.begin_warming(before, deadline)
    return generation_run


def test_without_names_it_is_warm_at_once():
    assert run().is_warm(0.0)


def test_the_first_waits_for_every_name_but_not_for_ever():
    first = run(A, B)
    assert not first.is_warm(9.0)
    assert first.is_warm(10.0)
    first.unresolved.discard("a")
    assert not first.is_warm(9.0)
    first.unresolved.discard("b")
    assert first.is_warm(9.0)


def test_what_is_known_of_an_unchanged_cluster_is_taken_over():
    before = run(A, B)
    before.set_endpoints("a", FOUND)
    before.set_endpoints("b", [])
    after = run(A, B, before=before)
    assert after.generation.told == [("a", FOUND)]
    assert after.endpoints == {"a": FOUND}
    # "b" had no address: a better answer is worth the wait.
    assert after.unresolved == {"b"}


@pytest.mark.parametrize(
    "changed", [Target("a", "STRICT_DNS", (("other.test", 80),)), Target("a", "LOGICAL_DNS", A.hosts)]
)
def test_a_changed_cluster_is_resolved_anew(changed):
    before = run(A)
    before.set_endpoints("a", FOUND)
    after = run(changed, before=before)
    assert after.unresolved == {"a"}
    assert after.generation.told == []


class FakeCluster:
    def __init__(self, kind):
        self.config = SimpleNamespace(type=kind)
        self.adopted = self.adopted_health = None

    def adopt_slots(self, before):
        self.adopted = before

    def adopt_health(self, before):
        self.adopted_health = before


@pytest.mark.parametrize(("kind", "adopts"), [("STRICT_DNS", True), ("STATIC", False)])
def test_figures_stay_with_their_addresses(kind, adopts):
    before = run(A)
    before.generation.clusters["a"] = old = FakeCluster(kind)
    after = GenerationRun(2, None, FakeGeneration(), {}, dns_targets=[A])
    after.generation.clusters["a"] = new = FakeCluster("STRICT_DNS")
    after.begin_warming(before, 10.0)
    assert new.adopted is (old if adopts else None)
    assert new.adopted_health is old
