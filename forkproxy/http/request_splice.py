"""A large request body past the codec, as upstream/response_splice.py has it for responses: from socket to socket.

Only where nothing stands between: no TLS, no network filter, no HTTP filter that looks at bodies, a ``content-length``, and
nobody who keeps the body to send it again.
"""

from __future__ import annotations

from collections.abc import Callable

from forkproxy.http.connection_manager import HttpConnection
from forkproxy.http.stream import Stream
from forkproxy.net.connection import Connection
from forkproxy.net.splice import WORTH_BYTES, Splice


class RequestSplice(Splice):
    """The rest of one request's body, ``left`` bytes. What it may not splice it copies, and goes on splicing when told to."""

    __slots__ = ("_http", "_stream")

    def __init__(self, http: HttpConnection, stream: Stream, sink: Connection, left: int) -> None:
        super().__init__(http.connection, sink, self._count)
        self._http = http
        self._stream = stream
        self.left = left

    def start(self) -> None:
        """The codec sees no more of this body."""
        self._http.connection.on_data = self.on_data
        super().start()

    def _count(self, size: int) -> None:
        self._stream.bytes_received += size
        self._stream.last_activity = self._http.loop.now
        self._end_when_complete(b"")

    def on_data(self, data: bytes) -> None:
        """The source's read callback: bytes that were received in the ordinary way, perhaps with the next request behind."""
        piece, rest = data[: self.left], data[self.left :]
        self.left -= len(piece)
        self._http.decode_data(piece)
        self._stream.last_activity = self._http.loop.now
        self._end_when_complete(rest)

    def _end_when_complete(self, rest: bytes) -> None:
        http = self._http
        connection = http.connection
        if self.left or connection.closing or connection.closed:
            return
        connection.read_by(None)
        connection.on_data = http.on_data
        http.codec.end_body()
        if rest:
            http.on_data(rest)


def request_splice(stream: Stream, sink: Connection) -> Callable[[], None] | None:
    """What begins to splice, and begins again; None when these two connections cannot be spliced, or it is not worth it."""
    http: HttpConnection = stream.http
    source = http.connection
    if type(source) is not Connection or type(sink) is not Connection or source.on_data != http.on_data:
        return None
    if not http.is_reading_body_of(stream) or len(http.chain.decode_data) != 1:
        return None
    left = http.codec.body_bytes - stream.bytes_received
    if left < WORTH_BYTES or (sink.inflow is not None and sink.inflow.piped):
        return None
    return RequestSplice(http, stream, sink, left).start
