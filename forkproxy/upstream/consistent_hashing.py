"""Ring hash and maglev, entry for entry as Envoy builds them: a key goes to the same endpoint here and there.

Both are tables over *normalised weights*: (endpoint, its share of 1). A table is built once per set of healthy endpoints; a
pick on a ring is a bisect, on a maglev table an index. ``attempt`` > 0 asks for another endpoint for the same hash, as host
predicates of retries do. (Envoy: "Ring hash", "Maglev", "consistent_hashing_lb_config".)
"""

from __future__ import annotations

import math
import random
from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Final

from forkproxy.stats.counters import SharedGauge, StatGroup
from forkproxy.stats.groups import ClusterStats
from forkproxy.upstream.endpoint import Endpoint
from forkproxy.upstream.hashing import HashFunction, xxhash64, xxhash64_seed_1
from forkproxy.upstream.levels import ALL, HEALTHY, Level

Choose = Callable[[int, int], Endpoint | None]
"""(hash, attempt) → the endpoint."""
Shares = list[tuple[Endpoint, float]]

_WORD: Final = 1 << 64


class RingHashStats(StatGroup):
    """``cluster.<stat_name>.ring_hash_lb``: of the ring that was made last."""

    max_hashes_per_host: SharedGauge
    min_hashes_per_host: SharedGauge
    size: SharedGauge


class MaglevStats(StatGroup):
    """``cluster.<stat_name>.maglev_lb``: of the table that was made last."""

    max_entries_per_host: SharedGauge
    min_entries_per_host: SharedGauge


def hash_key(endpoint: Endpoint, *, use_hostname: bool) -> bytes:
    """What an endpoint is hashed by: ``hash_key`` of its metadata, else its address, else (if so configured) its hostname."""
    key = endpoint.lb_metadata.get("hash_key", "")
    if not isinstance(key, str) or not key:
        key = endpoint.hostname if use_hostname else endpoint.address
    return key.encode()


def normalised_shares(level: Level, *, in_panic: bool, locality_weighted: bool) -> Shares:
    """Each usable endpoint's share of its priority's load."""
    availability = ALL if in_panic else HEALTHY
    if not locality_weighted:
        return _shares(level.available(availability), 1.0)
    total = sum(locality.weight for locality in level.localities)
    found: Shares = []
    for locality in level.localities:
        if locality.weight:
            found += _shares(locality.available(availability), locality.weight / total)
    return found


def _shares(endpoints: Sequence[Endpoint], whole: float) -> Shares:
    total = sum(endpoint.weight for endpoint in endpoints)
    return [(endpoint, endpoint.weight * whole / total) for endpoint in endpoints]


def _none(_hash: int, _attempt: int) -> None:
    return None


def ring(
    shares: Shares,
    *,
    min_size: int,
    max_size: int,
    function: HashFunction,
    use_hostname: bool,
) -> tuple[Choose, dict[str, int]]:
    """A ketama ring, and its figures: ``size``, ``min_hashes_per_host``, ``max_hashes_per_host``."""
    if not shares:
        return _none, {}
    least = min(1.0, *[share for _, share in shares])
    scale = min(math.ceil(least * min_size) / least, float(max_size))
    entries: list[tuple[int, int, Endpoint]] = []
    numbers: list[int] = []
    target = 0.0
    for endpoint, share in shares:
        key = hash_key(endpoint, use_hostname=use_hostname) + b"_"
        # Sums that run over all endpoints: shares that are no whole numbers of hashes still add up.
        target += scale * share
        number = 0
        while len(entries) < target:
            entries.append((function(key + b"%d" % number), len(entries), endpoint))
            number += 1
        numbers.append(number)
    entries.sort()
    hashes = [entry[0] for entry in entries]
    endpoints = [entry[2] for entry in entries]
    size = len(hashes)

    def choose(hash_: int, attempt: int) -> Endpoint:
        at = bisect_left(hashes, hash_) + attempt
        return endpoints[at % size] if attempt else endpoints[at if at < size else 0]

    figures = {
        "size": size,
        "min_hashes_per_host": min(math.ceil(scale), *numbers),
        "max_hashes_per_host": max(numbers),
    }
    return choose, figures


def maglev(shares: Shares, *, table_size: int, use_hostname: bool) -> tuple[Choose, dict[str, int]]:
    """A maglev table, and its figures: ``min_entries_per_host``, ``max_entries_per_host``."""
    if not shares:
        return _none, {}
    entries = sorted(
        ((hash_key(endpoint, use_hostname=use_hostname), at) for at, (endpoint, _) in enumerate(shares)),
    )
    table, counts = _fill(
        [key for key, _ in entries], [shares[at][1] for _, at in entries], table_size, array("I", bytes(4 * table_size))
    )
    endpoints = [shares[at][0] for _, at in entries]

    def choose(hash_: int, attempt: int) -> Endpoint:
        if attempt:
            hash_ ^= _WORD - attempt
        return endpoints[table[hash_ % table_size]]

    return choose, {"min_entries_per_host": min(counts), "max_entries_per_host": max(counts)}


def _fill(keys: Sequence[bytes], shares: Sequence[float], size: int, table: array[int]) -> tuple[array[int], list[int]]:
    """Listing 1 of the maglev paper; an endpoint of a smaller share than the largest has its turn less often."""
    positions = [xxhash64(key) % size for key in keys]
    skips = [xxhash64_seed_1(key) % (size - 1) + 1 for key in keys]
    largest = max(shares)
    even = min(shares) == largest
    due = [0.0] * len(keys)
    counts = [0] * len(keys)
    taken = bytearray(size)
    filled = 0
    turn = 0
    everyone = range(len(keys))
    while filled < size:
        turn += 1
        for each in everyone:
            if not even:
                if turn * shares[each] < due[each]:
                    continue
                due[each] += largest
            at, skip = positions[each], skips[each]
            while taken[at]:
                at = (at + skip) % size
            taken[at] = 1
            table[at] = each
            positions[each] = (at + skip) % size
            counts[each] += 1
            filled += 1
            if filled == size:
                break
    return table, counts


class TableCache:
    """The tables that were made last: an endpoint that fails and comes back finds the one it was in.

    A maglev table of Envoy's default size takes 30 ms.
    """

    __slots__ = ("_kept", "_limit")

    def __init__(self, limit: int = 4) -> None:
        self._limit = limit
        self._kept: dict[tuple[object, ...], tuple[Shares, Choose, dict[str, int]]] = {}

    def get(
        self, shares: Shares, *, use_hostname: bool, make: Callable[[Shares], tuple[Choose, dict[str, int]]]
    ) -> tuple[Choose, dict[str, int]]:
        """The table over ``shares``, made unless there is one."""
        key = tuple([(id(each), hash_key(each, use_hostname=use_hostname), share) for each, share in shares])
        found = self._kept.pop(key, None)
        if found is None:
            found = (shares, *make(shares))
            if len(self._kept) == self._limit:
                del self._kept[next(iter(self._kept))]
        self._kept[key] = found
        return found[1:]


def bounded(choose: Choose, shares: Shares, balance_factor: int, stats: ClusterStats) -> Choose:
    """``hash_balance_factor``: no endpoint gets more than that many percent of its share of the requests in progress.

    The alternatives are tried in an order that is drawn from the hash, the same in Envoy (std::mt19937).
    """
    share_of = dict(shares)

    def overload(endpoint: Endpoint, share: float) -> float:
        slots = ((stats.upstream_rq_active_of_all + 1) * balance_factor + 99) // 100
        return endpoint.stats.rq_active_of_all / max(math.ceil(slots * share), 1)

    def choose_bounded(hash_: int, attempt: int) -> Endpoint | None:
        first = choose(hash_, attempt)
        if first is None:
            return None
        least = overload(first, share_of[first])
        if least <= 1.0:
            return first
        best = first
        draw = _mersenne_twister(hash_)
        order = list(range(len(shares)))
        for at in range(len(order)):
            other = at + _below(draw, len(order) - at)
            order[at], order[other] = order[other], order[at]
            endpoint, share = shares[order[at]]
            if endpoint is first:
                continue
            load = overload(endpoint, share)
            if load <= 1.0:
                return endpoint
            if load < least:
                best, least = endpoint, load
        return best

    return choose_bounded


def _mersenne_twister(seed: int) -> Callable[[], int]:
    """``std::mt19937(seed)``: the generator is Python's too, only seeded in another way."""
    state = [seed & 0xFFFFFFFF]
    for number in range(1, 624):
        before = state[-1]
        state.append((1812433253 * (before ^ before >> 30) + number) & 0xFFFFFFFF)
    generator = random.Random()
    generator.setstate((3, (*state, 624), None))
    return lambda: generator.getrandbits(32)


def _below(draw: Callable[[], int], limit: int) -> int:
    part = (1 << 32) // limit
    while True:
        found = draw() // part
        if found < limit:
            return found
