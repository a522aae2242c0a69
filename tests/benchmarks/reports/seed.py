"""Rate and CPU by the number of connections, side by side.

GET /ping over 1 to 50 keep-alive connections, with one worker each. "CPU %" is of one core, user and system, of the whole
process tree over the time of the load; 100 means that the proxy's core was the limit, less that generator or upstream were.
All targets run all the time, and one of them has the load.
"""

from __future__ import annotations

import contextlib
import pathlib

from tests.benchmarks import measure as measuring
from tests.benchmarks.cases import Case
from tests.benchmarks.console import progress
from tests.benchmarks.ground import Ground
from tests.benchmarks.table import Column, Table
from tests.benchmarks.targets import Target, TargetFailed, started

CONNECTIONS = (1, 2, 4, 8, 16, 32, 50)
KNOWN = ("direct", "nginx", "haproxy", "envoy", "forkproxy")
DEFAULT = ("direct", "nginx", "envoy", "forkproxy")


def measure(ground: Ground) -> list[Table]:
    """requests per second and CPU % of GET /ping by 1 to 50 connections"""
    table = Table("GET /ping by keep-alive connections", [])
    lua = Case("ping").write_lua(ground.site.directory)
    with contextlib.ExitStack() as stack:
        targets: list[Target] = []
        for cls in ground.chosen(KNOWN if ground.targets else DEFAULT, table, Case("ping")):
            try:
                targets.append(stack.enter_context(started(cls(ground.site, Case("ping")))))
            except TargetFailed as error:
                table.fail(cls.name, str(error))
        for target in targets:
            table.columns += [Column(f"{target.name}_rps", f"{target.name} r/s"), Column(f"{target.name}_cpu", "CPU %")]
        for number in range(ground.rounds):
            for connections in CONNECTIONS:
                for target in targets:
                    progress(f"seed: {connections} connections, round {number + 1} of {ground.rounds}: {target.name}")
                    _measure(table, target, connections, ground, lua, warm_up=number == 0)
    progress("")
    return [table]


def _measure(
    table: Table, target: Target, connections: int, ground: Ground, lua: pathlib.Path, *, warm_up: bool
) -> None:
    row, keys = str(connections), (f"{target.name}_rps", f"{target.name}_cpu")
    if f"{row}, {target.name}" in table.failures:
        return
    case = Case("ping", connections=connections)
    try:
        sample = measuring.measure(target, case, ground.duration_s, lua, warm_up_s=1.0 if warm_up else 0.0)
    except measuring.LoadFailed as error:
        table.fail(f"{row}, {target.name}", str(error))
        table.forget(row, *keys)
        return
    table.add(row, dict(zip(keys, (sample.rps, sample.cpu_us * sample.rps / 1e4), strict=True)))
