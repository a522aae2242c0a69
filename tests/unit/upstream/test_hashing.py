"""The hash functions. What real Envoy does with them is in tests/conformance/test_hashing.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkproxy.upstream.hashing import murmurhash2, xxhash64, xxhash64_seed_1


def test_xxhash64():
    # The vectors of the algorithm's specification.
    assert xxhash64(b"") == 0xEF46DB3751D8E999
    assert xxhash64(b"a") == 0xD24EC4F1A98C6E5B
    assert xxhash64_seed_1(b"") == 0xD5AFBA1336A3BE4B


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 16, 100])
def test_murmurhash2_takes_words_and_what_is_left(size):
    """Against a second writing of libstdc++'s _Hash_bytes, byte by byte."""
    data = bytes(range(200, 200 - size, -1))
    assert murmurhash2(data) == _by_the_book(data)


@given(st.binary(max_size=60))
def test_murmurhash2_by_the_book(data):
    assert murmurhash2(data) == _by_the_book(data)


def _by_the_book(data):
    word, factor = (1 << 64) - 1, (0xC6A4A793 << 32) + 0x5BD1E995
    found = 0xC70F6907 ^ (len(data) * factor) & word
    rest = list(data)
    while len(rest) >= 8:
        block = sum(byte << (8 * at) for at, byte in enumerate(rest[:8]))
        rest = rest[8:]
        mixed = (block * factor) & word
        mixed ^= mixed >> 47
        found ^= (mixed * factor) & word
        found = (found * factor) & word
    if rest:
        found ^= sum(byte << (8 * at) for at, byte in enumerate(rest))
        found = (found * factor) & word
    found ^= found >> 47
    found = (found * factor) & word
    return found ^ (found >> 47)
