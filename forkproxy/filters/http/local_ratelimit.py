"""Limits how many requests pass in a time, without asking anybody else (Envoy: "Local rate limit").

    - name: envoy.filters.http.local_ratelimit
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
        stat_prefix: limit
        token_bucket: {max_tokens: 100, tokens_per_fill: 100, fill_interval: 1s}
        filter_enabled: {default_value: {numerator: 100}}
        filter_enforced: {default_value: {numerator: 100}}

The limit is that of the host: all workers take from one bucket (token_bucket.py tells how, and how exact that is). Each
configuration, the filter's and every one on a route, virtual host or weighted cluster, has buckets of its own: one for all
requests, and one for each of its ``descriptors``, from which those requests take that ``rate_limits`` describe so, the filter's
or else the route's and the virtual host's. With ``local_rate_limit_per_downstream_connection`` every connection has its own.

A bucket keeps what is in it over a reload that does not change it or its place in the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, ClassVar

from forkproxy.access_log.formatter import compile_header_value
from forkproxy.config.build.core import FractionalPercent, HeaderMutations
from forkproxy.config.build.local_ratelimit import DescriptorConfig, LocalRateLimitConfig, TokenBucketConfig
from forkproxy.config.build.rate_limit import RateLimit
from forkproxy.config.build.route import ForwardAction
from forkproxy.filters.context import FilterContext
from forkproxy.filters.token_bucket import OwnLedger, TokenBucket
from forkproxy.http import response_flags
from forkproxy.http.filter import STOP_ITERATION, HookResult, HttpFilter
from forkproxy.http.headers import Headers
from forkproxy.http.stream import Stream
from forkproxy.net.loop import Loop
from forkproxy.router.header_mutation import compile_request, compile_response
from forkproxy.router.matcher import StreamTest, compile_fraction
from forkproxy.router.rate_limit import Describe, Descriptor, compile_rate_limits
from forkproxy.router.table import Route
from forkproxy.stats.group import Counter, StatGroup
from forkproxy.stats.shared import SharedCells

_PER_CONNECTION = "local rate limit"
"""The buckets of a connection, in its ``filter_state``: one set for all filters and routes, made by the first, as in Envoy."""
_RESOURCE_EXHAUSTED = 8


class LocalRateLimitStats(StatGroup):
    """``<stat_prefix>.http_local_rate_limit``."""

    zeros: ClassVar[Mapping[str, tuple[str, ...]]] = {"": ("shadow_mode",)}

    enabled: Counter
    enforced: Counter
    ok: Counter
    rate_limited: Counter


class Buckets:
    """The buckets of one configuration, shared by all processes, or those of one connection."""

    __slots__ = ("always_takes_default", "default", "described")

    def __init__(self, config: LocalRateLimitConfig, shared: SharedCells | None = None) -> None:
        self.always_takes_default = config.always_takes_default
        self.default = _bucket(config.bucket, config, shared) if config.bucket is not None else None
        self.described: dict[Descriptor, TokenBucket] = {
            tuple((key.encode(), value.encode()) for key, value in each.entries): _bucket(
                each.bucket, config, shared, each
            )
            for each in config.descriptors
        }

    def take(self, described: Sequence[tuple[Descriptor, int]], now: float) -> tuple[bool, TokenBucket | None]:
        """Whether a request may pass, and the bucket that tells how much is left."""
        found = [(self.described[each], hits) for each, hits in described if each in self.described]
        if len(found) > 1:  # the one that fills slowest decides first: the others keep their tokens then
            found.sort(key=lambda pair: pair[0].fill_rate)
        for bucket, hits in found:
            if not bucket.take(now, hits):
                return False, bucket
        first = found[0][0] if found else self.default
        if self.default is not None and (not found or self.always_takes_default) and not self.default.take(now):
            return False, self.default
        return True, first


def _bucket(
    bucket: TokenBucketConfig,
    config: LocalRateLimitConfig,
    shared: SharedCells | None,
    descriptor: DescriptorConfig | None = None,
) -> TokenBucket:
    figures = bucket.max_tokens, bucket.tokens_per_fill, bucket.fill_interval_ms
    if shared is None:
        return TokenBucket(*figures, OwnLedger())
    entries = descriptor.entries if descriptor is not None else ()
    return TokenBucket(*figures, shared.ledger("local_ratelimit", f"{config.where.path} {figures} {entries}"))


class Limiter:
    """What one configuration asks for. ``is_enabled`` and ``is_enforced`` None: always."""

    __slots__ = (
        "add_to_request",
        "add_to_response",
        "buckets",
        "config",
        "describe",
        "grpc_status",
        "is_enabled",
        "is_enforced",
        "stats",
    )

    def __init__(self, config: LocalRateLimitConfig, context: FilterContext) -> None:
        self.config = config
        registry = context.registry
        self.stats = registry.group(LocalRateLimitStats, f"{config.stat_prefix}.http_local_rate_limit")
        self.is_enabled = _share(config.enabled)
        self.is_enforced = _share(config.enforced)
        request = HeaderMutations(request_add=config.request_headers_to_add)
        response = HeaderMutations(response_add=config.response_headers_to_add)
        self.add_to_request = compile_request([(request, config.where)], compile_header_value)
        self.add_to_response = compile_response([(response, config.where)], compile_header_value)
        self.describe = compile_rate_limits(config.rate_limits, context.node.cluster.encode(), compile_header_value)
        self.grpc_status = _RESOURCE_EXHAUSTED if config.as_resource_exhausted else None
        self.buckets = Buckets(config, registry.shared) if not config.per_connection else None

    def described_by_route(self, route: Route) -> tuple[RateLimit, ...]:
        """The ``rate_limits`` of a route and its virtual host that belong to this filter's stage."""
        config = self.config
        action = route.config.action if route.config is not None else None
        if not config.descriptors or config.rate_limits or not isinstance(action, ForwardAction):
            return ()
        limits = action.rate_limits
        level = "INCLUDE" if action.include_vh_rate_limits else config.vh_rate_limits
        if level == "INCLUDE" or (level == "OVERRIDE" and not limits):
            limits += route.virtual_host.config.rate_limits
        return tuple(each for each in limits if each.stage == config.stage and not each.disable_key)


def _share(fraction: FractionalPercent | None) -> StreamTest | None:
    return compile_fraction(fraction if fraction is not None else FractionalPercent(0))


class LocalRateLimit(HttpFilter):
    """See the module's text. ``filter_state`` of a stream whose answer tells the limit: the bucket."""

    def __init__(self, limiter: Limiter, context: FilterContext) -> None:
        self.name = context.name
        self.limiter = limiter
        self._context = context
        self._service_cluster = context.node.cluster.encode()
        self._limiters: dict[int, Limiter] = {}
        self._describers: dict[tuple[int, ...], Describe | None] = {}
        self.loop: Loop = None  # type: ignore[assignment]  # set by start(), in the worker

    @classmethod
    def from_config(cls, config: LocalRateLimitConfig, context: FilterContext) -> LocalRateLimit:
        """The filter's own limiter; those of routes follow in ``route_config``."""
        return cls(Limiter(config, context), context)

    def route_config(self, configs: Sequence[Any], route: Route) -> tuple[Limiter, Describe | None]:
        """The limiter of a route, and what describes its requests."""
        own = next((each for each in configs if isinstance(each, LocalRateLimitConfig)), None)
        limiter = self.limiter
        if own is not None:
            if id(own) not in self._limiters:
                self._limiters[id(own)] = Limiter(own, self._context)
            limiter = self._limiters[id(own)]
        limits = limiter.described_by_route(route)
        if not limits:
            return limiter, limiter.describe
        key = tuple(map(id, limits))
        if key not in self._describers:
            self._describers[key] = compile_rate_limits(limits, self._service_cluster)
        return limiter, self._describers[key]

    def start(self, worker: Any) -> None:
        """Keep the loop for its clock."""
        self.loop = worker.loop

    def decode_headers(self, stream: Stream, headers: Headers, end_stream: bool) -> HookResult:
        """Take a token, or refuse."""
        route = stream.route
        if route is None:
            limiter, describe = self.limiter, self.limiter.describe
        else:
            limiter, describe = route.per_filter_config.get(self.name) or (self.limiter, self.limiter.describe)
        is_enabled = limiter.is_enabled
        if is_enabled is not None and not is_enabled(stream):
            return None
        stats = limiter.stats
        stats.enabled += 1
        described = describe(stream) if describe is not None and limiter.config.descriptors else ()
        buckets = limiter.buckets or _connection_buckets(stream, limiter.config)
        passes, bucket = buckets.take(described, self.loop.now)
        if bucket is not None and limiter.config.shows_limit:
            stream.filter_state[self] = bucket
        if passes:
            stats.ok += 1
            return None
        stats.rate_limited += 1
        is_enforced = limiter.is_enforced
        if is_enforced is not None and not is_enforced(stream):
            if limiter.add_to_request is not None:
                limiter.add_to_request(stream)
            return None
        stats.enforced += 1
        stream.send_local_reply(
            limiter.config.status,
            b"local_rate_limited",
            details="local_rate_limited",
            flags=response_flags.RL,
            finalize=limiter.add_to_response,
            grpc_status=limiter.grpc_status,
        )
        return STOP_ITERATION

    def encode_headers(self, stream: Stream, headers: Headers, end_stream: bool) -> HookResult:
        """Tell the limit, where that is asked for."""
        bucket = stream.filter_state.get(self)
        if bucket is not None:
            now = self.loop.now
            headers.append((b"x-ratelimit-limit", b"%d" % bucket.max_tokens))
            headers.append((b"x-ratelimit-remaining", b"%d" % bucket.remaining(now)))
            headers.append((b"x-ratelimit-reset", b"%d" % ceil(bucket.next_s(now))))
        return None


def _connection_buckets(stream: Stream, config: LocalRateLimitConfig) -> Buckets:
    connection = stream.connection
    found: Buckets | None = connection.filter_state.get(_PER_CONNECTION)
    if found is None:
        found = connection.filter_state[_PER_CONNECTION] = Buckets(config)
    return found
