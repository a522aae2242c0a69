"""What processes weigh, and what connections add. Sizes are steady from run to run: one round of them is enough.

- *processes*: PSS (memory shared with other processes counts in parts) of the whole tree when it has just started and after
  --requests requests, each with its own path and header values; RSS and private dirty pages of the worker. "alone" is the PSS
  that it has where nothing else runs the same program: this benchmark is an interpreter too.
- *growth*: RSS of the worker every 100,000 requests. Flat means that nothing is kept of a request.
- *further workers*: forkproxy with one and with four workers on two CPUs, after a load. What a further worker costs is the
  difference of the trees, by three; "private dirty" are the pages that it does not share.
- *idle connections*: PSS added per connection, by --idle of them, without any request and after one. The kernel's sockets are
  not in it. nginx has allocated its connections at start (about 400 bytes for each of those that it may have); what it
  adds is for requests.
- *beside idle connections*: the latencies of a load at half of the proxy's rate, without idle connections and with them. They
  have been idle for some seconds then: what their last bytes left to do, to the kernel as well, is done. Some machines have
  work with every open descriptor, now and then; how much shows when another instance, without a load, has the connections.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from functools import partial

from tests.benchmarks import measure as measuring
from tests.benchmarks.cases import Case
from tests.benchmarks.console import progress
from tests.benchmarks.generator import Order, load
from tests.benchmarks.ground import Ground
from tests.benchmarks.idle import affordable, idle_connections
from tests.benchmarks.measure import LoadFailed
from tests.benchmarks.reports import half_load
from tests.benchmarks.table import Column, Table
from tests.benchmarks.targets import Forkproxy, Nginx, Target, TargetFailed, started
from tests.support.proxy import process_tree

PROXIES = ("nginx", "envoy", "forkproxy")
STEP = 100_000
WORKERS = 4
SETTLE_S = 0.5
IDLE_FOR_S = 4.0


def workers(target: Target) -> list[int]:
    """The processes that have the traffic: children of the first one, or that one itself."""
    return process_tree(target.pid)[1:] or [target.pid]


def _rss_kib(target: Target) -> int:
    return max(measuring.memory_kib(pid, "Rss") for pid in workers(target))


def settled_pss(target: Target) -> int:
    """PSS of the tree in KiB once it no longer moves."""
    last = -1
    for _ in range(20):
        time.sleep(SETTLE_S)
        now = measuring.pss_kib(target.pid)
        if abs(now - last) <= 16:
            break
        last = now
    return now


def measure(ground: Ground) -> list[Table]:
    """PSS of processes, RSS over many requests, further workers, idle connections, latency beside idle connections"""
    processes = Table(
        "processes",
        [
            Column("idle_mib", "idle PSS MiB", 1),
            Column("idle_alone_mib", "idle alone MiB", 1),
            Column("pss_mib", "loaded PSS MiB", 1),
            Column("alone_mib", "loaded alone MiB", 1),
            Column("rss_mib", "worker RSS MiB", 1),
            Column("dirty_mib", "worker private MiB", 1),
        ],
        f"loaded: after {ground.requests} requests",
    )
    growth = Table("growth", [])
    for cls in ground.chosen(PROXIES, processes, Case("memory")):
        growth.columns.append(Column(cls.name, f"{cls.name} RSS KiB"))
        with _counts(processes, cls.name):
            _processes(ground, cls, processes, growth)
    return [processes, growth, _further(ground), _idle(ground), _beside(ground)]


@contextlib.contextmanager
def _counts(table: Table, row: str) -> Iterator[None]:
    progress(f"memory, {table.title}: {row}")
    try:
        yield
    except (TargetFailed, LoadFailed) as error:
        table.fail(row, str(error))
    progress("")


def _processes(ground: Ground, cls: type[Target], processes: Table, growth: Table) -> None:
    step = min(STEP, max(1, ground.requests // 2))
    with started(cls(ground.site, Case("memory"))) as target:
        idle, idle_alone = settled_pss(target), measuring.alone_kib(target.pid)
        done = 0
        growth.add("at start", {cls.name: _rss_kib(target)})
        while done < ground.requests:
            count = min(step, ground.requests - done)
            load(Order(target.port, count, varied=True, first=done), ground.site.load_cpu)
            done += count
            progress(f"memory, processes: {cls.name}, {done} requests")
            growth.add(f"{done} requests", {cls.name: _rss_kib(target)})
        pss, pids = settled_pss(target), workers(target)
        figures = {
            "idle_mib": idle,
            "idle_alone_mib": idle_alone,
            "pss_mib": pss,
            "alone_mib": measuring.alone_kib(target.pid),
            "rss_mib": _rss_kib(target),
            "dirty_mib": max(measuring.memory_kib(pid, "Private_Dirty") for pid in pids),
        }
        processes.add(cls.name, {key: kib / 1024 for key, kib in figures.items()})


class _Several(Forkproxy):
    """forkproxy with more workers than CPUs."""

    concurrency = WORKERS


def _further(ground: Ground) -> Table:
    columns = [
        Column("idle_mib", "idle alone MiB", 1),
        Column("loaded_mib", "loaded alone MiB", 1),
        Column("supervisor_mib", "supervisor private", 1),
        Column("dirty_mib", "worker private, most", 1),
        Column("least_mib", "least", 1),
    ]
    count = min(ground.requests, STEP)
    table = Table("further workers", columns, f"loaded: after {count} requests per worker")
    if ground.targets and "forkproxy" not in ground.targets:
        return table
    for cls in (Forkproxy, _Several):
        row = f"forkproxy, {cls.concurrency} worker{'s'[: cls.concurrency > 1]}"
        with _counts(table, row):
            target = cls(ground.site, Case(f"memory-{cls.concurrency}"))
            target.cpus = {ground.site.proxy_cpu, ground.site.load_cpu}
            with started(target):
                settled_pss(target)
                idle = measuring.alone_kib(target.pid)
                load(Order(target.port, count * cls.concurrency, connections=64, varied=True), ground.site.load_cpu)
                settled_pss(target)
                dirty = [measuring.memory_kib(pid, "Private_Dirty") for pid in workers(target)]
                figures = {
                    "idle_mib": idle,
                    "loaded_mib": measuring.alone_kib(target.pid),
                    "supervisor_mib": measuring.memory_kib(target.pid, "Private_Dirty"),
                    "dirty_mib": max(dirty),
                    "least_mib": min(dirty),
                }
                table.add(row, {key: kib / 1024 for key, kib in figures.items()})
    rows = list(table.rows().values())
    if len(rows) == 2:
        each = {key: (rows[1][key] - rows[0][key]) / (WORKERS - 1) for key in ("idle_mib", "loaded_mib")}
        table.add("each further worker", each)
    return table


def _roomy(cls: type[Target], count: int) -> type[Target]:
    # Only nginx says at start how many there may be, and closes idle ones when a sixteenth of that is left.
    if not issubclass(cls, Nginx):
        return cls
    return type("Roomy", (cls,), {"worker_connections": count * 5 // 4 + 200})


def _idle(ground: Ground) -> Table:
    count = affordable(ground.idle)
    columns = [Column("unasked_kib", "no request KiB", 2), Column("asked_kib", "after one KiB", 2)]
    table = Table("idle connections", columns, f"{count} of them; KiB of PSS for each")
    for cls in ground.chosen(PROXIES, table, Case("idle")):
        for key, asked in (("unasked_kib", False), ("asked_kib", True)):
            with _counts(table, cls.name), started(_roomy(cls, count)(ground.site, Case("idle"))) as target:
                # What is made at the first requests is not the connections'.
                load(Order(target.port, half_load.WARM_UP_REQUESTS), ground.site.load_cpu)
                before = settled_pss(target)
                with idle_connections(target.pid, target.port, count, asked=asked):
                    table.add(cls.name, {key: (settled_pss(target) - before) / count})
    return table


def _beside(ground: Ground) -> Table:
    count = affordable(ground.idle)
    table = Table("beside idle connections", [*half_load.LATENCIES, Column("cpu", "CPU %")])
    rates: dict[str, float] = {}
    for cls in ground.chosen(("envoy", "forkproxy"), table, Case("idle")):
        with _counts(table, cls.name):
            rates[cls.name] = half_load.saturation(ground, cls) / 2
    classes = {cls.name: cls for cls in ground.chosen(tuple(rates), Table("", []), Case("idle"))}

    def one(cls: type[Target], connections: int, elsewhere: bool) -> dict[str, float]:
        with contextlib.ExitStack() as stack:
            target = stack.enter_context(started(cls(ground.site, Case("idle"))))
            if connections:
                holder = stack.enter_context(started(cls(ground.site, Case("elsewhere")))) if elsewhere else target
                stack.enter_context(idle_connections(holder.pid, holder.port, connections, asked=True))
                time.sleep(IDLE_FOR_S)
            return half_load.paced(ground, target, rates[cls.name])

    ground.in_turn(
        table,
        {
            f"{name}, {text}": partial(one, cls, connections, elsewhere)
            for name, cls in classes.items()
            for text, connections, elsewhere in (
                ("no idle", 0, False), (f"{count} idle", count, False), (f"{count} elsewhere", count, True),
            )
        },
    )  # fmt: skip
    table.notes.append("elsewhere: another instance of the same program has them, so that only the machine does")
    table.notes += [f"{name} gets {rate:.0f} requests a second" for name, rate in rates.items()]
    return table
