"""A tunnel whose bytes are weighed (``meters.py``)."""

from __future__ import annotations

from typing import ClassVar

from forkproxy.http.connection_manager import HttpConnection
from forkproxy.http.headers import Headers
from forkproxy.http.meters import MeteredHttpConnection, sent_position
from forkproxy.http.stream import Stream
from forkproxy.http.upgrades import Tunnel


class MeteredTunnel(Tunnel, MeteredHttpConnection):
    """What a ``MeteredHttpConnection`` is once the endpoint has granted a tunnel."""

    __slots__ = ()

    was: ClassVar[type[HttpConnection]] = MeteredHttpConnection

    def encode_headers(self, stream: Stream, headers: Headers, end_stream: bool) -> None:
        """The head that grants is weighed; another one weighs itself."""
        self._attach(stream)
        self._head_from = sent_position(self.connection)
        super().encode_headers(stream, headers, end_stream)
        if not end_stream:
            self._weigh_head(stream)
