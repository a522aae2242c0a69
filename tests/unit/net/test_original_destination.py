"""SO_ORIGINAL_DST as the kernel tells it."""

import errno
import socket
import struct

import pytest

from forkproxy.net.address import Restored
from forkproxy.net.sockets import original_destination


class Redirected:
    def __init__(self, family, local, answer):
        self.family, self._local, self._answer = family, local, answer

    def getsockname(self):
        return self._local

    def getsockopt(self, level, name, size):
        assert name == 80
        assert (level, size) == ((0, 16) if self.family == socket.AF_INET else (41, 28))
        if isinstance(self._answer, OSError):
            raise self._answer
        return self._answer


def sockaddr(host, port):
    if ":" in host:
        return struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", port, 0) + socket.inet_pton(10, host) + bytes(4)
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(host) + bytes(8)


@pytest.mark.parametrize(
    ("family", "local", "wanted"),
    [
        (socket.AF_INET, ("127.0.0.1", 10000), ("192.0.2.1", 443)),
        (socket.AF_INET6, ("::1", 10000, 0, 0), ("2001:db8::1", 443)),
    ],
)
def test_redirected(family, local, wanted):
    found = original_destination(Redirected(family, local, sockaddr(*wanted)))
    assert found == wanted
    assert isinstance(found, Restored)
    assert hash(found) == hash(wanted)


def test_not_redirected():
    local = ("127.0.0.1", 10000)
    assert original_destination(Redirected(socket.AF_INET, local, sockaddr(*local))) is None
    assert original_destination(Redirected(socket.AF_INET, local, OSError(errno.ENOENT, ""))) is None
    assert original_destination(Redirected(socket.AF_UNIX, "/run/x", b"")) is None


def test_a_transparent_listener_has_the_address_itself():
    local = ("192.0.2.1", 443)
    assert original_destination(Redirected(socket.AF_INET, local, OSError(errno.ENOENT, "")), transparent=True) == local
