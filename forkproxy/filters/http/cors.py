"""Cross-origin resource sharing: answers preflights, and tells browsers on responses which origins may read them.

    - name: envoy.filters.http.cors
      typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}

The policies stand on routes: in ``typed_per_filter_config``, else in the deprecated ``cors`` of route and virtual host. Of
several levels each setting is taken from the most specific one that has it. An origin is allowed by a matcher that matches it
or the text ``*``: with ``{prefix: "*"}`` in a file that is what lets every origin in. As in Envoy, redirects and direct
responses have no policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from forkproxy.config.build.core import FractionalPercent
from forkproxy.config.build.cors import CorsConfig, CorsPolicy
from forkproxy.config.build.route import ForwardAction
from forkproxy.filters.context import FilterContext
from forkproxy.http.filter import STOP_ITERATION, HookResult, HttpFilter
from forkproxy.http.headers import Headers, get_all
from forkproxy.http.headers import get as get_header
from forkproxy.http.headers import set_ as set_header
from forkproxy.http.stream import Stream
from forkproxy.router.matcher import StreamTest, compile_fraction, compile_string
from forkproxy.router.table import Route
from forkproxy.stats.group import Counter, StatGroup

_ALLOW_ORIGIN = b"access-control-allow-origin"


class CorsStats(StatGroup):
    """``http.<stat_prefix>.cors``: requests with an origin, where a policy looks at it."""

    origin_invalid: Counter
    origin_valid: Counter


class Policy:
    """What one route asks for. ``enabled`` None: always; ``shadow`` False: never only looked at."""

    __slots__ = ("enabled", "forward_preflights", "on_preflight", "on_response", "origins", "private_network", "shadow")

    def __init__(self, levels: Sequence[CorsPolicy]) -> None:
        origins = _first(level.allow_origins for level in levels) or ()
        tests = [compile_string(origin, levels[0].where) for origin in origins]
        # A matcher that takes "*" takes every origin.
        self.origins: tuple[Callable[[bytes], bool], ...] | None = tuple(tests)
        if any(test(b"*") for test in tests):
            self.origins = None
        self.enabled = _share(levels[0].filter_enabled)
        self.shadow = levels[0].shadow_enabled is not None and _share(levels[0].shadow_enabled)
        forward = _first_said(level.forward_not_matching_preflights for level in levels)
        self.forward_preflights = forward is None or forward
        self.private_network = bool(_first_said(level.allow_private_network_access for level in levels))
        credentials: Headers = []
        if _first_said(level.allow_credentials for level in levels):
            credentials.append((b"access-control-allow-credentials", b"true"))
        methods = _header(b"access-control-allow-methods", (level.allow_methods for level in levels))
        headers = _header(b"access-control-allow-headers", (level.allow_headers for level in levels))
        exposed = _header(b"access-control-expose-headers", (level.expose_headers for level in levels))
        max_age = _header(b"access-control-max-age", (level.max_age for level in levels))
        self.on_preflight = [*credentials, *methods, *headers, *max_age]
        self.on_response = [*credentials, *exposed]

    def allows(self, origin: bytes) -> bool:
        """May this origin read the response?"""
        return self.origins is None or any(test(origin) for test in self.origins)


def _first(values: Iterable[Any]) -> Any:
    return next((value for value in values if value), None)


def _first_said(values: Iterable[bool | None]) -> bool | None:
    return next((value for value in values if value is not None), None)


def _header(name: bytes, values: Iterable[str]) -> Headers:
    value = _first(values)
    return [(name, value.encode())] if value else []


def _share(fraction: FractionalPercent | None) -> StreamTest | None:
    return None if fraction is None else compile_fraction(fraction)


class Cors(HttpFilter):
    """See the module's text."""

    def __init__(self, name: str, stats: CorsStats) -> None:
        self.name = name
        self.stats = stats
        self._policies: dict[tuple[int, ...], Policy] = {}

    @classmethod
    def from_config(cls, config: CorsConfig, context: FilterContext) -> Cors:
        """Counts under ``http.<stat_prefix>.cors``."""
        return cls(context.name, context.registry.group(CorsStats, f"{context.stat_prefix}.cors"))

    def route_config(self, configs: Sequence[Any], route: Route) -> Policy | None:
        """The policies of a route as one; routes with the same policies share it."""
        action = route.config.action if route.config is not None else None
        if not isinstance(action, ForwardAction):
            return None
        levels = [config for config in configs if isinstance(config, CorsPolicy)]
        if not levels:
            levels = [level for level in (action.cors, route.virtual_host.config.cors) if level is not None]
        if not levels:
            return None
        key = tuple(map(id, levels))
        if key not in self._policies:
            self._policies[key] = Policy(levels)
        return self._policies[key]

    def decode_headers(self, stream: Stream, headers: Headers, end_stream: bool) -> HookResult:
        """Look at the origin; answer a preflight."""
        route = stream.route
        policy: Policy | None = None if route is None else route.per_filter_config.get(self.name)
        if policy is None:
            return None
        origin = b",".join(get_all(headers, b"origin"))
        if not origin:
            return None
        enabled = policy.enabled is None or policy.enabled(stream)
        if not enabled and (policy.shadow is False or not (policy.shadow is None or policy.shadow(stream))):
            return None
        allowed = policy.allows(origin)
        if allowed:
            self.stats.origin_valid += 1
        else:
            self.stats.origin_invalid += 1
        if not enabled:
            return None
        if allowed:
            stream.filter_state[self] = origin
        if stream.method != b"OPTIONS" or not get_header(headers, b"access-control-request-method"):
            return None
        if not allowed and policy.forward_preflights:
            return None
        # Without its first line the answer allows nothing, whatever else is in it.
        answer: Headers = [(_ALLOW_ORIGIN, origin)] if allowed else []
        answer += policy.on_preflight
        if policy.private_network and get_header(headers, b"access-control-request-private-network") == b"true":
            answer.append((b"access-control-allow-private-network", b"true"))
        stream.details = "cors_response"
        stream.encode_headers(200, answer, True)
        return STOP_ITERATION

    def encode_headers(self, stream: Stream, headers: Headers, end_stream: bool) -> HookResult:
        """Tell the browser of an allowed origin that it may read this."""
        route = stream.route
        policy: Policy | None = None if route is None else route.per_filter_config.get(self.name)
        if policy is None:
            return None
        origin = stream.filter_state.get(self)
        if origin is not None:
            set_header(headers, _ALLOW_ORIGIN, origin)
            for name, value in policy.on_response:
                set_header(headers, name, value)
        return None
