"""``extensions.filters.http.stateful_session.v3``: where a session's endpoint is kept, in a cookie or in a header."""

from __future__ import annotations

from forkproxy.config.build.context import BuildContext
from forkproxy.config.values import frozen
from forkproxy.config.view import View


@frozen
class CookieState:
    """``CookieBasedSessionState``. ``ttl_s`` 0: a session cookie; ``attributes``: further (name, value) pairs."""

    name: str
    path: str = ""
    ttl_s: int = 0
    attributes: tuple[tuple[str, str], ...] = ()


@frozen
class HeaderState:
    """``HeaderBasedSessionState``; ``name`` lower-case."""

    name: str


@frozen
class StatefulSessionConfig:
    """``StatefulSession``. ``state`` None: the filter does nothing. ``strict``: only the session's endpoint will do."""

    state: CookieState | HeaderState | None = None
    strict: bool = False
    stat_prefix: str = ""


def build(view: View, context: BuildContext) -> StatefulSessionConfig:
    """``StatefulSession``."""
    state = view.message("session_state")
    made = context.extension(state, "session state") if state is not None else None
    return StatefulSessionConfig(
        state=made.value if made is not None else None,
        strict=view.bool("strict"),
        stat_prefix=view.str("stat_prefix"),
    )


def build_per_route(view: View, context: BuildContext) -> StatefulSessionConfig:
    """``StatefulSessionPerRoute``; switched off, it is a configuration without a state."""
    if view.bool("disabled"):
        return StatefulSessionConfig()
    inner = view.message("stateful_session")
    if inner is None:
        return StatefulSessionConfig()
    inner.ignore("stat_prefix", why="only the filter's own counts, as in Envoy")
    return build(inner, context)


def build_cookie(view: View, context: BuildContext) -> CookieState:
    """``CookieBasedSessionState``."""
    cookie = view.require("cookie")
    attributes = tuple((each.str("name"), each.str("value")) for each in cookie.repeated("attributes"))
    return CookieState(cookie.str("name"), cookie.str("path"), int(cookie.duration_s("ttl", 0.0)), attributes)


def build_header(view: View, context: BuildContext) -> HeaderState:
    """``HeaderBasedSessionState``."""
    return HeaderState(view.str("name").lower())
