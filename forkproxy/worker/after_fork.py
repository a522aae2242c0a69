"""What a forked child does first: undo the parent.

The child keeps its standard streams, the log, and the descriptors it is told to keep. Everything else that was open in the
supervisor (other slots' listening sockets, control sockets, admin connections, the locked pid file, the epoll descriptor)
is closed by number, so that what somebody opens tomorrow is covered too. The Python objects of those descriptors stay
referenced by the supervisor's frames, which lie below the child's on the stack and never return; so none of them is
finalised and closes a number that meanwhile belongs to the child. It follows that a generation opens nothing before
``start()``.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import struct
from collections.abc import Callable, Collection, Iterable, Mapping

from forkproxy import log
from forkproxy.config.values import frozen

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_PR_SET_NAME = 15
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522  # <linux/capability.h>

_IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE)
_DEFAULT = (signal.SIGTERM, signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU, signal.SIGWINCH)

_libc = ctypes.CDLL(None, use_errno=True)
_log = log.get_logger("worker")

EXIT_EXCEPTION = 70
"""A forked process ended by an exception: sysexits' EX_SOFTWARE."""


def fork(run: Callable[[], int]) -> int:
    """Fork; the child calls ``run()`` and exits with what it returns. Returns the child's pid. OSError when there can be none.

    Signals are held back from before the fork until ``run`` has changed the child's dispositions (``undo_parent``): one that
    came in between would be written to the parent's self-pipe by the child.
    """
    held = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
    except OSError:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        raise
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        return pid
    code = EXIT_EXCEPTION
    try:
        code = run()
    except BaseException as exception:  # noqa: BLE001
        # The frames below belong to the parent: nothing may unwind into them.
        _log.exception("the process ends by an exception", exception)
    finally:
        os._exit(code)


def undo_parent(*, keep: Iterable[int], parent_pid: int, name: str) -> None:
    """Make this forked process independent of its parent, save for the descriptors in ``keep``.

    ``name`` is what ps and top show (15 bytes). Signals of the terminal are ignored, SIGTERM is at its default, and is sent by
    the kernel should the parent die; the process ends here when that has happened already.
    """
    signal.set_wakeup_fd(-1)
    for number in _DEFAULT:
        signal.signal(number, signal.SIG_DFL)
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    close_all_but({0, 1, 2, log.descriptor(), *keep})
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    set_process_name(name)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent_pid:
        os._exit(0)
    faulthandler.enable(log.descriptor())


def execute(command: list[str], environment: Mapping[str, str], keep: Collection[int]) -> None:
    """In a forked child: become another program, which gets the standard streams and the descriptors in ``keep``.

    Signals are as a program expects them that was started from a shell. Returns only by OSError.
    """
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)
    close_all_but({0, 1, 2, *keep})
    for fd in keep:
        os.set_inheritable(fd, True)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.execve(command[0], command, environment)


@frozen
class Identity:
    """Numeric ids of a user; ``groups`` are the supplementary ones."""

    uid: int
    gid: int
    groups: tuple[int, ...]


def become(identity: Identity) -> None:
    """Give up root for good: no capabilities, and no way back by set-user-ID programs. OSError when that is not allowed."""
    os.setgroups(identity.groups)
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)
    _drop_capabilities()
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    # The kernel forgets the parent-death signal when the ids change.
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _drop_capabilities() -> None:
    # Those in effect went with the user id; what could be inherited over an exec, and a root with securebits, are left.
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    if _libc.capset(header, bytes(2 * 3 * 4)) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def set_process_name(name: str) -> None:
    """The name of this process in ps and top, cut to 15 bytes."""
    _prctl(_PR_SET_NAME, name.encode()[:15])


def close_all_but(keep: set[int]) -> None:
    """Close every descriptor of this process that is not in ``keep``."""
    lowest = 0
    for fd in sorted(keep):
        # An empty range must not reach CPython 3.11: closerange(0, 0) closes everything (its end becomes UINT_MAX).
        if fd > lowest:
            os.closerange(lowest, fd)
        lowest = fd + 1
    highest = max((int(entry) for entry in os.listdir("/proc/self/fd")), default=lowest)
    os.closerange(lowest, highest + 1)


def _prctl(option: int, value: int | bytes) -> None:
    # The second argument is an unsigned long or a pointer: ctypes must not cut it to an int.
    _libc.prctl(option, ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_ulong(value), 0, 0, 0)
