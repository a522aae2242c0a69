"""Requests come in, answers go out, and nonsense ends the connection."""

import errno
import os
import socket
import stat
import threading

import pytest

from forkproxy.supervisor import control_socket
from forkproxy.supervisor.control_socket import ControlSocket, ask
from tests.support.live_loop import LiveLoop


@pytest.fixture
def loop():
    loop = LiveLoop()
    yield loop
    loop.run_once(0.0)
    loop.close()


@pytest.fixture
def control(loop, tmp_path):
    control = ControlSocket(loop, tmp_path / "c.sock", lambda request, reply: reply({"echo": request}))
    yield control
    control.close()


def connect(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(5)
    sock.connect(str(path))
    return sock


def receive(loop, sock):
    received = []
    reader = threading.Thread(target=lambda: received.append(sock.recv(65536)))
    reader.start()
    loop.run_until(lambda: received)
    reader.join()
    return received[0]


def test_only_its_user_may_open_it(control, tmp_path):
    assert stat.S_IMODE(os.stat(tmp_path / "c.sock").st_mode) == 0o600


def test_without_descriptors_it_rests_and_comes_back(loop, control, tmp_path, monkeypatch):
    monkeypatch.setattr(control_socket, "ACCEPT_RETRY_S", 0.01)
    real, asked = control._sock, []

    class Full:
        def accept(self):
            asked.append(loop.now)
            raise OSError(errno.EMFILE, "full")

        def fileno(self):
            return real.fileno()

    control._sock = Full()
    with connect(tmp_path / "c.sock") as sock:
        sock.send(b'{"op": "x"}\n')
        loop.run_until(lambda: len(asked) == 3)
        assert asked[0] < asked[1] < asked[2]
        assert asked[2] - asked[0] >= 0.02
        control._sock = real
        assert receive(loop, sock) == b'{"echo":{"op":"x"}}\n'


def test_ask(loop, control, tmp_path):
    answers = []
    asking = threading.Thread(target=lambda: answers.append(ask(tmp_path / "c.sock", {"op": "x"}, 5.0)))
    asking.start()
    loop.run_until(lambda: answers)
    asking.join()
    assert answers == [{"echo": {"op": "x"}}]


def test_requests_in_pieces_and_in_a_row(loop, control, tmp_path):
    with connect(tmp_path / "c.sock") as sock:
        sock.sendall(b'{"a":')
        loop.run_once(0.0)
        sock.sendall(b'1}\n{"b":2}\n')
        answer = b""
        while answer.count(b"\n") < 2:
            answer += receive(loop, sock)
        assert answer.splitlines() == [b'{"echo":{"a":1}}', b'{"echo":{"b":2}}']


@pytest.mark.parametrize("data", [b"nonsense\n", b"[1]\n", b'"x"\n', b"\xff\xfe\n", b"[" * 30000 + b"\n", b"x" * 70000])
def test_nonsense_ends_the_connection(loop, control, tmp_path, data):
    with connect(tmp_path / "c.sock") as sock:
        sock.sendall(data)
        assert receive(loop, sock) == b""


def test_another_user_is_refused(loop, control, tmp_path, monkeypatch):
    monkeypatch.setattr(control_socket, "_peer_uid", lambda _sock: 12345)
    with connect(tmp_path / "c.sock") as sock:
        assert receive(loop, sock) == b'{"ok":false,"op":"refused"}\n'
        assert sock.recv(1) == b""


def test_not_more_connections_than_allowed(loop, control, tmp_path, monkeypatch):
    monkeypatch.setattr(control_socket, "MAX_CONNECTIONS", 1)
    with connect(tmp_path / "c.sock") as first, connect(tmp_path / "c.sock") as second:
        assert receive(loop, second) == b""
        first.sendall(b"{}\n")
        assert receive(loop, first) == b'{"echo":{}}\n'


def test_a_stale_path_is_taken_over(loop, tmp_path):
    path = tmp_path / "c.sock"
    path.write_text("")
    ControlSocket(loop, path, lambda request, reply: None).close()
    assert not path.exists()


def test_a_path_longer_than_a_socket_address(loop, tmp_path):
    directory = tmp_path / ("d" * 100)
    directory.mkdir()
    path = directory / "c.sock"
    control = ControlSocket(loop, path, lambda request, reply: reply({"ok": True}))
    answers = []
    asking = threading.Thread(target=lambda: answers.append(ask(path, {}, 5.0)))
    asking.start()
    loop.run_until(lambda: answers)
    asking.join()
    control.close()
    assert answers == [{"ok": True}]


def test_no_time_at_all_is_a_timeout(tmp_path):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen(1)
        with pytest.raises(TimeoutError):
            ask(path, {"op": "status"}, 0.0)
