"""How many descriptors a process may have, and noticing before there are none.

A new descriptor gets the lowest free number, so a number tells how many are open at least. That is how a listener notices, at
no cost, that accepting one more would leave too few for the upstream connections of those it has.
"""

from __future__ import annotations

import errno
import os
import resource

OUT_OF_RESOURCES = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
"""What the kernel says when there is no descriptor, or no memory, for one more."""
SMALL_LIMIT = 1024
FEWEST = 32
"""With less than this many nothing can be started."""
HINT = "raise LimitNOFILE= of the service, or ulimit -n"


def explain(error: OSError) -> str:
    """What went wrong, and where there are too few descriptors, what to do."""
    reason = error.strerror or str(error)
    return f"{reason} ({HINT})" if error.errno == errno.EMFILE else reason


def raise_limit() -> int:
    """Take as many descriptors per process as this user may have; returns the limit now in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def edge() -> int:
    """The descriptor number from which on nothing is accepted: a quarter of the limit is left for everything else."""
    limit, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit - limit // 4


_NONE = 1 << 30


def lowest_free(fd: int) -> int:
    """The number that the next descriptor will get; a very high one when there is none. ``fd`` is any that is open."""
    try:
        number = os.dup(fd)
    except OSError:
        return _NONE
    os.close(number)
    return number


def is_one_free(fd: int) -> bool:
    """Whether there is room for one more."""
    return lowest_free(fd) != _NONE
