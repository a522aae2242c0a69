"""``config.route.v3.VirtualCluster``: requests of a virtual host that are counted together."""

from __future__ import annotations

from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import HeaderMatcher, Where, build_header_matcher, build_where
from forkproxy.config.values import frozen
from forkproxy.config.view import View


@frozen
class VirtualClusterConfig:
    """``headers``: all of them match, pseudo-headers among them."""

    name: str
    headers: tuple[HeaderMatcher, ...]
    where: Where


def build_virtual_cluster(view: View, context: BuildContext) -> VirtualClusterConfig:
    """``VirtualCluster``."""
    headers = context.each(view.repeated("headers"), build_header_matcher)
    if not headers:
        view.report("virtual clusters must define 'headers'")
    return VirtualClusterConfig(view.str("name"), headers, build_where(view))
