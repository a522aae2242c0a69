"""``extensions.filters.http.compressor.v3`` and ``decompressor.v3`` → CompressorConfig, DecompressorConfig."""

from __future__ import annotations

from forkproxy.config.build.compression import (
    BrotliCompression,
    BrotliDecompression,
    GzipCompression,
    GzipDecompression,
    ZstdCompression,
    ZstdDecompression,
)
from forkproxy.config.build.context import BuildContext
from forkproxy.config.values import frozen
from forkproxy.config.view import View

DEFAULT_CONTENT_TYPES = frozenset(
    (
        *("application/ecmascript", "application/grpc-web", "application/grpc-web+proto", "application/javascript"),
        *("application/json", "application/x-javascript", "application/x-json", "application/xhtml+xml"),
        *("application/xml", "image/svg+xml", "text/css", "text/ecmascript", "text/html", "text/javascript"),
        *("text/jscript", "text/js", "text/plain", "text/x-javascript", "text/x-js", "text/xml"),
    )
)
"""What Envoy compresses when a file does not say."""
_DEFAULT_MIN_LENGTH = 30
_COMPRESSIONS = (GzipCompression, BrotliCompression, ZstdCompression)
_DECOMPRESSIONS = (GzipDecompression, BrotliDecompression, ZstdDecompression)


@frozen
class DirectionConfig:
    """``CommonDirectionConfig``: ``min_length`` is compared with content-length; ``content_types`` are lower-case."""

    enabled: bool = True
    min_length: int = _DEFAULT_MIN_LENGTH
    content_types: frozenset[str] = DEFAULT_CONTENT_TYPES


@frozen
class ResponseConfig:
    """``ResponseDirectionConfig``, or the deprecated fields; ``is_set`` tells which: Envoy names its counters by it."""

    common: DirectionConfig = DirectionConfig()
    disable_on_etag: bool = False
    remove_accept_encoding: bool = False
    uncompressible_codes: frozenset[int] = frozenset()
    shows_status: bool = False
    is_set: bool = False


@frozen
class CompressorConfig:
    """``Compressor``. ``library``: of compression.py, None when it is not implemented.

    ``request`` None: requests are not compressed. ``name`` is the library's, for the statistics.
    """

    library: object
    name: str
    request: DirectionConfig | None = None
    response: ResponseConfig = ResponseConfig()
    choose_first: bool = False


@frozen
class CompressorRouteConfig:
    """``CompressorPerRoute``; None: as the filter says."""

    enabled: bool | None = None
    remove_accept_encoding: bool | None = None
    library: object | None = None


@frozen
class DecompressorDirection:
    """``Decompressor.CommonDirectionConfig``."""

    enabled: bool = True
    ignore_no_transform: bool = False


@frozen
class DecompressorConfig:
    """``Decompressor``. ``advertises``: the upstream is told in accept-encoding that it may compress."""

    library: object
    name: str
    request: DecompressorDirection = DecompressorDirection()
    response: DecompressorDirection = DecompressorDirection()
    advertises: bool = True


def build(view: View, context: BuildContext) -> CompressorConfig:
    """``Compressor``."""
    library = view.require("compressor_library")
    made = _build_library(library, context, "compressor library", _COMPRESSIONS)
    request = view.message("request_direction_config")
    return CompressorConfig(
        library=made,
        name=library.str("name"),
        request=_build_direction(request.message("common_config"), context) if request is not None else None,
        response=_build_response(view, context),
        choose_first=view.bool("choose_first"),
    )


def _build_library(view: View, context: BuildContext, what: str, kinds: tuple[type, ...]) -> object:
    made = context.extension(view, what)
    if made is None or isinstance(made.value, kinds):
        return made.value if made is not None else None
    view.report(f"{made.type_url} is no {what}", field="typed_config")
    return None


def _build_response(view: View, context: BuildContext) -> ResponseConfig:
    response = view.message("response_direction_config")
    if response is not None:
        view.ignore(
            "content_length", "content_type", "disable_on_etag_header", "remove_accept_encoding_header", "runtime_enabled",
            why="response_direction_config says it",
        )  # fmt: skip
        return ResponseConfig(
            common=_build_direction(response.message("common_config"), context),
            disable_on_etag=response.bool("disable_on_etag_header"),
            remove_accept_encoding=response.bool("remove_accept_encoding_header"),
            uncompressible_codes=frozenset(response.uints("uncompressible_response_codes")),
            shows_status=response.bool("status_header_enabled"),
            is_set=True,
        )
    common = DirectionConfig(
        enabled=_build_feature_flag(view.message("runtime_enabled"), context),
        min_length=view.uint("content_length") or _DEFAULT_MIN_LENGTH,
        content_types=_content_types(view.strings("content_type")),
    )
    return ResponseConfig(common, view.bool("disable_on_etag_header"), view.bool("remove_accept_encoding_header"))


def _build_direction(view: View | None, context: BuildContext) -> DirectionConfig:
    if view is None:
        return DirectionConfig()
    return DirectionConfig(
        enabled=_build_feature_flag(view.message("enabled"), context),
        min_length=view.uint("min_content_length") or _DEFAULT_MIN_LENGTH,
        content_types=_content_types(view.strings("content_type")),
    )


def _content_types(said: tuple[str, ...]) -> frozenset[str]:
    return frozenset(each.lower() for each in said) if said else DEFAULT_CONTENT_TYPES


def _build_feature_flag(view: View | None, context: BuildContext) -> bool:
    """``RuntimeFeatureFlag``: a bool of a static runtime layer replaces the default; absent, it is on."""
    if view is None:
        return True
    default = view.bool("default_value", True)
    value = context.runtime_value(view.str("runtime_key"))
    return value if isinstance(value, bool) else default


def build_per_route(view: View, context: BuildContext) -> CompressorRouteConfig:
    """``CompressorPerRoute``."""
    if view.which("override") != "overrides":
        return CompressorRouteConfig(enabled=not view.bool("disabled"))
    overrides = view.require("overrides")
    response, library = overrides.message("response_direction_config"), overrides.message("compressor_library")
    made = _build_library(library, context, "compressor library", _COMPRESSIONS) if library is not None else None
    if response is None:
        return CompressorRouteConfig(library=made)
    return CompressorRouteConfig(True, response.bool("remove_accept_encoding_header", None), made)


def build_decompressor(view: View, context: BuildContext) -> DecompressorConfig:
    """``Decompressor``."""
    library = view.require("decompressor_library")
    made = _build_library(library, context, "decompressor library", _DECOMPRESSIONS)
    request, response = view.message("request_direction_config"), view.message("response_direction_config")
    return DecompressorConfig(
        library=made,
        name=library.str("name"),
        request=_build_decompressor_direction(request, context),
        response=_build_decompressor_direction(response, context),
        advertises=request is None or request.bool("advertise_accept_encoding", True),
    )


def _build_decompressor_direction(view: View | None, context: BuildContext) -> DecompressorDirection:
    common = view.message("common_config") if view is not None else None
    if common is None:
        return DecompressorDirection()
    enabled = _build_feature_flag(common.message("enabled"), context)
    return DecompressorDirection(enabled, common.bool("ignore_no_transform_header"))
