"""Waits for the whole request before it goes on, so that an endpoint is not kept busy by a slow client.

    - name: envoy.filters.http.buffer
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer
        max_request_bytes: 1048576

A body beyond ``max_request_bytes`` is answered with 413; the limit takes the place of the listener's
``per_connection_buffer_limit_bytes``, up or down. A request that came without a length gets one. A route may have another
limit or switch the filter off (``BufferPerRoute``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from forkproxy.config.build.buffer import BufferConfig
from forkproxy.filters.context import FilterContext
from forkproxy.http.filter import STOP_ITERATION, DataResult, HookResult, HttpFilter
from forkproxy.http.headers import Headers
from forkproxy.http.headers import get as get_header
from forkproxy.http.stream import Stream
from forkproxy.router.table import Route


class Buffer(HttpFilter):
    """See the module's text. ``filter_state`` of a stream that is held: how many bytes of its body have come."""

    def __init__(self, name: str, max_bytes: int) -> None:
        self.name = name
        self.max_bytes = max_bytes

    @classmethod
    def from_config(cls, config: BufferConfig, context: FilterContext) -> Buffer:
        """The limit, and the name that routes know it by."""
        return cls(context.name, config.max_request_bytes)

    def route_config(self, configs: Sequence[Any], route: Route) -> int:
        """The limit on this route; 0 for none."""
        return next((each.max_request_bytes for each in configs if isinstance(each, BufferConfig)), self.max_bytes)

    def decode_headers(self, stream: Stream, headers: Headers, end_stream: bool) -> HookResult:
        """Hold a request that has a body."""
        if end_stream:
            return None
        route = stream.route
        limit: int = self.max_bytes if route is None else route.per_filter_config.get(self.name, self.max_bytes)
        if not limit:
            return None
        stream.decode_buffer_limit = limit
        stream.filter_state[self] = 0
        return STOP_ITERATION

    def decode_data(self, stream: Stream, data: bytes, end_stream: bool) -> DataResult:
        """Count; let go with the last piece."""
        count = stream.filter_state.get(self)
        if count is None:
            return None
        stream.filter_state[self] = count + len(data)
        if not end_stream:
            return STOP_ITERATION
        self._set_length(stream)
        return None

    def decode_trailers(self, stream: Stream, trailers: Headers) -> HookResult:
        """Let go."""
        if self in stream.filter_state:
            self._set_length(stream)
        return None

    def _set_length(self, stream: Stream) -> None:
        headers = stream.request_headers
        if get_header(headers, b"content-length") is None:
            headers.append((b"content-length", b"%d" % stream.filter_state[self]))
