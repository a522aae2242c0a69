"""/drain_listeners as its callers see it."""

import http.client
import json
import os
import signal
import socket
import time

import pytest
import yaml

from forkproxy.supervisor.control_socket import ask
from tests.support.forkproxy import Forkproxy
from tests.support.proxy import free_ports
from tests.support.supervised import until

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


class Drained(Forkproxy):
    """With a listener for each direction."""

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
        return [*super().command(), "--drain-time-s", "1"]

    def post(self, target):
        assert self.admin(target, "POST") == (200, b"OK\n")

    def reload(self):
        return ask(self.directory / "control.sock", {"op": "reload"}, 15.0)

    def accepts(self, port):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except ConnectionRefusedError:
            return False
        return True

    def is_asked_to_close(self, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/")
            return connection.getresponse().headers["connection"] == "close"
        finally:
            connection.close()


@pytest.fixture
def proxy():
    running = Drained()
    running.start()
    yield running
    running.close()


def test_at_once(proxy):
    kept = http.client.HTTPConnection("127.0.0.1", proxy.inside, timeout=5)
    kept.request("GET", "/")
    kept.getresponse().read()
    proxy.post("/drain_listeners")
    until(lambda: not proxy.accepts(proxy.inside) and not proxy.accepts(proxy.outside))
    kept.request("GET", "/")
    response = kept.getresponse()
    assert (response.status, response.headers["connection"]) == (200, None)
    kept.close()
    assert proxy.admin("/ready") == (200, b"LIVE\n")
    assert f"inside::127.0.0.1:{proxy.inside}\n".encode() in proxy.admin("/listeners")[1]
    assert proxy.stop() == 0


def test_only_inbound_listeners(proxy):
    proxy.post("/drain_listeners?inboundonly")
    until(lambda: not proxy.accepts(proxy.inside))
    assert proxy.accepts(proxy.outside)
    assert not proxy.is_asked_to_close(proxy.outside)


def test_a_worker_born_later_does_not_listen_either(proxy):
    proxy.post("/drain_listeners?inboundonly")
    until(lambda: not proxy.accepts(proxy.inside))
    (worker,) = json.loads(proxy.admin("/workers")[1])["workers"]
    os.kill(worker["pid"], signal.SIGKILL)
    until(lambda: [w["state"] for w in workers(proxy) if w["pid"] != worker["pid"]] == ["ready"])
    assert proxy.accepts(proxy.outside)
    assert not proxy.accepts(proxy.inside)


def workers(proxy):
    return json.loads(proxy.admin("/workers")[1])["workers"]


def test_gracefully(proxy):
    before = time.monotonic()
    proxy.post("/drain_listeners?graceful&inboundonly")
    proxy.post("/drain_listeners?graceful&inboundonly")
    until(lambda: proxy.is_asked_to_close(proxy.inside))
    assert not proxy.is_asked_to_close(proxy.outside)
    until(lambda: not proxy.accepts(proxy.inside))
    assert time.monotonic() - before >= 1.0
    assert proxy.accepts(proxy.outside)


def test_skip_exit(proxy):
    proxy.post("/drain_listeners?skip_exit")
    assert not proxy.is_asked_to_close(proxy.inside)
    before = time.monotonic()
    proxy.post("/drain_listeners?graceful&skip_exit")
    until(lambda: time.monotonic() - before > 1.0 and proxy.is_asked_to_close(proxy.inside))
    assert proxy.is_asked_to_close(proxy.outside)
    assert proxy.accepts(proxy.inside)


def test_a_reload_accepts_again_and_a_refused_one_does_not(proxy):
    proxy.post("/drain_listeners")
    until(lambda: not proxy.accepts(proxy.inside))
    good = proxy.config_path.read_text()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = yaml.safe_load(good)
        config["admin"]["address"]["socket_address"]["port_value"] = taken.getsockname()[1]
        proxy.config_path.write_text(yaml.safe_dump(config))
        assert not proxy.reload()["ok"]
    assert not proxy.accepts(proxy.inside)
    proxy.config_path.write_text(good)
    assert proxy.reload()["ok"]
    assert proxy.accepts(proxy.inside)
    assert proxy.accepts(proxy.outside)


def test_a_failed_health_check_comes_before_any_draining(proxy):
    proxy.post("/healthcheck/fail")
    assert proxy.admin("/ready") == (503, b"DRAINING\n")
    assert proxy.accepts(proxy.inside)
    assert proxy.is_asked_to_close(proxy.inside)
    proxy.post("/healthcheck/ok")
    assert proxy.admin("/ready") == (200, b"LIVE\n")
    until(lambda: not proxy.is_asked_to_close(proxy.inside))


def test_quitquitquit(proxy):
    proxy.post("/quitquitquit")
    assert proxy.process.wait(15) == 0
