"""Even shares: an accepted connection goes to the worker that has the fewest of its listener.

The kernel spreads connections over the slots' sockets by a hash, which is as even as coins: of 64 long connections two workers
get 35 and 29 on average, 44 and 20 on a bad day. So a worker that accepts a connection while another has fewer passes the
socket on. What the workers know of each other is on a board in shared memory; the socket travels over a unix socket that
belongs to the slot, so one that is under way when a worker dies meets its successor.

A listener with ``exact_balance`` does this for every connection, as Envoy does. Others have a budget: what matters is few and
long connections; thousands are even by the law of large numbers, and short ones would pay 30 µs each for nothing.

A board belongs to one generation: nobody hands a connection to a worker that runs another configuration.
"""

from __future__ import annotations

import array
import fcntl
import json
import mmap
import os
import socket
from collections.abc import Callable, Iterable
from typing import Any

from forkproxy.net import descriptors
from forkproxy.net.address import SocketAddress
from forkproxy.net.loop import Loop
from forkproxy.net.poller import READ
from forkproxy.net.sockets import RawSocket

MOST_SLOTS = 1024
"""Slots with a higher number keep what they accept."""
BUDGET_PER_S = 100.0
BURST = 100.0
LOOK_COST = 0.01
"""Of the budget, for a look at one other worker's figures; giving a connection away costs 1. So a flood of short connections
among many workers pays for few looks."""
RECEIVED_PER_PASS = 16
NO_DESCRIPTOR_PAUSE_S = 0.1
LOCK_TRIES = 1000
"""Each a microsecond or two; who holds the lock needs about ten, unless it is stopped."""
LEAVE_TRIES = 100_000
"""Who leaves without the lock may miss what is being sent: only for a worker that is stopped does nobody wait."""
MESSAGE_BYTES = 4096

_PER_LISTENER = MOST_SLOTS * 3

Take = Callable[[RawSocket, SocketAddress], None]
"""(accepted socket, peer): the listener takes a connection that another worker has accepted."""


class Board:
    """The shared memory of one generation. Made by the supervisor; the descriptor is kept for its lock.

    For every slot: the pid of the worker that takes connections, 0 when none does; for every listener and slot: how many it
    has (written by its worker), how many were ever handed to it (written under the lock), how many of these it has taken
    (written by its worker).
    """

    __slots__ = ("_memory", "cells", "fd")

    def __init__(self, listeners: int) -> None:
        size = (MOST_SLOTS + max(listeners, 1) * _PER_LISTENER) * 8
        self.fd = os.memfd_create("forkproxy-handover", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, size)
        # Pages that no connection has touched cost nothing.
        self._memory = mmap.mmap(self.fd, size)
        self.cells: memoryview = memoryview(self._memory).cast("q")

    def lock(self, tries: int = 0) -> bool:
        """Exclude the other processes; gone with the process that holds it. False: it was not to be had."""
        for _ in range(tries or LOCK_TRIES):
            try:
                fcntl.lockf(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
            except OSError:
                os.sched_yield()
            else:
                return True
        return False

    def unlock(self) -> None:
        """Let the others."""
        fcntl.lockf(self.fd, fcntl.LOCK_UN, 1)

    def clear(self, slot: int) -> None:
        """The worker of ``slot`` is gone: it takes nothing and has nothing."""
        if slot < MOST_SLOTS:
            cells = self.cells
            cells[slot] = 0
            for cell in range(MOST_SLOTS + slot, len(cells), _PER_LISTENER):
                if cells[cell]:
                    cells[cell] = 0

    def close(self) -> None:
        """Give the memory and the descriptor back; other processes keep theirs."""
        self.cells.release()
        self._memory.close()
        os.close(self.fd)


class Handover:
    """A worker's part: where it takes connections, and whom it may give them to.

    ``receiver`` is its slot's end, ``senders`` the other slots' by number.
    """

    def __init__(
        self, board: Board, slot: int, receiver: socket.socket | None, senders: dict[int, socket.socket]
    ) -> None:
        self.board = board
        self.slot = slot
        self.senders = senders
        self.left = receiver is None
        """Nothing is given away any more, and nothing is to come."""
        self._receiver = receiver
        self._pid = 0
        self._shares: dict[int, Share] = {}
        self._loop: Loop = None  # type: ignore[assignment]  # set by start()
        self._tokens = BURST
        self._refilled_at = 0.0

    def descriptors(self) -> list[int]:
        """What the worker must keep open over its birth."""
        sockets = [*self.senders.values(), *([self._receiver] if self._receiver is not None else [])]
        return [self.board.fd, *(sock.fileno() for sock in sockets)]

    def share(self, listener: int, take: Take, *, exact: bool) -> Share:
        """The part of one listener, by its number in the generation."""
        share = self._shares[listener] = Share(self, listener, take, exact=exact)
        return share

    def start(self, loop: Loop) -> None:
        """Take connections."""
        self._loop = loop
        self._refilled_at = loop.now
        if self._receiver is not None:
            loop.register(self._receiver.fileno(), READ, self._on_ready)
            self._pid = self.board.cells[self.slot] = os.getpid()

    def pause(self, paused: bool) -> None:
        """Nothing can be taken for a moment (no descriptors), or again."""
        cells = self.board.cells
        if not self.left and cells[self.slot] == (self._pid if paused else 0):
            cells[self.slot] = 0 if paused else self._pid

    def leave(self) -> None:
        """Take what is under way, and give nothing away any more."""
        if self.left:
            return
        # Who sends does it under the lock and looks at the board first: after this nothing more can come.
        is_locked = self.board.lock(LEAVE_TRIES)
        is_last = self.board.cells[self.slot] in (0, self._pid)
        if is_last:
            self.board.cells[self.slot] = 0
        if is_locked:
            self.board.unlock()
        self.left = True
        if not is_last:
            # Another worker has taken this place, and the queue with it.
            self._stop_receiving()
            return
        try:
            while self._receive():
                pass
        finally:
            for share in self._shares.values():
                share.forget()

    def may_spend(self) -> bool:
        """Whether the budget has room for one more connection given away."""
        if self._tokens < 1.0:
            now = self._loop.now
            self._tokens = min(BURST, self._tokens + (now - self._refilled_at) * BUDGET_PER_S)
            self._refilled_at = now
        return self._tokens >= 1.0

    def spend(self, cost: float) -> None:
        """Something was done."""
        if self._tokens == BURST:
            self._refilled_at = self._loop.now
        self._tokens -= cost

    def _stop_receiving(self) -> None:
        if self._receiver is not None:
            self._loop.close_later(self._receiver)
            self._receiver = None

    def _on_ready(self, _mask: int) -> None:
        for _ in range(RECEIVED_PER_PASS):
            if not self._receive():
                return

    def _receive(self) -> bool:
        if self._receiver is None or not self._has_room(self._receiver):
            return False
        received = receive_socket(self._receiver)
        if received is None:
            return False
        message, sock = received
        if not message:
            self._stop_receiving()  # nobody is left who could send
            return False
        if "slot" in message:
            self._meet(message["slot"], sock)
        else:
            self._shares[message["listener"]].take(sock, message["peer"])
        return True

    def _has_room(self, receiver: socket.socket) -> bool:
        # What cannot get a descriptor here is closed by the kernel; in the queue it can wait.
        if descriptors.is_one_free(receiver.fileno()):
            return True
        self._loop.unregister(receiver.fileno())
        self._loop.call_later(NO_DESCRIPTOR_PAUSE_S, self._look_again)
        return False

    def _look_again(self) -> None:
        if self._receiver is not None:
            self._loop.register(self._receiver.fileno(), READ, self._on_ready)

    def _meet(self, slot: int, sender: socket.socket | None) -> None:
        if sender is not None:
            sender.setblocking(False)
            known = self.senders.get(slot)
            self.senders[slot] = sender
            if known is not None:
                known.close()


class Share:
    """One listener's part in the handover: gives connections away, and says on the board how many it has."""

    __slots__ = ("_active", "_exact", "_handed", "_handover", "_listener", "_take", "_taken")

    def __init__(self, handover: Handover, listener: int, take: Take, *, exact: bool) -> None:
        self._handover = handover
        self._listener = listener
        self._take = take
        self._exact = exact
        # Columns of the board: the cell of slot 0; slot n's is n further.
        self._active = MOST_SLOTS + listener * _PER_LISTENER
        self._handed = self._active + MOST_SLOTS
        self._taken = self._handed + MOST_SLOTS

    def count(self, connections: int) -> None:
        """The listener has so many connections now."""
        handover = self._handover
        if not handover.left:
            handover.board.cells[self._active + handover.slot] = connections

    def pause(self, paused: bool) -> None:
        """The worker cannot take connections for a moment, or can again."""
        self._handover.pause(paused)

    def forget(self) -> None:
        """The connections that are left are no longer counted here."""
        self._handover.board.cells[self._active + self._handover.slot] = 0

    def give_away(self, accepted: RawSocket, peer: SocketAddress, connections: int) -> bool:
        """Pass a connection on when another worker has fewer than our ``connections``; False: it is ours."""
        handover = self._handover
        if not handover.senders or handover.left:
            return False
        if not self._exact and not self._is_worth_it(connections):
            return False
        board = handover.board
        if not board.lock():
            return False
        try:
            slot = self._least(connections)
            if slot is None or not self._send(slot, accepted, peer):
                # Ours: said before the next one looks.
                board.cells[self._active + handover.slot] = connections + 1
                return False
            board.cells[self._handed + slot] += 1
        finally:
            board.unlock()
        handover.spend(1.0)
        accepted.close()
        return True

    def take(self, accepted: RawSocket | None, peer: Any) -> None:
        """A connection that another worker has accepted."""
        board, slot = self._handover.board, self._handover.slot
        # Both at once for those who look: it is no longer under way, and it is one of ours.
        is_locked = self._exact and board.lock()
        board.cells[self._active + slot] += accepted is not None
        board.cells[self._taken + slot] += 1
        if is_locked:
            board.unlock()
        if accepted is not None:
            self._take(accepted, tuple(peer) if isinstance(peer, list) else peer)

    def _is_worth_it(self, connections: int) -> bool:
        # A first look without the lock, while there is a budget.
        handover = self._handover
        if not connections or not handover.may_spend():
            return False
        handover.spend(LOOK_COST * len(handover.senders))
        return self._least(connections) is not None

    def _least(self, connections: int) -> int | None:
        # The slot that has fewest, when that is fewer than we have; what is under way to a slot counts as its own.
        cells = self._handover.board.cells
        active, handed, taken = self._active, self._handed, self._taken
        own = self._handover.slot
        least = connections + cells[handed + own] - cells[taken + own]
        found = None
        for slot in self._handover.senders:
            if cells[slot]:
                has = cells[active + slot] + cells[handed + slot] - cells[taken + slot]
                if has < least:
                    least, found = has, slot
        return found

    def _send(self, slot: int, accepted: RawSocket, peer: SocketAddress) -> bool:
        return pass_socket(self._handover.senders[slot], {"listener": self._listener, "peer": peer}, accepted)


def pass_socket(sender: socket.socket, message: dict[str, object], sock: RawSocket) -> bool:
    """Send a message with a socket. False when the queue is full or nobody holds the other end."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sock.fileno()]))]
    try:
        sender.sendmsg([json.dumps(message).encode()], rights)
    except OSError:
        return False
    return True


def receive_socket(receiver: socket.socket) -> tuple[dict[str, Any], socket.socket | None] | None:
    """What ``pass_socket`` sent. None: nothing waits; an empty message: nobody is left who could send."""
    try:
        data, ancillary, _flags, _sender = receiver.recvmsg(
            MESSAGE_BYTES, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC
        )
    except OSError:
        return None
    # Without a socket when this process has no descriptor free: the kernel has closed it then, and its peer sees a reset.
    return (json.loads(data) if data else {}), _socket_in(ancillary)


def _socket_in(ancillary: Iterable[tuple[int, int, bytes]]) -> socket.socket | None:
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS and len(data) >= 4:
            return socket.socket(fileno=array.array("i", data[:4])[0])
    return None
