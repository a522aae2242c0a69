"""An upstream that answers when the test says so, and downstreams that each wait for one answer.

What is limited (circuit breakers) shows only while several requests are under way at once.
"""

from __future__ import annotations

import socket
import threading
import time

from tests.support.wire import Message, cut_message

PATIENCE_S = 10.0
PROXY_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def until(what, patience_s: float = PATIENCE_S):
    """Poll ``what()`` until it is true; returns its value."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        value = what()
        if value:
            return value
        time.sleep(0.005)
    raise AssertionError(f"not within {patience_s} s: {what}")


class HeldUpstream:
    """Listens on a free port. Requests without a body; each is held until ``release``, the oldest first.

    ``answer``: the answer of the requests to come; b"" closes the connection instead.
    """

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self.listener.getsockname()[1]
        self.answer = ANSWER
        self.connections = 0
        """Accepted so far."""
        self.open = 0
        self.arrived = 0
        """Requests so far."""
        self.heads: list[bytes] = []
        self.peers: list[tuple[str, int]] = []
        """Who connected, in order."""
        self.announcements: list[bytes] = []
        """PROXY headers of version 2, without their signature."""
        self._lock = threading.Lock()
        self._held: list[threading.Event] = []
        self._socks: set[socket.socket] = set()
        self._free = False
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def held(self) -> int:
        """Requests that wait for their answer now."""
        with self._lock:
            return len(self._held)

    def release(self, count: int = 1) -> None:
        """Answer the ``count`` oldest."""
        with self._lock:
            going, self._held = self._held[:count], self._held[count:]
        for each in going:
            each.set()

    def release_all(self) -> None:
        """Answer all that wait, and from now on everything at once."""
        self._free = True
        self.release(1 << 20)

    def hold(self) -> None:
        """Hold what comes, as at first."""
        self._free = False

    def _accept(self) -> None:
        while True:
            try:
                sock, peer = self.listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self.connections += 1
                self.open += 1
                self.peers.append(peer)
                self._socks.add(sock)
            thread = threading.Thread(target=self._converse, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _converse(self, sock: socket.socket) -> None:
        received = b""
        try:
            while data := sock.recv(65536):
                received = self._read_announcement(received + data)
                while b"\r\n\r\n" in received and not PROXY_SIGNATURE.startswith(received[:12]):
                    head, _, received = received.partition(b"\r\n\r\n")
                    answer = self._wait(head)
                    if not answer:
                        return
                    sock.sendall(answer)
        except OSError:
            return
        finally:
            with self._lock:
                self.open -= 1
                self._socks.discard(sock)
            sock.close()

    def _read_announcement(self, received: bytes) -> bytes:
        # A PROXY header of version 2 has the end of a request's head in its signature.
        if received.startswith(PROXY_SIGNATURE) and len(received) >= 16:
            end = 16 + int.from_bytes(received[14:16])
            if len(received) >= end:
                self.announcements.append(received[12:end])
                return received[end:]
        return received

    def _wait(self, head: bytes) -> bytes:
        event = threading.Event()
        with self._lock:
            self.arrived += 1
            self.heads.append(head)
            if not self._free:
                self._held.append(event)
        if not self._free:
            event.wait()
        return self.answer

    def stop(self) -> None:
        """Close everything; no thread is left."""
        self.release_all()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with self._lock:
            socks = list(self._socks)
        for sock in socks:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it has just gone by itself
        for thread in self._threads:
            thread.join(PATIENCE_S)


class WaitingDownstreams:
    """Requests under way, each on a connection of its own."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._waiting: list[tuple[socket.socket, bytearray]] = []
        self._answers: list[Message] = []

    def send(self, count: int = 1, path: str = "/", head: str = "") -> None:
        """So many further requests."""
        for _ in range(count):
            sock = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)
            sock.sendall(f"GET {path} HTTP/1.1\r\nhost: h\r\n{head}\r\n".encode())
            sock.setblocking(False)
            self._waiting.append((sock, bytearray()))

    @property
    def waiting(self) -> int:
        """How many have no answer yet."""
        return len(self._waiting)

    def answered(self) -> int:
        """How many answers there are that nobody has taken."""
        for entry in list(self._waiting):
            sock, received = entry
            try:
                data = sock.recv(65536)
            except BlockingIOError:
                continue
            received += data
            cut = cut_message(bytes(received), 0, request_method=b"GET")
            if cut is not None and cut[0].complete:
                self._answers.append(cut[0])
                self._waiting.remove(entry)
                sock.close()
            elif not data:
                raise AssertionError(f"closed after {bytes(received)!r}")
        return len(self._answers)

    def answers(self, count: int, patience_s: float = PATIENCE_S) -> list[Message]:
        """The next ``count`` answers, in no order; their connections are closed."""
        until(lambda: self.answered() >= count, patience_s)
        found, self._answers = self._answers[:count], self._answers[count:]
        return found

    def statuses(self, count: int) -> list[int]:
        """The statuses of the next ``count`` answers, sorted."""
        return sorted(message.status for message in self.answers(count))

    def leave(self) -> None:
        """Close those that still wait."""
        for sock, _ in self._waiting:
            sock.close()
        self._waiting.clear()
