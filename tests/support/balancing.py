"""Endpoints and load balancers without sockets."""

from __future__ import annotations

import json

from forkproxy.config.build.load_balancing import LoadBalancingConfig
from forkproxy.stats.groups import ClusterStats, EndpointStats
from forkproxy.upstream import health
from forkproxy.upstream.endpoint import Endpoint, ResolvedEndpoint
from forkproxy.upstream.load_balancer import LoadBalancer


def endpoint(name, weight=1, priority=0, flags=0, active=0, metadata=None, locality="", **fields):
    """An endpoint at <name>:80; ``locality``: its zone; ``fields`` are ResolvedEndpoint's."""
    made = Endpoint(
        ResolvedEndpoint(
            (name, 80),
            weight=weight,
            priority=priority,
            zone=locality,
            metadata=json.dumps(metadata) if metadata else "",
            **fields,
        ),
        EndpointStats(),
        lambda _: None,
    )
    made.health_flags = flags
    made.stats.rq_active = active
    return made


BAD = health.FAILED_ACTIVE_HC
DEGRADED = health.DEGRADED_ACTIVE_HC


def endpoints(text, **fields):
    """Endpoints of a word such as "aa!a~ b!": letters in the order of priorities (words), "!" unhealthy, "~" degraded,
    "-" excluded. They are called p0e0, p0e1, …, p1e0, ….
    """
    made = []
    for priority, word in enumerate(text.split(" ")):
        number = 0
        for character in word:
            if character.isalpha():
                made.append(endpoint(f"p{priority}e{number}", priority=priority, **fields))
                number += 1
            else:
                made[-1].health_flags |= {"!": BAD, "~": DEGRADED, "-": health.PENDING_ACTIVE_HC}[character]
    return made


def names(chosen):
    """The hosts of endpoints; None stays."""
    return [None if each is None else each.socket_address[0] for each in chosen]


def picks(pick, number):
    """The hosts of so many picks."""
    return names([pick() for _ in range(number)])


class TestBalancer:
    """A LoadBalancer whose current ``pick`` and ``choose`` are here, as a cluster has them."""

    __test__ = False

    def __init__(self, chosen, loop, config):
        self.stats = ClusterStats()
        self.balancer = LoadBalancer(config, self.stats, self._use)
        self.balancer.loop = loop
        self.choose = self.balancer.choose
        self.balancer.set_endpoints(chosen)
        self.balancer._compile()

    def _use(self, pick):
        self.pick = pick


def balancer(chosen, loop=None, **config):
    """A TestBalancer over ``chosen``; ``config``: fields of LoadBalancingConfig."""
    return TestBalancer(chosen, loop, LoadBalancingConfig(**config))
