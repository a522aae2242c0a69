"""A proxy with an inbound and an outbound HTTP listener, and what draining does to them."""

from __future__ import annotations

import http.client
import socket

import yaml

from tests.support.proxy import ProxyProcess, free_ports

HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"


def listener(name, port, direction):
    manager = {
        "@type": HCM,
        "stat_prefix": name,
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}],
                }
            ]
        },
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}],
    }
    return {
        "name": name,
        "traffic_direction": direction,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


class Directed(ProxyProcess):
    """Comes before Envoy or Forkproxy among a class's bases."""

    def __init__(self):
        admin, self.inside, self.outside = free_ports(3)
        config = {
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
            "static_resources": {
                "listeners": [
                    listener("inside", self.inside, "INBOUND"),
                    listener("outside", self.outside, "OUTBOUND"),
                ]
            },
        }
        super().__init__(yaml.safe_dump(config), admin_port=admin)

    def command(self):
        # Envoy counts whole seconds: within one, nobody would be asked to close before the listener does.
        command = super().command()
        command[command.index("--drain-time-s") + 1] = "2"
        return command

    def post(self, target):
        assert self.admin(target, "POST") == (200, b"OK\n")

    def accepts(self, port):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except (ConnectionRefusedError, ConnectionResetError):
            # Reset: it was closed just as we came.
            return False
        return True

    def is_asked_to_close(self, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/")
            return connection.getresponse().headers["connection"] == "close"
        finally:
            connection.close()
