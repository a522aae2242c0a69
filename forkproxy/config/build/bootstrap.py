"""``config.bootstrap.v3.Bootstrap`` → BootstrapConfig, the whole configuration as one value."""

from __future__ import annotations

from dataclasses import dataclass

from forkproxy.config.build.access_log import AccessLogConfig
from forkproxy.config.build.cluster import ClusterConfig
from forkproxy.config.build.core import AddressConfig
from forkproxy.config.build.listener import ListenerConfig


@dataclass(frozen=True, slots=True)
class AdminConfig:
    """``Admin``. ``access_logs`` includes the old ``access_log_path`` as a file log in Envoy's admin format."""

    address: AddressConfig | None = None
    access_logs: tuple[AccessLogConfig, ...] = ()
    profile_path: str = ""
    ignore_global_conn_limit: bool = False


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """``Node``: what /server_info and the %NODE_…% operators show."""

    id: str = ""
    cluster: str = ""
    region: str = ""
    zone: str = ""
    sub_zone: str = ""


@dataclass(frozen=True, slots=True)
class ForkproxyConfig:
    """The extra top-level key ``forkproxy:``; None means not given (the command line or the default decides).

    ``user`` ("name" or "name:group") the workers run as when started by root.
    """

    concurrency: int | None = None
    cpuset: str | None = None
    user: str | None = None
    pid_file: str | None = None
    drain_time_s: float | None = None


@dataclass(frozen=True, slots=True)
class BootstrapConfig:
    """Everything that a generation of workers runs on. ``config_dump`` is the upgraded v3 bootstrap as JSON-ready data, secrets redacted."""

    admin: AdminConfig
    node: NodeConfig
    listeners: tuple[ListenerConfig, ...]
    clusters: tuple[ClusterConfig, ...]
    forkproxy: ForkproxyConfig
    config_dump: dict[str, object]
    runtime: dict[str, object]
    """The flattened static runtime layers: key → value."""
    stats_flush_interval_s: float = 5.0
