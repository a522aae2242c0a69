"""A conversation through the real connection manager, routes, router, cluster and pools, written as it is on the wire.

    play().downstream(b"GET / HTTP/1.1\\r\\nhost: a\\r\\n\\r\\n").expect_upstream(b"GET / HTTP/1.1\\r\\nhost: a\\r\\n\\r\\n")
          .upstream(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\nok").expect_downstream(…)

Real ``Connection`` objects read and write a ``ScriptedSocket``, so that pauses, watermarks, lingering closes and the order of
flushes are the proxy's own; the loop is a ``FakeLoop`` whose clock ``advance`` moves. Nothing waits and no descriptor is used.

``expect_*`` compares everything that was sent since the last look, without the lines that every message carries (NOISE);
``raw=True`` compares those too.
"""

from __future__ import annotations

import re
import socket
from itertools import count

from forkproxy.config.build.circuit_breakers import CircuitBreakers
from forkproxy.config.build.client_address import ClientAddressConfig
from forkproxy.config.build.client_certificate import ForwardClientCertConfig
from forkproxy.config.build.cluster import ClusterConfig, EndpointConfig, LocalityEndpoints
from forkproxy.config.build.core import AddressConfig, HeaderMutations, Where
from forkproxy.config.build.http_connection_manager import HttpConnectionManagerConfig
from forkproxy.config.build.listener import FilterEntry
from forkproxy.config.build.route import (
    DirectResponseAction,
    ForwardAction,
    RouteEntry,
    RouteMatch,
    RouteTableConfig,
    VirtualHost,
)
from forkproxy.config.build.router import RouterConfig
from forkproxy.filters.context import FilterContext, WorkerContext
from forkproxy.filters.network.http_connection_manager import HttpConnectionManagerFilter
from forkproxy.http import response_flags
from forkproxy.http.chain import HttpFilterChain
from forkproxy.net.connection import Connection
from forkproxy.net.filter import NetworkFilterChain
from forkproxy.net.poller import ERROR, HANG_UP, READ, WRITE
from forkproxy.stats.counters import Registry
from forkproxy.stats.groups import ClusterStats, EndpointStats
from forkproxy.upstream.cluster import Cluster
from tests.support.fakes import FakeLoop

NOISE = re.compile(
    rb"(?m)^(?:date|server|x-forwarded-proto|x-request-id|x-envoy-expected-rq-timeout-ms"
    rb"|x-envoy-upstream-service-time): [^\r\n]*\r\n"
)
WHERE = Where("where", 1, 1)
NO_MUTATIONS = HeaderMutations()
ROUTER = "envoy.extensions.filters.http.router.v3.Router"
_next_fd = count(100_000).__next__  # numbers that no descriptor of this process has

HCM_DEFAULTS = {
    "stat_prefix": "test",
    "access_logs": (),
    "codec_type": "AUTO",
    "add_user_agent": False,
    "server_name": "envoy",
    "server_header_transformation": "OVERWRITE",
    "via": "",
    "generate_request_id": True,
    "preserve_external_request_id": False,
    "always_set_request_id_in_response": False,
    "proxy_100_continue": False,
    "normalize_path": False,
    "merge_slashes": False,
    "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
    "strip_matching_host_port": False,
    "strip_any_host_port": False,
    "strip_trailing_host_dot": False,
    "accept_http_10": False,
    "default_host_for_http_10": "",
    "allow_absolute_url": True,
    "enable_trailers": False,
    "allow_chunked_length": False,
    "header_key_format": "",
    "max_request_headers_kb": 60,
    "max_headers_count": 100,
    "headers_with_underscores_action": "ALLOW",
    "idle_timeout_s": 3600.0,
    "max_connection_duration_s": None,
    "max_stream_duration_s": None,
    "max_requests_per_connection": 0,
    "stream_idle_timeout_s": 300.0,
    "request_timeout_s": None,
    "request_headers_timeout_s": None,
    "drain_timeout_s": 5.0,
    "delayed_close_timeout_s": 1.0,
    "stream_error_on_invalid_http_message": False,
    "upgrades": (),
    "ignored_upgrades": (),
    "where": WHERE,
}

CLUSTER_DEFAULTS = {
    "type": "STATIC",
    "connect_timeout_s": 5.0,
    "tls": None,
    "per_connection_buffer_limit_bytes": 1024 * 1024,
    "dns_lookup_family": "AUTO",
    "dns_refresh_rate_s": 5.0,
    "dns_failure_refresh_base_s": 5.0,
    "dns_failure_refresh_max_s": 5.0,
    "respect_dns_ttl": False,
    "dns_resolvers": (),
    "dns_jitter_s": 0.0,
    "use_tcp_for_dns_lookups": False,
    "circuit_breakers": CircuitBreakers(),
    "max_requests_per_connection": 0,
    "idle_timeout_s": 3600.0,
    "enable_trailers": False,
    "header_key_format": "",
    "tcp_keepalive": None,
    "where": WHERE,
}


class ScriptedSocket:
    """What a Connection needs of a socket. ``window``: how many bytes the peer still takes; None for all."""

    def __init__(self, name=("192.0.2.2", 10000)):
        self.fd = _next_fd()
        self.name = name
        self.inbox = []
        self.ended = self.was_reset = self.closed = self.write_shut = False
        self.connect_error = 0
        self.outbox = b""
        self.window = None

    def fileno(self):
        return self.fd

    def getsockname(self):
        return self.name

    def getsockopt(self, level, option):
        return self.connect_error

    def setsockopt(self, level, option, value):
        pass

    def recv(self, limit, flags=0):
        if self.was_reset:
            raise ConnectionResetError(104, "reset")
        if flags & socket.MSG_PEEK and self.inbox:
            return self.inbox[0][:limit]
        if not self.inbox:
            if self.ended:
                return b""
            raise BlockingIOError
        data = self.inbox.pop(0)
        if len(data) > limit:
            self.inbox.insert(0, data[limit:])
            data = data[:limit]
        return data

    def send(self, data):
        if self.window is None:
            self.outbox += data
            return len(data)
        if not self.window:
            raise BlockingIOError
        taken = bytes(data[: self.window])
        self.window -= len(taken)
        self.outbox += taken
        return len(taken)

    def sendmsg(self, buffers):
        return self.send(b"".join(buffers))

    def shutdown(self, how):
        self.write_shut = True

    def close(self):
        self.closed = True


class Peer:
    """The other end of one of the proxy's connections."""

    def __init__(self, play, sock, connection):
        self.play = play
        self.sock = sock
        self.connection = connection
        self.connecting = False

    def __repr__(self):
        return f"<Peer of {self.connection!r} unread={self.sock.outbox[:60]!r}>"

    @property
    def closed(self):
        """The proxy has closed the connection."""
        return self.sock.closed

    def send(self, data):
        self.sock.inbox.append(data)
        self.play.run()

    def end(self):
        """Send an end of data."""
        self.sock.ended = True
        self.play.run()

    def reset(self):
        self.sock.was_reset = True
        self.play.run()

    def take(self, limit=1 << 30):
        """Read up to ``limit`` bytes more; the socket takes what it is given up to there."""
        self.sock.window = limit
        self.play.run()

    def read(self):
        """What was sent since the last look."""
        sent, self.sock.outbox = self.sock.outbox, b""
        return sent

    def accept(self):
        """The connect that was started succeeds."""
        self.connecting = False
        self._event(WRITE)
        self.play.run()

    def refuse(self, code):
        """The connect that was started fails with an errno."""
        self.connecting = False
        self.sock.connect_error = code
        self._event(WRITE)
        self.play.run()

    def _event(self, mask):
        self.play.loop.handlers[self.sock.fd](mask)

    def poll(self):
        """One event, if the kernel would report one; True when there was."""
        sock, loop = self.sock, self.play.loop
        if self.connecting or sock.fd not in loop.handlers:
            return False
        mask = loop.masks[sock.fd]
        if sock.was_reset:
            event = ERROR | HANG_UP | (mask & READ)
        else:
            event = 0
            if mask & READ and (sock.inbox or sock.ended):
                event |= READ
            if mask & WRITE and sock.window != 0:
                event |= WRITE
        if event:
            self._event(event)
            loop.settle()
        return bool(event)


class PlayedCluster(Cluster):
    """A real cluster whose connections end in ScriptedSockets; ``refuses``: an OSError for connects that fail at once."""

    refuses = None
    play = None

    def connect(self, endpoint):
        if self.refuses is not None:
            raise self.refuses
        sock = ScriptedSocket(("192.0.2.2", 50000))
        limit = self.config.per_connection_buffer_limit_bytes
        connection = Connection(self.loop, sock, endpoint.socket_address, limit)
        connection.start_connecting()
        peer = Peer(self.play, sock, connection)
        peer.connecting = True
        self.play.upstreams.append(peer)
        return connection


def endpoint(number, weight=1, health_status="UNKNOWN", hostname=""):
    """An endpoint at 192.0.2.<number>:80."""
    return EndpointConfig(AddressConfig(f"192.0.2.{number}", 80), weight, hostname, health_status, WHERE)


def cluster_config(name="up", endpoints=1, localities=None, **fields):
    """A ClusterConfig with ``endpoints`` endpoints (a number or a list), and Envoy's defaults."""
    if localities is None:
        if isinstance(endpoints, int):
            endpoints = [endpoint(10 + index) for index in range(endpoints)]
        localities = (LocalityEndpoints(tuple(endpoints)),)
    return ClusterConfig(name=name, stat_name=name, localities=tuple(localities), **{**CLUSTER_DEFAULTS, **fields})


def make_cluster(config, slots=None, cls=Cluster):
    """A live cluster with figures of its own, not started."""
    if slots is None:
        slots = sum(len(locality.endpoints) for locality in config.localities)
    return cls(config, ClusterStats(), [EndpointStats() for _ in range(slots)])


CLIENT_ADDRESS = {
    "use_remote_address": False,
    "xff_num_trusted_hops": 0,
    "skip_xff_append": False,
    "append_x_forwarded_port": False,
    "detections": (),
    "internal_ranges": (),
    "internal_unix_sockets": False,
}


def hcm_config(routes=None, filters=(), router=None, virtual_host=None, per_filter_config=None, **fields):
    """An HttpConnectionManagerConfig for one virtual host, with Envoy's defaults; ``filters``: entries before the router."""
    routes = routes if routes is not None else [route()]
    hosts = (VirtualHost("all", ("*",), tuple(routes), **{**_HOST_DEFAULTS, **(virtual_host or {})}),)
    entries = (*filters, FilterEntry("router", ROUTER, router or RouterConfig(), WHERE))
    table = RouteTableConfig("r", hosts, NO_MUTATIONS, per_filter_config=per_filter_config or {})
    address = ClientAddressConfig(**{name: fields.pop(name, value) for name, value in CLIENT_ADDRESS.items()})
    return HttpConnectionManagerConfig(
        route_table=table,
        http_filters=entries,
        client_address=address,
        forward_client_cert=fields.pop("forward_client_cert", ForwardClientCertConfig()),
        **{**HCM_DEFAULTS, **fields},
    )


_HOST_DEFAULTS = {
    "headers": NO_MUTATIONS,
    "require_tls": "NONE",
    "include_request_attempt_count": False,
    "include_attempt_count_in_response": False,
    "where": WHERE,
}


def route(prefix="/", cluster="up", direct=None, mutations=NO_MUTATIONS, per_filter_config=None, **action):
    """A route by prefix, to a cluster or to a direct response (status, body)."""
    made = DirectResponseAction(*direct) if direct else ForwardAction(cluster=cluster, **action)
    return RouteEntry(prefix, RouteMatch("prefix", prefix), made, mutations, WHERE, per_filter_config or {})


def filter_context(registry, clusters=None, access_logs=lambda configs, log_type="": [], **fields):
    """The FilterContext of a listener named "main"."""
    return FilterContext(registry, (clusters or {}).get, access_logs, "main", "127.0.0.1_10000", **fields)


class Play:
    """See the module's text. ``filters`` stand before the router; ``cluster`` and ``router`` are fields of their configs."""

    def __init__(self, *filters, cluster=None, buffer_limit_bytes=1024 * 1024, peer=("192.0.2.1", 40000), **fields):
        context_fields = {
            name: fields.pop(name) for name in ("tls", "local_ip", "node", "certificates") if name in fields
        }
        self.loop = FakeLoop()
        self.upstreams = []
        self.downstreams = []
        self.logged = []
        self.exceptions = []
        self.buffer_limit_bytes = buffer_limit_bytes
        self.peer_address = peer
        self.auto_accept = True
        self.cluster = make_cluster(cluster_config(**(cluster or {})), cls=PlayedCluster)
        self.cluster.play = self
        self.cluster.start(self.loop)
        context = filter_context(
            Registry(),
            {"up": self.cluster},
            access_logs=lambda configs, log_type="": [self],
            report_exception=lambda name, error: self.exceptions.append((name, str(error))),
            **context_fields,
        )
        self.filter = HttpConnectionManagerFilter.from_config(hcm_config(**fields), context)
        self.manager = self.filter.manager
        if filters:
            self.manager.chain = HttpFilterChain([*filters, *self.manager.chain.filters])
        self.filter.start(WorkerContext(self.loop))
        self.chain = NetworkFilterChain([self.filter])
        self.stats = self.manager.stats
        self.codes = self.manager.codes
        self.router = self.manager.chain.filters[-1]
        self.up = None

    # -- as an access log

    def log(self, stream):
        flags = response_flags.names(stream.response_flags)
        self.logged.append((stream.method, stream.path, stream.status, stream.details, flags))

    # -- downstream

    def connect(self):
        """A new downstream connection; it becomes ``down``."""
        sock = ScriptedSocket()
        connection = Connection(self.loop, sock, self.peer_address, self.buffer_limit_bytes)
        self.downstreams.append(Peer(self, sock, connection))
        self.chain.attach(connection)
        connection.start()
        self.run()
        return self.downstreams[-1]

    @property
    def down(self):
        """The downstream peer that was connected last."""
        if not self.downstreams:
            self.connect()
        return self.downstreams[-1]

    @property
    def http(self):
        """Its HttpConnection."""
        return self.down.connection.session

    def downstream(self, *pieces):
        """Each piece arrives in a read of its own."""
        for data in pieces:
            self.down.send(data)
        return self

    def downstream_ends(self):
        self.down.end()
        return self

    def downstream_resets(self):
        self.down.reset()
        return self

    def expect_downstream(self, data=b"", raw=False):
        return self._expect(self.down, data, raw)

    def expect_closed(self):
        assert self.down.closed, f"{self.down} is still open"
        return self

    def expect_open(self):
        assert not self.down.closed, f"{self.down} is closed"
        return self

    # -- upstream

    def upstream(self, *pieces, on=None):
        """Each piece is sent by the upstream that was looked at last, or by number ``on``."""
        for data in pieces:
            self._upstream(on).send(data)
        return self

    def upstream_ends(self, on=None):
        self._upstream(on).end()
        return self

    def upstream_resets(self, on=None):
        self._upstream(on).reset()
        return self

    def expect_upstream(self, data=b"", on=None, raw=False):
        """``data`` reached the first upstream that has something to read, or number ``on``."""
        if on is None:
            unread = [peer for peer in self.upstreams if peer.sock.outbox]
            if not unread and not data:
                return self
            assert unread, f"nothing arrived upstream; downstream: {self.down.sock.outbox!r}"
            self.up = min(unread, key=lambda peer: peer.closed)  # the first open one
        else:
            self.up = self.upstreams[on]
        return self._expect(self.up, data, raw)

    def expect_upstream_closed(self, on=None):
        assert self._upstream(on).closed, f"{self._upstream(on)} is still open"
        return self

    def _upstream(self, on):
        if on is not None:
            return self.upstreams[on]
        if self.up is None:
            self.up = self.upstreams[-1]
        return self.up

    # -- the world

    def _expect(self, peer, data, raw):
        sent = peer.read()
        if not raw:
            sent = NOISE.sub(b"", sent)
        assert sent == data, f"{peer}\nsent:     {sent!r}\nexpected: {data!r}"
        return self

    def advance(self, seconds):
        """The clock moves, stopping at every deadline on the way."""
        self.run()
        loop = self.loop
        end = loop.now + seconds
        passes = 0
        while (deadline := loop.next_deadline()) <= end:
            passes = 0 if deadline > loop.now else passes + 1
            assert passes < 100, "a timer keeps the loop busy"
            loop.now = max(loop.now, deadline)
            loop._timers.run_due(loop.now)
            self.run()
        loop.now = end
        return self

    def run(self):
        """Events, flushes and calls until everybody is quiet."""
        self.loop.settle()
        again = True
        while again:
            again = False
            if self.auto_accept:
                for peer in self.upstreams:
                    if peer.connecting and not peer.closed:
                        peer.accept()
            for peer in [*self.downstreams, *self.upstreams]:
                while peer.poll():
                    again = True

    def forget_closed(self):
        """Drop the peers of closed connections, so that a long play stays small."""
        self.upstreams = [peer for peer in self.upstreams if not peer.closed]
        self.downstreams = [peer for peer in self.downstreams if not peer.closed]

    def exchange(self, path=b"/", body=b"ok"):
        """A whole GET with its answer."""
        self.downstream(b"GET %b HTTP/1.1\r\nhost: a\r\n\r\n" % path)
        self.expect_upstream(b"GET %b HTTP/1.1\r\nhost: a\r\n\r\n" % path)
        self.upstream(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        return self.expect_downstream(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    def expect_quiet(self):
        """Nothing is under way: no gauge is left standing, nobody is paused."""
        self.manager.sync_stats()
        assert self.stats.downstream_rq_active == 0
        cluster = self.cluster.stats
        assert (cluster.upstream_rq_active, cluster.upstream_rq_pending_active) == (0, 0)
        assert [each.stats.rq_active for each in self.cluster.endpoints] == [0] * len(self.cluster.endpoints)
        for peer in [*self.downstreams, *self.upstreams]:
            assert peer.closed or not peer.connection.read_pauses, f"{peer} is still paused"
        return self


def play(*filters, **fields):
    """A conversation about to begin."""
    return Play(*filters, **fields)
