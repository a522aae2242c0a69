"""A typed look at a validated message, which remembers what was read, so that nothing set is silently ignored.

    root = View.root(document.root, "envoy.config.bootstrap.v3.Bootstrap")
    for cluster in root.message("static_resources").repeated("clusters"):
        name, timeout = cluster.str("name"), cluster.duration_s("connect_timeout", 5.0)
    problems = root.problems + unread(root)

Rules:

* a getter marks its field read; ``has`` and ``which`` do not; a message is read as far as its fields are;
* a getter of the wrong kind, or for a field that the message does not have, raises TypeError: that is a bug here, not in
  the file;
* absent → ``default``, for wrappers (UInt32Value, …) too; ``None`` as default tells absent from zero;
* what was set and never read is "not implemented": :func:`unread` lists the tops of such subtrees. A scalar that is set to
  its zero and has no presence (``port_value: 0``, ``path: ""``) is as good as not set, and so is an empty list;
* the tree must have been through ``validate``, which spells keys one way and gives scalars their types.

It cannot see "read but not honoured", so every read is also recorded in :data:`READS`, of which SUPPORTED.md is made.
"""

from __future__ import annotations

import builtins
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any, Final, TypeVar, overload

from forkproxy.config import registry
from forkproxy.config.problems import ConfigError, Kind, Problem
from forkproxy.config.schema import FieldSchema, MessageSchema, schema
from forkproxy.config.tree import Entry, Mark, Node
from forkproxy.config.validate import Path, base64_bytes, duration_ns, path_text

T = TypeVar("T")

NOT_WAIVED: Final = "cannot be waived by --allow-unsupported"


@dataclass(slots=True)
class Read:
    """How one field is read by the program: by which getters, which enum values it knows, what it takes when the field is
    absent, or why it is ignored."""

    getters: set[str] = dataclass_field(default_factory=set)
    supported: set[str] = dataclass_field(default_factory=set)
    defaults: set[object] = dataclass_field(default_factory=set)
    ignored: str = ""


READS: Final[dict[str, dict[str, Read]]] = {}
"""Message full name → field → how it is read; filled by every View of the process."""


# --- doors -------------------------------------------------------------------------------------------------------------
# Fields and extensions that keep something out. To run without one of them is to open a door, so --allow-unsupported
# does not waive them. Each with its reason.

_CONDITION: Final = "is a condition"
_DOOR_PACKAGES: Final[dict[str, str]] = {
    "envoy.extensions.filters.http.jwt_authn": "authenticates requests",
    "envoy.extensions.filters.http.basic_auth": "authenticates requests",
    "envoy.extensions.filters.http.api_key_auth": "authenticates requests",
    "envoy.extensions.filters.http.oauth2": "authenticates requests",
    "envoy.extensions.filters.http.ext_authz": "authorizes requests",
    "envoy.extensions.filters.network.ext_authz": "authorizes connections",
    "envoy.extensions.filters.http.rbac": "authorizes requests",
    "envoy.extensions.filters.network.rbac": "authorizes connections",
    "envoy.config.rbac": "is an authorization policy",
    "envoy.extensions.filters.http.csrf": "refuses forged requests",
    "envoy.extensions.filters.http.ratelimit": "limits rates",
    "envoy.extensions.filters.http.local_ratelimit": "limits rates",
    "envoy.extensions.filters.http.rate_limit_quota": "limits rates",
    "envoy.extensions.filters.network.ratelimit": "limits rates",
    "envoy.extensions.filters.network.local_ratelimit": "limits rates",
    "envoy.extensions.filters.network.connection_limit": "limits connections",
    "envoy.extensions.filters.listener.local_ratelimit": "limits rates",
    # Foreign code decides here, and it may decide about access.
    "envoy.extensions.filters.http.ext_proc": "may authorize requests",
    "envoy.extensions.filters.network.ext_proc": "may authorize connections",
    "envoy.extensions.filters.http.wasm": "may authorize requests",
    "envoy.extensions.filters.network.wasm": "may authorize connections",
    "envoy.extensions.filters.http.lua": "may authorize requests",
    "envoy.extensions.filters.http.dynamic_modules": "may authorize requests",
    "envoy.extensions.filters.http.composite": "may hold a filter that authorizes requests",
    # Without encryption or verification of the peer, traffic is open to who stands between.
    "envoy.extensions.transport_sockets": "secures the connection",
    # A condition that is not looked at matches more than the file says.
    "envoy.type.matcher": _CONDITION,
    "xds.type.matcher": _CONDITION,
}
_DOOR_MESSAGES: Final[dict[str, str]] = {
    "envoy.config.route.v3.RouteMatch": _CONDITION,
    "envoy.config.route.v3.HeaderMatcher": _CONDITION,
    "envoy.config.route.v3.QueryParameterMatcher": _CONDITION,
    "envoy.config.listener.v3.FilterChainMatch": _CONDITION,
    "envoy.config.route.v3.RateLimit": "limits rates",
}
_HCM: Final = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_DOOR_FIELDS: Final[dict[tuple[str, str], str]] = {
    ("envoy.config.listener.v3.FilterChain", "transport_socket"): "secures the connection",
    ("envoy.config.listener.v3.FilterChain", "filter_chain_match"): _CONDITION,
    ("envoy.config.listener.v3.Listener", "filter_chain_matcher"): _CONDITION,
    ("envoy.config.cluster.v3.Cluster", "transport_socket"): "secures the connection",
    ("envoy.config.cluster.v3.Cluster", "transport_socket_matches"): "secures the connection",
    ("envoy.config.route.v3.VirtualHost", "require_tls"): "refuses plain text",
    ("envoy.config.route.v3.VirtualHost", "matcher"): _CONDITION,
    ("envoy.config.route.v3.VirtualHost", "rate_limits"): "limits rates",
    ("envoy.config.route.v3.RouteAction", "rate_limits"): "limits rates",
    # Access rules that go by path are got round by "//", "/./" and "%2f" when these are not honoured.
    (_HCM, "normalize_path"): "keeps access rules by path sound",
    (_HCM, "merge_slashes"): "keeps access rules by path sound",
    (_HCM, "path_with_escaped_slashes_action"): "keeps access rules by path sound",
    (_HCM, "path_normalization_options"): "keeps access rules by path sound",
    (_HCM, "typed_header_validation_config"): "refuses malformed requests",
    # Whose address counts as the client's decides every rule that goes by address.
    (_HCM, "use_remote_address"): "decides which address access rules see",
    (_HCM, "xff_num_trusted_hops"): "decides which address access rules see",
    (_HCM, "original_ip_detection_extensions"): "decides which address access rules see",
    (_HCM, "internal_address_config"): "decides which addresses are trusted",
    # These let the client in with headers that it should not be able to set.
    ("envoy.config.route.v3.RouteConfiguration", "internal_only_headers"): "strips headers that clients may not set",
    (
        "envoy.config.route.v3.RouteConfiguration",
        "request_headers_to_remove",
    ): "strips headers that clients may not set",
    ("envoy.config.route.v3.VirtualHost", "request_headers_to_remove"): "strips headers that clients may not set",
    ("envoy.config.route.v3.Route", "request_headers_to_remove"): "strips headers that clients may not set",
}


def door(message: str, field: str = "") -> str:
    """Why losing ``field`` of ``message`` (or an extension configured by ``message``) opens a door; "" when it does not."""
    why = _DOOR_FIELDS.get((message, field)) or _DOOR_MESSAGES.get(message)
    if why:
        return why
    package = message
    while package:
        package = package.rpartition(".")[0]
        if package in _DOOR_PACKAGES:
            return _DOOR_PACKAGES[package]
    return ""


def _door_within(node: Node, field: FieldSchema, message: MessageSchema, *, top: bool = True) -> str:
    """The first door in the subtree of an unread field, or "".

    Conditions count at the top only: where a whole route is left out, nothing matches what it should not.
    """
    why = door(message.full_name, field.name)
    if why and (top or why != _CONDITION):
        return why
    if field.shape == "map":
        nodes = [entry.value for entry in node.entries] if node.kind == "map" else []
        inner = field.map_value
    else:
        nodes = node.items if field.repeated and node.kind == "seq" else [node]
        inner = field
    for each in nodes:
        why = _door_in(each, inner)
        if why:
            return why
    return ""


def _door_in(node: Node, field: FieldSchema) -> str:
    if node.kind != "map":
        return ""
    if field.shape == "any":
        url = node.get("@type")
        name = registry.message_name(str(url.value)) if url is not None else None
        if name is None:
            return ""
        if not schema().is_message(name) or schema().message(name).shape != "message":
            return "is of a type that forkproxy does not know"
        message = schema().message(name)
    elif field.shape == "message":
        message = field.message
    else:
        return ""
    why = door(message.full_name)
    if why and why != _CONDITION:
        return why
    for entry in node.entries:
        inner = message.fields.get(entry.key)
        if inner is not None:
            why = _door_within(entry.value, inner, message, top=False)
            if why:
                return why
    return ""


# --- views -------------------------------------------------------------------------------------------------------------


class View:
    """One message. ``node`` is its place in the tree, ``message`` its schema, ``mark`` and ``path`` where it stands.

    ``problems`` is one list for the whole tree of Views: what ``report``, ``unsupported`` and ``enum(supported=…)`` reported.
    """

    __slots__ = ("_children", "_entries", "_path", "_read", "message_schema", "node", "problems")

    def __init__(self, node: Node, message: MessageSchema, path: Path, problems: list[Problem]) -> None:
        self.node = node
        self.message_schema = message
        self.problems = problems
        self._path = path
        self._entries: dict[str, Entry] = {entry.key: entry for entry in node.entries}
        self._read: set[str] = set()
        # What getters handed out, by field. Asked twice, the same one again.
        self._children: dict[str, list[View]] = {}

    @classmethod
    def root(cls, node: Node, message: builtins.str) -> View:
        """The View of a whole validated tree."""
        return cls(node, schema().message(message), None, [])

    @property
    def mark(self) -> Mark:
        """Where the message begins in the file."""
        return self.node.mark

    @property
    def path(self) -> builtins.str:
        """``static_resources.clusters[0]``; "" at the root."""
        return path_text(self._path)

    @property
    def type_name(self) -> builtins.str:
        """The message's full name."""
        return self.message_schema.full_name

    def __repr__(self) -> builtins.str:
        return f"<View {self.message_schema.name} {self.path or 'root'}>"

    # --- without reading ---------------------------------------------------------------------------------------------

    def has(self, name: builtins.str) -> builtins.bool:
        """Whether the field is set. Does not read it."""
        self._field(name)
        return name in self._entries

    def which(self, oneof: builtins.str) -> builtins.str | None:
        """The field that is set of a oneof, or None. Does not read it."""
        found = self.message_schema.oneofs.get(oneof)
        if found is None:
            raise TypeError(f"{self.message_schema.full_name} has no oneof {oneof!r}")
        for field in found.fields:
            if field.name in self._entries:
                return field.name
        return None

    def mark_of(self, name: builtins.str) -> Mark:
        """Where the field's name stands; where the message begins when the field is not set."""
        entry = self._entries.get(name)
        return self.node.mark if entry is None else entry.key_mark

    def path_of(self, name: builtins.str) -> builtins.str:
        """The field's path."""
        return path_text((self._path, name))

    @property
    def place(self) -> tuple[builtins.str, builtins.int | None]:
        """``path`` with the index of a list's item apart, or None: the text of the list's path is one object for its items."""
        path = self._path
        if path is None or isinstance(path[1], builtins.str):
            return path_text(path), None
        around = path[0]
        found = _last_list[0]
        if found[0] is not around:
            found = _last_list[0] = (around, path_text(around))
        return found[1], path[1]

    # --- of messages that say the same (build/alike.py) -----------------------------------------------------------------

    def content(self, apart: Collection[builtins.str]) -> tuple[object, ...]:
        """All that the message says, but for the fields that are ``apart``: of them, that they are there."""
        said: list[object] = []
        for name, entry in self._entries.items():
            said.append(name)
            if name not in apart:
                said.append(_content(entry.value))
        return tuple(said)

    def mark_read(self, apart: Collection[builtins.str]) -> None:
        """All fields but those that are ``apart``, and what is in them, are read: another message has shown how."""
        for name in self._entries:
            if name not in apart:
                self._read.add(name)

    def again(self) -> View:
        """The same message, of which nothing is read."""
        return View(self.node, self.message_schema, self._path, self.problems)

    def absorb(self, other: View) -> None:
        """What ``other`` (of ``again``) has read is read."""
        self._read |= other._read
        for name, theirs in other._children.items():
            ours = self._children.setdefault(name, theirs)
            if ours is not theirs:
                for our, their in zip(ours, theirs, strict=True):
                    our.absorb(their)

    def is_all_read(self, apart: Collection[builtins.str]) -> builtins.bool:
        """Whether all is read but the fields that are ``apart``, and of them none."""
        if any(name in self._read or name in self._children for name in apart):
            return False
        problems: list[Problem] = []
        self._unread(problems)
        return all(problem.path in {self.path_of(name) for name in apart} for problem in problems)

    # --- scalars -----------------------------------------------------------------------------------------------------

    @overload
    def bool(self, name: builtins.str, default: builtins.bool = False) -> builtins.bool: ...
    @overload
    def bool(self, name: builtins.str, default: None) -> builtins.bool | None: ...
    def bool(self, name: builtins.str, default: builtins.bool | None = False) -> builtins.bool | None:
        """A bool or a BoolValue."""
        if name not in self._entries and ("bool", name, default) in self.message_schema.asked:
            return default
        value = self._scalar(name, "bool", ("bool",), default)
        return default if value is None else value

    @overload
    def uint(self, name: builtins.str, default: builtins.int = 0) -> builtins.int: ...
    @overload
    def uint(self, name: builtins.str, default: None) -> builtins.int | None: ...
    def uint(self, name: builtins.str, default: builtins.int | None = 0) -> builtins.int | None:
        """A uint32, a uint64, or their wrappers."""
        if name not in self._entries and ("uint", name, default) in self.message_schema.asked:
            return default
        value = self._scalar(name, "uint", ("uint32", "uint64"), default)
        return default if value is None else value

    @overload
    def int(self, name: builtins.str, default: builtins.int = 0) -> builtins.int: ...
    @overload
    def int(self, name: builtins.str, default: None) -> builtins.int | None: ...
    def int(self, name: builtins.str, default: builtins.int | None = 0) -> builtins.int | None:
        """An int32, an int64, or their wrappers."""
        if name not in self._entries and ("int", name, default) in self.message_schema.asked:
            return default
        value = self._scalar(name, "int", ("int32", "int64"), default)
        return default if value is None else value

    @overload
    def float(self, name: builtins.str, default: builtins.float = 0.0) -> builtins.float: ...
    @overload
    def float(self, name: builtins.str, default: None) -> builtins.float | None: ...
    def float(self, name: builtins.str, default: builtins.float | None = 0.0) -> builtins.float | None:
        """A float, a double, or their wrappers."""
        if name not in self._entries and ("float", name, default) in self.message_schema.asked:
            return default
        value = self._scalar(name, "float", ("float", "double"), default)
        return default if value is None else value

    @overload
    def str(self, name: builtins.str, default: builtins.str = "") -> builtins.str: ...
    @overload
    def str(self, name: builtins.str, default: None) -> builtins.str | None: ...
    def str(self, name: builtins.str, default: builtins.str | None = "") -> builtins.str | None:
        """A string or a StringValue."""
        if name not in self._entries and ("str", name, default) in self.message_schema.asked:
            return default
        value = self._scalar(name, "str", ("string",), default)
        return default if value is None else value

    @overload
    def bytes(self, name: builtins.str, default: builtins.bytes = b"") -> builtins.bytes: ...
    @overload
    def bytes(self, name: builtins.str, default: None) -> builtins.bytes | None: ...
    def bytes(self, name: builtins.str, default: builtins.bytes | None = b"") -> builtins.bytes | None:
        """A bytes field or a BytesValue, decoded from base64."""
        value = self._scalar(name, "bytes", ("bytes",))
        return default if value is None else base64_bytes(value)

    @overload
    def duration_s(self, name: builtins.str, default: builtins.float) -> builtins.float: ...
    @overload
    def duration_s(self, name: builtins.str, default: None = None) -> builtins.float | None: ...
    def duration_s(self, name: builtins.str, default: builtins.float | None = None) -> builtins.float | None:
        """A Duration, in seconds."""
        asked = ("duration_s", name, default)
        if asked in self.message_schema.asked:
            if name not in self._entries:
                return default
            entry = self._again(name)
        else:
            field = self._field(name)
            self._expect(field, field.shape == "duration" and not field.repeated, "duration_s")
            entry = self._take(field, "duration_s", default=default)
            self.message_schema.asked.add(asked)
        if entry is None:
            return default
        nanoseconds = duration_ns(entry.value)
        assert nanoseconds is not None, "the tree was not validated"
        return nanoseconds / 1e9

    def enum(self, name: builtins.str, supported: Collection[builtins.str] | None = None) -> builtins.str:
        """An enum value's name; absent, the name of 0.

        With ``supported``, any other value that is set is reported as not implemented, and the name of 0 is returned as
        if it were not set (the first of ``supported`` when that has no name of 0).
        """
        field = self._field(name)
        asked = ("enum", name)
        if supported is None and asked in self.message_schema.asked:
            if name not in self._entries:
                return field.enum.names.get(0, "")
            entry = self._again(name)
        else:
            self._expect(field, field.shape == "enum" and not field.repeated, "enum")
            entry = self._take(field, "enum", supported)
            self.message_schema.asked.add(asked)
        zero = field.enum.names.get(0, "")
        value = zero if entry is None else builtins.str(entry.value.value)
        if supported is not None and value not in supported:
            self.unsupported(f"{value} is not implemented", f"implemented: {', '.join(supported)}", field=name)
            return zero if zero in supported else next(iter(supported))
        return value

    # --- messages ----------------------------------------------------------------------------------------------------

    def message(self, name: builtins.str) -> View | None:
        """A message; None when it is not set."""
        asked = ("message", name)
        if asked in self.message_schema.asked:
            if name not in self._entries:
                return None
            self._read.add(name)
            return self._views(self._field(name))[0]
        field = self._field(name)
        self._expect(field, field.shape == "message" and not field.repeated, "message")
        self.message_schema.asked.add(asked)
        if self._take(field, "message") is None:
            return None
        return self._views(field)[0]

    def require(self, name: builtins.str) -> View:
        """A message that validation or ``which`` has shown to be set. Raises ConfigError when it is not after all."""
        found = self.message(name)
        if found is None:
            raise self.error(f'"{name}" is missing')
        return found

    def peek(self, name: builtins.str) -> View | None:
        """A message without reading the field: what is read in it does not count until the field is."""
        field = self._field(name)
        self._expect(field, field.shape == "message" and not field.repeated, "peek")
        if name not in self._entries:
            return None
        return self._views(field)[0]

    def repeated(self, name: builtins.str) -> list[View]:
        """The messages of a repeated field; [] when it is not set."""
        asked = ("repeated", name)
        if asked in self.message_schema.asked:
            if name not in self._entries:
                return []
            self._read.add(name)
            return list(self._views(self._field(name)))
        field = self._field(name)
        self._expect(field, field.shape == "message" and field.repeated, "repeated")
        self.message_schema.asked.add(asked)
        if self._take(field, "repeated") is None:
            return []
        return list(self._views(field))

    def any(self, name: builtins.str) -> AnyView | None:
        """An Any; None when it is not set."""
        field = self._field(name)
        self._expect(field, field.shape == "any" and not field.repeated, "any")
        if self._take(field, "any") is None:
            return None
        view = self._views(field)[0]
        assert isinstance(view, AnyView)
        return view

    def anys(self, name: builtins.str) -> list[AnyView]:
        """The Anys of a repeated field."""
        field = self._field(name)
        self._expect(field, field.shape == "any" and field.repeated, "anys")
        if self._take(field, "anys") is None:
            return []
        return [view for view in self._views(field) if isinstance(view, AnyView)]

    def struct(self, name: builtins.str) -> dict[builtins.str, Any]:
        """A Struct as a dict; {} when it is not set."""
        field = self._field(name)
        self._expect(field, field.shape == "struct" and not field.repeated, "struct")
        entry = self._take(field, "struct")
        value: dict[builtins.str, Any] = {} if entry is None else entry.value.to_python()
        return value

    def json(self, name: builtins.str) -> Any:
        """A google.protobuf.Value or ListValue as Python; None when it is not set."""
        field = self._field(name)
        self._expect(field, field.shape in ("value", "list") and not field.repeated, "json")
        entry = self._take(field, "json")
        return None if entry is None else entry.value.to_python()

    # --- lists and maps of scalars -----------------------------------------------------------------------------------

    def strings(self, name: builtins.str) -> tuple[builtins.str, ...]:
        """A repeated string."""
        return self._scalars(name, "strings", ("string",))

    def uints(self, name: builtins.str) -> tuple[builtins.int, ...]:
        """A repeated unsigned integer."""
        return self._scalars(name, "uints", ("uint32", "uint64"))

    def ints(self, name: builtins.str) -> tuple[builtins.int, ...]:
        """A repeated signed integer."""
        return self._scalars(name, "ints", ("int32", "int64"))

    def floats(self, name: builtins.str) -> tuple[builtins.float, ...]:
        """A repeated float or double."""
        return self._scalars(name, "floats", ("float", "double"))

    def durations_s(self, name: builtins.str) -> tuple[builtins.float, ...]:
        """A repeated Duration, in seconds."""
        field = self._field(name)
        self._expect(field, field.shape == "duration" and field.repeated, "durations_s")
        entry = self._take(field, "durations_s")
        return () if entry is None else tuple((duration_ns(item) or 0) / 1e9 for item in entry.value.items)

    def enums(self, name: builtins.str, supported: Collection[builtins.str] | None = None) -> tuple[builtins.str, ...]:
        """A repeated enum; values outside ``supported`` are reported and left out."""
        field = self._field(name)
        self._expect(field, field.shape == "enum" and field.repeated, "enums")
        entry = self._take(field, "enums", supported)
        if entry is None:
            return ()
        values = tuple(builtins.str(item.value) for item in entry.value.items)
        if supported is None:
            return values
        for value in values:
            if value not in supported:
                self.unsupported(f"{value} is not implemented", f"implemented: {', '.join(supported)}", field=name)
        return tuple(value for value in values if value in supported)

    def structs(self, name: builtins.str) -> list[dict[builtins.str, Any]]:
        """A repeated Struct."""
        field = self._field(name)
        self._expect(field, field.shape == "struct" and field.repeated, "structs")
        entry = self._take(field, "structs")
        return [] if entry is None else [item.to_python() for item in entry.value.items]

    def map_(self, name: builtins.str) -> dict[builtins.str, Any]:
        """A map: key → View, AnyView, dict (Struct), seconds (Duration) or scalar, by the type of its values."""
        field = self._field(name)
        self._expect(field, field.shape == "map", "map_")
        entry = self._take(field, "map_")
        if entry is None:
            return {}
        inner = field.map_value
        keys = [each.key for each in entry.value.entries]
        if inner.shape in ("message", "any"):
            return dict(zip(keys, self._views(field), strict=True))
        if inner.shape == "duration":
            return {each.key: (duration_ns(each.value) or 0) / 1e9 for each in entry.value.entries}
        if inner.scalar == "bytes":
            return {each.key: base64_bytes(each.value.text) for each in entry.value.entries}
        if inner.shape == "wrapper":
            return {each.key: _wrapped(each.value) for each in entry.value.entries}
        return {each.key: each.value.to_python() for each in entry.value.entries}

    # --- saying no ---------------------------------------------------------------------------------------------------

    def ignore(self, *names: builtins.str, why: builtins.str) -> None:
        """Mark fields read that have no effect here by their nature (say why: it is printed in SUPPORTED.md)."""
        for name in names:
            asked = ("ignore", name)
            if asked in self.message_schema.asked:
                self._again(name)
            else:
                field = self._field(name)
                self._take(field, "ignore")
                self.message_schema.asked.add(asked)
            READS[self.message_schema.full_name][name].ignored = why

    def ignore_all(self, *, why: builtins.str) -> None:
        """Mark everything that is set here read, because of ``why``: the message is reported, or left out, as a whole."""
        assert why
        self._read.update(self._entries)

    def only_default(self, *names: builtins.str) -> None:
        """Accept fields only while they say what happens anyway: their zero or an empty message."""
        for name in names:
            field = self._field(name)
            entry = self._take(field, "only_default")
            if entry is not None and not _is_default(entry.value, field):
                self._not_implemented(entry, field)

    def error(self, message: builtins.str, hint: builtins.str = "", *, field: builtins.str = "") -> ConfigError:
        """The exception for what cannot be built, placed at ``field`` or at this message: ``raise view.error("…")``."""
        mark = self._place(field)
        return ConfigError(self._name(field), mark.line, mark.column, message, hint)

    def report(
        self, message: builtins.str, hint: builtins.str = "", *, field: builtins.str = "", kind: Kind = "error"
    ) -> None:
        """Add a problem to ``problems`` and go on, so that more can be found."""
        mark = self._place(field)
        self.problems.append(Problem(kind, self._name(field), mark.line, mark.column, message, hint))

    def unsupported(
        self, message: builtins.str = "is not implemented", hint: builtins.str = "", *, field: builtins.str = ""
    ) -> None:
        """Report that the field is valid but not honoured. Marks it read, so that it is reported once."""
        why = door(self.message_schema.full_name, field)
        if field:
            self._read.add(field)
        mark = self._place(field)
        self.problems.append(
            Problem("unsupported", self._name(field), mark.line, mark.column, message, _door_hint(hint, why), why != "")
        )

    # --- inside ------------------------------------------------------------------------------------------------------

    def _place(self, name: builtins.str) -> Mark:
        entry = self._entries.get(name)
        return self.node.mark if entry is None else entry.value.mark

    def _name(self, name: builtins.str) -> builtins.str:
        return self.path_of(name) if name else self.path

    def _field(self, name: builtins.str) -> FieldSchema:
        field = self.message_schema.fields.get(name)
        if field is None:
            raise TypeError(f"{self.message_schema.full_name} has no field {name!r}")
        return field

    def _expect(self, field: FieldSchema, right: builtins.bool, getter: builtins.str) -> None:
        if not right:
            raise TypeError(f"{self.message_schema.full_name}.{field.name} is {field!r}: not for {getter}()")

    def _take(
        self,
        field: FieldSchema,
        getter: builtins.str,
        supported: Collection[builtins.str] | None = None,
        default: object = None,
    ) -> Entry | None:
        self._read.add(field.name)
        read = READS.setdefault(self.message_schema.full_name, {}).setdefault(field.name, Read())
        read.getters.add(getter)
        if supported is not None:
            read.supported.update(supported)
        if default is not None:
            read.defaults.add(default)
        return self._entries.get(field.name)

    def _again(self, name: builtins.str) -> Entry | None:
        """What ``_take`` returns, once another View of this message has been asked the same in the same way
        (``MessageSchema.asked``): all that it checks and records is known. Nearly all questions are such, and about
        fields that are not set."""
        entry = self._entries.get(name)
        if entry is not None:
            self._read.add(name)
        return entry

    def _scalar(
        self, name: builtins.str, getter: builtins.str, kinds: Collection[builtins.str], default: object = None
    ) -> Any:
        asked = (getter, name, default)
        if asked in self.message_schema.asked:
            entry = self._again(name)
            return None if entry is None else _wrapped(entry.value)
        field = self._field(name)
        self._expect(field, field.scalar in kinds and not field.repeated and field.shape != "map", getter)
        entry = self._take(field, getter, default=default)
        self.message_schema.asked.add(asked)
        return None if entry is None else _wrapped(entry.value)

    def _scalars(self, name: builtins.str, getter: builtins.str, kinds: Collection[builtins.str]) -> tuple[Any, ...]:
        asked = (getter, name)
        if asked in self.message_schema.asked:
            entry = self._again(name)
        else:
            field = self._field(name)
            self._expect(field, field.scalar in kinds and field.repeated, getter)
            entry = self._take(field, getter)
            self.message_schema.asked.add(asked)
        return () if entry is None else tuple(_wrapped(item) for item in entry.value.items)

    def _views(self, field: FieldSchema) -> list[View]:
        found = self._children.get(field.name)
        if found is None:
            node = self._entries[field.name].value
            path: Path = (self._path, field.name)
            inner = field
            if field.shape == "map":
                inner = field.map_value
                nodes: Iterable[tuple[Node, Path]] = [(each.value, (path, each.key)) for each in node.entries]
            elif field.repeated:
                nodes = [(item, (path, index)) for index, item in enumerate(node.items)]
            else:
                nodes = ((node, path),)
            if inner.shape == "any":
                found = [AnyView(each, at, self.problems) for each, at in nodes]
            else:
                message, problems = inner.message, self.problems
                found = [View(each, message, at, problems) for each, at in nodes]
            self._children[field.name] = found
        return found

    def _not_implemented(self, entry: Entry, field: FieldSchema) -> None:
        why = _door_within(entry.value, field, self.message_schema)
        self.problems.append(_unread_problem(entry, (self._path, field.name), why))

    def _unread(self, problems: list[Problem]) -> None:
        for name, entry in self._entries.items():
            field = self.message_schema.fields.get(name)
            if field is None:
                continue  # "@type", or an unknown field that validate has reported
            if name not in self._read:
                if not _is_unset(entry.value, field):
                    why = _door_within(entry.value, field, self.message_schema)
                    problems.append(_unread_problem(entry, (self._path, name), why))
                continue
            for child in self._children.get(name, ()):
                child._unread(problems)


class AnyView(View):
    """An Any, seen as the message in it: ``type_name`` is the payload's, and so are the fields.

    A Struct's or TypedStruct's content is in ``value``, as a dict, and there are no fields. There are none either when
    the schema does not know the type (validation has said so) and when the Any is empty: ``type_name`` is "" then.
    """

    __slots__ = ("_type_name", "type_url", "value")

    def __init__(self, node: Node, path: Path, problems: list[Problem]) -> None:
        url = node.get("@type")
        self.type_url: str = "" if url is None else str(url.value)
        self._type_name: str = registry.message_name(self.type_url) or ""
        self.value: dict[str, Any] = {}
        known = schema()
        payload = known.message(self._type_name) if known.is_message(self._type_name) else None
        if payload is not None and payload.shape == "message" and payload.full_name not in registry.TYPED_STRUCTS:
            super().__init__(node, payload, path, problems)
            return
        super().__init__(node, known.message("google.protobuf.Any"), path, problems)
        self._entries = {}
        inner = node.get("value")
        if payload is not None and inner is not None and inner.kind == "map":
            self.value = inner.to_python()

    @property
    def type_name(self) -> str:
        """The full name of the message in it, known or not; "" when it is empty."""
        return self._type_name

    @property
    def view(self) -> View | None:
        """This, when there are fields to read; None for a Struct, an empty Any and a type that the schema does not know."""
        return None if self.message_schema.full_name == "google.protobuf.Any" else self

    @property
    def opens_door(self) -> bool:
        """Whether leaving this extension out would let in what it keeps out; so for every type that is unknown here."""
        return self._why_door() != ""

    def unsupported(self, message: str = "", hint: str = "", *, field: str = "") -> None:
        """Report a field, or with no ``field`` the whole extension: then what is in it is not reported again."""
        if field:
            super().unsupported(message or "is not implemented", hint, field=field)
            return
        self.ignore_all(why="reported as a whole")
        url = self.node.entry("@type")
        mark = self.node.mark if url is None else url.value.mark
        text = message or f"{self._type_name or 'an extension without a type'} is not implemented"
        why = self._why_door()
        self.problems.append(
            Problem("unsupported", self.path, mark.line, mark.column, text, _door_hint(hint, why), why != "")
        )

    def _why_door(self) -> str:
        if self._type_name and self.message_schema.full_name != self._type_name:
            return "is of a type that forkproxy does not know"
        return door(self._type_name)

    def __repr__(self) -> str:
        return f"<AnyView {self._type_name or 'empty'} {self.path}>"


def unread(view: View) -> list[Problem]:
    """What was set in ``view`` and below, and never read: the tops of such subtrees, each "not implemented"."""
    problems: list[Problem] = []
    view._unread(problems)
    return problems


_last_list: list[tuple[Path, str]] = [(None, "")]
"""Of which list ``place`` was asked last, and its path: items are asked one after the other."""


def _content(node: Node) -> object:
    """What a node says, to be compared: what Python holds equal, as 1 and true, is of different types."""
    if node.kind == "scalar":
        value = node.value
        if isinstance(value, str):
            return value
        return (float, repr(value)) if isinstance(value, float) else (type(value), value)
    if node.kind == "seq":
        return list, *[_content(item) for item in node.items]
    said: list[object] = [dict]
    for entry in node.entries:
        said.append(entry.key)
        said.append(_content(entry.value))
    return tuple(said)


def _unread_problem(entry: Entry, path: Path, why: str) -> Problem:
    return Problem(
        "unsupported",
        path_text(path),
        entry.key_mark.line,
        entry.key_mark.column,
        "is not implemented",
        _door_hint("", why),
        why != "",
    )


def _door_hint(hint: str, why: str) -> str:
    if not why:
        return hint
    return f"{hint}; it {why}: {NOT_WAIVED}" if hint else f"it {why}: {NOT_WAIVED}"


def _wrapped(node: Node) -> Any:
    """A scalar's value, also out of a wrapper's long form ``{value: 5}``; a wrapper's absent value is None."""
    if node.kind == "map":
        inner = node.get("value")
        return None if inner is None else inner.value
    return node.value


def _is_unset(node: Node, field: FieldSchema) -> bool:
    """Set to what is the same as not set: a zero without presence, an empty list or map."""
    if field.repeated:
        return node.kind == "seq" and not node.items
    if field.shape == "map":
        return node.kind == "map" and not node.entries
    return not field.has_presence and _is_zero(node, field)


def _is_zero(node: Node, field: FieldSchema) -> bool:
    if node.kind != "scalar":
        return False
    if field.shape == "enum":
        return node.value == field.enum.names.get(0)
    return node.value in ("", 0, 0.0, False)


def _is_default(node: Node, field: FieldSchema) -> bool:
    if field.repeated or field.shape == "map":
        return _is_unset(node, field)
    if field.shape == "wrapper":
        return _wrapped(node) in ("", 0, 0.0, False)
    if field.shape == "duration":
        return duration_ns(node) == 0
    if field.type == "message":
        return node.kind == "map" and all(_entry_is_default(entry, field.message) for entry in node.entries)
    return _is_zero(node, field)


def _entry_is_default(entry: Entry, message: MessageSchema) -> bool:
    field = message.fields.get(entry.key)
    return field is not None and _is_default(entry.value, field)
