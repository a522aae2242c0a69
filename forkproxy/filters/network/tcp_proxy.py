"""TCP proxy: every downstream connection gets an upstream connection of its own, and bytes pass both ways.

    - name: envoy.filters.network.tcp_proxy
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
        stat_prefix: redis
        cluster: redis            # or weighted_clusters: {clusters: [{name: a, weight: 9}, {name: b, weight: 1}]}

The rules (asked of Envoy 1.40)
- Downstream is not read until upstream is connected. A failed connect is tried again up to max_connect_attempts times.
- An end of data on one side is passed on to the other, whose direction goes on. When both have ended, both close.
- A reset of upstream resets downstream, so that nobody takes a broken answer for a whole one; and the other way round.
- What one side does not take in time pauses the reading of the other side.

Once reads come full, a direction between raw sockets with no data filter on it is spliced (``net/splice.py``): Python sees
no byte of it, and all that is written here holds as before.
"""

from __future__ import annotations

import os
import random
from bisect import bisect
from collections.abc import Callable, Sequence
from importlib import import_module
from itertools import accumulate
from typing import Any, TypeVar
from uuid import uuid4

from forkproxy.config.build.load_balancing import criteria
from forkproxy.config.build.tcp_proxy import TcpProxyConfig
from forkproxy.filters.context import FilterContext, WorkerContext
from forkproxy.http import response_flags
from forkproxy.net import address as addresses
from forkproxy.net.connection import CONNECT_TIMEOUT, LOCAL_CLOSE, RECV_BYTES, REMOTE_CLOSE, REMOTE_RESET, Connection
from forkproxy.net.filter import HookResult, NetworkFilter
from forkproxy.net.loop import Loop
from forkproxy.net.splice import Splice
from forkproxy.net.timers import NEVER, Timer
from forkproxy.router.hash_policy import ip_hash
from forkproxy.stats.groups import TcpProxyStats
from forkproxy.upstream.balancers import PickContext
from forkproxy.upstream.cluster import Cluster
from forkproxy.upstream.endpoint import Endpoint
from forkproxy.upstream.http_pool import connect_failure_text

T = TypeVar("T")
Criteria = tuple[tuple[str, object], ...]
PickCluster = Callable[[], Cluster | None]
PickRoute = Callable[[], tuple[Cluster | None, Criteria]]
"""With the metadata that the endpoint must have."""

FULL_READS = 2
"""So many full reads in a row are the sign of a bulk transfer."""


class TcpProxy(NetworkFilter):
    """See the module's text."""

    terminal = True

    def __init__(
        self, config: TcpProxyConfig, pick_cluster: PickCluster, stats: TcpProxyStats, access_logs: Sequence[Any]
    ) -> None:
        self.config = config
        self.pick_cluster = pick_cluster
        self.pick_route: PickRoute | None = None
        """Instead, where endpoints are chosen by metadata."""
        self.stats = stats
        self.log = tuple(access_log.log for access_log in access_logs)
        self.session_type = TcpSession
        self.log_flush: Any = None
        """These two are tcp_log.py's where lines are written before the end."""
        self.idle_timeout_s = NEVER if config.idle_timeout_s is None else config.idle_timeout_s
        self.loop: Loop = None  # type: ignore[assignment]  # set by start(), in the worker

    @classmethod
    def from_config(cls, config: TcpProxyConfig, context: FilterContext) -> TcpProxy:
        """A cluster that does not exist is found out by each connection, as in Envoy."""
        made = cls(
            config,
            _cluster_picker(config, context.cluster),
            context.registry.group(TcpProxyStats, f"tcp.{config.stat_prefix}"),
            context.access_logs(config.access_logs, "TcpConnectionEnd"),
        )
        if config.access_logs and (config.log_options.on_start or config.log_options.interval_s):
            import_module("forkproxy.filters.network.tcp_log").install(made, config, context)
        made.pick_route = _route_picker(config, context.cluster)
        return made

    def start(self, worker: WorkerContext) -> None:
        """Take the worker's loop."""
        self.loop = worker.loop

    def reader(self, connection: Connection) -> Callable[[bytes], None]:
        """A session reads the connection."""
        connection.session = session = self.session_type(self, connection)
        connection.half_close = True
        connection.on_end = session.on_downstream_end
        connection.on_above_high_watermark = session.on_downstream_above_high_watermark
        connection.on_below_low_watermark = session.on_downstream_below_low_watermark
        return session.on_downstream_data

    def on_new_connection(self, connection: Connection) -> HookResult:
        """Connect."""
        connection.session.start_connecting()
        return None

    def on_close(self, connection: Connection, reason: str) -> None:
        """Tell the session."""
        if connection.session is not None:
            connection.session.on_close(reason)


def _cluster_picker(config: TcpProxyConfig, cluster: Callable[[str], Cluster | None]) -> PickCluster:
    if not config.weighted_clusters:
        only = cluster(config.cluster)
        return lambda: only
    return _by_weight(config, [cluster(name) for name, _ in config.weighted_clusters])


def _route_picker(config: TcpProxyConfig, cluster: Callable[[str], Cluster | None]) -> PickRoute | None:
    """None when no metadata is asked for."""
    if not config.metadata_match and not any(config.weighted_metadata_match):
        return None
    if not config.weighted_clusters:
        only = (cluster(config.cluster), criteria(config.metadata_match))
        return lambda: only
    routes = [
        (cluster(name), criteria(config.metadata_match | match))
        for (name, _), match in zip(config.weighted_clusters, config.weighted_metadata_match, strict=True)
    ]
    return _by_weight(config, routes)


def _by_weight(config: TcpProxyConfig, choices: Sequence[T]) -> Callable[[], T]:
    ends = list(accumulate(weight for _, weight in config.weighted_clusters))
    total = ends[-1]
    return lambda: choices[bisect(ends, random.random() * total)]


def _splice(source: Connection | None, sink: Connection | None, on_moved: Callable[[int], None]) -> None:
    # Only between raw sockets: under TLS, and where write filters stand, the bytes are not the socket's.
    if type(source) is Connection and type(sink) is Connection:
        (sink.inflow or Splice(source, sink, on_moved)).start()


class _Notes:
    """What few sessions have to tell."""

    __slots__ = ("downstream_close_type", "reason", "tried", "upstream_close_type")

    def __init__(self) -> None:
        self.tried: list[Endpoint] = []
        self.reason = ""
        self.downstream_close_type = self.upstream_close_type = b"Normal"


_NOTHING_NOTED = _Notes()
_FAILURES = {response_flags.UH: 1, response_flags.UO: 2, response_flags.NC: 3}


class TcpMeters:
    """A session's figures: all that is sent and received is body."""

    __slots__ = ("_session",)

    def __init__(self, session: TcpSession) -> None:
        self._session = session

    @property
    def pool_ready_ms(self) -> int | None:
        """How long it took to be connected, or to give up."""
        session = self._session
        if session.cluster is None:
            return None
        return int(((session.connected_at or session.end or session.loop.now) - session.start) * 1000)

    def downstream_wire_received(self) -> int:
        """All that came from downstream."""
        return self._session.bytes_received

    def downstream_wire_sent(self) -> int:
        """All that went there."""
        return self._session.bytes_sent

    upstream_wire_sent = downstream_wire_received
    upstream_wire_received = downstream_wire_sent

    def downstream_header_received(self) -> int:
        """There are no headers."""
        return 0

    downstream_header_sent = upstream_header_received = upstream_header_sent = downstream_header_received
    upstream_decompressed_received = downstream_header_received


class TcpSession:
    """One downstream connection and its upstream. Also what access logs read: the attributes of ``http.stream.Stream``."""

    __slots__ = (
        *("_cluster_stats", "_connect_timer", "_connected", "_criteria", "_duration_timer", "_early", "_early_end"),
        *("_downstream_full_reads", "_flushing", "_upstream_full_reads"),
        *(
            "_idle_s",
            "_idle_timer",
            "_idle_sum",
            "_proxy",
            "_stats",
            "_upstream_started",
            "attempt_count",
            "bytes_received",
        ),
        *("bytes_sent", "cluster", "connected_at", "connection", "connection_termination_details"),
        *("_id", "_notes", "downstream_first_tx"),
        *("downstream_last_tx", "end", "endpoint", "loop", "response_flags", "start", "upstream_connection"),
        *("upstream_first_rx", "upstream_first_tx", "upstream_last_rx", "upstream_last_tx"),
        *("upstream_transport_failure_reason",),
    )

    # What a connection has none of, for the readers of streams.
    method = path = authority = scheme = protocol = b""
    local_reply_body = b""
    details = ""
    status = request_header_bytes = response_header_bytes = 0
    request_complete = 0.0
    request_headers: Sequence[tuple[bytes, bytes]] = ()
    response_headers = response_trailers = request_trailers = route = virtual_host = None
    http = tally = None

    def __init__(self, proxy: TcpProxy, connection: Connection) -> None:
        self._proxy = proxy
        self._stats = proxy.stats
        self._stats.downstream_cx_total += 1
        self.loop = loop = connection.loop
        self.connection = connection
        self.start = loop.now
        self.end = 0.0
        self.cluster: Cluster | None = None
        self._criteria: Criteria = ()
        self.endpoint: Endpoint | None = None
        self.upstream_connection: Connection | None = None
        self.attempt_count = 0
        self.bytes_received = 0
        self.bytes_sent = 0
        self.response_flags = 0
        self.upstream_transport_failure_reason = ""
        self.connection_termination_details = ""
        self.upstream_first_tx = self.upstream_last_tx = self.upstream_first_rx = self.upstream_last_rx = 0.0
        self.downstream_first_tx = self.downstream_last_tx = 0.0
        self._connected = False
        self.connected_at = 0.0
        self._notes = _NOTHING_NOTED
        self._id = b""
        self._early: list[bytes] = []  # read before upstream was connected: only by filters before this one
        self._early_end = False
        self._flushing = False
        self._downstream_full_reads = 0
        self._upstream_full_reads = 0
        self._upstream_started = 0.0
        self._connect_timer: Timer | None = None
        self._idle_s = proxy.idle_timeout_s
        self._idle_sum = 0
        self._idle_timer = loop.timer(self._on_idle)
        self._duration_timer: Timer | None = None

    def __repr__(self) -> str:
        return f"<TcpSession {self.connection!r} {self.upstream_connection!r}>"

    # -- what access logs read

    @property
    def wall_start(self) -> float:
        """Seconds since the epoch when the connection was accepted."""
        return self.loop.wall() - (self.loop.now - self.start)

    @property
    def request_id(self) -> bytes:
        """What %STREAM_ID% calls this session."""
        if not self._id:
            self._id = str(uuid4()).encode()
        return self._id

    @property
    def pool_was_ready(self) -> bool:
        """There was a connection upstream."""
        return self._connected or self.connected_at > 0.0

    @property
    def attempted_endpoints(self) -> tuple[Endpoint, ...]:
        """The endpoints that were tried, the last one last."""
        return (*self._notes.tried, self.endpoint) if self.endpoint is not None else ()

    @property
    def downstream_close_type(self) -> bytes:
        """How the connection with the client ended."""
        return self._notes.downstream_close_type

    @property
    def upstream_close_type(self) -> bytes:
        """How the upstream one did."""
        return self._notes.upstream_close_type

    @property
    def downstream_local_close_reason(self) -> str:
        """Why it was closed from here; "" when it was not."""
        return self._notes.reason

    @property
    def upstream_local_close_reason(self) -> str:
        """The same, when there was an upstream connection to close."""
        return self._notes.reason if self._connected else ""

    @property
    def meters(self) -> TcpMeters:
        """What has passed, in the terms of ``http.meters``."""
        return TcpMeters(self)

    @property
    def filter_state(self) -> dict[object, Any]:
        """The connection's."""
        return self.connection.filter_state

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

    # -- connecting

    def start_connecting(self) -> None:
        """Choose a cluster and connect."""
        self.connection.pause_reading()
        config = self._proxy.config
        duration_s = config.max_downstream_connection_duration_s
        if duration_s:
            duration_s *= 1.0 + random.random() * config.duration_jitter_percent / 100.0
            self._duration_timer = self.loop.call_later(duration_s, self._on_max_duration)
        if self._proxy.pick_route is None:
            self.cluster = self._proxy.pick_cluster()
        else:
            self.cluster, self._criteria = self._proxy.pick_route()
        if self.cluster is None:
            self._stats.downstream_cx_no_route += 1
            self._give_up(response_flags.NC)
        else:
            self._cluster_stats = self.cluster.stats
            self._connect()

    def _connect(self) -> None:
        cluster = self.cluster
        assert cluster is not None
        stats = cluster.stats
        if self.attempt_count >= self._proxy.config.max_connect_attempts:
            stats.upstream_cx_connect_attempts_exceeded += 1
            self._give_up(response_flags.URX)
            return
        if cluster.breakers.connections.is_full():
            stats.upstream_cx_overflow += 1
            self._give_up(response_flags.UO)
            return
        endpoint = (
            self._choose(cluster)
            if cluster.needs_context
            else cluster.pick() or cluster.pick_for_connection(self.connection)
        )
        if endpoint is None:
            stats.upstream_cx_none_healthy += 1
            self._give_up(response_flags.UH)
            return
        if self.endpoint is not None:
            self._note().tried.append(self.endpoint)
        self.attempt_count += 1
        pending = cluster.breakers.pending
        if pending.is_full():
            stats.upstream_rq_pending_overflow += 1
            self._connect()
            return
        self.endpoint = endpoint
        stats.upstream_rq_pending_total += 1
        stats.upstream_rq_pending_active += 1
        pending.add()
        if not endpoint.pool.makes_wait(self):
            self.open_upstream()

    def _no_longer_pending(self) -> None:
        assert self.cluster is not None
        self._cluster_stats.upstream_rq_pending_active -= 1
        self.cluster.breakers.pending.remove()

    def open_upstream(self) -> None:
        """The endpoint may have one more connection: connect."""
        cluster, endpoint = self.cluster, self.endpoint
        assert cluster is not None
        assert endpoint is not None
        if self.end:  # the client has left in between
            self._no_longer_pending()
            endpoint.pool.on_session_gone(self)
            return
        stats = cluster.stats
        self._upstream_started = self.loop.now
        stats.upstream_cx_total += 1
        endpoint.stats.cx_total += 1
        try:
            upstream = self._open(endpoint)
        except OSError as error:
            self._no_longer_pending()
            endpoint.pool.on_session_gone(self)
            stats.upstream_cx_destroy += 1
            stats.upstream_cx_destroy_local += 1
            if endpoint.monitor is not None:
                endpoint.monitor.on_reset(connected=False)
            self._connect_failed("immediate connect error: " + os.strerror(error.errno or 0))
            return
        endpoint.pool.connection_opened()
        if endpoint.pool.sessions is not None:
            endpoint.pool.sessions.add(self)
        self.upstream_connection = upstream
        upstream.half_close = True
        upstream.on_connected = self._on_upstream_connected
        upstream.on_close = self._on_upstream_close
        self._connect_timer = self.loop.call_later(cluster.config.connect_timeout_s, self._on_connect_timeout)

    def _choose(self, cluster: Cluster) -> Endpoint | None:
        hash_ = None
        if cluster.hash_method is not None:
            hash_ = cluster.hash_method(self)
        elif self._proxy.config.hash_source_ip:
            hash_ = ip_hash(self.downstream_remote_address)
        return cluster.choose(PickContext(hash_, self._criteria, source=self))

    def _open(self, endpoint: Endpoint) -> Connection:
        cluster = endpoint.pool.cluster  # of an aggregate, the one of its parts that was chosen
        if not cluster.announces(endpoint):
            return cluster.connect(endpoint)
        downstream = self.connection
        return cluster.connect(endpoint, (downstream.remote_address, downstream.local_socket_address()))

    def _on_connect_timeout(self) -> None:
        assert self.upstream_connection is not None
        self._cluster_stats.upstream_cx_connect_timeout += 1
        self.upstream_connection.abort(CONNECT_TIMEOUT)

    def _on_upstream_connected(self) -> None:
        upstream = self.upstream_connection
        assert upstream is not None
        assert self.endpoint is not None
        assert self._connect_timer is not None
        self.connected_at = now = self.loop.now
        self._connect_timer.cancel()
        self._connected = True
        stats = self._cluster_stats
        self._no_longer_pending()
        stats.upstream_cx_connect_ms[int((now - self._upstream_started) * 1000)] += 1
        self.endpoint.pool.count_request()
        if self.endpoint.monitor is not None:
            self.endpoint.monitor.on_connected()
        upstream.on_data = self.on_upstream_data
        upstream.on_end = self.on_upstream_end
        upstream.on_above_high_watermark = self.on_upstream_above_high_watermark
        upstream.on_below_low_watermark = self.on_upstream_below_low_watermark
        self._idle_timer.arm(now + self._idle_s)
        early = self._early
        self._early = []
        for data in early:
            self.on_downstream_data(data)
        if self._early_end:
            upstream.end_write()
        self.connection.resume_reading()

    def _connect_failed(self, reason: str) -> None:
        cluster, endpoint = self.cluster, self.endpoint
        assert cluster is not None
        assert endpoint is not None
        cluster.stats.upstream_cx_connect_fail += 1
        cluster.stats.upstream_rq_pending_failure_eject += 1
        endpoint.stats.cx_connect_fail += 1
        self.upstream_transport_failure_reason = reason
        self.response_flags |= response_flags.UF
        if cluster.on_upstream_failure is not None:
            elapsed_s = self.loop.now - self._upstream_started
            cluster.on_upstream_failure(cluster, endpoint, reason or "connect timeout", elapsed_s)
        if self.end:
            return
        config = self._proxy.config
        if config.backoff_s is None or self.attempt_count >= config.max_connect_attempts:
            self._connect()
        else:
            base_s, longest_s = config.backoff_s
            interval_s = min(base_s * 2.0 ** (self.attempt_count - 1), longest_s)
            self._connect_timer = self.loop.call_later(random.random() * interval_s, self._connect)

    def _give_up(self, flag: int) -> None:
        self.response_flags |= flag
        self._note().reason = f"tcp_initializion_failure:{_FAILURES.get(flag, 0)}"  # Envoy's spelling
        self.connection.close()

    def _note(self) -> _Notes:
        if self._notes is _NOTHING_NOTED:
            self._notes = _Notes()
        return self._notes

    # -- bytes

    def on_downstream_data(self, data: bytes) -> None:
        """Bytes from downstream: the connection's read callback."""
        if not self._connected:
            self._early.append(data)
            return
        size = len(data)
        self.on_downstream_moved(size)
        upstream = self.upstream_connection
        upstream.write(data)  # type: ignore[union-attr]
        if size < RECV_BYTES:
            self._downstream_full_reads = 0
        else:
            self._downstream_full_reads += 1
            # With another read callback there are data filters before this one.
            if self._downstream_full_reads == FULL_READS and self.connection.on_data == self.on_downstream_data:
                self._downstream_full_reads = 0
                _splice(self.connection, upstream, self.on_downstream_moved)

    def on_downstream_moved(self, size: int) -> None:
        """So many bytes come from downstream."""
        now = self.loop.now
        if not self.bytes_received:
            self.upstream_first_tx = now
        self.upstream_last_tx = now
        self.bytes_received += size
        self._stats.downstream_cx_rx_bytes_total += size
        self._cluster_stats.upstream_cx_tx_bytes_total += size
        self._idle_timer.deadline = now + self._idle_s  # only ever later: no heap push

    def on_upstream_data(self, data: bytes) -> None:
        """Bytes from upstream: its connection's read callback."""
        size = len(data)
        self.on_upstream_moved(size)
        self.connection.write(data)
        if size < RECV_BYTES:
            self._upstream_full_reads = 0
        else:
            self._upstream_full_reads += 1
            if self._upstream_full_reads == FULL_READS:
                self._upstream_full_reads = 0
                _splice(self.upstream_connection, self.connection, self.on_upstream_moved)

    def on_upstream_moved(self, size: int) -> None:
        """So many bytes come from upstream."""
        now = self.loop.now
        if not self.bytes_sent:
            self.upstream_first_rx = self.downstream_first_tx = now
        self.upstream_last_rx = self.downstream_last_tx = now
        self.bytes_sent += size
        self._stats.downstream_cx_tx_bytes_total += size
        self._cluster_stats.upstream_cx_rx_bytes_total += size
        self._idle_timer.deadline = now + self._idle_s

    def on_downstream_end(self) -> None:
        """Downstream sends no more."""
        if self._connected:
            self.upstream_connection.end_write()  # type: ignore[union-attr]
        else:
            self._early_end = True

    def on_upstream_end(self) -> None:
        """Upstream sends no more."""
        self.connection.end_write()

    # -- flow control: above the mark the other side is not read

    def on_downstream_above_high_watermark(self) -> None:
        """Downstream does not take what upstream sends."""
        if self._connected:
            self._cluster_stats.upstream_flow_control_paused_reading_total += 1
            self.upstream_connection.pause_reading()  # type: ignore[union-attr]

    def on_downstream_below_low_watermark(self) -> None:
        """It does again."""
        if self._connected:
            self._cluster_stats.upstream_flow_control_resumed_reading_total += 1
            self.upstream_connection.resume_reading()  # type: ignore[union-attr]

    def on_upstream_above_high_watermark(self) -> None:
        """Upstream does not take what downstream sends."""
        self._cluster_stats.upstream_flow_control_backed_up_total += 1
        self._stats.downstream_flow_control_paused_reading_total += 1
        self.connection.pause_reading()

    def on_upstream_below_low_watermark(self) -> None:
        """It does again."""
        self._cluster_stats.upstream_flow_control_drained_total += 1
        self._stats.downstream_flow_control_resumed_reading_total += 1
        self.connection.resume_reading()

    # -- ending

    def _on_idle(self) -> None:
        # Bytes that leave are activity too: a slow reader of a full buffer is not idle.
        upstream = self.upstream_connection
        sent = self.connection.bytes_sent + (upstream.bytes_sent if upstream is not None else 0)
        if sent != self._idle_sum:
            self._idle_sum = sent
            self._idle_timer.arm(self.loop.now + self._idle_s)
            return
        self._stats.idle_timeout += 1
        self._note().reason = "tcp_session_idle_timeout"
        self._abort_both()

    def _on_max_duration(self) -> None:
        self._stats.max_downstream_connection_duration += 1
        self.response_flags |= response_flags.DT
        self._note().reason = "max_connection_duration_reached"
        self._abort_both()

    def _abort_both(self) -> None:
        upstream = self.upstream_connection
        self.connection.abort()
        if upstream is not None:
            upstream.abort()

    def on_health_failure(self) -> None:
        """The endpoint has turned unhealthy, and its sessions end with that."""
        self.connection.close()

    def _on_upstream_close(self, reason: str) -> None:
        upstream, cluster, endpoint = self.upstream_connection, self.cluster, self.endpoint
        assert upstream is not None
        assert cluster is not None
        assert endpoint is not None
        stats = cluster.stats
        endpoint.pool.connection_closed()
        endpoint.pool.on_session_gone(self)
        stats.upstream_cx_destroy += 1
        stats.upstream_cx_length_ms[int((self.loop.now - self._upstream_started) * 1000)] += 1
        local = reason in (LOCAL_CLOSE, CONNECT_TIMEOUT)
        if local:
            stats.upstream_cx_destroy_local += 1
        else:
            stats.upstream_cx_destroy_remote += 1
        if not self._connected:
            assert self._connect_timer is not None
            self._connect_timer.cancel()
            self._no_longer_pending()
            self.upstream_connection = None
            if reason == LOCAL_CLOSE:  # downstream went away meanwhile
                stats.upstream_rq_cancelled += 1
            else:
                if endpoint.monitor is not None:
                    if reason == CONNECT_TIMEOUT:
                        endpoint.monitor.on_timeout(connected=False)
                    else:
                        endpoint.monitor.on_reset(connected=False)
                self._connect_failed(connect_failure_text(upstream))
            return
        stats.upstream_cx_destroy_with_active_rq += 1
        if local:
            stats.upstream_cx_destroy_local_with_active_rq += 1
        else:
            stats.upstream_cx_destroy_remote_with_active_rq += 1
        endpoint.pool.on_request_end()
        if self.end:
            if self._flushing:
                self._stats.upstream_flush_active -= 1
            self._idle_timer.cancel()
        elif reason == REMOTE_RESET:
            self.response_flags |= response_flags.UR
            notes = self._note()
            notes.upstream_close_type, notes.downstream_close_type = b"RemoteReset", b"LocalReset"
            self.connection.reset()
        elif reason == REMOTE_CLOSE:
            self.connection.close()

    def on_close(self, reason: str) -> None:
        """Downstream is gone: log, and let upstream have what it was sent."""
        upstream = self.upstream_connection
        self.end = self.loop.now
        if reason == REMOTE_RESET:
            self._note().downstream_close_type = b"RemoteReset"
        if self._duration_timer is not None:
            self._duration_timer.cancel()
        if upstream is None and self._connect_timer is not None:
            self._connect_timer.cancel()  # of the time between two attempts
        for log in self._proxy.log:
            log(self)
        if upstream is None or upstream.closed:
            self._idle_timer.cancel()
            if self.endpoint is not None and self.endpoint.pool.stops_waiting(self):
                self._no_longer_pending()
                self._cluster_stats.upstream_rq_cancelled += 1
        elif not self._connected:
            upstream.abort()
        else:
            # The idle timer goes on: it ends a flush that upstream does not take.
            if upstream.out_bytes and reason != REMOTE_RESET:
                self._flushing = True
                self._stats.upstream_flush_total += 1
                self._stats.upstream_flush_active += 1
            if reason == REMOTE_RESET:
                upstream.reset()
            else:
                upstream.close()
