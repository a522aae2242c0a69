"""``forkproxy config schema``: which fields of Envoy's messages are honoured, told for people and for programs.

What the builders read is written to ``config/honoured.json`` by scripts/supported, of the same run as SUPPORTED.md.
"""

from __future__ import annotations

from typing import Any

from forkproxy.cli.field_path import NoSuchPath, honoured, message_in, no_setting, path_text, resolve, split, type_text
from forkproxy.config.load import FORKPROXY_FIELDS
from forkproxy.config.schema import FieldSchema, MessageSchema, schema

NOT_IMPLEMENTED = "not implemented"


def how_honoured(message: MessageSchema, field: FieldSchema) -> str:
    """How the field is honoured: "yes", "its default only", the values it knows, "ignored: " with the reason, or not at all."""
    return honoured().get(message.full_name, {}).get(field.name, NOT_IMPLEMENTED)


def index() -> list[dict[str, Any]]:
    """Every message of which a field is honoured, with how many of how many."""
    return [
        {"message": name, "honoured": len(fields), "fields": len(schema().message(name).fields)}
        for name, fields in sorted(honoured().items())
    ]


def describe(path: str) -> list[dict[str, Any]]:
    """The fields of the message at ``path``, or the one field that it names; see field_path. NoSuchPath when it leads nowhere."""
    words = split(path)
    if words[:1] == ["forkproxy"]:
        return settings(path_text(words[1:]))
    target = resolve(path)
    if target.enum is not None:
        raise NoSuchPath(f"{target.enum.full_name} is an enum (forkproxy config explain {path} lists its values)")
    if target.field is None:
        return rows(target.message)
    inner = message_in(target.field)
    return rows(inner) if inner is not None else [row(target.message, target.field)]


def settings(name: str) -> list[dict[str, Any]]:
    """The settings of ``forkproxy:``, or the one called ``name``."""
    if name and name not in FORKPROXY_FIELDS:
        raise NoSuchPath(no_setting(name))
    return [
        {"field": each, "type": "scalar", "honoured": f"yes: {meaning}"}
        for each, meaning in FORKPROXY_FIELDS.items()
        if name in ("", each)
    ]


def rows(message: MessageSchema) -> list[dict[str, Any]]:
    """All fields of a message."""
    return [row(message, field) for field in message.fields.values()]


def row(message: MessageSchema, field: FieldSchema) -> dict[str, Any]:
    """One field, its type, and how it is honoured."""
    return {"field": field.name, "type": type_text(field), "honoured": how_honoured(message, field)}
