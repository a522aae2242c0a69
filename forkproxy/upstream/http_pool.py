"""HTTP/1 connections to one endpoint, kept for the next request.

A request ``acquire``s a client: an idle one at once (the most recently used, so that the others can age), else it waits for the
first that becomes free, a new connection among them. A client is released only when the whole feed that ended its response has
been parsed: what follows a response unasked must never meet the next request (response desynchronisation).
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Protocol

from forkproxy.http.codec import ClientSink, CodecError
from forkproxy.http.headers import Headers
from forkproxy.http.http1 import ClientCodec
from forkproxy.net.connection import (
    CONNECT_FAILURE,
    CONNECT_TIMEOUT,
    LOCAL_CLOSE,
    REMOTE_CLOSE,
    REMOTE_RESET,
    TLS_FAILURE,
    Connection,
)

if TYPE_CHECKING:
    from forkproxy.upstream.cluster import Cluster
    from forkproxy.upstream.endpoint import Endpoint

# Why an exchange failed before its response was complete; what on_reset is told.
RESET_CONNECTION_TERMINATION = "connection termination"
RESET_PROTOCOL_ERROR = "protocol error"
RESET_REMOTE_CONNECTION_FAILURE = "remote connection failure"
RESET_LOCAL_CONNECTION_FAILURE = "local connection failure"
RESET_CONNECTION_TIMEOUT = "connection timeout"
RESET_OVERFLOW = "overflow"


class PoolRequest(ClientSink, Protocol):
    """Who asks for a client and is told what becomes of it. The codec calls it itself (ClientSink): no hop between."""

    def on_ready(self, client: Http1Client) -> None:
        """The client is yours: send the request."""

    def on_reset(self, reason: str, transport_failure_reason: str) -> None:
        """The exchange failed; nothing more comes."""

    def on_upstream_above_high_watermark(self) -> None:
        """The endpoint does not take the request as fast as it comes."""

    def on_upstream_below_low_watermark(self) -> None:
        """It does again."""


class Http1Client:
    """One upstream connection, and the ClientSink that ignores what comes when no request is there to take it."""

    __slots__ = (
        "_bytes_received_seen",
        "_bytes_sent_seen",
        "codec",
        "connected",
        "connection",
        "idle_timer",
        "pool",
        "request",
        "request_sent",
        "requests",
        "started",
    )

    def __init__(self, pool: HttpPool, connection: Connection) -> None:
        self.pool = pool
        self.connection = connection
        self.codec = ClientCodec(self)
        self.codec.enable_trailers = pool.cluster.config.enable_trailers
        self.request: PoolRequest | None = None
        self.request_sent = True
        """The whole request has been handed to the connection; only then may it be used again."""
        self.requests = 0
        self.connected = False
        loop = pool.cluster.loop
        self.started = loop.now
        self._bytes_received_seen = 0
        self._bytes_sent_seen = 0
        self.idle_timer = loop.timer(self._on_timer)
        self.idle_timer.arm(loop.now + pool.cluster.config.connect_timeout_s)
        connection.on_connected = self._on_connected
        connection.on_data = self.on_data
        connection.on_close = self._on_close
        connection.on_above_high_watermark = self._on_above_high_watermark
        connection.on_below_low_watermark = self._on_below_low_watermark

    def __repr__(self) -> str:
        return f"<Http1Client {self.connection!r} requests={self.requests} {'busy' if self.request else 'idle'}>"

    # -- connecting

    def _on_connected(self) -> None:
        self.connected = True
        self.idle_timer.disarm()
        self.pool.on_connected(self)

    def _on_timer(self) -> None:
        stats = self.pool.cluster.stats
        if not self.connected:
            stats.upstream_cx_connect_timeout += 1
            self.connection.abort(CONNECT_TIMEOUT)
        elif self.request is None:
            stats.upstream_cx_idle_timeout += 1
            self.connection.close()

    # -- bytes from upstream

    def on_data(self, data: bytes) -> None:
        """The connection's read callback."""
        codec = self.codec
        try:
            codec.feed(data)
        except CodecError:
            self._on_codec_error()
            return
        if codec.complete:
            self._on_complete()

    def _on_codec_error(self) -> None:
        self.pool.cluster.stats.upstream_cx_protocol_error += 1
        self._fail(RESET_PROTOCOL_ERROR)

    def _fail(self, reason: str) -> None:
        request = self.request
        self.request = None
        self.codec.sink = self
        if request is not None:
            self.pool.on_request_end(self)
            self.pool.on_request_cut(remote=False)
        self.connection.abort(LOCAL_CLOSE)
        if request is not None:
            request.on_reset(reason, "")

    def _on_complete(self) -> None:
        codec = self.codec
        pool = self.pool
        if self.request is not None:
            self.request = None
            codec.sink = self
            pool.on_request_end(self)
        if self.connection.closed:
            return
        if codec.unsolicited:
            pool.cluster.stats.upstream_cx_protocol_error += 1
            self.connection.abort(LOCAL_CLOSE)
        elif self.connection.out_bytes:
            self.connection.abort()  # it has answered without reading the request, and may never read it
        elif codec.reusable and self.request_sent and not pool.draining:
            pool.release(self)
        else:
            self.connection.close()

    def decode_interim(self, status: int, headers: Headers) -> None:
        """ClientSink: nobody wants it."""

    def decode_headers(self, status: int, headers: Headers, end_stream: bool) -> None:
        """ClientSink: nobody wants it."""

    def decode_data(self, data: bytes) -> None:
        """ClientSink: nobody wants it."""

    def decode_complete(self, trailers: Headers | None) -> None:
        """ClientSink: nobody wants it."""

    # -- the request's side

    def begin(self, request: PoolRequest, head_request: bool) -> None:
        """Carry ``request`` now; ``request_sent`` must be set when its last byte has been written."""
        self.request = self.codec.sink = request
        self.requests += 1
        self.request_sent = False
        self.codec.expect(head_request)

    def cancel(self) -> None:
        """The request gives up: its connection can carry no other, for the response may still come."""
        if self.request is not None:
            self.request = None
            self.codec.sink = self
            self.pool.on_request_end(self)
            self.pool.on_request_cut(remote=False)
            self.connection.abort(LOCAL_CLOSE)

    def _on_above_high_watermark(self) -> None:
        self.pool.cluster.stats.upstream_flow_control_backed_up_total += 1
        if self.request is not None:
            self.request.on_upstream_above_high_watermark()

    def _on_below_low_watermark(self) -> None:
        self.pool.cluster.stats.upstream_flow_control_drained_total += 1
        if self.request is not None:
            self.request.on_upstream_below_low_watermark()

    # -- the end

    def sync_bytes(self) -> None:
        """Add to the statistics what was received and sent since the last time."""
        connection = self.connection
        stats = self.pool.cluster.stats
        stats.upstream_cx_rx_bytes_total += connection.bytes_received - self._bytes_received_seen
        stats.upstream_cx_tx_bytes_total += connection.bytes_sent - self._bytes_sent_seen
        self._bytes_received_seen = connection.bytes_received
        self._bytes_sent_seen = connection.bytes_sent

    def _on_close(self, reason: str) -> None:
        self.idle_timer.cancel()
        self.sync_bytes()
        request = self.request
        codec = self.codec
        pool = self.pool
        failure = ""
        if request is not None:
            # First, because the end of an early response cancels the request.
            self.request = None
            pool.on_request_end(self)
            if reason == REMOTE_CLOSE and codec.finish():  # the close is how this response ends
                request = None
            else:
                # Between head and body, or inside either, the message was cut: that is the peer breaking the protocol.
                failure = RESET_CONNECTION_TERMINATION if codec.between_messages else RESET_PROTOCOL_ERROR
                if failure is RESET_PROTOCOL_ERROR:
                    pool.cluster.stats.upstream_cx_protocol_error += 1
                pool.on_request_cut(remote=reason in (REMOTE_CLOSE, REMOTE_RESET))
        codec.sink = self
        codec.close()
        pool.on_client_closed(self, reason)
        if request is not None:
            request.on_reset(failure, "")


class HttpPool:
    """The clients of one endpoint in one worker."""

    __slots__ = ("_all", "_connecting", "_idle", "_pending", "cluster", "draining", "endpoint")

    def __init__(self, cluster: Cluster, endpoint: Endpoint) -> None:
        self.cluster = cluster
        self.endpoint = endpoint
        self.draining = False
        self._idle: list[Http1Client] = []
        self._all: set[Http1Client] = set()
        self._connecting = 0
        self._pending: list[PoolRequest] = []

    def acquire(self, request: PoolRequest) -> None:
        """Give ``request`` a client, now (inside this call) or later."""
        if self._idle:
            client = self._idle.pop()
            self._assign(client, request)
            return
        cluster = self.cluster
        stats = cluster.stats
        limits = cluster.config.circuit_breakers
        if len(self._pending) >= limits.max_pending_requests:
            stats.upstream_rq_pending_overflow += 1
            request.on_reset(RESET_OVERFLOW, "")
            return
        self._pending.append(request)
        stats.upstream_rq_pending_total += 1
        stats.upstream_rq_pending_active += 1
        if self._connecting < len(self._pending):
            if cluster.connections >= limits.max_connections and self._all:
                stats.upstream_cx_overflow += 1
            else:
                self._connect()

    def cancel_pending(self, request: PoolRequest) -> None:
        """``request`` does not want a client any more; the connection under way stays for the next one."""
        if request in self._pending:
            self._pending.remove(request)
            stats = self.cluster.stats
            stats.upstream_rq_pending_active -= 1
            stats.upstream_rq_cancelled += 1

    def _assign(self, client: Http1Client, request: PoolRequest) -> None:
        stats = self.cluster.stats
        stats.upstream_rq_total += 1
        stats.upstream_rq_active += 1
        endpoint_stats = self.endpoint.stats
        endpoint_stats.rq_total += 1
        endpoint_stats.rq_active += 1
        request.on_ready(client)

    def on_request_end(self, _client: Http1Client) -> None:
        """An exchange is over, well or not."""
        self.cluster.stats.upstream_rq_active -= 1
        self.endpoint.stats.rq_active -= 1

    def on_request_cut(self, *, remote: bool) -> None:
        """A connection ends in the middle of an exchange; ``remote``: the endpoint ended it."""
        stats = self.cluster.stats
        stats.upstream_cx_destroy_with_active_rq += 1
        if remote:
            stats.upstream_cx_destroy_remote_with_active_rq += 1
        else:
            stats.upstream_cx_destroy_local_with_active_rq += 1

    def release(self, client: Http1Client) -> None:
        """The client is free: the oldest waiting request takes it, or it rests."""
        config = self.cluster.config
        if config.max_requests_per_connection and client.requests >= config.max_requests_per_connection:
            self.cluster.stats.upstream_cx_max_requests += 1
            client.connection.close()
        elif self._pending:
            self._serve_pending(client)
        else:
            if config.idle_timeout_s is not None:
                client.idle_timer.arm(self.cluster.loop.now + config.idle_timeout_s)
            self._idle.append(client)

    def _serve_pending(self, client: Http1Client) -> None:
        request = self._pending.pop(0)
        self.cluster.stats.upstream_rq_pending_active -= 1
        self._assign(client, request)

    # -- connections

    def _connect(self) -> None:
        cluster = self.cluster
        stats = cluster.stats
        try:
            connection = cluster.connect(self.endpoint)
        except OSError as error:
            stats.upstream_cx_connect_fail += 1
            self.endpoint.stats.cx_connect_fail += 1
            reason = "immediate connect error: " + os.strerror(error.errno or errno.EIO)
            cluster.loop.call_soon(lambda: self._fail_pending(RESET_LOCAL_CONNECTION_FAILURE, reason))
            self._report(reason, 0.0)
            return
        self._connecting += 1
        cluster.connections += 1
        stats.upstream_cx_total += 1
        stats.upstream_cx_http1_total += 1
        stats.upstream_cx_active += 1
        self.endpoint.stats.cx_total += 1
        self.endpoint.stats.cx_active += 1
        self._all.add(Http1Client(self, connection))

    def on_connected(self, client: Http1Client) -> None:
        """A new connection stands."""
        self._connecting -= 1
        now = self.cluster.loop.now
        self.cluster.stats.upstream_cx_connect_ms[int((now - client.started) * 1000)] += 1
        if self.draining and not self._pending:
            client.connection.close()
        else:
            self.release(client)

    def on_client_closed(self, client: Http1Client, reason: str) -> None:
        """A connection is gone, or was never made."""
        cluster = self.cluster
        stats = cluster.stats
        self._all.discard(client)
        if client in self._idle:
            self._idle.remove(client)
        cluster.connections -= 1
        stats.upstream_cx_active -= 1
        self.endpoint.stats.cx_active -= 1
        connection = client.connection
        if not client.connected:
            self._connecting -= 1
            stats.upstream_cx_connect_fail += 1
            self.endpoint.stats.cx_connect_fail += 1
            failure = connect_failure_text(connection)
            self._report(failure or reason.replace("_", " "), cluster.loop.now - client.started)
            if reason == CONNECT_TIMEOUT:
                self._fail_pending(RESET_CONNECTION_TIMEOUT, "")
            elif reason in (CONNECT_FAILURE, TLS_FAILURE, REMOTE_CLOSE, REMOTE_RESET):
                self._fail_pending(RESET_REMOTE_CONNECTION_FAILURE, failure)
            return
        stats.upstream_cx_destroy += 1
        if reason in (REMOTE_CLOSE, REMOTE_RESET):
            stats.upstream_cx_destroy_remote += 1
        else:
            stats.upstream_cx_destroy_local += 1
        stats.upstream_cx_length_ms[int((cluster.loop.now - client.started) * 1000)] += 1
        stats.upstream_rq_per_cx[client.requests] += 1
        if self._pending and self._connecting < len(self._pending):
            self._connect()

    def _fail_pending(self, reason: str, transport_failure_reason: str) -> None:
        # Everybody who waits for this endpoint fails with the attempt, as in Envoy.
        pending = self._pending
        self._pending = []
        stats = self.cluster.stats
        stats.upstream_rq_pending_active -= len(pending)
        stats.upstream_rq_pending_failure_eject += len(pending)
        for request in pending:
            request.on_reset(reason, transport_failure_reason)

    def _report(self, failure: str, elapsed_s: float) -> None:
        report = self.cluster.on_upstream_failure
        if report is not None:
            report(self.cluster, self.endpoint, failure, elapsed_s)

    def drain(self) -> None:
        """No more reuse: idle connections close now, busy ones after their response."""
        self.draining = True
        for client in list(self._idle):
            client.connection.close()
        self._idle.clear()

    def sync_bytes(self) -> None:
        """Bring the byte counters up to date."""
        for client in self._all:
            client.sync_bytes()


def connect_failure_text(connection: Connection) -> str:
    """Why a connection could not be made, in Envoy's words for %UPSTREAM_TRANSPORT_FAILURE_REASON%; "" when unknown."""
    if connection.transport_failure_reason:
        return connection.transport_failure_reason
    if connection.error is not None and connection.error.errno:
        return "delayed connect error: " + os.strerror(connection.error.errno)
    return ""
