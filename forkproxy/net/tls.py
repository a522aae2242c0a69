"""TLS as a transport: connections whose bytes pass through the stdlib's ssl, over memory buffers.

Contexts are made in the supervisor before fork, so that a session resumes on any worker (RFC 8446 section 2.2: the ticket
key is then the same).

The facts behind the shape
- ``ssl.SSLObject`` over two ``MemoryBIO``, not ``SSLSocket``. ``SSLSocket.unwrap`` reads the socket for the peer's
  close_notify after it has sent ours, and application data that it meets there is a fatal error to OpenSSL: with it a
  half-close while the peer is still sending breaks the connection. With memory buffers we decide what OpenSSL sees.
- One ``recv`` per readiness as on a raw connection: all records in it are decrypted and given to ``on_data`` as one piece,
  so that nothing waits inside the TLS layer, where no poller would tell of it. (``SSLSocket`` costs two recv per record.)
- Downstream nothing is made for OpenSSL before the ClientHello is here: it says which context it needs, and who never sends one
  holds no SSL object.
- ``write`` keeps plain text; ``flush`` encrypts what one pass wrote as one piece, and the raw connection sends it.
- What nobody waits for leaves with what goes anyway: session tickets of TLS 1.3 with the first answer, as BoringSSL has it,
  close_notify with the last. A send costs more than the record in it.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable
from typing import Any, Final

from forkproxy.net.address import SocketAddress
from forkproxy.net.connection import (
    DEFAULT_BUFFER_LIMIT_BYTES,
    HANG_UP,
    READ,
    RECV_BYTES,
    TLS_FAILURE,
    WRITE,
    Connection,
)
from forkproxy.net.loop import Loop
from forkproxy.net.sockets import RawSocket

RECORD_BYTES = 16384
"""The most plain text that one record holds (RFC 8446 section 5.1)."""
_HANDSHAKE: Final = 22
"""ContentType, the first byte of a record (RFC 8446 section 5.1)."""
_NO_OR_ANY_TLS: Final = (b"", b"\x03")
"""The second: the major version of SSL 3.0 and all of TLS, or it is not here yet."""


class TlsConnection(Connection):
    """A connection under TLS. Downstream: the handshake starts with ``start``; upstream: after the TCP connect.

    ``on_connected`` is called after the handshake, on both sides. ``verify_peer(ssl_object)`` is called after a handshake
    and returns why the peer is refused, or "". ``bytes_received`` and ``bytes_sent`` count plain text, ``out_bytes`` plain
    text and what is encrypted already.
    """

    __slots__ = (
        "_context",
        "_handshake_done",
        "_held",
        "_hello",
        "_incoming",
        "_notified",
        "_outgoing",
        "_plain",
        "_server_side",
        "_sni",
        "choose_context",
        "handshake_done_at",
        "on_handshake",
        "verify_peer",
    )

    def __init__(
        self,
        loop: Loop,
        sock: RawSocket,
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
        self.handshake_done_at = 0.0
        self._notified = False  # close_notify is written
        self._plain: list[bytes] = []
        self._held = b""  # decrypted, but its reader pauses: only what came together with the end of the handshake
        self._hello = b""
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.verify_peer = verify_peer
        self.on_handshake: Callable[[str], None] | None = None
        """Called with "" after a good handshake, with the reason after a failed one (statistics)."""
        self.choose_context: Callable[[bytes], ssl.SSLContext] | None = None
        """Downstream: gives the context for a ClientHello, the record with it from its first byte; instead of ``context``."""

    # -- the handshake

    def start(self) -> None:
        """Begin the handshake of an accepted connection."""
        self._set_mask(self._mask)  # a client speaks first, and until then there is nothing of OpenSSL's

    def _connected(self) -> None:
        # The TCP connection stands; on_connected is for after the handshake.
        self._mask = READ
        self.loop.handlers[self.fd] = self.on_event
        self.loop.modify(self.fd, READ)
        if self.closing and not self.out_bytes:
            self._flush_soon()
            return
        self._wrap()
        self._handshake()

    def _wrap(self) -> None:
        choose = self.choose_context
        context = self._context if choose is None else choose(self._hello)
        self._hello = b""
        self.tls = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=self._server_side,
            server_hostname=None if self._server_side else (self._sni or None),
        )

    def _read_hello(self, data: bytes) -> None:
        # The first record whole, or nothing of it: what is no handshake, or too long, OpenSSL shall refuse at once.
        self._hello = hello = self._hello + data if self._hello else data
        if hello[0] == _HANDSHAKE and hello[1:2] in _NO_OR_ANY_TLS:
            size = 5 + int.from_bytes(hello[3:5]) if len(hello) >= 5 else 5
            if len(hello) < size <= 5 + RECORD_BYTES:
                return
        self._incoming.write(hello)
        self._wrap()
        self._handshake()

    def _handshake(self) -> None:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self._send_flight()
            return
        except OSError as error:
            self._handshake_failed(reason_of(error))
            return
        if self.verify_peer is not None:
            refusal = self.verify_peer(self.tls)
            if refusal:
                self._handshake_failed(_VERIFY_FAILED + refusal)
                return
        self._handshake_done = True
        self.handshake_done_at = self.loop.now
        if self._server_side:
            self.requested_server_name = getattr(self.tls, "forkproxy_server_name", None) or ""
        if not self._server_side or self.tls.version() != "TLSv1.3":
            self._send_records()
        # else: nothing but session tickets, and they wait for the first write
        self._set_mask(self._mask & ~READ if self.read_pauses else self._mask | READ)
        if self.on_handshake is not None:
            self.on_handshake("")
        self.on_connected()
        if self.closed:
            return
        if self.out_bytes or self.end_sent or self.closing:
            self._flush_soon()
        if self._incoming.pending:
            self._decrypt()

    def _send_flight(self) -> None:
        # At once: nothing else could go with it.
        self._take_records(0)
        self._flush_handshake()

    def _handshake_failed(self, reason: str) -> None:
        self.transport_failure_reason = _reported(reason)
        alert = self._outgoing.read()
        if alert and not self.out:
            with contextlib.suppress(OSError):
                self.sock.send(alert)
        if self.on_handshake is not None:
            self.on_handshake(reason)
        self._destroy(TLS_FAILURE)

    # -- reading

    def on_event(self, mask: int) -> None:
        """The poller's event."""
        if mask & WRITE:
            self._on_writable()
            if mask == WRITE or self.closed:
                return
        if self.read_pauses and self._handshake_done:  # a pause holds plain text back, not the handshake
            if mask & HANG_UP:
                self._on_hang_up_while_paused()
            return
        try:
            data = self._recv(RECV_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            if self._handshake_done:
                self._fail(error)
            else:
                self._handshake_failed(reason_of(error))
            return
        if data:
            if self.tls is None:
                self._read_hello(data)
                return
            self._incoming.write(data)
            if self._handshake_done:
                self._decrypt()
            else:
                self._handshake()
        elif self._handshake_done:
            # Without close_notify as well: Envoy takes an end of the TCP connection for the end of data.
            self._on_end_of_data()
        else:
            self._handshake_failed("connection closed during the handshake")

    def _set_mask(self, mask: int) -> None:
        is_shaking = not self._handshake_done and (self._server_side or self.tls is not None)
        super()._set_mask(mask | READ if is_shaking else mask)

    def _decrypt(self) -> None:
        read = self.tls.read
        incoming = self._incoming
        outgoing = self._outgoing
        waiting = outgoing.pending  # session tickets
        data = b""
        more: list[bytes] | None = None
        ended = False
        error: OSError | None = None
        # One read gives one record. In the usual case no exception ends the loop: it would cost more.
        while incoming.pending:
            try:
                piece = read(RECORD_BYTES)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                piece = b""
            except OSError as failure:
                error = failure
                break
            if not piece:
                ended = True
                incoming.read()  # nothing after the peer's close_notify counts
                break
            if not data:
                data = piece
            elif more is None:
                more = [data, piece]
            else:
                more.append(piece)
        if outgoing.pending != waiting:  # a key update's answer, an alert
            self._send_records()
        if data:
            if more is not None:
                data = b"".join(more)
            self.bytes_received += len(data)
            if self.read_pauses:
                self._held += data
            else:
                on_data = self.on_data
                on_data(data)
            if self.closed:
                return
        if error is not None:
            self.transport_failure_reason = _reported(reason_of(error))
            self._fail(error)
        elif ended and not self.end_received:
            self._on_end_of_data()

    def resume_reading(self) -> None:
        """Take one pause back."""
        super().resume_reading()
        if self._held and not self.read_pauses and not self.closed:
            self.loop.call_soon(self._deliver_held)

    def _deliver_held(self) -> None:
        if self._held and not self.read_pauses and not self.closed:
            data = self._held
            self._held = b""
            self.on_data(data)

    # -- writing

    def write(self, data: bytes) -> None:
        """Send ``data``, encrypted, at the end of this pass. Ignored once the connection closes."""
        if self.write_ended:
            return
        self._plain.append(data)
        self.out_bytes = size = self.out_bytes + len(data)
        if not self._sending:
            self._sending = True
            self.loop.pending.append(self)
        if size > self.high_watermark and not self._above_high_watermark:
            self._above_high_watermark = True
            self.on_above_high_watermark()

    def flush(self) -> None:
        """Called by the loop at the end of a pass. Nothing but the handshake leaves before the handshake is done."""
        # What nearly always happens, in one piece; the rest is told apart by _flush_or_wait.
        size = self.out_bytes
        if self._mask != READ or self.out or not size or self._above_high_watermark or not self._handshake_done:
            self._flush_or_wait()
            return
        self._sending = False
        plain = self._plain
        self.tls.write(plain[0] if len(plain) == 1 else b"".join(plain))
        plain.clear()
        if self.write_ended:
            self._notify()
        records = self._outgoing.read()
        send = self._send
        try:
            sent = send(records)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._fail(error)
            return
        if sent == len(records):
            self.bytes_sent += size
            self.out_bytes = 0
            if self.write_ended:
                self._flushed()
            return
        self._add_records(records, size)
        self._sent(sent)

    def _flush_or_wait(self) -> None:
        if self._handshake_done or self.closed or self.out:
            super()._flush_or_wait()
            return
        self._sending = False
        if self.closing and not self.out_bytes:
            self.abort()

    def _flush(self) -> None:
        if not self._handshake_done:
            self._flush_handshake()
            return
        if self._plain:
            self._encrypt()
        if self.write_ended and not self._notified:
            # Ends our direction (RFC 8446 section 6.1), behind all that was written; the peer's goes on.
            self._close_notify()
        super()._flush()

    def _flush_handshake(self) -> None:
        # Apart from the plain text that waits, which out_bytes counts too.
        if not self.out:
            return
        records = b"".join(self.out)
        try:
            sent = self._send(records)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._handshake_failed(reason_of(error))
            return
        self.bytes_sent += sent
        self.out_bytes -= sent
        self.out[:] = (records[sent:],) if sent < len(records) else ()
        self._set_mask(READ | WRITE if self.out else READ)

    def _encrypt(self) -> None:
        plain = self._plain
        data = plain[0] if len(plain) == 1 else b"".join(plain)
        plain.clear()
        if data:
            self.tls.write(data)  # into memory: all of it, at once
        self._take_records(len(data))

    def _take_records(self, plain_bytes: int) -> None:
        records = self._outgoing.read()
        if records:
            self._add_records(records, plain_bytes)

    def _add_records(self, records: bytes, plain_bytes: int) -> None:
        # Records join the pending writes. The sums are kept in plain text: the records' own overhead is taken off here.
        self.out.append(records)
        self.out_bytes += len(records) - plain_bytes
        self.bytes_sent -= len(records) - plain_bytes

    def _send_records(self) -> None:
        if self._outgoing.pending:
            self._take_records(0)
            self._flush_soon()

    def _on_writable(self) -> None:
        if self._handshake_done:
            super()._on_writable()
        else:
            self._flush_handshake()

    def _notify(self) -> None:
        # What OpenSSL could read is empty here, so that it meets no application data while it looks for the peer's answer.
        self._notified = True
        with contextlib.suppress(OSError, ValueError):
            self.tls.unwrap()

    def _close_notify(self) -> None:
        self._notify()
        self._take_records(0)

    def _say_goodbye(self) -> None:
        # Not after a failure or a reset, and not when data is missing: close_notify says that the peer has seen everything.
        if self._handshake_done and not self._notified and self.error is None and not self.out_bytes:
            self._close_notify()
            records = b"".join(self.out)
            self.bytes_sent += len(records)  # the sums are kept in plain text
            with contextlib.suppress(OSError):
                self.sock.send(records)


def reason_of(error: OSError) -> str:
    """An ssl error's reason and, for a refused certificate, why; another error's text."""
    verify = getattr(error, "verify_message", "")
    if verify:
        return f"{_VERIFY_FAILED}X509_verify_cert: certificate verification error at depth 0: {verify}"
    return str(getattr(error, "reason", None) or error.strerror or type(error).__name__)


# Envoy's words, which users match in access logs. The number is BoringSSL's for this error; the depth OpenSSL does not tell us.
_VERIFY_FAILED = "268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify cert failed: "


def _reported(reason: str) -> str:
    return f"TLS_error:|{reason}:TLS_error_end"
