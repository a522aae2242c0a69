"""The supervisor: binds, forks, watches, replaces; touches no traffic.

The plan is ``run()``: reap, take one intention, check the slots, sleep. Signals, control requests and workers' messages never
act by themselves: they leave an intention or a fact behind and end the sleep. So every change of processes happens in one
place, one after another, and a fork never happens inside a callback of the loop.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from forkproxy import __version__, log
from forkproxy.config.build.bootstrap import BootstrapConfig
from forkproxy.config.problems import ConfigError
from forkproxy.net.loop import Loop
from forkproxy.net.poller import READ
from forkproxy.stats.counters import Registry
from forkproxy.stats.slab import Slab
from forkproxy.supervisor import cpus, listening
from forkproxy.supervisor.admin_context import AdminService, SupervisorContext
from forkproxy.supervisor.admin_log import AdminLog
from forkproxy.supervisor.control_socket import ControlSocket, Reply
from forkproxy.supervisor.figures import OwnFigures
from forkproxy.supervisor.generation_run import BuildGeneration, GenerationRun
from forkproxy.supervisor.identity import identity_for
from forkproxy.supervisor.listening import CannotBind
from forkproxy.supervisor.options import DEFAULT_DRAIN_TIME_S, Options
from forkproxy.supervisor.pid_file import AlreadyRunning, PidFile, control_socket_of
from forkproxy.supervisor.refresh import Refreshes
from forkproxy.supervisor.reload import (
    EXIT_FAILURE,
    EXIT_NO_PERMISSION,
    ConfigurationRefused,
    RollOut,
)
from forkproxy.supervisor.resolver import Resolvers
from forkproxy.supervisor.signals import INTENTIONS, SignalPipe, how_it_ended
from forkproxy.supervisor.slot import Slot, WorkerHandle
from forkproxy.supervisor.slot_sockets import SlotSockets
from forkproxy.supervisor.systemd import Notifier
from forkproxy.supervisor.watcher import Watcher
from forkproxy.upstream.dns import targets_of
from forkproxy.worker import after_fork
from forkproxy.worker.control import Channel, Message
from forkproxy.worker.worker import EXIT_CANNOT_BIND, EXIT_CANNOT_BUILD, WorkerStart, run_worker

LONGEST_SLEEP_S = 1.0
"""Heartbeats are looked at this often."""
STARTS_TO_TRY = 3
"""Quick deaths before the first worker ever got ready, after which the start has failed."""
MOST_WORKERS = 4096

_log = log.get_logger("supervisor")


class StartFailed(Exception):
    """The supervisor cannot start, or cannot go on; ``exit_code`` says why to programs, the text to people."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(slots=True)
class Intention:
    """Something the operator wants. ``reply`` is called once with the outcome, when somebody waits for it."""

    kind: str
    reply: Reply | None = None
    now: bool = False


class Supervisor:
    """One per program.

    ``load()`` reads and validates the configuration, or raises ConfigurationRefused. ``build_generation`` makes of it what
    workers run, or raises ConfigError, of which ``explain`` makes what the operator reads. ``on_ready()`` is called once,
    when all workers of the first generation serve.
    """

    def __init__(
        self,
        options: Options,
        *,
        load: Callable[[], BootstrapConfig],
        build_generation: BuildGeneration,
        explain: Callable[[ConfigError], str] = str,
        on_ready: Callable[[], None] | None = None,
    ) -> None:
        self.options = options
        self.registry = Registry()
        self.loop = Loop(self._on_exception)
        self.slots: list[Slot] = []
        self.started_at = monotonic()
        self.phase = "starting"
        """"starting", "serving" or "stopping"."""
        self.last_refusal = ""
        """Why the last reload was refused; "" after one that was not."""
        self.fails_health_check = False
        """The operator said /healthcheck/fail."""
        self.is_drained = False
        """The listeners were drained on request: nothing is accepted until a reload."""
        self.figures = OwnFigures(self.registry)
        self.admin_log = AdminLog(self.loop)
        self._context = SupervisorContext(self)
        self._admin = AdminService(self.loop, self._context)
        self._load = load
        self._build_generation = build_generation
        self._explain = explain
        self._on_ready = on_ready
        self._signals = SignalPipe()
        self._notifier = Notifier()
        self._watcher = Watcher(options.config_path) if options.watch else None
        self._intentions: deque[Intention] = deque()
        self._workers: dict[int, WorkerHandle] = {}
        self._running: GenerationRun | None = None
        self._newest: GenerationRun | None = None
        self._roll_out: RollOut | None = None
        self._generations = 0
        self.sockets = SlotSockets()
        self._pid_file: PidFile | None = None
        self._control: ControlSocket | None = None
        self._exit_code: int | None = None
        self._refreshes = Refreshes()
        self._resolvers = Resolvers(self.loop, self._on_endpoints)
        self._sleep_timer = self.loop.timer(self.loop.stop)
        self._wake_at = float("inf")
        """When the present sleep was to end at the latest."""
        self._no_hang_before = 0.0

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
        finally:
            self._close()

    def want(self, kind: str, reply: Reply | None = None, *, now: bool = False) -> None:
        """Leave an intention: "stop", "reload", "reopen_logs", "more_workers", "fewer_workers"."""
        if reply is None and any(waiting.kind == kind == "reload" for waiting in self._intentions):
            return
        self._intentions.append(Intention(kind, reply, now))
        self.loop.stop()

    @property
    def running(self) -> GenerationRun:
        """The generation that serves."""
        assert self._running is not None
        return self._running

    @property
    def drain_time_s(self) -> float:
        """How long connections may take to finish: the command line's word, or the file's, or the default."""
        for given in (self.options.drain_time_s, self.running.bootstrap.forkproxy.drain_time_s):
            if given is not None:
                return given
        return DEFAULT_DRAIN_TIME_S

    def refresh(self, done: Callable[[], None]) -> None:
        """Have every worker bring its slab up to date; ``done()`` is called once, when all have."""
        self._refreshes.ask(self.workers(), done)

    def workers(self) -> list[WorkerHandle]:
        """All worker processes, slot by slot."""
        return [worker for slot in self.slots for worker in slot.workers()]

    # -- start and end

    def _start(self) -> None:
        self._signals.install()
        self.loop.register(self._signals.fileno(), READ, self._on_signal)
        after_fork.set_process_name("forkproxy")
        _log.debug("descriptor limit", descriptors=raise_descriptor_limit())
        try:
            run = self._make_generation()
            self._take_pid_file(run)
            placement = self._placement(run)
            self.slots = [Slot(number, cpu, run) for number, cpu in enumerate(placement.cpus)]
            self.sockets.passed.take()
            self.sockets.bind(run.bindings.values(), self.slots, self.slots)
            admin_socket = self._admin.bind(run.bootstrap.admin.address)
        except ConfigurationRefused as refused:
            raise StartFailed(EXIT_CANNOT_BUILD, str(refused)) from None
        except CannotBind as error:
            raise StartFailed(_exit_of(error), str(error)) from None
        except AlreadyRunning as error:
            raise StartFailed(EXIT_FAILURE, str(error)) from None
        self._running = run
        self._resolvers.want([run])
        self.figures.on_generation(None, run.bootstrap)
        self.admin_log.use(run.bootstrap.admin)
        self._admin.serve(run.bootstrap.admin.address, admin_socket, self.options.admin_address_path)
        self._end_interval()
        self.sockets.passed.warn_of_unused({binding.socket_address() for binding in run.bindings.values()})
        for (name, _index), binding in run.bindings.items():
            _log.info("listening", listener=name, address=str(self.sockets.bound_address(binding)))

    def _end_interval(self) -> None:
        """Envoy's stats flush: what histograms show as the last interval ends here."""
        self.registry.end_interval([worker.slab for worker in self.workers()])
        self.loop.call_later(self.running.bootstrap.stats_flush_interval_s, self._end_interval)

    def _take_pid_file(self, run: GenerationRun) -> None:
        in_file = run.bootstrap.forkproxy.pid_file
        named = self.options.pid_file or (Path(in_file) if in_file else None)
        path = named or self.options.default_pid_file
        is_needed = named is not None or self.options.needs_pid_file
        if path is None:
            if is_needed:
                raise StartFailed(EXIT_FAILURE, "there is no directory for the pid file: give one with --pid-file PATH")
            return
        try:
            self._pid_file = PidFile(path)
        except AlreadyRunning as error:
            if is_needed:
                raise
            _log.warning(
                "no pid file and no control socket", reason=str(error), hint="give this one its own with --pid-file"
            )
            return
        except OSError as error:
            if is_needed:
                code = EXIT_NO_PERMISSION if isinstance(error, PermissionError) else EXIT_FAILURE
                raise StartFailed(code, f"cannot write the pid file {path}: {error.strerror}") from None
            _log.warning("no pid file and no control socket", path=path, reason=error.strerror)
            return
        try:
            self._control = ControlSocket(self.loop, control_socket_of(path), self._answer)
        except OSError as error:
            _log.warning("no control socket", path=control_socket_of(path), reason=error.strerror)

    def _close(self) -> None:
        for worker in self._workers.values():
            worker.signal(signal.SIGKILL)
        self._resolvers.want([])
        for pid in (*self._workers, *self._resolvers.pids):
            os.waitpid(pid, 0)
        for slot in self.slots:
            slot.close_sockets()
        self.sockets.keep_only((), self.slots)
        self.sockets.passed.close()
        self._admin.stop()
        self.admin_log.close()
        if self._control is not None:
            self._control.close()
        # Answers that were just written leave with the end of a pass.
        self.loop.run_once(0.0)
        if self._pid_file is not None:
            self._pid_file.remove()
        self.loop.close()
        self._signals.close()

    # -- reap

    def _reap(self) -> None:
        while self._workers or self._resolvers.pids:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            code = os.waitstatus_to_exitcode(status)
            worker = self._workers.pop(pid, None)
            if worker is not None:
                self._on_worker_gone(worker, code)
            else:
                self._resolvers.on_gone(pid, how_it_ended(code))

    def _on_worker_gone(self, worker: WorkerHandle, code: int) -> None:
        slot = worker.slot
        now = monotonic()
        was_successor = worker is slot.successor
        worker.channel.close()
        self.registry.absorb(worker.slab)
        worker.slab.close()
        slot.forget(worker)
        self._refreshes.on_gone(worker.pid)
        how = how_it_ended(code)
        if worker.draining:
            _log.info("worker has gone", slot=slot.number, worker=worker.pid, generation=worker.run.number, how=how)
        elif was_successor:
            reason = worker.failure or how
            self._fail_roll_out(f"the new worker of slot {slot.number} did not get ready: {reason}", code)
        else:
            wait_s = slot.count_death(now - worker.started_at, now)
            if code in (EXIT_CANNOT_BUILD, EXIT_CANNOT_BIND):
                slot.given_up = code
            next_step = "none is started until a reload" if slot.given_up else f"the next one starts in {wait_s:g} s"
            _log.error(
                "worker died", slot=slot.number, worker=worker.pid, how=how, reason=worker.failure, next=next_step
            )
            self._fail_if_hopeless(slot, worker, how, code)

    def _fail_if_hopeless(self, slot: Slot, worker: WorkerHandle, how: str, code: int) -> None:
        if self.phase == "starting" and (slot.given_up or slot.quick_deaths >= STARTS_TO_TRY):
            reason = worker.failure or how
            raise StartFailed(slot.given_up or EXIT_FAILURE, f"the workers do not start: {reason}")
        if all(slot.given_up for slot in self.slots):
            raise StartFailed(code, f"no worker can start: {worker.failure or how}")

    # -- intentions

    def _take_one_intention(self) -> None:
        # While a roll-out is under way only a stop can be acted on; the others keep their place.
        for intention in self._intentions:
            if self._roll_out is None or intention.kind == "stop":
                self._intentions.remove(intention)
                self._act(intention)
                return

    def _act(self, intention: Intention) -> None:
        match intention.kind:
            case "stop":
                self._stop(intention)
            case _ if self.phase == "stopping":
                _answer_to(intention, {"ok": False, "reason": "stopping", "exit": EXIT_FAILURE})
            case "reload":
                self._reload(intention)
            case "reopen_logs":
                self._reopen_logs()
            case "drain_listeners":
                self._drain_listeners()
            case "more_workers":
                self._resize(len(self.lasting_slots()) + 1)
            case "fewer_workers":
                self._resize(len(self.lasting_slots()) - 1)

    def _stop(self, intention: Intention) -> None:
        is_fast = intention.now or self.phase == "stopping"
        if self._roll_out is not None:
            _reply_to(self._roll_out, {"ok": False, "reason": "stopping", "exit": EXIT_FAILURE})
            self._roll_out = None
        self.phase = "stopping"
        self._notifier.stopping()
        _log.info("stopping", how="at once" if is_fast else f"draining for up to {self.drain_time_s:g} s")
        now = monotonic()
        for worker in self.workers():
            if is_fast:
                worker.stop(now)
            else:
                worker.drain(now, self.drain_time_s, worker.run.bindings)
        self._close_slots(self.slots)
        _answer_to(intention, {"ok": True, "pid": os.getpid()})

    def _reload(self, intention: Intention) -> None:
        self._notifier.reloading()
        _log.info("reloading", path=self.options.config_path)
        try:
            run = self._make_generation()
        except ConfigurationRefused as refused:
            self._refuse(intention.reply, str(refused), EXIT_CANNOT_BUILD)
            return
        try:
            self.sockets.bind(run.bindings.values(), self.lasting_slots(), self.slots)
            run.admin_socket = self._admin.bind(run.bootstrap.admin.address)
        except CannotBind as error:
            self._close_what_is_gone()
            self.registry.abandon_generation()
            self._newest = self.running
            self._refuse(intention.reply, str(error), _exit_of(error))
            return
        self._roll_out = RollOut(run, before=self.running, reply=intention.reply)
        self._resolvers.want([self.running, run])

    def _refuse(self, reply: Reply | None, reason: str, code: int) -> None:
        self.last_refusal = reason
        _log.error("reload refused; the old configuration stays", reason=first_line(reason))
        self._notifier.ready(self._status_line())
        if reply is not None:
            reply({"ok": False, "reason": reason, "exit": code, "generation": self.running.number})

    def _reopen_logs(self) -> None:
        try:
            log.reopen()
        except OSError as error:
            _log.error("the log cannot be opened again; the old file stays in use", reason=error.strerror)
        self.admin_log.reopen()
        for worker in self.workers():
            worker.channel.send({"op": "reopen_logs"})
        _log.info("logs opened again")

    def _drain_listeners(self) -> None:
        self.is_drained = True
        self._close_slots(self.slots)
        _log.info("listeners drained: nothing is accepted until a reload")

    # -- generations

    def _make_generation(self) -> GenerationRun:
        """Load and build. ConfigurationRefused says why not; nothing has changed then."""
        if self._watcher is not None:
            self._watcher.note()
        bootstrap = self._load()
        number = self._generations + 1
        self.registry.begin_generation()
        try:
            generation = self._build_generation(bootstrap, self.registry, number)
            generation.fail_health_check(self.fails_health_check)
            bindings = listening.plan(generation.listen_addresses)
            identity = identity_for(bootstrap)
        except ConfigError as error:
            self.registry.abandon_generation()
            raise ConfigurationRefused(self._explain(error)) from None
        if bootstrap.forkproxy.user and identity is None:
            user = bootstrap.forkproxy.user
            _log.warning("the workers run as this user: only root can run them as another", user=user)
        self._generations = number
        run = GenerationRun(
            number, bootstrap, generation, bindings, identity, dns_targets=targets_of(bootstrap.clusters)
        )
        run.begin_warming(self._running, monotonic() + self.options.dns_wait_s)
        self._newest = run
        # What is alive now lives as long as this generation. Frozen, no collection in a worker touches (and copies) its pages.
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        return run

    def _advance_roll_out(self) -> None:
        roll_out = self._roll_out
        if roll_out is None or not roll_out.target.is_warm(monotonic()):
            return
        try:
            is_done = roll_out.advance(self.lasting_slots(), self._spawn, partial(self._drain_for, roll_out.target))
        except OSError as error:
            self._fail_roll_out(f"no worker could be forked: {error.strerror}", EXIT_FAILURE)
            return
        if is_done:
            self._roll_out = None
            self._finish_roll_out(roll_out)

    def _finish_roll_out(self, roll_out: RollOut) -> None:
        before, self._running = self.running, roll_out.target
        self._resolvers.want([self.running])
        self._close_what_is_gone()
        if roll_out.is_back:
            _log.warning("rolled back", generation=roll_out.target.number)
            return
        self.last_refusal = ""
        self.is_drained = False
        self.admin_log.use(self.running.bootstrap.admin)
        self._admin.serve(self.running.bootstrap.admin.address, self.running.admin_socket)
        self.figures.on_generation(before.bootstrap, self.running.bootstrap)
        self._context.config_loaded_at = datetime.now(UTC)
        self._resize(len(self._placement(roll_out.target).cpus))
        _log.info("reloaded", generation=roll_out.target.number, workers=len(self.lasting_slots()))
        self._notifier.ready(self._status_line())
        _reply_to(roll_out, {"ok": True, "generation": roll_out.target.number, "workers": len(self.lasting_slots())})

    def _fail_roll_out(self, reason: str, code: int) -> None:
        roll_out, self._roll_out = self._roll_out, None
        if roll_out is None:
            return
        if roll_out.is_back:
            _log.error("the way back failed too: generations are mixed until the next reload", reason=reason)
            return
        self.registry.abandon_generation()
        self._newest = roll_out.before
        self._resolvers.want([roll_out.before])
        if roll_out.target.admin_socket is not None:
            roll_out.target.admin_socket.close()
        self._refuse(roll_out.reply, reason, code if code in (EXIT_CANNOT_BUILD, EXIT_CANNOT_BIND) else EXIT_FAILURE)
        if any(slot.run is roll_out.target for slot in self.slots):
            self._roll_out = RollOut(roll_out.before, before=roll_out.before, is_back=True)
        else:
            self._close_what_is_gone()

    def _watch_file(self) -> None:
        if self._watcher is not None and self.phase == "serving" and self._watcher.has_changed(monotonic()):
            self.want("reload")

    # -- slots

    def _check_slots(self) -> None:
        now = monotonic()
        if now - self._wake_at > self.options.heartbeat_timeout_s / 2:
            # We ourselves did not run (a stopped or overloaded machine): then a late heartbeat proves nothing.
            self._no_hang_before = now + self.options.heartbeat_timeout_s
        for slot in list(self.slots):
            for worker in slot.workers():
                self._check_worker(worker, now)
            if self._wants_worker(slot, now):
                self._start_worker(slot, now)
            if slot.retiring and not slot.workers():
                self.slots.remove(slot)
        self._resolvers.check(now)
        self._advance_roll_out()
        self._check_phase()
        self._tell_manager(now)

    def _tell_manager(self, now: float) -> None:
        if self.phase == "serving" and self._roll_out is None:
            self._notifier.status(self._status_line())
        if now < self._no_hang_before or self._all_well():
            self._notifier.watchdog(now)

    def _all_well(self) -> bool:
        """Every worker's heart beats; while serving there is one, unless the operator has drained the listeners."""
        workers = self.workers()
        if any(worker.aborted_at or self._is_hung(worker) for worker in workers):
            return False
        return self.phase != "serving" or self.is_drained or any(worker.ready for worker in workers)

    def _is_hung(self, worker: WorkerHandle) -> bool:
        return worker.heartbeat_age_s() > self.options.heartbeat_timeout_s

    def _check_worker(self, worker: WorkerHandle, now: float) -> None:
        if now >= worker.deadline:
            worker.deadline = now + 1.0
            if not worker.draining and not worker.aborted_at:
                _log.error("worker did not get ready", slot=worker.slot.number, worker=worker.pid)
                worker.abort(now)
            else:
                if not worker.aborted_at:
                    _log.warning(
                        "worker cut off", slot=worker.slot.number, worker=worker.pid, connections=worker.connections
                    )
                worker.signal(signal.SIGKILL)
        elif not worker.aborted_at and now >= self._no_hang_before and self._is_hung(worker):
            _log.error(
                "worker hangs: it gets SIGABRT",
                slot=worker.slot.number,
                worker=worker.pid,
                silent_s=round(worker.heartbeat_age_s(), 1),
            )
            worker.abort(now)

    def _wants_worker(self, slot: Slot, now: float) -> bool:
        if slot.current is not None or slot.successor is not None or slot.retiring or slot.given_up:
            return False
        return self.phase != "stopping" and not self.is_drained and now >= slot.respawn_at and slot.run.is_warm(now)

    def _start_worker(self, slot: Slot, now: float) -> None:
        try:
            slot.current = self._spawn(slot, slot.run)
        except OSError as error:
            slot.respawn_at = now + 1.0
            _log.error("no worker could be forked", slot=slot.number, reason=error.strerror)

    def _check_phase(self) -> None:
        if self.phase == "starting" and all(slot.current is not None and slot.current.ready for slot in self.slots):
            self.phase = "serving"
            self.figures.on_ready(monotonic() - self.started_at)
            _log.info("ready", workers=len(self.slots), generation=self.running.number)
            self._notifier.ready(self._status_line())
            if self._on_ready is not None:
                self._on_ready()
        elif self.phase == "stopping" and not self._workers:
            _log.info("stopped")
            self._exit_code = 0

    def _spawn(self, slot: Slot, run: GenerationRun) -> WorkerHandle:
        run.generation.prepare_slot(slot.number)
        ours, theirs = socket.socketpair()
        slab = Slab.create(self.registry.cells)
        start = WorkerStart(
            slot=slot.number,
            cpu=slot.cpu,
            generation_number=run.number,
            generation=run.generation,
            sockets={key: [slot.sockets[binding]] for key, binding in run.bindings.items()},
            control=theirs,
            slab=slab,
            stats=self.registry,
            parent_pid=os.getpid(),
            identity=run.identity,
            drain_time_s=self.drain_time_s,
        )
        is_older = run is not self._newest
        try:
            pid = after_fork.fork(lambda: self._in_worker(start, is_older=is_older))
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        channel = Channel(
            self.loop,
            ours,
            on_message=lambda message: self._on_worker_message(worker, message),
            on_close=lambda _reason: None,  # SIGCHLD tells
        )
        now = monotonic()
        deadline = now + self.options.ready_timeout_s
        worker = WorkerHandle(pid, slot, run, slab, channel, started_at=now, deadline=deadline)
        self._workers[pid] = worker
        return worker

    def _in_worker(self, start: WorkerStart, *, is_older: bool) -> int:
        if is_older:
            # Forked during a roll-out for a slot that still runs the generation before: its groups are the ones to flush.
            self.registry.abandon_generation()
        return run_worker(start)

    def _drain_for(self, target: GenerationRun, worker: WorkerHandle) -> None:
        # Listeners that the next generation does not have are served to the end of the roll-out.
        kept = set(target.bindings.values())
        going = [key for key, binding in worker.run.bindings.items() if binding not in kept]
        worker.drain(monotonic(), self.drain_time_s, going)

    def _close_slots(self, slots: Iterable[Slot]) -> None:
        # What waits in a queue is served by the worker that has the last copy: the kernel would reset it.
        for slot in slots:
            slot.close_sockets()
            for worker in slot.workers():
                worker.close_listeners()

    def lasting_slots(self) -> list[Slot]:
        """The slots that are to have a worker."""
        return [slot for slot in self.slots if not slot.retiring]

    def _placement(self, run: GenerationRun) -> cpus.Placement:
        ours = run.bootstrap.forkproxy
        cpuset = self.options.cpuset if self.options.cpuset is not None else ours.cpuset
        count = self.options.concurrency if self.options.concurrency is not None else ours.concurrency
        try:
            placement = cpus.place_here(concurrency=count or None, cpuset=cpuset)
        except ValueError as error:
            raise ConfigurationRefused(f"{self.options.config_path}: forkproxy.cpuset: {error}") from None
        for warning in placement.warnings:
            _log.warning(warning)
        return placement

    def _resize(self, count: int) -> None:
        slots = self.lasting_slots()
        if not 1 <= count <= MOST_WORKERS or count == len(slots) or self.is_drained:
            return
        if count < len(slots):
            for slot in slots[count:]:
                self._retire(slot)
        else:
            allowed = cpus.in_topology_order(os.sched_getaffinity(0))
            free = [number for number in range(MOST_WORKERS * 2) if all(slot.number != number for slot in self.slots)]
            more = [Slot(number, allowed[number % len(allowed)], self.running) for number in free[: count - len(slots)]]
            try:
                self.sockets.bind(self.running.bindings.values(), more, self.slots)
            except CannotBind as error:
                _log.error("no further worker", reason=str(error))
                return
            self.slots += more
        _log.info("number of workers changed", workers=count)

    def _retire(self, slot: Slot) -> None:
        slot.retiring = True
        now = monotonic()
        for worker in slot.workers():
            worker.drain(now, self.drain_time_s, worker.run.bindings)
        # The kernel must not hand new connections to a socket nobody will look at.
        self._close_slots([slot])

    def _close_what_is_gone(self) -> None:
        for binding in self.sockets.keep_only(self.running.bindings.values(), self.slots):
            _log.info("no longer listening", listener=binding.listener, address=str(binding.address))
        for slot in self.slots:
            for worker in slot.draining:
                worker.close_listeners()

    # -- sleep, and what ends it

    def _sleep(self) -> None:
        if self._exit_code is not None or (self._intentions and self._roll_out is None):
            self._wake_at = monotonic()
            return
        now = monotonic()
        until = now + min(LONGEST_SLEEP_S, self._notifier.watchdog_interval_s or LONGEST_SLEEP_S)
        if self._watcher is not None:
            until = min(until, max(self._watcher.next_look, now + 0.01))
        for slot in self.slots:
            if self._wants_worker(slot, float("inf")):
                until = min(
                    until, max(slot.respawn_at, slot.run.warm_deadline if slot.run.unresolved else 0.0, now + 0.01)
                )
            for worker in slot.workers():
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

    def _on_worker_message(self, worker: WorkerHandle, message: Message) -> None:
        match message.get("op"):
            case "ready":
                worker.ready = True
                worker.deadline = float("inf") if not worker.draining else worker.deadline
                _log.debug("worker ready", slot=worker.slot.number, worker=worker.pid, generation=worker.run.number)
            case "failed":
                worker.failure = str(message.get("reason", ""))
            case "flushed":
                self._refreshes.on_flushed(worker.pid, message["round"])
                return
        self.loop.stop()

    def _on_endpoints(self, run: GenerationRun, cluster: str, endpoints: list[dict[str, object]]) -> None:
        run.set_endpoints(cluster, endpoints)
        for worker in self.workers():
            if worker.run is run:
                worker.channel.send({"op": "endpoints", "cluster": cluster, "endpoints": endpoints})
        self.loop.stop()

    def set_health_check(self, *, failed: bool) -> None:
        """/healthcheck/fail and /ok: told to all workers, and kept for those to come."""
        self.fails_health_check = failed
        for run in (self._running, self._newest):
            if run is not None:
                run.generation.fail_health_check(failed)
        for worker in self.workers():
            worker.channel.send({"op": "health_check", "failed": failed})

    def _on_exception(self, exception: Exception, callback: object) -> None:
        _log.exception("an exception left a callback; the supervisor goes on", exception, callback=callback)

    # -- what it tells

    def _answer(self, request: Message, reply: Reply) -> None:
        match request.get("op"):
            case "status":
                reply({"ok": True, **self.status()})
            case "stop":
                self.want("stop", reply, now=bool(request.get("now")))
            case "reload":
                self.want("reload", reply)
            case op:
                reply({"ok": False, "reason": f"no such request: {op}", "exit": EXIT_FAILURE})

    def summary(self) -> str:
        """One line: ``"2 workers on CPUs 0-1, generation 3"``."""
        slots = self.lasting_slots()
        pinned = sorted({slot.cpu for slot in slots if slot.cpu is not None})
        count = f"{len(slots)} worker{'s' if len(slots) != 1 else ''}"
        where = f" on CPU{'s' if len(pinned) != 1 else ''} {_ranges(pinned)}" if pinned else ""
        return f"{count}{where}, generation {self.running.number}"

    def _status_line(self) -> str:
        """What ``systemctl status`` shows: the summary, who is missing, and why the last reload was refused."""
        slots = self.lasting_slots()
        ready = sum(1 for slot in slots if slot.current is not None and slot.current.ready)
        line = self.summary()
        if self.is_drained:
            line += "; listeners drained"
        elif ready < len(slots):
            line += f"; {ready} ready"
        if self.last_refusal:
            line += f"; reload refused: {first_line(self.last_refusal)}"
        return line

    def status(self) -> dict[str, Any]:
        """What ``forkproxy status`` shows, JSON-ready."""
        return {
            "version": __version__,
            "pid": os.getpid(),
            "state": self.phase,
            "uptime_s": round(monotonic() - self.started_at, 3),
            "config_path": self.options.config_path,
            "generation": self.running.number,
            "last_refusal": self.last_refusal,
            "listeners": [
                {"name": name, "address": str(self.sockets.bound_address(binding))}
                for (name, _index), binding in self.running.bindings.items()
            ],
            "workers": [
                {
                    "slot": worker.slot.number,
                    "pid": worker.pid,
                    "cpu": worker.slot.cpu,
                    "generation": worker.run.number,
                    "state": worker.state,
                    "connections": worker.connections,
                    "uptime_s": round(monotonic() - worker.started_at, 3),
                }
                for worker in self.workers()
            ],
        }


def raise_descriptor_limit() -> int:
    """Take as many descriptors per process as this user may have; returns the limit now in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def first_line(text: str) -> str:
    """The first line of ``text``."""
    return text.partition("\n")[0]


def _ranges(numbers: list[int]) -> str:
    """[0, 1, 2, 5] → "0-2,5"."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


def _exit_of(error: CannotBind) -> int:
    return EXIT_NO_PERMISSION if error.denied else EXIT_CANNOT_BIND


def _answer_to(intention: Intention, message: Message) -> None:
    if intention.reply is not None:
        intention.reply(message)


def _reply_to(roll_out: RollOut, message: Message) -> None:
    if roll_out.reply is not None:
        roll_out.reply(message)
