"""Which endpoint gets which transport socket, and what a connection begins with."""

import json
import socket
import ssl
import threading
from types import SimpleNamespace

import pytest

from forkproxy.config.build.core import Where
from forkproxy.config.build.load_balancing import criteria
from forkproxy.config.build.tls import CommonTls, UpstreamTlsConfig
from forkproxy.config.build.transport_sockets import ProxyProtocol, SocketMatch, UpstreamSocket
from forkproxy.net.connection import Connection
from forkproxy.net.tls_context import upstream_transport
from forkproxy.stats.group import CounterValue
from forkproxy.stats.groups import ClusterStats
from forkproxy.upstream.endpoint import ResolvedEndpoint
from forkproxy.upstream.transports import SocketMatcher, announce, announcing
from tests.support import certificates
from tests.support.live_loop import LiveLoop
from tests.support.playbook import cluster_config, make_cluster

ADDRESS = ("192.0.2.1", 80)


def matcher(*matches):
    """Each (wanted, proxy protocol or None); transports are their indices."""
    made = [
        SocketMatch(f"m{index}", criteria(wanted), UpstreamSocket(None, header))
        for index, (wanted, header) in enumerate(matches)
    ]
    names = [f"t{index}" for index in range(len(made))]
    counts = [CounterValue() for _ in made]
    return SocketMatcher(made, names, [f"c{name}" for name in names], counts), counts


def endpoint(own=None, locality=None):
    texts = [json.dumps(each) if each else "" for each in (own, locality)]
    return ResolvedEndpoint(ADDRESS, match_metadata=texts[0], locality_match_metadata=texts[1])


@pytest.mark.parametrize(
    ("own", "locality", "expected"),
    [
        ({"a": "x"}, None, "t0"),
        ({"a": "x", "b": "y"}, None, "t0"),
        ({"a": "y"}, None, None),
        ({"b": 1.0, "c": True}, None, "t1"),
        ({"b": 1.0}, None, None),
        ({"b": 1.0, "c": "true"}, None, None),
        (None, {"a": "x"}, "t0"),
        ({"b": 1, "c": True}, {"a": "x"}, "t1"),
        (None, None, None),
    ],
)
def test_matches(own, locality, expected):
    found, _ = matcher(({"a": "x"}, None), ({"b": 1.0, "c": True}, None))
    assert found.transport(endpoint(own, locality)) == expected
    assert found.check_transport(endpoint(own, locality)) == (expected and "c" + expected)


def test_a_match_that_wants_nothing_is_everybodys():
    found, counts = matcher(({"a": "x"}, None), ({}, None))
    assert [found.transport(each) for each in (endpoint(), endpoint({"a": "x"}))] == ["t1", "t0"]
    assert [found.count(each) for each in (endpoint(), endpoint(), endpoint({"a": "x"}))] == [True] * 3
    assert [each.value for each in counts] == [1, 2]


def test_a_cluster_uses_it():
    cluster = make_cluster(cluster_config(proxy_protocol=ProxyProtocol(), endpoints=2))
    assert cluster.announces(cluster.endpoints[0])
    told = ClusterStats()
    found, counts = matcher(({"a": "x"}, None), ({"a": "y"}, ProxyProtocol()))
    cluster.use_matches(None, told)
    assert told.default__total_match_count == 2
    cluster.use_matches(found, told)
    assert told.default__total_match_count == 4
    cluster.set_endpoints([endpoint(), endpoint({"a": "x"}), endpoint({"a": "y"})])
    assert [cluster.transport_to(each) for each in cluster.endpoints] == [Connection, "t0", "t1"]
    assert [cluster.announces(each) for each in cluster.endpoints] == [True, False, True]
    assert [type(each.pool).__name__ for each in cluster.endpoints] == ["OwnPools", "HttpPool", "OwnPools"]
    assert (told.default__total_match_count, [each.value for each in counts]) == (5, [1, 1])


# -- what connections begin with


@pytest.mark.parametrize(
    ("config", "origin", "expected"),
    [
        (
            ProxyProtocol(1),
            (("192.0.2.7", 5), ("192.0.2.8", 6)),
            b"PROXY TCP4 192.0.2.7 192.0.2.8 5 6\r\n",
        ),
        (ProxyProtocol(1), None, b"PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\n"),
        (ProxyProtocol(2), None, b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"),
        (
            ProxyProtocol(2, ((0xE0, b"v"),)),
            (("192.0.2.7", 5), ("192.0.2.8", 6)),
            b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x10\xc0\x00\x02\x07\xc0\x00\x02\x08\x00\x05\x00\x06\xe0\x00\x01v",
        ),
    ],
)
def test_the_header_goes_first(config, origin, expected):
    loop = LiveLoop()
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(server.getsockname())
        connection = announcing(Connection, config)(loop, sock, server.getsockname(), 1000)
        if origin is not None:
            announce(connection, origin)
        connection.write(b"then this")
        connection.start_connecting()
        peer, address = server.accept()
        if b"%d" in expected:
            expected %= (address[1], server.getsockname()[1])
        with peer:
            loop.run_until(lambda: connection.bytes_sent == len(expected) + len(b"then this"))
            connection.close()
            loop.run_until(lambda: connection.closed)
            loop.passes()
            assert b"".join(iter(lambda: peer.recv(1000), b"")) == expected + b"then this"
    loop.close()


def test_the_header_goes_before_the_handshake():
    loop = LiveLoop()
    config = UpstreamTlsConfig(CommonTls(), "", False, False, Where())
    expected = b"PROXY TCP4 192.0.2.7 192.0.2.8 5 6\r\n"
    got = []

    def serve(server):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.directory() / "good.pem", certificates.directory() / "good-key.pem")
        peer, _ = server.accept()
        got.append(peer.recv(len(expected), socket.MSG_WAITALL))
        with context.wrap_socket(peer, server_side=True) as sock:
            got.append(sock.recv(100))

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(server.getsockname())
        transport = announcing(upstream_transport(config), ProxyProtocol(1))
        connection = transport(loop, sock, server.getsockname(), 1000)
        announce(connection, (("192.0.2.7", 5), ("192.0.2.8", 6)))
        connection.on_connected = lambda: connection.write(b"hello")
        connection.start_connecting()
        loop.run_until(lambda: len(got) == 2)
        thread.join()
        connection.abort()
        loop.passes()
    assert got == [expected, b"hello"]
    loop.close()


def test_a_header_that_cannot_be_sent_is_a_connect_that_failed():
    loop = LiveLoop()
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    connection = announcing(Connection, ProxyProtocol(2))(loop, ours, ADDRESS, 1000)
    ended = []
    connection.on_close = ended.append
    peer.close()
    connection.start_connecting()
    loop.run_until(lambda: ended)
    assert ended == ["connect_failure"]
    loop.passes()
    loop.close()


def test_without_a_header_a_transport_is_itself():
    assert announcing(Connection, None) is Connection
    connection = SimpleNamespace(preamble=None)
    announce(connection, (None, None))
    assert connection.preamble is None


def test_criteria_of_health_checks_take_the_place_of_the_endpoints_metadata():
    found, _ = matcher(({"a": "x"}, None), ({"b": True}, None))
    assert found.check_transport(endpoint({"a": "x"})) == "ct0"
    assert found.check_transport(endpoint({"a": "x"}), '{"b": true}') == "ct1"
    assert found.check_transport(endpoint({"a": "x"}), '{"b": false}') is None
