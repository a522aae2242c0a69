"""How many downstream connections there may be: ``config.overload.v3.OverloadManager`` and the runtime keys."""

from __future__ import annotations

from forkproxy.config.build.context import BuildContext
from forkproxy.config.values import frozen
from forkproxy.config.view import View

GLOBAL_KEY = "overload.global_downstream_max_connections"


@frozen
class GlobalConnectionLimits:
    """None: no such limit. ``by_monitor`` counts the connections that it holds for. ``by_key`` counts all others, also those of
    listeners that ignore it, and the admin keeps it."""

    by_key: int | None = None
    by_monitor: int | None = None


def runtime_uint(key: str, context: BuildContext) -> int | None:
    """The static layers' number under ``key``, where it is a whole one; Envoy takes the default for anything else."""
    value = context.runtime_value(key)
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or value != int(value):
        return None
    return int(value)


def build_listener_limit(name: str, context: BuildContext) -> int | None:
    """How many connections the listener ``name`` may have."""
    return runtime_uint(f"envoy.resource_limits.listener.{name}.connection_limit", context)


def build_global_limits(view: View, context: BuildContext) -> GlobalConnectionLimits:
    """Of the bootstrap. Other monitors, actions and load shedding stay unread."""
    by_monitor: int | None = None
    manager = view.message("overload_manager")
    if manager is not None:
        manager.ignore("refresh_interval", why="connections are counted as they come and go")
        for monitor in manager.repeated("resource_monitors"):
            made = context.extension(monitor, "resource monitor")
            if made is not None:
                by_monitor = made.value
    return GlobalConnectionLimits(runtime_uint(GLOBAL_KEY, context), by_monitor)


def build_downstream_connections(view: View, context: BuildContext) -> int:
    """``DownstreamConnectionsConfig``."""
    return view.int("max_active_downstream_connections")
