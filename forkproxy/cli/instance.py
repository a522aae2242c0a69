"""The instance that runs: finding it by its pid file, asking it over its control socket, and what becomes of it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from forkproxy.cli.options import json_option, pid_file_option, timeout_option
from forkproxy.cli.terminal import (
    EXIT_CONFIGURATION,
    EXIT_FAILURE,
    EXIT_NO_PERMISSION,
    EXIT_NOT_RUNNING,
    EXIT_UNKNOWN,
    end,
    in_colour,
)

if TYPE_CHECKING:
    from forkproxy.worker.control import Message


@click.command(short_help="Drain and stop; returns when the processes are gone.")
@pid_file_option
@click.option("--now", is_flag=True, help="Do not wait for connections to finish.")
@timeout_option(60.0, "How long to wait for the end.")
def stop(pid_file: Path | None, now: bool, timeout: float) -> None:
    """Drain and stop; returns when the processes are gone.

    Connections may finish what they do within the drain time of the instance; --now does not wait for them.
    """
    path, pid = running(pid_file)
    _stop(path, pid, now=now, timeout_s=timeout)


@click.command(short_help="Check the configuration and roll it out without a lost request.")
@pid_file_option
@timeout_option(120.0, "How long to wait for the verdict.")
def reload(pid_file: Path | None, timeout: float) -> None:
    """Check the configuration and roll it out; on refusal the old one stays, and the exit code is not 0."""
    from forkproxy.supervisor.cpus import counted

    path, _pid = running(pid_file)
    answer = ask_supervisor(path, {"op": "reload"}, timeout_s=timeout)
    if not answer["ok"]:
        end(int(answer["exit"]), f"{answer['reason']}\nreload refused: the old configuration stays")
    click.echo(f"generation {answer['generation']}, {counted(answer['workers'])}")


@click.command(short_help="Stop, and start again with the same options.")
@pid_file_option
@click.option("--now", is_flag=True, help="Do not wait for connections to finish.")
@timeout_option(60.0, "How long to wait for the end of the one that runs.")
def restart(pid_file: Path | None, now: bool, timeout: float) -> None:
    """Stop what `forkproxy start` has started, and start it again: same options, environment and directory.

    A configuration that would be refused is refused before anything is stopped. Requests are lost between the two; reload
    loses none.
    """
    import subprocess

    path, pid = running(pid_file)
    argv, directory, environment = _how_started(pid)
    start = partial(subprocess.run, cwd=directory, env=environment, stdin=subprocess.DEVNULL, text=True)
    trial = start([*argv, "--test"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if trial.returncode:
        end(EXIT_CONFIGURATION, f"{trial.stdout.strip()}\nnot restarted: the one that runs, pid {pid}, goes on")
    _stop(path, pid, now=now, timeout_s=timeout)
    started = start(argv)
    if started.returncode:
        end(started.returncode, "stopped, and not started again")


@click.command(short_help="Hand over to a new supervisor, with the code installed now.")
@pid_file_option
@timeout_option(120.0, "How long to wait for the new one.")
def upgrade(pid_file: Path | None, timeout: float) -> None:
    """Have a new supervisor, with the code that is installed now, take the listeners over; prints its pid.

    If it does not get ready, the old one carries on, and the exit code is not 0.
    """
    path, pid = running(pid_file)
    answer = ask_supervisor(path, {"op": "upgrade"}, timeout_s=timeout)
    if not answer["ok"]:
        end(int(answer["exit"]), f"{answer['reason']}\nnot upgraded: pid {pid} carries on")
    click.echo(answer["pid"])


@click.command(short_help="Show processes, listeners, generation.")
@pid_file_option
@json_option
def status(pid_file: Path | None, as_json: bool) -> None:
    """Show processes, listeners, the generation of the configuration, and why the last reload was refused."""
    path, _pid = running(pid_file)
    answer = ask_supervisor(path, {"op": "status"}, timeout_s=10.0)
    del answer["ok"]
    click.echo(json.dumps(answer, indent=2) if as_json else _status_text(answer))


# -- reaching it


def running(pid_file: Path | None) -> tuple[Path, int]:
    """The pid file and the pid of the supervisor that holds it; ends the program when there is none."""
    from forkproxy.supervisor.pid_file import default_pid_file, holder_of, read_pid

    path = pid_file if pid_file is not None else default_pid_file()
    try:
        pid = holder_of(path)
    except PermissionError:
        end(EXIT_NO_PERMISSION, f"{path}: no permission")
    if not pid:
        end(EXIT_NOT_RUNNING, f"not running ({path}{_left_behind(read_pid(path))})")
    return path, pid


def _left_behind(pid: int) -> str:
    if not pid:
        return ""
    try:
        name, state = _name_and_state(pid)
    except OSError:
        name = state = ""
    if state in ("", "Z", "X"):
        return f" is left of pid {pid}, which has gone"
    return f" names pid {pid}, which is {name} and not ours: it is left alone"


def _name_and_state(pid: int) -> tuple[str, str]:
    """proc(5): comm stands in parentheses and may have some itself; the state is the letter after it."""
    before, _, after = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    return before.partition("(")[2], after.split()[0]


def ask_supervisor(pid_file: Path, request: Message, timeout_s: float) -> Message:
    """Its answer; ends the program when there is none."""
    from forkproxy.supervisor.control_socket import ask
    from forkproxy.supervisor.pid_file import control_socket_of
    from forkproxy.worker.control import ProtocolError

    path = control_socket_of(pid_file)
    try:
        return ask(path, request, timeout_s)
    except PermissionError:
        end(EXIT_NO_PERMISSION, f"{path}: no permission: {_who_may(path)}")
    except TimeoutError:
        end(EXIT_UNKNOWN, f"{path}: no answer within {timeout_s:g} s (the log may say why)")
    except FileNotFoundError:
        end(
            EXIT_UNKNOWN,
            f"{path} is not there, but {pid_file} is locked: another program has it, the socket was removed, or it ends just now",
        )
    except (OSError, ProtocolError) as error:
        end(EXIT_UNKNOWN, f"{path}: {error}")


def ask_or_end(pid_file: Path, request: Message, timeout_s: float) -> Message:
    """Its answer when it has done what was asked; ends the program with its reason when it has not."""
    answer = ask_supervisor(pid_file, request, timeout_s)
    if not answer["ok"]:
        end(int(answer["exit"]), str(answer["reason"]))
    return answer


def _who_may(path: Path) -> str:
    owner = _owner(path)
    return "only root is answered (use sudo)" if owner == "root" else f"only {owner} and root are answered"


def _owner(path: Path) -> str:
    import pwd

    try:
        uid = path.stat().st_uid
    except OSError:
        return "its owner"
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _stop(path: Path, pid: int, *, now: bool, timeout_s: float) -> None:
    from forkproxy.net.poller import READ, Poller

    pidfd = os.pidfd_open(pid)
    ask_or_end(path, {"op": "stop", "now": now}, timeout_s=10.0)
    poller = Poller()
    poller.register(pidfd, READ)
    if not poller.poll(timeout_s, 1):
        end(EXIT_FAILURE, f"pid {pid} is still draining after {timeout_s:g} s (forkproxy stop --now ends it)")


def _how_started(pid: int) -> tuple[list[str], str, dict[str, str]]:
    """The command, the directory and the environment it was started with; ends the program when it cannot be started again."""
    proc = Path("/proc", str(pid))
    try:
        uid = int(
            next(line for line in (proc / "status").read_text().splitlines() if line.startswith("Uid:")).split()[2]
        )
        if uid != os.geteuid():
            # Also root: what a user wrote into a command line must not run as root.
            end(EXIT_NO_PERMISSION, f"pid {pid} runs as {_owner(proc)}: only that user can start it again")
        argv = [os.fsdecode(word) for word in (proc / "cmdline").read_bytes().split(b"\0")[:-1]]
        environment = dict(
            os.fsdecode(entry).split("=", 1) for entry in (proc / "environ").read_bytes().split(b"\0") if b"=" in entry
        )
        directory = os.readlink(proc / "cwd")
    except OSError as error:
        end(EXIT_NO_PERMISSION, f"pid {pid}: {error}")
    if next((word for word in argv[1:] if word in ("run", "start")), "") != "start":
        hint = "forkproxy upgrade hands over without a lost request"
        end(
            EXIT_FAILURE,
            f"pid {pid} runs in the foreground: what started it can restart it (systemctl restart); {hint}",
        )
    return argv, directory, environment


# -- showing it


def _status_text(answer: Message) -> str:
    state = str(answer["state"])
    lines = [
        f"forkproxy {answer['version']} {in_colour(state, _COLOURS.get(state, 'yellow'), sys.stdout)}, pid {answer['pid']}, "
        f"up {answer['uptime_s']:.0f} s, generation {answer['generation']}, {answer['config_path']}"
    ]
    lines += [
        f"  {entry['name']:<20} {entry['address']}{in_colour('  drained', 'yellow', sys.stdout) if entry['drained'] else ''}"
        for entry in answer["listeners"]
    ]
    lines += workers_table(answer["workers"])
    lines += [
        f"generation {old['generation']} drains: {old['connections']} connections, {old['workers']} workers, "
        f"at most {old['time_left_s']:.0f} s more"
        for old in answer["old_generations"]
    ]
    if "predecessor" in answer:
        before = answer["predecessor"]
        lines.append(
            f"pid {before['pid']}, from before the upgrade, drains: {before['connections']} connections, "
            f"{before['workers']} workers"
        )
    if answer["last_refusal"]:
        lines.append(f"{in_colour('last reload refused', 'red', sys.stdout)}: {answer['last_refusal']}")
    return "\n".join(lines)


def workers_table(workers: Iterable[Message]) -> list[str]:
    """A head line, and a line for each."""
    lines = [
        f"{'slot':>4} {'pid':>8} {'cpu':>4} {'gen':>4}  {'state':<10} {'conns':>6} {'req/s':>8} {'memory':>8} {'up':>8}"
    ]
    for worker in workers:
        state = in_colour(f"{worker['state']:<10}", _COLOURS.get(worker["state"], "yellow"), sys.stdout)
        lines.append(
            f"{worker['slot']:>4} {worker['pid']:>8} {'-' if worker['cpu'] is None else worker['cpu']:>4} "
            f"{worker['generation']:>4}  {state} {worker['connections']:>6} {worker['requests_per_s']:>8.0f} "
            f"{_mebibytes(worker['memory_bytes']):>8} {worker['uptime_s']:>6.0f} s"
        )
    return lines


def _mebibytes(size: int | None) -> str:
    return "-" if size is None else f"{size / (1 << 20):.0f} MiB"


_COLOURS = {"serving": "green", "ready": "green", "hung": "red"}
