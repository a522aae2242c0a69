"""One token bucket over several workers, with real processes."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.support import bootstrap
from tests.support.forkproxy import Forkproxy
from tests.support.held_upstream import WaitingDownstreams, until
from tests.support.proxy import free_ports

TOKENS = 30


def text(ports):
    """Every request takes a token, and there are no more before tomorrow."""
    always = {"default_value": {"numerator": 100}}
    limit = {
        "@type": bootstrap.TYPE + "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "limit",
        "token_bucket": {"max_tokens": TOKENS, "fill_interval": "86400s"},
        "filter_enabled": always,
        "filter_enforced": always,
    }
    answer = {"match": {"prefix": "/"}, "direct_response": {"status": 200}}
    filters = [
        {"name": "limit", "typed_config": limit},
        {"name": "router", "typed_config": {"@type": bootstrap.ROUTER}},
    ]
    manager = bootstrap.hcm({"virtual_hosts": [bootstrap.vhost(answer)]}, http_filters=filters)
    return bootstrap.render(bootstrap.bootstrap([manager], []), ports)


class Running:
    """forkproxy with so many workers."""

    def __init__(self, workers):
        self.ports = dict(zip(("admin", "main"), free_ports(2), strict=True))
        kind = type("Several", (Forkproxy,), {"workers": workers})
        self.proxy = kind(text(self.ports), admin_port=self.ports["admin"])
        self.proxy.start()

    def passed(self, count):
        """How many of ``count`` requests at once, on connections of their own, are let through."""
        downstreams = WaitingDownstreams(self.ports["main"])
        downstreams.send(count)
        statuses = downstreams.statuses(count)
        downstreams.leave()
        assert set(statuses) <= {200, 429}
        return statuses.count(200)

    def workers(self):
        """The pids of those that serve."""
        listed = json.loads(self.proxy.admin("/workers")[1])["workers"]
        return {each["pid"] for each in listed if each["state"] == "ready"}

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.proxy.close()


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_take_from_one_bucket(workers):
    with Running(workers) as running:
        assert TOKENS <= running.passed(3 * TOKENS) <= TOKENS + workers - 1
        assert running.passed(20) == 0
        counters = running.proxy.counters
        until(lambda: counters()["limit.http_local_rate_limit.enabled"] == 3 * TOKENS + 20)


def test_it_stays_empty_when_workers_are_killed_and_replaced():
    with Running(2) as running:
        assert running.passed(20) == 20
        before = running.workers()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        until(lambda: len(running.workers() - before) == 2)
        left = TOKENS - 20
        assert left <= running.passed(20) <= left + 1
        replaced = running.workers()
        running.proxy.process.send_signal(signal.SIGHUP)
        until(lambda: len(running.workers() - replaced) == 2)
        assert running.passed(20) == 0
