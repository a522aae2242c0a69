"""Thousands of connections that are open and idle, beside the load or alone."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import time
from collections.abc import Iterator

from tests.benchmarks.measure import LoadFailed
from tests.support.proxy import process_tree

BATCH = 100
PER_SOURCE = 5000
"""Connections from one source address: its ports must do for them and for those that were there a minute ago."""
ACCEPT_LIMIT_S = 20.0
DESCRIPTORS_LEFT = 500
IP_BIND_ADDRESS_NO_PORT = 24  # <linux/in.h>
REQUEST = b"GET /ping HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"


def affordable(asked: int) -> int:
    """``asked``, or as many as descriptors allow: forkproxy stops accepting at three quarters of what it may have."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(1, min(asked, soft * 3 // 4 - DESCRIPTORS_LEFT))


def descriptors(pid: int) -> int:
    """How many the processes of a tree have open, all together."""
    total = 0
    for each in process_tree(pid):
        with contextlib.suppress(OSError):
            total += len(os.listdir(f"/proc/{each}/fd"))
    return total


def _open(socks: list[socket.socket], port: int) -> None:
    socks.append(sock := socket.socket())
    sock.settimeout(10)
    sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind((f"127.0.0.{2 + len(socks) // PER_SOURCE}", 0))
    sock.connect(("127.0.0.1", port))


def _ask(socks: list[socket.socket]) -> None:
    for sock in socks:
        sock.sendall(REQUEST)
    for sock in socks:
        answer = b""
        while not answer.endswith(b"pong"):
            data = sock.recv(4096)
            if not data:
                raise LoadFailed(f"an idle connection to be was closed after {answer[:100]!r}")
            answer += data


def _is_open(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return sock.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


@contextlib.contextmanager
def idle_connections(pid: int, port: int, count: int, *, asked: bool) -> Iterator[None]:
    """``count`` connections to ``port`` within the block, all accepted by the tree of ``pid``, after one GET /ping each or none.

    LoadFailed when one cannot be made, or did not last.
    """
    socks: list[socket.socket] = []
    before = descriptors(pid)
    try:
        try:
            for first in range(0, count, BATCH):
                for _ in range(first, min(first + BATCH, count)):
                    _open(socks, port)
                if asked:
                    _ask(socks[first:])
        except OSError as error:
            raise LoadFailed(f"idle connection {len(socks)} of {count}: {error}") from error
        deadline = time.monotonic() + ACCEPT_LIMIT_S
        while (accepted := descriptors(pid) - before) < count:
            if time.monotonic() > deadline:
                raise LoadFailed(f"{accepted} of {count} idle connections were accepted")
            time.sleep(0.1)
        yield
        closed = sum(not _is_open(sock) for sock in socks)
        if closed:
            raise LoadFailed(f"{closed} of {count} idle connections did not last")
    finally:
        for sock in socks:
            sock.close()
