"""What the service manager is told, and that nobody need listen."""

import socket

import pytest

from forkproxy.supervisor.systemd import Notifier


@pytest.fixture
def manager(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.bind(str(tmp_path / "notify"))
        yield sock


def test_words(manager):
    notifier = Notifier(manager.getsockname())
    notifier.ready("2 workers")
    assert manager.recv(100) == b"READY=1\nSTATUS=2 workers"
    notifier.reloading()
    reloading, _, usec = manager.recv(100).partition(b"\nMONOTONIC_USEC=")
    assert reloading == b"RELOADING=1"
    assert int(usec) > 0
    notifier.stopping()
    assert manager.recv(100) == b"STOPPING=1\nSTATUS=draining"
    notifier.status("x")
    assert manager.recv(100) == b"STATUS=x"


def test_an_abstract_address():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.bind("")
        name = sock.getsockname()
        Notifier("@" + name[1:].decode()).status("x")
        assert sock.recv(100) == b"STATUS=x"


@pytest.mark.parametrize("address", ["", "/nowhere/at/all"])
def test_nobody_listens(address):
    Notifier(address).ready("x")


def test_the_environment_says_where(manager, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", manager.getsockname())
    Notifier().status("x")
    assert manager.recv(100) == b"STATUS=x"
