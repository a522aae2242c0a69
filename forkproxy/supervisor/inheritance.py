"""What a supervisor leaves to the one that takes its place: descriptors, and a list that says what they are.

The descriptors keep their numbers over exec. The list is a JSON object in a memory file, so that nothing has to be read from
anybody; the variable FORKPROXY_UPGRADE names the descriptors of that file and of the channel on which the two talk. The two may
be of different versions: what one does not know of the other is left out, and a binding counts as the same when all that
both know of it is the same.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from forkproxy.config.build.core import AddressConfig
from forkproxy.supervisor.listening import Binding

VARIABLE = "FORKPROXY_UPGRADE"
"""``PID:CHANNEL:LIST``: whom it is for, and two descriptor numbers."""

PARKED = -1
"""The slot number of sockets that a retired slot has left."""

Likeness = dict[str, Any]
"""A binding or an address as JSON has it."""


@dataclass(eq=False, slots=True)
class Inheritance:
    """Everything that is handed on. Sockets by their descriptors' numbers; ``slots``: (slot, likeness of the binding, fd).

    ``epoch`` counts the upgrades before. ``pid`` is the predecessor's.
    """

    pid: int
    epoch: int
    generation: int
    fails_health_check: bool
    slots: list[tuple[int, Likeness, int]]
    passed: list[tuple[str, int]] = field(default_factory=list)
    admin: tuple[Likeness, int] | None = None
    pid_file: tuple[str, int] | None = None
    control: tuple[str, int] | None = None
    channel: int = -1

    @property
    def descriptors(self) -> list[int]:
        """All of them, but for the channel."""
        single = [entry[1] for entry in (self.admin, self.pid_file, self.control) if entry is not None]
        return [*(fd for _slot, _binding, fd in self.slots), *(fd for _name, fd in self.passed), *single]

    def write(self) -> int:
        """A memory file with the list; its descriptor."""
        known = {name: getattr(self, name) for name in self.__slots__ if name != "channel"}
        fd = os.memfd_create("forkproxy-upgrade", os.MFD_CLOEXEC)
        with open(fd, "wb", closefd=False) as file:
            file.write(json.dumps(known).encode())
        os.lseek(fd, 0, os.SEEK_SET)
        return fd


def take(environment: MutableMapping[str, str] = os.environ) -> Inheritance | None:
    """What was left to this process; None when it was started like any other. Called once: the variable goes."""
    meant = is_successor(environment)
    _pid, _, descriptors = environment.pop(VARIABLE, "").partition(":")
    if not meant:
        return None
    channel, _, listed = descriptors.partition(":")
    with open(int(listed), "rb") as file:
        known = json.loads(file.read())
    inheritance = Inheritance(
        pid=known["pid"],
        epoch=known["epoch"],
        generation=known["generation"],
        fails_health_check=known["fails_health_check"],
        slots=[(slot, binding, fd) for slot, binding, fd in known["slots"]],
        passed=[(name, fd) for name, fd in known["passed"]],
        admin=_pair(known["admin"]),
        pid_file=_pair(known["pid_file"]),
        control=_pair(known["control"]),
        channel=int(channel),
    )
    for fd in (inheritance.channel, *inheritance.descriptors):
        os.set_inheritable(fd, False)
    if environment.get("WATCHDOG_PID") == str(inheritance.pid):
        # The service manager's patience goes with the main process.
        environment["WATCHDOG_PID"] = str(os.getpid())
    return inheritance


def is_successor(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process was started to take another's place."""
    # The variable may have come a long way: somebody's copy of an environment is no inheritance.
    return environment.get(VARIABLE, "").partition(":")[0] == str(os.getpid())


def likeness(thing: Binding | AddressConfig) -> Likeness:
    """``thing`` as it travels. Of a binding all but its listener's name."""
    fields = asdict(thing)
    fields.pop("listener", None)
    plain: Likeness = json.loads(json.dumps(fields, default=lambda value: value.hex()))
    return plain


def are_alike(one: Likeness, other: Likeness) -> bool:
    """Whether all that both know is the same."""
    return all(
        are_alike(one[name], other[name])
        if isinstance(one[name], dict) and isinstance(other[name], dict)
        else one[name] == other[name]
        for name in one.keys() & other.keys()
    )


def listening_socket_of(fd: int) -> socket.socket:
    """The socket of an inherited descriptor."""
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    return sock


def remove_path(path: str | Path) -> None:
    """Remove a file that may be gone."""
    with suppress(OSError):
        os.unlink(path)


def _pair(entry: Any) -> Any:
    return tuple(entry) if entry is not None else None
