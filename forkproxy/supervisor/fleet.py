"""The worker fleet: the slots with their sockets, and the processes in them. Forks, checks, resizes, drains.

It does what it is told to and replaces what has died; what the operator wants, and when, is the supervisor's to say.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Collection, Iterable
from time import monotonic

from forkproxy import log
from forkproxy.net import descriptors
from forkproxy.net.loop import Loop
from forkproxy.stats.counters import Registry
from forkproxy.stats.slab import Slab
from forkproxy.supervisor import cpus
from forkproxy.supervisor.child import fork_child
from forkproxy.supervisor.exits import ConfigurationRefused
from forkproxy.supervisor.generation_run import GenerationRun
from forkproxy.supervisor.generations import Generations
from forkproxy.supervisor.handovers import Handovers
from forkproxy.supervisor.listening import CannotBind
from forkproxy.supervisor.options import Options
from forkproxy.supervisor.pinning import Pinning
from forkproxy.supervisor.refresh import Refreshes
from forkproxy.supervisor.slot import Slot, WorkerHandle
from forkproxy.supervisor.slot_sockets import SlotSockets
from forkproxy.worker.adoption import Adoption, Giver
from forkproxy.worker.control import Message
from forkproxy.worker.worker import WorkerStart, run_worker

MOST_WORKERS = 4096
RETRY_FORK_S = 1.0
"""When a worker that could not be forked is tried again, the first time."""

_log = log.get_logger("supervisor")


class Fleet:
    """All slots and workers. ``on_change()`` is called when a worker's message has changed what the supervisor may do next."""

    def __init__(
        self,
        loop: Loop,
        registry: Registry,
        options: Options,
        generations: Generations,
        *,
        on_change: Callable[[], None],
    ) -> None:
        self.slots: list[Slot] = []
        self.sockets = SlotSockets()
        self.drained: set[str] = set()
        """The listeners that were drained on request: they accept nothing until a reload."""
        self.no_hang_before = 0.0
        """Until then a late heartbeat proves nothing."""
        self._loop = loop
        self._registry = registry
        self._options = options
        self._generations = generations
        self._on_change = on_change
        self.on_hang: Callable[[int], None] = lambda _slot: None
        """Told the slot of a worker that hangs."""
        self._by_pid: dict[int, WorkerHandle] = {}
        self._refreshes = Refreshes()
        self._handovers = Handovers()
        self._pinning = Pinning(lambda count: self._place(self._generations.running, count))
        self._served: dict[str, Callable[[WorkerHandle, Message], None]] = {}

    def serve(self, op: str, answer: Callable[[WorkerHandle, Message], None]) -> None:
        """Have ``answer(worker, message)`` called for every message of this kind."""
        self._served[op] = answer

    @property
    def pids(self) -> Iterable[int]:
        """The processes."""
        return self._by_pid.keys()

    def workers(self) -> list[WorkerHandle]:
        """All worker processes, slot by slot."""
        return [worker for slot in self.slots for worker in slot.workers()]

    def lasting_slots(self) -> list[Slot]:
        """The slots that are to have a worker."""
        return [slot for slot in self.slots if not slot.retiring]

    @property
    def is_drained(self) -> bool:
        """Whether all listeners were drained on request: then no worker is missed."""
        if not self.drained:
            return False
        return self.drained.issuperset(name for name, _index in self._generations.running.bindings)

    def refresh(self, done: Callable[[], None]) -> None:
        """Have every worker bring its slab up to date; ``done()`` is called once, when all have."""
        self._refreshes.ask(self.workers(), done)

    def tell(self, message: Message) -> None:
        """Send ``message`` to every worker."""
        for worker in self.workers():
            worker.channel.send(message)

    # -- how many, and where

    def placement(self, run: GenerationRun) -> cpus.Placement:
        """A CPU for every worker that ``run`` wants. ConfigurationRefused for a malformed cpuset."""
        ours = run.bootstrap.forkproxy
        count = self._options.concurrency if self._options.concurrency is not None else ours.concurrency
        try:
            placement = self._place(run, count or None)
        except ValueError as error:
            raise ConfigurationRefused(f"{self._options.config_path}: forkproxy.cpuset: {error}") from None
        self._pinning.warn(placement.warnings)
        return placement

    def _place(self, run: GenerationRun, count: int | None) -> cpus.Placement:
        if self._options.cpuset is not None:
            return cpus.place_here(concurrency=count, cpuset=self._options.cpuset)
        return cpus.place_here(
            concurrency=count, cpuset=run.bootstrap.forkproxy.cpuset, asked_by="forkproxy.cpuset of the configuration"
        )

    def lay_out(self, run: GenerationRun) -> None:
        """Make the first slots and bind their sockets. ConfigurationRefused, CannotBind."""
        placement = self.placement(run)
        self.slots = [Slot(number, cpu, run) for number, cpu in enumerate(placement.cpus)]
        self.sockets.passed.take()
        self.bind(run)
        self.sockets.park_inherited(run.bindings.values(), self.slots)

    def bind(self, run: GenerationRun) -> None:
        """Bind what ``run`` needs and is not bound yet. CannotBind: nothing has changed."""
        self.sockets.bind(run.bindings.values(), self.lasting_slots(), self.slots)

    def resize(self, count: int) -> str:
        """Have ``count`` slots: the last ones retire, or new ones are added, for the running generation.

        Returns why that cannot be, or "".
        """
        slots = self.lasting_slots()
        if not 1 <= count <= MOST_WORKERS:
            return f"there can be 1 to {MOST_WORKERS} workers"
        if self.is_drained:
            return "the listeners are drained: reload first"
        if count == len(slots):
            self._pinning.place(slots)
            return ""
        if count < len(slots):
            self._retire(slots[count:])
        else:
            running = self._generations.running
            free = [number for number in range(MOST_WORKERS * 2) if all(slot.number != number for slot in self.slots)]
            more = [Slot(number, None, running) for number in free[: count - len(slots)]]
            wanted = [binding for (name, _index), binding in running.bindings.items() if name not in self.drained]
            try:
                self.sockets.bind(wanted, more, self.slots)
            except CannotBind as error:
                _log.error("no further worker", reason=str(error))
                return str(error)
            self.slots += more
        self._pinning.place(self.lasting_slots())
        _log.info("number of workers changed", workers=count)
        return ""

    def _retire(self, slots: Iterable[Slot]) -> None:
        # Others accept from their sockets before their workers do not.
        for slot in slots:
            slot.retiring = True
        lasting, now = self.lasting_slots(), monotonic()
        for slot in slots:
            left = self.sockets.park(slot, lasting)
            for worker in [worker for other in lasting for worker in other.workers()]:
                worker.adopt(left)
            for worker in slot.workers():
                worker.drain(now, self._generations.drain_time_s)

    # -- birth

    def wants_worker(self, slot: Slot, now: float) -> bool:
        """Whether a worker should be started in ``slot`` (at ``now``; infinity: sooner or later)."""
        if slot.current is not None or slot.successor is not None or slot.retiring or slot.given_up:
            return False
        return not self.is_drained and now >= slot.respawn_at and slot.run.is_warm(now)

    def next_start(self) -> float:
        """When the next missing worker may start, in ``loop.now`` seconds; infinity when none is missing."""
        missing = [slot for slot in self.slots if self.wants_worker(slot, float("inf"))]
        return min(
            (max(slot.respawn_at, 0.0 if slot.run.is_warm(0.0) else slot.run.warm_deadline) for slot in missing),
            default=float("inf"),
        )

    def start_missing(self, now: float) -> str:
        """Start a worker where one is wanted; returns why the last one could not be forked, "" when nothing failed."""
        reason = ""
        for slot in self.slots:
            if self.wants_worker(slot, now):
                try:
                    slot.current = self.spawn(slot, slot.run)
                except OSError as error:
                    wait_s = slot.count_death(0.0, now) or RETRY_FORK_S
                    slot.respawn_at = now + wait_s
                    reason = descriptors.explain(error)
                    next_step = f"tried again in {wait_s:g} s"
                    _log.error("no worker could be forked", slot=slot.number, reason=reason, next=next_step)
        return reason

    def spawn(self, slot: Slot, run: GenerationRun) -> WorkerHandle:
        """Fork a worker. OSError when that is not possible."""
        run.generation.prepare_slot(slot.number)
        handover = self._handovers.part_of(
            slot.number,
            generation=run.number,
            listeners=len(run.bootstrap.listeners),
            slots=[lasting.number for lasting in self.lasting_slots()],
        )
        giver = Giver()
        slab = Slab.create(self._registry.cells)
        seat = self._registry.shared.take_seat()
        is_older = run is not self._generations.newest
        parent_pid = os.getpid()

        def in_worker(control: socket.socket) -> int:
            self._registry.shared.sit(seat)
            if is_older:
                # Forked during a roll-out for a slot that still runs the generation before: its groups are the ones to flush.
                self._registry.abandon_generation()
            return run_worker(
                WorkerStart(
                    slot=slot.number,
                    cpu=slot.cpu,
                    generation_number=run.number,
                    generation=run.generation,
                    sockets={
                        key: found
                        for key, binding in run.bindings.items()
                        if (found := self.sockets.all_of(slot, binding))
                    },
                    control=control,
                    slab=slab,
                    stats=self._registry,
                    parent_pid=parent_pid,
                    handover=handover,
                    adoption=Adoption(giver.receiver),
                    identity=run.identity,
                    drain_time_s=self._generations.drain_time_s,
                )
            )

        try:
            child = fork_child(self._loop, in_worker, lambda message: self._on_message(worker, message))
        except OSError:
            self._registry.shared.free_seat(seat)
            giver.close()
            raise
        finally:
            giver.receiver.close()
        now = monotonic()
        deadline = now + self._options.ready_timeout_s
        worker = WorkerHandle(child.pid, slot, run, slab, child.channel, now, seat, giver, deadline=deadline)
        self._by_pid[child.pid] = worker
        return worker

    def _on_message(self, worker: WorkerHandle, message: Message) -> None:
        match message.get("op"):
            case "ready":
                worker.ready = True
                worker.deadline = float("inf") if not worker.draining else worker.deadline
                _log.debug("worker ready", slot=worker.slot.number, worker=worker.pid, generation=worker.run.number)
            case "draining":
                worker.accepts = False
            case "failed":
                worker.failure = str(message.get("reason", ""))
            case "flushed":
                self._refreshes.on_flushed(worker.pid, message["round"])
                return
            case op if op in self._served:
                self._served[op](worker, message)
                return
        self._on_change()

    # -- life

    def check(self, now: float) -> None:
        """Abort or kill who hangs or is late; forget slots that have retired."""
        for slot in list(self.slots):
            for worker in slot.workers():
                self._check_worker(worker, now)
                worker.note_rate()
                if worker.giver is not None:
                    worker.giver.send_owed()
            if slot.retiring and not slot.workers():
                self.slots.remove(slot)
        self._pinning.check(now, self.slots, self.lasting_slots())
        self._handovers.keep_only([run.number for run in (self._generations.running, self._generations.newest) if run])

    def all_well(self) -> bool:
        """Whether every worker's heart beats."""
        return not any(worker.aborted_at or self._is_hung(worker) for worker in self.workers())

    def _is_hung(self, worker: WorkerHandle) -> bool:
        return worker.heartbeat_age_s() > self._options.heartbeat_timeout_s

    def _check_worker(self, worker: WorkerHandle, now: float) -> None:
        if now >= worker.deadline:
            if now < self.no_hang_before and not worker.draining and not worker.aborted_at:
                # It may not have run either.
                worker.deadline = self.no_hang_before
                return
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
        elif not worker.aborted_at and now >= self.no_hang_before and self._is_hung(worker):
            _log.error(
                "worker hangs: it gets SIGABRT",
                slot=worker.slot.number,
                worker=worker.pid,
                silent_s=round(worker.heartbeat_age_s(), 1),
            )
            self.on_hang(worker.slot.number)
            worker.abort(now)

    # -- end

    def drain_for(self, target: GenerationRun, worker: WorkerHandle) -> None:
        """Have ``worker`` drain: ``target`` takes its place."""
        # Listeners that the next generation does not have are served to the end of the roll-out.
        kept = set(target.bindings.values())
        going = [key for key, binding in worker.run.bindings.items() if binding not in kept]
        worker.drain(monotonic(), self._generations.drain_time_s, going)

    def end_all(self, now: float, *, at_once: bool) -> None:
        """Have all workers drain, or end at once, and stop listening."""
        for worker in self.workers():
            if at_once:
                worker.stop(now)
            else:
                worker.drain(now, self._generations.drain_time_s, worker.run.bindings)
        # What waits in a queue is served by the worker that has the last copy: the kernel would reset it.
        self.sockets.close_parked()
        for slot in self.slots:
            slot.close_sockets()
        for worker in self.workers():
            worker.close_listeners()

    def leave(self, kept: Collection[int], paths: Collection[str]) -> None:
        """A successor serves: have all workers drain. ``kept``: the sockets, by descriptor, that it has; the queues of others
        are served here. ``paths``: what it listens on by path."""
        now = monotonic()
        for worker in self.workers():
            going = [
                key
                for key, binding in worker.run.bindings.items()
                if any(sock.fileno() not in kept for sock in self.sockets.all_of(worker.slot, binding))
            ]
            worker.drain(now, self._generations.drain_time_s, going)
        self.sockets.leave(kept, paths, self.slots)
        for worker in self.workers():
            worker.close_listeners()

    def drain_listeners(self, names: tuple[str, ...]) -> None:
        """Have these listeners stop accepting until a reload; connections stay. The workers serve what waits in their queues."""
        self.drained.update(names)
        self._close_drained()
        self.tell({"op": "stop_listening", "listeners": names})

    def _close_drained(self) -> None:
        bindings = self._generations.running.bindings.items()
        self.sockets.close((binding for (name, _index), binding in bindings if name in self.drained), self.slots)

    def close_what_is_gone(self) -> None:
        """Close the sockets that the running generation does not need."""
        for binding in self.sockets.keep_only(self._generations.running.bindings.values(), self.slots):
            _log.info("no longer listening", listener=binding.listener, address=str(binding.address))
        # A reload that was refused had bound them again.
        self._close_drained()
        for slot in self.slots:
            for worker in slot.draining:
                worker.close_listeners()

    def on_gone(self, pid: int) -> WorkerHandle | None:
        """A child has been reaped; the worker it was, with what it counted kept. None when it was no worker.

        It is still in its slot, for the caller to see as what: ``slot.forget`` is called then.
        """
        worker = self._by_pid.pop(pid, None)
        if worker is None:
            return None
        worker.channel.close()
        if worker.giver is not None:
            worker.giver.close()
        self._registry.absorb(worker.slab)
        self._registry.shared.free_seat(worker.seat)
        worker.slab.close()
        self._refreshes.on_gone(pid)
        if worker is worker.slot.current:
            self._handovers.on_worker_gone(worker.slot.number, worker.run.number)
        return worker

    def kill_all(self) -> None:
        """The end of the program: no worker is left when this returns."""
        for worker in self._by_pid.values():
            worker.signal(signal.SIGKILL)
        for pid in self._by_pid:
            os.waitpid(pid, 0)

    def close(self) -> None:
        """Close all sockets."""
        for slot in self.slots:
            slot.close_sockets()
        self.sockets.keep_only((), self.slots)
        self.sockets.passed.close()
        self._handovers.keep_only(())
