"""Bulk through the running program: what it holds meanwhile, heads apart from what follows them, and waiting for a condition."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable

from tests.support.proxy import ProxyProcess


def pipes(proxy: ProxyProcess) -> int:
    """How many descriptors of pipes all its processes hold."""
    links = []
    for pid in proxy.pids():
        with contextlib.suppress(OSError):  # it ended while we looked
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    links.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return sum(link.startswith("pipe:") for link in links)


def eventually(condition: Callable[[], object]) -> None:
    """Wait until it is true; ten seconds of waiting fail the test."""
    done = threading.Event()
    for _ in range(500):
        if condition():
            return
        done.wait(0.02)
    raise AssertionError("gave up waiting")


def head_of(sock: socket.socket) -> bytes:
    """The head that comes on the socket, byte by byte, so that nothing behind it is taken."""
    got = b""
    while not got.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        assert byte, got
        got += byte
    return got
