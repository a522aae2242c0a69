"""Nonsense at every door of a running program: an answer or an end, no traceback, and the next one is served."""

import http.client
import os
import random
import socket
import ssl

import pytest

from tests.support import bootstrap as b
from tests.support import certificates
from tests.support.forkproxy import Forkproxy
from tests.support.proxy import free_ports

ANSWER = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "answer"}}}
GARBAGE = [
    b"\x00" * 4096,
    b"\xff\xfe\xfd" * 1000,
    b"\r\n" * 5000,
    b"GET",
    b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 600,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b'{"op": "stop"',
    b'{"op": ["stop"]}\n',
    b"[" * 100_000,
    b"A" * 1_000_000,
]


class Proxy(Forkproxy):
    """HTTP, HTTP over TLS, TCP, and an admin."""

    def __init__(self):
        self.ports = dict(zip(("main", "tls", "tcp", "admin"), free_ports(4), strict=True))
        answers = b.hcm({"virtual_hosts": [b.vhost(ANSWER)]}, access_log=[])
        secure = {"filters": [answers], "transport_socket": b.tls_downstream()}
        data = b.bootstrap(
            [answers],
            [b.cluster("up", "main")],
            more_listeners=[
                {"name": "tls", "address": b.port("tls"), "filter_chains": [secure]},
                {"name": "tcp", "address": b.port("tcp"), "filter_chains": [{"filters": [b.tcp_proxy("up")]}]},
            ],
        )
        super().__init__(b.render(data, self.ports), admin_port=self.ports["admin"])

    def connect(self, door):
        if door == "control":
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(self.directory / "control.sock"))
        else:
            sock = socket.create_connection(("127.0.0.1", self.ports[door]))
        sock.settimeout(10)
        return sock


@pytest.fixture(scope="module")
def running():
    proxy = Proxy()
    proxy.start()
    yield proxy
    proxy.close()


@pytest.fixture
def nothing_leaks(running):
    """The program is shared by the module: what counts is what a test leaves beside it."""
    return


@pytest.fixture
def proxy(running):
    """The program, which must be the same processes and have no traceback in its log afterwards."""
    before = running.pids()
    yield running
    assert running.pids() == before
    assert "Traceback" not in running.output()
    assert get(running, "main") == get(running, "tcp") == get(running, "tls") == (200, b"answer")
    assert running.ready()


def get(proxy, door):
    if door == "tls":
        context = ssl.create_default_context(cafile=certificates.directory() / "ca.pem")
        connection = http.client.HTTPSConnection("localhost", proxy.ports[door], timeout=10, context=context)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", proxy.ports[door], timeout=10)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def say(proxy, door, data):
    """Send and hang up; what came back."""
    with proxy.connect(door) as sock:
        try:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: sock.recv(65536), b""))
        except OSError:
            # It had heard enough.
            return b""


@pytest.mark.parametrize("door", ["main", "tls", "tcp", "admin", "control"])
def test_garbage(proxy, door):
    for data in GARBAGE:
        answer = say(proxy, door, data)
        if door in ("main", "admin", "tcp"):
            assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), (data[:30], answer[:100])
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    for _ in range(20):
        say(proxy, door, chance.randbytes(chance.randrange(1, 3000)))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nonsense", 404),
        ("GET", "//", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/%00", 404),
        ("GET", "/stats/", 404),
        ("GET", "/stats?filter=(", 400),
        ("GET", "/stats?format=nonsense", 400),
        ("GET", "/stats?type=nonsense", 400),
        ("GET", "/stats?histogram_buckets=nonsense", 400),
        ("GET", "/stats/prometheus?histogram_buckets=nonsense", 400),
        ("GET", "/clusters?filter=[", 400),
        ("GET", "/config_dump?resource=nonsense", 404),
        ("GET", "/config_dump?mask=nonsense", 400),
        ("GET", "/quitquitquit", 405),
        ("GET", "/reset_counters", 405),
        ("POST", "/logging?level=nonsense", 400),
        ("POST", "/logging?paths=nonsense:debug", 400),
        ("POST", "/logging?paths=:::", 400),
        ("DELETE", "/stats", 200),
        ("GET", "/stats?" + "a=b&" * 200, 400),
        ("GET", "/" + "a" * 20_000, 431),
        ("GET", "/stats?filter=" + "%ff" * 10, 200),
    ],
    ids=lambda value: str(value)[:40],
)
def test_admin_nonsense(proxy, method, path, status):
    answered, body = proxy.admin(path, method)
    assert answered == status, body[:200]


def test_many_at_every_door_at_once(proxy):
    socks = [proxy.connect(door) for door in ("main", "tls", "tcp", "admin", "control") for _ in range(8)]
    for number, sock in enumerate(socks):
        sock.sendall(GARBAGE[number % len(GARBAGE)][:1000])
    # They stay open: nobody waits for them.
    assert get(proxy, "main") == (200, b"answer")
    assert proxy.ready()
    for sock in socks:
        sock.close()
    assert os.path.exists(proxy.directory / "control.sock")
