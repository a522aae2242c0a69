import os
import socket
import subprocess
import sys

import pytest

from tests.benchmarks import network

PROGRAM = """
import socket
from tests.benchmarks import network
found = network.enter({congestion!r})
with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
    print(found, client.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(bytes(1)).decode())
"""
needs_namespaces = pytest.mark.skipif(not network._may_make_one(), reason="a network namespace takes root and unshare")


def run(congestion):
    environment = {key: value for key, value in os.environ.items() if key != network.INSIDE}
    program = [sys.executable, "-c", PROGRAM.format(congestion=congestion)]
    return subprocess.run(program, capture_output=True, text=True, env=environment, check=False)


@needs_namespaces
def test_a_network_of_its_own():
    before = network.CONGESTION.read_text()
    done = run("reno")
    assert done.stdout == "reno reno\n", done.stderr
    assert done.stderr == "TCP congestion control: reno\n"
    assert network.CONGESTION.read_text() == before


@needs_namespaces
def test_an_algorithm_that_is_not_there():
    done = run("nothing")
    assert done.returncode == 1
    assert done.stderr.startswith("--congestion nothing: ")


class KeptByTheMachine:
    """tcp_congestion_control of a network that may have only this one."""

    def __init__(self, allowed):
        self.allowed = allowed
        self.found = ""

    def write_text(self, text):
        if text != self.allowed:
            raise PermissionError(1, "Operation not permitted")
        self.found = text


def test_an_algorithm_that_the_machine_keeps_to_itself(monkeypatch, capsys):
    kept = KeptByTheMachine("reno")
    monkeypatch.setattr(network, "CONGESTION", kept)
    network._set(network.DEFAULT)
    assert kept.found == "reno"
    assert capsys.readouterr().err.endswith("(net.ipv4.tcp_allowed_congestion_control): reno instead\n")
    with pytest.raises(SystemExit, match="--congestion bbr: the machine keeps bbr to its own network"):
        network._set("bbr")


@pytest.mark.parametrize(("congestion", "warning"), [(network.MACHINE, ""), (network.DEFAULT, "no network of its own")])
def test_the_machine_s(monkeypatch, capsys, congestion, warning):
    monkeypatch.delenv(network.INSIDE, raising=False)
    monkeypatch.setattr(network, "_may_make_one", lambda: False)
    found = network.enter(congestion)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert found == server.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()
    said = capsys.readouterr().err
    assert said.startswith(warning)
    assert said.endswith(f"TCP congestion control: {found}\n")


def test_a_kernel_that_does_not_say(monkeypatch, tmp_path):
    monkeypatch.setattr(network, "CONGESTION", tmp_path / "missing")
    assert network.enter(network.MACHINE) == "unknown"


def test_nobody_makes_one_without_the_program(monkeypatch):
    monkeypatch.setattr(network.shutil, "which", lambda _name: None)
    assert not network._may_make_one()
