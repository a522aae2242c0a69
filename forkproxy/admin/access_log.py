"""The admin access log's line, in Envoy's default format (which the configuration cannot change)."""

from __future__ import annotations

from datetime import UTC, datetime

from forkproxy.admin.config_dump import timestamp
from forkproxy.admin.context import AdminAccess


def line(access: AdminAccess) -> bytes:
    """One line, with its end. What a peer sent cannot break out of it: the parser let no control characters in."""
    start = timestamp(datetime.fromtimestamp(access.start, UTC))
    forwarded_for = access.forwarded_for or access.peer.rpartition(":")[0]
    quoted = " ".join(
        f'"{text or "-"}"' for text in (forwarded_for, access.user_agent, access.request_id, access.host, "")
    )
    return (
        f'[{start}] "{access.method} {access.path} {access.protocol}" {access.status} - {access.bytes_received} '
        f"{access.bytes_sent} {access.duration_ms} - {quoted}\n"
    ).encode("latin-1", "backslashreplace")
