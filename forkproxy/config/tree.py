"""YAML (and JSON) text → a tree that remembers where everything stood.

Problem: Envoy reads YAML with yaml-cpp and its own scalar rules, which are neither YAML 1.1's nor 1.2's, and users
need line numbers long after parsing. Rules, each checked against Envoy 1.40:

* Quoted scalars are strings. Plain ones are null (``~``, ``null``, empty), then bool (``yes``, ``Off``, ``y``, …, but
  not ``yEs``), then int64 by C's rules (``0x1F``, ``010`` is eight), then string. A float stays a string (the schema
  decides), and so does an integer outside int32.
* An explicit tag changes nothing, except ``!`` alone, which quotes. ``!ignore`` on a *key* drops the entry.
* Of duplicate keys the last wins (a warning here). ``<<`` is a key like another. Only the first document counts.
* Nesting ends at 100 levels, as in protobuf's JSON reader, which Envoy goes through.

Plan: read libyaml's *events* in one loop with an explicit stack. Composing with PyYAML would recurse once per level
in C (a deep file overflows the stack), resolve scalars by other rules, and share aliased nodes, which must not be
shared here because ``upgrade`` changes nodes in place. Aliases are copied; the total is bounded, so a "billion laughs"
file is an error after 300,000 nodes.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from forkproxy.config.problems import ConfigError, Problem

if TYPE_CHECKING:
    import yaml

MAX_BYTES: Final = 64 * 1024 * 1024
MAX_DEPTH: Final = 100
MAX_ALIAS_NODES: Final = 300_000

Scalar = str | int | float | bool | None

# libyaml's idea of a line; str.splitlines() knows more breaks, and the numbers would not agree.
_LINE_BREAK: Final = re.compile("\r\n|[\n\r\x85\u2028\u2029]")


class Mark(NamedTuple):
    """A place in the file; both count from 1, columns in characters."""

    line: int
    column: int


_new_mark: Final = tuple.__new__  # Mark(…) takes three times as long


class Entry:
    """One ``key: value`` of a mapping."""

    __slots__ = ("key", "key_mark", "value")

    def __init__(self, key: str, key_mark: Mark, value: Node) -> None:
        self.key = key
        self.key_mark = key_mark
        self.value = value

    def __repr__(self) -> str:
        return f"Entry({self.key!r}, {self.value!r})"


class Node:
    """A mapping (``entries``), a sequence (``items``) or a scalar (``value`` as Envoy resolves it, ``text`` as written).

    Mutable. A node made by the program carries the mark of the user's node that caused it.
    """

    __slots__ = ("entries", "items", "kind", "mark", "quoted", "tag", "text", "value")

    kind: Literal["map", "seq", "scalar"]
    mark: Mark
    entries: list[Entry]
    items: list[Node]
    value: Scalar
    text: str
    quoted: bool
    tag: str | None

    def __init__(
        self,
        kind: Literal["map", "seq", "scalar"],
        mark: Mark,
        tag: str | None = None,
        value: Scalar = None,
        text: str = "",
        quoted: bool = False,
    ) -> None:
        self.kind = kind
        self.mark = mark
        self.tag = tag
        if kind == "scalar":
            self.value = value
            self.text = text
            self.quoted = quoted
        elif kind == "map":
            self.entries = []
        else:
            self.items = []

    @classmethod
    def scalar(cls, value: Scalar, mark: Mark) -> Node:
        """A scalar of the program's own."""
        return cls("scalar", mark, None, value, _text_of(value), isinstance(value, str))

    @classmethod
    def map(cls, mark: Mark, entries: list[Entry] | None = None) -> Node:
        """A mapping of the program's own."""
        node = cls("map", mark)
        node.entries = [] if entries is None else entries
        return node

    @classmethod
    def seq(cls, mark: Mark, items: list[Node] | None = None) -> Node:
        """A sequence of the program's own."""
        node = cls("seq", mark)
        node.items = [] if items is None else items
        return node

    @classmethod
    def from_python(cls, value: Any, mark: Mark) -> Node:
        """``value`` (dict, list or scalar) as nodes that all carry ``mark``."""
        if isinstance(value, dict):
            return cls.map(mark, [Entry(str(k), mark, cls.from_python(v, mark)) for k, v in value.items()])
        if isinstance(value, (list, tuple)):
            return cls.seq(mark, [cls.from_python(v, mark) for v in value])
        return cls.scalar(value, mark)

    @property
    def is_null(self) -> bool:
        return self.kind == "scalar" and self.value is None

    def entry(self, key: str) -> Entry | None:
        """The entry called ``key``; None when absent or when this is no mapping."""
        if self.kind == "map":
            for entry in self.entries:
                if entry.key == key:
                    return entry
        return None

    def get(self, key: str) -> Node | None:
        """The value under ``key``; None when absent or when this is no mapping."""
        if self.kind == "map":
            for entry in self.entries:
                if entry.key == key:
                    return entry.value
        return None

    def set(self, key: str, node: Node, key_mark: Mark | None = None) -> None:
        """Put ``node`` under ``key``, in the place of the old value or at the end."""
        entry = self.entry(key)
        if entry is None:
            self.entries.append(Entry(key, key_mark or node.mark, node))
        else:
            entry.value = node

    def remove(self, key: str) -> Entry | None:
        """Take ``key`` out; the entry that was there."""
        entry = self.entry(key)
        if entry is not None:
            self.entries.remove(entry)
        return entry

    def copy(self) -> Node:
        """A deep copy with the same marks."""
        node = Node(self.kind, self.mark, self.tag)
        if self.kind == "map":
            node.entries = [Entry(e.key, e.key_mark, e.value.copy()) for e in self.entries]
        elif self.kind == "seq":
            node.items = [item.copy() for item in self.items]
        else:
            node.value, node.text, node.quoted = self.value, self.text, self.quoted
        return node

    def to_python(self) -> Any:
        """dict, list, str, int, float, bool or None."""
        if self.kind == "map":
            return {e.key: e.value.to_python() for e in self.entries}
        if self.kind == "seq":
            return [item.to_python() for item in self.items]
        return self.value

    def __repr__(self) -> str:
        where = f"{self.mark.line}:{self.mark.column}"
        if self.kind == "map":
            return f"<map {where} {[e.key for e in self.entries]}>"
        if self.kind == "seq":
            return f"<seq {where} of {len(self.items)}>"
        return f"<scalar {where} {self.value!r}>"


class Document:
    """A parsed file: its root node, its name as the user gave it, its text, and what parsing had to warn about."""

    __slots__ = ("filename", "problems", "root", "text")

    def __init__(self, root: Node, filename: str, text: str, problems: list[Problem]) -> None:
        self.root = root
        self.filename = filename
        self.text = text
        self.problems = problems


def lines_of(text: str) -> list[str]:
    """The source lines, for :func:`forkproxy.config.problems.render`."""
    return _LINE_BREAK.split(text)


@contextmanager
def collection_paused() -> Iterator[None]:
    """No garbage collection inside: a tree is half a million live objects and no garbage, which it walks again and again.

    Loading 107,000 lines takes 0.6 s instead of 1.1 s, validating them 0.2 s instead of 0.6 s.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def load(text: str | bytes, filename: str) -> Document:
    """Parse one file. Raises ConfigError, with a line and a hint, when it is no configuration at all.

    ``filename`` is used for messages and, when it ends in ``.json``, for JSON's scalar rules. A file without content is
    an error, as in Envoy.
    """
    decoded = _decode(text) if isinstance(text, bytes) else text.removeprefix("\ufeff")
    if len(decoded) > MAX_BYTES:
        raise ConfigError("", 0, 0, f"the file is larger than {MAX_BYTES >> 20} MiB")
    nul = decoded.find("\x00")
    if nul >= 0:
        line, column = _place(decoded, nul)
        raise ConfigError("", line, column, "could not parse: a NUL byte", "is this a binary file?")
    # Only who reads a file needs it: processes that serve what was read do without.
    import yaml

    builder = _Builder(decoded, json_rules=filename.endswith(".json"))
    make_loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        loader = make_loader(decoded)
        try:
            with collection_paused():
                root = builder.build(loader)
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        line, column = _place(decoded, error.position)
        character = error.character
        shown = f"U+{character:04X}" if isinstance(character, int) else repr(character)
        raise ConfigError("", line, column, f"could not parse: {shown} may not stand in YAML") from error
    except yaml.MarkedYAMLError as error:
        raise _explain(error, decoded) from error
    if root is None or root.is_null:
        raise ConfigError("", 0, 0, "the file is empty", "the smallest configuration is {}")
    if root.kind != "map":
        what = "a list" if root.kind == "seq" else "a single value"
        raise ConfigError("", root.mark.line, root.mark.column, f"expected fields (name: value), found {what}")
    return Document(root, filename, decoded, builder.problems)


class _Builder:
    """libyaml's events → nodes, without recursion."""

    def __init__(self, text: str, *, json_rules: bool) -> None:
        self._text = text
        self.problems: list[Problem] = []
        self._resolve = _resolve_json if json_rules else resolve_plain
        self._anchors: dict[str, Node] = {}
        self._open: set[int] = set()
        self._copied = 0

    def build(self, loader: Any) -> Node | None:
        """The first document's root, or None when there is none."""
        import yaml

        get_event = loader.get_event
        get_event()  # StreamStart
        if not isinstance(get_event(), yaml.DocumentStartEvent):
            return None
        root = self._document(get_event)
        get_event()  # DocumentEnd
        try:
            following = get_event()
        except yaml.YAMLError:
            following = None  # Envoy does not read on either, so what follows may be anything
        if not isinstance(following, yaml.StreamEndEvent):
            line = following.start_mark.line + 1 if following is not None else 0
            self._warn(Mark(line, 1), "only the first YAML document counts; what follows is not read")
        return root

    def _document(self, get_event: Any) -> Node:
        from yaml import (
            AliasEvent,
            MappingEndEvent,
            MappingStartEvent,
            ScalarEvent,
            SequenceEndEvent,
            SequenceStartEvent,
        )

        holder = Node("seq", Mark(1, 1))
        top: Node = holder
        stack: list[Node] = []
        # Of the mapping being read: where each key stands in its entries, and the key that waits for its value.
        keys: dict[str, int] = {}
        pending: Entry | None = None
        saved: list[tuple[dict[str, int], Entry | None]] = []
        anchors, opened, resolve = self._anchors, self._open, self._resolve
        while True:
            event = get_event()
            cls = type(event)
            if cls is ScalarEvent:
                start = event.start_mark
                mark = _new_mark(Mark, (start.line + 1, start.column + 1))
                text = event.value
                tag = event.tag
                if top.kind == "map" and pending is None:
                    pending = Entry(_key(text, event, tag), mark, holder)
                    if tag == "!ignore":
                        pending.key_mark = Mark(0, 0)
                    if event.anchor is not None:
                        anchors[event.anchor] = self._scalar(event, text, tag, mark)
                    continue
                # implicit[0]: plain and untagged; style says how it was written.
                if event.style or tag == "!":
                    node = Node("scalar", mark, tag, text, text, True)
                else:
                    node = Node("scalar", mark, tag, resolve(text, tag is None), text)
                if event.anchor is not None:
                    anchors[event.anchor] = node
            elif cls is MappingStartEvent or cls is SequenceStartEvent:
                start = event.start_mark
                mark = _new_mark(Mark, (start.line + 1, start.column + 1))
                if top.kind == "map" and pending is None:
                    raise ConfigError(
                        "",
                        *mark,
                        "could not parse: a key must be a plain name, not a list or a mapping",
                        _template_hint(self._text, mark),
                    )
                if len(stack) >= MAX_DEPTH:
                    raise ConfigError("", *mark, f"nested more than {MAX_DEPTH} levels deep")
                node = Node("map" if cls is MappingStartEvent else "seq", mark, event.tag)
                if event.anchor is not None:
                    anchors[event.anchor] = node
                    opened.add(id(node))
                stack.append(top)
                saved.append((keys, pending))
                top, keys, pending = node, {}, None
                continue
            elif cls is MappingEndEvent or cls is SequenceEndEvent:
                node = top
                opened.discard(id(node))
                top = stack.pop()
                keys, pending = saved.pop()
            elif cls is AliasEvent:
                start = event.start_mark
                mark = Mark(start.line + 1, start.column + 1)
                target = anchors.get(event.anchor)
                if target is None:
                    raise ConfigError(
                        "", *mark, f'could not parse: no anchor "&{event.anchor}" stands before "*{event.anchor}"'
                    )
                if top.kind == "map" and pending is None:
                    if target.kind != "scalar":
                        raise ConfigError(
                            "", *mark, "could not parse: a key must be a plain name, not a list or a mapping"
                        )
                    pending = Entry(target.text, mark, holder)
                    continue
                if id(target) in opened:
                    raise ConfigError(
                        "",
                        *mark,
                        f'could not parse: "*{event.anchor}" stands inside its own anchor (line {target.mark.line})',
                    )
                node = self._copy(target, len(stack), mark)
            else:  # DocumentEnd cannot come before the root is complete
                raise AssertionError(f"unexpected YAML event {event!r}")

            if top.kind == "seq":
                top.items.append(node)
                if top is holder:
                    return node
                continue
            assert pending is not None
            entry, pending = pending, None
            if entry.key_mark.line == 0:
                continue  # !ignore
            entry.value = node
            key = entry.key
            if key in keys:
                old = top.entries[keys[key]]
                self._warn(
                    entry.key_mark, f'"{key}" is set twice (also in line {old.key_mark.line}); the last one counts'
                )
                top.entries[keys[key]] = entry
            else:
                keys[key] = len(top.entries)
                top.entries.append(entry)

    def _scalar(self, event: Any, text: str, tag: str | None, mark: Mark) -> Node:
        quoted = bool(event.style) or tag == "!"
        return Node("scalar", mark, tag, text if quoted else self._resolve(text, tag is None), text, quoted)

    def _copy(self, source: Node, depth: int, mark: Mark) -> Node:
        self._copied += 1
        if self._copied > MAX_ALIAS_NODES:
            raise ConfigError("", *mark, f"could not parse: aliases expand to more than {MAX_ALIAS_NODES} values")
        node = Node(source.kind, source.mark, source.tag)
        if source.kind == "scalar":
            node.value, node.text, node.quoted = source.value, source.text, source.quoted
            return node
        if depth >= MAX_DEPTH:
            raise ConfigError("", *mark, f"nested more than {MAX_DEPTH} levels deep")
        if source.kind == "map":
            node.entries = [Entry(e.key, e.key_mark, self._copy(e.value, depth + 1, mark)) for e in source.entries]
        else:
            node.items = [self._copy(item, depth + 1, mark) for item in source.items]
        return node

    def _warn(self, mark: Mark, message: str) -> None:
        self.problems.append(Problem("warning", "", mark.line, mark.column, message))


# --- scalars -----------------------------------------------------------------------------------------------------------

_BOOLS: Final[dict[str, bool]] = {
    form: truth
    for word, truth in (
        ("y", True),
        ("yes", True),
        ("true", True),
        ("on", True),
        ("n", False),
        ("no", False),
        ("false", False),
        ("off", False),
    )
    for form in (word, word.upper(), word.capitalize())
}
_NULLS: Final = frozenset(("", "~", "null", "Null", "NULL"))
_INT = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)\Z")
_JSON_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?\Z")


def resolve_plain(text: str, untagged: bool = True) -> Scalar:
    """A plain scalar's value by yaml-cpp's rules as Envoy applies them (see the head of this module)."""
    if text in _NULLS:
        return None if untagged else text
    first = text[0]
    if first in "0123456789+-":
        if _INT.match(text) is None:
            return text
        digits = text.lstrip("+-")
        base = 16 if digits[:2] in ("0x", "0X") else 8 if digits[0] == "0" else 10
        number = int(digits, base)
        if first == "-":
            number = -number
        if -0x80000000 <= number <= 0x7FFFFFFF:
            return number
        return str(number) if -0x8000000000000000 <= number <= 0x7FFFFFFFFFFFFFFF else text
    if first in "yYnNtTfFoO":
        return _BOOLS.get(text, text)
    return text


def _resolve_json(text: str, untagged: bool = True) -> Scalar:
    """A bare word of a ``.json`` file. Unquoted text is no JSON; it is kept, so that the schema names the place."""
    if text == "true":
        return True
    if text == "false":
        return False
    if text == "null":
        return None
    number = _JSON_NUMBER.match(text)
    if number is None:
        return text
    return float(text) if number.group(1) or number.group(2) else int(text)


def _key(text: str, event: Any, tag: str | None) -> str:
    # yaml-cpp reads a null key as the word.
    return "null" if text in _NULLS and not event.style and tag is None else text


def _text_of(value: Scalar) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


# --- errors ------------------------------------------------------------------------------------------------------------

# A key with something glued to its colon: `static_resources:` followed by a backtick, `name:value`.
_GLUED = re.compile(r"\s*(?:- +)*(?P<key>[A-Za-z_][\w.]*:)(?P<rest>[^\s/:][^\s]*)\s*(?:#.*)?\Z")
_UNFILLED: Final = "this looks like a template that has not been filled in"
_TEMPLATE = re.compile(r"\{\{|\{%|\$\{")


def _explain(error: yaml.MarkedYAMLError, text: str) -> ConfigError:
    """libyaml's complaint in the user's words, at the place where the mistake stands and not where it was noticed."""
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return ConfigError("", 0, 0, f"could not parse: {error.problem or error.context}")
    lines = lines_of(text)
    row = min(mark.line, len(lines) - 1)
    problem = error.problem or ""
    if problem.startswith(("mapping values are not allowed", "could not find expected ':'")):
        # The plain scalar before the colon began on an earlier line: usually a key whose colon lacks its space.
        for candidate in range(row, max(-1, row - 3), -1):
            glued = _GLUED.match(lines[candidate])
            if glued is not None:
                key, rest = glued["key"], glued["rest"]
                simple = not rest[0].isalnum() and rest[0] not in "\"'"
                hint = f'did you mean "{key}" alone?' if simple else f'did you mean "{key} {rest}"?'
                return ConfigError(
                    "", candidate + 1, glued.start("rest") + 1, f'could not parse: "{rest}" right after "{key}"', hint
                )
    source = lines[row] if 0 <= row < len(lines) else ""
    if (mark.column < len(source) and source[mark.column] == "\t") or "'\\t'" in problem:
        hint = "YAML wants spaces, not tabs, for indentation"
    elif _TEMPLATE.search(source):
        hint = _UNFILLED
    elif problem.startswith("could not find expected ':'"):
        hint = 'a key without ": " after it'
    elif problem.startswith("mapping values are not allowed"):
        hint = 'a second ": " in one value: quote the value, or check the indentation'
    elif problem.startswith(("did not find expected key", "did not find expected '-'")):
        hint = "check the indentation of this line and of those before it"
    elif "unexpected end of stream" in problem or "found unexpected document indicator" in problem:
        hint = "a quote is not closed"
    elif problem.startswith("did not find expected ',' or"):
        hint = "a bracket is not closed"
    elif "cannot start any token" in problem:
        hint = "quote the value"
    else:
        hint = ""
    where = f" {error.context}" if error.context else ""
    since = f", which began in line {error.context_mark.line + 1}" if where and error.context_mark else ""
    return ConfigError("", mark.line + 1, mark.column + 1, f"could not parse: {problem}{where}{since}", hint)


def _template_hint(text: str, mark: Mark) -> str:
    return _UNFILLED if _TEMPLATE.search(lines_of(text)[mark.line - 1]) else ""


def _decode(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise ConfigError("", 0, 0, f"the file is larger than {MAX_BYTES >> 20} MiB")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    else:
        encoding = "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = before.count(b"\n") + 1
        column = len(before.rsplit(b"\n", 1)[-1].decode("utf-8", "replace")) + 1
        raise ConfigError(
            "",
            line,
            column,
            f"could not parse: byte 0x{data[error.start]:02x} is not UTF-8 text",
            "is this a binary file?",
        ) from error


def _place(text: str, index: int) -> tuple[int, int]:
    return text.count("\n", 0, index) + 1, index - (text.rfind("\n", 0, index) + 1) + 1
