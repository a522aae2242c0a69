"""The supervisor's own statistics, and memory as the kernel counts it."""

import os

import pytest

from forkproxy.config.build.bootstrap import AdminConfig, BootstrapConfig, ForkproxyConfig, NodeConfig
from forkproxy.stats.counters import Registry
from forkproxy.supervisor import figures
from forkproxy.supervisor.figures import OwnFigures, memory_of, memory_of_one
from tests.support.echo_program import listener


def bootstrap(**listeners):
    return BootstrapConfig(
        admin=AdminConfig(), node=NodeConfig(), listeners=tuple(listener(n, a) for n, a in listeners.items()), clusters=(),
        forkproxy=ForkproxyConfig(), config_dump={}, runtime={"a": 1},
    )  # fmt: skip


@pytest.fixture
def registry():
    return Registry()


def test_generations_are_counted_by_what_changed(registry):
    own = OwnFigures(registry)
    first = bootstrap(a="127.0.0.1:1", b="127.0.0.1:2")
    own.on_generation(None, first)
    own.on_generation(first, bootstrap(b="127.0.0.1:3", c="127.0.0.1:4"))
    snapshot = registry.read([])
    shown = {name: snapshot.counters[f"listener_manager.listener_{name}"] for name in ("added", "removed", "modified")}
    assert shown == {"added": 3, "removed": 1, "modified": 1}
    assert snapshot.gauges["listener_manager.total_listeners_active"] == 2
    assert snapshot.counters["runtime.load_success"] == 2


def test_the_server_s_state(registry):
    own = OwnFigures(registry)
    own.on_ready(0.25)
    own.update(state="DRAINING", uptime_s=3.7, workers=2, connections=5, version=7)
    snapshot = registry.read([])
    shown = {
        name: snapshot.gauges[f"server.{name}"]
        for name in ("state", "live", "uptime", "concurrency", "total_connections", "version")
    }
    assert shown == {"state": 1, "live": 0, "uptime": 3, "concurrency": 2, "total_connections": 5, "version": 7}
    assert snapshot.histograms["server.initialization_time_ms"].cumulative.count == 1


def test_memory_of_one_process(monkeypatch):
    proportional = memory_of_one(os.getpid())
    assert proportional > 1_000_000
    assert memory_of_one(1 << 22) is None
    # Hidden: what it has resident, shared pages and all.
    monkeypatch.setattr(figures, "memory_of", lambda pids: (0, 0))
    assert memory_of_one(os.getpid()) > 1_000_000


def test_memory_of_this_process_and_of_none():
    anonymous, proportional = memory_of([os.getpid(), 1 << 22])
    assert anonymous > 1_000_000
    assert proportional > 1_000_000
    assert memory_of([1 << 22]) == (0, 0)
