"""What a request and its answer weigh on the wire, for the operators of formats that ask for it.

The connection manager takes ``MeteredHttpConnection`` instead of ``HttpConnection``, and the router its metered requests, only
where a format names one of these operators; who names none pays nothing. The sums are Envoy's: the bytes of a message are all
of it, on TLS before encryption; the bytes of its headers are without start line and end, as sent a line each with its line end,
as received name and value and three more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from forkproxy.http.connection_manager import ConnectionManager, HttpConnection
from forkproxy.http.http1 import ClientCodec, ServerCodec
from forkproxy.http.status import HTTP_10, HTTP_11
from forkproxy.http.stream import Stream

if TYPE_CHECKING:
    from forkproxy.http.headers import Headers
    from forkproxy.net.connection import Connection


EMPTY_HEAD = 3
"""What a head without headers counts."""


class Counted(Protocol):
    """The figures of a connection."""

    bytes_received: int
    bytes_sent: int
    out_bytes: int


def sent_position(connection: Counted) -> int:
    """How many bytes were given to the connection to send, so far."""
    return connection.bytes_sent + connection.out_bytes


def written_size(headers: Headers) -> int:
    """Header lines as they are sent."""
    return sum([len(name) + len(value) + 4 for name, value in headers])


class Meters:
    """The figures of one stream. Those of the upstream side are of all its attempts together."""

    __slots__ = (
        *("_connection", "_received_before", "_received_until", "_sent_before", "header_in", "header_out"),
        *(
            "pool_ready_ms",
            "upstream",
            "upstream_decompressed_in",
            "upstream_header_in",
            "upstream_header_out",
            "upstream_in",
            "upstream_out",
        ),
    )

    def __init__(self, connection: Counted, received_before: int, sent_before: int) -> None:
        self._connection = connection
        self._received_before = received_before
        self._received_until = -1
        self._sent_before = sent_before
        self.header_in = 0
        self.header_out = 0
        self.pool_ready_ms: int | None = None
        """How long the last attempt waited for a connection, or for its failure."""
        self.upstream: UpstreamMark | None = None
        """Where the connection of the attempt that runs stood at its beginning."""
        self.upstream_header_in = 0
        self.upstream_decompressed_in = 0
        self.upstream_header_out = 0
        self.upstream_in = 0
        self.upstream_out = 0

    def end_request(self, received: int) -> None:
        """The request is over, and with it what the connection has received up to here."""
        if self._received_until < 0:
            self._received_until = received

    def move(self, received_before: int) -> None:
        """The request has begun there."""
        self._received_before = received_before

    def begin_response(self) -> None:
        """What is sent from now on belongs to this stream."""
        self._sent_before = sent_position(self._connection)

    def end_attempt(self) -> None:
        """Add up what an attempt has sent and received."""
        if self.upstream is not None:
            self.upstream_in += self.upstream.received()
            self.upstream_out += self.upstream.sent()
            self.upstream = None

    def add_upstream_head(self, header_bytes: int) -> None:
        """A response's head has come. Without any header it counts as one that is empty."""
        self.upstream_header_in += header_bytes or EMPTY_HEAD
        self.upstream_decompressed_in += self.upstream_header_in  # Envoy adds the sum of all attempts with each of them

    # -- what operators read

    def downstream_wire_received(self) -> int:
        """DOWNSTREAM_WIRE_BYTES_RECEIVED."""
        until = self._received_until
        return (until if until >= 0 else self._connection.bytes_received) - self._received_before

    def downstream_wire_sent(self) -> int:
        """DOWNSTREAM_WIRE_BYTES_SENT."""
        return max(sent_position(self._connection) - self._sent_before, 0)  # closing forgets what still waited

    def downstream_header_received(self) -> int:
        """DOWNSTREAM_HEADER_BYTES_RECEIVED."""
        return self.header_in

    def downstream_header_sent(self) -> int:
        """DOWNSTREAM_HEADER_BYTES_SENT."""
        return self.header_out

    def upstream_wire_received(self) -> int:
        """UPSTREAM_WIRE_BYTES_RECEIVED."""
        return self.upstream_in + (self.upstream.received() if self.upstream is not None else 0)

    def upstream_wire_sent(self) -> int:
        """UPSTREAM_WIRE_BYTES_SENT."""
        return self.upstream_out + (self.upstream.sent() if self.upstream is not None else 0)

    def upstream_decompressed_received(self) -> int:
        """UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED."""
        return self.upstream_decompressed_in

    def upstream_header_received(self) -> int:
        """UPSTREAM_HEADER_BYTES_RECEIVED."""
        return self.upstream_header_in

    def upstream_header_sent(self) -> int:
        """UPSTREAM_HEADER_BYTES_SENT."""
        return self.upstream_header_out


class _Nothing:
    # Where there was never a connection.
    bytes_received = bytes_sent = out_bytes = 0


def unconnected(pool_ready_ms: int | None) -> Meters:
    """The figures of an attempt that got no connection: none but how long it has waited."""
    meters = Meters(_Nothing(), 0, 0)
    meters.pool_ready_ms = pool_ready_ms
    return meters


class UpstreamMark:
    """Where an upstream connection stood when a request was given to it."""

    __slots__ = ("_connection", "_received", "_sent")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._received = connection.bytes_received
        self._sent = sent_position(connection)

    def received(self) -> int:
        """Bytes since then."""
        return self._connection.bytes_received - self._received

    def sent(self) -> int:
        """Bytes since then."""
        return max(sent_position(self._connection) - self._sent, 0)  # closing forgets what still waited


class MeteredServerCodec(ServerCodec):
    """Adds up the header lines."""

    __slots__ = ("header_bytes", "header_lines")

    header_bytes: int
    header_lines: int

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: one header, or one trailer."""
        self.header_bytes += len(name) + len(value) + 3
        self.header_lines += 1
        super().on_header(name, value)


class MeteredClientCodec(ClientCodec):
    """Adds up the header lines."""

    __slots__ = ("header_bytes",)

    header_bytes: int

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: one header, or one trailer."""
        self.header_bytes += len(name) + len(value) + 3
        super().on_header(name, value)


class MeteredHttpConnection(HttpConnection):
    """An HttpConnection whose streams have ``meters``."""

    __slots__ = ("_behind", "_codec", "_head_from", "_message_from", "_reading", "_sent_from")

    def __init__(self, manager: ConnectionManager, connection: Connection) -> None:
        super().__init__(manager, connection)
        self._message_from = 0  # where the message that is read began
        self._sent_from = 0  # and what had been sent then
        self._head_from = -1  # where the response's head begins, until it is weighed
        self._reading: list[Meters] = []  # of the requests that came with the last read, or are under way
        self._behind: list[tuple[Stream, int]] = []  # of those, the pipelined ones, with the size of their heads

    def _make_codec(self) -> ServerCodec:
        self._codec = MeteredServerCodec(self, self.manager.settings.codec)
        self._codec.header_bytes = self._codec.header_lines = 0
        return self._codec

    # -- the request

    def on_data(self, data: bytes) -> None:
        """The connection's read callback."""
        self._before(data)
        super().on_data(data)
        if self._behind:
            self._split(data)

    def _before(self, data: bytes) -> None:
        if not self.codec.fresh:
            return
        before = self.connection.bytes_received - len(data)
        for meters in self._reading:
            meters.end_request(before)
        self._reading = []
        self._message_from = before
        if self.stream is None:
            self._sent_from = sent_position(self.connection)

    def _split(self, data: bytes) -> None:
        # Envoy counts a whole read with the first request in it, and what was left with the next one. The parser does not
        # tell where a request ends, so the sizes of those behind the first are reckoned from what they hold.
        end = self.connection.bytes_received
        for stream, size in reversed(self._behind):
            end -= size + sum([len(each) for queued in self.queue if queued.stream is stream for each in queued.body])
            assert stream.meters is not None
            stream.meters.move(end)
        self._behind.clear()

    def decode_headers(self, end_stream: bool) -> None:
        """ServerSink: a request head is complete."""
        super().decode_headers(end_stream)
        self._codec.header_bytes = self._codec.header_lines = 0

    def _attach(self, stream: Stream) -> Meters:
        meters = stream.meters
        if meters is None:
            meters = stream.meters = Meters(self.connection, self._message_from, self._sent_from)
            if stream.method:
                meters.header_in = self._codec.header_bytes or EMPTY_HEAD
            self._reading.append(meters)
        return meters

    def _enqueue(self, stream: Stream, end_stream: bool) -> None:
        self._attach(stream)
        codec = self._codec
        head = len(codec.method) + len(codec.path) + 14 + codec.header_bytes + codec.header_lines
        self._behind.append((stream, head))
        super()._enqueue(stream, end_stream)

    def _begin_stream(self, stream: Stream, end_stream: bool, request_flags: int, upgrade: bytes, plain: bool) -> None:
        meters = stream.meters
        if meters is None:
            self._attach(stream)
        else:
            meters.begin_response()  # it has waited behind another one
        super()._begin_stream(stream, end_stream, request_flags, upgrade, plain)

    # -- the response

    def encode_headers(self, stream: Stream, headers: Headers, end_stream: bool) -> None:
        """The head leaves."""
        self._attach(stream)
        self._head_from = sent_position(self.connection)
        super().encode_headers(stream, headers, end_stream)
        if not end_stream:
            self._weigh_head(stream)

    def encode_passed_headers(self, stream: Stream, headers: Headers, framed: bool, body: bytes) -> bool:
        """The head leaves, and is weighed as all others are."""
        self.encode_headers(stream, headers, False)
        return False

    def _weigh_head(self, stream: Stream) -> None:
        meters = stream.meters
        if self._head_from >= 0 and meters is not None:
            status_line = (HTTP_10 if self.http_10 else HTTP_11)[stream.status]
            size = sent_position(self.connection) - self._head_from
            meters.header_out = max(size - len(status_line) - 2, 0)
        self._head_from = -1

    def encode_end(self, stream: Stream) -> None:
        """The body has ended."""
        self._weigh_head(stream)
        super().encode_end(stream)

    def _end_response(self, stream: Stream) -> None:
        self._weigh_head(stream)
        super()._end_response(stream)

    def _end_stream(self, stream: Stream) -> None:
        self._attach(stream)  # one that never got so far
        super()._end_stream(stream)
