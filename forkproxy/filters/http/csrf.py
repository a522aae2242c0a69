"""Refuses forged requests: what may change something must come from a page of the same host (Envoy: "CSRF").

    - name: envoy.filters.http.csrf
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.http.csrf.v3.CsrfPolicy
        filter_enabled: {default_value: {numerator: 100}}
        additional_origins: [{suffix: .example.org}]

POST, PUT, DELETE and PATCH are looked at. Host and port of ``origin``, or where that is empty of ``referer``, must be those of
the request's host, as they are written, or match one of ``additional_origins``. A route's policy takes the place of the filter's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from forkproxy.config.build.csrf import CsrfPolicy
from forkproxy.filters.context import FilterContext
from forkproxy.http.filter import STOP_ITERATION, HookResult, HttpFilter
from forkproxy.http.headers import Headers, get_all
from forkproxy.http.stream import Stream
from forkproxy.router.matcher import compile_fraction, compile_string
from forkproxy.router.table import Route
from forkproxy.stats.group import Counter, StatGroup

_CHANGING: Final = frozenset((b"POST", b"PUT", b"DELETE", b"PATCH"))
_URL: Final = re.compile(
    rb"[A-Za-z]+://(?:[^/?#@\s\\]*@)?((?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?)(?:[/?]\S*)?"
)


class CsrfStats(StatGroup):
    """``http.<stat_prefix>.csrf``."""

    missing_source_origin: Counter
    request_invalid: Counter
    request_valid: Counter


class Policy:
    """What holds on a route. ``enabled`` and ``shadow`` None: always; ``shadow`` False: never."""

    __slots__ = ("enabled", "others", "shadow")

    def __init__(self, config: CsrfPolicy) -> None:
        self.enabled = compile_fraction(config.filter_enabled)
        shadow = config.shadow_enabled
        self.shadow = shadow is not None and compile_fraction(shadow)
        self.others = tuple(compile_string(each, config.where) for each in config.additional_origins)


class Csrf(HttpFilter):
    """See the module's text."""

    def __init__(self, name: str, policy: Policy, stats: CsrfStats) -> None:
        self.name = name
        self.policy = policy
        self.stats = stats
        self._of_routes: dict[int, Policy] = {}

    @classmethod
    def from_config(cls, config: CsrfPolicy, context: FilterContext) -> Csrf:
        """Counts under the connection manager's prefix. ConfigError for a regular expression that is wrong."""
        return cls(context.name, Policy(config), context.registry.group(CsrfStats, f"{context.stat_prefix}.csrf"))

    def route_config(self, configs: Sequence[Any], route: Route) -> Policy | None:
        """The most specific policy; routes with the same one share it."""
        found = next((config for config in configs if isinstance(config, CsrfPolicy)), None)
        if found is None:
            return None
        if id(found) not in self._of_routes:
            self._of_routes[id(found)] = Policy(found)
        return self._of_routes[id(found)]

    def decode_headers(self, stream: Stream, headers: Headers, end_stream: bool) -> HookResult:
        """Look where the request comes from."""
        if stream.method not in _CHANGING:
            return None
        route = stream.route
        policy: Policy = self.policy if route is None else route.per_filter_config.get(self.name, self.policy)
        enabled = policy.enabled is None or policy.enabled(stream)
        if not enabled and (policy.shadow is False or not (policy.shadow is None or policy.shadow(stream))):
            return None
        source = source_of(headers)
        if not source:
            self.stats.missing_source_origin += 1
        elif source == host_and_port(stream.authority) or any(matches(source) for matches in policy.others):
            self.stats.request_valid += 1
            return None
        else:
            self.stats.request_invalid += 1
        if not enabled:
            return None
        stream.send_local_reply(403, b"Invalid origin", details="csrf_origin_mismatch")
        return STOP_ITERATION


def source_of(headers: Headers) -> bytes:
    """Host and port of the page that the request comes from; b"" when that is not told."""
    origin = b",".join(get_all(headers, b"origin"))
    if origin:
        return b"" if origin == b"null" else host_and_port(origin)
    referer = b",".join(get_all(headers, b"referer"))
    if b"#" in referer or b"@" in referer.partition(b"://")[2].partition(b"/")[0].partition(b"?")[0]:
        return b""  # no browser sends a fragment or a user's name (RFC 9110 section 10.1.3), and Envoy believes no such line
    return host_and_port(referer)


def host_and_port(value: bytes) -> bytes:
    """Of a URL, as they are written; what is no URL stays as it is."""
    url = _URL.fullmatch(value)
    return url[1] if url is not None and int(url[2] or 0) < 65536 else value
