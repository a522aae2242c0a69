"""``extensions.filters.http.ip_tagging.v3.IPTagging``: names for ranges of client addresses."""

from __future__ import annotations

from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import FractionalPercent, build_cidr_range, runtime_fraction
from forkproxy.config.values import frozen
from forkproxy.config.view import View


@frozen
class IpTaggingConfig:
    """``IPTagging``.

    ``request_type``: "BOTH", "INTERNAL" or "EXTERNAL". ``tags``: (name, ranges) pairs. ``header``: where the tags go, lower-case;
    "" for x-envoy-ip-tags. ``append``: behind what that header says already, else it is removed first. ``enabled``: the share
    of requests that the runtime key ``ip_tagging.http_filter_enabled`` leaves; None for all.
    """

    request_type: str
    tags: tuple[tuple[str, tuple[str, ...]], ...]
    header: str = ""
    append: bool = True
    enabled: FractionalPercent | None = None


def build(view: View, context: BuildContext) -> IpTaggingConfig:
    """``IPTagging``."""
    header = view.message("ip_tag_header")
    tags = context.each(view.repeated("ip_tags"), build_tag)
    return IpTaggingConfig(
        request_type=view.enum("request_type"),
        tags=tags,
        header=header.str("header").lower() if header is not None else "",
        append=header is None or header.enum("action") == "APPEND_IF_EXISTS_OR_ADD",
        enabled=runtime_fraction("ip_tagging.http_filter_enabled", context),
    )


def build_tag(view: View, context: BuildContext) -> tuple[str, tuple[str, ...]]:
    """``IPTag``."""
    return view.str("ip_tag_name"), context.each(view.repeated("ip_list"), build_cidr_range)
