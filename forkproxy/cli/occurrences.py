"""Where a file sets a field: in the version 3 tree, with the place and the name that it has in the user's file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from forkproxy.cli.field_path import ANY_INDEX, Piece, Target, path_text
from forkproxy.config import registry
from forkproxy.config.schema import FieldSchema, MessageSchema, schema
from forkproxy.config.secrets import REDACTED, is_secret
from forkproxy.config.tree import Entry, Mark, Node
from forkproxy.config.validate import BOOTSTRAP_V3
from forkproxy.config.values import frozen

_VALUE_CHARACTERS = 60

Pieces = tuple[Piece, ...]


@frozen
class Occurrence:
    """One place. ``written``: the path in the user's file, where that is another one (version 2); "" else."""

    path: str
    value: str
    mark: Mark
    written: str = ""


def found(target: Target, root: Node, raw: Node | None) -> list[Occurrence]:
    """Every place in the version 3 tree ``root`` where the target is set; ``raw``: the tree as the user wrote it."""
    written = _marks(raw) if raw is not None else {}
    places = []
    for message, field, entry, pieces in walk(root, schema().message(BOOTSTRAP_V3), ()):
        if target.field is None:
            places += [(path, node, node.mark) for path, node in _messages(field, entry, pieces, target.message)]
        elif field is target.field and message is target.message:
            for path, node in _values(field, entry, pieces) if _wants_item(target) else [(pieces, entry.value)]:
                if target.pieces is None or _fits(target.pieces, path):
                    mark = entry.key_mark if path == pieces else node.mark
                    places.append((path, node, mark))
    return [_occurrence(path, node, mark, written) for path, node, mark in places]


def became(pieces: Sequence[Piece], root: Node, raw: Node) -> tuple[list[Occurrence], list[Occurrence]]:
    """For a path of version 2: where the user's file sets it, and what the upgrade has made of that."""
    sources = [(path, key_mark, value) for path, key_mark, value in _entries(raw, ()) if _fits(tuple(pieces), path)]
    before = [_occurrence(path, value, mark, {}) for path, mark, value in sources]
    marks: set[Mark] = set()
    for _, key_mark, value in sources:
        marks |= {key_mark, *(mark for mark in _marks_within(value))}
    after: list[Occurrence] = []
    tops: list[Pieces] = []
    for _, _, entry, path in walk(root, schema().message(BOOTSTRAP_V3), ()):
        is_of_it = entry.key_mark in marks or (entry.key_mark.line == 0 and entry.value.mark in marks)
        if is_of_it and not any(path[: len(top)] == top for top in tops):
            tops.append(path)
            after.append(_occurrence(path, entry.value, entry.key_mark, {}))
    return before, after


def walk(
    node: Node, message: MessageSchema, pieces: Pieces
) -> Iterator[tuple[MessageSchema, FieldSchema, Entry, Pieces]]:
    """Every field that is set in a version 3 message and below: its message, schema, entry and path."""
    if node.kind != "map":
        return
    for entry in node.entries:
        field = message.lookup.get(entry.key)
        if field is None:
            continue  # "@type", or what the schema does not know
        path = (*pieces, field.name)
        yield message, field, entry, path
        inner = field.map_value if field.shape == "map" else field
        for at, value in _values(field, entry, path):
            if inner.shape == "message":
                yield from walk(value, inner.message, at)
            elif inner.shape == "any":
                held = _held(value)
                if held is not None:
                    yield from walk(value, held, at)


def _held(node: Node) -> MessageSchema | None:
    """The message in an Any, where it has fields."""
    url = node.get("@type")
    name = registry.message_name(str(url.value)) if url is not None else None
    if name is None or name in registry.TYPED_STRUCTS or not schema().is_message(name):
        return None
    message = schema().message(name)
    return message if message.shape == "message" else None


def _values(field: FieldSchema, entry: Entry, pieces: Pieces) -> Iterator[tuple[Pieces, Node]]:
    node = entry.value
    if field.shape == "map":
        for each in node.entries if node.kind == "map" else ():
            yield (*pieces, each.key), each.value
    elif field.repeated:
        for index, item in enumerate(node.items if node.kind == "seq" else ()):
            yield (*pieces, index), item
    else:
        yield pieces, node


def _messages(
    field: FieldSchema, entry: Entry, pieces: Pieces, message: MessageSchema
) -> Iterator[tuple[Pieces, Node]]:
    inner = field.map_value if field.shape == "map" else field
    for path, node in _values(field, entry, pieces):
        if (inner.shape == "message" and inner.message is message) or (inner.shape == "any" and _held(node) is message):
            yield path, node


def _wants_item(target: Target) -> bool:
    """Whether the path ends in one of a list or map, and not at the list itself."""
    assert target.field is not None
    return target.pieces is not None and target.pieces[-1] not in (target.field.name, ANY_INDEX)


def _fits(pattern: Sequence[Piece], path: Sequence[Piece]) -> bool:
    """Whether ``path`` is of the ``pattern``, in which indices may be left out or stand for any."""
    place = 0
    for piece in path:
        wanted = pattern[place] if place < len(pattern) else None
        if isinstance(piece, int) and not (isinstance(wanted, int)):
            continue
        if wanted is None or (wanted != piece and wanted != ANY_INDEX):
            return False
        place += 1
    return place == len(pattern)


# The user's own tree


def _entries(node: Node, pieces: Pieces) -> Iterator[tuple[Pieces, Mark, Node]]:
    if node.kind == "map":
        for entry in node.entries:
            path = (*pieces, entry.key)
            yield path, entry.key_mark, entry.value
            yield from _entries(entry.value, path)
    elif node.kind == "seq":
        for index, item in enumerate(node.items):
            yield from _entries(item, (*pieces, index))


def _marks(raw: Node) -> dict[Mark, str]:
    found = {key_mark: path_text(path) for path, key_mark, _ in _entries(raw, ())}
    # What the upgrade makes has the mark of the value, or of the item of a list, that it is made of.
    for path, _, value in _entries(raw, ()):
        for node in (value, *(value.items if value.kind == "seq" else ())):
            found.setdefault(node.mark, path_text(path))
    return found


def _marks_within(node: Node) -> Iterator[Mark]:
    yield node.mark
    for _, key_mark, value in _entries(node, ()):
        yield key_mark
        yield value.mark


def _occurrence(pieces: Pieces, node: Node, mark: Mark, written: dict[Mark, str]) -> Occurrence:
    path = path_text(pieces)
    said = written.get(mark, "")
    return Occurrence(path, REDACTED if is_secret(path) else _short(node), mark, said if said != path else "")


def _short(node: Node) -> str:
    """A value on one line, and not endlessly long."""
    if node.kind == "map":
        text = "{" + ", ".join(entry.key for entry in node.entries if entry.key != "@type") + "}"
        url = node.get("@type")
        if url is not None:
            text = f"{str(url.value).rpartition('/')[2].rpartition('.')[2]} {text}"
    elif node.kind == "seq":
        if all(item.kind == "scalar" for item in node.items):
            text = "[" + ", ".join(item.text for item in node.items) + "]"
        else:
            text = f"{len(node.items)} item{'s' if len(node.items) != 1 else ''}"
    else:
        text = node.text if not node.is_null else "null"
    text = "".join(each if each.isprintable() else " " for each in text)
    return text if len(text) <= _VALUE_CHARACTERS else text[:_VALUE_CHARACTERS] + "…"
