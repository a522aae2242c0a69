"""The TCP health check: a connection, what is sent over it, and what must come back. Without that, connecting is enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forkproxy.config.build.health_check import TcpCheck
from forkproxy.net.connection import Connection
from forkproxy.upstream.health_check import payload
from forkproxy.upstream.health_check.probe import ConnectionProbe

if TYPE_CHECKING:
    from forkproxy.upstream.health_check.checker import HealthChecker
    from forkproxy.upstream.health_check.session import Session

MAX_RECEIVED_BYTES = 1 << 20
"""An endpoint that answers more than this without what is expected fails."""

_V2_LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
"""PROXY protocol version 2: the LOCAL command, no addresses."""


class TcpProbe(ConnectionProbe):
    """See the module's text."""

    __slots__ = ("_check", "_received")

    def __init__(self, checker: HealthChecker, session: Session, check: TcpCheck) -> None:
        super().__init__(checker, session)
        self._check = check
        self._received = bytearray()

    def check(self) -> None:
        """Probe: connect, unless the connection of the last check is there, and send."""
        self._begun = True
        self._received.clear()
        if self._connection is not None:
            self._send()
            return
        connection = self._connect()
        if connection is not None:
            connection.on_connected = self._on_connected

    def _on_connected(self) -> None:
        if self._check.receive:
            self._send()
        else:
            # As in Envoy nothing is sent then: nobody could tell whether it arrived.
            self._succeed(keep=False)

    def _send(self) -> None:
        assert self._connection is not None
        if self._check.proxy_protocol:
            self._connection.write(_proxy_header(self._connection, self._check.proxy_protocol))
        if self._check.send:
            self._connection.write(self._check.send)

    def _on_data(self, data: bytes) -> None:
        if not self._begun:
            return
        self._received += data
        if payload.matches(self._check.receive, self._received):
            self._succeed(keep=self._checker.config.reuse_connection)
        elif len(self._received) > MAX_RECEIVED_BYTES:
            self._fail()

    def _succeed(self, *, keep: bool) -> None:
        self._begun = False
        self._received.clear()
        if not keep:
            self._drop()
        self._session.on_success()


def _proxy_header(connection: Connection, version: str) -> bytes:
    if version == "V2":
        return _V2_LOCAL
    source, destination = connection.local_socket_address(), connection.remote_address
    if not isinstance(source, tuple) or not isinstance(destination, tuple):
        return b"PROXY UNKNOWN\r\n"
    family = "TCP6" if ":" in destination[0] else "TCP4"
    return f"PROXY {family} {source[0]} {destination[0]} {source[1]} {destination[1]}\r\n".encode()
