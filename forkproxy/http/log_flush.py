"""Access logs that are written before a stream is over: when its request has come, and then every so often."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from forkproxy.http.chain import HttpFilterChain
from forkproxy.http.headers import Headers
from forkproxy.http.stream import Stream

Log = Callable[[Any], None]


class LogFlush:
    """Hooks at the beginning of a filter chain: the route is known there, and nothing has been done with the request."""

    def __init__(self, on_new_request: Sequence[Log], periodic: Sequence[Log], interval_s: float) -> None:
        self._on_new_request = tuple(on_new_request)
        self._periodic = tuple(periodic)
        self._interval_s = interval_s

    def install(self, chain: HttpFilterChain) -> None:
        """Take part in ``chain``."""
        chain.decode_headers = ((-1, self.decode_headers), *chain.decode_headers)
        if self._periodic:
            chain.on_stream_complete = (*chain.on_stream_complete, self.on_stream_complete)

    def decode_headers(self, stream: Stream, _headers: Headers, _end_stream: bool) -> None:
        """A new request."""
        for log in self._on_new_request:
            log(stream)
        if self._periodic:
            timer = stream.connection.loop.timer(lambda: self._again(stream))
            stream.filter_state[self] = timer
            timer.arm(stream.start + self._interval_s)

    def _again(self, stream: Stream) -> None:
        for log in self._periodic:
            log(stream)
        stream.filter_state[self].arm(stream.connection.loop.now + self._interval_s)

    def on_stream_complete(self, stream: Stream) -> None:
        """The last line is written by others."""
        timer = stream.filter_state.pop(self, None)
        if timer is not None:
            timer.cancel()
