"""The TCP health check: a connection, what is sent over it, and what must come back. Without that, connecting is enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forkproxy.config.build.health_check import TcpCheck
from forkproxy.net.connection import LOCAL_CLOSE, Connection
from forkproxy.upstream.health_check import payload
from forkproxy.upstream.health_check.session import NETWORK

if TYPE_CHECKING:
    from forkproxy.upstream.health_check.checker import HealthChecker
    from forkproxy.upstream.health_check.session import Session

MAX_RECEIVED_BYTES = 1 << 20
"""An endpoint that answers more than this without what is expected fails."""

_V2_LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
"""PROXY protocol version 2: the LOCAL command, no addresses."""


class TcpProbe:
    """See the module's text."""

    __slots__ = ("_begun", "_check", "_checker", "_connection", "_received", "_session")

    def __init__(self, checker: HealthChecker, session: Session, check: TcpCheck) -> None:
        self._checker = checker
        self._session = session
        self._check = check
        self._connection: Connection | None = None
        self._begun = False
        self._received = bytearray()

    def check(self) -> None:
        """Probe: connect, unless the connection of the last check is there, and send."""
        self._begun = True
        self._received.clear()
        if self._connection is not None:
            self._send()
            return
        try:
            connection = self._checker.connect(self._session.endpoint)
        except OSError:
            self._begun = False
            self._session.on_failure(NETWORK)
            return
        self._connection = connection
        connection.on_connected = self._on_connected
        connection.on_data = self._on_data
        connection.on_close = self._on_close

    def give_up(self) -> None:
        """Probe: it takes too long."""
        self._begun = False
        self._drop()

    close = give_up

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort(LOCAL_CLOSE)

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

    def _on_close(self, _reason: str) -> None:
        self._connection = None
        self._fail()

    def _fail(self) -> None:
        self._drop()
        if self._begun:
            self._begun = False
            self._session.on_failure(NETWORK)


def _proxy_header(connection: Connection, version: str) -> bytes:
    if version == "V2":
        return _V2_LOCAL
    source, destination = connection.local_socket_address(), connection.remote_address
    if not isinstance(source, tuple) or not isinstance(destination, tuple):
        return b"PROXY UNKNOWN\r\n"
    family = "TCP6" if ":" in destination[0] else "TCP4"
    return f"PROXY {family} {source[0]} {destination[0]} {source[1]} {destination[1]}\r\n".encode()
