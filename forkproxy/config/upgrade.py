"""v2 → v3, acting on the nodes, so that the user's line numbers survive.

Problem: a quarter of the public Envoy files are v2, and the seed's are of 2018 (Envoy 1.8.0). Today's schema has neither
their fields nor, for ``config: {…}`` beside a name, any type at all; and files of 2020 mix both versions.

Plan, three walks over the tree, each along the schema:

1. *prepare*: forms that only 1.8.0 had become those of the last v2, also within the untyped ``config`` beside a name.
2. The v2 schema validates the tree, which normalises it too. A field that v3 has and v2 has not is a warning there:
   Envoy 1.13 to 1.16 took such files.
3. *raise*: untyped ``config`` becomes ``typed_config`` with the ``@type`` that belongs to the name, and every v2 message
   its v3 successor. A field of the same number is the same field; what changed otherwise is a rule in v2_rules.py.

A v3 ``@type`` inside a v2 file is left alone, with all it holds, but for v2 ``@type`` s further down. So ``host_rewrite``
becomes ``host_rewrite_literal`` in a v2 message and stays what it is in a v3 one, where it is a format string.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from forkproxy.config import registry, v2_rules
from forkproxy.config.problems import Problem, by_place
from forkproxy.config.schema import FieldSchema, MessageSchema, schema
from forkproxy.config.tree import Document, Entry, Node
from forkproxy.config.v2_rules import Notes, field_path, text_of, typed_config
from forkproxy.config.validate import BOOTSTRAP_V3, validate

BOOTSTRAP_V2: Final = "envoy.config.bootstrap.v2.Bootstrap"
# Envoy's annotation of its v3 message names a package that never was.
_MISANNOTATED = {
    "envoy.config.filter.http.ext_authz.v2.ExtAuthz": "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
}
_API_VERSION = "envoy.config.core.v3.ApiVersion"
_TYPED_OPTIONS = (
    ("per_filter_config", "typed_per_filter_config"),
    ("extension_protocol_options", "typed_extension_protocol_options"),
)
_OPTIONS = frozenset(name for pair in _TYPED_OPTIONS for name in pair)


def detect_version(root: Node, message: str = BOOTSTRAP_V2) -> Literal["v2", "v3"]:
    """The API version of a file: ``v2`` as soon as one thing in it is v2 alone (a field, an enum value, an ``@type``).

    A file that is valid in both is ``v3``. A file that mixes them is ``v2``: it needs :func:`upgrade`. ``message`` is the
    v2 message that ``root`` holds.
    """
    successor = schema().v3_of(message)
    if successor and not _Glance().sees(root, schema().message(successor)):
        return "v3"
    old = schema().message(message)
    return "v2" if _is_v2(root, old, _successor(old) or old) else "v3"


def upgrade(document: Document, message: str = BOOTSTRAP_V2) -> list[Problem]:
    """Make the v2 (or mixed) tree of ``document`` a v3 tree, in place.

    Returns what was dropped or reads differently as problems of kind ``warning``. When there are problems of kind
    ``error``, the file is not valid v2 and the tree is left somewhere in between: do not use it. ``message`` is the v2
    message that the root holds.
    """
    run = _Upgrade()
    root, old = document.root, schema().message(message)
    run.prepare(root, old, "")
    if run.notes.rate_limit_service is not None and not run.notes.rate_limit_service_used:
        run.notes.warn(run.notes.rate_limit_service, "rate_limit_service", "dropped: no rate limit filter uses it")
    problems = run.notes.problems
    problems += validate(root, message)
    if not any(problem.kind == "error" for problem in problems):
        run.raise_message(root, old, _successor(old) or old, "")
    return by_place(problems)


def type_extensions(document: Document, message: str = BOOTSTRAP_V3) -> list[Problem]:
    """Give every extension of a v3 tree that has a name only the empty ``typed_config`` of that name, in place.

    Today's Envoy refuses a name alone; a quarter of the public files has them.
    """
    run = _Upgrade()
    new = schema().message(message)
    run.raise_message(document.root, new, new, "")
    return by_place(run.notes.problems)


# -- the schema, two versions side by side -----------------------------------------------------------------------------


def _successor(message: MessageSchema) -> MessageSchema | None:
    """The v3 message that came from this v2 message; None for what is v3, or has no version."""
    name = schema().v3_of(message.full_name) or _MISANNOTATED.get(message.full_name)
    return schema().message(name) if name else None


def _any_message(node: Node, key: str = "@type") -> MessageSchema | None:
    """The message that an Any names; None when it names none that we know, or one with a JSON form of its own."""
    url = node.get(key)
    name = text_of(url).rpartition("/")[2]
    if not name or not schema().is_message(name):
        return None
    message = schema().message(name)
    return message if message.shape == "message" else None


def _typed_struct(node: Node) -> tuple[Node, MessageSchema] | None:
    """The content and the message of a TypedStruct in an Any."""
    url, value = node.get("@type"), node.get("value")
    if url is None or value is None or text_of(url).rpartition("/")[2] not in registry.TYPED_STRUCTS:
        return None
    message = _any_message(node, "type_url")
    return None if message is None else (value, message)


def _parts(field: FieldSchema, value: Node, path: str) -> Iterator[tuple[Node, FieldSchema, str]]:
    """The single values that a field holds, with their paths."""
    if field.shape == "map":
        if value.kind == "map":
            for entry in value.entries:
                yield entry.value, field.map_value, f'{path}["{entry.key}"]'
    elif field.repeated and value.kind == "seq":
        for index, item in enumerate(value.items):
            yield item, field, f"{path}[{index}]"
    else:
        yield value, field, path


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _field_of_1_8(message: MessageSchema, key: str) -> str | None:
    """The proto name of a field that only Envoy 1.8.0 had in this message."""
    for name in v2_rules.FIELDS_OF_1_8.get(message.full_name, ()):
        if key in (name, _camel(name)) and key not in message.lookup:
            return name
    return None


# -- which version -----------------------------------------------------------------------------------------------------


class _Glance:
    """Whether anything in a file may be v2: a key, type or enum value that v3 has not. Nearly all files have nothing of
    that kind, and need neither v2's schema nor a closer look.

    What v2 and v3 call alike, in messages of which one came from the other, has such messages in it again.
    """

    def __init__(self) -> None:
        # By message and key: the field and what its values are, where there can be something in them.
        self._steps: dict[MessageSchema, dict[str, tuple[FieldSchema, MessageSchema | None] | None]] = {}

    def sees(self, node: Node, message: MessageSchema) -> bool:
        """``message`` is of v3."""
        if node.kind != "map":
            return False
        steps = self._steps.get(message)
        if steps is None:
            steps = self._steps[message] = {"@type": None}
        for entry in node.entries:
            key = entry.key
            if key in steps:
                step = steps[key]
            else:
                field = message.lookup.get(key)
                if field is None:
                    return True
                step = steps[key] = _step(field)
            if step is not None:
                field, inner = step
                value = entry.value
                if inner is None:
                    if self._sees_in(value, field):
                        return True
                elif field.shape == "map":
                    if value.kind == "map" and any(self.sees(each.value, inner) for each in value.entries):
                        return True
                elif field.repeated and value.kind == "seq":
                    if any(self.sees(item, inner) for item in value.items):
                        return True
                elif self.sees(value, inner):
                    return True
        return False

    def _sees_in(self, value: Node, field: FieldSchema) -> bool:
        """In Anys and enums."""
        for node, kind, _ in _parts(field, value, ""):
            if kind.shape == "any":
                if self._sees_in_any(node):
                    return True
            elif node.kind == "scalar" and str(node.value).upper() not in kind.enum.by_name:
                return True
        return False

    def _sees_in_any(self, node: Node) -> bool:
        name = text_of(node.get("@type")).rpartition("/")[2]
        if name in registry.TYPED_STRUCTS:
            return True
        message = _any_message(node)
        return message is not None and (".v3." not in name or self.sees(node, message))


def _step(field: FieldSchema) -> tuple[FieldSchema, MessageSchema | None] | None:
    kind = field.map_value if field.shape == "map" else field
    if kind.shape == "message":
        return field, kind.message
    return (field, None) if kind.shape in ("any", "enum") else None


def _is_v2(node: Node, old: MessageSchema, new: MessageSchema) -> bool:
    """Whether something in this message is v2 alone. ``old`` is ``new`` inside a v3 Any."""
    if node.kind != "map":
        return False
    for entry in node.entries:
        before, after = old.lookup.get(entry.key), new.lookup.get(entry.key)
        if after is None and (before is not None or _field_of_1_8(old, entry.key) is not None):
            return True
        field = before or after
        if field is None:
            continue
        for part, kind, _ in _parts(field, entry.value, ""):
            if kind.shape == "message":
                inner = kind.message
                if _is_v2(part, inner, _successor(inner) or inner):
                    return True
            elif kind.shape == "any":
                if _any_is_v2(part):
                    return True
            elif kind.shape == "enum" and before is not None and after is not None and part.kind == "scalar":
                name = str(part.value).upper()
                if after.shape == "enum" and name in before.enum.by_name and name not in after.enum.by_name:
                    return True
    return False


def _any_is_v2(node: Node) -> bool:
    struct = _typed_struct(node)
    message = _any_message(node) if struct is None else struct[1]
    if message is None:
        return False
    content = node if struct is None else struct[0]
    return _successor(message) is not None or _is_v2(content, message, message)


# -- the two walks that change -----------------------------------------------------------------------------------------


class _Upgrade:
    """One run over one tree."""

    def __init__(self) -> None:
        self.notes = Notes()

    # 1. prepare

    def prepare(self, node: Node, message: MessageSchema, path: str, holder: str = "") -> None:
        """To the last v2. ``message`` may also be a v3 message inside a v2 file; ``holder`` is the message around it."""
        if node.kind != "map":
            return
        successor = _successor(message)
        for entry in node.entries:
            field = message.lookup.get(entry.key)
            old_name = _field_of_1_8(message, entry.key)
            if field is None and old_name is None and successor is not None and entry.key in successor.lookup:
                field = successor.lookup[entry.key]
            entry.key = field.name if field is not None else old_name or entry.key
        rule = v2_rules.FROM_1_8.get(message.full_name)
        if rule is not None:
            rule(self.notes, node, path)
        untyped = _untyped_message(node, message, holder)
        for entry in node.entries:
            field = message.lookup.get(entry.key) or (
                successor.lookup.get(entry.key) if successor is not None else None
            )
            if field is None:
                continue
            for part, kind, place in _parts(field, entry.value, field_path(path, entry.key)):
                if kind.shape == "message":
                    self.prepare(part, kind.message, place, message.full_name)
                elif kind.shape == "any":
                    self._prepare_any(part, place)
                elif entry.key == "config" and untyped is not None:
                    self.prepare(part, untyped, place)
            if entry.key in _OPTIONS and entry.value.kind == "map":
                for option in entry.value.entries:
                    inner = _option_message(entry.key, option.key)
                    if inner is not None and option.value.get("@type") is None:
                        self.prepare(option.value, inner, f'{field_path(path, entry.key)}["{option.key}"]')

    def _prepare_any(self, node: Node, path: str) -> None:
        struct = _typed_struct(node)
        if struct is not None:
            self.prepare(struct[0], struct[1], path)
            return
        message = _any_message(node)
        if message is None:
            return
        # Envoy 1.13 to 1.16 read a v3 message that has v2's fields as the v2 message.
        if message.previous and message.previous in schema():
            old = schema().message(message.previous)
            if _successor(old) is message and _is_v2_in_v3(node, old, message):
                self.notes.warn(node, path, f"fields of v2 in a v3 {message.name}: read as v2")
                message = old
                node.set("@type", v2_rules.scalar(registry.type_url(old.full_name), node.mark))
        self.prepare(node, message, path)

    # 3. raise

    def raise_message(self, node: Node, old: MessageSchema, new: MessageSchema, path: str, holder: str = "") -> None:
        """A valid message of the last v2 → its v3 successor."""
        if node.kind != "map":
            return
        rule = v2_rules.BEFORE.get(old.full_name)
        if rule is not None:
            rule(self.notes, node, path)
        self._type_extension(node, old, path, holder)
        self._type_options(node, old, path)
        for entry in node.entries:
            field = old.lookup.get(entry.key) or new.lookup.get(entry.key)
            if field is not None:
                self._raise_field(entry, field, old, new, field_path(path, entry.key))
        rule = v2_rules.AFTER.get(old.full_name)
        if rule is not None:
            rule(self.notes, node, path)
        for entry in node.entries:
            field = old.lookup.get(entry.key)
            after = new.lookup.get(entry.key)
            if field is None or (after is not None and after.number == field.number):
                continue
            renamed = _same_number(field, new)
            if renamed is not None:
                entry.key = renamed.name
            elif after is None:
                self.notes.refuse(
                    entry.value, field_path(path, entry.key), f"{old.name}.{field.name} has no successor in v3"
                )
        self._speak_v3(node, new, path)

    def _raise_field(self, entry: Entry, field: FieldSchema, old: MessageSchema, new: MessageSchema, path: str) -> None:
        for part, kind, place in _parts(field, entry.value, path):
            if kind.shape == "message":
                inner = kind.message
                self.raise_message(part, inner, _successor(inner) or inner, place, old.full_name)
            elif kind.shape == "any":
                self._raise_any(part, place)
            elif kind.shape == "enum" and part.kind == "scalar":
                _raise_enum(part, kind, _same_number(field, new))

    def _raise_any(self, node: Node, path: str) -> None:
        message = _any_message(node)
        if message is None:
            return
        new = _successor(message)
        self.raise_message(node, message, new or message, path)
        url = node.get("@type")
        if new is not None and url is not None:
            name = v2_rules.SUCCESSORS.get(message.full_name, (new.full_name, ""))[0]
            node.set("@type", v2_rules.scalar(registry.type_url(name), url.mark))

    def _type_extension(self, node: Node, message: MessageSchema, path: str, holder: str) -> None:
        """``config: {…}``, ``typed_config: {}`` or nothing beside a name → today's name and ``typed_config``."""
        category = registry.category_of(message.full_name, holder)
        name = node.get("name")
        if category is None or name is None or "typed_config" not in message.fields or node.get("config_discovery"):
            return
        extension = registry.extension(category, text_of(name))
        untyped = node.entry("config")
        typed = node.entry("typed_config")
        if typed is not None and (untyped is None or typed.value.get("@type") is not None):
            url = typed.value.get("@type")
            if url is not None and text_of(url).endswith("/google.protobuf.Struct"):
                typed.value = typed.value.get("value") or Node.map(url.mark)
                url = None
            untyped = typed if url is None else None
            if url is not None:
                node.remove("config")
                self._rename(node, name, extension)
                return
        if extension is None and untyped is not None and ":" in text_of(name):
            # A Python class, "module:Class", takes a Struct in either version.
            mark = untyped.value.mark
            kind = Node.scalar("type.googleapis.com/google.protobuf.Struct", mark)
            untyped.key = "typed_config"
            untyped.value = Node.map(mark, [Entry("@type", mark, kind), Entry("value", mark, untyped.value)])
            return
        if extension is None or not (extension.v2 or extension.v3):
            if untyped is not None and untyped.key == "config":
                node.entries.remove(untyped)
                self.notes.refuse(
                    untyped.value,
                    field_path(path, untyped.key),
                    f'no message is known for "{name.value}"',
                    'write typed_config with its "@type"',
                )
            return
        if untyped is None:
            untyped = Entry("typed_config", name.mark, Node.map(name.mark))
            node.entries.append(untyped)
        elif untyped.value.is_null:
            untyped.value = Node.map(untyped.value.mark)
        untyped.key = "typed_config"
        is_v2 = _successor(message) is not None
        typed_config(extension.v2 if is_v2 and extension.v2 else extension.v3 or extension.v2, untyped.value)
        self._rename(node, name, extension)

    def _rename(self, node: Node, name: Node, extension: registry.Extension | None) -> None:
        """The names of 2018 to today's; the per-route configuration, which names the filter, follows."""
        if extension is not None:
            today = v2_rules.SUCCESSORS.get(extension.v2, ("", extension.name))[1]
            if today != name.value:
                node.set("name", v2_rules.scalar(today, name.mark))

    def _type_options(self, node: Node, message: MessageSchema, path: str) -> None:
        """``per_filter_config`` (filter name → Struct) → ``typed_per_filter_config``; the same for protocol options."""
        for untyped, typed in _TYPED_OPTIONS:
            if typed not in message.fields:
                continue
            for key in (untyped, typed):
                options = node.get(key)
                for entry in list(options.entries) if options is not None and options.kind == "map" else ():
                    if entry.value.kind == "map" and entry.value.get("@type") is None:
                        content = _option_message(key, entry.key)
                        if content is not None:
                            typed_config(content.full_name, entry.value)
                        else:
                            assert options is not None
                            options.entries.remove(entry)
                            self._untypable_option(entry, key, typed, path)
                    category = "http" if key in _TYPED_OPTIONS[0] else "protocol_options"
                    extension = registry.extension(category, entry.key)
                    if extension is not None:
                        entry.key = extension.name
            old, new = node.entry(untyped), node.get(typed)
            if old is not None and new is None:
                old.key = typed
            elif old is not None and new is not None:
                new.entries += [entry for entry in old.value.entries if new.get(entry.key) is None]
                node.entries.remove(old)

    def _untypable_option(self, entry: Entry, key: str, typed: str, path: str) -> None:
        place = f'{field_path(path, key)}["{entry.key}"]'
        if entry.value.entries:
            hint = f'write {typed} with its "@type"'
            self.notes.refuse(entry.value, place, f'no message is known for the options of "{entry.key}"', hint)
        else:
            self.notes.warn(entry.value, place, "dropped: empty, and without a message of its own")

    def _speak_v3(self, node: Node, new: MessageSchema, path: str) -> None:
        """Today's Envoy speaks and reads nothing but v3 on the wire, and wants that said."""
        for field in new.fields.values():
            if field.type_name != _API_VERSION:
                continue
            written = node.get(field.name)
            if written is not None and str(written.value).upper() in ("V3", "2"):
                continue
            mark = node.mark if written is None else written.mark
            node.set(field.name, v2_rules.scalar("V3", mark), mark)
            if field.name == "transport_api_version" and node.get("http_service") is None:
                self.notes.warn(written or node, path, "this service is spoken to in v3 now", "it must understand v3")


def _untyped_message(node: Node, message: MessageSchema, holder: str) -> MessageSchema | None:
    """The v2 message of the ``config`` Struct in this message, by the name beside it."""
    category = registry.category_of(message.full_name, holder)
    name = node.get("name")
    extension = None if category is None or name is None else registry.extension(category, text_of(name))
    return schema().message(extension.v2) if extension is not None and extension.v2 in schema() else None


def _option_message(key: str, name: str) -> MessageSchema | None:
    """The v2 message of the options under ``name`` in per_filter_config or extension_protocol_options."""
    if key in _TYPED_OPTIONS[0]:
        extension = registry.extension("http", name)
        content = "" if extension is None else extension.per_route_v2
    else:
        extension = registry.extension("protocol_options", name)
        content = "" if extension is None else extension.v2
    return schema().message(content) if content in schema() else None


def _is_v2_in_v3(node: Node, old: MessageSchema, new: MessageSchema) -> bool:
    """Whether a v3 Any holds, outside further Anys, a field that only v2 has."""
    if node.kind != "map":
        return False
    for entry in node.entries:
        before, after = old.lookup.get(entry.key), new.lookup.get(entry.key)
        if after is None and before is not None:
            return True
        if before is not None and after is not None and before.shape != "any":
            for part, kind, _ in _parts(before, entry.value, ""):
                if kind.shape == "message":
                    inner = kind.message
                    if _is_v2_in_v3(part, inner, _successor(inner) or inner):
                        return True
    return False


def _same_number(field: FieldSchema, new: MessageSchema) -> FieldSchema | None:
    """The v3 field with this v2 field's number, unless the number was given to something else."""
    for candidate in new.fields.values():
        if candidate.number == field.number:
            return candidate if candidate.shape == field.shape else None
    return None


def _raise_enum(node: Node, field: FieldSchema, new: FieldSchema | None) -> None:
    """An enum value whose number has another name in v3."""
    if new is None or new.shape != "enum" or isinstance(node.value, int):
        return
    number = field.enum.by_name.get(str(node.value).upper())
    if number is None or str(node.value).upper() in new.enum.by_name or number not in new.enum.names:
        return
    replaced = v2_rules.scalar(new.enum.names[number], node.mark)
    node.value, node.text = replaced.value, replaced.text
