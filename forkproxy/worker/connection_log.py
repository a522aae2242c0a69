"""A listener's own access logs: a line for every connection when it is over, and for one that no filter chain takes.

    listeners:
      - name: ingress
        access_log: [{name: envoy.access_loggers.file, typed_config: {…}}]

A listener that has none knows nothing of this module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from forkproxy.filters.network.direct_response import DirectResponse
from forkproxy.filters.network.tcp_proxy import TcpSession
from forkproxy.http import response_flags
from forkproxy.http.connection_manager import HttpConnection
from forkproxy.net import address as addresses
from forkproxy.net.address import SocketAddress
from forkproxy.net.connection import CLOSE_TIMEOUT, LOCAL_CLOSE, REMOTE_RESET, Connection
from forkproxy.net.loop import Loop
from forkproxy.net.sockets import RawSocket
from forkproxy.worker.listener import Listener, LiveFilterChain, OnClose

Log = Callable[[Any], None]


class ConnectionRecord:
    """A connection as access logs see it: the attributes of ``http.stream.Stream``. A TCP session is its own."""

    __slots__ = (
        *("bytes_received", "bytes_sent", "connection", "details", "downstream_close_type"),
        *("downstream_local_close_reason", "end", "protocol", "response_flags", "start"),
    )

    method = path = authority = scheme = b""
    connection_termination_details = upstream_transport_failure_reason = upstream_local_close_reason = ""
    status = attempt_count = 0
    request_complete = upstream_first_tx = upstream_last_tx = upstream_first_rx = upstream_last_rx = 0.0
    downstream_first_tx = downstream_last_tx = 0.0
    request_headers: Sequence[tuple[bytes, bytes]] = ()
    response_headers = response_trailers = request_trailers = route = virtual_host = http = meters = None
    cluster = endpoint = upstream_connection = tally = None
    local_reply_body = b""
    attempted_endpoints: tuple[Any, ...] = ()
    pool_was_ready = False
    upstream_close_type = request_id = b""

    def __init__(self, connection: Any, start: float, end: float) -> None:
        self.connection = connection
        self.start = start
        self.end = end
        self.bytes_received: int = connection.bytes_received
        self.bytes_sent: int = connection.bytes_sent
        self.details = ""
        self.protocol = b""
        self.response_flags = 0
        self.downstream_close_type = b"Normal"
        self.downstream_local_close_reason = ""

    @property
    def wall_start(self) -> float:
        """Seconds since the epoch when the connection was accepted."""
        loop: Loop = self.connection.loop
        return loop.wall() - (loop.now - self.start)

    @property
    def filter_state(self) -> dict[object, Any]:
        """The connection's."""
        state: dict[object, Any] = self.connection.filter_state or {}
        return state

    @property
    def dynamic_metadata(self) -> dict[str, dict[str, Any]]:
        """No network filter here sets any."""
        return {}

    @property
    def downstream_remote_address(self) -> str:
        """The peer, "ip:port"."""
        return addresses.text(self.connection.remote_address)

    downstream_direct_remote_address = downstream_remote_address

    @property
    def downstream_local_address(self) -> str:
        """The address the peer connected to."""
        return addresses.text(self.connection.local_socket_address())


class Refused:
    """A connection that never became one, for its record."""

    id = bytes_received = bytes_sent = 0
    tls = filter_state = None
    requested_server_name = transport_failure_reason = ""
    handshake_done_at = 0.0

    def __init__(self, loop: Loop, sock: RawSocket, peer: SocketAddress) -> None:
        self.loop = loop
        self.sock = sock
        self.remote_address = peer
        self._local = addresses.normalise(sock.getsockname())

    def local_socket_address(self) -> SocketAddress:
        """The address the peer connected to."""
        return self._local


class LoggedOnClose(OnClose):
    """Writes the lines when the chain knows too."""

    __slots__ = ()

    def __call__(self, reason: str) -> None:
        super().closed_already()
        self._chain(reason)
        self._log(reason)

    def closed_already(self) -> None:
        """The chain knows."""
        super().closed_already()
        self._log(LOCAL_CLOSE)

    def _log(self, reason: str) -> None:
        connection = self._connection
        session = connection.session
        record: Any = (
            session if isinstance(session, TcpSession) else _record(self._live, connection, self._started, reason)
        )
        for log in self._live.logs:
            log(record)


def _record(live: LiveFilterChain, connection: Connection, started: float, reason: str) -> ConnectionRecord:
    record = ConnectionRecord(connection, started, connection.loop.now)
    if reason == REMOTE_RESET:
        record.downstream_close_type = b"RemoteReset"
    if isinstance(connection.session, HttpConnection):
        _tell_http(record, connection.session, reason)
    if any(isinstance(each, DirectResponse) for each in live.chain.filters):
        record.details = "direct_response"
    return record


def _tell_http(record: ConnectionRecord, http: HttpConnection, reason: str) -> None:
    if http.met_protocol_error:
        record.response_flags = response_flags.DPE
    if http.speaks_http1 and (http.requests or not http.met_protocol_error):
        record.protocol = b"HTTP/1.1"
    if http.connection.error is CLOSE_TIMEOUT or http.met_protocol_error:
        record.downstream_local_close_reason = "triggered_delayed_close_timeout"
    elif reason == LOCAL_CLOSE and http.close_after:
        record.downstream_local_close_reason = "deferred_close_on_drained_connection"


def log_refused(logs: Sequence[Log], loop: Loop, sock: RawSocket, peer: SocketAddress) -> None:
    """No filter chain takes this connection."""
    record = ConnectionRecord(Refused(loop, sock, peer), loop.now, loop.now)
    record.details = "filter_chain_not_found"
    record.response_flags = response_flags.NR
    for log in logs:
        log(record)


def install(listener: Listener, logs: Callable[[LiveFilterChain | None], Sequence[Log]]) -> None:
    """Have ``listener`` write lines; ``logs(chain)`` are those for connections of that chain, ``logs(None)`` for none's."""
    listener.on_close_type = LoggedOnClose
    for live in listener.all_chains:
        live.logs = tuple(logs(live))
    refused = tuple(logs(None))
    listener.on_no_match = lambda loop, sock, peer: log_refused(refused, loop, sock, peer)
