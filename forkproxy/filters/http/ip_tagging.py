"""Names the ranges that a client's address is in, in a request header (Envoy: "IP tagging").

    - name: envoy.filters.http.ip_tagging
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.http.ip_tagging.v3.IPTagging
        ip_tags: [{ip_tag_name: office, ip_list: [{address_prefix: 192.0.2.0, prefix_len: 24}]}]

The tags stand in ``x-envoy-ip-tags``, which clients cannot set, or in ``ip_tag_header``, in the order of the file (Envoy's order
is undefined). The route is chosen again where the header has changed, so that routes may match on it.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from typing import Any

from forkproxy.config.build.ip_tagging import IpTaggingConfig
from forkproxy.filters.context import FilterContext
from forkproxy.http.filter import HookResult, HttpFilter
from forkproxy.http.headers import Headers
from forkproxy.http.headers import get as get_header
from forkproxy.http.headers import remove as remove_header
from forkproxy.http.stream import Stream
from forkproxy.router.matcher import compile_fraction
from forkproxy.router.ranges import client_ip
from forkproxy.stats.group import Counter, StatGroup


class IpTaggingStats(StatGroup):
    """``http.<stat_prefix>.ip_tagging``."""

    no_hit: Counter
    total: Counter


class IpTagStats(StatGroup):
    """``http.<stat_prefix>.ip_tagging.<tag>``."""

    hit: Counter


class Ranges:
    """Which names an address has. A look-up costs as much as there are different prefix lengths."""

    __slots__ = ("_families", "names")

    def __init__(self, tags: Iterable[tuple[str, Iterable[str]]]) -> None:
        self._families: dict[int, dict[int, dict[int, list[int]]]] = {socket.AF_INET: {}, socket.AF_INET6: {}}
        self.names: list[str] = []
        for number, (name, ranges) in enumerate(tags):
            self.names.append(name)
            for text in ranges:
                network = ipaddress.ip_network(text, strict=False)
                family = socket.AF_INET if network.version == 4 else socket.AF_INET6
                shift = network.max_prefixlen - network.prefixlen
                prefix = int(network.network_address) >> shift
                self._families[family].setdefault(shift, {}).setdefault(prefix, []).append(number)

    def of(self, address: str) -> list[str]:
        """The names, in their order, each once; [] also for what is no IP address."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            value = int.from_bytes(socket.inet_pton(family, address))
        except OSError:
            return []
        found: set[int] = set()
        for shift, prefixes in self._families[family].items():
            found.update(prefixes.get(value >> shift, ()))
        return [self.names[number] for number in sorted(found)]


class IpTagging(HttpFilter):
    """See the module's text."""

    def __init__(self, config: IpTaggingConfig, context: FilterContext) -> None:
        prefix = f"{context.stat_prefix}.ip_tagging"
        registry = context.registry
        self.stats = registry.group(IpTaggingStats, prefix)
        self.tag_stats: dict[str, Any] = {
            name: registry.group(IpTagStats, f"{prefix}.{name}") for name, _ in config.tags
        }
        self.ranges = Ranges(config.tags)
        self.internal = config.request_type == "INTERNAL"
        self.external = config.request_type == "EXTERNAL"
        self.header = config.header.encode() or b"x-envoy-ip-tags"
        self.append = config.append
        self.enabled = None if config.enabled is None else compile_fraction(config.enabled)

    @classmethod
    def from_config(cls, config: IpTaggingConfig, context: FilterContext) -> IpTagging:
        """Counts under the connection manager's prefix."""
        return cls(config, context)

    def decode_headers(self, stream: Stream, headers: Headers, end_stream: bool) -> HookResult:
        """Look the client up."""
        if self.internal or self.external:
            is_internal = get_header(headers, b"x-envoy-internal") == b"true"
            if is_internal is self.external:
                return None
        if self.enabled is not None and not self.enabled(stream):
            return None
        tags = self.ranges.of(client_ip(stream))
        changed = not self.append and remove_header(headers, self.header)
        self.stats.total += 1
        if tags:
            self._add(headers, ",".join(tags).encode())
            for tag in tags:
                self.tag_stats[tag].hit += 1
            changed = True
        else:
            self.stats.no_hit += 1
        if changed:
            stream.route = stream.http.manager.match(stream)
        return None

    def _add(self, headers: Headers, tags: bytes) -> None:
        for place, (name, value) in enumerate(headers):
            if name == self.header:
                headers[place] = name, value + b"," + tags if value else tags
                return
        headers.append((self.header, tags))
