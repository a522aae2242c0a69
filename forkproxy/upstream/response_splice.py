"""A large response body past the codec: what its head has promised goes from socket to socket (``net/splice.py``).

Only where nothing stands between the two sockets: no TLS, no network filter that writes, no HTTP filter that looks at bodies,
and a ``content-length`` on both sides. The codec learns of the end, and counts nothing meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from forkproxy.net.connection import Connection
from forkproxy.net.splice import WORTH_BYTES, Splice
from forkproxy.upstream.http_pool import Http1Client, PoolRequest

LARGE_PIECE_BYTES = 61440
"""Where one read brings so much of a body, there is more to come."""


class BodyTaker(PoolRequest, Protocol):
    """Whose response it is. ``decode_data`` gets the pieces that are copied after all."""

    def on_body_moved(self, size: int) -> None:
        """So many bytes are on their way downstream already."""


class ResponseSplice(Splice):
    """The rest of one response's body, ``left`` bytes. What it may not splice it copies, and goes on splicing when told to."""

    __slots__ = ("_client", "_taker")

    def __init__(self, client: Http1Client, sink: Connection, left: int, taker: BodyTaker) -> None:
        super().__init__(client.connection, sink, self._count)
        self._client = client
        self._taker = taker
        self.left = left

    def start(self) -> None:
        """The codec sees no more of this response."""
        self._client.connection.on_data = self.on_data
        super().start()

    def _count(self, size: int) -> None:
        self._taker.on_body_moved(size)
        self._end_when_complete()

    def on_data(self, data: bytes) -> None:
        """The source's read callback: bytes that were received in the ordinary way."""
        if len(data) > self.left:
            data = data[: self.left]
            self._client.codec.unsolicited = True
        self.left -= len(data)
        self._taker.decode_data(data)
        self._end_when_complete()

    def _end_when_complete(self) -> None:
        # The exchange may be over by now: then the connection is as well.
        if not self.left and self._client.request is self._taker:
            self._source.read_by(None)
            self._client.end_body()


def response_splice(client: Http1Client, sink: Connection, left: int, taker: BodyTaker) -> Callable[[], None] | None:
    """What begins to splice, and begins again; None when these two connections cannot be spliced, or it is not worth it."""
    source = client.connection
    if left < WORTH_BYTES or type(source) is not Connection or type(sink) is not Connection:
        return None
    if sink.inflow is not None and sink.inflow.piped:
        return None  # the response before this one is still in its pipe
    return ResponseSplice(client, sink, left, taker).start
