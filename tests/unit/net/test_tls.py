"""TLS connections over loopback, both ends ours on one loop, and against the stdlib's own SSLSocket on a thread."""

import os
import socket
import ssl
import threading

import pytest

from forkproxy.net.connection import LOCAL_CLOSE, REMOTE_CLOSE, TLS_FAILURE
from forkproxy.net.filter import WRITE, NetworkFilter, NetworkFilterChain, WriteFilteredTlsConnection
from forkproxy.net.sockets import connecting_socket
from forkproxy.net.tls import TlsConnection
from tests.support.client_hello import client_hello
from tests.support.live_loop import PATIENCE_S, Record, socket_pair
from tests.support.x509_authority import authority, leaf

BIG = os.urandom(1 << 20) * 8


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    certificate = leaf("localhost", "127.0.0.1")
    (folder / "cert.pem").write_bytes(certificate.pem + certificate.key_pem)
    (folder / "ca.pem").write_bytes(authority().pem)
    return folder


@pytest.fixture(params=["1.2", "1.3"])
def contexts(request, files):
    return make_contexts(files, getattr(ssl.TLSVersion, "TLSv" + request.param.replace(".", "_")))


def make_contexts(files, version=ssl.TLSVersion.TLSv1_3):
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files / "cert.pem")
    client = ssl.create_default_context(cafile=str(files / "ca.pem"))
    server.minimum_version = server.maximum_version = version
    return server, client


class Ends:
    """A downstream and an upstream TlsConnection that talk to each other."""

    def __init__(self, loop, contexts, verify=None, **arguments):
        self.loop = loop
        listening = socket.create_server(("127.0.0.1", 0))
        sock = connecting_socket(listening.getsockname())
        accepted, remote = listening.accept()
        listening.close()
        accepted.setblocking(False)
        self.down = TlsConnection(loop, accepted, remote, contexts[0], server_side=True, **arguments)
        self.up = TlsConnection(
            loop,
            sock,
            ("127.0.0.1", 1),
            contexts[1],
            server_side=False,
            sni="localhost",
            verify_peer=verify,
            **arguments,
        )
        self.down_record, self.up_record = Record(self.down), Record(self.up)
        self.handshakes = []
        self.down.on_handshake = lambda reason: self.handshakes.append(("down", reason))
        self.up.on_handshake = lambda reason: self.handshakes.append(("up", reason))
        self.down.half_close = self.up.half_close = True

    def start(self):
        self.down.start()
        self.up.start_connecting()
        return self

    def shake(self):
        self.start()
        self.loop.run_until(lambda: len(self.handshakes) == 2)
        return self

    def close(self):
        self.down.abort()
        self.up.abort()


@pytest.fixture
def make(loop):
    made = []

    def make_ends(contexts, **arguments):
        made.append(Ends(loop, contexts, **arguments))
        return made[-1]

    yield make_ends
    for each in made:
        each.close()


def test_a_handshake_then_data_both_ways(loop, contexts, make):
    ends = make(contexts).shake()
    assert sorted(ends.handshakes) == [("down", ""), ("up", "")]
    ends.up.write(b"ping")
    ends.down.write(b"pong")
    loop.run_until(lambda: ends.down_record.data == b"ping" and ends.up_record.data == b"pong")
    assert (ends.up.bytes_sent, ends.up.bytes_received) == (4, 4), "plain text is counted"
    assert (ends.down.bytes_sent, ends.down.bytes_received) == (4, 4)
    assert ends.up.out_bytes == ends.down.out_bytes == 0
    assert ends.up_record.events == ends.down_record.events == ["connected"]
    assert ends.up.tls.version() == contexts[0].maximum_version.name.replace("_", ".")


def test_what_is_written_before_the_handshake_goes_after_it(loop, contexts, make):
    ends = make(contexts)
    ends.up.write(b"early ")
    ends.down.write(b"also early")
    ends.start()
    ends.up.write(b"bird")
    loop.run_until(lambda: ends.down_record.data == b"early bird" and ends.up_record.data == b"also early")
    loop.passes()
    assert ends.up.out_bytes == ends.down.out_bytes == 0


def test_close_before_the_handshake_sends_what_was_written_after_it(loop, contexts, make):
    ends = make(contexts)
    ends.up.write(b"bye")
    ends.up.close()
    ends.start()
    loop.run_until(lambda: ends.up.closed and "end" in ends.down_record.events)
    assert bytes(ends.down_record.data) == b"bye"
    assert ends.up_record.events[-1] == LOCAL_CLOSE


def test_large_transfers_both_ways_with_watermarks(loop, contexts, make):
    ends = make(contexts, buffer_limit_bytes=256 * 1024).shake()
    sent = {"up": 0, "down": 0}

    def pump(name, connection):
        # Writes while below the watermark, as a relay does that pauses its other side.
        blocked = []

        def go():
            while not blocked and sent[name] < len(BIG):
                piece = BIG[sent[name] : sent[name] + 50_000]
                sent[name] += len(piece)
                connection.write(piece)

        def below():
            blocked.clear()
            go()

        connection.on_above_high_watermark = lambda: blocked.append(1)
        connection.on_below_low_watermark = below
        go()
        assert blocked

    pump("up", ends.up)
    pump("down", ends.down)
    loop.run_until(lambda: len(ends.down_record.data) == len(ends.up_record.data) == len(BIG))
    assert ends.down_record.data == ends.up_record.data == BIG
    assert ends.up.bytes_sent == ends.down.bytes_received == len(BIG)


def test_a_reader_that_pauses_holds_the_writer_back(loop, contexts, make):
    ends = make(contexts).shake()
    ends.down.pause_reading()
    ends.up.write(BIG)
    loop.passes(30)
    assert ends.up.out_bytes > 0
    assert bytes(ends.down_record.data) == b""
    ends.down.resume_reading()
    loop.run_until(lambda: len(ends.down_record.data) == len(BIG))
    assert ends.down_record.data == BIG


@pytest.mark.parametrize("first", ["up", "down"])
def test_half_close_while_the_other_side_is_still_sending(loop, contexts, make, first):
    # The case that ssl.SSLSocket.unwrap breaks: application data in flight when our close_notify leaves.
    ends = make(contexts).shake()
    other = "down" if first == "up" else "up"
    ender, sender = getattr(ends, first), getattr(ends, other)
    sender.write(BIG)
    loop.passes(2)
    ender.write(b"the last words")
    ender.end_write()
    other_record, first_record = getattr(ends, other + "_record"), getattr(ends, first + "_record")
    loop.run_until(lambda: "end" in other_record.events)
    assert bytes(other_record.data) == b"the last words"
    sender.write(b"tail")
    sender.end_write()
    loop.run_until(lambda: sender.closed and ender.closed)
    assert first_record.data == BIG + b"tail"
    assert first_record.events == ["connected", REMOTE_CLOSE]
    assert sender.error is None
    assert ender.error is None


def test_end_write_before_the_handshake(loop, contexts, make):
    ends = make(contexts)
    ends.up.end_write()
    ends.start()
    loop.run_until(lambda: "end" in ends.down_record.events)
    ends.down.write(b"answer")
    ends.down.end_write()
    loop.run_until(lambda: ends.up.closed)
    assert bytes(ends.up_record.data) == b"answer"


def test_a_pause_does_not_hold_the_handshake_and_keeps_what_came_with_it(loop, contexts, make):
    ends = make(contexts)
    ends.down.pause_reading()
    ends.up.write(b"with the end of the handshake")
    ends.shake()
    loop.passes()
    assert bytes(ends.down_record.data) == b""
    ends.down.resume_reading()
    loop.run_until(lambda: ends.down_record.data == b"with the end of the handshake")


def test_lingering_close_tells_the_end_and_waits(loop, contexts, make):
    ends = make(contexts).shake()
    ends.down.write(b"refused")
    ends.down.close_lingering(60)
    loop.run_until(lambda: "end" in ends.up_record.events)
    assert bytes(ends.up_record.data) == b"refused"
    ends.up.write(b"still sending")
    loop.passes()
    assert not ends.down.closed
    ends.up.abort()
    loop.run_until(lambda: ends.down.closed)
    assert ends.down_record.events == ["connected", REMOTE_CLOSE]


def test_an_untrusted_certificate_fails_both_ends(loop, files, make):
    server, _ = make_contexts(files)
    ends = make((server, ssl.create_default_context()))
    ends.start()
    loop.run_until(lambda: ends.up.closed and ends.down.closed)
    assert ends.up_record.events == [TLS_FAILURE]
    assert "CERTIFICATE_VERIFY_FAILED" in ends.up.transport_failure_reason
    assert "unable to get local issuer" in ends.up.transport_failure_reason
    assert dict(ends.handshakes)["up"]


def test_verify_peer_has_the_last_word(loop, contexts, make):
    seen = []
    ends = make(contexts, verify=lambda tls: seen.append(tls.getpeercert()["subjectAltName"]) or "not this one")
    ends.up.write(b"secret")
    ends.start()
    loop.run_until(lambda: ends.up.closed)
    loop.run_until(lambda: ends.down.closed or ends.down.end_received)
    assert seen == [(("DNS", "localhost"), ("IP Address", "127.0.0.1"))]
    assert ends.up_record.events == [TLS_FAILURE]
    assert ends.up.transport_failure_reason == (
        "TLS_error:|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify cert failed: not this one"
        ":TLS_error_end"
    )
    assert bytes(ends.down_record.data) == b""


def test_no_common_version(loop, files, make):
    server, _ = make_contexts(files, ssl.TLSVersion.TLSv1_3)
    _, client = make_contexts(files)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    ends = make((server, client))
    ends.start()
    loop.run_until(lambda: ends.up.closed and ends.down.closed)
    assert "UNSUPPORTED_PROTOCOL" in ends.down.transport_failure_reason
    assert "PROTOCOL_VERSION" in ends.up.transport_failure_reason, "the alert reached the peer"


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\xff\xff" + b"x" * 70_000,
        b"\x16\x03\x01\xff\xff\x01",  # longer than a record may be: nothing to wait for
        b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
        b"\x15\x03\x01\x00\x02\x02\x28",  # an alert
        b"\x16\x99\x99\x3f\xff",  # a version that there is not: nothing to wait for, either
        b"\0" * 5,
        b"\xff" * 9,
    ],
)
@pytest.mark.parametrize("chosen", [False, True], ids=["", "chosen"])
def test_garbage_instead_of_a_client_hello(loop, files, garbage, chosen):
    server, _ = make_contexts(files)
    down, record, peer = socket_pair(loop, make=TlsConnection, context=server, server_side=True)
    if chosen:
        down.choose_context = lambda hello: server
    down.start()
    peer.send(garbage)
    loop.run_until(lambda: down.closed)
    assert record.events == [TLS_FAILURE]
    assert down.transport_failure_reason.startswith("TLS_error:|")
    peer.close()


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01" + bytes(100)])
def test_a_peer_that_leaves_during_the_handshake(loop, files, sent):
    server, _ = make_contexts(files)
    down, record, peer = socket_pair(loop, make=TlsConnection, context=server, server_side=True)
    down.start()
    peer.send(sent)
    peer.close()
    loop.run_until(lambda: down.closed)
    assert record.events == [TLS_FAILURE]
    loop.passes()


def test_the_context_is_chosen_by_the_whole_hello(loop, files):
    server, _ = make_contexts(files)
    asked = []

    def choose(hello):
        asked.append(hello)
        return server

    hello = client_hello("AES256", "AES128")
    down, _, peer = socket_pair(loop, make=TlsConnection, context=None, server_side=True)
    down.choose_context = choose
    down.start()
    for at in range(len(hello) - 1):
        peer.send(hello[at : at + 1])
        loop.run_until(lambda: down._hello)
        loop.passes()
    assert (asked, down.tls) == ([], None)
    peer.send(hello[-1:])
    loop.run_until(lambda: asked)
    assert asked == [hello]
    assert peer.recv(1) == b"\x16"
    down.abort()
    peer.close()


def plain_peer(peer, context, talk, result):
    def run():
        try:
            with context.wrap_socket(peer, server_hostname="localhost", suppress_ragged_eofs=False) as tls:
                result.append(talk(tls))
        except OSError as error:
            result.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def read_all(tls):
    parts = []
    while part := tls.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def against_stdlib(loop, files, talk, act, version=ssl.TLSVersion.TLSv1_3):
    server, client = make_contexts(files, version)
    down, record, peer = socket_pair(loop, make=TlsConnection, context=server, server_side=True)
    result = []
    thread = plain_peer(peer, client, talk, result)
    down.start()
    act(down, record)
    loop.run_until(lambda: result)
    thread.join(PATIENCE_S)
    down.abort()
    return result[0]


def test_a_close_is_a_close_notify_to_a_strict_peer(loop, files):
    def act(down, record):
        down.write(b"all of it")
        down.close()

    assert against_stdlib(loop, files, read_all, act) == b"all of it"


def records_in(data):
    count = 0
    while data:
        data = data[5 + int.from_bytes(data[3:5]) :]
        count += 1
    return count


def test_tickets_leave_with_the_first_answer_and_close_notify_with_the_last(loop, files):
    sends = []

    def act(down, record):
        def send(data):
            sends.append(bytes(data))
            return down.sock.send(data)

        down._send = send
        loop.run_until(lambda: "connected" in record.events)
        loop.passes()
        assert len(sends) == 1, "the server's part of the handshake; nobody waits for tickets"
        down.write(b"all of it")
        down.close()
        loop.run_until(lambda: down.closed)
        assert (down.bytes_sent, down.out_bytes) == (9, 0)

    assert against_stdlib(loop, files, read_all, act) == b"all of it", "and a strict peer has seen the end"
    assert [records_in(each) for each in sends[1:]] == [2 + 1 + 1], "two tickets, the data, close_notify"


class Reluctant:
    """A socket's ``send`` that takes ``size`` bytes at most, every other time none."""

    def __init__(self, connection, size):
        self._sock = connection.sock
        self._size = size
        self._is_full = False
        connection._send = self

    def __call__(self, data):
        self._is_full = not self._is_full
        if self._is_full:
            raise BlockingIOError
        return self._sock.send(data[: self._size])


@pytest.mark.parametrize("size", [50, 400])
def test_a_kernel_that_takes_little_of_the_handshake_and_of_the_end(loop, contexts, make, size):
    ends = make(contexts).start()
    Reluctant(ends.down, size)
    Reluctant(ends.up, size)
    ends.up.write(b"ping")
    loop.run_until(lambda: len(ends.handshakes) == 2 and ends.down_record.data == b"ping")
    assert sorted(ends.handshakes) == [("down", ""), ("up", "")]
    ends.down.write(b"x" * 1000)
    ends.down.close()
    loop.run_until(lambda: ends.down.closed and "end" in ends.up_record.events)
    assert bytes(ends.up_record.data) == b"x" * 1000
    assert (ends.down.bytes_sent, ends.down.out_bytes, ends.down.error) == (1000, 0, None)
    loop.run_until(lambda: not ends.up.out_bytes)
    assert ends.up.bytes_sent == 4


def test_a_handshake_that_cannot_be_sent_fails(loop, contexts, make):
    def refuse(_data):
        raise BrokenPipeError(32, "Broken pipe")

    ends = make(contexts)
    ends.down._send = refuse
    ends.start()
    loop.run_until(lambda: ends.down.closed)
    assert ("down", "Broken pipe") in ends.handshakes
    assert ends.down_record.events == [TLS_FAILURE]


def test_close_notify_is_lost_with_the_data_before_it(loop, files):
    def act(down, record):
        loop.run_until(lambda: "connected" in record.events)
        down.write(BIG)
        down.close()
        loop.passes(1)
        assert down.out_bytes
        down.abort()

    assert isinstance(against_stdlib(loop, files, read_all, act), OSError)


def test_tickets_leave_with_the_end_when_there_is_no_answer(loop, files):
    sessions = []

    def talk(tls):
        data = read_all(tls)
        sessions.append(tls.session.has_ticket)
        return data

    def act(down, record):
        loop.run_until(lambda: "connected" in record.events)
        down.end_write()

    assert against_stdlib(loop, files, talk, act) == b""
    assert sessions == [True]


def test_a_reset_is_no_clean_end(loop, files):
    def act(down, record):
        loop.run_until(lambda: "connected" in record.events)
        down.write(b"half of")
        loop.passes()
        down.reset()

    assert isinstance(against_stdlib(loop, files, read_all, act), OSError)


def test_an_abort_with_data_unsent_is_no_clean_end(loop, files):
    def act(down, record):
        loop.run_until(lambda: "connected" in record.events)
        down.write(BIG)
        loop.passes(1)
        assert down.out_bytes
        down.abort()

    assert isinstance(against_stdlib(loop, files, read_all, act), OSError)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_peer_that_closes_without_close_notify_ends_its_data(loop, files, version):
    # A session ticket that the peer leaves unread would turn its close into a reset.
    ended = threading.Event()

    def talk(tls):
        tls.sendall(b"x")
        tls.shutdown(socket.SHUT_WR)
        ended.set()
        return b""

    def act(down, record):
        loop.run_until(lambda: down.closed)
        assert bytes(record.data) == b"x"
        assert record.events == ["connected", REMOTE_CLOSE]

    against_stdlib(loop, files, talk, act, version)
    assert ended.is_set()


def test_a_corrupt_record_ends_the_connection_with_its_reason(loop, files):
    def talk(tls):
        fd = os.dup(tls.fileno())
        os.write(fd, b"\x17\x03\x03\x00\x20" + b"z" * 32)
        os.close(fd)
        return read_all(tls)

    def act(down, record):
        loop.run_until(lambda: down.closed)
        words = ("BAD_RECORD_MAC", "DECRYPTION", "RECORD_LAYER_FAILURE")  # OpenSSL's, which has changed its mind twice
        assert any(word in down.transport_failure_reason for word in words)
        assert record.events[-1] == "remote_reset"

    against_stdlib(loop, files, talk, act)


def test_the_server_name_reaches_the_connection(loop, files, make):
    server, client = make_contexts(files)
    server.sni_callback = lambda tls, name, context: setattr(tls, "forkproxy_server_name", name)
    ends = make((server, client)).shake()
    assert ends.down.requested_server_name == "localhost"


def test_a_session_resumes(loop, files):
    server, client = make_contexts(files, ssl.TLSVersion.TLSv1_2)
    sessions = []
    for _ in range(2):

        def talk(tls):
            sessions.append((tls.session_reused, tls.session))
            return b""

        down, _, peer = socket_pair(loop, make=TlsConnection, context=server, server_side=True)
        result = []

        def run(peer=peer, talk=talk, result=result):
            session = sessions[0][1] if sessions else None
            with client.wrap_socket(peer, server_hostname="localhost", session=session) as tls:
                result.append(talk(tls))

        thread = threading.Thread(target=run)
        thread.start()
        down.start()
        loop.run_until(lambda result=result: result)
        thread.join()
        down.abort()
    assert [reused for reused, _ in sessions] == [False, True]


def test_write_filters_see_plain_text_under_tls(loop, files):
    class Upper(NetworkFilter):
        direction = WRITE

        def on_write(self, connection, data, end_stream):
            return data.upper() + (b"END" if end_stream else b"")

    server, client = make_contexts(files)
    down, _, peer = socket_pair(loop, make=WriteFilteredTlsConnection, context=server, server_side=True)
    down.half_close = True
    NetworkFilterChain([Upper()]).attach(down)
    result = []
    thread = plain_peer(peer, client, read_all, result)
    down.start()
    down.write(b"hello")
    down.end_write()
    loop.run_until(lambda: result)
    thread.join(PATIENCE_S)
    down.abort()
    assert result == [b"HELLOEND"]
