"""The program with 64 descriptors per process, under 200 connections."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.test_cli import bootstrap
from tests.integration.test_serving import ANSWER, TwoWorkers
from tests.support import bootstrap as b
from tests.support.proxy import free_ports
from tests.support.supervised import ROOT, until

REQUEST = b"GET / HTTP/1.1\r\nhost: h.example\r\n\r\n"


class FewDescriptors(TwoWorkers):
    """Two workers under ``ulimit -n 64``."""

    def command(self):
        return ["/bin/sh", "-c", 'ulimit -n 64 && exec "$@"', "sh", *super().command()]


@pytest.fixture
def ports():
    return dict(zip(("main", "admin", "up"), free_ports(3), strict=True))


@pytest.fixture
def proxy(ports):
    filters = [b.hcm({"virtual_hosts": [b.vhost(b.route("/up"), ANSWER)]}, access_log=[])]
    data = b.bootstrap(filters, [b.cluster("up", "up")])
    running = FewDescriptors(b.render(data, ports), admin_port=ports["admin"])
    running.start()
    yield running
    running.close()


def cpu_s(pid):
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def answered(socks, status=b"200"):
    """Those that have been answered like that by now."""
    found = []
    for sock in socks:
        try:
            if sock.recv(4096, socket.MSG_PEEK).startswith(b"HTTP/1.1 " + status):
                found.append(sock)
        except BlockingIOError:
            continue
    return found


def test_two_hundred_connections_wait_for_their_turn(proxy, ports):
    assert "few descriptors" in proxy.output()
    assert "per_process=64" in proxy.output()
    socks = [socket.create_connection(("127.0.0.1", ports["main"]), timeout=10) for _ in range(200)]
    for sock in socks:
        sock.sendall(REQUEST)
        sock.setblocking(False)
    until(lambda: len(answered(socks)) >= 40)
    until(lambda: "cannot accept connections for a moment" in proxy.output())
    overflow = f"listener.127.0.0.1_{ports['main']}.downstream_cx_overflow"
    assert proxy.counters()[overflow] >= 2
    # What waits does not keep a worker busy.
    pids = proxy.pids()[1:]
    before, began = [cpu_s(pid) for pid in pids], time.monotonic()
    until(lambda: time.monotonic() - began > 0.5)
    for pid, used in zip(pids, before, strict=True):
        assert cpu_s(pid) - used < 0.25 * (time.monotonic() - began)
    assert len(answered(socks)) < 200
    # Whoever goes makes room for who waits: in the end everybody was served.
    served = 0

    def all_served():
        nonlocal served
        for sock in answered(socks):
            sock.close()
            socks.remove(sock)
            served += 1
        return served == 200

    until(all_served)
    assert proxy.output().count("cannot accept connections for a moment") <= 4


def test_no_descriptor_for_an_upstream_connection_is_a_503(proxy, ports):
    with socket.create_server(("127.0.0.1", ports["up"]), backlog=256):
        # Nobody answers there, so every request needs a connection of its own.
        socks = [socket.create_connection(("127.0.0.1", ports["main"]), timeout=10) for _ in range(200)]
        for sock in socks:
            sock.sendall(REQUEST.replace(b"/ ", b"/up ", 1))
            sock.setblocking(False)
        until(lambda: answered(socks, b"503"))
        assert answered(socks, b"503")[0].recv(4096).endswith(b"reset reason: local connection failure")
        until(lambda: "Too many open files" in proxy.output())
        for sock in socks:
            sock.close()
    assert "exception" not in proxy.output()
    with socket.create_connection(("127.0.0.1", ports["main"]), timeout=10) as sock:
        sock.sendall(REQUEST)
        assert sock.recv(4096).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("limit", "workers", "reason"),
    [
        (16, 1, "16 descriptors are not enough, 32 are the least: raise LimitNOFILE="),
        (32, 10, "no worker could be forked: Too many open files (raise LimitNOFILE="),
    ],
)
def test_a_start_that_has_too_few_fails_and_says_so(tmp_path, limit, workers, reason):
    config = tmp_path / "c.yaml"
    config.write_text(bootstrap(0))
    words = ["run", "-c", config, "--pid-file", tmp_path / "c.pid", "--concurrency", workers]
    shell = ["/bin/sh", "-c", f'ulimit -n {limit} && exec "$@"', "sh", sys.executable, "-m", "forkproxy"]
    done = subprocess.run([*shell, *map(str, words)], cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
