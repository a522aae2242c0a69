"""A configuration file → its verdict, and the dataclasses that the rest of forkproxy runs on.

The way of a file, in the supervisor and in ``forkproxy check``:

    text → tree → (v2: upgrade) → validate → semantics → builders → fields that nobody read

What each step finds is one list of problems, in the order of the file. An error makes the file *invalid*; a field that
is set and that nothing honours makes it *unsupported*; warnings change nothing. There is no fourth verdict.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace
from typing import Any, Final, Literal

from forkproxy.config import semantics, tree
from forkproxy.config.build.bootstrap import BootstrapConfig, ForkproxyConfig, build_bootstrap
from forkproxy.config.build.context import BuildContext
from forkproxy.config.digest import digest_of
from forkproxy.config.overlay import merge
from forkproxy.config.problems import ConfigError, Problem, by_place
from forkproxy.config.secrets import REDACTED, SECRET_FIELDS, without_value
from forkproxy.config.tree import Document, Node
from forkproxy.config.upgrade import detect_version, upgrade
from forkproxy.config.validate import BOOTSTRAP_V3, validate
from forkproxy.config.values import frozen
from forkproxy.config.view import View, unread

Verdict = Literal["runs", "unsupported", "invalid"]

FORKPROXY_FIELDS: Final = {
    "concurrency": "the number of workers, or auto",
    "cpuset": "the CPUs to pin workers to, as in 0-3,8",
    "user": "the user (or user:group) that workers run as when started by root",
    "pid_file": "where the supervisor writes its process id",
    "drain_time_s": "how long a worker may finish its connections, in seconds",
}
"""The keys of ``forkproxy:``, the one top-level key that is not Envoy's, and what they mean."""

_CPUSET = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*\Z")


@frozen
class LoadResult:
    """``bootstrap`` is there exactly when ``verdict`` is "runs". ``root``: the v3 tree, None when there is none.

    ``text``: the source. ``files``: the digests of the files that were read, those among them that could not be.
    """

    filename: str
    verdict: Verdict
    problems: tuple[Problem, ...]
    bootstrap: BootstrapConfig | None
    root: Node | None
    text: str
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def lines(self) -> list[str]:
        """The source lines, for :func:`forkproxy.config.problems.render`."""
        return tree.lines_of(self.text) if self.text else []

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The problems that do not stand in the way; ``check --strict`` fails on them."""
        return tuple(problem for problem in self.problems if problem.kind == "warning")

    def with_file(self, path: str, content: bytes) -> LoadResult:
        """This result when its text is the content of a file."""
        files = {path: digest_of(content), **self.files}
        bootstrap = replace(self.bootstrap, files=files) if self.bootstrap is not None else None
        return replace(self, files=files, bootstrap=bootstrap)

    def with_problems(self, found: Sequence[Problem]) -> LoadResult:
        """This result once a later step has found more, such as building what workers run. Nothing of it can be waived:
        what could be left out was left out already."""
        if not found:
            return self
        problems = tuple(by_place([*self.problems, *found]))
        verdict = _verdict(problems)
        return replace(
            self, problems=problems, verdict=verdict, bootstrap=self.bootstrap if verdict == "runs" else None
        )

    def as_json(self) -> dict[str, Any]:
        """The object that ``forkproxy check --json`` prints."""
        return {
            "file": self.filename,
            "verdict": self.verdict,
            "problems": [
                {
                    "kind": problem.kind,
                    "path": problem.path,
                    "line": problem.line,
                    "column": problem.column,
                    "message": problem.message,
                    "hint": problem.hint,
                }
                for problem in self.problems
            ],
        }


def load_file(path: str, *, overlay_yaml: str = "", allow_unsupported: bool = False) -> LoadResult:
    """:func:`load` of a file's content. A file that cannot be read is an invalid one, with the reason as its problem."""
    try:
        with open(path, "rb") as file:
            text = file.read(tree.MAX_BYTES + 1)  # /dev/zero has no end
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return _invalid(path, [Problem("error", "", 0, 0, f"cannot read the file: {reason}")])
    result = load(text, path, overlay_yaml=overlay_yaml, allow_unsupported=allow_unsupported)
    return result.with_file(path, text)


def load(text: bytes | str, filename: str, *, overlay_yaml: str = "", allow_unsupported: bool = False) -> LoadResult:
    """Judge a configuration and build it. Never raises for what the text holds.

    ``overlay_yaml`` is merged over it by protobuf's rules (Envoy's ``--config-yaml``). ``allow_unsupported`` turns what is
    not implemented into warnings, but for fields whose loss opens a door.
    """
    try:
        document = tree.load(text, filename)
        if overlay_yaml:
            merge(document.root, _overlay(overlay_yaml))
    except ConfigError as error:
        return _invalid(filename, error.problems)
    return load_document(document, allow_unsupported=allow_unsupported)


def load_document(document: Document, *, allow_unsupported: bool = False) -> LoadResult:
    """:func:`load` of a tree, which is upgraded and normalised in place."""
    with tree.collection_paused():  # 60,000 routes take 4.8 s instead of 7.2 s
        return _load_document(document, allow_unsupported=allow_unsupported)


def _load_document(document: Document, *, allow_unsupported: bool) -> LoadResult:
    root = document.root
    problems = list(document.problems)
    forkproxy = _take_forkproxy(root, problems)
    if detect_version(root) == "v2":
        problems += upgrade(document)
    if not _has_error(problems):
        problems += validate(root, BOOTSTRAP_V3)
    if _has_error(problems):
        return _result(document, problems, None, allow_unsupported)
    problems += semantics.check(root)
    context = BuildContext()
    view = View.root(root, BOOTSTRAP_V3)
    bootstrap: BootstrapConfig | None = None
    try:
        bootstrap = build_bootstrap(view, context, forkproxy, redacted(root))
    except ConfigError as error:
        problems += error.problems
    problems += view.problems
    problems += context.problems
    problems += unread(view)
    return replace(_result(document, problems, bootstrap, allow_unsupported), files=context.files)


def redacted(root: Node) -> dict[str, object]:
    """The tree as JSON-ready data, with the inline contents of secrets replaced, as in Envoy's /config_dump."""
    data = _redacted(root)
    return data if isinstance(data, dict) else {}


def _redacted(node: Node) -> object:
    if node.kind == "map":
        return {
            entry.key: _without_content(entry.value.to_python())
            if entry.key in SECRET_FIELDS
            else _redacted(entry.value)
            for entry in node.entries
        }
    return [_redacted(item) for item in node.items] if node.kind == "seq" else node.value


def _without_content(value: object) -> object:
    if isinstance(value, list):
        return [_without_content(item) for item in value]
    if isinstance(value, dict):
        return {
            key: REDACTED if key in ("inline_string", "inline_bytes") else _without_content(inner)
            for key, inner in value.items()
        }
    return value


def _overlay(text: str) -> Node:
    """The overlay's tree. Its lines are not the file's, so its nodes get no place."""
    try:
        root = tree.load(text, "--config-yaml").root
    except ConfigError as error:
        where = f" (line {error.line}, column {error.column})" if error.line else ""
        raise ConfigError("", 0, 0, f"--config-yaml{where}: {error.message}", error.hint) from error
    _forget_places(root)
    return root


def _forget_places(node: Node) -> None:
    nowhere = tree.Mark(0, 0)
    node.mark = nowhere
    for entry in node.entries if node.kind == "map" else ():
        entry.key_mark = nowhere
        _forget_places(entry.value)
    for item in node.items if node.kind == "seq" else ():
        _forget_places(item)


def _result(
    document: Document, problems: list[Problem], bootstrap: BootstrapConfig | None, allow_unsupported: bool
) -> LoadResult:
    if allow_unsupported:
        problems = [_waived(problem) for problem in problems]
    verdict = _verdict(problems)
    return LoadResult(
        filename=document.filename,
        verdict=verdict,
        problems=tuple(by_place(map(_without_secret, problems))),
        bootstrap=bootstrap if verdict == "runs" else None,
        root=document.root,
        text=document.text,
    )


def _without_secret(problem: Problem) -> Problem:
    message, hint = without_value(problem.path, problem.message, problem.hint)
    return problem if message == problem.message else replace(problem, message=message, hint=hint)


def _verdict(problems: Iterable[Problem]) -> Verdict:
    kinds = {problem.kind for problem in problems}
    return "invalid" if "error" in kinds else "unsupported" if "unsupported" in kinds else "runs"


def _waived(problem: Problem) -> Problem:
    if problem.kind != "unsupported":
        return problem
    if problem.opens_door:
        hint = "--allow-unsupported does not waive this: without it the proxy would let in what the file keeps out"
        return Problem("unsupported", problem.path, problem.line, problem.column, problem.message, hint, True)
    return Problem("warning", problem.path, problem.line, problem.column, problem.message, problem.hint)


def _invalid(filename: str, problems: list[Problem]) -> LoadResult:
    return LoadResult(filename, "invalid", tuple(problems), None, None, "")


def _has_error(problems: list[Problem]) -> bool:
    return any(problem.kind == "error" for problem in problems)


def _take_forkproxy(root: Node, problems: list[Problem]) -> ForkproxyConfig:
    """Take ``forkproxy:`` out of the tree, which is Envoy's from here on, and check it."""
    taken = root.remove("forkproxy")
    if taken is None or taken.value.is_null:
        return ForkproxyConfig()
    if taken.value.kind != "map":
        mark = taken.value.mark
        problems.append(Problem("error", "forkproxy", mark.line, mark.column, "must be a mapping (key: value)"))
        return ForkproxyConfig()
    values: dict[str, Any] = {}
    for entry in taken.value.entries:
        if entry.key not in FORKPROXY_FIELDS:
            close = difflib.get_close_matches(entry.key, FORKPROXY_FIELDS, 1)
            hint = f'did you mean "{close[0]}"?' if close else "known are " + ", ".join(FORKPROXY_FIELDS)
            message = f'forkproxy has no setting "{entry.key}"'
            problems.append(Problem("error", "forkproxy", entry.key_mark.line, entry.key_mark.column, message, hint))
        elif not entry.value.is_null:
            try:
                values[entry.key] = _setting(entry.key, entry.value)
            except ValueError as error:
                mark = entry.value.mark
                problems.append(Problem("error", f"forkproxy.{entry.key}", mark.line, mark.column, str(error)))
    return ForkproxyConfig(**values)


def _setting(key: str, node: Node) -> object:
    """One value of ``forkproxy:``; ValueError says what it must be."""
    value = node.value if node.kind == "scalar" else None
    if key == "concurrency":
        if value == "auto":
            return None
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 4096:
            return value
        raise ValueError("must be a number of workers from 1 to 4096, or auto")
    if key == "drain_time_s":
        number = _number(value)
        if number is not None and number >= 0:
            return number
        raise ValueError("must be a number of seconds, 0 or more")
    if key == "cpuset":
        text = node.text if node.kind == "scalar" else ""
        if _CPUSET.match(text):
            return text
        raise ValueError("must be a list of CPUs and ranges, as in 0-3,8")
    if isinstance(value, str) and value:
        return value
    raise ValueError("must be a non-empty text")


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None
