"""What is asked of a running instance: workers, figures, logs, health, restart."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.test_cli import bootstrap, forkproxy
from tests.support.proxy import free_ports
from tests.support.supervised import ROOT, is_alive, until


class Daemon:
    """An instance made by ``start``."""

    def __init__(self, directory, **options):
        self.config = directory / "forkproxy.yaml"
        self.config.write_text(bootstrap(0, **options))
        self.pid_file = directory / "run.pid"
        self.log = directory / "log"
        done = self("start", "-c", self.config, "--log-path", self.log, "--concurrency", 2)
        assert done.returncode == 0, done.stderr

    def __call__(self, *arguments, **environment):
        return forkproxy(*arguments, "--pid-file", self.pid_file, **environment)

    @property
    def pid(self):
        return int(self.pid_file.read_text())

    def workers(self):
        found = json.loads(self("workers", "list", "--json").stdout)
        return {worker["slot"]: worker["pid"] for worker in found if worker["state"] == "ready"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """For tests that leave it as they found it."""
    daemon = Daemon(tmp_path_factory.mktemp("daemon"))
    yield daemon
    daemon("stop", "--now")


@pytest.fixture
def daemon(tmp_path):
    daemon = Daemon(tmp_path)
    yield daemon
    if daemon.pid_file.exists():
        daemon("stop", "--now")


def test_a_worker_is_replaced(shared):
    before = shared.workers()
    done = shared("workers", "kill", 1)
    assert done.returncode == 0
    assert shared.workers() == {0: before[0], 1: int(done.stdout)}
    assert int(done.stdout) != before[1]
    killed = shared("workers", "kill", 0, "--now")
    assert shared.workers()[0] == int(killed.stdout) != before[0]
    assert "how=killed" in shared.log.read_text()


def test_a_slot_that_is_not_there(shared):
    done = shared("workers", "kill", 7)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "there is no slot 7 (there are: 0, 1)\n")


def test_the_number_of_workers_lasts_until_a_reload(daemon):
    assert daemon("workers", "scale", 3).stdout == "3 workers\n"
    assert len(daemon.workers()) == 3
    assert daemon("workers", "scale", 1).stdout == "1 worker\n"
    assert daemon("reload").returncode == 0
    until(lambda: len(daemon.workers()) == 2)


def test_top_once(shared):
    lines = shared("top", "--once").stdout.splitlines()
    assert lines[0].startswith("forkproxy 0.")
    assert lines[1].startswith("0 requests/s, 0 connections")
    assert len(lines) == 4 + 2
    assert "\x1b" not in "".join(lines)


def test_statistics_without_an_admin_port(shared):
    assert "server.live: 1\n" in shared("stats").stdout
    assert shared("stats", "--filter", "^server.live$").stdout == "server.live: 1\n"
    assert json.loads(shared("stats", "--filter", "server.live", "--json").stdout)["stats"] == [
        {"name": "server.live", "value": 1}
    ]
    assert "envoy_server_live{} 1\n" in shared("stats", "--prometheus").stdout
    assert "server.live" not in shared("stats", "--used", "--filter", "hot_restart").stdout
    assert shared("stats", "--json", "--prometheus").returncode == 2
    wrong = shared("stats", "--filter", "(")
    assert wrong.returncode == 1
    assert "Invalid re2 regex" in wrong.stderr


def test_log_levels_change_here_and_in_the_workers(shared):
    levels = shared("logs", "level", "worker", "debug").stdout
    assert "worker       debug\n" in levels
    assert "supervisor   info\n" in levels
    assert json.loads(shared("logs", "level", "warn", "--json").stdout)["worker"] == "warning"
    assert json.loads(shared("logs", "level", "info", "--json").stdout)["supervisor"] == "info"
    unknown = shared("logs", "level", "nonsense", "debug")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "unknown logger name: nonsense (" in unknown.stderr
    assert shared("logs", "level", "loud").returncode == 2
    assert shared("logs", "level", "a", "b", "debug").returncode == 2


def test_logs_are_reopened(daemon):
    daemon.log.rename(daemon.log.with_suffix(".1"))
    assert daemon("logs", "reopen").returncode == 0
    until(lambda: daemon.log.exists() and "logs opened again" in daemon.log.read_text())


def test_the_configuration_in_force(shared):
    running = json.loads(shared("config", "dump").stdout)["configs"]
    of_file = json.loads(forkproxy("config", "dump", shared.config).stdout)["configs"]
    assert running[0]["bootstrap"] == of_file[0]["bootstrap"]
    assert [dump["@type"] for dump in running] == [dump["@type"] for dump in of_file]


def test_the_dump_of_a_bad_file(tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("nonsense: 1\n")
    done = forkproxy("config", "dump", bad)
    assert (done.returncode, done.stdout) == (1, "")
    assert 'no field "nonsense"' in done.stderr


def test_health(daemon):
    assert daemon("healthcheck").stdout == "LIVE\n"
    quiet = daemon("healthcheck", "-q")
    assert (quiet.returncode, quiet.stdout) == (0, "")
    daemon("stop", "--now")
    dead = daemon("healthcheck")
    assert (dead.returncode, dead.stdout) == (1, "")
    assert "not running" in dead.stderr


def test_health_by_the_admin_port(tmp_path):
    (port,) = free_ports(1)
    daemon = Daemon(tmp_path, admin_port=port)
    try:
        assert forkproxy("healthcheck", "--admin", f"127.0.0.1:{port}").stdout == "LIVE\n"
        assert forkproxy("healthcheck", FORKPROXY_ADMIN=f"127.0.0.1:{port}").returncode == 0
    finally:
        daemon("stop", "--now")
    gone = forkproxy("healthcheck", "--admin", f"127.0.0.1:{port}")
    assert gone.returncode == 1
    assert "Connection refused" in gone.stderr
    assert forkproxy("healthcheck", "--admin", "nonsense").returncode == 1


def test_restart_keeps_options_environment_and_directory(tmp_path):
    config = tmp_path / "forkproxy.yaml"
    config.write_text(bootstrap(0))
    environment = {"FORKPROXY_PID_FILE": str(tmp_path / "run.pid"), "FORKPROXY_LOG_PATH": str(tmp_path / "log")}
    started = forkproxy("start", "--concurrency", 3, cwd=tmp_path, **environment)
    assert started.returncode == 0, started.stderr
    restarted = forkproxy("restart", "--pid-file", tmp_path / "run.pid")
    assert restarted.returncode == 0, restarted.stderr
    assert int(restarted.stdout) != int(started.stdout)
    assert not is_alive(int(started.stdout))
    status = json.loads(forkproxy("status", "--json", **environment).stdout)
    assert (status["pid"], len(status["workers"])) == (int(restarted.stdout), 3)
    assert forkproxy("stop", "--now", **environment).returncode == 0


def test_an_upgrade_has_a_new_pid_and_can_be_restarted(daemon):
    before = daemon.pid
    done = daemon("upgrade")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == daemon.pid != before
    until(lambda: not is_alive(before))
    again = daemon("restart")
    assert again.returncode == 0, again.stderr
    assert int(again.stdout) == daemon.pid
    assert len(daemon.workers()) == 2


def test_restart_refuses_a_bad_file_before_it_stops(daemon):
    pid = daemon.pid
    daemon.config.write_text("nonsense: 1\n")
    done = daemon("restart")
    assert (done.returncode, done.stdout) == (78, "")
    assert 'no field "nonsense"' in done.stderr
    assert f"not restarted: the one that runs, pid {pid}, goes on" in done.stderr
    assert json.loads(daemon("status", "--json").stdout)["pid"] == pid


def test_restart_is_not_for_what_runs_in_the_foreground(tmp_path):
    config = tmp_path / "forkproxy.yaml"
    config.write_text(bootstrap(0))
    pid_file = tmp_path / "run.pid"
    command = [sys.executable, "-m", "forkproxy", "run", "-c", config, "--pid-file", pid_file, "--concurrency", "1"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        until(lambda: forkproxy("healthcheck", "--pid-file", pid_file).returncode == 0)
        done = forkproxy("restart", "--pid-file", pid_file)
        assert done.returncode == 1
        assert f"pid {process.pid} runs in the foreground" in done.stderr
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 0


@pytest.mark.parametrize("command", ["restart", "upgrade", "drain", "stats", "top", "config dump", "logs level"])
def test_nothing_runs(tmp_path, command):
    done = forkproxy(*command.split(), "--pid-file", tmp_path / "none.pid")
    assert (done.returncode, done.stdout) == (3, "")
    assert "not running" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell):
    done = forkproxy("completion", shell)
    assert done.returncode == 0
    assert "_FORKPROXY_COMPLETE" in done.stdout


def test_the_verbs_are_listed_with_a_line_each():
    lines = forkproxy("--help", COLUMNS="80").stdout.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in lines][:6] == ["run", "start", "stop", "reload", "restart", "upgrade"]
    assert all(line.startswith("  ") and line[2] != " " and not line.endswith("...") for line in lines)


def test_fields_that_are_honoured():
    (line,) = forkproxy("config", "schema", "Cluster.connect_timeout").stdout.splitlines()
    assert line.split() == ["connect_timeout", "yes", "(duration)"]
    assert "envoy.config.cluster.v3.Cluster" in json.loads(forkproxy("config", "schema", "--json").stdout)
    assert forkproxy("config", "schema", "nonsense").returncode == 1


def test_filters_are_listed():
    listed = forkproxy("filters", "list").stdout
    assert "http     type.googleapis.com/envoy.extensions.filters.http.router.v3.Router\n" in listed
    assert {entry["kind"] for entry in json.loads(forkproxy("filters", "list", "--json").stdout)} >= {"http", "network"}


def test_a_new_filter_works(tmp_path):
    done = forkproxy("filters", "new", "my_filter", "--directory", tmp_path / "it")
    assert done.returncode == 0, done.stderr
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "it")],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert tests.returncode == 0, tests.stdout
    assert "2 passed" in tests.stdout
    assert forkproxy("check", "--strict", tmp_path / "it" / "my_filter.yaml").returncode == 0
    again = forkproxy("filters", "new", "my_filter", "--directory", tmp_path / "it")
    assert again.returncode == 1
    assert "nothing written" in again.stderr
    assert forkproxy("filters", "new", "no-module").returncode == 2
    assert not Path("no-module").exists()
