"""``extensions.compression.*.v3``: the libraries that the compressor and decompressor filters name."""

from __future__ import annotations

from forkproxy.config.build.context import BuildContext
from forkproxy.config.values import frozen
from forkproxy.config.view import View

_GZIP_LEVELS = {"DEFAULT_COMPRESSION": -1, "BEST_SPEED": 1, "BEST_COMPRESSION": 9}
_LEVEL_NAME = "COMPRESSION_LEVEL_"
_BROTLI_MODES = {"DEFAULT": 0, "GENERIC": 0, "TEXT": 1, "FONT": 2}
_ZSTD_STRATEGIES = ["DEFAULT", "FAST", "DFAST", "GREEDY", "LAZY", "LAZY2", "BTLAZY2", "BTOPT", "BTULTRA", "BTULTRA2"]
_CHUNK = "the library's output is taken in one piece"
_GZIP_STRATEGIES = {"DEFAULT_STRATEGY": 0, "FILTERED": 1, "HUFFMAN_ONLY": 2, "RLE": 3, "FIXED": 4}


@frozen
class GzipCompression:
    """``gzip.compressor.v3.Gzip``, with zlib's own numbers for level (-1: its default) and strategy."""

    level: int = -1
    strategy: int = 0
    memory_level: int = 5
    window_bits: int = 12


@frozen
class GzipDecompression:
    """``gzip.decompressor.v3.Gzip``. A piece may become ``max_inflate_ratio`` times as long, give or take ``chunk_size``."""

    window_bits: int = 12
    chunk_size: int = 4096
    max_inflate_ratio: int = 100


@frozen
class BrotliCompression:
    """``brotli.compressor.v3.Brotli``, with the library's own number for the mode."""

    quality: int = 3
    mode: int = 0
    window_bits: int = 18
    block_bits: int = 24


@frozen
class BrotliDecompression:
    """``brotli.decompressor.v3.Brotli``."""

    chunk_size: int = 4096


@frozen
class ZstdCompression:
    """``zstd.compressor.v3.Zstd``, with the library's own number for the strategy (0: its default)."""

    level: int = 3
    checksum: bool = False
    strategy: int = 0


@frozen
class ZstdDecompression:
    """``zstd.decompressor.v3.Zstd``: it has nothing that counts here."""


def build_gzip_compressor(view: View, context: BuildContext) -> GzipCompression:
    """``gzip.compressor.v3.Gzip``."""
    view.ignore("chunk_size", why=_CHUNK)
    level = view.enum("compression_level")
    return GzipCompression(
        level=_GZIP_LEVELS[level] if level in _GZIP_LEVELS else int(level.removeprefix(_LEVEL_NAME)),
        strategy=_GZIP_STRATEGIES[view.enum("compression_strategy")],
        memory_level=view.uint("memory_level", 5),
        window_bits=view.uint("window_bits", 12),
    )


def build_gzip_decompressor(view: View, context: BuildContext) -> GzipDecompression:
    """``gzip.decompressor.v3.Gzip``."""
    return GzipDecompression(
        window_bits=view.uint("window_bits", 12),
        chunk_size=view.uint("chunk_size", 4096),
        max_inflate_ratio=view.uint("max_inflate_ratio", 100),
    )


def build_brotli_compressor(view: View, context: BuildContext) -> BrotliCompression:
    """``brotli.compressor.v3.Brotli``; ``disable_literal_context_modeling`` stays unread."""
    view.ignore("chunk_size", why=_CHUNK)
    return BrotliCompression(
        quality=view.uint("quality", 3),
        mode=_BROTLI_MODES[view.enum("encoder_mode")],
        window_bits=view.uint("window_bits", 18),
        block_bits=view.uint("input_block_bits", 24),
    )


def build_brotli_decompressor(view: View, context: BuildContext) -> BrotliDecompression:
    """``brotli.decompressor.v3.Brotli``."""
    view.ignore("disable_ring_buffer_reallocation", why="the library decides how its memory grows")
    return BrotliDecompression(view.uint("chunk_size", 4096))


def build_zstd_compressor(view: View, context: BuildContext) -> ZstdCompression:
    """``zstd.compressor.v3.Zstd``; dictionaries stay unread."""
    view.ignore("chunk_size", why=_CHUNK)
    strategy = _ZSTD_STRATEGIES.index(view.enum("strategy"))
    return ZstdCompression(view.uint("compression_level", 3), view.bool("enable_checksum"), strategy)


def build_zstd_decompressor(view: View, context: BuildContext) -> ZstdDecompression:
    """``zstd.decompressor.v3.Zstd``; dictionaries stay unread."""
    view.ignore("chunk_size", why=_CHUNK)
    return ZstdDecompression()
