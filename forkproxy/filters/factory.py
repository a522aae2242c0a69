"""The one table that names all filters, and the only place that imports them: lazily, when a configuration names one.

Envoy's filters are found by the type URL of their configuration (the configuration's builders have mapped Envoy's old and new
names to it). A third party's class is named in the configuration as ``module:Class``.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TypeVar

from forkproxy.config.build.listener import FilterEntry
from forkproxy.config.problems import ConfigError
from forkproxy.filters.context import FilterContext
from forkproxy.http.filter import HttpFilter
from forkproxy.net.filter import NetworkFilter, check_direction

NETWORK_FILTERS: dict[str, str] = {
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager": (
        "forkproxy.filters.network.http_connection_manager:HttpConnectionManagerFilter"
    ),
    "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy": "forkproxy.filters.network.tcp_proxy:TcpProxy",
    "envoy.extensions.filters.network.echo.v3.Echo": "forkproxy.filters.network.echo:Echo",
    "envoy.extensions.filters.network.direct_response.v3.Config": (
        "forkproxy.filters.network.direct_response:DirectResponse"
    ),
}

HTTP_FILTERS: dict[str, str] = {
    "envoy.extensions.filters.http.router.v3.Router": "forkproxy.filters.http.router:Router",
}

F = TypeVar("F", NetworkFilter, HttpFilter)


def _load(spec: str, entry: FilterEntry, base: type[F]) -> type[F]:
    module_name, _, class_name = spec.partition(":")
    where = entry.where
    try:
        module = importlib.import_module(module_name)
        found = getattr(module, class_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            where.path,
            where.line,
            where.column,
            f'filter "{entry.name}" cannot be loaded: {error}',
            "is it installed here?",
        ) from None
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ConfigError(
            where.path,
            where.line,
            where.column,
            f'"{entry.name}" is not a {base.__name__}',
            f"the class must derive from {base.__module__}.{base.__name__}",
        )
    return found


def _build(entries: Sequence[FilterEntry], table: dict[str, str], base: type[F], context: FilterContext) -> list[F]:
    filters: list[F] = []
    for entry in entries:
        cls = _load(table[entry.type_url] if entry.type_url else entry.name, entry, base)
        context.where = entry.where
        filters.append(cls.from_config(entry.config, context))
    return filters


def _check_terminal(filters: Sequence[F], entries: Sequence[FilterEntry]) -> None:
    for position, (filter_object, entry) in enumerate(zip(filters, entries, strict=True)):
        last = position == len(filters) - 1
        where = entry.where
        if filter_object.terminal and not last:
            raise ConfigError(
                where.path,
                where.line,
                where.column,
                f'terminal filter "{entry.name}" must be the last of its chain',
                "",
            )
        if last and not filter_object.terminal:
            raise ConfigError(
                where.path,
                where.line,
                where.column,
                f'non-terminal filter "{entry.name}" is the last of its chain',
                "a chain ends with a filter that consumes the data, such as tcp_proxy or router",
            )


def network_filters(entries: Sequence[FilterEntry], context: FilterContext) -> list[NetworkFilter]:
    """The filters of a filter chain, in order. ConfigError when one cannot be loaded or the order is wrong."""
    filters = _build(entries, NETWORK_FILTERS, NetworkFilter, context)
    for filter_object, entry in zip(filters, entries, strict=True):
        wrong = check_direction(type(filter_object))
        if wrong:
            where = entry.where
            raise ConfigError(where.path, where.line, where.column, f'filter "{entry.name}" {wrong}', "")
    _check_terminal(filters, entries)
    return filters


def http_filters(entries: Sequence[FilterEntry], context: FilterContext) -> list[HttpFilter]:
    """The HTTP filters of a connection manager, in order; disabled ones are left out. ConfigError as above."""
    used = [entry for entry in entries if not entry.disabled]
    filters = _build(used, HTTP_FILTERS, HttpFilter, context)
    _check_terminal(filters, used)
    return filters
