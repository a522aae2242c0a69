"""The one table that names all filters, and the only place that imports them: lazily, when a configuration names one.

Envoy's filters are found by the type URL of their configuration (the configuration's builders have mapped Envoy's old and new
names to it). A third party's class is named in the configuration as ``module:Class``. Its module is imported in the
supervisor, from where Python finds modules: what is installed beside forkproxy, ``PYTHONPATH``, and last the directory of the
configuration file (``cli``), so that a service's filters lie in /etc/forkproxy beside its file. The working directory is not
asked. A reload reads the file again, not the modules: new code needs a restart.
"""

from __future__ import annotations

import importlib
import traceback
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
    "envoy.extensions.filters.http.basic_auth.v3.BasicAuth": "forkproxy.filters.http.basic_auth:BasicAuth",
    "envoy.extensions.filters.http.buffer.v3.Buffer": "forkproxy.filters.http.buffer:Buffer",
    "envoy.extensions.filters.http.compressor.v3.Compressor": "forkproxy.filters.http.compressor:Compressor",
    "envoy.extensions.filters.http.decompressor.v3.Decompressor": "forkproxy.filters.http.decompressor:Decompressor",
    "envoy.extensions.filters.http.cors.v3.Cors": "forkproxy.filters.http.cors:Cors",
    "envoy.extensions.filters.http.csrf.v3.CsrfPolicy": "forkproxy.filters.http.csrf:Csrf",
    "envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig": (
        "forkproxy.filters.http.dynamic_forward_proxy:DynamicForwardProxy"
    ),
    "envoy.extensions.filters.http.fault.v3.HTTPFault": "forkproxy.filters.http.fault:Fault",
    "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation": (
        "forkproxy.filters.http.header_mutation:HeaderMutation"
    ),
    "envoy.extensions.filters.http.header_to_metadata.v3.Config": (
        "forkproxy.filters.http.header_to_metadata:HeaderToMetadata"
    ),
    "envoy.extensions.filters.http.rbac.v3.RBAC": "forkproxy.filters.http.rbac:Rbac",
    "envoy.extensions.filters.http.ip_tagging.v3.IPTagging": "forkproxy.filters.http.ip_tagging:IpTagging",
    "envoy.extensions.filters.http.health_check.v3.HealthCheck": "forkproxy.filters.http.health_check:HealthCheck",
    "envoy.extensions.filters.http.set_metadata.v3.Config": "forkproxy.filters.http.set_metadata:SetMetadata",
    "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit": (
        "forkproxy.filters.http.local_ratelimit:LocalRateLimit"
    ),
    "envoy.extensions.filters.http.stateful_session.v3.StatefulSession": (
        "forkproxy.filters.http.stateful_session:StatefulSession"
    ),
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
            "is it installed here, on PYTHONPATH, or beside the configuration file?",
        ) from None
    except Exception as error:
        raise bug(entry, "cannot be loaded", error) from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ConfigError(
            where.path,
            where.line,
            where.column,
            f'"{entry.name}" is not a {base.__name__}',
            f"the class must derive from {base.__module__}.{base.__name__}",
        )
    return found


def bug(entry: FilterEntry, what: str, error: Exception) -> ConfigError:
    """The refusal of a file whose filter raised: its place in the file and in the code, as there is no traceback at load."""
    frames = traceback.extract_tb(error.__traceback__)
    hint = f"at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    reason = f"{type(error).__name__}: {error}".rstrip(": ")
    where = entry.where
    return ConfigError(where.path, where.line, where.column, f'filter "{entry.name}" {what}: {reason}', hint)


def _make(cls: type[F], entry: FilterEntry, context: FilterContext) -> F:
    if entry.type_url:
        return cls.from_config(entry.config, context)
    where = entry.where
    try:
        made = cls.from_config(entry.config, context)
    except ConfigError as error:
        if error.line:
            raise
        raise ConfigError(where.path, where.line, where.column, error.message, error.hint) from None
    except Exception as error:
        raise bug(entry, "cannot be made of its configuration", error) from error
    if not isinstance(made, cls):
        message = f'filter "{entry.name}": from_config returned {type(made).__name__}, not a {cls.__name__}'
        raise ConfigError(where.path, where.line, where.column, message)
    return made


def _build(entries: Sequence[FilterEntry], table: dict[str, str], base: type[F], context: FilterContext) -> list[F]:
    filters: list[F] = []
    for entry in entries:
        cls = _load(table[entry.type_url] if entry.type_url else entry.name, entry, base)
        context.where, context.name = entry.where, entry.name
        filters.append(_make(cls, entry, context))
    return filters


def make_http_filters(entries: Sequence[FilterEntry], context: FilterContext) -> list[HttpFilter]:
    """Those of a chain without an end of its own. ConfigError as below."""
    return _build(entries, HTTP_FILTERS, HttpFilter, context)


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
    """The HTTP filters of a connection manager, in order. ConfigError as above."""
    filters = _build(entries, HTTP_FILTERS, HttpFilter, context)
    _check_terminal(filters, entries)
    return filters
