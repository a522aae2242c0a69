"""What a second worker brings. The proxies answer by themselves (direct_response), so that no upstream is the limit.

- "µs/request": CPU of the whole process tree, under requests one by one over 64 connections. It must not grow with the workers.
- "busiest %": the part of the workers' CPU time that the busiest one has; 50 is even.
- "by CPU": requests per second of CPU time of the busiest worker. That is the rate at which the first worker is saturated when
  each has a CPU for itself, whatever the generator takes here; its ratio is what two workers are against one.
- "r/s": the rate with 16 requests in each packet, and 50 headers in each request: of that, the generator has little to do. With
  four CPUs or more, workers and generator have their own, and this ratio is the plain truth; with less they share, and it is a
  lower bound.
"""

from __future__ import annotations

import contextlib
import os
import pathlib

from tests.benchmarks import measure as measuring
from tests.benchmarks.cases import Case
from tests.benchmarks.ground import Ground
from tests.benchmarks.table import Column, Table
from tests.benchmarks.targets import Envoy, Forkproxy, started
from tests.support import bootstrap

CONNECTIONS = 64
DEPTH = 16
HEADERS = 50
PIPELINE_LUA = f"""
local heads
function init(args)
  local head = "GET /ping HTTP/1.1\\r\\nHost: bench.example\\r\\nAccept: */*\\r\\n"
  for number = 1, {HEADERS} do
    head = head .. "X-Bench-Header-" .. number .. ": value-" .. number .. "\\r\\n"
  end
  heads = string.rep(head .. "\\r\\n", {DEPTH})
end
function request()
  return heads
end
"""
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
    one_by_one = Case("workers", connections=CONNECTIONS)
    piped = Case("workers-piped", connections=CONNECTIONS, lua=PIPELINE_LUA)
    luas = {case.name: case.write_lua(ground.site.directory) for case in (one_by_one, piped)}
    cpus = sorted(os.sched_getaffinity(0))
    generator = set(cpus[2:] or cpus)
    classes = ground.chosen(tuple(ANSWERING), table, one_by_one)

    def one(name: str, workers: int) -> dict[str, float]:
        target = ANSWERING[name](ground.site, one_by_one)
        target.concurrency, target.cpus = workers, set(cpus[:workers])
        with started(target):
            return _measured(target, ground.duration_s, generator, one_by_one, piped, luas)

    ground.in_turn(
        table,
        {
            f"{cls.name}, {workers}": lambda name=cls.name, workers=workers: one(name, workers)
            for cls in classes
            for workers in (1, 2)
        },
    )
    if len(generator) < 2 or generator & set(cpus[:2]):
        table.notes.append(f"{len(cpus)} CPUs: generator and workers share them; r/s of two workers is a lower bound")
    return [table, _ratios(table)]


def _measured(
    target: Envoy, seconds: float, generator: set[int], one_by_one: Case, piped: Case, luas: dict[str, pathlib.Path]
) -> dict[str, float]:
    lua = luas[one_by_one.name]
    measuring.run_wrk(target, one_by_one, 1.0, generator, lua)
    whole, each = measuring.cpu_seconds(target.pid), measuring.worker_seconds(target.pid)
    counted = measuring.run_wrk(target, one_by_one, seconds, generator, lua)
    whole = measuring.cpu_seconds(target.pid) - whole
    each = [now - before for now, before in zip(measuring.worker_seconds(target.pid), each, strict=True)]
    figures = {
        "cpu_us": whole * 1e6 / counted["requests"],
        "busiest": 100 * max(each) / sum(each),
        "by_cpu": counted["requests"] / max(each),
    }
    # Envoy ends a connection that brings more than two requests at a time which it answers itself: it has no rate then.
    with contextlib.suppress(measuring.LoadFailed):
        fast = measuring.run_wrk(target, piped, seconds, generator, luas[piped.name])
        figures["rps"] = fast["requests"] * 1e6 / fast["duration_us"]
    return figures


def _ratios(table: Table) -> Table:
    ratios = Table("two workers ÷ one", [Column("by_cpu", "by CPU", 2), Column("rps", "by r/s", 2)])
    rows = table.rows()
    for name in ANSWERING:
        one, two = rows.get(f"{name}, 1"), rows.get(f"{name}, 2")
        if one and two:
            ratios.add(name, {key: two[key] / one[key] for key in ("by_cpu", "rps") if key in one and key in two})
    return ratios
