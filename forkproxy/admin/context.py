"""What the admin pages show and do, as the supervisor offers it.

The pages know nothing of processes, sockets or signals: they read the values below and call the actions. Everything here is
called on the supervisor's loop, must return at once, and must not raise. A page that shows figures first calls ``refresh``;
the server waits for its callback, but not for longer than ``server.REFRESH_TIMEOUT_S``, then asks for the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from datetime import datetime
from typing import Protocol

from forkproxy.config.build.bootstrap import BootstrapConfig
from forkproxy.config.build.circuit_breakers import Thresholds
from forkproxy.config.build.core import AddressConfig
from forkproxy.config.values import frozen
from forkproxy.stats.counters import Snapshot
from forkproxy.stats.tags import TagExtractor

# Envoy's server states, as /ready and /server_info say them.
LIVE = "LIVE"
DRAINING = "DRAINING"
PRE_INITIALIZING = "PRE_INITIALIZING"
INITIALIZING = "INITIALIZING"

# Envoy's log levels, quietest last.
LOG_LEVELS = ("trace", "debug", "info", "warning", "error", "critical", "off")


@frozen
class EndpointView:
    """One endpoint as it is used now: an address that DNS gave, or the configured one.

    ``address`` has an IP literal or a pipe path; ``str(address)`` is how it is named in the statistics: its figures are in
    ``Snapshot.hidden`` under ``cluster.<stat_name>.endpoint.<str(address)>.cx_active`` and so on (groups.EndpointStats).
    ``health_flags``: failed checks by Envoy's names ("/failed_active_hc", "/failed_outlier_check", "/failed_eds_health",
    "/degraded_eds_health", …); empty means healthy.
    """

    address: AddressConfig
    hostname: str = ""
    weight: int = 1
    health_flags: tuple[str, ...] = ()
    region: str = ""
    zone: str = ""
    sub_zone: str = ""
    priority: int = 0
    success_rate: float = -1.0
    """Of the last interval of outlier detection, in percent; -1: unknown. The other one: of reaching it at all."""
    local_success_rate: float = -1.0
    check_port: int = 0
    """Where its health checks go, when not to its own address; 0: there."""
    check_hostname: str = ""
    canary: bool = False


@frozen
class OutlierView:
    """What outlier detection made of the last interval: mean success rates and ejection thresholds in percent; -1: unknown."""

    mean: float = -1.0
    threshold: float = -1.0
    local_mean: float = -1.0
    local_threshold: float = -1.0


@frozen
class ClusterView:
    """One cluster and its endpoints. ``name`` as configured, ``stat_name`` as in the statistics (ClusterConfig).

    ``outliers`` None: there is no outlier detection.
    """

    name: str
    stat_name: str
    endpoints: tuple[EndpointView, ...]
    default_thresholds: Thresholds = field(default_factory=Thresholds)
    high_thresholds: Thresholds = field(default_factory=Thresholds)
    outliers: OutlierView | None = None
    eds_service_name: str = ""


@frozen
class ListenerView:
    """One listener with the addresses it is really bound to (port 0 replaced by the kernel's choice).

    ``name`` is never empty: Envoy gives a nameless listener a UUID.
    """

    name: str
    address: AddressConfig
    additional_addresses: tuple[AddressConfig, ...] = ()


@frozen
class WorkerView:
    """One worker process, for /workers. ``state``: "starting", "ready", "draining" or "stopped". ``cpu`` None: not pinned."""

    slot: int
    pid: int
    cpu: int | None
    generation: int
    state: str
    connections: int
    accepted: int
    requests: int
    uptime_s: float
    heartbeat_age_s: float
    requests_per_s: float = 0.0
    memory_bytes: int | None = None
    """Proportional set size, or resident set size where that is hidden; None: the process has gone."""


@frozen
class CertificateView:
    """One certificate for /certs, times in UTC. ``serial_number`` is lower-case hex."""

    path: str
    serial_number: str
    dns_names: tuple[str, ...]
    ip_addresses: tuple[str, ...]
    uris: tuple[str, ...]
    valid_from: datetime
    expiration_time: datetime


@frozen
class CertificatesView:
    """What one TLS context uses: its trusted authorities and its own chain."""

    authorities: tuple[CertificateView, ...]
    chain: tuple[CertificateView, ...]


@frozen
class MemoryView:
    """For /memory, in bytes, over all processes: Python's allocated blocks or RSS minus free, heap, and physical size (PSS)."""

    allocated: int
    heap_size: int
    total_physical_bytes: int


@frozen
class AdminAccess:
    """One answered admin request, for the admin access log: what Envoy's default format shows of it.

    ``start``: seconds since the epoch at the first byte of the head, ``duration_ms`` from there; ``peer`` is "ip:port" or ""
    for a pipe; ``path`` with its query, as sent. ``user_agent``, ``host``, ``forwarded_for`` and ``request_id`` are ""
    when absent. ``access_log.line`` makes Envoy's line of it.
    """

    start: float

    method: str
    path: str
    protocol: str
    status: int
    bytes_received: int
    bytes_sent: int
    duration_ms: int
    peer: str
    host: str = ""
    user_agent: str = ""
    forwarded_for: str = ""
    request_id: str = ""


class AdminContext(Protocol):
    """The supervisor, seen from the admin pages."""

    # What is

    @property
    def bootstrap(self) -> BootstrapConfig:
        """The configuration in force."""

    @property
    def config_loaded_at(self) -> datetime:
        """When it came into force, UTC."""

    @property
    def last_refusal(self) -> tuple[str, datetime] | None:
        """Why and when (UTC) the last reload was refused; None after one that was not."""

    @property
    def state(self) -> str:
        """LIVE, DRAINING (also after /healthcheck/fail), PRE_INITIALIZING or INITIALIZING (before the first worker is ready)."""

    @property
    def uptime_s(self) -> float:
        """Seconds since the supervisor started."""

    @property
    def version(self) -> str:
        """For /server_info and /, such as ``forkproxy/0.1.0``."""

    @property
    def command_line_options(self) -> Mapping[str, object]:
        """JSON-ready, in Envoy's names where it has one (``concurrency``, ``config_path``, ``log_level``, …)."""

    def refresh(self, done: Callable[[], None]) -> None:
        """Ask every worker to flush its statistics, and call ``done`` once all have.

        The asker stops waiting by itself; ``done`` must not be called twice, and may be called before this returns.
        """

    def snapshot(self) -> Snapshot:
        """All statistics by name, over all workers, living and dead, and the supervisor's own."""

    def before_statistics(self) -> None:
        """A page with statistics was asked for: what takes long to find out, and where ``stats_flush_on_admin`` says so, the
        end of a histogram's interval."""

    def tag_extractor(self) -> TagExtractor:
        """What cuts tags out of the names of statistics."""

    def histogram_buckets(self) -> Callable[[str], Sequence[float]]:
        """What tells the bounds of a histogram's buckets by its name."""

    def clusters(self) -> Sequence[ClusterView]:
        """In the order of the configuration."""

    def listeners(self) -> Sequence[ListenerView]:
        """In the order of the configuration, without the admin listener."""

    def workers(self) -> Sequence[WorkerView]:
        """All worker processes, draining ones too, by slot."""

    def certificates(self) -> Sequence[CertificatesView] | None:
        """One entry per TLS context; None if this build cannot read certificates."""

    def memory(self) -> MemoryView:
        """How much memory all processes use together."""

    def log_levels(self) -> Mapping[str, str]:
        """Logger → level, one of LOG_LEVELS."""

    # What can be done; all of it takes effect soon after the return

    def set_log_level(self, logger: str | None, level: str) -> None:
        """Set one logger (a key of ``log_levels``) or all of them (None), here and in all workers."""

    def fail_health_check(self) -> None:
        """From now on /ready and the health check filter say that this proxy is to be left alone."""

    def pass_health_check(self) -> None:
        """Undo ``fail_health_check``."""

    def reset_counters(self) -> None:
        """Counters start again from zero."""

    def reopen_logs(self) -> None:
        """Close and open again all access logs, here and in all workers."""

    def drain_listeners(self, *, graceful: bool, skip_exit: bool, inbound_only: bool) -> None:
        """Stop accepting; ``graceful``: only after the drain time; ``skip_exit``: drain connections but keep accepting;
        ``inbound_only``: only listeners whose traffic_direction is INBOUND."""

    def quit(self) -> None:
        """Drain and stop everything. The answer to this very request should still get out."""

    def log_access(self, access: AdminAccess) -> None:
        """Write a line to the admin's access logs, if it has any."""
