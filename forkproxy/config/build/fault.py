"""``extensions.filters.http.fault.v3.HTTPFault``: which requests are delayed, aborted or answered slowly.

A value of the static runtime layers takes the place of what the file says. Keys that hold for the requests of one downstream
cluster only (``fault.http.<cluster>.…``) are gathered in ``by_cluster``.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any

from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import (
    FractionalPercent,
    HeaderMatcher,
    Where,
    build_fractional_percent,
    build_header_matcher,
    build_where,
    runtime_fraction,
)
from forkproxy.config.values import frozen
from forkproxy.config.view import View

_DELAY_PERCENT = "delay.fixed_delay_percent"
_DELAY_MS = "delay.fixed_duration_ms"
_ABORT_PERCENT = "abort.abort_percent"
_HTTP_STATUS = "abort.http_status"
_GRPC_STATUS = "abort.grpc_status"
_PREFIX = "fault.http."


@frozen
class Share:
    """How many of the requests: ``fixed`` is what the runtime says, else a header may ask for less than ``fraction``."""

    fraction: FractionalPercent
    fixed: bool = False


@frozen
class DelayConfig:
    """``FaultDelay``. ``fixed_ms`` None: the request's header says how long; ``runtime_ms`` counts before both of them."""

    share: Share
    fixed_ms: int | None
    runtime_ms: int | None = None


@frozen
class AbortConfig:
    """``FaultAbort``. With neither status the request's headers say it; the runtime's count where there would be one."""

    share: Share
    http_status: int | None = None
    grpc_status: int | None = None
    runtime_http_status: int | None = None
    runtime_grpc_status: int | None = None

    @property
    def by_header(self) -> bool:
        """Whether the request says it."""
        return self.http_status is None and self.grpc_status is None


@frozen
class RateConfig:
    """``FaultRateLimit``, in KiB per second; None: the request's header says it."""

    share: Share
    kib_per_s: int | None


@frozen
class ClusterFaults:
    """What the runtime says for one downstream cluster; None: nothing."""

    delay_share: FractionalPercent | None = None
    delay_ms: int | None = None
    abort_share: FractionalPercent | None = None
    http_status: int | None = None
    grpc_status: int | None = None


@frozen
class FaultConfig:
    """``HTTPFault``. ``metadata`` is what aborts and delays leave under the filter's name."""

    delay: DelayConfig | None = None
    abort: AbortConfig | None = None
    rate: RateConfig | None = None
    upstream_cluster: str = ""
    headers: tuple[HeaderMatcher, ...] = ()
    downstream_nodes: tuple[str, ...] = ()
    max_active_faults: int | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    by_cluster: dict[str, ClusterFaults] = field(default_factory=dict)
    where: Where = Where()


def build(view: View, context: BuildContext) -> FaultConfig:
    """``HTTPFault``, of the filter and of routes."""
    view.ignore("disable_downstream_cluster_stats", why="statistics by downstream cluster are not kept")
    delay, abort, rate = view.message("delay"), view.message("abort"), view.message("response_rate_limit")
    delay_share = view.str("delay_percent_runtime") or _PREFIX + _DELAY_PERCENT
    delay_ms = view.str("delay_duration_runtime") or _PREFIX + _DELAY_MS
    abort_share = view.str("abort_percent_runtime") or _PREFIX + _ABORT_PERCENT
    http_status = view.str("abort_http_status_runtime") or _PREFIX + _HTTP_STATUS
    grpc_status = view.str("abort_grpc_status_runtime") or _PREFIX + _GRPC_STATUS
    rate_share = view.str("response_rate_limit_percent_runtime") or _PREFIX + "rate_limit.response_percent"
    max_active = view.str("max_active_faults_runtime") or _PREFIX + "max_active_faults"
    most = view.uint("max_active_faults", None)
    runtime_most = _integer(context, max_active)
    return FaultConfig(
        delay=None if delay is None else build_delay(delay, context, delay_share, delay_ms),
        abort=None if abort is None else build_abort(abort, context, abort_share, (http_status, grpc_status)),
        rate=None if rate is None else build_rate(rate, context, rate_share),
        upstream_cluster=view.str("upstream_cluster"),
        headers=context.each(view.repeated("headers"), build_header_matcher),
        downstream_nodes=view.strings("downstream_nodes"),
        max_active_faults=most if runtime_most is None else runtime_most,
        metadata=view.struct("filter_metadata"),
        by_cluster=_by_cluster(context),
        where=build_where(view),
    )


def build_delay(view: View, context: BuildContext, share_key: str, ms_key: str) -> DelayConfig:
    """``FaultDelay``."""
    fixed_s = view.duration_s("fixed_delay")
    view.message("header_delay")
    fixed_ms = None if fixed_s is None else int(fixed_s * 1000)
    return DelayConfig(_share(view, context, share_key), fixed_ms, _integer(context, ms_key))


def build_abort(view: View, context: BuildContext, share_key: str, status_keys: tuple[str, str]) -> AbortConfig:
    """``FaultAbort``."""
    kind = view.which("error_type")
    view.message("header_abort")
    http_status, grpc_status = view.uint("http_status"), view.uint("grpc_status")
    return AbortConfig(
        share=_share(view, context, share_key),
        http_status=http_status if kind == "http_status" else None,
        grpc_status=grpc_status if kind == "grpc_status" else None,
        runtime_http_status=_status(context, status_keys[0]),
        runtime_grpc_status=_integer(context, status_keys[1]),
    )


def build_rate(view: View, context: BuildContext, share_key: str) -> RateConfig:
    """``FaultRateLimit``."""
    fixed = view.message("fixed_limit")
    view.message("header_limit")
    return RateConfig(_share(view, context, share_key), None if fixed is None else fixed.uint("limit_kbps"))


def _share(view: View, context: BuildContext, key: str) -> Share:
    percentage = view.message("percentage")
    fraction = FractionalPercent(0) if percentage is None else build_fractional_percent(percentage, context)
    said = runtime_fraction(key, context)
    return Share(fraction) if said is None else Share(said, True)


def _integer(context: BuildContext, key: str) -> int | None:
    value = context.runtime_value(key)
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _status(context: BuildContext, key: str) -> int | None:
    # What is no status of an answer does not count; Envoy would send it.
    value = _integer(context, key)
    return value if value is not None and 200 <= value < 600 else None


def _by_cluster(context: BuildContext) -> dict[str, ClusterFaults]:
    names = {
        key[len(_PREFIX) : -len(suffix) - 1]
        for key in context.runtime
        for suffix in (_DELAY_PERCENT, _DELAY_MS, _ABORT_PERCENT, _HTTP_STATUS, _GRPC_STATUS)
        if key.startswith(_PREFIX) and key.endswith("." + suffix) and len(key) > len(_PREFIX) + len(suffix)
    }
    return {
        name: ClusterFaults(
            delay_share=runtime_fraction(f"{_PREFIX}{name}.{_DELAY_PERCENT}", context),
            delay_ms=_integer(context, f"{_PREFIX}{name}.{_DELAY_MS}"),
            abort_share=runtime_fraction(f"{_PREFIX}{name}.{_ABORT_PERCENT}", context),
            http_status=_status(context, f"{_PREFIX}{name}.{_HTTP_STATUS}"),
            grpc_status=_integer(context, f"{_PREFIX}{name}.{_GRPC_STATUS}"),
        )
        for name in sorted(names)
    }
