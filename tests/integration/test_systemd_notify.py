"""What a service manager hears from the running program, in order."""

import os
import signal
import socket

import pytest

from tests.support.supervised import Supervised, until

GOOD = {"listeners": {"main": "127.0.0.1:0"}}


class Manager:
    """The socket of a service manager, and what came in."""

    def __init__(self, path):
        self.path = str(path)
        self.heard = []
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(self.path)
        self._sock.settimeout(15)

    def wait_for(self, word):
        """The first message not yet seen that has a line beginning with ``word``, as a dict."""
        while True:
            message = dict(line.split("=", 1) for line in self._sock.recv(4096).decode().splitlines())
            self.heard.append(message)
            if word in message:
                return message

    def drain(self):
        """Take what waits."""
        self._sock.setblocking(False)
        found = []
        try:
            while True:
                found.append(self._sock.recv(4096).decode())
        except BlockingIOError:
            self._sock.settimeout(15)
        return found

    def close(self):
        self._sock.close()


@pytest.fixture
def manager(tmp_path, monkeypatch):
    manager = Manager(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", manager.path)
    yield manager
    manager.close()


def test_a_life(tmp_path, manager):
    with Supervised(tmp_path) as supervised:
        status = manager.wait_for("READY")["STATUS"]
        assert status.startswith("2 workers on CPU")
        assert status.endswith(", generation 1")

        supervised.ask({"op": "reload"})
        assert int(manager.wait_for("RELOADING")["MONOTONIC_USEC"]) > 0
        assert manager.wait_for("READY")["STATUS"].endswith(", generation 2")

        supervised.configure({**GOOD, "fault": "refuse"})
        supervised.ask({"op": "reload"})
        manager.wait_for("RELOADING")
        status = manager.wait_for("READY")["STATUS"]
        assert ", generation 2; reload refused: " in status
        assert status.endswith("refused")

        supervised.configure(GOOD)
        supervised.ask({"op": "reload"})
        manager.wait_for("RELOADING")
        assert manager.wait_for("READY")["STATUS"].endswith(", generation 3")

        supervised.signal(signal.SIGTERM)
        assert manager.wait_for("STOPPING")["STATUS"] == "draining"


def test_missing_workers_are_told(tmp_path, manager):
    with Supervised(tmp_path) as supervised:
        manager.wait_for("READY")
        os.kill(supervised.workers()[0]["pid"], signal.SIGKILL)
        assert manager.wait_for("STATUS")["STATUS"].endswith("; 1 ready")
        assert manager.wait_for("STATUS")["STATUS"].endswith("generation 1")


def test_the_watchdog_starves_while_a_worker_hangs(tmp_path, manager, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    with Supervised(tmp_path, heartbeat_timeout_s=1.5) as supervised:
        manager.wait_for("READY")
        for _ in range(3):
            manager.wait_for("WATCHDOG")
        os.kill(supervised.workers()[0]["pid"], signal.SIGSTOP)
        until(lambda: supervised.workers("hung"))
        manager.drain()
        # The hung one is killed and replaced; not before that does the watchdog get anything.
        while not supervised.workers("ready")[1:]:
            heard = manager.drain()
            assert "WATCHDOG=1" not in heard or not supervised.workers("hung")
        manager.wait_for("WATCHDOG")
        assert "it gets SIGABRT" in supervised.log()


def test_somebody_elses_watchdog_is_left_alone(tmp_path, manager, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    with Supervised(tmp_path) as supervised:
        supervised.ask({"op": "reload"})
        supervised.signal(signal.SIGTERM)
        manager.wait_for("STOPPING")
    assert not any("WATCHDOG" in message for message in manager.heard)
