"""The worker processes: one by one, how many, and how busy."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import monotonic

import click

from forkproxy.cli.instance import ask_or_end, ask_supervisor, running, workers_table
from forkproxy.cli.options import json_option, pid_file_option, timeout_option
from forkproxy.cli.terminal import EXIT_FAILURE, end, pause


@click.group("workers", short_help="List, replace, add or take away worker processes.")
def workers_group() -> None:
    """The worker processes."""


@workers_group.command("list", short_help="Show every worker process.")
@pid_file_option
@json_option
def list_workers(pid_file: Path | None, as_json: bool) -> None:
    """Show every worker process, draining ones too."""
    path, _pid = running(pid_file)
    workers = ask_supervisor(path, {"op": "status"}, timeout_s=10.0)["workers"]
    click.echo(json.dumps(workers, indent=2) if as_json else "\n".join(workers_table(workers)))


@workers_group.command("kill", short_help="Replace the worker of one slot.")
@click.argument("slot", type=click.IntRange(0))
@pid_file_option
@click.option("--now", is_flag=True, help="Kill it first: its connections break, as in a crash.")
@timeout_option(60.0, "How long to wait for the new worker.")
def kill_worker(slot: int, pid_file: Path | None, now: bool, timeout: float) -> None:
    """Replace the worker of SLOT.

    The new one serves before the old one drains, so nothing is lost; prints the new pid.
    """
    path, _pid = running(pid_file)
    answer = ask_or_end(path, {"op": "replace_worker", "slot": slot, "now": now}, timeout_s=timeout)
    click.echo(answer["pid"])


@workers_group.command("scale", short_help="Change the number of workers until the next reload.")
@click.argument("count", type=click.IntRange(1, 4096))
@pid_file_option
@timeout_option(60.0, "How long to wait for the new workers.")
def scale(count: int, pid_file: Path | None, timeout: float) -> None:
    """Have COUNT workers until the next reload, which goes back to what the command line or the file says.

    Workers too many drain; returns when those that are new serve.
    """
    from forkproxy.supervisor.cpus import counted

    path, _pid = running(pid_file)
    ask_or_end(path, {"op": "scale", "workers": count}, timeout_s=timeout)
    deadline = monotonic() + timeout
    while True:
        workers = ask_supervisor(path, {"op": "status"}, timeout_s=10.0)["workers"]
        ready = sum(worker["state"] == "ready" for worker in workers)
        if ready == count:
            click.echo(counted(count))
            return
        if monotonic() >= deadline:
            end(EXIT_FAILURE, f"{ready} of {count} workers are ready after {timeout:g} s: the log says why")
        pause(0.05)


@click.command(short_help="Watch the workers: requests, CPU, connections, memory.")
@pid_file_option
@click.option("--once", is_flag=True, help="Print one picture and end; so it is where there is no terminal.")
@click.option(
    "--interval", type=click.FloatRange(0.1), default=2.0, show_default=True, metavar="S", help="Between two pictures."
)
def top(pid_file: Path | None, once: bool, interval: float) -> None:
    """Watch the workers: requests per second, CPU, connections, memory. q ends it."""
    from forkproxy.cli.screen import show

    path, _pid = running(pid_file)
    is_live = not once and sys.stdin.isatty() and sys.stdout.isatty()
    show(
        lambda: ask_supervisor(path, {"op": "status", "fresh": True}, timeout_s=10.0),
        is_live=is_live,
        interval_s=interval,
    )
