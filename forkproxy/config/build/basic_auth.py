"""``extensions.filters.http.basic_auth.v3``: users and the hashes of their passwords."""

from __future__ import annotations

from dataclasses import field

from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.tls import build_data_source
from forkproxy.config.values import frozen
from forkproxy.config.view import View

_HASH_LENGTH = 28


@frozen
class BasicAuthConfig:
    """``BasicAuth`` and, with users only, ``BasicAuthPerRoute``.

    ``users``: name → base64 of the password's SHA-1. The header names are lower-case; "" for none, and for ``authorization``.
    """

    users: dict[bytes, bytes] = field(repr=False)
    forward_username_header: str = ""
    authentication_header: str = ""


def build(view: View, context: BuildContext) -> BasicAuthConfig:
    """``BasicAuth``."""
    return BasicAuthConfig(
        users=build_users(view, context),
        forward_username_header=view.str("forward_username_header").lower(),
        authentication_header=view.str("authentication_header").lower(),
    )


def build_per_route(view: View, context: BuildContext) -> BasicAuthConfig:
    """``BasicAuthPerRoute``."""
    return BasicAuthConfig(build_users(view, context))


def build_users(view: View, context: BuildContext) -> dict[bytes, bytes]:
    """An htpasswd file whose passwords are hashed with SHA-1 ("htpasswd -s"), Envoy's only form."""
    source = view.message("users")
    if source is None:
        return {}
    users: dict[bytes, bytes] = {}
    for number, line in enumerate(build_data_source(source, context).data.split(b"\n"), 1):
        if not line or line.startswith(b"#"):
            continue
        name, colon, said = line.partition(b":")
        shown = name.decode("utf-8", "replace")
        wrong = ""
        if not colon:
            wrong = "invalid htpasswd format, username:password is expected"
        elif not name or not said:
            wrong = "empty user name or password"
        elif name in users:
            wrong = f"duplicate user '{shown}'"
        elif not said.startswith(b"{SHA}"):
            wrong = f"unsupported htpasswd format: please use {{SHA}} for '{shown}'"
        elif len(said) != len(b"{SHA}") + _HASH_LENGTH:
            wrong = f"invalid SHA hash length for '{shown}'"
        if wrong:
            view.report(f"basic auth: {wrong}", f"line {number} of the users", field="users")
            continue
        users[name] = said[len(b"{SHA}") :]
    return users
