"""Draining listeners, where forkproxy has what Envoy has not: workers that die, reloads. The rest: tests/conformance."""

import json
import os
import signal
import socket

import pytest
import yaml

from forkproxy.supervisor.control_socket import ask
from tests.support.directed import Directed
from tests.support.forkproxy import Forkproxy
from tests.support.supervised import until


class Drained(Directed, Forkproxy):
    """With a listener for each direction."""

    def reload(self):
        return ask(self.directory / "control.sock", {"op": "reload"}, 15.0)


@pytest.fixture
def proxy():
    running = Drained()
    running.start()
    yield running
    running.close()


def test_a_worker_born_later_does_not_listen_either(proxy):
    proxy.post("/drain_listeners?inboundonly")
    until(lambda: not proxy.accepts(proxy.inside))
    (worker,) = json.loads(proxy.admin("/workers")[1])["workers"]
    os.kill(worker["pid"], signal.SIGKILL)
    until(lambda: [w["state"] for w in workers(proxy) if w["pid"] != worker["pid"]] == ["ready"])
    assert proxy.accepts(proxy.outside)
    assert not proxy.accepts(proxy.inside)


def test_a_worker_more_does_not_listen_either(proxy):
    proxy.post("/drain_listeners?inboundonly")
    until(lambda: not proxy.accepts(proxy.inside))
    proxy.process.send_signal(signal.SIGTTIN)
    until(lambda: [worker["state"] for worker in workers(proxy)] == ["ready"] * 2)
    assert proxy.accepts(proxy.outside)
    assert not proxy.accepts(proxy.inside)


def workers(proxy):
    return json.loads(proxy.admin("/workers")[1])["workers"]


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


def test_quitquitquit(proxy):
    proxy.post("/quitquitquit")
    assert proxy.process.wait(15) == 0
