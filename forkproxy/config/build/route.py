"""``config.route.v3.RouteConfiguration`` → RouteTableConfig."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field, replace
from functools import partial
from typing import Any

from forkproxy.config.build.context import BuildContext, PerFilterConfig
from forkproxy.config.build.core import (
    FractionalPercent,
    HeaderMatcher,
    HeaderMutations,
    QueryParameterMatcher,
    Where,
    build_header_matcher,
    build_header_mutations,
    build_query_parameter_matcher,
    build_regex,
    build_runtime_fraction,
    build_where,
)
from forkproxy.config.build.cors import CorsPolicy, build_policy
from forkproxy.config.build.filter_state import FilterStateMatcher, build_filter_state_matcher
from forkproxy.config.build.hash_policy import HashPolicy, build_hash_policies
from forkproxy.config.build.load_balancing import build_lb_metadata
from forkproxy.config.build.local_reply import BodyFormat, build_body_format
from forkproxy.config.build.match_tree import MatchTree, build_match_tree
from forkproxy.config.build.metadata import (
    NO_METADATA,
    MetadataMatcher,
    build_filter_metadata,
    build_metadata_matcher,
)
from forkproxy.config.build.rate_limit import RateLimit, build_rate_limits
from forkproxy.config.build.retry import RetryPolicy, build_retry_policy
from forkproxy.config.build.route_policies import (
    MirrorPolicy,
    RoutePolicies,
    VirtualHostPolicies,
    build_mirrors,
    build_route_policies,
    build_virtual_host_policies,
)
from forkproxy.config.build.tls import build_data_source
from forkproxy.config.build.upgrades import ConnectConfig, build_route_upgrades
from forkproxy.config.build.virtual_cluster import VirtualClusterConfig, build_virtual_cluster
from forkproxy.config.uri_template import NEVER
from forkproxy.config.values import frozen, replaced
from forkproxy.config.view import View

default_timeout_s = 15.0
_ROUTE = "envoy.config.route.v3.Route"
_ROUTE_LIST = "envoy.config.route.v3.RouteList"
_NOT_FOUND_CODES = {"SERVICE_UNAVAILABLE": 503, "NOT_FOUND": 404, "INTERNAL_SERVER_ERROR": 500}
_REDIRECT_CODES = {
    "MOVED_PERMANENTLY": 301,
    "FOUND": 302,
    "SEE_OTHER": 303,
    "TEMPORARY_REDIRECT": 307,
    "PERMANENT_REDIRECT": 308,
}
# What nearly every route says in its own way (build/alike.py).
_TEXTS = frozenset(("prefix", "path", "path_separated_prefix"))
_APART_OF_ACTION = frozenset(("cluster", "retry_policy"))
_APART_OF_ROUTE = frozenset(
    ("name", "match", "route", "redirect", "non_forwarding_action", "filter_action", "direct_response")
)
_NOWHERE = Where()


@frozen
class RouteMatch:
    """``config.route.v3.RouteMatch``. ``kind``: "prefix", "path", "safe_regex", "path_separated_prefix"; ``value`` its text.
    "connect_matcher": a CONNECT, which has no path.

    ``kind`` "uri_template": ``value`` is the regular expression that the template means, ``template`` its text.
    ``presented`` and ``validated``: of ``tls_context``, None where it does not matter.
    """

    kind: str
    value: str
    case_sensitive: bool = True
    headers: tuple[HeaderMatcher, ...] = ()
    query_parameters: tuple[QueryParameterMatcher, ...] = ()
    grpc: bool = False
    runtime_fraction: FractionalPercent | None = None
    template: str = ""
    presented: bool | None = None
    validated: bool | None = None
    dynamic_metadata: tuple[MetadataMatcher, ...] = ()
    filter_state: tuple[FilterStateMatcher, ...] = ()


@frozen
class WeightedCluster:
    """One of ``WeightedCluster.clusters``: its ``name``, or the header that names it."""

    name: str
    weight: int
    headers: HeaderMutations
    host_rewrite_literal: str = ""
    per_filter_config: dict[str, PerFilterConfig] = field(default_factory=dict)
    metadata_match: dict[str, Any] = field(default_factory=dict)
    cluster_header: str = ""


@frozen
class RegexRewrite:
    """``type.matcher.v3.RegexMatchAndSubstitute``; ``substitution`` in RE2 notation (\\1)."""

    regex: str
    substitution: str


@frozen
class ForwardAction:
    """``RouteAction``: exactly one of ``cluster``, ``cluster_header``, ``weighted_clusters`` is set, or none for a route whose
    action forwards nothing: it has no cluster then, in Envoy too.

    ``weighted_header`` and ``weighted_by_hash``: what chooses among the weighted clusters instead of chance.
    ``path_rewrite`` and ``host_rewrite`` are formats; ``path_template_rewrite``: literals, and (with True) names of variables.
    ``timeout_s`` None means no timeout (the file says ``0s``); the builder writes Envoy's default of 15 s when absent.
    """

    cluster: str = ""
    cluster_header: str = ""
    weighted_clusters: tuple[WeightedCluster, ...] = ()
    weighted_header: str = ""
    weighted_by_hash: bool = False
    cluster_not_found_response_code: int = 503
    prefix_rewrite: str = ""
    regex_rewrite: RegexRewrite | None = None
    host_rewrite_literal: str = ""
    host_rewrite_header: str = ""
    host_rewrite_path_regex: RegexRewrite | None = None
    host_rewrite: str = ""
    path_rewrite: str = ""
    path_template_rewrite: tuple[tuple[str, bool], ...] = ()
    auto_host_rewrite: bool = False
    append_x_forwarded_host: bool = False
    timeout_s: float | None = 15.0
    idle_timeout_s: float | None = None
    idle_timeout_set: bool = False
    retry_policy: RetryPolicy | None = None
    cors: CorsPolicy | None = None
    """The deprecated place of the cors filter's policy; here and on the virtual host."""
    is_high: bool = False
    """The priority is HIGH: its connections and limits are others."""
    hash_policies: tuple[HashPolicy, ...] = ()
    metadata_match: dict[str, Any] = field(default_factory=dict)
    """What ``envoy.lb`` metadata the endpoint must have; a weighted cluster's is put over it."""
    rate_limits: tuple[RateLimit, ...] = ()
    include_vh_rate_limits: bool = False
    policies: RoutePolicies = RoutePolicies()
    upgrades: tuple[tuple[str, bool], ...] = ()
    """What the route says about types of upgrades: (type, allowed)."""
    connect: ConnectConfig | None = None


@frozen
class RedirectAction:
    """``RedirectAction``: at most one of the path fields is set; ``response_code`` is the HTTP status itself (301 …)."""

    host_redirect: str = ""
    port_redirect: int = 0
    scheme_redirect: str = ""
    https_redirect: bool = False
    path_redirect: str = ""
    prefix_rewrite: str = ""
    regex_rewrite: RegexRewrite | None = None
    response_code: int = 301
    strip_query: bool = False


@frozen
class DirectResponseAction:
    """``DirectResponseAction``: ``body`` already read from its data source."""

    status: int
    body: bytes = b""
    body_format: BodyFormat | None = None


@frozen
class BufferLimits:
    """``request_body_buffer_limit`` and the older ``per_request_buffer_limit_bytes``; None where not set."""

    body: int | None = None
    request: int | None = None


NO_LIMITS = BufferLimits()


@frozen
class RouteEntry:
    """``config.route.v3.Route``. ``per_filter_config``: filter name → what this route says about that filter."""

    name: str
    match: RouteMatch
    action: ForwardAction | RedirectAction | DirectResponseAction
    headers: HeaderMutations
    where: Where
    per_filter_config: dict[str, PerFilterConfig] = field(default_factory=dict)
    stat_prefix: str = ""
    """What its requests are counted under, ``vhost.<virtual host>.route.<stat_prefix>``, too; "" for nowhere else."""
    buffer_limits: BufferLimits = NO_LIMITS
    metadata: dict[str, Any] = field(default_factory=lambda: NO_METADATA)


_NO_MATCH = RouteMatch("", "")
_NO_ACTION = ForwardAction()


@frozen
class VirtualHost:
    """``config.route.v3.VirtualHost``. ``require_tls``: "NONE", "EXTERNAL_ONLY" or "ALL"."""

    name: str
    domains: tuple[str, ...]
    routes: tuple[RouteEntry, ...]
    headers: HeaderMutations
    require_tls: str
    include_request_attempt_count: bool
    include_attempt_count_in_response: bool
    where: Where
    cors: CorsPolicy | None = None
    per_filter_config: dict[str, PerFilterConfig] = field(default_factory=dict)
    retry_policy: RetryPolicy | None = None
    rate_limits: tuple[RateLimit, ...] = ()
    virtual_clusters: tuple[VirtualClusterConfig, ...] = ()
    buffer_limits: BufferLimits = NO_LIMITS
    policies: VirtualHostPolicies = VirtualHostPolicies()
    matcher: MatchTree | None = None
    """Chooses among ``routes``, which are those of its actions then."""
    metadata: dict[str, Any] = field(default_factory=lambda: NO_METADATA)


@frozen
class RouteTableConfig:
    """``config.route.v3.RouteConfiguration``."""

    name: str
    virtual_hosts: tuple[VirtualHost, ...]
    headers: HeaderMutations
    most_specific_header_mutations_wins: bool = False
    ignore_port_in_host_matching: bool = False
    ignore_path_parameters_in_path_matching: bool = False
    vhost_header: str = ""
    internal_only_headers: tuple[str, ...] = ()
    max_direct_response_body_size_bytes: int = 4096
    per_filter_config: dict[str, PerFilterConfig] = field(default_factory=dict)
    mirrors: tuple[MirrorPolicy, ...] = ()


def build_route_match(view: View, context: BuildContext) -> RouteMatch:
    """``RouteMatch``."""
    kind = view.which("path_specifier") or "prefix"
    if kind in _TEXTS:
        rest = context.alike.rest(view, _build_match_rest, context, _TEXTS)
        return context.alike.varied(rest, kind=kind, value=view.str(kind))
    rest = _build_match_rest(view, context)
    template = ""
    if kind == "path_match_policy":
        made = context.extension(view.require("path_match_policy"), "path matcher")
        kind = "uri_template"
        template, value = made.value if made is not None else ("", NEVER)
    elif kind == "safe_regex":
        value = build_regex(view.require("safe_regex"))
    else:
        view.message("connect_matcher")
        value = ""
    return replace(rest, kind=kind, value=value, template=template)


def _build_match_rest(view: View, context: BuildContext) -> RouteMatch:
    """All but the path."""
    fraction = view.message("runtime_fraction")
    tls = view.message("tls_context")
    return RouteMatch(
        kind="",
        value="",
        case_sensitive=view.bool("case_sensitive", True),
        headers=context.each(view.repeated("headers"), build_header_matcher),
        query_parameters=context.each(view.repeated("query_parameters"), build_query_parameter_matcher),
        grpc=view.message("grpc") is not None,
        runtime_fraction=build_runtime_fraction(fraction, context) if fraction is not None else None,
        presented=_bool_if_set(tls, "presented"),
        validated=_bool_if_set(tls, "validated"),
        dynamic_metadata=context.each(view.repeated("dynamic_metadata"), build_metadata_matcher),
        filter_state=context.each(view.repeated("filter_state"), build_filter_state_matcher),
    )


def _bool_if_set(view: View | None, name: str) -> bool | None:
    return view.bool(name) if view is not None and view.has(name) else None


def build_weighted_cluster(view: View, context: BuildContext) -> WeightedCluster:
    """``WeightedCluster.ClusterWeight``."""
    return WeightedCluster(
        name=view.str("name"),
        cluster_header=view.str("cluster_header"),
        weight=view.uint("weight"),
        headers=build_header_mutations(view, context),
        host_rewrite_literal=view.str("host_rewrite_literal"),
        per_filter_config=context.per_filter_config(view),
        metadata_match=build_lb_metadata(view.message("metadata_match")),
    )


def build_weighted_clusters(view: View, context: BuildContext) -> tuple[WeightedCluster, ...]:
    """``WeightedCluster``: a runtime key ``<prefix>.<cluster>`` of a static layer replaces that cluster's weight."""
    view.ignore("total_weight", why="Envoy uses the sum of the weights")
    clusters = context.each(view.repeated("clusters"), build_weighted_cluster)
    prefix = view.str("runtime_key_prefix")
    if prefix:
        weights = (context.runtime_value(f"{prefix}.{cluster.name}") for cluster in clusters)
        clusters = tuple(
            replace(cluster, weight=weight) if isinstance(weight, int) else cluster
            for cluster, weight in zip(clusters, weights, strict=True)
        )
    return clusters


def build_regex_rewrite(view: View, context: BuildContext) -> RegexRewrite:
    """``RegexMatchAndSubstitute``."""
    return RegexRewrite(build_regex(view.require("pattern")), view.str("substitution"))


def build_forward_action(view: View, context: BuildContext) -> ForwardAction:
    """``RouteAction``. Whatever is not named here stays unread."""
    action = context.alike.rest(view, _build_action_rest, context, _APART_OF_ACTION)
    retry_policy = build_retry_policy(view.message("retry_policy"), context)
    if retry_policy is not None:
        action = replaced(action, retry_policy=retry_policy)
    if view.which("cluster_specifier") == "cluster":
        action = context.alike.varied(action, cluster=view.str("cluster"))
    return action


def _build_action_rest(view: View, context: BuildContext) -> ForwardAction:
    """All but the fields that are nearly every route's own."""
    cluster_header = weighted_header = ""
    weighted_by_hash = False
    weighted: tuple[WeightedCluster, ...] = ()
    match view.which("cluster_specifier"):
        case "cluster_header":
            cluster_header = view.str("cluster_header")
        case "weighted_clusters":
            clusters = view.require("weighted_clusters")
            weighted = build_weighted_clusters(clusters, context)
            chooser = clusters.which("random_value_specifier")
            weighted_header = clusters.str("header_name") if chooser == "header_name" else ""
            weighted_by_hash = clusters.bool("use_hash_policy") if chooser == "use_hash_policy" else False
    regex_rewrite = view.message("regex_rewrite")
    host_regex = view.message("host_rewrite_path_regex")
    prefix_rewrite = view.str("prefix_rewrite")
    rewrite = view.which("host_rewrite_specifier")
    idle_timeout_s = view.duration_s("idle_timeout")
    timeout_s = view.duration_s("timeout", default_timeout_s)
    is_high = view.enum("priority") == "HIGH"
    upgrades, connect = build_route_upgrades(view.repeated("upgrade_configs"), context)
    return ForwardAction(
        cluster_header=cluster_header,
        weighted_clusters=weighted,
        weighted_header=weighted_header.lower(),
        weighted_by_hash=weighted_by_hash,
        cluster_not_found_response_code=_NOT_FOUND_CODES[view.enum("cluster_not_found_response_code")],
        prefix_rewrite=prefix_rewrite,
        regex_rewrite=build_regex_rewrite(regex_rewrite, context) if regex_rewrite is not None else None,
        host_rewrite_literal=view.str("host_rewrite_literal") if rewrite == "host_rewrite_literal" else "",
        host_rewrite_header=view.str("host_rewrite_header") if rewrite == "host_rewrite_header" else "",
        host_rewrite_path_regex=build_regex_rewrite(host_regex, context) if host_regex is not None else None,
        host_rewrite=view.str("host_rewrite") if rewrite == "host_rewrite" else "",
        path_rewrite=view.str("path_rewrite"),
        path_template_rewrite=build_path_rewrite(view, context),
        auto_host_rewrite=view.bool("auto_host_rewrite") if rewrite == "auto_host_rewrite" else False,
        append_x_forwarded_host=view.bool("append_x_forwarded_host"),
        timeout_s=timeout_s or None,
        idle_timeout_s=idle_timeout_s or None,
        idle_timeout_set=idle_timeout_s is not None,
        cors=build_cors(view, context),
        is_high=is_high,
        hash_policies=build_hash_policies(view.repeated("hash_policy"), context),
        metadata_match=build_lb_metadata(view.message("metadata_match")),
        rate_limits=build_rate_limits(view.repeated("rate_limits"), context),
        include_vh_rate_limits=view.bool("include_vh_rate_limits"),
        policies=build_route_policies(view, context),
        upgrades=upgrades,
        connect=connect,
    )


def _refuse_path_rewrites(view: View) -> None:
    for name in ("prefix_rewrite", "regex_rewrite", "path_rewrite", "path_rewrite_policy"):
        if view.has(name):
            view.unsupported("is not implemented for connect_matcher", "over HTTP/1 a CONNECT has no path", field=name)


def build_path_rewrite(view: View, context: BuildContext) -> tuple[tuple[str, bool], ...]:
    """``path_rewrite_policy`` of a ``RouteAction``; whether it goes with the route's matcher is seen by the route."""
    policy = view.message("path_rewrite_policy")
    made = context.extension(policy, "path rewriter") if policy is not None else None
    rewrite: tuple[tuple[str, bool], ...] = made.value if made is not None else ()
    return rewrite


def build_redirect_action(view: View, context: BuildContext) -> RedirectAction:
    """``RedirectAction``."""
    scheme = view.which("scheme_rewrite_specifier")
    path = view.which("path_rewrite_specifier")
    return RedirectAction(
        host_redirect=view.str("host_redirect"),
        port_redirect=view.uint("port_redirect"),
        scheme_redirect=view.str("scheme_redirect") if scheme == "scheme_redirect" else "",
        https_redirect=view.bool("https_redirect") if scheme == "https_redirect" else False,
        path_redirect=view.str("path_redirect") if path == "path_redirect" else "",
        prefix_rewrite=view.str("prefix_rewrite") if path == "prefix_rewrite" else "",
        regex_rewrite=build_regex_rewrite(view.require("regex_rewrite"), context) if path == "regex_rewrite" else None,
        response_code=_REDIRECT_CODES[view.enum("response_code")],
        strip_query=view.bool("strip_query"),
    )


def build_direct_response_action(view: View, context: BuildContext, max_body_bytes: int) -> DirectResponseAction:
    """``DirectResponseAction``; ``max_direct_response_body_size_bytes`` bounds the body, not what a format makes of it."""
    body = view.message("body")
    data = build_data_source(body, context).data if body is not None else b""
    if len(data) > max_body_bytes:
        view.report(f"the response body has {len(data)} bytes; the maximum is {max_body_bytes}", field="body")
    body_format = view.message("body_format")
    return DirectResponseAction(
        view.uint("status"), data, build_body_format(body_format, context) if body_format is not None else None
    )


def build_route(view: View, context: BuildContext, max_body_bytes: int) -> RouteEntry | None:
    """``Route``; None when its action is one that we do not have (which then stays unread)."""
    match = build_route_match(view.require("match"), context)
    action: ForwardAction | RedirectAction | DirectResponseAction
    action_kind = view.which("action")
    if action_kind == "route":
        action = build_forward_action(view.require("route"), context)
        if match.kind == "connect_matcher":
            _refuse_path_rewrites(view.require("route"))
    elif action_kind == "redirect":
        action = build_redirect_action(view.require("redirect"), context)
    elif action_kind in ("non_forwarding_action", "filter_action"):
        view.require(action_kind)
        action = ForwardAction()
    elif action_kind == "direct_response":
        action = build_direct_response_action(view.require("direct_response"), context, max_body_bytes)
    else:
        return None
    rest = context.alike.rest(view, _build_route_rest, context, _APART_OF_ROUTE)
    return replaced(rest, name=view.str("name"), match=match, action=action, where=build_where(view))


def _build_route_rest(view: View, context: BuildContext) -> RouteEntry:
    """All but the name, the match and the action."""
    view.ignore("decorator", why="names a trace's span, and nothing is traced")
    view.ignore("tracing", why="nothing is traced")
    return RouteEntry(
        name="",
        match=_NO_MATCH,
        action=_NO_ACTION,
        headers=build_header_mutations(view, context),
        where=_NOWHERE,
        per_filter_config=context.per_filter_config(view),
        stat_prefix=view.str("stat_prefix"),
        buffer_limits=build_buffer_limits(view),
        metadata=build_filter_metadata(view.message("metadata")),
    )


def build_buffer_limits(view: View) -> BufferLimits:
    """Those of a ``Route`` or ``VirtualHost``."""
    body = view.uint("request_body_buffer_limit", None)
    request = view.uint("per_request_buffer_limit_bytes", None)
    return NO_LIMITS if body is None and request is None else BufferLimits(body, request)


def build_virtual_host(view: View, context: BuildContext, max_body_bytes: int) -> VirtualHost:
    """``VirtualHost``."""
    build = partial(build_route, max_body_bytes=max_body_bytes)
    routes = [route for route in context.each(view.repeated("routes"), build) if route is not None]
    matcher = view.message("matcher")
    if matcher is not None and routes:
        view.report("cannot set both matcher and routes on virtual host", field="matcher")
    return VirtualHost(
        name=view.str("name"),
        domains=tuple(domain.lower() for domain in view.strings("domains")),
        matcher=_build_matcher(matcher, context, build, routes) if matcher is not None else None,
        routes=tuple(routes),
        headers=build_header_mutations(view, context),
        require_tls=view.enum("require_tls", supported=("NONE", "EXTERNAL_ONLY", "ALL")),
        include_request_attempt_count=view.bool("include_request_attempt_count"),
        include_attempt_count_in_response=view.bool("include_attempt_count_in_response"),
        retry_policy=build_retry_policy(view.message("retry_policy"), context),
        where=build_where(view),
        cors=build_cors(view, context),
        per_filter_config=context.per_filter_config(view),
        rate_limits=build_rate_limits(view.repeated("rate_limits"), context),
        virtual_clusters=context.each(view.repeated("virtual_clusters"), build_virtual_cluster),
        buffer_limits=build_buffer_limits(view),
        policies=build_virtual_host_policies(view, context),
        metadata=build_filter_metadata(view.message("metadata")),
    )


def _build_matcher(
    view: View,
    context: BuildContext,
    build: Callable[[View, BuildContext], RouteEntry | None],
    routes: list[RouteEntry],
) -> MatchTree:
    """``VirtualHost.matcher``; the routes of its actions are added to ``routes``."""

    def build_action(action: View) -> tuple[int, ...]:
        action.str("name")
        typed = action.any("typed_config")
        if typed is None or typed.type_name not in (_ROUTE, _ROUTE_LIST):
            action.report("the action of a route matcher is a Route or a RouteList", field="typed_config")
            if typed is not None:
                typed.ignore_all(why="what is wrong with it has been said")
            return ()
        first = len(routes)
        views: list[View] = [typed] if typed.type_name == _ROUTE else typed.repeated("routes")
        routes.extend(route for route in context.each(views, build) if route is not None)
        return tuple(range(first, len(routes)))

    return build_match_tree(view, build_action)


def build_cors(view: View, context: BuildContext) -> CorsPolicy | None:
    """The deprecated ``cors`` of a ``RouteAction`` or ``VirtualHost``. Without the filter in the chain it does nothing."""
    policy = view.message("cors")
    return build_policy(policy, context) if policy is not None else None


def build_route_table(view: View, context: BuildContext) -> RouteTableConfig:
    """``RouteConfiguration``; VHDS and cluster specifier plugins stay unread."""
    view.ignore("validate_clusters", why="semantics.py has already followed it")
    view.ignore("metadata", why="opaque to the proxy itself")
    max_body_bytes = view.uint("max_direct_response_body_size_bytes", 4096)
    return RouteTableConfig(
        name=view.str("name"),
        virtual_hosts=context.each(
            view.repeated("virtual_hosts"), partial(build_virtual_host, max_body_bytes=max_body_bytes)
        ),
        headers=build_header_mutations(view, context),
        most_specific_header_mutations_wins=view.bool("most_specific_header_mutations_wins"),
        ignore_port_in_host_matching=view.bool("ignore_port_in_host_matching"),
        ignore_path_parameters_in_path_matching=view.bool("ignore_path_parameters_in_path_matching"),
        vhost_header=view.str("vhost_header"),
        internal_only_headers=tuple(name.lower() for name in view.strings("internal_only_headers")),
        max_direct_response_body_size_bytes=max_body_bytes,
        per_filter_config=context.per_filter_config(view),
        mirrors=build_mirrors(view, context),
    )
