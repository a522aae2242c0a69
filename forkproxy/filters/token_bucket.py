"""Token buckets that all workers take from: one limit for the whole host.

A bucket holds at most ``max_tokens`` and fills evenly, as Envoy's do: ``tokens_per_fill`` in every ``fill_interval``, one by
one. It is full at first.

Python has no atomic operation on shared memory, so there is no number of tokens that all workers change. The tokens follow from
what only grows (stats/shared.py, ``SharedLedger``): how many each worker has taken, and the *mark*, the moment at which a bucket
that nobody had ever found full would have had to begin to fill to hold what this one holds:

    tokens = (now − mark) · rate − taken by all

A worker that finds more than ``max_tokens`` moves the mark forward by what has run over. It computes that from a sum that may
be old, but never too large by what is not taken yet: a mark of it is never beyond the true one, and the highest counts.

What this is worth: no token is ever lost or found twice, and what workers take in any time t is at most

    max_tokens + t · rate + (workers − 1) · the largest number that is taken at once

because a worker looks first and takes then, and each of the others may do so in that moment. What was taken too much is a debt:
it comes back out of the next tokens. A worker that dies, drains or is replaced takes nothing along. While an upgrade hands over
to a new program, the old one's workers and the new one's have a bucket each.
"""

from __future__ import annotations

from typing import Protocol

_CLOCK_ZERO = 1 << 62
"""The clock's zero on the scale of marks: a ledger's cells begin as 0, and a bucket that takes long to fill begins long ago."""


class Ledger(Protocol):
    """What has been taken, and the mark in nanoseconds: ``stats.shared.SharedLedger``, or OwnLedger."""

    def spend(self, amount: int) -> None:
        """More is taken."""

    def spent(self) -> int:
        """What was taken."""

    def raise_mark(self, mark: int) -> None:
        """This process knows of a higher mark."""

    def mark(self) -> int:
        """The highest mark."""


class OwnLedger:
    """The ledger of a bucket that one process has for itself."""

    __slots__ = ("_mark", "_spent")

    def __init__(self) -> None:
        self._spent = 0
        self._mark = 0

    def spend(self, amount: int) -> None:
        """More is taken."""
        self._spent += amount

    def spent(self) -> int:
        """What was taken."""
        return self._spent

    def raise_mark(self, mark: int) -> None:
        """The mark is this one now."""
        self._mark = mark

    def mark(self) -> int:
        """The mark."""
        return self._mark


class TokenBucket:
    """See the module's text. ``now`` is ``loop.now``: seconds of the clock that all processes of a machine share.

    Whole numbers throughout, in units in which a token is ``fill_interval`` in nanoseconds and a nanosecond ``tokens_per_fill``.
    """

    __slots__ = ("_capacity", "_ledger", "_per_fill", "_token", "fill_rate", "max_tokens")

    def __init__(self, max_tokens: int, tokens_per_fill: int, fill_interval_ms: int, ledger: Ledger) -> None:
        self.max_tokens = max_tokens
        self.fill_rate = tokens_per_fill * 1000 / fill_interval_ms
        """Tokens per second."""
        self._ledger = ledger
        self._per_fill = tokens_per_fill
        self._token = fill_interval_ms * 1_000_000
        self._capacity = max_tokens * self._token

    def __repr__(self) -> str:
        return f"<TokenBucket of {self.max_tokens}, {self.fill_rate:g}/s>"

    def _level(self, now: float) -> int:
        now_ns = int(now * 1e9) + _CLOCK_ZERO
        ledger = self._ledger
        mark = ledger.mark()
        level = (now_ns - mark) * self._per_fill - ledger.spent() * self._token
        over = level - self._capacity
        if over <= 0:
            return level
        if over >= self._per_fill:
            ledger.raise_mark(mark + over // self._per_fill)
        return self._capacity

    def take(self, now: float, amount: int = 1) -> bool:
        """Take ``amount`` tokens if there are as many. Nobody gets none, as in Envoy."""
        if not amount or self._level(now) < amount * self._token:
            return False
        self._ledger.spend(amount)
        return True

    def remaining(self, now: float) -> int:
        """How many there are."""
        return max(0, self._level(now)) // self._token

    def next_s(self, now: float) -> float:
        """In how many seconds there is one; 0.0: there is."""
        missing = self._token - self._level(now)
        return max(0.0, missing / self._per_fill / 1e9)
