"""``extensions.filters.http.local_ratelimit.v3.LocalRateLimit`` → LocalRateLimitConfig; the same on routes."""

from __future__ import annotations

from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import (
    FractionalPercent,
    HeaderValueOption,
    Where,
    build_header_value_option,
    build_runtime_fraction,
    build_where,
)
from forkproxy.config.build.rate_limit import RateLimit, build_own_rate_limits
from forkproxy.config.schema import schema
from forkproxy.config.values import frozen
from forkproxy.config.view import View

_SHORTEST_FILL_MS = 50
_STATUS_CODE = "envoy.type.v3.StatusCode"


@frozen
class TokenBucketConfig:
    """``type.v3.TokenBucket``. ``max_tokens`` 0: there is never a token."""

    max_tokens: int
    tokens_per_fill: int
    fill_interval_ms: int


@frozen
class DescriptorConfig:
    """``LocalRateLimitDescriptor``: requests with exactly these entries take from a bucket of their own."""

    entries: tuple[tuple[str, str], ...]
    bucket: TokenBucketConfig


@frozen
class LocalRateLimitConfig:
    """``LocalRateLimit``.

    ``bucket`` None: only descriptors limit. ``enabled`` and ``enforced`` None: never. ``rate_limits`` take the place of the
    route's and virtual host's. ``vh_rate_limits``: "OVERRIDE", "INCLUDE" or "IGNORE".
    """

    stat_prefix: str
    status: int = 429
    bucket: TokenBucketConfig | None = None
    enabled: FractionalPercent | None = None
    enforced: FractionalPercent | None = None
    request_headers_to_add: tuple[HeaderValueOption, ...] = ()
    response_headers_to_add: tuple[HeaderValueOption, ...] = ()
    descriptors: tuple[DescriptorConfig, ...] = ()
    stage: int = 0
    per_connection: bool = False
    shows_limit: bool = False
    vh_rate_limits: str = "OVERRIDE"
    always_takes_default: bool = True
    as_resource_exhausted: bool = False
    rate_limits: tuple[RateLimit, ...] = ()
    where: Where = Where()


def build(view: View, context: BuildContext) -> LocalRateLimitConfig:
    """``LocalRateLimit`` of the chain. ``local_cluster_rate_limit`` stays unread."""
    view.ignore("max_dynamic_descriptors", why="it bounds entries without a value, which are not implemented")
    enabled, enforced = view.message("filter_enabled"), view.message("filter_enforced")
    status = view.message("status")
    bucket = view.message("token_bucket")
    return LocalRateLimitConfig(
        stat_prefix=view.str("stat_prefix"),
        status=_build_status(status) if status is not None else 429,
        bucket=_build_bucket(bucket, "local rate limit") if bucket is not None else None,
        enabled=build_runtime_fraction(enabled, context) if enabled is not None else None,
        enforced=build_runtime_fraction(enforced, context) if enforced is not None else None,
        request_headers_to_add=context.each(
            view.repeated("request_headers_to_add_when_not_enforced"), build_header_value_option
        ),
        response_headers_to_add=context.each(view.repeated("response_headers_to_add"), build_header_value_option),
        descriptors=_build_descriptors(view),
        stage=view.uint("stage"),
        per_connection=view.bool("local_rate_limit_per_downstream_connection"),
        shows_limit=view.enum("enable_x_ratelimit_headers") == "DRAFT_VERSION_03",
        vh_rate_limits=view.enum("vh_rate_limits"),
        always_takes_default=view.bool("always_consume_default_token_bucket", True),
        as_resource_exhausted=view.bool("rate_limited_as_resource_exhausted"),
        rate_limits=_build_own_rate_limits(view, context),
        where=build_where(view),
    )


def build_per_route(view: View, context: BuildContext) -> LocalRateLimitConfig:
    """``LocalRateLimit`` of ``typed_per_filter_config``."""
    if not view.has("token_bucket"):
        view.report("local rate limit token bucket must be set for per filter configs")
    return build(view, context)


def _build_status(view: View) -> int:
    numbers = {name: number for number, name in schema().enum(_STATUS_CODE).names.items()}
    code = numbers.get(view.enum("code"), 0)
    return code if code >= 400 else 429  # only an error is a refusal, in Envoy, too


def _build_own_rate_limits(view: View, context: BuildContext) -> tuple[RateLimit, ...]:
    views = view.repeated("rate_limits")
    for each in views:
        if each.has("stage") or each.has("disable_key"):
            each.report("'stage' field and 'disable_key' field are not supported")
        if each.has("limit"):
            each.report("'limit' field is not supported", field="limit")
    return build_own_rate_limits(views, context)


def _build_bucket(view: View, whose: str) -> TokenBucketConfig:
    interval_ms = int(view.duration_s("fill_interval", 0.0) * 1000)
    made = TokenBucketConfig(view.uint("max_tokens"), view.uint("tokens_per_fill", 1), interval_ms)
    if made.fill_interval_ms < _SHORTEST_FILL_MS:
        view.report(f"{whose} token bucket fill timer must be >= 50ms", field="fill_interval")
    return made


def _build_descriptors(view: View) -> tuple[DescriptorConfig, ...]:
    made: dict[tuple[tuple[str, str], ...], DescriptorConfig] = {}
    for each in view.repeated("descriptors"):
        entries = []
        for entry in each.repeated("entries"):
            key, value = entry.str("key"), entry.str("value")
            if not value:
                entry.unsupported("an entry without a value, which stands for any value, is not implemented")
            entries.append((key, value))
        descriptor = DescriptorConfig(
            tuple(entries), _build_bucket(each.require("token_bucket"), "local rate limit descriptor")
        )
        if descriptor.entries in made:
            text = ", ".join(f"{key}={value}" for key, value in entries)
            each.report(f"duplicate descriptor in the local rate descriptor: {text}")
        made[descriptor.entries] = descriptor
    return tuple(made.values())
