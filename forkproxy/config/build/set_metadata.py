"""``extensions.filters.http.set_metadata.v3``: values for dynamic metadata."""

from __future__ import annotations

from typing import Any

from forkproxy.config.build.context import BuildContext
from forkproxy.config.values import frozen
from forkproxy.config.view import View


@frozen
class MetadataEntry:
    """Values of one namespace. Without ``allow_overwrite`` they only count where the namespace is not there yet."""

    namespace: str
    allow_overwrite: bool
    values: dict[str, Any]


@frozen
class SetMetadataConfig:
    """``Config``: the entries in the order in which they are set."""

    entries: tuple[MetadataEntry, ...]


def build(view: View, context: BuildContext) -> SetMetadataConfig:
    """``Config``, of the filter and of routes, with its deprecated form first."""
    namespace = view.str("metadata_namespace")
    old = (MetadataEntry(namespace, True, view.struct("value")),) if namespace and view.has("value") else ()
    entries = context.each(view.repeated("metadata"), build_entry)
    return SetMetadataConfig((*old, *(entry for entry in entries if entry is not None)))


def build_entry(view: View, context: BuildContext) -> MetadataEntry | None:
    """``Metadata``; one without a ``value`` sets nothing that anybody here reads."""
    view.ignore("typed_value", why="nothing that is implemented reads typed metadata")
    namespace, overwrites = view.str("metadata_namespace"), view.bool("allow_overwrite")
    return MetadataEntry(namespace, overwrites, view.struct("value")) if view.has("value") else None
