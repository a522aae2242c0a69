"""Where upstream connections come from: source addresses and socket options (Envoy: ``upstream_bind_config``)."""

from __future__ import annotations

import socket

from forkproxy.config.build.connection_pool import BindOptions, SourceAddress
from forkproxy.net.address import SocketAddress, family_of
from forkproxy.net.sockets import connecting_socket

Keepalive = tuple[int, int, int]


class Sources:
    """The sources of one cluster. An endpoint is reached from the first one of its own family, else from the first."""

    def __init__(self, options: BindOptions) -> None:
        self._freebind = options.freebind
        self._by_family = {family: _source_of(options, family) for family in (socket.AF_INET, socket.AF_INET6)}

    def connect(self, endpoint: SocketAddress, keepalive: Keepalive | None) -> socket.socket:
        """As ``connecting_socket``; a unix-domain endpoint has no source."""
        source = self._by_family.get(family_of(endpoint))
        if source is None:
            return connecting_socket(endpoint, keepalive=keepalive)
        address = source.address
        return connecting_socket(
            endpoint,
            keepalive=keepalive,
            bind_address=(address.host, address.port) if address is not None else None,
            freebind=self._freebind,
            prebind_options=[option[:3] for option in source.socket_options if option[3] == "STATE_PREBIND"],
            bound_options=[option[:3] for option in source.socket_options if option[3] == "STATE_BOUND"],
        )


def _source_of(options: BindOptions, family: socket.AddressFamily) -> SourceAddress:
    for source in options.sources:
        if source.address is None or family_of((source.address.host, source.address.port)) == family:
            return source
    return options.sources[0]
