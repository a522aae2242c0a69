"""What an operator asks of a running instance in the words of its admin pages: figures, logs, drain, health.

All of it goes over the control socket, so that it works where the configuration has no admin port.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import click

from forkproxy import log
from forkproxy.cli.instance import ask_or_end, running
from forkproxy.cli.options import json_option, option, pid_file_option
from forkproxy.cli.terminal import EXIT_FAILURE, end

if TYPE_CHECKING:
    from forkproxy.worker.control import Message


def ask_admin(pid_file: Path | None, target: str, method: str = "GET") -> str:
    """The body of an admin page; ends the program when the page refuses."""
    answer = _page(pid_file, target, method)
    if answer["status"] != 200:
        end(EXIT_FAILURE, str(answer["body"]).strip())
    return str(answer["body"])


def _page(pid_file: Path | None, target: str, method: str = "GET") -> Message:
    path, _pid = running(pid_file)
    return ask_or_end(path, {"op": "admin", "method": method, "target": target}, timeout_s=10.0)


@click.command(short_help="Print the statistics.")
@pid_file_option
@click.option("--prometheus", is_flag=True, help="In Prometheus' text format.")
@json_option
@click.option("--filter", "pattern", metavar="REGEX", default="", help="Only names that the RE2 expression finds.")
@click.option("--used", is_flag=True, help="Only what was ever counted.")
def stats(pid_file: Path | None, prometheus: bool, as_json: bool, pattern: str, used: bool) -> None:
    """Print the statistics, summed over all workers, as of now."""
    if prometheus and as_json:
        raise click.UsageError("--prometheus or --json, not both")
    query = {
        "format": "prometheus" if prometheus else "json" if as_json else "text",
        **({"filter": pattern} if pattern else {}),
        **({"usedonly": ""} if used else {}),
    }
    text = ask_admin(pid_file, f"/stats?{urlencode(query)}").rstrip("\n")
    click.echo(text, nl=text != "")


@click.command(short_help="Stop accepting connections; those there are go on.")
@pid_file_option
@click.option(
    "--graceful", is_flag=True, help="Ask connections to close first, and stop accepting after the drain time."
)
@click.option("--inbound-only", is_flag=True, help="Only listeners with traffic_direction INBOUND.")
@click.option("--skip-exit", is_flag=True, help="With --graceful: ask connections to close, and go on accepting.")
def drain(pid_file: Path | None, graceful: bool, inbound_only: bool, skip_exit: bool) -> None:
    """Stop accepting connections, as the admin's /drain_listeners does; a reload accepts again.

    The process stays: forkproxy stop ends it.
    """
    if skip_exit and not graceful:
        raise click.UsageError("--skip-exit without --graceful does nothing")
    flags = {"graceful": graceful, "inboundonly": inbound_only, "skip_exit": skip_exit}
    query = "&".join(name for name, is_set in flags.items() if is_set)
    ask_admin(pid_file, f"/drain_listeners?{query}", "POST")
    what = "connections are asked to close" if graceful else "nothing is accepted"
    click.echo(what if skip_exit else f"{what}; forkproxy reload accepts again")


@click.group("logs", short_help="Show or change log levels, reopen log files.")
def logs_group() -> None:
    """The logs of a running instance."""


@logs_group.command("level", short_help="Show the log levels, or change them.")
@click.argument("words", nargs=-1, metavar="[[COMPONENT] LEVEL]")
@pid_file_option
@json_option
def level(words: tuple[str, ...], pid_file: Path | None, as_json: bool) -> None:
    """Set the log level of COMPONENT, or of all without one, in the supervisor and all workers; then show what is set.

    Levels: trace, debug, info, warning, error, critical, off.
    """
    if len(words) > 2:
        raise click.UsageError("one COMPONENT and one LEVEL at most")
    target = "/logging"
    if words:
        try:
            rank = log.rank(words[-1])
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        name = next(name for name, value in log.LEVELS.items() if value == rank)
        target += "?" + urlencode({"paths": f"{words[0]}:{name}"} if len(words) == 2 else {"level": name})
    answer = _page(pid_file, target, "POST")
    if answer["status"] != 200:
        first = str(answer["body"]).partition("\n")[0].removeprefix("error: ")
        end(EXIT_FAILURE, f"{first}: {words[0]} (forkproxy logs level lists them)")
    levels = dict(line.strip().split(": ") for line in str(answer["body"]).splitlines()[1:] if line.strip())
    click.echo(json.dumps(levels, indent=2) if as_json else "\n".join(f"{key:<12} {levels[key]}" for key in levels))


@logs_group.command("reopen", short_help="Open the log files again, after logrotate.")
@pid_file_option
def reopen(pid_file: Path | None) -> None:
    """Open all log files again under their names, as SIGUSR1 does."""
    ask_admin(pid_file, "/reopen_logs", "POST")


@click.command(short_help="Exit with 0 when it serves, else with 1: for containers.")
@pid_file_option
@option("--admin", metavar="HOST:PORT", default="", help="Ask the admin port there instead of the control socket.")
@click.option("--timeout", type=click.FloatRange(0.1), default=5.0, show_default=True, metavar="S")
@click.option("-q", "--quiet", is_flag=True, help="No output but the exit code.")
def healthcheck(pid_file: Path | None, admin: str, timeout: float, quiet: bool) -> None:
    """Exit with 0 when it serves, else with 1, for whatever reason.

    It serves when /ready says LIVE: not while it starts, stops, or fails its health check (/healthcheck/fail).
    """
    from forkproxy.cli.health import ask_admin_port, ask_control_socket

    state, is_live = ask_admin_port(admin, timeout) if admin else ask_control_socket(pid_file, timeout)
    if not quiet:
        click.echo(state, err=not is_live)
    raise SystemExit(0 if is_live else EXIT_FAILURE)
