"""Workers of one generation in this process, handing real sockets to each other."""

import contextlib
import fcntl
import os
import socket
import struct

import pytest

from forkproxy.net import descriptors
from forkproxy.supervisor.handovers import Handovers
from forkproxy.worker import handover as module
from forkproxy.worker.handover import BURST, MOST_SLOTS, Board, Handover
from tests.support.live_loop import LiveLoop

PEER = ("192.0.2.1", 4000)


class Fleet:
    """``slots`` workers with one listener; ``taken[n]`` is what worker n was given."""

    def __init__(self, slots, *, exact=True):
        self.loop = LiveLoop()
        self.handovers = Handovers()
        self.parts, self.shares, self.taken, self.clients = [], [], [], []
        for slot in range(slots):
            self.add(slot, range(slots), exact=exact)

    def add(self, slot, slots, *, exact=True):
        part = self.handovers.part_of(slot, generation=1, listeners=1, slots=slots)
        taken = []
        self.parts.append(part)
        self.taken.append(taken)
        self.shares.append(part.share(0, lambda sock, peer: taken.append((sock, peer)), exact=exact))
        part.start(self.loop)

    def accepted(self):
        """A connection as ``accept`` returns it."""
        ours, theirs = socket.socketpair()
        theirs.settimeout(5)
        self.clients.append(theirs)
        return ours

    def arrives_at(self, slot, has, peer=PEER):
        """A connection arrives at a worker that ``has`` some; whether it was given away."""
        sock = self.accepted()
        given = self.shares[slot].give_away(sock, peer, has)
        if not given:
            sock.close()
        return given

    def close(self):
        for sock, _peer in (entry for taken in self.taken for entry in taken):
            sock.close()
        for client in self.clients:
            client.close()
        self.handovers.keep_only(())
        self.loop.close()


class Successor:
    """A second worker of the same generation in a slot, started while the first one serves."""

    def __init__(self, workers, slot):
        self.taken = []
        before = workers.parts[slot]
        # As another process would have it: its own descriptors of the same sockets, another pid.
        part = Handover(before.board, slot, before._receiver.dup(), {})
        self.share = part.share(0, lambda sock, peer: self.taken.append((sock, peer)), exact=True)
        part.start(workers.loop)
        self.part = part


@pytest.fixture
def fleet():
    with contextlib.ExitStack() as stack:

        def make(slots, **options):
            made = Fleet(slots, **options)
            stack.callback(made.close)
            return made

        yield make


def test_a_connection_goes_to_the_worker_that_has_fewer(fleet):
    workers = fleet(2)
    sock = workers.accepted()
    assert workers.shares[0].give_away(sock, PEER, 1)
    assert sock.fileno() == -1
    workers.loop.run_until(lambda: workers.taken[1])
    received, peer = workers.taken[1][0]
    assert peer == PEER
    assert not os.get_inheritable(received.fileno())
    received.send(b"hello")
    assert workers.clients[0].recv(9) == b"hello"


@pytest.mark.parametrize("peer", ["", "/run/peer", "\0name", ("::1", 9)])
def test_the_peer_travels_with_it(fleet, peer):
    workers = fleet(2)
    assert workers.arrives_at(0, 1, peer)
    workers.loop.run_until(lambda: workers.taken[1])
    assert workers.taken[1][0][1] == peer


def test_it_stays_where_nobody_has_fewer(fleet):
    workers = fleet(2)
    assert not workers.arrives_at(0, 0)
    # It is one of ours from that moment: the other has fewer than we now, and keeps the next.
    assert not workers.arrives_at(1, 0)
    workers.shares[1].count(5)
    assert not workers.arrives_at(0, 5)
    workers.shares[0].count(4)
    assert workers.arrives_at(1, 5)


def test_what_is_under_way_counts(fleet):
    workers = fleet(3)
    workers.shares[0].count(2)
    workers.shares[1].count(1)
    assert workers.arrives_at(0, 2)
    # Worker 2 has none yet, but one is under way.
    assert workers.arrives_at(0, 2)
    assert workers.arrives_at(0, 2)
    assert not workers.arrives_at(0, 2)
    workers.loop.run_until(lambda: len(workers.taken[1]) == 1 and len(workers.taken[2]) == 2)


@pytest.mark.parametrize("slots", [2, 4])
def test_sixty_four_that_all_arrive_at_one_worker_become_equal_shares(fleet, slots):
    workers = fleet(slots)
    kept = 0
    for _ in range(64):
        kept += not workers.arrives_at(0, kept)
        workers.loop.passes(1)
        for slot in range(1, slots):
            workers.shares[slot].count(len(workers.taken[slot]))
    assert [kept, *(len(taken) for taken in workers.taken[1:])] == [64 // slots] * slots


def test_without_exact_balance_there_is_a_budget_and_it_fills_again(fleet):
    workers = fleet(2, exact=False)
    given = sum(workers.arrives_at(0, 1000) for _ in range(200))
    assert BURST * 0.98 <= given < BURST
    workers.loop.now += 0.1
    later = sum(workers.arrives_at(0, 1000) for _ in range(200))
    assert 9 <= later <= 10
    workers.loop.now += 1000.0
    assert workers.parts[0].may_spend()
    assert workers.parts[0]._tokens == BURST
    workers.loop.run_until(lambda: len(workers.taken[1]) == given + later)


def test_looking_costs_little_of_the_budget(fleet):
    workers = fleet(2, exact=False)
    workers.shares[1].count(10)
    assert not any(workers.arrives_at(0, 10) for _ in range(300))
    assert workers.arrives_at(0, 11)
    # But not nothing.
    share, sock = workers.shares[0], workers.accepted()
    assert not any(share.give_away(sock, PEER, 10) for _ in range(10_000))
    assert not workers.parts[0].may_spend()
    # Who has none need not look.
    workers.loop.now += 1000.0
    workers.parts[0].may_spend()
    assert not any(share.give_away(sock, PEER, 0) for _ in range(20_000))
    assert workers.parts[0].may_spend()
    sock.close()


def test_a_full_queue_means_it_is_kept(fleet):
    workers = fleet(2)
    given = 0
    while workers.arrives_at(0, 10**6):
        given += 1
        assert given < 10000
    assert given > 16
    workers.loop.run_until(lambda: len(workers.taken[1]) == given)
    # Nothing that was refused is counted as under way.
    assert workers.arrives_at(0, given + 1)


def test_a_worker_that_leaves_takes_what_is_under_way_and_gets_no_more(fleet):
    workers = fleet(2)
    assert workers.arrives_at(0, 50)
    workers.parts[1].leave()
    assert len(workers.taken[1]) == 1
    assert not workers.arrives_at(0, 50)
    assert not workers.arrives_at(1, 50)
    workers.shares[1].count(1)
    workers.parts[1].leave()
    assert not any(workers.parts[1].board.cells[cell] for cell in (1, MOST_SLOTS + 1))


def test_a_worker_whose_place_is_taken_leaves_the_queue_to_the_next_one(fleet, monkeypatch):
    workers = fleet(2)
    monkeypatch.setattr(os, "getpid", lambda: 77)
    next_one = Successor(workers, 1)
    next_one.share.count(4)
    workers.shares[1].pause(True)
    assert workers.arrives_at(0, 50)
    workers.parts[1].leave()
    assert workers.taken[1] == []
    workers.loop.run_until(lambda: next_one.taken)
    workers.taken.append(next_one.taken)
    assert workers.parts[0].board.cells[MOST_SLOTS + 1] == 5
    assert workers.arrives_at(0, 50)
    workers.loop.run_until(lambda: len(next_one.taken) == 2)
    next_one.part._stop_receiving()
    workers.loop.passes(1)


def test_a_worker_without_descriptors_gets_nothing_for_a_while(fleet):
    workers = fleet(2)
    workers.shares[1].pause(True)
    assert not workers.arrives_at(0, 50)
    workers.shares[1].pause(False)
    assert workers.arrives_at(0, 50)
    workers.parts[1].leave()
    workers.shares[1].pause(False)
    assert not workers.arrives_at(0, 50)


def test_what_comes_when_no_descriptor_is_free_waits(fleet, monkeypatch):
    workers = fleet(2)
    looked = []
    with monkeypatch.context() as patched:
        patched.setattr(descriptors, "is_one_free", lambda _fd: looked.append(1))
        assert workers.arrives_at(0, 2)
        workers.loop.run_once(1.0)
        # The poller does not report over and over what cannot be taken.
        workers.loop.run_once(0.01)
        assert looked == [1]
    workers.loop.run_until(lambda: workers.taken[1])
    assert len(workers.taken[1]) == 1


def test_a_socket_that_the_kernel_could_not_give_is_no_longer_under_way(fleet):
    workers = fleet(2)
    workers.shares[1].take(None, list(PEER))
    assert workers.taken[1] == []
    cells = workers.parts[1].board.cells
    assert cells[MOST_SLOTS + 1] == 0
    assert cells[MOST_SLOTS * 3 + 1] == 1


def test_what_is_under_way_when_a_worker_dies_meets_the_next_one(fleet):
    workers = fleet(2)
    workers.parts[0].board.cells[0] = 0
    workers.shares[1].count(3)
    workers.loop.unregister(workers.parts[1]._receiver.fileno())
    assert workers.arrives_at(0, 50)
    workers.handovers.on_worker_gone(1, 1)
    assert not workers.arrives_at(0, 50)
    assert workers.parts[1].board.cells[MOST_SLOTS + 1] == 0
    workers.add(1, range(2))
    workers.loop.run_until(lambda: workers.taken[2])
    assert workers.arrives_at(0, 50)


def test_a_later_slot_is_made_known_to_the_workers_that_are_there(fleet):
    workers = fleet(1)
    assert not workers.arrives_at(0, 50)
    workers.add(1, range(2))
    workers.loop.run_until(lambda: 1 in workers.parts[0].senders)
    workers.clients.append(workers.parts[0].senders[1])
    assert workers.arrives_at(0, 50)
    workers.loop.run_until(lambda: workers.taken[1])
    # And is told again to a worker that knows it, when one dies: the old copy is closed.
    known = workers.parts[0].senders[1]
    workers.parts[0]._meet(1, known.dup())
    assert known.fileno() == -1
    workers.clients.append(workers.parts[0].senders[1])
    assert workers.arrives_at(0, 50)


def test_the_end_of_everybody_else_ends_the_receiving(fleet):
    workers = fleet(2)
    fd = workers.parts[1]._receiver.fileno()
    receiver = workers.parts[1]._receiver
    workers.parts[0].senders[1].close()
    workers.loop.run_until(lambda: fd not in workers.loop.handlers)
    assert receiver.fileno() == -1


def test_slots_beyond_the_board_keep_what_they_accept(fleet):
    workers = fleet(2)
    part = workers.handovers.part_of(MOST_SLOTS, generation=1, listeners=1, slots=())
    share = part.share(0, None, exact=True)
    part.start(workers.loop)
    sock = workers.accepted()
    assert not share.give_away(sock, PEER, 50)
    share.count(1)
    part.leave()
    sock.close()
    workers.handovers.on_worker_gone(MOST_SLOTS, 1)


@pytest.mark.parametrize("exact", [True, False])
def test_a_lock_that_is_not_to_be_had_means_it_is_kept(fleet, monkeypatch, exact):
    workers = fleet(2, exact=exact)
    monkeypatch.setattr(module, "LOCK_TRIES", 3)
    release, hold = os.pipe()
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        # POSIX locks belong to processes.
        os.close(hold)
        fcntl.lockf(workers.parts[0].board.fd, fcntl.LOCK_EX, 1)
        os.write(tell, b".")
        os.read(release, 1)
        os._exit(0)
    os.read(told, 1)
    assert not workers.arrives_at(0, 50)
    for fd in (hold, release, told, tell):
        os.close(fd)
    os.waitpid(child, 0)
    assert workers.arrives_at(0, 50)


def test_a_board_has_room_for_every_listener_and_pages_nobody_touched_cost_nothing():
    board = Board(200)
    try:
        assert len(board.cells) == MOST_SLOTS + 200 * 3 * MOST_SLOTS
        assert os.fstat(board.fd).st_blocks == 0
        board.cells[MOST_SLOTS + 199 * 3 * MOST_SLOTS + 7] = 5
        board.clear(7)
        assert not any(struct.unpack_from("q", board.cells, 8 * (MOST_SLOTS + 199 * 3 * MOST_SLOTS + 7)))
    finally:
        board.close()


def test_descriptors_are_what_a_worker_keeps(fleet):
    workers = fleet(3)
    part = workers.parts[1]
    expected = {part.board.fd, part._receiver.fileno(), part.senders[0].fileno(), part.senders[2].fileno()}
    assert set(part.descriptors()) == expected
