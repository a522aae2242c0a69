"""The command line, a module per theme. This one is the table of verbs.

Exit codes: 0; 1 failure, and ``check`` found errors; 2 usage; 3 not running; 4 unknown; 69 cannot bind; 77 no permission;
78 configuration refused. Imports that take time stand in the command that needs them: ``version`` answers in 60 ms.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any

import click

from forkproxy.cli import about, configuration, extension, instance, operations, route, service, serving, workers
from forkproxy.cli.terminal import EXIT_FAILURE, end


class InOrder(click.Group):
    """Lists its commands in the order they were added, and not their other names."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """As click asks for them."""
        return [name for name, command in self.commands.items() if command.name == name]

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; where standard output takes nothing, say so. (A reader that has gone is click's to see.) What its
        encoding has no letter for, such as a name in the file, is written as an escape.
        """
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(ctx)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EIO) or error.filename is not None:
                raise
            # What is still buffered would fail once more at the end of the program.
            os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), 1)
            end(EXIT_FAILURE, f"cannot write: {error.strerror}")


@click.group(cls=InOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def main() -> None:
    """An Envoy-compatible proxy in Python, one pinned process per CPU."""


for command in (
    serving.run,
    serving.start,
    instance.stop,
    instance.reload,
    instance.restart,
    instance.upgrade,
    configuration.check,
    configuration.migrate,
    route.route,
    configuration.config_group,
    instance.status,
    workers.top,
    operations.stats,
    operations.logs_group,
    operations.drain,
    workers.workers_group,
    operations.healthcheck,
    extension.filters_group,
    service.systemd_group,
    about.completion,
    about.version,
):
    main.add_command(command)
main.add_command(configuration.check, "validate")
