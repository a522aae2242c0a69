"""A loop whose clock the test advances, and connections that are only a record of what was done to them.

Both have the surface of ``forkproxy.net.loop.Loop`` and ``forkproxy.net.connection.Connection`` that code above the net
floor uses. Nothing here waits, and an exception in a callback reaches the test.
"""

from __future__ import annotations

from itertools import count

from forkproxy.net.connection import LOCAL_CLOSE, REMOTE_CLOSE, REMOTE_RESET, Connection
from forkproxy.net.loop import Loop
from forkproxy.net.timers import NEVER, Timers

_next_id = count(1).__next__


class FakeLoop(Loop):
    """``advance(seconds)`` moves the clock and runs what came due; ``settle()`` runs what was asked for "soon"."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.wall_offset = 1_700_000_000.0 - now
        self.handlers = {}
        self.masks = {}
        self.pending = []
        self.running = False
        self.on_pass = None
        self._timers = Timers()
        self._soon = []

    def wall(self):
        return self.now + self.wall_offset

    def timer(self, callback):
        return self._timers.timer(callback)

    def call_later(self, delay_s, callback):
        timer = self._timers.timer(callback)
        timer.arm(self.now + delay_s)
        return timer

    def call_soon(self, callback):
        self._soon.append(callback)

    def register(self, fd, mask, handler):
        self.handlers[fd] = handler
        self.masks[fd] = mask

    def modify(self, fd, mask):
        self.masks[fd] = mask

    def unregister(self, fd):
        self.handlers.pop(fd, None)
        self.masks.pop(fd, None)

    def close_later(self, sock):
        self.unregister(sock.fileno())
        sock.close()

    def stop(self):
        self.running = False

    def settle(self):
        """Run callbacks asked for soon and flush what was written, until nothing is left."""
        while self._soon or self.pending:
            soon, self._soon = self._soon, []
            pending, self.pending = self.pending, []
            for flushable in pending:
                flushable.flush()
            for callback in soon:
                callback()

    def advance(self, seconds=0.0):
        """Move the clock, stopping at every deadline on the way, as the real loop would."""
        self.settle()
        end = self.now + seconds
        while (deadline := self.next_deadline()) <= end:
            self.now = max(self.now, deadline)
            self._timers.run_due(self.now)
            self.settle()
        self.now = end

    def next_deadline(self):
        """When the next armed timer is due; NEVER without one."""
        return min((entry[2].deadline for entry in self._timers.heap), default=NEVER)


class FakeConnection(Connection):
    """``written`` is what the code under test sent. The test plays the peer: ``receive``, ``receive_end``, ``peer_closes``.

    ``state``: "open", "closing" (close asked, waiting for ``flush_all`` when ``hold_writes``) or "closed".
    """

    def __init__(self, loop=None, remote_address=("192.0.2.1", 40000), local_address=("192.0.2.2", 10000)):
        self.loop = loop or FakeLoop()
        self.id = _next_id()
        self.fd = -1
        self.sock = None
        self.remote_address = remote_address
        self.local_address = local_address
        self.tls = None
        self.requested_server_name = ""
        self.half_close = False
        self.high_watermark = 1024 * 1024
        self._filter_state = None
        self.session = None
        self.written = b""
        self.hold_writes = False
        """True: the peer does not read; what is written stays in ``out_bytes`` until ``flush_all``."""
        self.out_bytes = 0
        self.bytes_received = 0
        self.bytes_sent = 0
        self.read_pauses = 0
        self.closing = self.closed = self.end_received = self.end_sent = self.was_reset = self.started = False
        self.close_reason = ""
        self.error = None
        self.transport_failure_reason = ""
        self._above = False
        self._forget_callbacks()

    def _forget_callbacks(self):
        self.on_data = lambda data: None
        self.on_end = lambda: None
        self.on_close = lambda reason: None
        self.on_connected = lambda: None
        self.on_above_high_watermark = lambda: None
        self.on_below_low_watermark = lambda: None

    @property
    def state(self):
        return "closed" if self.closed else "closing" if self.closing else "open"

    def local_socket_address(self):
        return self.local_address

    # -- what the code under test does

    def start(self):
        self.started = True

    def start_connecting(self):
        self.started = True

    def write(self, data):
        if self.closing or self.closed or self.end_sent:
            return
        self.written += data
        if not self.hold_writes:
            self.bytes_sent += len(data)
            return
        self.out_bytes += len(data)
        if self.out_bytes > self.high_watermark and not self._above:
            self._above = True
            self.on_above_high_watermark()

    def pause_reading(self):
        self.read_pauses += 1

    def resume_reading(self):
        self.read_pauses -= 1
        assert self.read_pauses >= 0, "resumed more often than paused"

    def end_write(self):
        if not (self.closing or self.closed):
            self.end_sent = True
            if self.end_received and not self.out_bytes:
                self._close(REMOTE_CLOSE)

    def close(self):
        if self.closing or self.closed:
            return
        self.closing = True
        if not self.out_bytes:
            self._close(LOCAL_CLOSE)

    def close_lingering(self, timeout_s):
        self.close()

    def abort(self, reason=LOCAL_CLOSE):
        self._close(reason)

    def reset(self):
        if not self.closed:
            self.was_reset = True
            self._close(LOCAL_CLOSE)

    def _close(self, reason):
        if self.closed:
            return
        self.closed = True
        self.close_reason = reason
        on_close = self.on_close
        self._forget_callbacks()
        on_close(reason)
        self.session = self._filter_state = None

    # -- what the test does as the kernel and the peer

    def connect(self):
        """The connect that was started succeeds."""
        self.on_connected()

    def receive(self, data):
        assert not self.read_pauses, "data would not be read while reading is paused"
        assert not self.closed, "a closed connection reads nothing"
        self.bytes_received += len(data)
        self.on_data(data)

    def receive_end(self):
        """The peer's end of data."""
        self.end_received = True
        if not self.half_close or (self.end_sent and not self.out_bytes):
            self._close(REMOTE_CLOSE)
        else:
            self.on_end()

    def peer_closes(self, reason=REMOTE_RESET):
        self._close(reason)

    def flush_all(self):
        """The peer reads everything that was held."""
        self.bytes_sent += self.out_bytes
        self.out_bytes = 0
        self.hold_writes = False
        if self._above:
            self._above = False
            self.on_below_low_watermark()
        if self.closing:
            self._close(LOCAL_CLOSE)
        elif self.end_sent and self.end_received:
            self._close(REMOTE_CLOSE)
