"""The program about itself."""

from __future__ import annotations

import json
import sys

import click

from forkproxy import __version__


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def version(as_json: bool) -> None:
    """Show the version."""
    python = ".".join(map(str, sys.version_info[:3]))
    if as_json:
        click.echo(json.dumps({"name": "forkproxy", "version": __version__, "python": python}))
    else:
        click.echo(f"forkproxy {__version__} (Python {python})")
