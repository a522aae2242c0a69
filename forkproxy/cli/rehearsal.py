"""A request rehearsed: its head goes through the real connection manager, up to where the HTTP filters would begin.

For ``forkproxy route``. What codec and manager do to a head before a route is looked for (refusing it, normalising the path,
taking the port off the host, removing headers that a client may not set) is done by them, not told from the configuration.
Nothing is sent, logged or counted anywhere.
"""

from __future__ import annotations

import socket
from types import TracebackType
from typing import NoReturn

from forkproxy.http.chain import HttpFilterChain
from forkproxy.http.connection_manager import ConnectionManager, HttpConnection
from forkproxy.http.filter import HttpFilter
from forkproxy.http.headers import Headers
from forkproxy.http.stream import Stream
from forkproxy.net.address import SocketAddress
from forkproxy.net.connection import Connection
from forkproxy.net.filter import STOP_ITERATION, HookResult
from forkproxy.net.loop import Loop


class _Curtain(HttpFilter):
    """The end of the rehearsal: keeps the stream."""

    terminal = True

    def __init__(self) -> None:
        self.stream: Stream | None = None

    def decode_headers(self, stream: Stream, headers: Headers, end_stream: bool) -> HookResult:
        """Hold the stream here."""
        self.stream = stream
        return STOP_ITERATION


class Rehearsal:
    """For as many requests as one likes; a context manager. ``manager`` is not to be used for anything else afterwards."""

    def __init__(self, manager: ConnectionManager) -> None:
        self._loop = Loop(_raise)
        self._manager = manager
        self._sockets: list[socket.socket] = []
        manager.start(self._loop)
        manager.access_logs = ()

    def request(self, head: bytes, local: SocketAddress, peer: SocketAddress) -> tuple[Stream, bool]:
        """The stream that comes of it, and whether it got as far as the filters. Else the manager has answered it."""
        ours, theirs = socket.socketpair()
        self._sockets += (ours, theirs)
        curtain, ended = _Curtain(), _Ended()
        self._manager.chain = HttpFilterChain([curtain])
        self._manager.access_logs = (ended.log,)
        connection = Connection(self._loop, ours, peer)
        connection.local_address = local
        _Rehearsed(self._manager, connection).on_data(head)
        stream = curtain.stream or ended.stream
        assert stream is not None, "a complete head is refused or passed on"
        return stream, curtain.stream is not None

    def __enter__(self) -> Rehearsal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for sock in self._sockets:
            sock.close()
        self._loop.close()


class _Rehearsed(HttpConnection):
    """Its filters are those of the rehearsal, whatever an upgrade would put in their place: none of them is to run."""

    __slots__ = ()

    def use_chain(self, chain: HttpFilterChain) -> None:
        """No: the curtain stays."""


class _Ended:
    """Stands for an access log."""

    def __init__(self) -> None:
        self.stream: Stream | None = None

    def log(self, stream: Stream) -> None:
        """Keep the stream that the manager has answered itself."""
        self.stream = stream


def _raise(error: Exception, _callback: object) -> NoReturn:
    raise error
