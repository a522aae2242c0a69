"""Compression of bodies that pass in pieces: what the compressor and decompressor filters use, a library for each encoding.

A piece that goes in comes out, as far as it can: compressors flush after each (as Envoy's do), so that nobody waits for
bytes that are here already. Nothing is kept but the library's window.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from forkproxy.config.build.compression import (
    BrotliCompression,
    BrotliDecompression,
    GzipCompression,
    GzipDecompression,
    ZstdCompression,
    ZstdDecompression,
)
from forkproxy.config.problems import ConfigError
from forkproxy.filters.context import FilterContext
from forkproxy.stats.group import Counter, StatGroup

_GZIP_FORMAT = 16  # added to the window bits: zlib, "inflateInit2"


MAX_INFLATE_RATIO = 100
"""How many times as long a piece may become where a file cannot say."""


class BodyCompressor(Protocol):
    """What compresses one body."""

    def compress(self, data: bytes, end_stream: bool) -> bytes:
        """What ``data`` becomes; with ``end_stream`` nothing more will come."""


class BodyDecompressor(Protocol):
    """What decompresses one body."""

    def decompress(self, data: bytes) -> bytes:
        """What ``data`` becomes; never more than is allowed."""


class Compression(NamedTuple):
    """A library that compresses: its content-coding, its name in statistics, and what makes a BodyCompressor."""

    encoding: bytes
    name: str
    body: Callable[[Any], BodyCompressor]


class Decompression(NamedTuple):
    """A library that decompresses; ``body`` is called with the configuration and a group of ``stats``."""

    encoding: bytes
    name: str
    stats: type[StatGroup]
    body: Callable[[Any, Any], BodyDecompressor]


_LIBRARIES: dict[type, str] = {
    GzipCompression: "forkproxy.filters.http.compression:GZIP",
    GzipDecompression: "forkproxy.filters.http.compression:GUNZIP",
    BrotliCompression: "forkproxy.filters.http.brotli_compression:BROTLI",
    BrotliDecompression: "forkproxy.filters.http.brotli_compression:UNBROTLI",
    ZstdCompression: "forkproxy.filters.http.zstd_compression:ZSTD",
    ZstdDecompression: "forkproxy.filters.http.zstd_compression:UNZSTD",
}


def library(config: object, context: FilterContext) -> Any:
    """The Compression or Decompression for a configuration; ConfigError when its package is not installed."""
    where = context.where
    target = _LIBRARIES.get(type(config))
    if target is None:  # the file's problem is waived, but there is nothing to go on with
        message = f'the library of "{context.name}" is not implemented'
        raise ConfigError(where.path, where.line, where.column, message)
    module, _, name = target.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        message = f'"{context.name}" needs a package that is not installed: {error}'
        raise ConfigError(where.path, where.line, where.column, message, "pip install forkproxy[compression]") from None


def output_limit(size: int, ratio: int, chunk: int) -> int:
    """How much may come out of ``size`` bytes. As Envoy, which looks after every chunk that is full."""
    return (size * ratio // chunk + 1) * chunk


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
        limit = output_limit(len(data), self._config.max_inflate_ratio, self._config.chunk_size)
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


GZIP = Compression(b"gzip", "gzip", GzipCompressor)
GUNZIP = Decompression(b"gzip", "gzip", ZlibDecompressorStats, GzipDecompressor)
