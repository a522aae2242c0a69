"""Who the client is: what the builder makes of the connection manager's fields, and of the detectors."""

from __future__ import annotations

from forkproxy.config.build.client_address import HeaderDetectionConfig, XffDetectionConfig
from forkproxy.config.build.http_connection_manager import build, type_url
from tests.unit.config.build.building import TYPE, built, value_of

DETECTION = f"{TYPE}envoy.extensions.http.original_ip_detection."


def text(rest):
    return f"{{stat_prefix: s, route_config: {{name: r}}, {rest}}}"


def made(rest):
    return value_of(build, type_url, text(rest)).client_address


def detected(kind, fields=""):
    return f"original_ip_detection_extensions: [{{name: d, typed_config: {{'@type': {DETECTION}{kind}{fields}}}}}]"


def test_envoys_defaults():
    config = made("via: v")
    assert (config.use_remote_address, config.xff_num_trusted_hops, config.skip_xff_append) == (False, 0, False)
    assert (config.append_x_forwarded_port, config.detections) == (False, ())
    assert (config.internal_ranges, config.internal_unix_sockets) == ((), False)


def test_everything_at_the_edge():
    config = made(
        "use_remote_address: true, xff_num_trusted_hops: 2, skip_xff_append: true, append_x_forwarded_port: true"
    )
    assert (config.use_remote_address, config.xff_num_trusted_hops, config.skip_xff_append) == (True, 2, True)
    assert config.append_x_forwarded_port


def test_internal_addresses():
    config = made(
        "internal_address_config: {unix_sockets: true, cidr_ranges: [{address_prefix: 10.1.2.3, prefix_len: 8}]}"
    )
    assert (config.internal_ranges, config.internal_unix_sockets) == (("10.0.0.0/8",), True)


def test_detection_by_x_forwarded_for():
    (config,) = made(detected("xff.v3.XffConfig", ", xff_num_trusted_hops: 1")).detections
    assert config == XffDetectionConfig(1, (), True)
    ranges = ", skip_xff_append: false, xff_trusted_cidrs: {cidrs: [{address_prefix: 10.0.0.0, prefix_len: 8}]}"
    assert made(detected("xff.v3.XffConfig", ranges)).detections == (XffDetectionConfig(0, ("10.0.0.0/8",), False),)


def test_a_trusted_range_that_is_none_is_not_left_out():
    ranges = ", xff_trusted_cidrs: {cidrs: [{address_prefix: nonsense, prefix_len: 8}]}"
    (problem,) = built(build, type_url, text(detected("xff.v3.XffConfig", ranges))).unsupported
    assert problem.endswith("address_prefix: not an IP address: Envoy leaves such a range out")


def test_detection_by_a_header():
    kind = "custom_header.v3.CustomHeaderConfig"
    (config,) = made(
        detected(kind, ", header_name: X-Real, allow_extension_to_set_address_as_trusted: true")
    ).detections
    assert config == HeaderDetectionConfig("x-real", True, 0)
    for code, status in (("Unauthorized", 401), ("OK", 403)):
        (config,) = made(detected(kind, f", header_name: x, reject_with_status: {{code: {code}}}")).detections
        assert config == HeaderDetectionConfig("x", False, status)
