"""The supervisor: binds, forks, watches, replaces; touches no traffic.

The plan is ``run()``: reap, take one intention, check the slots, sleep. Signals, control requests and workers' messages never
act by themselves: they leave an intention or a fact behind and end the sleep. So every change of processes happens in one
place, one after another, and a fork never happens inside a callback of the loop.

Who owns what: ``generations`` the configurations, ``fleet`` slots and workers, ``reloads`` the roll-out under way,
``resolvers`` the processes that ask DNS, ``health_checkers`` those that check endpoints, ``door`` pid file and control socket,
``admin`` the admin port. Here are the phase and the intentions.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from forkproxy import log
from forkproxy.config.build.bootstrap import BootstrapConfig
from forkproxy.config.problems import ConfigError
from forkproxy.net import descriptors
from forkproxy.net.loop import Loop
from forkproxy.net.poller import READ
from forkproxy.stats.counters import Registry
from forkproxy.stats.slab import Slab
from forkproxy.supervisor import inheritance
from forkproxy.supervisor.admin_context import AdminService, SupervisorContext
from forkproxy.supervisor.admin_log import AdminLog
from forkproxy.supervisor.apart import Apart
from forkproxy.supervisor.cluster_updates import ClusterUpdates
from forkproxy.supervisor.control_socket import Reply
from forkproxy.supervisor.dns_caches import DnsCaches
from forkproxy.supervisor.door import Door
from forkproxy.supervisor.draining import Draining
from forkproxy.supervisor.exits import EXIT_FAILURE, ConfigurationRefused, StartFailed, exit_of
from forkproxy.supervisor.figures import OwnFigures
from forkproxy.supervisor.fleet import Fleet
from forkproxy.supervisor.generation_run import BuildGeneration, GenerationRun
from forkproxy.supervisor.generations import Generations
from forkproxy.supervisor.health_checkers import HealthCheckers
from forkproxy.supervisor.leftovers import Leftovers
from forkproxy.supervisor.listening import CannotBind
from forkproxy.supervisor.met_hosts import MetHosts
from forkproxy.supervisor.options import Options
from forkproxy.supervisor.outliers import Outliers
from forkproxy.supervisor.predecessor import Predecessor
from forkproxy.supervisor.reload import Reloads
from forkproxy.supervisor.replacement import Replacement
from forkproxy.supervisor.report import Report
from forkproxy.supervisor.requests import Requests
from forkproxy.supervisor.resolver import Resolvers
from forkproxy.supervisor.signals import INTENTIONS, SignalPipe, how_it_ended
from forkproxy.supervisor.slot import Slot, WorkerHandle
from forkproxy.supervisor.systemd import Notifier
from forkproxy.supervisor.upgrade import Upgrade
from forkproxy.supervisor.watcher import Watcher
from forkproxy.worker import after_fork
from forkproxy.worker.control import Message
from forkproxy.worker.worker import EXIT_CANNOT_BIND, EXIT_CANNOT_BUILD

LONGEST_SLEEP_S = 1.0
"""Heartbeats are looked at this often."""
STARTS_TO_TRY = 3
"""Quick deaths before the first worker ever got ready, after which the start has failed."""

_log = log.get_logger("supervisor")


@dataclass(slots=True)
class Intention:
    """Something the operator wants. ``reply`` is called once with the outcome, when somebody waits for it."""

    kind: str
    reply: Reply | None = None
    now: bool = False
    number: int = 0
    """Of a slot, or of workers."""
    names: tuple[str, ...] = ()
    """Of listeners; none: all."""

    def answer(self, message: Message) -> None:
        """Tell whoever waits."""
        if self.reply is not None:
            self.reply(message)


class Supervisor:
    """One per program.

    ``load()`` reads and validates the configuration, or raises ConfigurationRefused. ``begin_to_load()`` has a process of its
    own do the work of the next ``load``, if that can be. ``build_generation`` makes of it what workers run, or raises
    ConfigError, of which ``explain`` makes what the operator reads. ``on_ready()`` is called once, when all workers of the
    first generation serve.
    """

    def __init__(
        self,
        options: Options,
        *,
        load: Callable[[], BootstrapConfig],
        build_generation: BuildGeneration,
        begin_to_load: Callable[[], Apart[Any] | None] = lambda: None,
        explain: Callable[[ConfigError], str] = str,
        on_ready: Callable[[], None] | None = None,
    ) -> None:
        self.options = options
        self.registry = Registry()
        self.loop = Loop(self._on_exception)
        self.started_at = monotonic()
        self.phase = "starting"
        """"starting", "serving" or "stopping"."""
        self.generations = Generations(
            options, self.registry, load=self._load_configuration, build=build_generation, explain=explain
        )
        self.fleet = Fleet(self.loop, self.registry, options, self.generations, on_change=self.loop.stop)
        self.reloads = Reloads(self)
        self.replacement = Replacement(self.fleet)
        self.draining = Draining(self)
        self.cluster_updates = ClusterUpdates(self.registry)
        self.resolvers = Resolvers(self.loop, self._on_endpoints, self.cluster_updates.count)
        self.met_hosts = MetHosts(self.loop, self.registry, self.fleet, self.generations, self._on_endpoints)
        self.dns_caches = DnsCaches(
            self.loop, self.registry, self.fleet, self.resolvers, self.generations, self.cluster_updates
        )
        self.health_checkers = HealthCheckers(
            self.loop,
            self.registry,
            tell=self._tell_of_cluster,
            on_passed=lambda run, cluster, address: self.outliers.on_passed(run, cluster, address),
            is_newest=lambda run: run is self.generations.newest,
        )
        self.outliers = Outliers(self.loop, self.registry, self.fleet, self.health_checkers, self.generations)
        self.report = Report(self)
        # First: it says who feeds the watchdog, which the notifier asks.
        inherited = inheritance.take()
        self.notifier = Notifier()
        self.figures = OwnFigures(self.registry)
        self.fleet.on_hang = self.figures.on_hang
        self.admin_log = AdminLog(self.loop, self.figures.filesystem)
        log.count_losses(self.figures.on_lost_log_line)
        self._context = SupervisorContext(self)
        self.admin = AdminService(self.loop, self._context)
        self.door = Door(self.loop, Requests(self, self._context).answer)
        self.epoch = 0
        """How many upgrades led to this process."""
        self.upgrade = Upgrade(self)
        self.predecessor = Predecessor(self, inherited) if inherited is not None else None
        self._load = load
        self._begin_to_load = begin_to_load
        self._on_ready = on_ready
        self._signals = SignalPipe()
        self._watcher = Watcher(options.config_path) if options.watch else None
        self._intentions: deque[Intention] = deque()
        self._was_told_to_stop = False
        self._exit_code: int | None = None
        self._sleep_timer = self.loop.timer(self.loop.stop)
        self._wake_at = float("inf")
        """When the present sleep was to end at the latest."""

    # -- the screen

    def run(self) -> int:
        """Supervise until told to stop; returns the exit code. StartFailed when it cannot start."""
        try:
            log.prepare()
            self._start()
            while self._exit_code is None:
                self._reap()
                self._take_one_intention()
                self._check_slots()
                self._watch_file()
                self._sleep()
            return self._exit_code
        except StartFailed as failed:
            if self.predecessor is not None:
                self.predecessor.refuse(failed)
            raise
        finally:
            self._close()

    def want(
        self, kind: str, reply: Reply | None = None, *, now: bool = False, number: int = 0, names: tuple[str, ...] = ()
    ) -> None:
        """Leave an intention: one of the kinds in ``_act``."""
        if reply is None and any(waiting.kind == kind == "reload" for waiting in self._intentions):
            return
        self._intentions.append(Intention(kind, reply, now, number, names))
        self.loop.stop()

    # -- start and end

    def _start(self) -> None:
        self._signals.install()
        self.loop.register(self._signals.fileno(), READ, self._on_signal)
        after_fork.set_process_name("forkproxy")
        leftovers = Leftovers()
        if self.predecessor is not None:
            self.predecessor.adopt()
        try:
            run = self.generations.make()
            raise_descriptor_limit()
            self.door.open(self.options, run.bootstrap.forkproxy.pid_file)
            leftovers.make_way(self.loop.run_once)
            self.fleet.lay_out(run)
            run.admin_socket = self.admin.bind(run.bootstrap.admin.address)
        except ConfigurationRefused as refused:
            raise StartFailed(EXIT_CANNOT_BUILD, str(refused)) from None
        except CannotBind as error:
            raise StartFailed(exit_of(error), str(error)) from None
        self.generations.put_in_force(run)
        leftovers.end_later(self.loop.call_later, self.generations.drain_time_s)
        self.tend([run])
        self.on_generation(None)
        self._end_interval()
        sockets = self.fleet.sockets
        sockets.passed.warn_of_unused({binding.socket_address() for binding in run.bindings.values()})
        for (name, _index), binding in run.bindings.items():
            _log.info("listening", listener=name, address=str(sockets.bound_address(binding)))

    def tend(self, runs: list[GenerationRun]) -> None:
        """The processes that resolve names and check health are to do so for these generations and no others."""
        self.resolvers.want(runs)
        self.health_checkers.want(runs)

    def slabs(self) -> list[Slab]:
        """Where everybody counts."""
        return [*(worker.slab for worker in self.fleet.workers()), *self.health_checkers.slabs]

    def on_generation(self, before: GenerationRun | None) -> None:
        """The running generation is another than ``before``: what else follows from that."""
        run = self.generations.running
        old = before.bootstrap if before is not None else None
        self.figures.on_generation(old, run.bootstrap, len(self.fleet.lasting_slots()))
        self.cluster_updates.on_generation(run)
        self.outliers.on_generation(run)
        self.admin_log.use(run.bootstrap.admin)
        if before is not None or self.predecessor is None:
            self._serve_admin(is_first=before is None)
        self._context.config_loaded_at = datetime.now(UTC)

    def _serve_admin(self, *, is_first: bool) -> None:
        run = self.generations.running
        path = self.options.admin_address_path if is_first else ""
        self.admin.serve(run.bootstrap.admin.address, run.admin_socket, path)

    def take_over(self) -> None:
        """The predecessor's pid file, control socket and admin port are this process's from now on."""
        self.door.take_over()
        self._serve_admin(is_first=True)
        self.admin.close_unused()
        self.fleet.sockets.close_unused()

    def begin_to_leave(self, kept: set[int], paths: set[str]) -> None:
        """A successor has taken over, and kept the sockets with these descriptors: only what is open here is served."""
        self.phase = "stopping"
        # Endpoints are watched by the successor, once for the machine; what drains here goes by what it knows.
        self.tend([])
        self.fleet.leave(kept, paths)

    def give_up_intentions(self) -> list[Intention]:
        """What waits and is not about this process: for the successor."""
        passed_on = [intention for intention in self._intentions if intention.kind != "stop"]
        self._intentions = deque(intention for intention in self._intentions if intention.kind == "stop")
        return passed_on

    def begin_to_load(self) -> Apart[Any] | None:
        """Read the file, without waiting for it; None when that must be waited for."""
        if self._watcher is not None:
            self._watcher.note()
        return self._begin_to_load()

    def _load_configuration(self) -> BootstrapConfig:
        return self._load() if self._watcher is None else self._watcher.load(self._load)

    def _end_interval(self) -> None:
        """Envoy's stats flush: what histograms show as the last interval ends here."""
        bootstrap = self.generations.running.bootstrap
        if not bootstrap.stats_flush_on_admin:
            self.registry.end_interval(self.slabs())
        self.loop.call_later(bootstrap.stats_flush_interval_s, self._end_interval)

    def _close(self) -> None:
        self.fleet.kill_all()
        self.resolvers.end_all()
        self.upgrade.close()
        if self.predecessor is not None:
            self.predecessor.close()
        self.health_checkers.end_all()
        self.outliers.close()
        self.fleet.close()
        self.admin.stop()
        self.admin_log.close()
        self.door.close_socket()
        # Answers that were just written leave with the end of a pass.
        self.loop.run_once(0.0)
        self.door.remove_pid_file()
        self.loop.close()
        self._signals.close()

    # -- reap

    def _reap(self) -> None:
        while self.fleet.pids or self.resolvers.pids or self.health_checkers.pids or self.reloads.is_reading:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            code = os.waitstatus_to_exitcode(status)
            if self.reloads.on_gone(pid, code):
                continue
            worker = self.fleet.on_gone(pid)
            if worker is not None:
                self._on_worker_gone(worker, code)
            elif not self.resolvers.on_gone(pid, how_it_ended(code)):
                self.health_checkers.on_gone(pid, how_it_ended(code))

    def _on_worker_gone(self, worker: WorkerHandle, code: int) -> None:
        slot = worker.slot
        now = monotonic()
        was_successor = worker is slot.successor
        slot.forget(worker)
        how = how_it_ended(code)
        if worker.draining:
            _log.info("worker has gone", slot=slot.number, worker=worker.pid, generation=worker.run.number, how=how)
        elif was_successor:
            reason = f"the new worker of slot {slot.number} did not get ready: {worker.failure or how}"
            if not self.replacement.fail(slot, reason):
                self.reloads.fail(reason, code)
        else:
            wait_s = slot.count_death(now - worker.started_at, now)
            if code in (EXIT_CANNOT_BUILD, EXIT_CANNOT_BIND):
                slot.given_up = code
            next_step = "none is started until a reload" if slot.given_up else f"the next one starts in {wait_s:g} s"
            why = {"reason": worker.failure} if worker.failure else {}
            _log.error("worker died", slot=slot.number, worker=worker.pid, how=how, **why, next=next_step)
            self._fail_if_hopeless(slot, worker, how, code)

    def _fail_if_hopeless(self, slot: Slot, worker: WorkerHandle, how: str, code: int) -> None:
        if self.phase == "starting" and (slot.given_up or slot.quick_deaths >= STARTS_TO_TRY):
            reason = worker.failure or how
            raise StartFailed(slot.given_up or EXIT_FAILURE, f"the workers do not start: {reason}")
        if all(slot.given_up for slot in self.fleet.slots):
            raise StartFailed(code, f"no worker can start: {worker.failure or how}")

    # -- intentions

    def _take_one_intention(self) -> None:
        # While workers are being exchanged only a stop can be acted on; the others keep their place.
        for intention in self._intentions:
            is_refused = intention.kind == "upgrade" and self.upgrade.is_under_way
            if not self._is_exchanging() or intention.kind == "stop" or is_refused:
                self._intentions.remove(intention)
                self._act(intention)
                return

    def _is_exchanging(self) -> bool:
        return self.reloads.is_under_way or self.replacement.is_under_way or self.upgrade.is_under_way

    def _act(self, intention: Intention) -> None:
        match intention.kind:
            case "stop":
                self._stop(intention)
            case "reopen_logs":
                self._reopen_logs()
            case _ if self.phase == "stopping":
                intention.answer({"ok": False, "reason": "stopping", "exit": EXIT_FAILURE})
            case "reload":
                self.reloads.begin(intention.reply)
            case "upgrade" if self.upgrade.is_under_way:
                self.upgrade.refuse(intention.reply)
            case "upgrade":
                self.upgrade.begin(intention.reply)
            case "drain_listeners":
                self.draining.stop_listening(intention.names)
            case "replace_worker":
                self.replacement.begin(intention.number, intention.answer, now=intention.now)
            case "scale":
                self._scale(intention)
            case "more_workers":
                self.fleet.resize(len(self.fleet.lasting_slots()) + 1)
            case "fewer_workers":
                self.fleet.resize(len(self.fleet.lasting_slots()) - 1)

    def _scale(self, intention: Intention) -> None:
        reason = self.fleet.resize(intention.number)
        if reason:
            intention.answer({"ok": False, "reason": reason, "exit": EXIT_FAILURE})
        else:
            intention.answer({"ok": True, "workers": len(self.fleet.lasting_slots())})

    def _stop(self, intention: Intention) -> None:
        is_fast = intention.now or self._was_told_to_stop
        self._was_told_to_stop = True
        self.upgrade.stop(monotonic(), at_once=is_fast)
        if self.predecessor is not None:
            self.predecessor.stop(now=is_fast)
        self.reloads.cancel()
        self.replacement.cancel()
        self.phase = "stopping"
        self.notifier.stopping()
        time_s = self.generations.drain_time_s
        _log.info("stopping", how="at once" if is_fast else f"draining for up to {time_s:g} s")
        self.fleet.end_all(monotonic(), at_once=is_fast)
        intention.answer({"ok": True, "pid": os.getpid()})

    def _reopen_logs(self) -> None:
        try:
            log.reopen()
        except OSError as error:
            _log.error("the log cannot be opened again; the old file stays in use", reason=error.strerror)
        self.generations.on_reopen()
        self.admin_log.reopen()
        if self.predecessor is not None:
            self.predecessor.reopen_logs()
        self.fleet.tell({"op": "reopen_logs"})
        self.health_checkers.reopen_logs()
        self.outliers.reopen_log()
        _log.info("logs opened again")

    def _watch_file(self) -> None:
        if self._watcher is not None and self.phase == "serving" and self._watcher.has_changed(monotonic()):
            self.want("reload")

    # -- slots

    def _check_slots(self) -> None:
        now = monotonic()
        if now - self._wake_at > self.options.heartbeat_timeout_s / 2:
            # We ourselves did not run (a stopped or overloaded machine): then a late heartbeat proves nothing.
            self.fleet.no_hang_before = now + self.options.heartbeat_timeout_s
        self.fleet.check(now)
        if self.phase != "stopping":
            reason = self.fleet.start_missing(now)
            if reason and self.phase == "starting":
                raise StartFailed(EXIT_FAILURE, f"no worker could be forked: {reason}")
        self.resolvers.check(now)
        self.health_checkers.check(now)
        self.reloads.advance(now)
        self.replacement.advance()
        self.upgrade.check(now)
        self._check_phase(now)
        self._tell_manager(now)

    def _check_phase(self, now: float) -> None:
        slots = self.fleet.slots
        if self.phase == "starting" and all(slot.current is not None and slot.current.ready for slot in slots):
            if self.predecessor is not None:
                self.predecessor.on_workers_ready()
                if not self.predecessor.is_in_charge:
                    return
            self.phase = "serving"
            self.figures.on_ready(monotonic() - self.started_at)
            _log.info("ready", workers=len(slots), generation=self.generations.running.number)
            self.notifier.ready(self.report.line())
            if self._on_ready is not None:
                self._on_ready()
        elif self.phase == "stopping" and not self.fleet.pids and not self._is_waited_for(now):
            _log.info("stopped")
            self._exit_code = 0

    def _is_waited_for(self, now: float) -> bool:
        if self.predecessor is not None and self.predecessor.is_waited_for(now):
            return True
        return self.upgrade.is_under_way or self.upgrade.owes_answers

    def _tell_manager(self, now: float) -> None:
        if self.phase == "serving" and not self._is_exchanging():
            self.notifier.status(self.report.line())
        if now < self.fleet.no_hang_before or self._all_well():
            self.notifier.watchdog(now)

    def _all_well(self) -> bool:
        """Every worker's heart beats; while serving there is one, unless the operator has drained the listeners."""
        if not self.fleet.all_well():
            return False
        return self.phase != "serving" or self.fleet.is_drained or any(w.ready for w in self.fleet.workers())

    # -- sleep, and what ends it

    def _sleep(self) -> None:
        if self._exit_code is not None or (self._intentions and not self._is_exchanging()):
            self._wake_at = monotonic()
            return
        now = monotonic()
        until = now + min(LONGEST_SLEEP_S, self.notifier.watchdog_interval_s or LONGEST_SLEEP_S)
        until = min(until, self.upgrade.deadline)
        if self._watcher is not None:
            until = min(until, max(self._watcher.next_look, now + 0.01))
        if self.phase != "stopping":
            until = min(until, max(self.fleet.next_start(), now + 0.01))
        for worker in self.fleet.workers():
            until = min(until, worker.deadline)
        self._wake_at = until
        self._sleep_timer.arm(until)
        self.loop.run()

    def _on_signal(self, _mask: int) -> None:
        for number in self._signals.take():
            kind = INTENTIONS.get(number)
            if kind is not None:
                self.want(kind)
        self.loop.stop()

    def _on_endpoints(self, run: GenerationRun, cluster: str, endpoints: list[dict[str, object]]) -> None:
        run.set_endpoints(cluster, endpoints)
        self.cluster_updates.on_membership(run, cluster)
        self.outliers.on_membership(run, cluster)
        message = {"op": "endpoints", "cluster": cluster, "endpoints": endpoints}
        self.health_checkers.tell(run, message)
        for worker in self.fleet.workers():
            if worker.run is run:
                worker.channel.send(message)
        self.loop.stop()

    def _tell_of_cluster(self, run: GenerationRun, cluster: str, message: Message) -> None:
        """To the workers of ``run``, and to those of others, which drain, where they have the same cluster."""
        config = run.generation.clusters[cluster].config
        for worker in self.fleet.workers():
            theirs = worker.run.generation.clusters.get(cluster)
            if worker.run is run or (theirs is not None and theirs.config == config):
                worker.channel.send(message)

    def set_health_check(self, *, failed: bool) -> None:
        """/healthcheck/fail and /ok: told to all workers, and kept for those to come."""
        self.generations.fail_health_check(failed)
        self.fleet.tell({"op": "health_check", "failed": failed})

    def _on_exception(self, exception: Exception, callback: object) -> None:
        _log.exception("an exception left a callback; the supervisor goes on", exception, callback=callback)


def raise_descriptor_limit() -> None:
    """Take as many descriptors per process as this user may have, and say how many that is."""
    limit = descriptors.raise_limit()
    if limit < descriptors.SMALL_LIMIT:
        _log.warning("few descriptors: connections will have to wait", per_process=limit, hint=descriptors.HINT)
    else:
        _log.info("descriptors", per_process=limit)
