"""A load generator for what wrk does not do: requests at a fixed rate, or a fixed number of them.

At a fixed rate the requests are due at even distances, whatever became of the ones before. A latency counts from the moment
the request was due, so that one slow answer is not hidden by the requests that it kept from being sent (coordinated
omission). What the generator itself adds is measured too: how long after both its due time and the return of its connection a
request was really sent. (h2load's --rps sends in bursts every 10 ms, all connections at once, and counts from the sending.)

A request fails when its connection ends under it, when its status is not 200, or when 10 seconds bring nothing. A connection
that is closed between two requests, or by an answer that says so, is opened again. It runs as a process of its own, pinned:
``running`` starts it, and ``Run.result`` waits for what it counted.
"""

from __future__ import annotations

import array
import collections
import contextlib
import ctypes
import dataclasses
import gc
import json
import math
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tests.benchmarks.measure import LoadFailed
from tests.support.forkproxy import environment

PATIENCE_S = 10.0
_CLOCK_MONOTONIC = 1


@dataclasses.dataclass(frozen=True)
class Order:
    """What to send. ``rate`` in requests per second; 0: each connection asks again as soon as it has its answer.

    ``first`` is the number of the first request, for paths that differ over several runs.
    """

    port: int
    requests: int
    rate: float = 0.0
    connections: int = 32
    path: str = "/ping"
    host: str = "bench.example"
    varied: bool = False
    first: int = 0


@dataclasses.dataclass(frozen=True)
class Counted:
    """What came of it. ``late_p99_ms`` is the generator's own delay; ``failures`` are counted by what happened."""

    requests: int
    seconds: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    late_p99_ms: float
    reopened: int
    failures: dict[str, int]


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """The smallest of the ``ordered`` values that ``fraction`` of all do not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(len(ordered) * fraction) - 1)]


def counted(
    latencies: Sequence[float], late: Sequence[float], seconds: float, reopened: int, failures: dict[str, int]
) -> Counted:
    """The account of one run, from latencies and delays in seconds."""
    ordered = sorted(latencies) or [0.0]
    p50, p90, p99, p999, longest = (
        round(percentile(ordered, fraction) * 1000, 3) for fraction in (0.5, 0.9, 0.99, 0.999, 1.0)
    )
    late_p99 = round(percentile(sorted(late) or [0.0], 0.99) * 1000, 3)
    return Counted(len(latencies), round(seconds, 3), p50, p90, p99, p999, longest, late_p99, reopened, failures)


def heads(order: Order) -> Callable[[int], bytes]:
    """The request of a number."""
    if order.varied:
        text = (
            "GET /item/%d?session=%d HTTP/1.1\r\nHost: {}\r\nUser-Agent: bench/%d\r\nAccept: */*\r\nX-Trace: %d\r\n"
            "Cookie: id=%d; theme=%d\r\n\r\n"
        )
        form = text.format(order.host).encode()
        return lambda n: form % (n, n * 7919, n % 977, n * 104729, n * 31, n % 13)
    fixed = f"GET {order.path} HTTP/1.1\r\nHost: {order.host}\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n".encode()
    return lambda _n: fixed


def missing_bytes(data: bytes) -> int:
    """How many bytes an answer that begins with ``data`` still lacks; at least 1 while its head is not complete.

    Raises ValueError for one that is not 200 or does not tell its length.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return 1
    if data[9:12] != b"200":
        raise ValueError(f"status {data[9:12].decode('latin-1')}")
    head = data[:end].lower()
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        raise ValueError("no content-length")
    return end + 4 + int(head[at + 17 :].split(b"\r\n", 1)[0]) - len(data)


class _Connection:
    """One kept connection; ``due`` is None between requests."""

    __slots__ = ("address", "asked", "due", "free_since", "got", "sock")

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.due: float | None = None
        self.asked = 0.0
        self.free_since = 0.0
        self.got = b""
        self.open()

    def open(self) -> None:
        self.sock = socket.create_connection(self.address, timeout=PATIENCE_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.got = b""


class Generator:
    """One run of an order."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.latencies = array.array("d")
        self.late = array.array("d")
        self.failures: collections.Counter[str] = collections.Counter()
        self.reopened = 0
        self.done = 0
        """How many requests have their answer or have failed."""
        self.epoll = select.epoll()
        self.connections: dict[int, _Connection] = {}
        self.idle: collections.deque[_Connection] = collections.deque()

    def run(self) -> Counted:
        """Send everything, and wait for the answers."""
        for _ in range(self.order.connections):
            self._enlist(_Connection(("127.0.0.1", self.order.port)))
        # Objects of requests are freed by their counts, and a collection would delay a request.
        gc.disable()
        begun = time.monotonic()
        try:
            self._work(begun)
        finally:
            gc.enable()
        seconds = time.monotonic() - begun
        for connection in self.connections.values():
            connection.sock.close()
        return counted(self.latencies, self.late, seconds, self.reopened, dict(self.failures))

    def _enlist(self, connection: _Connection) -> None:
        self.connections[connection.sock.fileno()] = connection
        self.epoll.register(connection.sock.fileno(), select.EPOLLIN)
        connection.due = None
        connection.free_since = time.monotonic()
        self.idle.append(connection)

    def _work(self, begun: float) -> None:
        order, idle, clock = self.order, self.idle, time.monotonic
        head = heads(order)
        interval = 1.0 / order.rate if order.rate else 0.0
        ticks = _periodic_timer(interval) if interval else -1
        if interval:
            self.epoll.register(ticks, select.EPOLLIN)
        sent, answered_at = 0, begun
        while self.done < order.requests:
            now = clock()
            while sent < order.requests and idle and (due := begun + sent * interval if interval else now) <= now:
                self._ask(idle.popleft(), head(order.first + sent), due)
                sent += 1
                now = clock()
            before = self.done
            for fd, _ in self.epoll.poll(0.5):
                if fd == ticks:
                    os.read(ticks, 8)
                else:
                    self._on_event(fd)
            if self.done > before or sent == self.done:
                answered_at = clock()
            elif clock() - answered_at > PATIENCE_S:
                self._count("no answer", order.requests - self.done)
        if interval:
            os.close(ticks)

    def _count(self, why: str, requests: int = 1) -> None:
        self.failures[why] += requests
        self.done += requests

    def _ask(self, connection: _Connection, head: bytes, due: float) -> None:
        now = time.monotonic()
        self.late.append(now - max(due, connection.free_since))
        connection.due, connection.asked = due, now
        try:
            sent = connection.sock.send(head)
        except OSError as error:
            self._fail(connection, type(error).__name__)
            return
        if sent != len(head):
            self._fail(connection, "not taken")

    def _on_event(self, fd: int) -> None:
        connection = self.connections.get(fd)
        if connection is None:
            return
        try:
            data = connection.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            data, why = b"", type(error).__name__
        else:
            why = "closed" if not connection.got else "broken off"
        if connection.due is None:
            # Closed between two requests, or bytes that nobody asked for.
            if data:
                self._count("unasked bytes")
            self._reopen(connection)
            return
        if not data:
            self._fail(connection, why)
            return
        got = connection.got = connection.got + data if connection.got else data
        try:
            missing = missing_bytes(got)
        except ValueError as error:
            self._fail(connection, str(error))
            return
        if missing > 0:
            return
        now = time.monotonic()
        self.latencies.append(now - connection.due)
        self.done += 1
        connection.due = None
        if b"\r\nconnection: close" in got[:1024].lower():
            self._reopen(connection)
            return
        connection.got = b""
        connection.free_since = now
        self.idle.append(connection)

    def _fail(self, connection: _Connection, why: str) -> None:
        self._count(why)
        self._reopen(connection)

    def _reopen(self, connection: _Connection) -> None:
        self.reopened += 1
        del self.connections[connection.sock.fileno()]
        connection.sock.close()
        with contextlib.suppress(ValueError):
            self.idle.remove(connection)
        try:
            connection.open()
        except OSError as error:
            # Nothing more can be sent over it; the requests go by the others, and the run does not count.
            self._count(f"connect: {type(error).__name__}")
            if not self.connections:
                self._count("no connection left", self.order.requests - self.done)
            return
        self._enlist(connection)


def _periodic_timer(interval_s: float) -> int:
    # epoll waits in whole milliseconds, which is ten requests at 10,000 a second.
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.timerfd_create(_CLOCK_MONOTONIC, os.O_CLOEXEC | os.O_NONBLOCK)
    nanoseconds = max(1, round(interval_s * 1e9))
    span = (ctypes.c_long * 4)(*divmod(nanoseconds, 10**9), *divmod(nanoseconds, 10**9))
    if fd < 0 or libc.timerfd_settime(fd, 0, ctypes.byref(span), None) != 0:
        raise OSError(ctypes.get_errno(), "timerfd")
    return fd


class Run:
    """A generator at work."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def result(self, *, counts_failures: bool = False) -> Counted:
        """Wait for the end. Raises LoadFailed when a request failed, unless ``counts_failures``."""
        said, complaint = self._process.communicate()
        if self._process.returncode != 0:
            raise LoadFailed(f"the generator ended with {self._process.returncode}: {complaint[-500:]}")
        found = Counted(**json.loads(said))
        if found.failures and not counts_failures:
            raise LoadFailed(f"{found.requests} requests, failed: {found.failures}")
        return found


@contextlib.contextmanager
def running(order: Order, cpu: int) -> Iterator[Run]:
    """Start the generator, pinned to ``cpu``; it does not outlive the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.generator", json.dumps(dataclasses.asdict(order))],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env=environment(),
        preexec_fn=lambda: os.sched_setaffinity(0, {cpu}),
    )  # fmt: skip
    try:
        yield Run(process)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def load(order: Order, cpu: int) -> Counted:
    """The whole run."""
    with running(order, cpu) as run:
        return run.result()


def main(arguments: list[str]) -> int:
    """Entry point of the process: the order as JSON, the account as JSON on standard output."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    values: dict[str, Any] = json.loads(arguments[0])
    print(json.dumps(dataclasses.asdict(Generator(Order(**values)).run())))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
