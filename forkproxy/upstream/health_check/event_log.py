"""Health check events, as JSON lines of Envoy's ``data.core.v3.HealthCheckEvent``: fields in its order, defaults written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from forkproxy.upstream.endpoint import Endpoint

DEGRADED: Final = "degraded_healthy_host"
NO_LONGER_DEGRADED: Final = "no_longer_degraded_host"


class EventLog:
    """The events of one checker. ``sinks`` take a line each; without any, nothing is made."""

    __slots__ = ("_checker_type", "_cluster", "_sinks", "_wall")

    def __init__(
        self, checker_type: str, cluster: str, sinks: Sequence[Callable[[bytes], None]], wall: Callable[[], float]
    ) -> None:
        self._checker_type = checker_type
        self._cluster = cluster
        self._sinks = tuple(sinks)
        self._wall = wall

    def eject(self, endpoint: Endpoint, kind: str, status: int) -> None:
        """A healthy endpoint is healthy no more."""
        event = {"failure_type": kind, "http_status_code": status}
        self._write(endpoint, {"eject_unhealthy_event": event}, {})

    def add_healthy(self, endpoint: Endpoint, *, first_check: bool) -> None:
        """An unhealthy endpoint is healthy."""
        self._write(endpoint, {"add_healthy_event": {"first_check": first_check}}, {})

    def failure(self, endpoint: Endpoint, kind: str, status: int, *, first_check: bool) -> None:
        """A check failed."""
        event = {"failure_type": kind, "first_check": first_check, "http_status_code": status}
        self._write(endpoint, {}, {"health_check_failure_event": event})

    def successful(self, endpoint: Endpoint) -> None:
        """A check succeeded that changed nothing."""
        self._write(endpoint, {}, {}, {"successful_health_check_event": {}})

    def write_plain(self, endpoint: Endpoint, event: str) -> None:
        """An event that has nothing to tell but its name: DEGRADED, NO_LONGER_DEGRADED."""
        self._write(endpoint, {}, {event: {}})

    def _write(
        self,
        endpoint: Endpoint,
        before_time: dict[str, Any],
        after_time: dict[str, Any],
        at_end: dict[str, Any] | None = None,
    ) -> None:
        if not self._sinks:
            return
        config = endpoint.config
        line = orjson.dumps(
            {
                "health_checker_type": self._checker_type,
                "host": address_json(endpoint.socket_address),
                "cluster_name": self._cluster,
                **before_time,
                "timestamp": timestamp(self._wall()),
                **after_time,
                "locality": {"region": config.region, "zone": config.zone, "sub_zone": config.sub_zone},
                **(at_end or {}),
            }
        )
        for sink in self._sinks:
            sink(line + b"\n")


def address_json(address: tuple[str, int] | str) -> dict[str, Any]:
    """``core.v3.Address`` with every field."""
    if isinstance(address, str):
        return {"pipe": {"path": "@" + address[1:] if address.startswith("\0") else address, "mode": 0}}
    return {
        "socket_address": {
            "protocol": "TCP",
            "address": address[0],
            "port_value": address[1],
            "resolver_name": "",
            "ipv4_compat": False,
            "network_namespace_filepath": "",
        }
    }


def timestamp(wall_s: float) -> str:
    """Seconds since the epoch as protobuf's JSON has a Timestamp: UTC, in milliseconds, without fraction when it is zero."""
    milliseconds = round(wall_s * 1000)
    text = datetime.fromtimestamp(milliseconds // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{milliseconds % 1000:03d}Z" if milliseconds % 1000 else text + "Z"
