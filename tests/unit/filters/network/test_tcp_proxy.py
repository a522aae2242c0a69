"""Sessions between fake connections, as a conversation; one real transfer over loopback at the end."""

import contextlib
import gc
import os
import socket
import struct
import threading
import weakref
from types import SimpleNamespace

import pytest

from forkproxy.config.build.circuit_breakers import Thresholds
from forkproxy.config.build.connection_pool import PoolOptions
from forkproxy.config.build.tcp_proxy import TcpProxyConfig
from forkproxy.filters.network import tcp_proxy
from forkproxy.filters.network.tcp_proxy import TcpProxy, _cluster_picker
from forkproxy.http import response_flags
from forkproxy.net.connection import CONNECT_FAILURE, RECV_BYTES, REMOTE_CLOSE, REMOTE_RESET, Connection
from forkproxy.net.filter import (
    STOP_ITERATION,
    NetworkFilter,
    NetworkFilterChain,
    WriteFilteredConnection,
    continue_reading,
)
from forkproxy.net.sockets import connecting_socket
from forkproxy.stats.groups import ClusterStats, EndpointStats, TcpProxyStats
from forkproxy.upstream.circuit_breakers import BreakerCells, Breakers, Limit
from forkproxy.upstream.http_pool import HttpPool
from tests.support.fakes import FakeConnection, FakeLoop
from tests.support.live_loop import PATIENCE_S, LiveLoop


def config(**fields):
    settings = {
        "stat_prefix": "t",
        "cluster": "up",
        "weighted_clusters": (),
        "idle_timeout_s": 3600.0,
        "max_connect_attempts": 1,
        "max_downstream_connection_duration_s": None,
        "access_logs": (),
    }
    return TcpProxyConfig(**{**settings, **fields})


class FakeCluster:
    """Endpoints are always there; ``connect`` gives a fake, or raises what ``refuses`` holds."""

    needs_context = False

    def __init__(self, loop, max_connections=1024, max_per_host=None):
        self.loop = loop
        self.limit = Limit(0) if max_per_host else None
        self.name = self.stat_name = "up"
        pool = PoolOptions(close_on_health_failure=True)
        self.config = SimpleNamespace(
            connect_timeout_s=5.0, max_requests_per_connection=0, idle_timeout_s=None, pool=pool
        )
        self.stats = ClusterStats()
        self.breakers = Breakers(
            Thresholds(max_connections=max_connections, max_connections_per_host=max_per_host), BreakerCells()
        )
        self.endpoint = SimpleNamespace(address="192.0.2.9:1", hostname="", stats=EndpointStats(), monitor=None)
        self.endpoint.pool = HttpPool(self, self.endpoint, self.breakers)
        self.made = []
        self.refuses = None
        self.failures = []
        self.on_upstream_failure = lambda cluster, endpoint, reason, seconds: self.failures.append((reason, seconds))

    def pick(self):
        return self.endpoint

    def host_connections(self, endpoint):
        return self.limit

    def announces(self, endpoint):
        return False

    def pick_for_connection(self, connection):
        return None

    @property
    def connections(self):
        return self.breakers.connections.count

    def connect(self, endpoint):
        if self.refuses:
            raise self.refuses
        self.made.append(FakeConnection(self.loop, ("192.0.2.9", 1)))
        return self.made[-1]


class Play:
    """A downstream connection on a chain that ends in tcp_proxy."""

    def __init__(self, *before, cluster="default", max_connections=1024, **fields):
        self.loop = FakeLoop()
        self.cluster = FakeCluster(self.loop, max_connections) if cluster == "default" else cluster
        self.logged = []
        self.stats = TcpProxyStats()
        log = SimpleNamespace(log=self._log)
        self.filter = TcpProxy(config(**fields), lambda: self.cluster, self.stats, [log])
        self.chain = NetworkFilterChain([*before, self.filter])
        self.down = FakeConnection(self.loop)

    def _log(self, session):
        self.session = session
        names = response_flags.names(session.response_flags)
        self.logged.append((names, session.bytes_received, session.bytes_sent, session.attempt_count))

    def begin(self):
        self.chain.attach(self.down)
        return self

    def connected(self):
        self.begin()
        self.up.connect()
        return self

    @property
    def up(self):
        return self.cluster.made[-1]


def test_bytes_pass_both_ways_and_are_counted():
    play = Play().connected()
    play.down.receive(b"question")
    play.up.receive(b"ans")
    play.up.receive(b"wer")
    assert (play.up.written, play.down.written) == (b"question", b"answer")
    play.down.receive_end()
    play.up.receive_end()
    assert play.down.closed
    assert play.up.closed
    assert play.logged == [("", 8, 6, 1)]
    cluster = play.cluster.stats
    assert (play.stats.downstream_cx_rx_bytes_total, play.stats.downstream_cx_tx_bytes_total) == (8, 6)
    assert (cluster.upstream_cx_tx_bytes_total, cluster.upstream_cx_rx_bytes_total) == (8, 6)
    assert (cluster.upstream_cx_total, cluster.upstream_cx_active, cluster.upstream_rq_total) == (1, 0, 1)
    assert (cluster.upstream_rq_active, cluster.upstream_rq_pending_active, play.cluster.connections) == (0, 0, 0)
    assert play.cluster.endpoint.stats.rq_active == play.cluster.endpoint.stats.cx_active == 0


def test_a_session_may_end_with_the_health_of_its_endpoint():
    play = Play().connected()
    play.up.receive(b"last")
    play.cluster.endpoint.pool.on_health_failure()
    play.loop.settle()
    assert (play.down.written, play.down.closed, play.up.closed) == (b"last", True, True)
    stats = play.cluster.stats
    assert (stats.upstream_cx_destroy_local, stats.upstream_cx_destroy_local_with_active_rq) == (1, 1)
    assert play.cluster.endpoint.pool.sessions == set()


def test_the_cluster_that_an_endpoint_belongs_to_connects():
    loop = FakeLoop()
    whole, part = FakeCluster(loop), FakeCluster(loop)
    whole.endpoint = part.endpoint  # as an aggregate cluster picks
    play = Play(cluster=whole)
    play.loop = loop
    play.begin()
    assert (len(whole.made), len(part.made)) == (0, 1)


def test_sessions_wait_for_a_host_that_may_have_no_more_connections():
    loop = FakeLoop()
    cluster = FakeCluster(loop, max_per_host=1)
    plays = [Play(cluster=cluster) for _ in range(4)]
    for play in plays:
        play.loop = loop
        play.begin()
    first, second, third, fourth = plays
    first.up.connect()
    stats = cluster.stats
    assert (len(cluster.made), stats.upstream_cx_overflow, stats.upstream_rq_pending_active) == (1, 3, 3)
    assert cluster.breakers.pending.count == 3
    second.down.close()
    loop.settle()
    assert (stats.upstream_rq_cancelled, stats.upstream_rq_pending_active) == (1, 2)
    cluster.made[0].close()
    third.down.close()  # its turn has come, but it goes in the same moment
    loop.settle()
    assert len(cluster.made) == 2
    cluster.made[1].connect()
    fourth.down.receive(b"hello")
    assert cluster.made[1].written == b"hello"
    assert (stats.upstream_rq_pending_active, cluster.breakers.pending.count, stats.upstream_cx_total) == (0, 0, 2)


def test_when_the_next_one_cannot_connect_it_is_the_turn_of_the_one_after():
    loop = FakeLoop()
    cluster = FakeCluster(loop, max_per_host=1)
    plays = [Play(cluster=cluster) for _ in range(3)]
    for play in plays:
        play.loop = loop
        play.begin()
    cluster.made[0].connect()
    cluster.refuses = OSError(101, "unreachable")
    cluster.made[0].close()
    loop.settle()
    assert [play.down.closed for play in plays[1:]] == [True, True]
    assert (cluster.stats.upstream_rq_pending_active, cluster.breakers.pending.count) == (0, 0)


def test_downstream_is_not_read_before_upstream_is_connected():
    play = Play().begin()
    assert play.down.read_pauses == 1
    play.up.connect()
    assert play.down.read_pauses == 0


def test_what_a_filter_held_until_then_is_not_lost():
    class Gate(NetworkFilter):
        def on_new_connection(self, connection):
            return STOP_ITERATION

    play = Play(Gate()).begin()
    assert play.cluster.made == []
    play.down.receive(b"early")
    play.down.receive_end()
    continue_reading(play.down)
    assert play.up.written == b""
    play.up.connect()
    assert play.up.written == b"early"
    assert play.up.end_sent


@pytest.mark.parametrize("first", ["down", "up"])
def test_half_close_leaves_the_other_direction_open(first):
    play = Play().connected()
    ender, other = (play.down, play.up) if first == "down" else (play.up, play.down)
    ender.receive(b"last")
    ender.receive_end()
    assert (other.written, other.end_sent, other.closed) == (b"last", True, False)
    other.receive(b"still going")
    assert ender.written == b"still going"
    other.receive_end()
    assert ender.closed
    assert other.closed
    assert (ender.was_reset, other.was_reset) == (False, False)


def test_a_reset_of_upstream_resets_downstream():
    play = Play().connected()
    play.up.receive(b"half an ans")
    play.up.peer_closes(REMOTE_RESET)
    assert play.down.was_reset
    assert play.logged == [("UR", 0, 11, 1)]
    assert play.cluster.stats.upstream_cx_destroy_remote_with_active_rq == 1


def test_a_reset_of_downstream_resets_upstream():
    play = Play().connected()
    play.down.peer_closes(REMOTE_RESET)
    assert play.up.was_reset
    assert play.logged == [("", 0, 0, 1)], "Envoy sets no flag"


def test_downstreams_close_lets_upstream_have_what_it_was_sent():
    play = Play().connected()
    play.up.hold_writes = True
    play.down.receive(b"last words")
    play.down.peer_closes(REMOTE_CLOSE)
    assert play.up.state == "closing"
    assert play.stats.upstream_flush_active == 1
    play.up.flush_all()
    assert play.up.closed
    assert (play.stats.upstream_flush_active, play.stats.upstream_flush_total) == (0, 1)
    assert play.cluster.stats.upstream_cx_destroy_local_with_active_rq == 1


def test_a_flush_that_upstream_does_not_take_ends_with_the_idle_timeout():
    play = Play(idle_timeout_s=10.0).connected()
    play.up.hold_writes = True
    play.down.receive(b"last words")
    play.down.peer_closes(REMOTE_CLOSE)
    play.loop.advance(10.0)
    assert play.up.closed
    assert len(play.logged) == 1


def test_upstreams_full_close_flushes_downstream():
    play = Play().connected()
    play.down.receive_end()
    play.down.hold_writes = True
    play.up.receive(b"answer")
    play.up.receive_end()
    assert play.up.closed
    assert play.down.state == "closing"
    play.down.flush_all()
    assert play.down.closed
    assert play.logged == [("", 0, 6, 1)]


@pytest.mark.parametrize(("slow", "fast"), [("down", "up"), ("up", "down")])
def test_a_slow_side_pauses_the_other(slow, fast):
    play = Play().connected()
    slow, fast = getattr(play, slow), getattr(play, fast)
    slow.hold_writes = True
    slow.high_watermark = 10
    fast.receive(b"x" * 11)
    assert fast.read_pauses == 1
    assert slow.read_pauses == 0
    slow.flush_all()
    assert fast.read_pauses == 0
    counted = play.cluster.stats
    if slow is play.up:
        assert (counted.upstream_flow_control_backed_up_total, counted.upstream_flow_control_drained_total) == (1, 1)
        assert play.stats.downstream_flow_control_paused_reading_total == 1
    else:
        assert counted.upstream_flow_control_paused_reading_total == 1
        assert counted.upstream_flow_control_resumed_reading_total == 1


# -- connecting


def test_no_such_cluster():
    play = Play(cluster=None).begin()
    assert play.down.closed
    assert play.logged == [("NC", 0, 0, 0)]
    assert play.stats.downstream_cx_no_route == 1


def test_no_endpoint():
    play = Play()
    play.cluster.pick = lambda: None
    play.begin()
    assert play.down.closed
    assert play.logged == [("UH", 0, 0, 0)]
    assert play.cluster.stats.upstream_cx_none_healthy == 1


def test_too_many_connections():
    play = Play(max_connections=0).begin()
    assert play.logged == [("UO", 0, 0, 0)]
    assert play.cluster.stats.upstream_cx_overflow == 1


def refuse(connection):
    connection.error = ConnectionRefusedError(111, "ECONNREFUSED")
    connection.peer_closes(CONNECT_FAILURE)


def test_a_refused_connect_ends_the_connection():
    play = Play().begin()
    refuse(play.up)
    assert play.down.closed
    assert not play.down.was_reset
    assert play.logged == [("UF,URX", 0, 0, 1)]
    assert play.session.upstream_transport_failure_reason == "delayed connect error: Connection refused"
    assert play.session.endpoint.address == "192.0.2.9:1"
    counted = play.cluster.stats
    assert (counted.upstream_cx_connect_fail, counted.upstream_cx_connect_attempts_exceeded) == (1, 1)
    assert (counted.upstream_cx_destroy_remote, counted.upstream_rq_pending_failure_eject) == (1, 1)
    assert (counted.upstream_cx_active, counted.upstream_rq_pending_active, play.cluster.connections) == (0, 0, 0)
    assert play.cluster.failures == [("delayed connect error: Connection refused", 0.0)]


def test_results_of_connects_are_told_to_who_wants_to_know():
    told = []
    monitor = SimpleNamespace(
        on_connected=lambda: told.append("connected"),
        on_reset=lambda *, connected: told.append(("reset", connected)),
        on_timeout=lambda *, connected: told.append(("timeout", connected)),
    )
    play = Play(max_connect_attempts=4)
    play.cluster.endpoint.monitor = monitor
    play.begin()
    refuse(play.up)
    play.loop.advance(5.0)
    play.up.connect()
    assert told == [("reset", False), ("timeout", False), "connected"]
    play.up.peer_closes(REMOTE_CLOSE)
    assert len(told) == 3


def test_an_immediate_refusal_is_told_too():
    told = []
    play = Play()
    play.cluster.endpoint.monitor = SimpleNamespace(on_reset=lambda *, connected: told.append(connected))
    play.cluster.refuses = OSError(101, "Network is unreachable")
    play.begin()
    assert told == [False]


def test_connect_attempts():
    play = Play(max_connect_attempts=3).begin()
    refuse(play.up)
    refuse(play.up)
    play.up.connect()
    play.down.receive(b"x")
    assert play.up.written == b"x"
    play.down.peer_closes(REMOTE_CLOSE)
    assert play.logged == [("UF", 1, 0, 3)]
    assert play.cluster.stats.upstream_cx_total == 3


def test_time_passes_between_two_attempts(monkeypatch):
    monkeypatch.setattr(tcp_proxy.random, "random", lambda: 0.5)
    play = Play(max_connect_attempts=4, backoff_s=(1.0, 3.0)).begin()
    for wait_s in (0.5, 1.0, 1.5):
        made = len(play.cluster.made)
        refuse(play.up)
        play.loop.advance(wait_s - 0.01)
        assert len(play.cluster.made) == made
        play.loop.advance(0.02)
        assert len(play.cluster.made) == made + 1
    refuse(play.up)
    assert play.logged == [("UF,URX", 0, 0, 4)]


def test_who_leaves_between_two_attempts_is_not_connected_any_more():
    play = Play(max_connect_attempts=4, backoff_s=(1.0, 3.0)).begin()
    refuse(play.up)
    play.down.peer_closes(REMOTE_CLOSE)
    play.loop.advance(10)
    assert len(play.cluster.made) == 1
    assert play.cluster.stats.upstream_rq_pending_active == 0


def test_a_connection_may_last_longer_by_chance(monkeypatch):
    monkeypatch.setattr(tcp_proxy.random, "random", lambda: 0.5)
    play = Play(max_downstream_connection_duration_s=10.0, duration_jitter_percent=50.0).connected()
    play.loop.advance(12.4)
    assert not play.down.closed
    play.loop.advance(0.2)
    assert play.down.closed
    assert play.stats.max_downstream_connection_duration == 1


def test_a_connect_that_fails_on_the_spot():
    play = Play(max_connect_attempts=2)
    play.cluster.refuses = OSError(101, "Network is unreachable")
    play.begin()
    assert play.logged == [("UF,URX", 0, 0, 2)]
    assert play.session.upstream_transport_failure_reason == "immediate connect error: Network is unreachable"
    assert play.cluster.connections == 0


def test_a_connect_that_takes_too_long():
    play = Play().begin()
    play.loop.advance(4.9)
    assert play.logged == []
    play.loop.advance(0.1)
    assert play.logged == [("UF,URX", 0, 0, 1)]
    assert play.cluster.stats.upstream_cx_connect_timeout == 1
    assert play.cluster.failures == [("connect timeout", pytest.approx(5.0))]


def test_the_connect_timeout_ends_with_the_connect():
    play = Play().connected()
    play.loop.advance(60.0)
    assert not play.down.closed


def test_downstream_goes_away_while_connecting():
    play = Play(max_connect_attempts=9).begin()
    play.down.peer_closes(REMOTE_RESET)
    assert play.up.closed
    assert len(play.cluster.made) == 1, "nobody is left to try again for"
    assert play.cluster.stats.upstream_rq_cancelled == 1
    assert play.cluster.stats.upstream_cx_connect_fail == 0


# -- time


def test_idle_timeout():
    play = Play(idle_timeout_s=10.0).connected()
    play.loop.advance(9.0)
    play.down.receive(b"x")
    play.loop.advance(9.0)
    play.up.receive(b"y")
    play.loop.advance(9.9)
    assert not play.down.closed
    play.loop.advance(0.1 + 10.0)  # what was sent at last counts once more: see _on_idle
    assert play.down.closed
    assert play.up.closed
    assert play.logged == [("", 1, 1, 1)]
    assert play.stats.idle_timeout == 1


def test_bytes_that_leave_are_activity():
    play = Play(idle_timeout_s=10.0).connected()
    for _ in range(5):
        play.loop.advance(8.0)
        play.down.bytes_sent += 1000  # the kernel took a part of what waited
    assert not play.down.closed


def test_no_idle_timeout():
    play = Play(idle_timeout_s=None).connected()
    play.loop.advance(1e9)
    assert not play.down.closed


def test_max_downstream_connection_duration():
    play = Play(max_downstream_connection_duration_s=30.0).connected()
    play.loop.advance(29.0)
    play.down.receive(b"x")
    play.loop.advance(1.0)
    assert play.down.closed
    assert play.up.closed
    assert play.logged == [("DT", 1, 0, 1)]
    assert play.stats.max_downstream_connection_duration == 1


# -- the rest


def test_weighted_clusters(monkeypatch):
    weighted = config(cluster="", weighted_clusters=(("a", 1), ("b", 3)))
    pick = _cluster_picker(weighted, lambda name: name)
    draws = iter([0.0, 0.2499, 0.25, 0.9999])
    monkeypatch.setattr("random.random", lambda: next(draws))
    assert [pick() for _ in range(4)] == ["a", "a", "b", "b"]


def test_what_access_logs_read_of_a_session():
    play = Play().connected()
    play.loop.advance(2.0)
    play.down.receive(b"x")
    play.down.peer_closes(REMOTE_CLOSE)
    session = play.session
    assert session.end - session.start == pytest.approx(2.0)
    assert session.wall_start == pytest.approx(play.loop.wall() - 2.0)
    assert session.downstream_remote_address == session.downstream_direct_remote_address == "192.0.2.1:40000"
    assert session.downstream_local_address == "192.0.2.2:10000"
    assert session.cluster is play.cluster
    assert session.upstream_connection is play.up
    assert (session.protocol, session.status, session.route, session.response_headers) == (b"", 0, None, None)


def test_a_finished_session_leaves_nothing_for_the_collector():
    # The idle timer of an hour does not keep it either, nor do cycles.
    play = Play(max_downstream_connection_duration_s=9999.0).connected()
    play.down.receive(b"x")
    play.down.receive_end()
    play.up.receive_end()
    gone = weakref.ref(play.up)
    gc.disable()
    try:
        play.session = play.down = None
        play.cluster.made.clear()
        assert gone() is None
    finally:
        gc.enable()


class Echoing(NetworkFilter):
    """A data filter that changes nothing."""

    def on_data(self, connection, data, end_stream):
        return None


class Writing(NetworkFilter):
    direction = "WRITE"

    def on_write(self, connection, data, end_stream):
        return None


class Live:
    """A session between real sockets: ``client`` and ``server`` are the peers' ends, in threads or by hand."""

    def __init__(self, *before, limit=65536, make_upstream=Connection, **fields):
        self.loop = LiveLoop()
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.cluster = FakeCluster(self.loop)
        self.cluster.connect = self._connect
        self.limit = limit
        self.make_upstream = make_upstream
        self.logged = []
        self.stats = TcpProxyStats()
        log = SimpleNamespace(log=lambda session: self.logged.append((session.bytes_received, session.bytes_sent)))
        chain = NetworkFilterChain([*before, TcpProxy(config(**fields), lambda: self.cluster, self.stats, [log])])
        make = WriteFilteredConnection if chain.has_write_filters else Connection
        with socket.create_server(("127.0.0.1", 0)) as door:
            self.client = socket.create_connection(door.getsockname())
            ours, _ = door.accept()
        ours.setblocking(False)
        self.down = make(self.loop, ours, ("127.0.0.1", 1), limit)
        chain.attach(self.down)
        self.down.start()
        self.server, _ = self.listening.accept()
        self.client.settimeout(PATIENCE_S)
        self.server.settimeout(PATIENCE_S)
        self.session = self.down.session
        self.loop.run_until(lambda: self.session._connected)

    def _connect(self, endpoint):
        address = self.listening.getsockname()
        self.up = self.make_upstream(self.loop, connecting_socket(address), address, self.limit)
        self.up.start_connecting()
        return self.up

    def transfer(self, sender, receiver, blob):
        """All of ``blob`` from one peer to the other; what arrived."""
        got = []
        threads = [
            threading.Thread(target=sender.sendall, args=(blob,)),
            threading.Thread(target=lambda: got.append(receive_exactly(receiver, len(blob)))),
        ]
        for thread in threads:
            thread.start()
        self.loop.run_until(lambda: got)
        for thread in threads:
            thread.join()
        return got[0]

    def close(self):
        for sock in (self.client, self.server, self.listening):
            sock.close()
        self.down.abort()
        self.up.abort()
        self.loop.passes(1)
        assert self.loop.pipes.in_use == 0
        self.loop.close()


def receive_exactly(sock, size):
    got = bytearray()
    while len(got) < size and (part := sock.recv(1 << 20)):
        got += part
    return bytes(got)


@pytest.fixture
def live():
    made = []

    def make(*before, **arguments):
        made.append(Live(*before, **arguments))
        return made[-1]

    yield make
    for each in made:
        each.close()


BULK = os.urandom(1 << 20) * 6


def test_bulk_both_ways_is_spliced_and_counted_all_the_same(live):
    play = live(limit=1 << 20)
    assert play.transfer(play.client, play.server, BULK) == BULK
    assert play.transfer(play.server, play.client, BULK[::-1]) == BULK[::-1]
    assert play.up.inflow is not None
    assert play.down.inflow is not None
    size = len(BULK)
    for connection in (play.down, play.up):
        assert (connection.bytes_received, connection.bytes_sent) == (size, size)
    counted = play.cluster.stats
    assert (play.stats.downstream_cx_rx_bytes_total, play.stats.downstream_cx_tx_bytes_total) == (size, size)
    assert (counted.upstream_cx_tx_bytes_total, counted.upstream_cx_rx_bytes_total) == (size, size)
    play.client.shutdown(socket.SHUT_WR)
    play.loop.run_until(lambda: play.up.end_sent)
    assert play.server.recv(1) == b""
    assert play.transfer(play.server, play.client, b"still going") == b"still going"
    play.server.close()
    play.loop.run_until(lambda: play.down.closed and play.up.closed)
    assert play.client.recv(1) == b""
    assert play.logged == [(size, size + 11)]
    assert play.cluster.connections == 0


def test_small_messages_are_never_spliced(live):
    play = live()
    for _ in range(20):
        assert play.transfer(play.client, play.server, b"question") == b"question"
        assert play.transfer(play.server, play.client, b"answer") == b"answer"
    assert play.up.inflow is None
    assert play.down.inflow is None


@pytest.mark.parametrize("sender", ["upstream", "downstream"])
def test_only_full_reads_in_a_row_begin_a_splice(live, sender):
    play = live()
    read = getattr(play.session, f"on_{sender}_data")
    sink, other = (play.down, play.up) if sender == "upstream" else (play.up, play.down)
    for size in (RECV_BYTES, 1, RECV_BYTES, RECV_BYTES - 1):
        read(b"x" * size)
        assert sink.inflow is None
    read(b"x" * RECV_BYTES)
    assert sink.inflow is None
    read(b"x" * RECV_BYTES)
    inflow = sink.inflow
    assert inflow is not None
    read(b"x" * RECV_BYTES)
    read(b"x" * RECV_BYTES)
    assert sink.inflow is inflow, "one pipe's order for one connection"
    assert other.inflow is None


def test_a_data_filter_before_sees_every_byte_and_the_other_direction_is_spliced(live):
    play = live(Echoing())
    assert play.transfer(play.client, play.server, BULK) == BULK
    assert play.transfer(play.server, play.client, BULK) == BULK
    assert play.up.inflow is None
    assert play.down.inflow is not None


def test_with_write_filters_nothing_is_spliced_past_them(live):
    play = live(Writing())
    assert play.transfer(play.server, play.client, BULK) == BULK
    assert play.down.inflow is None


def test_a_transport_of_its_own_is_not_spliced(live):
    class Other(Connection):
        __slots__ = ()

    play = live(make_upstream=Other)
    assert play.transfer(play.server, play.client, BULK) == BULK
    assert play.transfer(play.client, play.server, BULK) == BULK
    assert play.up.inflow is play.down.inflow is None


@pytest.mark.parametrize("resets", ["client", "server"])
def test_a_reset_in_the_middle_of_a_spliced_transfer_reaches_the_other_side(live, resets):
    play = live(limit=1 << 20)
    sender, receiver = (play.server, play.client) if resets == "server" else (play.client, play.server)
    assert play.transfer(sender, receiver, BULK) == BULK
    sink = play.down if resets == "server" else play.up
    sender.setblocking(False)
    while not sink.inflow.piped:  # the receiver takes nothing more
        with contextlib.suppress(BlockingIOError):
            sender.send(BULK)
        play.loop.passes(1)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sender.close()
    # As without a pipe, a side that is not read learns of it once it is: here, when the receiver takes some.
    receiver.settimeout(0.01)
    error = []

    def ended():
        try:
            receiver.recv(1 << 20)
        except TimeoutError:
            pass
        except ConnectionResetError as reset:
            error.append(reset)
        return error

    play.loop.run_until(ended)
    assert play.down.closed
    assert play.up.closed
    assert play.loop.pipes.in_use == 0
    assert len(play.logged) == 1


def test_bytes_that_are_spliced_keep_a_session_from_being_idle(live):
    play = live(idle_timeout_s=1000.0)
    play.transfer(play.server, play.client, BULK)
    play.session._idle_timer.deadline = 0.0
    play.session.upstream_last_rx = 0.0
    moved = play.session.bytes_sent
    play.server.sendall(b"x" * 100_000)
    play.loop.run_until(lambda: play.session.bytes_sent == moved + 100_000)
    assert play.session._idle_timer.deadline > play.loop.now + 900.0
    assert play.session.upstream_last_rx == play.session.downstream_last_tx > 0.0


def test_a_real_transfer_with_backpressure_and_half_close():
    loop = LiveLoop()
    blob = os.urandom(1 << 20) * 8
    listening = socket.create_server(("127.0.0.1", 0))
    upstream_got = []

    def upstream():
        sock, _ = listening.accept()
        with sock:
            data = b""
            while part := sock.recv(1 << 20):
                data += part
            upstream_got.append(data)
            sock.sendall(data[::-1])

    cluster = FakeCluster(loop)

    def connect(endpoint):
        made = Connection(loop, connecting_socket(listening.getsockname()), listening.getsockname(), 65536)
        made.start_connecting()
        return made

    cluster.connect = connect
    proxy = TcpProxy(config(), lambda: cluster, TcpProxyStats(), [])
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    down = Connection(loop, ours, "", 65536)
    got = []

    def downstream():
        peer.settimeout(PATIENCE_S)
        peer.sendall(blob)
        peer.shutdown(socket.SHUT_WR)
        data = b""
        while part := peer.recv(1 << 20):
            data += part
        got.append(data)

    threads = [threading.Thread(target=upstream), threading.Thread(target=downstream)]
    for thread in threads:
        thread.start()
    NetworkFilterChain([proxy]).attach(down)
    down.start()
    loop.run_until(lambda: got and down.closed)
    for thread in threads:
        thread.join()
    assert upstream_got == [blob]
    assert got == [blob[::-1]]
    assert cluster.connections == 0
    peer.close()
    listening.close()
    loop.passes(1)
    loop.close()
