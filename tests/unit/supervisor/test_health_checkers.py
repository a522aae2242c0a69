"""What the supervisor makes of what health checkers report."""

import signal
from time import monotonic_ns
from types import SimpleNamespace

import pytest

from forkproxy.stats import slab as cells
from forkproxy.stats.counters import Registry
from forkproxy.stats.slab import Slab
from forkproxy.supervisor.health_checkers import CheckerHandle, HealthCheckers
from forkproxy.upstream import health
from tests.support.fakes import FakeLoop
from tests.support.playbook import cluster_config, make_cluster

ONE = "192.0.2.10:80"


class Run:
    def __init__(self, generation):
        self.generation = generation
        self.unchecked = {"up"}


class Rig:
    def __init__(self):
        self.told = []
        self.passed = []
        self.loop = FakeLoop()
        self.checkers = HealthCheckers(
            self.loop,
            Registry(),
            tell=lambda run, cluster, message: self.told.append((run, cluster, message)),
            on_passed=lambda *what: self.passed.append(what),
            is_newest=lambda run: True,
        )
        self.checkers.check = lambda now: None  # nothing is forked here
        self.cluster = make_cluster(cluster_config())
        generation = SimpleNamespace(health_checkers={"up": None}, clusters={"up": self.cluster})
        self.run = Run(generation)
        self.checkers.want([self.run])

    def message(self, op, run=None, **fields):
        self.checkers._on_message(run or self.run, {"op": op, "cluster": "up", **fields})


def test_a_change_is_kept_and_told():
    rig = Rig()
    rig.cluster.set_health_flags(ONE, set=health.FAILED_OUTLIER_CHECK | health.DEGRADED_ACTIVE_HC)
    rig.message("health", address=ONE, flags=health.FAILED_ACTIVE_HC)
    # What outlier detection found out is not the checker's to clear.
    assert rig.cluster.endpoints[0].health_flags == health.FAILED_ACTIVE_HC | health.FAILED_OUTLIER_CHECK
    ((run, cluster, message),) = rig.told
    assert (run, cluster, message["op"], message["address"]) == (rig.run, "up", "health", ONE)
    assert message["set"] == health.FAILED_ACTIVE_HC
    assert not message["clear"] & (health.FAILED_ACTIVE_HC | health.FAILED_OUTLIER_CHECK)


def test_what_changes_nothing_is_told_nobody():
    rig = Rig()
    rig.message("health", address=ONE, flags=0)
    rig.message("health", address="192.0.2.99:80", flags=health.FAILED_ACTIVE_HC)
    assert rig.told == []


def test_a_round_ends_the_wait():
    rig = Rig()
    rig.loop.running = True
    rig.message("checked")
    assert rig.run.unchecked == set()
    assert not rig.loop.running


def test_who_passed_is_told_to_outlier_detection():
    rig = Rig()
    rig.message("passed", address=ONE)
    assert rig.passed == [(rig.run, "up", ONE)]


@pytest.mark.parametrize("op", ["health", "checked", "passed"])
def test_a_generation_that_is_gone_says_nothing_any_more(op):
    rig = Rig()
    gone = Run(rig.run.generation)
    rig.message(op, run=gone, address=ONE, flags=health.FAILED_ACTIVE_HC)
    assert (rig.told, rig.passed, gone.unchecked) == ([], [], {"up"})


def test_only_generations_with_health_checks_have_a_process():
    rig = Rig()
    other = Run(SimpleNamespace(health_checkers={}))
    rig.checkers.want([other, rig.run])
    assert rig.checkers._wanted == [rig.run]


@pytest.mark.parametrize(("silent_s", "killed"), [(None, []), (5.0, []), (11.0, [signal.SIGKILL])])
def test_a_process_that_stands_still_is_killed(silent_s, killed):
    rig = Rig()
    del rig.checkers.check
    slab = Slab.create(1)
    if silent_s is not None:
        slab.cells[cells.HEARTBEAT_NS] = monotonic_ns() - int(silent_s * 1e9)
    signals = []
    rig.checkers._processes[1] = CheckerHandle(SimpleNamespace(signal=signals.append), rig.run, slab)
    rig.checkers.check(0.0)
    assert signals == killed
    slab.close()
