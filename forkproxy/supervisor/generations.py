"""Which generations of the configuration there are: the one that serves, and the newest that was built."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from time import monotonic

from forkproxy import log
from forkproxy.config.build.bootstrap import BootstrapConfig
from forkproxy.config.problems import ConfigError
from forkproxy.config.tree import collection_paused
from forkproxy.stats.counters import Registry
from forkproxy.supervisor import listening, log_files, memory
from forkproxy.supervisor.endpoint_files import endpoint_files_of
from forkproxy.supervisor.exits import ConfigurationRefused
from forkproxy.supervisor.generation_run import BuildGeneration, BuiltGeneration, GenerationRun
from forkproxy.supervisor.identity import default_identity, identity_for, name_of
from forkproxy.supervisor.options import DEFAULT_DRAIN_TIME_S, Options
from forkproxy.supervisor.precedence import giving_way
from forkproxy.upstream.dns import targets_of
from forkproxy.worker.after_fork import Identity

PATIENCE_S = 2.0
"""For so long a reload's building goes behind the workers. It keeps the supervisor from all else."""

_log = log.get_logger("supervisor")


class Generations:
    """Makes generations, numbers them and knows which is which.

    ``load()`` reads and validates the configuration, or raises ConfigurationRefused. ``build`` makes of it what workers run,
    or raises ConfigError, of which ``explain`` makes what the operator reads.
    """

    def __init__(
        self,
        options: Options,
        registry: Registry,
        *,
        load: Callable[[], BootstrapConfig],
        build: BuildGeneration,
        explain: Callable[[ConfigError], str],
    ) -> None:
        self.newest: GenerationRun | None = None
        """The last that was made; it becomes the running one, or is given up."""
        self.fails_health_check = False
        """The operator said /healthcheck/fail."""
        self.on_made: Callable[[GenerationRun], None] = lambda _run: None
        """Told of every generation that is made, before its first worker."""
        self.made = 0
        """How many there were, those of supervisors before this one among them: the newest one's number."""
        self._options = options
        self._registry = registry
        self._load = load
        self._build = build
        self._explain = explain
        self._running: GenerationRun | None = None
        self._leftovers = False
        """Generations have gone since ``memory.clear``."""

    @property
    def running(self) -> GenerationRun:
        """The generation that serves."""
        assert self._running is not None
        return self._running

    @property
    def drain_time_s(self) -> float:
        """How long connections may take to finish: the command line's word, or the file's, or the default."""
        for given in (self._options.drain_time_s, self.running.bootstrap.forkproxy.drain_time_s):
            if given is not None:
                return given
        return DEFAULT_DRAIN_TIME_S

    def make(self) -> GenerationRun:
        """Load and build. ConfigurationRefused says why not; nothing has changed then."""
        with collection_paused():
            if self._running is None:
                return self._make(self._load())
            with giving_way(PATIENCE_S):
                if self._leftovers:
                    memory.clear()
                    self._leftovers = False
                return self._make(self._load())

    def _make(self, bootstrap: BootstrapConfig) -> GenerationRun:
        number = self.made + 1
        self._registry.begin_generation()
        try:
            generation = self._build(bootstrap, self._registry, number)
            generation.fail_health_check(self.fails_health_check)
            bindings = listening.plan(generation.listen_addresses)
            identity = identity_for(bootstrap, self._options.user, lambda: self._default_identity)
        except ConfigError as error:
            self._registry.abandon_generation()
            self._leftovers = True
            raise ConfigurationRefused(self._explain(error)) from None
        self._prepare_for(identity, generation, self._options.user or bootstrap.forkproxy.user or "")
        self.made = number
        run = GenerationRun(
            number,
            bootstrap,
            generation,
            bindings,
            identity,
            dns_targets=targets_of(bootstrap.clusters),
            endpoint_files=endpoint_files_of(bootstrap.clusters),
        )
        run.begin_warming(self._running, monotonic() + self._options.dns_wait_s)
        self.on_made(run)
        self.newest = run
        memory.settle()
        return run

    @cached_property
    def _default_identity(self) -> Identity | None:
        # Found out, and told in the log, once.
        return default_identity() if self._options.drops_root else None

    def _prepare_for(self, identity: Identity | None, generation: BuiltGeneration, wanted: str) -> None:
        is_other = self._running is None or identity != self._running.identity
        if identity is not None:
            log_files.give([*generation.log_paths, *log.paths()], identity)
            if is_other:
                hint = {} if wanted else {"hint": "--user root keeps root"}
                _log.info("the workers run as another user", user=name_of(identity), **hint)
        elif wanted and is_other and os.geteuid() != 0:
            _log.warning("the workers run as this user: only root can run them as another", user=wanted)

    def on_reopen(self) -> None:
        """Log files are about to be opened again under their names."""
        identity = self.running.identity
        if identity is not None:
            log_files.give([*self.running.generation.log_paths, *log.paths()], identity)

    def put_in_force(self, run: GenerationRun) -> None:
        """``run`` is the one that serves, from now on."""
        self._leftovers = self._leftovers or self._running is not None
        self._running = run

    def give_up_newest(self) -> None:
        """The newest will not serve: its figures are forgotten, the running one is the newest again."""
        self._registry.abandon_generation()
        self._leftovers = True
        self.newest = self.running

    def fail_health_check(self, failed: bool) -> None:
        """/healthcheck/fail and /ok, for workers that are still to be born."""
        self.fails_health_check = failed
        for run in (self._running, self.newest):
            if run is not None:
                run.generation.fail_health_check(failed)
