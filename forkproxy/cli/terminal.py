"""How a command ends and what it says: exit codes, one line on standard error, colour only where somebody looks."""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

import click

EXIT_FAILURE = 1
EXIT_NOT_RUNNING = 3
EXIT_UNKNOWN = 4
EXIT_NO_PERMISSION = 77
EXIT_CONFIGURATION = 78


def is_coloured(stream: Any) -> bool:
    """Whether colour is welcome there: a terminal, and no NO_COLOR (https://no-color.org)."""
    return "NO_COLOR" not in os.environ and stream.isatty()


def end(code: int, message: str) -> NoReturn:
    """Say why on standard error, and exit."""
    click.echo(message, err=True)
    sys.exit(code)
