"""Accepting, choosing a filter chain, and the end of connections; on scripted sockets."""

import errno
from types import SimpleNamespace

import pytest

from forkproxy.config.build.listener import FilterChainMatch
from forkproxy.net import address as addresses
from forkproxy.net.connection import Connection
from forkproxy.net.filter import NetworkFilter, NetworkFilterChain
from forkproxy.net.poller import READ
from forkproxy.stats.groups import ListenerStats, ListenerWorkerStats
from forkproxy.worker import listener as module
from forkproxy.worker.listener import (
    ACCEPTS_PER_PASS,
    FULL_TURNS,
    OUT_OF_DESCRIPTORS_PAUSE_S,
    ChainMatch,
    Listener,
    LiveFilterChain,
)
from tests.support.fakes import FakeLoop
from tests.support.playbook import ScriptedSocket

PEER = ("192.0.2.1", 40000)


@pytest.fixture(autouse=True)
def scripted_acceptor(monkeypatch):
    """What the real one does to a socket is shown in test_sockets.py."""
    monkeypatch.setattr(module, "acceptor", lambda sock: sock.accept)


class AcceptedSocket(ScriptedSocket):
    def __init__(self, name=("192.0.2.2", 10000)):
        super().__init__(name)
        self.blocking = True

    def setblocking(self, blocking):
        self.blocking = blocking


class ListeningSocket(ScriptedSocket):
    """``waiting``: (socket, peer) or an OSError each."""

    def __init__(self):
        super().__init__()
        self.waiting = []
        self.asked = 0

    def accept(self):
        self.asked += 1
        if not self.waiting:
            raise BlockingIOError
        found = self.waiting.pop(0)
        if isinstance(found, OSError):
            raise found
        return found

    def connects(self, number=1, peer=PEER, name=("192.0.2.2", 10000)):
        sockets = [AcceptedSocket(name) for _ in range(number)]
        self.waiting += [(sock, peer) for sock in sockets]
        return sockets


class Notes(NetworkFilter):
    """Remembers its connections and what they said."""

    terminal = True

    def __init__(self, close_at_once=False):
        self.new, self.data, self.closed = [], [], []
        self.close_at_once = close_at_once

    def on_new_connection(self, connection):
        self.new.append(connection)
        if self.close_at_once:
            connection.abort()

    def on_data(self, connection, data, end_stream):
        self.data.append(data)

    def on_close(self, connection, reason):
        self.closed.append(reason)


def live(notes, match=None):
    return LiveFilterChain(match, NetworkFilterChain([notes]), Connection)


class Setup:
    def __init__(self, *chains, default=None, per_event=0, start=True):
        self.loop = FakeLoop()
        self.sock = ListeningSocket()
        self.stats = ListenerStats()
        self.worker_stats = {2: ListenerWorkerStats()}
        self.notes = Notes()
        config = SimpleNamespace(
            name="main",
            per_connection_buffer_limit_bytes=4321,
            max_connections_to_accept_per_socket_event=per_event,
            original_dst=False,
            transparent=False,
        )
        self.listener = Listener(config, chains or [live(self.notes)], default, self.stats, self.worker_stats.get)
        if start:
            self.listener.start(self.loop, [self.sock], 2)
            self.listener._edge = 1 << 30

    def readable(self):
        self.loop.handlers[self.sock.fd](READ)
        self.loop.settle()

    def accept(self, number=1, **more):
        sockets = self.sock.connects(number, **more)
        self.readable()
        return sockets


def test_a_connection_is_accepted_and_read():
    setup = Setup()
    [sock] = setup.accept()
    [connection] = setup.notes.new
    assert (connection.remote_address, connection.high_watermark) == (PEER, 4321)
    sock.inbox.append(b"hello")
    setup.loop.handlers[sock.fd](READ)
    assert setup.notes.data == [b"hello"]
    assert setup.listener.accepted == len(setup.listener.connections) == 1
    stats, own = setup.stats, setup.worker_stats[2]
    assert (stats.downstream_cx_total, stats.downstream_cx_active) == (1, 1)
    assert (own.downstream_cx_total, own.downstream_cx_active) == (1, 1)


def test_the_end_of_a_connection():
    setup = Setup()
    [sock] = setup.accept()
    setup.loop.now += 2
    sock.ended = True
    setup.loop.handlers[sock.fd](READ)
    assert setup.notes.closed == ["remote_close"]
    assert setup.listener.connections == set()
    stats = setup.stats
    assert (stats.downstream_cx_active, stats.downstream_cx_destroy, setup.worker_stats[2].downstream_cx_active) == (
        0,
        1,
        0,
    )
    assert stats.downstream_cx_length_ms == {2000: 1}
    assert sock.closed


def test_a_connection_that_a_filter_closes_at_once():
    notes = Notes(close_at_once=True)
    setup = Setup(live(notes))
    [sock] = setup.accept()
    assert sock.closed
    assert (setup.stats.downstream_cx_active, setup.stats.downstream_cx_destroy) == (0, 1)
    assert setup.listener.connections == set()
    assert sock.fd not in setup.loop.handlers


@pytest.mark.parametrize(("per_event", "most"), [(0, ACCEPTS_PER_PASS), (1, 1), (100, 32)])
def test_the_more_wait_the_more_are_taken_in_one_pass(per_event, most):
    setup = Setup(per_event=per_event)
    setup.sock.connects(1000)
    taken = []
    for _ in range(FULL_TURNS * 6):
        before = setup.listener.accepted
        setup.readable()
        taken.append(setup.listener.accepted - before)
    assert taken[:FULL_TURNS] == [1] * FULL_TURNS
    assert taken == sorted(taken)
    assert max(taken) == most


def test_an_empty_queue_is_hardly_ever_asked():
    setup = Setup()
    for _ in range(FULL_TURNS * 10):
        setup.accept()
    assert setup.listener.accepted == FULL_TURNS * 10
    assert setup.sock.asked <= FULL_TURNS * 10 + 10


def test_when_fewer_wait_fewer_are_asked_for():
    setup = Setup()
    setup.sock.connects(FULL_TURNS * 3 + 1)
    for _ in range(FULL_TURNS * 2 + 1):
        setup.readable()
    asked = setup.sock.asked
    setup.accept()
    assert setup.sock.asked == asked + 1


def test_a_connection_that_has_gone_while_it_waited():
    setup = Setup()
    setup.sock.waiting.append(OSError(errno.ECONNABORTED, "gone"))
    setup.accept()
    setup.readable()
    assert setup.listener.accepted == 1
    assert setup.stats.downstream_cx_overflow == 0


@pytest.fixture(autouse=True)
def lowest_free(monkeypatch):
    """The next descriptor's number, for the test to set."""
    number = [100]
    monkeypatch.setattr(module.descriptors, "lowest_free", lambda fd: number[0])
    return number


def test_the_last_quarter_of_the_descriptors_is_for_others(monkeypatch, lowest_free):
    lines = []
    monkeypatch.setattr(module, "_log", SimpleNamespace(warning=lambda message, **more: lines.append(more)))
    setup = Setup()
    first, second, _third = setup.sock.connects(3)
    setup.listener._edge = second.fd = first.fd + 1
    setup.readable()
    setup.readable()
    # The one that showed it is served; who comes after it waits in the queue.
    assert (setup.listener.accepted, len(setup.sock.waiting)) == (2, 1)
    assert setup.stats.downstream_cx_overflow == 1
    assert lines[0]["hint"]
    asked = setup.sock.asked
    lowest_free[0] = second.fd
    setup.loop.advance(100 * OUT_OF_DESCRIPTORS_PAUSE_S)
    assert setup.sock.fd not in setup.loop.handlers
    assert setup.sock.asked == asked
    lowest_free[0] = first.fd
    setup.loop.advance(OUT_OF_DESCRIPTORS_PAUSE_S)
    setup.sock.waiting[0][0].fd = first.fd
    setup.readable()
    assert setup.listener.accepted == 3


def test_while_it_rests_no_other_worker_gives_it_connections(monkeypatch):
    monkeypatch.setattr(module, "_log", SimpleNamespace(warning=lambda message, **more: None))
    setup = Setup()
    told = []
    setup.listener.share = SimpleNamespace(pause=told.append)
    setup.sock.waiting.append(OSError(errno.EMFILE, "full"))
    setup.readable()
    assert told == [True]
    setup.loop.advance(OUT_OF_DESCRIPTORS_PAUSE_S)
    assert told == [True, False]


def test_connections_of_other_workers_use_up_descriptors_too(monkeypatch):
    monkeypatch.setattr(module, "_log", SimpleNamespace(warning=lambda message, **more: None))
    setup = Setup()
    told = []
    setup.listener.share = SimpleNamespace(pause=told.append, count=lambda connections: None)
    first, second = setup.sock.connects(2)
    setup.sock.waiting.clear()
    setup.listener._edge = second.fd = first.fd + 1
    setup.listener.take_from_another(first, ("192.0.2.1", 1))
    assert not first.blocking
    assert told == []
    setup.listener.take_from_another(second, ("192.0.2.1", 2))
    assert told == [True]


def test_a_queue_that_is_closed_is_served_to_the_last_descriptor(monkeypatch):
    monkeypatch.setattr(module, "_log", SimpleNamespace(warning=lambda message, **more: None))
    setup = Setup()
    setup.listener.config.tcp_backlog_size = 5
    setup.listener._edge = 0
    setup.sock.connects(4)
    setup.listener.close_listening()
    assert setup.listener.accepted == 4


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_out_of_descriptors_accepting_rests_a_moment(code, monkeypatch):
    lines = []
    monkeypatch.setattr(module, "_log", SimpleNamespace(warning=lambda message, **more: lines.append(more)))
    setup = Setup()
    setup.sock.waiting.append(OSError(code, "full"))
    setup.accept()
    assert setup.sock.fd not in setup.loop.handlers
    assert setup.stats.downstream_cx_overflow == 1
    assert lines[0]["listener"] == "main"
    assert bool(lines[0]["hint"]) is (code == errno.EMFILE)
    setup.loop.advance(OUT_OF_DESCRIPTORS_PAUSE_S - 0.01)
    assert setup.sock.fd not in setup.loop.handlers
    setup.loop.advance(0.02)
    setup.readable()
    assert setup.listener.accepted == 1


def test_a_listener_that_has_stopped_does_not_come_back_after_the_rest(monkeypatch):
    monkeypatch.setattr(module, "_log", SimpleNamespace(warning=lambda message, **more: None))
    setup = Setup()
    setup.sock.waiting.append(OSError(errno.EMFILE, "full"))
    setup.readable()
    setup.listener.stop_accepting()
    setup.loop.advance(1)
    assert setup.loop.handlers == {}


def test_stopping_to_accept_leaves_connections():
    setup = Setup()
    [sock] = setup.accept()
    setup.listener.stop_accepting()
    assert list(setup.loop.handlers) == [sock.fd]
    assert setup.sock.closed
    setup.listener.stop_accepting()


def test_stopping_closes_everything():
    setup = Setup()
    sockets = setup.accept(3)
    setup.readable()
    setup.readable()
    setup.listener.stop()
    assert all(sock.closed for sock in sockets)
    assert setup.notes.closed == ["local_close"] * 3
    assert setup.loop.handlers == {}


def test_a_connection_that_raises_when_it_ends_keeps_no_other_from_its_end():
    class Raises(Notes):
        def on_close(self, connection, reason):
            super().on_close(connection, reason)
            if len(self.closed) == 2:
                raise ValueError("mine")

    notes = Raises()
    setup = Setup(live(notes))
    raised = []
    setup.loop.on_exception = lambda exception, callback: raised.append(str(exception))
    sockets = setup.accept(3)
    setup.readable()
    setup.readable()
    setup.listener.stop()
    assert all(sock.closed for sock in sockets)
    assert notes.closed == ["local_close"] * 3
    assert raised == ["mine"]


def test_a_slot_without_figures():
    setup = Setup(start=False)
    setup.listener.start(setup.loop, [setup.sock], 9)
    [sock] = setup.accept()
    sock.was_reset = True
    setup.loop.handlers[sock.fd](READ)
    assert setup.stats.downstream_cx_active == 0


# -- choosing a filter chain


def match(**fields):
    return ChainMatch(FilterChainMatch(**fields))


def test_no_chain_matches():
    setup = Setup(live(Notes(), match(destination_port=443)))
    [sock] = setup.accept()
    assert sock.closed
    assert setup.stats.no_filter_chain_match == 1
    assert (setup.stats.downstream_cx_total, setup.stats.downstream_cx_active, setup.listener.connections) == (
        1,
        0,
        set(),
    )


def test_the_default_chain():
    notes = Notes()
    setup = Setup(live(Notes(), match(destination_port=443)), default=live(notes))
    setup.accept()
    assert len(notes.new) == 1


def chosen(chains, local=("192.0.2.2", 10000), peer=PEER):
    """Which of the matches takes the connection: its index, or None."""
    notes = [Notes() for _ in chains]
    setup = Setup(*[live(note, each) for note, each in zip(notes, chains, strict=True)])
    setup.accept(name=local, peer=peer)
    return next((index for index, note in enumerate(notes) if note.new), None)


@pytest.mark.parametrize(
    ("fields", "local", "peer", "taken"),
    [
        ({"destination_port": 10000}, ("192.0.2.2", 10000), PEER, True),
        ({"destination_port": 10001}, ("192.0.2.2", 10000), PEER, False),
        ({"prefix_ranges": ("192.0.2.0/24",)}, ("192.0.2.2", 1), PEER, True),
        ({"prefix_ranges": ("192.0.3.0/24", "192.0.2.2/32")}, ("192.0.2.2", 1), PEER, True),
        ({"prefix_ranges": ("192.0.3.0/24",)}, ("192.0.2.2", 1), PEER, False),
        ({"prefix_ranges": ("2001:db8::/32",)}, ("192.0.2.2", 1), PEER, False),
        ({"source_prefix_ranges": ("192.0.2.1/32",)}, ("192.0.2.2", 1), PEER, True),
        ({"source_prefix_ranges": ("192.0.2.3/32",)}, ("192.0.2.2", 1), PEER, False),
        ({"direct_source_prefix_ranges": ("192.0.2.3/32",)}, ("192.0.2.2", 1), PEER, False),
        ({"source_ports": (40000, 1)}, ("192.0.2.2", 1), PEER, True),
        ({"source_ports": (1,)}, ("192.0.2.2", 1), PEER, False),
        ({"source_type": "EXTERNAL"}, ("192.0.2.2", 1), PEER, True),
        ({"source_type": "SAME_IP_OR_LOOPBACK"}, ("192.0.2.2", 1), PEER, False),
        ({"source_type": "SAME_IP_OR_LOOPBACK"}, ("192.0.2.2", 1), ("192.0.2.2", 5), True),
        ({"source_type": "SAME_IP_OR_LOOPBACK"}, ("192.0.2.2", 1), ("127.0.0.9", 5), True),
        ({"source_type": "EXTERNAL"}, ("::1", 1), ("::1", 5), False),
        ({"prefix_ranges": ("192.0.2.0/24",)}, "/run/x", "", False),
        ({}, "/run/x", "", True),
    ],
)
def test_what_matches(fields, local, peer, taken):
    assert (chosen([match(**fields)], local, peer) is not None) is taken


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"destination_port": 10000}, {"prefix_ranges": ("192.0.2.2/32",)}),
        ({"prefix_ranges": ("192.0.2.2/32",)}, {"prefix_ranges": ("192.0.2.0/24",)}),
        ({"prefix_ranges": ("0.0.0.0/0",)}, {}),
        ({"prefix_ranges": ("192.0.2.0/24",)}, {"direct_source_prefix_ranges": ("192.0.2.1/32",)}),
        ({"direct_source_prefix_ranges": ("192.0.2.0/24",)}, {"source_type": "EXTERNAL"}),
        ({"source_type": "EXTERNAL"}, {"source_prefix_ranges": ("192.0.2.1/32",)}),
        ({"source_prefix_ranges": ("192.0.2.0/24",)}, {"source_ports": (40000,)}),
        ({"source_ports": (40000,)}, {}),
    ],
)
def test_the_more_specific_criterion_wins_whatever_the_order(better, worse):
    assert chosen([match(**better), match(**worse)]) == 0
    assert chosen([match(**worse), match(**better)]) == 1


# -- leaving


def test_sockets_that_are_going_are_served_until_they_are_closed():
    setup = Setup(start=False)
    kept = ListeningSocket()
    setup.listener.start(setup.loop, [setup.sock, kept], 2)
    setup.listener.stop_accepting([kept])
    assert (setup.sock.closed, kept.closed, setup.listener.is_listening) == (True, False, True)
    kept.connects()
    setup.loop.handlers[kept.fd](READ)
    assert setup.listener.accepted == 1


def test_closing_serves_what_waits():
    setup = Setup(per_event=1)
    setup.listener.config.tcp_backlog_size = 100
    setup.sock.connects(40)
    setup.listener.close_listening()
    assert (setup.listener.accepted, setup.sock.closed, setup.listener.is_listening) == (40, True, False)
    assert setup.sock.fd not in setup.loop.handlers


def test_closing_does_not_serve_for_ever():
    setup = Setup()
    setup.listener.config.tcp_backlog_size = 5
    setup.sock.connects(40)
    setup.listener.close_listening()
    assert setup.listener.accepted == 5
    assert setup.sock.closed


def test_being_out_of_descriptors_is_told_once_in_a_while(monkeypatch):
    lines = []
    monkeypatch.setattr(module, "_log", SimpleNamespace(warning=lambda message, **more: lines.append(more)))
    setup = Setup()
    for _ in range(20):
        setup.sock.waiting.append(OSError(errno.EMFILE, "full"))
        setup.readable()
        setup.loop.advance(OUT_OF_DESCRIPTORS_PAUSE_S)
    assert len(lines) == 1
    setup.loop.advance(module.OUT_OF_DESCRIPTORS_LOG_S)
    setup.sock.waiting.append(OSError(errno.EMFILE, "full"))
    setup.readable()
    assert len(lines) == 2


def test_a_filter_that_raises_on_a_new_connection_costs_that_connection():
    class Raises(Notes):
        def on_new_connection(self, connection):
            raise ValueError("mine")

    setup = Setup(live(Raises()))
    [sock] = setup.sock.connects()
    with pytest.raises(ValueError, match="mine"):
        setup.readable()
    assert sock.closed
    assert (setup.stats.downstream_cx_active, setup.listener.connections) == (0, set())


def test_a_redirected_connection_has_the_address_that_was_wanted(monkeypatch):
    wanted = addresses.Restored(("192.0.2.9", 443))
    monkeypatch.setattr(module, "original_destination", lambda _sock, _transparent: wanted)
    setup = Setup()
    setup.listener._restores = True
    setup.sock.connects(1)
    setup.readable()
    [connection] = setup.listener.connections
    assert connection.local_address is wanted
