"""Zstandard (RFC 8878) for the compressor and the decompressor; needs the package ``backports.zstd`` before Python 3.14."""

from __future__ import annotations

import importlib
import sys

from forkproxy.config.build.compression import ZstdCompression, ZstdDecompression
from forkproxy.filters.http.compression import MAX_INFLATE_RATIO, Compression, Decompression
from forkproxy.stats.group import Counter, StatGroup

zstd = importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")


_BLOCK = 128 * 1024


class ZstdDecompressorStats(StatGroup):
    """``http.<stat_prefix>.decompressor.<library>.zstd.decompressor_library``."""

    zstd_checksum_wrong_error: Counter
    zstd_dictionary_error: Counter
    zstd_generic_error: Counter
    zstd_memory_error: Counter


class ZstdCompressor:
    """One body."""

    __slots__ = ("_object",)

    def __init__(self, config: ZstdCompression) -> None:
        parameter = zstd.CompressionParameter
        options = {parameter.compression_level: config.level, parameter.checksum_flag: int(config.checksum)}
        if config.strategy:
            options[parameter.strategy] = config.strategy
        self._object = zstd.ZstdCompressor(options=options)

    def compress(self, data: bytes, end_stream: bool) -> bytes:
        """What ``data`` becomes."""
        compressor = self._object
        made: bytes = compressor.compress(data, compressor.FLUSH_FRAME if end_stream else compressor.FLUSH_BLOCK)
        return made


class ZstdDecompressor:
    """One body. Where it is no zstd, or grows too much, that is counted, and nothing more comes out.

    Envoy lets zstd grow without a bound. Here a body may become 100 times as long, and a block longer: a block comes out as a
    whole, with the last byte of it.
    """

    __slots__ = ("_failed", "_object", "_room", "_stats")

    def __init__(self, config: ZstdDecompression, stats: ZstdDecompressorStats) -> None:
        self._stats = stats
        self._object = zstd.ZstdDecompressor()
        self._failed = False
        self._room = _BLOCK

    def decompress(self, data: bytes) -> bytes:
        """What ``data`` becomes. A body may be several frames, one after the other."""
        self._room += len(data) * MAX_INFLATE_RATIO
        made = b""
        while data and not self._failed:
            if self._object.eof:
                self._object = zstd.ZstdDecompressor()
            try:
                made += self._object.decompress(data, self._room - len(made))
            except zstd.ZstdError as error:
                self._count(str(error))
            data = self._object.unused_data if self._object.eof else b""
            if len(made) >= self._room:
                self._count("too much")
        self._room -= len(made)
        return made

    def _count(self, error: str) -> None:
        self._failed = True
        if "checksum" in error:
            self._stats.zstd_checksum_wrong_error += 1
        elif "ictionary" in error:
            self._stats.zstd_dictionary_error += 1
        else:
            self._stats.zstd_generic_error += 1


ZSTD = Compression(b"zstd", "zstd", ZstdCompressor)
UNZSTD = Decompression(b"zstd", "zstd", ZstdDecompressorStats, ZstdDecompressor)
