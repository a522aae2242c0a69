"""Turns over a flat list of endpoints: ROUND_ROBIN, LEAST_REQUEST and RANDOM, as Envoy takes them.

``scheduler`` returns the cheapest callable that does the job. Endpoints of different weights, and those in slow start, wait in
a queue for their earliest deadline. (Envoy: "Supported load balancers", "Slow start mode".)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from heapq import heapify, heapreplace
from itertools import cycle, islice
from typing import TypeVar

from forkproxy.config.build.load_balancing import LoadBalancingConfig, SlowStart
from forkproxy.net.loop import Loop
from forkproxy.upstream import health
from forkproxy.upstream.active_requests import Scan
from forkproxy.upstream.endpoint import Endpoint

Picker = Callable[[], Endpoint | None]
Weigh = Callable[[Endpoint], float]
T = TypeVar("T")

MAX_HEAD_START = 256
"""How many turns of a weighted schedule a worker may be ahead when it starts."""


def pick_none() -> None:
    """Where there is nobody to choose."""
    return


def scheduler(
    config: LoadBalancingConfig,
    endpoints: Sequence[Endpoint],
    loop: Loop | None,
    on_slow_start_over: Callable[[], None],
) -> Picker:
    """The callable that chooses one of ``endpoints``; None when there is none.

    ``on_slow_start_over`` is called by the first pick after the last slow start has ended: from then on a cheaper scheduler
    will do.
    """
    if not endpoints:
        return pick_none
    if len(endpoints) == 1:
        only = endpoints[0]
        return lambda: only
    if config.policy == "RANDOM":
        return _random(endpoints)
    slow_until = _slow_start_end(config.slow_start, endpoints, loop)
    if not slow_until and len({endpoint.weight for endpoint in endpoints}) == 1:
        if config.policy != "LEAST_REQUEST":
            return _round_robin(endpoints)
        if config.full_scan:
            return _full_scan(endpoints, Scan(endpoints, loop))
        return _least_request(endpoints, config.choice_count)
    weigh = _weight if config.policy != "LEAST_REQUEST" else _by_requests(config.active_request_bias)
    total = sum(endpoint.weight for endpoint in endpoints)
    if not slow_until or config.slow_start is None or loop is None:
        return earliest_deadline(endpoints, weigh, total)
    queue = earliest_deadline(endpoints, _slowly(weigh, config.slow_start, loop), total)

    def pick() -> Endpoint:
        if loop.now >= slow_until:
            on_slow_start_over()
        return queue()

    return pick


def _round_robin(endpoints: Sequence[Endpoint]) -> Picker:
    # Each worker starts somewhere else, so that N workers do not all begin with the first endpoint.
    start = random.randrange(len(endpoints))
    return cycle([*islice(endpoints, start, None), *islice(endpoints, start)]).__next__


def _random(endpoints: Sequence[Endpoint]) -> Picker:
    # Envoy's RANDOM does not look at weights.
    draw = random.random
    count = len(endpoints)
    return lambda: endpoints[int(draw() * count)]


def _least_request(endpoints: Sequence[Endpoint], choice_count: int) -> Picker:
    draw = random.random
    count = len(endpoints)

    def pick() -> Endpoint:
        best = endpoints[int(draw() * count)]
        least = best.stats.rq_active_of_all
        for _ in range(choice_count - 1):
            other = endpoints[int(draw() * count)]
            active = other.stats.rq_active_of_all
            if active < least:
                best, least = other, active
        return best

    return pick


def _full_scan(endpoints: Sequence[Endpoint], scan: Scan) -> Picker:
    draw = random.random

    def pick() -> Endpoint:
        active = scan()
        least = min(active)
        free = [endpoint for endpoint, number in zip(endpoints, active, strict=True) if number == least]
        return free[int(draw() * len(free))]

    return pick


def _weight(endpoint: Endpoint) -> float:
    return endpoint.weight


def _by_requests(bias: float) -> Weigh:
    if bias == 1.0:
        return lambda endpoint: endpoint.weight / (endpoint.stats.rq_active_of_all + 1.0)
    if bias == 0.0:
        return _weight
    return lambda endpoint: endpoint.weight / (endpoint.stats.rq_active_of_all + 1.0) ** bias


def earliest_deadline(items: Sequence[T], weigh: Callable[[T], float], turns: int) -> Callable[[], T]:
    """Whose turn is due first; the next one comes 1 / weight later. Ties go by the order of the turns before.

    Begins at a random place among the first ``turns``, so that workers do not all begin with the first item.
    """
    queue = [(1.0 / weigh(item), order, item) for order, item in enumerate(items)]
    heapify(queue)
    order = len(items)

    def pick() -> T:
        nonlocal order
        deadline, _, item = queue[0]
        order += 1
        heapreplace(queue, (deadline + 1.0 / weigh(item), order, item))
        return item

    # Weights may be millions, so not just anywhere in the schedule.
    for _ in range(random.randrange(min(max(turns, 1), MAX_HEAD_START))):
        pick()
    return pick


# Slow start


def _slow_start_end(slow_start: SlowStart | None, endpoints: Sequence[Endpoint], loop: Loop | None) -> float:
    """When the last of the endpoints has left its slow start; 0.0 when nobody is in one."""
    if slow_start is None or loop is None:
        return 0.0
    last = max(
        (each.healthy_since for each in endpoints if health.coarse(each.health_flags) == health.HEALTHY), default=0.0
    )
    end = last + slow_start.window_s
    return end if end > loop.now else 0.0


def _slowly(weigh: Weigh, slow_start: SlowStart, loop: Loop) -> Weigh:
    window_ms = slow_start.window_s * 1000
    least = slow_start.min_weight
    exponent = 1.0 / slow_start.aggression

    def weigh_slowly(endpoint: Endpoint) -> float:
        full = weigh(endpoint)
        elapsed_ms = int((loop.now - endpoint.healthy_since) * 1000)
        if elapsed_ms >= window_ms or health.coarse(endpoint.health_flags) != health.HEALTHY:
            return full
        factor: float = (max(elapsed_ms, 1) / window_ms) ** exponent
        return full * max(factor, least)

    return weigh_slowly
