"""The real loop under a test: exceptions are kept and raised at the end, and waiting has an end."""

from __future__ import annotations

import socket
import time

from forkproxy.net.connection import Connection
from forkproxy.net.loop import Loop

PATIENCE_S = 10.0


class LiveLoop(Loop):
    """A Loop with ``run_until``; ``errors`` holds what left callbacks."""

    __slots__ = ("errors",)

    def __init__(self):
        self.errors = []
        super().__init__(lambda exception, callback: self.errors.append(exception))

    def run_until(self, condition, patience_s=PATIENCE_S):
        """Passes until ``condition()`` is true; an error in a callback, or too long a wait, fails the test."""
        end = time.monotonic() + patience_s
        while not condition():
            assert time.monotonic() < end, "gave up waiting"
            self.run_once(0.05)
            if self.errors:
                raise self.errors[0]

    def passes(self, number=3):
        """Some passes that do not wait."""
        for _ in range(number):
            self.run_once(0)
        if self.errors:
            raise self.errors[0]


class Record:
    """What a connection told its owner, in order, and the bytes it read."""

    def __init__(self, connection):
        self.connection = connection
        self.events = []
        self.data = bytearray()
        connection.on_data = self._on_data
        connection.on_end = lambda: self.events.append("end")
        connection.on_close = lambda reason: self.events.append(reason)
        connection.on_connected = lambda: self.events.append("connected")
        connection.on_above_high_watermark = lambda: self.events.append("above")
        connection.on_below_low_watermark = lambda: self.events.append("below")

    def _on_data(self, data):
        self.data += data


def socket_pair(loop, family="tcp", make=Connection, **arguments):
    """(connection, record, the peer's blocking socket), the connection not yet started."""
    if family == "unix":
        ours, peer = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            peer = socket.create_connection(listening.getsockname())
            ours, _ = listening.accept()
    ours.setblocking(False)
    peer.settimeout(PATIENCE_S)
    connection = make(loop, ours, ("127.0.0.1", 1), **arguments)
    return connection, Record(connection), peer
