"""When a worker looks for garbage: the whole of it while nobody waits, by itself only what is young.

Reference counts free what connections and requests leave behind: the cycles that they make are broken when they end. What is
left for the collector are exceptions, and filters of third parties. A full collection looks at every object of every
connection, 15 to 40 ms for 10,000 of them, and by Python's rule it comes while connections are opened: just when many wait.
The two young generations take 1.5 ms at most, and still come by themselves.

What a look has found alive is not looked at again (``gc.freeze``), so that no look takes longer than what is new: 5 ms at most.
Where even that would take longer, all that is new is taken for alive. Reference counts free it all the same; only cycles in it
would stay, of which ours make none.
"""

from __future__ import annotations

import gc

YOUNG_THRESHOLDS = (700, 10)
"""Python's own."""
OLD_THRESHOLD = (1 << 31) - 1
"""So many collections of the young: never."""
ROUNDS = 10
"""After so many of them, Python's own number again, there may be something to find."""
MOST_NEW = 1000
"""Connections that a look may find new: 26 objects each, 170 ns an object."""
LONGEST_S = 3600.0
"""A worker that never has a quiet second looks all the same after this time."""


class Garbage:
    """Asked once in a while whether the moment is good."""

    __slots__ = ("_accepted", "_looked_at", "_work")

    def __init__(self) -> None:
        self._looked_at = 0.0
        self._accepted = 0
        self._work = 0

    def start(self, now: float) -> None:
        """In the worker, before its first connection. What was made until now is as lasting as what was made before the fork."""
        gc.freeze()
        gc.set_threshold(*YOUNG_THRESHOLDS, OLD_THRESHOLD)
        self._looked_at = now

    def look(self, now: float, accepted: int, requests: int, connections: int) -> None:
        """Collect if enough has come together and nothing has happened since the last call.

        ``accepted`` and ``requests`` are sums since the start, ``connections`` those that are open.
        """
        work = accepted + requests
        is_quiet = work == self._work
        self._work = work
        if gc.get_count()[2] < ROUNDS or not (is_quiet or now >= self._looked_at + LONGEST_S):
            return
        self._looked_at = now
        if min(connections, accepted - self._accepted) <= MOST_NEW:
            gc.collect()
        gc.freeze()
        self._accepted = accepted
