"""WebSockets and CONNECT through the running program: over a reload and while it stops, and in bulk from socket to socket."""

import base64
import contextlib
import hashlib
import os
import signal
import socket
import struct
import threading

import pytest

from tests.support import bootstrap as b
from tests.support.bulk import head_of, pipes
from tests.support.forkproxy import Forkproxy
from tests.support.proxy import free_ports

PATIENCE_S = 20
BULK = os.urandom(1 << 20) * 8
DIGEST = hashlib.sha256(BULK).digest()
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Slow(Forkproxy):
    """Waits a minute for connections that are still used."""

    def command(self):
        given = super().command()
        given[given.index("--drain-time-s") + 1] = "60"
        return given


@pytest.fixture(scope="module")
def endpoint():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE_S)
        yield listening


def started(endpoint):
    ports = dict(zip(("main", "admin"), free_ports(2), strict=True), up=endpoint.getsockname()[1])
    connect = {"upgrade_type": "CONNECT", "connect_config": {"proxy_protocol_config": {"version": "V1"}}}
    routes = [b.route("", match={"connect_matcher": {}}, action={"upgrade_configs": [connect]}), b.route("/")]
    log = b.file_log(text="%REQ(X-NAME)% %RESPONSE_CODE% %BYTES_RECEIVED% %BYTES_SENT% %RESPONSE_FLAGS%\n")
    manager = b.hcm(
        {"virtual_hosts": [b.vhost(*routes)]}, upgrade_configs=[{"upgrade_type": "websocket"}], access_log=log
    )
    data = b.bootstrap([manager], [b.cluster("up", "up")])
    proxy = Slow(b.render(data, ports), admin_port=ports["admin"])
    proxy.start()
    proxy.port = ports["main"]
    proxy.pipes_at_start = pipes(proxy)
    return proxy


@pytest.fixture(scope="module")
def running(endpoint):
    proxy = started(endpoint)
    yield proxy
    proxy.close()
    assert "Traceback" not in proxy.output()


@pytest.fixture
def nothing_leaks(running):
    """The program is shared by the module."""
    return


def eventually(condition):
    done = threading.Event()
    for _ in range(1000):
        if condition():
            return
        done.wait(0.02)
    raise AssertionError("gave up waiting")


def exactly(sock, size):
    got = b""
    while len(got) < size and (part := sock.recv(min(1 << 20, size - len(got)))):
        got += part
    return got


def frame(payload, opcode=1, mask=b""):
    """One WebSocket frame (RFC 6455 section 5.2)."""
    bit = 0x80 if mask else 0
    size = bytes([bit | len(payload)]) if len(payload) < 126 else bytes([bit | 126]) + struct.pack("!H", len(payload))
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload)) if mask else payload
    return bytes([0x80 | opcode]) + size + mask + masked


def read_frame(sock):
    """(opcode, payload)"""
    first, second = exactly(sock, 2)
    size = second & 0x7F
    if size == 126:
        (size,) = struct.unpack("!H", exactly(sock, 2))
    mask = exactly(sock, 4) if second & 0x80 else b""
    payload = exactly(sock, size)
    return first & 15, bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload)) if mask else payload


class Echo:
    """A WebSocket endpoint: one connection, every message back, until the client says that it closes."""

    def __init__(self, endpoint):
        self.thread = threading.Thread(target=self._serve, args=(endpoint,))
        self.thread.start()

    def _serve(self, endpoint):
        sock, _ = endpoint.accept()
        with sock:
            sock.settimeout(PATIENCE_S)
            head = head_of(sock).lower()
            assert b"\r\nconnection: upgrade\r\n" in head
            key = next(line for line in head.split(b"\r\n") if line.startswith(b"sec-websocket-key: "))
            accept = base64.b64encode(hashlib.sha1(key.partition(b": ")[2] + GUID).digest())
            sock.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + frame(b"welcome")
            )
            opcode = 1
            while opcode != 8:
                opcode, payload = read_frame(sock)
                sock.sendall(frame(payload, opcode))

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()


def websocket(port, name=b"-"):
    """A WebSocket that stands; its key is in lower case, as heads are looked at so above."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
    key = b"dghlihnhbxbszsbub25jzq=="
    sock.sendall(
        b"GET /chat HTTP/1.1\r\nHost: h.example\r\nX-Name: "
        + name
        + b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: " + key + b"\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    head = head_of(sock)
    assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"\r\nsec-websocket-accept: " + base64.b64encode(hashlib.sha1(key + GUID).digest()) + b"\r\n" in head
    assert read_frame(sock) == (1, b"welcome")
    return sock


def says(sock, payload):
    """A message goes there and comes back."""
    sock.sendall(frame(payload, mask=b"\x01\x02\x03\x04"))
    assert read_frame(sock) == (1, payload)


def close(sock):
    sock.sendall(frame(b"\x03\xe8", opcode=8, mask=b"abcd"))
    assert read_frame(sock) == (8, b"\x03\xe8")
    assert sock.recv(1) == b""
    sock.close()


def logged(proxy, name):
    eventually(lambda: f"{name} " in proxy.access_log())
    (line,) = [line for line in proxy.access_log().splitlines() if line.startswith(f"{name} ")]
    return line.partition(" ")[2]


def test_a_websocket_goes_on_over_a_reload(running, endpoint):
    before = set(running.pids())
    with Echo(endpoint):
        sock = websocket(running.port, b"reload")
        says(sock, b"before")
        running.process.send_signal(signal.SIGHUP)
        eventually(lambda: set(running.pids()) - before)
        with Echo(endpoint):
            other = websocket(running.port)
            says(other, b"new")
            says(sock, b"x" * 1000)
            close(other)
        says(sock, b"after")
        close(sock)
    # Two frames with a mask of 6 bytes more, one of 8, and the closing one; the answers have no mask.
    assert logged(running, "reload").startswith(f"101 {6 + 6 + 8 + 1000 + 6 + 5 + 6 + 2} ")


def test_a_websocket_holds_back_the_end_of_the_program(endpoint):
    proxy = started(endpoint)
    try:
        with Echo(endpoint):
            sock = websocket(proxy.port)
            proxy.process.send_signal(signal.SIGTERM)
            eventually(lambda: not_listening(proxy.port))
            says(sock, b"still here")
            assert proxy.process.poll() is None
            close(sock)
        assert proxy.process.wait(PATIENCE_S) == 0
    finally:
        proxy.close()


def not_listening(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return False
    return True


@contextlib.contextmanager
def tunnel(running, endpoint, kind, name):
    """(the client's socket, the endpoint's)"""
    with socket.create_connection(("127.0.0.1", running.port)) as client:
        client.settimeout(PATIENCE_S)
        if kind == "connect":
            client.sendall(b"CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\nx-name: " + name + b"\r\n\r\n")
        else:
            client.sendall(
                b"GET / HTTP/1.1\r\nhost: a\r\nx-name: "
                + name
                + b"\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
            )
        server, _ = endpoint.accept()
        with server:
            server.settimeout(PATIENCE_S)
            if kind == "connect":
                line = b"PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\n" % (client.getsockname()[1], running.port)
                assert exactly(server, len(line)) == line
            else:
                head_of(server)
                server.sendall(b"HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
            head_of(client)
            yield client, server


def pour(source, sink):
    """All of BULK from one to the other."""

    def send():
        source.sendall(BULK)

    thread = threading.Thread(target=send)
    thread.start()
    whole, left = hashlib.sha256(), len(BULK)
    while left and (part := sink.recv(min(1 << 20, left))):
        whole.update(part)
        left -= len(part)
    thread.join(PATIENCE_S)
    assert whole.digest() == DIGEST


@pytest.mark.parametrize("kind", ["connect", "websocket"])
def test_bulk_both_ways(running, endpoint, kind):
    name = f"bulk-{kind}"
    with tunnel(running, endpoint, kind, name.encode()) as (client, server):
        for _ in range(2):
            pour(client, server)
            pour(server, client)
        client.sendall(b"little")
        assert exactly(server, 6) == b"little"
        server.sendall(b"less")
        assert exactly(client, 4) == b"less"
        assert pipes(running) > running.pipes_at_start  # it was spliced
        client.shutdown(socket.SHUT_WR)
        assert server.recv(1) == b""
    size = 2 * len(BULK)
    assert logged(running, name) == f"{200 if kind == 'connect' else 101} {size + 6} {size + 4} DC"


@pytest.mark.parametrize("kind", ["connect", "websocket"])
def test_the_last_bytes_of_a_client_that_leaves(running, endpoint, kind):
    with tunnel(running, endpoint, kind, b"-") as (client, server):
        sent = 0
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while sent < len(BULK):  # until nothing more is taken on the way
                sent += client.send(BULK[sent : sent + 65536])
        client.close()
        got = 0
        while part := server.recv(1 << 20):
            got += len(part)
        assert got == sent
