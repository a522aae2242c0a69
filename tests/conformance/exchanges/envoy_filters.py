"""The exchanges of HTTP filters that have a module each."""

from __future__ import annotations

from tests.conformance.exchanges import (
    basic_auth,
    csrf,
    faults,
    health_check_filter,
    ip_tagging,
    metadata_filters,
    mutations,
    rbac,
)

_MODULES = (basic_auth, csrf, faults, health_check_filter, ip_tagging, metadata_filters, mutations, rbac)
CONFIGURATIONS = {name: data for module in _MODULES for name, data in module.CONFIGURATIONS.items()}
EXCHANGES = [exchange for module in _MODULES for exchange in module.EXCHANGES]
