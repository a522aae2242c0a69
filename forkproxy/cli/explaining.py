"""What is to be known of a field, a message or an enum of the configuration, as JSON-ready data and as text.

For ``forkproxy config explain``: the schema's own words (type, rules, choices), what the program makes of it (``honoured.json``,
``defaults.json``, of which ``scripts/supported`` is the author), and what a file sets there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from forkproxy.cli import field_path, occurrences
from forkproxy.cli.columns import Line, columns
from forkproxy.cli.field_path import NoSuchPath, Target, defaults, honoured, message_in, type_text
from forkproxy.cli.honoured import NOT_IMPLEMENTED, how_honoured, rows, settings
from forkproxy.cli.occurrences import Occurrence
from forkproxy.config import registry
from forkproxy.config.build.extensions import BUILDERS
from forkproxy.config.problems import Problem
from forkproxy.config.schema import Check, EnumSchema, FieldSchema, MessageSchema, schema
from forkproxy.config.tree import Node
from forkproxy.config.values import frozen
from forkproxy.config.view import door

Json = dict[str, Any]

_DOCUMENTATION = "https://www.envoyproxy.io/docs/envoy/latest/api-v3"
_PLACES_SHOWN = 12
_ZEROES = {"bool": "false", "string": '""', "bytes": '""'}
_WRITTEN = {
    "duration": "as in 0.25s",
    "timestamp": "as in 2026-01-31T12:00:00Z",
    "any": 'any message, by its "@type"',
    "struct": "a free mapping",
    "bytes": "in base64",
}


@frozen
class File:
    """A file that was read. ``raw``: its tree as written, of a file of version 2; None when it is version 3."""

    name: str
    root: Node | None
    raw: Node | None
    problems: Sequence[Problem]


def explain(path: str, file: File | None = None) -> Json:
    """All about what ``path`` names. NoSuchPath when it names nothing."""
    words = field_path.split(path)
    if words and words[0] == "forkproxy":
        return _forkproxy(words[1:])
    try:
        target = field_path.resolve(path, file.root if file is not None else None)
    except NoSuchPath:
        old = _old_path(words, file)
        if old is None:
            raise
        return old
    if target.enum is not None:
        return _enum(target.enum)
    about = _message(target.message) if target.field is None else _field(target.message, target.field)
    about["notes"] = list(target.notes)
    if file is not None and file.root is not None:
        about["file"] = file.name
        about["set"] = [_place(each) for each in occurrences.found(target, file.root, file.raw)]
        about["problems"] = [each.as_json(file.name) for each in _problems(target, about["set"], file.problems)]
        if not about["set"] and (old := _old_path(words, file)) is not None:
            about["version_2"] = old["version_2"]
    return about


def _place(occurrence: Occurrence) -> Json:
    said = asdict(occurrence)
    line, column = said.pop("mark")
    return {**said, "line": line, "column": column}


def _problems(target: Target, places: Sequence[Json], problems: Sequence[Problem]) -> Iterator[Problem]:
    paths = [place["path"] for place in places]
    wanted = field_path.path_text(target.pieces) if target.pieces is not None else None
    for problem in problems:
        if problem.path in paths or (wanted is not None and problem.path == wanted):
            yield problem


def _old_path(words: Sequence[field_path.Piece], file: File | None) -> Json | None:
    """A path of version 2 that the file has: what became of it."""
    if file is None or file.raw is None or file.root is None:
        return None
    before, after = occurrences.became(words, file.root, file.raw)
    if not before:
        return None
    return {
        "kind": "version 2",
        "name": field_path.path_text(words),
        "file": file.name,
        "version_2": {"set": [_place(each) for each in before], "becomes": [_place(each) for each in after]},
    }


def _forkproxy(rest: Sequence[field_path.Piece]) -> Json:
    found = settings(field_path.path_text(rest))
    return {"kind": "forkproxy", "name": ".".join(["forkproxy", *map(str, rest)]), "fields": found}


# Fields


def _field(message: MessageSchema, field: FieldSchema) -> Json:
    how = how_honoured(message, field)
    values = _values(message, field)
    about: Json = {
        "kind": "field",
        "name": f"{message.name}.{field.name}",
        "message": message.full_name,
        "field": field.name,
        "type": type_text(field),
        "honoured": "yes" if values and all(each["honoured"] for each in values) else how,
        "guards": door(message.full_name, field.name) if how == NOT_IMPLEMENTED else "",
        "default": default_text(message, field),
        "rules": rules(field),
        "deprecated": _deprecated(field),
        "one_of": _one_of(field),
        "values": values,
        "extensions": _extensions(message, field),
        "version_2_name": _old_name(message, field),
        "documentation": _link("field", message.full_name, f"-{field.name}"),
    }
    inner = message_in(field)
    about["fields"] = rows(inner) if inner is not None else []
    return about


def default_text(message: MessageSchema, field: FieldSchema) -> str:
    """What an absent field means, where that is known; "" where it is not."""
    said = defaults().get(message.full_name, {}).get(field.name)
    if said is not None:
        return said
    if field.has_presence or field.repeated or field.shape == "map" or field.absent is not None:
        return ""
    if field.shape == "enum":
        return field.enum.names.get(0, "")
    return _ZEROES.get(field.shape, "0")


def rules(field: FieldSchema) -> list[str]:
    """What a value must be, in the words of ``check``."""
    found = ["is required"] if field.required else []
    value = "its value " if field.shape == "wrapper" else ""
    found += [f"{value}{_rule(check)}" for check in field.checks]
    for what, checks in (("each", field.item_checks), ("a key", field.key_checks), ("a value", field.value_checks)):
        found += [f"{what} {_rule(check)}" for check in checks]
    if field.defined_only:
        found.append("must be one of the values below")
    if field.disallowed:
        found.append("is refused by Envoy unless its runtime allows it")
    return found


def _rule(check: Check) -> str:
    return check.__doc__ or "has a rule"


def _deprecated(field: FieldSchema) -> str:
    if not field.deprecated:
        return ""
    return f"since {field.deprecated_since}" if field.deprecated_since else "yes"


def _one_of(field: FieldSchema) -> Json | None:
    oneof = field.oneof
    if oneof is None:
        return None
    others = [each.name for each in oneof.fields if each is not field]
    return {"name": oneof.name, "required": oneof.required, "others": others}


def _values(message: MessageSchema, field: FieldSchema) -> list[Json]:
    inner = field.map_value if field.shape == "map" else field
    if inner.shape != "enum":
        return []
    how = how_honoured(message, field)
    some = how.split(", ") if how not in ("yes", NOT_IMPLEMENTED, "its default only") and ":" not in how else None
    return [
        {
            "value": name,
            "number": number,
            "honoured": how != NOT_IMPLEMENTED and (some is None or name in some),
            "deprecated": number in inner.enum.deprecated,
        }
        for number, name in inner.enum.names.items()
    ]


def _extensions(message: MessageSchema, field: FieldSchema) -> list[str]:
    """The extensions that may stand in this Any, and are implemented."""
    category = registry.category_of(message.full_name)
    if field.shape != "any" or category is None:
        return []
    found = {each.name for (kind, _), each in registry.extensions().items() if kind == category and each.v3 in BUILDERS}
    return sorted(found)


def _old_name(message: MessageSchema, field: FieldSchema) -> str:
    """The name of the field in version 2, where it had another one."""
    if message.previous not in schema():
        return ""
    old = schema().message(message.previous)
    name = next((each.name for each in old.fields.values() if each.number == field.number), "")
    return name if name != field.name else ""


def _link(kind: str, full_name: str, end: str = "") -> str:
    """Envoy's documentation of it; "" for what is not of Envoy's own API."""
    file = schema().file_of(full_name)
    if not file.startswith("envoy/"):
        return ""
    anchor = full_name.removeprefix("envoy.").replace(".", "-").replace("_", "-").lower()
    return f"{_DOCUMENTATION}/{file.removeprefix('envoy/')}#envoy-v3-api-{kind}-{anchor}{end.replace('_', '-')}"


# Messages and enums


def _message(message: MessageSchema) -> Json:
    return {
        "kind": "message",
        "name": message.name,
        "message": message.full_name,
        "implemented": message.full_name in honoured(),
        "guards": door(message.full_name) if message.full_name not in honoured() else "",
        "version_2_name": message.previous,
        "deprecated": "yes" if message.deprecated else "",
        "fields": rows(message),
        "one_of_required": [
            [field.name for field in oneof.fields] for oneof in message.oneofs.values() if oneof.required
        ],
        "documentation": _link("msg", message.full_name),
    }


def _enum(enum: EnumSchema) -> Json:
    return {
        "kind": "enum",
        "name": enum.full_name,
        "values": [
            {"value": name, "number": number, "honoured": None, "deprecated": number in enum.deprecated}
            for number, name in enum.names.items()
        ],
        "documentation": _link("enum", enum.full_name),
    }


# As text


def text(about: Json, style: Callable[[str, str], str]) -> str:
    """What a terminal shows."""
    lines = list(_LINES[about["kind"]](about, style))
    lines += [Line("note", note) for note in about.get("notes", ())]
    if about.get("documentation"):
        lines.append(Line("see", style(about["documentation"], "dim")))
    parts = [[Line(style(about["name"], "bold"))], lines, list(_fields(about.get("fields", ()), style))]
    parts += [list(part) for part in _in_file(about, style)]
    filename = about.get("file", "")
    return "\n\n".join(columns(part, filename, style, exactly=True) for part in parts if part)


def _field_lines(about: Json, style: Callable[[str, str], str]) -> Iterator[Line]:
    yield Line("message", about["message"])
    written = _WRITTEN.get(about["type"].removeprefix("list of "))
    yield Line("type", f"{about['type']} ({written})" if written else about["type"])
    yield Line("honoured", _honoured(about["honoured"], style))
    if about["honoured"] == NOT_IMPLEMENTED:
        yield Line("", _refused(about["guards"]))
    if about["default"]:
        yield Line("default", about["default"])
    if about["rules"]:
        yield Line("rules", "; ".join(about["rules"]))
    one_of = about["one_of"]
    if one_of is not None:
        required = ", of which one must be set" if one_of["required"] else ""
        others = ", ".join(one_of["others"])
        if others or required:
            yield Line("instead of", f"{others or 'nothing else'} ({one_of['name']}{required})")
    if about["deprecated"]:
        yield Line("deprecated", about["deprecated"])
    if about["version_2_name"]:
        yield Line("version 2", f"was {about['version_2_name']}")
    yield from _value_lines(about["values"], style)
    if about["extensions"]:
        yield Line("holds one of", ", ".join(about["extensions"]))


def _refused(guards: str) -> str:
    if guards:
        return f"a file that sets it is refused, also with --allow-unsupported: it {guards}"
    return "a file that sets it is refused; --allow-unsupported runs it without"


def _message_lines(about: Json, style: Callable[[str, str], str]) -> Iterator[Line]:
    yield Line("message", about["message"])
    if not about["implemented"]:
        yield Line("honoured", _honoured(NOT_IMPLEMENTED, style))
        yield Line("", _refused(about["guards"]))
    for names in about["one_of_required"]:
        yield Line("one must be set", ", ".join(names))
    if about["deprecated"]:
        yield Line("deprecated", about["deprecated"])
    if about["version_2_name"]:
        yield Line("version 2", f"was {about['version_2_name']}")


def _enum_lines(about: Json, style: Callable[[str, str], str]) -> Iterator[Line]:
    yield from _value_lines(about["values"], style)


def _value_lines(values: Sequence[Json], style: Callable[[str, str], str]) -> Iterator[Line]:
    label = "values"
    for each in values:
        marks = [NOT_IMPLEMENTED] if each["honoured"] is False else []
        marks += ["deprecated"] if each["deprecated"] else []
        said = f"{each['value']} = {each['number']}" + (f" ({', '.join(marks)})" if marks else "")
        yield Line(label, style(said, "dim") if marks else said)
        label = ""


def _forkproxy_lines(about: Json, style: Callable[[str, str], str]) -> Iterator[Line]:
    yield Line("setting" if "." in about["name"] else "key", "forkproxy's own, not Envoy's")


def _no_lines(about: Json, style: Callable[[str, str], str]) -> Iterator[Line]:
    yield Line("note", "a path of version 2")


_LINES: dict[str, Callable[[Json, Callable[[str, str], str]], Iterator[Line]]] = {
    "field": _field_lines,
    "message": _message_lines,
    "enum": _enum_lines,
    "forkproxy": _forkproxy_lines,
    "version 2": _no_lines,
}


def _honoured(how: str, style: Callable[[str, str], str]) -> str:
    return style(how, "red" if how == NOT_IMPLEMENTED else "yellow" if how.startswith("ignored") else "green")


def _fields(rows: Sequence[Json], style: Callable[[str, str], str]) -> Iterator[Line]:
    if not rows:
        return
    yield Line("fields")
    width = max(len(row["field"]) for row in rows) + 2
    for row in rows:
        shown = _honoured(row["honoured"], style)
        kind = f" ({row['type']})" if "type" in row else ""
        yield Line(f"  {row['field']:<{width}}{shown}{style(kind, 'dim')}")


def _in_file(about: Json, style: Callable[[str, str], str]) -> Iterator[Iterable[Line]]:
    file = about.get("file", "")
    if "set" in about:
        if not about["set"] and "version_2" not in about:
            default = f", which means {about['default']}" if about.get("default") else ""
            yield [Line(f"{file} does not set it{default}")]
        yield _places(f"set in {file}", about["set"], style)
        yield [Line(style(f"  {each['message']}{_hint(each)}", "red"), " ", each) for each in about["problems"]]
    if "version_2" in about:
        yield _places(f"set in {file}", about["version_2"]["set"], style)
        becomes = about["version_2"]["becomes"]
        yield _places("becomes, in version 3,", becomes, style) if becomes else [Line("becomes nothing in version 3")]


def _hint(problem: Json) -> str:
    return f" ({problem['hint']})" if problem["hint"] else ""


def _places(heading: str, places: Sequence[Json], style: Callable[[str, str], str]) -> Iterator[Line]:
    if not places:
        return
    yield Line(heading)
    for place in places[:_PLACES_SHOWN]:
        written = f", written as {place['written']}" if place.get("written") else ""
        yield Line("  " + style(place["value"], "green"), " ", place)
        yield Line(f"    {place['path']}{written}")
    if len(places) > _PLACES_SHOWN:
        yield Line(f"  and {len(places) - _PLACES_SHOWN} more (--json lists them all)")
