"""``extensions.filters.network.echo.v3.Echo`` → EchoConfig."""

from __future__ import annotations

from forkproxy.config.build.context import BuildContext
from forkproxy.config.values import frozen
from forkproxy.config.view import View

type_url = "envoy.extensions.filters.network.echo.v3.Echo"


@frozen
class EchoConfig:
    """Echo has no settings."""


def build(view: View, context: BuildContext) -> EchoConfig:
    """``Echo``."""
    return EchoConfig()
