"""The supervisor's side of DNS caches, with fakes around it."""

import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest

from forkproxy.config.build.dynamic_forward_proxy import DnsCacheConfig
from forkproxy.net.timers import NEVER
from forkproxy.stats.counters import Registry
from forkproxy.stats.groups import DnsCacheWorkerStats
from forkproxy.supervisor import dns_caches as module
from forkproxy.supervisor.dns_caches import DnsCaches
from forkproxy.upstream.dns_cache import OVERFLOW, DnsCache, target_from, target_of
from tests.support.fakes import FakeLoop

KEY = "a.test:80"
CONFIG = DnsCacheConfig("outside", "V4_ONLY")


class Worker:
    def __init__(self, run):
        self.run = run
        self.told = []
        self.channel = SimpleNamespace(send=self.told.append)


class Run:
    def __init__(self, **generation):
        self.generation = SimpleNamespace(**generation)


class World:
    def __init__(self, monkeypatch, **config):
        self.loop = FakeLoop()
        monkeypatch.setattr(module, "monotonic", lambda: self.loop.now)
        self.registry = Registry()
        self.registry.begin_generation()
        self.config = DnsCacheConfig("outside", "V4_ONLY", **config)
        self.asked = []
        self.members = []
        self.served = {}
        self.run = self.make()
        self.workers = [Worker(self.run), Worker(self.run)]
        fleet = SimpleNamespace(serve=self.served.__setitem__, tell=self.tell_all)
        self.resolvers = SimpleNamespace(send=self.asked.append)
        self.generations = SimpleNamespace(running=self.run, newest=self.run)
        updates = SimpleNamespace(on_membership=lambda _run, name: self.members.append(name))
        self.caches = DnsCaches(self.loop, self.registry, fleet, self.resolvers, self.generations, updates)
        self.caches.on_made(self.run)

    def make(self, config=None):
        cache = DnsCache(config or self.config, DnsCacheWorkerStats())
        cluster = SimpleNamespace(name="up", dns_cache=cache)
        return Run(dns_caches={"outside": cache}, clusters={"up": cluster})

    def tell_all(self, message):
        for worker in self.workers:
            worker.channel.send(message)

    def ask(self, key=KEY, worker=0):
        self.served["dns_ask"](self.workers[worker], {"cache": "outside", "host": key})

    def answer(self, *addresses, key=KEY, reason="", results=("success",)):
        message = {"host": f"outside\0{key}", "addresses": list(addresses), "reason": reason, "results": list(results)}
        self.resolvers.on_host(message)

    def figures(self):
        snapshot = self.registry.read([])
        return {k.rpartition(".")[2]: v for k, v in {**snapshot.counters, **snapshot.gauges}.items() if v}


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


def told(*addresses, key=KEY, reason=""):
    return {"op": "dns_host", "cache": "outside", "host": key, "addresses": list(addresses), "reason": reason}


def request(key=KEY, config=CONFIG):
    return {"op": "resolve", "target": asdict(target_of(config, f"outside\0{key}"))}


def test_a_host_is_resolved_once_and_all_workers_are_told(world):
    world.ask()
    world.ask(worker=1)
    assert world.asked == [request()]
    world.answer("10.0.0.1")
    assert [worker.told for worker in world.workers] == [[told("10.0.0.1")]] * 2
    assert world.run.generation.dns_caches["outside"].hosts[KEY].addresses == ("10.0.0.1",)
    assert world.members == ["up"]
    world.answer("10.0.0.1", results=("success", "no_rebuild"))
    assert len(world.workers[0].told) == 1
    assert world.figures() == {
        "dns_query_attempt": 2,
        "dns_query_success": 2,
        "host_added": 1,
        "host_address_changed": 1,
        "num_hosts": 1,
    }


def test_who_asks_late_is_told_at_once(world):
    world.ask()
    world.answer("10.0.0.1")
    world.workers.append(Worker(world.run))
    world.ask(worker=2)
    assert world.workers[2].told == [told("10.0.0.1")]
    assert len(world.asked) == 1


def test_a_full_cache_takes_no_more(monkeypatch):
    world = World(monkeypatch, max_hosts=1)
    world.ask()
    world.ask("b.test:80", worker=1)
    assert world.workers[1].told == [told(key="b.test:80", reason=OVERFLOW)]
    assert world.workers[0].told == []
    assert world.figures()["host_overflow"] == 1


def test_what_nobody_uses_is_forgotten(monkeypatch):
    world = World(monkeypatch, host_ttl_s=10.0)
    for key in (KEY, "b.test:80"):
        world.ask(key)
        world.answer("10.0.0.1", key=key)
    world.loop.advance(8.0)
    world.served["dns_used"](world.workers[0], {"cache": "outside", "hosts": [KEY, "c.test:80"]})
    world.loop.advance(8.0)
    assert world.asked[-1] == {"op": "forget", "host": "outside\0b.test:80"}
    assert world.workers[1].told[-1] == {"op": "dns_gone", "cache": "outside", "host": "b.test:80"}
    assert list(world.run.generation.dns_caches["outside"].hosts) == [KEY]
    assert (world.figures()["host_removed"], world.figures()["num_hosts"]) == (1, 1)
    world.loop.advance(30.0)
    assert "num_hosts" not in world.figures()
    assert world.loop.next_deadline() == NEVER
    world.answer("10.0.0.9")  # on its way when the host was forgotten
    assert KEY not in world.run.generation.dns_caches["outside"].hosts


def test_a_host_without_an_answer_is_not_forgotten(monkeypatch):
    world = World(monkeypatch, host_ttl_s=10.0)
    world.ask()
    world.loop.advance(30.0)
    world.answer("10.0.0.1")
    assert world.workers[0].told == [told("10.0.0.1")]


def test_a_new_resolver_is_told_everything(world):
    world.ask()
    world.ask("b.test:80")
    sent = []
    world.resolvers.on_start(sent.append)
    assert sent == [request(), request("b.test:80")]


def test_the_next_generation_knows_what_this_one_does(world):
    world.ask()
    world.answer("10.0.0.1")
    after = world.make()
    world.caches.on_made(after)
    assert after.generation.dns_caches["outside"].hosts[KEY].addresses == ("10.0.0.1",)
    other = world.make(DnsCacheConfig("outside", "V6_ONLY"))
    world.caches.on_made(other)
    assert other.generation.dns_caches["outside"].hosts == {}


def test_who_waits_is_answered_when_a_cache_has_another_configuration(world):
    world.ask()
    world.ask("b.test:80")
    world.answer("10.0.0.2", key="b.test:80")
    other = DnsCacheConfig("outside", "V6_ONLY", max_hosts=1)
    world.caches.on_made(world.make(other))
    assert world.asked[-1] == request(config=other)
    world.answer("10.0.0.1")
    assert world.workers[0].told[-1] == told("10.0.0.1")


def test_who_waits_is_refused_when_the_cache_has_room_for_fewer(world):
    world.ask()
    world.ask("b.test:80")
    world.caches.on_made(world.make(DnsCacheConfig("outside", "V6_ONLY", max_hosts=1)))
    (refused,) = world.workers[0].told
    assert refused["reason"] == OVERFLOW


def test_a_target_survives_json():
    target = replace(target_of(CONFIG, f"outside\0{KEY}"), resolvers=(("192.0.2.53", 53), ("::1", 54)))
    assert target_from(json.loads(json.dumps(asdict(target)))) == target


def test_hosts_that_are_named_beforehand(monkeypatch):
    world = World(monkeypatch, preresolve=(("a.test", 80), ("::1", 81)))
    assert world.asked == [request(), request("[::1]:81")]


@pytest.mark.parametrize(
    ("results", "reason", "counted"),
    [
        (("failure",), "SERVFAIL", ["dns_query_failure"]),
        (("failure",), "cares_norecords:Domain_name_not_found", ["dns_query_success"]),
        (("failure", "timeout"), "resolve_timeout", ["dns_query_failure", "dns_query_timeout"]),
    ],
)
def test_failures(world, results, reason, counted):
    world.ask()
    world.answer(reason=reason, results=results)
    assert world.workers[0].told == [told(reason=reason)]
    assert world.figures() == dict.fromkeys(["dns_query_attempt", *counted, "host_added", "num_hosts"], 1)
