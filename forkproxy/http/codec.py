"""The two codec contracts: bytes in, calls out. No sockets, no clock, no event objects.

A server codec reads requests for a ``ServerSink`` (the connection manager's connection), a client codec reads responses for
a ``ClientSink`` (the pool's upstream connection). What is wrong with the peer's bytes is raised as CodecError, once, by
``feed``; after that the codec is of no use.
"""

from __future__ import annotations

from typing import Any, Protocol

from forkproxy.http.headers import Headers


class CodecError(Exception):
    """The peer broke the protocol. ``details``: Envoy's response code details; ``status``: what a server answers."""

    def __init__(self, details: str, status: int = 400) -> None:
        super().__init__(details)
        self.details = details
        self.status = status


class ServerSink(Protocol):
    """Who a server codec calls. The head's parts stand on the codec itself until the next head."""

    def decode_headers(self, end_stream: bool) -> None:
        """A request head is complete; ``end_stream``: no body follows."""

    def decode_data(self, data: bytes) -> None:
        """A piece of the request body."""

    def decode_complete(self, trailers: Headers | None) -> None:
        """The request's body has ended. Not called after decode_headers(end_stream=True)."""


class ClientSink(Protocol):
    """Who a client codec calls."""

    def decode_interim(self, status: int, headers: Headers) -> None:
        """A 1xx response other than 101."""

    def decode_headers(self, status: int, headers: Headers, end_stream: bool) -> None:
        """A final response head."""

    def decode_data(self, data: bytes) -> None:
        """A piece of the response body."""

    def decode_complete(self, trailers: Headers | None) -> None:
        """The response's body has ended. Not called after decode_headers(end_stream=True)."""


class _NoSink:
    # A connection may end inside a callback: what the rest of that feed still says, nobody hears.
    __slots__ = ()

    def decode_interim(self, *_args: object) -> None:
        pass

    decode_headers = decode_data = decode_complete = decode_interim


NO_SINK: Any = _NoSink()
"""The sink of a closed codec."""
