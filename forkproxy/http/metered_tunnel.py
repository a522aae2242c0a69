"""A tunnel whose bytes are weighed (``meters.py``)."""

from __future__ import annotations

from typing import ClassVar

from forkproxy.http.connection_manager import HttpConnection
from forkproxy.http.meters import MeteredHttpConnection
from forkproxy.http.upgrades import Tunnel


class MeteredTunnel(MeteredHttpConnection, Tunnel):
    """What a ``MeteredHttpConnection`` is once the endpoint has granted a tunnel: it weighs what a Tunnel does."""

    __slots__ = ()

    was: ClassVar[type[HttpConnection]] = MeteredHttpConnection
