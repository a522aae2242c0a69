"""How a command ends and what it says: exit codes, one line on standard error, colour only where somebody looks."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click

EXIT_FAILURE = 1
EXIT_NOT_RUNNING = 3
EXIT_UNKNOWN = 4
EXIT_NO_PERMISSION = 77
EXIT_CONFIGURATION = 78


def is_coloured(stream: Any) -> bool:
    """Whether colour is welcome there: a terminal, and no NO_COLOR (https://no-color.org). ``stream`` None: it is closed."""
    return "NO_COLOR" not in os.environ and stream is not None and stream.isatty()


def in_colour(text: str, colour: str, stream: Any) -> str:
    """``text`` in a colour, where colour is welcome."""
    return click.style(text, fg=colour) if is_coloured(stream) else text


def styled(stream: Any) -> Callable[[str, str], str]:
    """A function of a text and "bold", "dim" or a colour, for what goes to ``stream``."""
    if not is_coloured(stream):
        return lambda text, _style: text
    ways = {"bold": {"bold": True}, "dim": {"dim": True}}
    return lambda text, style: click.style(text, **ways.get(style, {"fg": style}))


def end(code: int, message: str) -> NoReturn:
    """Say why on standard error, and exit."""
    click.echo(message, err=True)
    sys.exit(code)


def pause(time_s: float) -> None:
    """Do nothing for a while."""
    from threading import Event

    Event().wait(time_s)
