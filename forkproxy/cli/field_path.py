"""From what a user calls a field to the field: a path in the file, a message's name, an extension's name.

``static_resources.clusters[0].lb_policy``, ``Cluster.lb_policy``, ``cluster.lb_policy``, ``envoy.config.cluster.v3.Cluster``,
``envoy.filters.http.router``: names of fields in snake case or camel case, of messages full or short. What stands in an Any is
found by the file, when there is one, else by the name that follows.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files

from forkproxy.config import registry
from forkproxy.config.build.extensions import BUILDERS, PER_ROUTE
from forkproxy.config.load import FORKPROXY_FIELDS
from forkproxy.config.schema import EnumSchema, FieldSchema, MessageSchema, schema
from forkproxy.config.tree import Node
from forkproxy.config.validate import BOOTSTRAP_V3
from forkproxy.config.values import frozen

Piece = str | int
"""Of a path: a name, a map's key, or an index. ANY_INDEX: whichever."""

ANY_INDEX = -1
_WORD = re.compile(r'\[(\d*)\]|\["([^"]*)"\]|\.?([^.\[\]]+)')
_MOST_SUGGESTIONS = 4
_NOT_CONFIGURATION = (
    *("envoy.api.", "envoy.admin.", "envoy.service.", "envoy.data."),
    *("google.", "validate.", "udpa.", "opencensus."),
)


class NoSuchPath(Exception):
    """There is no such message or field; the text says which part is wrong, and what may be meant."""


@frozen
class Target:
    """What a path leads to. ``field`` None: ``message`` itself; ``enum``: an enum, and nothing else.

    ``pieces``: the path from the bootstrap, None when it began elsewhere. ``notes``: what had to be guessed.
    """

    message: MessageSchema
    field: FieldSchema | None = None
    enum: EnumSchema | None = None
    pieces: tuple[Piece, ...] | None = None
    notes: tuple[str, ...] = ()


def honoured() -> dict[str, dict[str, str]]:
    """Message → field → how: "yes", "its default only", the values it knows, or "ignored: " with the reason."""
    return _table("honoured.json")


def defaults() -> dict[str, dict[str, str]]:
    """Message → field → what an absent field means, where the program has said so."""
    return _table("defaults.json")


@cache
def _table(name: str) -> dict[str, dict[str, str]]:
    loaded: dict[str, dict[str, str]] = json.loads(files("forkproxy.config").joinpath(name).read_text())
    return loaded


def split(path: str) -> list[Piece]:
    """The pieces of a path. NoSuchPath when it is none."""
    pieces: list[Piece] = []
    position = 0
    while position < len(path):
        found = _WORD.match(path, position)
        if found is None:
            raise NoSuchPath(f'"{path}" is no path: {path[position:]!r} is neither .NAME nor [INDEX]')
        index, key, word = found.groups()
        pieces.append(word if word is not None else key if key is not None else int(index) if index else ANY_INDEX)
        position = found.end()
    return pieces


def path_text(pieces: Iterable[Piece]) -> str:
    """The pieces as one path."""
    text = ""
    for piece in pieces:
        if isinstance(piece, int):
            text += "[]" if piece == ANY_INDEX else f"[{piece}]"
        else:
            text += f".{piece}"
    return text.removeprefix(".")


def resolve(path: str, root: Node | None = None) -> Target:
    """What ``path`` names; ``root`` is the version 3 tree of a file. NoSuchPath when it names nothing."""
    pieces = split(path)
    if not pieces or not isinstance(pieces[0], str):
        raise NoSuchPath(f'"{path}" names nothing: begin with a field of the file, or a message (Cluster)')
    start, rest = _start(pieces)
    if isinstance(start, EnumSchema):
        return Target(schema().message(BOOTSTRAP_V3), enum=start)
    is_path = start.full_name == BOOTSTRAP_V3 and len(rest) == len(pieces)
    walk = _Walk(start, root if is_path else None)
    walk.go(rest)
    return Target(walk.message, walk.field, None, tuple(walk.taken) if is_path else None, tuple(walk.notes))


class _Walk:
    """The way down from a message."""

    def __init__(self, start: MessageSchema, node: Node | None) -> None:
        self.message = start
        self.field: FieldSchema | None = None
        self.node = node
        self.taken: list[Piece] = []
        self.notes: list[str] = []

    def go(self, pieces: Sequence[Piece]) -> None:
        rest = list(pieces)
        while rest:
            piece = rest.pop(0)
            if isinstance(piece, int):
                raise NoSuchPath(f"{path_text(self.taken) or self.message.name} is no list: [{piece}] leads nowhere")
            self._enter(piece)
            self._into(rest)

    def _enter(self, name: str) -> None:
        """Take the field called ``name``; into what is in the field taken before, if there is one."""
        if self.field is not None:
            self._descend(name)
        found = self.message.lookup.get(name)
        if found is None:
            found = self._renamed(name)
        if found is None:
            raise NoSuchPath(no_field(self.message, name))
        self.field = found
        self.taken.append(found.name)
        self.node = self.node.get(found.name) if self.node is not None else None

    def _descend(self, name: str) -> None:
        assert self.field is not None
        field = self.field.map_value if self.field.shape == "map" else self.field
        if field.shape == "any":
            self.message = self._in_any(name)
        elif field.shape == "message":
            self.message = field.message
        else:
            raise NoSuchPath(f'"{self.field.name}" is of type {type_text(self.field)}: there is nothing in it')

    def _in_any(self, name: str) -> MessageSchema:
        """The message in an Any: what the file says, else the one that has such a field."""
        assert self.field is not None
        url = self.node.get("@type") if self.node is not None else None
        full_name = registry.message_name(str(url.value)) if url is not None else None
        if full_name is not None and schema().is_message(full_name):
            if full_name in registry.TYPED_STRUCTS:
                raise NoSuchPath(f'"{self.field.name}" holds a Struct: what is in it, its filter knows')
            return schema().message(full_name)
        if self.field.name == "typed_per_filter_config":
            per_route = {each.per_route for each in registry.named(str(self.taken[-1])) if each.per_route in schema()}
            if len(per_route) == 1:
                return schema().message(per_route.pop())
        category = registry.category_of(self.message.full_name)
        having = [each for each in _extension_messages(category) if name in schema().message(each).lookup]
        if len(having) == 1:
            found = schema().message(having[0])
            self.notes.append(
                f"{path_text(self.taken)} holds any message; {found.full_name} is the one with such a field"
            )
            return found
        text = f'"{self.field.name}" holds any message: ask for that one by its name (HttpConnectionManager), or with -c FILE'
        if having:
            text += f'; "{name}" is in {_listed(having)}'
        raise NoSuchPath(text)

    def _renamed(self, name: str) -> FieldSchema | None:
        """The field that ``name`` became: the one of the same number."""
        previous = self.message.previous
        old = schema().message(previous).lookup.get(name) if previous in schema() else None
        if old is None:
            return None
        new = next((each for each in self.message.fields.values() if each.number == old.number), None)
        if new is None:
            hint = "forkproxy migrate FILE, or -c FILE here, shows what becomes of it"
            raise NoSuchPath(f'{self.message.full_name} has no field "{name}", version 2 had: {hint}')
        self.notes.append(f'"{name}" is version 2; its name is "{new.name}" now')
        return new

    def _into(self, rest: list[Piece]) -> None:
        """An index behind a list, a key behind a map."""
        assert self.field is not None
        if self.field.repeated:
            if rest and isinstance(rest[0], int):
                index = rest.pop(0)
                assert isinstance(index, int)
                self.taken.append(index)
                items = self.node.items if self.node is not None and self.node.kind == "seq" else []
                self.node = items[index] if 0 <= index < len(items) else items[0] if items else None
            elif self.node is not None and self.node.kind == "seq":
                self.node = self.node.items[0] if self.node.items else None
        elif self.field.shape == "map" and rest:
            key = self._key(rest)
            self.taken.append(key)
            self.node = self.node.get(key) if self.node is not None else None

    def _key(self, rest: list[Piece]) -> str:
        """A key may have dots in it, as the names of filters have: the longest that is known."""
        words = [str(piece) for piece in rest]
        known = (
            {entry.key for entry in self.node.entries} if self.node is not None and self.node.kind == "map" else set()
        )
        known |= {name for _, name in registry.extensions()}
        for count in range(len(words), 1, -1):
            if ".".join(words[:count]) in known:
                del rest[:count]
                return ".".join(words[:count])
        return str(rest.pop(0))


# Where a path begins


def _start(pieces: Sequence[Piece]) -> tuple[MessageSchema | EnumSchema, Sequence[Piece]]:
    words = [piece for piece in pieces if isinstance(piece, str)]
    leading = next((place for place, piece in enumerate(pieces) if not isinstance(piece, str)), len(pieces))
    bootstrap = schema().message(BOOTSTRAP_V3)
    for count in range(leading, 0, -1):
        name = ".".join(words[:count])
        if schema().is_message(name):
            return schema().message(name), pieces[count:]
        if name in schema() and count == len(pieces):
            return schema().enum(name), ()
        if (named := _of_extension(name)) is not None:
            return named, pieces[count:]
    if words[0] in bootstrap.lookup:
        return bootstrap, pieces
    if len(pieces) == 1 and words[0][:1].islower() and (places := places_of(words[0])):
        if len(places) > 1:
            raise NoSuchPath(_several(words[0], places))
        return schema().message(places[0][0]), pieces
    for count in range(leading, 0, -1):
        found = _short(".".join(words[:count]), is_alone=count == len(pieces))
        if found is not None:
            return found, pieces[count:]
    raise NoSuchPath(_nothing_called(words[0]))


def _of_extension(name: str) -> MessageSchema | None:
    """The configuration of the extension of this name."""
    messages = {found.v3 for found in registry.named(name) if found.v3 and schema().is_message(found.v3)}
    return schema().message(messages.pop()) if len(messages) == 1 else None


def _short(name: str, *, is_alone: bool) -> MessageSchema | EnumSchema | None:
    """The message (or enum) of a short name, in any case, with or without underscores."""
    candidates = _short_names().get(_folded(name), ())
    exact = [each for each in candidates if each.endswith(f".{name}")]
    candidates = [each for each in candidates if schema().is_message(each)]
    known = [each for each in exact or candidates if each in honoured()]
    found = known or exact or list(candidates)
    if not found:
        return None
    if len(found) > 1:
        raise NoSuchPath(f'"{name}" is one of {", ".join(sorted(found))}')
    if schema().is_message(found[0]):
        return schema().message(found[0])
    return schema().enum(found[0]) if is_alone else None


def _folded(name: str) -> str:
    return name.replace("_", "").lower()


@cache
def _short_names() -> dict[str, list[str]]:
    """Of version 3: ``cluster``, ``ringhashlbconfig`` and ``cluster.ringhashlbconfig`` → full names."""
    found: dict[str, list[str]] = {}
    for full_name in schema().names():
        package = re.match(r"(?:[a-z0-9_]+\.)*", full_name)
        assert package is not None
        if ".v2" in package[0]:
            continue
        if package[0].startswith(_NOT_CONFIGURATION):
            continue
        words = full_name[package.end() :].split(".")
        for start in range(len(words)):
            found.setdefault(_folded(".".join(words[start:])), []).append(full_name)
    return found


def _extension_messages(category: str | None) -> list[str]:
    """The messages of the extensions that are built here, of a category where it is known."""
    if category is None:
        return sorted({*BUILDERS, *PER_ROUTE})
    return sorted(
        {found.v3 for (kind, _), found in registry.extensions().items() if kind == category} & BUILDERS.keys()
    )


# What may be meant


def no_field(message: MessageSchema, name: str) -> str:
    """What to say when a message lacks a field."""
    text = f'{message.full_name} has no field "{name}"'
    close = difflib.get_close_matches(name, message.fields, _MOST_SUGGESTIONS, 0.6)
    return f"{text}: did you mean {_alternatives(close)}?" if close else text


def places_of(name: str) -> list[tuple[str, str]]:
    """(message, field) of every honoured message that has a field of this name."""
    found = []
    for full_name in honoured():
        field = schema().message(full_name).lookup.get(name)
        if field is not None:
            found.append((full_name, field.name))
    return sorted(found)


def _several(word: str, places: Sequence[tuple[str, str]]) -> str:
    shown = [f"{schema().message(message).name}.{field}" for message, field in places]
    messages = [each for each in _short_names().get(_folded(word), ()) if each in honoured()]
    return f'"{word}" is a field of several messages: ask for {_listed([*shown, *messages], 12)}'


def _nothing_called(word: str) -> str:
    names = {name.rpartition(".")[2] for name in honoured()}
    names |= set(schema().message(BOOTSTRAP_V3).fields) | {"forkproxy"}
    names |= {field for fields in honoured().values() for field in fields}
    close = difflib.get_close_matches(word, names, _MOST_SUGGESTIONS, 0.7)
    text = f'there is no message and no field "{word}"'
    if close:
        return f"{text}: did you mean {_alternatives(close)}?"
    return f"{text} (forkproxy config schema lists the messages)"


def no_setting(name: str) -> str:
    """What to say of a wrong key of ``forkproxy:``."""
    close = difflib.get_close_matches(name, FORKPROXY_FIELDS, 1)
    text = f'forkproxy has no setting "{name}"'
    return f"{text}: did you mean {_alternatives(close)}?" if close else text


def _alternatives(names: Sequence[str]) -> str:
    shown = [f'"{name}"' for name in names]
    return " or ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _listed(names: Sequence[str], most: int = _MOST_SUGGESTIONS) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def message_in(field: FieldSchema) -> MessageSchema | None:
    """The message in a field, of a list or a map too; None when there are others in it, or any."""
    value = field.map_value if field.shape == "map" else field
    return value.message if value.shape == "message" else None


def type_text(field: FieldSchema) -> str:
    """A field's type, as in ``list of envoy.config.cluster.v3.Cluster``."""
    if field.shape == "map":
        return f"map of {field.map_key} to {type_text(field.map_value)}"
    if field.shape in ("message", "enum"):
        name = field.type_name
    else:
        name = field.scalar if field.shape == "wrapper" else field.shape
    return f"list of {name}" if field.repeated else name
