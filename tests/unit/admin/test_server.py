"""The admin's HTTP/1.1 over a socket pair: what goes in on one side, what comes out on the other."""

import errno
import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forkproxy.admin import server as admin_server
from forkproxy.admin.server import AdminConnection, AdminServer
from forkproxy.net.connection import Connection
from forkproxy.net.loop import Loop
from forkproxy.stats import groups
from tests.unit.admin.fakes import FakeContext, with_some_stats


class Clock:
    """Time that a test moves."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("forkproxy.net.loop.monotonic", clock)
    return clock


@pytest.fixture
def loop(clock):
    def fail(exception, callback):
        raise exception

    loop = Loop(fail)
    yield loop
    loop.run_once(0)
    loop.close()


@pytest.fixture
def context():
    return with_some_stats(FakeContext())


class Peer:
    """The other end of a connection to the admin server."""

    def __init__(self, server, clock):
        self.loop, self.clock = server.loop, clock
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self.sock = ours
        self.connection = Connection(server.loop, theirs, ("127.0.0.1", 4711))
        self.admin = AdminConnection(server, self.connection)

    def turn(self, seconds=0.0):
        self.clock.now += seconds
        for _ in range(4):
            self.loop.run_once(0)

    def send(self, data):
        self.sock.sendall(data)
        self.turn()
        return self

    def read(self):
        """Everything that has come; ends with ``<EOF>`` when the server has ended."""
        received = b""
        while True:
            try:
                data = self.sock.recv(1 << 20)
            except BlockingIOError:
                return received
            if not data:
                return received + b"<EOF>"
            received += data
            self.turn()

    def ask(self, data):
        return self.send(data).read()


@pytest.fixture
def server(loop, context):
    return AdminServer(loop, context, [])


@pytest.fixture
def peer(server, clock):
    peer = Peer(server, clock)
    yield peer
    peer.sock.close()
    peer.turn()
    assert not server.connections


READY = b"GET /ready HTTP/1.1\r\nhost: a\r\n\r\n"


def body_of(answer):
    return answer.partition(b"\r\n\r\n")[2]


def status_of(answer):
    return int(answer.split(b" ", 2)[1])


def test_an_answer(peer):
    answer = peer.ask(READY)
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines.pop(4).startswith(b"date: ")
    assert lines == [
        b"HTTP/1.1 200 OK",
        b"content-type: text/plain; charset=UTF-8",
        b"cache-control: no-cache, max-age=0",
        b"x-content-type-options: nosniff",
        b"server: forkproxy",
        b"content-length: 5",
    ]
    assert body == b"LIVE\n"


def test_keep_alive(peer):
    assert body_of(peer.ask(READY)) == body_of(peer.ask(READY)) == b"LIVE\n"


@pytest.mark.parametrize(
    "field", [b"Connection: close", b"connection: x, CLOSE", b"connection: a\r\nconnection: close"]
)
def test_connection_close(peer, field):
    answer = peer.ask(b"GET /ready HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n" % field)
    assert b"\r\nconnection: close\r\n" in answer
    assert answer.endswith(b"LIVE\n<EOF>")


def test_head_has_the_length_and_no_body(peer):
    answer = peer.ask(b"HEAD /ready HTTP/1.1\r\nhost: a\r\n\r\n")
    assert answer.endswith(b"content-length: 5\r\n\r\n")


def test_byte_by_byte(peer):
    for byte in READY[:-1]:
        assert peer.ask(bytes([byte])) == b""
    assert status_of(peer.ask(READY[-1:])) == 200


def test_pipelined_requests_are_answered_in_order_also_across_a_wait(peer, context):
    context.refresh_at_once = False
    stats = b"GET /stats?filter=server.live HTTP/1.1\r\nhost: a\r\n\r\n"
    answer = peer.ask(READY + stats + READY)
    assert answer.count(b"HTTP/1.1 200") == 1
    context.refreshes.pop()()
    peer.turn()
    answer += peer.read()
    assert [part.rpartition(b"\r\n\r\n")[2] for part in answer.split(b"HTTP/1.1 200 OK")[1:]] == [
        *(b"LIVE\n", b"server.live: 1\n", b"LIVE\n")
    ]


def test_a_body_is_read_before_the_next_request(peer, context):
    post = b"POST /drain_listeners HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\n\r\ngrace"
    assert peer.ask(post) == b""
    assert peer.ask(b"ful" + READY).count(b"HTTP/1.1 200") == 2
    assert context.done == [("drain", True, False, False)]


def test_absolute_form_and_asterisk_are_404(peer):
    assert status_of(peer.ask(b"GET http://x/ready HTTP/1.1\r\nhost: a\r\n\r\n")) == 404
    assert status_of(peer.ask(b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n")) == 404
    assert status_of(peer.ask(READY)) == 200


def test_an_upgrade_is_not_taken_up(peer):
    upgrade = b"GET /ready HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    assert peer.ask(upgrade).endswith(b"LIVE\n")
    assert status_of(peer.ask(READY)) == 200


def test_empty_lines_before_a_request_are_skipped(peer):
    assert status_of(peer.ask(b"\r\n\r\n" + READY)) == 200


# Fresh figures


def test_figures_are_waited_for_but_not_long(peer, context):
    context.refresh_at_once = False
    assert peer.ask(b"GET /stats?filter=server.live HTTP/1.1\r\nhost: a\r\n\r\n") == b""
    peer.turn(0.2)
    assert peer.read() == b""
    peer.turn(0.1)
    assert peer.read().endswith(b"server.live: 1\n")
    context.refreshes.pop()()  # the workers answer after all
    peer.turn()
    assert peer.read() == b""
    assert status_of(peer.ask(READY)) == 200


def test_the_answer_shows_the_figures_after_the_refresh(peer, context):
    context.refresh_at_once = False
    peer.send(b"GET /clusters HTTP/1.1\r\nhost: a\r\n\r\n")
    context.local(groups.EndpointStats, "cluster.web_1.endpoint.127.0.0.1:8080").cx_total = 99
    context.refreshes.pop()()
    peer.turn()
    assert b"::cx_total::99\n" in peer.read()


def test_a_peer_that_leaves_while_figures_are_awaited(peer, context, server):
    context.refresh_at_once = False
    peer.send(b"GET /stats HTTP/1.1\r\nhost: a\r\n\r\n")
    peer.connection.abort()
    context.refreshes.pop()()
    peer.turn(1.0)
    assert not server.connections


# What is refused


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"garbage\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (b"GET /ready HTTP/1.1\nhost: a\n\n", 400),
        (b"GET /ready HTTP/1.1\r\n\r\n", 400),
        (b"GET /ready HTTP/1.1\r\nhost:\r\n\r\n", 400),
        (b"GET /ready HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        (b"GET /ready HTTP/1.1\r\nhost : a\r\n\r\n", 400),
        (b"GET /ready HTTP/1.0\r\nhost: a\r\n\r\n", 426),
        (b"GET /ready HTTP/2.0\r\nhost: a\r\n\r\n", 400),
        (b"GET /re\x00ady HTTP/1.1\r\nhost: a\r\n\r\n", 400),
        (b"GET /" + b"?".join(b"a&" * 300 for _ in range(2)) + b" HTTP/1.1\r\nhost: a\r\n\r\n", 400),
        (b"POST /stats HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"POST /stats HTTP/1.1\r\nhost: a\r\ncontent-length: 65537\r\n\r\n", 413),
        (b"POST /stats HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n", 400),
        (b"POST /stats HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx", 400),
        (b"POST /stats HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\nx", 400),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (b"G" * 9000, 431),
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 2000, 431),
    ],
)
def test_refused(peer, context, sent, status):
    answer = peer.ask(sent)
    assert status_of(answer) == status
    assert b"\r\nconnection: close\r\n" in answer
    assert answer.endswith(b"<EOF>")
    assert answer.count(b"HTTP/1.1") == 1
    assert context.done == []


def test_nothing_after_a_refused_request_is_answered(peer):
    assert peer.ask(b"GET /ready HTTP/1.1\r\n\r\n" + READY).count(b"HTTP/1.1") == 1


def test_a_connection_without_a_request_is_closed(peer):
    peer.turn(admin_server.HEAD_TIMEOUT_S + 0.1)
    assert peer.read() == b"<EOF>"


def test_a_head_that_does_not_end_is_timed_out_however_it_trickles(peer):
    peer.send(b"GET /ready HTTP/1.1\r\n")
    for _ in range(4):
        peer.turn(3.0)
        if not peer.connection.closing:
            peer.send(b"x: y\r\n")
    assert status_of(peer.read()) == 408


def test_an_idle_kept_alive_connection_is_closed(peer):
    peer.ask(READY)
    peer.turn(admin_server.HEAD_TIMEOUT_S + 1)
    assert peer.read() == b""
    peer.turn(admin_server.EXCHANGE_TIMEOUT_S)
    assert peer.read() == b"<EOF>"


def test_a_peer_that_reads_nothing_is_not_buffered_for_without_end(peer):
    help_page = b"GET /stats?format=json&type=Counters HTTP/1.1\r\nhost: a\r\n\r\n"
    sent = 0
    peer.connection.high_watermark = 64 * 1024
    for _ in range(200):
        try:
            sent += peer.sock.send(help_page * 100)
        except BlockingIOError:
            break
        peer.turn()
    assert peer.connection.out_bytes < 64 * 1024 + 32 * 1024
    assert len(peer.admin._buffer) <= 2 * 65536
    answers = 0
    while received := peer.read():
        answers += received.count(b"HTTP/1.1 200 OK")
        peer.turn()
    assert answers == sent // len(help_page)


def test_a_peer_that_never_takes_its_answer_is_dropped(peer, clock):
    peer.connection.high_watermark = 4096
    request = b"GET /help HTTP/1.1\r\nhost: a\r\n\r\n"
    for _ in range(300):
        try:
            peer.sock.send(request * 10)
        except BlockingIOError:
            break
        peer.turn()
    assert peer.connection.out_bytes
    peer.turn(admin_server.EXCHANGE_TIMEOUT_S + 1)
    assert peer.connection.closed


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from(
                [READY, READY[:20], b"\r\n", b"\r\n\r\n", b"Host: a\r\n", b"POST /logging?", b" HTTP/1.1\r\n"]
            ),
        ),
        max_size=8,
    )
)
def test_whatever_comes_there_is_no_exception_and_nothing_stays(server, clock, context, pieces):
    peer = Peer(server, clock)
    for piece in pieces:
        if not peer.connection.closing and not peer.connection.closed:
            peer.send(piece)
    answers = peer.read()
    assert not answers or answers.startswith(b"HTTP/1.1 ")
    peer.sock.close()
    peer.turn()
    peer.turn(admin_server.EXCHANGE_TIMEOUT_S * 2)
    assert not server.connections
    assert context.done == []


# The log


def test_accesses_are_logged(peer, context, clock):
    peer.send(b"GET /ready?x=1 HTTP/1.1\r\nHost: a:1\r\nUser-Agent: u\r\n")
    clock.now += 0.25
    peer.ask(b"X-Request-Id: r\r\nX-Forwarded-For: f\r\n\r\n")
    (access,) = context.accesses
    assert (access.method, access.path, access.protocol, access.status) == ("GET", "/ready?x=1", "HTTP/1.1", 200)
    assert (access.host, access.user_agent, access.request_id, access.forwarded_for) == ("a:1", "u", "r", "f")
    assert (access.bytes_received, access.bytes_sent, access.peer) == (0, 5, "127.0.0.1:4711")
    assert access.duration_ms == 250


def test_refusals_are_logged(peer, context):
    peer.ask(b"garbage\r\n\r\n")
    (access,) = context.accesses
    assert (access.method, access.path, access.status) == ("-", "-", 400)


# The whole server


@pytest.fixture
def listening():
    sock = socket.socket(socket.AF_UNIX)
    sock.bind("\0forkproxy-admin-test-" + str(id(sock)))
    sock.listen()
    sock.setblocking(False)
    yield sock
    sock.close()


def connect(listening):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(listening.getsockname())
    sock.settimeout(5)
    return sock


def test_accepts_serves_and_stops(loop, context, listening):
    server = AdminServer(loop, context, [listening])
    server.start()
    with connect(listening) as sock:
        sock.sendall(READY)
        for _ in range(4):
            loop.run_once(0)
        assert sock.recv(4096).endswith(b"LIVE\n")
        server.stop()
        for _ in range(4):
            loop.run_once(0)
        assert sock.recv(4096) == b""
    for _ in range(4):
        loop.run_once(0)
    assert not server.connections


def test_an_answer_that_is_being_made_when_the_server_stops_still_comes(loop, context, listening):
    context.refresh_at_once = False
    server = AdminServer(loop, context, [listening])
    server.start()
    with connect(listening) as sock:
        sock.sendall(b"GET /stats?filter=server.live HTTP/1.1\r\nhost: a\r\n\r\n")
        for _ in range(4):
            loop.run_once(0)
        server.stop()
        context.refreshes.pop()()
        for _ in range(4):
            loop.run_once(0)
        answer = sock.recv(4096)
        assert b"\r\nconnection: close\r\n" in answer
        assert answer.endswith(b"server.live: 1\n")
        assert sock.recv(4096) == b""
    for _ in range(4):
        loop.run_once(0)
    assert not server.connections


def test_when_connections_are_too_many_the_idlest_makes_room(loop, context, listening, monkeypatch):
    monkeypatch.setattr(admin_server, "MAX_CONNECTIONS", 2)
    server = AdminServer(loop, context, [listening])
    server.start()
    socks = [connect(listening) for _ in range(3)]
    for _ in range(4):
        loop.run_once(0)
    assert len(server.connections) == 2
    assert socks[0].recv(10) == b""  # the one that had waited longest made room
    socks[2].sendall(b"GET /ready HTTP/1.1\r\nHost: a\r\n\r\n")
    loop.run_once(0)
    loop.run_once(0)
    assert socks[2].recv(100).startswith(b"HTTP/1.1 200 OK")
    for sock in socks:
        sock.close()
    for _ in range(4):
        loop.run_once(0)
    assert not server.connections
    server.stop()


def test_without_descriptors_accepting_pauses_instead_of_spinning(loop, context, clock):
    class Exhausted:
        """A listening socket in a process that has no descriptor left."""

        def __init__(self, sock):
            self.sock, self.accepts, self.exhausted = sock, 0, True

        def fileno(self):
            return self.sock.fileno()

        def accept(self):
            self.accepts += 1
            if self.exhausted:
                raise OSError(errno.EMFILE, "EMFILE")
            return self.sock.accept()

    sock = socket.socket(socket.AF_UNIX)
    sock.bind("\0forkproxy-admin-test-" + str(id(sock)))
    sock.listen()
    sock.setblocking(False)
    listening = Exhausted(sock)
    server = AdminServer(loop, context, [listening])
    server.start()
    with connect(sock):
        for _ in range(5):
            loop.run_once(0)
        assert listening.accepts == 1
        listening.exhausted = False
        clock.now += admin_server.ACCEPT_RETRY_S + 0.01
        for _ in range(3):
            loop.run_once(0)
        assert len(server.connections) == 1
    for _ in range(3):
        loop.run_once(0)
    server.stop()
    sock.close()
