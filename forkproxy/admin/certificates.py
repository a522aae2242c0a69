"""What /certs tells about the certificates in a configuration: read from their DER, since the module ssl does not tell it.

Only the fields that Envoy shows: serial number, validity, subject alternative names (RFC 5280 section 4.1). OpenSSL has
accepted these certificates when the configuration was loaded, so this reader does not judge them; what it cannot
follow it leaves out.
"""

from __future__ import annotations

import binascii
import ipaddress
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from forkproxy.admin.context import CertificatesView, CertificateView
from forkproxy.config.build.cluster import ClusterConfig
from forkproxy.config.build.listener import ListenerConfig
from forkproxy.config.build.tls import CommonTls, DataSource
from forkproxy.net.der import (
    DNS_NAME,
    INTEGER,
    IP_ADDRESS,
    URI,
    VERSION,
    alternative_names,
    first_certificate,
    items,
    sequence,
)

_UTC_TIME = 0x17


def certificates_of(listeners: Iterable[ListenerConfig], clusters: Iterable[ClusterConfig]) -> list[CertificatesView]:
    """One view per TLS context that has certificates or authorities, listeners first."""
    contexts: list[CommonTls] = []
    for listener in listeners:
        chains = (*listener.filter_chains, *((listener.default_filter_chain,) if listener.default_filter_chain else ()))
        contexts += [chain.tls.common for chain in chains if chain.tls is not None]
    contexts += [cluster.tls.common for cluster in clusters if cluster.tls is not None]
    views: list[CertificatesView] = []
    for common in contexts:
        trusted = common.validation.trusted_ca if common.validation else None
        authorities = tuple(_first_of((trusted,) if trusted else ()))
        chain = tuple(_first_of(certificate.certificate_chain for certificate in common.certificates))
        if authorities or chain:
            views.append(CertificatesView(authorities, chain))
    return views


def _first_of(sources: Iterable[DataSource]) -> Iterator[CertificateView]:
    """The first certificate in each source: of a chain that is the one presented, of a bundle what Envoy shows of it."""
    for source in sources:
        try:
            yield read_certificate(first_certificate(source.data), source.filename)
        except (ValueError, IndexError, binascii.Error):
            continue


def read_certificate(der: bytes, path: str) -> CertificateView:
    """Read one certificate. ValueError or IndexError when it is none."""
    to_be_signed = sequence(sequence(der))
    fields = [item for item in items(to_be_signed) if item[0] != VERSION]
    serial, _algorithm, _issuer, validity = fields[:4]
    if serial[0] != INTEGER:
        raise ValueError("no serial number")
    valid_from, expiration = (_time(tag, text) for tag, text in items(validity[1]))
    names: dict[int, list[bytes]] = {DNS_NAME: [], URI: [], IP_ADDRESS: []}
    for tag, value in alternative_names(fields):
        if tag in names:
            names[tag].append(value)
    return CertificateView(
        path=path,
        serial_number=serial[1].hex().removeprefix("00") if len(serial[1]) > 1 else serial[1].hex(),
        dns_names=tuple(name.decode("latin-1") for name in names[DNS_NAME]),
        uris=tuple(name.decode("latin-1") for name in names[URI]),
        ip_addresses=tuple(str(ipaddress.ip_address(packed)) for packed in names[IP_ADDRESS]),
        valid_from=valid_from,
        expiration_time=expiration,
    )


def _time(tag: int, text: bytes) -> datetime:
    if tag == _UTC_TIME:  # two-digit years: RFC 5280 section 4.1.2.5.1
        century = b"19" if text >= b"50" else b"20"
        text = century + text
    return datetime.strptime(text.decode("ascii"), "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
