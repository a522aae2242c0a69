"""An upstream whose answer the test changes as it goes, for what happens over time: health checks, ejections."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable

Answer = bytes | None
"""What is sent when something was received: bytes, None for nothing at all, b"" to close."""


def http_answer(status: int = 200, *headers: str, body: bytes = b"") -> bytes:
    """An HTTP/1.1 response."""
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n{lines}\r\n".encode() + body


class AnsweringUpstream:
    """Listens on ``port`` of 127.0.0.1; each piece received is answered by ``answer``, or ``answer(piece)`` when it is callable.

    ``received``: all pieces, in order. ``connections``: how many were accepted. ``down()`` refuses connections and cuts those
    there are, ``up()`` listens again on the same port.
    """

    def __init__(self, answer: Answer | Callable[[bytes], Answer] = b"", tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer or http_answer()
        self.received: list[bytes] = []
        self.connections = 0
        self.protocols: list[str | None] = []
        """What ALPN chose, for each TLS connection."""
        self._tls = tls
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listening: socket.socket | None = None
        self.port = 0
        self.up()

    def up(self) -> None:
        """Listen."""
        self._listening = socket.create_server(("127.0.0.1", self.port), reuse_port=False)
        self.port = self._listening.getsockname()[1]
        self._run(self._accept, self._listening)

    def down(self) -> None:
        """Listen no more, and cut every connection."""
        if self._listening is not None:
            listening, self._listening = self._listening, None
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            listening.close()
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        """The end: nothing is left when this returns."""
        self.down()
        for thread in self._threads:
            thread.join(10)

    def __enter__(self) -> AnsweringUpstream:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def _run(self, target: Callable[[socket.socket], None], sock: socket.socket) -> None:
        thread = threading.Thread(target=target, args=(sock,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                sock, _ = listening.accept()
            except OSError:
                return
            self.connections += 1
            with self._lock:
                self._open.add(sock)
            self._run(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        raw = sock
        try:
            if self._tls is not None:
                sock = secured = self._tls.wrap_socket(sock, server_side=True)
                self.protocols.append(secured.selected_alpn_protocol())
            while data := sock.recv(65536):
                self.received.append(data)
                answer = self.answer(data) if callable(self.answer) else self.answer
                if answer == b"":
                    return
                if answer is not None:
                    sock.sendall(answer)
        except OSError:
            return
        finally:
            with self._lock:
                self._open.discard(raw)
            sock.close()
