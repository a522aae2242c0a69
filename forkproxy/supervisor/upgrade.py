"""Upgrade: a new process, with the code that is installed now, takes this supervisor's place without losing a connection.

The same command line is executed again, with a fresh interpreter. The new process inherits the listening sockets themselves,
with whatever waits in their queues, so nothing is bound twice and nothing closes in between. Its workers accept beside ours
from the moment they are ready; ours drain only when it has taken over (predecessor.py is its side, and has the messages). Until
then nothing has changed here: a new process that refuses the configuration, dies, or takes too long is given up.

It is not our child but the service manager's, so that it can become the service's main process: it is forked twice.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from time import monotonic
from typing import TYPE_CHECKING

from forkproxy import log
from forkproxy.supervisor.control_socket import Reply
from forkproxy.supervisor.exits import EXIT_FAILURE, first_line
from forkproxy.supervisor.inheritance import PARKED, VARIABLE, Inheritance, likeness
from forkproxy.worker import after_fork
from forkproxy.worker.control import Channel, Message, encode

if TYPE_CHECKING:
    from forkproxy.supervisor.supervisor import Intention, Supervisor

FIGURES_INTERVAL_S = 0.5
"""How often the successor gets the figures of the workers that still drain here."""
GROUPS_PER_MESSAGE = 500
PATIENCE_S = 5.0
"""How long after the drain time a successor that was told to stop may need."""

_log = log.get_logger("supervisor")


class Upgrade:
    """The successor, from its start to the end of this process."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.has_handed_over = False
        """The successor serves; this process ends when its workers have drained."""
        self._supervisor = supervisor
        self._channel: Channel | None = None
        self._reply: Reply | None = None
        self._pid = 0
        self._pidfd = -1
        self._failure = ""
        self._exit = EXIT_FAILURE
        self._is_taking = False
        self._deadline = float("inf")
        self._asked: dict[int, Reply] = {}

    @property
    def is_under_way(self) -> bool:
        """Whether there is a successor that does not serve yet."""
        return self._channel is not None and not self.has_handed_over

    @property
    def owes_answers(self) -> bool:
        """Whether somebody waits here for what the successor makes of a request."""
        return bool(self._asked)

    @property
    def deadline(self) -> float:
        """When ``check`` has something to do, in ``loop.now`` seconds."""
        return self._deadline

    def begin(self, reply: Reply | None) -> None:
        """Start a successor. ``reply`` gets the verdict."""
        self._reply = reply
        reason = self._why_not()
        if not reason:
            self._supervisor.notifier.status("upgrading")
            try:
                self._start()
            except OSError as error:
                reason = f"no process could be forked: {error.strerror}"
        if reason:
            self._refuse(reason, EXIT_FAILURE)
            return
        self._deadline = monotonic() + self._supervisor.options.upgrade_timeout_s
        _log.info("upgrading", program=sys.executable)

    def check(self, now: float) -> None:
        """Give up a successor that takes too long."""
        if now < self._deadline:
            return
        self._deadline = float("inf")
        if self.is_under_way:
            limit = self._supervisor.options.upgrade_timeout_s
            self._give_up(f"the new process was not ready within {limit:g} s", EXIT_FAILURE)
        else:
            self._kill()

    def refuse(self, reply: Reply | None) -> None:
        """Another upgrade is asked for meanwhile."""
        _log.warning("upgrade refused", reason="an upgrade is under way", successor=self._pid)
        if reply is not None:
            reply({"ok": False, "reason": "an upgrade is under way", "exit": EXIT_FAILURE})

    def stop(self, now: float, *, at_once: bool) -> None:
        """This process stops before it has handed over: so does the successor."""
        if self._channel is None or self.has_handed_over:
            return
        self._channel.send({"op": "stop", "now": at_once})
        self._answer({"ok": False, "reason": "stopping", "exit": EXIT_FAILURE})
        wait_s = 0.0 if at_once else self._supervisor.generations.drain_time_s
        self._deadline = min(self._deadline, now + wait_s + PATIENCE_S)

    def close(self) -> None:
        """The end of this process: the last figures leave."""
        channel = self._channel
        if channel is None:
            return
        if self.has_handed_over:
            self._send_figures()
            patience = monotonic() + PATIENCE_S
            while channel.is_waiting and not channel.closed and monotonic() < patience:
                self._supervisor.loop.run_once(0.1)
        else:
            self._kill()
        channel.close()
        self._forget()

    # -- the successor's start

    def _why_not(self) -> str:
        supervisor = self._supervisor
        if os.getpid() == 1:
            return "process 1 of a container cannot be replaced: start a container of the new image"
        if supervisor.phase != "serving":
            return f"the supervisor is {supervisor.phase}"
        before = supervisor.predecessor
        if before is not None and before.is_here:
            return f"the upgrade before is not complete: pid {before.inheritance.pid} still drains"
        return ""

    def _start(self) -> None:
        inheritance = self._inheritance()
        listed = inheritance.write()
        ours, theirs = socket.socketpair()
        inherited = inheritance.descriptors
        try:
            intermediate = after_fork.fork(lambda: _become_successor(theirs, listed, inherited))
            os.waitpid(intermediate, 0)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(listed)
        self._failure, self._exit = "", EXIT_FAILURE
        self._channel = Channel(self._supervisor.loop, ours, on_message=self._on_message, on_close=self._on_close)

    def _inheritance(self) -> Inheritance:
        supervisor = self._supervisor
        fleet, generations = supervisor.fleet, supervisor.generations
        return Inheritance(
            pid=os.getpid(),
            epoch=supervisor.epoch,
            generation=generations.made,
            fails_health_check=generations.fails_health_check,
            slots=[
                *(
                    (slot.number, likeness(binding), sock.fileno())
                    for slot in fleet.lasting_slots()
                    for binding, sock in slot.sockets.items()
                ),
                *(
                    (PARKED, likeness(binding), sock.fileno())
                    for binding, parked in fleet.sockets.parked.items()
                    for sock in parked
                ),
            ],
            passed=fleet.sockets.passed.descriptors(),
            admin=supervisor.admin.inheritance(),
            pid_file=supervisor.door.pid_file_inheritance(),
            control=supervisor.door.control_inheritance(),
        )

    # -- its messages

    def _on_message(self, message: Message) -> None:
        match message.get("op"):
            case "born":
                self._pid = message["pid"]
                self._pidfd = os.pidfd_open(self._pid)
            case "failed":
                self._failure, self._exit = message["reason"], message["exit"]
            case "ready" if self._supervisor.phase == "serving":
                # The successor's figures begin where ours stand now.
                self._is_taking = True
                self._supervisor.fleet.refresh(self._let_it_take_over)
            case "taken":
                self._hand_over(set(message["kept"]), set(message["paths"]))
            case "answer":
                self._asked.pop(message["id"])(message["answer"])
            case "stop":
                self._supervisor.want("stop", now=message["now"])
            case "reopen_logs":
                self._supervisor.want("reopen_logs")
        self._supervisor.loop.stop()

    def _on_close(self, _reason: str) -> None:
        if self.has_handed_over:
            for reply in self._asked.values():
                reply({"ok": False, "reason": "the new process has ended", "exit": EXIT_FAILURE})
            self._asked.clear()
            _log.warning("the supervisor after this one has gone", successor=self._pid)
        elif self._supervisor.phase == "stopping":
            self._forget()
        else:
            reason = self._failure or "it ended before it was ready; its output tells why"
            if self._is_taking:
                self._supervisor.door.take_over()
            self._give_up(f"the new process did not start: {reason}", self._exit)
        self._supervisor.loop.stop()

    def _let_it_take_over(self) -> None:
        if self._channel is not None and self._supervisor.phase == "serving":
            self._channel.send({"op": "take_over"})

    def _hand_over(self, kept: set[int], paths: set[str]) -> None:
        supervisor, channel = self._supervisor, self._channel
        assert channel is not None
        if supervisor.phase != "serving":
            return
        self.has_handed_over = True
        self._deadline = float("inf")
        _log.info("upgraded: the new process serves", successor=self._pid)
        supervisor.notifier.main_process(self._pid)
        supervisor.door.leave()
        supervisor.admin.leave()
        self._send_figures()
        for number, intention in enumerate(supervisor.give_up_intentions()):
            self._pass_on(channel, number, intention)
        channel.send({"op": "done"})
        supervisor.begin_to_leave(kept, paths)
        self._answer({"ok": True, "pid": self._pid})
        supervisor.loop.call_later(FIGURES_INTERVAL_S, self._refresh_figures)

    def _pass_on(self, channel: Channel, number: int, intention: Intention) -> None:
        if intention.reply is not None:
            self._asked[number] = intention.reply
        channel.send(
            {
                "op": "ask",
                "id": number,
                "is_awaited": intention.reply is not None,
                "kind": intention.kind,
                "now": intention.now,
                "number": intention.number,
            }
        )

    def _refresh_figures(self) -> None:
        self._supervisor.fleet.refresh(self._tell_figures)

    def _tell_figures(self) -> None:
        if self._channel is not None and not self._channel.closed:
            self._send_figures()
            self._supervisor.loop.call_later(FIGURES_INTERVAL_S, self._refresh_figures)

    def _send_figures(self) -> None:
        channel, supervisor = self._channel, self._supervisor
        if channel is None or channel.is_waiting:
            return  # it has not read the last ones yet
        workers = supervisor.fleet.workers()
        groups = supervisor.registry.totals(supervisor.slabs())
        for start in range(0, len(groups), GROUPS_PER_MESSAGE):
            channel.send({"op": "figures", "groups": groups[start : start + GROUPS_PER_MESSAGE]})
        connections = sum(worker.connections for worker in workers)
        channel.send({"op": "draining", "workers": len(workers), "connections": connections})

    # -- its failure

    def _give_up(self, reason: str, code: int) -> None:
        self._kill()
        if self._channel is not None:
            self._channel.close()
        self._forget()
        self._refuse(reason, code)

    def _refuse(self, reason: str, code: int) -> None:
        _log.error("upgrade failed; this process carries on", reason=first_line(reason))
        self._supervisor.notifier.status(self._supervisor.report.line())
        self._answer({"ok": False, "reason": reason, "exit": code})

    def _answer(self, message: Message) -> None:
        reply, self._reply = self._reply, None
        if reply is not None:
            reply(message)

    def _kill(self) -> None:
        # Its workers, if it has any, drain and leave: they have our sockets, and we have them too.
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _forget(self) -> None:
        self._channel = None
        self._is_taking = False
        self._deadline = float("inf")
        if self._pidfd >= 0:
            os.close(self._pidfd)
        self._pid, self._pidfd = 0, -1


def _become_successor(control: socket.socket, listed: int, inherited: list[int]) -> int:
    """In the forked child: leave a child of our own behind, which executes the program anew."""
    if os.fork():
        return 0

    def tell(**message: object) -> None:
        control.send(encode(message))

    tell(op="born", pid=os.getpid())
    environment = {**os.environ, VARIABLE: f"{os.getpid()}:{control.fileno()}:{listed}"}
    command = [sys.executable, *sys.orig_argv[1:]]
    try:
        after_fork.execute(command, environment, {control.fileno(), listed, *inherited})
    except OSError as error:
        tell(op="failed", reason=f"cannot execute {command[0]}: {error.strerror}", exit=EXIT_FAILURE)
    return 1
