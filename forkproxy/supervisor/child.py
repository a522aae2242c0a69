"""A child process of the supervisor, with the channel on which the two talk.

Workers, resolvers and whatever else is forked are born here. What the child does first is ``after_fork.undo_parent``, with
the control socket among what it keeps.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass

from forkproxy.net.loop import Loop
from forkproxy.worker import after_fork
from forkproxy.worker.control import Channel, Message


@dataclass(eq=False, slots=True)
class Child:
    """A forked process that is not reaped yet, so the pid is its own."""

    pid: int
    channel: Channel

    def signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def end(self) -> None:
        """Ask it to end, with SIGTERM."""
        self.signal(signal.SIGTERM)


def fork_child(loop: Loop, run: Callable[[socket.socket], int], on_message: Callable[[Message], None]) -> Child:
    """Fork a child that calls ``run(its end of the channel)`` and exits with what that returns. OSError when it cannot be.

    ``on_message`` is told what it sends. Of its end SIGCHLD tells, not the channel.
    """
    ours, theirs = socket.socketpair()
    try:
        pid = after_fork.fork(lambda: run(theirs))
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    return Child(pid, Channel(loop, ours, on_message=on_message, on_close=lambda _reason: None))
