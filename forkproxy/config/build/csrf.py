"""``extensions.filters.http.csrf.v3.CsrfPolicy``, of the filter and of routes."""

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


@frozen
class CsrfPolicy:
    """``CsrfPolicy``. ``shadow_enabled`` None: never only looked at."""

    filter_enabled: FractionalPercent
    shadow_enabled: FractionalPercent | None = None
    additional_origins: tuple[StringMatcher, ...] = ()
    where: Where = Where()


def build(view: View, context: BuildContext) -> CsrfPolicy:
    """``CsrfPolicy``."""
    shadow = view.message("shadow_enabled")
    return CsrfPolicy(
        filter_enabled=build_runtime_fraction(view.require("filter_enabled"), context),
        shadow_enabled=build_runtime_fraction(shadow, context) if shadow is not None else None,
        additional_origins=context.each(view.repeated("additional_origins"), build_string_matcher),
        where=build_where(view),
    )
