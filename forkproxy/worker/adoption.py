"""Listening sockets that come to a worker after its birth: those of slots that have retired.

A listening socket that is closed resets whoever is in its queue, and between the last accept and the close there is always
room for one. So the sockets of a slot without a worker stay where they are, and the workers of the others accept from them as
well. They travel over a unix socket that each worker has for it; its buffer has room for some hundreds.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from forkproxy.net.loop import Loop
from forkproxy.net.poller import READ
from forkproxy.worker.handover import pass_socket, receive_socket

Key = tuple[str, int]
"""Listener name and address index."""
Adopt = Callable[[Key, socket.socket], None]


class Giver:
    """The supervisor's end. ``receiver`` is the worker's: to be closed here when it has been forked."""

    __slots__ = ("_owed", "_sender", "receiver")

    def __init__(self) -> None:
        # Keeps messages apart.
        self.receiver, self._sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.receiver.setblocking(False)
        self._sender.setblocking(False)
        self._owed: list[tuple[Key, socket.socket]] = []

    def give(self, key: Key, sock: socket.socket) -> None:
        """Send it a socket, now or when it reads again."""
        self._owed.append((key, sock))
        self.send_owed()

    def send_owed(self) -> None:
        """Try again what could not be sent. To be called now and then."""
        while self._owed:
            key, sock = self._owed[0]
            # One that was closed meanwhile belongs to a listener that is gone.
            if sock.fileno() >= 0 and not pass_socket(self._sender, {"listener": key}, sock):
                return
            self._owed.pop(0)

    def close(self) -> None:
        """The worker is gone."""
        self._owed.clear()
        self._sender.close()


class Adoption:
    """The worker's end; owns ``receiver``."""

    def __init__(self, receiver: socket.socket) -> None:
        self.receiver = receiver

    def start(self, loop: Loop, adopt: Adopt) -> None:
        """Have ``adopt(key, socket)`` called for each one; the socket is its own from then on."""
        loop.register(self.receiver.fileno(), READ, lambda _mask: self._on_ready(loop, adopt))

    def _on_ready(self, loop: Loop, adopt: Adopt) -> None:
        while (received := receive_socket(self.receiver)) is not None:
            message, sock = received
            if not message:
                loop.close_later(self.receiver)
                return
            if sock is not None:
                name, index = message["listener"]
                adopt((name, index), sock)
