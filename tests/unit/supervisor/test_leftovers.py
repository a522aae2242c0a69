"""What a supervisor that was killed leaves behind."""

import os
import subprocess

import pytest

from forkproxy.supervisor.leftovers import end_later

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
    assert end_later(lambda *call: calls.append(call), 7.0, environment=AS_MAIN, processes=proc) == 1
    ((after_s, end),) = calls
    assert after_s == 7.0
    assert sleeper.poll() is None
    end()
    assert sleeper.wait(10) == -9


def test_who_has_gone_by_then_is_left_alone(proc, sleeper):
    calls = []
    end_later(lambda *call: calls.append(call), 7.0, environment=AS_MAIN, processes=proc)
    sleeper.terminate()
    assert sleeper.wait(10) == -15
    calls[0][1]()


@pytest.mark.parametrize("environment", [{}, {"SYSTEMD_EXEC_PID": "1"}])
def test_without_systemd_others_in_the_cgroup_are_strangers(proc, sleeper, environment):
    calls = []
    assert end_later(lambda *call: calls.append(call), 7.0, environment=environment, processes=proc) == 0
    assert calls == []


def test_nobody_is_left(tmp_path):
    (tmp_path / "self").mkdir()
    (tmp_path / "self/cgroup").write_text("0::/system.slice/forkproxy.service\n")
    calls = []
    assert end_later(lambda *call: calls.append(call), 7.0, environment=AS_MAIN, processes=str(tmp_path)) == 0
    assert calls == []
