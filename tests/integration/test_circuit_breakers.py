"""One limit over several workers, with real processes."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from tests.support import bootstrap
from tests.support.forkproxy import Forkproxy
from tests.support.held_upstream import HeldUpstream, WaitingDownstreams, until
from tests.support.proxy import free_ports

LIMIT = 4


class Running:
    """forkproxy with so many workers, and one cluster with the limits ``fields``."""

    def __init__(self, workers, **fields):
        self.upstream = HeldUpstream()
        self.fields = fields
        self.ports = {**dict(zip(("admin", "main"), free_ports(2), strict=True)), "up": self.upstream.port}
        kind = type("Several", (Forkproxy,), {"workers": workers})
        self.proxy = kind(self.text(), admin_port=self.ports["admin"])
        self.downstreams = WaitingDownstreams(self.ports["main"])
        try:
            self.proxy.start()
        except BaseException:
            self.upstream.stop()
            raise

    def text(self):
        limits = {"circuit_breakers": {"thresholds": [self.fields]}}
        routes = bootstrap.vhost(bootstrap.route("/", "up", action={"timeout": "60s"}))
        filters = [bootstrap.hcm({"virtual_hosts": [routes]})]
        return bootstrap.render(bootstrap.bootstrap(filters, [bootstrap.cluster("up", "up", **limits)]), self.ports)

    def stats(self):
        prefix = "cluster.up."
        return {name.removeprefix(prefix): value for name, value in self.proxy.counters().items()}

    def workers_with_requests(self):
        """The worker processes that have connections to the upstream: pid → how many."""
        found = {}
        for pid in self.proxy.pids()[1:]:
            count = sum(
                1
                for each in psutil.Process(pid).net_connections("tcp")
                if each.raddr and each.raddr.port == self.upstream.port and each.status == psutil.CONN_ESTABLISHED
            )
            if count:
                found[pid] = count
        return found

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.downstreams.leave()
        self.proxy.close()
        self.upstream.stop()


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_keep_one_limit_of_requests(workers):
    with Running(workers, max_requests=LIMIT, track_remaining=True) as running:
        upstream, downstreams = running.upstream, running.downstreams
        downstreams.send(40)
        until(lambda: upstream.held + downstreams.answered() == 40)
        admitted = upstream.held
        assert LIMIT <= admitted <= LIMIT + workers - 1
        assert {message.status for message in downstreams.answers(40 - admitted)} == {503}
        stats = running.stats()
        assert stats["circuit_breakers.default.rq_open"] == 1
        assert stats["circuit_breakers.default.remaining_rq"] == 0
        assert stats["upstream_rq_active_overflow"] == 40 - admitted
        # What one worker gives back another one takes, without a moment in which more are let in.
        for _ in range(5):
            upstream.release(admitted)
            assert set(downstreams.statuses(admitted)) == {200}
            admitted = 0
            while admitted < LIMIT:
                downstreams.send(1)
                until(lambda sent=admitted + 1: upstream.held + downstreams.answered() == sent)
                assert not downstreams.answered()
                admitted += 1
            downstreams.send(1)
            assert downstreams.statuses(1) == [503]


def test_workers_keep_one_limit_of_connections():
    with Running(2, max_connections=2, max_pending_requests=3) as running:
        upstream, downstreams = running.upstream, running.downstreams
        for number in range(1, 21):
            downstreams.send(1)
            until(
                lambda number=number: upstream.held + downstreams.answered()
                + running.stats()["upstream_rq_pending_active"] == number
            )  # fmt: skip
        # A worker that has none gets a connection all the same, as each of Envoy's threads does.
        assert upstream.open in (2, 3)
        assert running.stats()["upstream_rq_pending_active"] == 3
        assert downstreams.answered() == 20 - upstream.open - 3
        upstream.release_all()
        downstreams.answers(20)


def test_a_killed_worker_gives_back_what_it_held():
    with Running(2, max_requests=LIMIT) as running:
        upstream, downstreams = running.upstream, running.downstreams
        while len(running.workers_with_requests()) < 2 or upstream.held < LIMIT:
            downstreams.send(1)
            until(lambda: upstream.held + downstreams.answered() >= LIMIT or downstreams.answered() == 0)
            if upstream.held == LIMIT and len(running.workers_with_requests()) < 2:
                upstream.release(LIMIT)  # chance has given all of them to one
                until(lambda: not upstream.held)
        victim = next(iter(running.workers_with_requests()))
        os.kill(victim, signal.SIGKILL)
        until(lambda: victim not in psutil.pids() or psutil.Process(victim).status() == psutil.STATUS_ZOMBIE)
        until(lambda: len(running.workers_with_requests()) == 1)
        left = next(iter(running.workers_with_requests().values()))
        downstreams.leave()
        fresh = WaitingDownstreams(running.ports["main"])
        upstream.release_all()
        until(lambda: running.stats()["upstream_rq_active"] == 0)
        upstream.hold()
        for _ in range(LIMIT):
            fresh.send(1)
        until(lambda: upstream.held == LIMIT)
        assert left < LIMIT
        fresh.send(1)
        assert fresh.statuses(1) == [503]
        fresh.leave()


def test_a_reload_counts_old_and_new_workers_together():
    with Running(1, max_requests=LIMIT) as running:
        upstream, downstreams = running.upstream, running.downstreams
        downstreams.send(3)
        until(lambda: upstream.held == 3)
        before = set(running.proxy.pids())
        running.proxy.process.send_signal(signal.SIGHUP)
        until(lambda: set(running.proxy.pids()) - before)
        until(lambda: running.stats()["server.live"] == 1 and running.proxy.ready())

        downstreams.send(1)
        until(lambda: upstream.held == LIMIT)
        downstreams.send(1)
        assert downstreams.statuses(1) == [503]
        upstream.release_all()
        assert downstreams.statuses(LIMIT) == [200] * LIMIT


def test_a_worker_that_is_added_keeps_the_same_limit():
    with Running(1, max_requests=LIMIT) as running:
        upstream, downstreams = running.upstream, running.downstreams
        downstreams.send(LIMIT - 1)
        until(lambda: upstream.held == LIMIT - 1)
        running.proxy.process.send_signal(signal.SIGTTIN)
        until(lambda: running.stats()["server.concurrency"] == 2)
        downstreams.send(20)
        until(lambda: upstream.held + downstreams.answered() == LIMIT - 1 + 20)
        assert LIMIT <= upstream.held <= LIMIT + 1
        running.proxy.process.send_signal(signal.SIGTTOU)
        upstream.release_all()
        downstreams.answers(LIMIT - 1 + 20)
        until(lambda: running.stats()["upstream_rq_active"] == 0)
        upstream.hold()
        for _ in range(LIMIT):
            downstreams.send(1)
        until(lambda: upstream.held == LIMIT)
        downstreams.send(1)
        assert downstreams.statuses(1) == [503]
