"""ClientHellos in the order of cipher suites that a test wants, and what a server chooses of them.

The stdlib cannot say the order of TLS 1.3's suites: a real ClientHello is taken and the suites in it are exchanged. Its answer,
the ServerHello, is in the clear; the handshake goes no further.
"""

from __future__ import annotations

import contextlib
import socket
import ssl

SUITES = {
    "AES128": b"\x13\x01",
    "AES256": b"\x13\x02",
    "CHACHA": b"\x13\x03",
    "ECDHE-ECDSA-AES128-GCM-SHA256": b"\xc0\x2b",
    "ECDHE-ECDSA-AES256-GCM-SHA384": b"\xc0\x2c",
    "ECDHE-ECDSA-CHACHA20-POLY1305": b"\xcc\xa9",
}
_NAMES = {code: name for name, code in SUITES.items()}


def client_hello(*suites, server_name="good.example"):
    """The record of a ClientHello: of TLS 1.3 and 1.2 for names like AES128, of TLS 1.2 for OpenSSL's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if "-" in suites[0]:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(":".join(suites))
    outgoing = ssl.MemoryBIO()
    shaking = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=server_name)
    with contextlib.suppress(ssl.SSLWantReadError):
        shaking.do_handshake()
    hello = outgoing.read()
    if "-" not in suites[0]:
        offered = b"".join(SUITES[name] for name in ("AES256", "CHACHA", "AES128"))
        assert hello.count(offered) == 1
        wanted = [SUITES[name] for name in suites]
        # Whoever is not wanted becomes a value that means nothing (RFC 8701).
        hello = hello.replace(offered, b"".join(wanted + [b"\x0a\x0a"] * (3 - len(wanted))))
    return hello


def hello_with_a_name_that_is_not_ascii():
    """A ClientHello as the stdlib makes none."""
    return client_hello("AES256").replace(b"good.example", b"g\xf6\xf6d.example")


def chosen_suite(address, *pieces):
    """The suite that the server takes for the ClientHello that comes in these pieces."""
    with socket.create_connection(address, timeout=10) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            sock.sendall(piece)
        answer = b""
        while len(answer) < 44 or len(answer) < 44 + answer[43] + 2:
            data = sock.recv(4096)
            assert data, f"closed after {answer!r}"
            answer += data
    assert answer[0] == 22, answer
    assert answer[5] == 2, answer  # ServerHello
    at = 44 + answer[43]
    return _NAMES[answer[at : at + 2]]
