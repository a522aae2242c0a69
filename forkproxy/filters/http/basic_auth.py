"""Lets in who knows a password (HTTP Basic authentication, RFC 7617); everybody else is answered with 401.

    - name: envoy.filters.http.basic_auth
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.http.basic_auth.v3.BasicAuth
        users: {filename: /etc/forkproxy/htpasswd}

The users stand in an htpasswd file with SHA-1 hashes, as Envoy wants them (``htpasswd -s``). A route's ``BasicAuthPerRoute`` has
other users. Over a connection without TLS everybody on the way can read the password.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any, Final

from forkproxy.config.build.basic_auth import BasicAuthConfig
from forkproxy.filters.context import FilterContext
from forkproxy.http.filter import STOP_ITERATION, HookResult, HttpFilter
from forkproxy.http.headers import Headers, get_all
from forkproxy.http.headers import get as get_header
from forkproxy.http.headers import remove as remove_header
from forkproxy.http.headers import set_ as set_header
from forkproxy.http.stream import Stream
from forkproxy.router.table import Route
from forkproxy.stats.group import Counter, StatGroup

MAX_REALM_PATH_BYTES: Final = 256
Users = dict[bytes, bytes]


class BasicAuthStats(StatGroup):
    """``http.<stat_prefix>.basic_auth``."""

    allowed: Counter
    denied: Counter


class BasicAuth(HttpFilter):
    """See the module's text."""

    def __init__(self, name: str, config: BasicAuthConfig, stats: BasicAuthStats) -> None:
        self.name = name
        self.users = config.users
        self.header = config.authentication_header.encode() or b"authorization"
        self.forward = config.forward_username_header.encode()
        self.stats = stats

    @classmethod
    def from_config(cls, config: BasicAuthConfig, context: FilterContext) -> BasicAuth:
        """Counts under the connection manager's prefix."""
        stats = context.registry.group(BasicAuthStats, f"{context.stat_prefix}.basic_auth")
        return cls(context.name, config, stats)

    def route_config(self, configs: Sequence[Any], route: Route) -> Users | None:
        """The users of the most specific level."""
        return next((config.users for config in configs if isinstance(config, BasicAuthConfig)), None)

    def decode_headers(self, stream: Stream, headers: Headers, end_stream: bool) -> HookResult:
        """Ask who it is."""
        route = stream.route
        users: Users = self.users if route is None else route.per_filter_config.get(self.name, self.users)
        value = get_header(headers, self.header)
        if value is not None and self.header == b"authorization":
            value = b",".join(get_all(headers, self.header))  # as in Envoy, several lines of it are one
        if value is None:
            return self._deny(stream, b"Missing username and password.", "no_credential_for_basic_auth")
        if not value.startswith(b"Basic "):
            return self._deny(stream, b"Expected 'Basic' authentication scheme.", "invalid_scheme_for_basic_auth")
        name, colon, password = decoded(value[6:]).partition(b":")
        if not colon:
            return self._deny(stream, b"Invalid basic credential format.", "invalid_format_for_basic_auth")
        if not knows(users, name, password):
            return self._deny(stream, b"Invalid username/password combination.", "invalid_credential_for_basic_auth")
        if self.forward:
            remove_header(headers, self.forward)
            headers.append((self.forward, name))
        self.stats.allowed += 1
        return None

    def _deny(self, stream: Stream, why: bytes, details: str) -> HookResult:
        self.stats.denied += 1
        path = get_header(stream.request_headers, b"x-envoy-original-path") or stream.path
        realm = b"%b://%b%b" % (stream.scheme, stream.authority, path[:MAX_REALM_PATH_BYTES])

        def challenge(_stream: Stream, answer: Headers) -> None:
            set_header(answer, b"www-authenticate", b'Basic realm="' + realm + b'"')

        body = b"User authentication failed. " + why
        stream.send_local_reply(401, body, details=details, finalize=challenge)
        return STOP_ITERATION


def decoded(token: bytes) -> bytes:
    """Base64, with its padding or without; b"" when it is none."""
    token = token.removesuffix(b"=").removesuffix(b"=")
    if token.endswith(b"="):
        return b""
    try:
        return b64decode(token + b"=" * (-len(token) % 4), validate=True)
    except (binascii.Error, ValueError):
        return b""


def knows(users: Users, name: bytes, password: bytes) -> bool:
    """Whether this is the user's password. It takes the same time whichever byte of the hash is wrong."""
    wanted = users.get(name)
    if wanted is None:
        return False
    found = b64encode(hashlib.sha1(password, usedforsecurity=False).digest())
    return hmac.compare_digest(found, wanted)
