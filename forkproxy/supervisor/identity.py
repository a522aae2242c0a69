"""Who the workers run as: the ``user`` of the configuration's ``forkproxy:`` key."""

from __future__ import annotations

import grp
import os
import pwd

from forkproxy.config.build.bootstrap import BootstrapConfig
from forkproxy.config.problems import ConfigError
from forkproxy.worker.after_fork import Identity


def identity_for(bootstrap: BootstrapConfig) -> Identity | None:
    """Who the workers of this configuration are to be; None: who the supervisor is, which only root can change.

    ConfigError when there is no such user.
    """
    user = bootstrap.forkproxy.user
    if not user or os.geteuid() != 0:
        return None
    try:
        return identity_of(user)
    except ValueError as error:
        raise ConfigError("forkproxy.user", 0, 0, str(error)) from None


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
