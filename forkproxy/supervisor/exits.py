"""How a supervisor ends when it cannot start, and how it refuses a configuration: the exceptions and the exit codes."""

from __future__ import annotations

from collections.abc import Mapping

from forkproxy.supervisor.listening import CannotBind
from forkproxy.worker.worker import EXIT_CANNOT_BIND

EXIT_FAILURE = 1
EXIT_NO_PERMISSION = 77
# 69 (cannot bind) and 78 (configuration refused) are a worker's own too: worker/worker.py.


class ConfigurationRefused(Exception):
    """The file cannot be used; the text is every problem as the operator should see it.

    ``files``: the digests of what was read, the files among it that the configuration names.
    """

    def __init__(self, message: str, *, files: Mapping[str, bytes] | None = None) -> None:
        super().__init__(message)
        self.files = files or {}


class StartFailed(Exception):
    """The supervisor cannot start, or cannot go on; ``exit_code`` says why to programs, the text to people."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def exit_of(error: CannotBind) -> int:
    """The exit code for an address that could not be bound."""
    return EXIT_NO_PERMISSION if error.denied else EXIT_CANNOT_BIND


def first_line(text: str) -> str:
    """The first line of ``text``."""
    return text.partition("\n")[0]
