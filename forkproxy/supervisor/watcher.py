"""--watch: has the content of the configuration, or of a file that it names, changed?

Looked at by name again and again, so that writing in place, renaming over it and swapping a symbolic link anywhere on the path
(as Kubernetes does) all count, also on a file system that tells nobody. A file is read only when its identity, size or times are
others than at the last look.

A change counts when two looks in a row have found the same in every file (a certificate and its key come one after the other),
and when nobody has a changed file open for writing. What is loaded is compared with what was looked at: a content that came in
between is refused, and comes again by itself. Who closes a file half-way and goes on a second later cannot be told from who is
done: to be sure, rename.
"""

from __future__ import annotations

import fcntl
import os
import signal
import stat
from collections.abc import Callable, Mapping

from forkproxy import log
from forkproxy.config.build.bootstrap import BootstrapConfig
from forkproxy.config.digest import UNREADABLE, digest_of
from forkproxy.supervisor.exits import ConfigurationRefused

INTERVAL_S = 0.5

_log = log.get_logger("supervisor")


class Watcher:
    """Watches a file, and those that it names when it is a configuration.

    ``patience``: after so many looks that all found something else, what there is counts as it is. Else it has to stay.
    """

    def __init__(self, path: str, *, patience: int | None = None) -> None:
        self.next_look = 0.0
        """When ``has_changed`` looks next, in ``loop.now`` seconds."""
        self._main = _File(path)
        self._named: list[_File] = []
        self._has_loaded = False
        self._told_of_writer = False
        self._patience = patience
        self._restless = 0

    def note(self) -> None:
        """The present content is being read: it is no change any more, also when it is refused."""
        for file in self._files():
            file.look()
            file.noted = file.content

    def load(self, load: Callable[[], BootstrapConfig]) -> BootstrapConfig:
        """What ``load()`` returns. The files that it has read are watched from now on, also when it refuses them.

        ConfigurationRefused, too, when the file changed meanwhile: nobody has seen that content stay.
        """
        self.note()
        looked_at = self._main.content
        try:
            bootstrap = load()
        except ConfigurationRefused as refused:
            self._watch(refused.files)
            raise
        self._watch(bootstrap.files)
        if self._has_loaded and self._main.noted != looked_at:
            self._main.noted = UNREADABLE
            raise ConfigurationRefused(
                f"{self._main.path}: changed while it was loaded; it is loaded again when it stays"
            )
        self._has_loaded = True
        return bootstrap

    def has_changed(self, now: float) -> bool:
        """Whether there is a content other than the noted one, the same as at the look before."""
        if now < self.next_look:
            return False
        self.next_look = now + INTERVAL_S
        before = [file.content for file in self._files()]
        for file in self._files():
            file.look()
            file.tell_if_missing()
        if self._main.content == UNREADABLE:
            return False
        if before != [file.content for file in self._files()]:
            self._restless += 1
            if self._restless != self._patience:
                return False
        self._restless = 0
        changed = [file for file in self._files() if file.has_changed()]
        return bool(changed) and not self._are_being_written(changed)

    def _files(self) -> list[_File]:
        return [self._main, *self._named]

    def _watch(self, files: Mapping[str, bytes]) -> None:
        known = {file.path: file for file in self._files()}
        for path, digest in files.items():
            if path not in known:
                known[path] = _File(path)
            known[path].noted = digest
        self._named = [known[path] for path in files if path != self._main.path]

    def _are_being_written(self, changed: list[_File]) -> bool:
        writing = [file.path for file in changed if _is_open_for_writing(file.path)]
        if writing and not self._told_of_writer:
            _log.warning(
                "a watched file has changed and is still open for writing: it is loaded when closed", path=writing[0]
            )
        self._told_of_writer = bool(writing)
        return bool(writing)


class _File:
    """One file; ``content`` is what the last look found, as a digest."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.content = UNREADABLE
        self.noted = UNREADABLE
        self._identity: tuple[int, ...] = ()
        self._is_missing = False

    def has_changed(self) -> bool:
        return self.content not in (UNREADABLE, self.noted)

    def look(self) -> None:
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError):  # ValueError: a name with a null byte
            self._identity, self.content = (), UNREADABLE
            return
        try:
            self._read(fd)
        except OSError:  # a network file system may fail here
            self._identity, self.content = (), UNREADABLE
        finally:
            os.close(fd)

    def _read(self, fd: int) -> None:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            self._identity, self.content = (), UNREADABLE
            return
        identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        if identity != self._identity:
            with open(fd, "rb", closefd=False) as file:
                self.content = digest_of(file.read())
            self._identity = identity

    def tell_if_missing(self) -> None:
        is_missing = self.content == UNREADABLE
        if is_missing and not self._is_missing:
            _log.warning("the watched file cannot be read; the running configuration stays", path=self.path)
        self._is_missing = is_missing


def _is_open_for_writing(path: str) -> bool:
    # A read lease is refused while anybody has the file open for writing (fcntl(2), "Leases"). It is given back at once; who
    # comes in between waits for that, and the kernel tells us by a signal: by one that nobody minds.
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:  # not our file, or a file system without leases: two equal looks must do
        return False
    finally:
        os.close(fd)
    return False
