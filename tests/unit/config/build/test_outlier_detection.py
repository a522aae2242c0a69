"""Outlier detection of clusters, and its event log."""

from __future__ import annotations

import pytest

from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.outlier_detection import OutlierDetectionConfig, build_outlier_detection
from tests.unit.config.build.building import built, value_of

OUTLIERS = "envoy.config.cluster.v3.OutlierDetection"


def test_defaults_are_envoys():
    assert value_of(build_outlier_detection, OUTLIERS, "{}") == OutlierDetectionConfig()


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("interval: 1s", "interval_s", 1.0),
        ("base_ejection_time: 400s", "max_ejection_time_s", 400.0),
        ("max_ejection_time: 31s", "max_ejection_time_s", 31.0),
        ("max_ejection_time_jitter: 2s", "max_ejection_time_jitter_s", 2.0),
        ("max_ejection_percent: 33", "max_ejection_percent", 33),
        ("always_eject_one_host: true", "always_eject_one_endpoint", True),
        ("split_external_local_origin_errors: true", "split_local_origin", True),
        ("successful_active_health_check_uneject_host: false", "active_check_unejects", False),
        ("consecutive_5xx: 1", "consecutive_5xx", 1),
        ("consecutive_gateway_failure: 1", "consecutive_gateway_failure", 1),
        ("consecutive_local_origin_failure: 1", "consecutive_local_origin_failure", 1),
        ("success_rate_minimum_hosts: 1", "success_rate_minimum_endpoints", 1),
        ("success_rate_request_volume: 1", "success_rate_request_volume", 1),
        ("success_rate_stdev_factor: 1", "success_rate_stdev_factor", 1),
        ("failure_percentage_threshold: 1", "failure_percentage_threshold", 1),
        ("failure_percentage_minimum_hosts: 1", "failure_percentage_minimum_endpoints", 1),
        ("failure_percentage_request_volume: 1", "failure_percentage_request_volume", 1),
        ("enforcing_consecutive_5xx: 1", "enforcing_consecutive_5xx", 1),
        ("enforcing_consecutive_gateway_failure: 1", "enforcing_consecutive_gateway_failure", 1),
        ("enforcing_consecutive_local_origin_failure: 1", "enforcing_consecutive_local_origin_failure", 1),
        ("enforcing_success_rate: 1", "enforcing_success_rate", 1),
        ("enforcing_local_origin_success_rate: 1", "enforcing_local_origin_success_rate", 1),
        ("enforcing_failure_percentage: 1", "enforcing_failure_percentage", 1),
        ("enforcing_failure_percentage_local_origin: 1", "enforcing_failure_percentage_local_origin", 1),
    ],
)
def test_fields(text, name, value):
    assert getattr(value_of(build_outlier_detection, OUTLIERS, f"{{{text}}}"), name) == value


def test_a_maximum_below_the_base_is_refused():
    outcome = built(build_outlier_detection, OUTLIERS, "{max_ejection_time: 10s}")
    assert outcome.errors == [
        "max_ejection_time: outlier detector's max_ejection_time cannot be smaller than base_ejection_time"
    ]


def test_without_a_message_there_is_none():
    assert build_outlier_detection(None, None) is None


def test_runtime_layers_take_the_place_of_fields():
    runtime = {
        "outlier_detection.interval_ms": 500,
        "outlier_detection.consecutive_5xx": 2,
        "outlier_detection.max_ejection_percent": 200,
        "outlier_detection.success_rate_minimum_hosts": 1,
        "outlier_detection.enforcing_success_rate": True,
    }
    context = BuildContext(runtime=runtime)
    config = value_of(build_outlier_detection, OUTLIERS, "{consecutive_5xx: 9, interval: 1s}", context)
    assert (config.interval_s, config.consecutive_5xx, config.max_ejection_percent) == (0.5, 2, 100)
    assert (config.success_rate_minimum_endpoints, config.enforcing_success_rate) == (1, 100)
    assert runtime.keys() <= context.runtime_used
