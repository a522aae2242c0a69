"""Which CPUs the workers get, and how many workers there are.

Count and pins come from the affinity mask of this process, never from the number of CPUs of the machine: taskset, systemd's
CPUAffinity= and AllowedCPUs=, and ``docker --cpuset-cpus`` all narrow that mask.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass

CGROUP_CPU_MAX = "/sys/fs/cgroup/cpu.max"
TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology/"


@dataclass(frozen=True, slots=True)
class Placement:
    """``cpus[n]`` is the CPU of slot n, None for a worker that is not pinned. ``warnings`` say what could not be had."""

    cpus: tuple[int | None, ...]
    warnings: tuple[str, ...] = ()


def parse_cpuset(text: str) -> tuple[int, ...]:
    """``"0-3,8"`` → (0, 1, 2, 3, 8), ascending, each once. ValueError when it is not a list of CPU numbers and ranges."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or len(first) > 6 or len(last) > 6:
            raise ValueError(f'"{text}" is not a list of CPUs like 0-3,8')
        low, high = int(first), int(last) if dash else int(first)
        if high < low or high >= 65536:
            raise ValueError(f'"{part.strip()}" is not a range of CPUs')
        found.update(range(low, high + 1))
    return tuple(sorted(found))


def place(
    *, concurrency: int | None, cpuset: str | None, mask: Collection[int], quota: float | None, order: Sequence[int]
) -> Placement:
    """Choose a CPU for every worker.

    ``concurrency`` None: one worker per CPU that may be used, no more than the cgroup's CPU time allows (``quota``, in CPUs).
    ``mask`` is the affinity mask, ``order`` the order in which CPUs are handed out. With more workers than CPUs the CPUs are
    handed out again from the first.
    """
    warnings = []
    wanted = list(order)
    if cpuset is not None:
        asked = parse_cpuset(cpuset)
        wanted = [cpu for cpu in order if cpu in asked]
        missing = sorted(set(asked) - set(mask))
        if missing:
            numbers = ", ".join(map(str, missing))
            warnings.append(f"CPU {numbers} of --cpuset is not in this process's affinity mask")
        if not wanted:
            count = concurrency if concurrency is not None else len(asked)
            warnings.append(f"no CPU of --cpuset {cpuset} may be used: {count} workers run unpinned")
            return Placement((None,) * count, tuple(warnings))
    if concurrency is None:
        count = len(wanted) if quota is None else max(1, min(len(wanted), math.ceil(quota)))
    else:
        count = concurrency
        if count > len(wanted):
            warnings.append(f"{count} workers share {len(wanted)} CPUs")
    return Placement(tuple(wanted[number % len(wanted)] for number in range(count)), tuple(warnings))


def place_here(*, concurrency: int | None, cpuset: str | None) -> Placement:
    """``place`` with what this machine says. ValueError for a malformed ``cpuset``."""
    mask = os.sched_getaffinity(0)
    return place(concurrency=concurrency, cpuset=cpuset, mask=mask, quota=cgroup_quota(), order=in_topology_order(mask))


def cgroup_quota(path: str = CGROUP_CPU_MAX) -> float | None:
    """The CPU time that cgroup v2 allows, in CPUs; None when there is no limit."""
    try:
        with open(path) as file:
            limit, period = file.read().split()
    except (OSError, ValueError):
        return None
    return None if limit == "max" else int(limit) / int(period)


def in_topology_order(cpus: Collection[int], topology: str = TOPOLOGY) -> tuple[int, ...]:
    """``cpus`` with one hardware thread of every physical core first, then the siblings; package by package."""
    return tuple(sorted(cpus, key=lambda cpu: (_sibling_rank(cpu, topology), _package(cpu, topology), cpu)))


def _sibling_rank(cpu: int, topology: str) -> int:
    siblings = _read(topology.format(cpu) + "thread_siblings_list")
    try:
        return parse_cpuset(siblings).index(cpu)
    except ValueError:
        return 0


def _package(cpu: int, topology: str) -> int:
    text = _read(topology.format(cpu) + "physical_package_id")
    return int(text) if text.isdecimal() else 0


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""
