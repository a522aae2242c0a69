"""What a route, a virtual host or a route configuration says of a request beyond one exchange with one endpoint:
mirrors, internal redirects, hedging, and how long a stream may last."""

from __future__ import annotations

from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import FractionalPercent, build_runtime_fraction
from forkproxy.config.build.header_mutation import MutationStep, build_step
from forkproxy.config.values import frozen
from forkproxy.config.view import View

_ALLOW_LISTED = "envoy.extensions.internal_redirect.allow_listed_routes.v3.AllowListedRoutesConfig"
_PREVIOUS = "envoy.extensions.internal_redirect.previous_routes.v3.PreviousRoutesConfig"
_SAFE = "envoy.extensions.internal_redirect.safe_cross_scheme.v3.SafeCrossSchemeConfig"
_REDIRECTS = frozenset((301, 302, 303, 307, 308))


@frozen
class MirrorPolicy:
    """``RouteAction.RequestMirrorPolicy``: exactly one of ``cluster`` and ``cluster_header`` is set."""

    cluster: str
    cluster_header: str
    fraction: FractionalPercent | None
    append_suffix: bool
    host: str
    mutations: tuple[MutationStep, ...]


@frozen
class RedirectPredicate:
    """``kind``: "allow_listed_routes" (with ``routes``, their names), "previous_routes" or "safe_cross_scheme"."""

    kind: str
    routes: frozenset[str] = frozenset()


@frozen
class InternalRedirectPolicy:
    """``InternalRedirectPolicy``; names of headers in lower case."""

    max_redirects: int = 1
    codes: frozenset[int] = frozenset((302,))
    predicates: tuple[RedirectPredicate, ...] = ()
    allow_cross_scheme: bool = False
    headers_to_copy: tuple[str, ...] = ()


@frozen
class MaxStreamDuration:
    """``RouteAction.MaxStreamDuration``: None for what is not set; 0.0 has meanings of its own."""

    duration_s: float | None
    grpc_max_s: float | None
    grpc_offset_s: float | None


@frozen
class RoutePolicies:
    """Those of a ``RouteAction``. ``hedges`` None: the virtual host says it. ``grpc_max_s``, ``grpc_offset_s``: the deprecated
    ``max_grpc_timeout`` and ``grpc_timeout_offset``."""

    mirrors: tuple[MirrorPolicy, ...] = ()
    internal_redirect: InternalRedirectPolicy | None = None
    hedges: bool | None = None
    max_stream_duration: MaxStreamDuration | None = None
    grpc_max_s: float | None = None
    grpc_offset_s: float | None = None


NO_ROUTE_POLICIES = RoutePolicies()


@frozen
class VirtualHostPolicies:
    """Those of a ``VirtualHost``, for routes that say nothing of their own."""

    mirrors: tuple[MirrorPolicy, ...] = ()
    hedges: bool | None = None
    tells_timeout_retry: bool = False
    """``include_is_timeout_retry_header``."""


def build_route_policies(view: View, context: BuildContext) -> RoutePolicies:
    """Of a ``RouteAction``."""
    view.ignore("flush_timeout", why="HTTP/1 writes at once, and other timeouts watch the connection, as in Envoy")
    duration = view.message("max_stream_duration")
    made = RoutePolicies(
        mirrors=build_mirrors(view, context),
        internal_redirect=_internal_redirect(view, context),
        hedges=_hedges(view),
        max_stream_duration=_max_stream_duration(duration) if duration is not None else None,
        grpc_max_s=view.duration_s("max_grpc_timeout"),
        grpc_offset_s=view.duration_s("grpc_timeout_offset"),
    )
    return NO_ROUTE_POLICIES if made == NO_ROUTE_POLICIES else made  # as on most routes


def build_virtual_host_policies(view: View, context: BuildContext) -> VirtualHostPolicies:
    """Of a ``VirtualHost``."""
    return VirtualHostPolicies(
        mirrors=build_mirrors(view, context),
        hedges=_hedges(view),
        tells_timeout_retry=view.bool("include_is_timeout_retry_header"),
    )


def build_mirrors(view: View, context: BuildContext) -> tuple[MirrorPolicy, ...]:
    """``request_mirror_policies``, on all three levels."""
    return context.each(view.repeated("request_mirror_policies"), _mirror)


def _mirror(view: View, context: BuildContext) -> MirrorPolicy:
    view.ignore("trace_sampled", why="nothing is traced")
    fraction = view.message("runtime_fraction")
    return MirrorPolicy(
        cluster=view.str("cluster"),
        cluster_header=view.str("cluster_header"),
        fraction=build_runtime_fraction(fraction, context) if fraction is not None else None,
        append_suffix=not view.bool("disable_shadow_host_suffix_append"),
        host=view.str("host_rewrite_literal"),
        mutations=context.each(view.repeated("request_headers_mutations"), build_step),
    )


def _internal_redirect(view: View, context: BuildContext) -> InternalRedirectPolicy | None:
    policy = view.message("internal_redirect_policy")
    # The deprecated pair counts only without a policy.
    is_old = view.enum("internal_redirect_action") == "HANDLE_INTERNAL_REDIRECT"
    old_max = view.uint("max_internal_redirects", 1)
    if policy is None:
        return InternalRedirectPolicy(max_redirects=old_max) if is_old else None
    codes = policy.uints("redirect_response_codes")
    predicates = [_predicate(predicate, context) for predicate in policy.repeated("predicates")]
    names = tuple(name.lower() for name in policy.strings("response_headers_to_copy"))
    if any(name.startswith(":") or name == "host" for name in names):
        # Envoy's words.
        policy.report(":-prefixed headers or Hosts may not be specified here.", field="response_headers_to_copy")
    return InternalRedirectPolicy(
        max_redirects=policy.uint("max_internal_redirects", 1),
        codes=frozenset(codes) & _REDIRECTS if codes else frozenset((302,)),
        predicates=tuple(predicate for predicate in predicates if predicate is not None),
        allow_cross_scheme=policy.bool("allow_cross_scheme_redirect"),
        headers_to_copy=names,
    )


def _predicate(view: View, context: BuildContext) -> RedirectPredicate | None:
    typed = view.any("typed_config")
    if typed is None:
        return None  # validation has said so; its name stays unread
    view.ignore("name", why="the type says which predicate it is")
    if typed.type_name == _ALLOW_LISTED:
        return RedirectPredicate("allow_listed_routes", frozenset(typed.strings("allowed_route_names")))
    if typed.type_name == _PREVIOUS:
        return RedirectPredicate("previous_routes")
    if typed.type_name == _SAFE:
        return RedirectPredicate("safe_cross_scheme")
    typed.unsupported(f"the predicate ({typed.type_name or 'without @type'}) is not implemented")
    return None


def _hedges(view: View) -> bool | None:
    policy = view.message("hedge_policy")
    if policy is None:
        return None
    policy.ignore("initial_requests", "additional_request_chance", why="Envoy reads them and does nothing with them")
    return policy.bool("hedge_on_per_try_timeout")


def _max_stream_duration(view: View) -> MaxStreamDuration:
    return MaxStreamDuration(
        view.duration_s("max_stream_duration"),
        view.duration_s("grpc_timeout_header_max"),
        view.duration_s("grpc_timeout_header_offset"),
    )
