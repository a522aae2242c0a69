"""Heads that are not written all in lower case: names in proper case, as the peer has spelled them, or with a whole URL.

Nothing here is asked where nobody has configured it. What the peer has spelled stands on the list of its headers, which stays
the same list all the way, and overrules the format of the connection it leaves on, as in Envoy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from forkproxy.http.codec import ClientSink, ServerSink
from forkproxy.http.headers import proper_case
from forkproxy.http.http1 import ClientCodec, ServerCodec, ServerSettings

if TYPE_CHECKING:
    from forkproxy.http.stream import Stream

KeyFormat = Callable[[bytes], bytes]


def as_it_is(name: bytes) -> bytes:
    """Lower case."""
    return name


class SpelledHeaders(list[tuple[bytes, bytes]]):
    """Headers that know how their names were spelled first, and what the status was called."""

    __slots__ = ("_names", "_others", "reason")

    def __init__(self, others: KeyFormat) -> None:
        super().__init__()
        self._names: dict[bytes, bytes] = {}
        self._others = others
        self.reason = b""

    def note(self, name: bytes) -> None:
        """A name as it came."""
        self._names.setdefault(name.lower(), name)

    def spell(self, name: bytes) -> bytes:
        """A lower-case name as it is to be written."""
        return self._names.get(name) or self._others(name)


class SpellingServerCodec(ServerCodec):
    """Reads requests and notes the spelling of their headers."""

    __slots__ = ("_others",)

    def __init__(self, sink: ServerSink, settings: ServerSettings, proper_case_others: bool) -> None:
        self._others = proper_case if proper_case_others else as_it_is
        super().__init__(sink, settings)

    def _begin(self) -> None:
        super()._begin()
        self.headers = SpelledHeaders(self._others)

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: one header, or one trailer."""
        headers = self.headers
        if isinstance(headers, SpelledHeaders):
            headers.note(name)
        super().on_header(name, value)


class SpellingClientCodec(ClientCodec):
    """Reads responses and notes the spelling of their headers, and where that is wanted the reason phrase."""

    __slots__ = ("_forward_reason", "_others")

    def __init__(
        self,
        sink: ClientSink,
        max_headers_bytes: int,
        max_headers_count: int,
        proper_case_others: bool,
        forward_reason: bool,
    ) -> None:
        self._others = proper_case if proper_case_others else as_it_is
        self._forward_reason = forward_reason
        super().__init__(sink, max_headers_bytes, max_headers_count)

    def _begin(self) -> None:
        super()._begin()
        self._headers = SpelledHeaders(self._others)

    def on_status(self, reason: bytes) -> None:
        """httptools: the reason phrase."""
        headers = self._headers
        if self._forward_reason and isinstance(headers, SpelledHeaders) and reason.isascii():
            headers.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: one header, or one trailer."""
        headers = self._headers
        if isinstance(headers, SpelledHeaders):
            headers.note(name)
        super().on_header(name, value)


class HeadStyle(NamedTuple):
    """How a cluster's requests are written."""

    key_format: KeyFormat = as_it_is
    full_url: bool = False

    def request_head(self, stream: Stream, tail: bytes) -> bytes:
        """The head of a request. ``tail`` begins with a line end: what the codec adds, and the empty line."""
        headers: Any = stream.request_headers
        spell: KeyFormat = headers.spell if isinstance(headers, SpelledHeaders) else self.key_format
        authority = stream.authority
        target = stream.path or authority
        if self.full_url and stream.path:
            target = _scheme(stream) + b"://" + authority + target
        lines = [stream.method + b" " + target + b" HTTP/1.1", spell(b"host") + b": " + authority]
        lines += [spell(name) + b": " + value for name, value in headers]
        for name in (b"transfer-encoding", b"content-length"):
            tail = tail.replace(name, spell(name), 1)
        return b"\r\n".join(lines) + tail


def _scheme(stream: Stream) -> bytes:
    if stream.http.manager.settings.match_upstream_scheme:
        match_upstream_scheme(stream)
    return stream.scheme


def match_upstream_scheme(stream: Stream) -> None:
    """``scheme_header_transformation.match_upstream``: the scheme is what the endpoint is talked to with."""
    if stream.endpoint is None:
        return
    connection = stream.upstream_connection
    is_secure = stream.cluster.config.tls is not None if connection is None else connection.tls is not None
    stream.scheme = b"https" if is_secure else b"http"


def respell(lines: list[bytes], headers: Any, key_format: KeyFormat) -> list[bytes]:
    """Lines of a response in the spelling of ``headers``, else in ``key_format``."""
    spell = headers.spell if isinstance(headers, SpelledHeaders) else key_format
    return [spell(name) + colon + value for name, colon, value in [line.partition(b":") for line in lines]]


def status_line(line: bytes, status: int, headers: Any) -> bytes:
    """The status line with the reason phrase of ``headers``, where they have one."""
    if isinstance(headers, SpelledHeaders) and headers.reason:
        return b"%b %d %b\r\n" % (line[:8], status, headers.reason)
    return line
