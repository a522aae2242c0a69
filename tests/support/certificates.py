"""A certificate authority and what it signed, made once per test run: EC P-256 but for one, valid for a day.

ca.pem                       the authority
good.pem, good-key.pem       for good.example and *.wild.example, 127.0.0.1
rsa.pem, rsa-key.pem         for the same, with an RSA key of 2,048 bits
other-ca.pem                 an authority that signed nothing here
uris.pem, uris-key.pem       for good.example, with two URIs
client.pem, client-key.pem   a client's, with odd characters in its names, and its issuer (signed by the authority) behind it
bare.pem, bare-key.pem       a client's, without alternative names
stranger.pem, stranger-key.pem  a client's, signed by the other authority
"""

from __future__ import annotations

import atexit
import datetime
import functools
import ipaddress
import pathlib
import tempfile

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
NAMES = ("good.example", "*.wild.example", "localhost")


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _write_key(path: pathlib.Path, key: Key) -> None:
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def with_key_identifiers(
    builder: x509.CertificateBuilder,
    key: Key,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    authority: bool,
) -> x509.CertificateBuilder:
    """What RFC 5280 sections 4.2.1.1 to 4.2.1.3 ask for, and Python from 3.13 on in ``ssl.create_default_context``.

    Clients' certificates have none of it here, as many old ones: neither Envoy nor forkproxy asks.
    """
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
    ).add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    if authority:
        # fmt: off
        usage = x509.KeyUsage(
            key_cert_sign=True, crl_sign=True, digital_signature=False, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
        )
        # fmt: on
        builder = builder.add_extension(usage, critical=True)
    return builder


def _certificate(
    subject: str,
    key: Key,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    names: tuple[str, ...],
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True)
    )
    builder = with_key_identifiers(builder, key, issuer_key, authority=not names)
    if names:
        alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        alternatives.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


@functools.cache
def directory() -> pathlib.Path:
    """Where the files are."""
    made = tempfile.TemporaryDirectory(prefix="certificates-")
    atexit.register(made.cleanup)
    path = pathlib.Path(made.name)
    authorities = {}
    for name in ("ca", "other-ca"):
        key = ec.generate_private_key(ec.SECP256R1())
        authorities[name] = key
        signed = _certificate(name, key, name, key, ())
        (path / f"{name}.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    keys: dict[str, Key] = {
        "good": ec.generate_private_key(ec.SECP256R1()),
        "rsa": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    }
    for name, leaf_key in keys.items():
        leaf = _certificate("good.example", leaf_key, "ca", authorities["ca"], NAMES)
        (path / f"{name}.pem").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
        _write_key(path / f"{name}-key.pem", leaf_key)
    _make_clients(path, authorities["ca"], authorities["other-ca"])
    return path


def _make_clients(
    path: pathlib.Path, authority_key: ec.EllipticCurvePrivateKey, other_key: ec.EllipticCurvePrivateKey
) -> None:
    def write(
        name: str,
        subject: x509.Name,
        names: list[x509.GeneralName],
        issuer: str = "ca",
        chain: bytes = b"",
        *,
        is_server: bool = False,
    ) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        signer = {"issuer": issuer_key, "ca": authority_key, "other-ca": other_key}[issuer]
        signed = _signed(subject, key, _name(issuer), signer, names, is_server)
        (path / f"{name}.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM) + chain)
        _write_key(path / f"{name}-key.pem", key)

    issuer_key = ec.generate_private_key(ec.SECP256R1())
    issuer = _certificate("issuer", issuer_key, "ca", authority_key, ())
    odd = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, 'Good, "Inc"\\x'),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "a;b=c+d<e>#"),
            x509.NameAttribute(NameOID.COMMON_NAME, "client"),
        ]
    )
    uris = [x509.UniformResourceIdentifier(text) for text in ("spiffe://a/client", 'spiffe://b/c;l,i=e"nt')]
    names = [*uris, x509.DNSName("c1.example"), x509.DNSName("*.c2.example"), x509.RFC822Name("a@b.example")]
    write("client", odd, names, "issuer", issuer.public_bytes(serialization.Encoding.PEM))
    write("bare", _name("bare"), [])
    write("stranger", _name("stranger"), [], "other-ca")
    own = [x509.UniformResourceIdentifier(text) for text in ("spiffe://a/server", "spiffe://b/server")]
    write("uris", _name("good.example"), [x509.DNSName("good.example"), *own], is_server=True)


def _signed(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    names: list[x509.GeneralName],
    is_server: bool,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )
    if is_server:
        builder = with_key_identifiers(builder, key, issuer_key, authority=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())
