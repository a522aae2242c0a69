"""Nobody leaves a file descriptor or a child process behind: what a test opens, it closes."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Iterator

GRACE_S = 5.0

_shared: set[tuple[str, str]] = set()
_not_ours: set[int] = set()


def held() -> set[tuple[str, str]]:
    """The open descriptors and the children of this process, as (kind, what) pairs."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add(("fd " + fd, os.readlink(f"/proc/self/fd/{fd}")))
        except OSError:
            # The descriptor of this very listing.
            continue
    found.update((f"child {pid}", name) for pid, name in children())
    return found


def children() -> list[tuple[int, str]]:
    """The children of this process and their names."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return []
    # Who has another parent will not become a child of ours, so that each look reads only about processes that are new.
    pids = {int(entry) for entry in os.listdir("/proc") if entry.isdigit()}
    _not_ours.intersection_update(pids)
    found = []
    for pid in pids - _not_ours:
        try:
            with open(f"/proc/{pid}/stat") as file:
                name, _, rest = file.read().partition("(")[2].rpartition(")")
        except OSError:
            # It ended while we looked.
            continue
        if int(rest.split()[1]) == os.getpid():
            found.append((pid, name))
        else:
            _not_ours.add(pid)
    return found


@contextlib.contextmanager
def shared() -> Iterator[None]:
    """What is opened inside belongs to a fixture wider than one test."""
    before = held()
    try:
        yield
    finally:
        _shared.update(held() - before)


def leaked(before: set[tuple[str, str]]) -> list[str]:
    """What came since `before` and does not go within GRACE_S."""
    deadline = time.monotonic() + GRACE_S
    while True:
        left = held() - before - _shared
        if not left or time.monotonic() > deadline:
            return sorted(f"{kind}: {what}" for kind, what in left)
        gc.collect()
        time.sleep(0.01)
