"""Compression of bodies that pass in pieces: what the compressor and decompressor filters use, a library for each encoding.

A piece that goes in comes out, as far as it can: compressors flush after each (as Envoy's do), so that nobody waits for
bytes that are here already. Nothing is kept but the library's window.
"""

from __future__ import annotations

import zlib

from forkproxy.config.build.compression import GzipCompression, GzipDecompression
from forkproxy.stats.group import Counter, StatGroup

_GZIP_FORMAT = 16  # added to the window bits: zlib, "inflateInit2"


class ZlibDecompressorStats(StatGroup):
    """``http.<stat_prefix>.decompressor.<library>.gzip.decompressor_library``."""

    zlib_buf_error: Counter
    zlib_data_error: Counter
    zlib_errno: Counter
    zlib_mem_error: Counter
    zlib_stream_error: Counter
    zlib_version_error: Counter


class GzipCompressor:
    """One body."""

    __slots__ = ("_object",)

    def __init__(self, config: GzipCompression) -> None:
        self._object = zlib.compressobj(
            config.level, zlib.DEFLATED, config.window_bits + _GZIP_FORMAT, config.memory_level, config.strategy
        )

    def compress(self, data: bytes, end_stream: bool) -> bytes:
        """What ``data`` becomes; with ``end_stream`` nothing more will come."""
        made = self._object.compress(data)
        return made + self._object.flush(zlib.Z_FINISH if end_stream else zlib.Z_SYNC_FLUSH)


class GzipDecompressor:
    """One body. Where it is no gzip, or grows too much, that is counted, and nothing more comes out."""

    __slots__ = ("_config", "_failed", "_object", "_stats")

    def __init__(self, config: GzipDecompression, stats: ZlibDecompressorStats) -> None:
        self._config = config
        self._stats = stats
        self._object = zlib.decompressobj(config.window_bits + _GZIP_FORMAT)
        self._failed = False

    def decompress(self, data: bytes) -> bytes:
        """What ``data`` becomes."""
        unzip = self._object
        if not data or unzip.eof or self._failed:
            return b""
        chunk = self._config.chunk_size
        # As Envoy, which looks after every chunk that is full.
        limit = (len(data) * self._config.max_inflate_ratio // chunk + 1) * chunk
        before = unzip.copy()
        try:
            made = unzip.decompress(data, limit)
            self._failed = len(made) >= limit
        except zlib.error:
            made = _until_error(before, data)
            self._failed = True
        if self._failed:
            self._stats.zlib_data_error += 1
        return made


def _until_error(unzip: zlib._Decompress, data: bytes) -> bytes:
    """What comes out of ``data``, in which there is an error, before it. The error is looked for by halves."""
    made = b""
    while len(data) > 1:
        half = len(data) // 2
        before = unzip.copy()
        try:
            made += unzip.decompress(data[:half])
            data = data[half:]
        except zlib.error:
            unzip = before
            data = data[:half]
    return made
