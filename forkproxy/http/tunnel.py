"""What an endpoint answers when it was asked for a tunnel: an upgrade, or CONNECT over HTTP/1.1. And bytes that are no HTTP.

llhttp is shown a response up to the end of its head and no further, until it is known that this head grants nothing: what
follows a head that does is not HTTP (RFC 9110 sections 7.8 and 9.3.6).
"""

from __future__ import annotations

from forkproxy.http.codec import ClientSink, CodecError
from forkproxy.http.header_case import KeyFormat, SpelledHeaders
from forkproxy.http.headers import has_token
from forkproxy.http.http1 import ClientCodec

_END_OF_HEAD = b"\r\n\r\n"


class TunnelCodec(ClientCodec):
    """For one exchange. ``granted``: the head has come that makes a tunnel of the connection; its bytes are ``decode_data``
    from there on, and it ends with the connection alone.

    An answer that grants nothing is an ordinary response, without the headers that speak of upgrades: also one whose head
    names a protocol (426 does, RFC 9110 section 15.5.22). ``others`` and ``forward_reason``: of a cluster that keeps the
    spelling of headers, as SpellingClientCodec has them.
    """

    __slots__ = (
        "_connection",
        "_forward_reason",
        "_is_connect",
        "_others",
        "_tail",
        "_upgrade",
        "granted",
        "header_bytes",
    )

    def __init__(
        self,
        sink: ClientSink,
        max_headers_bytes: int,
        max_headers_count: int,
        *,
        is_connect: bool = False,
        others: KeyFormat | None = None,
        forward_reason: bool = False,
    ) -> None:
        self._others = others
        self._forward_reason = forward_reason
        super().__init__(sink, max_headers_bytes, max_headers_count)
        self.header_bytes = 0
        """Of a head, as ``meters.py`` counts them: tunnels are too few to be spared it."""
        self._is_connect = is_connect
        self._tail = b""  # of what was read: an end of a head may begin in it
        self._connection = b""
        self._upgrade = b""
        self.granted = False

    def _begin(self) -> None:
        super()._begin()
        if self._others is not None:
            self._headers = SpelledHeaders(self._others)

    def on_status(self, reason: bytes) -> None:
        """httptools: the reason phrase."""
        headers = self._headers
        if self._forward_reason and isinstance(headers, SpelledHeaders) and reason.isascii():
            headers.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: one header, or one trailer."""
        self.header_bytes += len(name) + len(value) + 3
        headers = self._headers
        if isinstance(headers, SpelledHeaders):
            headers.note(name)
        super().on_header(name, value)

    def feed(self, data: bytes) -> None:
        """Parse; calls the sink. Raises CodecError."""
        while not (self.granted or self.status or self.complete):
            joined = self._tail + data
            end = joined.find(_END_OF_HEAD)
            if end < 0:
                self._tail = joined[-3:]
                super().feed(data)
                return
            size = end + 4 - len(self._tail)
            self._tail = b""
            self._feed_head(data[:size])
            data = data[size:]
            if not data or self._parser is None:
                return
        if self.granted:
            self.sink.decode_data(data)
        elif self.complete:
            self.unsolicited = True  # the response is whole; what follows it was never asked for
        else:
            super().feed(data)

    def _feed_head(self, data: bytes) -> None:
        try:
            super().feed(data)
        except CodecError:
            if not self.granted:  # llhttp stops behind a 101
                raise

    def _special(self, code: int, name: bytes, value: bytes) -> None:
        if not (self.status or self.complete):
            if name == b"connection":
                self._connection = self._connection + b"," + value if self._connection else value
                self._headers.append((name, value))
            elif name == b"upgrade":
                self._upgrade = value
                self._headers.append((name, value))
        super()._special(code, name, value)

    def on_headers_complete(self) -> None:
        """httptools: the head is complete."""
        status: int = self._parser.get_status_code()
        if self.complete or not (status == 101 or (self._is_connect and 200 <= status < 300)):
            self._headers[:] = [header for header in self._headers if header[0] not in (b"connection", b"upgrade")]
            super().on_headers_complete()
            return
        headers = self._headers
        if len(headers) > self._max_headers_count or self._head_bytes > self._max_headers_bytes:
            self._check_size_of(headers)
        if self._is_connect:
            # RFC 9110 section 9.3.6: a client ignores both.
            dropped = (b"connection", b"upgrade", b"content-length")
            headers[:] = [header for header in headers if header[0] not in dropped]
        else:
            if not self._upgrade or not has_token(self._connection, b"upgrade"):
                raise CodecError("protocol_error", 502)
            if self._transfer_encodings or self.content_length > 0:
                raise CodecError("protocol_error", 502)
            headers[:] = [header for header in headers if header[0] != b"content-length"]
        if not self._line_checked and self._parser.get_http_version() != "1.1":
            self.told_close = True
        self.status = status
        self.granted = True
        self.reusable = False
        self._head_bytes = 0
        self.sink.decode_headers(status, headers, False)

    def on_message_complete(self) -> None:
        """httptools: the message is complete; the one that makes a tunnel never is."""
        if not self.granted:
            super().on_message_complete()

    def finish(self) -> bool:
        """The peer has closed. A tunnel has no end of its own: it is cut."""
        return not self.granted and super().finish()

    @property
    def between_messages(self) -> bool:
        """Nothing of a response has come, or a tunnel stands: then no message was cut."""
        return self.granted or super().between_messages


class RawCodec(ClientCodec):
    """No HTTP: every byte is the sink's, and the end of the connection is the end."""

    __slots__ = ()

    def feed(self, data: bytes) -> None:
        """Hand the bytes on. Raises CodecError when nobody has asked for any."""
        if not self.expecting:
            raise CodecError("unsolicited_response", 502)
        self.sink.decode_data(data)

    def finish(self) -> bool:
        """The peer has closed: that is the end."""
        if not self.expecting:
            return False
        self.complete = True
        self.expecting = False
        self.sink.decode_complete(None)
        return True

    @property
    def between_messages(self) -> bool:
        """There are none that could be cut."""
        return True
