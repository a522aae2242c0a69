"""``config.bootstrap.v3.Bootstrap`` → BootstrapConfig, the whole configuration as one value."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import field, replace

from forkproxy.config.build.access_log import AccessLogConfig, build_access_logs, default_text_format
from forkproxy.config.build.cluster import ClusterConfig, build_cluster, build_dns_resolver
from forkproxy.config.build.connection_pool import build_bind_options
from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import AddressConfig, build_address, build_where
from forkproxy.config.build.listener import ListenerConfig, build_listener
from forkproxy.config.build.overload import GlobalConnectionLimits, build_global_limits
from forkproxy.config.build.stats import StatsConfig, build_stats
from forkproxy.config.values import frozen
from forkproxy.config.view import View


@frozen
class AdminConfig:
    """``Admin``. ``access_logs`` includes the old ``access_log_path`` as a file log in Envoy's admin format."""

    address: AddressConfig | None = None
    access_logs: tuple[AccessLogConfig, ...] = ()
    profile_path: str = ""
    ignore_global_conn_limit: bool = False


@frozen
class NodeConfig:
    """``Node``: what /server_info and the %NODE_…% operators show."""

    id: str = ""
    cluster: str = ""
    region: str = ""
    zone: str = ""
    sub_zone: str = ""


@frozen
class ForkproxyConfig:
    """The extra top-level key ``forkproxy:``; None means not given (the command line or the default decides).

    ``user`` ("name" or "name:group") the workers run as when started by root.
    """

    concurrency: int | None = None
    cpuset: str | None = None
    user: str | None = None
    pid_file: str | None = None
    drain_time_s: float | None = None


@frozen
class BootstrapConfig:
    """Everything that a generation of workers runs on.

    ``packed_dump`` is ``config_dump`` as :func:`pack` makes it. ``files`` has the digests of the files that were read for it:
    its own, and those that it names.
    """

    admin: AdminConfig
    node: NodeConfig
    listeners: tuple[ListenerConfig, ...]
    clusters: tuple[ClusterConfig, ...]
    forkproxy: ForkproxyConfig
    packed_dump: bytes
    runtime: dict[str, object]
    """The flattened static runtime layers: key → value."""
    stats: StatsConfig = field(default_factory=StatsConfig)
    stats_flush_interval_s: float = 5.0
    stats_flush_on_admin: bool = False
    """A histogram's interval ends when the admin port is asked for statistics, and at no other time."""
    runtime_layers: int = 0
    """How many layers that was."""
    server_version: int | None = None
    """What ``server.version`` shows."""
    connection_limits: GlobalConnectionLimits = GlobalConnectionLimits()
    """Of the downstream connections of all listeners together."""
    local_cluster_name: str = ""
    """The cluster of this node's likes, for zone aware routing."""
    outlier_event_log: str = ""
    """The path of ``cluster_manager.outlier_detection.event_log_path``; "" when there is none."""
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def config_dump(self) -> dict[str, object]:
        """The upgraded v3 bootstrap as JSON-ready data, secrets redacted; unpacked whenever it is asked for.

        Nothing but the admin port asks, and as objects it is as large as all that is made of it.
        """
        unpacked: dict[str, object] = json.loads(zlib.decompress(self.packed_dump))
        return unpacked


def pack(config_dump: dict[str, object]) -> bytes:
    """``config_dump`` as a BootstrapConfig keeps it."""
    return zlib.compress(json.dumps(config_dump, separators=(",", ":")).encode(), 1)


def build_admin(view: View | None, context: BuildContext) -> AdminConfig:
    """``Admin``; socket options and ``allow_paths`` stay unread."""
    if view is None:
        return AdminConfig()
    access_logs = build_access_logs(view.repeated("access_log"), context)
    path = view.str("access_log_path")
    if path and not os.path.isdir(os.path.dirname(path) or "."):
        view.report("there is no such directory: the log cannot be opened", field="access_log_path", kind="warning")
    if path:
        old = AccessLogConfig(
            path=path,
            text_format=default_text_format,
            json_format=None,
            omit_empty_values=False,
            sort_properties=False,
            filter=None,
            where=build_where(view),
        )
        access_logs = (*access_logs, old)
    view.ignore("profile_path", why="there is no /cpuprofiler")
    address = view.message("address")
    return AdminConfig(
        ignore_global_conn_limit=view.bool("ignore_global_conn_limit"),
        address=build_address(address, context) if address is not None else None,
        access_logs=access_logs,
    )


def build_node(view: View | None) -> NodeConfig:
    """``Node``: what it tells a management server is ignored, because there is none."""
    if view is None:
        return NodeConfig()
    view.ignore(
        "metadata",
        "dynamic_parameters",
        "user_agent_name",
        "user_agent_version",
        "user_agent_build_version",
        "extensions",
        "client_features",
        "listening_addresses",
        why="it is for a management server",
    )
    locality = view.message("locality")
    return NodeConfig(
        id=view.str("id"),
        cluster=view.str("cluster"),
        region=locality.str("region") if locality is not None else "",
        zone=locality.str("zone") if locality is not None else "",
        sub_zone=locality.str("sub_zone") if locality is not None else "",
    )


def build_runtime(view: View | None, context: BuildContext) -> None:
    """``LayeredRuntime``: the static layers, flattened, a later layer over an earlier one. RTDS layers stay unread."""
    if view is None:
        return
    for layer in view.repeated("layers"):
        layer.str("name")
        if layer.which("layer_specifier") == "static_layer":
            flatten("", layer.struct("static_layer"), context.runtime)
        layer.ignore("admin_layer", why="it is empty until /runtime_modify, which there is not")
        disk = layer.peek("disk_layer")
        if disk is not None and not os.path.isdir(os.path.join(disk.str("symlink_root"), disk.str("subdirectory"))):
            layer.ignore("disk_layer", why="while its directory is not there it is an empty layer; else it is refused")


def flatten(prefix: str, tree: dict[str, object], into: dict[str, object]) -> None:
    """``{a: {b: 1}}`` → ``{"a.b": 1}``; a map with ``numerator`` or ``denominator`` is one value."""
    for key, value in tree.items():
        name = f"{prefix}.{key}" if prefix else key
        if isinstance(value, dict) and not value.keys() & {"numerator", "denominator"}:
            flatten(name, value, into)
        else:
            into[name] = value


def build_bootstrap(
    view: View, context: BuildContext, forkproxy: ForkproxyConfig, config_dump: dict[str, object]
) -> BootstrapConfig:
    """``Bootstrap``. xDS, sinks, tracing and extensions stay unread."""
    view.ignore("watchdog", why="the supervisor watches its workers' heartbeats")
    view.ignore("watchdogs", why="the supervisor watches its workers' heartbeats")
    view.ignore("memory_allocator_manager", why="it tunes Envoy's allocator")
    view.ignore("deferred_stat_options", why="it defers the creation of Envoy's statistics")
    view.ignore("inline_headers", why="it is an optimisation of Envoy's header map")
    view.ignore("node_context_params", why="there is no management server")
    view.ignore("grpc_async_client_manager_config", why="there are no gRPC clients")
    if os.path.exists(os.path.join(view.str("flags_path"), "drain")):
        view.unsupported("starting drained is not implemented, and there is a file named drain", field="flags_path")
    engine = view.message("default_regex_engine")
    if engine is not None:
        context.extension(engine, "regex engine")
    node = build_node(view.message("node"))
    layered_runtime = view.message("layered_runtime")
    build_runtime(layered_runtime, context)
    connection_limits = build_global_limits(view, context)
    context.dns_resolver = build_dns_resolver(view, context)
    admin = build_admin(view.message("admin"), context)
    listeners: tuple[ListenerConfig | None, ...] = ()
    clusters: tuple[ClusterConfig | None, ...] = ()
    manager = view.message("cluster_manager")
    if manager is not None:
        context.bind_options = build_bind_options(manager.message("upstream_bind_config"), context)
    static = view.message("static_resources")
    if static is not None:
        _take_secrets(static.repeated("secrets"), context)
        clusters = context.each(static.repeated("clusters"), build_cluster)
        listeners = context.each(static.repeated("listeners"), build_listener)
        for (kind, _), secret in context.secrets.items():
            secret.ignore(kind, why="what no TLS context names is not used")
    idle = sorted(context.runtime.keys() - context.runtime_used)
    if layered_runtime is not None and idle:
        layered_runtime.report(f"runtime keys without effect here: {', '.join(idle)}", field="layers", kind="warning")
    return BootstrapConfig(
        admin=admin,
        node=node,
        listeners=_by_name(listener for listener in listeners if listener is not None),
        clusters=tuple(cluster for cluster in clusters if cluster is not None),
        forkproxy=forkproxy,
        packed_dump=pack(config_dump),
        runtime=dict(context.runtime),
        runtime_layers=len(layered_runtime.repeated("layers")) if layered_runtime is not None else 0,
        stats=build_stats(view.message("stats_config"), context),
        stats_flush_interval_s=view.duration_s("stats_flush_interval", 5.0),
        stats_flush_on_admin=view.bool("stats_flush_on_admin"),
        server_version=view.uint("stats_server_version_override", None),
        outlier_event_log=_outlier_event_log(manager),
        connection_limits=connection_limits,
        local_cluster_name=manager.str("local_cluster_name") if manager is not None else "",
    )


def _outlier_event_log(manager: View | None) -> str:
    outliers = manager.message("outlier_detection") if manager is not None else None
    return outliers.str("event_log_path") if outliers is not None else ""


def _take_secrets(views: list[View], context: BuildContext) -> None:
    """``Secret``, to be built by the TLS context that names it; the first of a name wins (semantics.py refuses a second)."""
    for view in views:
        kind = view.which("type")
        if kind is not None:
            context.secrets.setdefault((kind, view.str("name")), view)


def _by_name(listeners: Iterable[ListenerConfig]) -> tuple[ListenerConfig, ...]:
    """Of two listeners of one name the first stays (with a warning from semantics.py). Nameless ones are numbered."""
    found: dict[str, ListenerConfig] = {}
    for listener in listeners:
        name = listener.name
        nameless = name == str(listener.addresses[0])
        number = 2
        while nameless and name in found:
            name = f"{listener.name}#{number}"
            number += 1
        found.setdefault(name, listener if name == listener.name else replace(listener, name=name))
    return tuple(found.values())


def build_google_re2(view: View, context: BuildContext) -> None:
    """``GoogleRE2``: the only regex engine, and the default."""
