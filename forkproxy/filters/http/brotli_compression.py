"""Brotli (RFC 7932) for the compressor and the decompressor; needs the package ``brotli``."""

from __future__ import annotations

import brotli

from forkproxy.config.build.compression import BrotliCompression, BrotliDecompression
from forkproxy.filters.http.compression import MAX_INFLATE_RATIO, Compression, Decompression, output_limit
from forkproxy.stats.group import Counter, StatGroup


class BrotliDecompressorStats(StatGroup):
    """``http.<stat_prefix>.decompressor.<library>.brotli.decompressor_library``."""

    brotli_error: Counter
    brotli_output_overflow: Counter
    brotli_redundant_input: Counter


class BrotliCompressor:
    """One body."""

    __slots__ = ("_object",)

    def __init__(self, config: BrotliCompression) -> None:
        self._object = brotli.Compressor(
            mode=config.mode, quality=config.quality, lgwin=config.window_bits, lgblock=config.block_bits
        )

    def compress(self, data: bytes, end_stream: bool) -> bytes:
        """What ``data`` becomes."""
        made: bytes = self._object.process(data)
        rest: bytes = self._object.finish() if end_stream else self._object.flush()
        return made + rest


class BrotliDecompressor:
    """One body. Where it is no brotli, or grows too much, that is counted, and nothing more comes out.

    The library gives nothing of a piece with an error in it, or with more behind the body's end.
    """

    __slots__ = ("_config", "_failed", "_object", "_stats")

    def __init__(self, config: BrotliDecompression, stats: BrotliDecompressorStats) -> None:
        self._config = config
        self._stats = stats
        self._object = brotli.Decompressor()
        self._failed = False

    def decompress(self, data: bytes) -> bytes:
        """What ``data`` becomes."""
        unpack = self._object
        if not data or self._failed or unpack.is_finished():
            return b""
        limit = output_limit(len(data), MAX_INFLATE_RATIO, self._config.chunk_size)
        try:
            made: bytes = unpack.process(data, output_buffer_limit=limit)
        except brotli.error:
            made = b""
            self._failed = True
        if len(made) >= limit:
            made = made[:limit]
            self._failed = True
            self._stats.brotli_output_overflow += 1
        if self._failed:
            self._stats.brotli_error += 1
        return made


BROTLI = Compression(b"br", "brotli", BrotliCompressor)
UNBROTLI = Decompression(b"br", "brotli", BrotliDecompressorStats, BrotliDecompressor)
