"""What operators say about TLS and the peer's certificate."""

import hashlib
import ssl
import urllib.parse
from types import SimpleNamespace

import pytest

from forkproxy.access_log.formatter import compile_text
from tests.unit.access_log.fakes import WHERE, FakeConnection, stream

DER = b"\x30\x03\x02\x01\x05"
CERTIFICATE = {
    "subject": ((("countryName", "DE"),), (("organizationName", 'A, "B" <C>'),), (("commonName", "#client"),)),
    "issuer": ((("commonName", "ca"), ("emailAddress", "ca@example")),),
    "serialNumber": "0A1B",
    "notBefore": "Nov 22 15:33:09 2026 GMT",
    "notAfter": "Nov 22 15:33:09 2027 GMT",
    "subjectAltName": (
        ("DNS", "a.example"),
        ("URI", "spiffe://a/b"),
        ("DNS", "b.example"),
        ("IP Address", "10.0.0.1"),
        ("email", "a@b"),
    ),
}


class FakeTls:
    def __init__(self, certificate=CERTIFICATE, session=None, established=True):
        self.certificate = certificate
        self.session = session
        self.established = established

    def version(self):
        return "TLSv1.3" if self.established else None

    def cipher(self):
        return ("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256) if self.established else None

    def getpeercert(self, binary_form=False):
        if binary_form:
            return DER if self.certificate else None
        return self.certificate


def text_of(operator, tls):
    of = stream(connection=FakeConnection(1, tls=tls), upstream_connection=FakeConnection(2, tls=tls))
    return compile_text(f"%{operator}%", WHERE)(of).decode()


PEM = urllib.parse.quote(ssl.DER_cert_to_PEM_cert(DER), safe="")


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        ("DOWNSTREAM_TLS_VERSION", "TLSv1.3"),
        ("DOWNSTREAM_TLS_CIPHER", "TLS_AES_256_GCM_SHA384"),
        ("DOWNSTREAM_TLS_SESSION_ID", "0102"),
        ("DOWNSTREAM_PEER_SUBJECT", 'CN=\\#client,O=A\\, \\"B\\" \\<C\\>,C=DE'),
        ("DOWNSTREAM_PEER_ISSUER", "CN=ca+emailAddress=ca@example"),
        ("DOWNSTREAM_PEER_SERIAL", "0a1b"),
        ("DOWNSTREAM_PEER_FINGERPRINT_256", hashlib.sha256(DER).hexdigest()),
        ("DOWNSTREAM_PEER_FINGERPRINT_1", hashlib.sha1(DER).hexdigest()),
        ("DOWNSTREAM_PEER_CERT", PEM),
        ("DOWNSTREAM_PEER_CERT_V_START", "2026-11-22T15:33:09.000Z"),
        ("DOWNSTREAM_PEER_CERT_V_END(%Y %b)", "2027 Nov"),
        ("DOWNSTREAM_PEER_DNS_SAN", "a.example,b.example"),
        ("DOWNSTREAM_PEER_URI_SAN", "spiffe://a/b"),
        ("DOWNSTREAM_PEER_IP_SAN", "10.0.0.1"),
        ("DOWNSTREAM_PEER_EMAIL_SAN", "a@b"),
        ("UPSTREAM_TLS_VERSION", "TLSv1.3"),
        ("UPSTREAM_TLS_CIPHER", "TLS_AES_256_GCM_SHA384"),
        ("UPSTREAM_TLS_SESSION_ID", "0102"),
        ("UPSTREAM_PEER_SUBJECT", 'CN=\\#client,O=A\\, \\"B\\" \\<C\\>,C=DE'),
        ("UPSTREAM_PEER_ISSUER", "CN=ca+emailAddress=ca@example"),
        ("UPSTREAM_PEER_CERT", PEM),
    ],
)
def test_operator(operator, expected):
    assert text_of(operator, FakeTls(session=SimpleNamespace(id=b"\x01\x02"))) == expected
    assert text_of(operator, None) == "-"
    # A handshake that never ended, or a peer that showed no certificate.
    assert text_of(operator, FakeTls(certificate=None, established=False)) == "-"


def test_an_unverified_certificate_has_only_its_bytes():
    # ssl gives no fields of a certificate that nobody verified.
    assert text_of("DOWNSTREAM_PEER_SUBJECT", FakeTls(certificate={})) == "-"
