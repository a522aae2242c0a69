"""Closing a listening socket that has siblings without losing a connection.

Connections whose handshake ends between a socket's last accept and its close are reset by the kernel. So before a slot goes, a
classic BPF program on the group of SO_REUSEPORT sockets (socket(7): SO_ATTACH_REUSEPORT_CBPF) sends new connections to the
others, at random; what is under way completes; then the socket is closed with nothing in it. Afterwards the kernel's hash is
back.

The program says by index which socket: in the order in which they began to listen, but that the last one takes the place of one
that is closed. That order is only known of sockets that were all bound here and are closed here last. Where it is not
(inherited, passed by systemd, bound again after they were closed) nothing is steered.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress

from forkproxy.supervisor.listening import Binding

SETTLE_S = 1.0
"""How long handshakes get that were under way: one round trip, and one second for a first answer that was lost."""

_SO_ATTACH_REUSEPORT_CBPF = 51  # <asm-generic/socket.h>
_SO_DETACH_REUSEPORT_BPF = 68
_LOAD_WORD_ABSOLUTE = 0x20  # <linux/bpf_common.h>: BPF_LD | BPF_W | BPF_ABS
_MODULO = 0x94  # BPF_ALU | BPF_MOD | BPF_K
_JUMP_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K
_RANDOM = 0xFFFFF000 + 56  # <linux/filter.h>: SKF_AD_OFF + SKF_AD_RANDOM
_MOST_INSTRUCTIONS = 4096

_Instruction = tuple[int, int, int, int]
"""(code, jump if true, jump if false, value)."""


class Steering:
    """The order of every binding's sockets in the kernel's group."""

    def __init__(self) -> None:
        self._groups: dict[Binding, list[socket.socket]] = {}
        self._unknown: set[tuple[str, str]] = set()
        """The kernel's groups of which the order is not known any more."""
        self._avoided: set[socket.socket] = set()

    def bound(self, binding: Binding, sock: socket.socket) -> None:
        """``sock`` was bound here just now and listens."""
        if any(other != binding and _group_of(other) == _group_of(binding) for other in self._groups):
            # Two kinds of sockets are in one group, until those of the generation before are closed.
            self.lost_sight_of(binding)
        self._groups.setdefault(binding, []).append(sock)
        if self._avoided:
            self._apply(binding)

    def lost_sight_of(self, binding: Binding, sock: socket.socket | None = None) -> None:
        """The order is not known: ``sock`` came from elsewhere, or copies of closed ones may be open still."""
        self._unknown.add(_group_of(binding))
        if sock is not None:
            # Who had it before may have been steering.
            _detach(sock)

    def forget(self, binding: Binding) -> None:
        """All sockets of ``binding`` are closed here; workers may have them for a while."""
        group = self._groups.pop(binding, None)
        if group is not None:
            self._avoided.difference_update(group)
            self.lost_sight_of(binding, group[0] if group else None)

    def avoid(self, sockets: Mapping[Binding, socket.socket]) -> bool:
        """Let nothing new come to these. False when that cannot be: then nothing has changed."""
        steerable = [binding for binding in sockets if not binding.address.pipe_path]
        if not all(self._knows(binding, sockets[binding]) for binding in steerable):
            return False
        self._avoided.update(sockets[binding] for binding in steerable)
        if all(self._apply(binding) for binding in steerable):
            return True
        self._avoided.difference_update(sockets.values())
        for binding in steerable:
            self._apply(binding)
        return False

    def closed(self, sockets: Mapping[Binding, socket.socket]) -> None:
        """The last copies of these are closed."""
        self._avoided.difference_update(sockets.values())
        for binding, sock in sockets.items():
            group = self._groups.get(binding, [])
            if sock in group:
                # As the kernel does it.
                group[group.index(sock)] = group[-1]
                group.pop()
                self._apply(binding)

    def end(self) -> None:
        """Steer nothing any more."""
        self._avoided.clear()
        for binding in self._groups:
            self._apply(binding)

    def _knows(self, binding: Binding, sock: socket.socket) -> bool:
        return _group_of(binding) not in self._unknown and sock in self._groups.get(binding, ())

    def _apply(self, binding: Binding) -> bool:
        group = self._groups[binding]
        allowed = [index for index, sock in enumerate(group) if sock not in self._avoided]
        if not group:
            return True
        if len(allowed) == len(group):
            _detach(group[0])
            return True
        return bool(allowed) and _attach(group[0], one_of(allowed))


def _group_of(binding: Binding) -> tuple[str, str]:
    # What the kernel puts together: an address and its port, which of port 0 only the listener tells.
    return str(binding.address), binding.any_port_of


def one_of(indices: Sequence[int]) -> list[_Instruction]:
    """A program that returns one of ``indices`` at random."""
    program = [(_LOAD_WORD_ABSOLUTE, 0, 0, _RANDOM), (_MODULO, 0, 0, len(indices))]
    for number, index in enumerate(indices[:-1]):
        program += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, index)]
    return [*program, (_RETURN, 0, 0, indices[-1])]


def _attach(sock: socket.socket, program: Collection[_Instruction]) -> bool:
    if len(program) > _MOST_INSTRUCTIONS:
        return False
    instructions = ctypes.create_string_buffer(_packed(program))
    # struct sock_fprog: the number of instructions and a pointer to them.
    value = struct.pack("@HP", len(program), ctypes.addressof(instructions))
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, value)
    except OSError:
        return False
    return True


def _packed(program: Iterable[_Instruction]) -> bytes:
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _detach(sock: socket.socket) -> None:
    # ENOENT: there is no program.
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_REUSEPORT_BPF, 0)
