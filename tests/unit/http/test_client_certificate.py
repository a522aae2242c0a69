"""x-forwarded-client-cert, short of TLS itself (that is in tests/conformance/exchanges/client_certificates.py)."""

from __future__ import annotations

import ssl
import types

import pytest

from forkproxy.config.build.client_certificate import ForwardClientCertConfig
from forkproxy.config.problems import ConfigError
from forkproxy.http.client_certificate import ForwardClientCert
from forkproxy.net.der import uris
from tests.support import x509_authority
from tests.support.playbook import play

NAME = b"x-forwarded-client-cert"


class Tls:
    """An ssl.SSLObject of whoever shows ``leaf``; counts how often it is asked."""

    def __init__(self, leaf):
        self.leaf = leaf
        self.asked = 0

    def getpeercert(self, binary=False):
        self.asked += 1
        if self.leaf is None:
            return None
        return (
            ssl.PEM_cert_to_DER_cert(self.leaf.pem.decode()) if binary else {"subjectAltName": (("DNS", "c.example"),)}
        )


def request(tls, *values):
    connection = types.SimpleNamespace(tls=tls, filter_state={})
    return types.SimpleNamespace(connection=connection, request_headers=[(NAME, value) for value in values])


def sent(stream):
    return [value for name, value in stream.request_headers if name == NAME]


def test_without_tls_only_always_forward_only_keeps_it():
    for mode, kept in (
        ("ALWAYS_FORWARD_ONLY", [b"a,b"]),
        ("FORWARD_ONLY", []),
        ("APPEND_FORWARD", []),
        ("SANITIZE_SET", []),
    ):
        stream = request(None, b"a", b"b")
        ForwardClientCert(mode)(stream)
        assert sent(stream) == kept


def test_who_shows_no_certificate_is_like_who_has_no_tls():
    stream = request(Tls(None), b"a")
    ForwardClientCert("APPEND_FORWARD", ["spiffe://own"])(stream)
    assert sent(stream) == []


def test_the_element_is_made_once_per_connection():
    tls = Tls(x509_authority.leaf("c.example"))
    forward = ForwardClientCert("APPEND_FORWARD", ["spiffe://own"], dns=True)
    stream = request(tls, b"a")
    forward(stream)
    (value,) = sent(stream)
    assert value.startswith(b"a,By=spiffe://own;Hash=")
    assert value.endswith(b";DNS=c.example")
    asked = tls.asked
    stream.request_headers = []
    forward(stream)
    assert sent(stream) == [value.removeprefix(b"a,")]
    assert tls.asked == asked + 1  # whether there is a certificate


def test_only_who_tells_something_sees_every_request():
    modes = ("FORWARD_ONLY", "ALWAYS_FORWARD_ONLY", "APPEND_FORWARD", "SANITIZE_SET")
    assert [ForwardClientCert(mode).tells for mode in modes] == [False, False, True, True]


def test_uris_of_a_certificate():
    leaf = x509_authority.leaf("spiffe://a/b", "c.example", "spiffe://c")
    assert uris(leaf.pem + x509_authority.authority().pem) == ("spiffe://a/b", "spiffe://c")
    assert uris(x509_authority.leaf("c.example").pem) == ()
    assert uris(b"") == uris(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n") == ()


def test_certificates_must_not_differ_in_their_uris():
    chains = tuple(x509_authority.leaf(name).pem for name in ("spiffe://a", "spiffe://b"))
    play(forward_client_cert=ForwardClientCertConfig("FORWARD_ONLY"), certificates=chains)
    with pytest.raises(ConfigError, match="differ in their URIs"):
        play(forward_client_cert=ForwardClientCertConfig("SANITIZE_SET"), certificates=chains)
