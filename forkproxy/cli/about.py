"""The program about itself."""

from __future__ import annotations

import json
import sys

import click

from forkproxy import __version__
from forkproxy.cli.options import json_option

SHELLS = ("bash", "zsh", "fish")


@click.command(short_help="Show the version.")
@json_option
def version(as_json: bool) -> None:
    """Show the version."""
    python = ".".join(map(str, sys.version_info[:3]))
    if as_json:
        click.echo(json.dumps({"name": "forkproxy", "version": __version__, "python": python}))
    else:
        click.echo(f"forkproxy {__version__} (Python {python})")


@click.command(short_help="Print what makes a shell complete forkproxy's commands.")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes SHELL complete forkproxy's commands and options.

    \b
    bash: forkproxy completion bash > /etc/bash_completion.d/forkproxy
    zsh:  forkproxy completion zsh > "${fpath[1]}/_forkproxy"
    fish: forkproxy completion fish > ~/.config/fish/completions/forkproxy.fish
    """
    click.echo(completion_text(ctx.find_root().command, shell), nl=False)


def completion_text(program: click.Command, shell: str) -> str:
    """What SHELL sources to complete ``program``."""
    from click.shell_completion import ShellComplete, get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    # Not kind.source(): for bash that runs the bash of this machine, to see its version.
    return ShellComplete.source(kind(program, {}, "forkproxy", "_FORKPROXY_COMPLETE")) + "\n"
