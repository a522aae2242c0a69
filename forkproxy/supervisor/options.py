"""What the command line decides about a supervisor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path

from forkproxy.config.values import frozen


@frozen
class Options:
    """All times in seconds. None: the configuration's ``forkproxy:`` key decides, or else the machine or the default.

    ``concurrency`` 0: one worker per CPU, whatever the file says. Without a pid file there is no control socket either;
    ``needs_pid_file``: then do not start. It is needed too when command line or file name one, and not when it is merely the
    ``default_pid_file``, which another instance may have. ``admin_address_path``: where to write the admin's address.
    """

    config_path: str
    concurrency: int | None = None
    cpuset: str | None = None
    drain_time_s: float | None = None
    drain_strategy: str = "gradual"
    """How a graceful /drain_listeners asks connections to close: more and more of them, or ("immediate") all from the start."""
    user: str = ""
    """Who the workers run as when root starts the supervisor: "name" or "name:group"."""
    drops_root: bool = False
    """Without a word about the user, workers of root's do not run as root (identity.DEFAULT_USERS)."""
    pid_file: Path | None = None
    default_pid_file: Path | None = None
    needs_pid_file: bool = False
    heartbeat_timeout_s: float = 10.0
    ready_timeout_s: float = 30.0
    max_old_generations: int = 3
    """How many generations may drain beside the one that serves; a reload cuts off the oldest beyond that."""
    upgrade_timeout_s: float = 60.0
    """How long the new process of an upgrade may take to get ready."""
    dns_wait_s: float = 5.0
    """How long workers wait for the first resolution of every DNS cluster, as Envoy warms clusters before it listens."""
    watch: bool = False
    """Reload when the content of ``config_path`` changes."""
    admin_address_path: str = ""
    command_line: Mapping[str, object] = field(default_factory=dict)
    """For /server_info: Envoy's names where it has one."""


DEFAULT_DRAIN_TIME_S = 30.0
