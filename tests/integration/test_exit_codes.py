"""Why a start failed, in one number and one sentence."""

import ctypes
import os
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


def give_up_low_ports():
    """In the child, before exec: without CAP_NET_BIND_SERVICE not even root may bind a port under 1024."""
    ctypes.CDLL(None).prctl(24, 10, 0, 0, 0)  # PR_CAPBSET_DROP; fails without root, who has no such right anyway


def test_no_permission(tmp_path, config):
    if Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text().strip() == "0":
        pytest.skip("every port is unprivileged here")
    config.write_text(bootstrap(1))
    done = subprocess.run(
        [sys.executable, "-m", "forkproxy", "run", "-c", config, "--pid-file", tmp_path / "x.pid"],
        cwd=ROOT,
        preexec_fn=give_up_low_ports,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 77
    assert "port 1 needs root or CAP_NET_BIND_SERVICE" in done.stderr


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
    done = run(config)
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
