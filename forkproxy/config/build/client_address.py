"""How a connection manager finds out who its clients are, and who of them is inside: ``HttpConnectionManager``'s
``original_ip_detection_extensions`` and ``internal_address_config``, and the messages of ``envoy.http.original_ip_detection``."""

from __future__ import annotations

import ipaddress

from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import build_cidr_range
from forkproxy.config.schema import schema
from forkproxy.config.values import frozen
from forkproxy.config.view import View

_STATUS_CODE = "envoy.type.v3.StatusCode"


@frozen
class XffDetectionConfig:
    """``XffConfig``. With ``trusted_ranges`` ("address/len") the client is the last address that is in none of them."""

    num_trusted_hops: int
    trusted_ranges: tuple[str, ...]
    skip_append: bool


@frozen
class HeaderDetectionConfig:
    """``CustomHeaderConfig``. ``reject_status``: of the answer to a request without an address in that header; 0: it passes."""

    header_name: str
    is_trusted: bool
    reject_status: int


@frozen
class ClientAddressConfig:
    """All of it. ``internal_ranges``: "address/len"."""

    use_remote_address: bool
    xff_num_trusted_hops: int
    skip_xff_append: bool
    append_x_forwarded_port: bool
    detections: tuple[XffDetectionConfig | HeaderDetectionConfig, ...]
    internal_ranges: tuple[str, ...]
    internal_unix_sockets: bool


def build_client_address(view: View, context: BuildContext) -> ClientAddressConfig:
    """What ``HttpConnectionManager`` says about addresses."""
    made = [
        context.typed(typed, f'the original IP detection "{each.str("name")}"')
        for each in view.repeated("original_ip_detection_extensions")
        if (typed := each.any("typed_config")) is not None
    ]
    internal = view.message("internal_address_config")
    ranges: tuple[str, ...] = ()
    if internal is not None:
        ranges = context.each(internal.repeated("cidr_ranges"), build_cidr_range)
    return ClientAddressConfig(
        use_remote_address=view.bool("use_remote_address"),
        xff_num_trusted_hops=view.uint("xff_num_trusted_hops"),
        skip_xff_append=view.bool("skip_xff_append"),
        append_x_forwarded_port=view.bool("append_x_forwarded_port"),
        detections=tuple(each.value for each in made if each is not None),
        internal_ranges=ranges,
        internal_unix_sockets=internal is not None and internal.bool("unix_sockets"),
    )


def build_xff(view: View, context: BuildContext) -> XffDetectionConfig:
    """``XffConfig``. A range that is none, which Envoy leaves out, is refused: without it others may be trusted."""
    trusted = view.message("xff_trusted_cidrs")
    ranges: list[str] = []
    for each in trusted.repeated("cidrs") if trusted is not None else ():
        try:
            ipaddress.ip_address(each.str("address_prefix"))
        except ValueError:
            each.unsupported("not an IP address: Envoy leaves such a range out", field="address_prefix")
            each.uint("prefix_len")
            continue
        ranges.append(build_cidr_range(each, context))
    return XffDetectionConfig(
        num_trusted_hops=view.uint("xff_num_trusted_hops"),
        trusted_ranges=tuple(ranges),
        skip_append=view.bool("skip_xff_append", True),
    )


def build_custom_header(view: View, context: BuildContext) -> HeaderDetectionConfig:
    """``CustomHeaderConfig``. A status that is no error becomes 403, as in Envoy."""
    reject = view.message("reject_with_status")
    status = 0
    if reject is not None:
        numbers = {name: number for number, name in schema().enum(_STATUS_CODE).names.items()}
        code = numbers.get(reject.enum("code"), 0)
        status = code if code >= 400 else 403
    return HeaderDetectionConfig(
        view.str("header_name").lower(), view.bool("allow_extension_to_set_address_as_trusted"), status
    )
