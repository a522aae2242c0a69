"""What can be wrong with a configuration, and how it is printed.

One problem is one line, ``FILE:LINE:COLUMN: PATH: message (hint)``, then the source line with a caret. A part that is
empty is left out. Lines and columns count from 1; 0 means "no place in the file".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from forkproxy.config.secrets import masked
from forkproxy.config.values import frozen

Kind = Literal["error", "unsupported", "warning"]

_COLOURS: dict[str, str] = {"error": "\x1b[1;31m", "unsupported": "\x1b[1;35m", "warning": "\x1b[1;33m"}
_BOLD = "\x1b[1m"
_DIM = "\x1b[2m"
_RESET = "\x1b[0m"
_MAX_SOURCE_COLUMNS = 160


@frozen
class Problem:
    """One finding. ``error``: not Envoy's schema or rules; ``unsupported``: valid Envoy, not honoured here; ``warning``.

    ``path`` names the field as ``static_resources.clusters[0].name``, empty at the top. ``opens_door`` marks an
    unsupported field whose loss would let in what the file keeps out; ``--allow-unsupported`` does not waive it.
    """

    kind: Kind
    path: str
    line: int
    column: int
    message: str
    hint: str = ""
    opens_door: bool = False

    def text(self, filename: str) -> str:
        """The one-line form, without colour."""
        place = f"{filename}:{self.line}:{self.column}:" if self.line else f"{filename}:"
        path = f" {self.path}:" if self.path else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}{path} {self.message}{hint}"

    def as_json(self, filename: str) -> dict[str, Any]:
        """The form of ``--json``; every value a str, an int or a bool."""
        return {
            "kind": self.kind,
            "file": filename,
            "line": self.line,
            "column": self.column,
            "path": self.path,
            "message": self.message,
            "hint": self.hint,
        }


class ConfigError(Exception):
    """The configuration cannot be used.

    One exception may carry every problem of the file: ``problems`` is never empty, and the attributes ``path``,
    ``line``, ``column``, ``message`` and ``hint`` are those of the first.
    """

    def __init__(self, path: str, line: int, column: int, message: str, hint: str = "") -> None:
        self.path, self.line, self.column, self.message, self.hint = path, line, column, message, hint
        self.problems: list[Problem] = [Problem("error", path, line, column, message, hint)]
        super().__init__(path, line, column, message, hint)

    @classmethod
    def of(cls, problems: Sequence[Problem]) -> ConfigError:
        """One exception for all of ``problems`` (at least one)."""
        first = problems[0]
        error = cls(first.path, first.line, first.column, first.message, first.hint)
        error.problems = list(problems)
        return error

    def __str__(self) -> str:
        first = self.problems[0].text("").lstrip(":").lstrip()
        more = len(self.problems) - 1
        return f"{first} (and {more} more)" if more else first


def render(problem: Problem, filename: str, source: Sequence[str] = (), *, colour: bool = False) -> str:
    """``problem`` as a terminal shows it: the line, then the source line with a caret when ``source`` has it."""
    text = problem.text(filename)
    if colour:
        place = f"{filename}:{problem.line}:{problem.column}:" if problem.line else f"{filename}:"
        text = f"{_BOLD}{place}{_RESET} {_COLOURS[problem.kind]}{problem.kind}:{_RESET}{text[len(place) :]}"
    if not 1 <= problem.line <= len(source):
        return text
    line = masked(problem.path, source[problem.line - 1].replace("\t", " "))
    line = "".join(c if c.isprintable() else "?" for c in line[:_MAX_SOURCE_COLUMNS])
    caret = " " * (problem.column - 1) + "^" if problem.column <= len(line) + 1 else ""
    if colour:
        return f"{text}\n    {_DIM}{line}{_RESET}\n    {_COLOURS[problem.kind]}{caret}{_RESET}"
    return f"{text}\n    {line}\n    {caret}".rstrip()


def render_all(problems: Iterable[Problem], filename: str, source: Sequence[str] = (), *, colour: bool = False) -> str:
    """Every problem, in the order given, one block each."""
    return "\n".join(render(p, filename, source, colour=colour) for p in problems)


def by_place(problems: Iterable[Problem]) -> list[Problem]:
    """``problems`` in the order of the file, each once."""
    return sorted(dict.fromkeys(problems), key=_place)


def _place(problem: Problem) -> tuple[int, int]:
    return problem.line, problem.column
