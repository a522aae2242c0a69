"""The lock decides who runs, not what the file says."""

import os

import pytest

from forkproxy.supervisor.pid_file import (
    AlreadyRunning,
    PidFile,
    control_socket_of,
    default_pid_file,
    holder_of,
    make_runtime_directory,
    read_pid,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.pid"


def test_written_locked_and_removed(path):
    pid_file = PidFile(path)
    assert path.read_text() == f"{os.getpid()}\n"
    assert holder_of(path) == os.getpid()
    with pytest.raises(AlreadyRunning) as refused:
        PidFile(path)
    assert refused.value.pid == os.getpid()
    pid_file.remove()
    assert not path.exists()


def test_a_stale_file_is_taken_over(path):
    path.write_text("1\nwith more text than ours")
    assert holder_of(path) == 0
    pid_file = PidFile(path)
    assert path.read_text() == f"{os.getpid()}\n"
    pid_file.remove()


@pytest.mark.parametrize("text", ["", "abc", "-5", "99999999999999", "\0"])
def test_rubbish_is_no_pid(path, text):
    path.write_text(text)
    assert read_pid(path) == 0


def test_nothing_there_is_nobody(path):
    assert holder_of(path) == 0
    assert read_pid(path) == 0


def test_a_link_is_not_followed(tmp_path, path):
    target = tmp_path / "precious"
    target.write_text("keep me")
    path.symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        PidFile(path)
    assert target.read_text() == "keep me"


def test_a_file_removed_before_the_lock_is_opened_again(path, monkeypatch):
    import fcntl

    real = fcntl.flock
    calls = []

    def flock(fd, how):
        real(fd, how)
        calls.append(fd)
        if len(calls) == 1:
            path.unlink()

    monkeypatch.setattr(fcntl, "flock", flock)
    pid_file = PidFile(path)
    assert len(calls) == 2
    assert path.read_text() == f"{os.getpid()}\n"
    pid_file.remove()


def test_where_things_are(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert str(default_pid_file()) == "/run/forkproxy/forkproxy.pid"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert default_pid_file() == tmp_path / "forkproxy" / "forkproxy.pid"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert str(default_pid_file()) == "/tmp/forkproxy-1000/forkproxy.pid"
    assert control_socket_of(tmp_path / "forkproxy.pid") == tmp_path / "control.sock"
    assert control_socket_of(tmp_path / "second.pid") == tmp_path / "second.sock"


def test_a_runtime_directory_of_somebody_else_is_refused(tmp_path, monkeypatch):
    make_runtime_directory(tmp_path / "mine")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(PermissionError):
        make_runtime_directory(tmp_path / "mine")


def test_a_runtime_directory_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(PermissionError):
        make_runtime_directory(tmp_path / "link")
