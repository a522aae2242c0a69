"""--watch: has the configuration's content changed?

Looked at by name again and again, so that writing in place, renaming over it and swapping a symbolic link anywhere on the path
(as Kubernetes does) all count, also on a file system that tells nobody. It is read only when its identity, size or times are
others than at the last look. A content counts when two looks in a row have found the same: somebody who writes piece by
piece is given the time; a piece that outlasts it is judged like any other file, and the running configuration stays.
"""

from __future__ import annotations

import hashlib
import os
import stat

from forkproxy import log

INTERVAL_S = 0.5

_log = log.get_logger("supervisor")


class Watcher:
    """Watches one file. ``note`` is called when its content is about to be loaded, whoever asked for that."""

    def __init__(self, path: str) -> None:
        self.next_look = 0.0
        """When ``has_changed`` looks next, in ``loop.now`` seconds."""
        self._path = path
        self._identity: tuple[int, ...] = ()
        self._content = b""
        """What the last look found, as a digest; empty: no regular file was there."""
        self._noted = b""
        self._is_missing = False

    def note(self) -> None:
        """The present content is being loaded: it is no change any more, also when it is refused."""
        self._look()
        self._noted = self._content

    def has_changed(self, now: float) -> bool:
        """Whether there is a content other than the noted one, the same as at the look before."""
        if now < self.next_look:
            return False
        self.next_look = now + INTERVAL_S
        before = self._content
        self._look()
        self._tell_if_missing()
        return bool(self._content) and self._content == before and self._content != self._noted

    def _look(self) -> None:
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            self._identity, self._content = (), b""
            return
        with open(fd, "rb") as file:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                self._identity, self._content = (), b""
                return
            identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            if identity != self._identity:
                self._content = hashlib.blake2b(file.read()).digest()
                self._identity = identity

    def _tell_if_missing(self) -> None:
        is_missing = not self._content
        if is_missing and not self._is_missing:
            _log.warning("the watched file cannot be read; the running configuration stays", path=self._path)
        self._is_missing = is_missing
