"""Sockets that the service manager passed at start: sd_listen_fds(3), so that it can hold them while nobody serves.

A passed socket is adopted by the listener whose address it has. Its first slot gets the passed socket itself; the others get
sockets of their own beside it when SO_REUSEPORT is set on it (the unit's ReusePort=yes) and the kernel lets this user, or else
share its queue. Backlog and socket options are then the socket unit's. The originals stay open as long as the supervisor lives:
a listener that a reload takes away may come back.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, MutableMapping

from forkproxy import log
from forkproxy.net.address import SocketAddress, normalise, text

FIRST_FD = 3  # SD_LISTEN_FDS_START

_log = log.get_logger("supervisor")


class PassedSockets:
    """What was passed, by address."""

    def __init__(self) -> None:
        self._sockets: dict[SocketAddress, tuple[str, socket.socket]] = {}

    def take(self, environment: MutableMapping[str, str] = os.environ) -> None:
        """Take what is meant for this process, and the variables out of the environment. Called once, at start."""
        count = environment.pop("LISTEN_FDS", "")
        pid = environment.pop("LISTEN_PID", "")
        names = environment.pop("LISTEN_FDNAMES", "").split(":")
        if pid != str(os.getpid()) or not count.isdecimal():
            return
        for index in range(int(count)):
            name = names[index] if index < len(names) else ""
            self._add(FIRST_FD + index, name or "unknown")

    def _add(self, fd: int, name: str) -> None:
        try:
            os.set_inheritable(fd, False)
            sock = socket.socket(fileno=fd)
        except OSError as error:
            _log.warning("a passed descriptor is no socket: left alone", name=name, fd=fd, reason=error.strerror)
            return
        address = normalise(sock.getsockname()) if sock.family in _FAMILIES else ""
        is_listening = sock.type == socket.SOCK_STREAM and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if not address or not is_listening or address in self._sockets:
            hint = "the socket unit needs Accept=no and one ListenStream= per address"
            _log.warning("a passed socket cannot be used", name=name, address=text(address), hint=hint)
            sock.close()
            return
        sock.setblocking(False)
        self._sockets[address] = (name, sock)

    def inherit(self, passed: Iterable[tuple[str, int]]) -> None:
        """Take what the predecessor had, as (name, descriptor)."""
        for name, fd in passed:
            self._add(fd, name)

    def descriptors(self) -> list[tuple[str, int]]:
        """(name, descriptor) of each."""
        return [(name, sock.fileno()) for name, sock in self._sockets.values()]

    def get(self, address: SocketAddress) -> socket.socket | None:
        """The passed socket that listens on ``address``; it stays ours: duplicate it."""
        found = self._sockets.get(address)
        return found[1] if found else None

    def warn_of_unused(self, used: set[SocketAddress]) -> None:
        """Say which were passed in vain."""
        for address, (name, _sock) in self._sockets.items():
            if address not in used:
                hint = "no listener has exactly this address: connections to it wait until one has"
                _log.warning("a passed socket is not used", name=name, address=text(address), hint=hint)

    def close(self) -> None:
        """Close our copies; the manager keeps its own."""
        for _name, sock in self._sockets.values():
            sock.close()
        self._sockets.clear()


_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


def has_reuse_port(sock: socket.socket) -> bool:
    """Whether others may bind beside it."""
    return sock.family != socket.AF_UNIX and bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))
