"""gzip in pieces: nothing waits, nothing grows beyond its bound, and what is broken is cut off where it breaks."""

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkproxy.config.build.compression import GzipCompression, GzipDecompression
from forkproxy.filters.http.compression import GzipCompressor, GzipDecompressor, ZlibDecompressorStats

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
