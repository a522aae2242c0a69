"""Clusters whose endpoints requests name, without sockets."""

from types import SimpleNamespace

import pytest

from forkproxy.config.build.dynamic_forward_proxy import DnsCacheConfig
from forkproxy.config.build.original_dst import OriginalDstConfig
from forkproxy.net.address import Restored
from forkproxy.stats.groups import ClusterStats, DnsCacheWorkerStats, EndpointStats
from forkproxy.upstream.dns_cache import DnsCache
from forkproxy.upstream.dynamic_cluster import ForwardProxyCluster, OriginalDstCluster, ToldSlots, parse_destination
from tests.support.playbook import cluster_config

A, B = ("192.0.2.1", 80), ("192.0.2.2", 81)


def request(authority=b"h", local=None, **headers):
    lines = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    return SimpleNamespace(
        authority=authority, request_headers=lines, connection=SimpleNamespace(local_address=local or ("127.0.0.1", 1))
    )


# -- the dynamic forward proxy


@pytest.fixture
def cache():
    return DnsCache(DnsCacheConfig("outside", "V4_ONLY"), DnsCacheWorkerStats())


@pytest.fixture
def forward(cache):
    figures = [EndpointStats() for _ in range(4)]
    config = cluster_config(type="DYNAMIC_FORWARD_PROXY", localities=())
    return ForwardProxyCluster(cache, config, ClusterStats(), figures)


def test_the_host_header_chooses_among_what_the_cache_knows(cache, forward):
    cache.set_host("a.test:80", ["192.0.2.1", "192.0.2.9"], "")
    cache.set_host("b.test:81", ["192.0.2.2"], "")
    assert forward.pick() is None
    assert forward.pick_for(request(b"a.test")).socket_address == A
    assert forward.pick_for(request(b"a.test:80")).hostname == "a.test:80"
    assert forward.pick_for(request(b"b.test:81")).socket_address == B
    assert forward.pick_for(request(b"b.test")) is None
    assert not forward.needs_context


def test_a_host_that_moves_or_goes(cache, forward):
    cache.set_host("a.test:80", ["192.0.2.1"], "")
    before = forward.pick_for(request(b"a.test"))
    cache.set_host("b.test:81", ["192.0.2.2"], "")
    assert forward.pick_for(request(b"a.test")) is before
    cache.set_host("a.test:80", ["192.0.2.3"], "")
    assert forward.pick_for(request(b"a.test")).socket_address == ("192.0.2.3", 80)
    cache.remove_host("a.test:80")
    assert forward.pick_for(request(b"a.test")) is None
    cache.set_host("c.test:80", [], "no")
    assert forward.stats.membership_total == 1


def test_a_host_that_moves_keeps_its_connections(cache, forward):
    """Answers of name servers come in turns."""
    cache.set_host("a.test:80", ["192.0.2.1", "192.0.2.2"], "")
    before = forward.pick_for(request(b"a.test"))
    pool, before.stats.cx_active = before.pool, 1
    cache.set_host("a.test:80", ["192.0.2.2", "192.0.2.1"], "")
    after = forward.pick_for(request(b"a.test"))
    assert after is before
    assert after.pool is pool
    assert not pool.draining
    assert after.config.additional_addresses == (A,)
    assert forward.find("192.0.2.2:80") is after
    assert forward.find("192.0.2.1:80") is None
    assert after.stats.cx_active == 1
    assert forward.stats.membership_healthy == 1


def test_hosts_come_and_go_as_if_all_were_set_anew(cache, forward):
    for key, *found in (
        ("a.test:80", "192.0.2.1"), ("b.test:80", "192.0.2.1"), ("c.test:80", "192.0.2.3"), ("a.test:80", "192.0.2.4"),
        ("c.test:80",), ("d.test:80", "192.0.2.5"), ("e.test:80", "192.0.2.6"), ("b.test:80", "192.0.2.7"),
    ):  # fmt: skip
        if found:
            cache.set_host(key, found, "")
        else:
            cache.remove_host(key)
        assert forward.stats.membership_total == forward.stats.membership_healthy == len(forward.endpoints)
        assert [each.stats for each in forward.endpoints] == [
            forward._slots._groups[slot] for _, slot in forward.endpoint_slots()
        ]
        slots = {each.address: slot for each, slot in forward.endpoint_slots()}
        assert len(set(slots.values())) == len(slots)
        by_address = forward._by_address
        forward.set_endpoints([each.config for each in forward.endpoints])
        assert forward._by_address == by_address


def test_a_new_host_costs_the_others_nothing(cache, forward, monkeypatch):
    monkeypatch.setattr(ForwardProxyCluster, "set_endpoints", None)
    changes = []
    forward.on_membership_change = lambda cluster, added, gone: changes.append((len(added), len(gone)))
    cache.set_host("a.test:80", ["192.0.2.1"], "")
    cache.remove_host("a.test:80")
    assert changes == [(1, 0), (0, 1)]


# -- ORIGINAL_DST


class Met:
    """The supervisor's copy and two workers'."""

    def __init__(self, **settings):
        self.config = cluster_config(type="ORIGINAL_DST", localities=(), dynamic=OriginalDstConfig(**settings))
        self.supervisor, self.one, self.two = (self.make() for _ in range(3))
        self.sent = []
        self.one.keep_in_touch(self.sent.append)

    def make(self):
        return OriginalDstCluster(self.config, ClusterStats(), [EndpointStats() for _ in range(2)])

    def tell(self, *addresses):
        """As the supervisor does: a JSON round trip makes lists of tuples."""
        told = [{**entry, "address": list(entry["address"])} for entry in self.supervisor.told(addresses)]
        for cluster in (self.supervisor, self.one, self.two):
            cluster.set_resolved(told)


def wanted(address):
    return SimpleNamespace(local_address=Restored(address))


def test_the_destination_of_a_redirected_connection():
    met = Met()
    endpoint = met.one.pick_for_connection(wanted(A))
    assert (endpoint.socket_address, endpoint.hostname) == (A, "up192.0.2.1:80")
    assert met.one.pick_for_connection(wanted(A)) is endpoint
    assert met.sent == [{"op": "host_met", "cluster": "up", "address": ["192.0.2.1", 80]}]
    assert met.one.pick_for_connection(SimpleNamespace(local_address=A)) is None
    assert met.one.pick_for_connection(SimpleNamespace(local_address=None)) is None
    assert met.one.pick() is None


def test_a_header_goes_before_the_connection():
    met = Met(header=b"x-to")
    assert met.one.pick_for(request(x_to=b"192.0.2.2:81", local=Restored(A))).socket_address == B
    assert met.one.pick_for(request(local=Restored(A))).socket_address == A
    assert met.one.pick_for(request(x_to=b"nonsense", local=Restored(A))) is None
    assert met.one.stats.original_dst_host_invalid == 1


def test_the_cluster_may_have_a_port_of_its_own():
    assert Met(port=8080).one.pick_for_connection(wanted(A)).socket_address == ("192.0.2.1", 8080)


def test_figures_of_a_host_that_was_met_count_where_the_supervisor_says():
    met = Met()
    endpoint = met.one.pick_for_connection(wanted(B))
    endpoint.stats.rq_total += 3
    endpoint.stats.cx_active += 1
    assert all(not any(figures.rq_total for figures in c._slots._groups) for c in (met.one, met.two))
    met.tell(A, B)
    assert met.one.pick_for_connection(wanted(B)) is endpoint
    slots = {each.socket_address: slot for each, slot in met.one.endpoint_slots()}
    assert slots == {each.socket_address: slot for each, slot in met.two.endpoint_slots()} == {A: 0, B: 1}
    assert endpoint.stats is met.one._slots._groups[1]
    assert (endpoint.stats.rq_total, endpoint.stats.cx_active) == (3, 1)


def test_meeting_a_host_costs_the_others_nothing(monkeypatch):
    met = Met()
    monkeypatch.setattr(OriginalDstCluster, "set_endpoints", None)
    endpoint = met.one.pick_for_connection(wanted(A))
    assert met.one.endpoints == [endpoint]
    assert met.one.endpoint_slots() == [(endpoint, -1)]
    assert met.one.stats.membership_total == 1


def test_a_host_stays_until_the_supervisor_has_heard_of_it():
    met = Met()
    met.one.pick_for_connection(wanted(B))
    met.tell(A)
    assert [each.socket_address for each in met.one.endpoints] == [A, B]
    met.tell(A, B)
    met.tell(B)
    assert [each.socket_address for each in met.one.endpoints] == [B]
    assert {slot for _, slot in met.one.endpoint_slots()} == {1}


def test_slots_are_kept_over_generations():
    met = Met()
    met.tell(A, B)
    after = met.make()
    after.adopt_slots(met.supervisor)
    assert [entry["slot"] for entry in after.told([B])] == [1]
    plain = ToldSlots([EndpointStats()])
    plain.adopt(after._slots)
    assert plain.assign([A])[0][0] == 0


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("192.0.2.1:80", ("192.0.2.1", 80)),
        (" [::1]:80 ", ("::1", 80)),
        ("192.0.2.1:0", ("192.0.2.1", 0)),
        *[(value, None) for value in ("192.0.2.1", "::1:80", "a.test:80", "192.0.2.1:65536", "192.0.2.1:x", ":80", "")],
    ],
)
def test_destinations(value, found):
    assert parse_destination(value) == found
