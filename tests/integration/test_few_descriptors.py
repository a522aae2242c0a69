"""The program with 64 descriptors per process, under 200 connections."""

import socket
import time
from pathlib import Path

import pytest

from tests.integration.test_serving import ANSWER, TwoWorkers
from tests.support import bootstrap as b
from tests.support.proxy import free_ports
from tests.support.supervised import until

REQUEST = b"GET / HTTP/1.1\r\nhost: h.example\r\n\r\n"


class FewDescriptors(TwoWorkers):
    """Two workers under ``ulimit -n 64``."""

    def command(self):
        return ["/bin/sh", "-c", 'ulimit -n 64 && exec "$@"', "sh", *super().command()]


@pytest.fixture
def ports():
    return dict(zip(("main", "admin"), free_ports(2), strict=True))


@pytest.fixture
def proxy(ports):
    filters = [b.hcm({"virtual_hosts": [b.vhost(ANSWER)]}, access_log=[])]
    running = FewDescriptors(b.render(b.bootstrap(filters, []), ports), admin_port=ports["admin"])
    running.start()
    yield running
    running.close()


def cpu_s(pid):
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def answered(socks):
    """Those that have been answered by now."""
    found = []
    for sock in socks:
        try:
            if sock.recv(4096, socket.MSG_PEEK).startswith(b"HTTP/1.1 200"):
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
