"""TLS contexts: secrets resolved, files read, what cannot be used refused with its place."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization

from forkproxy.config.build.certificates import is_cipher_suite, is_curve
from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import StringMatcher
from forkproxy.config.build.tls import (
    CommonTls,
    DataSource,
    build_data_source,
    build_downstream_tls,
    build_upstream_tls,
)
from tests.support import certificates
from tests.unit.config.build.building import built, value_of, view_of

DOWN = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
UP = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
SECRET = "envoy.extensions.transport_sockets.tls.v3.Secret"
SOURCE = "envoy.config.core.v3.DataSource"


@pytest.fixture(scope="module")
def directory():
    return certificates.directory()


def pair(directory, key="good-key.pem"):
    return f"{{certificate_chain: {{filename: {directory}/good.pem}}, private_key: {{filename: {directory}/{key}}}}}"


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("{inline_string: 'é'}", "é".encode()),
        ("{inline_bytes: aGk=}", b"hi"),
        ("{environment_variable: NAME}", b"value"),
    ],
)
def test_data_sources(text, data):
    context = BuildContext(environment={"NAME": "value"})
    assert value_of(build_data_source, SOURCE, text, context) == DataSource(data)


def test_a_file_is_read_and_remembered(tmp_path):
    (tmp_path / "x").write_bytes(b"content")
    assert value_of(build_data_source, SOURCE, f"{{filename: {tmp_path}/x}}") == DataSource(b"content", f"{tmp_path}/x")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nowhere/x", "No such file or directory"),
        (".", "not a regular file"),
        ("/dev/zero", "Envoy reads no file there"),
        ("/proc/self/environ", "Envoy reads no file there"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, why):
    path = tmp_path / name
    outcome = built(build_data_source, SOURCE, f"{{filename: {path}}}")
    assert outcome.errors == [f'filename: cannot read file "{path}": {why}']


def test_an_unset_environment_variable():
    outcome = built(build_data_source, SOURCE, "{environment_variable: A}", BuildContext(environment={}))
    assert outcome.errors == ['environment_variable: environment variable "A" is not set']


def test_downstream(directory):
    text = f"""
        require_client_certificate: true
        common_tls_context:
          alpn_protocols: [h2, http/1.1]
          tls_params: {{tls_minimum_protocol_version: TLSv1_2, cipher_suites: [ECDHE-ECDSA-AES128-GCM-SHA256],
                       ecdh_curves: [X25519]}}
          tls_certificates: [{pair(directory)}]
          validation_context:
            trusted_ca: {{filename: {directory}/ca.pem}}
            match_typed_subject_alt_names: [{{san_type: DNS, matcher: {{suffix: .example}}}}]
            verify_certificate_hash: ["{"00:" * 31}00"]
            allow_expired_certificate: true
            trust_chain_verification: ACCEPT_UNTRUSTED
        """
    made = value_of(build_downstream_tls, DOWN, text)
    assert made.require_client_certificate is True
    common = made.common
    assert common.alpn_protocols == ("h2", "http/1.1")
    assert (common.tls_minimum_protocol_version, common.tls_maximum_protocol_version) == ("TLSv1_2", "TLS_AUTO")
    assert (common.cipher_suites, common.ecdh_curves) == (("ECDHE-ECDSA-AES128-GCM-SHA256",), ("X25519",))
    assert common.certificates[0].certificate_chain.filename == f"{directory}/good.pem"
    assert common.validation.trusted_ca.data.startswith(b"-----BEGIN CERTIFICATE")
    assert common.validation.match_subject_alt_names == (("DNS", StringMatcher("suffix", ".example")),)
    assert common.validation.allow_expired_certificate is True
    assert common.validation.trust_chain_verification == "ACCEPT_UNTRUSTED"


def test_upstream_without_anything_verifies_nothing():
    made = value_of(build_upstream_tls, UP, "{sni: www.example, max_session_keys: 0}")
    assert (made.sni, made.auto_host_sni, made.common) == ("www.example", False, CommonTls())


@pytest.mark.parametrize("text", ["{}", "{common_tls_context: {}}", "{common_tls_context: {tls_certificates: []}}"])
def test_downstream_needs_a_certificate(text):
    assert built(build_downstream_tls, DOWN, text).errors == [
        "common_tls_context: a downstream TLS context needs a certificate"
    ]


def test_certificates_that_cannot_be_used(directory):
    def errors(certificate):
        text = f"{{common_tls_context: {{tls_certificates: [{certificate}]}}}}"
        return [error.partition("tls_certificates[0]")[2] for error in built(build_downstream_tls, DOWN, text).errors]

    (missing,) = errors(pair(directory, "lost.pem"))
    assert missing == f'.private_key.filename: cannot read file "{directory}/lost.pem": No such file or directory'
    (mismatch,) = errors(
        f"{{certificate_chain: {{filename: {directory}/ca.pem}}, private_key: {{filename: {directory}/good-key.pem}}}}"
    )
    assert mismatch == (
        f": cannot use the certificate and key of {directory}/ca.pem and {directory}/good-key.pem: key values mismatch"
    )
    (garbage,) = errors("{certificate_chain: {inline_string: x}, private_key: {inline_string: z}}")
    assert garbage.startswith(": cannot use the certificate and key of <inline> and <inline>: ")
    assert errors(f"{{certificate_chain: {{filename: {directory}/good.pem}}}}") == [
        ".private_key: a TLS certificate needs a private_key, which is missing or empty"
    ]


def test_an_encrypted_key_asks_nobody(directory):
    """Without a password OpenSSL would ask on the terminal and the supervisor would wait."""
    key = serialization.load_pem_private_key((directory / "good-key.pem").read_bytes(), None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    inline = encrypted.decode().replace("\n", "\\n")

    def errors(password):
        text = (
            f"{{common_tls_context: {{tls_certificates: [{{certificate_chain: {{filename: {directory}/good.pem}}, "
            f'private_key: {{inline_string: "{inline}"}}{password}}}]}}}}'
        )
        return built(build_downstream_tls, DOWN, text).errors

    assert len(errors("")) == 1
    assert errors(", password: {inline_string: secret}") == []


def test_validation_that_cannot_work():
    def errors(validation):
        return built(build_upstream_tls, UP, f"{{common_tls_context: {{validation_context: {validation}}}}}").errors

    place = "common_tls_context.validation_context"
    assert errors("{match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: a}}]}") == [
        f"{place}: verifying names in certificates without a trusted_ca is insecure and not allowed"
    ]
    assert errors("{trusted_ca: {inline_string: x}}") == [
        f"{place}.trusted_ca: no CA certificate in PEM can be read from it"
    ]
    assert errors("{allow_expired_certificate: true}") == [
        f"{place}.allow_expired_certificate: without a trusted_ca the validity period is ignored anyway"
    ]
    assert errors(f"{{verify_certificate_hash: [{'zz' * 32}]}}") == [
        f'{place}.verify_certificate_hash: "{"zz" * 32}" is not a hex-encoded SHA-256'
    ]


def test_static_secrets(directory):
    context = BuildContext()
    secret = view_of(f"{{name: pair, tls_certificate: {pair(directory)}}}", SECRET)
    ca = view_of(f"{{name: ca, validation_context: {{trusted_ca: {{filename: {directory}/ca.pem}}}}}}", SECRET)
    context.secrets.update({("tls_certificate", "pair"): secret, ("validation_context", "ca"): ca})
    text = """
        common_tls_context:
          tls_certificate_sds_secret_configs: [{name: pair}]
          combined_validation_context:
            default_validation_context: {verify_certificate_spki: ["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]}
            validation_context_sds_secret_config: {name: ca}
        """
    common = value_of(build_downstream_tls, DOWN, text, context).common
    assert common.certificates[0].private_key.filename == f"{directory}/good-key.pem"
    assert common.validation.trusted_ca.filename == f"{directory}/ca.pem"
    assert common.validation.verify_certificate_spki == ("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",)
    text = "common_tls_context: {validation_context_sds_secret_config: {name: pair}}"
    assert built(build_upstream_tls, UP, text, context).errors == [
        'common_tls_context.validation_context_sds_secret_config.name: unknown static secret "pair" of kind validation_context'
    ]


def test_sds_stays_unread():
    text = "common_tls_context: {tls_certificate_sds_secret_configs: [{name: x, sds_config: {path_config_source: {path: /x}}}]}"
    outcome = built(build_downstream_tls, DOWN, text)
    assert outcome.unread == ["common_tls_context.tls_certificate_sds_secret_configs[0].sds_config"]
    assert outcome.errors == []


def test_names_of_ciphers_and_curves():
    text = "{common_tls_context: {tls_params: {cipher_suites: [AES-NONE], ecdh_curves: [P-1]}}}"
    assert built(build_upstream_tls, UP, text).errors == [
        'common_tls_context.tls_params.cipher_suites: unknown cipher suite "AES-NONE"',
        'common_tls_context.tls_params.ecdh_curves: unknown curve "P-1"',
    ]
    assert is_cipher_suite("[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]")
    assert not is_cipher_suite("[ECDHE-ECDSA-AES128-GCM-SHA256|NONE]")
    assert is_curve("X25519")
