"""What every report stands on: the site with its upstream, how often and how long to measure, and on whom."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from tests.benchmarks.cases import Case
from tests.benchmarks.console import progress
from tests.benchmarks.measure import LoadFailed
from tests.benchmarks.table import Table
from tests.benchmarks.targets import TARGETS, Site, Target, TargetFailed

Measurement = Callable[[], Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class Ground:
    """What was asked for on the command line. ``targets`` is empty where nobody chose any."""

    site: Site
    rounds: int
    duration_s: float
    requests: int
    idle: int
    targets: tuple[str, ...] = ()

    def chosen(self, default: tuple[str, ...], table: Table, case: Case) -> list[type[Target]]:
        """The targets of a report: what was asked for of what the report knows. Who is missing is said in the table."""
        found = []
        for name in default:
            if self.targets and name not in self.targets:
                continue
            missing = TARGETS[name].missing(case)
            if missing:
                table.notes.append(f"{name} was left out: {missing}")
            else:
                found.append(TARGETS[name])
        return found

    def in_turn(self, table: Table, measurements: Mapping[str, Measurement]) -> None:
        """Round after round each row of ``measurements`` in turn; a row that fails is out."""
        for number in range(self.rounds):
            for row, measurement in measurements.items():
                if row in table.failures:
                    continue
                progress(f"{table.title}: {row}, round {number + 1} of {self.rounds}")
                try:
                    table.add(row, measurement())
                except (TargetFailed, LoadFailed) as error:
                    table.fail(row, str(error))
        progress("")
