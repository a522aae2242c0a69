"""Giving the slots their listening sockets, and taking them away.

A slot that retires leaves its sockets parked: closed, they would reset who is about to be accepted. They stay in the group over
which the kernel spreads connections, every worker accepts from them as well as from its slot's own, and slots to come get
them first.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

from forkproxy.config.build.core import AddressConfig
from forkproxy.supervisor import listening
from forkproxy.supervisor.inheritance import Likeness, are_alike, likeness, listening_socket_of
from forkproxy.supervisor.listening import Binding, CannotBind
from forkproxy.supervisor.passed_sockets import PassedSockets, has_reuse_port
from forkproxy.supervisor.slot import Slot


class SlotSockets:
    """Which bindings are bound, and to which ports. Every slot has a socket of its own for each.

    ``passed``: what the service manager bound for us.
    """

    def __init__(self, passed: PassedSockets | None = None) -> None:
        self.passed = passed if passed is not None else PassedSockets()
        self.adopted: dict[int, Binding] = {}
        """The inherited sockets that are in use, by the descriptor they came with."""
        self.parked: dict[Binding, list[socket.socket]] = {}
        """What retired slots have left."""
        self._ports: dict[Binding, int] = {}
        self._inherited: list[tuple[int, Likeness, socket.socket]] = []

    def bind(self, bindings: Iterable[Binding], slots: Iterable[Slot], all_slots: Sequence[Slot]) -> None:
        """Give each of ``slots`` a socket for each of ``bindings``. CannotBind: nothing has changed."""
        fresh: list[tuple[Slot, Binding, bool]] = []
        try:
            for binding in bindings:
                if not self._is_ours(binding):
                    listening.refuse_if_taken(binding)
                for slot in slots:
                    if binding not in slot.sockets:
                        was_parked = bool(self.parked.get(binding))
                        slot.sockets[binding] = self._next_socket(slot, binding, (*all_slots, *slots))
                        fresh.append((slot, binding, was_parked))
                        self._ports[binding] = listening.bound_port(slot.sockets[binding])
        except CannotBind:
            for slot, binding, was_parked in fresh:
                if was_parked:
                    self.parked[binding].append(slot.sockets.pop(binding))
                    continue
                slot.sockets.pop(binding).close()
                if not any(binding in other.sockets for other in all_slots):
                    self._ports.pop(binding, None)
                    self._remove_path(binding)
            raise

    def all_of(self, slot: Slot, binding: Binding) -> list[socket.socket]:
        """Where a worker of ``slot`` is to accept connections for ``binding``."""
        own = slot.sockets.get(binding)
        return [*([own] if own is not None else []), *self.parked.get(binding, ())]

    def park(self, slot: Slot, lasting: Sequence[Slot]) -> list[tuple[Binding, socket.socket]]:
        """``slot`` retires and leaves its sockets; returns those whose queues none of the ``lasting`` slots has."""
        left: list[tuple[Binding, socket.socket]] = []
        for binding, sock in slot.sockets.items():
            if self._is_shared(binding, sock, lasting):
                sock.close()
            else:
                self.parked.setdefault(binding, []).append(sock)
                left.append((binding, sock))
        slot.sockets.clear()
        return left

    def _is_shared(self, binding: Binding, sock: socket.socket, slots: Iterable[Slot]) -> bool:
        holders = [slot.sockets.get(binding) for slot in slots]
        holders.append(self.passed.get(binding.socket_address()))
        return any(other is not None and os.path.sameopenfile(other.fileno(), sock.fileno()) for other in holders)

    def close_parked(self, bindings: Iterable[Binding] | None = None) -> None:
        """Close what retired slots have left; without ``bindings``, all of it."""
        for binding in list(self.parked) if bindings is None else bindings:
            for sock in self.parked.pop(binding, ()):
                sock.close()

    def close(self, bindings: Iterable[Binding], slots: Iterable[Slot]) -> None:
        """Close these in all slots. They keep their ports: whoever binds them again gets the same."""
        gone = set(bindings)
        self.close_parked(gone)
        for slot in slots:
            for binding in gone & slot.sockets.keys():
                slot.sockets.pop(binding).close()

    def keep_only(self, needed: Iterable[Binding], slots: Iterable[Slot]) -> list[Binding]:
        """Close everything else; returns what was closed."""
        kept = set(needed)
        self.close_parked([binding for binding in self.parked if binding not in kept])
        for slot in slots:
            for binding in [binding for binding in slot.sockets if binding not in kept]:
                slot.sockets.pop(binding).close()
        gone = [binding for binding in self._ports if binding not in kept]
        for binding in gone:
            del self._ports[binding]
            self._remove_path(binding)
        return gone

    def inherit(self, sockets: Iterable[tuple[int, Likeness, int]]) -> None:
        """What a predecessor's slots have: (slot, likeness of the binding, descriptor), for ``bind`` to use."""
        self._inherited = [(slot, binding, listening_socket_of(fd)) for slot, binding, fd in sockets]

    def park_inherited(self, bindings: Iterable[Binding], slots: Sequence[Slot]) -> None:
        """The slots have what they need: what else the predecessor has for ``bindings`` is accepted from as well."""
        for binding in bindings:
            wanted = likeness(binding)
            for entry in [entry for entry in self._inherited if are_alike(entry[1], wanted)]:
                sock = entry[2]
                if not self._is_shared(binding, sock, slots):
                    self._inherited.remove(entry)
                    self.adopted[sock.fileno()] = binding
                    self.parked.setdefault(binding, []).append(sock)

    def close_unused(self) -> None:
        """Close what was inherited and is not used: whoever left it serves what waits there."""
        for _slot, _binding, sock in self._inherited:
            sock.close()
        self._inherited.clear()

    def leave_inherited(self) -> None:
        """The predecessor goes on: its paths stay."""
        for binding in self.adopted.values():
            self._ports.pop(binding, None)

    def leave(self, kept: Collection[int], paths: Collection[str], slots: Iterable[Slot]) -> None:
        """Close all copies. Of what a successor has not kept, and has not bound anew at ``paths``, the paths go as well."""
        for slot in slots:
            for binding, sock in slot.sockets.items():
                if sock.fileno() in kept:
                    self._ports.pop(binding, None)
                sock.close()
            slot.sockets.clear()
        self.close_parked()
        for binding in self._ports:
            if binding.address.pipe_path not in paths:
                self._remove_path(binding)
        self._ports.clear()

    def _next_socket(self, slot: Slot, binding: Binding, slots: Sequence[Slot]) -> socket.socket:
        parked = self.parked.get(binding)
        if parked:
            return parked.pop()
        return self._inherited_socket(slot, binding, slots) or self._socket_for(binding, slots)

    def _inherited_socket(self, slot: Slot, binding: Binding, slots: Iterable[Slot]) -> socket.socket | None:
        # Its own, or one that no other slot will ask for.
        wanted = likeness(binding)
        alike = [entry for entry in self._inherited if are_alike(entry[1], wanted)]
        numbers = {other.number for other in slots}
        entry = next((entry for entry in alike if entry[0] == slot.number), None)
        entry = entry or next((entry for entry in alike if entry[0] not in numbers), None)
        if entry is None:
            return None
        self._inherited.remove(entry)
        sock = entry[2]
        self.adopted[sock.fileno()] = binding
        return sock

    def bound_address(self, binding: Binding) -> AddressConfig:
        """Where a binding really listens: with the port that port 0 became."""
        return replace(binding.address, port=self._ports.get(binding, binding.address.port))

    def _is_ours(self, binding: Binding) -> bool:
        if binding in self._ports or binding.address.port in self._ports.values():
            return True
        if binding.address.port in [listening.bound_port(sock) for _slot, _binding, sock in self._inherited]:
            return True
        return self.passed.get(binding.socket_address()) is not None

    def _socket_for(self, binding: Binding, slots: Iterable[Slot]) -> socket.socket:
        held = next((slot.sockets[binding] for slot in slots if binding in slot.sockets), None)
        passed = self.passed.get(binding.socket_address())
        if passed is not None:
            return passed.dup() if held is None else self._beside(passed, binding)
        if binding.address.pipe_path and held is not None:
            # A path can be bound only once: the slots share its queue.
            return held.dup()
        return listening.bind(binding, self._ports.get(binding, 0))

    def _beside(self, passed: socket.socket, binding: Binding) -> socket.socket:
        if has_reuse_port(passed):
            # The kernel lets only the user who made the first socket bind a second; systemd's is root's.
            with suppress(CannotBind):
                return listening.bind(binding)
        return passed.dup()

    def _remove_path(self, binding: Binding) -> None:
        path = binding.address.pipe_path
        if path and not path.startswith("@") and self.passed.get(path) is None:
            with suppress(OSError):
                os.unlink(path)
