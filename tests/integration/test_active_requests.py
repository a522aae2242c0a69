"""Least request over two workers, with real processes: one avoids the endpoint that the other one keeps busy."""

from __future__ import annotations

import select
import socket

import psutil
import pytest

from tests.support import bootstrap
from tests.support.forkproxy import Forkproxy
from tests.support.held_upstream import PATIENCE_S, HeldUpstream, until
from tests.support.proxy import free_ports

REQUEST = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"


class TwoWorkers(Forkproxy):
    """forkproxy with two."""

    workers = 2


def owner(pids, sock):
    """The worker that has accepted the connection."""
    port = sock.getsockname()[1]
    for pid in pids:
        if any(each.raddr and each.raddr.port == port for each in psutil.Process(pid).net_connections("tcp")):
            return pid
    return None


def connect_to_both(proxy, port, count):
    """``count`` connections to one of the workers, and one to the other."""
    by_owner = {pid: [] for pid in proxy.pids()[1:]}
    while max(map(len, by_owner.values())) < count or min(map(len, by_owner.values())) < 1:
        sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        by_owner[until(lambda sock=sock: owner(by_owner, sock))].append(sock)
    few, many = sorted(by_owner.values(), key=len)
    return many, few


def answered(sock):
    return bool(select.select([sock], [], [], 0)[0])


def test_a_worker_avoids_whom_the_other_keeps_busy():
    slow, fast = HeldUpstream(), HeldUpstream()
    ports = {**dict(zip(("admin", "main"), free_ports(2), strict=True)), "slow": slow.port, "fast": fast.port}
    cluster = bootstrap.cluster(
        "up", "slow", "fast", lb_policy="LEAST_REQUEST", least_request_lb_config={"choice_count": 40}
    )
    routes = bootstrap.vhost(bootstrap.route("/", "up", action={"timeout": "60s"}))
    config = bootstrap.bootstrap([bootstrap.hcm({"virtual_hosts": [routes]})], [cluster])
    proxy = TwoWorkers(bootstrap.render(config, ports), admin_port=ports["admin"])
    socks = []
    try:
        proxy.start()
        many, few = connect_to_both(proxy, ports["main"], 6)
        socks = many + few
        for number in range(6):
            many[number].sendall(REQUEST)
            until(lambda number=number: slow.held + fast.held == number + 1)
        assert slow.held == 3  # both are as busy
        fast.release_all()
        until(lambda: sum(answered(sock) for sock in many) == 3)
        for _ in range(20):
            few[0].sendall(REQUEST)
            answer = b""
            while not answer.endswith(b"ok"):
                answer += few[0].recv(65536) or pytest.fail(f"closed after {answer!r}")
        assert slow.arrived == 3
        assert fast.arrived == 23
    finally:
        for sock in socks:
            sock.close()
        proxy.close()
        slow.stop()
        fast.stop()
