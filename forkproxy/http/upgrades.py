"""Upgrades and CONNECT on the downstream side: who gets one, and what the connection is from then on.

The rules (asked of Envoy 1.40)
- A type that neither the connection manager nor the route allows is refused with 403. What a route says about a type overrides
  the connection manager. CONNECT is a type like others.
- The request passes a chain of filters of its own where the connection manager names one for its type.
- Only the endpoint's answer makes a tunnel, and only then do the client's bytes go there. Any other answer ends the connection.
- Bytes pass the filters as bodies do. When one side ends the other is closed: there are no half-open tunnels.
- Time: what begins with the end of the request (the route's timeout) never does; ``request_timeout`` ends with the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, ClassVar

from forkproxy.http.chain import HttpFilterChain
from forkproxy.http.connection_manager import HttpConnection
from forkproxy.http.header_case import respell, status_line
from forkproxy.http.headers import Headers
from forkproxy.http.headers import get as get_header
from forkproxy.http.headers import set_ as set_header
from forkproxy.http.http1 import CONNECT, REFUSED
from forkproxy.http.status import HTTP_10, HTTP_11
from forkproxy.http.stream import Stream
from forkproxy.net.timers import NEVER

_FRAMING = frozenset((b"content-length", b"transfer-encoding", b"keep-alive", b"proxy-connection"))


class UpgradeType:
    """One of the connection manager's ``upgrade_configs``. ``chain``: filters of its own, with what routes say of those."""

    __slots__ = ("chain", "enabled", "routes")

    def __init__(self, enabled: bool, chain: HttpFilterChain | None = None, routes: Mapping[Any, Any] = {}) -> None:
        self.enabled = enabled
        self.chain = chain
        self.routes = routes


class Upgrades:
    """What a connection manager and its routes allow. ``types``: by lower-case name.

    ``match_connect`` finds the route of a CONNECT; ``tunnel(route)`` is the route for a request that may become one.
    """

    __slots__ = ("_match_connect", "_tunnel", "_types")

    def __init__(
        self,
        types: Mapping[bytes, UpgradeType],
        match_connect: Callable[[Stream], Any],
        tunnel: Callable[[Any], Any],
    ) -> None:
        self._types = types
        self._match_connect = match_connect
        self._tunnel = tunnel

    def find_route(self, http: HttpConnection, stream: Stream) -> None:
        """A CONNECT is routed by its authority alone, whose port counts only where the connection manager strips none."""
        settings = http.manager.settings
        authority = stream.authority
        if settings.strip_any_host_port or settings.strip_matching_host_port:
            http.strip_port(stream, settings.strip_any_host_port)
        stream.route = self._match_connect(stream)
        stream.authority = authority

    def grant(self, http: HttpConnection, stream: Stream, name: bytes) -> bool:
        """May this request become a tunnel? Then its route and its filters are those of one. False: it is to be refused."""
        if name == REFUSED:
            return False
        route = stream.route
        name = name.lower()
        upgrade = self._types.get(name)
        enabled: bool | None = route.upgrades.get(name) if route is not None else None
        if enabled is None:
            enabled = upgrade is not None and upgrade.enabled
        if not enabled:
            return route is None  # the router has an answer for that
        if upgrade is not None and upgrade.chain is not None:
            http.use_chain(upgrade.chain)
            route = upgrade.routes.get(route, route)
        if route is not None:
            stream.route = self._tunnel(route)
        http.manager.stats.downstream_cx_upgrades_total += 1
        http.upgrading = True
        return True


class Upgradable(HttpConnection):
    """An ``HttpConnection`` whose stream may become a tunnel."""

    __slots__ = ()


class Tunnel(Upgradable):
    """What an ``Upgradable`` is once the endpoint has granted a tunnel: the same object, of another class.

    Until the answer's head has passed the filters, one of them may still put another answer in its place.
    """

    __slots__ = ()

    was: ClassVar[type[HttpConnection]] = Upgradable
    """Of which class it has been before."""

    def encode_headers(self, stream: Stream, headers: Headers, end_stream: bool) -> None:
        """The head that grants. What follows it has no framing."""
        status = stream.status
        if end_stream or not (status == 101 or (stream.method == CONNECT and 200 <= status < 300)):
            self.__class__ = self.was  # type: ignore[assignment]
            self.encode_headers(stream, headers, end_stream)
            return
        manager = self.manager
        settings = manager.settings
        stream.downstream_first_tx = self.loop.now
        if settings.request_id_in_response and stream.request_id:
            set_header(headers, b"x-request-id", stream.request_id)
        if manager.overwrite_server:
            headers[:] = [header for header in headers if header[0] != b"server"]
        lines = [b"%b: %b" % header for header in headers if header[0] not in _FRAMING]
        if get_header(headers, b"date") is None:
            lines.append(manager.date_line(self.loop.now))
        if manager.add_server and get_header(headers, b"server") is None:
            lines.append(manager.server_line)
        if manager.amends_response:
            self._amend(stream, lines)
        if status != 101 and status != 200:
            lines.append(b"connection: close")  # Envoy knows a granted CONNECT by 200 alone
        first = (HTTP_10 if self.http_10 else HTTP_11)[status]
        if settings.header_key_format is not None:
            lines = respell(lines, headers, settings.header_key_format)
            first = status_line(first, status, headers)
        manager.stats.downstream_rq_response_before_rq_complete += 1
        self.close_after = True
        self._chunked = False
        self.connection.write(first + b"".join([line + b"\r\n" for line in lines]) + b"\r\n")

    def encode_data(self, stream: Stream, data: bytes, end_stream: bool) -> None:
        """Bytes of the tunnel, also of one that HEAD has asked for."""
        if data:
            stream.bytes_sent += len(data)
            self.connection.write(data)
            if stream.ended:
                return
            stream.last_activity = self.loop.now
        if end_stream:
            self._end_response(stream)

    def encode_passed_headers(self, stream: Stream, headers: Headers, framed: bool, body: bytes) -> bool:
        """The head that grants, when nobody has looked at it."""
        self.encode_headers(stream, headers, False)
        return False

    def encode_end(self, stream: Stream) -> None:
        """The endpoint has ended its side."""
        self._end_response(stream)

    def encode_trailers(self, stream: Stream, trailers: Headers) -> None:
        """A tunnel has none: it ends."""
        self._end_response(stream)

    def _end_response(self, stream: Stream) -> None:
        stream.response_ended = True
        self.manager.stats.downstream_rq_rx_reset += 1
        self.reset_upstream(stream)
        self._end_stream(stream)

    def break_off(self, stream: Stream) -> None:
        """The tunnel is cut."""
        stats = self.manager.stats
        stats.downstream_rq_tx_reset += 1
        stats.downstream_rq_rx_reset += 1
        self._end_stream(stream)

    def request_timeout_s(self) -> float:
        """The request was answered."""
        return NEVER


def become_tunnel(http: HttpConnection) -> None:
    """The endpoint has granted what the stream of ``http`` asks for."""
    if type(http) is not Upgradable:
        http.__class__ = import_module("forkproxy.http.metered_tunnel").MeteredTunnel
    else:
        http.__class__ = Tunnel
