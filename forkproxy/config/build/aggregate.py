"""``extensions.clusters.aggregate.v3.ClusterConfig``: a cluster made of others."""

from __future__ import annotations

from forkproxy.config.build.context import BuildContext
from forkproxy.config.values import frozen
from forkproxy.config.view import View


@frozen
class AggregateConfig:
    """``clusters``: their names, the most preferred first."""

    clusters: tuple[str, ...]


def build_aggregate(view: View, context: BuildContext) -> AggregateConfig:
    """``ClusterConfig``."""
    return AggregateConfig(view.strings("clusters"))
