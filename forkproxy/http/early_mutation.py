"""``early_header_mutation_extensions``: what changes a request's headers before anybody has looked at them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from forkproxy.http.headers import Headers, has_token
from forkproxy.http.http1 import request_flags

if TYPE_CHECKING:
    from forkproxy.http.stream import Stream

_FRAMING = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))


def mutate_early(stream: Stream, mutate: Callable[[Stream, Headers], None]) -> int:
    """Change the headers; returns the codec's flags for what came of it. What belongs to the connection cannot be added."""
    headers = stream.request_headers
    stream.scheme = b""  # nobody has come to it
    mutate(stream, headers)
    stream.scheme = b"http"
    kept = []
    for line in headers:
        name, value = line
        if name == b"te":
            if not has_token(value, b"trailers"):
                continue
            line = (name, b"trailers")
        if name not in _FRAMING:
            kept.append(line)
    headers[:] = kept
    return request_flags(headers)
