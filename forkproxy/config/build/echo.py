"""``extensions.filters.network.echo.v3.Echo`` → EchoConfig."""

from __future__ import annotations

from dataclasses import dataclass

from forkproxy.config.build.context import BuildContext
from forkproxy.config.view import View

type_url = "envoy.extensions.filters.network.echo.v3.Echo"


@dataclass(frozen=True, slots=True)
class EchoConfig:
    """Echo has no settings."""


def build(view: View, context: BuildContext) -> EchoConfig:
    """``Echo``."""
    return EchoConfig()
