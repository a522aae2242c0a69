"""``extensions.filters.network.direct_response.v3.Config`` → DirectResponseConfig."""

from __future__ import annotations

from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.tls import build_data_source
from forkproxy.config.values import frozen
from forkproxy.config.view import View

type_url = "envoy.extensions.filters.network.direct_response.v3.Config"


@frozen
class DirectResponseConfig:
    """``response``: the bytes sent to a new connection before it is closed."""

    response: bytes


def build(view: View, context: BuildContext) -> DirectResponseConfig:
    """``direct_response.v3.Config``; ``body_format`` stays unread."""
    response = view.message("response")
    return DirectResponseConfig(build_data_source(response, context).data if response is not None else b"")
