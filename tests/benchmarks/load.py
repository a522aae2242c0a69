"""The load benchmark: every target does every case in turn, A B C A B C, and the medians are compared with Envoy's.

What counts is CPU time per request, because the machines are shared: rates and latencies swing with the neighbours, the
CPU that a request costs hardly does, and the ratio of two programs in one run least of all. A case in which any request
fails does not count. Start it with scripts/bench.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
from typing import Any

from tests.benchmarks import measure, micro
from tests.benchmarks.cases import CASES, DEFAULT_CASES, Case, routes_case
from tests.benchmarks.targets import TARGETS, Direct, Site, Target, TargetFailed, make_certificate

BASELINE = "envoy"


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.splitlines()[0] if __doc__ else "")
    names = ",".join(case.name for case in CASES)
    parser.add_argument("--cases", default=",".join(DEFAULT_CASES), help=f"of {names}, routes-N; default: %(default)s")
    parser.add_argument("--targets", default=",".join(TARGETS), help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="how often each target does each case (default 3)")
    parser.add_argument("--duration", type=float, default=4.0, help="whole seconds of load per measurement (default 4)")
    parser.add_argument("--json", type=pathlib.Path, help="write the result to this file")
    parser.add_argument("--compare", type=pathlib.Path, help="an earlier --json: show how the ratios moved")
    parser.add_argument("--micro", action="store_true", help="parts of the request path in this process; no --cases")
    parser.add_argument("--keep", action="store_true", help="keep the directory with configurations and logs")
    return parser.parse_args(arguments)


def chosen_cases(names: str) -> list[Case]:
    """The cases of --cases, in that order."""
    known = {case.name: case for case in CASES}
    found = []
    for name in names.split(","):
        if name in known:
            found.append(known[name])
        elif name.startswith("routes-") and name[7:].isdigit():
            found.append(routes_case(name, int(name[7:])))
        else:
            raise SystemExit(f"no case {name!r}; there are {', '.join(known)}, routes-N")
    return found


def chosen_targets(names: str) -> list[type[Target]]:
    """The targets of --targets, in that order."""
    for name in names.split(","):
        if name not in TARGETS:
            raise SystemExit(f"no target {name!r}; there are {', '.join(TARGETS)}")
    return [TARGETS[name] for name in names.split(",")]


def make_site(directory: pathlib.Path) -> Site:
    """Choose two CPUs and make a certificate."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        print("only one CPU: proxy, upstream and generator share it; trust the ratios less", file=sys.stderr)
    certificate, key = make_certificate(directory)
    return Site(directory, cpus[0], cpus[-1] if len(cpus) == 1 else cpus[1], certificate, key)


def run(options: argparse.Namespace, directory: pathlib.Path) -> dict[str, Any]:
    """Measure everything asked for."""
    site = make_site(directory)
    cases = chosen_cases(options.cases)
    targets = chosen_targets(options.targets)
    upstream = Direct(site, Case("upstream"))
    upstream.start()
    result: dict[str, Any] = {"about": about(options), "cases": {}}
    try:
        proxied = Site(**{**site.__dict__, "upstream_port": upstream.port})
        for case in cases:
            result["cases"][case.name] = run_case(case, targets, proxied, options)
            print_case(case.name, result["cases"][case.name])
    finally:
        upstream.stop()
    return result


def run_case(case: Case, targets: list[type[Target]], site: Site, options: argparse.Namespace) -> dict[str, Any]:
    """All rounds of one case."""
    lua = case.write_lua(site.directory)
    samples: dict[str, list[measure.Sample]] = {}
    failures: dict[str, str] = {}
    for cls in targets:
        missing = cls.missing(case)
        if missing:
            failures[cls.name] = missing
    for number in range(options.rounds):
        for cls in targets:
            if cls.name in failures:
                continue
            progress(f"{case.name}, round {number + 1} of {options.rounds}: {cls.name}")
            target = cls(site, case)
            try:
                target.start()
                samples.setdefault(cls.name, []).append(measure.measure(target, case, options.duration, lua))
            except (TargetFailed, measure.LoadFailed) as error:
                failures[cls.name] = str(error)
                samples.pop(cls.name, None)
            finally:
                target.stop()
    progress("")
    found: dict[str, Any] = {name: measure.summary(each) for name, each in samples.items()}
    baseline = found.get(BASELINE)
    for figures in found.values():
        figures["ratio"] = round(figures["cpu_us"] / baseline["cpu_us"], 3) if baseline and baseline["cpu_us"] else None
    for name, why in failures.items():
        found[name] = {"failed": why}
    return found


def progress(text: str) -> None:
    """One line that overwrites itself, only for a person who watches."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def print_case(name: str, found: dict[str, Any]) -> None:
    """The table of one case."""
    print(
        f"\n{name:<14}{'CPU µs/request':>16}{'(min–max)':>18}{'÷ envoy':>9}{'requests/s':>12}"
        f"{'p50 ms':>9}{'p99 ms':>9}{'PSS MiB':>9}"
    )
    for target in TARGETS:
        figures = found.get(target)
        if figures is None:
            continue
        if "failed" in figures:
            lines = figures["failed"].splitlines()
            print(f"  {target:<12}  does not count: {lines[0]}")
            for line in lines[1:6]:
                print(f"      {line}")
            continue
        ratio = f"{figures['ratio']:.2f}" if figures["ratio"] is not None else "–"
        spread = f"({figures['cpu_us_min']:.1f}–{figures['cpu_us_max']:.1f})"
        print(
            f"  {target:<12}{figures['cpu_us']:>16.1f}{spread:>18}{ratio:>9}{figures['rps']:>12}"
            f"{figures['p50_ms']:>9.2f}{figures['p99_ms']:>9.2f}{figures['pss_kib'] / 1024:>9.1f}"
        )
    sys.stdout.flush()


def print_comparison(old: dict[str, Any], new: dict[str, Any]) -> None:
    """How the ratios to Envoy moved."""
    print(f"\nratio to {BASELINE}, {old['about']['date']} → {new['about']['date']}")
    for case, found in new["cases"].items():
        for target, figures in found.items():
            before = old["cases"].get(case, {}).get(target, {})
            if figures.get("ratio") is None or before.get("ratio") is None or target == BASELINE:
                continue
            change = figures["ratio"] / before["ratio"] - 1
            print(f"  {case:<14}{target:<12}{before['ratio']:>7.3f} →{figures['ratio']:>7.3f}  {change:+7.1%}")


def about(options: argparse.Namespace) -> dict[str, Any]:
    """What a reader of the figures wants to know."""
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=pathlib.Path(__file__).parent
    )
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": head.stdout.strip(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cpus": len(os.sched_getaffinity(0)),
        "rounds": options.rounds,
        "duration_s": options.duration,
    }


def run_micro(options: argparse.Namespace) -> int:
    """The micro benchmarks: their table, and their file."""
    old = json.loads(options.compare.read_text())["micro"] if options.compare else None
    found = micro.measure(options.rounds)
    micro.show(found, old)
    if options.json:
        options.json.write_text(json.dumps({"about": about(options), "micro": found}, indent=1) + "\n")
    return 0


def main(arguments: list[str]) -> int:
    """Entry point of scripts/bench: 0 when every case that ran counts, 1 otherwise."""
    options = parse(arguments)
    if options.micro:
        return run_micro(options)
    for program in ("wrk", "openssl"):
        if shutil.which(program) is None:
            print(f"{program} is not installed (apt-get install {program})", file=sys.stderr)
            return 1
    if Direct.missing(CASES[0]):
        print(Direct.missing(CASES[0]), file=sys.stderr)
        return 1
    old = json.loads(options.compare.read_text()) if options.compare else None
    with contextlib.ExitStack() as stack:
        if options.keep:
            directory = pathlib.Path(tempfile.mkdtemp(prefix="forkproxy-bench-"))
            print(f"files are kept in {directory}")
        else:
            directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="forkproxy-bench-")))
        directory.chmod(0o755)
        result = run(options, directory)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if old is not None:
        print_comparison(old, result)
    failed = [1 for found in result["cases"].values() for each in found.values() if "answers" in each.get("failed", "")]
    return 1 if failed else 0
