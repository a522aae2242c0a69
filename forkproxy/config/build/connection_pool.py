"""How a cluster makes and keeps its connections: fields of ``Cluster`` and of ``HttpProtocolOptions`` → PoolOptions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """``max_connection_duration_s`` None: a connection may live for ever."""

    max_connection_duration_s: float | None = None


DEFAULT_POOL_OPTIONS = PoolOptions()
