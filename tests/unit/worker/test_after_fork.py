"""What a fork leaves open, and what becomes of exceptions."""

import os
import signal

import pytest

from forkproxy.worker.after_fork import EXIT_EXCEPTION, Identity, become, close_all_but, fork, undo_parent


def outcome(run):
    """The exit code of a fork that calls ``run()``."""
    _, status = os.waitpid(fork(run), 0)
    return os.waitstatus_to_exitcode(status)


def test_the_child_exits_with_what_run_returns():
    assert outcome(lambda: 7) == 7


def test_an_exception_ends_the_child_and_never_reaches_the_parent_s_frames(capfd):
    def fail():
        raise LookupError("in the child")

    assert outcome(fail) == EXIT_EXCEPTION
    assert outcome(lambda: 1 // 0) == EXIT_EXCEPTION
    assert "LookupError: in the child" in capfd.readouterr().err


def test_signals_are_free_again_in_the_parent():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    outcome(lambda: 0)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_only_what_is_kept_stays_open():
    read_fd, write_fd = os.pipe()
    others = [os.dup(read_fd) for _ in range(20)]

    def run():
        close_all_but({0, 1, 2, write_fd})
        left = sorted(int(entry) for entry in os.listdir("/proc/self/fd"))
        # The listing's own descriptor is the lowest free one.
        os.write(write_fd, repr([fd for fd in left if fd != 3]).encode())
        return 0

    assert outcome(run) == 0
    os.close(write_fd)
    assert eval(os.read(read_fd, 1000)) == [0, 1, 2, write_fd]
    for fd in (read_fd, *others):
        os.close(fd)


def test_undo_parent():
    parent = os.getpid()

    def run():
        undo_parent(keep=[], parent_pid=parent, name="forkproxy:test-name-too-long")
        with open("/proc/self/comm") as file:
            assert file.read() == "forkproxy:test-\n"
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
        return 5

    assert outcome(run) == 5


def test_an_orphan_leaves_at_once():
    def run():
        undo_parent(keep=[], parent_pid=1 << 22, name="x")
        return 5

    assert outcome(run) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_become():
    def run():
        become(Identity(65534, 65533, (65533,)))
        assert os.getresuid() == (65534,) * 3
        assert os.getresgid() == (65533,) * 3
        assert os.getgroups() == [65533]
        return 5

    assert outcome(run) == 5
