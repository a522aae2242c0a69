"""Compresses responses for those who accept it, and requests where that is asked for (Envoy: "Compressor").

    - name: envoy.filters.http.compressor
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.http.compressor.v3.Compressor
        response_direction_config:
          common_config: {min_content_length: 100, content_type: [text/html, application/json]}
        compressor_library:
          name: gzip  # or brotli.compressor.v3.Brotli, zstd.compressor.v3.Zstd
          typed_config: {"@type": type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip}

Of several compressors in a chain accept-encoding chooses one (RFC 9110 section 12.5.3): the highest q-value, among equals
the first that is named, or the one with ``choose_first``. Compressing takes the worker's time: 1 ms for 64 KiB of text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from forkproxy.config.build.compressor import CompressorConfig, CompressorRouteConfig, DirectionConfig
from forkproxy.filters.context import FilterContext
from forkproxy.filters.http.compression import BodyCompressor, Compression, library
from forkproxy.http.filter import DataResult, HookResult, HttpFilter
from forkproxy.http.headers import Headers, get_all, remove
from forkproxy.http.headers import get as get_header
from forkproxy.http.headers import set_ as set_header
from forkproxy.http.stream import Stream
from forkproxy.router.table import Route
from forkproxy.stats.group import Counter, StatGroup

_IDENTITY = b"identity"
_ANY = b"*"
_NOT_VALID = "not valid"
_TOO_SMALL = b"ContentLengthTooSmall"
_ACCEPT_ENCODING = b"Accept-Encoding"
"""As Envoy writes it in ``vary``, and looks for it there: in this case only."""
_COMPRESSORS = "compressors"
_DECISION = "compressor's encoding"


class CompressorStats(StatGroup):
    """``http.<stat_prefix>.compressor.<library>.gzip.request`` and ``.response``."""

    compressed: Counter
    content_length_too_small: Counter
    not_compressed: Counter
    total_compressed_bytes: Counter
    total_uncompressed_bytes: Counter


class CompressorResponseStats(StatGroup):
    """``http.<stat_prefix>.compressor.<library>.gzip``: what accept-encoding came to."""

    header_compressor_overshadowed: Counter
    header_compressor_used: Counter
    header_identity: Counter
    header_not_valid: Counter
    header_wildcard: Counter
    no_accept_header: Counter
    not_compressed_etag: Counter


class Decision(NamedTuple):
    """The encoding for one response, and what the header that led to it was: an encoding, or one of the constants above."""

    encoding: bytes
    by: bytes | str


class Library(NamedTuple):
    """A compression library and its configuration."""

    compression: Compression
    config: object

    def body(self) -> BodyCompressor:
        """What compresses one body."""
        return self.compression.body(self.config)


class _State:
    """Of one stream."""

    __slots__ = ("accepts", "library", "request", "response")

    def __init__(self, accepts: bytes | None, library: Library) -> None:
        self.accepts = accepts
        self.library = library
        self.request: BodyCompressor | None = None
        self.response: BodyCompressor | None = None


class Compressor(HttpFilter):
    """See the module's text. ``filter_state`` of a stream: its _State."""

    def __init__(self, config: CompressorConfig, context: FilterContext) -> None:
        made: Compression = library(config.library, context)
        self.library = Library(made, config.library)
        self._of_routes: dict[int, Library] = {}
        self._context = context
        self.name = context.name
        self.request = config.request
        self.response = config.response
        self.choose_first = config.choose_first
        prefix = f"{context.stat_prefix}.compressor.{config.name}.{made.name}"
        group = context.registry.group
        self.request_stats = group(CompressorStats, f"{prefix}.request")
        self.response_stats = group(CompressorStats, f"{prefix}.response" if self.response.is_set else prefix)
        self.stats = group(CompressorResponseStats, prefix)

    @classmethod
    def from_config(cls, config: CompressorConfig, context: FilterContext) -> Compressor:
        """Counts under ``http.<stat_prefix>.compressor``."""
        return cls(config, context)

    def route_config(self, configs: Sequence[Any], route: Route) -> CompressorRouteConfig | None:
        """The most specific one. ConfigError when its library's package is not installed."""
        found = next((each for each in configs if isinstance(each, CompressorRouteConfig)), None)
        if found is not None and found.library is not None and id(found.library) not in self._of_routes:
            self._of_routes[id(found.library)] = Library(library(found.library, self._context), found.library)
        return found

    def _library(self, said: CompressorRouteConfig | None) -> Library:
        return self.library if said is None or said.library is None else self._of_routes[id(said.library)]

    def _said(self, stream: Stream) -> CompressorRouteConfig | None:
        route = stream.route
        return None if route is None else route.per_filter_config.get(self.name)

    def _is_enabled(self, said: CompressorRouteConfig | None) -> bool:
        return self.response.common.enabled if said is None or said.enabled is None else said.enabled

    # -- the request

    def decode_headers(self, stream: Stream, headers: Headers, end_stream: bool) -> HookResult:
        """Note what the client accepts; begin to compress the request."""
        found = get_all(headers, b"accept-encoding")
        said = self._said(stream)
        used = self._library(said)
        state = stream.filter_state[self] = _State(b",".join(found) if found else None, used)
        stream.filter_state.setdefault(_COMPRESSORS, []).append(self)
        if found:
            removes = self.response.remove_accept_encoding
            if said is not None and said.remove_accept_encoding is not None:
                removes = said.remove_accept_encoding
            if removes and self._is_enabled(said):
                remove(headers, b"accept-encoding")
        request = self.request
        if (
            not end_stream
            and request is not None
            and request.enabled
            and _is_long_enough(request, headers, self.request_stats)
            and _has_content_type(request, headers)
            and get_header(headers, b"content-encoding") is None
        ):
            remove(headers, b"content-length")
            set_header(headers, b"content-encoding", used.compression.encoding)
            self.request_stats.compressed += 1
            state.request = used.body()
        else:
            self.request_stats.not_compressed += 1
        return None

    def decode_data(self, stream: Stream, data: bytes, end_stream: bool) -> DataResult:
        """Compress a piece of the request."""
        state = stream.filter_state.get(self)
        if state is None or state.request is None or not (data or end_stream):
            return None
        return _compress(state.request, self.request_stats, data, end_stream)

    def decode_trailers(self, stream: Stream, trailers: Headers) -> HookResult:
        """End the compressed request before its trailers."""
        state = stream.filter_state.get(self)
        if state is not None and state.request is not None:
            stream.inject_decoded(self, _compress(state.request, self.request_stats, b"", True), False)
        return None

    # -- the response

    def encode_headers(self, stream: Stream, headers: Headers, end_stream: bool) -> HookResult:
        """Decide, and begin to compress the response."""
        is_candidate, hindrance = self._hindrance(stream, headers)
        is_compressible = hindrance is None
        shows_status = self.response.shows_status and not end_stream
        if self.response.shows_status:
            is_candidate = is_compressible
        length = get_header(headers, b"content-length") or b""
        if shows_status and is_compressible:
            _vary(headers)  # before the others, as Envoy, which has another way through this then
        if shows_status and hindrance == _TOO_SMALL:
            self.response_stats.content_length_too_small += 1  # as Envoy, which looks twice
        status = hindrance
        if not end_stream and is_candidate and self._is_accepted(stream, headers) and is_compressible:
            etag = get_header(headers, b"etag")
            if etag is not None and etag[:2] not in (b"W/", b"w/"):
                remove(headers, b"etag")  # a strong one names these bytes, not the compressed ones
            remove(headers, b"content-length")
            used = stream.filter_state[self].library
            set_header(headers, b"content-encoding", used.compression.encoding)
            self.response_stats.compressed += 1
            stream.filter_state[self].response = used.body()
            status = b"Compressed;OriginalLength=" + length
        else:
            self.response_stats.not_compressed += 1
        if is_compressible and not shows_status:
            _vary(headers)
        if shows_status and status:
            encoding = self._library(self._said(stream)).compression.encoding
            headers.append((b"x-envoy-compression-status", encoding + b";" + status))
        return None

    def _hindrance(self, stream: Stream, headers: Headers) -> tuple[bool, bytes | None]:
        """Whether accept-encoding is worth a look, and why this response is not compressed, b"" without a word; None: nothing."""
        response = self.response
        if not self._is_enabled(self._said(stream)):
            return False, b""
        if not _is_long_enough(response.common, headers, self.response_stats):
            return False, _TOO_SMALL
        if not _has_content_type(response.common, headers):
            return True, b"ContentTypeNotAllowed"
        if _has_token(headers, b"cache-control", b"no-transform"):
            return True, b""
        if not self._allows_etag(headers):
            return True, b"EtagNotAllowed"
        if get_header(headers, b"content-encoding") is not None:
            return True, b""
        if stream.status in response.uncompressible_codes:
            return True, b"StatusCodeNotAllowed"
        return True, None

    def encode_data(self, stream: Stream, data: bytes, end_stream: bool) -> DataResult:
        """Compress a piece of the response."""
        state = stream.filter_state.get(self)
        if state is None or state.response is None or not (data or end_stream):
            return None
        return _compress(state.response, self.response_stats, data, end_stream)

    def encode_trailers(self, stream: Stream, trailers: Headers) -> HookResult:
        """End the compressed response before its trailers."""
        state = stream.filter_state.get(self)
        if state is not None and state.response is not None:
            stream.inject_encoded(self, _compress(state.response, self.response_stats, b"", True), False)
        return None

    def _allows_etag(self, headers: Headers) -> bool:
        if not self.response.disable_on_etag or get_header(headers, b"etag") is None:
            return True
        self.stats.not_compressed_etag += 1
        return False

    def _is_accepted(self, stream: Stream, headers: Headers) -> bool:
        state = stream.filter_state.get(self)
        stats = self.stats
        if state is None or state.accepts is None:
            stats.no_accept_header += 1
            return False
        decision: Decision | None = stream.filter_state.get(_DECISION)
        if decision is None:  # the first that asks decides for all
            content_type = _content_type(headers)
            candidates = [
                each
                for each in stream.filter_state[_COMPRESSORS]
                if not content_type or content_type in each.response.common.content_types
            ]
            # As in Envoy: of several, each stands for its own encoding, whatever library its route has.
            alone = len(stream.filter_state[_COMPRESSORS]) == 1
            used = [state.library if alone else each.library for each in candidates]
            encodings = [
                (each.compression.encoding, one.choose_first) for each, one in zip(used, candidates, strict=True)
            ]
            decision = choose(state.accepts, encodings)
            stream.filter_state[_DECISION] = decision
        chosen: bool = decision.encoding == state.library.compression.encoding
        if decision.by == _IDENTITY:
            stats.header_identity += 1
        elif decision.by == _ANY:
            stats.header_wildcard += 1
        elif decision.by == _NOT_VALID:
            stats.header_not_valid += 1
        elif chosen:
            stats.header_compressor_used += 1
        else:
            stats.header_compressor_overshadowed += 1
        return chosen


def _compress(compressor: BodyCompressor, stats: CompressorStats, data: bytes, end_stream: bool) -> bytes:
    made = compressor.compress(data, end_stream)
    stats.total_uncompressed_bytes += len(data)
    stats.total_compressed_bytes += len(made)
    return made


def choose(accepts: bytes, compressors: Sequence[tuple[bytes, bool]]) -> Decision:
    """What ``accept-encoding`` chooses of ``compressors``: (encoding, whether it wins among equals), in their order."""
    allowed: dict[bytes, bool] = {}
    for encoding, first in compressors:
        allowed.setdefault(encoding, first)
    wanted: list[tuple[bytes, float]] = []
    for token in accepts.split(b","):
        if not token:
            continue
        name, semicolon, parameter = token.partition(b";")
        share = 1.0
        key, equals, value = parameter.partition(b"=")
        if semicolon and equals and key.strip().lower() == b"q":
            try:
                share = float(value.strip().replace(b"_", b"?"))
            except ValueError:
                continue
        wanted.append((name.strip(), share))
        if not share:
            allowed.pop(name.strip(), None)
    if not wanted or not allowed:
        return Decision(_IDENTITY, _NOT_VALID)
    chosen, best = _IDENTITY, 0.0
    for name, share in wanted:
        if (name in allowed or name in (_IDENTITY, _ANY)) and (
            share > best or (share == best and allowed.get(name, False))
        ):
            chosen, best = name, share
    if not best:
        return Decision(_IDENTITY, _NOT_VALID)
    return Decision(next(iter(allowed)) if chosen == _ANY else chosen, chosen)


def _is_long_enough(direction: DirectionConfig, headers: Headers, stats: CompressorStats) -> bool:
    length = get_header(headers, b"content-length")
    if length is None:
        return True
    if length.isdigit() and int(length) >= direction.min_length:
        return True
    stats.content_length_too_small += 1
    return False


def _content_type(headers: Headers) -> str:
    value = get_header(headers, b"content-type")
    return value.partition(b";")[0].strip().lower().decode("latin-1") if value is not None else ""


def _has_content_type(direction: DirectionConfig, headers: Headers) -> bool:
    return get_header(headers, b"content-type") is None or _content_type(headers) in direction.content_types


def _has_token(headers: Headers, name: bytes, token: bytes) -> bool:
    return any(token == each.strip().lower() for value in get_all(headers, name) for each in value.split(b","))


def _vary(headers: Headers) -> None:
    """Caches must know that the same resource is sent compressed and not."""
    values = get_all(headers, b"vary")
    if not values:
        headers.append((b"vary", _ACCEPT_ENCODING))
    elif not any(each.strip() == _ACCEPT_ENCODING for value in values for each in value.split(b",")):
        set_header(headers, b"vary", b",".join(values) + b", " + _ACCEPT_ENCODING)
