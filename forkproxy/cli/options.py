"""Options that several commands share. Every one that a service may want to set is also FORKPROXY_NAME in the environment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from forkproxy import log

F = TypeVar("F", bound=Callable[..., Any])

# Envoy's flags for its own hot restart and threads: what they ask for does not exist here, and nothing is lost without it.
HARMLESS_FLAGS = (
    ("--base-id", int),
    ("--restart-epoch", int),
    ("--parent-shutdown-time-s", int),
    ("--use-dynamic-base-id", bool),
    ("--disable-hot-restart", bool),
    ("--enable-fine-grain-logging", bool),
    ("--cpuset-threads", bool),
)


def _concurrency(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    """A number of workers, 0 for ``auto``."""
    if value is None or value == "auto":
        return None if value is None else 0
    if not value.isdecimal() or not 1 <= int(value) <= 4096:
        raise click.BadParameter(f'"{value}" is neither a number from 1 to 4096 nor "auto"')
    return int(value)


def _checked(check: Callable[[str], object]) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    """An option's callback: ``check`` raises ValueError for a wrong value."""

    def callback(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
        if value is not None:
            try:
                check(value)
            except ValueError as error:
                raise click.BadParameter(str(error)) from None
        return value

    return callback


def _check_cpuset(value: str) -> None:
    from forkproxy.supervisor.cpus import parse_cpuset

    parse_cpuset(value)


def _check_user(value: str) -> None:
    from forkproxy.supervisor.identity import identity_of

    if value:
        identity_of(value)


def option(*names: str, **attributes: Any) -> Callable[[F], F]:
    """A click option that ``FORKPROXY_NAME`` sets as well."""
    long = next(name for name in names if name.startswith("--")).partition("/")[0]
    attributes.setdefault("envvar", "FORKPROXY_" + long[2:].replace("-", "_").upper())
    return click.option(*names, **attributes)


def config_options(command: F) -> F:
    """How a configuration is found and read."""
    for add in (
        option(
            "--allow-unsupported",
            is_flag=True,
            help="Run a file that sets fields forkproxy does not honour, with a warning each.",
        ),
        option("--config-yaml", default="", metavar="YAML", help="YAML merged over the file."),
        option(
            "-c",
            "--config-path",
            envvar=["FORKPROXY_CONFIG", "FORKPROXY_CONFIG_PATH"],
            metavar="FILE",
            help="Envoy bootstrap, v3 or v2. Default: $FORKPROXY_CONFIG, ./forkproxy.yaml, ./envoy.yaml, "
            "$XDG_CONFIG_HOME/forkproxy/forkproxy.yaml, /etc/forkproxy/forkproxy.yaml.",
        ),
    ):
        command = add(command)
    return command


def json_option(command: F) -> F:
    """For programs."""
    return click.option("--json", "as_json", is_flag=True, help="As JSON.")(command)


def timeout_option(default: float, text: str) -> Callable[[F], F]:
    """How patient the command is."""
    kind = click.FloatRange(0)
    return option("--timeout", type=kind, default=default, show_default=True, metavar="S", help=text)


def pid_file_option(command: F) -> F:
    """Which instance is meant."""
    text = "Default: /run/forkproxy/forkproxy.pid, or in $XDG_RUNTIME_DIR. The control socket lies beside it."
    return option("--pid-file", metavar="PATH", type=click.Path(path_type=Path), help=text)(command)


def serving_options(command: F) -> F:
    """The options of run and start."""
    for flag, kind in reversed(HARMLESS_FLAGS):
        command = click.option(flag, type=kind, is_flag=kind is bool, default=None, hidden=True)(command)
    for add in (
        click.option("-t", "--test", is_flag=True, help="Check the configuration and exit, as the check command does."),
        option("--mode", type=click.Choice(["serve", "validate"]), default="serve", help="validate: same as -t."),
        pid_file_option,
        option(
            "--user",
            callback=_checked(_check_user),
            metavar="NAME[:GROUP]",
            default="",
            help="Who the workers run as when root starts it. Default: forkproxy or nobody; root keeps root.",
        ),
        option(
            "--watch",
            is_flag=True,
            help="Reload when the content of the configuration file, or of one it names, changes.",
        ),
        option("--admin-address-path", metavar="FILE", help="Write the admin's address there once it is bound."),
        option("--service-zone", default="", metavar="ZONE", help="Overrides node.locality.zone."),
        option("--service-cluster", default="", metavar="NAME", help="Overrides node.cluster."),
        option("--service-node", default="", metavar="ID", help="Overrides node.id."),
        option(
            "--file-flush-interval-msec",
            type=click.IntRange(1),
            default=10000,
            help="How long access log lines may wait for the file.",
            show_default=True,
        ),
        option(
            "--drain-time-s",
            type=click.FloatRange(0),
            default=None,
            help="How long connections may take to finish on stop and reload. [default: 30]",
        ),
        option(
            "--max-old-generations",
            type=click.IntRange(0),
            default=3,
            show_default=True,
            help="How many generations may drain beside the one that serves: a reload cuts off the oldest beyond that.",
        ),
        option(
            "--drain-strategy",
            type=click.Choice(["gradual", "immediate"]),
            default="gradual",
            show_default=True,
            help="How drain --graceful asks connections to close: more and more of them, or all.",
        ),
        option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True),
        option(
            "--log-path",
            metavar="FILE",
            default="",
            help="Default: standard error; for start, a file in the log directory.",
        ),
        option(
            "--component-log-level",
            callback=_checked(log.parse_component_levels),
            metavar="A:LEVEL,B:LEVEL",
            default="",
            help="Levels of single components.",
        ),
        option("-l", "--log-level", callback=_checked(log.rank), metavar="LEVEL", default="info", show_default=True),
        option(
            "--cpuset",
            callback=_checked(_check_cpuset),
            metavar="0-3,8",
            help="CPUs to run on. Default: this process's affinity mask.",
        ),
        option(
            "--concurrency", callback=_concurrency, metavar="N|auto", help="Number of workers. Default: one per CPU."
        ),
        config_options,
    ):
        command = add(command)
    return command
