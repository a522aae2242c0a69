"""Who the workers and the resolver run as. The supervisor stays who it is: as root it binds ports below 1024, also on a reload.

``--user``, or the ``user`` of the configuration's ``forkproxy:`` key, or, for a program that root starts without a word about
it, the user ``forkproxy`` where there is one and else ``nobody``. ``--user root`` keeps root.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable, Iterable
from pathlib import Path

import forkproxy
from forkproxy import log
from forkproxy.config.build.bootstrap import BootstrapConfig
from forkproxy.config.problems import ConfigError
from forkproxy.worker.after_fork import Identity

DEFAULT_USERS = ("forkproxy", "nobody")
_CAP_SETGID, _CAP_SETUID = 6, 7  # <linux/capability.h>

_log = log.get_logger("supervisor")


def identity_for(
    bootstrap: BootstrapConfig, user: str = "", default: Callable[[], Identity | None] = lambda: None
) -> Identity | None:
    """Who the workers of this configuration are to be; None: who the supervisor is, which only root can change.

    ``user`` comes before what the file says; with neither it is ``default()``, for root.
    ConfigError when the file names a user that is not there, or ``user`` does.
    """
    wanted = user or bootstrap.forkproxy.user
    if os.geteuid() != 0:
        return None
    if not wanted:
        return default()
    try:
        identity = identity_of(wanted)
    except ValueError as error:
        raise ConfigError("--user" if user else "forkproxy.user", 0, 0, str(error)) from None
    return identity if identity.uid else None


def identity_of(text: str) -> Identity:
    """``"name"`` or ``"name:group"``, each also as a number, → the ids. ValueError says what there is not."""
    user, colon, group = text.partition(":")
    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except KeyError:
        raise ValueError(f'no user "{user}"') from None
    if not colon:
        return Identity(entry.pw_uid, entry.pw_gid, tuple(os.getgrouplist(entry.pw_name, entry.pw_gid)))
    try:
        gid = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise ValueError(f'no group "{group}"') from None
    return Identity(entry.pw_uid, gid, (gid,))


def default_identity() -> Identity | None:
    """The first of DEFAULT_USERS that there is; None, with a line in the log, when workers could not run as him."""
    if not may_change_user():
        _log.debug("the workers stay root: without CAP_SETUID they cannot become anybody else")
        return None
    for name in DEFAULT_USERS:
        try:
            identity = identity_of(name)
        except ValueError:
            continue
        closed = first_closed(program_directories(), identity)
        if closed is None:
            return identity
        _log.warning(
            "the workers run as root", reason=f"{name} may not enter {closed}", hint="--user NAME, or --user root"
        )
        return None
    return None


def may_change_user() -> bool:
    """Whether this process has CAP_SETUID and CAP_SETGID, which root in a container may lack."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:"))
    capabilities = int(line.split()[1], 16)
    return bool(capabilities >> _CAP_SETUID & capabilities >> _CAP_SETGID & 1)


def program_directories() -> list[Path]:
    """Where a worker imports from."""
    return [Path(os.__file__).resolve().parent, Path(forkproxy.__file__).resolve().parent]


def first_closed(directories: Iterable[Path], identity: Identity) -> Path | None:
    """The first directory on the ways to these that ``identity`` may not enter; None when there is none."""
    for directory in directories:
        for step in (*reversed(directory.parents), directory):
            status = step.stat()
            if status.st_uid == identity.uid:
                bit = 0o100
            elif status.st_gid in (identity.gid, *identity.groups):
                bit = 0o010
            else:
                bit = 0o001
            if not status.st_mode & bit:
                return step
    return None


def name_of(identity: Identity) -> str:
    """Its user's name, or his number."""
    try:
        return pwd.getpwuid(identity.uid).pw_name
    except KeyError:
        return str(identity.uid)
