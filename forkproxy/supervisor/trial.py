"""A configuration tried out: what is wrong with it that shows only when a generation is made of it.

Format strings, filters, their order, certificates, users: the supervisor finds them as it starts; ``forkproxy check`` comes
here. Nothing is bound, opened or forked.
"""

from __future__ import annotations

from forkproxy.config.build.bootstrap import BootstrapConfig
from forkproxy.config.problems import ConfigError, Problem
from forkproxy.stats.counters import Registry
from forkproxy.supervisor import listening
from forkproxy.supervisor.identity import identity_for
from forkproxy.worker.generation import build_generation


def problems_of(bootstrap: BootstrapConfig) -> list[Problem]:
    """Empty when a supervisor could go on to bind the listeners."""
    registry = Registry()
    registry.begin_generation()
    try:
        generation = build_generation(bootstrap, registry, number=0)
        listening.plan(generation.listen_addresses)
        identity_for(bootstrap)
    except ConfigError as error:
        return error.problems
    return []
