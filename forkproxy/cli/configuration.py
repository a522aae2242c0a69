"""The configuration: where it is, what it is worth, and what it becomes."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from forkproxy import log
from forkproxy.cli.options import config_options, json_option, pid_file_option
from forkproxy.cli.terminal import EXIT_CONFIGURATION, EXIT_FAILURE, end, is_coloured, styled
from forkproxy.config.values import frozen

if TYPE_CHECKING:
    from forkproxy.cli import explaining
    from forkproxy.config.build.bootstrap import BootstrapConfig
    from forkproxy.config.load import LoadResult
    from forkproxy.config.problems import ConfigError
    from forkproxy.supervisor.apart import Apart


@click.command(short_help="Say whether forkproxy runs a file, and why not.")
@click.argument("file", required=False)
@config_options
@json_option
@click.option("--strict", is_flag=True, help="Warnings count as errors.")
@click.option("-q", "--quiet", is_flag=True, help="No output but the exit code.")
def check(file: str | None, as_json: bool, strict: bool, quiet: bool, **given: Any) -> None:
    """Say whether forkproxy runs FILE; exit code 0 when it does, 1 when not.

    Every problem is one line FILE:LINE:COLUMN: PATH: MESSAGE (HINT), and the source line.
    """
    path = find_config(file or given["config_path"], given["config_yaml"])
    _check(path, given, as_json=as_json, strict=strict, quiet=quiet)


@click.command(short_help="Print the version 3 equivalent of a version 2 file.")
@click.argument("file")
def migrate(file: str) -> None:
    """Print the v3 equivalent of a v2 FILE."""
    from forkproxy.config import migrate as migration
    from forkproxy.config.problems import ConfigError, render_all

    try:
        data = Path(file).read_bytes()
    except OSError as error:
        end(EXIT_FAILURE, f"{file}: {error.strerror}")
    try:
        result = migration.migrate(data, file)
    except ConfigError as error:
        end(EXIT_FAILURE, render_all(error.problems, file))
    source = data.decode("utf-8", "replace").splitlines()
    if result.problems:
        click.echo(render_all(result.problems, file, source, colour=is_coloured(sys.stderr)), err=True)
    if result.text is None:
        sys.exit(EXIT_FAILURE)
    click.echo(result.text, nl=False)


@click.group("config", short_help="Show the configuration in force; explain its fields.")
def config_group() -> None:
    """The configuration in force, and the fields it may have."""


@config_group.command("dump", short_help="Print the configuration in force, as version 3.")
@click.argument("file", required=False)
@pid_file_option
def dump(file: str | None, pid_file: Path | None) -> None:
    """Print the configuration in force, as the admin's /config_dump; or what it would be with FILE. Secrets are left out."""
    if file is None:
        from forkproxy.cli.operations import ask_admin

        click.echo(ask_admin(pid_file, "/config_dump").rstrip("\n"))
        return
    from datetime import UTC, datetime

    from forkproxy.admin import config_dump

    result = read(file, {"config_yaml": "", "allow_unsupported": False})
    if result.bootstrap is None:
        end(EXIT_FAILURE, problems_text(result, file, colour=is_coloured(sys.stderr)))
    loaded = config_dump.timestamp(datetime.now(UTC))
    click.echo(json.dumps({"configs": config_dump.full_dump(result.bootstrap.config_dump, loaded, None)}, indent=1))


@config_group.command("schema", short_help="Show which fields of Envoy's configuration are honoured.")
@click.argument("path", required=False)
@json_option
def show_schema(path: str | None, as_json: bool) -> None:
    """Show which fields of the message at PATH are honoured; without PATH all messages that are.

    \b
    PATH is that of a field in the file, or begins with a message's name:
      static_resources.clusters
      Cluster.connect_timeout
      HttpConnectionManager.route_config.virtual_hosts
      forkproxy
    """
    from forkproxy.cli import field_path, honoured

    try:
        rows = honoured.describe(path) if path else honoured.index()
    except field_path.NoSuchPath as error:
        end(EXIT_FAILURE, str(error))
    if as_json:
        click.echo(json.dumps(field_path.honoured() if not path else rows, indent=1))
        return
    for row in rows:
        if path:
            click.echo(f"{row['field']:<40} {row['honoured']}  ({row['type']})")
        else:
            click.echo(f"{row['honoured']:>3} of {row['fields']:>3}  {row['message']}")


@config_group.command("explain", short_help="Explain a field, and show what a file sets there.")
@click.argument("path")
@click.option(
    "-c",
    "--config-path",
    "file",
    envvar=["FORKPROXY_CONFIG", "FORKPROXY_CONFIG_PATH"],
    metavar="FILE",
    help="Show what this file sets there, and what a version 2 file becomes.",
)
@json_option
def explain(path: str, file: str | None, as_json: bool) -> None:
    """Explain the field, message or enum that PATH names: its type and rules, what is taken when it is absent, whether forkproxy
    honours it; and with -c what a file sets there.

    \b
      static_resources.clusters[0].lb_policy
      static_resources.listeners[0].filter_chains[0].filters[0].typed_config.http_filters
      RouteAction.timeout
      envoy.config.route.v3.RouteAction
      envoy.filters.http.router
      per_try_timeout
    """
    from forkproxy.cli import explaining
    from forkproxy.cli.field_path import NoSuchPath

    try:
        about = explaining.explain(path, _file(file) if file else None)
    except NoSuchPath as error:
        end(EXIT_FAILURE, str(error))
    click.echo(json.dumps(about, indent=1) if as_json else explaining.text(about, styled(sys.stdout)))


def _file(path: str) -> explaining.File:
    """The file as it is, whatever is wrong with it, as long as it is YAML."""
    from forkproxy.cli import explaining
    from forkproxy.config import tree
    from forkproxy.config.upgrade import detect_version

    result = read(path, {"config_yaml": "", "allow_unsupported": False})
    if result.root is None:
        end(EXIT_CONFIGURATION, problems_text(result, path, colour=is_coloured(sys.stderr)))
    raw = tree.load(result.text, path).root
    raw.remove("forkproxy")
    if detect_version(raw) == "v3":
        return explaining.File(path, result.root, None, result.problems)
    if result.verdict == "invalid":
        end(EXIT_CONFIGURATION, problems_text(result, path, colour=is_coloured(sys.stderr)))
    return explaining.File(path, result.root, raw, result.problems)


def find_config(given: str | None, overlay: str) -> str:
    """The file that is meant, or the end of the program."""
    if given:
        return given
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    places = ["forkproxy.yaml", "envoy.yaml", f"{home}/forkproxy/forkproxy.yaml", "/etc/forkproxy/forkproxy.yaml"]
    for place in places:
        if os.path.exists(place):
            return place
    if overlay:
        return os.devnull
    end(EXIT_CONFIGURATION, f"no configuration: give one with -c FILE (looked for {', '.join(places)})")


class Configuration:
    """What a supervisor loads, at start and on every reload: in a process of its own (supervisor/apart.py)."""

    def __init__(self, given: dict[str, Any], path: str) -> None:
        self._given = given
        self._path = path
        self._text = b""
        self._reading: Apart[Reading] | None = None
        # A terminal is asked here: the process that reads has none.
        self._colour = is_coloured(sys.stderr)
        look_beside(path)

    def begin(self, *, gently: bool) -> Apart[Reading] | None:
        """Read now, for the next ``load``, beside what else there is to do until then. None when there can be no process,
        which ``load`` will say. ``gently``: behind the workers."""
        with contextlib.suppress(OSError):
            self._reading = self._begin(gently=gently)
        return self._reading

    def load(self) -> BootstrapConfig:
        """The file as it is now, with what the command line overrides. ConfigurationRefused when it cannot be used."""
        from forkproxy.supervisor.apart import Died
        from forkproxy.supervisor.exits import ConfigurationRefused
        from forkproxy.supervisor.signals import how_it_ended

        begun, self._reading = self._reading, None
        try:
            found = (begun or self._begin(gently=False)).result()
        except OSError as error:
            raise ConfigurationRefused(f"{self._path}: no process to read it: {error.strerror}") from None
        except Died as died:
            raise ConfigurationRefused(f"{self._path}: who read it has died: {how_it_ended(died.code)}") from None
        self._text = found.text
        if found.bootstrap is None:
            raise ConfigurationRefused(found.refusal, files=found.files)
        for text in found.warnings:
            log.get_logger("config").warning(text)
        return found.bootstrap

    def _begin(self, *, gently: bool) -> Apart[Reading]:
        from forkproxy.supervisor.apart import Apart

        return Apart(self._read, name="forkproxy:read", gently=gently)

    def _read(self) -> Reading:
        given = self._given
        result = read(self._path, given)
        text = zlib.compress(result.text.encode("utf-8", "surrogatepass"), 1)
        if result.bootstrap is None:
            return Reading(None, problems_text(result, self._path, colour=self._colour), (), result.files, text)
        node = result.bootstrap.node
        node = replace(
            node,
            id=given["service_node"] or node.id,
            cluster=given["service_cluster"] or node.cluster,
            zone=given["service_zone"] or node.zone,
        )
        warnings = tuple(problem.text(self._path) for problem in result.warnings)
        return Reading(replace(result.bootstrap, node=node), "", warnings, result.files, text)

    def explain(self, error: ConfigError) -> str:
        """What only showed when a generation was built of the file last loaded."""
        from forkproxy.config.problems import by_place, render_all
        from forkproxy.config.tree import lines_of

        text = zlib.decompress(self._text).decode("utf-8", "surrogatepass")
        return render_all(by_place(error.problems), self._path, lines_of(text), colour=self._colour)


@frozen
class Reading:
    """What became of a file: its ``bootstrap``, or the ``refusal``. ``text`` is the source, packed."""

    bootstrap: BootstrapConfig | None
    refusal: str
    warnings: tuple[str, ...]
    files: Mapping[str, bytes]
    text: bytes


def check_and_exit(given: dict[str, Any]) -> NoReturn:
    path = find_config(given["config_path"], given["config_yaml"])
    _check(path, given, as_json=False, strict=False, quiet=False)


def _check(path: str, given: dict[str, Any], *, as_json: bool, strict: bool, quiet: bool) -> NoReturn:
    from forkproxy.supervisor.trial import problems_of

    result = read(path, given)
    found = problems_of(result.bootstrap) if result.bootstrap is not None else []
    result = result.with_problems(found)
    if as_json:
        click.echo(json.dumps(result.as_json()))
    elif not quiet:
        if result.problems:
            click.echo(problems_text(result, path, colour=is_coloured(sys.stdout)))
        verdict = _VERDICTS[result.verdict]
        if result.verdict == "unsupported" and any(problem.opens_door for problem in result.problems):
            verdict = _CANNOT_BE_WAIVED
        elif result.verdict == "unsupported" and found:
            verdict = _CANNOT_BE_LEFT_OUT
        click.echo(f"{path}: {verdict}")
    is_good = result.bootstrap is not None and not (strict and result.warnings)
    sys.exit(0 if is_good else EXIT_FAILURE)


_CANNOT_BE_WAIVED = "valid, but forkproxy does not implement all of it, and leaving that out would open a door"
_CANNOT_BE_LEFT_OUT = "valid, but forkproxy does not implement all of it, and there is nothing to run in its place"
_VERDICTS = {
    "runs": "runs",
    "unsupported": "valid, but forkproxy does not implement all of it (--allow-unsupported runs it without)",
    "invalid": "invalid",
}


def read(path: str, given: dict[str, Any]) -> LoadResult:
    """Judge a file as the options have it."""
    from forkproxy.config.load import load_file

    look_beside(path)
    return load_file(path, overlay_yaml=given["config_yaml"], allow_unsupported=given["allow_unsupported"])


def look_beside(path: str) -> None:
    """Where a configuration lies, its own filters may lie too (filters/factory.py): last, so that they hide no module of ours."""
    directory = str(Path(path).resolve().parent)
    if directory not in sys.path:
        sys.path.append(directory)


def problems_text(result: LoadResult, path: str, *, colour: bool) -> str:
    """What is wrong with it, with the lines of the source."""
    from forkproxy.config.problems import render_all

    return render_all(result.problems, path, result.lines, colour=colour)
