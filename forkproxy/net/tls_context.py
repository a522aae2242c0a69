"""TLS settings → ``ssl.SSLContext``, and the factories that make TLS connections with it.

Everything here happens in the supervisor, before fork: workers inherit the contexts, and with them one session ticket key,
so that a session resumes on any worker. What OpenSSL refuses is a ConfigError that names the file and the reason.

What Envoy does and this does too
- Versions: TLS 1.2 to 1.3 downstream, 1.2 only upstream, unless ``tls_params`` says otherwise.
- Upstream: the chain is checked when there is a ``trusted_ca``, host names only where a SAN matcher (or
  ``auto_sni_san_validation``) asks for it. Without a CA nothing is checked.
- Of the cipher suites that both know, TLS 1.2 takes the one that the server names first, TLS 1.3 the client (where there are
  certificates of several key types, only a client that names ECDSA's algorithms before RSA's).
- Several certificates: by the client's server name (exact, then wildcard), and by what key types the client knows.

What the stdlib's ssl cannot do is refused, not ignored: see ``_ciphers``, ``_set_curves`` and ``_check``.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
import ssl
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final

import re2

from forkproxy.config.build.core import StringMatcher, Where
from forkproxy.config.build.tls import (
    CertificateValidation,
    CommonTls,
    DataSource,
    DownstreamTlsConfig,
    TlsCertificate,
    UpstreamTlsConfig,
)
from forkproxy.config.memory_file import memory_file
from forkproxy.config.problems import ConfigError
from forkproxy.net.address import SocketAddress
from forkproxy.net.connection import Connection
from forkproxy.net.der import first_certificate, items, sequence
from forkproxy.net.filter import WriteFilteredConnection, WriteFilteredTlsConnection
from forkproxy.net.loop import Loop
from forkproxy.net.sockets import RawSocket
from forkproxy.net.tls import TlsConnection
from forkproxy.stats.groups import TlsStats

# Envoy's default list; [A|B] (equal preference) has no form in OpenSSL and becomes A:B, but see _chacha_is_first.
DEFAULT_CIPHERS = (
    "[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]",
    "[ECDHE-RSA-AES128-GCM-SHA256|ECDHE-RSA-CHACHA20-POLY1305]",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
)

_VERSIONS = {
    "TLSv1_0": ssl.TLSVersion.TLSv1,
    "TLSv1_1": ssl.TLSVersion.TLSv1_1,
    "TLSv1_2": ssl.TLSVersion.TLSv1_2,
    "TLSv1_3": ssl.TLSVersion.TLSv1_3,
}
_NIST_CURVES = {"P-256": "prime256v1", "P-384": "secp384r1", "P-521": "secp521r1"}
_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME, <openssl/x509_vfy.h>; the ssl module does not name it

_PRIORITIZE_CHACHA = 0x200000  # SSL_OP_PRIORITIZE_CHACHA, <openssl/ssl.h>, nor this: who names ChaCha20 first gets it

SAN_REFUSED: Final = "SAN matcher"
HASH_REFUSED: Final = "cert hash and spki"


TransportFactory = Callable[[Loop, RawSocket, SocketAddress, int], Connection]
"""``factory(loop, sock, remote_address, buffer_limit_bytes)`` makes the connection object over an accepted socket, or over
one whose connect has been started. The caller starts it: ``start()`` or ``start_connecting()``."""


# -- contexts


class DownstreamContext:
    """The context of a filter chain. The client's server name is kept on the ssl object as ``forkproxy_server_name``.

    Whose order counts, the server's or the client's, is one option to OpenSSL, for all versions of TLS and for signature
    algorithms as well as cipher suites. A connection takes the options that its context has when it begins, and the client's own
    ClientHello says which it needs.
    """

    __slots__ = ("_by_client", "_by_server", "_has_key_types", "_options", "asks", "context")

    def __init__(self, config: DownstreamTlsConfig) -> None:
        common = config.common
        where = config.where
        if not common.certificates:
            raise _error(where, "No TLS certificates found for server context")
        _check(config)
        by_name: dict[str, list[int]] = {}
        for index, certificate in enumerate(common.certificates):
            for name in _dns_names(certificate, where):
                by_name.setdefault(name, []).append(index)
        made: dict[tuple[int, ...], ssl.SSLContext] = {}

        def context_of(indices: Sequence[int]) -> ssl.SSLContext:
            # OpenSSL keeps one certificate per key type: the first of each type is the one that counts, so load in reverse.
            key = tuple(indices)
            if key not in made:
                made[key] = _downstream_context(config, [common.certificates[i] for i in reversed(key)])
            return made[key]

        everything = range(len(common.certificates))
        self.context = context = context_of(everything)
        names = {name: context_of(indices) for name, indices in by_name.items()} if len(everything) > 1 else {}
        context.sni_callback = _ServerNames(names)
        self._has_key_types = len({_key_algorithm(each) for each in common.certificates}) > 1
        self._by_client = int(context.options) & ~ssl.OP_CIPHER_SERVER_PREFERENCE
        self._by_server = self._by_client | ssl.OP_CIPHER_SERVER_PREFERENCE
        if not self._has_key_types and _chacha_is_first(common.cipher_suites or DEFAULT_CIPHERS):
            self._by_server |= _PRIORITIZE_CHACHA
        self._options = self._by_server
        context.options = ssl.Options(self._options)
        self.asks = context.maximum_version >= ssl.TLSVersion.TLSv1_3
        """Whether ``choose`` wants to be asked; else ``context`` is for every client."""

    def choose(self, hello: bytes) -> ssl.SSLContext:
        """The context, as it has to be for the connection that begins with this ClientHello, and that is made next."""
        options = self._by_server
        # With keys of two types, who names RSA's algorithms first would have RSA, at several times the price; Envoy gives ECDSA.
        if _OFFERS_TLS_13.search(hello) and (not self._has_key_types or _NAMES_ECDSA_FIRST.search(hello)):
            options = self._by_client
        if options != self._options:
            self._options = options
            self.context.options = ssl.Options(options)
        return self.context


# In a ClientHello: the extensions supported_versions (RFC 8446 section 4.2.1), with 1.3 among the first eight, and
# signature_algorithms (section 4.2.3), with ECDSA's in front. Where the same bytes stand by chance, or the hello is cut into
# several records before them, the other side's order counts.
_OFFERS_TLS_13 = re.compile(rb"\0\x2b\0[\x03-\x1f][\x02-\x1e](?:..){0,7}?\x03\x04", re.DOTALL)
_NAMES_ECDSA_FIRST = re.compile(rb"\0\x0d\0[\x04-\xff]\0[\x02-\xfd][\x04-\x06]\x03", re.DOTALL)


def _chacha_is_first(suites: Sequence[str]) -> bool:
    # OpenSSL puts ChaCha20 before everything for a client that names it first of all; that is right where nothing stands before
    # the groups that it belongs to.
    are_groups_with_it = [each.startswith("[") and "CHACHA20" in each for each in suites]
    return any(are_groups_with_it) and are_groups_with_it == sorted(are_groups_with_it, reverse=True)


def _key_algorithm(certificate: TlsCertificate) -> bytes:
    # The object identifier of its key's algorithm; b"" where it cannot be read.
    try:
        key = subject_public_key_info(first_certificate(certificate.certificate_chain.data))
        _, algorithm = next(items(sequence(sequence(key))))
    except (ValueError, IndexError):
        return b""
    return algorithm


class _ServerNames:
    # The sni_callback: keeps the name and chooses the certificate.
    __slots__ = ("_contexts",)

    def __init__(self, contexts: dict[str, ssl.SSLContext]) -> None:
        self._contexts = contexts

    def __call__(self, tls: Any, name: str | None, _context: ssl.SSLContext) -> None:
        name = name.lower() if name else ""
        tls.forkproxy_server_name = name
        if name and self._contexts:
            chosen = self._contexts.get(name) or self._contexts.get("*." + name.partition(".")[2])
            if chosen is not None:
                tls.context = chosen


def _downstream_context(config: DownstreamTlsConfig, certificates: Sequence[TlsCertificate]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _apply_common(context, config.common, certificates, config.where, ssl.TLSVersion.TLSv1_3)
    validation = config.common.validation
    if config.require_client_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
    elif validation is not None and (validation.trusted_ca is not None or validation.use_system_ca):
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def upstream_context(config: UpstreamTlsConfig) -> ssl.SSLContext:
    """The context of a cluster. Host names are not checked here: see ``peer_verifier``."""
    _check(config)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    validation = config.common.validation
    if validation is not None and (validation.trusted_ca is not None or validation.use_system_ca):
        context.verify_mode = ssl.CERT_REQUIRED
    _apply_common(context, config.common, config.common.certificates, config.where, ssl.TLSVersion.TLSv1_2)
    return context


def _check(config: DownstreamTlsConfig | UpstreamTlsConfig) -> None:
    where = config.where
    validation = config.common.validation
    trusts = validation is not None and (validation.trusted_ca is not None or validation.use_system_ca)
    if validation is not None and validation.trust_chain_verification != "VERIFY_TRUST_CHAIN":
        raise _error(where, "trust_chain_verification ACCEPT_UNTRUSTED is not implemented")
    if isinstance(config, DownstreamTlsConfig) and not trusts:
        if validation is not None and (validation.verify_certificate_hash or validation.verify_certificate_spki):
            raise _error(where, "verify_certificate_hash and verify_certificate_spki of clients need a trusted_ca here")
        if config.require_client_certificate:
            raise _error(
                where,
                "require_client_certificate without a trusted_ca is not implemented",
                "Envoy would accept any certificate",
            )
    if isinstance(config, UpstreamTlsConfig) and config.sni:
        try:
            _try_server_name(config.sni)
        except (ValueError, ssl.SSLError) as error:
            raise _error(where, f'sni "{config.sni}" is not a server name: {error}') from None
    if isinstance(config, UpstreamTlsConfig) and config.auto_sni_san_validation and not trusts:
        raise _error(where, "'auto_sni_san_validation' was configured without configuring a validation context")


def _try_server_name(name: str) -> None:
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=name)


def _apply_common(
    context: ssl.SSLContext,
    common: CommonTls,
    certificates: Sequence[TlsCertificate],
    where: Where,
    default_maximum: ssl.TLSVersion,
) -> None:
    context.options |= ssl.OP_NO_RENEGOTIATION
    _set_versions(context, common, where, default_maximum)
    _set_ciphers(context, common.cipher_suites or DEFAULT_CIPHERS, where)
    _set_curves(context, common.ecdh_curves, where)
    if common.alpn_protocols:
        try:
            context.set_alpn_protocols(list(common.alpn_protocols))
        except (ssl.SSLError, UnicodeError) as error:
            raise _error(where, f"alpn_protocols: {error}") from None
    for certificate in certificates:
        _load_certificate(context, certificate, where)
    if common.validation is not None:
        _load_authorities(context, common.validation, where)


def _set_versions(context: ssl.SSLContext, common: CommonTls, where: Where, default_maximum: ssl.TLSVersion) -> None:
    minimum = _VERSIONS.get(common.tls_minimum_protocol_version, ssl.TLSVersion.TLSv1_2)
    maximum = _VERSIONS.get(common.tls_maximum_protocol_version, max(default_maximum, minimum))
    if minimum > maximum:
        raise _error(where, "tls_minimum_protocol_version is above tls_maximum_protocol_version")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 1.0 and 1.1: the configuration asks for them
        context.minimum_version = minimum
        context.maximum_version = maximum


def _set_ciphers(context: ssl.SSLContext, suites: Sequence[str], where: Where) -> None:
    # The names are OpenSSL's in both; BoringSSL's [A|B] becomes A:B.
    names: list[str] = []
    for suite in suites:
        names += re.split(r"[|:]", suite.strip("[]")) if suite.startswith("[") else suite.split(":")
    legacy = ("@SECLEVEL=0",) if context.minimum_version < ssl.TLSVersion.TLSv1_2 else ()
    try:
        context.set_ciphers(":".join((*names, *legacy)))
        rejected = [name for name in names if name and name[0] not in "!-+@" and not _knows_cipher(name)]
    except ssl.SSLError:
        rejected = [name for name in names if not _knows_cipher(name)]
    if rejected:
        raise _error(
            where,
            f"Failed to initialize cipher suites {':'.join(suites)}. The following ciphers were rejected when tried "
            f"individually: {', '.join(rejected)}",
        )


def _knows_cipher(name: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).set_ciphers(name + ":@SECLEVEL=0")
    except ssl.SSLError:
        return False
    return True


def _set_curves(context: ssl.SSLContext, curves: Sequence[str], where: Where) -> None:
    # The stdlib sets one NIST curve or leaves OpenSSL's list, whose first two are X25519 and P-256.
    if not curves or {"X25519", "P-256"} <= set(curves) <= {"X25519", *_NIST_CURVES}:
        return
    if len(curves) == 1 and curves[0] in _NIST_CURVES:
        context.set_ecdh_curve(_NIST_CURVES[curves[0]])
        return
    raise _error(
        where,
        f"ecdh_curves {':'.join(curves)} cannot be set",
        "one of P-256, P-384 and P-521, or a list with X25519 and P-256",
    )


def _load_certificate(context: ssl.SSLContext, certificate: TlsCertificate, where: Where) -> None:
    password = certificate.password.data if certificate.password is not None else b""
    try:
        with memory_file(certificate.certificate_chain.data) as chain, memory_file(certificate.private_key.data) as key:
            # Always a password: without one OpenSSL would ask the terminal.
            context.load_cert_chain(chain, key, password)
    except (OSError, ValueError) as error:
        chain_is_good = _decoded(certificate.certificate_chain) is not None
        blamed = certificate.private_key if chain_is_good else certificate.certificate_chain
        what = "private key" if chain_is_good else "certificate chain"
        raise _error(where, f"Failed to load {what} from {_source(blamed)}: {_why(error)}") from None


def _load_authorities(context: ssl.SSLContext, validation: CertificateValidation, where: Where) -> None:
    if validation.use_system_ca:
        context.load_default_certs()
    if validation.trusted_ca is not None:
        try:
            with memory_file(validation.trusted_ca.data) as path:
                context.load_verify_locations(path)
        except (OSError, ValueError) as error:
            source = _source(validation.trusted_ca)
            raise _error(where, f"Failed to load trusted CA certificates from {source}: {_why(error)}") from None
    if validation.allow_expired_certificate:
        context.verify_flags = ssl.VerifyFlags(context.verify_flags | _NO_CHECK_TIME)


def _decoded(source: DataSource) -> dict[str, Any] | None:
    # The first certificate of a PEM file in the form of getpeercert(); None when there is none.
    decode: Callable[[str], dict[str, Any]] = ssl._ssl._test_decode_cert  # type: ignore[attr-defined]
    try:
        with memory_file(source.data) as path:
            return decode(path)
    except (OSError, ValueError):
        return None


def _dns_names(certificate: TlsCertificate, where: Where) -> set[str]:
    decoded = _decoded(certificate.certificate_chain)
    if decoded is None:
        source = _source(certificate.certificate_chain)
        raise _error(where, f"Failed to load certificate chain from {source}: no certificate in PEM form")
    names = {value.lower() for kind, value in decoded.get("subjectAltName", ()) if kind == "DNS"}
    if not names:  # as Envoy: the common name counts when there is no DNS name
        names = {value.lower() for rdn in decoded.get("subject", ()) for kind, value in rdn if kind == "commonName"}
    return names


def _source(source: DataSource) -> str:
    return source.filename or "<inline>"


def _why(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return str(reason) if reason else str(error)


def _error(where: Where, message: str, hint: str = "") -> ConfigError:
    return ConfigError(where.path, where.line, where.column, message, hint)


# -- verification beyond the chain


def peer_verifier(validation: CertificateValidation | None, sni: str = "") -> Callable[[Any], str] | None:
    """What to ask of a peer after the chain is found good; None when nothing. ``sni``: a name or IP that a SAN must match.

    The callable returns "" or why the peer is refused, in Envoy's words.
    """
    names = validation.match_subject_alt_names if validation is not None else ()
    hashes = validation.verify_certificate_hash if validation is not None else ()
    keys = validation.verify_certificate_spki if validation is not None else ()
    if not (names or hashes or keys or sni):
        return None
    matchers = [san_test(kind, matcher) for kind, matcher in names]
    if sni:
        matchers = [_host_matcher(sni)]
    wanted = {bytes.fromhex(each.replace(":", "")) for each in hashes}
    wanted_keys = {base64.b64decode(each) for each in keys}

    def verify(tls: Any) -> str:
        der = tls.getpeercert(True)
        if der is None:
            return ""  # whether a certificate is required is OpenSSL's question
        if matchers:
            sans = tls.getpeercert().get("subjectAltName", ())
            if not any(matches(kind, value) for matches in matchers for kind, value in sans):
                return f"{SAN_REFUSED}, certificate SANs are [{', '.join(value for _, value in sans)}]"
        # One of the two lists is enough, as in Envoy.
        if (wanted or wanted_keys) and not (
            hashlib.sha256(der).digest() in wanted
            or hashlib.sha256(subject_public_key_info(der)).digest() in wanted_keys
        ):
            return HASH_REFUSED
        return ""

    return verify


def _host_matcher(host: str) -> Callable[[str, str], bool]:
    try:
        wanted = ipaddress.ip_address(host)
    except ValueError:
        return san_test("DNS", StringMatcher("exact", host))
    # OpenSSL writes IPv6 addresses in full.
    return lambda kind, value: kind == "IP Address" and ipaddress.ip_address(value.strip()) == wanted


_SAN_KINDS = {"DNS": "DNS", "URI": "URI", "EMAIL": "email", "IP_ADDRESS": "IP Address"}


def san_test(kind: str, matcher: StringMatcher) -> Callable[[str, str], bool]:
    """A ``SubjectAltNameMatcher`` as a test of one name of a certificate: OpenSSL's kind, and the name."""
    only = _SAN_KINDS.get(kind)
    matches = _string_matcher(matcher)
    exact = matcher.value.lower() if matcher.kind == "exact" else ""

    def matches_san(san_kind: str, value: str) -> bool:
        if only is not None and san_kind != only:
            return False
        if san_kind == "DNS" and exact:
            # A wildcard in the certificate stands for one label (RFC 6125 section 6.4.3).
            value = value.lower()
            return value == exact or (value.startswith("*.") and value[2:] == exact.partition(".")[2])
        return matches(value)

    return matches_san


def _string_matcher(matcher: StringMatcher) -> Callable[[str], bool]:
    if matcher.kind == "safe_regex":
        fullmatch = re2.compile(matcher.value).fullmatch
        return lambda value: fullmatch(value) is not None
    wanted = matcher.value.lower() if matcher.ignore_case else matcher.value
    test: Callable[[str], bool] = {
        "exact": wanted.__eq__,
        "prefix": lambda value: value.startswith(wanted),
        "suffix": lambda value: value.endswith(wanted),
        "contains": lambda value: wanted in value,
    }[matcher.kind]
    return (lambda value: test(value.lower())) if matcher.ignore_case else test


def subject_public_key_info(der: bytes) -> bytes:
    """The DER of a certificate's SubjectPublicKeyInfo (RFC 5280 section 4.1): the field that verify_certificate_spki hashes."""
    _, at, _ = _element(der, 0)  # Certificate
    _, at, _ = _element(der, at)  # TBSCertificate
    tag, _, end = _element(der, at)
    if tag == 0xA0:  # version
        at = end
    for _ in range(5):  # serial number, signature, issuer, validity, subject
        _, _, at = _element(der, at)
    _, _, end = _element(der, at)
    return der[at:end]


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    # (tag, where the content begins, where it ends)
    tag, length = der[at], der[at + 1]
    at += 2
    if length & 0x80:
        size = length & 0x7F
        length = int.from_bytes(der[at : at + size])
        at += size
    return tag, at, at + length


# -- transports


def downstream_transport(
    config: DownstreamTlsConfig | None, stats: TlsStats | None = None, *, write_filters: bool = False
) -> TransportFactory:
    """Connections of a filter chain: raw when ``config`` is None. ``write_filters``: ``NetworkFilterChain.has_write_filters``.

    ConfigError when OpenSSL refuses the settings. ``stats``: ``listener.<address>.ssl``.
    """
    if config is None:
        return WriteFilteredConnection if write_filters else Connection
    make = WriteFilteredTlsConnection if write_filters else TlsConnection
    made = DownstreamContext(config)
    context = made.context
    choose = made.choose if made.asks else None
    verify = peer_verifier(config.common.validation)

    def transport(loop: Loop, sock: RawSocket, remote_address: SocketAddress, limit: int) -> Connection:
        connection = make(
            loop, sock, remote_address, context, server_side=True, verify_peer=verify, buffer_limit_bytes=limit
        )
        connection.choose_context = choose
        if stats is not None:
            connection.on_handshake = _HandshakeCounts(stats, connection)
        return connection

    return transport


def upstream_transport(config: UpstreamTlsConfig | None, stats: TlsStats | None = None) -> TransportFactory:
    """Connections of a cluster: raw when ``config`` is None. ``stats``: ``cluster.<name>.ssl``. Errors as above."""
    if config is None:
        return Connection
    verify = peer_verifier(config.common.validation, config.sni if config.auto_sni_san_validation else "")
    return _tls_upstream(upstream_context(config), config.sni, verify, stats)


def host_transports(
    config: UpstreamTlsConfig | None, stats: TlsStats | None = None
) -> Callable[[str], TransportFactory]:
    """As ``upstream_transport``, for a cluster whose endpoints are hosts that requests name: the transport to a host.

    The host is the SNI, save an IP literal (RFC 6066 section 3); where certificates are verified, its certificate must be for it.
    """
    if config is None:
        return lambda _host: Connection
    context = upstream_context(config)
    validation = config.common.validation

    def to(host: str) -> TransportFactory:
        verify = peer_verifier(validation, host if context.verify_mode != ssl.CERT_NONE else "")
        return _tls_upstream(context, _server_name(host), verify, stats)

    return to


def _server_name(host: str) -> str:
    try:
        ipaddress.ip_address(host)
        return ""
    except ValueError:
        pass
    try:
        _try_server_name(host)
    except (ValueError, ssl.SSLError):
        return ""  # no certificate is for such a name: where one is verified, it is refused
    return host


def _tls_upstream(
    context: ssl.SSLContext, sni: str, verify: Callable[[Any], str] | None, stats: TlsStats | None
) -> TransportFactory:
    def transport(loop: Loop, sock: RawSocket, remote_address: SocketAddress, limit: int) -> Connection:
        connection = TlsConnection(
            loop,
            sock,
            remote_address,
            context,
            server_side=False,
            sni=sni,
            verify_peer=verify,
            buffer_limit_bytes=limit,
        )
        if stats is not None:
            connection.on_handshake = _HandshakeCounts(stats, connection)
        return connection

    return transport


class _HandshakeCounts:
    # on_handshake of one connection.
    __slots__ = ("_connection", "_stats")

    def __init__(self, stats: TlsStats, connection: TlsConnection) -> None:
        self._stats = stats
        self._connection = connection

    def __call__(self, reason: str) -> None:
        stats = self._stats
        connection = self._connection
        connection.on_handshake = None  # breaks the cycle
        if not reason:
            tls = connection.tls
            stats.handshake += 1
            if tls.session_reused:
                stats.session_reused += 1
            if tls.getpeercert(True) is None:
                stats.no_certificate += 1
            for labels, name in ((stats.versions, tls.version()), (stats.ciphers, tls.cipher()[0])):
                labels[name] += 1
        elif SAN_REFUSED in reason:
            stats.fail_verify_san += 1
        elif HASH_REFUSED in reason:
            stats.fail_verify_cert_hash += 1
        elif "PEER_DID_NOT_RETURN_A_CERTIFICATE" in reason:
            stats.fail_verify_no_cert += 1
        elif "CERTIFICATE_VERIFY_FAILED" in reason:
            stats.fail_verify_error += 1
        else:
            stats.connection_error += 1
