"""From where an endpoint is reached, over real sockets."""

import socket
import struct

import pytest

from forkproxy.config.build.connection_pool import BindOptions, SourceAddress
from forkproxy.config.build.core import AddressConfig
from forkproxy.upstream.sources import Sources

V4 = SourceAddress(AddressConfig("127.0.0.9", 0))
V6 = SourceAddress(AddressConfig("::1", 0))


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def connected(server, *sources, **fields):
    with Sources(BindOptions(sources, **fields)).connect(server.getsockname(), None) as sock:
        accepted, peer = server.accept()
        accepted.close()
        return peer, sock.getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY), sock.getsockopt(socket.SOL_IP, 15)


def test_the_source_of_the_endpoints_family(listening):
    assert connected(listening, V4)[0][0] == "127.0.0.9"
    assert connected(listening, V4, V6)[0][0] == "127.0.0.9"
    assert connected(listening, V6, V4)[0][0] == "127.0.0.9"


def test_with_none_of_its_family_the_first_one_is_tried(listening):
    with pytest.raises((OSError, TypeError)):
        connected(listening, V6)


@pytest.mark.parametrize("state", ["STATE_PREBIND", "STATE_BOUND"])
def test_socket_options(listening, state):
    option = (socket.SOL_SOCKET, socket.SO_PRIORITY, struct.pack("=i", 5), state)
    for address in (V4.address, None):
        assert connected(listening, SourceAddress(address, (option,)))[1:] == (5, 0)


def test_listening_options_do_not_concern_it(listening):
    option = (socket.SOL_SOCKET, socket.SO_PRIORITY, struct.pack("=i", 5), "STATE_LISTENING")
    assert connected(listening, SourceAddress(V4.address, (option,)))[1] == 0


def test_freebind(listening):
    assert connected(listening, V4, freebind=True)[2] == 1


def test_a_unix_endpoint_has_no_source(tmp_path):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        Sources(BindOptions((V4,))).connect(path, None).close()
