"""x-forwarded-client-cert: what the next hop is told about the client's certificate (Envoy: "x-forwarded-client-cert").

One element per proxy, its parts in the order By, Hash, Cert, Chain, Subject, URI, DNS. It is made once per connection.
"""

from __future__ import annotations

import hashlib
import ssl
import urllib.parse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from forkproxy.http.headers import get_all, remove
from forkproxy.http.headers import set_ as set_header

if TYPE_CHECKING:
    from forkproxy.http.stream import Stream

_NAME: Final = b"x-forwarded-client-cert"
_PEM: Final = 1
"""``_ssl.ENCODING_PEM``."""


class ForwardClientCert:
    """What a connection manager does about the header; ``mode`` is Envoy's word.

    ``own_uris``: of this listener's certificate. ``subject_of``: the subject of a connection's peer, as RFC 2253 has it.
    """

    __slots__ = ("_own", "_parts", "_subject_of", "mode", "tells")

    def __init__(
        self,
        mode: str,
        own_uris: Sequence[str] = (),
        *,
        cert: bool = False,
        chain: bool = False,
        subject: bool = False,
        uri: bool = False,
        dns: bool = False,
        subject_of: Callable[[Any], bytes | None] = lambda _tls: None,
    ) -> None:
        self.mode = mode
        self.tells = mode in ("APPEND_FORWARD", "SANITIZE_SET")
        """Else nothing is to be done about requests without the header."""
        self._own = [b"By=" + each.encode("latin-1") for each in own_uris]
        self._subject_of = subject_of
        parts = ((cert, _cert), (chain, _chain), (subject, self._subject), (uri, _uris), (dns, _dns_names))
        self._parts: list[Callable[[Any], list[bytes]]] = [make for wanted, make in parts if wanted]

    def __call__(self, stream: Stream) -> None:
        """Set or drop the header of a request."""
        if self.mode == "ALWAYS_FORWARD_ONLY":
            self._join(stream)
            return
        connection = stream.connection
        tls = getattr(connection, "tls", None)
        der = tls.getpeercert(True) if tls is not None else None
        if not der:
            remove(stream.request_headers, _NAME)
        elif self.mode == "FORWARD_ONLY":
            self._join(stream)
        else:
            element = connection.filter_state.get(self)
            if element is None:
                element = connection.filter_state[self] = self._describe(tls, der)
            before = get_all(stream.request_headers, _NAME) if self.mode == "APPEND_FORWARD" else []
            set_header(stream.request_headers, _NAME, b",".join([*before, element]))

    def _join(self, stream: Stream) -> None:
        values = get_all(stream.request_headers, _NAME)
        if len(values) > 1:
            set_header(stream.request_headers, _NAME, b",".join(values))

    def _describe(self, tls: Any, der: bytes) -> bytes:
        parts = [*self._own, b"Hash=" + hashlib.sha256(der).hexdigest().encode()]
        for make in self._parts:
            parts += make(tls)
        return b";".join(parts)

    def _subject(self, tls: Any) -> list[bytes]:
        return [b'Subject="%b"' % (self._subject_of(tls) or b"")]


def _cert(tls: Any) -> list[bytes]:
    return [b'Cert="%b"' % _quoted(ssl.DER_cert_to_PEM_cert(tls.getpeercert(True)))]


def _chain(tls: Any) -> list[bytes]:
    # As the client has sent it, its own certificate first. Public from Python 3.13 on.
    sent = tls._sslobj.get_unverified_chain() or ()
    return [b'Chain="%b"' % _quoted("".join([each.public_bytes(_PEM) for each in sent]))]


def _quoted(pem: str) -> bytes:
    return urllib.parse.quote(pem, safe="").encode()


def _names(tls: Any, kind: str) -> list[bytes]:
    return [value.encode("latin-1") for key, value in tls.getpeercert().get("subjectAltName", ()) if key == kind]


def _uris(tls: Any) -> list[bytes]:
    return [b"URI=" + each for each in _names(tls, "URI")] or [b"URI="]


def _dns_names(tls: Any) -> list[bytes]:
    return [b"DNS=" + each for each in _names(tls, "DNS")]
