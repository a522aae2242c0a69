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
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from tests.benchmarks import measure, micro, network, reporting
from tests.benchmarks.cases import CASES, DEFAULT_CASES, Case, routes_case
from tests.benchmarks.console import progress
from tests.benchmarks.ground import Ground
from tests.benchmarks.targets import TARGETS, Direct, Site, Target, TargetFailed, make_site, started

BASELINE = "envoy"


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__.splitlines()[0] if __doc__ else "",
        epilog=reporting.explained(), formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    names = ",".join(case.name for case in CASES)
    parser.add_argument("--cases", default=",".join(DEFAULT_CASES), help=f"of {names}, routes-N; default: %(default)s")
    parser.add_argument("--targets", help=f"of {','.join(TARGETS)}; default: all, or those of the report")
    parser.add_argument("--rounds", type=int, default=3, help="how often each target does each case (default 3)")
    parser.add_argument("--duration", type=float, default=4.0, help="whole seconds of load per measurement (default 4)")
    parser.add_argument("--json", type=pathlib.Path, help="write the result to this file")
    parser.add_argument("--compare", type=pathlib.Path, help="an earlier --json: show how the ratios moved")
    parser.add_argument("--micro", action="store_true", help="parts of the request path in this process; no --cases")
    parser.add_argument("--report", help=f"of {','.join(reporting.REPORTS)}, or all (below); no --cases")
    parser.add_argument("--requests", type=int, default=200_000, help="of the report memory (default %(default)s)")
    parser.add_argument(
        "--idle", type=int, default=10_000, help="idle connections of the reports (default %(default)s)"
    )
    parser.add_argument(
        "--congestion", default=network.DEFAULT,
        help=f"TCP congestion control, in a network of our own; or {network.MACHINE}: as it is here (default %(default)s)",
    )  # fmt: skip
    parser.add_argument("--keep", action="store_true", help="keep the directory with configurations and logs")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.duration < 1 or options.requests < 1 or options.idle < 1:
        parser.error("--rounds, --duration, --requests and --idle are 1 at least")
    return options


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


def chosen_targets(names: str | None) -> list[type[Target]]:
    """The targets of --targets, in that order; all without it."""
    for name in names.split(",") if names else ():
        if name not in TARGETS:
            raise SystemExit(f"no target {name!r}; there are {', '.join(TARGETS)}")
    return [TARGETS[name] for name in names.split(",")] if names else list(TARGETS.values())


@contextlib.contextmanager
def prepared(directory: pathlib.Path) -> Iterator[Site]:
    """A site whose upstream runs within the block."""
    site = make_site(directory)
    with started(Direct(site, Case("upstream"))) as upstream:
        yield Site(**{**site.__dict__, "upstream_port": upstream.port})


def run(options: argparse.Namespace, directory: pathlib.Path) -> dict[str, Any]:
    """Measure everything asked for."""
    cases = chosen_cases(options.cases)
    targets = chosen_targets(options.targets)
    result: dict[str, Any] = {"about": about(options), "cases": {}}
    with prepared(directory) as site:
        for case in cases:
            result["cases"][case.name] = run_case(case, targets, site, options)
            print_case(case.name, result["cases"][case.name])
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
        "congestion": options.congestion,
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


def run_reports(options: argparse.Namespace, directory: pathlib.Path, old: dict[str, Any] | None) -> int:
    """The reports asked for: 0 when everything in them counts."""
    chosen = tuple(cls.name for cls in chosen_targets(options.targets)) if options.targets else ()
    with prepared(directory) as site:
        ground = Ground(site, options.rounds, options.duration, options.requests, options.idle, chosen)
        return reporting.run(reporting.chosen(options.report), ground, about(options), options.json, old)


def main(arguments: list[str]) -> int:
    """Entry point of scripts/bench: 0 when every case that ran counts, 1 otherwise."""
    options = parse(arguments)
    if options.micro:
        options.congestion = ""
        return run_micro(options)
    if options.report:
        reporting.chosen(options.report)
    for program in ("wrk", "openssl"):
        if shutil.which(program) is None:
            print(f"{program} is not installed (apt-get install {program})", file=sys.stderr)
            return 1
    if Direct.missing(CASES[0]):
        print(Direct.missing(CASES[0]), file=sys.stderr)
        return 1
    old = json.loads(options.compare.read_text()) if options.compare else None
    options.congestion = network.enter(options.congestion)
    # Thousands of connections, here and in what is started.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # An end by a signal is an end by an exception: what was started is stopped.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda got, _frame: sys.exit(128 + got))
    try:
        return run_all(options, old)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130


def run_all(options: argparse.Namespace, old: dict[str, Any] | None) -> int:
    """Cases or reports, in a directory of their own."""
    with contextlib.ExitStack() as stack:
        if options.keep:
            directory = pathlib.Path(tempfile.mkdtemp(prefix="forkproxy-bench-"))
            print(f"files are kept in {directory}")
        else:
            directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="forkproxy-bench-")))
        directory.chmod(0o755)
        if options.report:
            return run_reports(options, directory, old)
        result = run(options, directory)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if old is not None:
        print_comparison(old, result)
    failed = [1 for found in result["cases"].values() for each in found.values() if "answers" in each.get("failed", "")]
    return 1 if failed else 0
