"""What a service manager hears from the running program, in order."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from forkproxy.supervisor.control_socket import ask
from forkproxy.supervisor.pid_file import holder_of
from tests.support.supervised import ROOT, Supervised, exchange, is_alive, until

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


def test_an_upgrade_changes_the_main_process(tmp_path, manager, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "2000000")
    with Supervised(tmp_path) as supervised:
        manager.wait_for("READY")
        pid = supervised.ask({"op": "upgrade"})["pid"]
        assert manager.wait_for("MAINPID") == {"MAINPID": str(pid)}
        assert manager.wait_for("READY")["STATUS"].endswith(", generation 2")
        assert supervised.wait() == 0
        manager.drain()
        manager.wait_for("WATCHDOG")
        os.kill(pid, signal.SIGTERM)
        manager.wait_for("STOPPING")
    told = [line for message in manager.heard for line in message]
    assert told.count("STOPPING") == told.count("MAINPID") == 1


def test_the_watchdog_that_names_the_main_process_goes_over_to_the_next(tmp_path, manager, monkeypatch):
    # As systemd does it: the variable has the pid of the process itself, which is known only when it is there.
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nexport WATCHDOG_PID=$$\nexec {sys.executable} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setenv("WATCHDOG_USEC", "2000000")
    with Supervised(tmp_path) as supervised:
        manager.wait_for("WATCHDOG")
        pid = supervised.ask({"op": "upgrade"})["pid"]
        assert supervised.wait() == 0
        manager.drain()
        manager.wait_for("WATCHDOG")
        os.kill(pid, signal.SIGTERM)
        manager.wait_for("STOPPING")


def test_an_upgrade_that_fails_is_nothing_to_the_manager(tmp_path, manager):
    with Supervised(tmp_path) as supervised:
        before = manager.wait_for("READY")["STATUS"]
        supervised.configure({**GOOD, "fault": "refuse"})
        assert supervised.ask({"op": "upgrade"})["exit"] == 78
        assert manager.wait_for("STATUS")["STATUS"] == "upgrading"
        assert manager.wait_for("STATUS")["STATUS"] == before


def test_when_the_main_process_dies_half_way_the_other_one_makes_way(tmp_path, manager):
    with Supervised(tmp_path) as supervised:
        manager.wait_for("READY")
        supervised.configure({**GOOD, "fault": "slow"})
        supervised.signal(signal.SIGUSR2)
        until(lambda: supervised.log().count("listening listener") == 2)
        supervised.process.kill()
        supervised.wait()
        # The service manager starts another one, which needs the pid file.
        until(lambda: "this one leaves" in supervised.log())
        until(lambda: not holder_of(supervised.pid_file))
        until(lambda: supervised.log().rstrip().endswith("stopped"))


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
        # The hung one is ended and replaced; how it stands in between is over too soon to be seen from here.
        until(lambda: "it gets SIGABRT" in supervised.log())
        until(lambda: supervised.workers("ready")[1:])
        manager.drain()
        manager.wait_for("WATCHDOG")


def test_somebody_elses_watchdog_is_left_alone(tmp_path, manager, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    with Supervised(tmp_path) as supervised:
        supervised.ask({"op": "reload"})
        supervised.signal(signal.SIGTERM)
        manager.wait_for("STOPPING")
    assert not any("WATCHDOG" in message for message in manager.heard)


@pytest.mark.parametrize("reuse_port", [False, True])
def test_a_passed_socket_is_served_by_all_and_outlives_the_program(tmp_path, reuse_port):
    with socket.create_server(("127.0.0.1", 0), reuse_port=reuse_port) as given:
        host, port = given.getsockname()
        config = tmp_path / "echo.json"
        config.write_text(json.dumps({"listeners": {"main": f"{host}:{port}"}}))
        for _ in range(2):
            # A connection that is there before anybody serves it.
            with socket.create_connection((host, port), timeout=15) as early:
                child = start_with_socket(config, given)
                try:
                    served_by = {exchange(early)[0]}
                    until(lambda served_by=served_by: served_by.add(one_exchange(host, port)) or len(served_by) == 2)
                finally:
                    early.close()
                    child.terminate()
                    assert child.wait(15) == 0


@pytest.mark.parametrize("reuse_port", [False, True])
def test_a_passed_socket_goes_over_an_upgrade(tmp_path, reuse_port):
    with socket.create_server(("127.0.0.1", 0), reuse_port=reuse_port) as given:
        host, port = given.getsockname()
        config = tmp_path / "echo.json"
        config.write_text(json.dumps({"listeners": {"main": f"{host}:{port}"}}))
        child = start_with_socket(config, given)
        control = config.with_suffix(".sock")
        one_exchange(host, port)
        pid = until(lambda: ask(control, {"op": "upgrade"}, 15).get("pid"))
        try:
            assert child.wait(15) == 0
            served_by = set()
            until(lambda: served_by.add(one_exchange(host, port)) or len(served_by) == 2)
            # The listener goes and comes again: the socket was kept.
            config.write_text(json.dumps({"listeners": {}}))
            assert ask(control, {"op": "reload"}, 15)["ok"]
            with socket.create_connection((host, port), timeout=15) as early:
                config.write_text(json.dumps({"listeners": {"main": f"{host}:{port}"}}))
                assert ask(control, {"op": "reload"}, 15)["ok"]
                exchange(early)
            one_exchange(host, port)
        finally:
            os.kill(pid, signal.SIGTERM)
            until(lambda: not is_alive(pid))


def start_with_socket(config, sock):
    """The echo program with ``sock`` as descriptor 3, as systemd starts one: the pid is known only after the fork."""
    program = [
        sys.executable,
        "-m",
        "tests.support.echo_program",
        str(config),
        '{"concurrency": 2, "drain_time_s": 30}',
    ]
    exec_it = 'dup2() { exec 3<&"$1"; }; dup2 "$0"; exec env LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=main "$@"'
    return subprocess.Popen(
        ["bash", "-c", exec_it, str(sock.fileno()), *program],
        cwd=ROOT,
        pass_fds=[sock.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def one_exchange(host, port):
    """Which worker answers a new connection."""
    with socket.create_connection((host, port), timeout=15) as sock:
        return exchange(sock)[0]
