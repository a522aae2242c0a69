"""How long a stream may last (``RouteAction.max_stream_duration``), and what gRPC's own header says about it.

``grpc-timeout`` is digits and a unit, as in "100m" (gRPC over HTTP/2, "Timeout"). Times are whole milliseconds, as in Envoy.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from forkproxy.config.build.route_policies import MaxStreamDuration
from forkproxy.http.headers import Headers
from forkproxy.http.headers import get as get_header
from forkproxy.http.headers import set_ as set_header
from forkproxy.net.timers import NEVER
from forkproxy.router.matcher import is_grpc
from forkproxy.router.retry import milliseconds

if TYPE_CHECKING:
    from forkproxy.http.stream import Stream

_GRPC_TIMEOUT = re.compile(rb"[ \t]*([0-9]{1,8})([HMSmun])")
_MOST = 99_999_999
_MS = {b"H": 3_600_000, b"M": 60_000, b"S": 1000, b"m": 1}
_PER_MS = {b"u": 1000, b"n": 1_000_000}


def grpc_timeout_ms(headers: Headers) -> int | None:
    """What the request's ``grpc-timeout`` says, rounded up; None when it says nothing."""
    value = get_header(headers, b"grpc-timeout")
    found = _GRPC_TIMEOUT.fullmatch(value) if value is not None else None
    if found is None:
        return None
    number, unit = int(found[1]), found[2]
    per_ms = _PER_MS.get(unit)
    return -(-number // per_ms) if per_ms else number * _MS[unit]


def grpc_timeout(ms: int) -> bytes:
    """The header's value for so many milliseconds: no more than eight digits."""
    for unit, factor in ((b"m", 1), (b"S", 1000), (b"M", 60_000), (b"H", 3_600_000)):
        if ms // factor <= _MOST:
            return b"%d%b" % (ms // factor, unit)
    return b"%dH" % _MOST


def limiting(match: Callable[[Stream], Any]) -> Callable[[Stream], Any]:
    """``match``, and the stream is told how long it may last, its upstream too if it speaks gRPC."""

    def match_and_limit(stream: Stream) -> Any:
        route = match(stream)
        if route is not None and route.policies is not None and route.policies.max_stream_duration is not None:
            _limit(stream, route.policies.max_stream_duration)
        return route

    return match_and_limit


def _limit(stream: Stream, limits: MaxStreamDuration) -> None:
    http = stream.http
    headers = stream.request_headers
    asked_ms = grpc_timeout_ms(headers)
    ms = 0
    is_limited = True
    if asked_ms is not None and limits.grpc_max_s is not None:
        most_ms = milliseconds(limits.grpc_max_s)
        ms = min(asked_ms, most_ms) if most_ms else asked_ms
        ms = max(ms - milliseconds(limits.grpc_offset_s), 0)
    else:
        duration_s = limits.duration_s
        if duration_s is None:
            duration_s = http.manager.settings.max_stream_duration_s
        is_limited = duration_s not in (0.0, NEVER)
        ms = milliseconds(duration_s) if is_limited else 0
    if is_grpc(stream):
        if is_limited:
            set_header(headers, b"grpc-timeout", grpc_timeout(ms))
        else:
            headers[:] = [header for header in headers if header[0] != b"grpc-timeout"]
    stream.max_duration_s = ms / 1000 if is_limited else NEVER
    if is_limited:
        http.watch(stream.start + stream.max_duration_s)
