"""Work in a process of its own, of which only the result comes here.

Reading a configuration takes modules that nothing else needs, and leaves holes: most of what it makes is garbage when it is
done, strewn between what stays, so that a heap that was grown for it is not given back. Both go with the process. What comes
here is packed (config/packing.py) and unpacks into memory without holes; and who runs out of memory is the process, not the
supervisor.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from forkproxy.config import packing
from forkproxy.config.tree import collection_paused
from forkproxy.supervisor.precedence import Watch, step_behind
from forkproxy.worker import after_fork

T = TypeVar("T")

PATIENCE_S = 10.0
"""For so long what is gentle takes no more of a CPU than the workers leave."""


class Died(Exception):
    """The process ended without a result; the text says how: its exit code, negative for a signal."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Apart(Generic[T]):
    """``work()`` under way in a forked process; ``result`` is to be asked for once.

    ``gently``: with the workers before it, for they have traffic; somebody is to ``look``. OSError when there can be no process.
    """

    def __init__(self, work: Callable[[], T], *, name: str, gently: bool) -> None:
        self._fd = os.memfd_create(name, os.MFD_CLOEXEC)
        parent = os.getpid()

        def run() -> int:
            after_fork.undo_parent(keep=[self._fd], parent_pid=parent, name=name)
            if gently:
                step_behind()
            with collection_paused(), open(self._fd, "wb", closefd=False) as file:
                packing.dump(work(), file)
            return 0

        self._code: int | None = None
        try:
            self.pid = after_fork.fork(run)
        except OSError:
            os.close(self._fd)
            raise
        self._watch = Watch(self.pid, PATIENCE_S) if gently else None

    def look(self) -> bool:
        """Whether it gets on, every ``precedence.LOOK_S`` seconds. False when there is no need to look again."""
        return self._watch is not None and not self.has_ended and self._watch.look()

    @property
    def has_ended(self) -> bool:
        """Whether ``on_gone`` has said so."""
        return self._code is not None

    def on_gone(self, code: int) -> None:
        """Somebody else has reaped the process, and this was its exit code, negative for a signal."""
        self._code = code

    def kill(self) -> None:
        """Nobody wants the result any more."""
        if not self.has_ended:
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(Died):
            self.result()

    def result(self) -> T:
        """Wait for it. Died when there is none."""
        try:
            if self._code is None:
                _, status = os.waitpid(self.pid, 0)
                self._code = os.waitstatus_to_exitcode(status)
            if self._code:
                raise Died(self._code)
            os.lseek(self._fd, 0, os.SEEK_SET)
            with collection_paused(), open(self._fd, "rb", closefd=False) as file:
                found: Any = packing.load(file)
        finally:
            os.close(self._fd)
        result: T = found
        return result
