"""The reports of scripts/bench: which there are, how they are run, written and compared."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

from tests.benchmarks.ground import Ground
from tests.benchmarks.reports import half_load, memory, pauses, seed, start, workers
from tests.benchmarks.table import Table

Report = Callable[[Ground], list[Table]]

REPORTS: dict[str, Report] = {
    "seed": seed.measure,
    "half-load": half_load.measure,
    "memory": memory.measure,
    "workers": workers.measure,
    "pauses": pauses.measure,
    "start": start.measure,
}


def explained() -> str:
    """One line for every report."""
    lines = [f"  {name:<12}{(report.__doc__ or '').splitlines()[0]}" for name, report in REPORTS.items()]
    return "\n".join(["reports (what each figure means stands in tests/benchmarks/reports):", *lines])


def chosen(names: str) -> list[str]:
    """The reports of --report."""
    found = list(REPORTS) if names == "all" else names.split(",")
    for name in found:
        if name not in REPORTS:
            raise SystemExit(f"no report {name!r}; there are {', '.join(REPORTS)}")
    return found


def run(
    names: list[str], ground: Ground, about: dict[str, Any], path: pathlib.Path | None, old: dict[str, Any] | None
) -> int:
    """Run the reports, print them, write them to ``path`` as far as they are done. 0 when everything counts, else 1."""
    result: dict[str, Any] = {"about": about, "reports": {}}
    code = 0
    for name in names:
        tables = REPORTS[name](ground)
        result["reports"][name] = {table.title: table.data() for table in tables}
        for table in tables:
            print(f"\n{table.text()}", flush=True)
            code = 1 if table.failures else code
        if path is not None:
            path.write_text(json.dumps(result, indent=1) + "\n")
        if old is not None:
            print_comparison(name, tables, old)
    return code


def print_comparison(name: str, tables: list[Table], old: dict[str, Any]) -> None:
    """How the figures of a report moved since ``old``."""
    before = old.get("reports", {}).get(name, {})
    texts = [table.comparison(before[table.title]) for table in tables if table.title in before]
    print(f"\n{name} since {old['about']['date']}:" + "".join(f"\n{text}" for text in texts if text), flush=True)
