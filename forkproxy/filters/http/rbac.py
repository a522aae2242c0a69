"""Role based access control: lets a request in or refuses it with 403, by rules over the request and its connection.

    - name: envoy.filters.http.rbac
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
        rules:
          action: ALLOW
          policies:
            readers:
              permissions: [{header: {name: ":method", string_match: {exact: GET}}}]
              principals: [{remote_ip: {address_prefix: 10.0.0.0, prefix_len: 8}}]

Policies are asked in the order of their names. ``shadow_rules`` are asked too and only counted. What both said is in the dynamic
metadata ``envoy.filters.http.rbac``. A route's ``RBACPerRoute`` takes the place of the whole configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from forkproxy.access_log.tls_operators import verified_subject
from forkproxy.config.build.core import StringMatcher, Where
from forkproxy.config.build.rbac import RbacConfig, RbacRules, Rule, UpstreamAddress
from forkproxy.filters.context import FilterContext
from forkproxy.http.filter import STOP_ITERATION, HookResult, HttpFilter
from forkproxy.http.headers import Headers
from forkproxy.http.stream import Stream
from forkproxy.net.tls_context import san_test
from forkproxy.router.conditions import compile_filter_state
from forkproxy.router.filter_state import UPSTREAM_ADDRESS, filter_state_text
from forkproxy.router.matcher import StreamTest, compile_header_matcher, compile_regex, compile_string
from forkproxy.router.metadata import compile_metadata
from forkproxy.router.ranges import client_ip, compile_range
from forkproxy.router.table import Route
from forkproxy.stats.counters import Registry
from forkproxy.stats.group import Counter, StatGroup

METADATA: Final = "envoy.filters.http.rbac"
_BLANKS: Final = str.maketrans(dict.fromkeys(" \t\n\v\f\r", "_"))


class RbacStats(StatGroup):
    """``http.<stat_prefix>.rbac[.<rules_stat_prefix>]``, and the same of each policy with ``policy.<name>`` behind it."""

    allowed: Counter
    denied: Counter


class RbacShadowStats(StatGroup):
    """``http.<stat_prefix>.rbac[.<shadow_rules_stat_prefix>]``, and the same of each policy, as above."""

    shadow_allowed: Counter
    shadow_denied: Counter


class Engine:
    """Rules, compiled. ``policy_stats``: by the policy's name, where they are counted one by one."""

    __slots__ = ("action", "metadata_prefix", "policies", "policy_stats")

    def __init__(self, rules: RbacRules, metadata_prefix: str, policy_stats: dict[str, Any]) -> None:
        self.action = rules.action
        self.metadata_prefix = metadata_prefix
        self.policy_stats = policy_stats
        self.policies = tuple(
            (policy.name, any_of(policy.permissions), any_of(policy.principals)) for policy in rules.policies
        )

    def matched(self, stream: Stream) -> str | None:
        """The first policy that speaks of this request; None when there is none."""
        for name, may, is_one in self.policies:
            if may(stream) and is_one(stream):
                return name
        return None

    def allows(self, matched: str | None) -> bool:
        """What follows from it."""
        return self.action == "LOG" or (matched is not None) == (self.action == "ALLOW")


Engines = tuple[Engine | None, Engine | None]
"""The rules that are enforced and those in the shadow."""


class Rbac(HttpFilter):
    """See the module's text."""

    def __init__(self, name: str, registry: Registry, prefix: str, config: RbacConfig) -> None:
        self.name = name
        self.registry = registry
        self.config = config
        self.prefix = f"{prefix}.{_joined(config.rules_stat_prefix)}"
        self.shadow_prefix = f"{prefix}.{_joined(config.shadow_rules_stat_prefix)}"
        self.stats = registry.group(RbacStats, self.prefix.removesuffix("."))
        self.shadow_stats = registry.group(RbacShadowStats, self.shadow_prefix.removesuffix("."))
        self.own = self._engines(config)
        self._of_routes: dict[int, Engines] = {}

    @classmethod
    def from_config(cls, config: RbacConfig, context: FilterContext) -> Rbac:
        """Counts under ``http.<stat_prefix>.rbac``. ConfigError for a regular expression that is wrong."""
        return cls(context.name, context.registry, f"{context.stat_prefix}.rbac", config)

    def route_config(self, configs: Sequence[Any], route: Route) -> Engines | None:
        """The most specific configuration; routes with the same one share it. It counts where the filter's own does."""
        found = next((config for config in configs if isinstance(config, RbacConfig)), None)
        if found is None:
            return None
        if id(found) not in self._of_routes:
            self._of_routes[id(found)] = self._engines(found)
        return self._of_routes[id(found)]

    def _engines(self, config: RbacConfig) -> Engines:
        # Every configuration counts under the filter's own prefixes; what it says in metadata has its own ones if it has any.
        track = config.track_per_rule_stats
        enforced = shadow = None
        if config.rules is not None:
            own = self._each(RbacStats, self.prefix, config.rules, track)
            enforced = Engine(config.rules, config.rules_stat_prefix or self.config.rules_stat_prefix, own)
        if config.shadow_rules is not None:
            own = self._each(RbacShadowStats, self.shadow_prefix, config.shadow_rules, track)
            said = config.shadow_rules_stat_prefix or self.config.shadow_rules_stat_prefix
            shadow = Engine(config.shadow_rules, said, own)
        return enforced, shadow

    def _each(self, cls: type[StatGroup], prefix: str, rules: RbacRules, track: bool) -> dict[str, Any]:
        if not track:
            return {}
        return {each.name: self.registry.group(cls, f"{prefix}policy.{each.name}") for each in rules.policies}

    def decode_headers(self, stream: Stream, headers: Headers, end_stream: bool) -> HookResult:
        """Ask the rules."""
        route = stream.route
        enforced, shadow = self.own if route is None else route.per_filter_config.get(self.name, self.own)
        said: dict[str, Any] = {}
        # As in Envoy, no rule sees what the rules of the same filter have said.
        if shadow is not None:
            self._watch(shadow, stream, said)
        refusal = self._enforce(enforced, stream, said) if enforced is not None else None
        if said:
            stream.dynamic_metadata.setdefault(METADATA, {}).update(said)
        if refusal is None:
            return None
        stream.send_local_reply(403, b"RBAC: access denied", details=refusal)
        return STOP_ITERATION

    def _enforce(self, enforced: Engine, stream: Stream, said: dict[str, Any]) -> str | None:
        # The details of the refusal, None when the request may pass.
        matched = enforced.matched(stream)
        allowed = enforced.allows(matched)
        if enforced.action == "LOG":
            stream.dynamic_metadata.setdefault("envoy.common", {})["access_log_hint"] = matched is not None
        said[enforced.metadata_prefix + "enforced_engine_result"] = "allowed" if allowed else "denied"
        if matched is not None:
            said[enforced.metadata_prefix + "enforced_effective_policy_id"] = matched
        own = enforced.policy_stats.get(matched) if matched is not None else None
        if allowed:
            self.stats.allowed += 1
            if own is not None:
                own.allowed += 1
            return None
        self.stats.denied += 1
        if own is not None:
            own.denied += 1
        name = "none" if matched is None else matched.translate(_BLANKS)
        return f"rbac_access_denied_matched_policy[{name}]"

    def _watch(self, shadow: Engine, stream: Stream, said: dict[str, Any]) -> None:
        matched = shadow.matched(stream)
        allowed = shadow.allows(matched)
        said[shadow.metadata_prefix + "shadow_engine_result"] = "allowed" if allowed else "denied"
        counted = [self.shadow_stats]
        if matched is not None:
            said[shadow.metadata_prefix + "shadow_effective_policy_id"] = matched
            if matched in shadow.policy_stats:
                counted.append(shadow.policy_stats[matched])
        for stats in counted:
            if allowed:
                stats.shadow_allowed += 1
            else:
                stats.shadow_denied += 1


def _joined(prefix: str) -> str:
    return prefix if not prefix or prefix.endswith(".") else prefix + "."


def any_of(rules: Sequence[Rule]) -> StreamTest:
    """One test for "one of these is true"."""
    tests = tuple(compile_rule(rule) for rule in rules)
    if len(tests) == 1:
        return tests[0]
    return lambda stream: any(test(stream) for test in tests)


def compile_rule(rule: Rule) -> StreamTest:
    """A permission or a principal as a test. ConfigError for a regular expression that is wrong."""
    value, where = rule.value, rule.where
    match rule.kind:
        case "any":
            return lambda stream: True
        case "or":
            return any_of(value)
        case "and":
            tests = tuple(compile_rule(each) for each in value)
            return lambda stream: all(test(stream) for test in tests)
        case "not":
            inner = compile_rule(value)
            return lambda stream: not inner(stream)
        case "header":
            return compile_header_matcher(value, where)
        case "metadata":
            return compile_metadata(value)
        case "route_metadata":
            return compile_metadata(value, of_route=True)
        case "filter_state":
            return compile_filter_state(value)
        case "uri_template":
            path_matches = compile_regex(value, where)
            return lambda stream: path_matches(stream.path.partition(b"#")[0].partition(b"?")[0])
        case "client_certificate":
            return _compile_client_certificate(value)
        case "upstream":
            return _compile_upstream(value)
        case "url_path":
            matches = compile_string(value, where)
            return lambda stream: matches(stream.path.partition(b"#")[0].partition(b"?")[0])
        case "server_name":
            names = compile_string(value, where)
            return lambda stream: names(stream.connection.requested_server_name.encode())
        case "authenticated":
            return _compile_authenticated(value, where)
        case "destination_port":
            start, end = value
            return lambda stream: start <= _port(stream.connection.local_socket_address()) < end
        case "destination_ip":
            contains = compile_range(value)
            return lambda stream: contains(_ip(stream.connection.local_socket_address()))
        case "direct_remote_ip":
            contains = compile_range(value)
            return lambda stream: contains(_ip(stream.connection.remote_address))
        case "remote_ip":
            contains = compile_range(value)
            return lambda stream: contains(client_ip(stream))
    assert rule.kind == "none", rule.kind
    return lambda stream: False


def _compile_client_certificate(wanted: tuple[str, StringMatcher] | None) -> StreamTest:
    is_name = san_test(*wanted) if wanted is not None else None

    def is_one(stream: Stream) -> bool:
        tls = stream.connection.tls
        names = tls.getpeercert() if tls is not None else None  # empty where the certificate was not verified
        if not names or is_name is None:
            return bool(names)
        return any(is_name(kind, value) for kind, value in names.get("subjectAltName", ()))

    return is_one


def _compile_upstream(wanted: UpstreamAddress) -> StreamTest:
    contains = compile_range(wanted.ip) if wanted.ip is not None else None

    def goes_there(stream: Stream) -> bool:
        ip, _, port = (filter_state_text(stream, UPSTREAM_ADDRESS) or b"").decode().rpartition(":")
        if not ip or (contains is not None and not contains(ip.removeprefix("[").removesuffix("]"))):
            return False
        return wanted.ports is None or wanted.ports[0] <= int(port) < wanted.ports[1]

    return goes_there


def _ip(address: object) -> str:
    return address[0] if isinstance(address, tuple) else ""


def _port(address: object) -> int:
    return address[1] if isinstance(address, tuple) else -1


def _compile_authenticated(matcher: StringMatcher | None, where: Where) -> StreamTest:
    if matcher is None:
        return lambda stream: stream.connection.tls is not None
    matches = compile_string(matcher, where)

    def is_one(stream: Stream) -> bool:
        tls = stream.connection.tls
        if tls is None:
            return False
        names = (tls.getpeercert() or {}).get("subjectAltName", ())
        if any(matches(value.encode()) for kind, value in names if kind in ("URI", "DNS")):
            return True
        return matches(verified_subject(tls) or b"")

    return is_one
