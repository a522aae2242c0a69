"""gzip in pieces: nothing waits, nothing grows beyond its bound, and what is broken is cut off where it breaks."""

import gzip
import sys
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkproxy.config.build.compression import (
    BrotliCompression,
    BrotliDecompression,
    GzipCompression,
    GzipDecompression,
    ZstdCompression,
    ZstdDecompression,
)
from forkproxy.config.problems import ConfigError
from forkproxy.filters.http.brotli_compression import BROTLI, UNBROTLI
from forkproxy.filters.http.compression import GzipCompressor, GzipDecompressor, ZlibDecompressorStats, library
from forkproxy.filters.http.zstd_compression import UNZSTD, ZSTD
from forkproxy.stats.counters import Registry
from tests.support.playbook import WHERE, filter_context

TEXT = b" ".join(b"%d" % (number * 7919 % 10_007) for number in range(3000))


def packed(data, window_bits=12):
    compress = zlib.compressobj(9, zlib.DEFLATED, window_bits + 16)
    return compress.compress(data) + compress.flush()


def decompressor(**fields):
    stats = ZlibDecompressorStats()
    return GzipDecompressor(GzipDecompression(**fields), stats), stats


@given(st.lists(st.binary(max_size=2000), max_size=8))
def test_every_piece_comes_out_at_once(pieces):
    compressor = GzipCompressor(GzipCompression())
    unzip = zlib.decompressobj(28)
    for piece in pieces:
        if piece:
            assert unzip.decompress(compressor.compress(piece, False)) == piece
    assert unzip.decompress(compressor.compress(b"", True)) == b""
    assert unzip.eof


@pytest.mark.parametrize("config", [GzipCompression(), GzipCompression(9, 2, 9, 15), GzipCompression(1, 4, 1, 9)])
def test_settings(config):
    assert gzip.decompress(GzipCompressor(config).compress(TEXT, True)) == TEXT


@given(st.integers(1, 4000))
def test_a_body_may_come_in_pieces_of_any_size(size):
    d, stats = decompressor()
    data = packed(TEXT)
    assert b"".join(d.decompress(data[at : at + size]) for at in range(0, len(data), size)) == TEXT
    assert stats.zlib_data_error == 0


@pytest.mark.parametrize(("ratio", "chunk", "made"), [(2, 4096, 4096), (100, 4096, 102_400), (1, 16384, 16_384)])
def test_a_bomb_is_bounded(ratio, chunk, made):
    bomb = packed(b"\0" * 1_000_000)
    assert len(bomb) == 1003
    d, stats = decompressor(max_inflate_ratio=ratio, chunk_size=chunk)
    assert len(d.decompress(bomb)) == made
    assert stats.zlib_data_error == 1
    assert d.decompress(bomb) == b""
    assert stats.zlib_data_error == 1


def test_what_comes_before_an_error_comes_out():
    d, stats = decompressor()
    data = packed(TEXT)
    assert d.decompress(data[:-8] + b"\xff" * 8) == TEXT
    assert stats.zlib_data_error == 1
    d, stats = decompressor()
    assert (d.decompress(b"no gzip"), d.decompress(data), stats.zlib_data_error) == (b"", b"", 1)


def test_what_stands_behind_the_end_is_dropped():
    d, stats = decompressor()
    assert d.decompress(packed(TEXT) + b"more") == TEXT
    assert d.decompress(b"more") == b""
    assert stats.zlib_data_error == 0


OTHERS = [
    (BROTLI, UNBROTLI, BrotliCompression(), BrotliDecompression()),
    (ZSTD, UNZSTD, ZstdCompression(checksum=True, strategy=4), ZstdDecompression()),
]


@pytest.mark.parametrize(("packs", "unpacks", "config", "unconfig"), OTHERS)
@pytest.mark.parametrize("size", [1, 700, 100_000])
def test_other_libraries_pass_every_piece_on(packs, unpacks, config, unconfig, size):
    compressor, stats = packs.body(config), unpacks.stats()
    d = unpacks.body(unconfig, stats)
    for at in range(0, len(TEXT), 5000):
        piece = TEXT[at : at + 5000]
        assert d.decompress(compressor.compress(piece, False)) == piece
    assert d.decompress(compressor.compress(b"", True)) == b""
    data = packs.body(config).compress(TEXT, True)
    d = unpacks.body(unconfig, stats)
    assert b"".join(d.decompress(data[at : at + size]) for at in range(0, len(data), size)) == TEXT
    assert set(vars_of(stats)) == {0}


@pytest.mark.parametrize(("packs", "unpacks", "config", "unconfig"), OTHERS)
def test_other_libraries_are_bounded_and_count_errors(packs, unpacks, config, unconfig):
    bomb = packs.body(config).compress(b"\0" * 10_000_000, True)
    for data, most in ((bomb, len(bomb) * 100 + 131_072), (b"nothing of that kind", 0)):
        stats = unpacks.stats()
        d = unpacks.body(unconfig, stats)
        assert len(d.decompress(data)) <= most
        assert d.decompress(data) == b""
        assert max(vars_of(stats)) == 1


def vars_of(stats):
    return [getattr(stats, name) for name in type(stats).layout.figures]


def test_zstd_knows_frames_and_checksums():
    data = ZSTD.body(ZstdCompression(checksum=True)).compress(TEXT, True)
    stats = UNZSTD.stats()
    assert UNZSTD.body(ZstdDecompression(), stats).decompress(data + data) == TEXT + TEXT
    UNZSTD.body(ZstdDecompression(), stats).decompress(data[:-1] + b"!")
    assert stats.zstd_checksum_wrong_error == 1


def test_a_package_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "brotli", None)
    monkeypatch.delitem(sys.modules, "forkproxy.filters.http.brotli_compression", raising=False)
    context = filter_context(Registry(), where=WHERE)
    with pytest.raises(ConfigError, match=r"needs a package that is not installed: .*brotli"):
        library(BrotliCompression(), context)
    with pytest.raises(ConfigError, match="is not implemented"):
        library(None, context)
