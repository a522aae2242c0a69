"""The supervisor's own statistics, and memory as the kernel counts it."""

import os
from datetime import UTC, datetime, timedelta

import pytest

from forkproxy.config.build.bootstrap import AdminConfig, BootstrapConfig, ForkproxyConfig, NodeConfig, pack
from forkproxy.stats.counters import Registry
from forkproxy.supervisor import figures
from forkproxy.supervisor.figures import OwnFigures, memory_of, memory_of_one
from tests.support.echo_program import listener


def bootstrap(**listeners):
    return BootstrapConfig(
        admin=AdminConfig(), node=NodeConfig(), listeners=tuple(listener(n, a) for n, a in listeners.items()), clusters=(),
        forkproxy=ForkproxyConfig(), packed_dump=pack({}), runtime={"a": 1}, runtime_layers=2,
    )  # fmt: skip


@pytest.fixture
def registry():
    return Registry()


def test_generations_are_counted_by_what_changed(registry):
    own = OwnFigures(registry)
    first = bootstrap(a="127.0.0.1:1", b="127.0.0.1:2")
    own.on_generation(None, first, 2)
    own.on_generation(first, bootstrap(b="127.0.0.1:3", c="127.0.0.1:4"), 2)
    snapshot = registry.read([])
    shown = {name: snapshot.counters[f"listener_manager.listener_{name}"] for name in ("added", "removed", "modified")}
    assert shown == {"added": 3, "removed": 1, "modified": 1}
    assert snapshot.gauges["listener_manager.total_listeners_active"] == 2
    assert snapshot.counters["runtime.load_success"] == snapshot.counters["runtime.override_dir_not_exists"] == 2
    assert snapshot.counters["listener_manager.listener_create_success"] == 2 * 4


def test_the_server_s_state(registry):
    own = OwnFigures(registry)
    own.on_ready(0.25)
    own.update(state="DRAINING", uptime_s=3.7, workers=[0, 3], connections=5, version=7)
    snapshot = registry.read([])
    shown = {
        name: snapshot.gauges[f"server.{name}"]
        for name in ("state", "live", "uptime", "concurrency", "total_connections", "version")
    }
    assert shown == {"state": 1, "live": 0, "uptime": 3, "concurrency": 2, "total_connections": 5, "version": 7}
    assert snapshot.histograms["server.initialization_time_ms"].cumulative.count == 1


def test_threads_are_processes_here(registry):
    own = OwnFigures(registry)
    own.on_generation(None, bootstrap(a="127.0.0.1:1"), 2)
    own.update(state="LIVE", uptime_s=3.7, workers=[0, 3], connections=5, version=7)
    own.on_hang(3)
    snapshot = registry.read([])
    for thread in ("main_thread", "worker_0", "worker_3"):
        assert f"thread_local_cluster_manager.{thread}.clusters_inflated" in snapshot.gauges
    counters = snapshot.counters
    assert (counters["workers.watchdog_mega_miss"], counters["server.worker_3.watchdog_miss"]) == (1, 1)
    assert counters["server.worker_0.watchdog_miss"] == counters["main_thread.watchdog_miss"] == 0
    assert counters["http.async-client.rq_total"] == counters["http1.response_flood"] == 0


def test_what_takes_long_to_find_out(registry):
    own = OwnFigures(registry)
    memory = {"allocated": 1, "heap_size": 2, "physical_size": 3}
    days = []
    for ends in (None, datetime.now(UTC) + timedelta(days=3, hours=1), datetime.now(UTC) - timedelta(days=3)):
        own.update_rare(**memory, first_certificate_ends=ends)
        gauges = registry.read([]).gauges
        days.append(gauges["server.days_until_first_cert_expiring"])
    assert days == [(1 << 32) - 1, 3, 0]
    assert [gauges[f"server.memory_{kind}"] for kind in memory] == [1, 2, 3]


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
