"""``config.cluster.v3.OutlierDetection`` → OutlierDetectionConfig."""

from __future__ import annotations

from dataclasses import replace

from forkproxy.config.build.context import BuildContext
from forkproxy.config.values import frozen
from forkproxy.config.view import View

default_max_ejection_time_s = 300.0


_RUNTIME_NAMES = {
    "interval_ms": "interval_s",
    "base_ejection_time_ms": "base_ejection_time_s",
    "max_ejection_time_ms": "max_ejection_time_s",
    "max_ejection_time_jitter_ms": "max_ejection_time_jitter_s",
    "success_rate_minimum_hosts": "success_rate_minimum_endpoints",
    "failure_percentage_minimum_hosts": "failure_percentage_minimum_endpoints",
    **{
        name: name
        for name in (
            *("consecutive_5xx", "consecutive_gateway_failure", "consecutive_local_origin_failure"),
            *("enforcing_consecutive_5xx", "enforcing_consecutive_gateway_failure", "enforcing_success_rate"),
            *("enforcing_consecutive_local_origin_failure", "enforcing_local_origin_success_rate"),
            *("enforcing_failure_percentage", "enforcing_failure_percentage_local_origin", "max_ejection_percent"),
            *("success_rate_request_volume", "success_rate_stdev_factor", "failure_percentage_request_volume"),
            "failure_percentage_threshold",
        )
    },
}
"""Behind "outlier_detection.": what a static runtime layer may set → the field whose place it takes."""


@frozen
class OutlierDetectionConfig:
    """``OutlierDetection``; the defaults are Envoy's. ``enforcing_*`` and the other shares are percentages."""

    interval_s: float = 10.0
    base_ejection_time_s: float = 30.0
    max_ejection_time_s: float = default_max_ejection_time_s
    max_ejection_time_jitter_s: float = 0.0
    max_ejection_percent: int = 10
    always_eject_one_endpoint: bool = False
    split_local_origin: bool = False
    """Failures to reach the endpoint are judged apart from its answers."""
    active_check_unejects: bool = True
    consecutive_5xx: int = 5
    consecutive_gateway_failure: int = 5
    consecutive_local_origin_failure: int = 5
    success_rate_minimum_endpoints: int = 5
    success_rate_request_volume: int = 100
    success_rate_stdev_factor: int = 1900
    failure_percentage_threshold: int = 85
    failure_percentage_minimum_endpoints: int = 5
    failure_percentage_request_volume: int = 50
    enforcing_consecutive_5xx: int = 100
    enforcing_consecutive_gateway_failure: int = 0
    enforcing_consecutive_local_origin_failure: int = 100
    enforcing_success_rate: int = 100
    enforcing_local_origin_success_rate: int = 100
    enforcing_failure_percentage: int = 0
    enforcing_failure_percentage_local_origin: int = 0


def build_outlier_detection(view: View | None, context: BuildContext) -> OutlierDetectionConfig | None:
    """``OutlierDetection``; monitors stay unread."""
    if view is None:
        return None
    base_s = view.duration_s("base_ejection_time", 30.0)
    max_s = view.duration_s("max_ejection_time", max(default_max_ejection_time_s, base_s))
    if max_s < base_s:
        view.report(
            "outlier detector's max_ejection_time cannot be smaller than base_ejection_time", field="max_ejection_time"
        )
    config = OutlierDetectionConfig(
        interval_s=view.duration_s("interval", 10.0),
        base_ejection_time_s=base_s,
        max_ejection_time_s=max_s,
        max_ejection_time_jitter_s=view.duration_s("max_ejection_time_jitter", 0.0),
        max_ejection_percent=view.uint("max_ejection_percent", 10),
        always_eject_one_endpoint=view.bool("always_eject_one_host"),
        split_local_origin=view.bool("split_external_local_origin_errors"),
        active_check_unejects=view.bool("successful_active_health_check_uneject_host", True),
        consecutive_5xx=view.uint("consecutive_5xx", 5),
        consecutive_gateway_failure=view.uint("consecutive_gateway_failure", 5),
        consecutive_local_origin_failure=view.uint("consecutive_local_origin_failure", 5),
        success_rate_minimum_endpoints=view.uint("success_rate_minimum_hosts", 5),
        success_rate_request_volume=view.uint("success_rate_request_volume", 100),
        success_rate_stdev_factor=view.uint("success_rate_stdev_factor", 1900),
        failure_percentage_threshold=view.uint("failure_percentage_threshold", 85),
        failure_percentage_minimum_endpoints=view.uint("failure_percentage_minimum_hosts", 5),
        failure_percentage_request_volume=view.uint("failure_percentage_request_volume", 50),
        enforcing_consecutive_5xx=view.uint("enforcing_consecutive_5xx", 100),
        enforcing_consecutive_gateway_failure=view.uint("enforcing_consecutive_gateway_failure", 0),
        enforcing_consecutive_local_origin_failure=view.uint("enforcing_consecutive_local_origin_failure", 100),
        enforcing_success_rate=view.uint("enforcing_success_rate", 100),
        enforcing_local_origin_success_rate=view.uint("enforcing_local_origin_success_rate", 100),
        enforcing_failure_percentage=view.uint("enforcing_failure_percentage", 0),
        enforcing_failure_percentage_local_origin=view.uint("enforcing_failure_percentage_local_origin", 0),
    )
    return _with_runtime(config, context)


def _with_runtime(config: OutlierDetectionConfig, context: BuildContext) -> OutlierDetectionConfig:
    values: dict[str, float] = {}
    for name, field in _RUNTIME_NAMES.items():
        value = context.runtime_value(f"outlier_detection.{name}")
        if isinstance(value, int | float) and not isinstance(value, bool):
            values[field] = value / 1000 if name.endswith("_ms") else int(value)
    if "max_ejection_percent" in values:
        values["max_ejection_percent"] = min(values["max_ejection_percent"], 100)
    return replace(config, **values)  # type: ignore[arg-type]  # whole numbers where whole numbers are wanted
