"""Lines of a label, a text and a place in the file, aligned for a terminal."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Callable, Iterable
from typing import Any

from forkproxy.config.values import frozen

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LONGEST_LABEL = 24
_WIDEST = 110


@frozen
class Line:
    """``text`` empty: the label is a heading and stands alone. ``place``: {"line": …}; 0 or None for none."""

    label: str = ""
    text: str = ""
    place: dict[str, Any] | None = None


def columns(lines: Iterable[Line], filename: str, style: Callable[[str, str], str], *, exactly: bool = False) -> str:
    """The lines as text: labels in a column, texts wrapped to the terminal, places as FILE:LINE at the end of theirs, or
    ``exactly``, with their column.
    """
    rows = list(lines)
    label_width = max((width(row.label) for row in rows if row.text), default=0)
    label_width = min(label_width, _LONGEST_LABEL) + 2
    room = min(shutil.get_terminal_size((_WIDEST, 24)).columns, _WIDEST)
    written = []
    for row in rows:
        if not row.text:
            written.append(row.label)
            continue
        written += _row(row, label_width, room, _place(row.place, filename, exactly), style)
    return "\n".join(each.rstrip() for each in written)


def _place(place: dict[str, Any] | None, filename: str, exactly: bool) -> str:
    if place is None or not place["line"]:
        return ""
    return f"{filename}:{place['line']}:{place['column']}" if exactly else f"{filename}:{place['line']}"


def _row(row: Line, label_width: int, room: int, place: str, style: Callable[[str, str], str]) -> list[str]:
    label = row.label + " " * max(label_width - width(row.label), 1)
    beside = room - width(label)
    pieces = _wrapped(row.text, max(beside, 30))
    if place:
        gap = beside - width(pieces[-1]) - len(place)
        if gap >= 2:
            pieces[-1] += " " * gap + style(place, "dim")
        else:
            pieces.append(" " * max(beside - len(place), 0) + style(place, "dim"))
    indent = " " * label_width
    return [label + pieces[0], *(indent + piece for piece in pieces[1:])]


def _wrapped(text: str, room: int) -> list[str]:
    if width(text) <= room:
        return [text]
    bare = _COLOUR.sub("", text)
    pieces = textwrap.wrap(bare, room, break_long_words=False, break_on_hyphens=False) or [""]
    if bare == text:
        return pieces
    codes = _COLOUR.findall(text)
    return [codes[0] + piece + codes[-1] for piece in pieces]


def width(text: str) -> int:
    """The columns that ``text`` takes, colours aside."""
    return len(_COLOUR.sub("", text))
