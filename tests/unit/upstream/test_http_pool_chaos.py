"""Whatever happens, in whatever order: when everybody has gone, nothing counts against a limit any more."""

import errno
import random

import pytest

from forkproxy.config.build.circuit_breakers import CircuitBreakers, RetryBudget, Thresholds
from forkproxy.config.build.connection_pool import HttpOptions, PoolOptions
from forkproxy.config.build.retry import RetryPolicy
from forkproxy.upstream import health
from tests.support.playbook import play, route

CONFIGURED = frozenset(f"max_{name}" for name in ("connections", "pending_requests", "requests", "retries"))
TIGHT = Thresholds(3, 2, 4, 1, configured=CONFIGURED)
LIMITS = [
    CircuitBreakers(),
    CircuitBreakers(TIGHT, TIGHT),
    CircuitBreakers(Thresholds(max_connection_pools=1, max_connections_per_host=2)),
    CircuitBreakers(Thresholds(retry_budget=RetryBudget(50.0, 0))),
]
POOLS = [
    PoolOptions(),
    PoolOptions(preconnect_ratio=2.0),
    PoolOptions(predictive_ratio=2.0),
    PoolOptions(per_downstream=True),
    PoolOptions(http=HttpOptions(max_connection_duration_s=3, max_stream_duration_s=2)),
]
ANSWERS = [
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\n",
    b"garbage",
    b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
]


def act(p, draw):
    """One thing that can happen."""
    ups = [peer for peer in p.upstreams if not peer.closed]
    downs = [peer for peer in p.downstreams if not peer.closed]
    connecting = [peer for peer in ups if peer.connecting]
    standing = [peer for peer in ups if not peer.connecting]
    what = draw.randrange(12)
    if what < 3 or not downs:
        p.connect()
        method = draw.choice([b"GET", b"GET", b"POST"])
        path = draw.choice([b"/", b"/high/"])
        p.down.send(method + b" " + path + b" HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")
    elif what == 3:
        peer = draw.choice(downs)
        draw.choice([peer.end, peer.reset])()
    elif what == 4:
        draw.choice(downs).send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    elif what == 5 and connecting:
        draw.choice(connecting).refuse(errno.ECONNREFUSED)
    elif what in (5, 6) and connecting:
        draw.choice(connecting).accept()
    elif what in (7, 8) and standing:
        draw.choice(standing).send(draw.choice(ANSWERS))
    elif what == 9 and standing:
        peer = draw.choice(standing)
        draw.choice([peer.end, peer.reset])()
    elif what == 10:
        p.advance(draw.choice([0.1, 1.0, 6.0]))
    elif draw.random() < 0.3:
        address = draw.choice(p.cluster.endpoints).address
        flag = draw.choice([health.FAILED_ACTIVE_HC, health.FAILED_OUTLIER_CHECK])
        p.cluster.set_health_flags(address, **{draw.choice(["set", "clear"]): flag})
        p.run()


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("limits", LIMITS)
def test_nothing_is_left(limits, pool):
    policy = RetryPolicy(frozenset(("5xx",)), num_retries=2)
    for seed in range(6):
        draw = random.Random(seed)
        p = play(
            cluster={
                "circuit_breakers": limits,
                "pool": pool,
                "endpoints": 2,
                "idle_timeout_s": 5,
                "connect_timeout_s": 2,
            },
            routes=[route("/high/", is_high=True, retry_policy=policy), route(retry_policy=policy)],
        )
        p.auto_accept = draw.random() < 0.5
        for _ in range(120):
            act(p, draw)
        for peer in list(p.downstreams):
            if not peer.closed:
                peer.reset()
        p.cluster.drain()
        p.advance(60)
        assert [peer for peer in p.upstreams if not peer.closed] == []
        p.expect_quiet()
        assert p.cluster.connections == 0
        for breakers in (p.cluster.breakers, p.cluster.high_breakers()):
            counted = [breakers.connections, breakers.pending, breakers.retries, breakers.pools or breakers.retries]
            assert [limit.count for limit in counted] == [0, 0, 0, 0]
            assert not breakers.counts_requests or breakers.requests.count == 0
        assert [each.stats.cx_active for each in p.cluster.endpoints] == [0, 0]
        for endpoint in p.cluster.endpoints:
            assert endpoint.pool.host_connections is None or endpoint.pool.host_connections.count == 0
