"""Retries on other priorities than those tried before (``envoy.retry_priorities.previous_priorities``)."""

from __future__ import annotations

from collections.abc import Sequence

from forkproxy.upstream.endpoint import Endpoint
from forkproxy.upstream.levels import Level, Loads, availability


class PreviousPriorities:
    """For the attempts of one request: ``adjust`` is a PickContext's ``adjust_loads``.

    After every ``update_frequency`` attempts the priorities tried so far get nothing, and the others share the load by their
    health; when none of those has any, all begin anew.
    """

    __slots__ = ("_attempted", "_excluded", "_loads", "_priorities", "_update_frequency")

    def __init__(self, update_frequency: int) -> None:
        self._update_frequency = update_frequency
        self._attempted: list[Endpoint] = []
        self._priorities: list[int] = []
        self._excluded: set[int] = set()
        self._loads: Loads | None = None

    def note(self, endpoint: Endpoint) -> None:
        """It has been tried."""
        self._attempted.append(endpoint)

    def adjust(self, levels: Sequence[Level], loads: Loads) -> Loads:
        """The loads of the next attempt; ``loads`` itself when they are as ever."""
        self._priorities += [each.config.priority for each in self._attempted if each.config.priority < len(levels)]
        self._attempted.clear()
        if len(self._priorities) < self._update_frequency:
            return loads
        if len(self._priorities) % self._update_frequency == 0:
            self._excluded.update(self._priorities)
            shares = [availability(level) for level in levels]
            self._loads = self._without_excluded(shares, loads)
        return self._loads or loads

    def _without_excluded(self, shares: Sequence[tuple[int, int]], loads: Loads) -> Loads | None:
        left = [(0, 0) if at in self._excluded else share for at, share in enumerate(shares)]
        if not any(healthy or degraded for healthy, degraded in left):
            self._excluded.clear()
            self._priorities.clear()
            left = list(shares)
        total = min(sum(healthy + degraded for healthy, degraded in left), 100)
        if not total:
            return None
        adjusted = Loads([0] * len(left), [0] * len(left), loads.panic)
        rest = 100
        while rest:  # more than once: what rounding has left
            for which, found in enumerate((adjusted.healthy, adjusted.degraded)):
                for at, share in enumerate(left):
                    more = min(rest, share[which] * 100 // total)
                    found[at] += more
                    rest -= more
        return adjusted
