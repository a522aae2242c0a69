"""Giving the slots their listening sockets, and taking them away."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

from forkproxy.config.build.core import AddressConfig
from forkproxy.supervisor import listening
from forkproxy.supervisor.listening import Binding, CannotBind
from forkproxy.supervisor.slot import Slot


class SlotSockets:
    """Which bindings are bound, and to which ports. Every slot has a socket of its own for each."""

    def __init__(self) -> None:
        self._ports: dict[Binding, int] = {}

    def bind(self, bindings: Iterable[Binding], slots: Iterable[Slot], all_slots: Sequence[Slot]) -> None:
        """Give each of ``slots`` a socket for each of ``bindings``. CannotBind: nothing has changed."""
        fresh: list[tuple[Slot, Binding]] = []
        try:
            for binding in bindings:
                if binding not in self._ports and binding.address.port not in self._ports.values():
                    listening.refuse_if_taken(binding)
                for slot in slots:
                    if binding not in slot.sockets:
                        slot.sockets[binding] = self._socket_for(binding, (*all_slots, *slots))
                        fresh.append((slot, binding))
                        self._ports[binding] = listening.bound_port(slot.sockets[binding])
        except CannotBind:
            for slot, binding in fresh:
                slot.sockets.pop(binding).close()
                if not any(binding in other.sockets for other in all_slots):
                    self._ports.pop(binding, None)
                    _remove_path(binding)
            raise

    def keep_only(self, needed: Iterable[Binding], slots: Iterable[Slot]) -> list[Binding]:
        """Close everything else; returns what was closed."""
        kept = set(needed)
        for slot in slots:
            for binding in [binding for binding in slot.sockets if binding not in kept]:
                slot.sockets.pop(binding).close()
        gone = [binding for binding in self._ports if binding not in kept]
        for binding in gone:
            del self._ports[binding]
            _remove_path(binding)
        return gone

    def bound_address(self, binding: Binding) -> AddressConfig:
        """Where a binding really listens: with the port that port 0 became."""
        return replace(binding.address, port=self._ports.get(binding, binding.address.port))

    def _socket_for(self, binding: Binding, slots: Iterable[Slot]) -> socket.socket:
        if binding.address.pipe_path:
            # A path can be bound only once: the slots share its queue.
            for slot in slots:
                if binding in slot.sockets:
                    return slot.sockets[binding].dup()
        return listening.bind(binding, self._ports.get(binding, 0))


def _remove_path(binding: Binding) -> None:
    path = binding.address.pipe_path
    if path and not path.startswith("@"):
        with suppress(OSError):
            os.unlink(path)
