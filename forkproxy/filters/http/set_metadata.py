"""Puts fixed values into a request's dynamic metadata, for rbac, subset load balancing and access logs.

    - name: envoy.filters.http.set_metadata
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.http.set_metadata.v3.Config
        metadata: [{metadata_namespace: envoy.lb, value: {stage: canary}}]

A namespace that is there already stays as it is, or with ``allow_overwrite`` gets the new values: structs are merged, lists
appended, everything else replaced. A route's ``Config`` comes after the filter's.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from forkproxy.config.build.set_metadata import SetMetadataConfig
from forkproxy.filters.context import FilterContext
from forkproxy.http.filter import HookResult, HttpFilter
from forkproxy.http.headers import Headers
from forkproxy.http.stream import Stream
from forkproxy.router.table import Route


class SetMetadata(HttpFilter):
    """See the module's text."""

    def __init__(self, name: str, config: SetMetadataConfig) -> None:
        self.name = name
        self.config = config

    @classmethod
    def from_config(cls, config: SetMetadataConfig, context: FilterContext) -> SetMetadata:
        """Nothing is counted."""
        return cls(context.name, config)

    def route_config(self, configs: Sequence[Any], route: Route) -> SetMetadataConfig | None:
        """The most specific one."""
        return next((config for config in configs if isinstance(config, SetMetadataConfig)), None)

    def decode_headers(self, stream: Stream, headers: Headers, end_stream: bool) -> HookResult:
        """Set them."""
        metadata = stream.dynamic_metadata
        _set(metadata, self.config)
        route = stream.route
        if route is not None and self.name in route.per_filter_config:
            _set(metadata, route.per_filter_config[self.name])
        return None


def _set(metadata: dict[str, dict[str, Any]], config: SetMetadataConfig) -> None:
    for entry in config.entries:
        found = metadata.get(entry.namespace)
        if found is None:
            metadata[entry.namespace] = deepcopy(entry.values)
        elif entry.allow_overwrite:
            merge(found, entry.values)


def merge(into: dict[str, Any], values: dict[str, Any]) -> None:
    """Put ``values``, which stay as they are, into a struct."""
    for key, value in values.items():
        found = into.get(key)
        if isinstance(found, dict) and isinstance(value, dict):
            merge(found, value)
        elif isinstance(found, list) and isinstance(value, list):
            found.extend(deepcopy(value))
        else:
            into[key] = deepcopy(value)
