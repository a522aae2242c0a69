"""The instance that runs: finding it by its pid file, asking it over its control socket, and what can be asked."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from forkproxy.cli.options import option, pid_file_option
from forkproxy.cli.terminal import EXIT_FAILURE, EXIT_NO_PERMISSION, EXIT_NOT_RUNNING, EXIT_UNKNOWN, end

if TYPE_CHECKING:
    from forkproxy.worker.control import Message


@click.command()
@pid_file_option
@click.option("--now", is_flag=True, help="Do not wait for connections to finish.")
@option(
    "--timeout",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    metavar="S",
    help="How long to wait for the end.",
)
def stop(pid_file: Path | None, now: bool, timeout: float) -> None:
    """Drain and stop; returns when the processes are gone."""
    from forkproxy.net.poller import READ, Poller

    path, pid = running(pid_file)
    pidfd = os.pidfd_open(pid)
    ask_supervisor(path, {"op": "stop", "now": now}, timeout_s=10.0)
    poller = Poller()
    poller.register(pidfd, READ)
    if not poller.poll(timeout, 1):
        end(EXIT_FAILURE, f"pid {pid} is still draining after {timeout:g} s (stop --now ends it)")


@click.command()
@pid_file_option
@option(
    "--timeout",
    type=click.FloatRange(0),
    default=120.0,
    show_default=True,
    metavar="S",
    help="How long to wait for the verdict.",
)
def reload(pid_file: Path | None, timeout: float) -> None:
    """Check the configuration and roll it out; on refusal the old one stays, and the exit code is not 0."""
    path, _pid = running(pid_file)
    answer = ask_supervisor(path, {"op": "reload"}, timeout_s=timeout)
    if not answer["ok"]:
        end(int(answer["exit"]), f"{answer['reason']}\nreload refused: the old configuration stays")
    click.echo(f"generation {answer['generation']}, {answer['workers']} workers")


@click.command()
@pid_file_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status(pid_file: Path | None, as_json: bool) -> None:
    """Show the processes."""
    path, _pid = running(pid_file)
    answer = ask_supervisor(path, {"op": "status"}, timeout_s=10.0)
    del answer["ok"]
    click.echo(json.dumps(answer, indent=2) if as_json else _status_text(answer))


def running(pid_file: Path | None) -> tuple[Path, int]:
    """The pid file and the pid of the supervisor that holds it; ends the program when there is none."""
    from forkproxy.supervisor.pid_file import default_pid_file, holder_of

    path = pid_file if pid_file is not None else default_pid_file()
    pid = holder_of(path)
    if not pid:
        end(EXIT_NOT_RUNNING, f"not running ({path})")
    return path, pid


def ask_supervisor(pid_file: Path, request: Message, timeout_s: float) -> Message:
    from forkproxy.supervisor.control_socket import ask
    from forkproxy.supervisor.pid_file import control_socket_of
    from forkproxy.worker.control import ProtocolError

    path = control_socket_of(pid_file)
    try:
        return ask(path, request, timeout_s)
    except PermissionError:
        end(EXIT_NO_PERMISSION, f"{path}: no permission")
    except TimeoutError:
        end(EXIT_UNKNOWN, f"{path}: no answer within {timeout_s:g} s")
    except (OSError, ProtocolError) as error:
        end(EXIT_UNKNOWN, f"{path}: {error}")


def _status_text(answer: Message) -> str:
    lines = [
        f"forkproxy {answer['version']} {answer['state']}, pid {answer['pid']}, up {answer['uptime_s']:.0f} s, "
        f"generation {answer['generation']}, {answer['config_path']}"
    ]
    lines += [f"  {entry['name']:<20} {entry['address']}" for entry in answer["listeners"]]
    lines.append(f"{'slot':>4} {'pid':>8} {'cpu':>4} {'gen':>4}  {'state':<10} {'conns':>6} {'up':>8}")
    lines += [
        f"{worker['slot']:>4} {worker['pid']:>8} {'-' if worker['cpu'] is None else worker['cpu']:>4} "
        f"{worker['generation']:>4}  {worker['state']:<10} {worker['connections']:>6} {worker['uptime_s']:>6.0f} s"
        for worker in answer["workers"]
    ]
    if answer["last_refusal"]:
        lines.append(f"last reload refused: {answer['last_refusal']}")
    return "\n".join(lines)
