"""Large HTTP bodies through the running program, where they are spliced: nothing lost, nothing added, nothing kept."""

import contextlib
import hashlib
import http.client
import os
import socket
import struct
import threading

import pytest

from forkproxy.net.splice import MAX_IDLE_PIPES
from tests.support import bootstrap as b
from tests.support.bulk import eventually, head_of, pipes
from tests.support.forkproxy import Forkproxy
from tests.support.proxy import free_ports

PATIENCE_S = 20
BULK = os.urandom(1 << 20) * 8
DIGEST = hashlib.sha256(BULK).digest()
LIMIT = 256 * 1024


@pytest.fixture(scope="module")
def running():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE_S)
        ports = dict(zip(("main", "admin"), free_ports(2), strict=True), up=listening.getsockname()[1])
        log = b.file_log(text="%REQ(X-NAME)% %BYTES_RECEIVED% %BYTES_SENT% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n")
        retry = {"retry_on": "5xx", "per_try_timeout": "15s", "per_try_idle_timeout": "10s"}
        routes = [b.route("/retry", "up", action={"retry_policy": retry}), b.route("/", "up")]
        data = b.bootstrap([b.hcm({"virtual_hosts": [b.vhost(*routes)]}, access_log=log)], [b.cluster("up", "up")])
        data["static_resources"]["listeners"][0]["per_connection_buffer_limit_bytes"] = LIMIT
        proxy = Forkproxy(b.render(data, ports), admin_port=ports["admin"])
        proxy.start()
        proxy.listening, proxy.port = listening, ports["main"]
        proxy.pipes_at_start = pipes(proxy)
        yield proxy
        proxy.close()


@pytest.fixture
def nothing_leaks(running):
    """The program is shared by the module: ``client`` looks at what it holds."""
    return


@pytest.fixture
def client(running):
    with socket.create_connection(("127.0.0.1", running.port)) as client:
        client.settimeout(PATIENCE_S)
        yield client
    eventually(lambda: running.counters()["http.ingress.downstream_cx_active"] == 0)
    assert pipes(running) <= running.pipes_at_start + 2 * MAX_IDLE_PIPES
    assert "Traceback" not in running.output()


def accept(running):
    server, _ = running.listening.accept()
    server.settimeout(PATIENCE_S)
    return server


def take(sock, size):
    """Digest of the next ``size`` bytes, and how many came before the end."""
    whole, got = hashlib.sha256(), 0
    while got < size and (part := sock.recv(min(1 << 20, size - got))):
        whole.update(part)
        got += len(part)
    return whole.digest(), got


@contextlib.contextmanager
def sending(sock, *data):
    """Meanwhile ``data`` is sent by a thread; a peer that has had enough is no error."""

    def send():
        with contextlib.suppress(OSError):
            for each in data:
                sock.sendall(each)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def ask(client, path=b"/", name=b"-", more=b""):
    client.sendall(b"GET %s HTTP/1.1\r\nhost: h\r\nx-name: %s\r\n%s\r\n" % (path, name, more))


def large(more=b"", size=8 << 20):
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n%s\r\n" % (size, more)


def logged(running, name):
    """The log line of the request of that name, without the name."""
    found = []

    def has_come():
        found[:] = [line for line in running.access_log().splitlines() if line.startswith(name + " ")]
        return bool(found)

    eventually(has_come)
    assert len(found) == 1
    return found[0].partition(" ")[2]


@pytest.mark.parametrize("path", [b"/", b"/retry"])
def test_responses_one_after_the_other_over_the_same_connections(running, client, path):
    with contextlib.ExitStack() as stack:
        server = None
        for turn in range(3):
            ask(client, path, b"turn%d%s" % (turn, path))
            if server is None:
                server = stack.enter_context(accept(running))
            head_of(server)
            with sending(server, large(), BULK):
                assert b"content-length: %d\r\n" % len(BULK) in head_of(client)
                assert take(client, len(BULK)) == (DIGEST, len(BULK))
            assert logged(running, f"turn{turn}{path.decode()}") == f"0 {len(BULK)} - via_upstream"
        assert pipes(running) > running.pipes_at_start  # what has been used waits for the next
        # Small ones go on over the connections as if nothing had been.
        ask(client, path)
        head_of(server)
        server.sendall(large(size=2) + b"ok")
        head_of(client)
        assert client.recv(10) == b"ok"


def test_requests_one_after_the_other_and_one_right_behind(running, client):
    head = b"POST /up HTTP/1.1\r\nhost: h\r\nx-name: %s\r\ncontent-length: %d\r\n\r\n"
    with contextlib.ExitStack() as stack:
        server = None
        for turn in range(2):
            name = b"post%d" % turn
            behind = b"GET /behind HTTP/1.1\r\nhost: h\r\n\r\n"
            with sending(client, head % (name, len(BULK)), BULK, behind):
                if server is None:
                    server = stack.enter_context(accept(running))
                assert b"content-length: %d\r\n" % len(BULK) in head_of(server)
                assert take(server, len(BULK)) == (DIGEST, len(BULK))
            server.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            head_of(client)
            assert head_of(server).startswith(b"GET /behind ")
            server.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            assert head_of(client).startswith(b"HTTP/1.1 204 ")
            assert logged(running, name.decode()) == f"{len(BULK)} 0 - via_upstream"
        assert pipes(running) > running.pipes_at_start


def test_both_bodies_at_once_are_echoed(running, client):
    request = b"PUT /echo HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n" % len(BULK)
    with sending(client, request, BULK), accept(running) as server:
        head_of(server)
        digest, got = take(server, len(BULK))
        with sending(server, large(), BULK):
            head_of(client)
            assert take(client, len(BULK)) == (digest, got) == (DIGEST, len(BULK))


def test_a_response_that_is_cut_reaches_the_client_cut(running, client):
    ask(client, name=b"cut")
    with accept(running) as server:
        head_of(server)
        with sending(server, large(), BULK[:-1]):
            head_of(client)
            _, got = take(client, len(BULK) - 1)
            assert got == len(BULK) - 1
    assert client.recv(10) == b""
    assert logged(running, "cut") == (f"0 {len(BULK) - 1} UPE upstream_reset_after_response_started{{protocol_error}}")


def test_bytes_behind_a_response_end_its_connection_and_reach_nobody(running, client):
    ask(client)
    with accept(running) as server:
        head_of(server)
        with sending(server, large(), BULK, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"):
            head_of(client)
            assert take(client, len(BULK)) == (DIGEST, len(BULK))
        with contextlib.suppress(ConnectionResetError):
            assert server.recv(1) == b""
    ask(client)
    with accept(running) as server:
        head_of(server)
        server.sendall(large(size=0))
        assert b"content-length: 0\r\n" in head_of(client)


@pytest.mark.parametrize("resets", [False, True])
def test_a_client_that_leaves_ends_the_exchange(running, client, resets):
    ask(client, name=b"left%d" % resets)
    with accept(running) as server:
        head_of(server)
        with sending(server, large(), BULK):
            head_of(client)
            take(client, LIMIT)
            if resets:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        with contextlib.suppress(ConnectionResetError):
            assert server.recv(1) == b""
    assert logged(running, f"left{resets:d}").endswith("DC downstream_remote_disconnect")


def test_an_upstream_that_leaves_in_the_middle_of_a_request(running, client):
    request = b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n" % len(BULK)
    with sending(client, request, BULK):
        with accept(running) as server:
            head_of(server)
            take(server, LIMIT)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert head_of(client).startswith(b"HTTP/1.1 503 ")


def test_an_answer_in_the_middle_of_a_request(running, client):
    request = b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n" % len(BULK)
    with sending(client, request, BULK), accept(running) as server:
        head_of(server)
        take(server, LIMIT)
        server.sendall(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        head = head_of(client)
        assert head.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close\r\n" in head
        assert client.recv(10) == b"no"


def test_a_slow_reader_holds_the_sender_back_and_gets_everything(running, client):
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    paused = "cluster.up.upstream_flow_control_paused_reading_total"
    before = running.counters().get(paused, 0)
    ask(client)
    with accept(running) as server:
        head_of(server)
        with sending(server, large(), BULK):
            eventually(lambda: running.counters().get(paused, 0) > before)
            head_of(client)
            assert take(client, len(BULK)) == (DIGEST, len(BULK))


def test_pipelined_responses_keep_their_order(running, client):
    for _ in range(3):
        ask(client)
    with accept(running) as server:
        for _ in range(3):
            head_of(server)
            with sending(server, large(), BULK):
                head_of(client)
                assert take(client, len(BULK)) == (DIGEST, len(BULK))


def test_what_has_no_length_is_not_spliced_and_arrives(running, client):
    ask(client)
    with accept(running) as server:
        head_of(server)
        with sending(
            server, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n" % len(BULK), BULK, b"\r\n0\r\n\r\n"
        ):
            response = http.client.HTTPResponse(client)
            response.begin()
            assert hashlib.sha256(response.read()).digest() == DIGEST
