"""Who the client of a request is, whether it is inside, and what it may therefore say (Envoy: "x-forwarded-for", "HTTP header
sanitizing").

With use_remote_address the peer is the client, or, behind trusted proxies, whom they have seen; this proxy appends the peer to
x-forwarded-for. Without it detectors tell the client's address: from x-forwarded-for, or from a header of one's own.

A request is inside when its address is the only one and internal; else it loses the headers that only the inside may set, and
with use_remote_address (the edge) more of them.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from forkproxy.http.headers import Headers
from forkproxy.http.headers import get as get_header
from forkproxy.http.headers import set_ as set_header
from forkproxy.http.http1 import HAS_ENVOY, HAS_FORWARDED_FOR
from forkproxy.net import address as addresses

if TYPE_CHECKING:
    from forkproxy.http.stream import Stream

OUTSIDE: Final = 0
EDGE: Final = 1
"""Outside, and this proxy is the first of ours that it meets."""
INSIDE: Final = 2
REJECTED: Final = 3
"""Answered already."""


def is_inside(stream: Stream) -> bool:
    """Has this request been found to come from inside?"""
    return get_header(stream.request_headers, b"x-envoy-internal") == b"true"


AddressTest = Callable[[str], bool]
"""Is this IP literal in some range?"""

_LOOPBACK = frozenset(("127.0.0.1", "::1"))

_SANITISED_ALWAYS = frozenset(
    (
        *(
            b"x-envoy-internal",
            b"x-envoy-retriable-status-codes",
            b"x-envoy-retriable-header-names",
            b"x-envoy-ip-tags",
        ),
        *(b"x-envoy-max-retries", b"x-envoy-retry-on", b"x-envoy-retry-grpc-on", b"x-envoy-force-trace"),
        *(
            b"x-envoy-upstream-rq-timeout-ms",
            b"x-envoy-upstream-rq-per-try-timeout-ms",
            b"x-envoy-expected-rq-timeout-ms",
        ),
        *(b"x-envoy-upstream-alt-stat-name", b"x-envoy-upstream-rq-timeout-alt-response", b"x-envoy-original-url"),
        *(b"x-envoy-hedge-on-per-try-timeout", b"x-envoy-upstream-stream-duration-ms"),
    )
)
_SANITISED_AT_THE_EDGE = _SANITISED_ALWAYS | frozenset(
    (
        *(b"x-envoy-decorator-operation", b"x-envoy-downstream-service-cluster", b"x-envoy-downstream-service-node"),
        *(b"x-envoy-original-path", b"x-envoy-original-host"),
    )
)
_SANITISED_INSIDE = frozenset((b"x-envoy-internal",))
_CLIENT_CERTIFICATE = frozenset((b"x-forwarded-client-cert",))


class Found(NamedTuple):
    """What a detector says. ``ip``: the client's address, "" when it found none. ``trusted``: it may count as internal."""

    ip: str
    trusted: bool = False
    append: bool = False
    """The peer joins x-forwarded-for."""
    reject_status: int = 0
    """Answer with this instead."""


Detector = Callable[[Headers, str], Found]
"""(the request's headers, the peer's IP address or "") → what it found."""


def ip_literal(value: bytes) -> str:
    """The address that ``value`` is, in its usual spelling; "" when it is none. No port, no brackets, no zone."""
    text = value.decode("latin-1")
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return socket.inet_ntop(family, socket.inet_pton(family, text))
        except (OSError, ValueError):
            continue
    return ""


def forwarded_for(headers: Headers) -> bytes:
    """All of x-forwarded-for, as one list."""
    return b",".join([value for name, value in headers if name == b"x-forwarded-for"])


def last_forwarded(forwarded: bytes, skip: int) -> str:
    """The address before the last ``skip`` ones; "" when there is none or it is no address."""
    chain = forwarded.split(b",")
    return ip_literal(chain[-1 - skip].strip()) if len(chain) > skip else ""


def xff_detector(hops: int, trusted: Sequence[AddressTest], append: bool) -> Detector:
    """``envoy.http.original_ip_detection.xff``, and what is there without detectors: by ``hops``, or by who is ``trusted``."""

    def by_hops(headers: Headers, peer: str) -> Found:
        forwarded = forwarded_for(headers)
        return Found(last_forwarded(forwarded, hops), b"," not in forwarded, append)

    def by_ranges(headers: Headers, peer: str) -> Found:
        if not any(contains(peer) for contains in trusted):
            return Found("", append=True)
        chain = [part.strip() for part in forwarded_for(headers).split(b",")]
        client = ""
        for part in reversed(chain):
            ip = ip_literal(part)
            if not ip:
                return Found("", False, append)
            client = ip
            if not any(contains(ip) for contains in trusted):
                break
        return Found(client, len(chain) == 1, append)

    return by_ranges if trusted else by_hops


def header_detector(name: bytes, trusted: bool, reject_status: int) -> Detector:
    """``envoy.http.original_ip_detection.custom_header``."""

    def by_header(headers: Headers, peer: str) -> Found:
        value = get_header(headers, name)
        ip = ip_literal(value) if value is not None else ""
        return Found(ip, trusted) if ip else Found("", reject_status=reject_status)

    return by_header


class ClientAddresses:
    """What one connection manager makes of addresses; compiled from its configuration."""

    __slots__ = (
        *("append_port", "append_xff", "detectors", "hops", "internal", "internal_only", "internal_pipes"),
        *("keeps_client_certificate", "local_ip", "looks_at_every_request", "scheme", "use_remote_address"),
    )

    def __init__(
        self,
        *,
        use_remote_address: bool = False,
        hops: int = 0,
        append_xff: bool = True,
        append_port: bool = False,
        detectors: Sequence[Detector] = (),
        internal: Sequence[AddressTest] = (),
        internal_only: frozenset[bytes] = frozenset(),
        internal_pipes: bool = False,
        local_ip: bytes = b"",
        scheme: bytes = b"http",
    ) -> None:
        """``local_ip``: how a client on this machine is known to the next hop. ``internal_pipes``: unix sockets are inside.
        ``internal_only``: more headers that who is not inside loses."""
        self.use_remote_address = use_remote_address
        self.hops = hops
        self.append_xff = append_xff
        self.append_port = append_port
        self.detectors = tuple(detectors) or (xff_detector(hops, (), False),)
        self.looks_at_every_request = use_remote_address or append_port or bool(detectors) or bool(internal_only)
        """Else ``admit`` need not see those without a header about it."""
        self.internal = tuple(internal)
        self.internal_only = internal_only
        self.internal_pipes = internal_pipes
        self.local_ip = local_ip
        self.scheme = scheme
        self.keeps_client_certificate = False
        """Somebody else looks after x-forwarded-client-cert."""

    def admit(self, stream: Stream, request_flags: int) -> int:
        """Find out who it is, sanitise and complete the request's headers. Returns OUTSIDE, EDGE, INSIDE or REJECTED."""
        headers = stream.request_headers
        peer = stream.connection.remote_address
        peer_ip = peer[0] if isinstance(peer, tuple) else ""
        has_forwarded_for = bool(request_flags & HAS_FORWARDED_FOR)
        if has_forwarded_for:
            set_header(headers, b"x-forwarded-for", forwarded_for(headers))
        client = ""
        may_be_inside = False
        if self.use_remote_address:
            may_be_inside = not has_forwarded_for
            client = self._at_the_edge(stream, headers, peer_ip)
        elif has_forwarded_for or self.looks_at_every_request:
            for detect in self.detectors:
                found = detect(headers, peer_ip)
                if found.reject_status:
                    stream.http.manager.stats.downstream_rq_rejected_via_ip_detection += 1
                    stream.scheme = b""  # nobody has come to it
                    stream.send_local_reply(found.reject_status, details="rejecting_because_detection_failed")
                    return REJECTED
                if found.append:
                    self._append(headers, peer_ip)
                if found.ip:
                    client, may_be_inside = found.ip, found.trusted
                    break
        if client:
            stream.remote_address = addresses.text((client, 0))
        forwarded_proto = get_header(headers, b"x-forwarded-proto")
        if forwarded_proto is None:
            headers.append((b"x-forwarded-proto", self.scheme))
        elif (scheme := forwarded_proto.lower()) in (b"http", b"https"):
            stream.scheme = scheme
        if self.append_port and get_header(headers, b"x-forwarded-port") is None:
            self._set_port(stream, headers)
        if self.use_remote_address:
            client = client or peer_ip
        inside = may_be_inside and self._is_internal(client)
        if request_flags & HAS_ENVOY:
            self._sanitise(stream, inside)
        if self.internal_only and not inside:
            stream.request_headers = [line for line in stream.request_headers if line[0] not in self.internal_only]
        if inside:
            stream.request_headers.append((b"x-envoy-internal", b"true"))
            return INSIDE
        if not self.use_remote_address:
            return OUTSIDE
        if client:
            set_header(stream.request_headers, b"x-envoy-external-address", client.encode())
        return EDGE

    def _at_the_edge(self, stream: Stream, headers: Headers, peer_ip: str) -> str:
        # The trusted proxies before us have appended what they saw: count back from the end.
        client = last_forwarded(forwarded_for(headers), self.hops - 1) if self.hops else ""
        if self.append_xff:
            self._append(headers, peer_ip)
        if not self.hops or get_header(headers, b"x-forwarded-proto") is None:
            set_header(headers, b"x-forwarded-proto", self.scheme)
        if self.append_port and not self.hops:
            self._set_port(stream, headers)
        return client

    def _append(self, headers: Headers, peer_ip: str) -> None:
        if peer_ip:
            # Envoy: a client on this machine is known to the next hop by this machine's address.
            own = self.local_ip if self.local_ip and peer_ip in _LOOPBACK else peer_ip.encode()
            forwarded = forwarded_for(headers)
            set_header(headers, b"x-forwarded-for", b"%b,%b" % (forwarded, own) if forwarded else own)

    def _set_port(self, stream: Stream, headers: Headers) -> None:
        local = stream.connection.local_socket_address()
        if isinstance(local, tuple):
            set_header(headers, b"x-forwarded-port", b"%d" % local[1])

    def _is_internal(self, client: str) -> bool:
        # Whoever has no IP address is at a unix socket.
        return any(contains(client) for contains in self.internal) if client else self.internal_pipes

    def _sanitise(self, stream: Stream, inside: bool) -> None:
        if inside:
            dropped = _SANITISED_INSIDE
        else:
            dropped = _SANITISED_AT_THE_EDGE if self.use_remote_address else _SANITISED_ALWAYS
        if not self.keeps_client_certificate:
            dropped |= _CLIENT_CERTIFICATE
        stream.request_headers[:] = [header for header in stream.request_headers if header[0] not in dropped]
