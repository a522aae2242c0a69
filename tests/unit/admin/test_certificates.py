import datetime
import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from forkproxy.admin import certificates
from forkproxy.admin.certificates import certificates_of, read_certificate
from forkproxy.config.build.tls import (
    CertificateValidation,
    CommonTls,
    DataSource,
    TlsCertificate,
)

FROM = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
UNTIL = datetime.datetime(2051, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)  # a GeneralizedTime: from 2050 on


def make(serial=0xAB12, names=(), version_3=True):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "n" * 60)])
    builder = x509.CertificateBuilder(name, name, key.public_key(), serial, FROM, UNTIL)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    return builder.sign(key, hashes.SHA256())


def der(certificate):
    return certificate.public_bytes(serialization.Encoding.DER)


def pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM)


NAMES = [
    x509.DNSName("a.example"),
    x509.RFC822Name("m@example"),
    x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    x509.IPAddress(ipaddress.ip_address("::1")),
    x509.UniformResourceIdentifier("spiffe://x/y"),
    x509.DNSName("*.b.example"),
]


def test_what_is_read():
    view = read_certificate(der(make(names=NAMES)), "/c.pem")
    assert view.path == "/c.pem"
    assert view.serial_number == "ab12"
    assert view.dns_names == ("a.example", "*.b.example")
    assert view.ip_addresses == ("127.0.0.1", "::1")
    assert view.uris == ("spiffe://x/y",)
    assert (view.valid_from, view.expiration_time) == (FROM, UNTIL)


def test_a_long_list_of_names():
    names = [x509.DNSName(f"host-{n}.example") for n in range(500)]
    assert len(read_certificate(der(make(names=names)), "").dns_names) == 500


@pytest.mark.parametrize(("serial", "text"), [(1, "01"), (0x80, "80"), (0x0ABC, "0abc"), (1 << 150, "40" + "00" * 18)])
def test_serial_numbers(serial, text):
    assert read_certificate(der(make(serial)), "").serial_number == text


def test_a_certificate_without_names():
    assert read_certificate(der(make()), "").dns_names == ()


def test_two_digit_years():
    assert certificates._time(0x17, b"491231235959Z").year == 2049
    assert certificates._time(0x17, b"500101000000Z").year == 1950


def test_what_is_no_certificate_is_refused_at_every_cut():
    whole = der(make(names=NAMES))
    for cut in range(len(whole) - 200):
        with pytest.raises((ValueError, IndexError)):
            read_certificate(whole[:cut], "")


class Holder:
    """Any of the configuration's classes: attributes by name."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)


def listener(*commons, default=None):
    chains = tuple(Holder(tls=Holder(common=common) if common else None) for common in commons)
    return Holder(filter_chains=chains, default_filter_chain=default)


def test_contexts_of_listeners_and_clusters():
    own, root = make(1), make(2)
    server = CommonTls(certificates=(TlsCertificate(DataSource(pem(own) + pem(root), "/own.pem"), DataSource(b"")),))
    upstream = CommonTls(validation=CertificateValidation(trusted_ca=DataSource(b"# roots\n" + pem(root) + pem(own))))
    default = Holder(tls=Holder(common=server))
    views = certificates_of(
        [listener(server, None, default=default), listener(CommonTls())],
        [Holder(tls=None), Holder(tls=Holder(common=upstream)), Holder(tls=Holder(common=CommonTls()))],
    )
    shown = [([c.serial_number for c in v.authorities], [(c.serial_number, c.path) for c in v.chain]) for v in views]
    assert shown == [([], [("01", "/own.pem")]), ([], [("01", "/own.pem")]), (["02"], [])]


@pytest.mark.parametrize("data", [b"", b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----", b"garbage"])
def test_what_cannot_be_read_is_left_out(data):
    common = CommonTls(certificates=(TlsCertificate(DataSource(data), DataSource(b"")),))
    assert certificates_of([listener(common)], []) == []
