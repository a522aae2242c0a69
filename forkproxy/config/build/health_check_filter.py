"""``extensions.filters.http.health_check.v3.HealthCheck``: which requests ask for this proxy's health."""

from __future__ import annotations

from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import HeaderMatcher, Where, build_header_matcher, build_where
from forkproxy.config.values import frozen
from forkproxy.config.view import View


@frozen
class HealthCheckFilterConfig:
    """``HealthCheck``. ``cache_s`` 0: nothing is cached; ``min_healthy``: (cluster, percent) pairs, whole ones, as Envoy takes
    them."""

    pass_through: bool
    cache_s: float = 0.0
    min_healthy: tuple[tuple[str, int], ...] = ()
    headers: tuple[HeaderMatcher, ...] = ()
    where: Where = Where()


def build(view: View, context: BuildContext) -> HealthCheckFilterConfig:
    """``HealthCheck``."""
    pass_through = view.bool("pass_through_mode")
    cache_s = view.duration_s("cache_time", 0.0)
    if cache_s and not pass_through:
        view.report("cache_time_ms must not be set when path_through_mode is disabled", field="cache_time")
    percentages: dict[str, View] = view.map_("cluster_min_healthy_percentages")
    return HealthCheckFilterConfig(
        pass_through=pass_through,
        cache_s=cache_s,
        min_healthy=tuple((name, int(percent.float("value"))) for name, percent in percentages.items()),
        headers=context.each(view.repeated("headers"), build_header_matcher),
        where=build_where(view),
    )
