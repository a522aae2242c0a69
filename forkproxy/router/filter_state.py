"""What filters have left for others under a name, as Envoy's filter state: here a str or bytes in ``filter_state``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forkproxy.http.stream import Stream

UPSTREAM_ADDRESS = "envoy.stream.upstream_address"
"""Where the dynamic forward proxy leaves the address (``ip:port``) that it will go to, when it is told to."""


def filter_state_text(stream: Stream, key: str) -> bytes | None:
    """The text under ``key`` on the stream or else on its connection; None when there is none."""
    value: Any = stream.filter_state.get(key)
    if value is None and stream.connection.filter_state is not None:
        value = stream.connection.filter_state.get(key)
    if isinstance(value, str):
        return value.encode()
    return value if isinstance(value, bytes) else None
