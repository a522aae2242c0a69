"""Injects faults: delays requests, answers them in the endpoint's place, or brings responses slowly.

    - name: envoy.filters.http.fault
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault
        delay: {fixed_delay: 2s, percentage: {numerator: 10}}
        abort: {http_status: 503, percentage: {numerator: 1}}

With ``header_delay``, ``header_abort`` and ``header_limit`` the request says in ``x-envoy-fault-…`` what is to happen to it. A
route's ``HTTPFault`` takes the place of the filter's. ``max_active_faults`` holds over all workers, but for at most one for
each further worker; statistics by downstream cluster are not kept.

A slow response is paced as Envoy paces it: a token is a 16th of a second's bytes, and a stream saves up at most 16 of them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final

from forkproxy.config.build.fault import AbortConfig, ClusterFaults, DelayConfig, FaultConfig, RateConfig, Share
from forkproxy.filters.context import FilterContext
from forkproxy.http import response_flags as flags
from forkproxy.http.filter import STOP_ITERATION, TAKEN, DataResult, HookResult, HttpFilter
from forkproxy.http.headers import Headers
from forkproxy.http.headers import get as get_header
from forkproxy.http.stream import Stream
from forkproxy.net.loop import Loop
from forkproxy.net.timers import Timer
from forkproxy.router.matcher import all_of, compile_header_matcher
from forkproxy.router.table import Route
from forkproxy.stats.group import Counter, Gauge, StatGroup
from forkproxy.stats.shared import SharedNumber

TOKENS_PER_S: Final = 16
_NOTHING: Final = ClusterFaults()


class FaultStats(StatGroup):
    """``http.<stat_prefix>.fault``."""

    aborts_injected: Counter
    active_faults: Gauge
    delays_injected: Counter
    faults_overflow: Counter
    response_rl_injected: Counter


class Settings:
    """What holds on a route."""

    __slots__ = ("config", "headers", "nodes", "upstream_cluster")

    def __init__(self, config: FaultConfig) -> None:
        self.config = config
        self.headers = all_of([compile_header_matcher(each, config.where) for each in config.headers])
        self.nodes = frozenset(node.encode() for node in config.downstream_nodes)
        self.upstream_cluster = config.upstream_cluster.encode()

    def concern(self, stream: Stream, headers: Headers) -> bool:
        """Whether this request is one that faults are for."""
        if self.upstream_cluster and _upstream_cluster(stream) != self.upstream_cluster:
            return False
        if self.nodes and get_header(headers, b"x-envoy-downstream-service-node") not in self.nodes:
            return False
        return self.headers is None or self.headers(stream)


class Fault(HttpFilter):
    """See the module's text. ``filter_state`` of a stream that has a fault: an Active."""

    def __init__(self, name: str, settings: Settings, stats: FaultStats, active: SharedNumber) -> None:
        self.name = name
        self.settings = settings
        self.stats = stats
        self.active = active
        self.loop: Loop = None  # type: ignore[assignment]  # set by start(), in the worker
        self._of_routes: dict[int, Settings] = {}

    @classmethod
    def from_config(cls, config: FaultConfig, context: FilterContext) -> Fault:
        """Counts under the connection manager's prefix."""
        prefix = f"{context.stat_prefix}.fault"
        stats = context.registry.group(FaultStats, prefix)
        return cls(context.name, Settings(config), stats, context.registry.shared.number("active_faults", prefix))

    def route_config(self, configs: Sequence[Any], route: Route) -> Settings | None:
        """The most specific configuration; routes with the same one share it."""
        found = next((config for config in configs if isinstance(config, FaultConfig)), None)
        if found is None:
            return None
        if id(found) not in self._of_routes:
            self._of_routes[id(found)] = Settings(found)
        return self._of_routes[id(found)]

    def start(self, worker: Any) -> None:
        """Keep the loop for its timers."""
        self.loop = worker.loop

    def decode_headers(self, stream: Stream, headers: Headers, end_stream: bool) -> HookResult:
        """Decide what happens to the request."""
        route = stream.route
        settings: Settings = self.settings if route is None else route.per_filter_config.get(self.name, self.settings)
        config = settings.config
        if config.max_active_faults is not None and self.active.total() >= config.max_active_faults:
            self.stats.faults_overflow += 1
            return None
        if not settings.concern(stream, headers):
            return None
        name = get_header(headers, b"x-envoy-downstream-service-cluster")
        by_cluster = config.by_cluster.get(name.decode("latin-1"), _NOTHING) if name else None
        rate = config.rate and response_rate(config.rate, headers)
        if rate:
            self._activate(stream).pace = Pace(self, stream, rate)
            self.stats.response_rl_injected += 1
        delay = config.delay and delay_ms(config.delay, headers, by_cluster)
        if delay:
            active = self._activate(stream)
            active.timer = self.loop.call_later(delay / 1000, lambda: self._go_on(stream, config, by_cluster))
            stream.response_flags |= flags.DI
            stream.dynamic_metadata.setdefault(self.name, {}).update(config.metadata)
            self.stats.delays_injected += 1
            return STOP_ITERATION
        return STOP_ITERATION if self._abort(stream, config, by_cluster) else None

    def decode_data(self, stream: Stream, data: bytes, end_stream: bool) -> DataResult:
        """While the request waits, so does its body: in the kernel, when there is much of it."""
        active: Active | None = stream.filter_state.get(self)
        if active is None or active.timer is None:
            return None
        held = stream.decode_held
        connection = stream.connection
        if held is not None and held.buffered_bytes + len(data) > connection.high_watermark and not active.pausing:
            active.pausing = True
            stream.decode_buffer_limit = held.buffered_bytes + len(data) + connection.high_watermark
            connection.pause_reading()
        return STOP_ITERATION

    def decode_trailers(self, stream: Stream, trailers: Headers) -> HookResult:
        """The same at its end."""
        active: Active | None = stream.filter_state.get(self)
        return None if active is None or active.timer is None else STOP_ITERATION

    def encode_data(self, stream: Stream, data: bytes, end_stream: bool) -> DataResult:
        """Take the body of a response that is to be slow."""
        active: Active | None = stream.filter_state.get(self)
        if active is None or active.pace is None:
            return None
        active.pace.take(data, end_stream)
        return TAKEN

    def encode_trailers(self, stream: Stream, trailers: Headers) -> HookResult:
        """They come after the body."""
        active: Active | None = stream.filter_state.get(self)
        if active is None or active.pace is None:
            return None
        return active.pace.hold_trailers()

    def on_stream_complete(self, stream: Stream) -> None:
        """Its faults are over."""
        active: Active | None = stream.filter_state.pop(self, None)
        if active is None:
            return
        self._end_delay(stream, active)
        if active.pace is not None:
            active.pace.cancel()
        self.stats.active_faults -= 1
        self.active.add(-1)

    def _activate(self, stream: Stream) -> Active:
        active: Active | None = stream.filter_state.get(self)
        if active is None:
            active = stream.filter_state[self] = Active()
            self.stats.active_faults += 1
            self.active.add(1)
        return active

    def _end_delay(self, stream: Stream, active: Active) -> None:
        if active.timer is not None:
            active.timer.cancel()
            active.timer = None
        if active.pausing:
            active.pausing = False
            if not stream.connection.closed:
                stream.connection.resume_reading()

    def _go_on(self, stream: Stream, config: FaultConfig, by_cluster: ClusterFaults | None) -> None:
        self._end_delay(stream, stream.filter_state[self])
        if not self._abort(stream, config, by_cluster):
            stream.continue_decoding()

    def _abort(self, stream: Stream, config: FaultConfig, by_cluster: ClusterFaults | None) -> bool:
        found = config.abort and abort_status(config.abort, stream.request_headers, by_cluster)
        if not found:
            return False
        status, grpc_status = found
        self._activate(stream)
        self.stats.aborts_injected += 1
        stream.dynamic_metadata.setdefault(self.name, {}).update(config.metadata)
        stream.send_local_reply(
            status, b"fault filter abort", details="fault_filter_abort", flags=flags.FI, grpc_status=grpc_status
        )
        return True


class Active:
    """The faults of one stream. ``timer``: it waits; ``pausing``: what its client sends stays in the kernel."""

    __slots__ = ("pace", "pausing", "timer")

    def __init__(self) -> None:
        self.timer: Timer | None = None
        self.pausing = False
        self.pace: Pace | None = None


class Pace:
    """A response's body, given away token by token."""

    __slots__ = (
        "bytes_per_token",
        "ended",
        "filled_at",
        "kept",
        "owner",
        "size",
        "stream",
        "timer",
        "tokens",
        "trailers",
    )

    def __init__(self, owner: Fault, stream: Stream, kib_per_s: int) -> None:
        self.owner = owner
        self.stream = stream
        self.bytes_per_token = kib_per_s * 1024 // TOKENS_PER_S
        self.kept: list[bytes] = []
        self.size = 0
        self.ended = self.trailers = False
        self.tokens = 1.0
        self.filled_at = -1.0
        self.timer: Timer | None = None

    def take(self, data: bytes, end_stream: bool) -> None:
        """A piece of the body."""
        self.kept.append(data)
        self.size += len(data)
        self.ended = self.ended or end_stream
        upstream = self.stream.upstream
        if self.size > self.stream.connection.high_watermark and upstream is not None:
            upstream.pause()
        if self.timer is None:
            self.timer = self.owner.loop.call_later(0.0, self._give)

    def hold_trailers(self) -> HookResult:
        """The body has ended with trailers."""
        if not self.size:
            return None
        self.trailers = True
        return STOP_ITERATION

    def cancel(self) -> None:
        """Nobody wants the rest."""
        if self.timer is not None:
            self.timer.cancel()

    def _give(self) -> None:
        self.timer = None
        now = self.owner.loop.now
        if self.filled_at >= 0.0:
            self.tokens = min(float(TOKENS_PER_S), self.tokens + (now - self.filled_at) * TOKENS_PER_S)
        self.filled_at = now
        wanted = -(-self.size // self.bytes_per_token)
        given = min(wanted, int(self.tokens + 1e-6))
        self.tokens -= given
        whole = b"".join(self.kept)
        piece, rest = whole[: given * self.bytes_per_token], whole[given * self.bytes_per_token :]
        self.kept, self.size = [rest] if rest else [], len(rest)
        stream = self.stream
        if rest:
            self.timer = self.owner.loop.call_later(max(0.001, (1.0 - self.tokens) / TOKENS_PER_S), self._give)
        if self.size <= stream.connection.high_watermark and stream.upstream is not None:
            stream.upstream.resume()
        stream.inject_encoded(self.owner, piece, self.ended and not rest)
        if not rest and self.trailers:
            self.trailers = False
            stream.continue_encoding()


def _upstream_cluster(stream: Stream) -> bytes | None:
    route = stream.route
    if route is None or route.kind:
        return None
    if route.cluster_header:
        return get_header(stream.request_headers, route.cluster_header)
    name: str = route.cluster_name
    return name.encode()


def _number(headers: Headers, name: bytes) -> int | None:
    # Of several lines the first counts.
    value = get_header(headers, name)
    text = value.strip() if value is not None else b""
    return int(text) if text.isdigit() and len(text) < 20 else None


def happens(share: Share, headers: Headers, percentage_header: bytes = b"") -> bool:
    """Draw, for a share that the request may have made smaller in ``percentage_header``."""
    fraction = share.fraction
    numerator = fraction.numerator
    if percentage_header and not share.fixed:
        asked = _number(headers, percentage_header)
        if asked is not None:
            numerator = min(asked, numerator)
    return numerator >= fraction.denominator or random.random() * fraction.denominator < numerator


def _happens_to(cluster: Any, share: Share, headers: Headers, percentage_header: bytes) -> bool:
    own = share if cluster is None else Share(cluster, True)
    return happens(own, headers, percentage_header)


def delay_ms(delay: DelayConfig, headers: Headers, by_cluster: ClusterFaults | None) -> int | None:
    """For how long this request is held; None or 0: not at all."""
    by_header = delay.fixed_ms is None
    percentage = b"x-envoy-fault-delay-request-percentage" if by_header else b""
    if not happens(delay.share, headers, percentage) and (
        by_cluster is None or not _happens_to(by_cluster.delay_share, delay.share, headers, percentage)
    ):
        return None
    found = _number(headers, b"x-envoy-fault-delay-request") if by_header else delay.fixed_ms
    if found is None:
        return None
    if by_cluster is not None and by_cluster.delay_ms is not None:
        return by_cluster.delay_ms
    return found if delay.runtime_ms is None else delay.runtime_ms


def abort_status(
    abort: AbortConfig, headers: Headers, by_cluster: ClusterFaults | None
) -> tuple[int, int | None] | None:
    """The status of the answer and of gRPC, when this request is to be aborted."""
    percentage = b"x-envoy-fault-abort-request-percentage" if abort.by_header else b""
    if not happens(abort.share, headers, percentage) and (
        by_cluster is None or not _happens_to(by_cluster.abort_share, abort.share, headers, percentage)
    ):
        return None
    status, grpc_status = abort.http_status, abort.grpc_status
    if abort.by_header:
        status = _number(headers, b"x-envoy-fault-abort-request")
        if status is not None and not 200 <= status < 600:
            status = None
        grpc_status = _number(headers, b"x-envoy-fault-abort-grpc-request")
    if status is not None:
        if by_cluster is not None and by_cluster.http_status is not None:
            return by_cluster.http_status, None
        return status if abort.runtime_http_status is None else abort.runtime_http_status, None
    if grpc_status is None:
        return None
    if by_cluster is not None and by_cluster.grpc_status is not None:
        return 200, by_cluster.grpc_status
    return 200, grpc_status if abort.runtime_grpc_status is None else abort.runtime_grpc_status


def response_rate(rate: RateConfig, headers: Headers) -> int | None:
    """In KiB per second, how fast the response may be; None or 0: as fast as it is."""
    by_header = rate.kib_per_s is None
    found = _number(headers, b"x-envoy-fault-throughput-response") if by_header else rate.kib_per_s
    if not found:
        return None
    percentage = b"x-envoy-fault-throughput-response-percentage" if by_header else b""
    return found if happens(rate.share, headers, percentage) else None
