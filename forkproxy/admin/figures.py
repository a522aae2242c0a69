"""What the admin port counts of itself, as Envoy's does: ``http.admin`` and ``listener.admin``."""

from __future__ import annotations

from forkproxy.net.connection import REMOTE_CLOSE, REMOTE_RESET, Connection
from forkproxy.stats.counters import Registry
from forkproxy.stats.groups import AdminHttpStats, AdminListenerStats, ListenerHttpStats, ListenerWorkerStats


class AdminFigures:
    """The supervisor's own groups; times in seconds."""

    def __init__(self, registry: Registry) -> None:
        self._http = registry.local_group(AdminHttpStats, "http.admin")
        self._listener = registry.local_group(AdminListenerStats, "listener.admin")
        self._main_thread = registry.local_group(ListenerWorkerStats, "listener.admin.main_thread")
        prefix = "listener.admin.http.admin"
        self._codes = registry.local_group(ListenerHttpStats, prefix, rolls_up_to=("http.admin",)).downstream_rq

    def on_accepted(self, number: int) -> None:
        """So many connections were accepted at once."""
        self._listener.connections_accepted_per_socket_event[number] += 1

    def on_open(self) -> None:
        """A connection is served."""
        for group in (self._http, self._listener, self._main_thread):
            group.downstream_cx_total += 1
            group.downstream_cx_active += 1
        self._http.downstream_cx_http1_total += 1
        self._http.downstream_cx_http1_active += 1

    def on_close(self, connection: Connection, reason: str, lasted_s: float) -> None:
        """It is gone."""
        http, listener = self._http, self._listener
        for group in (http, listener, self._main_thread):
            group.downstream_cx_active -= 1
        http.downstream_cx_http1_active -= 1
        http.downstream_cx_destroy += 1
        listener.downstream_cx_destroy += 1
        if reason in (REMOTE_CLOSE, REMOTE_RESET):
            http.downstream_cx_destroy_remote += 1
        else:
            http.downstream_cx_destroy_local += 1
        http.downstream_cx_rx_bytes_total += connection.bytes_received
        http.downstream_cx_tx_bytes_total += connection.bytes_sent
        milliseconds = int(lasted_s * 1000)
        http.downstream_cx_length_ms[milliseconds] += 1
        listener.downstream_cx_length_ms[milliseconds] += 1

    def on_request(self) -> None:
        """A request has come, or what should have been one."""
        self._http.downstream_rq_total += 1
        self._http.downstream_rq_http1_total += 1
        self._http.downstream_rq_active += 1

    def on_response(self, status: int, took_s: float) -> None:
        """It is answered."""
        self._http.downstream_rq_active -= 1
        self._http.downstream_rq_time[int(took_s * 1000)] += 1
        self._codes[status] += 1

    def on_abandoned(self) -> None:
        """There will be no answer."""
        self._http.downstream_rq_active -= 1

    def on_nonsense(self) -> None:
        """What came is no HTTP."""
        self._http.downstream_cx_protocol_error += 1
