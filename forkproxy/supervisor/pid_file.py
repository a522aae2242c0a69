"""The pid file, locked for as long as its process lives; and where it and the control socket are by default."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path


class AlreadyRunning(Exception):
    """Another process holds the pid file; ``pid`` is what it wrote there, 0 when that cannot be read."""

    def __init__(self, path: Path, pid: int) -> None:
        super().__init__(f"already running{f' as pid {pid}' if pid else ''}: {path} is locked")
        self.path = path
        self.pid = pid


class PidFile:
    """A locked file with this process's pid. What a dead process left behind has no lock and is taken over."""

    def __init__(self, path: Path) -> None:
        """Take the file. AlreadyRunning when another process has it, OSError when it cannot be made."""
        self.path = path
        self._fd = -1
        while self._fd < 0:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                raise AlreadyRunning(path, read_pid(path)) from None
            if _is_same_file(fd, path):
                self._fd = fd
            else:
                # Its owner removed it between our open and our lock: we hold a file without a name.
                os.close(fd)
        self.write()

    @classmethod
    def adopt(cls, path: Path, fd: int) -> PidFile:
        """The file whose lock was inherited with ``fd``. It names its former owner until ``write``."""
        adopted = cls.__new__(cls)
        adopted.path, adopted._fd = path, fd
        return adopted

    def fileno(self) -> int:
        """The descriptor that has the lock, which all who inherit it share."""
        return self._fd

    def write(self) -> None:
        """Write this process's pid."""
        # Shorter texts first grow, then shrink: a reader never finds an empty file.
        text = f"{os.getpid()}\n".encode()
        os.pwrite(self._fd, text, 0)
        os.ftruncate(self._fd, len(text))

    def leave(self) -> None:
        """Leave the file and the lock to whoever inherited them."""
        os.close(self._fd)

    def remove(self) -> None:
        """Remove the file and give the lock back."""
        self.path.unlink(missing_ok=True)
        os.close(self._fd)


def read_pid(path: Path) -> int:
    """The pid in the file, 0 when there is none."""
    try:
        text = path.read_text(errors="replace").strip()
    except OSError:
        return 0
    return int(text) if text.isdecimal() and len(text) < 12 else 0


def holder_of(path: Path) -> int:
    """The pid of the running process that has the file locked; 0 when nobody has, whatever the file says.

    PermissionError when this user cannot know.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        raise
    except OSError:
        return 0
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return read_pid(path)
    finally:
        os.close(fd)
    return 0


def default_pid_file() -> Path:
    """``/run/forkproxy/forkproxy.pid`` for root; in $XDG_RUNTIME_DIR, or else under /tmp, for others."""
    uid = os.geteuid()
    if uid == 0:
        return Path("/run/forkproxy/forkproxy.pid")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    directory = Path(runtime, "forkproxy") if runtime else Path(f"/tmp/forkproxy-{uid}")
    return directory / "forkproxy.pid"


def make_runtime_directory(directory: Path) -> None:
    """Make the default directory when it is not there. PermissionError when it belongs to somebody else (/tmp is everybody's)."""
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise PermissionError(f"{directory} is not a directory of this user")


def control_socket_of(pid_file: Path) -> Path:
    """The control socket that belongs to a pid file: ``control.sock`` beside the default one, else the same name with .sock."""
    if pid_file.name == "forkproxy.pid":
        return pid_file.with_name("control.sock")
    return pid_file.with_suffix(".sock")


def _is_same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
