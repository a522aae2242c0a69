"""Hosts of ORIGINAL_DST clusters: known to all once one worker met them, gone when nobody uses them."""

from types import SimpleNamespace

import pytest

from forkproxy.config.build.original_dst import OriginalDstConfig
from forkproxy.net.timers import NEVER
from forkproxy.stats.counters import Registry
from forkproxy.stats.groups import ClusterStats, EndpointStats
from forkproxy.stats.slab import Slab
from forkproxy.supervisor.met_hosts import PEACE_S_PER_HOST, MetHosts
from forkproxy.upstream.dynamic_cluster import OriginalDstCluster
from tests.support.fakes import FakeLoop
from tests.support.playbook import cluster_config

A, B = ("192.0.2.1", 80), ("192.0.2.2", 80)


class Run:
    def __init__(self, **generation):
        self.generation = SimpleNamespace(**generation)


class World:
    def __init__(self):
        self.loop = FakeLoop()
        self.registry = Registry()
        self.registry.begin_generation()
        names = [f"cluster.up.endpoint.slot_{slot}" for slot in range(4)]
        self.figures = [self.registry.group(EndpointStats, name) for name in names]
        config = cluster_config(type="ORIGINAL_DST", localities=(), dynamic=OriginalDstConfig(), cleanup_interval_s=5.0)
        self.cluster = OriginalDstCluster(config, ClusterStats(), self.figures)
        self.run = Run(clusters={"up": self.cluster})
        self.slab = Slab.create(self.registry.cells)
        self.served = {}
        fleet = SimpleNamespace(serve=self.served.__setitem__, workers=lambda: [SimpleNamespace(slab=self.slab)])
        self.generations = SimpleNamespace(running=self.run, newest=self.run)
        self.told = []
        MetHosts(self.loop, self.registry, fleet, self.generations, self.set_endpoints)

    def set_endpoints(self, run, cluster, endpoints):
        assert run is self.run
        assert cluster == "up"
        self.cluster.set_resolved(endpoints)
        self.told.append([(entry["address"], entry["slot"]) for entry in endpoints])

    def met(self, address, run=None):
        worker = SimpleNamespace(run=run or self.run)
        self.served["host_met"](worker, {"cluster": "up", "address": list(address)})

    def flush(self):
        self.registry.flush(self.slab)


@pytest.fixture
def world():
    world = World()
    yield world
    world.slab.close()


def test_every_worker_is_told_of_every_host(world):
    world.met(A)
    world.loop.advance(PEACE_S_PER_HOST)
    world.met(B)
    world.loop.advance(2 * PEACE_S_PER_HOST)
    world.met(A)  # another worker, which had not heard of it yet
    assert world.told == [[(A, 0)], [(A, 0), (B, 1)], [(A, 0), (B, 1)]]


def test_the_more_hosts_there_are_the_less_often_everybody_is_told(world):
    for number in range(100):
        world.met(("192.0.2.9", number))
    assert len(world.told) == 1
    world.loop.advance(PEACE_S_PER_HOST)
    assert [len(told) for told in world.told] == [1, 100]
    world.met(A)
    world.loop.advance(98 * PEACE_S_PER_HOST)
    assert len(world.told) == 2
    world.loop.advance(3 * PEACE_S_PER_HOST)
    assert [len(told) for told in world.told] == [1, 100, 101]


def test_hosts_that_were_met_while_their_cluster_went(world):
    world.met(A)
    world.met(B)
    world.run.generation.clusters.clear()
    world.loop.advance(PEACE_S_PER_HOST)
    assert len(world.told) == 1


def test_a_worker_that_drains_keeps_its_hosts_to_itself(world):
    world.met(A, Run(clusters={"up": world.cluster}))
    assert world.told == []


def test_a_host_that_nobody_uses_goes(world):
    world.met(A)
    world.met(B)
    world.loop.advance(PEACE_S_PER_HOST)
    world.figures[0].cx_total += 1
    world.figures[0].cx_active += 1
    world.figures[1].cx_total += 1
    world.flush()
    world.loop.advance(5.0 - PEACE_S_PER_HOST)
    assert len(world.told) == 2  # both have had a connection since they were met
    world.loop.advance(5.0)
    assert world.told[2:] == [[(A, 0)]]
    world.figures[0].cx_active -= 1
    world.figures[0].rq_total += 1
    world.flush()
    world.loop.advance(5.0)
    assert len(world.told) == 3
    world.loop.advance(5.0)
    assert world.told[3:] == [[]]
    assert world.loop.next_deadline() == NEVER


def test_a_cluster_that_is_gone_is_looked_at_no_more(world):
    world.met(A)
    world.run.generation.clusters.clear()
    world.loop.advance(5.0)
    assert world.loop.next_deadline() == NEVER
