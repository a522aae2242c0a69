"""The DNS cache of a worker: who waits, who is told, what is counted."""

import pytest

from forkproxy.config.build.dynamic_forward_proxy import DnsCacheConfig
from forkproxy.stats.groups import DnsCacheWorkerStats
from forkproxy.upstream.dns_cache import OVERFLOW, DnsCache, host_key, split_key, target_of
from tests.support.fakes import FakeLoop


class World:
    def __init__(self, **config):
        self.loop = FakeLoop()
        self.sent = []
        self.stats = DnsCacheWorkerStats()
        self.cache = DnsCache(DnsCacheConfig("outside", "V4_ONLY", **config), self.stats)
        self.cache.start(self.loop, self.sent.append)
        self.told = []

    def ask(self, key):
        return self.cache.ask(key, self.done)

    def done(self, host):
        self.told.append((host.key, host.addresses, host.reason))


def test_the_first_asks_and_all_who_wait_are_told():
    world = World()
    assert world.cache.find("a.test:80") is None
    assert world.ask("a.test:80")
    assert world.ask("a.test:80")
    assert world.sent == [{"op": "dns_ask", "cache": "outside", "host": "a.test:80"}]
    world.cache.set_host("a.test:80", ["10.0.0.1", "10.0.0.2"], "")
    assert world.told == [("a.test:80", ("10.0.0.1", "10.0.0.2"), "")] * 2
    assert world.cache.find("a.test:80").addresses == ("10.0.0.1", "10.0.0.2")


def test_who_is_gone_is_not_told():
    world = World()
    world.ask("a.test:80")
    world.cache.forget("a.test:80", world.done)
    world.cache.forget("b.test:80", world.done)
    world.cache.set_host("a.test:80", ["10.0.0.1"], "")
    assert world.told == []


def test_only_so_many_may_wait():
    world = World(max_pending_requests=2)
    assert world.ask("a.test:80")
    assert world.ask("b.test:80")
    assert not world.ask("a.test:80")
    assert world.stats.dns_rq_pending_overflow == 1
    world.cache.set_host("a.test:80", ["10.0.0.1"], "")
    assert world.ask("c.test:80")
    world.cache.forget("c.test:80", world.done)
    assert world.ask("d.test:80")


def test_a_failure_is_kept_and_no_room_is_not():
    world = World()
    world.ask("a.test:80")
    world.ask("b.test:80")
    world.cache.set_host("a.test:80", [], "no")
    world.cache.set_host("b.test:80", [], OVERFLOW)
    assert world.told == [("a.test:80", (), "no"), ("b.test:80", (), OVERFLOW)]
    assert world.cache.find("a.test:80").reason == "no"
    assert world.cache.find("b.test:80") is None


def test_clusters_hear_of_changes_only():
    world = World()
    changes, gone = [], []
    world.cache.on_change.append(lambda host: changes.append(host.addresses))
    world.cache.on_gone.append(lambda host: gone.append(host.key))
    for addresses in (["10.0.0.1"], ["10.0.0.1"], ["10.0.0.2"]):
        world.cache.set_host("a.test:80", addresses, "")
    assert changes == [("10.0.0.1",), ("10.0.0.2",)]
    world.cache.remove_host("a.test:80")
    world.cache.remove_host("a.test:80")
    assert gone == ["a.test:80"]
    assert world.cache.find("a.test:80") is None


def test_use_is_told_now_and_then():
    world = World()
    for name in ("b", "a"):
        world.cache.set_host(f"{name}.test:80", ["10.0.0.1"], "")
        world.cache.find(f"{name}.test:80")
        world.cache.find(f"{name}.test:80")
    assert world.sent == []
    world.loop.advance(10.0)
    assert world.sent == [{"op": "dns_used", "cache": "outside", "hosts": ["a.test:80", "b.test:80"]}]
    world.loop.advance(10.0)
    assert len(world.sent) == 1


@pytest.mark.parametrize(
    ("authority", "key", "parts"),
    [
        ("a.test", "a.test:80", ("a.test", 80)),
        ("A.test:8080", "A.test:8080", ("A.test", 8080)),
        ("127.0.0.1", "127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]", "[::1]:80", ("::1", 80)),
        ("[::1]:81", "[::1]:81", ("::1", 81)),
        ("::1:81", "::1:81", ("::1", 81)),
        ("::1", "::1", (":", 1)),  # as Envoy: what is behind the last colon is a port
        ("a.test:x", "a.test:x:80", ("a.test:x", 80)),
        ("a.test:99999", "a.test:99999:80", ("a.test:99999", 80)),
        ("", ":80", ("", 80)),
    ],
)
def test_keys(authority, key, parts):
    assert host_key(authority, 80) == key
    assert split_key(key) == parts


def test_what_the_resolver_is_asked():
    config = DnsCacheConfig("outside", "V4_ONLY", refresh_rate_s=7.0, failure_base_s=1.0, failure_max_s=4.0)
    target = target_of(config, "outside\0a.test:81")
    assert (target.cluster, target.type, target.hosts) == ("outside\0a.test:81", "HOST", (("a.test", 81),))
    assert (target.refresh_s, target.failure_base_s, target.failure_max_s) == (7.0, 1.0, 4.0)
    assert (target.respect_ttl, target.min_refresh_s, target.query_timeout_s) == (True, 5.0, 5.0)
