"""What is known against an endpoint: Envoy's health flags (``HostUtility``), and what follows from them.

An endpoint is unhealthy when any of ``UNHEALTHY_FLAGS`` stands, else degraded when any of ``DEGRADED_FLAGS`` does, else healthy.
Who finds something out says so with ``Cluster.set_health_flags``; load balancers only read.
"""

from __future__ import annotations

from typing import Final

FAILED_ACTIVE_HC: Final = 0x1
"""Fails its active health checks."""
FAILED_OUTLIER_CHECK: Final = 0x2
"""Ejected by outlier detection."""
FAILED_EDS_HEALTH: Final = 0x4
"""The configuration or EDS says UNHEALTHY or TIMEOUT."""
DEGRADED_ACTIVE_HC: Final = 0x8
"""Its active health check answered with x-envoy-degraded."""
DEGRADED_EDS_HEALTH: Final = 0x10
PENDING_DYNAMIC_REMOVAL: Final = 0x20
"""No longer listed, but kept because its active health checks pass."""
PENDING_ACTIVE_HC: Final = 0x40
"""Waits for its first health check (``ignore_new_hosts_until_first_hc``): not counted until then."""
EXCLUDED_VIA_IMMEDIATE_HC_FAIL: Final = 0x80
"""A response said x-envoy-immediate-health-check-fail: not counted until the next health check."""
ACTIVE_HC_TIMEOUT: Final = 0x100
"""Its last failed health check was a timeout."""
EDS_STATUS_DRAINING: Final = 0x200

UNHEALTHY_FLAGS: Final = FAILED_ACTIVE_HC | FAILED_OUTLIER_CHECK | FAILED_EDS_HEALTH | EDS_STATUS_DRAINING
DEGRADED_FLAGS: Final = DEGRADED_ACTIVE_HC | DEGRADED_EDS_HEALTH
EXCLUDING_FLAGS: Final = PENDING_ACTIVE_HC | EXCLUDED_VIA_IMMEDIATE_HC_FAIL | EDS_STATUS_DRAINING
"""Such an endpoint is left out when the share of healthy ones is reckoned (panic, priorities)."""
CONFIGURED_FLAGS: Final = FAILED_EDS_HEALTH | DEGRADED_EDS_HEALTH | EDS_STATUS_DRAINING
"""What comes from ``health_status``; the others are found out while running."""

HEALTHY: Final = 0
DEGRADED: Final = 1
UNHEALTHY: Final = 2

_NAMES: Final = (
    (FAILED_ACTIVE_HC, "/failed_active_hc"),
    (FAILED_OUTLIER_CHECK, "/failed_outlier_check"),
    (FAILED_EDS_HEALTH, "/failed_eds_health"),
    (DEGRADED_ACTIVE_HC, "/degraded_active_hc"),
    (DEGRADED_EDS_HEALTH, "/degraded_eds_health"),
    (PENDING_DYNAMIC_REMOVAL, "/pending_dynamic_removal"),
    (PENDING_ACTIVE_HC, "/pending_active_hc"),
    (EXCLUDED_VIA_IMMEDIATE_HC_FAIL, "/excluded_via_immediate_hc_fail"),
    (ACTIVE_HC_TIMEOUT, "/active_hc_timeout"),
    (EDS_STATUS_DRAINING, "/eds_status_draining"),
)
_OF_STATUS: Final = {
    "UNHEALTHY": FAILED_EDS_HEALTH,
    "TIMEOUT": FAILED_EDS_HEALTH,
    "DRAINING": EDS_STATUS_DRAINING,
    "DEGRADED": DEGRADED_EDS_HEALTH,
}


def coarse(flags: int) -> int:
    """HEALTHY, DEGRADED or UNHEALTHY."""
    if flags & UNHEALTHY_FLAGS:
        return UNHEALTHY
    return DEGRADED if flags & DEGRADED_FLAGS else HEALTHY


def flags_of_status(health_status: str) -> int:
    """The flag that a ``core.v3.HealthStatus`` sets; 0 for HEALTHY and UNKNOWN."""
    return _OF_STATUS.get(health_status, 0)


def names(flags: int) -> tuple[str, ...]:
    """The flags as /clusters shows them: "/failed_active_hc" …; empty means healthy."""
    return tuple(name for flag, name in _NAMES if flags & flag)
