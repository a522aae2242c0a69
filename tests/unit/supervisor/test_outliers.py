"""Detectors over reloads, and who is told their decisions."""

from types import SimpleNamespace

from forkproxy.config.build.outlier_detection import OutlierDetectionConfig
from forkproxy.stats.counters import Registry
from forkproxy.supervisor.outliers import Outliers
from forkproxy.upstream import health
from forkproxy.upstream.outlier_detection import CONSECUTIVE_5XX, EndpointCells
from tests.support.fakes import FakeLoop
from tests.support.playbook import cluster_config, make_cluster

ONE = "192.0.2.10:80"
OUTLIERS = OutlierDetectionConfig(max_ejection_percent=100, base_ejection_time_s=15.0)


class Run:
    def __init__(self, generation):
        self.generation = generation


class Rig:
    def __init__(self):
        self.loop = FakeLoop()
        self.registry = Registry()
        self.served = {}
        self.log = []
        self.flags = []
        self.told = []
        fleet = SimpleNamespace(serve=self.served.__setitem__)
        checkers = SimpleNamespace(set_flags=self.set_flags, tell=lambda run, message: self.told.append((run, message)))
        self.generations = SimpleNamespace(running=None, newest=None)
        self.outliers = Outliers(self.loop, self.registry, fleet, checkers, self.generations)

    def set_flags(self, run, cluster, address, *, set=0, clear=0):
        self.flags.append((run, set, clear))
        run.generation.clusters[cluster].set_health_flags(address, set=set, clear=clear)

    def make(self, outliers=OUTLIERS, **fields):
        config = cluster_config(endpoints=2, outlier_detection=outliers, **fields)
        cluster = make_cluster(config)
        cells = [EndpointCells(self.registry.shared, f"cluster.up.endpoint.{slot}") for slot in range(2)]
        generation = SimpleNamespace(
            clusters={"up": cluster},
            outlier_cells={"up": cells} if outliers else {},
            outlier_log=None,
            start_outlier_log=lambda loop: self.log.append("start"),
            stop_outlier_log=lambda: self.log.append("stop"),
            reopen_outlier_log=lambda: self.log.append("reopen"),
        )
        return Run(generation)

    def put_in_force(self, run):
        self.generations.running = self.generations.newest = run
        self.outliers.on_generation(run)
        return run

    def report(self, run, address=ONE):
        worker = SimpleNamespace(run=run)
        self.served["outlier"](worker, {"cluster": "up", "address": address, "kind": CONSECUTIVE_5XX})

    def stats(self):
        snapshot = self.registry.read([])
        return {name.rpartition(".")[2]: value for name, value in snapshot.gauges.items() if "outlier" in name}


def flags_of(run):
    return [each.health_flags for each in run.generation.clusters["up"].endpoints]


def test_a_report_ejects_everywhere():
    rig = Rig()
    run = rig.put_in_force(rig.make())
    newest = rig.generations.newest = rig.make()
    rig.report(run)
    assert flags_of(run) == flags_of(newest) == [health.FAILED_OUTLIER_CHECK, 0]
    ejected = {"op": "ejected", "cluster": "up", "address": ONE, "ejected": True}
    assert [message for _run, message in rig.told] == [ejected] * 2


def test_a_generation_with_another_cluster_of_that_name_is_let_be():
    rig = Rig()
    run = rig.put_in_force(rig.make())
    other = rig.generations.newest = rig.make(connect_timeout_s=9.0)
    rig.report(run)
    assert flags_of(other) == [0, 0]
    rig.report(other, "192.0.2.11:80")
    assert flags_of(run) == [health.FAILED_OUTLIER_CHECK, 0]


def test_there_may_be_no_newer_generation():
    rig = Rig()
    run = rig.put_in_force(rig.make())
    rig.generations.newest = None
    rig.report(run)
    assert flags_of(run) == [health.FAILED_OUTLIER_CHECK, 0]


def test_a_reload_of_an_unchanged_cluster_forgets_nothing():
    rig = Rig()
    rig.report(rig.put_in_force(rig.make()))
    second = rig.make()
    second.generation.clusters["up"].set_health_flags(ONE, set=health.FAILED_OUTLIER_CHECK)
    rig.put_in_force(second)
    assert rig.stats()["ejections_active"] == 1
    rig.loop.advance(10.0)
    assert flags_of(second) == [health.FAILED_OUTLIER_CHECK, 0]
    rig.loop.advance(10.0)
    assert flags_of(second) == [0, 0]
    assert rig.log == ["start", "start", "stop"]


def test_a_changed_cluster_begins_anew():
    rig = Rig()
    rig.report(rig.put_in_force(rig.make()))
    rig.put_in_force(rig.make(connect_timeout_s=9.0))
    assert rig.stats()["ejections_active"] == 0
    # The detector of before does nothing any more.
    decided = len(rig.flags)
    rig.loop.advance(60.0)
    assert len(rig.flags) == decided


def test_a_cluster_without_it_any_more_has_no_figures():
    rig = Rig()
    rig.report(rig.put_in_force(rig.make()))
    assert rig.stats()
    rig.put_in_force(rig.make(outliers=None))
    assert rig.stats() == {}
    assert rig.outliers.detectors == {}
    rig.outliers.on_passed(None, "up", ONE)
    rig.report(rig.generations.running)


def test_a_good_health_check_takes_back():
    rig = Rig()
    run = rig.put_in_force(rig.make())
    rig.report(run)
    rig.outliers.on_passed(run, "up", ONE)
    assert flags_of(run) == [0, 0]
    assert rig.told[-1][1]["ejected"] is False


def test_an_immediate_failure_goes_to_the_checker():
    rig = Rig()
    run = rig.put_in_force(rig.make())
    message = {"op": "immediate_fail", "cluster": "up", "address": ONE}
    rig.served["immediate_fail"](SimpleNamespace(run=run), message)
    assert rig.told == [(run, message)]


def test_the_event_log_is_opened_again_and_closed():
    rig = Rig()
    rig.outliers.reopen_log()
    rig.outliers.close()
    rig.put_in_force(rig.make())
    rig.outliers.reopen_log()
    rig.outliers.close()
    assert rig.log == ["start", "reopen", "stop"]


def test_endpoints_of_the_running_generation_are_followed():
    rig = Rig()
    run = rig.put_in_force(rig.make())
    cluster = run.generation.clusters["up"]
    cluster.set_endpoints([cluster.endpoints[0].config])
    rig.outliers.on_membership(rig.make(), "up")
    assert len(rig.outliers.detectors["up"].records) == 2
    rig.outliers.on_membership(run, "other")
    rig.outliers.on_membership(run, "up")
    assert len(rig.outliers.detectors["up"].records) == 1
