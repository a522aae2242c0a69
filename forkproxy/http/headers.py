"""Header lists: ``list[tuple[bytes, bytes]]`` in wire order, names lower-case.

Plain loops on purpose: a request has 5 to 20 headers, and a loop over a list beats every mapping at that size.
"""

from __future__ import annotations

Headers = list[tuple[bytes, bytes]]


def get(headers: Headers, name: bytes) -> bytes | None:
    """The first value of ``name`` (lower-case), or None."""
    for header in headers:
        if header[0] == name:
            return header[1]
    return None


def get_all(headers: Headers, name: bytes) -> list[bytes]:
    """All values of ``name``, in order."""
    return [value for key, value in headers if key == name]


def set_(headers: Headers, name: bytes, value: bytes) -> None:
    """Replace the first value of ``name`` where it stands and drop the others; append when there is none."""
    found = False
    index = 0
    while index < len(headers):
        if headers[index][0] == name:
            if found:
                del headers[index]
                continue
            headers[index] = (name, value)
            found = True
        index += 1
    if not found:
        headers.append((name, value))


def add(headers: Headers, name: bytes, value: bytes) -> None:
    """Append, whatever is there already."""
    headers.append((name, value))


def remove(headers: Headers, name: bytes) -> bool:
    """Drop every value of ``name``; True when there was one."""
    before = len(headers)
    headers[:] = [header for header in headers if header[0] != name]
    return len(headers) != before


def has_token(value: bytes, token: bytes) -> bool:
    """Is ``token`` (lower-case) in the comma-separated list ``value``, case-insensitively? (RFC 9110 section 5.6.1)"""
    value = value.lower()
    return value == token or token in [part.strip(b" \t") for part in value.split(b",")]


def proper_case(name: bytes) -> bytes:
    """``x-request-id`` → ``X-Request-Id`` (Envoy: HeaderKeyFormat.proper_case_words)."""
    return b"-".join([word[:1].upper() + word[1:] for word in name.split(b"-")])
