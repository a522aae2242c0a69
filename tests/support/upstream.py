"""A scripted upstream: records exactly what it received and answers bytes the test chose.

A script is a list of answers, one per request in the order of arrival (over all connections). An answer is a tuple of
steps: bytes are sent as one packet; the objects below do the rest. Without a script every request gets DEFAULT_ANSWER.
"""

from __future__ import annotations

import dataclasses
import select
import socket
import ssl
import struct
import threading
import time

from tests.support import wire

DEFAULT_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
DEFAULT_HEAD_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
PACKET_GAP_S = 0.02
EOF_LIMIT_S = 2.0


@dataclasses.dataclass(frozen=True, slots=True)
class Close:
    """Close the connection (FIN both ways)."""


@dataclasses.dataclass(frozen=True, slots=True)
class HalfClose:
    """Send a FIN and go on reading."""


@dataclasses.dataclass(frozen=True, slots=True)
class Reset:
    """Close with a RST."""


@dataclasses.dataclass(frozen=True, slots=True)
class Hang:
    """Say nothing more; keep reading until the proxy closes."""


@dataclasses.dataclass(frozen=True, slots=True)
class Gap:
    """Wait long enough for what was sent before to arrive as a packet of its own."""

    seconds: float = PACKET_GAP_S


@dataclasses.dataclass(frozen=True, slots=True)
class Until:
    """Read until `marker` has arrived on this connection."""

    marker: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Early:
    """First step only: answer as soon as the request's head is there, not when the request is complete."""


@dataclasses.dataclass(frozen=True, slots=True)
class OnAccept:
    """First step only: answer as soon as the connection is accepted, before any byte of a request."""


Step = bytes | Close | HalfClose | Reset | Hang | Gap | Until | Early | OnAccept
Answer = tuple[Step, ...]


class _Peer:
    """One accepted connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.received = b""
        self.consumed = 0
        self.ended = False
        self.reset = False
        self.closed_here = False
        self.first_of_exchange = 0

    def read_some(self, timeout_s: float | None) -> bool:
        if self.ended or self.closed_here:
            return False
        self.socket.settimeout(timeout_s)
        try:
            data = self.socket.recv(1 << 16)
        except TimeoutError:
            return False
        except OSError:
            self.ended = True
            self.reset = True
            return False
        if not data:
            self.ended = True
            return False
        self.received += data
        return True

    def send(self, data: bytes) -> None:
        self.socket.settimeout(None)
        try:
            self.socket.sendall(data)
        except OSError:
            # The proxy hung up first; what it did is seen at its other end.
            self.ended = True

    def close(self, *, reset: bool) -> None:
        self.closed_here = True
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class ScriptedUpstream:
    """Listens on a free port of 127.0.0.1, one thread per connection.

    `raw=True` is for TCP: an answer is played as soon as a connection is accepted and nothing is parsed. With `tls`, the
    handshake is done first, and `server_names` says which name the proxy asked for.
    """

    def __init__(self, *, raw: bool = False, tls: ssl.SSLContext | None = None) -> None:
        self.raw = raw
        self.tls = tls
        self.server_names: list[str | None] = []
        if tls is not None:
            tls.sni_callback = self._on_server_name
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.listener.setblocking(False)
        self.port: int = self.listener.getsockname()[1]
        self._lock = threading.Lock()
        self._script: list[Answer] = []
        self._answered = 0
        self._peers: list[_Peer] = []
        self._threads: list[threading.Thread] = []
        self._stopping = False
        self._acceptor = threading.Thread(target=self._accept, name="upstream-accept", daemon=True)
        self._acceptor.start()

    def script(self, answers: list[Answer]) -> None:
        """Begin an exchange: forget the connections that have ended and play `answers` from now on."""
        with self._lock:
            self._script = list(answers)
            self._answered = 0
            for peer in self._peers:
                if peer.ended and not peer.closed_here:
                    peer.close(reset=False)
            self._peers = [peer for peer in self._peers if not peer.closed_here]
            self.server_names = []

    def settle(self) -> list[tuple[bytes, str]]:
        """End an exchange: half-close every connection, wait until the proxy has left, and return what each recorded.

        The second part says how the connection ended: "proxy" (the proxy closed first), "upstream" (the script did),
        "idle" (it was still open when the exchange was over).
        """
        self._await_accepted()
        with self._lock:
            peers = list(self._peers)
            threads = list(self._threads)
        outcome = []
        for peer in peers:
            how = "upstream" if peer.closed_here else "reset" if peer.reset else "proxy" if peer.ended else "idle"
            outcome.append(how)
            if how == "idle":
                try:
                    peer.socket.shutdown(socket.SHUT_WR)
                except OSError:
                    # It went away between the question and the act.
                    continue
        deadline = time.monotonic() + EOF_LIMIT_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for peer in peers:
            if not peer.closed_here and not peer.ended:
                try:
                    peer.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads; close() would not
                except OSError:
                    continue
        for thread in threads:
            thread.join(EOF_LIMIT_S)
        for peer in peers:
            if not peer.closed_here:
                peer.close(reset=False)
        with self._lock:
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            self._peers = [peer for peer in self._peers if peer not in peers]
        return [(peer.received, how) for peer, how in zip(peers, outcome, strict=True)]

    def received(self) -> list[bytes]:
        """What each connection of this exchange has sent so far."""
        with self._lock:
            return [peer.received for peer in self._peers]

    def all_ended(self) -> bool:
        """Whether the other side has left every connection of this exchange."""
        with self._lock:
            return all(peer.ended or peer.closed_here for peer in self._peers)

    def endings(self) -> list[bool]:
        """Of each connection of this exchange, whether one side has left it."""
        with self._lock:
            return [peer.ended or peer.closed_here for peer in self._peers]

    def stop(self) -> None:
        """Close everything; no thread is left."""
        self._stopping = True
        self.listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(EOF_LIMIT_S)
        self.listener.close()
        self.settle()

    def _accept(self) -> None:
        while not self._stopping:
            select.select([self.listener], [], [])
            with self._lock:
                try:
                    sock, _address = self.listener.accept()
                except BlockingIOError:
                    continue
                except OSError:
                    return
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self.tls is None:
                    self._serve(sock)
                    continue
            sock.settimeout(EOF_LIMIT_S)
            try:
                sock = self.tls.wrap_socket(sock, server_side=True)
            except OSError:
                # The proxy does not trust us: what it makes of that is seen at its other end.
                sock.close()
                continue
            with self._lock:
                self._serve(sock)

    def _serve(self, sock: socket.socket) -> None:
        peer = _Peer(sock)
        thread = threading.Thread(target=self._converse, args=(peer,), name="upstream-peer", daemon=True)
        self._peers.append(peer)
        self._threads.append(thread)
        thread.start()

    def _await_accepted(self) -> None:
        """Until nobody waits in the queue: who connected during the exchange belongs to it, however late we come to accept."""
        while True:
            with self._lock:
                if self._stopping or not select.select([self.listener], [], [], 0)[0]:
                    return
            time.sleep(0.001)

    def _on_server_name(self, _sock: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        self.server_names.append(name)

    def _take_answer(self, method: bytes = b"", *, only_on_accept: bool = False) -> Answer | None:
        with self._lock:
            if not self._script:
                if only_on_accept or self.raw:
                    return None
                return (DEFAULT_HEAD_ANSWER if method == b"HEAD" else DEFAULT_ANSWER,)
            index = min(self._answered, len(self._script) - 1)
            answer = self._script[index]
            if only_on_accept and not (answer and isinstance(answer[0], OnAccept)):
                return None
            self._answered += 1
            return answer

    def _next_is_early(self) -> bool:
        with self._lock:
            if not self._script:
                return False
            answer = self._script[min(self._answered, len(self._script) - 1)]
            return bool(answer) and isinstance(answer[0], Early)

    def _converse(self, peer: _Peer) -> None:
        answer = self._take_answer(only_on_accept=not self.raw)
        if answer is not None:
            self._play(peer, answer)
        while not peer.closed_here:
            if not self.raw:
                cut = wire.cut_message(peer.received, peer.consumed, request_method=None)
                if cut is not None and (cut[0].complete or self._next_is_early()):
                    answer = self._take_answer(cut[0].head.split(b" ", 1)[0])
                    assert answer is not None
                    self._play(peer, answer)
                    peer.consumed = self._after_request(peer)
                    continue
            if not peer.read_some(None):
                break
        if peer.ended and not peer.closed_here:
            # Hang up as the proxy did, so that it does not wait for us.
            try:
                peer.socket.shutdown(socket.SHUT_WR)
            except OSError:
                return

    def _after_request(self, peer: _Peer) -> int:
        """The offset after the request just answered, reading the rest of it when the answer was early."""
        while True:
            cut = wire.cut_message(peer.received, peer.consumed, request_method=None)
            if cut is not None and cut[0].complete:
                return cut[1]
            if not peer.read_some(None):
                return len(peer.received)

    def _play(self, peer: _Peer, answer: Answer) -> None:
        for step in answer:
            if isinstance(step, bytes):
                peer.send(step)
            elif isinstance(step, Gap):
                time.sleep(step.seconds)
            elif isinstance(step, Until):
                while step.marker not in peer.received and peer.read_some(None):
                    pass
            elif isinstance(step, HalfClose):
                peer.socket.shutdown(socket.SHUT_WR)
            elif isinstance(step, Close):
                peer.close(reset=False)
            elif isinstance(step, Reset):
                peer.close(reset=True)
            elif isinstance(step, Hang):
                while peer.read_some(None):
                    pass


class StuckUpstream:
    """Listens, but its accept queue is full: the kernel drops every further SYN, so that connecting takes for ever."""

    def __init__(self) -> None:
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(0)
        self.port: int = self.listener.getsockname()[1]
        self._fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
            self._fillers.append(filler)

    def stop(self) -> None:
        """Close everything."""
        for filler in self._fillers:
            filler.close()
        self.listener.close()
