"""A cluster as a worker uses it: its endpoints, the picker compiled for them, how to connect, its figures."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any

from forkproxy.config.build.cluster import ClusterConfig, EndpointConfig, LocalityEndpoints
from forkproxy.http.header_case import HeadStyle, as_it_is
from forkproxy.http.headers import proper_case
from forkproxy.net.address import SocketAddress
from forkproxy.net.connection import Connection
from forkproxy.net.loop import Loop
from forkproxy.net.sockets import connecting_socket
from forkproxy.stats.groups import ClusterStats, EndpointStats
from forkproxy.upstream import health
from forkproxy.upstream.circuit_breakers import BreakerCells, Breakers, Limit, host_limits
from forkproxy.upstream.consistent_hashing import MaglevStats, RingHashStats
from forkproxy.upstream.endpoint import Endpoint, ResolvedEndpoint, StatSlots, identity
from forkproxy.upstream.http_pool import HttpPool, make_pool
from forkproxy.upstream.load_balancer import LoadBalancer, PickContext, Picker
from forkproxy.upstream.preconnect import make_ahead
from forkproxy.upstream.sources import Sources
from forkproxy.upstream.transports import Origin, SocketMatcher, Transport, announce

if TYPE_CHECKING:
    from forkproxy.http.stream import Stream
    from forkproxy.upstream.dns_cache import DnsCache
    from forkproxy.upstream.outlier_detection import Watch

HEALTH_FAILURES = health.FAILED_ACTIVE_HC | health.FAILED_OUTLIER_CHECK
"""What makes Envoy drain the connections of an endpoint."""
HashStats = RingHashStats | MaglevStats


def resolved_endpoints(localities: Iterable[LocalityEndpoints]) -> list[ResolvedEndpoint]:
    """Endpoints that need no DNS (STATIC, EDS), in the order of the file."""
    return [
        _resolved(
            locality,
            endpoint,
            _socket_address(endpoint.address.pipe_path, endpoint.address.host, endpoint.address.port),
            endpoint.hostname,
            tuple(_socket_address(each.pipe_path, each.host, each.port) for each in endpoint.additional_addresses),
        )
        for locality in localities
        for endpoint in locality.endpoints
    ]


def _resolved(
    locality: LocalityEndpoints,
    endpoint: EndpointConfig,
    address: SocketAddress,
    hostname: str,
    additional_addresses: tuple[SocketAddress, ...] = (),
) -> ResolvedEndpoint:
    """A configured endpoint that is at ``address``, with what the file says of it and of its locality."""
    return ResolvedEndpoint(
        address=address,
        hostname=hostname,
        weight=endpoint.weight,
        priority=locality.priority,
        health_status=endpoint.health_status,
        region=locality.region,
        zone=locality.zone,
        sub_zone=locality.sub_zone,
        locality_weight=locality.weight,
        overprovisioning_factor=locality.overprovisioning_factor,
        weighted_priority_health=locality.weighted_priority_health,
        metadata=endpoint.metadata,
        match_metadata=endpoint.match_metadata,
        filter_metadata=endpoint.filter_metadata,
        locality_match_metadata=locality.match_metadata,
        additional_addresses=additional_addresses,
        **_check_fields(endpoint),
    )


def _check_fields(endpoint: EndpointConfig) -> dict[str, Any]:
    """What ResolvedEndpoint says of the endpoint's health checks."""
    check = endpoint.health_check
    host = check.address.pipe_path or check.address.host if check.address is not None else ""
    port = check.port or (check.address.port if check.address is not None else 0)
    return {
        "check_host": host,
        "check_port": port,
        "check_hostname": check.hostname,
        "check_disabled": check.disabled,
    }


def _as_resolved(entry: Mapping[str, Any]) -> ResolvedEndpoint:
    """The endpoint that travelled as JSON: its address was a list or a path."""
    more = tuple(_address_of(address) for address in entry.get("additional_addresses", ()))
    return ResolvedEndpoint(**{**entry, "address": _address_of(entry["address"]), "additional_addresses": more})


def _address_of(travelled: Sequence[Any] | str) -> SocketAddress:
    return travelled if isinstance(travelled, str) else (str(travelled[0]), int(travelled[1]))


def _socket_address(pipe_path: str, host: str, port: int) -> SocketAddress:
    if pipe_path:
        return "\0" + pipe_path[1:] if pipe_path.startswith("@") else pipe_path
    return (host, port)


def _initial_health_flags(config: ClusterConfig) -> int:
    if config.health_check is None:
        return 0
    return health.FAILED_ACTIVE_HC | (health.PENDING_ACTIVE_HC if config.load_balancing.ignore_new_hosts else 0)


def _place_of(config: ResolvedEndpoint, known: Sequence[Endpoint]) -> int | None:
    """Which of the endpoints at its address this one is: the same in everything, or else in its identity."""
    configs = [endpoint.config for endpoint in known]
    if config in configs:
        return configs.index(config)
    same = identity(config)
    return next((at for at, each in enumerate(configs) if identity(each) == same), None)


class Cluster:
    """Made in the supervisor; ``start`` in each worker. ``pick()`` chooses an endpoint or returns None."""

    dns_cache: DnsCache | None = None
    """Of a dynamic forward proxy: the cache whose hosts are the endpoints."""
    __slots__ = (
        "_by_address",
        "_cells",
        "_high_breakers",
        "_host_connections",
        "_keepalive",
        "_match_stats",
        "_slots",
        "_sources",
        "_transport",
        "_was_busy",
        "ahead",
        "balancer",
        "breakers",
        "config",
        "draining",
        "endpoints",
        "hash_method",
        "head_style",
        "initial_health_flags",
        "keeps_healthy",
        "loop",
        "matcher",
        "name",
        "needs_context",
        "needs_criteria",
        "needs_hash",
        "on_membership_change",
        "on_upstream_failure",
        "pick",
        "stat_name",
        "stats",
        "watch",
    )

    def __init__(
        self,
        config: ClusterConfig,
        stats: ClusterStats,
        endpoint_stats: Sequence[EndpointStats],
        transport: Transport = Connection,
        cells: BreakerCells | None = None,
        hash_stats: HashStats | None = None,
    ) -> None:
        self.config = config
        self.name = config.name
        self.stat_name = config.stat_name
        self.stats = stats
        self.loop: Loop = None  # type: ignore[assignment]  # set by start(), in the worker
        self.endpoints: list[Endpoint] = []
        self._by_address: dict[str, list[Endpoint]] = {}
        self.initial_health_flags = _initial_health_flags(config)
        """What stands against an endpoint that has just been found."""
        self.keeps_healthy = config.health_check is not None and not config.ignore_health_on_host_removal
        """Endpoints that are no longer listed stay until they fail their active health checks."""
        self.on_membership_change: Callable[[Cluster, list[Endpoint], list[Endpoint]], None] | None = None
        """Told of every change of the set of endpoints: (cluster, added, removed)."""
        self.ahead = make_ahead(self)
        """What looks ahead at the picks to come, for ``predictive_preconnect_ratio``."""
        self.balancer = LoadBalancer(config.load_balancing, stats, self._use, hash_stats)
        self.needs_hash = self.balancer.needs_hash
        self.hash_method: Callable[[Any], int | None] | None = None
        """The hash of a stream or a TCP session, instead of what its route says (router/hash_policy.py)."""
        self.needs_criteria = self.balancer.needs_criteria
        self.needs_context = self.balancer.needs_context
        """Whether ``pick()`` alone does not do: then it is ``choose(context)``."""
        self.pick: Picker
        self.balancer.recompile()
        self._cells = cells or BreakerCells()
        self.breakers = Breakers(config.circuit_breakers.default, self._cells)
        """What requests of the priority DEFAULT may have under way, and TCP sessions."""
        self._high_breakers: Breakers | None = None
        self._host_connections: dict[EndpointStats, Limit] | None = host_limits(
            config.circuit_breakers, self._cells, endpoint_stats
        )
        self.draining = False
        self.watch: Watch | None = None
        """Makes the monitors of endpoints, where outlier detection or health checks want to know results."""
        self.on_upstream_failure: Callable[[Cluster, Endpoint, str, float], None] | None = None
        """Told of every connection that could not be made: (cluster, endpoint, reason, seconds it took)."""
        self.head_style: HeadStyle | None = None
        """How requests are written that are not written plainly."""
        if config.header_key_format or config.send_fully_qualified_url:
            key_format = proper_case if config.header_key_format else as_it_is
            self.head_style = HeadStyle(key_format, config.send_fully_qualified_url)
        self._transport = transport
        self._was_busy = True
        self._match_stats: ClusterStats | None = None
        self.matcher: SocketMatcher | None = None
        """Which endpoint has another transport socket than the cluster's own."""
        self._slots = StatSlots(endpoint_stats)
        keepalive = config.tcp_keepalive
        self._keepalive = (keepalive.probes, keepalive.time_s, keepalive.interval_s) if keepalive else None
        self._sources = Sources(config.pool.bind) if config.pool.bind.sources else None
        if config.type == "STATIC":
            self.set_endpoints(resolved_endpoints(config.localities))

    def keep_spelling(self) -> None:
        """Write the names of requests' headers as they were spelled, where that is known."""
        self.head_style = self.head_style or HeadStyle()

    def __repr__(self) -> str:
        return f"<Cluster {self.name} {len(self.endpoints)} endpoints>"

    def start(self, loop: Loop) -> None:
        """In the worker, before the first request."""
        self.loop = self.balancer.loop = loop
        self.balancer.recompile()  # so that every worker starts the round elsewhere

    def set_endpoints(self, resolved: Sequence[ResolvedEndpoint]) -> None:
        """These are the endpoints from now on. Known ones keep their connections; those of the others close when idle."""
        known: dict[SocketAddress, list[Endpoint]] = {}
        for before in self.endpoints:
            # The same address may be listed twice: each keeps what it had.
            known.setdefault(before.config.address, []).append(before)
        listed = len(resolved)
        if self.keeps_healthy:
            resolved = [*resolved, *self._kept(resolved)]
        assigned = self._slots.assign([endpoint.address for endpoint in resolved])
        endpoints: list[Endpoint] = []
        added: list[Endpoint] = []
        updated = False
        for config, (slot, figures) in zip(resolved, assigned, strict=True):
            before_it = known.get(config.address)
            at = _place_of(config, before_it) if before_it else None
            if before_it and at is not None:
                endpoint = before_it.pop(at)
                if endpoint.config != config:
                    endpoint.update(config)
                    updated = True
                endpoint.count_on(figures)
            else:
                endpoint = self._found(config, figures)
                added.append(endpoint)
            if self.watch is not None:
                endpoint.monitor = self.watch.monitor(endpoint, slot)
            endpoints.append(endpoint)
        gone = [endpoint for left in known.values() for endpoint in left]
        for endpoint in gone:
            endpoint.pool.drain()
        for endpoint in endpoints[:listed]:
            endpoint.health_flags &= ~health.PENDING_DYNAMIC_REMOVAL
        for endpoint in endpoints[listed:]:
            endpoint.health_flags |= health.PENDING_DYNAMIC_REMOVAL
        self.endpoints = endpoints
        self._by_address = {}
        for endpoint in endpoints:
            self._by_address.setdefault(endpoint.address, []).append(endpoint)
        self.stats.membership_total = len(endpoints)
        if self.config.type in ("STRICT_DNS", "EDS"):
            self.stats.max_host_weight = max((endpoint.weight for endpoint in endpoints), default=0)
        self._count_health()
        self.balancer.set_endpoints(endpoints)
        if added or gone or updated:
            self._on_change()
        if self.on_membership_change is not None and (added or gone):
            self.on_membership_change(self, added, gone)

    def _found(self, config: ResolvedEndpoint, figures: EndpointStats) -> Endpoint:
        """A new one, in whatever health its address is."""
        endpoint = Endpoint(config, figures, self._make_pool)
        same = self._by_address.get(endpoint.address)
        if same:
            endpoint.health_flags |= same[0].health_flags & ~health.CONFIGURED_FLAGS
        elif not config.check_disabled:
            endpoint.health_flags |= self.initial_health_flags
        self._count_match(endpoint)
        return endpoint

    def _kept(self, resolved: Sequence[ResolvedEndpoint]) -> list[ResolvedEndpoint]:
        """Endpoints that are no longer listed but pass their health checks: Envoy lets them go when those fail, too."""
        listed = {config.address for config in resolved}
        failed = health.FAILED_ACTIVE_HC | health.FAILED_EDS_HEALTH
        return [
            endpoint.config
            for endpoint in self.endpoints
            if endpoint.socket_address not in listed and not endpoint.health_flags & failed
        ]

    def _count_health(self) -> None:
        stats = self.stats
        stats.membership_healthy = stats.membership_degraded = stats.membership_excluded = 0
        for endpoint in self.endpoints:
            self._count(endpoint.health_flags, 1)

    def _count(self, flags: int, number: int) -> None:
        state = health.coarse(flags)
        if state == health.HEALTHY:
            self.stats.membership_healthy += number
        elif state == health.DEGRADED:
            self.stats.membership_degraded += number
        if flags & health.EXCLUDING_FLAGS:
            self.stats.membership_excluded += number

    def set_health_flags(self, address: str, *, set: int = 0, clear: int = 0) -> bool:
        """Set and clear flags (upstream/health.py) of the endpoint with this ``Endpoint.address``.

        Returns whether anything changed; an address that is not listed is no error. Cheap: the next pick sees to the rest,
        however many changes came before it. In the supervisor it is what workers forked later begin with.
        """
        changed = matters = False
        for endpoint in self._by_address.get(address, ()):
            flags = endpoint.health_flags & ~clear | set
            if flags != endpoint.health_flags:
                if flags & ~endpoint.health_flags & HEALTH_FAILURES:
                    endpoint.pool.on_health_failure()
                self._count(endpoint.health_flags, -1)
                self._count(flags, 1)
                if endpoint.health_flags & ~flags & health.FAILED_ACTIVE_HC:
                    endpoint.healthy_since = monotonic()
                matters |= health.coarse(flags) != health.coarse(endpoint.health_flags)
                matters |= bool((flags ^ endpoint.health_flags) & health.EXCLUDING_FLAGS)
                endpoint.health_flags = flags
                changed = True
        if matters:
            self._on_change()
        if changed and set & health.FAILED_ACTIVE_HC and endpoint.health_flags & health.PENDING_DYNAMIC_REMOVAL:
            self._let_go()
        return changed

    def _let_go(self) -> None:
        failed = health.FAILED_ACTIVE_HC | health.PENDING_DYNAMIC_REMOVAL
        kept = [endpoint for endpoint in self.endpoints if endpoint.health_flags & failed != failed]
        pending = {e.address for e in kept if e.health_flags & health.PENDING_DYNAMIC_REMOVAL}
        self.set_endpoints([endpoint.config for endpoint in kept if endpoint.address not in pending])

    def adopt_health(self, before: Cluster) -> None:
        """Go on with what was found out about the same endpoints of the same cluster in the generation before."""
        if before.config != self.config:
            return
        for endpoint in self.endpoints:
            known = before._by_address.get(endpoint.address)
            if known:
                found_out = known[0].health_flags & ~health.CONFIGURED_FLAGS
                endpoint.health_flags = endpoint.health_flags & health.CONFIGURED_FLAGS | found_out
                endpoint.healthy_since = known[0].healthy_since
        self._count_health()
        self.balancer.recompile()

    def set_resolved(self, found: Sequence[Mapping[str, object]]) -> None:
        """What DNS found: ``{"ip", "port", "index"}`` each, ``index`` counting the configured endpoints of all localities; of
        EDS, the fields of ResolvedEndpoint.

        LOGICAL_DNS uses the first address that answers, for new connections (Envoy: "Logical DNS").
        """
        if self.config.type == "EDS":
            self.set_endpoints([_as_resolved(entry) for entry in found])
            return
        configured = [(locality, endpoint) for locality in self.config.localities for endpoint in locality.endpoints]
        resolved: list[ResolvedEndpoint] = []
        for entry in found:
            locality, endpoint = configured[int(str(entry.get("index", 0)))]
            hostname = endpoint.hostname or str(entry.get("host") or endpoint.address.host)
            resolved.append(_resolved(locality, endpoint, (str(entry["ip"]), int(str(entry["port"]))), hostname))
        if self.config.type == "LOGICAL_DNS" and resolved:
            # One endpoint, however many addresses it has.
            more = tuple(other.address for other in resolved[1:])
            resolved = [replace(resolved[0], additional_addresses=more)]
            if self.endpoints:
                # It is the same endpoint, and its connections stay, wherever new ones go.
                self.endpoints[0].move(resolved[0])
        self.set_endpoints(resolved)

    def adopt_slots(self, before: Cluster) -> None:
        """Take over which address counts where from this cluster in the generation before. Before ``set_resolved``."""
        self._slots.adopt(before._slots)

    def endpoint_slots(self) -> list[tuple[Endpoint, int]]:
        """Each endpoint with the slot of its figures, for /clusters."""
        assigned = self._slots.assign([endpoint.socket_address for endpoint in self.endpoints])
        return [(endpoint, slot) for endpoint, (slot, _) in zip(self.endpoints, assigned, strict=True)]

    def _use(self, pick: Picker) -> None:
        self.pick = pick if self.ahead is None else self.ahead.use(pick)

    def find(self, address: str) -> Endpoint | None:
        """The endpoint with this ``Endpoint.address``, when ``override_host_status`` lets it be chosen by its address."""
        for endpoint in self._by_address.get(address, ()):
            if health.coarse(endpoint.health_flags) in self.config.override_health:
                return endpoint
        return None

    def pick_for(self, stream: Stream) -> Endpoint | None:
        """Asked when ``pick()`` knows nobody: the endpoint that the request itself names (dynamic_cluster.py)."""
        return None

    def pick_for_connection(self, connection: Connection) -> Endpoint | None:
        """Asked when ``pick()`` knows nobody: the endpoint that the client's connection itself names."""
        return None

    def watch_results(self, watch: Watch) -> None:
        """The results of requests are looked at from now on."""
        self.watch = watch
        for endpoint, slot in self.endpoint_slots():
            endpoint.monitor = watch.monitor(endpoint, slot)

    def keep_in_touch(self, send: Callable[[dict[str, Any]], None]) -> None:
        """In the worker: ``send`` reaches the supervisor."""
        if self.watch is not None:
            self.watch.send = send

    @property
    def default_port(self) -> int:
        """The port of a host that names none."""
        return 80 if self.config.tls is None else 443

    def choose(self, context: PickContext) -> Endpoint | None:
        """The endpoint for a request that brings something with it: what ``pick()`` is to all others."""
        return self.balancer.choose(context)

    def _on_change(self) -> None:
        self.balancer.recompile()
        if not self.config.load_balancing.close_connections_on_change:
            return
        # close_connections_on_host_set_change: nobody goes on with a connection that was chosen among other endpoints.
        for endpoint in self.endpoints:
            before, endpoint.pool = endpoint.pool, self._make_pool(endpoint)
            endpoint.pool.sessions = before.sessions
            before.drain()

    def _make_pool(self, endpoint: Endpoint) -> HttpPool:
        return make_pool(self, endpoint, self.breakers)

    # -- limits

    def high_breakers(self) -> Breakers:
        """What requests of the priority HIGH may have under way."""
        if self._high_breakers is None:
            self._high_breakers = Breakers(self.config.circuit_breakers.high, self._cells, high=True)
        return self._high_breakers

    def breakers_of(self, high: bool) -> Breakers:
        """Those of a priority."""
        return self.high_breakers() if high else self.breakers

    @property
    def connections(self) -> int:
        """Upstream connections of this worker."""
        high = self._high_breakers
        return self.breakers.connections.count + (high.connections.count if high is not None else 0)

    def requests_full(self) -> bool:
        """No more requests of the priority DEFAULT, where nobody counts them one by one."""
        high = self._high_breakers
        active = self.stats.upstream_rq_active
        return self.breakers.requests_full(active - high.requests.count if high is not None else active)

    def host_connections(self, endpoint: Endpoint) -> Limit | None:
        """The connections to an endpoint's address, when there is a limit of them."""
        if self._host_connections is None:
            return None
        # An address that the supervisor has not given a place is counted by this worker for itself.
        return self._host_connections.setdefault(endpoint.stats, Limit(0))

    def transport_to(self, endpoint: Endpoint) -> Transport:
        """What makes the connection to ``endpoint``."""
        matched = self.matcher.transport(endpoint.config) if self.matcher is not None else None
        return matched or self._transport

    def use_matches(self, matcher: SocketMatcher | None, stats: ClusterStats) -> None:
        """In the supervisor: ``matcher`` says which endpoints have another transport socket. ``stats``: the supervisor's own."""
        self.matcher = matcher
        self._match_stats = stats
        for endpoint in self.endpoints:
            self._count_match(endpoint)
            if matcher is not None:
                endpoint.pool = self._make_pool(endpoint)

    def _count_match(self, endpoint: Endpoint) -> None:
        # The supervisor counts; in a worker this reaches nobody.
        is_other = self.matcher is not None and self.matcher.count(endpoint.config)
        if not is_other and self._match_stats is not None:
            self._match_stats.default__total_match_count += 1

    def announces(self, endpoint: Endpoint) -> bool:
        """Whether a connection to ``endpoint`` begins with the addresses of one downstream connection."""
        matched = self.matcher.announces(endpoint.config) if self.matcher is not None else None
        return self.config.proxy_protocol is not None if matched is None else matched

    def connect(self, endpoint: Endpoint, origin: Origin | None = None) -> Connection:
        """Start to connect. Set ``on_connected`` and ``on_close`` at once; OSError when it fails on the spot.

        ``origin``: the downstream connection that it is for, where the cluster ``announces`` it. The caller keeps the time
        (``config.connect_timeout_s``).
        """
        if endpoint.config.additional_addresses:
            return self._race(endpoint, origin)
        sock = self.open_socket(endpoint.socket_address)
        connection = self.transport_to(endpoint)(
            self.loop, sock, endpoint.socket_address, self.config.per_connection_buffer_limit_bytes
        )
        if origin is not None:
            announce(connection, origin)
        connection.start_connecting()
        return connection

    def _race(self, endpoint: Endpoint, origin: Origin | None) -> Connection:
        # Imported when there is somebody to race: most endpoints have one address.
        from forkproxy.net.happy_eyeballs import Race, in_turns

        config = self.config
        addresses = in_turns((endpoint.socket_address, *endpoint.config.additional_addresses), *config.happy_eyeballs)
        while True:
            first = addresses.pop(0)
            try:
                sock = self.open_socket(first)
                break
            except OSError:
                if not addresses:
                    raise
        connection = self.transport_to(endpoint)(self.loop, sock, first, config.per_connection_buffer_limit_bytes)
        if origin is not None:
            announce(connection, origin)
        Race(connection, addresses, self.open_socket).start()
        return connection

    def open_socket(self, address: SocketAddress) -> socket.socket:
        """A socket on which the connect has been started, from where and as the cluster says. OSError as above."""
        sources = self._sources
        if sources is None:
            return connecting_socket(address, keepalive=self._keepalive)
        return sources.connect(address, self._keepalive)

    def drain(self) -> None:
        """Close idle upstream connections, and the busy ones after their response."""
        self.draining = True
        for endpoint in self.endpoints:
            endpoint.pool.drain()

    def sync_stats(self) -> None:
        """Bring up to date what is not counted as it happens. Before statistics are read."""
        is_busy = bool(self.connections or self.breakers.retries.count)
        if not is_busy and not self._was_busy:
            return
        self._was_busy = is_busy
        for endpoint in self.endpoints:
            endpoint.pool.sync_bytes()
        if not self.breakers.counts_requests:
            self.requests_full()
        for breakers in (self.breakers, self._high_breakers):
            if breakers is not None:
                breakers.share_out()
                breakers.show(self.stats)
