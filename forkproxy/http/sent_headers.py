"""The response's headers as they left: with what the connection manager writes beyond those that filters saw."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from forkproxy.http.headers import Headers
from forkproxy.http.headers import get as get_header
from forkproxy.http.headers import set_ as set_header

if TYPE_CHECKING:
    from forkproxy.http.stream import Stream


def sent_headers(stream: Stream) -> Headers:
    """For formats; the path itself never makes this list. Before the head has left, the headers as they are."""
    headers = list(stream.response_headers or ())
    http = stream.http
    if http is None or not stream.downstream_first_tx or stream.response_headers is None:
        return headers
    manager = http.manager
    settings = manager.settings
    if get_header(headers, b"date") is None:
        loop = stream.connection.loop
        moment = loop.wall() - (loop.now - stream.downstream_first_tx)
        headers.append((b"date", time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(moment)).encode()))
    if manager.overwrite_server or (manager.add_server and get_header(headers, b"server") is None):
        set_header(headers, b"server", settings.server_name)
    if settings.request_id_in_response and stream.request_id:
        set_header(headers, b"x-request-id", stream.request_id)
    if settings.via:
        before = get_header(headers, b"via")
        set_header(headers, b"via", before + b", " + settings.via if before is not None else settings.via)
    if stream.announces_close:
        headers.append((b"connection", b"close"))
    elif stream.protocol == b"HTTP/1.0":
        headers.append((b"connection", b"keep-alive"))
    return headers


WRITTEN_LATE = frozenset((b"date", b"server", b"x-request-id", b"via", b"connection"))
"""Headers that are, or may be, only in that list."""
