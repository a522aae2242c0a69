"""Certificates read from their DER, as far as the module ssl does not tell what they say (RFC 5280 section 4.1).

OpenSSL has accepted them when the configuration was loaded, so nothing is judged here. ValueError or IndexError: it is none.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator

PEM = re.compile(rb"-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----(.+?)-----END ", re.DOTALL)

INTEGER = 0x02
VERSION = 0xA0
DNS_NAME = 0x82
URI = 0x86
IP_ADDRESS = 0x87
_OCTET_STRING = 0x04
_SEQUENCE = 0x30
_EXTENSIONS = 0xA3
_SUBJECT_ALT_NAME = bytes((0x55, 0x1D, 0x11))  # 2.5.29.17


def first_certificate(chain: bytes) -> bytes:
    """The first certificate of a PEM chain; b"" when there is none."""
    found = PEM.search(chain)
    return base64.b64decode(found[1]) if found is not None else b""


def uris(chain: bytes) -> tuple[str, ...]:
    """The URIs among the subject alternative names of the first certificate of a PEM chain; () when it cannot be read."""
    try:
        fields = items(sequence(sequence(first_certificate(chain))))
        return tuple([name.decode("latin-1") for tag, name in alternative_names(fields) if tag == URI])
    except (ValueError, IndexError, binascii.Error):
        return ()


def alternative_names(fields: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """(kind, name) of the subject alternative names; ``fields``: what the part of a certificate that is signed consists of."""
    for tag, wrapped in fields:
        if tag != _EXTENSIONS:
            continue
        for _tag, extension in items(sequence(wrapped)):
            parts = list(items(extension))
            if parts[0][1] == _SUBJECT_ALT_NAME and parts[-1][0] == _OCTET_STRING:
                yield from items(sequence(parts[-1][1]))


def sequence(data: bytes) -> bytes:
    """The content of the sequence that ``data`` begins with."""
    for tag, content in items(data):
        if tag == _SEQUENCE:
            return content
        break
    raise ValueError("not a sequence")


def items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, content) of each DER element. Tags above 30 do not occur here."""
    position = 0
    while position < len(data):
        tag, length = data[position], data[position + 1]
        position += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(data[position : position + size], "big")
            position += size
        if position + length > len(data):
            raise ValueError("not DER")
        yield tag, data[position : position + length]
        position += length
