"""Substitution formats, compiled: a format string or a JSON structure becomes one Python function from a stream to
bytes.

A line is one ``bytes % tuple``: the literal text is the left side, and on the right there is one expression per
operator, so that Envoy's default line costs about 2 µs instead of a call per operator. The source holds only fixed
expressions and made-up names; whatever comes from the configuration is bound to those names.

What is missing is "-" in a text line and in a JSON string of several parts, null as a JSON value of its own, and
nothing in a header value. ``omit_empty_values`` makes it nothing in text, and leaves the property out in JSON, and
the objects and lists that are empty then.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from forkproxy.access_log.operators import BYTES, INT, MAYBE_INT, READERS, Item, Names, build
from forkproxy.config.build.core import Where
from forkproxy.config.problems import ConfigError

if TYPE_CHECKING:
    from forkproxy.http.stream import Stream

_orjson: Any
try:
    import orjson

    _orjson = orjson
except ImportError:
    _orjson = None

Format = Callable[["Stream"], bytes]

DEFAULT_FORMAT = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% '
    '%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" '
    '"%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%"\n'
)
"""Envoy's default line."""

_COMMAND = re.compile(r"%([A-Z0-9_]+)(?:\((.*?)\))?(?::([0-9]+))?%")

_NO_STATIC: Mapping[str, Any] = {}


# From a value to text


def json_value(value: object) -> bytes:
    """Any JSON value as Envoy writes it: no blanks, UTF-8 as it is, whole floats without a fraction. Bytes are a string."""
    if isinstance(value, bytes):
        return json_string(value)
    plain = _plain_numbers(value)
    if isinstance(plain, float):
        return repr(plain).encode()  # 1e+20; orjson would write 1e20
    if _orjson is not None:
        try:
            encoded: bytes = _orjson.dumps(plain, option=_orjson.OPT_SORT_KEYS)
            return encoded
        except (TypeError, ValueError):  # an int of more than 64 bits, a lone surrogate
            return _json_slow(plain)
    return _json_slow(plain)


def _json_slow(value: object) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return text.encode("utf-8", "surrogateescape")


def _plain_numbers(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain_numbers(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_plain_numbers(member) for member in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        if value.is_integer() and abs(value) < 1e17:
            return int(value)
    return value


def json_string(value: bytes | None) -> bytes:
    """Bytes as a JSON string, None as null. In bytes that are not UTF-8 each one above 127 becomes \\u00XX, as Envoy has it."""
    if value is None:
        return b"null"
    try:
        return _dump_text(value.decode())
    except UnicodeDecodeError:
        return json.dumps(value.decode("latin-1")).encode()


def _dump_text_slow(text: str) -> bytes:
    return json.dumps(text, ensure_ascii=False).encode()


_dump_text: Callable[[str], bytes] = _orjson.dumps if _orjson is not None else _dump_text_slow


def json_number(value: int | None) -> bytes:
    """An int, or null."""
    return b"null" if value is None else b"%d" % value


def value_text(value: object, absent: bytes) -> bytes:
    """A metadata value in a line of text: a string as it is, everything else as JSON."""
    if value is None:
        return absent
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return value if isinstance(value, bytes) else json_value(value)


def _number_or(value: int | None, absent: bytes) -> bytes:
    return absent if value is None else b"%d" % value


def _cut(value: bytes | None, length: int, absent: bytes) -> bytes:
    return absent if value is None else value[:length]


def _cut_or_none(value: bytes | None, length: int) -> bytes | None:
    return None if value is None else value[:length]


def _cut_value(value: object, length: int) -> object:
    return value[:length] if isinstance(value, str | bytes) else value


_RENDERERS: dict[str, object] = {
    "json_string": json_string,
    "json_number": json_number,
    "json_value": json_value,
    "value_text": value_text,
    "number_or": _number_or,
    "cut": _cut,
    "cut_or_none": _cut_or_none,
    "cut_value": _cut_value,
}


# From a format string to literals and items


def parse(text: str, where: Where, names: Names, static: Mapping[str, Any] = _NO_STATIC) -> list[bytes | Item]:
    """Literals and operators of a format string, neighbouring literals joined. Raises ConfigError."""
    parts: list[bytes | Item] = []
    literal = b""
    position = 0
    while position < len(text):
        percent = text.find("%", position)
        if percent < 0:
            percent = len(text)
        literal += text[position:percent].encode("utf-8", "surrogateescape")
        position = percent
        if position == len(text):
            break
        if text.startswith("%%", position):
            literal += b"%"
            position += 2
            continue
        command = _COMMAND.match(text, position)
        if command is None:
            raise ConfigError(
                where.path, where.line, where.column,
                f"incorrect configuration: {text.strip()}. Couldn't find valid command at position {position}",
                "a percent sign by itself is written %%",
            )  # fmt: skip
        if literal:
            parts.append(literal)
            literal = b""
        length = int(command[3]) if command[3] is not None else None
        parts.append(build(command[1], command[2], length, where, names, static))
        position = command.end()
    if literal:
        parts.append(literal)
    return parts


# From items to one function


class _Function:
    """Collects the parts of one line and makes its function."""

    def __init__(self, absent: bytes) -> None:
        self.names = Names()
        self.template: list[bytes] = []
        self.arguments: list[str] = []
        self.bound: dict[str, object] = {**READERS, **_RENDERERS, "NOTHING": absent}

    def literal(self, text: bytes) -> None:
        """Fixed bytes."""
        self.template.append(text.replace(b"%", b"%%"))

    def _argument(self, item: Item, conversion: bytes, source: str) -> None:
        self.template.append(conversion)
        self.arguments.append(source)
        self.bound.update(item.bound)

    def text(self, item: Item) -> None:
        """An operator as part of a text."""
        if item.kind == INT:
            self._argument(item, b"%d", item.source)
        else:
            self._argument(item, b"%b", text_source(item))

    def json(self, item: Item) -> None:
        """An operator as a JSON value of its own."""
        if item.kind == INT:
            self._argument(item, b"%d", item.source)
        elif item.kind == BYTES:
            self._argument(item, b"%b", f"json_string({bytes_or_none(item)})")
        elif item.kind == MAYBE_INT:
            self._argument(item, b"%b", f"json_number({item.source})")
        else:
            self._argument(item, b"%b", f"json_value({value_source(item)})")

    def json_text(self, parts: list[bytes | Item]) -> None:
        """Several parts as one JSON string."""
        inner = _Function(b"")
        inner.bound = self.bound
        inner.names = self.names
        for part in parts:
            if isinstance(part, bytes):
                inner.literal(part)
            else:
                inner.text(part)
        constant = self.names()
        self.bound[constant] = b"".join(inner.template)
        self.template.append(b"%b")
        self.arguments.append(f"json_string({constant} % ({' '.join(source + ',' for source in inner.arguments)}))")

    def make(self) -> Format:
        """The function. A line without an operator is a constant."""
        template = b"".join(self.template)
        if not self.arguments:
            constant = template % ()
            return lambda _stream: constant
        return _evaluate(self.bound, f"TEMPLATE % ({' '.join(source + ',' for source in self.arguments)})", template)


def text_source(item: Item) -> str:
    """An expression for an item as text, NOTHING standing for what is missing."""
    if item.kind == INT:
        return f"b'%d' % {item.source}"
    if item.kind == MAYBE_INT:
        return f"number_or({item.source}, NOTHING)"
    if item.kind != BYTES:
        source = f"value_text({item.source}, NOTHING)"
        return source if item.max_length is None else f"{source}[:{item.max_length}]"
    if item.max_length is not None:
        return f"cut({_with_absent(item, 'None')}, {item.max_length}, NOTHING)"
    return _with_absent(item, "NOTHING")


def bytes_or_none(item: Item) -> str:
    """An expression for a BYTES item, None standing for what is missing."""
    source = _with_absent(item, "None")
    return source if item.max_length is None else f"cut_or_none({source}, {item.max_length})"


def value_source(item: Item) -> str:
    """An expression for a VALUE item."""
    return item.source if item.max_length is None else f"cut_value({item.source}, {item.max_length})"


def _with_absent(item: Item, absent: str) -> str:
    return item.source.replace("ABSENT", absent)


def _evaluate(bound: Mapping[str, object], expression: str, template: bytes = b"") -> Callable[[Stream], Any]:
    """``lambda s: expression``, the header lines put into dictionaries first when the expression looks into them.

    Only fixed expressions and made-up names are ever in ``expression``; see the module's text.
    """
    lines = ["def line(s):"]
    # Reversed, so that of several lines of one name the first stays.
    if "q.get(" in expression:
        lines.append("    q = dict(reversed(s.request_headers))")
    if "r.get(" in expression:
        lines.append("    r = dict(reversed(s.response_headers)) if s.response_headers else {}")
    lines.append(f"    return {expression}")
    namespace: dict[str, Any] = {**bound, "TEMPLATE": template}
    exec(compile("\n".join(lines), "<access log format>", "exec"), namespace)
    made: Callable[[Stream], Any] = namespace["line"]
    return made


def compile_text(
    text: str, where: Where, *, omit_empty_values: bool = False, static: Mapping[str, Any] = _NO_STATIC
) -> Format:
    """A text line. ``static``: values of the operators that belong to the log's place (``operators.STATIC``).

    Raises ConfigError.
    """
    function = _Function(b"" if omit_empty_values else b"-")
    for part in parse(text, where, function.names, static):
        if isinstance(part, bytes):
            function.literal(part)
        else:
            function.text(part)
    return function.make()


def compile_header_value(
    text: str, where: Where, *, omit_empty_values: bool = True, static: Mapping[str, Any] = _NO_STATIC
) -> Format:
    """The value of a header to add: what is missing is nothing, and a line end can never get into a header.

    Raises ConfigError.
    """
    # A header belongs to no log.
    place = {"ACCESS_LOG_TYPE": "NotSet", **static}
    render = compile_text(_without_json_arguments(text), where, omit_empty_values=omit_empty_values, static=place)

    def header_value(stream: Stream) -> bytes:
        value = render(stream)
        # Metadata and certificates may hold what no header may.
        if b"\n" in value or b"\r" in value or b"\0" in value:
            value = value.replace(b"\r", b" ").replace(b"\n", b" ").replace(b"\0", b" ")
        return value

    return header_value


_JSON_ARGUMENT = re.compile(r"%(DYNAMIC_METADATA|UPSTREAM_METADATA|CLUSTER_METADATA)\((\[[^\]]*\])\)")


def _without_json_arguments(text: str) -> str:
    """Header values alone also know ``%DYNAMIC_METADATA(["namespace", "key"])%``."""

    def plain(found: re.Match[str]) -> str:
        try:
            keys = json.loads(found[2])
        except ValueError:
            return found[0]
        return f"%{found[1]}({':'.join(map(str, keys))})"

    return _JSON_ARGUMENT.sub(plain, text)


# JSON


def compile_json(
    structure: Mapping[str, object],
    where: Where,
    *,
    omit_empty_values: bool = False,
    sort_properties: bool = False,
    static: Mapping[str, Any] = _NO_STATIC,
) -> Format:
    """A line of JSON with its line end.

    Properties are always sorted, as Envoy 1.40 does whatever ``sort_properties`` says. Raises ConfigError.
    """
    if omit_empty_values:
        member = _compile_member(structure, where, static)

        def sparse_line(stream: Stream) -> bytes:
            return (member(stream) or b"{}") + b"\n"

        return sparse_line
    function = _Function(b"-")
    _write_json(function, structure, where, static)
    function.literal(b"\n")
    return function.make()


def _write_json(function: _Function, value: object, where: Where, static: Mapping[str, Any]) -> None:
    if isinstance(value, Mapping):
        separator = b"{"
        for key in sorted(value, key=str):
            function.literal(separator + json_value(str(key)) + b":")
            _write_json(function, value[key], where, static)
            separator = b","
        function.literal(b"}" if value else b"{}")
    elif isinstance(value, list | tuple):
        separator = b"["
        for member in value:
            function.literal(separator)
            _write_json(function, member, where, static)
            separator = b","
        function.literal(b"]" if value else b"[]")
    elif isinstance(value, str):
        parts = parse(value, where, function.names, static)
        if not any(isinstance(part, Item) for part in parts):
            function.literal(
                json_value(b"".join(part for part in parts if isinstance(part, bytes)).decode("utf-8", "replace"))
            )
        elif len(parts) == 1 and isinstance(parts[0], Item):
            function.json(parts[0])
        else:
            function.json_text(parts)
    else:
        function.literal(json_value(value))


Member = Callable[[Any], "bytes | None"]


def _compile_member(value: object, where: Where, static: Mapping[str, Any]) -> Member:
    """A value that is None when there is nothing to write: the way of ``omit_empty_values``."""
    if isinstance(value, Mapping):
        members = [
            (json_value(str(key)) + b":", _compile_member(value[key], where, static)) for key in sorted(value, key=str)
        ]

        def write_object(stream: Any) -> bytes | None:
            written = [key + text for key, member in members if (text := member(stream)) is not None]
            return b"{%b}" % b",".join(written) if written else None

        return write_object
    if isinstance(value, list | tuple):
        elements = [_compile_member(member, where, static) for member in value]

        def write_list(stream: Any) -> bytes | None:
            written = [text for element in elements if (text := element(stream)) is not None]
            return b"[%b]" % b",".join(written) if written else None

        return write_list
    if isinstance(value, str):
        return _compile_string_member(value, where, static)
    constant = None if value is None else json_value(value)
    return lambda _stream: constant


def _compile_string_member(value: str, where: Where, static: Mapping[str, Any]) -> Member:
    names = Names()
    parts = parse(value, where, names, static)
    if len(parts) != 1 or isinstance(parts[0], bytes):
        text = compile_text(value, where, omit_empty_values=True, static=static)
        return lambda stream: json_string(text(stream))
    item = parts[0]
    bound = {**READERS, **_RENDERERS, **item.bound}
    if item.kind == BYTES:
        read = _evaluate(bound, bytes_or_none(item))
        return lambda stream: None if (found := read(stream)) is None else json_string(found)
    read = _evaluate(bound, value_source(item) if item.kind not in (INT, MAYBE_INT) else item.source)
    return lambda stream: None if (found := read(stream)) is None else json_value(found)
