"""``extensions.compression.*.v3``: the libraries that the compressor and decompressor filters name."""

from __future__ import annotations

from dataclasses import dataclass

from forkproxy.config.build.context import BuildContext
from forkproxy.config.view import View

_GZIP_LEVELS = {"DEFAULT_COMPRESSION": -1, "BEST_SPEED": 1, "BEST_COMPRESSION": 9}
_LEVEL_NAME = "COMPRESSION_LEVEL_"
_GZIP_STRATEGIES = {"DEFAULT_STRATEGY": 0, "FILTERED": 1, "HUFFMAN_ONLY": 2, "RLE": 3, "FIXED": 4}


@dataclass(frozen=True, slots=True)
class GzipCompression:
    """``gzip.compressor.v3.Gzip``, with zlib's own numbers for level (-1: its default) and strategy."""

    level: int = -1
    strategy: int = 0
    memory_level: int = 5
    window_bits: int = 12


@dataclass(frozen=True, slots=True)
class GzipDecompression:
    """``gzip.decompressor.v3.Gzip``. A piece may become ``max_inflate_ratio`` times as long, give or take ``chunk_size``."""

    window_bits: int = 12
    chunk_size: int = 4096
    max_inflate_ratio: int = 100


def build_gzip_compressor(view: View, context: BuildContext) -> GzipCompression:
    """``gzip.compressor.v3.Gzip``."""
    view.ignore("chunk_size", why="zlib's output is taken in one piece")
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
