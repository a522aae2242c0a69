"""The service manager's protocols: sd_notify(3) and sd_listen_fds(3), in a few lines each; nothing when there is none.

Told with datagrams to $NOTIFY_SOCKET. The watchdog is ours only when $WATCHDOG_PID names us or nobody: after a fork the
variables are still there, and the child must not feed the parent's.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from time import monotonic_ns

MAIN_PROCESS_PATIENCE_S = 5.0


class Notifier:
    """Tells the service manager what happens. A manager that does not listen is no error."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        given = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + given[1:] if given.startswith("@") else given
        self._told = ""
        self.watchdog_interval_s = watchdog_s(environment) / 2.0 if given else 0.0
        """How often ``watchdog`` wants to be called: twice as often as the manager needs it. 0: nobody asks."""
        self._watchdog_at = 0.0
        self._is_silent = False

    def ready(self, status: str) -> None:
        """Start-up is complete, or a reload has ended one way or the other."""
        self._told = status
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """A reload begins. systemd 253 and later wait for ever without MONOTONIC_USEC."""
        self._told = "reloading"
        self._send(f"RELOADING=1\nMONOTONIC_USEC={monotonic_ns() // 1000}\nSTATUS=reloading")

    def main_process(self, pid: int) -> None:
        """Another process is the service's main process from now on; nothing more is said by this one."""
        # Lost, it would look as if the service had ended: this one waits for a manager that has too much to read.
        self._send(f"MAINPID={pid}", patience_s=MAIN_PROCESS_PATIENCE_S)
        self._is_silent = True

    def be_silent(self, silent: bool) -> None:
        """Whether another process speaks for the service."""
        self._is_silent = silent

    def stopping(self) -> None:
        """The end begins."""
        self._told = "draining"
        self._send("STOPPING=1\nSTATUS=draining")

    def status(self, status: str) -> None:
        """One line for ``systemctl status``; sent only when it is another than the last."""
        if status != self._told:
            self._told = status
            self._send(f"STATUS={status}")

    def watchdog(self, now: float) -> None:
        """All is well at ``now``; sent when half the manager's patience is over. Not called when all is not well."""
        if self.watchdog_interval_s and now >= self._watchdog_at:
            self._watchdog_at = now + self.watchdog_interval_s
            self._send("WATCHDOG=1")

    def _send(self, text: str, patience_s: float = 0.0) -> None:
        if not self._address or self._is_silent:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(patience_s)
            sock.sendto(text.encode(), self._address)


def watchdog_s(environment: Mapping[str, str]) -> float:
    """How long the manager waits for a WATCHDOG=1 of this process; 0 when it does not."""
    usec = environment.get("WATCHDOG_USEC", "")
    pid = environment.get("WATCHDOG_PID", "")
    if not usec.isdecimal() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(usec) / 1e6
