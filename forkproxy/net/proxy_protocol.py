"""PROXY protocol headers, as they are sent (https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

from forkproxy.net.address import SocketAddress, family_of

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"
"""A header of version 2 for a connection of the proxy's own."""
UNKNOWN = b"PROXY UNKNOWN\r\n"
"""A header of version 1 for a connection whose addresses cannot be told."""

_FAMILIES = {socket.AF_INET: (b"TCP4", b"\x11"), socket.AF_INET6: (b"TCP6", b"\x21")}


def version_1(source: SocketAddress | None, destination: SocketAddress | None) -> bytes:
    """The line for a connection from ``source`` to ``destination``; UNKNOWN when they are not of one IP family."""
    family = _family(source, destination)
    if family is None:
        return UNKNOWN
    assert source is not None and destination is not None  # noqa: PT018
    name = _FAMILIES[family][0].decode()
    return f"PROXY {name} {source[0]} {destination[0]} {source[1]} {destination[1]}\r\n".encode()


def version_2(
    source: SocketAddress | None, destination: SocketAddress | None, tlvs: Sequence[tuple[int, bytes]] = ()
) -> bytes:
    """The binary header; LOCAL when the addresses are not of one IP family."""
    family = _family(source, destination)
    if family is None:
        return LOCAL
    assert source is not None and destination is not None  # noqa: PT018
    addresses = b"".join(socket.inet_pton(family, str(each[0])) for each in (source, destination))
    ports = struct.pack("!HH", source[1], destination[1])
    more = b"".join(struct.pack("!BH", kind, len(value)) + value for kind, value in tlvs)
    rest = addresses + ports + more
    return SIGNATURE + b"\x21" + _FAMILIES[family][1] + struct.pack("!H", len(rest)) + rest


def _family(source: SocketAddress | None, destination: SocketAddress | None) -> socket.AddressFamily | None:
    if source is None or destination is None:
        return None
    family = family_of(source)
    return family if family in _FAMILIES and family_of(destination) == family else None
