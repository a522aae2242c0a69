"""Certificates in memory for unit tests: authorities by name, and leaves for any subject alternative names.

(``certificates.py`` beside this writes the files of the program's own tests.)
"""

from __future__ import annotations

import datetime
import functools
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from tests.support.certificates import with_key_identifiers

_DAY = datetime.timedelta(days=1)
_NOW = datetime.datetime.now(datetime.UTC)


class Certificate:
    """``pem`` and ``key_pem`` as bytes; ``certificate`` the object of ``cryptography``."""

    def __init__(self, certificate, key):
        self.certificate = certificate
        self.key = key
        self.pem = certificate.public_bytes(serialization.Encoding.PEM)
        self.key_pem = self.encrypted_key_pem(None)

    def encrypted_key_pem(self, password):
        encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        return self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def _name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _san(text):
    if "://" in text:
        return x509.UniformResourceIdentifier(text)
    if "@" in text:
        return x509.RFC822Name(text)
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _make(subject, issuer, key, issuer_key, sans=(), authority=False, expired=False):
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOW - 10 * _DAY)
        .not_valid_after(_NOW - _DAY if expired else _NOW + _DAY)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    builder = with_key_identifiers(builder, key, issuer_key, authority=authority)
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName([_san(each) for each in sans]), critical=False)
    return Certificate(builder.sign(issuer_key, hashes.SHA256()), key)


def authority(name="test authority"):
    """A self-signed certificate that may issue others."""
    return _authority(name)


@functools.cache
def _authority(name):
    key = ec.generate_private_key(ec.SECP256R1())
    return _make(name, name, key, key, authority=True)


@functools.cache
def leaf(*sans, kind="ec", of="test authority", expired=False):
    """A certificate for ``sans`` (DNS names, IP addresses, URIs, mail addresses), issued by ``authority(of)``."""
    if kind == "ec":
        key = ec.generate_private_key(ec.SECP256R1())
    else:
        key = rsa.generate_private_key(65537, 2048)
    return _make(sans[0] if sans else "leaf", of, key, authority(of).key, sans, expired=expired)
