"""Endpoints on 127.0.0.1, 127.0.0.2, … of one port, each of which answers every request with its own address."""

from __future__ import annotations

import contextlib
import io
import os
import selectors
import socket

from tests.support.proxy import free_ports

LIMIT_S = 10.0


class ManyEndpoints:
    """A child process that serves them, so that its connections are none of a test's."""

    def __init__(self, count: int) -> None:
        self.port = free_ports(1)[0]
        listening = [socket.create_server((f"127.0.0.{number}", self.port)) for number in range(1, count + 1)]
        self._held, other = socket.socketpair()
        self._pid = os.fork()
        if not self._pid:
            try:
                self._held.close()
                self._serve(listening, other)
            finally:
                os._exit(0)
        for sock in (*listening, other):
            sock.close()

    def endpoint(self, number: int, weight: int = 1, metadata: dict | None = None, **more) -> dict:
        """The number-th as an LbEndpoint, from 1 on; ``hostname`` and others go to the endpoint or beside it."""
        inner = {"address": {"socket_address": {"address": f"127.0.0.{number}", "port_value": self.port}}}
        if "hostname" in more:
            inner["hostname"] = more.pop("hostname")
        made = {"endpoint": inner, "load_balancing_weight": weight, **more}
        if metadata is not None:
            made["metadata"] = {"filter_metadata": {"envoy.lb": metadata}}
        return made

    def _serve(self, listening: list[socket.socket], parent: socket.socket) -> None:
        self._selector = selectors.DefaultSelector()
        for server in listening:
            server.setblocking(False)
            self._selector.register(server, selectors.EVENT_READ, None)
        self._selector.register(parent, selectors.EVENT_READ, "end")
        while True:
            for key, _ in self._selector.select():
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if key.data == "end":
                    return
                if key.data is None:
                    connection, _ = sock.accept()
                    connection.settimeout(LIMIT_S)
                    self._selector.register(connection, selectors.EVENT_READ, sock.getsockname()[0].encode())
                else:
                    self._answer(sock, key.data)

    def _answer(self, sock: socket.socket, name: bytes) -> None:
        try:
            data = sock.recv(65536)
            if b"open HTTP" in data:  # a path that ends so: the answer begins, and does not end
                sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n%s#" % name)
                return
            if name in data.lower().partition(b"x-fail: ")[2].partition(b"\r\n")[0].split(b","):
                sock.sendall(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n")
                return
            if data:
                sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(name), name))
                return
        except OSError:
            pass  # a proxy that ends may reset what it has open
        self._selector.unregister(sock)
        sock.close()

    def close(self) -> None:
        """End the process."""
        self._held.close()
        os.waitpid(self._pid, 0)


def ask(port: int, requests: list[bytes], batch: int = 1) -> list[str]:
    """The bodies of the answers to ``requests``, "503" and so on for other statuses; ``batch`` of them go at once.

    Where a proxy closes after an answer, a new connection carries on.
    """
    found: list[str] = []
    while len(found) < len(requests):
        with contextlib.closing(socket.create_connection(("127.0.0.1", port), LIMIT_S)) as sock:
            before = len(found)
            with sock.makefile("rb") as answers:
                _converse(sock, answers, requests, batch, found)
            assert len(found) > before, "the proxy has closed without an answer"
    return found


def _converse(
    sock: socket.socket, answers: io.BufferedReader, requests: list[bytes], batch: int, found: list[str]
) -> None:
    while len(found) < len(requests):
        part = requests[len(found) : len(found) + batch]
        try:
            sock.sendall(b"".join(part))
        except OSError:
            return
        for _ in part:
            first = answers.readline()
            if not first:
                return
            status = first.split(b" ")[1].decode()
            size = 0
            while (line := answers.readline().lower()) != b"\r\n":
                assert line, "the proxy has closed inside a head"
                if line.startswith(b"content-length:"):
                    size = int(line.partition(b":")[2])
            body = answers.read(size).decode()
            found.append(body if status == "200" else status)


def get(path: str, **headers: str) -> bytes:
    """A GET; ``x_key="a"`` is the header x-key."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"GET {path} HTTP/1.1\r\nhost: h\r\n{lines}\r\n".encode()
