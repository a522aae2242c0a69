"""Exceptions in filters: all are counted; worker/exception_log.py says which are told, and how."""

from __future__ import annotations

from forkproxy import log
from forkproxy.stats.counters import CounterValue
from forkproxy.worker.exception_log import ExceptionLog

_log = log.get_logger("filter")


class FilterFailures:
    """``counter``: ``forkproxy.filter_exception``."""

    def __init__(self, counter: CounterValue) -> None:
        self._counter = counter
        self._log = ExceptionLog(_log)

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
        self._log.report(event, error, subject=filter_name, filter=filter_name)
