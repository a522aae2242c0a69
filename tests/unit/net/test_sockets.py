import fcntl
import os
import socket

import psutil
import pytest

from forkproxy.net import sockets
from forkproxy.net.sockets import acceptor, connecting_socket, listening_socket, own_ipv4_addresses


def test_a_listening_socket_listens_without_blocking_and_is_not_inherited():
    with listening_socket(("127.0.0.1", 0)) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        assert not sock.getblocking()
        assert not sock.get_inheritable()


def test_slots_share_an_address_by_reuse_port():
    with listening_socket(("127.0.0.1", 0)) as first, listening_socket(first.getsockname()) as second:
        assert first.getsockname() == second.getsockname()


def test_a_taken_address_is_an_error_and_leaks_nothing():
    before = len(os.listdir("/proc/self/fd"))
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        listening_socket(taken.getsockname(), reuse_port=False)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_dead_unix_socket_is_replaced_but_a_live_one_and_a_file_are_not(tmp_path):
    path = str(tmp_path / "s")
    listening_socket(path).close()
    with listening_socket(path, pipe_mode=0o600) as live:
        assert os.stat(path).st_mode & 0o777 == 0o600
        with pytest.raises(OSError):
            listening_socket(path)
        assert live.getsockname() == path
    plain = tmp_path / "file"
    plain.write_text("kept")
    with pytest.raises(OSError):
        listening_socket(str(plain))
    assert plain.read_text() == "kept"


def test_a_connecting_socket_binds_and_keeps_alive():
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        connecting_socket(listening.getsockname(), bind_address=("127.0.0.2", 0), keepalive=(3, 7, 0)) as sock,
    ):
        accepted, peer = listening.accept()
        accepted.close()
        assert peer[0] == "127.0.0.2"
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 3
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def options(sock):
    """(blocks, is without delay, is inherited by programs)."""
    nodelay = sock.family != socket.AF_UNIX and sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    return os.get_blocking(sock.fileno()), nodelay, os.get_inheritable(sock.fileno())


@pytest.mark.parametrize("make", [listening_socket, socket.create_server])
def test_an_accepted_socket_neither_blocks_nor_delays_whoever_made_the_listening_one(make):
    with make(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()) as client:
        accepted, peer = acceptor(listening)()
        assert options(accepted) == (False, True, False)
        assert (accepted.timeout, accepted.getsockname()) == (0.0, listening.getsockname())
        assert peer == client.getsockname()
        client.sendall(b"hello")
        assert accepted.recv(100) == b"hello"
        accepted.close()


def test_a_mapped_address_is_the_address():
    with listening_socket(("::", 0), ipv4_compat=True) as listening:
        with socket.create_connection(("127.0.0.1", listening.getsockname()[1])) as client:
            accepted, peer = acceptor(listening)()
            assert peer == client.getsockname()
            accepted.close()
        with socket.create_connection(("::1", listening.getsockname()[1])) as client:
            accepted, peer = acceptor(listening)()
            assert peer == client.getsockname()[:2]
            accepted.close()


def test_a_unix_peer_has_no_address(tmp_path):
    path = str(tmp_path / "s")
    with listening_socket(path) as listening, socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        accepted, peer = acceptor(listening)()
        assert (peer, options(accepted)) == ("", (False, False, False))
        accepted.close()


def test_nobody_waits():
    with listening_socket(("127.0.0.1", 0)) as listening, pytest.raises(BlockingIOError):
        acceptor(listening)()


def test_a_full_unix_backlog_is_an_error_not_a_connect_in_progress(tmp_path):
    path = str(tmp_path / "s")
    with listening_socket(path, backlog=0):
        first = connecting_socket(path)
        with first, pytest.raises(BlockingIOError):
            connecting_socket(path)


def test_own_addresses_are_what_others_find():
    found = [e.address for entries in psutil.net_if_addrs().values() for e in entries if e.family == socket.AF_INET]
    assert sorted(own_ipv4_addresses()) == sorted(found)


def test_more_addresses_than_there_was_room_for(monkeypatch):
    rooms = []

    def ioctl(sock, request, argument):
        rooms.append(len(rooms))
        return fcntl.ioctl(sock, request, argument) if len(rooms) > 1 else argument

    monkeypatch.setattr(sockets, "fcntl", type("Fcntl", (), {"ioctl": ioctl}))
    assert "127.0.0.1" in own_ipv4_addresses()
    assert len(rooms) == 2
