"""``config.cluster.v3.OutlierDetection`` → OutlierDetectionConfig."""

from __future__ import annotations

from dataclasses import dataclass

from forkproxy.config.build.context import BuildContext
from forkproxy.config.view import View

default_max_ejection_time_s = 300.0


@dataclass(frozen=True, slots=True)
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
    return OutlierDetectionConfig(
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
