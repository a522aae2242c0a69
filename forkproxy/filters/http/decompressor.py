"""Decompresses requests and responses, and tells upstreams that they may compress (Envoy: "Decompressor").

    - name: envoy.filters.http.decompressor
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.http.decompressor.v3.Decompressor
        decompressor_library:
          name: gzip
          typed_config: {"@type": type.googleapis.com/envoy.extensions.compression.gzip.decompressor.v3.Gzip}

A piece of a body may become ``max_inflate_ratio`` times as long, not more: a body that does is cut off there, and so is one
that is not what it says, both without telling anybody but the counters, as in Envoy.
"""

from __future__ import annotations

from forkproxy.config.build.compressor import DecompressorConfig, DecompressorDirection
from forkproxy.filters.context import FilterContext
from forkproxy.filters.http.compression import BodyDecompressor, Decompression, library
from forkproxy.http.filter import TAKEN, DataResult, HookResult, HttpFilter
from forkproxy.http.headers import Headers, get_all, remove
from forkproxy.http.headers import set_ as set_header
from forkproxy.http.stream import Stream
from forkproxy.stats.group import Counter, StatGroup

_REQUEST, _RESPONSE = 0, 1


class DecompressorStats(StatGroup):
    """``http.<stat_prefix>.decompressor.<library>.gzip.request`` and ``.response``."""

    decompressed: Counter
    not_decompressed: Counter
    total_compressed_bytes: Counter
    total_uncompressed_bytes: Counter


class Body:
    """One that is decompressed. ``taken`` bytes became ``made`` bytes."""

    __slots__ = ("decompressor", "made", "taken")

    def __init__(self, decompressor: BodyDecompressor) -> None:
        self.decompressor = decompressor
        self.taken = 0
        self.made = 0


class Decompressor(HttpFilter):
    """See the module's text. ``filter_state`` of a stream: the bodies of request and response."""

    def __init__(self, config: DecompressorConfig, context: FilterContext) -> None:
        made: Decompression = library(config.library, context)
        self.encoding = made.encoding
        self._body_of = made.body
        self.library = config.library
        self.config = config
        prefix = f"{context.stat_prefix}.decompressor.{config.name}.{made.name}"
        group = context.registry.group
        self.stats = group(DecompressorStats, f"{prefix}.request"), group(DecompressorStats, f"{prefix}.response")
        self._trailers = tuple(
            f"x-envoy-decompressor-{config.name}-{what}-bytes".encode().lower()
            for what in ("compressed", "uncompressed")
        )
        self.library_stats = group(made.stats, f"{prefix}.decompressor_library")

    @classmethod
    def from_config(cls, config: DecompressorConfig, context: FilterContext) -> Decompressor:
        """Counts under ``http.<stat_prefix>.decompressor``."""
        return cls(config, context)

    def decode_headers(self, stream: Stream, headers: Headers, end_stream: bool) -> HookResult:
        """Tell the upstream; begin with the request's body."""
        config = self.config
        if config.response.enabled and config.advertises:
            _advertise(headers, self.encoding)
        if not end_stream:
            self._begin(stream, headers, _REQUEST, config.request)
        return None

    def decode_data(self, stream: Stream, data: bytes, end_stream: bool) -> DataResult:
        """A piece of the request."""
        body = self._body(stream, _REQUEST)
        if body is None:
            return None
        unpacked = self._unpack(body, data, _REQUEST)
        if not end_stream:
            return unpacked
        stream.end_decoded(self, unpacked, self._totals(body))
        return TAKEN

    def decode_trailers(self, stream: Stream, trailers: Headers) -> HookResult:
        """Add what it came to."""
        body = self._body(stream, _REQUEST)
        if body is not None:
            trailers += self._totals(body)
        return None

    def encode_headers(self, stream: Stream, headers: Headers, end_stream: bool) -> HookResult:
        """Begin with the response's body."""
        if not end_stream:
            self._begin(stream, headers, _RESPONSE, self.config.response)
        return None

    def encode_data(self, stream: Stream, data: bytes, end_stream: bool) -> DataResult:
        """A piece of the response."""
        body = self._body(stream, _RESPONSE)
        if body is None:
            return None
        unpacked = self._unpack(body, data, _RESPONSE)
        if not end_stream:
            return unpacked
        stream.end_encoded(self, unpacked, self._totals(body))
        return TAKEN

    def encode_trailers(self, stream: Stream, trailers: Headers) -> HookResult:
        """Add what it came to."""
        body = self._body(stream, _RESPONSE)
        if body is not None:
            trailers += self._totals(body)
        return None

    def _begin(self, stream: Stream, headers: Headers, which: int, direction: DecompressorDirection) -> None:
        codings = b",".join(get_all(headers, b"content-encoding"))
        first, comma, rest = codings.partition(b",")
        if (
            not direction.enabled
            or first.strip().lower() != self.encoding
            or (not direction.ignore_no_transform and _is_not_to_be_changed(headers))
        ):
            self.stats[which].not_decompressed += 1
            return
        self.stats[which].decompressed += 1
        remove(headers, b"content-length")
        if comma:
            set_header(headers, b"content-encoding", rest.strip())
        else:
            remove(headers, b"content-encoding")
        bodies: list[Body | None] = stream.filter_state.setdefault(self, [None, None])
        bodies[which] = Body(self._body_of(self.library, self.library_stats))

    def _body(self, stream: Stream, which: int) -> Body | None:
        bodies: list[Body | None] | None = stream.filter_state.get(self)
        return bodies[which] if bodies is not None else None

    def _unpack(self, body: Body, data: bytes, which: int) -> bytes:
        unpacked = body.decompressor.decompress(data)
        stats = self.stats[which]
        stats.total_compressed_bytes += len(data)
        stats.total_uncompressed_bytes += len(unpacked)
        body.taken += len(data)
        body.made += len(unpacked)
        return unpacked

    def _totals(self, body: Body) -> Headers:
        compressed, uncompressed = self._trailers
        return [(compressed, b"%d" % body.taken), (uncompressed, b"%d" % body.made)]


def _is_not_to_be_changed(headers: Headers) -> bool:
    values = get_all(headers, b"cache-control")
    return any(each.strip().lower() == b"no-transform" for value in values for each in value.split(b","))


def _advertise(headers: Headers, encoding: bytes) -> None:
    """Put ``encoding`` at the end of accept-encoding, once."""
    values = [each.strip() for value in get_all(headers, b"accept-encoding") for each in value.split(b",")]
    others = [each for each in values if each and each.partition(b";")[0].strip() != encoding]
    set_header(headers, b"accept-encoding", b",".join([*others, encoding]))
