"""One message's YAML through its builder: what it made, what it reported, and what it left unread."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from forkproxy.config.build.context import BuildContext
from forkproxy.config.tree import load
from forkproxy.config.validate import validate
from forkproxy.config.view import View, unread

TYPE = "type.googleapis.com/"


@dataclass
class Outcome:
    """``errors``, ``warnings`` and ``unsupported``: "path: message" texts; ``unread``: paths of what nobody read."""

    value: Any
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unsupported: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


def view_of(text: str, message: str) -> View:
    root = load(text, "f").root
    assert [p.text("f") for p in validate(root, message) if p.kind == "error"] == []
    return View.root(root, message)


def built(builder: Any, message: str, text: str, context: BuildContext | None = None, **more: Any) -> Outcome:
    view = view_of(text, message)
    context = context or BuildContext()
    outcome = Outcome(builder(view, context, **more))
    kinds = {"error": outcome.errors, "warning": outcome.warnings, "unsupported": outcome.unsupported}
    for problem in [*view.problems, *context.problems]:
        kinds[problem.kind].append(f"{problem.path}: {problem.message}")
    outcome.unread += [problem.path for problem in unread(view)]
    return outcome


def value_of(builder: Any, message: str, text: str, context: BuildContext | None = None, **more: Any) -> Any:
    """The value of a build that has nothing to say."""
    outcome = built(builder, message, text, context, **more)
    assert (outcome.errors, outcome.warnings, outcome.unsupported, outcome.unread) == ([], [], [], [])
    return outcome.value
