"""Tree + message → every problem of Envoy's schema and rules in it.

``validate(root, "envoy.config.bootstrap.v3.Bootstrap")`` walks the tree along the descriptors, as Envoy's way from YAML
through protobuf's JSON reader to PGV would, but does not stop at the first problem.

It also *normalises* the tree in place, so that ``upgrade`` and ``View`` meet one spelling of everything:

* keys of messages get their proto names (``connectTimeout`` → ``connect_timeout``); of two spellings the last stays;
* entries whose value is null go (null is "not set"), except in a Struct; a null in a list becomes the type's zero;
* a lone value where a list belongs becomes a list of one, and lists in such lists are flattened, as Envoy reads them;
* ``value`` of a scalar becomes its field's type: bool, int, float, str; an enum's becomes the value's name in Envoy's
  case, or the number when it has no name. ``text`` keeps what the user wrote;
* a filter that is named but has no ``typed_config`` gets an empty one of the type that belongs to its name (a warning);
* a TypedStruct of a known type becomes that type.

A validated tree validates again without a change. Where Envoy's answer is not obvious, the comment says what 1.40 does.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from typing import Any, Final

from forkproxy.config import registry
from forkproxy.config.problems import Problem, by_place
from forkproxy.config.schema import API_DATE, FieldSchema, MessageSchema, OneofSchema, is_integral, schema
from forkproxy.config.tree import Entry, Mark, Node, collection_paused
from forkproxy.config.v2_rules import FIELDS_OF_1_8

BOOTSTRAP_V3: Final = "envoy.config.bootstrap.v3.Bootstrap"
BOOTSTRAP_V2: Final = "envoy.config.bootstrap.v2.Bootstrap"

# A path is None at the root, else (path around, field name or index): building text for every node would cost more
# than the checks.
Path = tuple[Any, str | int] | None

_BAD: Final = object()  # what a value that is already complained about converts to

_RANGES: Final = {
    "int32": (-(1 << 31), (1 << 31) - 1),
    "uint32": (0, (1 << 32) - 1),
    "int64": (-(1 << 63), (1 << 63) - 1),
    "uint64": (0, (1 << 64) - 1),
}
_DECIMAL = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\Z")
_HEX = re.compile(r"[+-]?0[xX][0-9a-fA-F]+\Z")
_NOT_FINITE: Final = {"nan": "nan", "inf": "inf", "infinity": "inf", "-inf": "-inf", "-infinity": "-inf"}
# absl::SimpleAtob, which reads quoted booleans.
_TRUE: Final = frozenset(("true", "t", "yes", "y", "1"))
_FALSE: Final = frozenset(("false", "f", "no", "n", "0"))
_DURATION = re.compile(r"(-?)(\d+)(?:\.(\d{1,9}))?s\Z")
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)\Z")
_OTHER_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|us|ns|m|h|d)?\Z")
_SECONDS: Final = {None: 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "m": 60.0, "h": 3600.0, "d": 86400.0}
_CAPITAL = re.compile("[A-Z]")
_MAX_DURATION_S: Final = 315_576_000_000

# Required by the last v2 schema, not by 1.8.0, where the bootstrap had one for all.
_NOT_REQUIRED_IN_V2: Final = frozenset(("rate_limit_service",))


def validate(root: Node, message: str) -> list[Problem]:
    """Every problem of ``root`` as a ``message``, in the order of the file; normalises ``root`` in place.

    ``message`` is a full name, v3 or v2. Raises KeyError when the schema has no such message.
    """
    walk = _Walk(is_v2=".v2" in message)
    with collection_paused():
        walk.message(root, schema().message(message), None, "")
        walk.explain_unknown()
    return by_place(walk.problems)


def path_text(path: Path) -> str:
    """``static_resources.clusters[0].name``; a map's key that is no plain word stands in quotes."""
    pieces: list[str] = []
    while path is not None:
        path, piece = path
        pieces.append(f"[{piece}]" if isinstance(piece, int) else f".{piece}")
    return "".join(reversed(pieces)).removeprefix(".")


def duration_ns(node: Node) -> int | None:
    """Nanoseconds of ``0.25s`` or ``{seconds: 0, nanos: 250000000}``; None when it is neither."""
    if node.kind == "map":
        seconds, nanos = node.get("seconds"), node.get("nanos")
        total = 0
        for part, scale in ((seconds, 1_000_000_000), (nanos, 1)):
            if part is not None and not part.is_null:
                number = _integer(part.value)
                if number is None:
                    return None
                total += number * scale
        return total
    match = _DURATION.match(node.value) if node.kind == "scalar" and isinstance(node.value, str) else None
    if match is None or int(match[2]) > _MAX_DURATION_S:
        return None
    total = int(match[2]) * 1_000_000_000 + int((match[3] or "").ljust(9, "0"))
    return -total if match[1] else total


def base64_bytes(text: str) -> bytes | None:
    """The bytes of a ``bytes`` field: base64, standard or URL-safe, padded or not (as protobuf's JSON reader)."""
    text = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:  # binascii.Error is one; so is text that is not ASCII
        return None


def _integer(value: Any) -> int | None:
    """An integer as protobuf's JSON reader takes it: ``5``, ``5.0``, ``"5"``, ``"0x10"``, ``"1e3"``; else None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    number = _number(value)
    if number is None or not is_integral(number):
        return None
    if isinstance(value, str) and value.lstrip("+-").isdecimal():
        return int(value)  # exact, beyond 2**53 too
    return int(number)


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return float(value)
    if isinstance(value, str):
        if _DECIMAL.match(value):
            return float(value)
        if _HEX.match(value):
            return float(int(value, 16))
        if value.lower() in _NOT_FINITE:
            return float(_NOT_FINITE[value.lower()])
    return None


class _Unknown:
    """An unknown field, kept until the whole tree is known, so that the hint can say where it belongs."""

    __slots__ = ("entry", "index", "message", "path")

    def __init__(self, entry: Entry, message: MessageSchema, path: Path, index: int) -> None:
        self.entry, self.message, self.path, self.index = entry, message, path, index


class _Walk:
    def __init__(self, *, is_v2: bool) -> None:
        self.problems: list[Problem] = []
        self._is_v2 = is_v2
        self._schema = schema()
        # Every message met: its first line, its path, its schema.
        self._seen: list[tuple[int, Path, MessageSchema]] = []
        self._unknown: list[_Unknown] = []
        self._rules = True

    # --- problems ------------------------------------------------------------------------------------------------------

    def _error(self, mark: Mark, path: Path, message: str, hint: str = "") -> Any:
        self.problems.append(Problem("error", path_text(path), mark.line, mark.column, message, hint))
        return _BAD

    def _warn(self, mark: Mark, path: Path, message: str, hint: str = "") -> None:
        self.problems.append(Problem("warning", path_text(path), mark.line, mark.column, message, hint))

    # --- messages ------------------------------------------------------------------------------------------------------

    def message(self, node: Node, message: MessageSchema, path: Path, holder: str, *, in_any: bool = False) -> Any:
        """Check ``node`` as ``message``, which stands in a message called ``holder``."""
        if node.kind != "map":
            return self._error(node.mark, path, f"must be fields of {message.name} (name: value), not {_kind(node)}")
        self._seen.append((node.mark.line, path, message))
        lookup = message.lookup
        present: dict[str, Entry] = {}
        chosen: set[OneofSchema] = set()
        dropped = False
        for entry in node.entries:
            field = lookup.get(entry.key)
            if field is None:
                if in_any and entry.key == "@type":
                    continue
                self._unknown.append(_Unknown(entry, message, path, len(self._seen)))
                continue
            value = entry.value
            if value.kind == "scalar" and value.value is None and field.type_name != "google.protobuf.Value":
                dropped = True
                entry.key = ""
                continue
            name = entry.key = field.name
            if name in present:
                self._warn(
                    entry.key_mark,
                    (path, name),
                    f"is set twice, in two spellings (also in line {present[name].key_mark.line}); the last one counts",
                )
                present[name].key = ""
                dropped = True
            present[name] = entry
            if field.deprecated and not self._is_v2:
                self._deprecated(entry, field, path)
            if field.oneof is not None:
                if field.oneof in chosen:
                    self._oneof_once(entry, field, present, path)
                chosen.add(field.oneof)
            if field.is_text and value.kind == "scalar" and isinstance(value.value, str):
                if field.checks and self._rules:
                    self._check(field.checks, value.value, value, (path, name))
            else:
                self._field(entry, field, (path, name), message, node)
        if dropped:
            node.entries = [entry for entry in node.entries if entry.key]
        if "typed_config" in message.fields:
            self._typed_config(node, message, present, path, holder)
        if (
            self._rules
            and not message.disabled
            and not (present.keys() >= message.needed.keys() and chosen >= message.required_oneofs)
        ):
            self._absent(node, message, present, path)
        return None

    def _deprecated(self, entry: Entry, field: FieldSchema, path: Path) -> None:
        since = f" since Envoy API {field.deprecated_since}" if field.deprecated_since else ""
        if field.disallowed:
            self._error(entry.key_mark, (path, field.name), f"is deprecated{since} and Envoy refuses it by default")
        else:
            self._warn(entry.key_mark, (path, field.name), f"is deprecated{since}")

    def _oneof_once(self, entry: Entry, field: FieldSchema, present: dict[str, Entry], path: Path) -> None:
        assert field.oneof is not None
        for other in field.oneof.fields:
            if other is not field and other.name in present:
                line = present[other.name].key_mark.line
                self._error(entry.key_mark, path, f'"{field.name}" and "{other.name}" (line {line}) exclude each other')
                return

    def _absent(self, node: Node, message: MessageSchema, present: dict[str, Entry], path: Path) -> None:
        for field in message.needed.values():
            if field.name not in present and not (self._is_v2 and field.name in _NOT_REQUIRED_IN_V2):
                why = "" if field.absent in ("is required", "must not be empty") else f": it {field.absent}"
                self._error(node.mark, path, f'"{field.name}" is missing{why}')
        for oneof in message.oneofs.values():
            if oneof in message.required_oneofs and not any(field.name in present for field in oneof.fields):
                names = [f'"{field.name}"' for field in oneof.fields if not field.deprecated or self._is_v2]
                listed = names[0] if len(names) == 1 else f"one of {', '.join(names)}"
                self._error(node.mark, path, f"{listed} is missing")

    # --- fields --------------------------------------------------------------------------------------------------------

    def _field(self, entry: Entry, field: FieldSchema, path: Path, message: MessageSchema, around: Node) -> None:
        if field.skip and self._rules:
            self._rules = False
            self._field(entry, field, path, message, around)
            self._rules = True
            return
        node = entry.value
        if field.repeated:
            items = self._list(entry, node, field)
            values = [self._value(item, field, (path, index), message.full_name) for index, item in enumerate(items)]
            if self._rules:
                for index, value in enumerate(values):
                    if value is not _BAD and value is not None:
                        self._check(field.item_checks, value, items[index], (path, index))
                self._check(field.checks, values, node, path)
        elif field.shape == "map":
            self._map(node, field, path, message, around)
        elif (
            field.shape == "struct"
            and self._is_v2
            and field.name == "config"
            and self._v2_config(node, path, message, around)
        ):
            return
        else:
            value = self._value(node, field, path, message.full_name)
            if field.checks and value is not _BAD and value is not None and self._rules:
                self._check(field.checks, value, node, path)

    def _check(self, checks: Iterable[Any], value: Any, node: Node, path: Path) -> None:
        for check in checks:
            wrong = check(value)
            if wrong is not None:
                self._error(node.mark, path, wrong)
                return

    def _list(self, entry: Entry, node: Node, field: FieldSchema) -> list[Node]:
        """The items of a repeated field, as Envoy reads them.

        A lone value is a list of one, lists within lists are one list, and a null in a list is the type's zero.
        """
        if node.kind != "seq":
            entry.value = Node.seq(node.mark, [node])
            return entry.value.items
        if any(item.kind == "seq" or item.is_null for item in node.items):
            flat: list[Node] = []
            _flatten(node.items, flat)
            node.items = flat if field.shape == "value" else [_zero(n, field) if n.is_null else n for n in flat]
        return node.items

    def _map(self, node: Node, field: FieldSchema, path: Path, message: MessageSchema, around: Node) -> None:
        if node.kind != "map":
            self._error(node.mark, path, f"must be a mapping (key: value), not {_kind(node)}")
            return
        value_field = field.map_value
        for entry in node.entries:
            inside: Path = (path, entry.key)
            if field.map_key != "string" and not self._map_key(entry.key, field.map_key):
                self._error(entry.key_mark, inside, f"must have a key of type {field.map_key}")
            if self._rules:
                for check in field.key_checks:
                    wrong = check(entry.key)
                    if wrong is not None:
                        self._error(entry.key_mark, inside, f"the key {wrong}")
            if entry.value.is_null and value_field.type == "message" and value_field.shape != "value":
                entry.value = Node.map(entry.value.mark)
            if self._is_v2 and field.name == "per_filter_config" and self._v2_per_filter(entry, inside, message):
                continue
            value = self._value(entry.value, value_field, inside, message.full_name)
            if value is not _BAD and value is not None and self._rules:
                self._check(field.value_checks, value, entry.value, inside)
        if self._rules:
            self._check(field.checks, node.entries, node, path)

    def _map_key(self, key: str, kind: str) -> bool:
        if kind == "bool":
            return key in ("true", "false")
        number = _integer(key)
        return number is not None and _RANGES[kind][0] <= number <= _RANGES[kind][1]

    # --- values --------------------------------------------------------------------------------------------------------

    def _value(self, node: Node, field: FieldSchema, path: Path, holder: str) -> Any:
        """Check one value; its converted form for the rules, None when there is nothing to check, _BAD when it is wrong."""
        shape = field.shape
        if shape == "message":
            return self.message(node, field.message, path, holder)
        if shape == "string":
            return self._string(node, path)
        if shape == "wrapper":
            if node.kind == "map":
                # The long form, `{value: 5}`: the message as it is.
                if self.message(node, field.message, path, holder) is _BAD:
                    return _BAD
                inner = node.get("value")
                return None if inner is None else inner.value
            return self._scalar(node, field.scalar, path)
        if shape == "enum":
            return self._enum(node, field, path)
        if shape == "duration":
            return self._duration(node, field, path, holder)
        if shape == "any":
            return self._any(node, path, holder)
        if shape == "struct":
            if node.kind != "map":
                return self._error(node.mark, path, f"must be a mapping (key: value), not {_kind(node)}")
            return None
        if shape == "list":
            return None if node.kind == "seq" else self._error(node.mark, path, f"must be a list, not {_kind(node)}")
        if shape == "value":
            return None
        if shape == "timestamp":
            if node.kind == "map":
                return self.message(node, field.message, path, holder)
            if not isinstance(node.value, str) or not _TIMESTAMP.match(node.value):
                return self._error(node.mark, path, "must be a time such as 2018-11-29T12:00:00Z")
            return None
        if shape == "fieldmask":
            return self.message(node, field.message, path, holder) if node.kind == "map" else self._string(node, path)
        return self._scalar(node, shape, path)

    def _scalar(self, node: Node, kind: str, path: Path) -> Any:
        if kind == "string":
            return self._string(node, path)
        if node.kind != "scalar":
            return self._error(node.mark, path, f"must be {_EXPECTED[kind]}, not {_kind(node)}")
        value = node.value
        if kind == "bool":
            if isinstance(value, str):
                if value.lower() in _TRUE:
                    value = True
                elif value.lower() in _FALSE:
                    value = False
            if not isinstance(value, bool):
                hint = {0: "false", 1: "true"}.get(value) if isinstance(value, int) else None
                return self._error(
                    node.mark,
                    path,
                    f"must be true or false, not {_shown(node)}",
                    f"did you mean {hint}?" if hint else "",
                )
            node.value = value
            return value
        if kind == "bytes":
            decoded = base64_bytes(value) if isinstance(value, str) else None
            if decoded is None:
                return self._error(node.mark, path, f"must be base64 in a string, not {_shown(node)}")
            return decoded
        if kind in ("float", "double"):
            number = _number(value)
            if number is None:
                return self._error(node.mark, path, f"must be a number, not {_shown(node)}")
            node.value = number
            return number
        integer = _integer(value)
        if integer is None:
            return self._error(node.mark, path, f"must be a whole number, not {_shown(node)}")
        low, high = _RANGES[kind]
        if not low <= integer <= high:
            return self._error(node.mark, path, f"must be between {low} and {high}, not {integer}")
        node.value = integer
        return integer

    def _string(self, node: Node, path: Path) -> Any:
        if node.kind != "scalar":
            return self._error(node.mark, path, f"must be a string, not {_kind(node)}")
        if not isinstance(node.value, str):
            # Envoy too: yaml-cpp makes it a number or a boolean, and JSON's string takes neither.
            return self._error(node.mark, path, f"must be a string, not {_shown(node)}", f'quote it: "{node.text}"')
        return node.value

    def _enum(self, node: Node, field: FieldSchema, path: Path) -> Any:
        enum = field.enum
        value = node.value if node.kind == "scalar" else None
        if isinstance(value, str) and value.upper() in enum.by_name:
            number = enum.by_name[value.upper()]
        else:
            integer = _integer(value)
            if (
                integer is not None
                and not field.defined_only
                and -(1 << 31) <= integer < 1 << 31
                and integer not in enum.names
            ):
                # proto3 takes any number, and so does Envoy where no rule asks for a known one.
                self.problems.append(
                    Problem(
                        "unsupported",
                        path_text(path),
                        node.mark.line,
                        node.mark.column,
                        f"{integer} is no {enum.full_name.rpartition('.')[2]} that forkproxy knows",
                    )
                )
                node.value = enum.names.get(0, 0)
                return 0
            if integer is None or integer not in enum.names:
                names = [enum.names[n] for n in enum.names]
                hint = _did_you_mean(value.upper(), names) if isinstance(value, str) else ""
                listed = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
                return self._error(node.mark, path, f"must be one of {listed}, not {_shown(node)}", hint)
            number = integer
        # Canonical case, but the user's own alias when two names share a number.
        name = enum.names[number]
        node.value = (
            name if not isinstance(value, str) or value.upper() not in enum.by_name else _spelt(value, enum, name)
        )
        return number

    def _duration(self, node: Node, field: FieldSchema, path: Path, holder: str) -> Any:
        if node.kind == "map":
            if self.message(node, field.message, path, holder) is _BAD:
                return _BAD
            total = duration_ns(node)
            return _BAD if total is None else total
        total = duration_ns(node)
        if total is None:
            hint = ""
            other = _OTHER_DURATION.match(node.text) if node.kind == "scalar" else None
            if other is not None:
                seconds = f"{float(other[1]) * _SECONDS[other[2]]:.9f}".rstrip("0").rstrip(".")
                hint = f"did you mean {seconds}s?"
            return self._error(node.mark, path, f"must be seconds with an s, such as 0.25s, not {_shown(node)}", hint)
        return total

    # --- Any -----------------------------------------------------------------------------------------------------------

    def _any(self, node: Node, path: Path, holder: str) -> Any:
        if node.kind != "map":
            return self._error(node.mark, path, f'must be fields with an "@type", not {_kind(node)}')
        url = node.get("@type")
        if url is None:
            if node.entries:
                return self._error(
                    node.mark, path, '"@type" is missing', '"@type": type.googleapis.com/ and the message\'s full name'
                )
            return None
        name = registry.message_name(url.value) if url.kind == "scalar" and isinstance(url.value, str) else None
        if name is None:
            return self._error(
                url.mark, (path, "@type"), f"must be type.googleapis.com/ and a message's full name, not {_shown(url)}"
            )
        if not self._schema.is_message(name):
            return self._unknown_type(url.mark, path, name)
        if not self._is_v2 and _is_v2_name(name):
            v3 = self._schema.v3_of(name)
            return self._error(
                url.mark,
                (path, "@type"),
                f"{name} belongs to the v2 API, which has ended",
                f"its v3 name is {v3}" if v3 else "",
            )
        message = self._schema.message(name)
        if message.shape != "message":
            return self._well_known(node, message, path)
        if name in registry.TYPED_STRUCTS:
            return self._typed_struct(node, message, url, path, holder)
        return self.message(node, message, path, holder, in_any=True)

    def _well_known(self, node: Node, message: MessageSchema, path: Path) -> Any:
        """Types with a JSON form of their own stand under "value"."""
        for entry in node.entries:
            if entry.key not in ("@type", "value"):
                self._error(
                    entry.key_mark, path, f'"{entry.key}" must stand under "value" when "@type" is {message.full_name}'
                )
        value = node.get("value")
        if value is not None and not value.is_null and message.shape == "struct" and value.kind != "map":
            return self._error(value.mark, (path, "value"), f"must be a mapping (key: value), not {_kind(value)}")
        return None

    def _typed_struct(self, node: Node, message: MessageSchema, url: Node, path: Path, holder: str) -> Any:
        """A TypedStruct stands for the message that its ``type_url`` names: Envoy converts it, so it is rewritten here."""
        self.message(node, message, path, holder, in_any=True)
        inner_url, value = node.get("type_url"), node.get("value")
        inner = str(inner_url.value) if inner_url is not None and inner_url.kind == "scalar" else ""
        name = registry.message_name(inner) or inner
        if inner_url is None or not self._schema.is_message(name) or self._schema.message(name).shape != "message":
            return None  # opaque: a Wasm plugin's own type, say
        if _is_v2_name(name) and not self._is_v2:
            return None
        entries = value.entries if value is not None and value.kind == "map" else []
        type_node = Node.scalar(registry.type_url(name), inner_url.mark)
        node.entries = [Entry("@type", url.mark, type_node), *entries]
        return self.message(node, self._schema.message(name), path, holder, in_any=True)

    def _unknown_type(self, mark: Mark, path: Path, name: str) -> Any:
        lower = name.lower()
        close = next((known for known in self._schema.names() if known.lower() == lower), "") or _closest(
            name, [known for known in self._schema.names() if known.startswith(name[:6])], 2
        )
        if close:
            return self._error(mark, (path, "@type"), f"no such message: {name}", f"did you mean {close}?")
        # Not an error: Envoy may have it. It opens a door, as nobody here can tell what it would have guarded.
        self.problems.append(
            Problem(
                "unsupported",
                path_text((path, "@type")),
                mark.line,
                mark.column,
                f"{name} is unknown to forkproxy's schema (Envoy API of {API_DATE})",
                opens_door=True,
            )
        )
        return _BAD

    # --- extensions by name --------------------------------------------------------------------------------------------

    def _typed_config(
        self, node: Node, message: MessageSchema, present: dict[str, Entry], path: Path, holder: str
    ) -> None:
        """A filter that is named and has no configuration: 2018's normal form, refused by today's Envoy."""
        field = message.fields["typed_config"]
        alternatives = field.oneof.fields if field.oneof is not None else [field]
        name_entry = present.get("name")
        if self._is_v2 or name_entry is None or any(f.name in present for f in alternatives):
            return
        typed = present.get("typed_config")
        if typed is not None and typed.value.kind == "map" and typed.value.entries:
            return
        category = registry.category_of(message.full_name, holder)
        name = name_entry.value.value if name_entry.value.kind == "scalar" else None
        if category is None or not isinstance(name, str):
            return
        extension = registry.extension(category, name)
        mark = name_entry.value.mark
        if extension is None and (":" in name or (category == "cluster" and name.startswith("envoy.cluster."))):
            return  # a Python class, "module:Class", or a cluster type of Envoy's own: neither needs any
        if extension is None or not extension.v3:
            names = [each for cat, each in registry.extensions() if cat == category]
            self._error(
                mark,
                (path, "name"),
                f'"{name}" has no typed_config, and its type does not follow from the name',
                _did_you_mean(name, names),
            )
            return
        empty = Node.map(mark, [Entry("@type", mark, Node.scalar(extension.type_url, mark))])
        node.set("typed_config", empty, mark)
        present["typed_config"] = Entry("typed_config", mark, empty)
        self._warn(
            mark,
            path,
            f'"{name}" has no typed_config; an empty one is assumed',
            f'today\'s Envoy wants typed_config: {{"@type": {extension.type_url}}}',
        )
        needed = self._schema.message(extension.v3)
        self._absent(empty, needed, {}, (path, "typed_config"))

    def _v2_config(self, node: Node, path: Path, message: MessageSchema, around: Node) -> bool:
        """v2's ``config:`` Struct beside ``name``: checked as the message that belongs to the name. Whether it was."""
        name = around.get("name")
        holder = self._seen_holder(path)
        category = registry.category_of(message.full_name, holder)
        if name is None or category is None or name.kind != "scalar" or not isinstance(name.value, str):
            return False
        extension = registry.extension(category, name.value)
        if extension is None and ":" in name.value:
            return True  # a Python class, "module:Class": its Struct is its own affair
        if extension is None:
            names = [each for cat, each in registry.extensions() if cat == category]
            hint = _did_you_mean(name.value, names)
            self.problems.append(
                Problem(
                    "unsupported",
                    path_text(path[0] if path else None),
                    name.mark.line,
                    name.mark.column,
                    f'"{name.value}" is unknown to forkproxy (Envoy API of {API_DATE})',
                    hint,
                    True,
                )
            )
            return True
        target = extension.v2 or extension.v3
        self.message(node, self._schema.message(target), path, message.full_name)
        return True

    def _seen_holder(self, path: Path) -> str:
        """The message around the one that ``path``'s field is in (for transport sockets only)."""
        outer = path[0] if path is not None else None
        outer = outer[0] if outer is not None else None
        for _, seen_path, seen_message in reversed(self._seen):
            if seen_path == outer:
                return seen_message.full_name
        return ""

    def _v2_per_filter(self, entry: Entry, path: Path, message: MessageSchema) -> bool:
        extension = registry.extension("http", entry.key)
        target = extension.per_route_v2 if extension is not None else ""
        if not target or entry.value.kind != "map":
            return False
        self.message(entry.value, self._schema.message(target), path, message.full_name)
        return True

    # --- unknown fields ------------------------------------------------------------------------------------------------

    def explain_unknown(self) -> None:
        """Report the unknown fields, with the best hint that the whole tree gives."""
        for count, unknown in enumerate(self._unknown):
            entry, message = unknown.entry, unknown.message
            if self._is_v2 and entry.key in FIELDS_OF_1_8.get(message.full_name, ()):
                continue  # 1.8.0 had it, the last v2 schema has not: for ``upgrade``
            if self._is_v2 and self._in_other_version(message, entry.key):
                self._warn(entry.key_mark, unknown.path, f'"{entry.key}" belongs to another version of {message.name}')
                continue
            hint = self._hint(unknown) if count < 200 else ""
            self._error(entry.key_mark, unknown.path, f'{message.name} has no field "{entry.key}"', hint)

    def _in_other_version(self, message: MessageSchema, key: str) -> bool:
        """Files of 2019 and 2020 mix v2 and v3, which Envoy took: what is not v2 may be v3, and ``upgrade`` decides."""
        for other in (message.previous, self._schema.v3_of(message.full_name)):
            if other in self._schema and key in self._schema.message(other).lookup:
                return True
        return False

    def _hint(self, unknown: _Unknown) -> str:
        key, message = unknown.entry.key, unknown.message
        if key == "<<":
            return "Envoy's YAML has no merge keys"
        if message.previous and message.previous in self._schema:
            old = self._schema.message(message.previous)
            if key in old.lookup or key in FIELDS_OF_1_8.get(message.previous, ()):
                return f'"{key}" belongs to the v2 API; `forkproxy migrate` prints the v3 form'
        snake = _CAPITAL.sub(r"_\g<0>", key).strip("_").lower()
        close = f'did you mean "{snake}"?' if snake in message.fields else _did_you_mean(key, message.fields)
        if close:
            return close
        line = unknown.entry.key_mark.line
        # The nearest message before it that has such a field; failing that, the first after it.
        for seen_line, path, seen in reversed(self._seen):
            if seen_line <= line and key in seen.lookup and seen is not message and path is not None:
                return f'"{key}" is a field of {path_text(path)} (line {seen_line}): check the indentation'
        if key == "@type":
            return '"@type" belongs in a typed_config'
        return ""


_EXPECTED: Final = {
    "bool": "true or false",
    "bytes": "base64 in a string",
    "float": "a number",
    "double": "a number",
    "int32": "a whole number",
    "int64": "a whole number",
    "uint32": "a whole number",
    "uint64": "a whole number",
}


def _kind(node: Node) -> str:
    if node.kind == "scalar":
        return _shown(node)
    return "a list" if node.kind == "seq" else "a mapping"


def _shown(node: Node) -> str:
    if node.kind != "scalar":
        return _kind(node)
    text = node.text if len(node.text) <= 40 else node.text[:37] + "…"
    return f'"{text}"' if isinstance(node.value, str) else text or "nothing"


def _spelt(value: str, enum: Any, name: str) -> str:
    return name if value.upper() == name.upper() else value.upper()


def _flatten(items: list[Node], into: list[Node]) -> None:
    for item in items:
        if item.kind == "seq":
            _flatten(item.items, into)
        else:
            into.append(item)


def _zero(node: Node, field: FieldSchema) -> Node:
    """A null's stand-in in a list."""
    if field.type == "message":
        return Node.map(node.mark)
    if field.type in ("string", "bytes"):
        return Node.scalar("", node.mark)
    return Node.scalar(False if field.type == "bool" else 0, node.mark)


def _is_v2_name(name: str) -> bool:
    return name.startswith("envoy.") and re.search(r"\.v[12]\w*\.", name) is not None and ".v3" not in name


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = _closest(word, known, max(1, min(3, len(word) // 4)))
    return f'did you mean "{close}"?' if close else ""


def _closest(word: str, known: Iterable[str], limit: int) -> str:
    """The nearest of ``known`` within ``limit`` edits, or "" (the first of equals)."""
    best, best_distance = "", limit + 1
    for each in known:
        if abs(len(each) - len(word)) < best_distance:
            distance = _distance(word, each, best_distance)
            if distance < best_distance:
                best, best_distance = each, distance
    return best


def _distance(a: str, b: str, limit: int) -> int:
    """Edits (insert, delete, replace, swap neighbours) from ``a`` to ``b``; gives up at ``limit``."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        older, before = before, row
        row = [i]
        for j, right in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (left != right))
            if i > 1 and j > 1 and left == b[j - 2] and a[i - 2] == right:
                cost = min(cost, older[j - 2] + 1)
            row.append(cost)
        if min(row) >= limit:
            return limit
    return row[-1]
