"""Outlier detection in the supervisor: what workers report, decided once for all of them; the event log.

A decision is a health flag, told to everybody as those of active health checks are (health_checkers.py). Detectors belong to
the generation that serves. One of an unchanged cluster goes on over a reload: who is ejected stays so, for as long as it was to.
"""

from __future__ import annotations

from functools import partial

from forkproxy import log
from forkproxy.net.loop import Loop
from forkproxy.net.timers import Timer
from forkproxy.stats.counters import Registry
from forkproxy.stats.groups import OutlierDetectionStats
from forkproxy.supervisor.fleet import Fleet
from forkproxy.supervisor.generation_run import GenerationRun
from forkproxy.supervisor.generations import Generations
from forkproxy.supervisor.health_checkers import HealthCheckers
from forkproxy.supervisor.slot import WorkerHandle
from forkproxy.upstream import health
from forkproxy.upstream.outlier_detection import Detector
from forkproxy.worker.control import Message

_log = log.get_logger("outlier")


class Outliers:
    """All detectors of the running generation."""

    def __init__(
        self, loop: Loop, registry: Registry, fleet: Fleet, health_checkers: HealthCheckers, generations: Generations
    ) -> None:
        self.detectors: dict[str, Detector] = {}
        """By cluster."""
        self._loop = loop
        self._registry = registry
        self._health_checkers = health_checkers
        self._generations = generations
        self._run: GenerationRun | None = None
        self._timers: list[Timer] = []
        fleet.serve("outlier", self._on_report)
        fleet.serve("immediate_fail", self._on_immediate_failure)

    def on_generation(self, run: GenerationRun) -> None:
        """``run`` is in force."""
        before, known = self._run, self.detectors
        self._run = run
        self._forget(before, run)
        run.generation.start_outlier_log(self._loop)
        if before is not None and before is not run:
            before.generation.stop_outlier_log()
        self.detectors = {}
        for name, cells in run.generation.outlier_cells.items():
            cluster = run.generation.clusters[name]
            config = cluster.config.outlier_detection
            assert config is not None
            detector = Detector(
                cluster,
                config,
                cells,
                self._registry.local_group(OutlierDetectionStats, _prefix(cluster.stat_name)),
                set_ejected=partial(self._set_ejected, name),
                now=self._loop_now,
                wall=self._loop.wall,
                log=run.generation.outlier_log,
            )
            if name in known and before is not None and before.generation.clusters[name].config == cluster.config:
                detector.adopt(known[name])
            self.detectors[name] = detector
            self._arm(detector)

    def _loop_now(self) -> float:
        return self._loop.now

    def _forget(self, before: GenerationRun | None, run: GenerationRun) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        if before is None:
            return
        kept = {run.generation.clusters[name].stat_name for name in run.generation.outlier_cells}
        for name in before.generation.outlier_cells:
            stat_name = before.generation.clusters[name].stat_name
            if stat_name not in kept:
                self._registry.forget_local(_prefix(stat_name))

    def _arm(self, detector: Detector) -> None:
        def on_interval() -> None:
            detector.on_interval()
            timer.arm(self._loop.now + detector.config.interval_s)

        timer = self._loop.timer(on_interval)
        timer.arm(self._loop.now + detector.config.interval_s)
        self._timers.append(timer)

    def on_membership(self, run: GenerationRun, cluster: str) -> None:
        """The endpoints of a cluster are others."""
        if run is self._run and cluster in self.detectors:
            self.detectors[cluster].look_for_members()

    def on_passed(self, _run: GenerationRun, cluster: str, address: str) -> None:
        """An endpoint that is ejected passed an active health check."""
        if cluster in self.detectors:
            self.detectors[cluster].on_passed(address)

    def reopen_log(self) -> None:
        """The event log is opened again under its name."""
        if self._run is not None:
            self._run.generation.reopen_outlier_log()

    def close(self) -> None:
        """The end: what the event log holds is written."""
        if self._run is not None:
            self._run.generation.stop_outlier_log()

    def _on_report(self, worker: WorkerHandle, message: Message) -> None:
        name = message["cluster"]
        detector = self.detectors.get(name)
        theirs = worker.run.generation.clusters.get(name)
        if detector is not None and theirs is not None and theirs.config == self._cluster_config(name):
            detector.on_consecutive(message["address"], message["kind"])

    def _cluster_config(self, name: str) -> object:
        assert self._run is not None
        return self._run.generation.clusters[name].config

    def _on_immediate_failure(self, worker: WorkerHandle, message: Message) -> None:
        self._health_checkers.tell(worker.run, message)

    def _set_ejected(self, name: str, address: str, ejected: bool) -> None:
        config = self._cluster_config(name)
        _log.info("endpoint ejected" if ejected else "endpoint taken back", cluster=name, endpoint=address)
        flag = health.FAILED_OUTLIER_CHECK
        for run in {self._generations.running, self._generations.newest}:
            if run is None or name not in run.generation.clusters or run.generation.clusters[name].config != config:
                continue
            if ejected:
                self._health_checkers.set_flags(run, name, address, set=flag)
            else:
                self._health_checkers.set_flags(run, name, address, clear=flag)
            self._health_checkers.tell(run, {"op": "ejected", "cluster": name, "address": address, "ejected": ejected})


def _prefix(stat_name: str) -> str:
    return f"cluster.{stat_name}.outlier_detection"
