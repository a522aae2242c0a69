"""``extensions.filters.http.cors.v3`` → CorsConfig and CorsPolicy; the policy also out of the deprecated ``cors`` fields."""

from __future__ import annotations

from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import (
    FractionalPercent,
    StringMatcher,
    Where,
    build_runtime_fraction,
    build_string_matcher,
    build_where,
)
from forkproxy.config.values import frozen
from forkproxy.config.view import View

type_url = "envoy.extensions.filters.http.cors.v3.Cors"


@frozen
class CorsConfig:
    """``Cors``: it has no fields; everything stands on routes and virtual hosts."""


@frozen
class CorsPolicy:
    """``CorsPolicy`` of one route, virtual host or route configuration.

    An empty text or list, and None, mean that the next level is asked. ``filter_enabled`` None: always; ``shadow_enabled``
    None: never.
    """

    allow_origins: tuple[StringMatcher, ...] = ()
    allow_methods: str = ""
    allow_headers: str = ""
    expose_headers: str = ""
    max_age: str = ""
    allow_credentials: bool | None = None
    allow_private_network_access: bool | None = None
    forward_not_matching_preflights: bool | None = None
    filter_enabled: FractionalPercent | None = None
    shadow_enabled: FractionalPercent | None = None
    where: Where = Where()


def build(view: View, context: BuildContext) -> CorsConfig:
    """``Cors``."""
    return CorsConfig()


def build_policy(view: View, context: BuildContext) -> CorsPolicy:
    """``CorsPolicy``, the extension's or ``config.route.v3``'s: their fields are the same."""
    enabled, shadow = view.message("filter_enabled"), view.message("shadow_enabled")
    return CorsPolicy(
        allow_origins=context.each(view.repeated("allow_origin_string_match"), build_string_matcher),
        allow_methods=view.str("allow_methods"),
        allow_headers=view.str("allow_headers"),
        expose_headers=view.str("expose_headers"),
        max_age=view.str("max_age"),
        allow_credentials=view.bool("allow_credentials", None),
        allow_private_network_access=view.bool("allow_private_network_access", None),
        forward_not_matching_preflights=view.bool("forward_not_matching_preflights", None),
        filter_enabled=build_runtime_fraction(enabled, context) if enabled is not None else None,
        shadow_enabled=build_runtime_fraction(shadow, context) if shadow is not None else None,
        where=build_where(view),
    )
