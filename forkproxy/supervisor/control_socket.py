"""The operator's way in: a unix socket of mode 0600 on which the CLI asks for status, reload and stop.

One request per line, one answer per request, as JSON objects. Only root and the user that runs the supervisor are answered.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from forkproxy import log
from forkproxy.net import descriptors
from forkproxy.net.loop import Loop
from forkproxy.net.poller import READ
from forkproxy.worker.control import Channel, Message, MessageReader, ProtocolError, encode

MAX_REQUEST_BYTES = 65536
MAX_CONNECTIONS = 64
ACCEPT_RETRY_S = 0.1

_REFUSED: Message = {"ok": False, "op": "refused"}

Reply = Callable[[Message], None]
Answer = Callable[[Message, Reply], None]
"""(request, reply): called once per request; ``reply`` may be called later."""

_log = log.get_logger("control")


class ControlSocket:
    """Listens at ``path`` and hands requests to ``answer``."""

    def __init__(self, loop: Loop, path: Path, answer: Answer, inherited: socket.socket | None = None) -> None:
        """OSError when the path cannot be bound. Whoever holds the pid file owns the path: what lies there is stale.

        ``inherited`` listens at ``path`` already; it is not looked at before ``listen``.
        """
        self.path = path
        self._loop = loop
        self._answer = answer
        self._channels: set[Channel] = set()
        self._sock = inherited if inherited is not None else _bind(path)
        self._is_listening = False
        if inherited is None:
            self.listen()

    def fileno(self) -> int:
        """The listening socket's descriptor."""
        return self._sock.fileno()

    def listen(self) -> None:
        """Take requests from now on."""
        if self._is_listening:
            return
        self._is_listening = True
        self._loop.register(self._sock.fileno(), READ, self._on_connection)

    def leave(self) -> None:
        """Leave the path to whoever inherited the socket. Who has asked already is still answered."""
        if self._is_listening:
            self._is_listening = False
            self._loop.close_later(self._sock)
        else:
            self._sock.close()

    def close_connections(self) -> None:
        """Whoever still waits for an answer gets none."""
        for channel in list(self._channels):
            channel.close()
        self._channels.clear()

    def close(self) -> None:
        """Stop listening, close all connections, remove the path."""
        self.close_connections()
        self.leave()
        self.path.unlink(missing_ok=True)

    def _look_again(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.register(self._sock.fileno(), READ, self._on_connection)

    def _on_connection(self, _mask: int) -> None:
        try:
            sock, _ = self._sock.accept()
        except OSError as error:
            if error.errno in descriptors.OUT_OF_RESOURCES:
                # The poller would report who waits for ever: look again later.
                self._loop.unregister(self._sock.fileno())
                self._loop.call_later(ACCEPT_RETRY_S, self._look_again)
            return
        uid = _peer_uid(sock)
        if uid not in (0, os.geteuid()):
            _log.warning("refused: the control socket answers root and its own user", uid=uid)
            with contextlib.suppress(OSError), sock:
                sock.send(encode(_REFUSED))
            return
        if len(self._channels) >= MAX_CONNECTIONS:
            sock.close()
            return
        channel = Channel(
            self._loop, sock, on_message=_not_yet, on_close=lambda _reason: None, max_bytes=MAX_REQUEST_BYTES
        )
        channel.on_message = lambda message: self._answer(message, channel.send)
        channel.on_close = lambda reason: self._on_close(channel, reason)
        self._channels.add(channel)

    def _on_close(self, channel: Channel, reason: str) -> None:
        self._channels.discard(channel)
        if reason:
            _log.warning("a control connection ended", reason=reason)


def _bind(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        with _short(path) as short:
            before = os.umask(0o177)
            try:
                sock.bind(short)
            finally:
                os.umask(before)
        sock.listen(16)
    except OSError:
        sock.close()
        raise
    return sock


def _not_yet(_message: Message) -> None:
    """Replaced before the first message can come in."""


def ask(path: Path, request: Message, timeout_s: float) -> Message:
    """Blocking, for the CLI: send one request and wait for its answer. OSError, TimeoutError, or ProtocolError.

    PermissionError when this user is not answered.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        # 0 would mean something else: not to wait even for what is written at once.
        sock.settimeout(max(timeout_s, 0.001))
        with _short(path) as short:
            sock.connect(short)
        with contextlib.suppress(BrokenPipeError):  # refused already: the answer is there all the same
            sock.sendall(encode(request))
        with sock.makefile("rb") as lines:
            line = lines.readline()
    if not line.endswith(b"\n"):
        raise ProtocolError("the supervisor closed the connection")
    answer = MessageReader().feed(line)[0]
    if answer == _REFUSED:
        raise PermissionError(errno.EACCES, "only root and its own user are answered", str(path))
    return answer


def _peer_uid(sock: socket.socket) -> int:
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    uid: int = struct.unpack("3i", credentials)[1]
    return uid


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name for ``path`` that fits into the 107 bytes of a socket address, by way of its directory's descriptor."""
    if len(os.fsencode(path)) <= 107:
        yield str(path)
        return
    fd = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{path.name}"
    finally:
        os.close(fd)
