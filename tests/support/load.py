"""HTTP load from one thread: connections that are kept while the proxy keeps them, and an account of every one that fails."""

from __future__ import annotations

import dataclasses
import selectors
import socket
import threading
import time

PATIENCE_S = 10.0


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """A request without its answer. ``port`` is our end of the connection, ``at`` monotonic seconds."""

    port: int
    at: float
    what: str


class _Kept:
    """One connection, one request at a time."""

    def __init__(self, address: tuple[str, int], request: bytes) -> None:
        self._address = address
        self._request = request
        self._got = b""
        self.asked_at = 0.0
        self.opened_at = 0.0
        self.sock: socket.socket | None = None
        self.port = 0

    def open(self) -> None:
        self.opened_at = time.monotonic()
        self.sock = socket.create_connection(self._address, timeout=PATIENCE_S)
        self.port = self.sock.getsockname()[1]

    def ask(self) -> None:
        assert self.sock is not None
        self._got = b""
        self.asked_at = time.monotonic()
        self.sock.sendall(self._request)

    def read(self) -> tuple[bytes, bytes] | None:
        """(head, body) when the answer is complete."""
        assert self.sock is not None
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionResetError(f"closed after {len(self._got)} bytes")
        self._got += data
        head, end, body = self._got.partition(b"\r\n\r\n")
        if not end:
            return None
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        return (head, body) if len(body) >= length else None

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()
            self.sock = None


class HttpLoad:
    """``count`` connections to 127.0.0.1:``port`` that ask for ``path`` all the time, while the ``with`` block runs.

    ``failures`` has what went wrong, ``done`` counts good answers, ``slowest_s`` is the longest wait for one, the time to
    connect included. ``answers`` are the different bodies that came.
    """

    def __init__(self, port: int, *, count: int = 16, path: str = "/") -> None:
        request = f"GET {path} HTTP/1.1\r\nhost: load.example\r\n\r\n".encode()
        self._connections = [_Kept(("127.0.0.1", port), request) for _ in range(count)]
        self.done = 0
        self.slowest_s = 0.0
        self.failures: list[Failure] = []
        self.answers: set[bytes] = set()
        self._stop = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._run, name="load")

    def ports(self) -> set[int]:
        """Our ends of the connections that are open now."""
        return {kept.port for kept in self._connections}

    def _run(self) -> None:
        for kept in self._connections:
            self._begin(kept)
        while not self._stop.is_set():
            for key, _ in self._selector.select(0.1):
                self._on_readable(key.data)
            self._complain_of_the_silent()
        for kept in self._connections:
            kept.close()
        self._selector.close()

    def _begin(self, kept: _Kept) -> None:
        while not self._stop.is_set():
            try:
                kept.open()
                kept.ask()
            except OSError as error:
                self._fail(kept, error)
                continue
            self._selector.register(kept.sock, selectors.EVENT_READ, kept)  # type: ignore[arg-type]
            return

    def _on_readable(self, kept: _Kept) -> None:
        try:
            answer = kept.read()
            if answer is None:
                return
            head, body = answer
            if not head.startswith(b"HTTP/1.1 200 "):
                raise ConnectionError(head.partition(b"\r\n")[0].decode())
            self.done += 1
            self.answers.add(body)
            self.slowest_s = max(self.slowest_s, time.monotonic() - (kept.opened_at or kept.asked_at))
            kept.opened_at = 0.0
            if b"\r\nconnection: close" not in head:
                kept.ask()
                return
        except OSError as error:
            self._fail(kept, error)
        self._again(kept)

    def _again(self, kept: _Kept) -> None:
        if kept.sock is not None:
            self._selector.unregister(kept.sock)
        kept.close()
        self._begin(kept)

    def _fail(self, kept: _Kept, error: OSError) -> None:
        self.failures.append(Failure(kept.port, time.monotonic(), repr(error)))

    def _complain_of_the_silent(self) -> None:
        now = time.monotonic()
        for kept in self._connections:
            if now - kept.asked_at > PATIENCE_S:
                self._fail(kept, TimeoutError("no answer"))
                self._again(kept)

    def __enter__(self) -> HttpLoad:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
