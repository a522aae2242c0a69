"""How many downstream connections there may be, over all workers together: of all listeners, and of each.

A connection beyond a limit is closed as soon as it is accepted, as in Envoy. Workers count in shared cells (stats/shared.py), so
two that accept in the same moment may both let one in: at most one too many for each further worker. The cells keep their names
over reloads: the connections of workers that drain count.
"""

from __future__ import annotations

from typing import NamedTuple

from forkproxy.config.build.listener import ListenerConfig
from forkproxy.config.build.overload import GlobalConnectionLimits
from forkproxy.net.address import SocketAddress
from forkproxy.net.connection import Connection
from forkproxy.net.sockets import RawSocket
from forkproxy.stats.shared import SharedCells, SharedNumber
from forkproxy.upstream.circuit_breakers import Limit
from forkproxy.worker.listener import Listener

KIND = "downstream_cx"


class ListenerLimits(NamedTuple):
    """``everyone``: the global limit that holds for the listener; ``own``: its own; ``counted``: where its connections count."""

    everyone: Limit | None = None
    own: Limit | None = None
    counted: tuple[Limit, ...] = ()


class ConnectionLimits:
    """The limits of one generation in one process; built in the supervisor, like everything that workers share."""

    def __init__(self, config: GlobalConnectionLimits, shared: SharedCells) -> None:
        self._shared = shared
        self._all: Limit | None = None
        self._monitored: Limit | None = None
        self._total: SharedNumber | None = None
        if config.by_key is not None:
            self._total = shared.number(KIND, "")
            self._all = Limit(config.by_key, self._total, exact=True)
        if config.by_monitor is not None:
            self._monitored = Limit(config.by_monitor, shared.number(KIND, "monitored"), exact=True)

    def are_reached(self) -> bool:
        """In the supervisor: there are as many connections as the runtime key allows."""
        return self._all is not None and self._total is not None and self._total.total() >= self._all.maximum

    def of(self, config: ListenerConfig) -> ListenerLimits:
        """The limits for a listener."""
        own: Limit | None = None
        if config.connection_limit is not None:
            own = Limit(config.connection_limit, self._shared.number(KIND, f"listener {config.name}"), exact=True)
        is_monitored = self._monitored is not None and not config.bypass_overload_manager
        by = self._monitored if is_monitored else self._all
        everyone = None if config.ignore_global_conn_limit else by
        # Exempt connections count with the runtime key and not with the monitor, as in Envoy.
        counts = everyone if is_monitored else by
        counted = [limit for limit in (counts, own) if limit is not None]
        return ListenerLimits(everyone, own, tuple(counted))


class LimitedListener(Listener):
    """A Listener with limits."""

    limits = ListenerLimits()

    def take(self, accepted: RawSocket, peer: SocketAddress) -> None:
        """Serve an accepted connection, if there may be one more."""
        everyone, own, counted = self.limits
        if everyone is not None and everyone.is_full():
            self.stats.downstream_global_cx_overflow += 1
        elif own is not None and own.is_full():
            self.stats.downstream_cx_overflow += 1
        else:
            for limit in counted:
                limit.add()
            unmatched = self.stats.no_filter_chain_match
            super().take(accepted, peer)
            if self.stats.no_filter_chain_match != unmatched:
                self._release()
            return
        accepted.close()
        if self.share is not None:
            self.share.count(len(self.connections))

    def on_connection_closed(self, connection: Connection, started: float) -> None:
        """One less."""
        super().on_connection_closed(connection, started)
        self._release()

    def _release(self) -> None:
        for limit in self.limits.counted:
            limit.remove()
