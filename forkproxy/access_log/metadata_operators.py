"""Operators that look into metadata and filter state: of the stream, its route, its endpoint, and of the place of the log."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

Read = Callable[[Any], object]
Metadata = Mapping[str, Any]

_NOTHING: Metadata = {}


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Metadata:
    found: Metadata = json.loads(text)
    return found


def _of_stream(stream: Any) -> Metadata:
    found: Metadata = stream.dynamic_metadata
    return found


def _of_cluster(stream: Any) -> Metadata:
    return stream.cluster.config.metadata if stream.cluster is not None else _NOTHING


def _of_route(stream: Any) -> Metadata:
    route = stream.route
    return route.config.metadata if route is not None and route.config is not None else _NOTHING


def _of_virtual_host(stream: Any) -> Metadata:
    return stream.virtual_host.config.metadata if stream.virtual_host is not None else _NOTHING


def _of_endpoint(stream: Any) -> Metadata:
    endpoint = stream.endpoint
    return _parsed(endpoint.config.filter_metadata or "{}") if endpoint is not None else _NOTHING


SOURCES: dict[str, Callable[[Any], Metadata]] = {
    "DYNAMIC": _of_stream,
    "CLUSTER": _of_cluster,
    "ROUTE": _of_route,
    "VIRTUAL_HOST": _of_virtual_host,
    "UPSTREAM_HOST": _of_endpoint,
}
"""Kinds of %METADATA(KIND:…)%, besides those of the log's place."""
PLACES = {"LISTENER": "LISTENER_METADATA", "LISTENER_FILTER_CHAIN": "FILTER_CHAIN_METADATA"}
"""Kinds that belong to the log's place, and their names among its ``static`` values."""


def _at(metadata: Metadata, namespace: str, keys: Sequence[str]) -> object:
    value = metadata.get(namespace)
    for key in keys:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def metadata_reader(kind: str, path: str, static: Mapping[str, Any]) -> Read:
    """The value at "namespace:key:key" of the metadata of ``kind``; None when there is none."""
    namespace, *keys = path.split(":")
    if kind in PLACES:
        constant = _at(static.get(PLACES[kind], _NOTHING), namespace, keys)
        return lambda _stream: constant
    source = SOURCES[kind]
    return lambda stream: _at(source(stream), namespace, keys)


def filter_state_reader(argument: str | None) -> Read:
    """%FILTER_STATE(KEY:TYPE:FIELD)%: what a filter has left under a name. Raises ValueError."""
    key, _, rest = (argument or "").partition(":")
    form, _, field = rest.partition(":")
    if not key:
        raise ValueError("Invalid filter state configuration, key cannot be empty.")
    if form not in ("", "PLAIN", "TYPED", "FIELD"):
        raise ValueError("Invalid filter state serialize type, only support PLAIN/TYPED/FIELD.")
    if (form == "FIELD") is not bool(field):
        raise ValueError("Invalid filter state serialize type, FIELD should be used with the field name.")
    keys = (field,) if field else ()

    def read(stream: Any) -> object:
        value = _at(stream.filter_state, key, keys)
        if isinstance(value, dict | list | tuple):
            text = json.dumps(value, separators=(",", ":"), sort_keys=True, default=_text)
            return text if form == "PLAIN" else json.loads(text)
        if isinstance(value, bytes):
            return _text(value)
        return value if isinstance(value, str | int | float) else None

    return read


def _text(value: object) -> str:
    # Filters may leave what JSON has no words for.
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
