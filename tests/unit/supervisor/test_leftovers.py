"""What a supervisor that was killed leaves behind."""

import os
import socket
import subprocess
import time

import pytest

from forkproxy.supervisor.leftovers import Leftovers

AS_MAIN = {"SYSTEMD_EXEC_PID": str(os.getpid())}


@pytest.fixture
def sleeper():
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


@pytest.fixture
def proc(tmp_path, sleeper):
    """A /proc with us and one more process in the service's cgroup, one in another, and one that has just gone."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    for name, cgroup in (
        ("self", "0::/system.slice/forkproxy.service\n"),
        (str(os.getpid()), "0::/system.slice/forkproxy.service\n"),
        (str(sleeper.pid), "0::/system.slice/forkproxy.service\n"),
        (str(gone.pid), "0::/system.slice/forkproxy.service\n"),
        (str(os.getppid()), "0::/system.slice/other.service\n"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup").write_text(cgroup)
    (tmp_path / "uptime").write_text("1 1\n")
    return str(tmp_path)


def test_who_is_left_after_the_drain_time_is_ended(proc, sleeper):
    calls = []
    leftovers = Leftovers(AS_MAIN, proc)
    leftovers.end_later(lambda *call: calls.append(call), 7.0)
    assert leftovers.pids == [sleeper.pid]
    ((after_s, end),) = calls
    assert after_s == 7.0
    assert sleeper.poll() is None
    end()
    assert sleeper.wait(10) == -9


def test_who_has_gone_by_then_is_left_alone(proc, sleeper):
    calls = []
    Leftovers(AS_MAIN, proc).end_later(lambda *call: calls.append(call), 7.0)
    sleeper.terminate()
    assert sleeper.wait(10) == -15
    calls[0][1]()


def test_who_drains_without_listening_is_left_to_it(proc, sleeper):
    leftovers = Leftovers(AS_MAIN, proc)
    leftovers.make_way(pytest.fail)
    assert sleeper.poll() is None
    leftovers.close()


def test_who_goes_on_listening_is_ended_at_once(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener, subprocess.Popen(
        ["sleep", "60"], stdin=listener
    ) as stuck:  # fmt: skip
        for name in ("self", str(stuck.pid)):
            (tmp_path / name).mkdir()
            (tmp_path / name / "cgroup").write_text("0::/system.slice/forkproxy.service\n")
        leftovers = Leftovers(AS_MAIN, str(tmp_path))
        leftovers.make_way(time.sleep, patience_s=0.05)
        assert stuck.wait(10) == -9
        leftovers.close()


@pytest.mark.parametrize("environment", [{}, {"SYSTEMD_EXEC_PID": "1"}])
def test_without_systemd_others_in_the_cgroup_are_strangers(proc, environment):
    assert Leftovers(environment, proc).pids == []


def test_nobody_is_left(tmp_path):
    (tmp_path / "self").mkdir()
    (tmp_path / "self/cgroup").write_text("0::/system.slice/forkproxy.service\n")
    leftovers = Leftovers(AS_MAIN, str(tmp_path))
    leftovers.make_way(pytest.fail)
    leftovers.end_later(pytest.fail, 7.0)
    assert leftovers.pids == []
