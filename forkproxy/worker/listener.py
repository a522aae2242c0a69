"""A listener in a worker: accepts, chooses the filter chain, wires the connection to it."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Callable, Collection, Sequence
from typing import Any

from forkproxy import log
from forkproxy.config.build.listener import FilterChainMatch, ListenerConfig
from forkproxy.net import address as addresses
from forkproxy.net import descriptors
from forkproxy.net.address import SocketAddress
from forkproxy.net.connection import Connection
from forkproxy.net.filter import NetworkFilterChain
from forkproxy.net.loop import Loop
from forkproxy.net.poller import READ
from forkproxy.net.sockets import DEFAULT_BACKLOG, Accept, RawSocket, acceptor, original_destination
from forkproxy.stats.groups import ListenerStats, ListenerWorkerStats
from forkproxy.worker.handover import Share

ACCEPTS_PER_PASS = 16
"""Fairness: a connection flood must not starve the connections that are there."""
FULL_TURNS = 8
"""So many times in a row as many connections waited as were taken: perhaps there are more."""
OUT_OF_DESCRIPTORS_PAUSE_S = 0.1
OUT_OF_DESCRIPTORS_LOG_S = 10.0
"""A flood must not fill the disk: one line in this time."""

_log = log.get_logger("listener")

MakeConnection = Callable[[Loop, RawSocket, SocketAddress, int], Connection]
"""(loop, accepted socket, peer, buffer limit in bytes) → the connection, raw or TLS."""


class LiveFilterChain:
    """A filter chain ready to take connections."""

    __slots__ = ("chain", "logs", "make_connection", "match")

    def __init__(self, match: ChainMatch | None, chain: NetworkFilterChain, make_connection: MakeConnection) -> None:
        self.match = match
        self.chain = chain
        self.make_connection = make_connection
        self.logs: Sequence[Callable[[Any], None]] = ()


class ChainMatch:
    """``FilterChainMatch`` compiled: how well a connection matches, or not at all.

    Criteria are compared in Envoy's order, the more specific one wins (Envoy: "FilterChainMatch").
    """

    __slots__ = ("_direct_source", "_port", "_ports", "_prefixes", "_source", "_source_type")

    def __init__(self, config: FilterChainMatch) -> None:
        self._port = config.destination_port
        self._prefixes = _networks(config.prefix_ranges)
        self._direct_source = _networks(config.direct_source_prefix_ranges)
        self._source = _networks(config.source_prefix_ranges)
        self._source_type = config.source_type
        self._ports = frozenset(config.source_ports)

    def score(self, local: SocketAddress | None, peer: SocketAddress) -> tuple[int, ...] | None:
        """None: no match. Greater tuples are better matches."""
        local_ip, local_port = local if isinstance(local, tuple) else ("", 0)
        peer_ip, peer_port = peer if isinstance(peer, tuple) else ("", 0)
        if self._port is not None and self._port != local_port:
            return None
        prefix = _longest(self._prefixes, local_ip)
        direct = _longest(self._direct_source, peer_ip)
        source = _longest(self._source, peer_ip)
        if prefix is None or direct is None or source is None:
            return None
        if self._ports and peer_port not in self._ports:
            return None
        kind = 0
        if self._source_type != "ANY":
            loopback = bool(peer_ip) and (peer_ip == local_ip or ipaddress.ip_address(peer_ip).is_loopback)
            if loopback != (self._source_type == "SAME_IP_OR_LOOPBACK"):
                return None
            kind = 1
        return (int(self._port is not None), prefix, direct, kind, source, int(bool(self._ports)))


_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _networks(ranges: Sequence[str]) -> tuple[_Network, ...]:
    return tuple(ipaddress.ip_network(text, strict=False) for text in ranges)


def _longest(networks: tuple[_Network, ...], ip: str) -> int | None:
    # The length of the longest range that holds the address; 0 without ranges, None when none of them holds it.
    if not networks:
        return 0
    if not ip:
        return None
    address = ipaddress.ip_address(ip)
    lengths = [network.prefixlen + 1 for network in networks if address in network]
    return max(lengths) if lengths else None


class Listener:
    """One configured listener in one worker."""

    def __init__(
        self,
        config: ListenerConfig,
        chains: Sequence[LiveFilterChain],
        default_chain: LiveFilterChain | None,
        stats: ListenerStats,
        worker_stats: Callable[[int], ListenerWorkerStats | None],
    ) -> None:
        self.config = config
        self.chains = tuple(chains)
        self.default_chain = default_chain
        self.stats = stats
        self.accepted = 0
        self.connections: set[Connection] = set()
        self._worker_stats_of = worker_stats
        self._worker_stats: ListenerWorkerStats | None = None
        self._only = chains[0] if len(chains) == 1 and chains[0].match is None else None
        self._sockets: list[socket.socket] = []
        self._loop: Loop = None  # type: ignore[assignment]  # set by start()
        self._limit = config.per_connection_buffer_limit_bytes
        self._restores, self._transparent = config.original_dst, config.transparent
        self.accepts_per_event = config.max_connections_to_accept_per_socket_event or ACCEPTS_PER_PASS
        self.is_paused = False
        self._quiet_until = 0.0
        self._edge = 0
        self.on_close_type = OnClose
        self.on_no_match: Callable[[Loop, RawSocket, SocketAddress], None] | None = None
        """These two are connection_log.py's where the listener has access logs."""
        self.share: Share | None = None
        """Its part in handing connections to workers that have fewer; None when nobody else is there."""

    def start(self, loop: Loop, sockets: Sequence[socket.socket], slot: int) -> None:
        """Accept from ``sockets``."""
        self._loop = loop
        self._edge = descriptors.edge()
        self._worker_stats = self._worker_stats_of(slot)
        for sock in sockets:
            self._sockets.append(sock)
            loop.register(sock.fileno(), READ, _Acceptor(self, sock))

    def adopt(self, sock: socket.socket) -> bool:
        """Accept from one socket more. False: nothing is accepted any more, or this one is here already."""
        inode = os.fstat(sock.fileno()).st_ino
        if not self._sockets or inode in [os.fstat(own.fileno()).st_ino for own in self._sockets]:
            return False
        self._sockets.append(sock)
        if not self.is_paused:
            self._loop.register(sock.fileno(), READ, _Acceptor(self, sock))
        return True

    @property
    def all_chains(self) -> tuple[LiveFilterChain, ...]:
        """The default one too."""
        return self.chains if self.default_chain is None else (*self.chains, self.default_chain)

    def accept_one(self, accept: Accept) -> bool:
        """Take one connection of a listening socket; False: there is none."""
        try:
            accepted, peer = accept()
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in descriptors.OUT_OF_RESOURCES:
                self._pause(os.strerror(error.errno), descriptors.HINT if error.errno == errno.EMFILE else "")
            # Anything else happened to that one connection while it waited (ECONNABORTED and the like).
            return False
        if accepted.fileno() >= self._edge:
            self._pause_at_the_edge()
        share = self.share
        if share is None or not share.give_away(accepted, peer, len(self.connections)):
            self.take(accepted, peer)
        return True

    def take_from_another(self, accepted: RawSocket, peer: SocketAddress) -> None:
        """Serve a connection that another worker has accepted."""
        if accepted.fileno() >= self._edge:
            self._pause_at_the_edge()
        accepted.setblocking(False)
        self.take(accepted, peer)

    def _pause_at_the_edge(self) -> None:
        self._pause("the descriptors that are left are for upstream connections", descriptors.HINT)

    def _pause(self, reason: str, hint: str) -> None:
        # What comes waits in the kernel's queue, and when that is full is not answered. The poller is level-triggered: it
        # would wake the loop for what waits, for ever.
        self.stats.downstream_cx_overflow += 1
        if self.is_paused:
            return
        self.is_paused = True
        if self._loop.now >= self._quiet_until:
            self._quiet_until = self._loop.now + OUT_OF_DESCRIPTORS_LOG_S
            _log.warning(
                "cannot accept connections for a moment",
                listener=self.config.name,
                reason=reason,
                connections=len(self.connections),
                hint=hint,
            )
        for sock in self._sockets:
            self._loop.unregister(sock.fileno())
        if self.share is not None:
            self.share.pause(True)
        self._loop.call_later(OUT_OF_DESCRIPTORS_PAUSE_S, self._resume)

    def _resume(self) -> None:
        if self._sockets and descriptors.lowest_free(self._sockets[0].fileno()) >= self._edge:
            self._loop.call_later(OUT_OF_DESCRIPTORS_PAUSE_S, self._resume)
            return
        self.is_paused = False
        if self.share is not None:
            self.share.pause(False)
        for sock in self._sockets:
            self._loop.register(sock.fileno(), READ, _Acceptor(self, sock))

    def take(self, accepted: RawSocket, peer: SocketAddress) -> None:
        """Serve an accepted connection."""
        self.accepted += 1
        stats = self.stats
        stats.downstream_cx_total += 1
        restored = original_destination(accepted, self._transparent) if self._restores else None
        live = self._only or self.choose(restored or addresses.normalise(accepted.getsockname()), peer)
        if live is None:
            stats.no_filter_chain_match += 1
            if self.on_no_match is not None:
                self.on_no_match(self._loop, accepted, peer)
            accepted.close()
            if self.share is not None:
                self.share.count(len(self.connections))
            return
        connection = live.make_connection(self._loop, accepted, peer, self._limit)
        if restored is not None:
            connection.local_address = restored
        self.connections.add(connection)
        if self.share is not None:
            self.share.count(len(self.connections))
        stats.downstream_cx_active += 1
        if self._worker_stats is not None:
            self._worker_stats.downstream_cx_total += 1
            self._worker_stats.downstream_cx_active += 1
        try:
            live.chain.attach(connection)
        except Exception:
            self.on_connection_closed(connection, self._loop.now)
            connection.abort()
            raise
        on_close = self.on_close_type(self, connection, self._loop.now, connection.on_close, live)
        if connection.closed:
            on_close.closed_already()
        else:
            connection.on_close = on_close
            connection.start()

    def choose(self, local: SocketAddress, peer: SocketAddress) -> LiveFilterChain | None:
        """The filter chain for a connection to ``local`` from ``peer``."""
        best: LiveFilterChain | None = None
        best_score: tuple[int, ...] = ()
        for live in self.chains:
            score = live.match.score(local, peer) if live.match is not None else (0,) * 6
            if score is not None and (best is None or score > best_score):
                best, best_score = live, score
        return best or self.default_chain

    def on_connection_closed(self, connection: Connection, started: float) -> None:
        """One of this listener's connections is gone."""
        self.connections.discard(connection)
        if self.share is not None:
            self.share.count(len(self.connections))
        stats = self.stats
        stats.downstream_cx_active -= 1
        stats.downstream_cx_destroy += 1
        stats.downstream_cx_length_ms[int((self._loop.now - started) * 1000)] += 1
        if self._worker_stats is not None:
            self._worker_stats.downstream_cx_active -= 1

    @property
    def is_listening(self) -> bool:
        """Whether there is a socket to accept from."""
        return bool(self._sockets)

    def stop_accepting(self, going: Collection[socket.socket] = ()) -> None:
        """Leave the sockets to others, to whom belongs what waits in their queues; go on with those that are ``going``."""
        for sock in self._sockets:
            if sock not in going:
                self._loop.close_later(sock)
        self._sockets = [sock for sock in self._sockets if sock in going]

    def close_listening(self) -> None:
        """Serve what waits and close: nobody else has these sockets, and the kernel resets what a closed queue held.

        A connection that completes between the last accept and the close is lost; that is microseconds.
        """
        for sock in self._sockets:
            self._loop.unregister(sock.fileno())
            accept = acceptor(sock)
            for _ in range(self.config.tcp_backlog_size or DEFAULT_BACKLOG):
                if not self.accept_one(accept):
                    break
            sock.close()
        self._sockets.clear()

    def stop(self) -> None:
        """Close everything now."""
        self.stop_accepting()
        self._loop.call_all([connection.abort for connection in self.connections])


class _Acceptor:
    """One listening socket's event. Takes as many connections as lately waited, without asking whether there is one more: to be
    refused costs as much as to accept (the kernel makes a socket before it looks, Python an exception). What is left wakes
    the loop again.
    """

    __slots__ = ("_accept", "_full_turns", "_listener", "_number")

    def __init__(self, listener: Listener, sock: socket.socket) -> None:
        self._listener = listener
        self._accept = acceptor(sock)
        self._number = 1
        self._full_turns = 0

    def __call__(self, _mask: int) -> None:
        listener = self._listener
        number = 0
        while listener.accept_one(self._accept):
            number += 1
            if number == self._number or listener.is_paused:
                break
        if number == self._number:
            self._full_turns += 1
            if self._full_turns == FULL_TURNS:
                self._full_turns = 0
                self._number = min(number * 2, listener.accepts_per_event)
        else:
            self._full_turns = 0
            self._number = number or 1
        if number:
            listener.stats.connections_accepted_per_socket_event[number] += 1


class OnClose:
    """Stands around the chain's own ``on_close``."""

    __slots__ = ("_chain", "_connection", "_listener", "_live", "_started")

    def __init__(
        self,
        listener: Listener,
        connection: Connection,
        started: float,
        chain: Callable[[str], None],
        live: LiveFilterChain,
    ) -> None:
        self._listener = listener
        self._connection = connection
        self._started = started
        self._chain = chain
        self._live = live

    def __call__(self, reason: str) -> None:
        self._listener.on_connection_closed(self._connection, self._started)
        self._chain(reason)

    def closed_already(self) -> None:
        """The chain knows."""
        self._listener.on_connection_closed(self._connection, self._started)
