"""TLS as a transport: connections whose bytes pass through the stdlib's ssl, non-blocking.

Contexts are made in the supervisor before fork, so that a session resumes on any worker (RFC 8446 section 2.2: the ticket
key is then the same). ``pending`` bytes inside the TLS layer make no socket readable: every read event drains them.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any

from forkproxy.net.address import SocketAddress
from forkproxy.net.connection import (
    DEFAULT_BUFFER_LIMIT_BYTES,
    LOCAL_CLOSE,
    READ,
    RECV_BYTES,
    TLS_FAILURE,
    WRITE,
    Connection,
)
from forkproxy.net.loop import Loop

MAX_RECORDS_PER_PASS = 16
"""Fairness: at most this many reads of one connection in a pass; the rest comes in the next one."""


class TlsConnection(Connection):
    """A connection under TLS. Downstream: the handshake starts with ``start``; upstream: after the TCP connect.

    ``verify_peer(socket)`` is called after a handshake and returns why the peer is refused, or "".
    """

    __slots__ = ("_context", "_handshake_done", "_handshake_write", "_server_side", "_sni", "on_handshake", "verify_peer")

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        remote_address: SocketAddress,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        sni: str = "",
        verify_peer: Callable[[Any], str] | None = None,
        buffer_limit_bytes: int = DEFAULT_BUFFER_LIMIT_BYTES,
    ) -> None:
        super().__init__(loop, sock, remote_address, buffer_limit_bytes)
        self._context = context
        self._server_side = server_side
        self._sni = sni
        self._handshake_done = False
        self._handshake_write = False
        self.verify_peer = verify_peer
        self.on_handshake: Callable[[str], None] | None = None
        """Called with "" after a good handshake, with the reason after a failed one (statistics)."""

    def start(self) -> None:
        """Begin the handshake of an accepted connection."""
        self._mask = READ
        self._detached = False
        self.loop.register(self.fd, READ, self.on_event)
        self._wrap()

    def _connected(self) -> None:
        # The TCP connection stands; on_connected is for after the handshake.
        self._mask = READ
        self.loop.handlers[self.fd] = self.on_event
        self.loop.modify(self.fd, READ)
        self._wrap()
        self._handshake()

    def _wrap(self) -> None:
        wrapped = self._context.wrap_socket(
            self.sock,
            server_side=self._server_side,
            do_handshake_on_connect=False,
            server_hostname=None if self._server_side else (self._sni or None),
        )
        self.sock = self.tls = wrapped
        self._recv = wrapped.recv
        self._send = self._send_tls

    def _send_tls(self, data: bytes) -> int:
        # OpenSSL wants a refused write repeated with the same bytes: they stay in self.out[0] until they are sent.
        try:
            sent: int = self.tls.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        return sent

    def _handshake(self) -> None:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            if self._handshake_write:
                self._handshake_write = False
                self._set_mask(READ)
            return
        except ssl.SSLWantWriteError:
            self._handshake_write = True
            self._set_mask(READ | WRITE)
            return
        except OSError as error:
            self._handshake_failed(_reason(error))
            return
        if self.verify_peer is not None:
            refusal = self.verify_peer(self.tls)
            if refusal:
                self._handshake_failed(refusal)
                return
        self._handshake_done = True
        if self._server_side:
            self.requested_server_name = getattr(self.tls, "forkproxy_server_name", None) or ""
        self._set_mask(0 if self.read_pauses else READ)
        if self.on_handshake is not None:
            self.on_handshake("")
        self.on_connected()
        if self.out or self.end_sent:
            self._flush()
        if not self.closed and not self.read_pauses:
            self._read()

    def _handshake_failed(self, reason: str) -> None:
        self.transport_failure_reason = "TLS_error:|" + reason
        if self.on_handshake is not None:
            self.on_handshake(reason)
        self._destroy(TLS_FAILURE)

    def on_event(self, mask: int) -> None:
        """The poller's event."""
        if not self._handshake_done:
            self._handshake()
            return
        if mask & WRITE:
            self._on_writable()
            if self.closed:
                return
        if self.read_pauses:
            if mask & ~WRITE:
                self.loop.unregister(self.fd)
                self._detached = True
            return
        self._read()

    def _read(self) -> None:
        for _ in range(MAX_RECORDS_PER_PASS):
            try:
                data = self._recv(RECV_BYTES)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except ssl.SSLError as error:
                self.transport_failure_reason = "TLS_error:|" + _reason(error)
                self._fail(error)
                return
            except OSError as error:
                self._fail(error)
                return
            if not data:
                self._on_end_of_data()
                return
            self.bytes_received += len(data)
            self.on_data(data)
            if self.closed or self.read_pauses:
                return
        if self.tls.pending():
            self.loop.call_soon(self._read_again)

    def _read_again(self) -> None:
        if not self.closed and not self.read_pauses:
            self._read()

    def resume_reading(self) -> None:
        """Take one pause back. Bytes already inside the TLS layer make no event: read them at once."""
        super().resume_reading()
        if not self.read_pauses and not self.closed and self._handshake_done and self.tls.pending():
            self.loop.call_soon(self._read_again)

    def flush(self) -> None:
        """Called by the loop at the end of a pass. Nothing leaves before the handshake is done."""
        if not self._handshake_done and not self.closed:
            self._sending = False
            if self.closing:
                self._destroy(LOCAL_CLOSE)
            return
        super().flush()

    def _shutdown_write(self) -> None:
        # close_notify ends our direction (RFC 8446 section 6.1); the peer's half-close is seen as an end of data.
        with contextlib.suppress(OSError, ValueError):
            self.tls.unwrap()
        super()._shutdown_write()

    def _say_goodbye(self) -> None:
        if self._handshake_done and not self.end_sent and self.error is None:
            with contextlib.suppress(OSError, ValueError):
                self.tls.unwrap()


def _reason(error: OSError) -> str:
    verify = getattr(error, "verify_message", "")
    reason = getattr(error, "reason", None) or error.strerror or type(error).__name__
    return f"{reason}:{verify}" if verify else str(reason)
