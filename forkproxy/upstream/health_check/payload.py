"""What a checked endpoint is to answer: binary segments, each of which must be found, in order, with anything between them."""

from __future__ import annotations

from collections.abc import Sequence


def matches(expected: Sequence[bytes], received: bytes | bytearray) -> bool:
    """Are all segments there, one behind the other?"""
    position = 0
    for segment in expected:
        found = received.find(segment, position)
        if found < 0:
            return False
        position = found + len(segment)
    return True
