"""Log files for workers that are not root: root makes them, theirs they are.

Workers open the files by themselves, at start and again after logrotate. What lies in a directory of root's they could not make,
nor open once root has made it. So it is made here, and given to them. Only where nobody but root could have put it: a directory
that somebody else can write to might hold a link to another file by the time it is opened.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from forkproxy.worker.after_fork import Identity


def give(paths: Iterable[str], identity: Identity) -> list[str]:
    """Make the files that are not there and give root's to ``identity``; returns those that were given."""
    given = []
    for path in paths:
        # Where it does not succeed the worker says why it cannot open the file.
        with contextlib.suppress(OSError):
            if is_roots(Path(path).resolve().parent) and _give_one(path, identity):
                given.append(path)
    return given


def is_roots(directory: Path) -> bool:
    """Whether only root can change what is in the directory, and in those above it."""
    for step in (directory, *directory.parents):
        status = step.stat()
        if status.st_uid != 0 or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return False
    return True


def _give_one(path: str, identity: Identity) -> bool:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    fd = os.open(path, flags, 0o640)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != 0 or status.st_nlink != 1:
            return False
        os.fchown(fd, identity.uid, identity.gid)
        return True
    finally:
        os.close(fd)
