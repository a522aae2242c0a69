"""Exceptions that nobody expected: logged so that their author finds the place, and the disk does not fill.

The first one of a subject, a place and a type comes with its traceback, later ones are a line each INTERVAL_S seconds.
"""

from __future__ import annotations

import traceback
from time import monotonic

from forkproxy.log import Logger

INTERVAL_S = 10.0


class ExceptionLog:
    """``total`` counts all of them, told or not."""

    def __init__(self, log: Logger) -> None:
        self.total = 0
        self._log = log
        self._last: dict[tuple[str, str, str], float] = {}

    def report(self, event: str, error: Exception, *, subject: str, **fields: object) -> None:
        """``subject``: whose exception it is, in whatever words tell one from another."""
        self.total += 1
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        kind = type(error).__name__
        key = (subject, place, kind)
        now = monotonic()
        last = self._last.get(key)
        if last is None:
            self._log.exception(event, error, **fields, place=place)
        elif now - last >= INTERVAL_S:
            self._log.error(event, **fields, place=place, reason=f"{kind}: {error}", total=self.total)
        else:
            return
        self._last[key] = now
