"""Connections over real sockets: every case runs on TCP over loopback, most on a unix-domain pair too."""

import contextlib
import os
import socket
import struct

import pytest

from forkproxy.net.connection import (
    CLOSE_TIMEOUT,
    CONNECT_FAILURE,
    LOCAL_CLOSE,
    REMOTE_CLOSE,
    REMOTE_RESET,
    Connection,
)
from forkproxy.net.sockets import connecting_socket
from tests.support.live_loop import Record, socket_pair

BIG = os.urandom(1 << 20) * 8


@pytest.fixture(params=["tcp", "unix"])
def family(request):
    return request.param


@pytest.fixture
def opened():
    made = []
    yield made
    for each in made:
        if isinstance(each, Connection):
            each.abort()
        else:
            each.close()


@pytest.fixture
def pair(loop, family, opened):
    connection, record, peer = socket_pair(loop, family)
    opened += [connection, peer]
    return connection, record, peer


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def received_all(peer):
    parts = []
    while part := peer.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)


def busy_passes(loop, connection, passes=20):
    """How many events the connection gets in passes that do not wait: more than a few is a spin."""
    events = []
    real = loop.handlers.get(connection.fd)
    if real is None:
        loop.passes(passes)
        return 0
    loop.handlers[connection.fd] = lambda mask: (events.append(mask), real(mask))
    loop.passes(passes)
    if loop.handlers.get(connection.fd) is not None:
        loop.handlers[connection.fd] = real
    return len(events)


def test_reads_and_writes(loop, pair):
    connection, record, peer = pair
    connection.start()
    peer.send(b"hello")
    loop.run_until(lambda: record.data == b"hello")
    connection.write(b"wo")
    connection.write(b"rld")
    loop.passes()
    assert peer.recv(100) == b"world"
    assert (connection.bytes_received, connection.bytes_sent) == (5, 5)
    assert record.events == []


def test_everything_written_in_a_pass_leaves_in_one_send(loop, pair):
    connection, _, peer = pair
    sends = []
    real = connection._send
    connection._send = lambda data: (sends.append(len(data)), real(data))[1]
    connection.start()
    for _ in range(10):
        connection.write(b"x")
    loop.passes()
    assert sends == [10]
    assert peer.recv(100) == b"x" * 10


def test_a_body_of_64_kib_is_read_with_its_head_and_leaves_with_it_uncopied(loop, opened):
    connection, _, peer = socket_pair(loop, "unix")
    opened += [connection, peer]
    read, joined = [], []
    connection.on_data = read.append
    connection._send = joined.append
    message = b"h" * 300 + os.urandom(65536)
    peer.sendall(message)
    connection.start()
    loop.passes(1)
    assert read == [message]
    connection.write(message[:300])
    connection.write(message[300:])
    loop.passes(1)
    assert peer.recv(1 << 20) == message
    assert joined == []
    assert connection.out_bytes == 0


def test_the_peers_close_closes_us_once_with_its_reason(loop, pair):
    connection, record, peer = pair
    connection.start()
    peer.send(b"last")
    peer.close()
    loop.run_until(lambda: connection.closed)
    loop.passes()
    assert bytes(record.data) == b"last"
    assert record.events == [REMOTE_CLOSE]


def test_the_callbacks_are_given_up_on_close(loop, pair):
    connection, record, _ = pair
    connection.start()
    connection.abort()
    connection.abort()
    assert record.events == [LOCAL_CLOSE]
    assert connection.on_close.__name__ == "_ignore_close"


def test_a_reset_is_told_as_such(loop, opened):
    connection, record, peer = socket_pair(loop)
    opened.append(connection)
    connection.start()
    reset(peer)
    loop.run_until(lambda: connection.closed)
    assert record.events == [REMOTE_RESET]
    assert isinstance(connection.error, ConnectionResetError)


def test_our_reset_reaches_the_peer_as_a_reset(loop, opened):
    connection, record, peer = socket_pair(loop)
    opened += [connection, peer]
    connection.start()
    connection.reset()
    loop.passes()
    with pytest.raises(ConnectionResetError):
        peer.recv(1)
    assert record.events == [LOCAL_CLOSE]


def test_half_close_by_the_peer_first(loop, pair):
    connection, record, peer = pair
    connection.half_close = True
    connection.start()
    peer.send(b"request")
    peer.shutdown(socket.SHUT_WR)
    loop.run_until(lambda: "end" in record.events)
    assert bytes(record.data) == b"request"
    assert busy_passes(loop, connection) == 0
    connection.write(b"answer")
    connection.end_write()
    loop.run_until(lambda: connection.closed)
    assert received_all(peer) == b"answer"
    assert record.events == ["end", REMOTE_CLOSE]


def test_half_close_by_us_first(loop, pair):
    connection, record, peer = pair
    connection.half_close = True
    connection.start()
    connection.write(b"request")
    connection.end_write()
    connection.write(b"ignored after the end")
    loop.passes()
    assert received_all(peer) == b"request"
    assert busy_passes(loop, connection) == 0
    peer.send(b"answer")
    peer.close()
    loop.run_until(lambda: connection.closed)
    assert bytes(record.data) == b"answer"
    assert record.events == [REMOTE_CLOSE]


def test_an_end_of_data_before_a_large_write_is_through_waits_for_it(loop, pair):
    connection, record, peer = pair
    connection.half_close = True
    connection.start()
    connection.write(BIG)
    connection.end_write()
    peer.shutdown(socket.SHUT_WR)
    loop.run_until(lambda: "end" in record.events)
    peer.setblocking(False)
    got = bytearray()
    loop.run_until(lambda: read_some(peer, got) and connection.closed)
    peer.setblocking(True)
    got += received_all(peer)
    assert got == BIG


def read_some(peer, got):
    """What is there now, without waiting; True, to stand before an ``and``."""
    with contextlib.suppress(BlockingIOError):
        while part := peer.recv(1 << 20):
            got += part
    return True


def test_partial_writes_arrive_whole_and_in_order(loop, pair):
    connection, _record, peer = pair
    connection.start()
    pieces = [BIG[i : i + 50_000] for i in range(0, len(BIG), 50_000)]
    for piece in pieces:
        connection.write(piece)
    loop.passes()
    assert 0 < connection.out_bytes < len(BIG), "the kernel took a part"
    connection.write(b"tail")
    peer.setblocking(False)
    got = bytearray()
    loop.run_until(lambda: read_some(peer, got) and len(got) == len(BIG) + 4)
    assert got == BIG + b"tail"
    assert connection.bytes_sent == len(got)
    assert connection.out == []
    assert busy_passes(loop, connection) == 0, "writability is not asked for any more"


def test_watermarks_are_told_once_each_way(loop, pair):
    connection, record, peer = pair
    connection.high_watermark = 100_000
    connection.start()
    for _ in range(400):
        connection.write(b"x" * 10_000)
    assert record.events == ["above"]
    peer.setblocking(False)
    got = bytearray()
    loop.run_until(lambda: read_some(peer, got) and len(got) == 4_000_000)
    assert record.events == ["above", "below"]


def test_what_the_low_watermarks_callback_writes_before_it_closes_is_sent(loop, pair):
    connection, _record, peer = pair
    connection.high_watermark = 10
    connection.on_below_low_watermark = lambda: (connection.write(b"more"), connection.close())
    connection.start()
    connection.write(b"x" * 100)
    loop.run_until(lambda: connection.closed)
    assert received_all(peer) == b"x" * 100 + b"more"


def test_pause_is_counted_and_resume_reads_what_waited(loop, pair):
    connection, record, peer = pair
    connection.start()
    connection.pause_reading()
    connection.pause_reading()
    peer.send(b"waits")
    loop.passes()
    connection.resume_reading()
    loop.passes()
    assert bytes(record.data) == b""
    connection.resume_reading()
    loop.run_until(lambda: record.data == b"waits")


def test_readiness_from_before_a_pause_in_the_same_pass_leaves_the_connection_whole(loop, opened):
    # Both sockets are ready in one pass; whoever comes first pauses the other, which also waits for writability.
    pairs = [socket_pair(loop) for _ in range(2)]
    for connection, _, peer in pairs:
        opened += [connection, peer]
        connection.start()
        connection.write(BIG)
    loop.passes()
    for index, (connection, _record, peer) in enumerate(pairs):
        other = pairs[1 - index][0]
        connection.on_data = lambda data, other=other: other.pause_reading()
        peer.send(b"x")
        assert connection.out_bytes
    loop.passes()
    for connection, _, peer in pairs:
        peer.setblocking(False)
        got = bytearray()
        loop.run_until(lambda peer=peer, got=got: read_some(peer, got) and len(got) == len(BIG))
        assert not connection.out_bytes


def test_a_pause_from_before_the_start_holds_and_does_not_spin(loop, pair):
    connection, record, peer = pair
    connection.pause_reading()
    connection.start()
    peer.send(b"x")
    assert busy_passes(loop, connection) == 0
    assert bytes(record.data) == b""
    connection.resume_reading()
    loop.run_until(lambda: record.data == b"x")


def test_an_end_of_data_while_paused_is_seen_after_resume(loop, pair):
    connection, record, peer = pair
    connection.start()
    connection.pause_reading()
    peer.send(b"before the end")
    peer.shutdown(socket.SHUT_WR)
    assert busy_passes(loop, connection) == 0
    assert record.events == []
    connection.resume_reading()
    loop.run_until(lambda: connection.closed)
    assert bytes(record.data) == b"before the end"


def test_a_hang_up_while_paused_does_not_spin_and_loses_no_data(loop, pair):
    connection, record, peer = pair
    connection.start()
    connection.pause_reading()
    peer.send(b"before the hang-up")
    loop.passes()
    peer.close()
    assert busy_passes(loop, connection) <= 1
    assert not connection.closed
    connection.resume_reading()
    loop.run_until(lambda: connection.closed)
    assert bytes(record.data) == b"before the hang-up"


def test_a_reset_while_paused_is_seen_at_once(loop, opened):
    connection, record, peer = socket_pair(loop)
    opened.append(connection)
    connection.start()
    connection.pause_reading()
    reset(peer)
    loop.run_until(lambda: connection.closed)
    assert record.events == [REMOTE_RESET]


def test_a_reset_while_paused_loses_no_data_does_not_spin_and_is_found_by_a_write(loop, opened):
    connection, record, peer = socket_pair(loop)
    opened.append(connection)
    connection.start()
    connection.pause_reading()
    peer.send(b"before the reset")
    loop.passes()
    reset(peer)
    assert busy_passes(loop, connection) <= 1
    assert not connection.closed
    connection.write(b"x")
    loop.run_until(lambda: connection.closed)
    assert record.events == [REMOTE_RESET]


def test_a_reset_after_the_peers_end_of_data_closes(loop, opened):
    connection, record, peer = socket_pair(loop)
    opened.append(connection)
    connection.half_close = True
    connection.start()
    peer.shutdown(socket.SHUT_WR)
    loop.run_until(lambda: record.events == ["end"])
    reset(peer)
    loop.run_until(lambda: connection.closed)
    assert record.events == ["end", REMOTE_RESET]


def test_close_sends_what_was_written(loop, pair):
    connection, record, peer = pair
    connection.high_watermark = 1 << 62
    connection.start()
    connection.write(BIG)
    connection.close()
    connection.write(b"too late")
    assert record.events == []
    peer.setblocking(False)
    got = bytearray()
    loop.run_until(lambda: read_some(peer, got) and connection.closed)
    peer.setblocking(True)
    got += received_all(peer)
    assert got == BIG
    assert record.events == [LOCAL_CLOSE]


def test_close_of_an_idle_connection_happens_in_the_same_pass(loop, pair):
    connection, record, peer = pair
    connection.start()
    connection.close()
    loop.run_once(0)
    assert record.events == [LOCAL_CLOSE]
    assert peer.recv(1) == b""


def test_a_close_that_sends_everything_tells_the_poller_nothing(loop, pair):
    connection, record, peer = pair
    connection.start()
    told = []
    loop.poller.modify = lambda fd, mask: told.append(mask)
    connection.write(b"all")
    connection.close()
    loop.run_once(0)
    assert (peer.recv(10), record.events, told) == (b"all", [LOCAL_CLOSE], [])


@pytest.mark.parametrize("is_full_already", [False, True])
def test_a_closing_connection_that_cannot_send_does_not_spin_on_what_comes(loop, pair, is_full_already):
    connection, _record, peer = pair
    connection.high_watermark = 1 << 62
    connection.start()
    connection.write(BIG)
    if is_full_already:
        loop.passes()
    connection.close()
    loop.passes()
    peer.send(b"for nobody")
    events = []
    loop.handlers[connection.fd] = events.append
    loop.passes()
    assert events == []


def test_a_peer_that_goes_away_during_close_ends_it(loop, opened):
    connection, record, peer = socket_pair(loop)
    opened.append(connection)
    connection.high_watermark = 1 << 62
    connection.start()
    connection.write(BIG)
    connection.close()
    loop.passes()
    reset(peer)
    loop.run_until(lambda: connection.closed)
    assert record.events == [LOCAL_CLOSE]


def test_lingering_close_lets_a_sending_peer_read_our_answer(loop, opened):
    connection, record, peer = socket_pair(loop)
    opened += [connection, peer]
    connection.start()
    peer.send(b"a body that nobody wants")
    connection.write(b"refused")
    connection.close_lingering(60)
    loop.passes()
    assert peer.recv(100) == b"refused"
    assert peer.recv(100) == b""
    peer.send(b"still sending")
    loop.passes()
    assert not connection.closed
    peer.close()
    loop.run_until(lambda: connection.closed)
    assert record.events == [REMOTE_CLOSE]
    assert connection.error is None
    assert bytes(record.data) == b""


def test_lingering_close_ends_at_its_timeout(loop, pair):
    connection, record, _ = pair
    connection.start()
    connection.close_lingering(0.01)
    loop.run_until(lambda: connection.closed)
    assert record.events == [LOCAL_CLOSE]
    assert connection.error is CLOSE_TIMEOUT


def test_lingering_close_after_end_write_still_tells_the_peer(loop, pair):
    connection, _, peer = pair
    connection.half_close = True
    connection.start()
    connection.write(b"x")
    connection.end_write()
    connection.close_lingering(60)
    loop.passes()
    assert received_all(peer) == b"x"


def test_lingering_close_sends_everything_to_a_peer_that_has_ended(loop, pair):
    connection, _, peer = pair
    connection.half_close = True
    connection.start()
    peer.shutdown(socket.SHUT_WR)
    connection.write(BIG)
    connection.close_lingering(60)
    peer.setblocking(False)
    got = bytearray()
    loop.run_until(lambda: read_some(peer, got) and connection.closed)
    peer.setblocking(True)
    got += received_all(peer)
    assert got == BIG


def test_connecting(loop, opened):
    listening = socket.create_server(("127.0.0.1", 0))
    opened.append(listening)
    connection = Connection(loop, connecting_socket(listening.getsockname()), listening.getsockname())
    record = Record(connection)
    opened.append(connection)
    connection.write(b"written early")
    connection.start_connecting()
    peer, _ = listening.accept()
    opened.append(peer)
    loop.run_until(lambda: record.events == ["connected"])
    loop.passes()
    assert peer.recv(100) == b"written early"
    peer.send(b"hi")
    loop.run_until(lambda: record.data == b"hi")
    assert connection.local_socket_address() == peer.getpeername()
    assert "open" in repr(connection)


def refused_address():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()


def test_a_refused_connect(loop):
    connection = Connection(loop, connecting_socket(refused_address()), ("127.0.0.1", 1))
    record = Record(connection)
    connection.start_connecting()
    loop.run_until(lambda: connection.closed)
    assert record.events == [CONNECT_FAILURE]
    assert connection.error.errno == 111


def test_end_write_and_pause_before_connected_take_effect_after(loop, opened):
    listening = socket.create_server(("127.0.0.1", 0))
    opened.append(listening)
    connection = Connection(loop, connecting_socket(listening.getsockname()), listening.getsockname())
    connection.half_close = True
    record = Record(connection)
    opened.append(connection)
    connection.start_connecting()
    connection.end_write()
    connection.pause_reading()
    peer, _ = listening.accept()
    opened.append(peer)
    loop.run_until(lambda: record.events == ["connected"])
    loop.passes()
    assert peer.recv(1) == b""
    peer.send(b"x")
    loop.passes()
    assert bytes(record.data) == b""
    connection.resume_reading()
    loop.run_until(lambda: record.data == b"x")


def test_close_while_connecting_with_nothing_to_send_is_immediate(loop):
    connection = Connection(loop, connecting_socket(("127.0.0.1", 9)), ("127.0.0.1", 9))
    record = Record(connection)
    connection.start_connecting()
    connection.close()
    connection.flush()
    assert record.events == [LOCAL_CLOSE]


def test_close_while_connecting_sends_what_was_written(loop, opened):
    listening = socket.create_server(("127.0.0.1", 0))
    opened.append(listening)
    connection = Connection(loop, connecting_socket(listening.getsockname()), listening.getsockname())
    connection.start_connecting()
    connection.write(b"bye")
    connection.close()
    peer, _ = listening.accept()
    opened.append(peer)
    loop.run_until(lambda: connection.closed)
    assert received_all(peer) == b"bye"


def test_no_descriptor_is_left(loop, family):
    before = len(os.listdir("/proc/self/fd"))
    connection, _, peer = socket_pair(loop, family)
    connection.start()
    peer.close()
    loop.run_until(lambda: connection.closed)
    loop.passes(1)
    assert len(os.listdir("/proc/self/fd")) == before
