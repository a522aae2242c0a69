"""One address that requests are sent to, with its figures and its connection pool."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from operator import attrgetter
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from forkproxy.config.values import frozen
from forkproxy.net import address as addresses
from forkproxy.net.address import SocketAddress
from forkproxy.stats.groups import EndpointStats
from forkproxy.upstream import health

if TYPE_CHECKING:
    from forkproxy.upstream.http_pool import HttpPool
    from forkproxy.upstream.outlier_detection import Monitor


@frozen
class ResolvedEndpoint:
    """An endpoint whose address is known: from the file (STATIC) or from DNS."""

    address: SocketAddress
    hostname: str = ""
    weight: int = 1
    priority: int = 0
    health_status: str = "UNKNOWN"
    region: str = ""
    zone: str = ""
    sub_zone: str = ""
    locality_weight: int = 0
    overprovisioning_factor: int = 140
    weighted_priority_health: bool = False
    """These two are the same for all of an assignment."""
    metadata: str = ""
    """What load balancers read of the endpoint's metadata (``envoy.lb``), as JSON; "" when there is none."""
    filter_metadata: str = ""
    """All of it, for formats."""
    match_metadata: str = ""
    locality_match_metadata: str = ""
    """What chooses the transport socket (``envoy.transport_socket_match``), of the endpoint and of its locality."""
    additional_addresses: tuple[SocketAddress, ...] = ()
    """Other addresses of the same endpoint, tried when ``address`` does not answer at once."""
    check_host: str = ""
    """Where active health checks go, when not to ``address``: an IP literal, or the path of a unix-domain socket."""
    check_port: int = 0
    check_hostname: str = ""
    """The Host of HTTP checks of this endpoint; "" when the checks' own counts."""
    check_disabled: bool = False


_GOES_ON: Final = frozenset(
    (
        *("weight", "priority", "health_status", "locality_weight", "overprovisioning_factor"),
        *("weighted_priority_health", "metadata", "filter_metadata"),
    )
)
identity: Callable[[ResolvedEndpoint], tuple[object, ...]] = attrgetter(
    *[field.name for field in fields(ResolvedEndpoint) if field.name not in _GOES_ON]
)
"""What makes an endpoint the one it is: while only weight, priority, health and metadata change, the live one goes on."""


class Endpoint:
    """The live endpoint in a worker. ``rq_active_of_all`` on ``stats`` is what LEAST_REQUEST compares."""

    __slots__ = (
        "address",
        "config",
        "health_flags",
        "healthy_since",
        "hostname",
        "is_canary",
        "lb_metadata",
        "monitor",
        "pool",
        "socket_address",
        "stats",
        "weight",
    )

    def __init__(
        self, config: ResolvedEndpoint, stats: EndpointStats, make_pool: Callable[[Endpoint], HttpPool]
    ) -> None:
        self.config = config
        self.socket_address = config.address
        self.address = addresses.text(config.address)
        """ "ip:port", as %UPSTREAM_HOST% and /clusters show it."""
        self.hostname = config.hostname
        self.weight = config.weight
        self.health_flags = health.flags_of_status(config.health_status)
        """upstream/health.py; changed by ``Cluster.set_health_flags`` only."""
        self.healthy_since = monotonic()
        """When it was found, or passed its active health checks again, in seconds of the loop's clock: its slow start begins."""
        self.lb_metadata: dict[str, Any] = json.loads(config.metadata) if config.metadata else {}
        self.is_canary = self.lb_metadata.get("canary") is True
        self.monitor: Monitor | None = None
        """Who is told the results of requests; None when nobody wants to know them."""
        self.stats = stats
        self.pool = make_pool(self)

    def update(self, config: ResolvedEndpoint) -> None:
        """Another configuration of the same identity."""
        self.config = config
        self.weight = config.weight
        self.lb_metadata = json.loads(config.metadata) if config.metadata else {}
        self.is_canary = self.lb_metadata.get("canary") is True
        found_out = self.health_flags & ~health.CONFIGURED_FLAGS
        self.health_flags = health.flags_of_status(config.health_status) | found_out

    def move(self, config: ResolvedEndpoint) -> None:
        """New connections go elsewhere; those that there are stay. Of a LOGICAL_DNS cluster's only endpoint."""
        self.config = config
        self.socket_address = config.address
        self.address = addresses.text(config.address)

    def count_on(self, figures: EndpointStats) -> None:
        """Count there from now on, what is open included."""
        before = self.stats
        if figures is before:
            return
        for name in EndpointStats.layout.gauges:
            value = getattr(before, name)
            setattr(before, name, 0)
            setattr(figures, name, getattr(figures, name) + value)
        self.stats = figures

    def __repr__(self) -> str:
        return f"<Endpoint {self.address} weight={self.weight} active={self.stats.rq_active}>"


class StatSlots:
    """Gives every address of a cluster a place among the cells that the supervisor laid out before the fork.

    DNS brings addresses that nobody knew then. Every process assigns by the same rule on the same messages, so all agree.
    An address keeps its slot while it is listed; beyond the capacity, addresses share the last one. A new address gets the
    slot that has been free for longest: cells go on counting, so that a slot of its own means figures from 0.
    """

    __slots__ = ("_free", "_groups", "_slot_of")

    def __init__(self, groups: Sequence[EndpointStats]) -> None:
        self._groups = groups
        self._slot_of: dict[SocketAddress, int] = {}
        self._free = list(range(len(groups)))

    def adopt(self, before: StatSlots) -> None:
        """Go on from the slots of the same cluster in the generation before: its cells are the same."""
        self._slot_of = dict(before._slot_of)
        self._free = list(before._free)

    def assign(self, listed: Sequence[SocketAddress]) -> list[tuple[int, EndpointStats]]:
        """(slot, figures) of each address, in order."""
        slot_of, free = self._slot_of, self._free
        for address in slot_of.keys() - set(listed):
            slot_of.pop(address)
        taken = set(slot_of.values()) | set(free)
        free += [slot for slot in range(len(self._groups)) if slot not in taken]
        for address in listed:
            if address not in slot_of:
                slot_of[address] = free.pop(0) if free else len(self._groups) - 1
        return [(slot_of[address], self._groups[slot_of[address]]) for address in listed]

    def take(self, address: SocketAddress) -> tuple[int, EndpointStats]:
        """(slot, figures) of one more address: what ``assign`` of all would give it, without a look at the others."""
        slot = self._slot_of.get(address)
        if slot is None:
            slot = self._slot_of[address] = self._free.pop(0) if self._free else len(self._groups) - 1
        return slot, self._groups[slot]

    def release(self, address: SocketAddress) -> None:
        """The address is listed no more."""
        slot = self._slot_of.pop(address)
        if slot not in self._slot_of.values():
            self._free.append(slot)


def stat_prefix(cluster_stat_name: str, slot: int) -> str:
    """Under which name the figures of a slot stand in the registry."""
    return f"cluster.{cluster_stat_name}.endpoint.{slot}"
