"""/config_dump: the configuration in force in the shape of Envoy's ConfigDump, and what its query parameters select.

https://www.envoyproxy.io/docs/envoy/latest/operations/admin#get--config_dump; messages in envoy/admin/v3/config_dump.proto.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TypeAlias, cast

from forkproxy.admin.context import ClusterView, EndpointView
from forkproxy.admin.views import address_json

Json: TypeAlias = dict[str, object]

_ADMIN = "type.googleapis.com/envoy.admin.v3."
_CONFIG = "type.googleapis.com/envoy.config."
_HCM = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
# The repeated fields of the dumps, and where an element has the name that ?name_regex= looks at.
_LISTS = {
    "static_clusters": ("cluster", "name"),
    "static_listeners": ("listener", "name"),
    "static_route_configs": ("route_config", "name"),
    "static_endpoint_configs": ("endpoint_config", "cluster_name"),
}
# Those that only xDS and secret discovery would fill.
_ALWAYS_EMPTY = frozenset(
    (
        *("dynamic_active_clusters", "dynamic_warming_clusters", "dynamic_listeners", "dynamic_route_configs"),
        *("dynamic_endpoint_configs", "inline_scoped_route_configs", "dynamic_scoped_route_configs"),
        *("static_secrets", "dynamic_active_secrets", "dynamic_warming_secrets"),
    )
)


class NotFoundInDump(Exception):
    """The parameters name something that is not there: answered with 404 and this text."""


class BadSelection(Exception):
    """The parameters make no sense: answered with 400 and this text."""


def timestamp(moment: datetime) -> str:
    """RFC 3339 with milliseconds, as protobuf's JSON writes a Timestamp."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def full_dump(
    bootstrap: Mapping[str, object],
    updated: str,
    endpoints: Sequence[ClusterView] | None,
    refused: tuple[str, datetime] | None = None,
) -> list[Json]:
    """All dumps. ``bootstrap``: the v3 bootstrap as JSON-ready data. ``endpoints`` None leaves the endpoints out.

    ``refused``: why and when the last reload was refused. It stands as ``error_state`` beside the bootstrap, in the shape of
    Envoy's UpdateFailureState, which Envoy has for what xDS may change only.
    """
    static = _mapping(bootstrap.get("static_resources"))
    listeners = [_mapping(listener) for listener in _list(static.get("listeners"))]
    clusters = [_mapping(cluster) for cluster in _list(static.get("clusters"))]
    dumps: list[Json] = [
        {"@type": _ADMIN + "BootstrapConfigDump", "bootstrap": dict(bootstrap), "last_updated": updated},
        _dump("ClustersConfigDump", "static_clusters", "cluster", "cluster.v3.Cluster", clusters, updated),
    ]
    if endpoints is not None:
        loads: list[Json] = [{"endpoint_config": _load_assignment(cluster)} for cluster in endpoints]
        dumps.append(_with_type("EndpointsConfigDump", "static_endpoint_configs", loads))
    if refused is not None:
        details, moment = refused
        dumps[0]["error_state"] = {"last_update_attempt": timestamp(moment), "details": details}
    routes = _route_configs(listeners)
    dumps += [
        _dump("ListenersConfigDump", "static_listeners", "listener", "listener.v3.Listener", listeners, updated),
        {"@type": _ADMIN + "ScopedRoutesConfigDump"},
        _dump(
            "RoutesConfigDump", "static_route_configs", "route_config", "route.v3.RouteConfiguration", routes, updated
        ),
        {"@type": _ADMIN + "SecretsConfigDump"},
    ]
    return dumps


def _dump(kind: str, list_name: str, field: str, message: str, elements: Iterable[Json], updated: str) -> Json:
    entries: list[Json] = [
        {field: {"@type": _CONFIG + message, **element}, "last_updated": updated} for element in elements
    ]
    return _with_type(kind, list_name, entries)


def _with_type(kind: str, list_name: str, entries: Sequence[Json]) -> Json:
    return {"@type": _ADMIN + kind, list_name: list(entries)} if entries else {"@type": _ADMIN + kind}


def _load_assignment(cluster: ClusterView) -> Json:
    groups: dict[tuple[int, str, str, str], list[Json]] = {}
    for endpoint in cluster.endpoints:
        described: Json = {
            "address": address_json(endpoint.address),
            "health_check_config": _health_check_config(endpoint),
        }
        if endpoint.hostname:
            described["hostname"] = endpoint.hostname
        key = (endpoint.priority, endpoint.region, endpoint.zone, endpoint.sub_zone)
        groups.setdefault(key, []).append(
            {
                "endpoint": described,
                "health_status": _health_status(endpoint.health_flags),
                "metadata": {},
                "load_balancing_weight": endpoint.weight,
            }
        )
    localities: list[Json] = []
    for (priority, region, zone, sub_zone), endpoints in groups.items():
        locality = {"region": region, "zone": zone, "sub_zone": sub_zone}
        entry: Json = {
            "locality": {name: value for name, value in locality.items() if value},
            "lb_endpoints": endpoints,
        }
        if priority:
            entry["priority"] = priority
        localities.append(entry)
    return {
        "@type": _CONFIG + "endpoint.v3.ClusterLoadAssignment",
        "cluster_name": cluster.name,
        "endpoints": localities,
        "policy": {"overprovisioning_factor": 140},
    }


def _health_status(flags: Sequence[str]) -> str:
    if any(flag.startswith("/failed") or flag == "/eds_status_draining" for flag in flags):
        return "UNHEALTHY"
    return "DEGRADED" if any(flag.startswith("/degraded") for flag in flags) else "HEALTHY"


def _health_check_config(endpoint: EndpointView) -> Json:
    found: Json = {"port_value": endpoint.check_port, "hostname": endpoint.check_hostname}
    return {name: value for name, value in found.items() if value}


def _route_configs(listeners: Iterable[Json]) -> list[Json]:
    """The route tables that connection managers hold inline, in the order of the file."""
    found: list[Json] = []
    for listener in listeners:
        for chain in (*_list(listener.get("filter_chains")), listener.get("default_filter_chain")):
            for entry in _list(_mapping(chain).get("filters")):
                config = _mapping(_mapping(entry).get("typed_config"))
                if str(config.get("@type")).endswith(_HCM) and "route_config" in config:
                    found.append(_mapping(config["route_config"]))
    return found


def select(
    dumps: list[Json], resource: str | None, mask: str | None, matches: Callable[[str], bool] | None
) -> list[Json]:
    """What ?resource=, ?mask= and ?name_regex= leave of the dumps.

    A dump without a match loses its list; with ``resource`` only that list's elements are shown, each with its type.
    Raises NotFoundInDump and BadSelection.
    """
    if matches is not None:
        dumps = [_only_named(dump, matches) for dump in dumps]
    if resource is not None:
        dumps = list(_elements(dumps, resource))
    if mask is None:
        return dumps
    paths = [path.split(".") for path in mask.split(",") if path]
    masked = [picked for picked in (_pick(dump, paths) for dump in dumps) if set(picked) - {"@type"}]
    if dumps and not masked:
        if resource is None:
            raise BadSelection(f"FieldMask {mask} could not be successfully applied to any configs.")
        raise BadSelection(f"FieldMask {mask} could not be successfully used.")
    return masked


def _only_named(dump: Json, matches: Callable[[str], bool]) -> Json:
    kept = dict(dump)
    for list_name, (field, name_field) in _LISTS.items():
        if list_name in kept:
            entries = [
                entry
                for entry in _list(kept[list_name])
                if matches(str(_mapping(_mapping(entry).get(field)).get(name_field, "")))
            ]
            if entries:
                kept[list_name] = entries
            else:
                del kept[list_name]
    return kept


def _elements(dumps: Iterable[Json], resource: str) -> Iterator[Json]:
    for dump in dumps:
        if resource not in dump or resource == "@type":
            continue
        entries = dump[resource]
        if not isinstance(entries, list):
            raise BadSelection(f"{resource} is not a repeated field. Use ?mask={resource} to get only this field")
        for entry in entries:
            yield {"@type": f"{dump['@type']}.{_ELEMENT_TYPES.get(resource, '')}", **_mapping(entry)}
        return
    if resource not in _LISTS and resource not in _ALWAYS_EMPTY:
        raise NotFoundInDump(f"{resource} not found in config dump")


_ELEMENT_TYPES = {
    "static_clusters": "StaticCluster",
    "static_listeners": "StaticListener",
    "static_route_configs": "StaticRouteConfig",
    "static_endpoint_configs": "StaticEndpointConfig",
}


def _pick(value: Json, paths: Sequence[Sequence[str]]) -> Json:
    """The fields of a message that a field mask names; a path may end at a list, but not go into one."""
    picked: Json = {"@type": value["@type"]} if "@type" in value else {}
    for path in paths:
        name = path[0]
        if name not in value:
            continue
        inner = value[name]
        if len(path) == 1:
            picked[name] = inner
        elif isinstance(inner, dict):
            below = _pick(cast("Json", inner), [path[1:]])
            if set(below) - {"@type"}:
                picked[name] = {**_mapping(picked.get(name)), **below}
    return picked


def _mapping(value: object) -> Json:
    return cast("Json", value) if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
