"""``extensions.transport_sockets.tls.v3`` → DownstreamTlsConfig, UpstreamTlsConfig."""

from __future__ import annotations

import os
import re

from forkproxy.config.build.certificates import certificate_error, is_ca_bundle, is_cipher_suite, is_curve
from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import StringMatcher, Where, build_string_matcher, build_where
from forkproxy.config.digest import UNREADABLE, digest_of
from forkproxy.config.values import frozen
from forkproxy.config.view import View

_SHA256 = re.compile(r"[0-9a-fA-F]{64}\Z")
_NO_FILES = ("/dev/", "/proc/", "/sys/")
_CERTIFICATE_SOURCES = (
    "tls_certificates",
    "tls_certificate_sds_secret_configs",
    "tls_certificate_provider_instance",
    "custom_tls_certificate_selector",
    "tls_certificate_certificate_provider",
    "tls_certificate_certificate_provider_instance",
)


@frozen
class DataSource:
    """``config.core.v3.DataSource``, read at load. ``filename`` says where ``data`` came from; "" when it stood inline."""

    data: bytes
    filename: str = ""


@frozen
class TlsCertificate:
    """A certificate chain and its private key, both PEM."""

    certificate_chain: DataSource
    private_key: DataSource
    password: DataSource | None = None


@frozen
class CertificateValidation:
    """``CertificateValidationContext``: ``trusted_ca`` None means no verification of the peer (Envoy's default)."""

    trusted_ca: DataSource | None = None
    use_system_ca: bool = False
    match_subject_alt_names: tuple[tuple[str, StringMatcher], ...] = ()
    verify_certificate_hash: tuple[str, ...] = ()
    verify_certificate_spki: tuple[str, ...] = ()
    allow_expired_certificate: bool = False
    trust_chain_verification: str = "VERIFY_TRUST_CHAIN"


@frozen
class CommonTls:
    """``CommonTlsContext`` with every secret resolved. Protocol versions: "TLSv1_0" … "TLSv1_3" or "TLS_AUTO"."""

    certificates: tuple[TlsCertificate, ...] = ()
    validation: CertificateValidation | None = None
    alpn_protocols: tuple[str, ...] = ()
    tls_minimum_protocol_version: str = "TLS_AUTO"
    tls_maximum_protocol_version: str = "TLS_AUTO"
    cipher_suites: tuple[str, ...] = ()
    ecdh_curves: tuple[str, ...] = ()


@frozen
class DownstreamTlsConfig:
    """``DownstreamTlsContext``."""

    common: CommonTls
    require_client_certificate: bool
    where: Where


@frozen
class UpstreamTlsConfig:
    """``UpstreamTlsContext``. ``sni`` is "" when no server name is sent."""

    common: CommonTls
    sni: str
    auto_host_sni: bool
    auto_sni_san_validation: bool
    where: Where


def build_data_source(view: View, context: BuildContext) -> DataSource:
    """``config.core.v3.DataSource``, read now: a file that cannot be read is an error that names it."""
    kind = view.which("specifier")
    if kind == "filename":
        filename = view.str("filename")
        data, wrong = _read(filename)
        context.files[filename] = UNREADABLE if wrong else digest_of(data)
        if wrong:
            view.report(f'cannot read file "{filename}": {wrong}', field="filename")
        return DataSource(data, filename)
    if kind == "inline_string":
        return DataSource(view.str("inline_string").encode())
    if kind == "inline_bytes":
        return DataSource(view.bytes("inline_bytes"))
    if kind == "environment_variable":
        name = view.str("environment_variable")
        if name not in context.environment:
            view.report(f'environment variable "{name}" is not set', field="environment_variable")
        return DataSource(context.environment.get(name, "").encode())
    return DataSource(b"")


def _read(filename: str) -> tuple[bytes, str]:
    """A file's content, or why not. Envoy, too, reads nothing below /dev, /proc and /sys; a pipe would block the load."""
    try:
        path = os.path.realpath(filename, strict=True)
        if path.startswith(_NO_FILES):
            return b"", "Envoy reads no file there"
        if not os.path.isfile(path):
            return b"", "not a regular file"
        with open(path, "rb") as file:
            return file.read(), ""
    except (OSError, ValueError) as error:
        return b"", error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def _data_source(view: View, name: str, context: BuildContext) -> DataSource | None:
    source = view.message(name)
    return None if source is None else build_data_source(source, context)


def build_tls_certificate(view: View, context: BuildContext) -> TlsCertificate:
    """``TlsCertificate`` in PEM; PKCS #12, OCSP staples and private key providers stay unread."""
    chain = _data_source(view, "certificate_chain", context)
    key = _data_source(view, "private_key", context)
    password = _data_source(view, "password", context)
    certificate = TlsCertificate(chain or DataSource(b""), key or DataSource(b""), password)
    if view.has("pkcs12") or view.has("private_key_provider"):
        return certificate
    for name, source in (("certificate_chain", chain), ("private_key", key)):
        if source is None or (not source.data and not source.filename):
            view.report(f"a TLS certificate needs a {name}, which is missing or empty", field=name)
    wrong = certificate_error(certificate)
    if wrong:
        view.report(wrong)
    return certificate


def build_san_matcher(view: View, context: BuildContext) -> tuple[str, StringMatcher]:
    """``SubjectAltNameMatcher``: the kind of name, and what it matches; names of other kinds (``oid``) stay unread."""
    kind = view.enum("san_type", supported=("EMAIL", "DNS", "URI", "IP_ADDRESS"))
    return kind, build_string_matcher(view.require("matcher"), context)


def build_certificate_validation(view: View, context: BuildContext) -> CertificateValidation:
    """``CertificateValidationContext``; CRLs, certificate providers and custom validators stay unread."""
    names = [("", build_string_matcher(m, context)) for m in view.repeated("match_subject_alt_names")]
    names += [build_san_matcher(typed, context) for typed in view.repeated("match_typed_subject_alt_names")]
    system_roots = view.message("system_root_certs")
    trusted_ca = _data_source(view, "trusted_ca", context)
    has_ca = trusted_ca is not None or system_roots is not None or view.has("ca_certificate_provider_instance")
    if names and not has_ca:
        view.report("verifying names in certificates without a trusted_ca is insecure and not allowed")
    if trusted_ca is not None and trusted_ca.data and not is_ca_bundle(trusted_ca.data):
        view.report("no CA certificate in PEM can be read from it", field="trusted_ca")
    if view.bool("allow_expired_certificate") and not has_ca:
        view.report("without a trusted_ca the validity period is ignored anyway", field="allow_expired_certificate")
    for text in view.strings("verify_certificate_hash"):
        if not _SHA256.match(text.replace(":", "")):
            view.report(f'"{text}" is not a hex-encoded SHA-256', field="verify_certificate_hash")
    return CertificateValidation(
        trusted_ca=trusted_ca,
        use_system_ca=system_roots is not None,
        match_subject_alt_names=tuple(names),
        verify_certificate_hash=view.strings("verify_certificate_hash"),
        verify_certificate_spki=view.strings("verify_certificate_spki"),
        allow_expired_certificate=view.bool("allow_expired_certificate"),
        trust_chain_verification=view.enum(
            "trust_chain_verification", supported=("VERIFY_TRUST_CHAIN", "ACCEPT_UNTRUSTED")
        ),
    )


def _static_secret(view: View, kind: str, context: BuildContext) -> View | None:
    """``SdsSecretConfig`` with only a name: the static secret of that name. With an ``sds_config``, which stays unread, None."""
    name = view.str("name")
    if view.has("sds_config"):
        return None  # stays unread
    secret = context.secrets.get((kind, name))
    if secret is None:
        view.report(f'unknown static secret "{name}" of kind {kind}', field="name")
        return None
    return secret.message(kind)


def _validation(view: View, context: BuildContext) -> CertificateValidation | None:
    kind = view.which("validation_context_type")
    source: View | None = None
    if kind == "validation_context":
        source = view.require("validation_context")
    elif kind == "validation_context_sds_secret_config":
        source = _static_secret(view.require("validation_context_sds_secret_config"), "validation_context", context)
    elif kind == "combined_validation_context":
        combined = view.require("combined_validation_context")
        default = build_certificate_validation(combined.require("default_validation_context"), context)
        secret = _static_secret(combined.require("validation_context_sds_secret_config"), "validation_context", context)
        return default if secret is None else _merged(default, build_certificate_validation(secret, context))
    return None if source is None else build_certificate_validation(source, context)


def _merged(default: CertificateValidation, dynamic: CertificateValidation) -> CertificateValidation:
    """Protobuf's merge of the two: what the secret sets replaces, lists grow."""
    return CertificateValidation(
        trusted_ca=dynamic.trusted_ca or default.trusted_ca,
        use_system_ca=default.use_system_ca or dynamic.use_system_ca,
        match_subject_alt_names=default.match_subject_alt_names + dynamic.match_subject_alt_names,
        verify_certificate_hash=default.verify_certificate_hash + dynamic.verify_certificate_hash,
        verify_certificate_spki=default.verify_certificate_spki + dynamic.verify_certificate_spki,
        allow_expired_certificate=default.allow_expired_certificate or dynamic.allow_expired_certificate,
        trust_chain_verification=(
            default.trust_chain_verification
            if dynamic.trust_chain_verification == "VERIFY_TRUST_CHAIN"
            else dynamic.trust_chain_verification
        ),
    )


def build_common_tls(view: View | None, context: BuildContext) -> CommonTls:
    """``CommonTlsContext``; certificate providers, custom handshakers and key logs stay unread."""
    if view is None:
        return CommonTls()
    certificates = [build_tls_certificate(certificate, context) for certificate in view.repeated("tls_certificates")]
    for reference in view.repeated("tls_certificate_sds_secret_configs"):
        secret = _static_secret(reference, "tls_certificate", context)
        if secret is not None:
            certificates.append(build_tls_certificate(secret, context))
    validation = _validation(view, context)
    alpn = view.strings("alpn_protocols")
    parameters = view.message("tls_params")
    if parameters is not None:
        _check_parameters(parameters)
    if parameters is None:
        return CommonTls(certificates=tuple(certificates), validation=validation, alpn_protocols=alpn)
    return CommonTls(
        certificates=tuple(certificates),
        validation=validation,
        alpn_protocols=alpn,
        tls_minimum_protocol_version=parameters.enum("tls_minimum_protocol_version"),
        tls_maximum_protocol_version=parameters.enum("tls_maximum_protocol_version"),
        cipher_suites=parameters.strings("cipher_suites"),
        ecdh_curves=parameters.strings("ecdh_curves"),
    )


def _is_set(view: View, name: str) -> bool:
    """Whether a field is set and is no empty list."""
    node = view.node.get(name)
    return node is not None and (node.kind != "seq" or bool(node.items))


def _check_parameters(view: View) -> None:
    for name in view.strings("cipher_suites"):
        if not is_cipher_suite(name):
            view.report(f'unknown cipher suite "{name}"', field="cipher_suites")
    for name in view.strings("ecdh_curves"):
        if not is_curve(name):
            view.report(f'unknown curve "{name}"', field="ecdh_curves")


def build_downstream_tls(view: View, context: BuildContext) -> DownstreamTlsConfig:
    """``DownstreamTlsContext``; session tickets, OCSP and ``require_sni`` stay unread."""
    common_view = view.message("common_tls_context")
    common = build_common_tls(common_view, context)
    if common_view is None or not any(_is_set(common_view, name) for name in _CERTIFICATE_SOURCES):
        view.report("a downstream TLS context needs a certificate", field="common_tls_context")
    view.only_default("require_sni", "full_scan_certs_on_sni_mismatch")
    return DownstreamTlsConfig(
        common=common,
        require_client_certificate=view.bool("require_client_certificate"),
        where=build_where(view),
    )


def build_upstream_tls(view: View, context: BuildContext) -> UpstreamTlsConfig:
    """``UpstreamTlsContext``; renegotiation stays unread."""
    view.only_default("auto_host_sni")
    view.ignore("max_session_keys", why="upstream sessions are not resumed")
    return UpstreamTlsConfig(
        common=build_common_tls(view.message("common_tls_context"), context),
        sni=view.str("sni"),
        auto_host_sni=False,
        auto_sni_san_validation=view.bool("auto_sni_san_validation"),
        where=build_where(view),
    )


def build_raw_buffer(view: View, context: BuildContext) -> None:
    """``RawBuffer``: no TLS, as without a transport socket."""
