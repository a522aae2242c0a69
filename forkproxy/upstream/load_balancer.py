"""Choosing an endpoint: ROUND_ROBIN, LEAST_REQUEST and RANDOM, as Envoy does them.

``compile_picker`` is called whenever the set of endpoints changes and returns the cheapest callable that does the job; a
request only calls that. (Envoy: "Supported load balancers", "Priority levels", "Panic threshold".)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from heapq import heapify, heapreplace
from itertools import cycle, islice

from forkproxy.upstream import health
from forkproxy.upstream.endpoint import Endpoint

Picker = Callable[[], Endpoint | None]

PANIC_THRESHOLD = 0.5
"""Below this share of healthy endpoints health is ignored (Envoy's default healthy_panic_threshold of 50 %)."""


MAX_HEAD_START = 256
"""How many turns of a weighted schedule a worker may be ahead when it starts."""


def pick_none() -> None:
    """The picker of a cluster without endpoints."""
    return


def candidates(endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    """Those that may be chosen: the first priority that has enough healthy ones; all of them in panic."""
    by_priority: dict[int, list[Endpoint]] = {}
    for endpoint in endpoints:
        if not endpoint.health_flags & health.EDS_STATUS_DRAINING:
            by_priority.setdefault(endpoint.config.priority, []).append(endpoint)
    for priority in sorted(by_priority):
        level = by_priority[priority]
        healthy = [endpoint for endpoint in level if health.coarse(endpoint.health_flags) == health.HEALTHY]
        if healthy and len(healthy) >= PANIC_THRESHOLD * len(level):
            return healthy
    if not by_priority:
        return []
    return by_priority[min(by_priority)]


def compile_picker(policy: str, endpoints: Sequence[Endpoint], choice_count: int = 2) -> Picker:
    """The callable that chooses the endpoint of one request; None when there is none."""
    chosen = candidates(endpoints)
    if not chosen:
        return pick_none
    if len(chosen) == 1:
        only = chosen[0]
        return lambda: only
    weighted = len({endpoint.weight for endpoint in chosen}) > 1
    if policy == "RANDOM":
        return _random(chosen)
    if policy == "LEAST_REQUEST":
        return _weighted_least_request(chosen) if weighted else _least_request(chosen, choice_count)
    return _weighted_round_robin(chosen) if weighted else _round_robin(chosen)


def _round_robin(endpoints: list[Endpoint]) -> Picker:
    # Each worker starts somewhere else, so that N workers do not all begin with the first endpoint.
    start = random.randrange(len(endpoints))
    return cycle([*islice(endpoints, start, None), *islice(endpoints, start)]).__next__


def _random(endpoints: list[Endpoint]) -> Picker:
    # Envoy's RANDOM does not look at weights.
    draw = random.random
    count = len(endpoints)
    return lambda: endpoints[int(draw() * count)]


def _weighted_round_robin(endpoints: list[Endpoint]) -> Picker:
    return _earliest_deadline(endpoints, lambda endpoint: 1.0 / endpoint.weight)


def _least_request(endpoints: list[Endpoint], choice_count: int) -> Picker:
    draw = random.random
    count = len(endpoints)

    def pick() -> Endpoint:
        best = endpoints[int(draw() * count)]
        for _ in range(choice_count - 1):
            other = endpoints[int(draw() * count)]
            if other.stats.rq_active < best.stats.rq_active:
                best = other
        return best

    return pick


def _weighted_least_request(endpoints: list[Endpoint]) -> Picker:
    # Weight / (active requests + 1) at each turn (Envoy: active_request_bias 1).
    return _earliest_deadline(endpoints, lambda endpoint: (endpoint.stats.rq_active + 1.0) / endpoint.weight)


def _earliest_deadline(endpoints: list[Endpoint], interval: Callable[[Endpoint], float]) -> Picker:
    """Whose turn is due first; the next one comes ``interval(endpoint)`` later. Ties go by the order of the turns before."""
    queue = [(interval(endpoint), order, endpoint) for order, endpoint in enumerate(endpoints)]
    heapify(queue)
    order = len(endpoints)

    def pick() -> Endpoint:
        nonlocal order
        deadline, _, endpoint = queue[0]
        order += 1
        heapreplace(queue, (deadline + interval(endpoint), order, endpoint))
        return endpoint

    # Workers start at different places of the schedule; weights may be millions, so not just anywhere in it.
    for _ in range(random.randrange(min(sum(endpoint.weight for endpoint in endpoints), MAX_HEAD_START))):
        pick()
    return pick
