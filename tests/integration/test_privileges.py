"""Root starts it; the workers are somebody else, and everything still works. And who may talk to it."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from tests.integration.test_cli import bootstrap, forkproxy
from tests.support.directed import listener
from tests.support.supervised import ROOT, descriptors, is_alive, until

NOBODY = 65534
FIRST_UNPRIVILEGED_PORT = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


def low_port():
    """A port of 127.0.0.1 that only root may bind."""
    if FIRST_UNPRIVILEGED_PORT < 512:
        pytest.skip("ports are unprivileged here")
    for port in range(FIRST_UNPRIVILEGED_PORT - 1, 300, -1):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    raise AssertionError("no port below 1024 is free")


@pytest.fixture
def roots():
    """A directory that only root can write to, as /var/log/forkproxy is."""
    directory = Path(tempfile.mkdtemp(prefix="forkproxy-test-", dir="/run"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def credentials(pid):
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)


def get(port):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        return sock.recv(100)


def with_log(path, port, **forkproxy_key):
    entry = listener("ingress", port, "INBOUND")
    manager = entry["filter_chains"][0]["filters"][0]["typed_config"]
    kind = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
    manager["access_log"] = [{"name": "file", "typed_config": {"@type": kind, "path": str(path)}}]
    return yaml.safe_dump({"static_resources": {"listeners": [entry]}, "forkproxy": forkproxy_key})


def test_workers_are_somebody_else_and_everything_works(roots):
    port = low_port()
    config, access, log = roots / "forkproxy.yaml", roots / "access.log", roots / "log"
    where = ("--pid-file", roots / "run.pid")
    config.write_text(with_log(access, port))
    options = ("--user", "nobody", "--concurrency", 1, "--log-path", log, "--file-flush-interval-msec", 20)
    done = forkproxy("start", "-c", config, *where, *options)
    assert done.returncode == 0, done.stderr
    try:
        (worker,) = json.loads(forkproxy("workers", "list", "--json", *where).stdout)
        found = credentials(worker["pid"])
        assert found["Uid"].split() == found["Gid"].split() == [str(NOBODY)] * 4
        assert "0" not in found["Groups"].split()
        for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(found[kind], 16) == 0
        assert found["NoNewPrivs"] == "1"
        assert credentials(int(done.stdout))["Uid"].split()[0] == "0"
        assert os.sched_getaffinity(worker["pid"]) == {worker["cpu"]}
        assert get(port).startswith(b"HTTP/1.1 200")
        until(lambda: "GET / HTTP/1.1" in access.read_text())
        assert access.stat().st_uid == log.stat().st_uid == NOBODY

        # logrotate moves the files, and the workers can open the new ones
        access.rename(roots / "access.log.1")
        log.rename(roots / "log.1")
        assert forkproxy("logs", "reopen", *where).returncode == 0
        until(lambda: access.exists() and str(access) in descriptors(worker["pid"]).values())
        assert get(port).startswith(b"HTTP/1.1 200")
        until(lambda: "GET / HTTP/1.1" in access.read_text())
        assert log.stat().st_uid == NOBODY
        assert "cannot be opened" not in log.read_text() + (roots / "log.1").read_text()

        # a reload binds another port below 1024
        other = low_port()
        config.write_text(with_log(access, other))
        assert forkproxy("reload", *where).returncode == 0
        assert get(other).startswith(b"HTTP/1.1 200")
    finally:
        assert forkproxy("stop", "--now", *where).returncode == 0


@pytest.mark.parametrize(("arguments", "in_file", "uid"), [
    (("--user", "root"), "nobody", 0),
    ((), "nobody", NOBODY),
    (("--user", f"nobody:{NOBODY}"), None, NOBODY),
])  # fmt: skip
def test_who_says_what(tmp_path, arguments, in_file, uid):
    config = tmp_path / "c.yaml"
    config.write_text(bootstrap(0, **({"user": in_file} if in_file else {})))
    where = ("--pid-file", tmp_path / "run.pid")
    environment = {name: value for name, value in os.environ.items() if name != "FORKPROXY_USER"}
    done = subprocess.run(
        [sys.executable, "-m", "forkproxy", "start", "-c", config, *where, "--log-path", tmp_path / "log", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    try:
        for worker in json.loads(forkproxy("workers", "list", "--json", *where).stdout):
            assert credentials(worker["pid"])["Uid"].split()[0] == str(uid)
        assert ("the workers run as another user user=nobody" in (tmp_path / "log").read_text()) == bool(uid)
    finally:
        forkproxy("stop", "--now", *where)


def test_a_user_who_is_not_there(tmp_path):
    done = forkproxy("run", "-c", tmp_path / "c.yaml", "--user", "no-such-user")
    assert done.returncode == 2
    assert 'no user "no-such-user"' in done.stderr


# -- what another user may


def as_nobody(*arguments, cwd="/"):
    """Run a command as nobody who, unlike nobody, may read where Python and we are: root's directories."""

    def become():
        import ctypes
        import struct

        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        read = 1 << 2  # CAP_DAC_READ_SEARCH: to enter and read, not to write
        header = struct.pack("=Ii", 0x20080522, 0)
        assert libc.capset(header, struct.pack("=6I", read, read, read, 0, 0, 0)) == 0
        assert libc.prctl(47, 2, 2, 0, 0) == 0  # PR_CAP_AMBIENT_RAISE, so that it lasts over the exec

    return subprocess.run(
        [sys.executable, "-m", "forkproxy", *map(str, arguments)],
        cwd=cwd, env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": "/nonexistent"},
        preexec_fn=become, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture
def nobodys(tmp_path):
    """A directory of nobody's."""
    directory = Path(tempfile.mkdtemp(prefix="forkproxy-test-"))
    os.chown(directory, NOBODY, NOBODY)
    yield directory
    shutil.rmtree(directory)


def test_a_low_port_is_not_for_nobody(nobodys):
    port = low_port()
    (nobodys / "c.yaml").write_text(bootstrap(port))
    for command in ("run", "start"):
        done = as_nobody(
            command, "-c", nobodys / "c.yaml", "--pid-file", nobodys / "x.pid", "--log-path", nobodys / "log"
        )
        assert done.returncode == 77, done.stderr
        assert f"cannot bind 127.0.0.1:{port}" in done.stderr
        assert f"port {port} needs root or CAP_NET_BIND_SERVICE" in done.stderr
        assert "Traceback" not in done.stderr
    assert not (nobodys / "x.pid").exists()


def test_root_s_directory_is_no_place_for_nobody_s_pid_file(nobodys, roots):
    (nobodys / "c.yaml").write_text(bootstrap(0))
    done = as_nobody("start", "-c", nobodys / "c.yaml", "--pid-file", roots / "x.pid", "--log-path", nobodys / "log")
    assert done.returncode == 77
    assert done.stderr == f"cannot write the pid file {roots / 'x.pid'}: Permission denied\n"


def test_who_is_not_root_is_told_that_workers_stay(nobodys):
    (nobodys / "c.yaml").write_text(bootstrap(0, user="root"))
    where = ("--pid-file", nobodys / "x.pid")
    done = as_nobody("start", "-c", nobodys / "c.yaml", *where, "--log-path", nobodys / "log")
    assert done.returncode == 0, done.stderr
    assert as_nobody("stop", "--now", *where).returncode == 0
    assert "only root can run them as another user=root" in (nobodys / "log").read_text()


@pytest.fixture
def roots_instance(roots):
    """An instance of root's in a directory that all may enter."""
    directory = roots
    (directory / "c.yaml").write_text(bootstrap(0))
    where = ("--pid-file", directory / "x.pid")
    done = forkproxy("start", "-c", directory / "c.yaml", *where, "--log-path", directory / "log", "--concurrency", 1)
    assert done.returncode == 0, done.stderr
    yield directory
    forkproxy("stop", "--now", *where)


@pytest.mark.parametrize("command", ["status", "stop", "reload", "drain", "workers list", "logs reopen"])
def test_nobody_is_not_answered_by_root_s(roots_instance, command):
    done = as_nobody(*command.split(), "--pid-file", roots_instance / "x.pid")
    assert (done.returncode, done.stdout) == (77, "")
    assert done.stderr == f"{roots_instance / 'x.sock'}: no permission: only root is answered (use sudo)\n"


def test_the_supervisor_itself_asks_who_it_is(roots_instance):
    # Whoever got past the mode of the socket's file is still refused: the kernel tells who asks.
    path = roots_instance / "x.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o666)
    done = as_nobody("status", "--pid-file", roots_instance / "x.pid")
    assert done.returncode == 77
    assert "no permission" in done.stderr
    assert (
        f"refused: the control socket answers root and its own user uid={NOBODY}"
        in (roots_instance / "log").read_text()
    )
    assert forkproxy("status", "--pid-file", roots_instance / "x.pid").returncode == 0


def test_nobody_s_instance_answers_root(nobodys):
    (nobodys / "c.yaml").write_text(bootstrap(0))
    where = ("--pid-file", nobodys / "x.pid")
    done = as_nobody("start", "-c", nobodys / "c.yaml", *where, "--log-path", nobodys / "log")
    assert done.returncode == 0, done.stderr
    pid = int(done.stdout)
    assert json.loads(forkproxy("status", "--json", *where).stdout)["pid"] == pid
    # What a user wrote into a command line does not run as root.
    again = forkproxy("restart", *where)
    assert again.returncode == 77
    assert f"pid {pid} runs as nobody: only that user can start it again" in again.stderr
    os.kill(pid, signal.SIGTERM)
    until(lambda: not is_alive(pid))
