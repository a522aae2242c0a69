"""TLS settings → contexts, tried by real handshakes over loopback."""

import base64
import hashlib
import os
import socket
import ssl

import pytest
from cryptography.hazmat.primitives import serialization

from forkproxy.config.build.core import StringMatcher, Where
from forkproxy.config.build.tls import (
    CertificateValidation,
    CommonTls,
    DataSource,
    DownstreamTlsConfig,
    TlsCertificate,
    UpstreamTlsConfig,
)
from forkproxy.config.problems import ConfigError
from forkproxy.net.connection import Connection
from forkproxy.net.filter import WriteFilteredConnection, WriteFilteredTlsConnection
from forkproxy.net.sockets import connecting_socket
from forkproxy.net.tls_context import downstream_transport, host_transports, subject_public_key_info, upstream_transport
from forkproxy.stats.groups import TlsStats
from tests.support.fakes import FakeLoop
from tests.support.live_loop import Record
from tests.support.x509_authority import authority, leaf

WHERE = Where("static_resources.listeners[0]", 7, 3)


def certificate(made, key=None, password=None, chain=None):
    return TlsCertificate(
        DataSource(made.pem if chain is None else chain, "chain.pem"),
        DataSource(made.key_pem if key is None else key, "key.pem"),
        DataSource(password) if password else None,
    )


def validation(**fields):
    return CertificateValidation(trusted_ca=DataSource(authority().pem, "ca.pem"), **fields)


def downstream(*certificates, require=False, **common):
    return DownstreamTlsConfig(CommonTls(certificates=certificates, **common), require, WHERE)


def upstream(*certificates, sni="", auto_san=False, **common):
    return UpstreamTlsConfig(CommonTls(certificates=certificates, **common), sni, False, auto_san, WHERE)


class Handshake:
    """Both ends after a handshake, one way or the other."""

    def __init__(self, loop, down_config, up_config, host=None):
        listening = socket.create_server(("127.0.0.1", 0))
        sock = connecting_socket(listening.getsockname())
        accepted, remote = listening.accept()
        listening.close()
        accepted.setblocking(False)
        self.down_stats, self.up_stats = TlsStats(), TlsStats()
        self.down = downstream_transport(down_config, self.down_stats)(loop, accepted, remote, 0)
        make = upstream_transport(up_config, self.up_stats)
        if host is not None:
            make = host_transports(up_config, self.up_stats)(host)
        self.up = make(loop, sock, ("127.0.0.1", 1), 0)
        self.down_record, self.up_record = Record(self.down), Record(self.up)
        self.down.start()
        self.up.start_connecting()
        loop.run_until(lambda: self.down_record.events and self.up_record.events)
        loop.passes(5)
        self.good = self.down_record.events == self.up_record.events == ["connected"]
        self.up_tls, self.down_tls = self.up.tls, self.down.tls
        self.down.abort()
        self.up.abort()
        loop.passes(1)

    @property
    def peer_names(self):
        der = self.up_tls.getpeercert(True)
        return next(made for made in (leaf("a.test"), leaf("b.test"), leaf("*.c.test")) if der_of(made) == der)


def der_of(made):
    return made.certificate.public_bytes(serialization.Encoding.DER)


A = certificate(leaf("a.test"))


def test_defaults_are_envoys(loop):
    # TLS 1.2 is what an Envoy upstream speaks at most unless told otherwise; its first cipher for an EC certificate.
    shaken = Handshake(loop, downstream(A), upstream())
    assert shaken.good
    assert shaken.up_tls.version() == "TLSv1.2"
    assert shaken.up_tls.cipher()[0] == "ECDHE-ECDSA-AES128-GCM-SHA256"
    modern = Handshake(loop, downstream(A), upstream(tls_maximum_protocol_version="TLSv1_3"))
    assert modern.up_tls.version() == "TLSv1.3"
    assert (modern.down_stats.handshake, modern.down_stats.no_certificate) == (1, 1)
    assert modern.up_stats.versions == {"TLSv1.3": 1}
    assert list(modern.up_stats.ciphers.values()) == [1]
    assert modern.up_stats.no_certificate == 0


def test_versions(loop):
    only_1_3 = downstream(A, tls_minimum_protocol_version="TLSv1_3")
    refused = Handshake(loop, only_1_3, upstream())
    assert not refused.good
    assert refused.down_stats.connection_error == refused.up_stats.connection_error == 1
    old = {"tls_minimum_protocol_version": "TLSv1_0", "tls_maximum_protocol_version": "TLSv1_1"}
    suites = {"cipher_suites": ("ECDHE-ECDSA-AES128-SHA",)}
    assert Handshake(loop, downstream(A, **old, **suites), upstream(**old, **suites)).up_tls.version() == "TLSv1.1"
    assert not Handshake(loop, downstream(A), upstream(**old, **suites)).good


def test_ciphers_with_equal_preference_groups(loop):
    suites = ("[ECDHE-ECDSA-AES256-GCM-SHA384|ECDHE-RSA-AES256-GCM-SHA384]",)
    shaken = Handshake(loop, downstream(A, cipher_suites=suites), upstream())
    assert shaken.up_tls.cipher()[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"


def test_the_servers_preference_counts(loop):
    strong_first = ("ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256")
    shaken = Handshake(loop, downstream(A, cipher_suites=strong_first), upstream(cipher_suites=strong_first[::-1]))
    assert shaken.up_tls.cipher()[0] == strong_first[0]


@pytest.mark.parametrize(("offered", "chosen"), [(("h2", "http/1.1"), "http/1.1"), (("h3",), None), ((), None)])
def test_alpn(loop, offered, chosen):
    shaken = Handshake(loop, downstream(A, alpn_protocols=("http/1.1",)), upstream(alpn_protocols=offered))
    assert shaken.up_tls.selected_alpn_protocol() == chosen
    assert shaken.good


@pytest.mark.parametrize("curves", [("P-384",), ("X25519", "P-256")])
def test_curves(loop, curves):
    assert Handshake(loop, downstream(A, ecdh_curves=curves), upstream()).good


@pytest.mark.parametrize(
    ("sni", "served"),
    [("a.test", "a.test"), ("B.test", "b.test"), ("x.c.test", "*.c.test"), ("x.y.c.test", "a.test"), ("", "a.test")],
)
def test_the_server_name_chooses_the_certificate(loop, sni, served):
    config = downstream(A, certificate(leaf("b.test")), certificate(leaf("*.c.test")))
    shaken = Handshake(loop, config, upstream(sni=sni))
    assert shaken.peer_names is leaf(served)
    assert shaken.down.requested_server_name == sni.lower()


@pytest.mark.parametrize(
    ("suite", "kind"), [("ECDHE-RSA-AES128-GCM-SHA256", "rsa"), ("ECDHE-ECDSA-AES128-GCM-SHA256", "ec")]
)
def test_rsa_and_ecdsa_side_by_side(loop, suite, kind):
    config = downstream(A, certificate(leaf("a.test", kind="rsa")))
    shaken = Handshake(loop, config, upstream(sni="a.test", cipher_suites=(suite,)))
    assert shaken.up_tls.getpeercert(True) == der_of(leaf("a.test", kind="rsa") if kind == "rsa" else leaf("a.test"))


# -- upstream validation


def test_without_a_ca_nothing_is_checked(loop):
    assert Handshake(loop, downstream(certificate(leaf("a.test", of="strangers"))), upstream(sni="other.test")).good


def test_a_ca_checks_the_chain_but_no_name(loop):
    assert Handshake(loop, downstream(A), upstream(sni="other.test", validation=validation())).good
    stranger = Handshake(
        loop, downstream(certificate(leaf("a.test", of="strangers"))), upstream(validation=validation())
    )
    assert not stranger.good
    assert stranger.up_stats.fail_verify_error == 1
    assert stranger.up.transport_failure_reason == (
        "TLS_error:|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify cert failed: X509_verify_cert: "
        "certificate verification error at depth 0: unable to get local issuer certificate:TLS_error_end"
    )


def test_an_expired_certificate(loop):
    expired = downstream(certificate(leaf("a.test", expired=True)))
    assert not Handshake(loop, expired, upstream(validation=validation())).good
    assert Handshake(loop, expired, upstream(validation=validation(allow_expired_certificate=True))).good


NAMES = leaf("a.test", "*.w.test", "https://s.test/x", "me@a.test", "10.0.0.1")


@pytest.mark.parametrize(
    ("kind", "matcher", "good"),
    [
        ("DNS", StringMatcher("exact", "a.test"), True),
        ("DNS", StringMatcher("exact", "A.TEST"), True),
        ("DNS", StringMatcher("exact", "b.w.test"), True),
        ("DNS", StringMatcher("exact", "b.c.w.test"), False),
        ("DNS", StringMatcher("exact", "w.test"), False),
        ("DNS", StringMatcher("prefix", "https"), False),
        ("URI", StringMatcher("prefix", "https://s."), True),
        ("EMAIL", StringMatcher("suffix", "@A.test", ignore_case=True), True),
        ("EMAIL", StringMatcher("suffix", "@A.test"), False),
        ("IP_ADDRESS", StringMatcher("exact", "10.0.0.1"), True),
        ("", StringMatcher("contains", "s.test"), True),
        ("", StringMatcher("safe_regex", r"[a-z]\.test"), True),
        ("", StringMatcher("safe_regex", r"[a-z]\.tes"), False),
    ],
)
def test_san_matchers(loop, kind, matcher, good):
    config = upstream(validation=validation(match_subject_alt_names=((kind, matcher),)))
    shaken = Handshake(loop, downstream(certificate(NAMES)), config)
    assert shaken.good is good
    assert shaken.up_stats.fail_verify_san == (0 if good else 1)
    if not good:
        assert (
            "SAN matcher, certificate SANs are [a.test, *.w.test, https://s.test/x"
            in shaken.up.transport_failure_reason
        )


@pytest.mark.parametrize(("sni", "good"), [("a.test", True), ("x.w.test", True), ("b.test", False)])
def test_auto_sni_san_validation(loop, sni, good):
    config = upstream(sni=sni, auto_san=True, validation=validation())
    assert Handshake(loop, downstream(certificate(NAMES)), config).good is good


@pytest.mark.parametrize(
    ("host", "sans", "good"),
    [
        ("a.test", ("a.test",), True),
        ("x.w.test", ("*.w.test",), True),
        ("b.test", ("a.test",), False),
        ("127.0.0.1", ("127.0.0.1",), True),
        ("127.0.0.2", ("127.0.0.1",), False),
        ("127.0.0.1", ("a.test",), False),
        ("::1", ("::1",), True),
        ("a.test", ("127.0.0.1",), False),
        ("x" * 70, ("a.test",), False),
    ],
)
def test_a_host_that_a_request_names_needs_a_certificate_of_its_own(loop, host, sans, good):
    server = downstream(certificate(leaf(*sans)))
    assert Handshake(loop, server, upstream(validation=validation()), host).good is good
    assert Handshake(loop, server, upstream(), host).good  # without a CA nothing is checked


def test_the_host_is_the_server_name(loop):
    both = downstream(certificate(leaf("a.test")), certificate(leaf("b.test")))
    assert Handshake(loop, both, upstream(), "b.test").peer_names is leaf("b.test")
    assert Handshake(loop, both, upstream(), "a.test").peer_names is leaf("a.test")


def test_hosts_of_a_plain_cluster_are_plain():
    assert host_transports(None)("a.test") is Connection


def test_pinned_certificates_and_keys(loop):
    der = der_of(leaf("a.test"))
    spki = (
        leaf("a.test")
        .key.public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    digest = hashlib.sha256(der).hexdigest()
    pin = base64.b64encode(hashlib.sha256(spki).digest()).decode()
    coloned = ":".join(digest[i : i + 2] for i in range(0, 64, 2)).upper()
    for fields, good in (
        ({"verify_certificate_hash": (digest,)}, True),
        ({"verify_certificate_hash": (coloned,)}, True),
        ({"verify_certificate_hash": ("00" * 32,)}, False),
        ({"verify_certificate_spki": (pin,)}, True),
        ({"verify_certificate_spki": (base64.b64encode(bytes(32)).decode(),)}, False),
        ({"verify_certificate_hash": ("00" * 32,), "verify_certificate_spki": (pin,)}, True),
    ):
        shaken = Handshake(loop, downstream(A), upstream(validation=CertificateValidation(**fields)))
        assert shaken.good is good, fields
        assert shaken.up_stats.fail_verify_cert_hash == (0 if good else 1)


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_subject_public_key_info(kind):
    made = leaf("a.test", kind=kind)
    assert subject_public_key_info(der_of(made)) == made.key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


# -- downstream validation


def test_client_certificates(loop):
    required = downstream(A, require=True, validation=validation())
    without = Handshake(loop, required, upstream())
    assert not without.good
    assert without.down_stats.fail_verify_no_cert == 1
    with_it = Handshake(loop, required, upstream(certificate(leaf("client.test"))))
    assert with_it.good
    assert with_it.down_tls.getpeercert()["subjectAltName"] == (("DNS", "client.test"),)
    assert with_it.down_stats.no_certificate == 0
    stranger = Handshake(loop, required, upstream(certificate(leaf("client.test", of="strangers"))))
    assert stranger.down_stats.fail_verify_error == 1


def test_a_client_certificate_that_is_not_required_is_checked_when_it_comes(loop):
    optional = downstream(A, validation=validation())
    assert Handshake(loop, optional, upstream()).good
    assert not Handshake(loop, optional, upstream(certificate(leaf("client.test", of="strangers")))).good


def test_the_names_of_clients_are_matched(loop):
    config = downstream(
        A,
        require=True,
        validation=validation(match_subject_alt_names=(("DNS", StringMatcher("exact", "client.test")),)),
    )
    assert Handshake(loop, config, upstream(certificate(leaf("client.test")))).good
    other = Handshake(loop, config, upstream(certificate(leaf("other.test"))))
    assert other.down_stats.fail_verify_san == 1


# -- errors


def bad_password():
    return certificate(leaf("a.test"), key=leaf("a.test").encrypted_key_pem(b"right"), password=b"wrong")


BAD = {
    "Failed to load certificate chain from chain.pem": lambda: downstream(
        certificate(leaf("a.test"), chain=b"nonsense")
    ),
    "Failed to load private key from key.pem": lambda: downstream(certificate(leaf("a.test"), key=b"nonsense")),
    "Failed to load private key from key.pem: KEY_VALUES_MISMATCH": lambda: downstream(
        certificate(leaf("a.test"), key=leaf("b.test").key_pem)
    ),
    "Failed to load private key from key.pem: ": lambda: downstream(bad_password()),
    "Failed to load trusted CA certificates from bad.pem": lambda: upstream(
        validation=CertificateValidation(trusted_ca=DataSource(b"nonsense", "bad.pem"))
    ),
    "Failed to load trusted CA certificates from <inline>": lambda: upstream(
        validation=CertificateValidation(trusted_ca=DataSource(b""))
    ),
    "No TLS certificates found for server context": lambda: downstream(),
    "The following ciphers were rejected when tried individually: NOPE": lambda: upstream(
        cipher_suites=("ECDHE-RSA-AES128-GCM-SHA256", "NOPE")
    ),
    "ecdh_curves P-257 cannot be set": lambda: upstream(ecdh_curves=("P-257",)),
    "tls_minimum_protocol_version is above": lambda: upstream(
        tls_minimum_protocol_version="TLSv1_3", tls_maximum_protocol_version="TLSv1_2"
    ),
    'sni ".bad" is not a server name': lambda: upstream(sni=".bad"),
    "alpn_protocols": lambda: upstream(alpn_protocols=("x" * 300,)),
    "ACCEPT_UNTRUSTED is not implemented": lambda: upstream(
        validation=validation(trust_chain_verification="ACCEPT_UNTRUSTED")
    ),
    "require_client_certificate without a trusted_ca": lambda: downstream(A, require=True),
    "of clients need a trusted_ca": lambda: downstream(
        A, validation=CertificateValidation(verify_certificate_hash=("00" * 32,))
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_what_openssl_or_we_refuse_is_a_configuration_error_with_its_place(message):
    config = BAD[message]()
    make = downstream_transport if isinstance(config, DownstreamTlsConfig) else upstream_transport
    with pytest.raises(ConfigError) as caught:
        make(config)
    assert message in caught.value.message
    assert (caught.value.path, caught.value.line, caught.value.column) == ("static_resources.listeners[0]", 7, 3)


def test_an_encrypted_key_with_its_password(loop):
    made = leaf("a.test")
    good = certificate(made, key=made.encrypted_key_pem(b"right"), password=b"right")
    assert Handshake(loop, downstream(good), upstream()).good


def test_an_encrypted_key_without_a_password_does_not_ask_the_terminal():
    made = leaf("a.test")
    with pytest.raises(ConfigError):
        downstream_transport(downstream(certificate(made, key=made.encrypted_key_pem(b"right"))))


def test_no_file_is_left_open():
    before = os.listdir("/proc/self/fd")
    downstream_transport(downstream(A, validation=validation()))
    assert os.listdir("/proc/self/fd") == before


def test_raw_transports_and_write_filters():
    assert downstream_transport(None) is Connection
    assert upstream_transport(None) is Connection
    assert downstream_transport(None, write_filters=True) is WriteFilteredConnection
    sock = socket.socket()
    made = downstream_transport(downstream(A), write_filters=True)(FakeLoop(), sock, ("127.0.0.1", 1), 0)
    sock.close()
    assert isinstance(made, WriteFilteredTlsConnection)


def test_a_configured_tls_is_not_silently_the_stdlibs_default():
    # The stdlib's own default context would check host names and accept 1.3 upstream.
    from forkproxy.net.tls_context import upstream_context

    context = upstream_context(upstream())
    assert (context.check_hostname, context.maximum_version) == (False, ssl.TLSVersion.TLSv1_2)
