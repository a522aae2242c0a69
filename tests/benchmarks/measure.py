"""One measurement: put load on a target and divide the CPU time of its whole process tree by the requests counted."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import statistics
import subprocess
from typing import Any

from tests.benchmarks.cases import Case
from tests.benchmarks.targets import Target
from tests.support.proxy import process_tree

TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


class LoadFailed(RuntimeError):
    """A request failed: the measurement does not count."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """One measurement. CPU in microseconds per request, rate in requests per second, memory as PSS in KiB."""

    cpu_us: float
    rps: float
    p50_ms: float
    p99_ms: float
    requests: int
    pss_kib: int


def cpu_seconds(pid: int) -> float:
    """User and system time of `pid`, its living descendants, and the dead ones they have reaped."""
    total = 0
    for each in process_tree(pid):
        try:
            fields = _stat(pathlib.Path(f"/proc/{each}/stat"))
        except OSError:
            # It ended between the listing and the reading; its parent has its time.
            continue
        total += sum(int(field) for field in fields[11:15])
    return total * TICK_S


def worker_seconds(pid: int) -> list[float]:
    """User and system time of every worker of a proxy: the children of ``pid``, or Envoy's threads."""
    workers = [pathlib.Path(f"/proc/{child}") for child in process_tree(pid)[1:]]
    if not workers:
        tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
        workers = [task for task in tasks if (task / "comm").read_text().startswith("wrk:worker")]
    return [sum(int(field) for field in _stat(worker / "stat")[11:13]) * TICK_S for worker in sorted(workers)]


def _stat(path: pathlib.Path) -> list[str]:
    # The fields behind the program's name, which may have spaces.
    return path.read_text().rpartition(")")[2].split()


def memory_kib(pid: int, what: str) -> int:
    """``Pss``, ``Rss`` or ``Private_Dirty`` of one process; 0 for one that is gone."""
    try:
        text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    found = re.search(rf"^{what}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) if found else 0


def pss_kib(pid: int) -> int:
    """Proportional set size of the tree."""
    return sum(memory_kib(each, "Pss") for each in process_tree(pid))


def alone_kib(pid: int) -> int:
    """What the PSS of the tree would be if nobody else ran the same programs and libraries.

    PSS halves the pages of an interpreter that this benchmark runs too. Here a file's pages count once, wholly.
    """
    total = 0
    files: dict[tuple[str, str], int] = {}
    for each in process_tree(pid):
        total += memory_kib(each, "Pss_Anon") + memory_kib(each, "Pss_Shmem")
        try:
            text = pathlib.Path(f"/proc/{each}/smaps").read_text()
        except OSError:
            continue
        for mapping, kib in file_pages_kib(text).items():
            files[mapping] = max(files.get(mapping, 0), kib)
    return total + sum(files.values())


def file_pages_kib(smaps: str) -> dict[tuple[str, str], int]:
    """The resident pages of files, by path and offset, as /proc/PID/smaps has them; without those that were copied."""
    found: dict[tuple[str, str], int] = {}
    mapping = None
    for line in smaps.splitlines():
        fields = line.split(None, 5)
        if not fields[0].endswith(":"):
            # Shared memory has a path too, but no file.
            is_file = len(fields) == 6 and fields[5].startswith("/") and not fields[5].endswith("(deleted)")
            mapping = (fields[5], fields[2]) if is_file else None
        elif mapping is not None and fields[0] in ("Rss:", "Anonymous:"):
            kib = int(fields[1])
            found[mapping] = found.get(mapping, 0) + (kib if fields[0] == "Rss:" else -kib)
    return found


def run_wrk(
    target: Target, case: Case, seconds: float, cpus: set[int], lua: pathlib.Path, *, threads: int = 1
) -> dict[str, Any]:
    """Run the generator on ``cpus``; returns what it counted. Raises LoadFailed when any request failed."""
    load = {"-t": threads, "-c": case.connections, "-d": f"{max(1, round(seconds))}s", "-s": lua}
    command = ["wrk", *(str(word) for option in load.items() for word in option)]
    for header in case.headers:
        command += ["-H", header]
    done = subprocess.run(
        [*command, target.url()], capture_output=True, text=True, preexec_fn=lambda: os.sched_setaffinity(0, cpus)
    )
    line = next((line for line in done.stdout.splitlines() if line.startswith("@@")), None)
    if line is None:
        raise LoadFailed(f"wrk said nothing: {done.stdout[-300:]}{done.stderr[-300:]}")
    counted: dict[str, Any] = json.loads(line[2:])
    failed = {key: counted[key] for key in ("connect", "read", "write", "status", "timeout") if counted[key]}
    if failed or not counted["requests"]:
        raise LoadFailed(f"{counted['requests']} requests, failed: {failed}")
    return counted


def measure(target: Target, case: Case, seconds: float, lua: pathlib.Path, *, warm_up_s: float = 1.0) -> Sample:
    """Warm up, then measure. Raises LoadFailed when any request failed."""
    cpus = {target.site.load_cpu}
    if warm_up_s:
        run_wrk(target, case, warm_up_s, cpus, lua)
    before = cpu_seconds(target.pid)
    counted = run_wrk(target, case, seconds, cpus, lua)
    spent = cpu_seconds(target.pid) - before
    return Sample(
        cpu_us=spent * 1e6 / counted["requests"],
        rps=counted["requests"] * 1e6 / counted["duration_us"],
        p50_ms=counted["p50_us"] / 1000,
        p99_ms=counted["p99_us"] / 1000,
        requests=counted["requests"],
        pss_kib=pss_kib(target.pid),
    )


def summary(samples: list[Sample]) -> dict[str, Any]:
    """Medians, the spread of the CPU figure, and every sample."""
    return {
        "cpu_us": round(statistics.median(s.cpu_us for s in samples), 2),
        "cpu_us_min": round(min(s.cpu_us for s in samples), 2),
        "cpu_us_max": round(max(s.cpu_us for s in samples), 2),
        "rps": round(statistics.median(s.rps for s in samples)),
        "p50_ms": round(statistics.median(s.p50_ms for s in samples), 3),
        "p99_ms": round(statistics.median(s.p99_ms for s in samples), 3),
        "pss_kib": round(statistics.median(s.pss_kib for s in samples)),
        "samples": [dataclasses.asdict(s) for s in samples],
    }
