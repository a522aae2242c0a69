"""Making sockets: listening ones for the supervisor's slots, connecting ones for upstreams."""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterable

from forkproxy.net.address import Restored, SocketAddress, family_of, normalise

DEFAULT_BACKLOG = 1024

_SIOCGIFCONF = 0x8912  # <linux/sockios.h>
_IFREQ = struct.Struct("16sHxx4s0l")  # struct ifreq with a sockaddr_in: name, family, port, address; a union ends it
_IFREQ_BYTES = struct.calcsize("16sLLHBBB3x0l")

RawSocket = socket.SocketType
"""What ``socket.socket`` is made of: the system calls, without files, duplicates and context managers."""
Accept = Callable[[], tuple[RawSocket, SocketAddress]]
"""Takes one connection that waits; OSError as of ``socket.accept``."""

SO_ORIGINAL_DST = 80  # <linux/netfilter_ipv4.h>; for IPv6 it is IP6T_SO_ORIGINAL_DST, the same number
SocketOption = tuple[int, int, bytes]
"""(level, name, value as the kernel takes it)."""


def listening_socket(
    address: SocketAddress,
    *,
    backlog: int = DEFAULT_BACKLOG,
    reuse_port: bool = True,
    ipv4_compat: bool = False,
    freebind: bool = False,
    transparent: bool = False,
    pipe_mode: int = 0,
    prebind_options: Iterable[SocketOption] = (),
    bound_options: Iterable[SocketOption] = (),
    listening_options: Iterable[SocketOption] = (),
) -> socket.socket:
    """A bound, listening, non-blocking, close-on-exec socket. OSError when it cannot be bound.

    A unix-domain path that is a socket nobody listens on any more is removed first.
    """
    family = family_of(address)
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if family == socket.AF_UNIX:
            assert isinstance(address, str)
            _remove_stale(address)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if ipv4_compat else 1)
            if freebind:
                sock.setsockopt(socket.SOL_IP, _IP_FREEBIND, 1)
            if transparent:
                sock.setsockopt(socket.SOL_IP, socket.IP_TRANSPARENT, 1)
        for level, name, value in prebind_options:
            sock.setsockopt(level, name, value)
        sock.bind(address)
        if pipe_mode and isinstance(address, str) and not address.startswith("\0"):
            os.chmod(address, pipe_mode)
        for level, name, value in bound_options:
            sock.setsockopt(level, name, value)
        sock.listen(backlog)
        for level, name, value in listening_options:
            sock.setsockopt(level, name, value)
    except BaseException:
        sock.close()
        raise
    return sock


def acceptor(listening: socket.socket) -> Accept:
    """Takes connections from ``listening``: non-blocking, without delay, the peer's address normalised.

    ``socket.accept`` looks up two enums and makes a larger object: 3 µs of the 5 that an accept takes.
    """
    accept = listening._accept  # type: ignore[attr-defined]  # what socket.accept calls: (descriptor, address)
    family, kind, protocol = int(listening.family), int(listening.type), listening.proto
    is_plain = family == socket.AF_INET
    is_delayed = family != socket.AF_UNIX and not listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    def accept_one() -> tuple[RawSocket, SocketAddress]:
        fd, peer = accept()
        accepted = RawSocket(family, kind, protocol, fd)
        accepted.setblocking(False)
        if is_delayed:  # a socket that somebody else has made
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return accepted, peer if is_plain else normalise(peer) if peer else ""

    return accept_one


_IP_FREEBIND = 15  # <linux/in.h>; the socket module does not name it


def _remove_stale(path: str) -> None:
    if path.startswith("\0"):
        return
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except OSError:
        return
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.settimeout(0)
        probe.connect(path)
    except ConnectionRefusedError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    except OSError:
        pass
    finally:
        probe.close()


def connecting_socket(
    address: SocketAddress,
    *,
    bind_address: SocketAddress | None = None,
    keepalive: tuple[int, int, int] | None = None,
    freebind: bool = False,
    prebind_options: Iterable[SocketOption] = (),
    bound_options: Iterable[SocketOption] = (),
) -> socket.socket:
    """A non-blocking socket whose ``connect`` has been started. OSError when it fails at once (no route, no descriptor).

    ``keepalive``: (probes, idle seconds, interval seconds), 0 leaves the kernel's value.
    """
    family = family_of(address)
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if keepalive is not None:
                _set_keepalive(sock, *keepalive)
        if freebind:
            sock.setsockopt(socket.SOL_IP, _IP_FREEBIND, 1)
        for level, name, value in prebind_options:
            sock.setsockopt(level, name, value)
        if bind_address is not None:
            sock.bind(bind_address)
        for level, name, value in bound_options:
            sock.setsockopt(level, name, value)
        try:
            sock.connect(address)
        except BlockingIOError as error:
            if error.errno != errno.EINPROGRESS:
                raise  # EAGAIN of a unix-domain socket: its backlog is full, and nothing goes on in the background
    except BaseException:
        sock.close()
        raise
    return sock


def _set_keepalive(sock: socket.socket, probes: int, time_s: int, interval_s: int) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPCNT, probes),
        (socket.TCP_KEEPIDLE, time_s),
        (socket.TCP_KEEPINTVL, interval_s),
    ):
        if value:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def original_destination(sock: RawSocket, transparent: bool = False) -> Restored | None:
    """Where the peer of an accepted connection wanted to go before the kernel redirected it here; None when it came directly.

    ``transparent``: the listener takes connections to any address (IP_TRANSPARENT), so the local address is what they want.
    (Envoy: "Original destination" listener filter, which takes the local address of a direct connection for redirected, too:
    an ORIGINAL_DST cluster then connects to its own listener.)
    """
    local = sock.getsockname()
    if not isinstance(local, tuple):
        return None
    is_4 = sock.family == socket.AF_INET
    try:
        raw = sock.getsockopt(socket.IPPROTO_IP if is_4 else socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 16 if is_4 else 28)
    except OSError:
        found = local
    else:
        (port,) = struct.unpack_from("!H", raw, 2)
        found = (socket.inet_ntop(sock.family, raw[4:8] if is_4 else raw[8:24]), port)
    if found[:2] == local[:2] and not transparent:
        return None
    return Restored(normalise(found))


def own_ipv4_addresses() -> list[str]:
    """The IPv4 addresses of this machine's interfaces, those of loopback among them, in the kernel's order.

    As getifaddrs(3) finds them; of what brings that to Python, psutil weighs more than 1 MiB in every process.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        room = 64 * _IFREQ_BYTES
        while True:
            buffer = array.array("B", bytes(room))
            filled = fcntl.ioctl(sock, _SIOCGIFCONF, struct.pack("iP", room, buffer.buffer_info()[0]))
            (used,) = struct.unpack_from("i", filled)
            # A list that does not fit is cut without a word.
            if used <= room - _IFREQ_BYTES:
                break
            room *= 4
    starts = range(0, used, _IFREQ_BYTES)
    return [socket.inet_ntoa(_IFREQ.unpack_from(buffer, start)[2]) for start in starts]
