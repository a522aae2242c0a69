"""sd_notify(3) in a few lines: datagrams to $NOTIFY_SOCKET, nothing when there is none."""

from __future__ import annotations

import contextlib
import os
import socket
from time import monotonic_ns


class Notifier:
    """Tells the service manager what happens. A manager that does not listen is no error."""

    def __init__(self, address: str | None = None) -> None:
        given = address if address is not None else os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + given[1:] if given.startswith("@") else given

    def ready(self, status: str) -> None:
        """Start-up is complete, or a reload has ended one way or the other."""
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """A reload begins. systemd 253 and later wait for ever without MONOTONIC_USEC."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The end begins."""
        self._send("STOPPING=1\nSTATUS=draining")

    def status(self, status: str) -> None:
        """One line for ``systemctl status``."""
        self._send(f"STATUS={status}")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto(text.encode(), self._address)
