"""What command operators say about a connection's TLS: ``tls`` is the connection's ``ssl.SSLObject``, or None on raw
TCP.

Every function returns None for "nothing to tell", which a log writes as "-". Names are written as RFC 2253 has them:
the last part of the name first.
"""

from __future__ import annotations

import hashlib
import ssl
import urllib.parse
from collections.abc import Callable
from typing import Any

from forkproxy.access_log.time_format import compile_time

_SHORT_NAMES = {
    "commonName": "CN",
    "countryName": "C",
    "stateOrProvinceName": "ST",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "domainComponent": "DC",
    "userId": "UID",
}
_SPECIAL = frozenset(',+"\\<>;')

Read = Callable[[Any], "bytes | None"]


def version(tls: Any) -> bytes | None:
    """ "TLSv1.3"."""
    name = tls.version() if tls is not None else None
    return name.encode() if name else None


def cipher(tls: Any) -> bytes | None:
    """OpenSSL's name of the cipher suite."""
    suite = tls.cipher() if tls is not None else None
    return suite[0].encode() if suite else None


def session_id(tls: Any) -> bytes | None:
    """The session's id in hexadecimal."""
    session = tls.session if tls is not None else None
    return session.id.hex().encode() if session is not None and session.id else None


def _certificate(tls: Any) -> dict[str, Any]:
    found = tls.getpeercert() if tls is not None else None
    return found or {}


def _der(tls: Any) -> bytes | None:
    return tls.getpeercert(True) if tls is not None else None


def _escape(value: str) -> str:
    escaped = "".join("\\" + character if character in _SPECIAL else character for character in value)
    return "\\" + escaped if escaped.startswith((" ", "#")) else escaped


def _name(field: str) -> Read:
    def read(tls: Any) -> bytes | None:
        parts = [
            "+".join(f"{_SHORT_NAMES.get(key, key)}={_escape(value)}" for key, value in relative)
            for relative in _certificate(tls).get(field, ())
        ]
        return ",".join(reversed(parts)).encode() or None

    return read


def _alternative_names(kind: str) -> Read:
    def read(tls: Any) -> bytes | None:
        names = [value for key, value in _certificate(tls).get("subjectAltName", ()) if key == kind]
        return ",".join(names).encode() or None

    return read


def _serial(tls: Any) -> bytes | None:
    return _certificate(tls).get("serialNumber", "").lower().encode() or None


def _fingerprint(algorithm: str) -> Read:
    def read(tls: Any) -> bytes | None:
        der = _der(tls)
        return hashlib.new(algorithm, der).hexdigest().encode() if der else None

    return read


def _pem(tls: Any) -> bytes | None:
    der = _der(tls)
    return urllib.parse.quote(ssl.DER_cert_to_PEM_cert(der), safe="").encode() if der else None


def validity(field: str, text: str) -> Read:
    """``notBefore`` or ``notAfter`` of the peer's certificate, by a time format."""
    render = compile_time(text)

    def read(tls: Any) -> bytes | None:
        moment = _certificate(tls).get(field)
        return render(ssl.cert_time_to_seconds(moment)) if moment else None

    return read


CONNECTION: dict[str, Read] = {"TLS_VERSION": version, "TLS_CIPHER": cipher, "TLS_SESSION_ID": session_id}
"""Operator names without DOWNSTREAM_ or UPSTREAM_."""

PEER: dict[str, Read] = {
    "PEER_SUBJECT": _name("subject"),
    "PEER_ISSUER": _name("issuer"),
    "PEER_CERT": _pem,
}
"""The same, about the peer's certificate; for both sides."""

DOWNSTREAM_PEER: dict[str, Read] = {
    "PEER_SERIAL": _serial,
    "PEER_FINGERPRINT_256": _fingerprint("sha256"),
    "PEER_FINGERPRINT_1": _fingerprint("sha1"),
    "PEER_URI_SAN": _alternative_names("URI"),
    "PEER_DNS_SAN": _alternative_names("DNS"),
    "PEER_IP_SAN": _alternative_names("IP Address"),
    "PEER_EMAIL_SAN": _alternative_names("email"),
}
"""The same, which Envoy has for downstream only."""
