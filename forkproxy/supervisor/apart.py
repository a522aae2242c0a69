"""Work in a process of its own, of which only the result comes here.

Reading a configuration takes modules that nothing else needs, and leaves holes: most of what it makes is garbage when it is
done, strewn between what stays, so that a heap that was grown for it is not given back. Both go with the process. What comes
here is packed (config/packing.py) and unpacks into memory without holes; and who runs out of memory is the process, not the
supervisor.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from forkproxy.config import packing
from forkproxy.config.tree import collection_paused
from forkproxy.worker import after_fork

T = TypeVar("T")

NICENESS = 5
"""Of work that goes behind the workers: where they leave a CPU no time, it gets a quarter of it."""


class Died(Exception):
    """The process ended without a result; the text says how: its exit code, negative for a signal."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Apart(Generic[T]):
    """``work()`` under way in a forked process; ``result`` is to be asked for once.

    ``gently``: with the workers before it, for they have traffic. OSError when there can be no process.
    """

    def __init__(self, work: Callable[[], T], *, name: str, gently: bool) -> None:
        self._fd = os.memfd_create(name, os.MFD_CLOEXEC)
        parent = os.getpid()

        def run() -> int:
            after_fork.undo_parent(keep=[self._fd], parent_pid=parent, name=name)
            if gently:
                give_way()
                os.nice(NICENESS)
            with collection_paused(), open(self._fd, "wb", closefd=False) as file:
                packing.dump(work(), file)
            return 0

        try:
            self._pid = after_fork.fork(run)
        except OSError:
            os.close(self._fd)
            raise

    def result(self) -> T:
        """Wait for it. Died when there is none."""
        try:
            _, status = os.waitpid(self._pid, 0)
            code = os.waitstatus_to_exitcode(status)
            if code:
                raise Died(code)
            os.lseek(self._fd, 0, os.SEEK_SET)
            with collection_paused(), open(self._fd, "rb", closefd=False) as file:
                found: Any = packing.load(file)
        finally:
            os.close(self._fd)
        result: T = found
        return result


def give_way() -> None:
    """This process does not displace another that runs: the kernel's SCHED_BATCH. Nothing else changes."""
    with contextlib.suppress(OSError):  # a sandbox that forbids it
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
