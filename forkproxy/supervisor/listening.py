"""The listening sockets: which a generation needs, and how one is bound.

Every slot has a socket of its own per address (SO_REUSEPORT: the kernel spreads connections over them). The sockets belong
to the slot and outlive its workers, so that a connection waiting in a queue meets the next worker. A unix-domain path can be
bound only once: all slots share that socket.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from dataclasses import field

from forkproxy.config.build.core import AddressConfig
from forkproxy.config.build.listener import ListenerConfig
from forkproxy.config.problems import ConfigError
from forkproxy.config.values import frozen
from forkproxy.net.address import SocketAddress, family_of, normalise
from forkproxy.net.sockets import DEFAULT_BACKLOG, listening_socket

ListenAddress = tuple[str, int, AddressConfig, ListenerConfig]
"""(listener name, index of the address, the address, the listener)."""


@frozen
class Binding:
    """One address with everything that matters to the kernel: a socket can be kept over a reload when this is equal.

    ``any_port_of`` tells two port-0 bindings apart and is "" otherwise, so a renamed listener keeps its sockets.
    ``listener`` is for messages only.
    """

    address: AddressConfig
    backlog: int = DEFAULT_BACKLOG
    freebind: bool = False
    transparent: bool = False
    socket_options: tuple[tuple[int, int, bytes, str], ...] = ()
    any_port_of: str = ""
    listener: str = field(default="", compare=False)

    def socket_address(self) -> SocketAddress:
        """The address as the socket calls take it."""
        return socket_address(self.address)


class CannotBind(Exception):
    """An address could not be bound. ``denied``: for want of permission, not because somebody else has it."""

    def __init__(self, address: str, reason: str, *, whose: str = "", denied: bool = False) -> None:
        super().__init__(f"cannot bind {address}{f' ({whose})' if whose else ''}: {reason}")
        self.address = address
        self.denied = denied


def socket_address(address: AddressConfig) -> SocketAddress:
    """``address`` as the socket calls take it."""
    if address.pipe_path:
        return "\0" + address.pipe_path[1:] if address.pipe_path.startswith("@") else address.pipe_path
    return address.host, address.port


def plan(listen_addresses: Iterable[ListenAddress]) -> dict[tuple[str, int], Binding]:
    """The binding of every (listener name, address index). ConfigError when two listeners want the same address."""
    bindings: dict[tuple[str, int], Binding] = {}
    taken: dict[AddressConfig, str] = {}
    for name, index, address, listener in listen_addresses:
        is_any_port = not address.pipe_path and not address.port
        if not is_any_port and taken.setdefault(address, name) != name:
            where = listener.where
            message = f'listener "{name}" has the address {address} of listener "{taken[address]}"'
            raise ConfigError(where.path, where.line, where.column, message)
        bindings[name, index] = Binding(
            address=address,
            backlog=listener.tcp_backlog_size or DEFAULT_BACKLOG,
            freebind=listener.freebind,
            transparent=listener.transparent,
            socket_options=listener.socket_options,
            any_port_of=f"{name}/{index}" if is_any_port else "",
            listener=name,
        )
    return bindings


def bind(binding: Binding, port: int = 0) -> socket.socket:
    """A listening socket for ``binding``; ``port`` is the one that its first socket got when the file asks for port 0."""
    address = binding.socket_address()
    if isinstance(address, tuple) and not address[1]:
        address = (address[0], port)
    options = binding.socket_options
    try:
        return listening_socket(
            address,
            backlog=binding.backlog,
            ipv4_compat=binding.address.ipv4_compat,
            freebind=binding.freebind,
            transparent=binding.transparent,
            pipe_mode=binding.address.pipe_mode,
            prebind_options=[option[:3] for option in options if option[3] == "STATE_PREBIND"],
            bound_options=[option[:3] for option in options if option[3] == "STATE_BOUND"],
            listening_options=[option[:3] for option in options if option[3] == "STATE_LISTENING"],
        )
    except OSError as error:
        raise refusal(binding.address, error, whose=f'listener "{binding.listener}"') from None


def refuse_if_taken(binding: Binding) -> None:
    """CannotBind when another socket has the address.

    SO_REUSEPORT lets a second program of the same user bind beside us without a word, and halves the traffic of both. A trial
    without the option finds out. Not for addresses that this supervisor has bound itself.
    """
    address = binding.socket_address()
    if isinstance(address, str):
        return
    with socket.socket(family_of(address), socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if trial.family == socket.AF_INET6:
            trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if binding.address.ipv4_compat else 1)
        try:
            trial.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise refusal(binding.address, error, whose=f'listener "{binding.listener}"') from None
            # Anything else may be cured by the listener's own options (freebind): the real bind decides.


def bound_port(sock: socket.socket) -> int:
    """The port of a bound socket, 0 for a unix-domain one."""
    address = normalise(sock.getsockname())
    return address[1] if isinstance(address, tuple) else 0


def refusal(address: AddressConfig, error: OSError, *, whose: str) -> CannotBind:
    """Why ``address`` could not be bound for ``whose`` sake, with who holds it when that can be seen."""
    denied = error.errno in (errno.EACCES, errno.EPERM)
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno == errno.EADDRINUSE:
        holder = _holder(address)
        reason = f"address already in use{f' by {holder}' if holder else ''}"
    elif denied and 0 < address.port < 1024:
        reason += f" (port {address.port} needs root or CAP_NET_BIND_SERVICE)"
    return CannotBind(str(address), reason, whose=whose, denied=denied)


def _holder(address: AddressConfig) -> str:
    """``"nginx (pid 17)"``, or "" when it cannot be seen (another user's process, another network namespace)."""
    if address.pipe_path:
        return ""
    # Only this failure needs psutil, whose import takes 20 ms.
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status != psutil.CONN_LISTEN or connection.pid is None:
                continue
            if connection.laddr and connection.laddr.port == address.port:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except (psutil.Error, OSError):
        return ""
    return ""
