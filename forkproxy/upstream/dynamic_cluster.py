"""Clusters whose endpoints are what requests ask for: ORIGINAL_DST and the dynamic forward proxy.

Such a cluster has nothing to balance (``CLUSTER_PROVIDED``): ``pick`` knows nobody, and who asks then comes with the request
or the connection to ``pick_for``. What is plain pays nothing for that.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from forkproxy.config.build.cluster import ClusterConfig
from forkproxy.config.build.original_dst import OriginalDstConfig
from forkproxy.http.headers import get as get_header
from forkproxy.net.address import Restored, SocketAddress, parse_port, text
from forkproxy.net.connection import Connection
from forkproxy.stats.groups import ClusterStats, EndpointStats
from forkproxy.upstream.cluster import Cluster
from forkproxy.upstream.dns_cache import CachedHost, DnsCache, host_key, split_key
from forkproxy.upstream.endpoint import Endpoint, ResolvedEndpoint, StatSlots
from forkproxy.upstream.schedulers import Picker, pick_none
from forkproxy.upstream.transports import Transport

if TYPE_CHECKING:
    from forkproxy.http.stream import Stream

Send = Callable[[dict[str, Any]], None]


class DynamicCluster(Cluster):
    """Nobody to choose from without a request."""

    __slots__ = ()

    def __init__(
        self, config: ClusterConfig, stats: ClusterStats, endpoint_stats: Sequence[EndpointStats], *more: Any
    ) -> None:
        super().__init__(config, stats, endpoint_stats, *more)
        self.needs_context = False

    def _use(self, pick: Picker) -> None:
        self.pick = pick_none

    def _add(self, config: ResolvedEndpoint) -> Endpoint:
        """One more, of perhaps thousands: what ``set_endpoints`` does, without a look at the others."""
        slot, figures = self._slots.take(config.address)
        endpoint = self._found(config, figures)
        if self.watch is not None:
            endpoint.monitor = self.watch.monitor(endpoint, slot)
        self.endpoints.append(endpoint)
        self._list(endpoint)
        self._changed([endpoint], [])
        return endpoint

    def _remove(self, endpoint: Endpoint) -> None:
        endpoint.pool.drain()
        self.endpoints.remove(endpoint)
        self._unlist(endpoint)
        self._changed([], [endpoint])

    def _move(self, endpoint: Endpoint, config: ResolvedEndpoint) -> None:
        """It is the same endpoint, and its connections stay, wherever new ones go."""
        self._unlist(endpoint)
        endpoint.move(config)
        slot, figures = self._slots.take(config.address)
        endpoint.count_on(figures)
        if self.watch is not None:
            endpoint.monitor = self.watch.monitor(endpoint, slot)
        self._list(endpoint)

    def _list(self, endpoint: Endpoint) -> None:
        self._by_address.setdefault(endpoint.address, []).append(endpoint)
        self._count(endpoint.health_flags, 1)

    def _unlist(self, endpoint: Endpoint) -> None:
        same = self._by_address[endpoint.address]
        same.remove(endpoint)
        if not same:
            del self._by_address[endpoint.address]
            self._slots.release(endpoint.socket_address)
        self._count(endpoint.health_flags, -1)

    def _changed(self, added: list[Endpoint], gone: list[Endpoint]) -> None:
        self.stats.membership_total = len(self.endpoints)
        self.balancer.set_endpoints(self.endpoints)
        self._on_change()
        if self.on_membership_change is not None:
            self.on_membership_change(self, added, gone)


class ForwardProxyCluster(DynamicCluster):
    """``envoy.clusters.dynamic_forward_proxy``: an endpoint for each host of the DNS cache that has an address."""

    __slots__ = ("_by_host", "dns_cache", "transports")

    def __init__(
        self,
        cache: DnsCache,
        config: ClusterConfig,
        stats: ClusterStats,
        endpoint_stats: Sequence[EndpointStats],
        *more: Any,
    ) -> None:
        self._by_host: dict[str, Endpoint] = {}
        self.transports: Callable[[str], Transport] | None = None
        """Of a TLS cluster: how to connect to a host."""
        super().__init__(config, stats, endpoint_stats, *more)
        self.dns_cache = cache
        cache.on_change.append(self._on_host)
        cache.on_gone.append(self._on_gone)

    def _on_host(self, host: CachedHost) -> None:
        if not host.addresses:
            self._on_gone(host)
            return
        endpoint = self._by_host.get(host.key)
        if endpoint is None:
            self._by_host[host.key] = self._add(_resolved_host(host))
        else:
            self._move(endpoint, _resolved_host(host))

    def _on_gone(self, host: CachedHost) -> None:
        endpoint = self._by_host.pop(host.key, None)
        if endpoint is not None:
            self._remove(endpoint)

    def transport_to(self, endpoint: Endpoint) -> Transport:
        """With the host's name in the handshake."""
        if self.transports is None:
            return super().transport_to(endpoint)
        return self.transports(split_key(endpoint.hostname)[0])

    def pick_for(self, stream: Stream) -> Endpoint | None:
        """The endpoint that the request's Host names, when the filter has had it resolved."""
        return self._by_host.get(host_key(stream.authority.decode("latin-1"), self.default_port))


class ToldSlots(StatSlots):
    """The supervisor says which address counts where; figures of one that it has not spoken of yet are nobody else's."""

    __slots__ = ("_private", "_told")

    def __init__(self, groups: Sequence[EndpointStats]) -> None:
        super().__init__(groups)
        self._told: dict[SocketAddress, int] = {}
        self._private: dict[SocketAddress, EndpointStats] = {}

    def adopt(self, before: StatSlots) -> None:
        """Go on from the slots of the same cluster in the generation before."""
        super().adopt(before)
        if isinstance(before, ToldSlots):
            self._told = dict(before._told)

    def tell(self, slots: dict[SocketAddress, int]) -> None:
        """These addresses, and no others, have slots."""
        self._told = slots

    def slot_of(self, address: SocketAddress) -> EndpointStats | None:
        """Where the supervisor said that it counts."""
        slot = self._told.get(address)
        return None if slot is None else self._groups[slot]

    def take(self, address: SocketAddress) -> tuple[int, EndpointStats]:
        """(slot or -1, figures) of one that was not listed."""
        if address in self._told:
            return self._told[address], self._groups[self._told[address]]
        return -1, self._private.setdefault(address, EndpointStats())

    def choose(self, addresses: Sequence[SocketAddress]) -> dict[SocketAddress, int]:
        """In the supervisor: a slot for each."""
        return {address: slot for address, (slot, _) in zip(addresses, super().assign(addresses), strict=True)}

    def assign(self, listed: Sequence[SocketAddress]) -> list[tuple[int, EndpointStats]]:
        """(slot or -1, figures) of each address, in order."""
        private = {
            address: self._private.get(address) or EndpointStats() for address in listed if address not in self._told
        }
        self._private = private
        return [
            (self._told[address], self._groups[self._told[address]])
            if address in self._told
            else (-1, private[address])
            for address in listed
        ]


def _resolved_host(host: CachedHost) -> ResolvedEndpoint:
    first, *more = [(address, split_key(host.key)[1]) for address in host.addresses]
    return ResolvedEndpoint(address=first, hostname=host.key, additional_addresses=tuple(more))


class OriginalDstCluster(DynamicCluster):
    """ORIGINAL_DST: the endpoint is where the client wanted to go before it was redirected here, or what a header says.

    A worker that meets a new one uses it at once, and tells the supervisor, from whom the others hear of it. Its figures are
    its own until then: the supervisor says where they count.
    """

    __slots__ = ("_by_destination", "_met", "_send")

    def __init__(
        self, config: ClusterConfig, stats: ClusterStats, endpoint_stats: Sequence[EndpointStats], *more: Any
    ) -> None:
        self._by_destination: dict[SocketAddress, Endpoint] = {}
        self._met: dict[SocketAddress, ResolvedEndpoint] = {}
        """Those that the supervisor has not spoken of yet."""
        self._send: Send | None = None
        super().__init__(config, stats, endpoint_stats, *more)
        self._slots = ToldSlots(endpoint_stats)

    def keep_in_touch(self, send: Send) -> None:
        """In the worker: ``send`` reaches the supervisor."""
        self._send = send

    def told(self, addresses: Sequence[SocketAddress]) -> list[dict[str, object]]:
        """In the supervisor: what all workers are to be told of these endpoints, for ``set_resolved``."""
        slots = self._told_slots().choose(addresses)
        return [{"address": address, "slot": slots[address]} for address in addresses]

    def set_resolved(self, found: Sequence[Mapping[str, object]]) -> None:
        """What the supervisor says: the endpoints of all workers, and where each counts."""
        told: dict[SocketAddress, int] = {}
        for entry in found:
            host, port = cast("Sequence[object]", entry["address"])
            told[(str(host), int(str(port)))] = int(str(entry["slot"]))
        self._told_slots().tell(told)
        self._met = {address: config for address, config in self._met.items() if address not in told}
        self._set([*map(self._resolved, told), *self._met.values()])

    def _told_slots(self) -> ToldSlots:
        assert isinstance(self._slots, ToldSlots)
        return self._slots

    def _resolved(self, address: SocketAddress) -> ResolvedEndpoint:
        return ResolvedEndpoint(address=address, hostname=self.name + text(address))

    def _set(self, resolved: list[ResolvedEndpoint]) -> None:
        for endpoint in self.endpoints:
            # What one that was met has counted for itself so far counts for all from now on.
            slot = self._told_slots().slot_of(endpoint.socket_address)
            if slot is not None and endpoint.stats is not slot:
                _add_counters(endpoint.stats, slot)
        self.set_endpoints(resolved)
        self._by_destination = {endpoint.socket_address: endpoint for endpoint in self.endpoints}

    def pick_for(self, stream: Stream) -> Endpoint | None:
        """The endpoint that the header names, where the cluster looks at one and it is there; else as ``pick_for_connection``."""
        settings = self.config.dynamic
        assert isinstance(settings, OriginalDstConfig)
        if settings.header:
            value = get_header(stream.request_headers, settings.header)
            if value is not None:
                destination = parse_destination(value.decode("latin-1"))
                if destination is None:
                    self.stats.original_dst_host_invalid += 1
                    return None
                return self._to(destination)
        return self.pick_for_connection(stream.connection)

    def pick_for_connection(self, connection: Connection) -> Endpoint | None:
        """The endpoint that the client of ``connection`` wanted; None when it was not redirected."""
        local = connection.local_address
        return self._to(local) if isinstance(local, Restored) else None

    def _to(self, destination: tuple[str, int]) -> Endpoint:
        settings = self.config.dynamic
        assert isinstance(settings, OriginalDstConfig)
        address = (destination[0], settings.port or destination[1])
        endpoint = self._by_destination.get(address)
        if endpoint is None:
            self._met[address] = self._resolved(address)
            endpoint = self._by_destination[address] = self._add(self._met[address])
            if self._send is not None:
                self._send({"op": "host_met", "cluster": self.name, "address": list(address)})
        return endpoint


def _add_counters(source: EndpointStats, target: EndpointStats) -> None:
    for name in EndpointStats.layout.counters:
        setattr(target, name, getattr(target, name) + getattr(source, name))


def parse_destination(value: str) -> tuple[str, int] | None:
    """``1.2.3.4:80`` or ``[::1]:80``; None for anything else."""
    host, colon, digits = value.strip().rpartition(":")
    port = parse_port(digits)
    if not colon or port is None:
        return None
    try:
        if host.startswith("[") and host.endswith("]"):
            return (str(ipaddress.IPv6Address(host[1:-1])), port)
        return (str(ipaddress.IPv4Address(host)), port)
    except ValueError:
        return None
