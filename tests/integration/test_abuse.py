"""Good and bad peers at once, against the running program: at the end nothing is left over, and no good answer was wrong.

Everything is drawn from a seed that a failure shows. Bad clients send pieces of messages, garbage, floods and resets, and do not
read; the upstream cuts its answers, resets, or sends garbage when the path asks for it. Nothing sleeps to synchronise: threads
do a number of rounds, and the end is waited for.
"""

import contextlib
import os
import random
import socket
import socketserver
import ssl
import struct
import threading

import pytest

from tests.support import bootstrap as b
from tests.support.forkproxy import Forkproxy
from tests.support.proxy import free_ports
from tests.support.supervised import until
from tests.support.wire import cut_responses

SEED = random.randrange(1 << 32)
GOOD_ROUNDS = 400
BAD_ROUNDS = 400
LIMIT_S = 10.0
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class UpstreamPeer(socketserver.BaseRequestHandler):
    """Answers ``/good/N`` with N bytes of body, echoes a body, and misbehaves as a path of ``/bad/N`` says."""

    def handle(self):
        with contextlib.suppress(OSError):
            stream = self.request.makefile("rb")
            while self._exchange(stream):
                pass

    def _exchange(self, stream):
        line = stream.readline()
        if not line:
            return False
        length, chunked = 0, False
        while (header := stream.readline()) not in (b"\r\n", b""):
            name, _, value = header.partition(b":")
            length = int(value) if name == b"content-length" else length
            chunked = chunked or name == b"transfer-encoding"
        body = self._chunks(stream) if chunked else stream.read(length)
        path = line.split(b" ")[1]
        self.server.seen.append(path)
        number = int(path.rpartition(b"/")[2] or b"0") if path.startswith((b"/good/", b"/bad/")) else 0
        if path.startswith(b"/bad/"):
            return self._misbehave(number)
        body = body or path + b"x" * number
        self.request.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        return True

    @staticmethod
    def _chunks(stream):
        parts = []
        while size := int(stream.readline() or b"0", 16):
            parts.append(stream.read(size))
            stream.readline()
        stream.readline()
        return b"".join(parts)

    def _misbehave(self, number):
        choose = random.Random(number)
        whole = choose.choice(
            (
                b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n0123456789",
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                b"HTTP/1.1 100 Continue\r\n\r\n" * 200 + b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
                b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok" * 2,
                b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 3000,
                b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
                choose.randbytes(500),
            )
        )
        self.request.sendall(whole[: choose.choice((len(whole), choose.randrange(1, len(whole))))])
        if choose.random() < 0.5:
            reset(self.request)
        return False


class Upstream(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 512

    def __init__(self):
        super().__init__(("127.0.0.1", 0), UpstreamPeer)
        self.seen = []
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self.thread.start()

    def handle_error(self, request, address):
        pass  # what was sent here is meant to be broken

    def close(self):
        self.shutdown()
        self.thread.join()
        self.server_close()


@pytest.fixture
def upstream():
    running = Upstream()
    yield running
    running.close()


@pytest.fixture
def proxy(upstream):
    ports = dict(zip(("main", "admin", "tcp", "tls"), free_ports(4), strict=True), up=upstream.server_address[1])
    direct = {"match": {"prefix": "/direct"}, "direct_response": {"status": 200, "body": {"inline_string": "d" * 2000}}}
    filters = [b.hcm({"virtual_hosts": [b.vhost(direct, b.route("/bad/", "bad"), b.route("/"))]})]
    more = [
        {"name": "tcp", "address": b.port("tcp"), "filter_chains": [{"filters": [b.tcp_proxy("up")]}]},
        {
            "name": "tls",
            "address": b.port("tls"),
            "filter_chains": [{"filters": filters, "transport_socket": b.tls_downstream()}],
        },
    ]
    # A pool of their own for broken answers: who gets a connection that upstream is about to close sees 503, rightly.
    data = b.bootstrap(filters, [b.cluster("up", "up"), b.cluster("bad", "up")], more_listeners=more)
    running = Forkproxy(b.render(data, ports), admin_port=ports["admin"])
    running.ports = ports
    running.start()
    yield running
    running.close()


class Good(threading.Thread):
    """A client that keeps the rules, on connections that are kept while the proxy keeps them."""

    def __init__(self, address, seed, tls):
        super().__init__()
        self.address, self.choose, self.tls = address, random.Random(seed), tls
        self.wrong = []

    def connect(self):
        sock = socket.create_connection(self.address, timeout=LIMIT_S)
        return self.tls.wrap_socket(sock) if self.tls else sock

    def run(self):
        sock = None
        try:
            for _ in range(GOOD_ROUNDS):
                sock = sock or self.connect()
                if not self.exchange(sock):
                    sock.close()
                    sock = None
        except OSError as error:
            self.wrong.append(error)
        if sock is not None:
            sock.close()

    def exchange(self, sock):
        choose = self.choose
        number = choose.choice((0, 10, 5000, 300_000))
        if choose.random() < 0.4:
            body = choose.randbytes(1 + number)
            sent = b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        else:
            path = b"/good/%d" % number
            body = path + b"x" * number
            sent = b"GET %b HTTP/1.1\r\nhost: a\r\n\r\n" % path
        close = choose.random() < 0.1
        if close:
            sent = sent.replace(b"host: a\r\n", b"host: a\r\nconnection: close\r\n", 1)
        sock.sendall(sent)
        answer = b""
        while not any(message.complete for message in cut_responses(answer, [b"GET"])):
            piece = sock.recv(1 << 18)
            if not piece:
                break
            answer += piece
        messages = cut_responses(answer, [b"GET"])
        if [(m.status, m.body, m.complete) for m in messages] != [(200, body, True)]:
            self.wrong.append((sent[:100], answer[:300]))
        return not close


class Bad(threading.Thread):
    """A client that breaks every rule; what it is answered does not matter."""

    def __init__(self, ports, seed, tls):
        super().__init__()
        self.ports, self.choose, self.tls = ports, random.Random(seed), tls
        self.left_open = []

    def run(self):
        for _ in range(BAD_ROUNDS):
            with contextlib.suppress(OSError):
                self.abuse()
        for sock in self.left_open:
            sock.close()

    def abuse(self):
        choose = self.choose
        sock = socket.create_connection(("127.0.0.1", self.ports[choose.choice(("main", "main", "tcp", "tls"))]))
        sock.settimeout(0.5)
        if sock.getpeername()[1] == self.ports["tls"] and choose.random() < 0.7:
            sock = self.tls.wrap_socket(sock)
        data = self.bytes()
        if sock.getpeername()[1] == self.ports["tcp"]:
            data = data.replace(b"/smuggled", b"/harmless")  # what TCP carries is upstream's to judge
        try:
            sock.sendall(data)
            end = choose.randrange(5)
            if end == 0:
                reset(sock)
            elif end == 1:
                sock.shutdown(socket.SHUT_WR)
                sock.recv(1000)
            elif end == 2:
                sock.settimeout(0.02)
                sock.recv(choose.randrange(1, 5000))
            elif end == 3 and len(self.left_open) < 10:
                self.left_open.append(sock)
                return
            sock.close()
        except OSError:
            sock.close()

    def bytes(self):
        choose = self.choose
        follows = b"content-length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED
        whole = choose.choice(
            (
                choose.randbytes(300),
                b"GET /direct HTTP/1.1\r\nhost: a\r\n\r\n" * 2000,
                b"GET /good/5000 HTTP/1.1\r\nhost: a\r\n\r\n" * 50,
                b"GET /direct HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n" * 900,
                b"POST /echo HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n" + follows,
                b"GET /good/1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\nPOST /echo HTTP/1.1\r\nhost: a\r\n"
                + follows,
                b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
                + SMUGGLED,
                b"POST /echo HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\n" + follows,
                b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5;" + b"y" * 100_000,
                b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + b"x: y\r\n" * 20_000,
                b"GET / HTTP/1.1\r\nhost: a\r\n" + b"a: b\r\n" * 30_000,
                b"CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n" + SMUGGLED.replace(b"/smuggled", b"/good/1"),
                b"GET /bad/%d HTTP/1.1\r\nhost: a\r\n\r\n" % choose.randrange(10_000),
                b"HEAD /bad/%d HTTP/1.1\r\nhost: a\r\n\r\n" % choose.randrange(10_000),
            )
        )
        return whole[: choose.choice((len(whole), len(whole), choose.randrange(1, len(whole))))]


def test_good_and_bad_peers(proxy, upstream):
    print(f"seed {SEED}")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname = False
    tls.verify_mode = ssl.CERT_NONE
    worker = proxy.pids()[-1]
    before = len(os.listdir(f"/proc/{worker}/fd"))
    choose = random.Random(SEED)
    good = [Good(("127.0.0.1", proxy.ports["main"]), choose.random(), None) for _ in range(2)]
    good.append(Good(("127.0.0.1", proxy.ports["tls"]), choose.random(), tls))
    bad = [Bad(proxy.ports, choose.random(), tls) for _ in range(3)]
    for thread in good + bad:
        thread.start()
    for thread in good + bad:
        thread.join()
    assert [thread.wrong for thread in good] == [[]] * len(good)
    assert b"/smuggled" not in upstream.seen
    # Idle upstream connections may stay, one descriptor each; everything else must go.
    until(lambda: standing(proxy) == {}, patience_s=LIMIT_S)
    counters = proxy.counters()
    idle = sum(counters[f"cluster.{name}.upstream_cx_active"] for name in ("up", "bad"))
    until(lambda: len(os.listdir(f"/proc/{worker}/fd")) <= before + idle)
    assert proxy.pids()[-1] == worker
    assert "exception" not in proxy.output()
    assert "worker died" not in proxy.output()


def standing(proxy):
    """The gauges that are not at zero, without idle upstream connections and whoever asks for them at the admin port."""
    found = {}
    for name, value in proxy.counters().items():
        if ".admin." in name:
            continue
        last = name.rpartition(".")[2]
        gauge = last.endswith("_active") and last != "total_listeners_active" and "destroy" not in last
        if gauge and value and last != "upstream_cx_active":
            found[name] = value
    return found


def test_a_worker_without_descriptors_goes_on(upstream):
    ports = dict(zip(("main", "admin"), free_ports(2), strict=True), up=upstream.server_address[1])
    data = b.bootstrap([b.hcm({"virtual_hosts": [b.vhost(b.route("/"))]})], [b.cluster("up", "up")])
    running = Starved(b.render(data, ports), admin_port=ports["admin"])
    running.start()
    try:
        worker = running.pids()[-1]
        socks = [socket.create_connection(("127.0.0.1", ports["main"])) for _ in range(150)]
        for sock in socks:
            sock.sendall(b"GET /good/1 HTTP/1.1\r\nhost: a\r\n\r\n")
        assert socks[0].recv(1000).startswith(b"HTTP/1.1 ")
        until(lambda: "cannot accept" in running.output())
        for sock in socks:
            sock.close()
        until(lambda: standing(running) == {})
        with socket.create_connection(("127.0.0.1", ports["main"]), timeout=LIMIT_S) as sock:
            sock.sendall(b"GET /good/1 HTTP/1.1\r\nhost: a\r\n\r\n")
            assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert running.pids()[-1] == worker
        assert "exception" not in running.output()
        assert running.output().count("cannot accept") < 5
    finally:
        running.close()


class Starved(Forkproxy):
    """forkproxy with hardly a descriptor to spare."""

    def command(self):
        return ["prlimit", "--nofile=64:64", *super().command()]
