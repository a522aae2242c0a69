"""What command operators say about a connection's TLS: ``tls`` is the connection's ``ssl.SSLObject``, or None on raw
TCP.

Every function returns None for "nothing to tell", which a log writes as "-".
"""

from __future__ import annotations

import ssl
import urllib.parse
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from forkproxy.access_log import certificate
from forkproxy.access_log.certificate import Certificate
from forkproxy.access_log.time_format import compile_time

Read = Callable[[Any], "bytes | None"]

_DER = 2
"""``ssl._ssl.ENCODING_DER``."""


def version(tls: Any) -> bytes | None:
    """ "TLSv1.3"."""
    name = tls.version() if tls is not None else None
    return name.encode() if name else None


def cipher(tls: Any) -> bytes | None:
    """OpenSSL's name of the cipher suite."""
    suite = tls.cipher() if tls is not None else None
    return suite[0].encode() if suite else None


def session_id(tls: Any) -> bytes | None:
    """The session's id in hexadecimal. TLS 1.3 has none: what OpenSSL makes up there would say nothing."""
    # No version yet: the handshake is not done, or has failed.
    session = tls.session if tls is not None and tls.version() not in (None, "TLSv1.3") else None
    return session.id.hex().encode() if session is not None and session.id else None


def server_name(tls: Any) -> bytes | None:
    """The name that was asked for, of an upstream connection."""
    name = tls.server_hostname if tls is not None else None
    return name.encode() if name else None


def _peer(tls: Any) -> Certificate | None:
    # No version as above: of a certificate that it refuses OpenSSL tells nothing, and the module ssl raises.
    der = tls.getpeercert(True) if tls is not None and tls.version() is not None else None
    return certificate.read(der) if der else None


def _chain(tls: Any) -> list[Certificate]:
    """What the peer has sent, its own certificate first."""
    if tls is None:
        return []
    if hasattr(tls, "get_unverified_chain"):  # Python 3.13
        ders = tls.get_unverified_chain() or ()
    else:
        ders = [each.public_bytes(_DER) for each in tls._sslobj.get_unverified_chain() or ()]
    return [found for der in ders if (found := certificate.read(der)) is not None]


def _of_peer(tell: Callable[[Certificate], str]) -> Read:
    def read(tls: Any) -> bytes | None:
        peer = _peer(tls)
        return tell(peer).encode("utf-8", "surrogateescape") or None if peer is not None else None

    return read


def _of_chain(tell: Callable[[Certificate], str]) -> Read:
    return lambda tls: ",".join([tell(each) for each in _chain(tls)]).encode() or None


def _of_issuer(tell: Callable[[Certificate], str]) -> Read:
    def read(tls: Any) -> bytes | None:
        chain = _chain(tls)
        return tell(chain[1]).encode() if len(chain) > 1 else None

    return read


def _alternative_names(kind: str) -> Read:
    return _of_peer(lambda peer: peer.alternative_names(kind))


@lru_cache(maxsize=256)
def _pem(der: bytes) -> str:
    return urllib.parse.quote(ssl.DER_cert_to_PEM_cert(der), safe="")


def validity(field: str, text: str) -> Read:
    """``not_before`` or ``not_after`` of the peer's certificate, by a time format."""
    render = compile_time(text)

    def read(tls: Any) -> bytes | None:
        peer = _peer(tls)
        return render(getattr(peer, field)) if peer is not None else None

    return read


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


def verified_subject(tls: Any) -> bytes | None:
    """The subject of a peer whose certificate was verified, for those who grant something to it."""
    parts = [
        "+".join(f"{_SHORT_NAMES.get(key, key)}={certificate.escaped(value)}" for key, value in relative)
        for relative in (tls.getpeercert() or {}).get("subject", ())
    ]
    return ",".join(reversed(parts)).encode() or None


CONNECTION: dict[str, Read] = {"TLS_VERSION": version, "TLS_CIPHER": cipher, "TLS_SESSION_ID": session_id}
"""Operator names without DOWNSTREAM_ or UPSTREAM_."""

PEER: dict[str, Read] = {
    "PEER_SUBJECT": _of_peer(lambda peer: peer.subject),
    "PEER_ISSUER": _of_peer(lambda peer: peer.issuer),
    "PEER_CERT": _of_peer(lambda peer: _pem(peer.der)),
    "PEER_URI_SAN": _alternative_names("URI"),
    "PEER_DNS_SAN": _alternative_names("DNS"),
    "PEER_IP_SAN": _alternative_names("IP"),
}
"""The same, about the peer's certificate; for both sides."""

DOWNSTREAM_PEER: dict[str, Read] = {
    "PEER_SERIAL": _of_peer(lambda peer: peer.serial),
    "PEER_FINGERPRINT_256": _of_peer(lambda peer: peer.fingerprint("sha256")),
    "PEER_FINGERPRINT_1": _of_peer(lambda peer: peer.fingerprint("sha1")),
    "PEER_EMAIL_SAN": _alternative_names("email"),
    "PEER_OTHERNAME_SAN": _alternative_names("OTHERNAME"),
    "PEER_CHAIN_FINGERPRINTS_256": _of_chain(lambda each: each.fingerprint("sha256")),
    "PEER_CHAIN_FINGERPRINTS_1": _of_chain(lambda each: each.fingerprint("sha1")),
    "PEER_CHAIN_SERIALS": _of_chain(lambda each: each.serial),
    "PEER_ISSUER_FINGERPRINT_256": _of_issuer(lambda issuer: issuer.fingerprint("sha256")),
    "PEER_ISSUER_SERIAL": _of_issuer(lambda issuer: issuer.serial),
}
"""The same, which Envoy has for downstream only."""
