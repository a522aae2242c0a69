"""A supervisor under test: the echo program as a child process, and what tests ask of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from forkproxy.supervisor.control_socket import ask
from forkproxy.supervisor.pid_file import read_pid

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 45.0
"""Nobody waits so long but for what does not come. A busy machine has taken 20 s to start a program."""


def until(what, patience_s=PATIENCE_S):
    """Poll ``what()`` until it is true; returns its value."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        value = what()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"not within {patience_s} s: {what}")


class Supervised:
    """The echo program, running. ``settings`` is its configuration file's content; see tests/support/echo_program.py."""

    def __init__(self, directory, settings=None, *, wait=True, **options):
        self.config = Path(directory) / "echo.json"
        self.pid_file = self.config.with_suffix(".pid")
        self.socket = self.config.with_suffix(".sock")
        self.log_path = Path(directory) / "log.txt"
        self.configure(settings or {"listeners": {"main": "127.0.0.1:0"}})
        options = {"concurrency": 2, "drain_time_s": 30.0, **options}
        with self.log_path.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.echo_program", str(self.config), json.dumps(options)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        if wait:
            try:
                until(lambda: self.status() or self.has_ended())
                assert not self.has_ended(), self.log()
            except BaseException:
                self.close()
                raise

    def configure(self, settings):
        """Write the configuration file."""
        self.config.write_text(json.dumps(settings))

    def has_ended(self):
        return self.process.poll() is not None

    def log(self):
        """What it printed."""
        return self.log_path.read_text()

    def ask(self, request):
        return ask(self.socket, request, PATIENCE_S)

    def status(self):
        """Its status once it serves, else None."""
        try:
            status = self.ask({"op": "status"})
        except OSError:
            return None
        return status if status["state"] != "starting" else None

    def workers(self, state="ready"):
        """The workers in one state, by slot."""
        return [worker for worker in self.ask({"op": "status"})["workers"] if worker["state"] == state]

    def pids(self):
        return {worker["pid"] for worker in self.workers()}

    def address(self, name="main"):
        """Where a listener listens: (ip, port) or a path."""
        entries = self.ask({"op": "status"})["listeners"]
        text = next(entry["address"] for entry in entries if entry["name"] == name)
        if ":" not in text:
            return text
        host, _, port = text.rpartition(":")
        return host, int(port)

    def connect(self, name="main"):
        address = self.address(name)
        sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        sock.settimeout(PATIENCE_S)
        sock.connect(address)
        return sock

    def connect_to(self, pid):
        """A connection that the worker ``pid`` serves."""
        for _ in range(200):
            sock = self.connect()
            if exchange(sock)[0] == pid:
                return sock
            sock.close()
        raise AssertionError(f"no connection reached worker {pid}")

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self):
        """Its exit code."""
        return self.process.wait(PATIENCE_S)

    def close(self):
        """End it, if it has not, and whoever took its place."""
        successor = read_pid(self.pid_file)
        if successor not in (0, self.process.pid) and is_alive(successor):
            os.kill(successor, signal.SIGTERM)
            os.kill(successor, signal.SIGTERM)
            until(lambda: not is_alive(successor))
        if not self.has_ended():
            self.process.send_signal(signal.SIGTERM)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.wait()
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def exchange(sock, data=b"x"):
    """Send ``data``; (pid, generation, say) of who answered."""
    sock.sendall(data)
    answer = sock.recv(65536).decode()
    if not answer:
        raise ConnectionResetError("closed without an answer")
    pid, generation, say = answer.split(" ")[:3]
    return int(pid), int(generation), say


class Load:
    """Connections made one after another by a thread, each with one exchange; a connection that fails is counted."""

    def __init__(self, supervised, name="main"):
        self._address = supervised.address(name)
        self.failures = []
        self.done = 0
        self.generations = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._stop.is_set():
            try:
                with self._connected() as sock:
                    self.generations.add(exchange(sock)[1])
                self.done += 1
            except OSError as error:
                self.failures.append(error)

    def _connected(self):
        sock = socket.socket(socket.AF_UNIX if isinstance(self._address, str) else socket.AF_INET)
        sock.settimeout(PATIENCE_S)
        sock.connect(self._address)
        return sock

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._stop.set()
        self._thread.join()


def is_alive(pid):
    """Whether the process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def descriptors(pid):
    """What the descriptors of a process refer to, by number."""
    found = {}
    for entry in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(entry)] = os.readlink(f"/proc/{pid}/fd/{entry}")
        except FileNotFoundError:
            continue
    return found
