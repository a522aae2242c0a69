"""Ranges of IP addresses as tests of texts."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forkproxy.http.stream import Stream


def client_ip(stream: Stream) -> str:
    """The original client's address without its port; "" or a path where it has none."""
    text = stream.remote_address
    if text is None:
        address = stream.connection.remote_address
        return address[0] if isinstance(address, tuple) else ""
    return text.rpartition(":")[0].removeprefix("[").removesuffix("]")


def compile_range(cidr: str) -> Callable[[str], bool]:
    """A test for "this address is in ``cidr``": of an IP literal; anything else is in no range."""
    network = ipaddress.ip_network(cidr, strict=False)
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    shift = network.max_prefixlen - network.prefixlen
    wanted = int(network.network_address) >> shift
    to_bytes, number = socket.inet_pton, int.from_bytes

    def contains(address: str) -> bool:
        try:
            return number(to_bytes(family, address)) >> shift == wanted
        except OSError:
            return False

    return contains
