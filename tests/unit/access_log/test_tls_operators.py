"""What operators say about TLS and the peer's certificate: the expected texts are Envoy 1.40's for the same certificates."""

import datetime
import hashlib
import ipaddress
import ssl
import urllib.parse
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from forkproxy.access_log import certificate, tls_operators
from forkproxy.access_log.formatter import compile_text
from tests.unit.access_log.fakes import WHERE, FakeConnection, stream

KEY = ec.generate_private_key(ec.SECP256R1())
START = datetime.datetime(2026, 11, 22, 15, 33, 9, tzinfo=datetime.UTC)


def der(subject, issuer, serial, names=(), end=START + datetime.timedelta(days=365)):
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(subject))
        .issuer_name(x509.Name(issuer))
        .public_key(KEY.public_key())
        .serial_number(serial)
        .not_valid_before(START)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def attribute(oid, value):
    return x509.NameAttribute(oid, value)


CA = [attribute(NameOID.COMMON_NAME, "ca"), attribute(NameOID.EMAIL_ADDRESS, "ca@example")]
LEAF = der(
    [
        attribute(NameOID.COUNTRY_NAME, "DE"),
        attribute(NameOID.ORGANIZATION_NAME, 'A, "B" <C>'),
        attribute(NameOID.LOCALITY_NAME, "Köln "),
        attribute(NameOID.COMMON_NAME, "#client"),
    ],
    CA,
    0x0A1B,
    [
        x509.DNSName("a.example"),
        x509.UniformResourceIdentifier("spiffe://a/b"),
        x509.DNSName("b.example"),
        x509.IPAddress(ipaddress.ip_address("10.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("2001:db8::1")),
        x509.RFC822Name("a@b"),
        x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x05a@upn"),
    ],
)
ISSUER = der(CA, CA, 0x77, end=datetime.datetime(2055, 1, 2, 3, 4, 5, tzinfo=datetime.UTC))


class FakeTls:
    server_hostname = "sni.example"

    def __init__(self, chain=(LEAF, ISSUER), session=None, version="TLSv1.2"):
        self.chain = chain
        self.session = session
        self._version = version
        self._sslobj = self

    def version(self):
        return self._version

    def cipher(self):
        return ("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256) if self._version else None

    def getpeercert(self, binary_form=False):
        assert binary_form
        if self._version is None:
            raise ValueError("handshake not done yet")
        return self.chain[0] if self.chain else None

    def get_unverified_chain(self):
        return self.chain if self._version else None


def text_of(operator, tls):
    of = stream(connection=FakeConnection(1, tls=tls), upstream_connection=FakeConnection(2, tls=tls))
    return compile_text(f"%{operator}%", WHERE)(of).decode()


SUBJECT = 'CN=\\#client,L=K\\C3\\B6ln\\ ,O=A\\, \\"B\\" \\<C\\>,C=DE'
PEM = urllib.parse.quote(ssl.DER_cert_to_PEM_cert(LEAF), safe="")
BOTH = [
    ("TLS_VERSION", "TLSv1.2"),
    ("TLS_CIPHER", "TLS_AES_256_GCM_SHA384"),
    ("TLS_SESSION_ID", "0102"),
    ("PEER_SUBJECT", SUBJECT),
    ("PEER_ISSUER", "emailAddress=ca@example,CN=ca"),
    ("PEER_CERT", PEM),
    ("PEER_CERT_V_START", "2026-11-22T15:33:09.000Z"),
    ("PEER_CERT_V_END(%Y %b)", "2027 Nov"),
    ("PEER_DNS_SAN", "a.example,b.example"),
    ("PEER_URI_SAN", "spiffe://a/b"),
    ("PEER_IP_SAN", "10.0.0.1,2001:db8::1"),
]


OPERATORS = [
    *((f"DOWNSTREAM_{name}", expected) for name, expected in BOTH),
    *((f"UPSTREAM_{name}", expected) for name, expected in BOTH),
    ("DOWNSTREAM_PEER_SERIAL", "a1b"),
    ("DOWNSTREAM_PEER_FINGERPRINT_256", hashlib.sha256(LEAF).hexdigest()),
    ("DOWNSTREAM_PEER_FINGERPRINT_1", hashlib.sha1(LEAF).hexdigest()),
    ("DOWNSTREAM_PEER_EMAIL_SAN", "a@b"),
    ("DOWNSTREAM_PEER_OTHERNAME_SAN", "a@upn"),
    ("DOWNSTREAM_PEER_CHAIN_SERIALS", "a1b,77"),
    (
        "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1",
        f"{hashlib.sha1(LEAF).hexdigest()},{hashlib.sha1(ISSUER).hexdigest()}",
    ),
    ("DOWNSTREAM_PEER_ISSUER_SERIAL", "77"),
    ("DOWNSTREAM_PEER_ISSUER_FINGERPRINT_256", hashlib.sha256(ISSUER).hexdigest()),
]


@pytest.mark.parametrize(("operator", "expected"), OPERATORS, ids=[name for name, _ in OPERATORS])
def test_operator(operator, expected):
    assert text_of(operator, FakeTls(session=SimpleNamespace(id=b"\x01\x02"))) == expected
    assert text_of(operator, None) == "-"
    # A handshake that never ended, or a peer that showed no certificate.
    assert text_of(operator, FakeTls(session=SimpleNamespace(id=b"\x01\x02"), version=None)) == "-"
    if "PEER" in operator:
        assert text_of(operator, FakeTls(())) == "-"


def test_the_name_that_was_asked_for():
    assert text_of("UPSTREAM_SERVER_NAME", FakeTls()) == "sni.example"
    assert text_of("UPSTREAM_SERVER_NAME", None) == "-"


def test_tls_1_3_has_no_session_id():
    assert text_of("DOWNSTREAM_TLS_SESSION_ID", FakeTls(session=SimpleNamespace(id=b"x"), version="TLSv1.3")) == "-"


def test_years_of_four_digits():
    found = certificate.read(ISSUER)
    assert datetime.datetime.fromtimestamp(found.not_after, datetime.UTC).isoformat() == "2055-01-02T03:04:05+00:00"


def test_what_is_no_certificate_has_nothing_to_tell():
    for cut in (0, 1, 2, 10, 40, 120, len(LEAF) // 2):
        assert certificate.read(LEAF[:cut]) is None
    assert text_of("DOWNSTREAM_PEER_SUBJECT", FakeTls((LEAF[:50],))) == "-"


class VerifiedTls:
    def __init__(self, subject):
        self.subject = subject

    def getpeercert(self):
        return {"subject": self.subject} if self.subject else {}


def test_a_verified_subject():
    names = ((("countryName", "DE"),), (("commonName", "a, b"), ("userId", "1")))
    assert tls_operators.verified_subject(VerifiedTls(names)) == b"CN=a\\, b+UID=1,C=DE"
    assert tls_operators.verified_subject(VerifiedTls(())) is None
