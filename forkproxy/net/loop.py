"""A worker's loop: poll, dispatch, flush what was written, run what is due.

The rules: everything runs on one thread, nothing blocks. A descriptor that is closed during a pass stays open in the kernel
until the pass ends, so that no event of this pass can reach a newcomer that was given the same number.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from time import monotonic
from typing import Protocol

from forkproxy.net.poller import Poller
from forkproxy.net.sockets import RawSocket
from forkproxy.net.splice import PipePool
from forkproxy.net.timers import Timer, Timers

MAX_EVENTS = 256
MAX_WAIT_S = 60.0


class Flushable(Protocol):
    """What may stand in ``loop.pending``: sends its buffered bytes at the end of the pass."""

    def flush(self) -> None: ...


class Loop:
    """Single-threaded event loop.

    ``now`` is the monotonic time in seconds at which the current pass began: the clock of everything on the request path.
    ``on_exception(exception, callback)`` is called for an exception that left ``callback``; the loop goes on.
    """

    __slots__ = (
        "_graveyard",
        "_soon",
        "_timers",
        "_wall_offset",
        "_wall_offset_until",
        "handlers",
        "now",
        "on_exception",
        "on_pass",
        "pending",
        "pipes",
        "poller",
        "running",
    )

    def __init__(self, on_exception: Callable[[Exception, object], None]) -> None:
        self.poller = Poller()
        self.handlers: dict[int, Callable[[int], None]] = {}
        self.pending: list[Flushable] = []
        self.now = monotonic()
        self.on_exception = on_exception
        self.on_pass: Callable[[float], None] | None = None
        """Called once per pass with ``now``, after the events: the worker's heartbeat."""
        self.running = False
        self._timers = Timers()
        self.pipes = PipePool(self._timers)
        self._soon: list[Callable[[], None]] = []
        self._graveyard: list[RawSocket] = []
        self._wall_offset = 0.0
        self._wall_offset_until = 0.0

    # -- descriptors

    def register(self, fd: int, mask: int, handler: Callable[[int], None]) -> None:
        """Call ``handler(mask)`` whenever ``fd`` is ready for what ``mask`` asks."""
        self.poller.register(fd, mask)
        self.handlers[fd] = handler

    def modify(self, fd: int, mask: int) -> None:
        """Ask for something else of a registered descriptor (0.5–1 µs: never per request)."""
        self.poller.modify(fd, mask)

    def unregister(self, fd: int) -> None:
        """Forget a descriptor; unknown ones are no error."""
        if self.handlers.pop(fd, None) is not None:
            self.poller.unregister(fd)

    def close_later(self, sock: RawSocket) -> None:
        """Forget and close a socket at the end of this pass (see the module's text)."""
        self.unregister(sock.fileno())
        self._graveyard.append(sock)

    # -- time

    def wall(self) -> float:
        """Seconds since the epoch at ``now``. The offset is read anew every second, so a stepped clock is followed."""
        if self.now >= self._wall_offset_until:
            self._wall_offset = time.time_ns() / 1e9 - monotonic()
            self._wall_offset_until = self.now + 1.0
        return self.now + self._wall_offset

    def timer(self, callback: Callable[[], None]) -> Timer:
        """A disarmed timer on this loop's clock."""
        return Timer(self._timers, callback)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call ``callback()`` once, ``delay_s`` seconds from now; ``cancel()`` the returned timer to prevent it."""
        timer = Timer(self._timers, callback)
        timer.arm(self.now + delay_s)
        return timer

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call ``callback()`` later in this pass (or at once in the next), outside of whatever runs now."""
        self._soon.append(callback)

    # -- running

    def run(self) -> None:
        """Run until ``stop()``."""
        self.running = True
        while self.running:
            self.run_once()

    def stop(self) -> None:
        """End ``run()`` after the current pass."""
        self.running = False

    def run_once(self, max_wait_s: float = MAX_WAIT_S) -> None:
        """One pass: wait at most ``max_wait_s`` for events, then handle everything that is ready or due."""
        heap = self._timers.heap
        if self._soon or self.pending:
            wait = 0.0
        elif heap:
            wait = heap[0][0] - monotonic()
            if wait > max_wait_s:
                wait = max_wait_s
            elif wait < 0.0:
                wait = 0.0
        else:
            wait = max_wait_s
        events = iter(self.poller.poll(wait, MAX_EVENTS))
        self.now = monotonic()
        handlers = self.handlers
        handler: object = None
        while True:
            # The try stands outside the loop over the events: it costs nothing per event, and after an exception the same
            # iterator carries on with the next event.
            try:
                for fd, mask in events:
                    handler = on_event = handlers.get(fd)
                    if on_event is not None:
                        on_event(mask)
                break
            except Exception as exception:  # noqa: BLE001 — the one place for it: an error ends one callback, not the worker
                self.on_exception(exception, handler)
        self._finish_pass()

    def _finish_pass(self) -> None:
        # Flushing may fail a connection, whose callbacks may write to others or ask for a call soon; a timer may do either.
        # Go round until nothing is left; timers that are armed meanwhile wait for the next pass.
        heap = self._timers.heap
        mark = self._timers.mark() if heap and heap[0][0] <= self.now else 0
        while True:
            if self.pending:
                pending = self.pending
                self.pending = []
                self._flush(iter(pending))
            elif self._soon:
                soon = self._soon
                self._soon = []
                self.call_all(soon)
            elif heap and heap[0][0] <= self.now and heap[0][1] < mark:
                self.call_all((partial(self._timers.run_due, self.now, mark),))
            else:
                break
        if self.on_pass is not None:
            self.on_pass(self.now)
        if self._graveyard:
            for sock in self._graveyard:
                sock.close()
            self._graveyard.clear()

    def _flush(self, connections: Iterator[Flushable]) -> None:
        connection: object = None
        while True:
            try:
                for flushable in connections:
                    connection = flushable
                    flushable.flush()
                return
            except Exception as exception:  # noqa: BLE001 — as in run_once
                self.on_exception(exception, connection)

    def call_all(self, callbacks: Iterable[Callable[[], None]]) -> None:
        """Call each ``callback()``; one that raises goes to ``on_exception`` and keeps no other from its turn."""
        calls = iter(callbacks)
        call: object = None
        while True:
            try:
                for callback in calls:
                    call = callback
                    callback()
                return
            except Exception as exception:  # noqa: BLE001 — as in run_once
                self.on_exception(exception, call)

    def close(self) -> None:
        """Give the poller back. Descriptors that are still registered stay open: their owners close them."""
        for sock in self._graveyard:
            sock.close()
        self._graveyard.clear()
        self.handlers.clear()
        self.pipes.close()
        self.poller.close()
