"""The commands as a shell sees them: output, exit codes, environment."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from tests.support.proxy import free_ports
from tests.support.supervised import ROOT, is_alive, until

DIRECT = "type.googleapis.com/envoy.extensions.filters.network.direct_response.v3.Config"


def forkproxy(*arguments, cwd=ROOT, **environment):
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "forkproxy", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def bootstrap(port, *, admin_port=None, **forkproxy_key):
    """A listener that greets and closes."""
    config = {
        "static_resources": {
            "listeners": [
                {
                    "name": "greeter",
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                    "filter_chains": [
                        {
                            "filters": [
                                {
                                    "name": "envoy.filters.network.direct_response",
                                    "typed_config": {"@type": DIRECT, "response": {"inline_string": "hello"}},
                                }
                            ]
                        }
                    ],
                }
            ]
        }
    }
    if admin_port is not None:
        config["admin"] = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin_port}}}
    if forkproxy_key:
        config["forkproxy"] = forkproxy_key
    return yaml.safe_dump(config)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "forkproxy.yaml"
    path.write_text(bootstrap(0))
    return path


@pytest.fixture
def started(tmp_path, config):
    """A daemon made by ``start``: its pid file."""
    pid_file = tmp_path / "run.pid"
    done = forkproxy("start", "-c", config, "--pid-file", pid_file, "--log-path", tmp_path / "log", "--concurrency", 1)
    assert done.returncode == 0, done.stderr
    pid = int(done.stdout)
    yield pid_file
    if is_alive(pid):
        forkproxy("stop", "--now", "--pid-file", pid_file)


def test_version():
    done = forkproxy("version")
    assert done.stdout.startswith("forkproxy 0.")
    assert set(json.loads(forkproxy("version", "--json").stdout)) == {"name", "version", "python"}


def test_version_loads_nothing_heavy():
    code = "import sys; sys.argv = ['forkproxy', 'version']\ntry:\n import forkproxy.__main__\n forkproxy.__main__.main()\n"
    heavy = ("structlog", "yaml", "google", "psutil", "ssl", "forkproxy.supervisor")
    code += f"except SystemExit: pass\nprint([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


def test_serving_loads_nothing_that_it_does_not_use():
    code = "import sys, forkproxy.supervisor.supervisor, forkproxy.worker.generation, forkproxy.config.load\n"
    heavy = ("asyncio", "psutil", "rich", "email", "html.entities", "tempfile", "subprocess", "argparse", "http.client")
    code += f"print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--no-such-flag"),
        ("nonsense",),
        ("run", "--concurrency", "0"),
        ("run", "--concurrency", "many"),
        ("run", "--cpuset", "3-1"),
        ("run", "-l", "loud"),
        ("run", "--component-log-level", "x"),
        ("run", "--drain-time-s", "-1"),
        ("status", "extra"),
        ("migrate",),
    ],
)
def test_wrong_usage_ends_with_2(arguments):
    done = forkproxy(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Usage:" in done.stderr


def test_not_running(tmp_path):
    for command in ("status", "reload", "stop"):
        done = forkproxy(command, "--pid-file", tmp_path / "none.pid")
        assert (done.returncode, done.stdout) == (3, "")
        assert "not running" in done.stderr


def test_a_foreign_process_s_pid_in_the_file_is_not_running(tmp_path):
    (tmp_path / "x.pid").write_text(f"{os.getpid()}\n")
    assert forkproxy("stop", "--pid-file", tmp_path / "x.pid").returncode == 3


def test_start_status_reload_stop(tmp_path, config, started):
    status = json.loads(forkproxy("status", "--json", "--pid-file", started).stdout)
    assert status["pid"] == int(started.read_text())
    assert [worker["state"] for worker in status["workers"]] == ["ready"]
    text = forkproxy("status", "--pid-file", started).stdout
    assert f"pid {status['pid']}" in text
    assert "greeter" in text
    assert "\x1b" not in text

    assert forkproxy("reload", "--pid-file", started).stdout == "generation 2, 1 worker\n"
    config.write_text("static_resources: {nonsense: 1}\n")
    refused = forkproxy("reload", "--pid-file", started)
    assert refused.returncode == 78
    assert f"{config}:1:20:" in refused.stderr
    assert "the old configuration stays" in refused.stderr
    assert "last reload refused" in forkproxy("status", "--pid-file", started).stdout

    assert forkproxy("stop", "--pid-file", started).returncode == 0
    assert not is_alive(status["pid"])
    assert forkproxy("status", "--pid-file", started).returncode == 3


def test_a_daemon_has_left_its_terminal(tmp_path, started):
    pid = int(started.read_text())
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
    assert os.readlink(f"/proc/{pid}/fd/1") == os.readlink(f"/proc/{pid}/fd/2") == str(tmp_path / "log")
    assert os.getsid(pid) != os.getsid(0)
    assert "ready" in (tmp_path / "log").read_text()


def test_usr1_reopens_the_log_of_a_daemon(tmp_path, started):
    (tmp_path / "log").rename(tmp_path / "log.1")
    os.kill(int(started.read_text()), signal.SIGUSR1)
    until(lambda: (tmp_path / "log").exists() and "logs opened again" in (tmp_path / "log").read_text())
    pid = int(started.read_text())
    until(lambda: os.readlink(f"/proc/{pid}/fd/1") == str(tmp_path / "log"))


def test_a_second_start_says_who_runs(tmp_path, config, started):
    done = forkproxy("start", "-c", config, "--pid-file", started, "--log-path", tmp_path / "log2")
    assert done.returncode == 1
    assert f"already running as pid {int(started.read_text())}" in done.stderr


def test_start_prints_why_not(tmp_path):
    config = tmp_path / "bad.yaml"
    config.write_text("admin: 5\n")
    done = forkproxy("start", "-c", config, "--pid-file", tmp_path / "x.pid", "--log-path", tmp_path / "log")
    assert done.returncode == 78
    assert done.stdout == ""
    assert f"{config}:1:8:" in done.stderr


def test_stop_gives_up_waiting(tmp_path, config):
    # A connection that stays keeps the drain going: echo never closes.
    echo = config.read_text().replace("direct_response.v3.Config", "echo.v3.Echo").replace("direct_response", "echo")
    data = yaml.safe_load(echo)
    (chain,) = data["static_resources"]["listeners"][0]["filter_chains"]
    del chain["filters"][0]["typed_config"]["response"]
    (port,) = free_ports(1)
    data["static_resources"]["listeners"][0]["address"]["socket_address"]["port_value"] = port
    config.write_text(yaml.safe_dump(data))
    pid_file = tmp_path / "echo.pid"
    log = tmp_path / "log"
    assert forkproxy("start", "-c", config, "--pid-file", pid_file, "--log-path", log).returncode == 0
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        done = forkproxy("stop", "--timeout", "0.3", "--pid-file", pid_file)
        assert done.returncode == 1
        assert "still draining" in done.stderr
        assert forkproxy("stop", "--now", "--pid-file", pid_file).returncode == 0


def test_every_option_has_an_environment_variable(tmp_path, config):
    environment = {
        "FORKPROXY_CONFIG": str(config),
        "FORKPROXY_PID_FILE": str(tmp_path / "env.pid"),
        "FORKPROXY_LOG_PATH": str(tmp_path / "env.log"),
        "FORKPROXY_CONCURRENCY": "2",
        "FORKPROXY_LOG_FORMAT": "json",
    }
    assert forkproxy("start", **environment).returncode == 0
    status = json.loads(forkproxy("status", "--json", **environment).stdout)
    assert len(status["workers"]) == 2
    assert forkproxy("stop", **environment).returncode == 0
    assert all(json.loads(line)["level"] for line in (tmp_path / "env.log").read_text().splitlines())


def test_the_configuration_is_looked_for(tmp_path, config):
    assert forkproxy("check", "-q", cwd=tmp_path).returncode == 0
    config.rename(tmp_path / "envoy.yaml")
    assert forkproxy("check", cwd=tmp_path).stdout.startswith("envoy.yaml: ")
    (tmp_path / "envoy.yaml").unlink()
    done = forkproxy("check", cwd=tmp_path, XDG_CONFIG_HOME=str(tmp_path))
    assert done.returncode == 78
    assert "looked for forkproxy.yaml, envoy.yaml" in done.stderr


def test_the_file_s_own_key_is_heeded(tmp_path):
    path = tmp_path / "f.yaml"
    pid_file = tmp_path / "named.pid"
    path.write_text(bootstrap(0, concurrency=3, pid_file=str(pid_file)))
    assert forkproxy("start", "-c", path, "--log-path", tmp_path / "log").returncode == 0
    status = json.loads(forkproxy("status", "--json", "--pid-file", pid_file).stdout)
    assert len(status["workers"]) == 3
    assert forkproxy("stop", "--pid-file", pid_file).returncode == 0


def test_harmless_flags_of_envoy_warn(tmp_path, config):
    log = tmp_path / "log"
    arguments = (
        "-c",
        config,
        "--pid-file",
        tmp_path / "x.pid",
        "--log-path",
        log,
        "--base-id",
        3,
        "--disable-hot-restart",
    )
    assert forkproxy("start", *arguments).returncode == 0
    assert forkproxy("stop", "--pid-file", tmp_path / "x.pid").returncode == 0
    assert "flag=--base-id" in log.read_text()
    assert "flag=--disable-hot-restart" in log.read_text()
    assert "flag=--restart-epoch" not in log.read_text()


def test_the_admin_address_is_written(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text(bootstrap(0, admin_port=0))
    pid_file = tmp_path / "x.pid"
    where = tmp_path / "admin"
    done = forkproxy(
        "start", "-c", path, "--pid-file", pid_file, "--log-path", tmp_path / "log", "--admin-address-path", where
    )
    assert done.returncode == 0
    host, _, port = where.read_text().rpartition(":")
    assert host == "127.0.0.1"
    assert int(port) > 0
    forkproxy("stop", "--now", "--pid-file", pid_file)


def test_run_without_a_free_pid_file_goes_on_without_one(tmp_path, config, started):
    # The default pid file may be another instance's; a chosen one may not.
    done = forkproxy("run", "-c", config, "--pid-file", started)
    assert done.returncode == 1
    assert "already running" in done.stderr


def test_ready_after_little_work(config):
    process = subprocess.Popen(
        [sys.executable, "-m", "forkproxy", "run", "-c", config, "--concurrency", "1", "--pid-file", f"{config}.pid"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stderr is not None
        while b" ready " not in process.stderr.readline():
            assert process.poll() is None
        used = psutil.Process(process.pid).cpu_times()
        assert used.user + used.system < 2  # on an idle machine 0.3 s
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
    assert process.returncode == 0
    assert not Path(f"{config}.pid").exists()


def test_the_service_of_another_tree(tmp_path):
    program = Path(sys.executable).with_name("forkproxy")
    answer = forkproxy("systemd", "unit")
    assert answer.returncode == 0
    assert f"ExecStart={program} run -c /etc/forkproxy/forkproxy.yaml" in answer.stdout
    answer = forkproxy("systemd", "uninstall", "--root", tmp_path)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may")
def test_only_root_installs_the_service():
    answer = forkproxy("systemd", "install")
    assert (answer.returncode, answer.stderr) == (77, "only root can change the service: use sudo\n")
