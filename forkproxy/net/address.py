"""Socket addresses as text and as what the socket calls take."""

from __future__ import annotations

import socket

SocketAddress = tuple[str, int] | str
"""An (IP literal, port) pair, or the path of a unix-domain socket (a leading NUL: abstract)."""


class Restored(tuple[str, int]):
    """Where a client wanted to go before the kernel redirected it here (SO_ORIGINAL_DST): an (IP literal, port) pair."""

    __slots__ = ()


MAX_PORT = 65535


def parse_port(text: str) -> int | None:
    """The port that ``text`` is, in decimal digits; None when it is none."""
    if not text.isdecimal() or len(text) > 5:
        return None
    port = int(text)
    return port if port <= MAX_PORT else None


def family_of(address: SocketAddress) -> socket.AddressFamily:
    """The address family that a socket for ``address`` needs."""
    if isinstance(address, str):
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


def normalise(raw: object) -> SocketAddress:
    """What ``getpeername``/``accept`` returned, as a SocketAddress: IPv6 loses flow label and scope, v4-mapped becomes IPv4."""
    if isinstance(raw, tuple):
        ip: str = raw[0]
        if ip.startswith("::ffff:") and "." in ip:
            ip = ip[7:]
        return (ip, raw[1])
    if isinstance(raw, bytes):
        return raw.decode("utf-8", "surrogateescape")
    return str(raw)


def text(address: SocketAddress | None) -> str:
    """Envoy's notation: ``1.2.3.4:80``, ``[::1]:80``, a path, ``@name`` for an abstract socket, ``""`` for None."""
    if address is None:
        return ""
    if isinstance(address, str):
        return "@" + address[1:] if address.startswith("\0") else address
    ip, port = address
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
