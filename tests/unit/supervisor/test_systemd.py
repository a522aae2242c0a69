"""What the service manager is told, and that nobody need listen."""

import os
import socket

import pytest

from forkproxy.supervisor.systemd import Notifier, watchdog_s


@pytest.fixture
def manager(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.bind(str(tmp_path / "notify"))
        yield sock


@pytest.fixture
def environment(manager):
    return {"NOTIFY_SOCKET": manager.getsockname()}


def test_words(manager, environment):
    notifier = Notifier(environment)
    notifier.ready("2 workers")
    assert manager.recv(100) == b"READY=1\nSTATUS=2 workers"
    notifier.reloading()
    kind, usec, status = manager.recv(100).split(b"\n")
    assert (kind, status) == (b"RELOADING=1", b"STATUS=reloading")
    assert int(usec.removeprefix(b"MONOTONIC_USEC=")) > 0
    notifier.stopping()
    assert manager.recv(100) == b"STOPPING=1\nSTATUS=draining"
    notifier.status("x")
    assert manager.recv(100) == b"STATUS=x"


def test_a_status_is_not_repeated(manager, environment):
    notifier = Notifier(environment)
    notifier.ready("a")
    for status in ("a", "b", "b", "a"):
        notifier.status(status)
    assert [manager.recv(100) for _ in range(3)] == [b"READY=1\nSTATUS=a", b"STATUS=b", b"STATUS=a"]
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(100)


def test_an_abstract_address():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.bind("")
        name = sock.getsockname()
        Notifier({"NOTIFY_SOCKET": "@" + name[1:].decode()}).status("x")
        assert sock.recv(100) == b"STATUS=x"


@pytest.mark.parametrize("address", ["", "/nowhere/at/all"])
def test_nobody_listens(address):
    Notifier({"NOTIFY_SOCKET": address}).ready("x")


def test_the_environment_says_where(manager, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", manager.getsockname())
    Notifier().status("x")
    assert manager.recv(100) == b"STATUS=x"


def test_the_watchdog_is_fed_twice_as_often_as_needed(manager, environment):
    notifier = Notifier({**environment, "WATCHDOG_USEC": "4000000"})
    assert notifier.watchdog_interval_s == 2.0
    for now in (100.0, 101.0, 101.9, 102.0):
        notifier.watchdog(now)
    assert [manager.recv(100) for _ in range(2)] == [b"WATCHDOG=1"] * 2
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(100)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
    ],
)
def test_whose_watchdog(given, expected):
    assert watchdog_s(given) == expected


def test_no_watchdog_without_a_manager():
    assert Notifier({"WATCHDOG_USEC": "1000000"}).watchdog_interval_s == 0.0
