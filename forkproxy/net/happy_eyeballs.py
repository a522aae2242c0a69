"""Connecting to the first of several addresses that answers (RFC 8305; Envoy: "Happy Eyeballs Support").

The addresses are tried in order, families taking turns, each ATTEMPT_DELAY_S after the one before or as soon as that one has
failed; none is given up before another has won. The Connection is made over the first socket and goes over to the winner's before
a byte has passed, so that whoever owns it notices nothing but a later ``on_connected``.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence

from forkproxy.net.address import SocketAddress
from forkproxy.net.connection import Connection
from forkproxy.net.poller import WRITE
from forkproxy.net.sockets import RawSocket

ATTEMPT_DELAY_S = 0.3
"""RFC 8305 section 8 recommends 250 ms; Envoy takes 300."""


def in_turns(addresses: Sequence[SocketAddress], first: str = "", count: int = 1) -> list[SocketAddress]:
    """``addresses`` with the families taking turns: ``count`` of the first family, then one of each (RFC 8305 section 4).

    ``first``: "V4", "V6", or "" for the family of the first address.
    """
    is_6 = [isinstance(address, tuple) and ":" in address[0] for address in addresses]
    starts_with_6 = first == "V6" or (first != "V4" and bool(is_6) and is_6[0])
    leading = [address for address, six in zip(addresses, is_6, strict=True) if six == starts_with_6]
    others = [address for address, six in zip(addresses, is_6, strict=True) if six != starts_with_6]
    ordered, leading = leading[:count], leading[count:]
    while others or leading:
        ordered += others[:1]
        ordered += leading[:1]
        others, leading = others[1:], leading[1:]
    return ordered


class Race:
    """Of one connection that is being made. ``open_socket`` starts a connect to an address, or raises OSError."""

    __slots__ = ("_attempts", "_connection", "_error", "_left", "_open_socket", "_timer")

    def __init__(
        self,
        connection: Connection,
        others: Sequence[SocketAddress],
        open_socket: Callable[[SocketAddress], socket.socket],
    ) -> None:
        self._connection = connection
        self._left = list(others)
        self._open_socket = open_socket
        self._attempts: dict[RawSocket, SocketAddress] = {}
        """Those that are under way, with where they go."""
        self._error = 0
        self._timer = connection.loop.timer(self._on_delay)

    def start(self) -> None:
        """In place of ``Connection.start_connecting``."""
        connection = self._connection
        assert connection.remote_address is not None
        self._watch(connection.sock, connection.remote_address)
        self._timer.arm(connection.loop.now + ATTEMPT_DELAY_S)

    def _watch(self, sock: RawSocket, address: SocketAddress) -> None:
        self._attempts[sock] = address
        self._connection.loop.register(sock.fileno(), WRITE, lambda _mask: self._on_event(sock))

    def _on_delay(self) -> None:
        if self._connection.closed:
            self._leave()
            return
        self._next_attempt()
        # Also when there is nobody left to try: whoever gave the connection up tells nobody else.
        self._timer.arm(self._connection.loop.now + ATTEMPT_DELAY_S)

    def _next_attempt(self) -> bool:
        while self._left:
            address = self._left.pop(0)
            try:
                self._watch(self._open_socket(address), address)
            except OSError as error:
                self._error = error.errno or errno.ECONNREFUSED
                continue
            return True
        return False

    def _on_event(self, sock: RawSocket) -> None:
        connection = self._connection
        if connection.closed:
            self._leave()
            return
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        address = self._attempts.pop(sock)
        if code:
            self._error = code
            self._end(sock)
            if not self._next_attempt() and not self._attempts:
                self._timer.cancel()
                connection.fail_connecting(self._error)
            return
        self._leave()
        connection.connect_over(sock, address)

    def _end(self, sock: RawSocket) -> None:
        # The connection's own first socket is its to close.
        if sock is self._connection.sock:
            self._connection.loop.unregister(sock.fileno())
        else:
            self._connection.loop.close_later(sock)

    def _leave(self) -> None:
        self._timer.cancel()
        for sock in self._attempts:
            if sock is not self._connection.sock or not self._connection.closed:
                self._end(sock)
        self._attempts.clear()
        self._left.clear()
