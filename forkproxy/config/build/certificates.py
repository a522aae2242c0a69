"""Whether certificates, keys and the names of ciphers and curves can be used: asked of OpenSSL at load, so that a bad one
is refused in the supervisor with its place in the file, and not by every worker.
"""

from __future__ import annotations

import ssl
from functools import cache
from typing import TYPE_CHECKING

from forkproxy.config.memory_file import memory_file

if TYPE_CHECKING:
    from forkproxy.config.build.tls import TlsCertificate

_CURVES = frozenset(
    {
        "P-224",
        "P-256",
        "P-384",
        "P-521",
        "X25519",
        "X25519MLKEM768",
        "prime256v1",
        "secp256r1",
        "secp384r1",
        "secp521r1",
    }
)


def certificate_error(certificate: TlsCertificate) -> str:
    """Why OpenSSL cannot use the chain with the key; "" when it can, or when one of them is missing (said elsewhere).

    The module ssl reads certificates from files alone, so what stands inline goes through a file without a name.
    """
    if not certificate.certificate_chain.data or not certificate.private_key.data:
        return ""
    password = certificate.password.data if certificate.password is not None else b""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with memory_file(certificate.certificate_chain.data) as chain, memory_file(certificate.private_key.data) as key:
        try:
            # An empty password, too, keeps OpenSSL from asking on the terminal.
            context.load_cert_chain(chain, key, lambda: password)
        except (ssl.SSLError, OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or str(error)
            names = " and ".join(
                source.filename or "<inline>" for source in (certificate.certificate_chain, certificate.private_key)
            )
            return f"cannot use the certificate and key of {names}: {str(reason).lower().replace('_', ' ')}"
    return ""


def is_ca_bundle(data: bytes) -> bool:
    """Whether at least one certificate in PEM can be read from ``data``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=data.decode("latin-1"))
    except (ssl.SSLError, ValueError):
        # Text between the certificates need not be ASCII for a file, but must be for ``cadata``.
        with memory_file(data) as file:
            try:
                context.load_verify_locations(cafile=file)
            except (ssl.SSLError, OSError):
                return False
    return True


@cache
def is_cipher_suite(name: str) -> bool:
    """Whether every name in BoringSSL's notation (``A`` or ``[A|B]``, perhaps with a leading ``-`` or ``!``) is known."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for part in name.strip("[]").split("|"):
        try:
            context.set_ciphers(part.lstrip("-!+"))
        except ssl.SSLError:
            return False
    return True


def is_curve(name: str) -> bool:
    """Whether BoringSSL knows a curve of that name."""
    return name in _CURVES
