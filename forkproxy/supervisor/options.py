"""What the command line decides about a supervisor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Options:
    """All times in seconds. ``concurrency`` and ``cpuset`` None: the configuration's ``forkproxy:`` key or the machine decides.

    ``pid_file`` None: neither a pid file nor a control socket. ``needs_pid_file``: another supervisor that holds it is a reason
    not to start; otherwise this one goes without.
    """

    config_path: str
    concurrency: int | None = None
    cpuset: str | None = None
    drain_time_s: float = 30.0
    pid_file: Path | None = None
    needs_pid_file: bool = False
    heartbeat_timeout_s: float = 10.0
    ready_timeout_s: float = 30.0
    dns_wait_s: float = 5.0
    """How long workers wait for the first resolution of every DNS cluster, as Envoy warms clusters before it listens."""
    service_node: str = ""
    service_cluster: str = ""
    service_zone: str = ""
