"""Asking all workers to bring their slabs up to date, for a page that shows figures of now."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from forkproxy.supervisor.slot import WorkerHandle


class Refreshes:
    """Rounds of asking that are under way. A worker that has gone, or that was not ready, is not waited for."""

    def __init__(self) -> None:
        self._next = 0
        self._waiting: dict[int, tuple[set[int], Callable[[], None]]] = {}

    def ask(self, workers: Iterable[WorkerHandle], done: Callable[[], None]) -> None:
        """Ask the ready ones of ``workers``; ``done()`` is called once, when all have answered."""
        asked = [worker for worker in workers if worker.ready and not worker.aborted_at]
        if not asked:
            done()
            return
        self._next += 1
        self._waiting[self._next] = ({worker.pid for worker in asked}, done)
        for worker in asked:
            worker.channel.send({"op": "flush", "round": self._next})

    def on_flushed(self, pid: int, round_number: int) -> None:
        """A worker has answered."""
        waiting = self._waiting.get(round_number)
        if waiting is not None:
            waiting[0].discard(pid)
            self._finish()

    def on_gone(self, pid: int) -> None:
        """A worker will not answer any more."""
        for pids, _done in self._waiting.values():
            pids.discard(pid)
        self._finish()

    def _finish(self) -> None:
        for number in [number for number, (pids, _done) in self._waiting.items() if not pids]:
            _pids, done = self._waiting.pop(number)
            done()
