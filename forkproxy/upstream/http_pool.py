"""HTTP/1 connections to one endpoint, kept for the next request.

A request ``acquire``s a client: an idle one at once (the most recently used, so that the others can age), else it waits for the
first that becomes free, a new connection among them. A client is released only when the whole feed that ended its response has
been parsed: what follows a response unasked must never meet the next request (response desynchronisation).

The limits of the cluster (circuit_breakers.py) are kept here: of waiting requests and connections always, of requests by a
CountingPool where the file sets one, else once the cluster's own figure comes near. A request of priority HIGH has a pool of its
own, ``high()``, as in Envoy, and so have the connections that carry no HTTP, ``raw()``.

An endpoint may close a connection in the moment in which the next request is sent on it. Nothing of a response has come then,
and such a request, when it is idempotent and its body is short, is sent again on another connection (RFC 9110 section 9.2.2).
"""

from __future__ import annotations

import errno
import os
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from forkproxy.http.codec import ClientSink, CodecError
from forkproxy.http.header_case import SpellingClientCodec, as_it_is
from forkproxy.http.headers import Headers, proper_case
from forkproxy.http.http1 import ClientCodec
from forkproxy.http.tunnel import RawCodec, TunnelCodec
from forkproxy.net.connection import (
    CONNECT_FAILURE,
    CONNECT_TIMEOUT,
    LOCAL_CLOSE,
    REMOTE_CLOSE,
    REMOTE_RESET,
    TLS_FAILURE,
    Connection,
)
from forkproxy.net.timers import NEVER, Timer
from forkproxy.upstream import health
from forkproxy.upstream.circuit_breakers import Breakers, Limit

if TYPE_CHECKING:
    from forkproxy.upstream.cluster import Cluster
    from forkproxy.upstream.endpoint import Endpoint
    from forkproxy.upstream.transports import Origin

# Why an exchange failed before its response was complete; what on_reset is told.
RESET_CONNECTION_TERMINATION = "connection termination"
RESET_PROTOCOL_ERROR = "protocol error"
RESET_REMOTE_CONNECTION_FAILURE = "remote connection failure"
RESET_LOCAL_CONNECTION_FAILURE = "local connection failure"
RESET_CONNECTION_TIMEOUT = "connection timeout"
RESET_OVERFLOW = "overflow"
RESET_NO_POOL = "no pool"
"""There are as many pools as ``max_connection_pools``."""
MOST_REQUESTS = 1 << 29
"""On one connection, where the file sets no limit."""
MOST_CONNECTS = 3
"""New connections that one event may start."""


class PoolRequest(ClientSink, Protocol):
    """Who asks for a client and is told what becomes of it. The codec calls it itself (ClientSink): no hop between."""

    def on_ready(self, client: Http1Client) -> None:
        """The client is yours: send the request."""

    def on_reset(self, reason: str, transport_failure_reason: str) -> None:
        """The exchange failed; nothing more comes."""

    def on_refused(self, client: Http1Client) -> None:
        """There is a client, but there are too many requests: an overflow."""

    def on_too_long(self) -> None:
        """The exchange has been given up: it has lasted for ``max_stream_duration``."""

    def downstream(self) -> Connection:
        """The downstream connection that the request came on."""

    def may_be_sent_again(self) -> bool:
        """The connection was closed before any byte of a response: may the request, as it is, go to another?"""

    def on_upstream_above_high_watermark(self) -> None:
        """The endpoint does not take the request as fast as it comes."""

    def on_upstream_below_low_watermark(self) -> None:
        """It does again."""


class Session(Protocol):
    """A TCP session with the endpoint."""

    def on_health_failure(self) -> None:
        """The endpoint has turned unhealthy."""

    def open_upstream(self) -> None:
        """It has waited long enough."""


class Http1Client:
    """One upstream connection, and the ClientSink that ignores what comes when no request is there to take it."""

    __slots__ = (
        "_bytes_received_seen",
        "_bytes_sent_seen",
        "_end_timer",
        "_request_timer",
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
        config = pool.cluster.config
        kb, count = config.pool.http.max_response_headers_kb, config.pool.http.max_headers_count
        self.codec = ClientCodec(self, max_headers_count=count) if kb is None else ClientCodec(self, kb * 1024, count)
        case = config.preserve_case
        if case is not None:
            others, reason = case.proper_case_others, case.forward_reason_phrase
            self.codec = SpellingClientCodec(self, (kb or 256) * 1024, count, others, reason)
        self.codec.enable_trailers = config.enable_trailers
        self.request: PoolRequest | None = None
        self.request_sent = True
        """The whole request has been handed to the connection; only then may it be used again."""
        self.requests = 0
        self.connected = False
        loop = pool.cluster.loop
        self.started = loop.now
        self._bytes_received_seen = 0
        self._bytes_sent_seen = 0
        self._end_timer: Timer | None = None
        self._request_timer: Timer | None = None
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
        lifetime_s = self.pool.cluster.config.pool.http.max_connection_duration_s
        if lifetime_s is not None:
            self._end_timer = self.pool.cluster.loop.call_later(lifetime_s, self._on_lifetime_over)
        self.pool.on_connected(self)

    def _on_lifetime_over(self) -> None:
        self.pool.cluster.stats.upstream_cx_max_duration_reached += 1
        self.retire()

    def retire(self) -> None:
        """Close when the response under way, if any, is complete."""
        if self.request is None:
            self.pool.forget_idle(self)
            self.connection.close()
        else:
            self.codec.reusable = False

    def limit_request(self, duration_s: float) -> None:
        """The request that has just begun may last so long."""
        loop = self.pool.cluster.loop
        if self._request_timer is None:
            self._request_timer = loop.timer(self._on_request_too_long)
        self._request_timer.arm(loop.now + duration_s)

    def _on_request_too_long(self) -> None:
        request = self.request
        if request is not None:
            self.pool.cluster.stats.upstream_rq_max_duration_reached += 1
            self.cancel()
            request.on_too_long()

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

    def end_body(self) -> None:
        """What was left of the response's body has been read past the codec: the response is complete."""
        self.connection.on_data = self.on_data
        self.codec.end_body()
        self._on_complete()

    def _on_codec_error(self) -> None:
        self.pool.cluster.stats.upstream_cx_protocol_error += 1
        self._fail(RESET_PROTOCOL_ERROR)

    def _fail(self, reason: str) -> None:
        request = self.request
        self.request = None
        self.codec.sink = self
        if request is not None:
            self.pool.on_request_end()
            self.pool.on_request_cut(remote=False)
        self.connection.abort(LOCAL_CLOSE)
        if request is not None:
            request.on_reset(reason, "")

    def _on_complete(self) -> None:
        codec = self.codec
        pool = self.pool
        connection = self.connection
        if self.request is not None:
            self.request = None
            codec.sink = self
            if (
                codec.reusable
                and self.request_sent
                and not (codec.unsolicited or connection.closed or connection.out_bytes or pool.draining)
            ):
                pool.take_back(self)
                return
            pool.on_request_end()
        if connection.closed:
            return
        if codec.unsolicited:
            pool.cluster.stats.upstream_cx_protocol_error += 1
            connection.abort(LOCAL_CLOSE)
        elif connection.out_bytes:
            connection.abort()  # it has answered without reading the request, and may never read it
        elif codec.reusable and self.request_sent and not pool.draining:
            pool.release(self)
        else:
            connection.close()

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
        codec = self.codec
        self.request = codec.sink = request
        self.requests += 1
        self.request_sent = False
        codec.expect(head_request)

    def expect_tunnel(self, *, is_connect: bool) -> None:
        """The next request asks for an upgrade, or is a CONNECT: its answer may end HTTP on this connection."""
        self.codec.close()
        limits = self.pool.cluster.config.pool.http
        kb = 256 if limits.max_response_headers_kb is None else limits.max_response_headers_kb
        case = self.pool.cluster.config.preserve_case
        self.codec = TunnelCodec(
            self,
            kb * 1024,
            limits.max_headers_count,
            is_connect=is_connect,
            others=None if case is None else proper_case if case.proper_case_others else as_it_is,
            forward_reason=case is not None and case.forward_reason_phrase,
        )
        self.codec.enable_trailers = self.pool.cluster.config.enable_trailers

    def cancel(self) -> None:
        """The request gives up: its connection can carry no other, for the response may still come."""
        if self._let_go():
            self.connection.abort(LOCAL_CLOSE)

    def leave(self, timeout_s: float) -> None:
        """The same, but what was written is still sent; an endpoint that takes nothing for ``timeout_s`` loses the rest."""
        if self._let_go():
            self.connection.close(timeout_s)

    def _let_go(self) -> bool:
        if self.request is None:
            return False
        self.request = None
        self.codec.sink = self
        self.pool.on_request_end()
        self.pool.on_request_cut(remote=False)
        return True

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
        for timer in (self._end_timer, self._request_timer):
            if timer is not None:
                timer.cancel()
        self.sync_bytes()
        request = self.request
        codec = self.codec
        pool = self.pool
        failure = ""
        is_remote = reason in (REMOTE_CLOSE, REMOTE_RESET)
        if request is not None:
            # First, because the end of an early response cancels the request.
            self.request = None
            pool.on_request_end()
            if reason == REMOTE_CLOSE and codec.finish():  # the close is how this response ends
                request = None
            else:
                # Between head and body, or inside either, the message was cut: that is the peer breaking the protocol.
                failure = RESET_CONNECTION_TERMINATION if codec.between_messages else RESET_PROTOCOL_ERROR
                if failure is RESET_PROTOCOL_ERROR:
                    pool.cluster.stats.upstream_cx_protocol_error += 1
                pool.on_request_cut(remote=is_remote)
        codec.sink = self
        codec.close()
        pool.on_client_closed(self, reason)
        if request is None:
            return
        was_idle = self.requests > 1 and codec.is_silent and failure is RESET_CONNECTION_TERMINATION and is_remote
        if was_idle and request.may_be_sent_again():
            pool.acquire_fresh(request)
        else:
            request.on_reset(failure, "")


class RawClient(Http1Client):
    """A connection for one CONNECT that ends here: what passes is no HTTP."""

    __slots__ = ()

    def __init__(self, pool: HttpPool, connection: Connection) -> None:
        super().__init__(pool, connection)
        self.codec.close()
        self.codec = RawCodec(self)


class HttpPool:
    """The clients of one endpoint in one worker, for one priority."""

    __slots__ = (
        *(
            "_all",
            "_connecting",
            "_high",
            "_idle",
            "_idle_timeout_s",
            "_is_counted",
            "_max_requests",
            "_pending",
            "_raw",
        ),
        "_waiting",
        *("breakers", "client_class", "cluster", "draining", "endpoint", "host_connections", "origin", "sessions"),
    )

    def __init__(self, cluster: Cluster, endpoint: Endpoint, breakers: Breakers) -> None:
        self.cluster = cluster
        self.endpoint = endpoint
        self.breakers = breakers
        self.host_connections: Limit | None = cluster.host_connections(endpoint)
        """Who has connections to this address, where there is a limit of them."""
        self.draining = False
        config = cluster.config
        self._max_requests = config.max_requests_per_connection or MOST_REQUESTS
        self._idle_timeout_s = NEVER if config.idle_timeout_s is None else config.idle_timeout_s
        self._idle: list[Http1Client] = []
        self._all: set[Http1Client] = set()
        self._connecting = 0
        self._pending: list[PoolRequest] = []
        self._high: HttpPool | None = None
        self._raw: HttpPool | None = None
        self.client_class = Http1Client
        self.origin: Origin | None = None
        """The downstream connection that all of this pool are for, where the endpoint is told."""
        is_watched = cluster.config.pool.close_on_health_failure or breakers.max_per_host is not None
        self.sessions: set[Session] | None = set() if is_watched else None
        """The TCP sessions of the endpoint, where they end with its health, or where there is a limit of them."""
        self._waiting: list[Session] = []
        self._is_counted = False  # among the pools in use, where there is a limit of them

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.endpoint.address} {len(self._all)} clients, {len(self._pending)} waiting>"

    def high(self) -> HttpPool:
        """The pool of this endpoint for requests of priority HIGH."""
        if self._high is None:
            self._high = make_pool(self.cluster, self.endpoint, self.cluster.high_breakers())
            self._high.draining = self.draining
        return self._high

    def raw(self) -> HttpPool:
        """The pool of this endpoint for connections that carry no HTTP."""
        if self._raw is None:
            self._raw = make_pool(self.cluster, self.endpoint, self.breakers)
            self._raw.client_class = RawClient
            self._raw.draining = self.draining
        return self._raw

    def _others(self) -> list[HttpPool]:
        """The pools that go with this one."""
        return [pool for pool in (self._high, self._raw) if pool is not None]

    def acquire(self, request: PoolRequest) -> None:
        """Give ``request`` a client, now (inside this call) or later."""
        idle = self._idle
        if not idle:
            self._wait(request)
            return
        # _assign, in place.
        stats = self.cluster.stats
        if stats.upstream_rq_active >= self.breakers.request_trip:
            self._acquire_idle(request)
            return
        stats.upstream_rq_total += 1
        stats.upstream_rq_active += 1
        endpoint_stats = self.endpoint.stats
        endpoint_stats.rq_total += 1
        endpoint_stats.rq_active += 1
        request.on_ready(idle.pop())

    def _acquire_idle(self, request: PoolRequest) -> None:
        client = self._idle.pop()
        if not self._assign(client, request):
            self._idle.append(client)

    def acquire_fresh(self, request: PoolRequest) -> None:
        """The same, with a connection that is used for the first time if there may be another one."""
        if self._idle and not self._may_connect():
            self.acquire(request)
        else:
            self._wait(request)

    def _wait(self, request: PoolRequest) -> None:
        breakers = self.breakers
        stats = self.cluster.stats
        pools = breakers.pools
        if pools is not None and not self._is_counted and pools.is_full():
            stats.upstream_cx_pool_overflow += 1
            request.on_reset(RESET_NO_POOL, "")
            return
        if breakers.pending.is_full():
            stats.upstream_rq_pending_overflow += 1
            request.on_reset(RESET_OVERFLOW, "")
            return
        if pools is not None and not self._is_counted:
            self._is_counted = True
            pools.add()
        self._pending.append(request)
        breakers.pending.add()
        stats.upstream_rq_pending_total += 1
        stats.upstream_rq_pending_active += 1
        self._connect_as_needed()

    def cancel_pending(self, request: PoolRequest) -> None:
        """``request`` does not want a client any more; the connection under way stays for the next one."""
        if request in self._pending:
            self._pending.remove(request)
            self.breakers.pending.remove()
            stats = self.cluster.stats
            stats.upstream_rq_pending_active -= 1
            stats.upstream_rq_cancelled += 1
            self._on_maybe_empty()
        else:
            for pool in self._others():
                pool.cancel_pending(request)

    def _on_maybe_empty(self) -> None:
        if self._is_counted and not self._all and not self._pending:
            assert self.breakers.pools is not None
            self._is_counted = False
            self.breakers.pools.remove()

    def _assign(self, client: Http1Client, request: PoolRequest) -> bool:
        """False: there are too many requests, which ``request`` has been told."""
        stats = self.cluster.stats
        if stats.upstream_rq_active >= self.breakers.request_trip and self.cluster.requests_full():
            stats.upstream_rq_active_overflow += 1
            request.on_refused(client)
            return False
        stats.upstream_rq_total += 1
        stats.upstream_rq_active += 1
        endpoint_stats = self.endpoint.stats
        endpoint_stats.rq_total += 1
        endpoint_stats.rq_active += 1
        request.on_ready(client)
        return True

    def count_request(self) -> None:
        """An exchange begins, or a TCP session, which no limit of requests refuses."""
        stats = self.cluster.stats
        stats.upstream_rq_total += 1
        stats.upstream_rq_active += 1
        endpoint_stats = self.endpoint.stats
        endpoint_stats.rq_total += 1
        endpoint_stats.rq_active += 1

    def on_request_end(self) -> None:
        """It is over, well or not."""
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

    def take_back(self, client: Http1Client) -> None:
        """An exchange is over, and its client may carry another."""
        # on_request_end, in place.
        cluster = self.cluster
        cluster.stats.upstream_rq_active -= 1
        self.endpoint.stats.rq_active -= 1
        if self._pending or client.requests >= self._max_requests:
            self.release(client)
            return
        # release, and Timer.arm, in place: the timer's entry in the heap is nearly always an earlier one.
        timer = client.idle_timer
        timer.deadline = deadline = cluster.loop.now + self._idle_timeout_s
        if deadline < timer.entry_at:
            timer.arm(deadline)
        self._idle.append(client)

    def release(self, client: Http1Client) -> None:
        """The client is free: the oldest waiting request takes it, or it rests."""
        if client.requests >= self._max_requests:
            self.cluster.stats.upstream_cx_max_requests += 1
            client.connection.close()
        elif not self._pending or not self._serve_pending(client):
            client.idle_timer.arm(self.cluster.loop.now + self._idle_timeout_s)
            self._idle.append(client)

    def _serve_pending(self, client: Http1Client) -> bool:
        """True when one of those that wait has taken the client."""
        is_taken = False
        while self._pending and not is_taken:
            request = self._pending.pop(0)
            self.breakers.pending.remove()
            self.cluster.stats.upstream_rq_pending_active -= 1
            is_taken = self._assign(client, request)
        if self._pending:
            self._connect_as_needed()
        return is_taken

    def forget_idle(self, client: Http1Client) -> None:
        """The client is about to close: nobody gets it any more."""
        if client in self._idle:
            self._idle.remove(client)

    # -- connections

    def _wants_connection(self) -> bool:
        return self._connecting < len(self._pending)

    def _may_connect(self) -> bool:
        """Whether the limits allow one more connection. A pool that has none gets one all the same."""
        return not self._host_full() and not self.breakers.connections.is_full()

    def _host_full(self) -> bool:
        maximum = self.breakers.max_per_host
        return maximum is not None and self.host_connections is not None and self.host_connections.total() >= maximum

    def _connect_as_needed(self) -> None:
        for _ in range(MOST_CONNECTS):
            if not self._wants_connection():
                return
            has_room = self._may_connect()
            if not has_room:
                self.cluster.stats.upstream_cx_overflow += 1
                if self._all:
                    return
            if not self._connect() or not has_room:
                return

    def connection_opened(self) -> None:
        """Count a connection to the endpoint, a client's or that of a TCP session."""
        self.breakers.connections.add()
        if self.host_connections is not None:
            self.host_connections.add()
        self.cluster.stats.upstream_cx_active += 1
        self.endpoint.stats.cx_active += 1

    def connection_closed(self) -> None:
        """It is gone."""
        self.breakers.connections.remove()
        if self.host_connections is not None:
            self.host_connections.remove()
        self.cluster.stats.upstream_cx_active -= 1
        self.endpoint.stats.cx_active -= 1

    def _connect(self) -> bool:
        cluster = self.cluster
        stats = cluster.stats
        try:
            connection = cluster.connect(self.endpoint, self.origin) if self.origin else cluster.connect(self.endpoint)
        except OSError as error:
            stats.upstream_cx_connect_fail += 1
            self.endpoint.stats.cx_connect_fail += 1
            reason = "immediate connect error: " + os.strerror(error.errno or errno.EIO)
            cluster.loop.call_soon(lambda: self._fail_pending(RESET_LOCAL_CONNECTION_FAILURE, reason))
            self._report(reason, 0.0)
            return False
        self._connecting += 1
        stats.upstream_cx_total += 1
        stats.upstream_cx_http1_total += self.client_class is Http1Client
        self.endpoint.stats.cx_total += 1
        self.connection_opened()
        self._all.add(self.client_class(self, connection))
        return True

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
        self.forget_idle(client)
        self.connection_closed()
        connection = client.connection
        if not client.connected:
            self._connecting -= 1
            stats.upstream_cx_connect_fail += 1
            self.endpoint.stats.cx_connect_fail += 1
            self._count_end(client, remote=reason != CONNECT_TIMEOUT)
            failure = connect_failure_text(connection)
            self._report(failure or reason.replace("_", " "), cluster.loop.now - client.started)
            if reason == CONNECT_TIMEOUT:
                self._fail_pending(RESET_CONNECTION_TIMEOUT, "")
            elif reason in (CONNECT_FAILURE, TLS_FAILURE, REMOTE_CLOSE, REMOTE_RESET):
                self._fail_pending(RESET_REMOTE_CONNECTION_FAILURE, failure)
            elif not self._pending:
                self._on_maybe_empty()
            return
        self._count_end(client, remote=reason in (REMOTE_CLOSE, REMOTE_RESET))
        stats.upstream_rq_per_cx[client.requests] += 1
        if client.codec.told_close:
            stats.upstream_cx_close_notify += 1
        if self._pending:
            self._connect_as_needed()
        else:
            self._on_maybe_empty()

    def _count_end(self, client: Http1Client, *, remote: bool) -> None:
        stats = self.cluster.stats
        stats.upstream_cx_destroy += 1
        if remote:
            stats.upstream_cx_destroy_remote += 1
        else:
            stats.upstream_cx_destroy_local += 1
        stats.upstream_cx_length_ms[int((self.cluster.loop.now - client.started) * 1000)] += 1

    def _fail_pending(self, reason: str, transport_failure_reason: str) -> None:
        # Everybody who waits for this endpoint fails with the attempt, as in Envoy.
        pending = self._pending
        self._pending = []
        for _ in pending:
            self.breakers.pending.remove()
        self._on_maybe_empty()
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
        for pool in self._others():
            pool.drain()

    def retire(self) -> None:
        """The connections of now serve nobody new: idle ones close, busy ones after their response."""
        for client in list(self._all):
            if client.connected:
                client.retire()
        for pool in self._others():
            pool.retire()

    def on_health_failure(self) -> None:
        """The endpoint has turned unhealthy: no further request takes one of its connections."""
        self.retire()
        if self.cluster.config.pool.close_on_health_failure:
            for session in list(self.sessions or ()):
                session.on_health_failure()

    # -- TCP sessions

    def makes_wait(self, session: Session) -> bool:
        """There are as many connections to the endpoint as may be: ``session`` waits for another one to end."""
        if not self.sessions or not self._host_full():
            return False
        self.cluster.stats.upstream_cx_overflow += 1
        self._waiting.append(session)
        return True

    def stops_waiting(self, session: Session) -> bool:
        """The session ends; False when it did not wait."""
        if session in self._waiting:
            self._waiting.remove(session)
            return True
        return False

    def on_session_gone(self, session: Session) -> None:
        """Its connection is closed: the next one may connect."""
        if self.sessions is not None:
            self.sessions.discard(session)
        if self._waiting:
            self.cluster.loop.call_soon(self._waiting.pop(0).open_upstream)

    def sync_bytes(self) -> None:
        """Bring the byte counters up to date."""
        for client in self._all:
            client.sync_bytes()
        for pool in self._others():
            pool.sync_bytes()


class CountingPool(HttpPool):
    """A pool whose requests are counted one by one, for a limit that holds over all workers, or for a priority of its own."""

    __slots__ = ()

    def acquire(self, request: PoolRequest) -> None:
        """As above."""
        if self._idle:
            self._acquire_idle(request)
        else:
            self._wait(request)

    def take_back(self, client: Http1Client) -> None:
        """As above."""
        self.on_request_end()
        self.release(client)

    def _assign(self, client: Http1Client, request: PoolRequest) -> bool:
        limit = self.breakers.requests
        stats = self.cluster.stats
        if limit.is_full():
            stats.upstream_rq_active_overflow += 1
            request.on_refused(client)
            return False
        limit.add()
        stats.upstream_rq_total += 1
        stats.upstream_rq_active += 1
        endpoint_stats = self.endpoint.stats
        endpoint_stats.rq_total += 1
        endpoint_stats.rq_active += 1
        request.on_ready(client)
        return True

    def count_request(self) -> None:
        """An exchange begins, or a TCP session, which no limit of requests refuses."""
        self.breakers.requests.add()
        super().count_request()

    def on_request_end(self) -> None:
        """It is over, well or not."""
        self.breakers.requests.remove()
        self.cluster.stats.upstream_rq_active -= 1
        self.endpoint.stats.rq_active -= 1


class PreconnectingPool(CountingPool):
    """A pool that may make more connections than are needed now (``preconnect_policy``)."""

    __slots__ = ()

    def acquire(self, request: PoolRequest) -> None:
        """As above, and the connections for what may come."""
        if self.cluster.ahead is not None:
            self.cluster.ahead.preconnect()
        super().acquire(request)
        self._connect_as_needed()

    def preconnect(self, ratio: float) -> bool:
        """A request will come: make a connection for it, unless there are enough for ``ratio``. Whether one was made."""
        active = len(self._all) - len(self._idle) - self._connecting
        if self.draining or (len(self._pending) + active + 1) * ratio <= len(self._all):
            return False
        has_room = self._may_connect()
        if not has_room:
            self.cluster.stats.upstream_cx_overflow += 1
        return (has_room or not self._all) and self._connect() and has_room

    def _wants_connection(self) -> bool:
        ratio = self.cluster.config.pool.preconnect_ratio
        if ratio == 1.0 or health.coarse(self.endpoint.health_flags) != health.HEALTHY:
            return super()._wants_connection()
        if self.draining:
            return False
        free = len(self._idle) + self._connecting
        active = len(self._all) - free
        return (len(self._pending) + active) * ratio > free + active


class TimedPool(PreconnectingPool):
    """A pool whose exchanges may last ``max_stream_duration`` at most, from when they have a connection."""

    __slots__ = ()

    def _assign(self, client: Http1Client, request: PoolRequest) -> bool:
        duration_s = self.cluster.config.pool.http.max_stream_duration_s
        assert duration_s is not None
        client.limit_request(duration_s)  # first: the request may have a limit of its own
        return super()._assign(client, request)


def pool_class(cluster: Cluster, breakers: Breakers) -> type[HttpPool]:
    """Of the pool that does what the cluster asks for, and no more."""
    options = cluster.config.pool
    if options.http.max_stream_duration_s is not None:
        return TimedPool
    if options.preconnect_ratio != 1.0 or options.predictive_ratio != 1.0:
        return PreconnectingPool
    return CountingPool if breakers.counts_requests else HttpPool


def make_pool(cluster: Cluster, endpoint: Endpoint, breakers: Breakers) -> HttpPool:
    """The pool of an endpoint for the requests of one priority."""
    is_own = cluster.config.pool.per_downstream or cluster.announces(endpoint)
    cls: type[HttpPool] = (
        import_module("forkproxy.upstream.own_pools").OwnPools if is_own else pool_class(cluster, breakers)
    )
    return cls(cluster, endpoint, breakers)


def connect_failure_text(connection: Connection) -> str:
    """Why a connection could not be made, in Envoy's words for %UPSTREAM_TRANSPORT_FAILURE_REASON%; "" when unknown."""
    if connection.transport_failure_reason:
        return connection.transport_failure_reason
    if connection.error is not None and connection.error.errno:
        return "delayed connect error: " + os.strerror(connection.error.errno)
    return ""
