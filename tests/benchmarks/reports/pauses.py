"""How long the garbage collector keeps a worker from its connections.

A filter in the worker (tests/benchmarks/gc_filter.py) notes every collection from the worker's start to its drain, while the
load runs: one request like the other, every request of its own, a new connection for each (plain and TLS), many routes, and
10,000 idle connections beside, whose objects the collector may have to walk. "longest" is that of all rounds and all three
generations; "of CPU" its like in CPU time, which the neighbours do not lengthen; "of gen 2" the longest full collection.
"""

from __future__ import annotations

import contextlib
import json
import pathlib

from tests.benchmarks import measure as measuring
from tests.benchmarks.cases import CASES, Case
from tests.benchmarks.ground import Ground
from tests.benchmarks.idle import affordable, idle_connections
from tests.benchmarks.measure import LoadFailed
from tests.benchmarks.table import Column, Table
from tests.benchmarks.targets import Forkproxy, started
from tests.support import bootstrap

NAMES = ("ping", "varied", "close", "tls-close", "routes", "routes-20000")
FILTER = "tests.benchmarks.gc_filter:GcPauses"


class Watched(Forkproxy):
    """forkproxy whose worker writes its pauses to a file when it ends."""

    @property
    def pauses(self) -> pathlib.Path:
        return self.directory / "pauses.json"

    def data(self) -> bootstrap.Data:
        data = super().data()
        hcm = data["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        config = {"@type": f"{bootstrap.TYPE}google.protobuf.Struct", "value": {"path": str(self.pauses)}}
        hcm["http_filters"].insert(0, {"name": FILTER, "typed_config": config})
        return data


def figures(text: str) -> dict[str, float]:
    """The figures of a row from what the filter wrote."""
    told = json.loads(text)
    by_generation = [sorted(each) for each in told["pauses"]]
    total_ms = sum(map(sum, by_generation)) * 1000
    longest = [1000 * each[-1] if each else 0.0 for each in by_generation]
    return {
        "longest_ms": max(longest),
        "cpu_ms": 1000 * max((max(each) for each in told["cpu"] if each), default=0.0),
        "full_ms": longest[2],
        "full": len(by_generation[2]),
        "collections": sum(map(len, by_generation)),
        "total_ms": total_ms,
        "share": total_ms / told["seconds"] / 10,
    }


def measure(ground: Ground) -> list[Table]:
    """the longest pause for garbage collection in a worker, and all together"""
    columns = [
        Column("longest_ms", "longest ms", 2, worst=True),
        Column("cpu_ms", "of CPU ms", 2, worst=True),
        Column("full_ms", "of gen 2 ms", 2, worst=True),
        Column("full", "gen 2"),
        Column("collections", "collections"),
        Column("total_ms", "total ms", 1),
        Column("share", "% of time", 3),
    ]
    table = Table("collector pauses", columns)
    known = {case.name: case for case in CASES}
    count = affordable(ground.idle)
    work = {name: (known[name], 0) for name in NAMES}
    work[f"ping beside {count} idle"] = (known["ping"], count)
    work[f"close beside {count} idle"] = (known["close"], count)

    def one(case: Case, idle: int) -> dict[str, float]:
        target = Watched(ground.site, case)
        target.pauses.unlink(missing_ok=True)
        with contextlib.ExitStack() as stack:
            stack.enter_context(started(target))
            if idle:
                stack.enter_context(idle_connections(target.pid, target.port, idle, asked=True))
            measuring.measure(target, case, ground.duration_s, case.write_lua(ground.site.directory))
        if not target.pauses.exists():
            raise LoadFailed("the worker has not told its pauses")
        return figures(target.pauses.read_text())

    ground.in_turn(table, {row: lambda case=case, idle=idle: one(case, idle) for row, (case, idle) in work.items()})
    return [table]
