"""Bulk through tcp_proxy of the running program, where it splices: nothing lost, nothing added, nothing kept."""

import contextlib
import hashlib
import os
import socket
import struct
import threading

import pytest

from forkproxy.net.splice import MAX_IDLE_PIPES
from tests.support import bootstrap as b
from tests.support.bulk import eventually, pipes
from tests.support.forkproxy import Forkproxy
from tests.support.proxy import free_ports

PATIENCE_S = 20
BULK = os.urandom(1 << 20) * 16
LIMIT = 256 * 1024


@pytest.fixture(scope="module")
def running():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ports = dict(zip(("main", "admin"), free_ports(2), strict=True), up=listening.getsockname()[1])
        log = b.file_log(text="%BYTES_RECEIVED% %BYTES_SENT% %RESPONSE_FLAGS%\n")
        data = b.bootstrap([b.tcp_proxy("up", access_log=log)], [b.cluster("up", "up")])
        data["static_resources"]["listeners"][0]["per_connection_buffer_limit_bytes"] = LIMIT
        proxy = Forkproxy(b.render(data, ports), admin_port=ports["admin"])
        proxy.start()
        proxy.listening, proxy.port = listening, ports["main"]
        proxy.pipes_at_start = pipes(proxy)
        yield proxy
        proxy.close()


@pytest.fixture
def nothing_leaks(running):
    """The program is shared by the module: ``ends`` looks at what it holds."""
    return


@pytest.fixture
def ends(running):
    """(client, server): the two ends of one proxied connection."""
    client = socket.create_connection(("127.0.0.1", running.port))
    server, _ = running.listening.accept()
    for sock in (client, server):
        sock.settimeout(PATIENCE_S)
    with client, server:
        yield client, server
    eventually(lambda: running.counters()["cluster.up.upstream_cx_active"] == 0)
    assert pipes(running) <= running.pipes_at_start + 2 * MAX_IDLE_PIPES
    assert "Traceback" not in running.output()


def digest(sock, got, piece=1 << 20):
    whole = hashlib.sha256()
    size = 0
    while part := sock.recv(piece):
        whole.update(part)
        size += len(part)
    got.append((size, whole.digest()))


def send(sock, blob):
    sock.sendall(blob)
    sock.shutdown(socket.SHUT_WR)


def together(*calls):
    threads = [threading.Thread(target=call, args=arguments) for call, *arguments in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def last_log_line(proxy):
    return (proxy.directory / "access.log").read_text().splitlines()[-1:]


def test_both_ways_at_once_ended_by_half_closes(running, ends):
    client, server = ends
    before = running.counters()
    up, down = [], []
    back = BULK[::-1][:9_999_999]
    together((send, client, BULK), (send, server, back), (digest, server, up), (digest, client, down))
    assert up == [(len(BULK), hashlib.sha256(BULK).digest())]
    assert down == [(len(back), hashlib.sha256(back).digest())]
    eventually(lambda: last_log_line(running) == [f"{len(BULK)} {len(back)} -"])
    assert pipes(running) > running.pipes_at_start, "it was spliced: the pipes are kept for the next"
    after = running.counters()
    for name, size in (
        ("tcp.tcp.downstream_cx_rx_bytes_total", len(BULK)),
        ("tcp.tcp.downstream_cx_tx_bytes_total", len(back)),
        ("cluster.up.upstream_cx_tx_bytes_total", len(BULK)),
        ("cluster.up.upstream_cx_rx_bytes_total", len(back)),
    ):
        assert after[name] - before[name] == size, name


def test_one_way_ended_the_other_goes_on(running, ends):
    client, server = ends
    got = []
    together((send, client, BULK), (digest, server, got))
    answer = []
    together((send, server, BULK), (digest, client, answer))
    assert got == answer == [(len(BULK), hashlib.sha256(BULK).digest())]


def test_a_slow_reader_holds_the_sender_back_and_gets_everything(running, ends):
    client, server = ends
    before = running.counters()
    blob = BULK * 2
    server.settimeout(0.3)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < len(blob):
            sent += server.send(blob[sent : sent + (1 << 20)])
    assert sent < len(blob), "the sender is held back"
    after = running.counters()
    paused = "cluster.up.upstream_flow_control_paused_reading_total"
    assert after[paused] > before[paused]
    server.settimeout(PATIENCE_S)
    got = []
    together((send, server, blob[sent:]), (digest, client, got, 100_000))
    assert got == [(len(blob), hashlib.sha256(blob).digest())]


@pytest.mark.parametrize("resets", ["client", "server"])
def test_a_reset_in_the_middle_reaches_the_other_end(running, ends, resets):
    sender, receiver = ends if resets == "client" else ends[::-1]
    seen = []

    def receive():
        try:
            while receiver.recv(65536):
                pass
            seen.append("end")
        except ConnectionResetError:
            seen.append("reset")

    def send_and_reset():
        sender.sendall(BULK)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sender.close()

    together((receive,), (send_and_reset,))
    assert seen == ["reset"], "a broken transfer must not look whole"
