"""The hash functions of Envoy's consistent hashing: xxHash64 (seed 0) and MurmurHash64A as libstdc++ has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import xxhash

HashFunction = Callable[[bytes], int]

_WORD: Final = (1 << 64) - 1
_MURMUR_FACTOR: Final = 0xC6A4A7935BD1E995
_MURMUR_SEED: Final = 0xC70F6907
"""``std::_Hash_bytes``' own, which Envoy takes over."""

xxhash64: HashFunction = xxhash.xxh64_intdigest


def xxhash64_seed_1(data: bytes) -> int:
    """The second, independent hash that maglev needs."""
    return xxhash.xxh64_intdigest(data, 1)


def murmurhash2(data: bytes) -> int:
    """MurmurHash64A with libstdc++'s seed."""
    size = len(data)
    found = _MURMUR_SEED ^ (size * _MURMUR_FACTOR & _WORD)
    whole = size & ~7
    for at in range(0, whole, 8):
        word = int.from_bytes(data[at : at + 8], "little") * _MURMUR_FACTOR & _WORD
        word = (word ^ word >> 47) * _MURMUR_FACTOR & _WORD
        found = (found ^ word) * _MURMUR_FACTOR & _WORD
    if whole != size:
        found = (found ^ int.from_bytes(data[whole:], "little")) * _MURMUR_FACTOR & _WORD
    found = (found ^ found >> 47) * _MURMUR_FACTOR & _WORD
    return found ^ found >> 47


FUNCTIONS: Final[dict[str, HashFunction]] = {"XX_HASH": xxhash64, "MURMUR_HASH_2": murmurhash2}
