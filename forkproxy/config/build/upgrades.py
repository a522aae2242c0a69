"""``upgrade_configs``, of the connection manager and of routes, CONNECT among them."""

from __future__ import annotations

from typing import Final

from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.listener import FilterEntry
from forkproxy.config.build.transport_sockets import ProxyProtocol, build_proxy_protocol
from forkproxy.config.values import frozen
from forkproxy.config.view import View

CONNECT: Final = "connect"
CONNECT_UDP: Final = "connect-udp"


@frozen
class Upgrade:
    """``HttpConnectionManager.UpgradeConfig``. ``filters``: a chain of its own; () for the connection manager's."""

    upgrade_type: str
    enabled: bool = True
    filters: tuple[FilterEntry, ...] = ()


@frozen
class ConnectConfig:
    """``RouteAction.UpgradeConfig.ConnectConfig``: the bytes of a CONNECT go to the endpoint as they are, ``allow_post``: those
    of a POST too. ``proxy_protocol``: what is sent before them."""

    proxy_protocol: ProxyProtocol | None = None
    allow_post: bool = False


def build_upgrade_type(view: View) -> str:
    """``upgrade_type``, of either message."""
    upgrade_type = view.str("upgrade_type")
    if upgrade_type.lower() == CONNECT_UDP:
        view.unsupported("CONNECT-UDP is not implemented: it is for HTTP/2 and HTTP/3", field="upgrade_type")
    return upgrade_type


def build_route_upgrades(
    views: list[View], context: BuildContext
) -> tuple[tuple[tuple[str, bool], ...], ConnectConfig | None]:
    """``RouteAction.upgrade_configs``: which types are allowed or not, and what a CONNECT does that ends here."""
    upgrades: list[tuple[str, bool]] = []
    connect: ConnectConfig | None = None
    for view in views:
        upgrades.append((build_upgrade_type(view), view.bool("enabled", True)))
        config = view.message("connect_config")
        if config is not None:
            connect = build_connect_config(config, context)
    return tuple(upgrades), connect


def build_connect_config(view: View, context: BuildContext) -> ConnectConfig:
    """``ConnectConfig``."""
    header = view.message("proxy_protocol_config")
    return ConnectConfig(
        proxy_protocol=build_proxy_protocol(header, context) if header is not None else None,
        allow_post=view.bool("allow_post"),
    )
