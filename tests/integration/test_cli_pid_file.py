"""Which instance is meant: pid files that are stale, foreign, locked by others, or fought for. And colour, where it belongs."""

import fcntl
import os
import pty
import subprocess
import sys

import pytest

from tests.integration.test_cli import bootstrap, forkproxy
from tests.support.supervised import ROOT, is_alive

COMMANDS = ("stop", "reload", "restart", "status", "drain")


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "forkproxy.yaml"
    path.write_text(bootstrap(0))
    return path


def test_a_pid_file_of_the_dead_is_taken_over(tmp_path, config):
    pid_file = tmp_path / "run.pid"
    dead = subprocess.Popen(["true"])
    dead.wait()
    pid_file.write_text(f"{dead.pid}\n")
    (tmp_path / "run.sock").write_text("what is left of a socket")
    done = forkproxy("status", "--pid-file", pid_file)
    assert done.returncode == 3
    assert done.stderr == f"not running ({pid_file} is left of pid {dead.pid}, which has gone)\n"
    started = forkproxy("start", "-c", config, "--pid-file", pid_file, "--log-path", tmp_path / "log")
    assert started.returncode == 0, started.stderr
    assert pid_file.read_text() == started.stdout
    assert forkproxy("stop", "--now", "--pid-file", pid_file).returncode == 0


def test_a_dead_one_that_nobody_has_reaped_has_gone(tmp_path):
    pid_file = tmp_path / "run.pid"
    dead = subprocess.Popen(["sleep", "60"])
    pid_file.write_text(f"{dead.pid}\n")
    dead.kill()
    os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
    done = forkproxy("status", "--pid-file", pid_file)
    dead.wait()
    assert done.stderr == f"not running ({pid_file} is left of pid {dead.pid}, which has gone)\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_another_programs_pid_is_left_alone(tmp_path, command):
    pid_file = tmp_path / "run.pid"
    with subprocess.Popen(["sleep", "60"]) as sleeping:
        pid_file.write_text(f"{sleeping.pid}\n")
        done = forkproxy(command, "--pid-file", pid_file)
        assert (done.returncode, done.stdout) == (3, "")
        assert f"names pid {sleeping.pid}, which is sleep and not ours: it is left alone" in done.stderr
        assert sleeping.poll() is None
        sleeping.kill()


def test_a_pid_file_that_another_program_has_locked(tmp_path, config):
    pid_file = tmp_path / "run.pid"
    with pid_file.open("w") as file:
        file.write(f"{os.getpid()}\n")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        done = forkproxy("stop", "--pid-file", pid_file)
        assert done.returncode == 4
        assert f"{pid_file} is locked: another program has it" in done.stderr
        started = forkproxy("start", "-c", config, "--pid-file", pid_file, "--log-path", tmp_path / "log")
        assert started.returncode == 1
        assert f"already running as pid {os.getpid()}: {pid_file} is locked" in started.stderr


def test_of_two_starts_one_wins(tmp_path, config):
    command = [sys.executable, "-m", "forkproxy", "start", "-c", config, "--concurrency", "1"]
    where = ["--pid-file", tmp_path / "run.pid", "--log-path", tmp_path / "log"]
    starts = [
        subprocess.Popen([*command, *where], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    answers = [start.communicate(timeout=60) for start in starts]
    codes = [start.returncode for start in starts]
    assert sorted(codes) == [0, 1, 1], answers
    (winner,) = [int(out) for out, _ in answers if out]
    assert all("already running" in error for (_, error), code in zip(answers, codes, strict=True) if code)
    assert int((tmp_path / "run.pid").read_text()) == winner
    assert is_alive(winner)
    assert forkproxy("stop", "--now", *where[:2]).returncode == 0


# -- colour


def on_terminal(*arguments, **environment):
    """What a command writes to a terminal of its own."""
    ours, theirs = pty.openpty()
    try:
        subprocess.run(
            [sys.executable, "-m", "forkproxy", *map(str, arguments)],
            cwd=ROOT, env={**os.environ, "TERM": "xterm", **environment}, stdin=theirs, stdout=theirs, stderr=theirs,
            timeout=60, check=False,
        )  # fmt: skip
    finally:
        os.close(theirs)
    said = b""
    try:
        while data := os.read(ours, 65536):
            said += data
    except OSError:
        pass  # nobody has the terminal any more
    finally:
        os.close(ours)
    return said.decode()


def test_colour_is_for_terminals(tmp_path, config):
    bad = tmp_path / "bad.yaml"
    bad.write_text("nonsense: 1\n")
    assert "\x1b[" in on_terminal("check", bad)
    assert "\x1b[" not in on_terminal("check", bad, NO_COLOR="1")
    assert "\x1b[" not in forkproxy("check", bad).stdout
    where = ("--pid-file", tmp_path / "run.pid")
    assert forkproxy("start", "-c", config, *where, "--log-path", tmp_path / "log").returncode == 0
    try:
        assert "\x1b[32mserving\x1b[0m" in on_terminal("status", *where)
        assert "\x1b[" not in on_terminal("status", *where, NO_COLOR="1")
        assert "\x1b[" not in on_terminal("status", "--json", *where)
        assert "\x1b[" not in on_terminal("top", "--once", *where, NO_COLOR="1")
    finally:
        forkproxy("stop", "--now", *where)


def test_top_leaves_the_terminal_as_it_was(tmp_path, config):
    where = ("--pid-file", tmp_path / "run.pid")
    assert forkproxy("start", "-c", config, *where, "--log-path", tmp_path / "log").returncode == 0
    ours, theirs = pty.openpty()
    try:
        command = [sys.executable, "-m", "forkproxy", "top", "--interval", "0.2", *map(str, where)]
        with subprocess.Popen(command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs) as process:
            said = b""
            while said.count(b"requests/s") < 2:
                said += os.read(ours, 65536)
            os.write(ours, b"q")
            while b"\x1b[?1049l" not in said:
                said += os.read(ours, 65536)
            assert process.wait(15) == 0
        assert said.startswith(b"\x1b[?1049h")
    finally:
        os.close(theirs)
        os.close(ours)
        forkproxy("stop", "--now", *where)
