"""Why a start failed, in one number and one sentence."""

import ctypes
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.test_cli import bootstrap, forkproxy
from tests.support.supervised import ROOT


@pytest.fixture
def config(tmp_path):
    return tmp_path / "c.yaml"


def run(config, *more):
    return forkproxy("run", "-c", config, "--pid-file", config.with_suffix(".pid"), "--concurrency", 1, *more)


def test_port_in_use_names_the_address_and_who_has_it(config):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        config.write_text(bootstrap(port))
        done = run(config)
    assert done.returncode == 69
    assert f'cannot bind 127.0.0.1:{port} (listener "greeter"): address already in use by ' in done.stderr
    assert f"(pid {os.getpid()})" in done.stderr


def test_admin_port_in_use(config):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        config.write_text(bootstrap(0, admin_port=port))
        done = run(config)
    assert done.returncode == 69
    assert f"cannot bind 127.0.0.1:{port} (admin): address already in use" in done.stderr


def test_two_of_us_on_one_port(tmp_path, config):
    config.write_text(bootstrap(0))
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other:
        config.write_text(bootstrap(other.getsockname()[1]))
        assert run(config).returncode == 69


def test_an_address_of_another_machine(config):
    config.write_text(bootstrap(0).replace("127.0.0.1", "192.0.2.1"))
    done = run(config)
    assert done.returncode == 69
    assert "Cannot assign requested address" in done.stderr


def without_privileges():
    """In the child, before exec: what root may do beyond other users is gone, and others never had it."""
    prctl = ctypes.CDLL(None).prctl
    for capability in (0, 1, 2, 3, 10):  # CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, NET_BIND_SERVICE
        prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


def run_unprivileged(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "forkproxy", *map(str, arguments)],
        cwd=ROOT,
        preexec_fn=without_privileges,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("admin", [False, True])
def test_no_permission(tmp_path, config, admin):
    if Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text().strip() == "0":
        pytest.skip("every port is unprivileged here")
    config.write_text(bootstrap(0, admin_port=1) if admin else bootstrap(1))
    done = run_unprivileged("run", "-c", config, "--pid-file", tmp_path / "x.pid")
    assert done.returncode == 77
    whose = "admin" if admin else 'listener "greeter"'
    assert f"cannot bind 127.0.0.1:1 ({whose})" in done.stderr
    assert "port 1 needs root or CAP_NET_BIND_SERVICE" in done.stderr


def test_no_permission_for_a_file(tmp_path, config):
    config.write_text(bootstrap(0))
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    pid_file = tmp_path / "x.pid"
    for arguments, message in [
        (("--pid-file", locked / "x.pid"), "cannot write the pid file"),
        (("--pid-file", pid_file, "--log-path", locked / "log"), "cannot open the log"),
    ]:
        for command in ("run", "start"):
            done = run_unprivileged(command, "-c", config, *arguments)
            assert done.returncode == 77, done.stderr
            assert message in done.stderr
            assert "Permission denied" in done.stderr
            assert "Traceback" not in done.stderr


def test_a_configuration_that_may_not_be_read(tmp_path, config):
    config.write_text(bootstrap(0))
    config.chmod(0)
    done = run_unprivileged("run", "-c", config, "--pid-file", tmp_path / "x.pid")
    assert done.returncode == 78
    assert done.stderr.strip() == f"{config}: cannot read the file: Permission denied"
    done = run_unprivileged("check", config)
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == f"{config}: cannot read the file: Permission denied"


def test_a_socket_path_in_a_directory_that_is_not_ours(tmp_path, config):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    text = bootstrap(0).replace("socket_address:", "pipe:").replace("address: 127.0.0.1", f"path: {locked}/s")
    config.write_text(re.sub(r" *port_value: 0\n", "", text))
    done = run_unprivileged("run", "-c", config, "--pid-file", tmp_path / "x.pid")
    assert done.returncode == 77, done.stderr
    assert f"cannot bind {locked}/s" in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("admin: [", ":1:"),
        ("nonsense: 1\n", 'has no field "nonsense"'),
        ("forkproxy: {user: no-such-user-anywhere}\n", 'no user "no-such-user-anywhere"'),
    ],
)
def test_a_bad_configuration(config, text, message):
    config.write_text(text)
    done = forkproxy("run", "-c", config, "--pid-file", config.with_suffix(".pid"), FORKPROXY_USER="")
    assert done.returncode == 78
    assert done.stderr.startswith(f"{config}:")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_no_readable_file(tmp_path, config):
    for path in (tmp_path / "missing", tmp_path):
        done = forkproxy("run", "-c", path, "--pid-file", tmp_path / "x.pid")
        assert done.returncode == 78
        assert str(path) in done.stderr


def test_a_pid_file_or_log_that_cannot_be_written(tmp_path, config):
    config.write_text(bootstrap(0))
    done = forkproxy("run", "-c", config, "--pid-file", tmp_path / "no" / "x.pid")
    assert done.returncode == 1
    assert "cannot write the pid file" in done.stderr
    for command in ("run", "start"):
        done = forkproxy(command, "-c", config, "--pid-file", tmp_path / "x.pid", "--log-path", "/proc/no/log")
        assert done.returncode == 1
        assert "cannot open the log" in done.stderr
