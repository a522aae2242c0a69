"""Real Envoy and forkproxy side by side, with one configuration and the same endpoints."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

from tests.support import bootstrap
from tests.support.envoy import Envoy
from tests.support.forkproxy import Forkproxy
from tests.support.many_endpoints import ManyEndpoints, ask
from tests.support.proxy import ProxyProcess, free_ports


class Both:
    """``configure(servers)`` makes the bootstrap. Envoy is the first of each pair, forkproxy the second.

    ``prepare(servers, directory)`` puts files into the directory of each before it starts.
    """

    def __init__(
        self,
        configure: Callable[[ManyEndpoints], dict],
        endpoints: int = 8,
        prepare: Callable[[ManyEndpoints, pathlib.Path], None] = lambda _servers, _directory: None,
    ) -> None:
        self.servers = ManyEndpoints(endpoints)
        self.proxies: list[ProxyProcess] = []
        self.ports: list[dict[str, int]] = []
        data = configure(self.servers)
        for program in (Envoy, Forkproxy):
            names = sorted(bootstrap.port_names(data))
            ports = dict(zip(names, free_ports(len(names)), strict=True))
            proxy = program(bootstrap.render(data, ports), admin_port=ports["admin"])
            self.proxies.append(proxy)
            self.ports.append(ports)
            prepare(self.servers, proxy.directory)
            proxy.launch()
        for proxy in self.proxies:
            proxy.await_ready()

    def ask(self, requests: list[bytes], batch: int = 1) -> list[list[str]]:
        """The answers of both; ``batch`` requests go at once."""
        return [ask(ports["main"], requests, batch) for ports in self.ports]

    def counters(self, prefix: str) -> list[dict[str, int]]:
        """What both count under names that begin so, without what is zero."""
        return [
            {name: value for name, value in proxy.counters().items() if value and name.startswith(prefix)}
            for proxy in self.proxies
        ]

    def close(self) -> None:
        """Stop everything."""
        for proxy in self.proxies:
            proxy.close()
        self.servers.close()
