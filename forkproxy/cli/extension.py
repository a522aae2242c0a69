"""Filters: which there are, and the beginning of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import click

from forkproxy.cli.options import json_option
from forkproxy.cli.terminal import EXIT_FAILURE, EXIT_NO_PERMISSION, end

ENTRY_POINT_GROUP = "forkproxy.filters"
"""What installed packages list their filters under, as NAME = "module:Class"."""


@click.group("filters", short_help="List the filters, or begin one of your own.")
def filters_group() -> None:
    """The filters that a configuration can name."""


@filters_group.command("list", short_help="List the filters that a configuration can name.")
@json_option
def list_filters(as_json: bool) -> None:
    """List the filters that a configuration can name: Envoy's by type URL, and those of installed packages as module:Class."""
    from importlib.metadata import entry_points

    from forkproxy.filters.factory import HTTP_FILTERS, NETWORK_FILTERS

    found = [
        {"kind": kind, "type_url": f"type.googleapis.com/{name}"}
        for kind, table in (("http", HTTP_FILTERS), ("network", NETWORK_FILTERS))
        for name in sorted(table)
    ]
    found += [
        {"kind": "python", "name": entry.value, "package": entry.dist.name if entry.dist is not None else ""}
        for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.value)
    ]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for entry in found:
        package = f"  ({entry['package']})" if entry.get("package") else ""
        click.echo(f"{entry['kind']:<8} {entry.get('type_url') or entry['name']}{package}")


@filters_group.command("new", short_help="Write a filter of your own to start from, with its test.")
@click.argument("name")
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where to write the package. Default: ./NAME.",
)
def new_filter(name: str, directory: Path | None) -> None:
    """Write the package NAME: an HTTP filter that works, its test, and a configuration that uses it. Overwrites nothing."""
    from forkproxy.cli.filter_template import class_name, files, is_module_name

    if not is_module_name(name):
        raise click.BadParameter(f'"{name}" is no name for a Python module (letters, digits and _, as in my_filter)')
    root = directory if directory is not None else Path(name)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        end(EXIT_FAILURE, f"{root} is there already, and not empty: nothing written")
    try:
        for path, text in files(name).items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
            click.echo(str(root / path))
    except OSError as error:
        code = EXIT_NO_PERMISSION if isinstance(error, PermissionError) else EXIT_FAILURE
        end(code, f"{error.filename}: {error.strerror}")
    click.echo(
        f"try:  cd {root} && python -m pytest  &&  forkproxy run -c {name}.yaml  (the filter: {name}:{class_name(name)})"
    )
