"""Which of a route's ``weighted_clusters`` a request takes: by chance, by a number in a header, or by the route's hash.

All three are a number modulo the sum of the weights, so that one number always means one cluster.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from forkproxy.config.build.core import Where
from forkproxy.config.build.route import ForwardAction
from forkproxy.config.problems import ConfigError
from forkproxy.router.hash_policy import compile_hash_policies
from forkproxy.router.matcher import Dice, fair

if TYPE_CHECKING:
    from forkproxy.http.stream import Stream
    from forkproxy.router.table import Route

Pick = Callable[["Stream"], "Route"]

_NUMBER: Final = re.compile(rb"\s*\+?([0-9]+)\s*")
_LARGEST: Final = (1 << 64) - 1


def compile_pick(action: ForwardAction, choices: Sequence[Route], where: Where, dice: Dice = fair) -> Pick:
    """``choices``: one Route per cluster of ``action.weighted_clusters``. ConfigError when nothing has a weight."""
    weights = [cluster.weight for cluster in action.weighted_clusters]
    # A cluster of weight 0 is never taken; bisect would take it if it stood last.
    taken = tuple(choice for choice, weight in zip(choices, weights, strict=True) if weight)
    if not taken:
        message = "the weights of weighted_clusters must add up to more than 0"
        raise ConfigError(where.path, where.line, where.column, message)
    bounds = list(accumulate(weight for weight in weights if weight))
    total = bounds[-1]
    draw = dice(total)

    def by_chance(_stream: Stream) -> Route:
        return taken[bisect_right(bounds, int(draw() * total))]

    if action.weighted_header:
        return _by_header(action.weighted_header.encode(), taken, bounds, by_chance)
    hash_of = compile_hash_policies(action.hash_policies, cookies=False) if action.weighted_by_hash else None
    if hash_of is None:
        return by_chance

    def by_hash(stream: Stream) -> Route:
        found = hash_of(stream)
        return by_chance(stream) if found is None else taken[bisect_right(bounds, found % total)]

    return by_hash


def _by_header(name: bytes, taken: Sequence[Route], bounds: Sequence[int], otherwise: Pick) -> Pick:
    total = bounds[-1]

    def by_header(stream: Stream) -> Route:
        values = [value for key, value in stream.request_headers if key == name]
        # Several lines, or no number that fits into 64 bits: it is left to chance.
        number = _NUMBER.fullmatch(values[0]) if len(values) == 1 else None
        if number is None or len(number[1]) > 40 or int(number[1]) > _LARGEST:
            return otherwise(stream)
        return taken[bisect_right(bounds, int(number[1]) % total)]

    return by_header
