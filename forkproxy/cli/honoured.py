"""``forkproxy config schema``: which fields of Envoy's messages are honoured, told for people and for programs.

What the builders read is written to ``config/honoured.json`` by scripts/supported, of the same run as SUPPORTED.md.
"""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

from forkproxy.config.load import FORKPROXY_FIELDS
from forkproxy.config.schema import FieldSchema, MessageSchema, schema
from forkproxy.config.validate import BOOTSTRAP_V3

NOT_IMPLEMENTED = "not implemented"

_INDEX = re.compile(r"\[\d*\]")


class NoSuchPath(Exception):
    """There is no such message or field; the text says which part is wrong."""


def honoured() -> dict[str, dict[str, str]]:
    """Message → field → how: "yes", "its default only", the values it knows, or "ignored: " with the reason."""
    loaded: dict[str, dict[str, str]] = json.loads(files("forkproxy.config").joinpath("honoured.json").read_text())
    return loaded


def index() -> list[dict[str, Any]]:
    """Every message of which a field is honoured, with how many of how many."""
    table = honoured()
    return [
        {"message": name, "honoured": len(fields), "fields": len(schema().message(name).fields)}
        for name, fields in sorted(table.items())
    ]


def describe(path: str) -> list[dict[str, Any]]:
    """The fields of the message at ``path``, or the one field that it names.

    A path starts at the bootstrap, or at a message's name, full or short: ``static_resources.clusters.connect_timeout``,
    ``Cluster.connect_timeout``, ``envoy.config.cluster.v3.Cluster``. NoSuchPath when it leads nowhere.
    """
    table = honoured()
    message, rest = _start(_INDEX.sub("", path), table)
    if rest and message.full_name == BOOTSTRAP_V3 and rest[0] == "forkproxy":
        return _forkproxy(rest[1:])
    for position, name in enumerate(rest):
        field = message.lookup.get(name)
        if field is None:
            raise NoSuchPath(f'{message.full_name} has no field "{name}"')
        is_last = position == len(rest) - 1
        inner = _inner(field)
        if inner is None:
            if not is_last:
                if field.shape == "any":
                    raise NoSuchPath(
                        f'"{name}" holds any message: ask for that one by its name (HttpConnectionManager)'
                    )
                raise NoSuchPath(f'"{name}" is of type {_type(field)}: there is nothing in it')
            return [_row(field, table.get(message.full_name, {}))]
        message = inner
    known = table.get(message.full_name, {})
    return [_row(field, known) for field in message.fields.values()]


def _start(path: str, table: dict[str, dict[str, str]]) -> tuple[MessageSchema, list[str]]:
    words = path.split(".")
    for count in range(len(words), 0, -1):
        name = ".".join(words[:count])
        if schema().is_message(name):
            return schema().message(name), words[count:]
    if words[0][:1].isupper():
        found = [name for name in table if name.rpartition(".")[2] == words[0]]
        if len(found) > 1:
            raise NoSuchPath(f'"{words[0]}" is one of {", ".join(sorted(found))}')
        if not found:
            raise NoSuchPath(f'no field of a message "{words[0]}" is honoured (forkproxy config schema lists them all)')
        return schema().message(found[0]), words[1:]
    return schema().message(BOOTSTRAP_V3), words


def _forkproxy(rest: list[str]) -> list[dict[str, Any]]:
    if len(rest) > 1 or (rest and rest[0] not in FORKPROXY_FIELDS):
        raise NoSuchPath(f'forkproxy has no setting "{".".join(rest)}"')
    return [
        {"field": name, "type": "scalar", "honoured": f"yes: {meaning}"}
        for name, meaning in FORKPROXY_FIELDS.items()
        if not rest or rest[0] == name
    ]


def _inner(field: FieldSchema) -> MessageSchema | None:
    if field.shape == "map":
        return field.map_value.message if field.map_value.shape == "message" else None
    return field.message if field.shape == "message" else None


def _row(field: FieldSchema, known: dict[str, str]) -> dict[str, Any]:
    return {"field": field.name, "type": _type(field), "honoured": known.get(field.name, NOT_IMPLEMENTED)}


def _type(field: FieldSchema) -> str:
    if field.shape == "map":
        return f"map of {field.map_key} to {_type(field.map_value)}"
    if field.shape in ("message", "enum"):
        name = field.type_name
    else:
        name = field.scalar if field.shape == "wrapper" else field.shape
    return f"list of {name}" if field.repeated else name
