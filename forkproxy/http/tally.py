"""What a request counts towards besides its cluster's plain figures.

Hardly any stream has a ``Tally``: it is there for requests of a virtual cluster or of a route with a ``stat_prefix``, for
internal ones, for those that bring x-envoy-upstream-alt-stat-name, where the node has a zone, and for responses of canaries.
Without one, the router counts ``external.upstream_rq`` of the cluster and nothing else.
"""

from __future__ import annotations

from typing import Any

from forkproxy.stats.dynamic import DynamicStats
from forkproxy.stats.groups import RequestsStats
from forkproxy.stats.snapshot import names_of_status


class Tally:
    """Counts the responses of one stream, and how long they took.

    ``groups``: those of its virtual cluster and its route. ``alternative``: the value of x-envoy-upstream-alt-stat-name.
    ``zone``: this node's.
    """

    __slots__ = (
        "alternative",
        "dynamic",
        "groups",
        "hides_codes",
        "is_canary",
        "is_internal",
        "virtual_cluster",
        "zone",
    )

    def __init__(self) -> None:
        self.dynamic: DynamicStats = None  # type: ignore[assignment]  # the router's
        self.groups: tuple[RequestsStats, ...] = ()
        self.virtual_cluster = b""
        self.alternative = ""
        self.zone = ""
        self.is_internal = False
        self.hides_codes = False
        """The cluster's plain figures say that there was a response, and not of which status."""
        self.is_canary = False
        """Of the response that came last."""

    def begin(self) -> None:
        """An attempt got a connection."""
        for group in self.groups:
            group.upstream_rq_total += 1

    def timeout(self) -> None:
        """The route's timeout has passed."""
        for group in self.groups:
            group.upstream_rq_timeout += 1

    def response(self, cluster: Any, endpoint: Any, status: int) -> None:
        """A response: the endpoint's, or the router's own."""
        stats = cluster.stats
        if self.is_canary:
            stats.canary__upstream_rq[status] += 1
        if self.hides_codes:
            self._response_without_code(cluster, status)
        elif self.is_internal:
            stats.internal__upstream_rq[status] += 1
        else:
            stats.external__upstream_rq[status] += 1
        for group in self.groups:
            group.upstream_rq[status] += 1
        if self.zone or self.alternative:
            self._response_by_name(cluster, endpoint, status)

    def time(self, cluster: Any, endpoint: Any, milliseconds: int) -> None:
        """How long a response took."""
        stats = cluster.stats
        if self.is_canary:
            stats.canary__upstream_rq_time[milliseconds] += 1
        if self.is_internal:
            stats.internal__upstream_rq_time[milliseconds] += 1
        else:
            stats.external__upstream_rq_time[milliseconds] += 1
        for group in self.groups:
            group.upstream_rq_time[milliseconds] += 1
        if self.zone or self.alternative:
            self._time_by_name(cluster, endpoint, milliseconds)

    def retried(self, cluster: Any, status: int) -> None:
        """A response that is followed by another attempt."""
        if self.hides_codes:
            self.dynamic.counters[f"cluster.{cluster.stat_name}.retry.upstream_rq_completed"] += 1
        else:
            cluster.stats.retry__upstream_rq[status] += 1

    def _response_without_code(self, cluster: Any, status: int) -> None:
        # The plain figures are the sums of these two kinds: they cannot be counted there.
        counters = self.dynamic.counters
        prefix = f"cluster.{cluster.stat_name}"
        counters[f"{prefix}.upstream_rq_completed"] += 1
        for name in names_of_status(f"{prefix}.{'internal' if self.is_internal else 'external'}.upstream_rq", status):
            counters[name] += 1

    def _response_by_name(self, cluster: Any, endpoint: Any, status: int) -> None:
        counters = self.dynamic.counters
        for prefix in self._prefixes(cluster, endpoint):
            for name in names_of_status(f"{prefix}.upstream_rq", status):
                counters[name] += 1

    def _time_by_name(self, cluster: Any, endpoint: Any, milliseconds: int) -> None:
        histograms = self.dynamic.histograms
        for prefix in self._prefixes(cluster, endpoint):
            histograms[f"{prefix}.upstream_rq_time"][milliseconds] += 1

    def _prefixes(self, cluster: Any, endpoint: Any) -> list[str]:
        # Under which else: of the zones, of the alternative name, and of the zones below that.
        prefix = f"cluster.{cluster.stat_name}"
        their_zone = endpoint.config.zone if endpoint is not None else ""
        zones = f".zone.{self.zone}.{their_zone}" if self.zone and their_zone else ""
        found = [prefix + zones] if zones else []
        if self.alternative:
            prefix += f".{self.alternative}"
            found += [prefix, f"{prefix}.internal" if self.is_internal else f"{prefix}.external"]
            if self.is_canary:
                found.append(f"{prefix}.canary")
            if zones:
                found.append(prefix + zones)
        return found
