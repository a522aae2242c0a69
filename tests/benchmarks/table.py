"""What a report finds: rows of named figures, each measured in every round."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Column:
    """One figure of a row: its key, its heading with the unit, the digits shown behind the point.

    Of the rounds the median counts; of a ``worst`` figure the largest, because a limit is for all of them.
    """

    key: str
    head: str
    digits: int = 0
    worst: bool = False


class Table:
    """``add`` what each round measured, by row; ``fail`` what does not count."""

    def __init__(self, title: str, columns: list[Column], *notes: str) -> None:
        self.title = title
        self.columns = columns
        self.notes = list(notes)
        self.failures: dict[str, str] = {}
        self.samples: dict[str, dict[str, list[float]]] = {}

    def add(self, row: str, figures: Mapping[str, float]) -> None:
        """One round's figures of ``row``; further keys may come by another call."""
        kept = self.samples.setdefault(row, {})
        for key, value in figures.items():
            kept.setdefault(key, []).append(value)

    def fail(self, row: str, reason: str) -> None:
        """``row`` does not count: what it had is forgotten."""
        self.samples.pop(row, None)
        self.failures[row] = reason

    def forget(self, row: str, *keys: str) -> None:
        """Single figures of ``row`` do not count."""
        for key in keys:
            self.samples.get(row, {}).pop(key, None)

    def rows(self) -> dict[str, dict[str, float]]:
        """What counts of the rounds, by row and key."""
        worst = {column.key for column in self.columns if column.worst}
        return {
            row: {
                key: round(max(values) if key in worst else statistics.median(values), 3)
                for key, values in kept.items()
            }
            for row, kept in self.samples.items()
        }

    def data(self) -> dict[str, Any]:
        """What goes into the JSON file."""
        return {"notes": self.notes, "failures": self.failures, "rows": self.rows(), "samples": self.samples}

    def text(self) -> str:
        """The printed table."""
        rows = self.rows()
        first = max((len(row) for row in rows), default=0) + 4
        lines = [self.title]
        lines.append(" " * first + "".join(f"{column.head:>{_width(column)}}" for column in self.columns))
        for row, figures in rows.items():
            shown = (_shown(figures.get(column.key), column.digits) for column in self.columns)
            cells = "".join(f"{text:>{_width(column)}}" for text, column in zip(shown, self.columns, strict=True))
            lines.append(f"  {row}".ljust(first) + cells)
        for row, reason in self.failures.items():
            head, *more = reason.splitlines()
            lines.append(f"  {row} does not count: {head}")
            lines.extend(f"      {line}" for line in more[-6:])
        lines.extend(f"  {note}" for note in self.notes)
        return "\n".join(lines)

    def comparison(self, old: Mapping[str, Any]) -> str:
        """How the figures moved since the ``data()`` of an earlier run; empty when no row is in both."""
        lines = []
        for row, figures in self.rows().items():
            before = old["rows"].get(row, {})
            for column in self.columns:
                was, now = before.get(column.key), figures.get(column.key)
                if was is None or now is None:
                    continue
                moved = f"{now / was - 1:+7.1%}" if was else ""
                lines.append(
                    f"  {row}, {column.key}: {_shown(was, column.digits)} → {_shown(now, column.digits)}  {moved}"
                )
        return "\n".join([self.title, *lines]) if lines else ""


def _width(column: Column) -> int:
    return max(len(column.head), 6) + 3


def _shown(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
