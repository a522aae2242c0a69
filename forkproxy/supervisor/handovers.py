"""What workers need to hand accepted connections to each other: per generation a board, and a queue for every slot.

The supervisor holds both ends of every queue, so what is under way when a worker dies meets the next one. A slot that comes
later is made known to the workers that are there over their own queues.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable

from forkproxy.worker.handover import MOST_SLOTS, Board, Handover, pass_socket


class Handovers:
    """All generations' boards and queues, by the generation's number."""

    def __init__(self) -> None:
        self._generations: dict[int, _Queues] = {}

    def part_of(self, slot: int, *, generation: int, listeners: int, slots: Iterable[int]) -> Handover:
        """What the worker to be born in ``slot`` gets; ``slots`` are all that are to have one. OSError when it cannot be made."""
        queues = self._generations.get(generation)
        if queues is None:
            queues = self._generations[generation] = _Queues(listeners)
        for number in sorted({slot, *slots}):
            queues.add(number)
        return queues.part_of(slot)

    def on_worker_gone(self, slot: int, generation: int) -> None:
        """The current worker of ``slot`` has died: nobody gives to it until the next one says that it takes."""
        queues = self._generations.get(generation)
        if queues is not None:
            queues.board.clear(slot)

    def keep_only(self, generations: Collection[int]) -> None:
        """Close what belongs to others; their workers have copies of their own."""
        for number in [number for number in self._generations if number not in generations]:
            self._generations.pop(number).close()


class _Queues:
    def __init__(self, listeners: int) -> None:
        self.board = Board(listeners)
        self._ends: dict[int, tuple[socket.socket, socket.socket]] = {}
        self._have_had_workers: set[int] = set()

    def add(self, slot: int) -> None:
        if slot in self._ends or slot >= MOST_SLOTS:
            return
        # Keeps messages apart, and its buffer has room for a hundred where a datagram socket's queue has ten.
        receiver, sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        receiver.setblocking(False)
        sender.setblocking(False)
        for number in self._have_had_workers:
            # A worker whose queue is full does not get to know the new one: its connections go to those it knows.
            pass_socket(self._ends[number][1], {"slot": slot}, sender)
        self._ends[slot] = receiver, sender

    def part_of(self, slot: int) -> Handover:
        receiver = None
        if slot in self._ends:
            receiver = self._ends[slot][0]
            self._have_had_workers.add(slot)
        senders = {number: sender for number, (_, sender) in self._ends.items() if number != slot}
        return Handover(self.board, slot, receiver, senders)

    def close(self) -> None:
        for ends in self._ends.values():
            for sock in ends:
                sock.close()
        self.board.close()
