"""Tags: the variable parts of a stat's name, cut out of it for sinks that know labels (Prometheus).

``cluster.web.upstream_rq_503`` becomes ``cluster.upstream_rq`` with envoy.response_code 503 and envoy.cluster_name web. The rules
are Envoy's defaults (``use_all_default_tags``), then those of ``stats_tags``. All of them look at the whole name; what they
found is cut out afterwards. The quirks are wanted: dashboards made for Envoy rely on them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import re2

_SUBSTITUTIONS: Final = {
    "<ADDRESS>": r"(?:(?:\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[[a-fA-F_\d]+\])_\d+)",
    "<CIPHER>": r"[\w-]+",
    "<NAME>": r"[^.]+",
    "<LOOSE>": r"[\w.-]+",
    "<TLS>": r"(?:listener|cluster)\..*?",
}

_DEFAULTS: Final[tuple[tuple[str, str, str], ...]] = (
    # tag, rule, what a name has that the rule fits ("" when that is not known). A rule is a regular expression, whose first
    # group is cut out and whose second is the value, or a list of tokens, of which "$" is the value.
    ("envoy.response_code", r"_rq(_(\d{3}))$", "_rq_"),
    ("envoy.response_code_class", r"_rq_((\d))xx$", "_rq_"),
    (
        "envoy.dynamo_partition_id",
        r"^http\.<NAME>\.dynamodb\.table\.<NAME>\.capacity\.<NAME>(\.__partition_id=(\w{7}))$",
        ".dynamodb.table.",
    ),
    (
        "envoy.dynamo_operation",
        r"^http\.<NAME>\.dynamodb.(?:operation|table\.<NAME>\.capacity)(\.(<NAME>))(?:\.|$)",
        ".dynamodb.",
    ),
    ("envoy.mongo_callsite", "mongo.*.collection.*.callsite.$.query.**", ""),
    ("envoy.dynamo_table", r"^http\.<NAME>\.dynamodb.(?:table|error)\.((<NAME>)\.)", ".dynamodb."),
    ("envoy.mongo_collection", "mongo.*.collection.$.**.query.*", ""),
    ("envoy.mongo_cmd", "mongo.*.cmd.$.**", ""),
    ("envoy.grpc_bridge_method", "cluster.*.grpc.*.$.**", ""),
    ("envoy.http_user_agent", "http.*.user_agent.$.**", ""),
    ("envoy.virtual_cluster", "vhost.*.vcluster.$.**", ""),
    ("envoy.fault_downstream_cluster", "http.*.fault.$.**", ""),
    ("envoy.ssl_cipher", r"^listener\..*?\.ssl\.ciphers(\.(<CIPHER>))$", ".ssl.ciphers."),
    ("envoy.ssl_curve", r"^<TLS>\.ssl\.curves(\.(<CIPHER>))$", ".ssl.curves."),
    ("envoy.ssl_sigalg", r"^<TLS>\.ssl\.sigalgs(\.(<CIPHER>))$", ".ssl.sigalgs."),
    ("envoy.ssl_version", r"^<TLS>\.ssl\.versions(\.(TLSv\d\.\d))$", ".ssl.versions."),
    ("cipher_suite", r"^cluster\.<NAME>\.ssl\.ciphers(\.(<CIPHER>))$", ".ssl.ciphers."),
    ("envoy.tls_certificate", r"^<TLS>\.ssl\.certificate\.((<NAME>)\.).*$", ".ssl.certificate."),
    ("envoy.grpc_bridge_service", "cluster.*.grpc.$.**", ""),
    ("envoy.tcp_prefix", "tcp.$.**", ""),
    ("envoy.udp_prefix", "udp.$.**", ""),
    ("envoy.clientssl_prefix", "auth.clientssl.$.**", ""),
    ("envoy.ratelimit_prefix", "ratelimit.$.**", ""),
    ("envoy.cluster_name", "cluster.$.**", ""),
    (
        "envoy.rbac_policy_name",
        r"^http\.<NAME>\.rbac\.(?:<NAME>\.)?policy\.((<NAME>)\.)(?:allowed|shadow_allowed|denied|shadow_denied)$",
        ".policy.",
    ),
    ("envoy.rbac_http_prefix", r"^http\.<NAME>\.rbac\.((<NAME>)\.).*?", ".rbac."),
    ("envoy.http_conn_manager_prefix", r"^listener\..*?\.http\.((<NAME>)\.)", ".http."),
    ("envoy.ext_authz_prefix", "cluster.*.ext_authz.$.**", ""),
    ("envoy.ext_authz_prefix", "http.*.ext_authz.$.**", ""),
    ("envoy.http_conn_manager_prefix", "http.$.**", ""),
    (
        "envoy.worker_id",
        r"^(?:listener\.(?:<ADDRESS>|<NAME>)|server|listener_manager|thread_local_cluster_manager)\.worker_((\d+)\.)",
        ".worker_",
    ),
    ("envoy.listener_address", r"^listener\.((<ADDRESS>|(?!admin\.)<NAME>)\.)", ""),
    ("envoy.virtual_host", "vhost.$.**", ""),
    ("envoy.mongo_prefix", "mongo.$.**", ""),
    ("envoy.rds_route_config", r"^http\.<NAME>\.rds\.((<LOOSE>)\.)\w+?$", ".rds."),
    ("envoy.scoped_rds_config", r"^http\.<NAME>\.scoped_rds\.((<LOOSE>)\.)\w+?$", ".scoped_rds."),
    ("envoy.route", "vhost.*.route.$.**", ""),
    ("envoy.thrift_prefix", "thrift.$.**", ""),
    ("envoy.redis_prefix", "redis.$.**", ""),
    ("envoy.local_http_ratelimit_prefix", "$.http_local_rate_limit.**", ".http_local_rate_limit."),
    ("envoy.local_network_ratelimit_prefix", "local_rate_limit.$.**", ""),
    ("envoy.local_listener_ratelimit_prefix", "listener_local_ratelimit.$.**", ""),
    ("envoy.dns_filter_prefix", "dns_filter.$.**", ""),
    ("envoy.connection_limit_prefix", "connection_limit.$.**", ""),
    ("envoy.rbac_prefix", "$.rbac.**", ".rbac."),
    ("envoy.proxy_protocol_version", r"^proxy_proto\.((?:<NAME>\.)?versions\.v(\d)\.)\w+$", ".versions."),
    ("envoy.proxy_protocol_prefix", r"^proxy_proto\.((<NAME>)\.).+$", ""),
    ("envoy.google_grpc_client_prefix", "grpc.$.**", ""),
    ("envoy.health_check_name", r"^cluster\.<NAME>\.health_check(\.name\.(<NAME>))\..+", ".health_check.name."),
    ("envoy.xds_resource_name", r"^sds\.((<NAME>)\.).+", ""),
)

TAG_NAMES: Final = frozenset(tag for tag, _, _ in _DEFAULTS)

Search = Callable[[str], Any]
"""Finds the first match of a rule in a name; None when there is none."""


class _Rule:
    """One rule; ``search`` is the value itself where all names have the same. ``first_token``: what the names that it fits begin
    with, before the first dot; "" when that is not known."""

    __slots__ = ("first_token", "needle", "search", "tag")

    def __init__(self, tag: str, search: Search | str, needle: str, first_token: str) -> None:
        self.tag = tag
        self.search = search
        self.needle = needle
        self.first_token = first_token


_FIRST_TOKEN = re.compile(r"\^(\w+)(?:\\\.|\(\?=\\\.|\$\Z)")


def _default_rules(wanted: Callable[[str], bool]) -> list[_Rule]:
    rules = []
    for tag, text, needle in _DEFAULTS:
        if not wanted(tag):
            continue
        pattern = text
        if "$" in text and "(" not in text:
            pattern = _pattern_of_tokens(text)
        for name, meaning in _SUBSTITUTIONS.items():
            pattern = pattern.replace(name, meaning)
        rules.append(_rule(tag, re.compile(pattern).search, needle, pattern))
    return rules


def _rule(tag: str, search: Search, needle: str, pattern: str) -> _Rule:
    first = _FIRST_TOKEN.match(pattern)
    return _Rule(tag, search, needle, first[1] if first else "")


def _pattern_of_tokens(tokens: str) -> str:
    # "*" is any token, "**" any number of them, "$" the one that is cut out with its dot.
    parts = []
    for token in tokens.split("."):
        if token == "$":
            parts.append(r"((<NAME>)\.)")
        elif token == "**":
            parts.append(r".*")
        else:
            parts.append(r"<NAME>\." if token == "*" else re.escape(token) + r"\.")
    return "^" + "".join(parts)


def compile_tag_regex(pattern: str) -> Search:
    """A user's regular expression: RE2, or, for what RE2 does not know (looking ahead), Python's. ValueError for a bad one."""
    options: Any = re2.Options()
    options.log_errors = False
    try:
        compiled: Any = re2.compile(pattern, options)
    except re2.error:
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise ValueError(str(error)) from None
    if not compiled.groups:
        return lambda name: None
    search: Search = compiled.search
    return search


class Tag(NamedTuple):
    """One of ``stats_tags``: a value for every name, or a regular expression; "" for the default rule of this tag."""

    name: str
    regex: str = ""
    fixed_value: str | None = None


class TagExtractor:
    """Takes names apart by the rules of one configuration."""

    __slots__ = ("_anywhere", "_by_first_token")

    def __init__(self, tags: Sequence[Tag] = (), *, use_all_default_tags: bool = True) -> None:
        """ValueError for a regular expression that is none."""
        rules = _default_rules(lambda tag: use_all_default_tags)
        for tag in tags:
            if tag.fixed_value is not None:
                rules.append(_Rule(tag.name, tag.fixed_value, "", ""))
            elif tag.regex:
                rules.append(_rule(tag.name, compile_tag_regex(tag.regex), "", tag.regex))
            else:
                rules += _default_rules(tag.name.__eq__)
        self._anywhere = tuple(rule for rule in rules if not rule.first_token)
        self._by_first_token: dict[str, tuple[_Rule, ...]] = {}
        for rule in rules:
            if rule.first_token:
                self._by_first_token[rule.first_token] = (*self._by_first_token.get(rule.first_token, ()), rule)

    def cut(self, name: str) -> tuple[str, list[tuple[str, str]]]:
        """(what is left of a name, its tags in the order in which they are written)."""
        tags: list[tuple[str, str]] = []
        taken: set[str] = set()
        removed: list[tuple[int, int]] = []
        for rules in (self._anywhere, self._by_first_token.get(name.partition(".")[0], ())):
            for rule in rules:
                if rule.needle not in name or rule.tag in taken:
                    continue
                if isinstance(rule.search, str):
                    taken.add(rule.tag)
                    tags.append((rule.tag, rule.search))
                    continue
                found = rule.search(name)
                if found is None:
                    continue
                taken.add(rule.tag)
                groups: tuple[str | None, ...] = found.groups()
                value = groups[1] if len(groups) > 1 and groups[1] else groups[0] or ""
                tags.append((rule.tag, value))
                removed.append(found.span(1))
        return _without(name, removed), tags


def _without(name: str, spans: Iterable[tuple[int, int]]) -> str:
    kept: list[str] = []
    position = 0
    for start, end in sorted(spans):
        kept.append(name[position:start])
        position = max(position, end)
    return "".join(kept) + name[position:]
