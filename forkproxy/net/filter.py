"""The contracts of network (L4) and listener filters, and the compiled chain that runs them.

A filter object is made once per configuration entry and worker and shared by all its connections; what belongs to one
connection lives in ``connection.filter_state[self]``. Hooks are plain calls and never block. A chain is compiled from the
hooks that a subclass really overrides: what nobody overrides is not called. An exception in a hook is reported with the
filter's name and ends that one connection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final

from forkproxy.net.connection import Connection
from forkproxy.net.tls import TlsConnection

READ: Final = "READ"
WRITE: Final = "WRITE"
READ_WRITE: Final = "READ_WRITE"


class StopIterationStatus:
    """The type of STOP_ITERATION, so that hooks can be annotated."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "STOP_ITERATION"


STOP_ITERATION: Final = StopIterationStatus()
"""What a hook returns to hold the chain at itself; the filter goes on later by ``continue_reading`` / ``continue_decoding``."""

HookResult = StopIterationStatus | None
DataResult = StopIterationStatus | bytes | None


class NetworkFilter:
    """Base of network filters. Every hook here does nothing: override what you need and declare ``direction``.

    ``direction``: READ (overrides on_data), WRITE (overrides on_write) or READ_WRITE (both); checked at load.
    ``terminal``: the last filter of a chain, and only the last, is terminal: it consumes the data.
    """

    direction: ClassVar[str] = READ
    terminal: ClassVar[bool] = False

    @classmethod
    def from_config(cls, config: Any, context: Any) -> NetworkFilter:
        """Make the filter, in the supervisor. ``config``: the extension's dataclass, or a plain dict for third parties.

        ``context``: ``forkproxy.filters.context.FilterContext``. Raises ConfigError when the filter cannot work.
        """
        return cls()

    def start(self, worker: Any) -> None:
        """Called once in each worker, before any connection. ``worker``: ``forkproxy.filters.context.WorkerContext``."""

    def stop(self) -> None:
        """Called once when the worker drains: no new connection comes."""

    def on_new_connection(self, connection: Connection) -> HookResult:
        """A connection was accepted (before TLS is done)."""
        return None

    def on_data(self, connection: Connection, data: bytes, end_stream: bool) -> DataResult:
        """Bytes from downstream. None passes them on, bytes replace them, STOP_ITERATION keeps them until continue_reading."""
        return None

    def on_write(self, connection: Connection, data: bytes, end_stream: bool) -> DataResult:
        """Bytes towards downstream, in reverse order of the chain. Results as for on_data."""
        return None

    def on_close(self, connection: Connection, reason: str) -> None:
        """The connection is gone (``forkproxy.net.connection`` names the reasons)."""

    def reader(self, connection: Connection) -> Callable[[bytes], None] | None:
        """For a terminal filter with an object per connection: that object's own read callable, instead of on_data calls.

        Called before on_new_connection. Sets ``connection.on_end`` when the filter wants half-close. It may leave that object as
        ``connection.session``: in a chain of this filter alone its ``on_close(reason)`` is called instead of the filter's.
        """
        return None


class ListenerFilter:
    """Base of listener filters, which look at a connection's first bytes before a filter chain is chosen."""

    max_read_bytes: ClassVar[int] = 0

    @classmethod
    def from_config(cls, config: Any, context: Any) -> ListenerFilter:
        """As NetworkFilter.from_config."""
        return cls()

    def on_accept(self, accepted: Any) -> HookResult:
        """A socket was accepted."""
        return None

    def on_data(self, accepted: Any, peeked: bytes) -> HookResult:
        """Up to ``max_read_bytes`` bytes, peeked: they stay in the socket."""
        return None


def overrides(filter_object: object, base: type, hook: str) -> bool:
    """Does the filter's class really override ``hook``?"""
    return getattr(type(filter_object), hook) is not getattr(base, hook)


def check_direction(filter_class: type[NetworkFilter]) -> str:
    """ "" when the declared direction agrees with the hooks that are overridden, else what is wrong."""
    reads = filter_class.on_data is not NetworkFilter.on_data or filter_class.reader is not NetworkFilter.reader
    writes = filter_class.on_write is not NetworkFilter.on_write
    direction = filter_class.direction
    if direction not in (READ, WRITE, READ_WRITE):
        return f"direction is {direction!r}, not READ, WRITE or READ_WRITE"
    if writes and direction == READ:
        return "overrides on_write but declares direction READ"
    if reads and direction == WRITE:
        return "overrides on_data but declares direction WRITE"
    if direction in (WRITE, READ_WRITE) and not writes:
        return f"declares direction {direction} but does not override on_write"
    return ""


class NetworkFilterChain:
    """The compiled chain of one filter chain entry. ``attach`` wires a new connection to it."""

    __slots__ = ("_closers", "_only_reader", "_report", "_writes", "filters")

    def __init__(self, filters: Sequence[NetworkFilter], report: ReportException | None = None) -> None:
        """``report`` is told of exceptions in hooks; without it they leave the callback that met them."""
        self.filters = tuple(filters)
        self._report = report
        self._writes = tuple(f for f in reversed(filters) if overrides(f, NetworkFilter, "on_write"))
        self._closers = tuple(f for f in filters if overrides(f, NetworkFilter, "on_close"))
        only = self.filters[0] if len(self.filters) == 1 else None
        self._only_reader = only if only is not None and overrides(only, NetworkFilter, "reader") else None

    @property
    def has_write_filters(self) -> bool:
        """Connections of this chain must be made by WriteFilteredConnection or WriteFilteredTlsConnection."""
        return bool(self._writes)

    def attach(self, connection: Connection) -> None:
        """Give the connection its state and callbacks, and tell the filters of it. Before ``connection.start()``.

        ``connection.on_close`` is the chain's afterwards: whoever else must know of the end (the listener) wraps it.
        """
        if isinstance(connection, (WriteFilteredConnection, WriteFilteredTlsConnection)):
            connection.write_filters = self._writes
        if self._only_reader is not None:
            # The usual chain: one terminal filter, whose object for the connection reads the bytes itself.
            reader = self._only_reader.reader(connection)
            if reader is not None:
                connection.on_data = reader
                if connection.session is not None:
                    connection.on_close = connection.session.on_close
                elif self._closers:
                    connection.on_close = _Closer(self._closers, connection)
                self._only_reader.on_new_connection(connection)
                return
        if self._closers:
            connection.on_close = _Closer(self._closers, connection)
        pipeline = ReadPipeline(self.filters, connection)
        connection.filter_state[READ] = pipeline
        connection.filter_state[_REPORT] = self._report
        pipeline.start()


ReportException = Callable[[str, Exception], None]
"""(the filter's class name, what it raised)."""
_REPORT: Final = "report"


def _fail(connection: Connection, filter_object: NetworkFilter, error: Exception) -> None:
    """A hook raised: nobody knows what state that connection is in."""
    _tell(connection, filter_object, error)
    connection.abort()


def _tell(connection: Connection, filter_object: NetworkFilter, error: Exception) -> None:
    report: ReportException | None = connection.filter_state.get(_REPORT)
    if report is None:
        raise error
    report(type(filter_object).__qualname__, error)


class _Closer:
    __slots__ = ("_closers", "_connection")

    def __init__(self, closers: tuple[NetworkFilter, ...], connection: Connection) -> None:
        self._closers = closers
        self._connection = connection

    def __call__(self, reason: str) -> None:
        connection = self._connection
        for filter_object in self._closers:
            # The others must hear of it: what they hold for this connection is released there.
            try:
                filter_object.on_close(connection, reason)
            except Exception as error:
                _tell(connection, filter_object, error)


class ReadPipeline:
    """One connection's way through the filters of a chain; keeps what a filter holds.

    As in Envoy, STOP_ITERATION from ``on_new_connection`` holds back the new connection and the data from the filters after.
    """

    __slots__ = (
        "_connection",
        "_end_stream",
        "_filters",
        "_held",
        "_held_bytes",
        "_hooks",
        "_paused",
        "_started",
        "_stopped_at",
    )

    def __init__(self, filters: Sequence[NetworkFilter], connection: Connection) -> None:
        self._connection = connection
        self._filters = tuple(filters)
        # Made for all at once: a reader may say that the connection is half-closed before the filter is told of it.
        self._hooks = [_read_hook(f, connection) for f in filters]
        self._started = 0
        self._stopped_at = -1
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._paused = False
        self._end_stream = False

    def start(self) -> None:
        """Tell the filters of the connection, as far as none stops."""
        self._connection.on_data = self.on_data
        self._connection.on_end = self.on_end
        self._start_from(0)

    def _start_from(self, first: int) -> bool:
        # True when every filter has been told.
        connection = self._connection
        for index in range(first, len(self._filters)):
            self._started = index + 1
            filter_object = self._filters[index]
            try:
                result = filter_object.on_new_connection(connection)
            except Exception as error:
                _fail(connection, filter_object, error)
                return False
            if result is STOP_ITERATION and not connection.closed:
                self._stopped_at = index
                return False
            if connection.closed:
                return False
        return True

    def on_data(self, data: bytes) -> None:
        """Bytes from the connection."""
        if self._stopped_at < 0:
            self._run(0, data, False)
        else:
            self._hold(data)

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > self._connection.high_watermark and not self._paused:
            self._paused = True
            self._connection.pause_reading()

    def on_end(self) -> None:
        """The peer's end of data."""
        self._end_stream = True
        if self._stopped_at < 0:
            self._run(0, b"", True)

    def continue_reading(self) -> None:
        """The filter that returned STOP_ITERATION lets go: what was held passes on to the next filter."""
        start = self._stopped_at + 1
        if start == 0 or self._connection.closed:
            return
        self._stopped_at = -1
        if start >= self._started and not self._start_from(self._started):
            return
        data = b"".join(self._held)
        self._held.clear()
        self._held_bytes = 0
        if self._paused:
            self._paused = False
            self._connection.resume_reading()
        if data or self._end_stream:
            self._run(start, data, self._end_stream)

    def _run(self, start: int, data: bytes, end_stream: bool) -> None:
        connection = self._connection
        for index in range(start, len(self._hooks)):
            hook = self._hooks[index]
            if hook is None:
                continue
            try:
                result = hook(connection, data, end_stream)
            except Exception as error:
                _fail(connection, self._filters[index], error)
                return
            if connection.closed:
                return
            if result is None:
                continue
            if isinstance(result, bytes):
                data = result
            else:
                if index + 1 < len(self._hooks):
                    self._stopped_at = index
                    if data:
                        self._hold(data)
                return


_ReadHook = Callable[[Connection, bytes, bool], DataResult]


def _read_hook(filter_object: NetworkFilter, connection: Connection) -> _ReadHook | None:
    if overrides(filter_object, NetworkFilter, "reader"):
        reader = filter_object.reader(connection)
        if reader is not None:
            return _ReaderHook(reader, connection)
    return filter_object.on_data if overrides(filter_object, NetworkFilter, "on_data") else None


class _ReaderHook:
    # A terminal filter's reader inside a longer pipeline. ``reader`` has set connection.on_end for itself: kept from there.
    __slots__ = ("_on_end", "_reader")

    def __init__(self, reader: Callable[[bytes], None], connection: Connection) -> None:
        self._reader = reader
        self._on_end = connection.on_end

    def __call__(self, _connection: Connection, data: bytes, end_stream: bool) -> DataResult:
        if data:
            self._reader(data)
        if end_stream:
            self._on_end()
        return None


def continue_reading(connection: Connection) -> None:
    """For a network filter that had returned STOP_ITERATION on ``connection``: go on with the filters after it."""
    pipeline = connection.filter_state.get(READ)
    if isinstance(pipeline, ReadPipeline):
        pipeline.continue_reading()


def inject_write(connection: Connection, filter_object: NetworkFilter, data: bytes) -> None:
    """For a WRITE filter: send ``data`` from its own place in the chain, as if it had returned it from on_write."""
    if isinstance(connection, (WriteFilteredConnection, WriteFilteredTlsConnection)):
        connection.write_from(connection.write_filters.index(filter_object) + 1, data, False)


class _WriteFilters(Connection):
    # The mixin of the two transports: what ``write`` is given passes the filters first.
    __slots__ = ()

    write_filters: tuple[NetworkFilter, ...]

    def write(self, data: bytes) -> None:
        """Run the write filters, then send what they leave."""
        if not (self.closing or self.closed or self.end_sent):
            self.write_from(0, data, False)

    def end_write(self) -> None:
        """Tell the write filters of the end, send what they answer, then half-close."""
        if not (self.closing or self.closed or self.end_sent):
            self.write_from(0, b"", True)

    def write_from(self, first: int, data: bytes, end_stream: bool) -> None:
        """Run the write filters from the ``first`` on. The end of data passes even where a filter keeps the data."""
        for filter_object in self.write_filters[first:]:
            try:
                result = filter_object.on_write(self, data, end_stream)
            except Exception as error:
                _fail(self, filter_object, error)
                return
            if self.closed:
                return
            if isinstance(result, bytes):
                data = result
            elif result is not None:
                data = b""
                if not end_stream:
                    return
        if data:
            super().write(data)
        if end_stream:
            super().end_write()


class WriteFilteredConnection(_WriteFilters, Connection):
    """A raw connection whose writes pass through the chain's write filters first."""

    __slots__ = ("write_filters",)

    write_filters: tuple[NetworkFilter, ...]


class WriteFilteredTlsConnection(_WriteFilters, TlsConnection):
    """The same under TLS: the filters see plain text."""

    __slots__ = ("write_filters",)

    write_filters: tuple[NetworkFilter, ...]
