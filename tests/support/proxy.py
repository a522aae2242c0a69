"""A proxy under test as a child process: real Envoy and forkproxy behind one interface.

Ports are chosen here (bind to 0, close, hand over), because a configuration with port_value 0 would need another way
to ask each program what it got.
"""

from __future__ import annotations

import http.client
import itertools
import os
import pathlib
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator

START_LIMIT_S = 45.0
STOP_LIMIT_S = 30.0


def _ports_nobody_is_given() -> Iterator[int]:
    # Below the range from which the kernel gives ports to who asks for any: there, a port that was free a moment ago may be
    # the next connection's own, or the next server's.
    first_given = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    # Tests run in several processes at a time (pytest-xdist): each has ports of its own.
    turn = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    step = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    ports = list(range(max(first_given - 12_000, 1024), first_given))[turn::step]
    random.SystemRandom().shuffle(ports)
    return itertools.cycle(ports)


_candidates = _ports_nobody_is_given()


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that were free a moment ago, all different; the kernel gives them to nobody by itself."""
    ports: list[int] = []
    while len(ports) < count:
        port = next(_candidates)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        ports.append(port)
    return ports


class ProxyDied(RuntimeError):
    """The proxy ended, or never became ready; the message holds what it printed."""


class ProxyProcess:
    """A running proxy. `directory` holds its configuration, its output and its access logs."""

    name = "proxy"

    def __init__(self, config: str, *, admin_port: int, directory: pathlib.Path | None = None) -> None:
        self._made = None if directory is not None else tempfile.TemporaryDirectory(prefix=f"{self.name}-")
        self.directory = directory if directory is not None else pathlib.Path(self._made.name)  # type: ignore[union-attr]
        self.admin_port = admin_port
        self.config_path = self.directory / "bootstrap.yaml"
        self.config_path.write_text(config.replace("@DIR@", str(self.directory)))
        self.output_path = self.directory / "output.txt"
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """The program and its arguments."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """The environment it runs in."""
        return dict(os.environ)

    def start(self) -> None:
        """Start and wait until the admin port says LIVE."""
        self.launch()
        self.await_ready()

    def launch(self) -> None:
        """Start, in a thread that stays: Envoy ends with the thread that started it."""
        with self.output_path.open("wb") as output:
            self.process = subprocess.Popen(
                self.command(), stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=self.directory,
                env=self.environment(),
            )  # fmt: skip

    def await_ready(self) -> None:
        """Wait until the admin port says LIVE."""
        assert self.process is not None
        deadline = time.monotonic() + START_LIMIT_S
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                code = self.process.poll()
                said = self.output()[-4000:]
                self.stop()
                self.close()
                raise ProxyDied(f"{self.name} is not ready (exit {code}):\n{said}")
            time.sleep(0.01)

    def ready(self) -> bool:
        """Whether /ready answers 200."""
        try:
            return self.admin("/ready")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def admin(self, path: str, method: str = "GET") -> tuple[int, bytes]:
        """Ask the admin port."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=5)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def counters(self, usedonly: bool = False) -> dict[str, int]:
        """Counters and gauges by name; histograms are left out."""
        status, text = self.admin("/stats?usedonly" if usedonly else "/stats")
        assert status == 200, text
        found = {}
        for line in text.decode().splitlines():
            name, _, value = line.rpartition(": ")
            if value.lstrip("-").isdigit():
                found[name] = int(value)
        return found

    def output(self) -> str:
        """What the program printed."""
        return self.output_path.read_text(errors="replace") if self.output_path.exists() else ""

    def access_log(self, name: str = "access.log") -> str:
        """The access log as far as it is written."""
        path = self.directory / name
        return path.read_text(errors="replace") if path.exists() else ""

    def stop(self, sig: int = signal.SIGTERM) -> int:
        """Stop the program and everything it started; returns the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            code = self.process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait(STOP_LIMIT_S)
        return code

    def close(self) -> None:
        """Stop, and remove the directory when it was made here."""
        if self.process is not None and self.process.poll() is None:
            self.stop()
        if self._made is not None:
            self._made.cleanup()

    def pids(self) -> list[int]:
        """The process and all its descendants."""
        assert self.process is not None
        return process_tree(self.process.pid)


def process_name(pid: int) -> str:
    """What a process calls itself; "" when it has gone."""
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def process_tree(pid: int) -> list[int]:
    """`pid` and its descendants, as /proc shows them now."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = pathlib.Path("/proc", entry, "stat").read_text()
        except OSError:
            # It ended while we looked.
            continue
        children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry))
    found = [pid]
    for parent in found:
        found.extend(children.get(parent, []))
    return found
