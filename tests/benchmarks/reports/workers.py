"""What a second worker brings. The proxies answer by themselves (direct_response), so that no upstream is the limit.

- "µs/request": CPU of the whole process tree, under requests one by one over 64 connections. It must not grow with the workers.
- "busiest %": the part of the workers' CPU time that the busiest one has; 50 is even.
- "by CPU": requests per second of CPU time of the busiest worker.
- "r/s": the rate. With four CPUs or more, workers and generator have their own. With less, a worker shares its CPU with a
  thread of the generator, one as well as two do: twice the workers have twice the CPUs, and the same share of them.
"""

from __future__ import annotations

import os
import pathlib

from tests.benchmarks import measure as measuring
from tests.benchmarks.cases import Case
from tests.benchmarks.ground import Ground
from tests.benchmarks.table import Column, Table
from tests.benchmarks.targets import Envoy, Forkproxy, started
from tests.support import bootstrap

CONNECTIONS = 64
ANSWER = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "pong"}}}


def _answering() -> bootstrap.Data:
    return bootstrap.bootstrap([bootstrap.hcm({"virtual_hosts": [bootstrap.vhost(ANSWER)]}, access_log=[])], [])


class AnsweringEnvoy(Envoy):
    """Envoy that needs no upstream."""

    def data(self) -> bootstrap.Data:
        return _answering()


class AnsweringForkproxy(Forkproxy):
    """forkproxy that needs no upstream."""

    def data(self) -> bootstrap.Data:
        return _answering()


ANSWERING = {"envoy": AnsweringEnvoy, "forkproxy": AnsweringForkproxy}


def measure(ground: Ground) -> list[Table]:
    """two workers against one: CPU per request, evenness, rate"""
    columns = [
        Column("cpu_us", "µs/request", 1),
        Column("busiest", "busiest %", 1),
        Column("by_cpu", "by CPU"),
        Column("rps", "r/s"),
    ]
    table = Table("workers", columns)
    case = Case("workers", connections=CONNECTIONS)
    lua = case.write_lua(ground.site.directory)
    cpus = sorted(os.sched_getaffinity(0))
    apart = set(cpus[2:]) if len(cpus) >= 4 else set()

    def one(name: str, workers: int) -> dict[str, float]:
        target = ANSWERING[name](ground.site, case)
        target.concurrency, target.cpus = workers, set(cpus[:workers])
        with started(target):
            return _measured(target, ground.duration_s, apart or target.cpus, lua)

    ground.in_turn(
        table,
        {
            f"{cls.name}, {workers}": lambda name=cls.name, workers=workers: one(name, workers)
            for cls in ground.chosen(tuple(ANSWERING), table, case)
            for workers in (1, 2)
        },
    )
    if not apart:
        table.notes.append(f"{len(cpus)} CPUs: every worker shares its own with a thread of the generator")
    return [table, _ratios(table)]


def _measured(target: Envoy, seconds: float, generator: set[int], lua: pathlib.Path) -> dict[str, float]:
    threads = target.concurrency
    measuring.run_wrk(target, target.case, 1.0, generator, lua, threads=threads)
    whole, each = measuring.cpu_seconds(target.pid), measuring.worker_seconds(target.pid)
    counted = measuring.run_wrk(target, target.case, seconds, generator, lua, threads=threads)
    whole = measuring.cpu_seconds(target.pid) - whole
    each = [now - before for now, before in zip(measuring.worker_seconds(target.pid), each, strict=True)]
    return {
        "cpu_us": whole * 1e6 / counted["requests"],
        "busiest": 100 * max(each) / sum(each),
        "by_cpu": counted["requests"] / max(each),
        "rps": counted["requests"] * 1e6 / counted["duration_us"],
    }


def _ratios(table: Table) -> Table:
    ratios = Table("two workers ÷ one", [Column("by_cpu", "by CPU", 2), Column("rps", "by r/s", 2)])
    rows = table.rows()
    for name in ANSWERING:
        one, two = rows.get(f"{name}, 1"), rows.get(f"{name}, 2")
        if one and two:
            ratios.add(name, {key: two[key] / one[key] for key in ("by_cpu", "rps") if key in one and key in two})
    return ratios
