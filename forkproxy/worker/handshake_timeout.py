"""``transport_socket_connect_timeout``: how long a client may take for its TLS handshake."""

from __future__ import annotations

from forkproxy.net.address import SocketAddress
from forkproxy.net.connection import Connection
from forkproxy.net.loop import Loop
from forkproxy.net.sockets import RawSocket
from forkproxy.net.tls import TlsConnection
from forkproxy.stats.groups import ListenerStats
from forkproxy.worker.listener import MakeConnection


def within(timeout_s: float, transport: MakeConnection, stats: ListenerStats) -> MakeConnection:
    """``transport`` of TLS connections, which are closed when their handshake is not done after ``timeout_s``."""

    def limited(loop: Loop, sock: RawSocket, peer: SocketAddress, limit: int) -> Connection:
        connection = transport(loop, sock, peer, limit)
        if isinstance(connection, TlsConnection):
            _Watch(connection, timeout_s, stats)
        return connection

    return limited


class _Watch:
    # Stands around the connection's own on_handshake.
    __slots__ = ("_connection", "_stats", "_tell", "_timer")

    def __init__(self, connection: TlsConnection, timeout_s: float, stats: ListenerStats) -> None:
        self._connection = connection
        self._stats = stats
        self._tell = connection.on_handshake
        self._timer = connection.loop.call_later(timeout_s, self._on_timeout)
        connection.on_handshake = self

    def __call__(self, reason: str) -> None:
        self._timer.cancel()
        if self._tell is not None:
            self._tell(reason)

    def _on_timeout(self) -> None:
        if not self._connection.closed:
            self._stats.downstream_cx_transport_socket_connect_timeout += 1
            self._connection.abort()
