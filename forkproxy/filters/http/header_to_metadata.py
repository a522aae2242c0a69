"""Copies headers and cookies into dynamic metadata, for rbac, subset load balancing and access logs.

    - name: envoy.filters.http.header_to_metadata
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.http.header_to_metadata.v3.Config
        request_rules:
        - header: x-version
          on_header_present: {metadata_namespace: envoy.lb, key: version}
          on_header_missing: {metadata_namespace: envoy.lb, key: default, value: "true"}

A route's ``Config`` takes the place of the filter's. Of a header with several lines the value is all of them, with commas. A
value of 8 KiB or more is not taken. With a ``stat_prefix`` the rules are counted under ``http_filter_name.<stat_prefix>``.
"""

from __future__ import annotations

import binascii
import math
import re
from base64 import b64decode
from collections.abc import Callable, Sequence
from typing import Any, Final

from forkproxy.config.build.header_to_metadata import HeaderToMetadataConfig, Rule, Target
from forkproxy.filters.context import FilterContext
from forkproxy.http.filter import HookResult, HttpFilter
from forkproxy.http.headers import Headers, get_all
from forkproxy.http.headers import remove as remove_header
from forkproxy.http.stream import Stream
from forkproxy.router.hash_policy import cookie_value
from forkproxy.router.matcher import compile_substitution
from forkproxy.router.rewrite import request_header
from forkproxy.router.table import Route
from forkproxy.stats.counters import Registry
from forkproxy.stats.group import Counter, StatGroup

NAMESPACE: Final = "envoy.filters.http.header_to_metadata"
MAX_VALUE_BYTES: Final = 8 * 1024
_DECIMAL: Final = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_HEXADECIMAL: Final = re.compile(rb"[+-]?0[xX][0-9a-fA-F]+")

Read = Callable[[Stream, Headers], "bytes | None"]


class HeaderToMetadataStats(StatGroup):
    """``http_filter_name.<stat_prefix>``."""

    base64_decode_failed: Counter
    header_value_too_long: Counter
    regex_substitution_failed: Counter
    request_header_not_found: Counter
    request_metadata_added: Counter
    request_rules_processed: Counter
    response_header_not_found: Counter
    response_metadata_added: Counter
    response_rules_processed: Counter


class Rules:
    """A configuration, compiled."""

    __slots__ = ("request", "response", "stats")

    def __init__(self, config: HeaderToMetadataConfig, registry: Registry) -> None:
        prefix = f"http_filter_name.{config.stat_prefix}"
        # Without a prefix the rules count on figures that nobody shows.
        self.stats = registry.group(HeaderToMetadataStats, prefix) if config.stat_prefix else HeaderToMetadataStats()
        self.request = tuple(CompiledRule(rule, self.stats, False) for rule in config.request_rules)
        self.response = tuple(CompiledRule(rule, self.stats, True) for rule in config.response_rules)


class CompiledRule:
    """One rule. ConfigError for a regular expression that is wrong."""

    __slots__ = ("missing", "present", "read", "remove", "stats", "substitute")

    def __init__(self, rule: Rule, stats: HeaderToMetadataStats, of_response: bool) -> None:
        self.stats = stats
        self.read = _reader(rule, of_response)
        self.remove = rule.header.encode() if rule.remove else b""
        self.present = rule.present
        self.missing = rule.missing
        present = rule.present
        self.substitute: Callable[[bytes], bytes] | None = None
        if present is not None and present.regex:
            self.substitute = compile_substitution(present.regex, present.substitution, rule.where)

    def apply(self, stream: Stream, headers: Headers, found: dict[str, dict[str, Any]]) -> tuple[bool, bool]:
        """Put what the rule says into ``found``. Returns whether it spoke of a missing header, and whether something was put."""
        value = self.read(stream, headers)
        is_missing = value is None
        if value is None:
            target = self.missing
        else:
            target = self.present
            if self.remove:
                remove_header(headers, self.remove)
        if target is None:
            return False, False
        if target.value:
            value = target.value.encode()
        elif self.substitute is not None and value:
            value = self.substitute(value)
            if not value:
                self.stats.regex_substitution_failed += 1
        return is_missing, bool(value) and self._put(target, value or b"", found)

    def _put(self, target: Target, value: bytes, found: dict[str, dict[str, Any]]) -> bool:
        if len(value) >= MAX_VALUE_BYTES:
            self.stats.header_value_too_long += 1
            return False
        if target.is_base64:
            value = _decoded(value)
            if not value:
                self.stats.base64_decode_failed += 1
                return False
        made = number_of(value) if target.is_number else value.decode("utf-8", "replace")
        if made is None:
            return False
        found.setdefault(target.namespace or NAMESPACE, {})[target.key] = made
        return True


class HeaderToMetadata(HttpFilter):
    """See the module's text."""

    def __init__(self, name: str, config: HeaderToMetadataConfig, registry: Registry) -> None:
        self.name = name
        self.registry = registry
        self.rules = Rules(config, registry)
        self._of_routes: dict[int, Rules] = {}

    @classmethod
    def from_config(cls, config: HeaderToMetadataConfig, context: FilterContext) -> HeaderToMetadata:
        """Compile the rules."""
        return cls(context.name, config, context.registry)

    def route_config(self, configs: Sequence[Any], route: Route) -> Rules | None:
        """The most specific configuration; routes with the same one share it."""
        found = next((config for config in configs if isinstance(config, HeaderToMetadataConfig)), None)
        if found is None:
            return None
        if id(found) not in self._of_routes:
            self._of_routes[id(found)] = Rules(found, self.registry)
        return self._of_routes[id(found)]

    def decode_headers(self, stream: Stream, headers: Headers, end_stream: bool) -> HookResult:
        """Look at the request."""
        rules = self._rules(stream)
        if rules.request:
            stats = rules.stats
            found: dict[str, dict[str, Any]] = {}
            for rule in rules.request:
                missing, put = rule.apply(stream, headers, found)
                stats.request_rules_processed += 1
                stats.request_header_not_found += missing
                stats.request_metadata_added += put
            _keep(stream, found)
        return None

    def encode_headers(self, stream: Stream, headers: Headers, end_stream: bool) -> HookResult:
        """Look at the response."""
        rules = self._rules(stream)
        if rules.response:
            stats = rules.stats
            found: dict[str, dict[str, Any]] = {}
            for rule in rules.response:
                missing, put = rule.apply(stream, headers, found)
                stats.response_rules_processed += 1
                stats.response_header_not_found += missing
                stats.response_metadata_added += put
            _keep(stream, found)
        return None

    def _rules(self, stream: Stream) -> Rules:
        route = stream.route
        found: Rules = self.rules if route is None else route.per_filter_config.get(self.name, self.rules)
        return found


def _keep(stream: Stream, found: dict[str, dict[str, Any]]) -> None:
    for namespace, values in found.items():
        stream.dynamic_metadata.setdefault(namespace, {}).update(values)


def _reader(rule: Rule, of_response: bool) -> Read:
    if rule.cookie:
        cookie = rule.cookie.encode()
        return lambda stream, headers: cookie_value(stream, cookie) or None
    name = rule.header.encode()
    if of_response and name == b":status":
        return lambda stream, headers: b"%d" % stream.status
    if not of_response and (name.startswith(b":") or name == b"host"):
        return lambda stream, headers: request_header(stream, name) or None

    def read(stream: Stream, headers: Headers) -> bytes | None:
        values = get_all(headers, name)
        return b",".join(values) if values else None

    return read


def _decoded(token: bytes) -> bytes:
    token = token.removesuffix(b"=").removesuffix(b"=")
    try:
        return b"" if token.endswith(b"=") else b64decode(token + b"=" * (-len(token) % 4), validate=True)
    except (binascii.Error, ValueError):
        return b""


def number_of(value: bytes) -> int | float | None:
    """A number in decimal or hexadecimal notation; a whole one as int. None when it is none, or too large for a double."""
    value = value.strip()
    if _HEXADECIMAL.fullmatch(value):
        number = float.fromhex(value.decode())
    elif _DECIMAL.fullmatch(value):
        number = float(value)
    else:
        return None
    if math.isinf(number):
        return None
    return int(number) if number.is_integer() else number
