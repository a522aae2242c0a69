"""Requests of a session go to the same endpoint: its address comes back in a cookie or a header (Envoy: "Stateful session").

    - name: envoy.filters.http.stateful_session
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.http.stateful_session.v3.StatefulSession
        session_state:
          name: envoy.http.stateful_session.cookie
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState
            cookie: {name: session, path: /, ttl: 600s}

The endpoint of the first answer is told to the client, and any worker, or another proxy, finds it in the next request: nothing is
kept here. An endpoint that is gone or may not be used is replaced, or with ``strict`` refused with 503.

A cookie's value is base64 of a message with the address (field 1) and, with a ``ttl``, when it expires, in seconds since 1970
(field 2); base64 of the address alone is understood, too. A header's value is base64 of the address.
"""

from __future__ import annotations

import binascii
import copy
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any, NamedTuple

from forkproxy.config.build.stateful_session import CookieState, HeaderState, StatefulSessionConfig
from forkproxy.filters.context import FilterContext
from forkproxy.http.filter import HookResult, HttpFilter
from forkproxy.http.headers import Headers
from forkproxy.http.headers import get as get_header
from forkproxy.http.stream import OVERRIDE_ENDPOINT, Stream
from forkproxy.net.loop import Loop
from forkproxy.router.table import Route
from forkproxy.stats.groups import StatefulSessionStats

ADDRESS_TAG = 0x0A  # field 1, bytes
EXPIRES_TAG = 0x10  # field 2, varint
MAX_VARINT_SHIFT = 63
"""A number has ten bytes at most; one of 60 KB from a client would take 0.1 s."""


class Settings(NamedTuple):
    """What holds on a route, and where it is counted: the filter's own when it has a ``stat_prefix``, a route's nowhere."""

    state: CookieState | HeaderState | None
    strict: bool
    stats: StatefulSessionStats | None


class StatefulSession(HttpFilter):
    """See the module's text. ``filter_state`` of a stream: (what holds for it, the address that came or "")."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self.settings = settings
        self.loop: Loop = None  # type: ignore[assignment]  # set by start(), in the worker
        self._overridden: dict[Route, Route] = {}

    @classmethod
    def from_config(cls, config: StatefulSessionConfig, context: FilterContext) -> StatefulSession:
        """Counts under the connection manager's prefix."""
        prefix = f"{context.stat_prefix}.stateful_session.{config.stat_prefix}"
        stats = context.registry.group(StatefulSessionStats, prefix) if config.stat_prefix else None
        return cls(context.name, Settings(config.state, config.strict, stats))

    def route_config(self, configs: Sequence[Any], route: Route) -> Settings:
        """The most specific one, or the filter's own."""
        own = next((each for each in configs if isinstance(each, StatefulSessionConfig)), None)
        return self.settings if own is None else Settings(own.state, own.strict, None)

    def start(self, worker: Any) -> None:
        """Keep the loop for its clock."""
        self.loop = worker.loop

    def decode_headers(self, stream: Stream, headers: Headers, end_stream: bool) -> HookResult:
        """Have the router choose the endpoint that the request names."""
        route = stream.route
        if route is None or route.kind:
            return None
        settings: Settings = route.per_filter_config.get(self.name, self.settings)
        state = settings.state
        if state is None:
            return None
        if isinstance(state, CookieState) and not path_matches(state.path, stream.path):
            if settings.stats is not None:
                settings.stats.no_session += 1
            return None
        address = self._address(state, headers)
        stream.filter_state[self] = settings, address
        if address:
            stream.filter_state[OVERRIDE_ENDPOINT] = address, settings.strict
            stream.route = self._overridden.get(route) or self._override(route)
        return None

    def _override(self, route: Route) -> Route:
        # A route that is plain does not ask whether a request wants an endpoint of its own.
        made = copy.copy(route)
        made.is_plain = False
        self._overridden[route] = made
        return made

    def _address(self, state: CookieState | HeaderState, headers: Headers) -> str:
        if isinstance(state, HeaderState):
            value = get_header(headers, state.name.encode())
            return _decoded(value).decode("latin-1") if value else ""
        for name, value in headers:
            if name == b"cookie":
                found = cookie_value(value, state.name.encode())
                if found is not None:
                    return session_address(_decoded(found), self.loop.wall())
        return ""

    def encode_headers(self, stream: Stream, headers: Headers, end_stream: bool) -> HookResult:
        """Tell the client whose answer this is, when it is not the endpoint that it named."""
        session = stream.filter_state.get(self)
        if session is None:
            return None
        (state, strict, stats), wanted = session
        endpoint = stream.endpoint
        if endpoint is None:
            if stats is not None and strict and wanted:
                stats.failed_closed += 1
            return None
        if endpoint.address == wanted:
            if stats is not None:
                stats.routed += 1
            return None
        if stats is not None and not strict:
            stats.failed_open += 1
        if isinstance(state, HeaderState):
            headers.append((state.name.encode(), b64encode(endpoint.address.encode())))
        else:
            headers.append((b"set-cookie", self._set_cookie(state, endpoint.address)))
        return None

    def _set_cookie(self, state: CookieState, address: str) -> bytes:
        expires = int(self.loop.wall()) + state.ttl_s if state.ttl_s else 0
        parts = [f'{state.name}="{b64encode(session_message(address, expires)).decode()}"']
        if state.ttl_s:
            parts.append(f"Max-Age={state.ttl_s}")
        if state.path:
            parts.append(f"Path={state.path}")
        parts += [f"{name}={value}" if value else name for name, value in state.attributes]
        return "; ".join([*parts, "HttpOnly"]).encode()


def path_matches(cookie_path: str, target: bytes) -> bool:
    """Whether a cookie of this path belongs to a request (RFC 6265 section 5.1.4)."""
    wanted = cookie_path.encode()
    path = target.partition(b"?")[0]
    if not wanted or wanted == b"/" or path == wanted:
        return True
    return path.startswith(wanted) and (wanted.endswith(b"/") or path[len(wanted)] == 0x2F)


def cookie_value(header: bytes, name: bytes) -> bytes | None:
    """The value of a cookie in a ``cookie`` header, without quotes; None when it is not there (RFC 6265 section 5.4)."""
    for pair in header.split(b";"):
        key, equals, value = pair.strip().partition(b"=")
        if equals and key == name:
            return value[1:-1] if len(value) >= 2 and value[0] == value[-1] == 0x22 else value
    return None


def _decoded(value: bytes) -> bytes:
    try:
        return b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return b""


def session_message(address: str, expires: int) -> bytes:
    """What a cookie holds; ``expires`` 0: never."""
    text = address.encode()
    message = bytes((ADDRESS_TAG,)) + _varint(len(text)) + text
    return message + bytes((EXPIRES_TAG,)) + _varint(expires) if expires else message


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def session_address(data: bytes, now: float) -> str:
    """The address in a cookie; "" when it has expired or makes no sense. One that is no message is the address itself."""
    if not data.startswith(bytes((ADDRESS_TAG,))):
        return data.decode("latin-1")
    address, expires = b"", 0
    at = 0
    try:
        while at < len(data):
            tag = data[at]
            value, at = _read_varint(data, at + 1)
            if tag == ADDRESS_TAG:
                address, at = data[at : at + value], at + value
            elif tag == EXPIRES_TAG:
                expires = value
            else:
                return ""
    except IndexError:
        return ""
    return "" if expires and expires < now else address.decode("latin-1")


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if shift > MAX_VARINT_SHIFT:
            raise IndexError
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
