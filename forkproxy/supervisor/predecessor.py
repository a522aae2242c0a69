"""The successor's side of an upgrade: taking the place of the supervisor that started this process.

It starts like any other, but with what it inherited, and says so when all its workers are ready. On the other's word it takes
the pid file, the control socket and the admin port, confirms, and is in charge when the other has said that it lets go. Until
then the other one serves, and has the last word; should it die first, this one takes over by itself.

Messages, on a channel like a worker's (worker/control.py). From the successor: ``born`` (``pid``), ``failed`` (``reason``,
``exit``), ``ready``, ``taken`` (``kept``: the inherited descriptors in use, ``paths``: all unix-domain paths listened on),
``answer`` (``id``, ``answer``), and once in charge ``stop`` (``now``) and ``reopen_logs``. From the predecessor: ``stop``
(``now``), ``take_over``, ``figures`` (``groups``, see stats/counters.py), ``ask`` (``id``, ``kind``, ``now``, ``number``: an
intention that waited), ``done``, and then ``draining`` (``workers``, ``connections``) now and again.
"""

from __future__ import annotations

import os
import socket
from time import monotonic
from typing import TYPE_CHECKING

from forkproxy import log
from forkproxy.supervisor.exits import StartFailed
from forkproxy.supervisor.inheritance import Inheritance
from forkproxy.worker.control import Channel, Message

if TYPE_CHECKING:
    from forkproxy.supervisor.supervisor import Supervisor

PATIENCE_S = 5.0
"""How long after the drain time the predecessor may need to end."""

_log = log.get_logger("supervisor")


class Predecessor:
    """The other supervisor, as seen from this one."""

    def __init__(self, supervisor: Supervisor, inheritance: Inheritance) -> None:
        self.inheritance = inheritance
        self.is_in_charge = False
        """This process is the one that serves; before, it only gets ready to."""
        self.is_here = True
        """The other process is there."""
        self.workers = 0
        self.connections = 0
        """What still drains there."""
        self._supervisor = supervisor
        self._is_ready = False
        self._has_taken = False
        self._was_told_to_stop = False
        self._ends_by = float("inf")
        sock = socket.socket(fileno=inheritance.channel)
        self._channel = Channel(supervisor.loop, sock, on_message=self._on_message, on_close=self._on_close)

    def adopt(self) -> None:
        """Before anything is loaded: what goes on from where the other one is."""
        supervisor, inherited = self._supervisor, self.inheritance
        supervisor.notifier.be_silent(True)
        supervisor.epoch = supervisor.figures.server.hot_restart_epoch = inherited.epoch + 1
        supervisor.generations.made = inherited.generation
        supervisor.generations.fails_health_check = inherited.fails_health_check
        supervisor.fleet.sockets.passed.inherit(inherited.passed)
        supervisor.fleet.sockets.inherit(inherited.slots)
        supervisor.admin.inherit(inherited.admin)
        supervisor.door.inherit(inherited.pid_file, inherited.control)

    def refuse(self, failed: StartFailed) -> None:
        """This process cannot start."""
        self._channel.send({"op": "failed", "reason": str(failed), "exit": failed.exit_code})

    def on_workers_ready(self) -> None:
        """All workers serve: the other one may let go. Called at every look."""
        if not self.is_here:
            self._take_over_alone()
        elif not self._is_ready:
            self._is_ready = True
            self._channel.send({"op": "ready"})

    def stop(self, *, now: bool) -> None:
        """This process is told to stop: so is the other, for what still drains there."""
        if self.is_here and self.is_in_charge:
            self._channel.send({"op": "stop", "now": now})
            wait_s = 0.0 if now else self._supervisor.generations.drain_time_s
            self._ends_by = min(self._ends_by, monotonic() + wait_s + PATIENCE_S)

    def reopen_logs(self) -> None:
        """Logs have been moved: also those that the other's workers write to."""
        if self.is_here and self.is_in_charge:
            self._channel.send({"op": "reopen_logs"})

    def is_waited_for(self, now: float) -> bool:
        """Whether this process must not end yet, because the service would end with it while the other still drains."""
        return self.is_here and self.is_in_charge and now < self._ends_by

    def close(self) -> None:
        """The end of this process. What is not its own yet stays where it is."""
        if not self._has_taken:
            supervisor = self._supervisor
            supervisor.door.leave()
            supervisor.admin.leave()
            supervisor.fleet.sockets.leave_inherited()
        if self.is_here:
            self._channel.close()

    def _on_message(self, message: Message) -> None:
        supervisor = self._supervisor
        match message.get("op"):
            case "take_over":
                self._take_over()
                listened = [binding.address.pipe_path for binding in supervisor.generations.running.bindings.values()]
                kept = sorted(supervisor.fleet.sockets.adopted)
                self._channel.send({"op": "taken", "kept": kept, "paths": [path for path in listened if path]})
            case "figures":
                supervisor.registry.carry(message["groups"])
            case "done":
                self._be_in_charge()
            case "draining":
                self.workers, self.connections = message["workers"], message["connections"]
                supervisor.figures.server.parent_connections = self.connections
            case "ask":
                self._take_request(message)
            case "stop":
                self._was_told_to_stop = True
                supervisor.want("stop", now=message["now"])
        supervisor.loop.stop()

    def _take_request(self, message: Message) -> None:
        number = message["id"]

        def answer(answer: Message) -> None:
            self._channel.send({"op": "answer", "id": number, "answer": answer})

        reply = answer if message["is_awaited"] else None
        self._supervisor.want(message["kind"], reply, now=message["now"], number=message["number"])

    def _take_over(self) -> None:
        if not self._has_taken:
            self._has_taken = True
            self._supervisor.take_over()

    def _be_in_charge(self) -> None:
        self.is_in_charge = True
        self._supervisor.notifier.be_silent(False)

    def _take_over_alone(self) -> None:
        if not self.is_in_charge:
            _log.warning("the supervisor that upgrades has died: this one takes over", predecessor=self.inheritance.pid)
            self._take_over()
            self._be_in_charge()

    def _on_close(self, _reason: str) -> None:
        self.is_here = False
        self.workers = self.connections = 0
        self._supervisor.registry.forget_carried_gauges()
        self._supervisor.figures.server.parent_connections = 0
        if self.is_in_charge:
            _log.info("the supervisor before this one has gone", predecessor=self.inheritance.pid)
        elif "NOTIFY_SOCKET" in os.environ and not self._was_told_to_stop:
            _log.warning("the supervisor that upgrades has died: the service manager starts the next, this one leaves")
            self._was_told_to_stop = True
            # The next one needs the lock.
            self._supervisor.door.leave()
            self._supervisor.want("stop")
        self._supervisor.loop.stop()
