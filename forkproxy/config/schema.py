"""Envoy's messages, fields, enums and PGV rules, read from the descriptor blob on demand.

``schema()`` is the one instance. ``schema().message("envoy.config.cluster.v3.Cluster")`` parses the file that holds the
message, compiles the message's fields and rules, and remembers them; a small bootstrap touches about forty of the
630 files. ``scripts/build_schema.py`` describes the blob.

The descriptors are read with classes of a *private* pool that has ``validate/validate.proto`` and the udpa and envoy
annotations in it: without them the rules would be unknown fields and read back empty, and the default pool belongs to
whoever imports generated modules in the same process.

PGV (protoc-gen-validate) semantics kept here: a rule on a scalar without presence is applied to the zero value when the
field is absent; inside a oneof only the chosen field is checked; a rule on a wrapper is applied to the value inside, when
there is one; an Any's content is not part of its holder's rules.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, Final

API_DATE: Final = "2025-12"
"""What the blob is: Envoy's API of that month (xds-protos 1.85)."""

Check = Callable[[Any], str | None]
"""Takes a value; returns what is wrong with it in words that follow the field's name ("must be …"), or None.

Its ``__doc__`` is the rule itself, for ``forkproxy config explain``.
"""

# descriptor.proto: FieldDescriptorProto.Type
_TYPES: Final = {
    1: "double",
    2: "float",
    3: "int64",
    4: "uint64",
    5: "int32",
    6: "uint64",
    7: "uint32",
    8: "bool",
    9: "string",
    10: "group",
    11: "message",
    12: "bytes",
    13: "uint32",
    14: "enum",
    15: "int32",
    16: "int64",
    17: "int32",
    18: "int64",
}
_RULES_OF: Final = {
    1: "double",
    2: "float",
    3: "int64",
    4: "uint64",
    5: "int32",
    6: "fixed64",
    7: "fixed32",
    8: "bool",
    9: "string",
    12: "bytes",
    13: "uint32",
    14: "enum",
    15: "sfixed32",
    16: "sfixed64",
    17: "sint32",
    18: "sint64",
}

WRAPPERS: Final = {
    "google.protobuf.DoubleValue": "double",
    "google.protobuf.FloatValue": "float",
    "google.protobuf.Int64Value": "int64",
    "google.protobuf.UInt64Value": "uint64",
    "google.protobuf.Int32Value": "int32",
    "google.protobuf.UInt32Value": "uint32",
    "google.protobuf.BoolValue": "bool",
    "google.protobuf.StringValue": "string",
    "google.protobuf.BytesValue": "bytes",
}
SPECIAL: Final = {
    "google.protobuf.Duration": "duration",
    "google.protobuf.Timestamp": "timestamp",
    "google.protobuf.Any": "any",
    "google.protobuf.Struct": "struct",
    "google.protobuf.Value": "value",
    "google.protobuf.ListValue": "list",
    "google.protobuf.FieldMask": "fieldmask",
}
_ZERO: Final = {"string": "", "bytes": b"", "bool": False, "float": 0.0, "double": 0.0}


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word[:1].upper() + word[1:] for word in rest)


class EnumSchema:
    """An enum: ``by_name`` (upper case, as Envoy compares without case) and ``names`` by number."""

    __slots__ = ("by_name", "deprecated", "full_name", "names")

    def __init__(self, full_name: str, proto: Any) -> None:
        self.full_name = full_name
        self.by_name: dict[str, int] = {value.name.upper(): value.number for value in proto.value}
        self.names: dict[int, str] = {}
        for value in proto.value:
            self.names.setdefault(value.number, value.name)
        self.deprecated: frozenset[int] = frozenset(v.number for v in proto.value if v.options.deprecated)


class OneofSchema:
    """A oneof: ``required`` says that one of ``fields`` must be set."""

    __slots__ = ("fields", "name", "required")

    def __init__(self, name: str, required: bool) -> None:
        self.name = name
        self.required = required
        self.fields: list[FieldSchema] = []


class FieldSchema:
    """One field.

    ``type``: bool, int32, int64, uint32, uint64, float, double, string, bytes, enum or message. ``shape`` says how a
    configuration writes one value of it: the scalar types' names, ``enum``, ``message``, or ``wrapper``, ``duration``,
    ``timestamp``, ``any``, ``struct``, ``value``, ``list``, ``fieldmask``; ``map`` for a map. ``repeated`` is False for
    maps. ``scalar`` is the type within a wrapper, else ``type``.
    """

    __slots__ = (
        "_enum",
        "_message",
        "_schema",
        "absent",
        "checks",
        "defined_only",
        "deprecated",
        "deprecated_since",
        "disallowed",
        "has_presence",
        "is_text",
        "item_checks",
        "json_name",
        "key_checks",
        "map_key",
        "map_value",
        "name",
        "number",
        "oneof",
        "repeated",
        "required",
        "scalar",
        "shape",
        "skip",
        "type",
        "type_name",
        "value_checks",
    )

    map_key: str
    map_value: FieldSchema

    def __init__(self, owner: Schema, proto: Any, map_entry: Any | None) -> None:
        self.name: str = proto.name
        # protoc's Python output leaves json_name out where it follows from the name.
        self.json_name: str = proto.json_name or _camel(proto.name)
        self.number: int = proto.number
        self.type: str = _TYPES[proto.type]
        self.type_name: str = proto.type_name[1:]
        self._schema = owner
        self._message: MessageSchema | None = None
        self._enum: EnumSchema | None = None
        self.oneof: OneofSchema | None = None
        self.repeated = proto.label == 3 and map_entry is None
        self.deprecated: bool = proto.options.deprecated
        self.deprecated_since = ""
        self.disallowed = False
        self.checks: tuple[Check, ...] = ()
        self.item_checks: tuple[Check, ...] = ()
        self.key_checks: tuple[Check, ...] = ()
        self.value_checks: tuple[Check, ...] = ()
        self.absent: str | None = None
        """What is wrong when the field is not there at all (its rules refuse the zero value)."""
        self.required = False
        self.defined_only = False
        """Of an enum: only its known numbers are allowed."""
        self.skip = False
        self.scalar = self.type
        if map_entry is not None:
            self.shape = "map"
            self.map_key = _TYPES[map_entry.field[0].type]
            self.map_value = FieldSchema(owner, map_entry.field[1], None)
        elif self.type == "message":
            self.scalar = WRAPPERS.get(self.type_name, "message")
            self.shape = "wrapper" if self.scalar != "message" else SPECIAL.get(self.type_name, "message")
        else:
            self.shape = self.type
        self.is_text = self.shape == "string" and not self.repeated
        self.has_presence = self.type == "message" and not self.repeated and self.shape != "map"

    @property
    def message(self) -> MessageSchema:
        """The message of a field of type message."""
        if self._message is None:
            self._message = self._schema.message(self.type_name)
        return self._message

    @property
    def enum(self) -> EnumSchema:
        """The enum of a field of type enum."""
        if self._enum is None:
            self._enum = self._schema.enum(self.type_name)
        return self._enum

    def __repr__(self) -> str:
        return f"FieldSchema({self.name}: {'repeated ' if self.repeated else ''}{self.type_name or self.type})"


class MessageSchema:
    """One message. ``lookup`` finds a field by its proto name and by its camelCase name; ``asked`` is for config/view.py."""

    __slots__ = (
        "asked",
        "deprecated",
        "disabled",
        "fields",
        "full_name",
        "lookup",
        "name",
        "needed",
        "oneofs",
        "package",
        "previous",
        "required_oneofs",
        "reserved_names",
        "shape",
    )

    def __init__(self, owner: Schema, full_name: str, package: str, proto: Any) -> None:
        self.full_name = full_name
        self.package = package
        self.name = full_name[len(package) + 1 :]
        """The name without its package: ``Cluster``, ``Cluster.RingHashLbConfig``."""
        self.shape = "wrapper" if full_name in WRAPPERS else SPECIAL.get(full_name, "message")
        options = proto.options
        self.deprecated: bool = options.deprecated
        self.previous: str = options.Extensions[owner.ext_versioning].previous_message_type
        """The v2 message that this v3 message came from, or "" (udpa.annotations.versioning)."""
        self.disabled: bool = options.Extensions[owner.ext_disabled] or options.Extensions[owner.ext_ignored]
        self.reserved_names: frozenset[str] = frozenset(proto.reserved_name)
        entries = {f"{full_name}.{n.name}": n for n in proto.nested_type if n.options.map_entry}
        self.asked: set[tuple[object, ...]] = set()
        self.oneofs: dict[str, OneofSchema] = {}
        oneofs = [OneofSchema(o.name, o.options.Extensions[owner.ext_required]) for o in proto.oneof_decl]
        self.fields: dict[str, FieldSchema] = {}
        self.lookup: dict[str, FieldSchema] = {}
        self.needed: dict[str, FieldSchema] = {}
        """Fields whose absence breaks a rule."""
        for field_proto in proto.field:
            field = FieldSchema(owner, field_proto, entries.get(field_proto.type_name[1:]))
            self.fields[field.name] = field
            self.lookup[field.json_name] = field
            if field_proto.proto3_optional:
                field.has_presence = True
            elif field_proto.HasField("oneof_index"):
                oneof = oneofs[field_proto.oneof_index]
                field.oneof = oneof
                field.has_presence = True
                oneof.fields.append(field)
                self.oneofs[oneof.name] = oneof
            options = field_proto.options
            field.deprecated_since = options.Extensions[owner.ext_since]
            field.disallowed = options.Extensions[owner.ext_disallowed]
            if not self.disabled and options.HasExtension(owner.ext_rules):
                _compile(field, field_proto.type, options.Extensions[owner.ext_rules])
                if field.absent is not None and field.oneof is None:  # an unset choice breaks no rule
                    self.needed[field.name] = field
        self.lookup.update(self.fields)
        self.required_oneofs = frozenset(oneof for oneof in self.oneofs.values() if oneof.required)

    def __repr__(self) -> str:
        return f"MessageSchema({self.full_name})"


class Schema:
    """The blob. Every look-up is remembered; an unknown name raises KeyError."""

    def __init__(self, blob: bytes) -> None:
        data = zlib.decompress(blob)
        start = 4 + int.from_bytes(data[:4], "big")
        index = json.loads(data[4:start])
        self._data = memoryview(data)[start:]
        self._files: dict[str, list[int]] = index["files"]
        self._file_of: dict[str, str] = index["types"]
        self._v3_of: dict[str, str] = index["v3_of"]
        self._protos: dict[str, tuple[str, Any]] = {}
        self._loaded: set[str] = set()
        self._messages: dict[str, MessageSchema] = {}
        self._enums: dict[str, EnumSchema] = {}
        # Only who reads a configuration needs protobuf; it weighs more than 1 MiB.
        from google.protobuf import descriptor_pool, message_factory

        self._class_of = message_factory.GetMessageClass
        self._pool = descriptor_pool.DescriptorPool()
        self._in_pool: set[str] = set()
        for name in (
            "validate/validate.proto",
            "udpa/annotations/versioning.proto",
            "envoy/annotations/deprecation.proto",
        ):
            self._add(name)
        self._File: Any = self._class_of(self._pool.FindMessageTypeByName("google.protobuf.FileDescriptorProto"))
        self.ext_rules = self._pool.FindExtensionByName("validate.rules")
        self.ext_required = self._pool.FindExtensionByName("validate.required")
        self.ext_disabled = self._pool.FindExtensionByName("validate.disabled")
        self.ext_ignored = self._pool.FindExtensionByName("validate.ignored")
        self.ext_versioning = self._pool.FindExtensionByName("udpa.annotations.versioning")
        self.ext_since = self._pool.FindExtensionByName("envoy.annotations.deprecated_at_minor_version")
        self.ext_disallowed = self._pool.FindExtensionByName("envoy.annotations.disallowed_by_default")

    def __contains__(self, full_name: str) -> bool:
        return full_name in self._file_of

    def names(self) -> Iterable[str]:
        """The full name of every message and enum."""
        return self._file_of.keys()

    def message(self, full_name: str) -> MessageSchema:
        """The message called ``full_name``; KeyError when the schema has none."""
        found = self._messages.get(full_name)
        if found is None:
            package, proto = self._proto(full_name)
            found = self._messages[full_name] = MessageSchema(self, full_name, package, proto)
        return found

    def enum(self, full_name: str) -> EnumSchema:
        """The enum called ``full_name``; KeyError when the schema has none."""
        found = self._enums.get(full_name)
        if found is None:
            found = self._enums[full_name] = EnumSchema(full_name, self._proto(full_name)[1])
        return found

    def file_of(self, full_name: str) -> str:
        """The .proto file of a message or enum; KeyError when the schema has none."""
        return self._file_of[full_name]

    def is_message(self, full_name: str) -> bool:
        """Whether ``full_name`` names a message (and not an enum, or nothing)."""
        return full_name in self._file_of and hasattr(self._proto(full_name)[1], "field")

    def v3_of(self, full_name: str) -> str:
        """The v3 message that a v2 message became, or "" (the annotation of v3, read backwards)."""
        return self._v3_of.get(full_name, "")

    def message_class(self, full_name: str) -> Any:
        """A protobuf class for ``full_name`` from the private pool, for the wire (xDS, /config_dump)."""
        self._add(self._file_of[full_name])
        return self._class_of(self._pool.FindMessageTypeByName(full_name))

    def _raw(self, file: str) -> bytes:
        offset, length = self._files[file]
        return bytes(self._data[offset : offset + length])

    def _add(self, file: str) -> None:
        """Put ``file`` and what it imports into the pool, imports first."""
        if file in self._in_pool:
            return
        self._in_pool.add(file)
        raw = self._raw(file)
        for dependency in _dependencies(raw):
            self._add(dependency)
        self._pool.AddSerializedFile(raw)

    def _proto(self, full_name: str) -> tuple[str, Any]:
        file = self._file_of[full_name]
        if file not in self._loaded:
            self._loaded.add(file)
            proto = self._File.FromString(self._raw(file))
            package: str = proto.package
            for enum in proto.enum_type:
                self._protos[f"{package}.{enum.name}"] = (package, enum)
            self._register(package, f"{package}.", proto.message_type)
        return self._protos[full_name]

    def _register(self, package: str, prefix: str, messages: Any) -> None:
        for message in messages:
            name = f"{prefix}{message.name}"
            self._protos[name] = (package, message)
            for enum in message.enum_type:
                self._protos[f"{name}.{enum.name}"] = (package, enum)
            self._register(package, f"{name}.", message.nested_type)


@cache
def schema() -> Schema:
    """The schema that the build made. Raises FileNotFoundError, saying what to run, in a checkout that is not built."""
    try:
        return Schema(Path(__file__).with_name("schema.bin").read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(
            "forkproxy/config/schema.bin is missing: run `python scripts/build_schema.py`"
        ) from None


def forget_schema() -> bool:
    """Let its memory go; ``schema()`` reads it again. What was built from a configuration does not refer to it.

    False when there was none.
    """
    was_read = schema.cache_info().currsize > 0
    schema.cache_clear()
    return was_read


def _dependencies(raw: bytes) -> list[str]:
    """The imports (field 3) of a serialized FileDescriptorProto, without a class to parse it: the pool needs them first."""
    found: list[str] = []
    position = 0
    while position < len(raw):
        tag, position = _varint(raw, position)
        if tag & 7 == 0:
            _, position = _varint(raw, position)
        else:  # a FileDescriptorProto has only varints and length-delimited fields
            length, position = _varint(raw, position)
            if tag >> 3 == 3:
                found.append(raw[position : position + length].decode())
            position += length
    return found


def _varint(raw: bytes, position: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = raw[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
        shift += 7


# --- PGV rules → checks ------------------------------------------------------------------------------------------------


def _compile(field: FieldSchema, proto_type: int, rules: Any) -> None:
    """Set ``field``'s checks from its ``validate.FieldRules``."""
    kind = rules.WhichOneof("type")
    field.defined_only = (rules.repeated.items if kind == "repeated" else rules).enum.defined_only
    if rules.HasField("message"):
        field.skip = rules.message.skip
        field.required = rules.message.required
    if kind in ("duration", "any", "timestamp") and getattr(rules, kind).required:
        field.required = True
    if field.repeated:
        if kind == "repeated":
            field.checks, field.item_checks = _repeated(rules.repeated, field)
            field.absent = _first(field.checks, []) if not rules.repeated.ignore_empty else None
            field.skip = rules.repeated.items.message.skip
        return
    if field.shape == "map":
        if kind == "map":
            field.checks = _pairs(rules.map)
            field.key_checks = _value_checks(rules.map.keys)
            field.value_checks = _value_checks(rules.map.values)
            field.absent = _first(field.checks, ()) if not rules.map.ignore_empty else None
        return
    field.checks = _value_checks(rules)
    if field.required:
        field.absent = "is required"
    elif not field.has_presence and field.checks:
        zero = _ZERO.get(field.type, 0)
        field.absent = _first(field.checks, zero)


def _value_checks(rules: Any) -> tuple[Check, ...]:
    kind = rules.WhichOneof("type")
    if kind is None:
        return ()
    inner = getattr(rules, kind)
    if kind == "string":
        checks = _string(inner)
    elif kind == "bytes":
        checks = _bytes(inner)
    elif kind == "bool":
        checks = [_const(inner.const, "true" if inner.const else "false")] if inner.HasField("const") else []
    elif kind == "enum":
        checks = _members(inner, _same)
        if inner.HasField("const"):
            checks.append(_const(inner.const, str(inner.const)))
    elif kind == "duration":
        checks = _range(inner, _nanoseconds, _duration_text) + _members(inner, _nanoseconds)
    elif kind in ("repeated", "map", "any", "timestamp"):
        checks = []
    else:
        checks = _range(inner, _same, _number_text) + _members(inner, _same)
    if checks and "ignore_empty" in inner.DESCRIPTOR.fields_by_name and inner.ignore_empty:
        checks = [_unless_empty(tuple(checks))]
    return tuple(checks)


def _first(checks: Iterable[Check], value: Any) -> str | None:
    for check in checks:
        wrong = check(value)
        if wrong is not None:
            return wrong
    return None


def _same(value: Any) -> Any:
    return value


def _nanoseconds(value: Any) -> int:
    return int(value.seconds) * 1_000_000_000 + int(value.nanos)


def _number_text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _duration_text(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e9:.9f}".rstrip("0").rstrip(".") + "s"


def _unless_empty(checks: tuple[Check, ...]) -> Check:
    def check(value: Any) -> str | None:
        return _first(checks, value) if value else None

    check.__doc__ = " and ".join(str(each.__doc__) for each in checks) + ", unless it is empty"
    return check


def _const(expected: Any, text: str) -> Check:
    def check(value: Any) -> str | None:
        return None if value == expected else f"must be {text}"

    check.__doc__ = f"must be {text}"
    return check


def _range(rules: Any, convert: Callable[[Any], Any], show: Callable[[Any], str]) -> list[Check]:
    """const, lt, lte, gt, gte of a number or duration. A NaN passes, as it does in PGV's negated comparisons."""
    checks: list[Check] = []
    if rules.HasField("const"):
        constant = convert(rules.const)
        checks.append(_const(constant, show(constant)))
    low = high = None
    low_open = high_open = False
    for name, is_open in (("gt", True), ("gte", False)):
        if rules.HasField(name):
            low, low_open = convert(getattr(rules, name)), is_open
    for name, is_open in (("lt", True), ("lte", False)):
        if rules.HasField(name):
            high, high_open = convert(getattr(rules, name)), is_open
    if low is None and high is None:
        return checks
    words = []
    if low is not None:
        words.append(f"{'greater than' if low_open else 'at least'} {show(low)}")
    if high is not None:
        words.append(f"{'less than' if high_open else 'at most'} {show(high)}")
    inverted = low is not None and high is not None and low > high
    text = "must be " + (" or " if inverted else " and ").join(words)

    def too_low(value: Any) -> bool:
        return low is not None and (value <= low if low_open else value < low)

    def too_high(value: Any) -> bool:
        return high is not None and (value >= high if high_open else value > high)

    def check(value: Any) -> str | None:
        if inverted:
            return text if too_low(value) and too_high(value) else None
        return text if too_low(value) or too_high(value) else None

    check.__doc__ = text
    checks.append(check)
    return checks


def _members(rules: Any, convert: Callable[[Any], Any]) -> list[Check]:
    """``in`` and ``not_in``."""
    checks: list[Check] = []
    allowed = [convert(v) for v in getattr(rules, "in")]
    refused = [convert(v) for v in rules.not_in]
    if allowed:
        checks.append(_one_of(frozenset(allowed), "must be one of " + ", ".join(_quoted(v) for v in allowed)))
    if refused:
        checks.append(_none_of(frozenset(refused), "must not be " + " or ".join(_quoted(v) for v in refused)))
    return checks


def _quoted(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _one_of(allowed: frozenset[Any], text: str) -> Check:
    def check(value: Any) -> str | None:
        return None if value in allowed else text

    check.__doc__ = text
    return check


def _none_of(refused: frozenset[Any], text: str) -> Check:
    def check(value: Any) -> str | None:
        return text if value in refused else None

    check.__doc__ = text
    return check


def _size(minimum: int | None, maximum: int | None, measure: Callable[[Any], int], unit: str) -> Check:
    def check(value: Any) -> str | None:
        size = measure(value)
        if minimum is not None and size < minimum:
            if minimum == 1:
                return "must not be empty"
            return f"must have at least {minimum} {unit}s (has {size})"
        if maximum is not None and size > maximum:
            return f"must have at most {maximum} {unit}{'s' if maximum != 1 else ''} (has {size})"
        return None

    check.__doc__ = _size_text(minimum, maximum, unit)
    return check


def _size_text(minimum: int | None, maximum: int | None, unit: str) -> str:
    def counted(number: int) -> str:
        return f"{number} {unit}{'s' if number != 1 else ''}"

    if minimum == 1 and maximum is None:
        return "must not be empty"
    if minimum == maximum and minimum is not None:
        return f"must have {counted(minimum)}"
    at_least = [f"at least {counted(minimum)}"] if minimum else []
    at_most = [f"at most {counted(maximum)}"] if maximum is not None else []
    return "must have " + " and ".join(at_least + at_most)


def _utf8_length(value: str) -> int:
    return len(value.encode())


# KnownRegex 1 and 2 of validate.proto, strict and not. "Not strict" refuses only what would break the wire, and allows "".
_KNOWN: Final = {
    (1, True): (re.compile(r":?[0-9a-zA-Z!#$%&'*+.^_|~\x60-]+\Z"), "must be a valid HTTP header name"),
    (1, False): (re.compile(r"[^\x00\n\r]*\Z"), "must not hold NUL, CR or LF (an HTTP header name)"),
    (2, True): (re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*\Z"), "must be a valid HTTP header value"),
    (2, False): (re.compile(r"[^\x00\n\r]*\Z"), "must not hold NUL, CR or LF (an HTTP header value)"),
}


def _matches(pattern: re.Pattern[str], text: str) -> Check:
    def check(value: Any) -> str | None:
        return None if pattern.match(value) else text

    check.__doc__ = text
    return check


def _searches(pattern: re.Pattern[str], text: str) -> Check:
    def check(value: Any) -> str | None:
        return None if pattern.search(value) else text

    check.__doc__ = text
    return check


def _affix(test: Callable[[str], bool], text: str) -> Check:
    def check(value: Any) -> str | None:
        return None if test(value) else text

    check.__doc__ = text
    return check


def _optional(rules: Any, name: str) -> Any:
    return getattr(rules, name) if rules.HasField(name) else None


def _string(rules: Any) -> list[Check]:
    checks: list[Check] = []
    if rules.HasField("const"):
        checks.append(_const(rules.const, _quoted(rules.const)))
    exact, exact_bytes = _optional(rules, "len"), _optional(rules, "len_bytes")
    for low, high, measure, unit in (
        (_optional(rules, "min_len"), _optional(rules, "max_len"), len, "character"),
        (_optional(rules, "min_bytes"), _optional(rules, "max_bytes"), _utf8_length, "byte"),
        (exact, exact, len, "character"),
        (exact_bytes, exact_bytes, _utf8_length, "byte"),
    ):
        if low or high is not None:
            checks.append(_size(low, high, measure, unit))
    if rules.HasField("prefix"):
        prefix = rules.prefix
        checks.append(_affix(lambda value: value.startswith(prefix), f'must begin with "{prefix}"'))
    if rules.HasField("suffix"):
        suffix = rules.suffix
        checks.append(_affix(lambda value: value.endswith(suffix), f'must end with "{suffix}"'))
    if rules.HasField("contains"):
        contained = rules.contains
        checks.append(_affix(lambda value: contained in value, f'must contain "{contained}"'))
    if rules.HasField("not_contains"):
        unwanted = rules.not_contains
        checks.append(_affix(lambda value: unwanted not in value, f'must not contain "{unwanted}"'))
    checks += _members(rules, _same)
    known = _KNOWN.get((rules.well_known_regex, rules.strict if rules.HasField("strict") else True))
    if known is not None:
        checks.append(_matches(*known))
    if rules.HasField("pattern"):
        # RE2's $ is the very end of the text; Python's also matches before a last newline.
        pattern = re.sub(r"(?<!\\)\$", r"\\Z", rules.pattern)
        checks.append(_searches(re.compile(pattern), f"must match {rules.pattern}"))
    return checks


def _bytes(rules: Any) -> list[Check]:
    checks: list[Check] = []
    low, high, exact = _optional(rules, "min_len"), _optional(rules, "max_len"), _optional(rules, "len")
    if low or high is not None:
        checks.append(_size(low, high, len, "byte"))
    if exact is not None:
        checks.append(_size(exact, exact, len, "byte"))
    return checks


def _repeated(rules: Any, field: FieldSchema) -> tuple[tuple[Check, ...], tuple[Check, ...]]:
    checks: list[Check] = []
    low, high = _optional(rules, "min_items"), _optional(rules, "max_items")
    if low or high is not None:
        checks.append(_size(low, high, len, "item"))
    if rules.unique:
        checks.append(_unique)
    return tuple(checks), _value_checks(rules.items)


def _unique(values: Any) -> str | None:
    """must not hold anything twice"""
    seen: list[Any] = []
    for value in values:
        if value in seen:
            return f"must not hold {_quoted(value)} twice"
        seen.append(value)
    return None


def _pairs(rules: Any) -> tuple[Check, ...]:
    low, high = _optional(rules, "min_pairs"), _optional(rules, "max_pairs")
    return (_size(low, high, len, "entry"),) if low or high is not None else ()


def is_integral(value: float) -> bool:
    """Whether a float from the file can stand for an integer."""
    return math.isfinite(value) and value == int(value)
