"""``Cluster.OriginalDstLbConfig``, and the listener filter that finds out where a client wanted to go."""

from __future__ import annotations

from forkproxy.config.build.context import BuildContext
from forkproxy.config.values import frozen
from forkproxy.config.view import View


@frozen
class OriginalDstConfig:
    """``header``: lower-case, b"" for none. ``port`` 0: the destination's own."""

    header: bytes = b""
    port: int = 0


def build_original_dst(cluster: View) -> OriginalDstConfig:
    """The cluster's ``original_dst_lb_config``; a destination from dynamic metadata stays unread."""
    view = cluster.message("original_dst_lb_config")
    if view is None:
        return OriginalDstConfig()
    name = view.str("http_header_name") or "x-envoy-original-dst-host"
    uses_header = view.bool("use_http_header")
    return OriginalDstConfig(name.lower().encode() if uses_header else b"", view.uint("upstream_port_override"))


def build_listener_filter(view: View, context: BuildContext) -> None:
    """``OriginalDst``, which has no fields."""
