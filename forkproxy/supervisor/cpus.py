"""Which CPUs the workers get, and how many workers there are.

Count and pins come from the affinity mask of this process, never from the number of CPUs of the machine: taskset, systemd's
CPUAffinity= and AllowedCPUs=, and ``docker --cpuset-cpus`` all narrow that mask. CPU time that a cgroup limits
(``cpu.max``, systemd's CPUQuota=, ``docker --cpus``) narrows the count.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence

from forkproxy.config.values import frozen

CPU_DIRECTORY = "/sys/devices/system/cpu/"
NODE_DIRECTORY = "/sys/devices/system/node/"


@frozen
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
    *,
    concurrency: int | None,
    cpuset: str | None,
    mask: Collection[int],
    quota: float | None,
    order: Sequence[int],
    asked_by: str = "--cpuset",
) -> Placement:
    """Choose a CPU for every worker.

    ``concurrency`` None: one worker per CPU that may be used, no more than the cgroup's CPU time allows (``quota``, in CPUs).
    ``mask`` is the affinity mask, ``order`` the order in which CPUs are handed out. With more workers than CPUs the CPUs are
    handed out again from the first. ``asked_by`` is what the operator calls ``cpuset``.
    """
    warnings = []
    wanted = list(order)
    if cpuset is not None:
        asked = parse_cpuset(cpuset)
        wanted = [cpu for cpu in order if cpu in asked]
        missing = sorted(set(asked) - set(mask))
        if missing:
            warnings.append(
                f"{_cpus(missing)} of {asked_by} {'is' if len(missing) == 1 else 'are'} not in this process's affinity mask"
            )
        if not wanted:
            count = concurrency if concurrency is not None else len(asked)
            runs = "runs" if count == 1 else "run"
            warnings.append(f"no CPU of {asked_by} {cpuset} may be used: {counted(count)} {runs} unpinned")
            return Placement((None,) * count, tuple(warnings))
    if concurrency is None:
        count = len(wanted) if quota is None else max(1, min(len(wanted), math.ceil(quota)))
    else:
        count = concurrency
        if count > len(wanted):
            warnings.append(f"{counted(count)} share {len(wanted)} CPU{'' if len(wanted) == 1 else 's'}")
    return Placement(tuple(wanted[number % len(wanted)] for number in range(count)), tuple(warnings))


def place_here(*, concurrency: int | None, cpuset: str | None, asked_by: str = "--cpuset") -> Placement:
    """``place`` with what this machine says. ValueError for a malformed ``cpuset``."""
    mask = os.sched_getaffinity(0)
    return place(
        concurrency=concurrency,
        cpuset=cpuset,
        mask=mask,
        quota=cgroup_quota() if concurrency is None else None,
        order=in_topology_order(mask),
        asked_by=asked_by,
    )


def counted(workers: int) -> str:
    """``"1 worker"``, ``"2 workers"``."""
    return f"{workers} worker{'' if workers == 1 else 's'}"


def ranges(numbers: Collection[int]) -> str:
    """[0, 1, 2, 5] → "0-2,5"."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


def _cpus(numbers: Collection[int]) -> str:
    return f"CPU{'' if len(numbers) == 1 else 's'} {ranges(numbers)}"


# -- the order in which CPUs are handed out


def in_topology_order(cpus: Collection[int], root: str = "") -> tuple[int, ...]:
    """``cpus`` with one hardware thread of every physical core first, then the siblings; each of the two node by node.

    So few workers stay on one NUMA node (the one with the most of these cores), and no two share a core while another core is
    free: workers share nothing but read-only memory, so a core of another node is worth more than a sibling. ``root`` stands
    before every path that is read.
    """
    allowed = set(cpus)
    rank = {cpu: _sibling_rank(cpu, allowed, root) for cpu in allowed}
    node = _nodes(root)
    cores = Counter(node.get(cpu, 0) for cpu in allowed if not rank[cpu])

    def place_of(cpu: int) -> tuple[int, ...]:
        own = node.get(cpu, 0)
        return (rank[cpu], -cores[own], own, _package(cpu, root), cpu)

    return tuple(sorted(allowed, key=place_of))


def _sibling_rank(cpu: int, allowed: Collection[int], root: str) -> int:
    # Counted among the threads that may be used: the only one of its core is no sibling of anybody.
    try:
        threads = parse_cpuset(_read(f"{root}{CPU_DIRECTORY}cpu{cpu}/topology/thread_siblings_list"))
    except ValueError:
        return 0
    return sum(1 for thread in threads if thread < cpu and thread in allowed)


def _package(cpu: int, root: str) -> int:
    text = _read(f"{root}{CPU_DIRECTORY}cpu{cpu}/topology/physical_package_id")
    return int(text) if text.isdecimal() else 0


def _nodes(root: str) -> dict[int, int]:
    # The NUMA node of every CPU; empty where the kernel does not say (CONFIG_NUMA=n, some containers).
    found: dict[int, int] = {}
    try:
        entries = os.listdir(root + NODE_DIRECTORY)
    except OSError:
        return found
    for entry in entries:
        number = entry.removeprefix("node")
        if number != entry and number.isdecimal():
            try:
                found |= dict.fromkeys(parse_cpuset(_read(f"{root}{NODE_DIRECTORY}{entry}/cpulist")), int(number))
            except ValueError:
                continue  # a node that has memory and no CPU
    return found


# -- the CPU time that cgroups allow


def cgroup_quota(root: str = "") -> float | None:
    """The CPU time that our cgroups allow, in CPUs: the smallest limit from our own up to the top of the mount.

    Version 2 has ``cpu.max``, version 1 ``cpu.cfs_quota_us`` and ``cpu.cfs_period_us``. None when there is no limit. ``root``
    stands before every path that is read.
    """
    limits = [limit for directory, read in _cpu_cgroups(root) if (limit := read(directory)) is not None]
    return min(limits, default=None)


def _cpu_cgroups(root: str) -> Iterator[tuple[str, Callable[[str], float | None]]]:
    """Every directory whose limit holds for this process, with what reads it."""
    ours = dict(_own_cgroups(root))
    for line in _read(f"{root}/proc/self/mountinfo").splitlines():
        # "30 23 0:26 ROOT MOUNTPOINT rw … - TYPE SOURCE OPTIONS", proc(5).
        before, _dash, after = line.partition(" - ")
        mount, kind = before.split(), after.split()
        if len(mount) < 5 or len(kind) < 3:
            continue
        if kind[0] == "cgroup2":
            path, read = ours.get(""), _version_2_limit
        elif kind[0] == "cgroup" and "cpu" in kind[2].split(","):
            path, read = ours.get("cpu"), _version_1_limit
        else:
            continue
        if path is not None:
            for directory in _upwards(path, mount[3], mount[4]):
                yield root + directory, read


def _own_cgroups(root: str) -> Iterator[tuple[str, str]]:
    # Controller → path; version 2 has one line, "0::PATH".
    for line in _read(f"{root}/proc/self/cgroup").splitlines():
        _number, _colon, rest = line.partition(":")
        controllers, _colon, path = rest.partition(":")
        for controller in controllers.split(","):
            yield controller, path


def _upwards(path: str, mount_root: str, mount_point: str) -> Iterator[str]:
    # A container may see a part of the hierarchy: then the mount shows what is below mount_root. In a cgroup namespace of its
    # own, /proc/self/cgroup and mountinfo both count from there.
    top = mount_root.rstrip("/")
    below = path[len(top) :] if (path + "/").startswith(top + "/") else ""
    parts = [part for part in below.split("/") if part]
    for length in range(len(parts), -1, -1):
        yield "/".join([mount_point.rstrip("/"), *parts[:length]])


def _version_2_limit(directory: str) -> float | None:
    return _quotient(*_read(f"{directory}/cpu.max").split()[:2])


def _version_1_limit(directory: str) -> float | None:
    return _quotient(_read(f"{directory}/cpu.cfs_quota_us"), _read(f"{directory}/cpu.cfs_period_us"))


def _quotient(limit: str = "", period: str = "") -> float | None:
    # "max" and -1 are no limit.
    if not limit.isdecimal() or not period.isdecimal() or not int(limit) or not int(period):
        return None
    return int(limit) / int(period)


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""
