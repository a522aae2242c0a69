"""The DNS cache of the dynamic forward proxy, as a worker has it (Envoy: ``extensions.common.dynamic_forward_proxy``).

A request for a host that nobody asked for before waits, while the worker asks the supervisor and the supervisor asks the
process that resolves names: once for all workers, which are all told the answer (supervisor/dns_caches.py). From then on the
host is looked up in a dict. The supervisor's copy is what workers born later begin with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from forkproxy.config.build.dynamic_forward_proxy import DnsCacheConfig
from forkproxy.net.address import parse_port
from forkproxy.net.loop import Loop
from forkproxy.stats.groups import DnsCacheWorkerStats
from forkproxy.upstream.dns import DNS_PORT, Target

Send = Callable[[dict[str, Any]], None]

TOUCH_INTERVAL_S = 5.0
"""How often a worker tells which hosts are in use; hosts live for minutes."""
SEPARATOR = "\0"
"""Between a cache's name and a host's key; no header can hold one."""
OVERFLOW = "overflow"
"""The reason of a host that the cache has no room for."""


class CachedHost:
    """A host and where it is. ``addresses`` empty: ``reason`` says why."""

    __slots__ = ("addresses", "key", "reason")

    def __init__(self, key: str) -> None:
        self.key = key
        self.addresses: tuple[str, ...] = ()
        self.reason = ""

    def __repr__(self) -> str:
        return f"<CachedHost {self.key} {', '.join(self.addresses) or self.reason}>"


Waiting = Callable[[CachedHost], None]


class DnsCache:
    """``hosts`` by "name:port". ``on_change(host)`` is for clusters that use the cache."""

    def __init__(self, config: DnsCacheConfig, stats: DnsCacheWorkerStats) -> None:
        self.stats = stats
        self.name = config.name
        self.config = config
        self.hosts: dict[str, CachedHost] = {}
        self.on_change: list[Callable[[CachedHost], None]] = []
        self.on_gone: list[Callable[[CachedHost], None]] = []
        self._waiting: dict[str, list[Waiting]] = {}
        self._waiting_count = 0
        self._used: set[str] = set()
        self._loop: Loop | None = None
        self._send: Send = _nobody

    def __repr__(self) -> str:
        return f"<DnsCache {self.name} {len(self.hosts)} hosts>"

    def start(self, loop: Loop, send: Send) -> None:
        """In the worker. ``send`` goes to the supervisor."""
        self._loop = loop
        self._send = send

    def find(self, key: str) -> CachedHost | None:
        """The host, when it is known already, and then it counts as used."""
        host = self.hosts.get(key)
        if host is not None:
            self._touch(key)
        return host

    def ask(self, key: str, done: Waiting) -> bool:
        """Have ``done(host)`` called when the host is known. False: too many wait already (``dns_cache_circuit_breaker``)."""
        if self._waiting_count >= self.config.max_pending_requests:
            self.stats.dns_rq_pending_overflow += 1
            return False
        waiting = self._waiting.get(key)
        if waiting is None:
            self._waiting[key] = [done]
            self._send({"op": "dns_ask", "cache": self.name, "host": key})
        else:
            waiting.append(done)
        self._waiting_count += 1
        return True

    def forget(self, key: str, done: Waiting) -> None:
        """Who waited is gone."""
        waiting = self._waiting.get(key)
        if waiting is not None and done in waiting:
            waiting.remove(done)
            self._waiting_count -= 1

    def set_host(self, key: str, addresses: Sequence[str], reason: str) -> None:
        """What the supervisor says of a host. No room for it: it is told to who waits, and not kept."""
        host = self.hosts.get(key) or CachedHost(key)
        changed = host.addresses != tuple(addresses)
        host.addresses, host.reason = tuple(addresses), reason
        if reason != OVERFLOW:
            self.hosts[key] = host
            if changed:
                for tell in self.on_change:
                    tell(host)
        for done in self._waiting.pop(key, ()):
            self._waiting_count -= 1
            done(host)

    def remove_host(self, key: str) -> None:
        """Nobody has used it for ``host_ttl``."""
        host = self.hosts.pop(key, None)
        if host is not None:
            for tell in self.on_gone:
                tell(host)

    def _touch(self, key: str) -> None:
        if not self._used and self._loop is not None:
            self._loop.call_later(TOUCH_INTERVAL_S, self._tell_used)
        self._used.add(key)

    def _tell_used(self) -> None:
        self._send({"op": "dns_used", "cache": self.name, "hosts": sorted(self._used)})
        self._used.clear()


def _nobody(_message: dict[str, Any]) -> None:
    """Before ``start`` there is nobody to tell."""


def host_key(authority: str, default_port: int) -> str:
    """The key of a Host header: "name:port", with the scheme's port when it names none. The name's case is kept, as in Envoy."""
    _, colon, port = authority.rpartition(":")
    if colon and parse_port(port) is not None:
        return authority
    return f"{authority}:{default_port}"


def split_key(key: str) -> tuple[str, int]:
    """("name", port) of a key; an IPv6 literal comes without its brackets."""
    name, _, port = key.rpartition(":")
    return name.strip("[]"), int(port)


def target_from(fields: dict[str, Any]) -> Target:
    """A target that came as JSON: ``asdict`` of what ``target_of`` makes."""
    pairs = {name: tuple((host, port) for host, port in fields[name]) for name in ("hosts", "resolvers")}
    return Target(**{**fields, **pairs})


def target_of(config: DnsCacheConfig, host: str) -> Target:
    """What the resolver process is to ask for. ``host``: the cache's name, ``SEPARATOR``, the host's key."""
    base_s = config.refresh_rate_s if config.failure_base_s is None else config.failure_base_s
    return Target(
        cluster=host,
        type="HOST",
        hosts=(split_key(host.partition(SEPARATOR)[2]),),
        family=config.lookup_family,
        refresh_s=config.refresh_rate_s,
        failure_base_s=base_s,
        failure_max_s=max(config.failure_max_s, base_s),
        respect_ttl=True,
        query_timeout_s=config.query_timeout_s,
        min_refresh_s=config.min_refresh_rate_s,
        resolvers=tuple((each.host, each.port or DNS_PORT) for each in config.resolver.addresses),
        use_tcp=config.resolver.use_tcp,
    )
