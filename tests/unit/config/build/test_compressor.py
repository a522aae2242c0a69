"""``Compressor``, ``Decompressor`` and their gzip library."""

import pytest

from forkproxy.config.build import compression, compressor
from forkproxy.config.build.compression import (
    BrotliCompression,
    BrotliDecompression,
    GzipCompression,
    GzipDecompression,
    ZstdCompression,
    ZstdDecompression,
)
from forkproxy.config.build.compressor import CompressorRouteConfig, DecompressorDirection, DirectionConfig
from forkproxy.config.build.context import BuildContext
from tests.unit.config.build.building import built, value_of

FILTER = "envoy.extensions.filters.http.{}.v3.{}"
LIBRARY = 'typed_config: {"@type": type.googleapis.com/envoy.extensions.compression.%s.v3.%s}}'
GZIP = "compressor_library: {name: zip, " + LIBRARY % ("gzip.compressor", "Gzip")
UNZIP = "decompressor_library: {name: zip, " + LIBRARY % ("gzip.decompressor", "Gzip")


def value(text, context=None):
    return value_of(compressor.build, FILTER.format("compressor", "Compressor"), f"{{{GZIP}{text}}}", context)


def test_defaults():
    made = value("")
    assert (made.library, made.name, made.request, made.choose_first) == (GzipCompression(), "zip", None, False)
    assert (made.response.common, made.response.is_set) == (DirectionConfig(True, 30), False)
    assert value(", request_direction_config: {}").request == DirectionConfig()
    assert value(", response_direction_config: {}").response.is_set


def test_a_runtime_layer_switches_a_direction():
    text = ", response_direction_config: {common_config: {enabled: {default_value: true, runtime_key: k}}}"
    assert [value(text, BuildContext(runtime=r)).response.common.enabled for r in ({}, {"k": False}, {"k": "x"})] == [
        *(True, False, True)
    ]


def test_content_types_have_no_case():
    text = ", response_direction_config: {common_config: {content_type: [Text/HTML], min_content_length: 0}}"
    common = value(text).response.common
    assert (common.content_types, common.min_length) == ({"text/html"}, 30)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("disabled: true", CompressorRouteConfig(False)),
        ("overrides: {}", CompressorRouteConfig()),
        ("overrides: {response_direction_config: {}}", CompressorRouteConfig(True)),
        (
            "overrides: {response_direction_config: {remove_accept_encoding_header: false}}",
            CompressorRouteConfig(True, False),
        ),
    ],
)
def test_routes(text, expected):
    assert (
        value_of(compressor.build_per_route, FILTER.format("compressor", "CompressorPerRoute"), f"{{{text}}}")
        == expected
    )


@pytest.mark.parametrize(
    ("level", "number"), [("DEFAULT_COMPRESSION", -1), ("BEST_SPEED", 1), ("COMPRESSION_LEVEL_7", 7)]
)
def test_gzip(level, number):
    text = f"{{compression_level: {level}, compression_strategy: HUFFMAN_ONLY, memory_level: 1, window_bits: 9}}"
    name = "envoy.extensions.compression.gzip.compressor.v3.Gzip"
    assert value_of(compression.build_gzip_compressor, name, text) == GzipCompression(number, 2, 1, 9)


def test_libraries_that_are_not_there():
    name = FILTER.format("compressor", "Compressor")
    outcome = built(
        compressor.build,
        name,
        f"{{{GZIP.replace('compression.gzip.compressor', 'filters.http.lua').replace('Gzip', 'Lua')}}}",
    )
    assert outcome.value.library is None
    assert [each for each in outcome.unsupported if 'the compressor library "zip"' in each]
    outcome = built(compressor.build, name, f"{{{GZIP.replace('gzip.compressor', 'gzip.decompressor')}}}")
    assert outcome.value.library is None
    assert "is no compressor library" in outcome.errors[0]


@pytest.mark.parametrize(
    ("build", "message", "text", "expected"),
    [
        ("brotli_compressor", "Brotli", "{}", BrotliCompression()),
        (
            "brotli_compressor",
            "Brotli",
            "{quality: 11, encoder_mode: FONT, window_bits: 10, input_block_bits: 16}",
            BrotliCompression(11, 2, 10, 16),
        ),
        ("brotli_decompressor", "Brotli", "{disable_ring_buffer_reallocation: true}", BrotliDecompression()),
        (
            "zstd_compressor",
            "Zstd",
            "{compression_level: 9, enable_checksum: true, strategy: BTULTRA2}",
            ZstdCompression(9, True, 9),
        ),
        ("zstd_decompressor", "Zstd", "{chunk_size: 8192}", ZstdDecompression()),
    ],
)
def test_other_libraries(build, message, text, expected):
    name = f"envoy.extensions.compression.{message.lower()}.{build.partition('_')[2]}.v3.{message}"
    assert value_of(getattr(compression, f"build_{build}"), name, text) == expected


def test_decompressor():
    name = FILTER.format("decompressor", "Decompressor")
    made = value_of(compressor.build_decompressor, name, f"{{{UNZIP}}}")
    assert (made.library, made.advertises, made.request) == (GzipDecompression(), True, DecompressorDirection())
    text = f"""{{{UNZIP}, request_direction_config: {{advertise_accept_encoding: false}}, response_direction_config:
        {{common_config: {{ignore_no_transform_header: true, enabled: {{default_value: false, runtime_key: k}}}}}}}}"""
    made = value_of(compressor.build_decompressor, name, text)
    assert (made.advertises, made.response) == (False, DecompressorDirection(False, True))
