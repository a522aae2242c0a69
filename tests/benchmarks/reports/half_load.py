"""Latency at half load, when nobody is saturated and a queue is an exception.

First each proxy's saturation rate is measured (GET /ping, 32 keep-alive connections, as in the load benchmark). Then every
proxy gets half of Envoy's, and half of forkproxy's, at a fixed rate over 32 connections. Latencies count from when a request
was due (tests/benchmarks/generator.py). "late p99" is what the generator itself was late by: where it comes near the
latencies, they are the machine's and not the proxy's. "CPU %" is of one core.
"""

from __future__ import annotations

import time

from tests.benchmarks import measure as measuring
from tests.benchmarks.cases import Case
from tests.benchmarks.generator import Counted, Order, load
from tests.benchmarks.ground import Ground
from tests.benchmarks.table import Column, Table
from tests.benchmarks.targets import Target, started

KNOWN = ("nginx", "haproxy", "envoy", "forkproxy")
DEFAULT = ("envoy", "forkproxy")
HALVES_OF = ("envoy", "forkproxy")
LATENCIES = [
    Column("p50_ms", "p50 ms", 2),
    Column("p90_ms", "p90 ms", 2),
    Column("p99_ms", "p99 ms", 2),
    Column("p999_ms", "p99.9 ms", 2),
    Column("max_ms", "max ms", 1),
    Column("late_p99_ms", "late p99", 2),
]
"""What a table of latencies shows of ``figures``."""
WARM_UP_REQUESTS = 2000


def figures(counted: Counted) -> dict[str, float]:
    """The figures of a run, for a row of LATENCIES."""
    return {column.key: getattr(counted, column.key) for column in LATENCIES}


def saturation(ground: Ground, cls: type[Target]) -> float:
    """Requests per second that one worker answers at most. TargetFailed, LoadFailed."""
    case = Case("ping")
    with started(cls(ground.site, case)) as target:
        sample = measuring.measure(target, case, ground.duration_s, case.write_lua(ground.site.directory))
    return sample.rps


def paced(ground: Ground, target: Target, rate: float) -> dict[str, float]:
    """The figures of a running target under ``rate`` requests per second, warmed up."""
    cpu = ground.site.load_cpu
    load(Order(target.port, WARM_UP_REQUESTS), cpu)
    spent, begun = measuring.cpu_seconds(target.pid), time.monotonic()
    counted = load(Order(target.port, max(1, round(rate * ground.duration_s)), rate), cpu)
    spent, taken = measuring.cpu_seconds(target.pid) - spent, time.monotonic() - begun
    return {**figures(counted), "cpu": 100 * spent / taken, "requests": counted.requests}


def measure(ground: Ground) -> list[Table]:
    """p50 to p99.9 at a fixed rate: half of Envoy's saturation, and half of forkproxy's"""
    full = Table("saturation, GET /ping, 32 connections", [Column("rps", "requests/s")])
    classes = ground.chosen(KNOWN if ground.targets else DEFAULT, full, Case("ping"))
    ground.in_turn(full, {cls.name: lambda cls=cls: {"rps": saturation(ground, cls)} for cls in classes})
    tables = [full]
    for name in HALVES_OF:
        if name not in full.samples:
            continue
        rate = max(1.0, full.rows()[name]["rps"] / 2)
        table = Table(f"latency at half of {name}'s rate", [*LATENCIES, Column("cpu", "CPU %")])
        table.notes.append(f"{rate:.0f} requests a second for {ground.duration_s:g} s")

        def one(cls: type[Target], rate: float = rate) -> dict[str, float]:
            with started(cls(ground.site, Case("ping"))) as target:
                return paced(ground, target, rate)

        ground.in_turn(table, {cls.name: lambda cls=cls, one=one: one(cls) for cls in classes})
        tables.append(table)
    return tables
