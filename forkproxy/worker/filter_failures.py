"""Exceptions in filters: counted, and logged so that their author finds the place and the disk does not fill.

The first one of a filter, a place and a type comes with its traceback, later ones are a line each INTERVAL_S seconds.
"""

from __future__ import annotations

import traceback
from time import monotonic

from forkproxy import log
from forkproxy.stats.counters import CounterValue

INTERVAL_S = 10.0

_log = log.get_logger("filter")


class FilterFailures:
    """``counter``: ``forkproxy.filter_exception``."""

    def __init__(self, counter: CounterValue) -> None:
        self._counter = counter
        self._last: dict[tuple[str, str, str], float] = {}

    def in_stream(self, filter_name: str, error: Exception) -> None:
        """An HTTP filter raised: its stream gets 500, or is broken off when the response is on its way."""
        self._report("a filter raised an exception: its stream ends with 500", filter_name, error)

    def in_connection(self, filter_name: str, error: Exception) -> None:
        """A network filter raised: its connection ends."""
        self._report("a filter raised an exception: its connection ends", filter_name, error)

    def on_stop(self, filter_name: str, error: Exception) -> None:
        """A filter's ``stop`` raised: the drain goes on."""
        self._report("a filter raised an exception as it was stopped", filter_name, error)

    def _report(self, event: str, filter_name: str, error: Exception) -> None:
        self._counter.value += 1
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        kind = type(error).__name__
        key = (filter_name, place, kind)
        now = monotonic()
        last = self._last.get(key)
        if last is None:
            _log.exception(event, error, filter=filter_name, place=place)
        elif now - last >= INTERVAL_S:
            _log.error(event, filter=filter_name, place=place, reason=f"{kind}: {error}", total=self._counter.value)
        else:
            return
        self._last[key] = now
