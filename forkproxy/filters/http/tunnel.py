"""The router's exchanges that may become tunnels: an upgrade, a CONNECT that goes on to an endpoint, or one that ends here.

The rules (asked of Envoy 1.40)
- What the client sends behind the head waits until the endpoint has granted the tunnel. Only the body that the head announces
  by its length goes before (Envoy lets it wait too, for ever: no endpoint answers half a request).
- An answer that does not grant is the response, and the end: neither connection carries another request. WebSockets know no
  such answer but an error (RFC 6455 section 4.1): of another one only the head goes on.
- The route's timeout bounds the handshake of a WebSocket, and nothing else.
- With ``connect_config`` there is no head: the endpoint gets the bytes, and the client 200 as soon as there is a connection.
- Either side's end ends the tunnel. What the client had sent is still written (Envoy drops it).

A tunnel is neither mirrored nor hedged. Once reads come full, a direction between raw sockets with no data filter on it is
spliced, as in tcp_proxy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from forkproxy.filters.http.router import Router, UpstreamRequest
from forkproxy.filters.http.router_policies import PolicyExchange, PolicyRequest
from forkproxy.http.headers import Headers
from forkproxy.http.headers import get as get_header
from forkproxy.http.http1 import CONNECT
from forkproxy.http.stream import Stream
from forkproxy.http.tunnel import TunnelCodec
from forkproxy.http.upgrades import Tunnel, become_tunnel
from forkproxy.net import proxy_protocol
from forkproxy.net.connection import Connection
from forkproxy.net.splice import Splice
from forkproxy.net.timers import NEVER
from forkproxy.upstream.cluster import Cluster
from forkproxy.upstream.endpoint import Endpoint
from forkproxy.upstream.http_pool import Http1Client, HttpPool
from forkproxy.upstream.response_splice import LARGE_PIECE_BYTES

FLUSH_TIMEOUT_S: Final = 10.0
"""The client is gone: for so long the endpoint may take nothing of what it had sent."""


def begin(router: Router, stream: Stream, cluster: Cluster, endpoint: Endpoint, end_stream: bool) -> bool:
    """Begin the exchange if it is one of these: ``Route.tunnel``. The endpoint has been chosen, the head is finished."""
    route = stream.route
    method = stream.method
    is_upgrade = stream.http.upgrading
    ends_here = route.connect is not None and (method == CONNECT or (not is_upgrade and method == b"POST"))
    if not (is_upgrade or ends_here):
        return False
    if is_upgrade and route.timeout_s is not None and _is_websocket(stream):
        stream.response_deadline = router.loop.now + route.timeout_s
        stream.http.watch(stream.response_deadline)
    if route.retries is not None:
        cls = TerminatedExchange if ends_here else TunnelExchange
        cls(router, stream, cluster, route.retries, end_stream).begin(endpoint)
        return True
    stream.attempt_count = 1
    request = router.kind_of(TerminatedRequest if ends_here else TunnelRequest)(
        router, stream, cluster, endpoint, end_stream
    )
    stream.upstream = request
    if end_stream:
        request.request_ended(route.timeout_s)
    pool = endpoint.pool.high() if route.is_high else endpoint.pool
    (pool.raw() if ends_here else pool).acquire(request)
    return True


def _is_websocket(stream: Stream) -> bool:
    return (get_header(stream.request_headers, b"upgrade") or b"").lower() == b"websocket"


def _between(source: Connection, sink: Connection, on_moved: Callable[[int], None]) -> Callable[[], None] | None:
    # Only raw sockets: under TLS, and where write filters stand, the bytes are not the socket's.
    if type(source) is not Connection or type(sink) is not Connection or sink.inflow is not None:
        return None
    return Splice(source, sink, on_moved).start


class _Tunnelled(UpstreamRequest):
    # What both kinds share: how a tunnel ends.
    __slots__ = ()

    def is_granted(self) -> bool:
        """Do bytes pass both ways?"""
        return False

    def reset(self) -> None:
        """UpstreamHandle: the downstream side is over. What it had sent is still written, unless it was cut off."""
        client = self._client
        if client is None or client.request is not self or not self.is_granted() or self.stream.connection.error:
            super().reset()
            return
        self._let_go()
        client.leave(FLUSH_TIMEOUT_S)

    def on_reset(self, reason: str, transport_failure_reason: str) -> None:
        """PoolRequest: the exchange failed. The end of a tunnel is no response that was cut."""
        super().on_reset(reason, transport_failure_reason)
        if self.is_granted():
            self.router.stats.rq_reset_after_downstream_response_started -= 1

    def _splice(self) -> None:
        # Full reads from the endpoint: the base's way needs an end, which a tunnel has not.
        stream, client = self.stream, self._client
        if type(stream.http) is not Tunnel:
            super()._splice()
            return
        if self._resplice is None and client is not None and client.request is self and not stream.ended:
            self._resplice = _between(client.connection, stream.connection, self.on_body_moved)
        if self._resplice is not None:
            self._resplice()

    def _splice_up(self, sink: Connection) -> None:
        # The same from the client. With another read callback there are network filters before it.
        stream = self.stream
        http, source = stream.http, stream.connection
        if type(http) is not Tunnel or len(http.chain.decode_data) != 1 or source.on_data != http.on_data:
            return
        if self._resplice_request is None:
            self._resplice_request = _between(source, sink, self._on_client_moved)
        if self._resplice_request is not None:
            self._resplice_request()

    def _on_client_moved(self, size: int) -> None:
        stream = self.stream
        stream.bytes_received += size
        stream.last_activity = self.router.loop.now

    def _send_held(self) -> None:
        held, self._held = self._held, None
        self._held_bytes = 0
        self._release_downstream()
        for data, end_stream, trailers in held or ():
            self.send_data(data, end_stream, trailers)


class _Asking(_Tunnelled):
    # The mixin of the exchanges with a head; ``_body_left``: what of the announced body the client has not sent yet.
    __slots__ = ()

    if TYPE_CHECKING:
        _body_left: int

    def is_granted(self) -> bool:
        """Has the endpoint said so?"""
        client = self._client
        return client is not None and isinstance(client.codec, TunnelCodec) and client.codec.granted

    def on_ready(self, client: Http1Client) -> None:
        """PoolRequest: send the head."""
        client.expect_tunnel(is_connect=self.stream.method == CONNECT)
        self._body_left = self._body_length()  # type: ignore[misc]  # the classes have the slot
        super().on_ready(client)

    def _frame_body(self) -> bytes:
        return b"\r\n\r\n"

    def _body_length(self) -> int:
        return int(get_header(self.stream.request_headers, b"content-length") or 0)

    def send_data(self, data: bytes, end_stream: bool, trailers: Headers | None) -> None:
        """What the client has sent behind the head."""
        client = self._client
        if client is None:
            self._hold(data, end_stream, trailers)
        elif self.is_granted():
            client.connection.write(data)
            if len(data) > LARGE_PIECE_BYTES and not self.stream.ended:
                self._splice_up(client.connection)
        else:
            body = data[: self._body_left]
            if body:
                self._body_left -= len(body)  # type: ignore[misc]
                client.connection.write(body)
                data = data[len(body) :]
            if data:
                self._hold(data, False, None)

    def may_be_sent_again(self) -> bool:
        """PoolRequest: while nothing is granted; a body has gone with the connection."""
        return not self._body_length() and not self.is_granted() and super().may_be_sent_again()

    def decode_headers(self, status: int, headers: Headers, end_stream: bool) -> None:
        """ClientSink: the answer's head."""
        stream = self.stream
        if not self.is_granted():
            if not self.fails_handshake(status, headers):
                super().decode_headers(status, headers, end_stream)
            return
        stream.response_deadline = NEVER
        become_tunnel(stream.http)
        super().decode_headers(status, headers, False)
        if not stream.ended and stream.upstream is self:
            self._send_held()

    def fails_handshake(self, status: int, headers: Headers) -> bool:
        """True when the answer is none to a WebSocket, and the client has been told so."""
        if status >= 400 or self.is_granted() or not _is_websocket(self.stream):
            return False
        self.stream.send_local_reply(
            status,
            headers=[header for header in headers if header[0] != b"content-length"],
            details="websocket_handshake_unsuccessful",
        )
        return True


class TunnelRequest(_Asking):
    """An upgrade, or a CONNECT to an endpoint that speaks HTTP/1.1."""

    __slots__ = ("_body_left",)


class _Terminated(_Tunnelled):
    # The mixin of the exchanges without a head. What carries them is a RawClient.
    __slots__ = ()

    def is_granted(self) -> bool:
        """There is a connection, and that is all."""
        return self._client is not None

    def on_ready(self, client: Http1Client) -> None:
        """PoolRequest: answer in the endpoint's place, and send what is there."""
        stream = self.stream
        self._client = client
        stream.upstream_connection = client.connection
        stream.upstream_first_tx = self.router.loop.now
        client.begin(self, False)
        header = stream.route.connect.proxy_protocol
        if header is not None:
            source, destination = stream.connection.remote_address, stream.connection.local_socket_address()
            if header.version == 1:
                client.connection.write(proxy_protocol.version_1(source, destination))
            else:
                client.connection.write(proxy_protocol.version_2(source, destination, header.tlvs))
        if stream.method == CONNECT:
            become_tunnel(stream.http)
        self.decode_headers(200, [], False)
        if not stream.ended and stream.upstream is self:
            self._send_held()
            if self._end_stream:
                self.send_data(b"", True, None)

    def send_data(self, data: bytes, end_stream: bool, trailers: Headers | None) -> None:
        """What the client has sent; the end of a POST is the end of data."""
        client = self._client
        if client is None:
            self._hold(data, end_stream, trailers)
            return
        if data:
            client.connection.write(data)
            if len(data) > LARGE_PIECE_BYTES and not self.stream.ended:
                self._splice_up(client.connection)
        if end_stream:
            client.request_sent = True
            client.connection.end_write()

    def may_be_sent_again(self) -> bool:
        """PoolRequest: the client has its answer."""
        return False


class TerminatedRequest(_Terminated):
    """A CONNECT that ends here, or a POST that is taken for one."""

    __slots__ = ()


class RetriedTunnel(PolicyRequest, _Asking):
    """One attempt of the first kind."""

    __slots__ = ("_body_left",)

    def on_ready(self, client: Http1Client) -> None:
        """PoolRequest: send the head. The time of a WebSocket's attempt begins."""
        super().on_ready(client)
        if _is_websocket(self.stream) and not self._ended_at:
            self._start_timers()

    def decode_headers(self, status: int, headers: Headers, end_stream: bool) -> None:
        """ClientSink: the answer's head, unless it is none to a WebSocket: nobody tries again then, or follows a redirect."""
        if not self.fails_handshake(status, headers):
            super().decode_headers(status, headers, end_stream)


class RetriedTermination(PolicyRequest, _Terminated):
    """One attempt of the second kind."""

    __slots__ = ()


class TunnelExchange(PolicyExchange):
    """All attempts of the first kind."""

    __slots__ = ()
    attempt = RetriedTunnel


class TerminatedExchange(PolicyExchange):
    """All attempts of the second kind."""

    __slots__ = ()
    attempt = RetriedTermination

    def _pool(self, endpoint: Endpoint) -> HttpPool:
        return super()._pool(endpoint).raw()
