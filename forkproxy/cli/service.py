"""The systemd service: its files, made and removed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from forkproxy.cli.about import SHELLS, completion_text
from forkproxy.cli.terminal import EXIT_FAILURE, EXIT_NO_PERMISSION, end

F = TypeVar("F", bound=Callable[..., Any])


@click.group("systemd")
def systemd_group() -> None:
    """The systemd service."""


def root_option(command: F) -> F:
    """For images and packages: only files, no user, nothing started."""
    text = "Install into this tree: files only, no user made, nothing started."
    return click.option("--root", metavar="DIR", default="/", help=text)(command)


@systemd_group.command("unit")
def systemd_unit() -> None:
    """Print the unit file for this program."""
    from forkproxy.supervisor.service_files import unit_text

    click.echo(unit_text(_program()), nl=False)


@systemd_group.command("install")
@root_option
@click.option("--no-start", is_flag=True, help="Enable the service, and do not start it now.")
@click.pass_context
def systemd_install(ctx: click.Context, root: str, no_start: bool) -> None:
    """Install, enable and start the service: unit, user, logrotate, completions; a configuration when there is none."""
    from forkproxy.supervisor.service_files import install

    completions = {shell: completion_text(ctx.find_root().command, shell) for shell in SHELLS}
    _change_service(root, lambda: install(_program(), root=root, start=not no_start, completions=completions))


@systemd_group.command("uninstall")
@root_option
def systemd_uninstall(root: str) -> None:
    """Stop and remove the service; configuration, logs and user stay."""
    from forkproxy.supervisor.service_files import uninstall

    _change_service(root, lambda: uninstall(root=root))


def _program() -> str:
    """The forkproxy command of the Python that runs this."""
    return str(Path(sys.executable).with_name("forkproxy"))


def _change_service(root: str, change: Callable[[], list[str]]) -> None:
    from forkproxy.supervisor.service_files import ServiceError

    if root == "/" and os.geteuid() != 0:
        end(EXIT_NO_PERMISSION, "only root can change the service: use sudo")
    try:
        for line in change():
            click.echo(line)
    except ServiceError as error:
        end(EXIT_FAILURE, str(error))
    except OSError as error:
        code = EXIT_NO_PERMISSION if isinstance(error, PermissionError) else EXIT_FAILURE
        end(code, f"{error.filename}: {error.strerror}")
