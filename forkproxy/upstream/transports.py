"""What an endpoint is talked to with: the transport sockets of a cluster, and the PROXY header that some begin with."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Sequence

from forkproxy.config.build.load_balancing import metadata_value
from forkproxy.config.build.transport_sockets import ProxyProtocol, SocketMatch
from forkproxy.net import proxy_protocol
from forkproxy.net.address import SocketAddress
from forkproxy.net.connection import Connection
from forkproxy.net.loop import Loop
from forkproxy.stats.group import CounterValue
from forkproxy.upstream.endpoint import ResolvedEndpoint

Transport = Callable[[Loop, socket.socket, SocketAddress, int], Connection]
"""Makes the connection object over a socket whose connect has been started: raw or TLS."""
Origin = tuple[SocketAddress | None, SocketAddress | None]
"""Where a downstream connection comes from and goes to."""


class Announcement:
    """The PROXY header of one connection. Without ``origin`` the connection is the proxy's own (a health check)."""

    __slots__ = ("_config", "_origin")

    def __init__(self, config: ProxyProtocol, origin: Origin | None = None) -> None:
        self._config = config
        self._origin = origin

    def of(self, origin: Origin) -> Announcement:
        """The same for a downstream connection."""
        return Announcement(self._config, origin)

    def __call__(self, connection: Connection) -> bytes:
        """The header, now that the connection stands."""
        if self._config.version == 1:
            own = (connection.local_socket_address(), connection.remote_address)
            return proxy_protocol.version_1(*(self._origin or own))
        if self._origin is None:
            return proxy_protocol.LOCAL
        return proxy_protocol.version_2(*self._origin, self._config.tlvs)


def announce(connection: Connection, origin: Origin) -> None:
    """The connection, if its transport begins with a header at all, is for a downstream one."""
    preamble = connection.preamble
    if isinstance(preamble, Announcement):
        connection.preamble = preamble.of(origin)


def announcing(transport: Transport, config: ProxyProtocol | None) -> Transport:
    """The same transport after a PROXY header."""
    if config is None:
        return transport
    announcement = Announcement(config)

    def announced(loop: Loop, sock: socket.socket, address: SocketAddress, limit: int) -> Connection:
        connection = transport(loop, sock, address, limit)
        connection.preamble = announcement
        return connection

    return announced


class SocketMatcher:
    """``transport_socket_matches``: the first that an endpoint's metadata, else its locality's, has all of."""

    def __init__(
        self,
        matches: Sequence[SocketMatch],
        transports: Sequence[Transport],
        checked: Sequence[Transport],
        counts: Sequence[CounterValue],
    ) -> None:
        """``checked``: the transports of active health checks."""
        self._matches = matches
        self._transports = transports
        self._checked = checked
        self._counts = counts
        self._found: dict[tuple[str, str], int] = {}

    def _index(self, endpoint: ResolvedEndpoint) -> int:
        key = (endpoint.match_metadata, endpoint.locality_match_metadata)
        index = self._found.get(key)
        if index is None:
            index = self._found[key] = self._find(key)
        return index

    def _find(self, key: tuple[str, str]) -> int:
        for text in key:
            has = {name: metadata_value(value) for name, value in json.loads(text).items()} if text else {}
            for index, match in enumerate(self._matches):
                if all(name in has and has[name] == value for name, value in match.wanted):
                    return index
        return -1

    def transport(self, endpoint: ResolvedEndpoint) -> Transport | None:
        """The transport of an endpoint; None for the cluster's own."""
        index = self._index(endpoint)
        return self._transports[index] if index >= 0 else None

    def check_transport(self, endpoint: ResolvedEndpoint, criteria: str = "") -> Transport | None:
        """The same for its health checks; ``criteria``: metadata, as JSON, that takes the place of the endpoint's."""
        index = self._find((criteria, "")) if criteria else self._index(endpoint)
        return self._checked[index] if index >= 0 else None

    def announces(self, endpoint: ResolvedEndpoint) -> bool | None:
        """Whether connections to it begin with a PROXY header; None when the cluster's own transport decides."""
        index = self._index(endpoint)
        return self._matches[index].socket.proxy_protocol is not None if index >= 0 else None

    def count(self, endpoint: ResolvedEndpoint) -> bool:
        """An endpoint has come; False when nothing matches it."""
        index = self._index(endpoint)
        if index >= 0:
            self._counts[index].value += 1
        return index >= 0
