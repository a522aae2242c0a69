"""Nobody leaves a file descriptor or a child process behind: what a test opens, it closes."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Iterator

import psutil

GRACE_S = 1.0

_shared: set[tuple[str, str]] = set()


def held() -> set[tuple[str, str]]:
    """The open descriptors and the children of this process, as (kind, what) pairs."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add(("fd " + fd, os.readlink(f"/proc/self/fd/{fd}")))
        except OSError:
            # The descriptor of this very listing.
            continue
    for child in children():
        with contextlib.suppress(psutil.Error):
            found.add((f"child {child.pid}", child.name()))
    return found


def children() -> list[psutil.Process]:
    """The children of this process. psutil looks at every process there is: 2 ms, which most tests need not pay."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return []
    return psutil.Process().children()


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
