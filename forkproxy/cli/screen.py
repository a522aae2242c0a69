"""The picture that ``forkproxy top`` draws, again and again: what the workers do, from two looks at them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from forkproxy.cli.terminal import in_colour, pause
from forkproxy.config.values import frozen
from forkproxy.supervisor import precedence

if TYPE_CHECKING:
    from forkproxy.worker.control import Message

_HOME_AND_CLEAR = "\x1b[H\x1b[J"
_ALTERNATE_SCREEN = "\x1b[?1049h\x1b[?25l"
_NORMAL_SCREEN = "\x1b[?25h\x1b[?1049l"
FIRST_LOOK_S = 0.5
"""Rates need two looks: the first picture waits this long for the second."""


@frozen
class Look:
    """What a moment showed. ``cpu_s`` by pid: CPU seconds so far."""

    at: float
    status: Message
    cpu_s: dict[int, float]


def look(ask: Callable[[], Message]) -> Look:
    """Look now."""
    status = ask()
    pids = [status["pid"], *(worker["pid"] for worker in status["workers"])]
    return Look(monotonic(), status, {pid: cpu_seconds(pid) for pid in pids})


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far; 0 when it has gone or is hidden."""
    try:
        return precedence.cpu_seconds(pid)
    except OSError:
        return 0.0


def picture(before: Look, now: Look) -> str:
    """Lines of text. Rates are of the time between the two looks; a worker that the first did not see has none yet."""
    status = now.status
    workers: list[dict[str, Any]] = status["workers"]
    passed = now.at - before.at
    known = {worker["pid"]: worker["requests"] for worker in before.status["workers"]}
    rows = []
    for worker in workers:
        pid = worker["pid"]
        rate = (worker["requests"] - known[pid]) / passed if pid in known else None
        rows.append((worker, rate, _cpu(before, now, pid)))
    rates = sum(rate or 0.0 for _worker, rate, _cpu_share in rows)
    lines = [
        f"forkproxy {status['version']} {status['state']}, pid {status['pid']}, up {_time(status['uptime_s'])}, "
        f"generation {status['generation']}, {status['config_path']}",
        f"{rates:.0f} requests/s, {sum(worker['connections'] for worker in workers)} connections, "
        f"supervisor {_percent(_cpu(before, now, status['pid']))} CPU",
        "",
        f"{'slot':>4} {'pid':>8} {'cpu':>4} {'gen':>4}  {'state':<10} {'req/s':>8} {'CPU %':>7} {'conns':>7} {'memory':>9} "
        f"{'up':>8}",
    ]
    for worker, rate, cpu in rows:
        colour = "green" if worker["state"] == "ready" else "red" if worker["state"] == "hung" else "yellow"
        lines.append(
            f"{worker['slot']:>4} {worker['pid']:>8} {'-' if worker['cpu'] is None else worker['cpu']:>4} "
            f"{worker['generation']:>4}  {in_colour(format(worker['state'], '<10'), colour, sys.stdout)} "
            f"{'-' if rate is None else format(rate, '.0f'):>8} {_percent(cpu):>7} {worker['connections']:>7} "
            f"{_bytes(worker.get('memory_bytes')):>9} {_time(worker['uptime_s']):>8}"
        )
    return "\n".join(lines)


def show(ask: Callable[[], Message], *, is_live: bool, interval_s: float) -> None:
    """Print one picture; or, ``is_live``, a new one every ``interval_s`` seconds until q, Ctrl-C, or the instance's end."""
    before = look(ask)
    pause(FIRST_LOOK_S)
    if not is_live:
        print_picture(before, look(ask))
        return
    import termios
    import tty

    stdin = sys.stdin.fileno()
    settings = termios.tcgetattr(stdin)
    sys.stdout.write(_ALTERNATE_SCREEN)
    try:
        tty.setcbreak(stdin)
        while True:
            now = look(ask)
            sys.stdout.write(_HOME_AND_CLEAR)
            print_picture(before, now)
            before = now
            if _is_told_to_end(stdin, interval_s):
                return
    except KeyboardInterrupt:
        return
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, settings)
        sys.stdout.write(_NORMAL_SCREEN)
        sys.stdout.flush()


def print_picture(before: Look, now: Look) -> None:
    """On standard output."""
    sys.stdout.write(picture(before, now) + "\n")
    sys.stdout.flush()


def _is_told_to_end(stdin: int, within_s: float) -> bool:
    from forkproxy.net.poller import READ, Poller

    poller = Poller()
    poller.register(stdin, READ)
    try:
        return bool(poller.poll(within_s, 1)) and os.read(stdin, 1) in (b"q", b"Q", b"\x04", b"")
    finally:
        poller.close()


def _cpu(before: Look, now: Look, pid: int) -> float | None:
    if pid not in before.cpu_s or pid not in now.cpu_s:
        return None
    return 100.0 * (now.cpu_s[pid] - before.cpu_s[pid]) / (now.at - before.at)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} %"


def _bytes(value: int | None) -> str:
    return "-" if value is None else f"{value / 1048576:.1f} MiB"


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
