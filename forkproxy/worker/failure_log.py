"""One line that explains an upstream failure: which cluster and address, what the kernel said, how long it took, what to look at.

Rate-limited per cluster and reason: a dead endpoint must not fill the disk. What was kept quiet in an interval is told as a
number at its end.
"""

from __future__ import annotations

import errno
import os
from functools import partial

from forkproxy import log
from forkproxy.upstream.cluster import Cluster
from forkproxy.upstream.endpoint import Endpoint

INTERVAL_S = 10.0
MOST_KINDS = 1000
"""So many failures are told apart; then it begins anew."""

_HINTS = (
    ("refused", "nothing listens on that address and port: is the service up, and is the port right?"),
    ("timeout", "no answer at all: a firewall, a wrong address, or connect_timeout is too short"),
    ("timed out", "no answer at all: a firewall or a wrong address"),
    ("unreachable", "no route to that network from here"),
    ("No route to host", "nobody has that address on its network: is the machine up?"),
    ("No such file", "nothing has made that unix socket: is the service up, and is the path right?"),
    ("Permission denied", "this user may not connect there: see the mode of the unix socket, or the firewall"),
    ("reset by peer", "whoever listens there hung up at once: is it overloaded, or does it want another protocol?"),
    ("TLS_error", "the TLS handshake failed: check sni, trusted_ca, and whether the port speaks TLS at all"),
    ("Too many open files", "raise LimitNOFILE / ulimit -n"),
    (
        "Cannot assign requested address",
        "no local port left, or upstream_bind_config names an address that is not here",
    ),
)

_ERRNO_NAMES = {os.strerror(number): name for number, name in sorted(errno.errorcode.items())}

_log = log.get_logger("upstream")


class _Kind:
    """A reason of one cluster; ``quiet`` counts what was not told in this interval."""

    __slots__ = ("address", "quiet")

    def __init__(self) -> None:
        self.quiet = 0
        self.address = ""


class FailureLog:
    """Remembers what was told in the present interval of each kind of failure."""

    __slots__ = ("_told",)

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], _Kind] = {}

    def on_upstream_failure(self, cluster: Cluster, endpoint: Endpoint, reason: str, elapsed_s: float) -> None:
        """A connection could not be made."""
        key = (cluster.name, reason)
        kind = self._told.get(key)
        if kind is not None:
            kind.quiet += 1
            kind.address = str(endpoint.address)
            return
        if len(self._told) >= MOST_KINDS:
            self._told.clear()
        self._begin_interval(cluster, key)
        hostname = {"hostname": endpoint.hostname} if endpoint.hostname else {}
        _log.warning(
            "cannot connect to upstream",
            cluster=cluster.name,
            address=endpoint.address,
            **hostname,
            reason=reason,
            errno=errno_name(reason),
            elapsed_ms=round(elapsed_s * 1000),
            hint=next((hint for word, hint in _HINTS if word in reason), ""),
        )

    def _begin_interval(self, cluster: Cluster, key: tuple[str, str]) -> None:
        kind = self._told[key] = _Kind()
        cluster.loop.call_later(INTERVAL_S, partial(self._end_interval, cluster, key, kind))

    def _end_interval(self, cluster: Cluster, key: tuple[str, str], kind: _Kind) -> None:
        if self._told.get(key) is kind:
            del self._told[key]
        if not kind.quiet:
            return
        self._begin_interval(cluster, key)
        _log.warning(
            "cannot connect to upstream, as before",
            cluster=cluster.name,
            times=kind.quiet,
            in_s=INTERVAL_S,
            last_address=kind.address,
            reason=key[1],
        )


def errno_name(reason: str) -> str:
    """``"ECONNREFUSED"`` for a reason that ends in what the kernel says of it; "" for another."""
    return _ERRNO_NAMES.get(reason.rpartition(": ")[2], "")
