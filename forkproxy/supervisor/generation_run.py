"""One generation of the configuration as the supervisor keeps it: what the workers run, what it needs bound, what DNS said."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from forkproxy.config.build.bootstrap import BootstrapConfig
from forkproxy.stats.counters import Registry
from forkproxy.supervisor.listening import Binding, ListenAddress
from forkproxy.worker.after_fork import Identity
from forkproxy.worker.worker import Endpoints, RunnableGeneration


class BuiltGeneration(RunnableGeneration, Protocol):
    """A generation as ``build_generation`` returns it."""

    @property
    def listen_addresses(self) -> list[ListenAddress]:
        """What must be bound for it."""


BuildGeneration = Callable[[BootstrapConfig, Registry, int], BuiltGeneration]
"""(bootstrap, registry, generation number) → the generation. ConfigError when it cannot be built."""


@dataclass(eq=False, slots=True)
class GenerationRun:
    """``bindings`` by (listener name, address index). ``warm``: DNS has answered once for every cluster, or had its time."""

    number: int
    bootstrap: BootstrapConfig
    generation: BuiltGeneration
    bindings: dict[tuple[str, int], Binding]
    identity: Identity | None = None
    endpoints: dict[str, Endpoints] = field(default_factory=dict)
    admin_socket: socket.socket | None = None
    """Bound for this generation's admin address, when it is another than the one before."""
    warm: bool = True
    warm_deadline: float = float("inf")
