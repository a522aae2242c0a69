"""A cluster's endpoints as they change, and how it connects."""

from types import SimpleNamespace

import pytest

from forkproxy.config.build.cluster import LocalityEndpoints, TcpKeepalive
from forkproxy.config.build.core import AddressConfig
from forkproxy.config.build.load_balancing import LoadBalancingConfig
from forkproxy.stats.groups import ClusterStats
from forkproxy.upstream import cluster as module
from forkproxy.upstream import health
from forkproxy.upstream.cluster import resolved_endpoints
from forkproxy.upstream.endpoint import ResolvedEndpoint
from tests.support.fakes import FakeLoop
from tests.support.playbook import WHERE, EndpointConfig, cluster_config, endpoint, make_cluster


def resolved(*hosts, **fields):
    return [ResolvedEndpoint((host, 80), **fields) for host in hosts]


def hosts(cluster):
    return [each.socket_address[0] for each in cluster.endpoints]


def dns_cluster(kind="STRICT_DNS", localities=None):
    localities = localities or (LocalityEndpoints((_named("one"), _named("two", weight=5))),)
    return make_cluster(cluster_config(type=kind, localities=localities), slots=8)


def _named(name, weight=1, hostname=""):
    return EndpointConfig(AddressConfig(name, 80), weight, hostname, "UNKNOWN", WHERE)


def test_a_static_cluster_has_its_endpoints_at_once():
    localities = (
        LocalityEndpoints((endpoint(1, weight=2, hostname="h"), endpoint(2)), region="r", zone="z", sub_zone="s"),
        LocalityEndpoints((endpoint(3, health_status="UNHEALTHY"),), priority=1),
    )
    cluster = make_cluster(cluster_config(localities=localities))
    assert hosts(cluster) == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    first, _, last = (each.config for each in cluster.endpoints)
    assert (first.weight, first.hostname, first.region, first.zone, first.sub_zone) == (2, "h", "r", "z", "s")
    assert (last.priority, last.health_status) == (1, "UNHEALTHY")
    assert (cluster.stats.membership_total, cluster.stats.membership_healthy) == (3, 2)
    assert repr(cluster) == "<Cluster up 3 endpoints>"


@pytest.mark.parametrize(("path", "address"), [("/run/x", "/run/x"), ("@x", "\0x")])
def test_pipes(path, address):
    pipe = EndpointConfig(AddressConfig(pipe_path=path), 1, "", "UNKNOWN", WHERE)
    assert [each.address for each in resolved_endpoints(cluster_config(endpoints=[pipe]).localities)] == [address]


def test_a_dns_cluster_has_none_before_it_is_resolved():
    cluster = dns_cluster()
    assert cluster.endpoints == []
    assert cluster.pick() is None


def test_known_endpoints_stay_and_others_drain():
    cluster = make_cluster(cluster_config(endpoints=2), slots=4)
    kept, gone = cluster.endpoints
    cluster.set_endpoints([kept.config, *resolved("192.0.2.50")])
    assert cluster.endpoints[0] is kept
    assert hosts(cluster) == ["192.0.2.10", "192.0.2.50"]
    assert (gone.pool.draining, kept.pool.draining) == (True, False)
    assert {cluster.pick() for _ in range(4)} == set(cluster.endpoints)


def test_an_endpoint_goes_on_with_another_weight_priority_health_and_metadata():
    cluster = make_cluster(cluster_config(endpoints=2), slots=4)
    told = []
    cluster.on_membership_change = lambda *change: told.append(change)
    first, second = cluster.endpoints
    first.health_flags = health.FAILED_OUTLIER_CHECK | health.DEGRADED_EDS_HEALTH
    changed = resolved("192.0.2.10", weight=7, priority=1, health_status="UNHEALTHY", metadata='{"a":1}')
    cluster.set_endpoints([*changed, second.config])
    assert cluster.endpoints == [first, second]
    assert (first.weight, first.config.priority, first.lb_metadata) == (7, 1, {"a": 1})
    assert first.health_flags == health.FAILED_OUTLIER_CHECK | health.FAILED_EDS_HEALTH
    assert (first.pool.draining, told) == (False, [])
    assert cluster.stats.membership_healthy == 1
    assert {cluster.pick() for _ in range(4)} == {second}


@pytest.mark.parametrize("fields", [{"zone": "z"}, {"hostname": "h"}, {"check_port": 5}])
def test_an_endpoint_of_another_identity_is_a_new_one(fields):
    cluster = make_cluster(cluster_config(endpoints=1))
    before = cluster.endpoints[0]
    cluster.set_endpoints(resolved("192.0.2.10", **fields))
    assert cluster.endpoints[0] is not before
    assert cluster.endpoints[0].stats is before.stats
    assert before.pool.draining


def test_close_connections_on_host_set_change():
    cluster = make_cluster(
        cluster_config(endpoints=2, load_balancing=LoadBalancingConfig(close_connections_on_change=True)), slots=4
    )
    first, second = cluster.endpoints
    pools = [first.pool, second.pool]
    cluster.set_endpoints([first.config, second.config])
    assert [first.pool, second.pool] == pools
    cluster.set_endpoints([first.config, *resolved("192.0.2.50")])
    assert first.pool is not pools[0]
    assert (pools[0].draining, first.pool.draining) == (True, False)
    renewed = first.pool
    cluster.set_health_flags("192.0.2.50:80", set=health.FAILED_ACTIVE_HC)
    assert (renewed.draining, first.pool.draining) == (True, False)
    renewed = first.pool
    cluster.set_health_flags("192.0.2.50:80", set=health.ACTIVE_HC_TIMEOUT)
    assert first.pool is renewed


def test_no_endpoints_left():
    cluster = make_cluster(cluster_config(endpoints=2))
    cluster.set_endpoints([])
    assert (cluster.pick(), cluster.stats.membership_total) == (None, 0)


def test_what_dns_found():
    cluster = dns_cluster()
    cluster.set_resolved(
        [
            {"ip": "192.0.2.1", "port": 80, "index": 0},
            {"ip": "192.0.2.2", "port": "81", "index": 1},
            {"ip": "192.0.2.3", "port": 80, "index": 0, "host": "alias"},
        ]
    )
    assert [each.socket_address for each in cluster.endpoints] == [
        ("192.0.2.1", 80),
        ("192.0.2.2", 81),
        ("192.0.2.3", 80),
    ]
    assert [each.hostname for each in cluster.endpoints] == ["one", "two", "alias"]
    assert [each.weight for each in cluster.endpoints] == [1, 5, 1]


def test_the_index_counts_over_all_localities():
    cluster = dns_cluster(
        localities=(
            LocalityEndpoints((_named("one"),)),
            LocalityEndpoints((_named("two", hostname="given"),), priority=1),
        )
    )
    cluster.set_resolved([{"ip": "192.0.2.1", "port": 80, "index": 1}])
    assert (cluster.endpoints[0].config.priority, cluster.endpoints[0].hostname) == (1, "given")


def test_logical_dns_is_one_endpoint_with_all_addresses():
    cluster = dns_cluster("LOGICAL_DNS")
    cluster.set_resolved([{"ip": "192.0.2.1", "port": 80}, {"ip": "192.0.2.2", "port": 80}])
    assert hosts(cluster) == ["192.0.2.1"]
    endpoint = cluster.endpoints[0]
    assert endpoint.config.additional_addresses == (("192.0.2.2", 80),)
    endpoint.stats.cx_active = 2
    before = endpoint.stats
    cluster.set_resolved([{"ip": "192.0.2.2", "port": 80}, {"ip": "192.0.2.1", "port": 80}])
    assert cluster.endpoints == [endpoint]
    assert (endpoint.address, endpoint.socket_address) == ("192.0.2.2:80", ("192.0.2.2", 80))
    assert (before.cx_active, endpoint.stats.cx_active) == (0, 2)
    cluster.set_resolved([])
    assert cluster.endpoints == []


def test_endpoints_may_have_further_addresses():
    more = EndpointConfig(
        AddressConfig("192.0.2.1", 80), 1, "", "UNKNOWN", WHERE, additional_addresses=(AddressConfig("::1", 81),)
    )
    [endpoint] = resolved_endpoints(cluster_config(endpoints=[more]).localities)
    assert endpoint.additional_addresses == (("::1", 81),)


def test_an_address_that_is_listed_twice_keeps_both_pools():
    cluster = dns_cluster()
    cluster.set_endpoints(resolved("a", "a", "b"))
    before = list(cluster.endpoints)
    cluster.set_endpoints(resolved("a", "b", "a"))
    assert sorted(map(id, cluster.endpoints)) == sorted(map(id, before))
    cluster.set_endpoints(resolved("a"))
    assert cluster.endpoints[0] in before
    assert [each.pool.draining for each in before if each is not cluster.endpoints[0]] == [True, True]


def test_slots_stay_with_their_addresses():
    cluster = dns_cluster()
    cluster.set_endpoints(resolved("a", "b", "c"))
    before = {each.socket_address: slot for each, slot in cluster.endpoint_slots()}
    cluster.set_endpoints(resolved("c", "d", "b"))
    after = {each.socket_address: slot for each, slot in cluster.endpoint_slots()}
    assert (after[("b", 80)], after[("c", 80)]) == (before[("b", 80)], before[("c", 80)])
    for each, slot in cluster.endpoint_slots():
        assert each.stats is cluster._slots._groups[slot]


def test_starting_makes_a_new_round():
    cluster = make_cluster(cluster_config(endpoints=5))
    firsts = set()
    for _ in range(60):
        cluster.start(FakeLoop())
        firsts.add(cluster.pick())
    assert len(firsts) > 1


def test_draining():
    cluster = make_cluster(cluster_config(endpoints=2))
    cluster.drain()
    assert cluster.draining
    assert [each.pool.draining for each in cluster.endpoints] == [True, True]


def test_connecting(monkeypatch):
    asked = []
    monkeypatch.setattr(
        module, "connecting_socket", lambda address, **options: asked.append((address, options)) or "socket"
    )
    made = []

    def transport(loop, sock, address, limit):
        made.append((loop, sock, address, limit))
        return SimpleNamespace(start_connecting=lambda: made.append("started"))

    config = cluster_config(
        tcp_keepalive=TcpKeepalive(3, 20, 5),
        per_connection_buffer_limit_bytes=77,
    )
    cluster = module.Cluster(config, ClusterStats(), [SimpleNamespace()], transport)
    loop = FakeLoop()
    cluster.start(loop)
    cluster.connect(cluster.endpoints[0])
    address = ("192.0.2.10", 80)
    assert asked == [(address, {"keepalive": (3, 20, 5)})]
    assert made == [(loop, "socket", address, 77), "started"]


def test_connecting_without_options(monkeypatch):
    asked = []
    monkeypatch.setattr(module, "connecting_socket", lambda address, **options: asked.append(options))
    cluster = module.Cluster(
        cluster_config(),
        ClusterStats(),
        [SimpleNamespace()],
        lambda *_: SimpleNamespace(start_connecting=lambda: None),
    )
    cluster.connect(cluster.endpoints[0])
    assert asked == [{"keepalive": None}]
