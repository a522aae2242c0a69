"""``extensions.filters.http.buffer.v3`` → BufferConfig."""

from __future__ import annotations

from forkproxy.config.build.context import BuildContext
from forkproxy.config.values import frozen
from forkproxy.config.view import View

type_url = "envoy.extensions.filters.http.buffer.v3.Buffer"


@frozen
class BufferConfig:
    """``Buffer`` and ``BufferPerRoute``: the largest request body in bytes; 0 (only on a route) means not to buffer."""

    max_request_bytes: int


def build(view: View, context: BuildContext) -> BufferConfig:
    """``Buffer``."""
    return BufferConfig(view.uint("max_request_bytes"))


def build_per_route(view: View, context: BuildContext) -> BufferConfig:
    """``BufferPerRoute``; validation has seen that ``disabled`` is true or ``buffer`` set."""
    if view.which("override") == "buffer":
        return build(view.require("buffer"), context)
    view.bool("disabled")
    return BufferConfig(0)
