"""One line that explains an upstream failure: which cluster and address, what the kernel said, how long it took, what to look at.

Rate-limited per cluster and reason: a dead endpoint must not fill the disk.
"""

from __future__ import annotations

from forkproxy import log
from forkproxy.upstream.cluster import Cluster
from forkproxy.upstream.endpoint import Endpoint

INTERVAL_S = 10.0

_HINTS = (
    ("refused", "nothing listens on that address and port: is the service up, and is the port right?"),
    ("timeout", "no answer at all: a firewall, a wrong address, or connect_timeout is too short"),
    ("timed out", "no answer at all: a firewall or a wrong address"),
    ("unreachable", "no route to that network from here"),
    ("TLS_error", "the TLS handshake failed: check sni, trusted_ca, and whether the port speaks TLS at all"),
    ("Too many open files", "raise LimitNOFILE / ulimit -n"),
    (
        "Cannot assign requested address",
        "no local port left, or upstream_bind_config names an address that is not here",
    ),
)

_log = log.get_logger("upstream")


class FailureLog:
    """Remembers when each failure was last told, and how many were kept quiet since."""

    __slots__ = ("_quiet_until", "_suppressed")

    def __init__(self) -> None:
        self._quiet_until: dict[tuple[str, str], float] = {}
        self._suppressed: dict[tuple[str, str], int] = {}

    def on_upstream_failure(self, cluster: Cluster, endpoint: Endpoint, reason: str, elapsed_s: float) -> None:
        """A connection could not be made."""
        key = (cluster.name, reason)
        now = cluster.loop.now
        if now < self._quiet_until.get(key, 0.0):
            self._suppressed[key] = self._suppressed.get(key, 0) + 1
            return
        self._quiet_until[key] = now + INTERVAL_S
        _log.warning(
            "cannot connect to upstream",
            cluster=cluster.name,
            address=endpoint.address,
            hostname=endpoint.hostname,
            reason=reason,
            elapsed_ms=round(elapsed_s * 1000),
            hint=next((hint for word, hint in _HINTS if word in reason), ""),
            not_shown_before=self._suppressed.pop(key, 0),
        )
