"""What a certificate says, read from its DER: ``ssl`` tells it of verified peers only, and not all of it (RFC 5280).

Names are written as RFC 2253 has them: the last part first, everything but printable ASCII escaped.
"""

from __future__ import annotations

import hashlib
import ipaddress
from calendar import timegm
from functools import lru_cache

from forkproxy.net.der import items

_NAMES = {
    "2.5.4.3": "CN",
    "2.5.4.4": "SN",
    "2.5.4.5": "serialNumber",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.9": "street",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.12": "title",
    "2.5.4.13": "description",
    "2.5.4.17": "postalCode",
    "2.5.4.41": "name",
    "2.5.4.42": "GN",
    "2.5.4.43": "initials",
    "2.5.4.46": "dnQualifier",
    "0.9.2342.19200300.100.1.1": "UID",
    "0.9.2342.19200300.100.1.25": "DC",
    "1.2.840.113549.1.9.1": "emailAddress",
}
_SPECIAL = frozenset(',+"\\<>;')
_SUBJECT_ALT_NAME = "2.5.29.17"
_BMP_STRING, _UNIVERSAL_STRING, _T61_STRING = 0x1E, 0x1C, 0x14
_STRINGS = frozenset((0x0C, 0x12, 0x13, 0x16, 0x1A, _BMP_STRING, _UNIVERSAL_STRING, _T61_STRING))
_GENERAL_NAMES = {0x81: "email", 0x82: "DNS", 0x86: "URI"}


def _identifier(data: bytes) -> str:
    numbers, value = [], 0
    for byte in data:
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            numbers.append(value)
            value = 0
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, (first, numbers[0] - first * 40, *numbers[1:])))


def _text(tag: int, data: bytes) -> str:
    if tag == _BMP_STRING:
        return data.decode("utf-16-be", "replace")
    if tag == _UNIVERSAL_STRING:
        return data.decode("utf-32-be", "replace")
    return data.decode("latin-1" if tag == _T61_STRING else "utf-8", "surrogateescape")


def escaped(text: str) -> str:
    """A value in a name."""
    found = "".join(
        "\\" + character
        if character in _SPECIAL
        else character
        if " " <= character <= "~"
        else "".join([f"\\{byte:02X}" for byte in character.encode("utf-8", "surrogateescape")])
        for character in text
    )
    if found.startswith((" ", "#")):
        found = "\\" + found
    return found[:-1] + "\\ " if found.endswith(" ") and len(text) > 1 else found


def _name(data: bytes) -> str:
    relatives = []
    for _, relative in items(data):
        parts = []
        for _, attribute in items(relative):
            (_, key), (tag, value) = list(items(attribute))[:2]
            identifier = _identifier(key)
            written = escaped(_text(tag, value)) if identifier in _NAMES and tag in _STRINGS else "#" + value.hex()
            parts.append(f"{_NAMES.get(identifier, identifier)}={written}")
        relatives.append("+".join(parts))
    return ",".join(reversed(relatives))


def _moment(tag: int, data: bytes) -> int:
    text = data.decode()
    if tag == 0x17:  # UTCTime: years of two digits
        text = ("19" if text[:2] >= "50" else "20") + text
    return timegm((int(text[:4]), *(int(text[at : at + 2]) for at in range(4, 14, 2)), 0, 0, 0))


class Certificate:
    """Fields of an X.509 certificate. ``not_before`` and ``not_after`` are seconds since the epoch."""

    __slots__ = ("_names", "der", "issuer", "not_after", "not_before", "serial", "subject")

    def __init__(self, der: bytes) -> None:
        self.der = der
        self._names: list[tuple[str, str]] = []
        (_, certificate), *_ = items(der)
        (_, body), *_ = items(certificate)
        parts = list(items(body))
        if parts[0][0] == 0xA0:  # the version
            del parts[0]
        self.serial = f"{int.from_bytes(parts[0][1], 'big'):x}"
        self.issuer = _name(parts[2][1])
        self.not_before, self.not_after = [_moment(*each) for each in items(parts[3][1])]
        self.subject = _name(parts[4][1])
        for tag, extensions in parts[6:]:
            if tag == 0xA3:
                for _, row in items(extensions):
                    self._read_extensions(row)

    def _read_extensions(self, row: bytes) -> None:
        for _, extension in items(row):
            parts = list(items(extension))
            if _identifier(parts[0][1]) == _SUBJECT_ALT_NAME:
                for _, names in items(parts[-1][1]):
                    self._names += [self._general_name(*each) for each in items(names)]

    @staticmethod
    def _general_name(tag: int, data: bytes) -> tuple[str, str]:
        if tag in _GENERAL_NAMES:
            return _GENERAL_NAMES[tag], data.decode("latin-1")
        if tag == 0x87 and len(data) in (4, 16):
            return "IP", str(ipaddress.ip_address(data))
        if tag == 0xA0:
            _, (_, wrapped) = list(items(data))[:2]
            for inner, value in items(wrapped):
                return "OTHERNAME", _text(inner, value)
        return "", ""

    def alternative_names(self, kind: str) -> str:
        """Those of ``kind`` ("DNS", "URI", "IP", "email", "OTHERNAME"), with commas between them."""
        return ",".join([name for key, name in self._names if key == kind])

    def fingerprint(self, algorithm: str) -> str:
        """Its hash, in hexadecimal."""
        return hashlib.new(algorithm, self.der).hexdigest()


@lru_cache(maxsize=256)
def read(der: bytes) -> Certificate | None:
    """The certificate, or None for what is none. Connections of one peer bring the same again and again."""
    try:
        return Certificate(der)
    except (IndexError, ValueError):
        return None
