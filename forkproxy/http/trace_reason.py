"""Why a request is to be traced, written into its id, as Envoy does it: the first digit of the id's third group is "4" for no
reason, "9" when it was sampled, "a" when a service inside asks for it, "b" when the client does. Nothing here traces; whoever
gets the id may go by it.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

from forkproxy.http.headers import get as get_header
from forkproxy.http.headers import set_ as set_header

if TYPE_CHECKING:
    from forkproxy.http.stream import Stream

NOT_TRACED = b"4"
SAMPLED = b"9"
SERVICE_FORCED = b"a"
CLIENT_FORCED = b"b"
_REASONS = (SAMPLED, SERVICE_FORCED, CLIENT_FORCED)
_POSITION = 14
_LENGTH = 36


def pack(request_id: bytes, reason: bytes) -> bytes:
    """The id with its reason in it; what is no UUID stays as it is."""
    if len(request_id) != _LENGTH:
        return request_id
    return request_id[:_POSITION] + reason + request_id[_POSITION + 1 :]


class TraceSampling(NamedTuple):
    """``HttpConnectionManager.tracing``, in hundredths of a percent. ``packs``: the id says why; ``by_id``: it also decides."""

    client: int = 10_000
    sampled: int = 10_000
    overall: int = 10_000
    packs: bool = True
    by_id: bool = True

    def decide(self, stream: Stream) -> bytes:
        """Decide whether this request is traced, and say so in its id and in ``is_forced_to_trace``. Returns the reason."""
        request_id = stream.request_id
        number = _number(request_id) if self.by_id else random.getrandbits(32)
        if number is None:
            return NOT_TRACED
        draw = number % 10_000
        reason = request_id[_POSITION : _POSITION + 1] if self.packs and len(request_id) == _LENGTH else NOT_TRACED
        if reason not in _REASONS:
            reason = self._new_reason(stream, draw)
        if draw >= self.overall:
            reason = NOT_TRACED
        stream.is_forced_to_trace = reason == SERVICE_FORCED
        if self.packs and request_id:
            stream.request_id = packed = pack(request_id, reason)
            set_header(stream.request_headers, b"x-request-id", packed)
        return reason

    def _new_reason(self, stream: Stream, draw: int) -> bytes:
        headers = stream.request_headers
        if get_header(headers, b"x-client-trace-id") is not None and random.randrange(10_000) < self.client:
            return CLIENT_FORCED
        if get_header(headers, b"x-envoy-force-trace") is not None:
            return SERVICE_FORCED
        return SAMPLED if draw < self.sampled else NOT_TRACED


def _number(request_id: bytes) -> int | None:
    try:
        return int(request_id[:8], 16) if len(request_id) >= 8 and request_id[:8].isalnum() else None
    except ValueError:
        return None
