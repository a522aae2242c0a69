"""A stream that goes on as another one: the answer to its request asked for a new request, which is made here.

The connection, the pipelined requests behind it and what the codec knows of them stay as they are. The first stream ends with
its log line but without a response; the second runs all filters anew.
"""

from __future__ import annotations

from forkproxy.http.headers import Headers
from forkproxy.http.stream import Stream


def derive(stream: Stream, method: bytes, scheme: bytes, authority: bytes, path: bytes, headers: Headers) -> Stream:
    """A stream like ``stream``, whose request has ended, with another head. It has not begun, and may be thrown away."""
    http = stream.http
    now = http.loop.now
    derived = Stream(http, method, path, authority, headers, stream.protocol, now)
    derived.scheme = scheme
    derived.request_id = stream.request_id
    derived.remote_address = stream.remote_address
    derived.request_ended = True
    derived.request_complete = now
    derived.bytes_received = stream.bytes_received  # as Envoy, which counts the body again, too
    return derived


def replace(stream: Stream, derived: Stream, body: bytes) -> None:
    """``stream`` ends, and ``derived``, whose route is known, begins in its place."""
    http = stream.http
    manager = http.manager
    now = http.loop.now
    stream.ended = True
    stream.end = now
    stream.upstream = None
    manager.stats.downstream_rq_time[int((now - stream.start) * 1000)] += 1
    if http.chain.on_stream_complete:
        http._tell_filters(stream)
    for log in manager.access_logs:
        log(stream)
    manager.stats.downstream_rq_total += 1
    http.stream = derived
    http.watch(now + manager.stream_timeout_s)
    derived.decode_headers(not body)
    if body:
        derived.decode_data(body, True)
