"""A configuration made live: what is built in the supervisor, and a worker's life with it. No descriptor is opened."""

import socket

import pytest

from forkproxy.config.load import load
from forkproxy.config.problems import ConfigError
from forkproxy.net import descriptors
from forkproxy.net.connection import Connection
from forkproxy.net.filter import WriteFilteredConnection
from forkproxy.net.poller import READ
from forkproxy.stats.counters import Registry
from forkproxy.worker import generation as module
from forkproxy.worker import listener
from forkproxy.worker.generation import DNS_ENDPOINT_SLOTS, IDLE_GRACE_S, build_generation, local_address
from tests.support.fakes import FakeLoop
from tests.unit.worker.test_listener import ListeningSocket


@pytest.fixture(autouse=True)
def descriptors_without_end(monkeypatch):
    """The numbers of scripted sockets are high, and they accept by themselves."""
    monkeypatch.setattr(descriptors, "edge", lambda: 1 << 30)
    monkeypatch.setattr(listener, "acceptor", lambda sock: sock.accept)


GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"

TEXT = """
static_resources:
  listeners:
  - name: web
    address: {socket_address: {address: 127.0.0.1, port_value: 10000}}
    additional_addresses: [{address: {socket_address: {address: 127.0.0.1, port_value: 10001}}}]
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          route_config:
            virtual_hosts:
            - {name: all, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200}}]}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  - name: own
    address: {socket_address: {address: 127.0.0.1, port_value: 10002}}
    filter_chains:
    - filter_chain_match: {destination_port: 10002}
      filters: [{name: "tests.unit.filters.third_party:Upper"}, {name: "tests.unit.filters.third_party:Last"}]
    default_filter_chain:
      filters: [{name: "tests.unit.filters.third_party:Last"}]
  clusters:
  - name: up:1
    load_assignment:
      cluster_name: up:1
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 192.0.2.9, port_value: 80}}}}]}]
  - name: names
    type: STRICT_DNS
    load_assignment:
      cluster_name: names
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: h.example, port_value: 80}}}}]}]
"""


def bootstrap(text=TEXT):
    result = load(text, "f.yaml")
    assert result.bootstrap is not None, result.problems
    return result.bootstrap


@pytest.fixture(scope="module")
def parsed():
    return bootstrap()


class Running:
    """A generation on a fake loop with one listening socket for each address."""

    def __init__(self, parsed):
        self.registry = Registry()
        self.generation = build_generation(parsed, self.registry, number=7)
        self.generation.prepare_slot(0)
        self.loop = FakeLoop()
        keys = [(name, index) for name, index, _, _ in self.generation.listen_addresses]
        self.sockets = {key: [ListeningSocket()] for key in keys}
        self.generation.start(self.loop, self.sockets, 0)

    def connect(self, key=("web", 0)):
        [listening] = self.sockets[key]
        [sock] = listening.connects()
        self.loop.handlers[listening.fd](READ)
        self.loop.settle()
        return sock

    def send(self, sock, data):
        sock.inbox.append(data)
        self.loop.handlers[sock.fd](READ)
        self.loop.settle()
        sent, sock.outbox = sock.outbox, b""
        return sent


@pytest.fixture
def running(parsed):
    return Running(parsed)


def test_building_opens_nothing_and_needs_no_loop(parsed):
    generation = build_generation(parsed, Registry(), number=7)
    assert generation.number == 7
    assert [(name, index, str(address)) for name, index, address, _ in generation.listen_addresses] == [
        ("web", 0, "127.0.0.1:10000"),
        ("web", 1, "127.0.0.1:10001"),
        ("own", 0, "127.0.0.1:10002"),
    ]
    assert set(generation.clusters) == {"up:1", "names"}
    assert (generation.connections, generation.accepted, generation.requests) == (0, 0, 0)


def test_a_dns_cluster_has_room_for_addresses_to_come(parsed):
    generation = build_generation(parsed, Registry(), number=7)
    found = [{"ip": f"192.0.2.{number}", "port": 80, "index": 0} for number in range(DNS_ENDPOINT_SLOTS)]
    generation.set_endpoints("names", found)
    slots = [slot for _, slot in generation.clusters["names"].endpoint_slots()]
    assert sorted(slots) == list(range(DNS_ENDPOINT_SLOTS))
    generation.set_endpoints("gone since", found)


def test_connections_are_made_for_their_chain(running):
    _, own = running.generation.listeners
    assert own.chains[0].make_connection is WriteFilteredConnection
    assert own.default_chain.make_connection is Connection
    assert own.chains[0].match is not None
    assert running.generation.listeners[0].chains[0].match is None


def test_every_socket_of_a_listener_is_served(running):
    for key in (("web", 0), ("web", 1)):
        assert running.send(running.connect(key), GET).startswith(b"HTTP/1.1 200 OK\r\n")
    generation = running.generation
    assert (generation.connections, generation.accepted, generation.requests) == (2, 2, 2)


def test_upstream_failures_are_reported(running):
    for cluster in running.generation.clusters.values():
        assert cluster.on_upstream_failure is not None
        assert cluster.loop is running.loop


def test_bytes_are_counted_when_asked(running):
    running.send(running.connect(), GET)
    stats = running.generation._managers()[0].manager.stats
    assert stats.downstream_cx_rx_bytes_total == 0
    running.generation.sync_stats()
    assert stats.downstream_cx_rx_bytes_total == len(GET)


def test_draining(running):
    idle, busy = running.connect(), running.connect()
    running.send(idle, GET)
    running.send(busy, GET[:9])
    running.generation.drain()
    assert not running.generation.is_listening
    assert all(listening.closed for [listening] in running.sockets.values())
    assert not idle.closed
    running.loop.advance(IDLE_GRACE_S + 1)
    assert idle.closed
    assert not busy.closed
    assert b"connection: close" in running.send(busy, GET[9:])
    running.loop.advance(1.1)  # at the latest after the delayed close timeout
    assert running.generation.connections == 0


@pytest.fixture
def real(parsed):
    """A generation with one real listening socket, and another one that is to come."""
    generation, loop = build_generation(parsed, Registry(), number=7), FakeLoop()
    own, more = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    for sock in (own, more):
        sock.setblocking(False)
    generation.start(loop, {("web", 0): [own]}, 0)
    yield generation, loop, own, more
    generation.stop()
    loop.settle()
    more.close()


def connects(loop, sock):
    with socket.create_connection(sock.getsockname()):
        loop.handlers[sock.fileno()](READ)


def test_a_socket_that_comes_later_is_served_and_drained_like_the_first(real):
    generation, loop, own, more = real
    generation.adopt(("web", 0), more)
    connects(loop, more)
    connects(loop, own)
    assert generation.accepted == 2
    generation.drain([("web", 0)])
    connects(loop, more)
    assert generation.accepted == 3
    generation.close_listeners()
    assert (own.fileno(), more.fileno()) == (-1, -1)


def test_a_socket_is_adopted_once_and_only_by_a_listener_that_accepts(real):
    generation, loop, own, more = real
    again, late, foreign = own.dup(), more.dup(), more.dup()
    generation.adopt(("web", 0), again)
    generation.adopt(("other", 0), foreign)
    assert set(loop.handlers) == {own.fileno()}
    generation.stop_listening(["web"])
    generation.adopt(("web", 0), late)
    assert [sock.fileno() for sock in (again, foreign, late)] == [-1, -1, -1]
    assert not generation.is_listening


def test_draining_serves_the_sockets_that_go_until_they_are_closed(running):
    running.generation.drain([("web", 1)])
    assert running.generation.is_listening
    assert b"connection: close" in running.send(running.connect(("web", 1)), GET)
    running.sockets[("web", 1)][0].connects()
    running.generation.close_listeners()
    assert not running.generation.is_listening
    assert running.generation.accepted == 2


def test_a_filter_that_raises_when_it_is_stopped_does_not_stop_the_drain(running, monkeypatch):
    last = running.generation._filters[-1]
    monkeypatch.setattr(type(last), "stop", lambda self: 1 / 0)
    counted = running.registry.counter("forkproxy.filter_exception")
    running.generation.drain()
    assert not running.generation.is_listening
    assert counted.value >= 1


def test_stopping_closes_everything(running):
    sock = running.connect()
    running.generation.stop()
    running.loop.settle()
    assert sock.closed
    assert running.loop.handlers == {}
    assert all(cluster.draining for cluster in running.generation.clusters.values())


def test_logs_can_be_reopened_and_flushed(running):
    running.generation.reopen_logs()
    running.generation.flush_logs()


BAD_FORMAT = (
    "{status: 200}}]",
    "{status: 200}, response_headers_to_add: [{header: {key: a, value: '%NO%'}}]}]",
)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("third_party:Upper", "third_party:Writes", "overrides on_write"),
        ("third_party:Upper", "third_party:Gone", "cannot be loaded"),
        (*BAD_FORMAT, "not supported field in access log format: NO"),
    ],
)
def test_what_only_shows_when_it_is_built(old, new, message):
    with pytest.raises(ConfigError, match=message) as raised:
        build_generation(bootstrap(TEXT.replace(old, new)), Registry(), number=1)
    assert raised.value.line


def test_all_that_is_wrong_is_told_at_once():
    text = TEXT.replace("third_party:Upper", "third_party:Writes").replace(*BAD_FORMAT)
    with pytest.raises(ConfigError) as raised:
        build_generation(bootstrap(text), Registry(), number=1)
    assert len(raised.value.problems) == 2


def test_the_local_address(monkeypatch):
    monkeypatch.setattr(module, "own_ipv4_addresses", lambda: ["127.0.0.1", "192.0.2.7", "192.0.2.8"])
    assert local_address() == "192.0.2.7"
    monkeypatch.setattr(module, "own_ipv4_addresses", lambda: ["127.0.0.1"])
    assert local_address() == ""


def test_no_local_address_in_a_sandbox_that_does_not_tell(monkeypatch):
    def refuse():
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr(module, "own_ipv4_addresses", refuse)
    assert local_address() == ""
