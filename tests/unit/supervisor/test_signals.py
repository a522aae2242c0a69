"""A signal is a byte, in the order of arrival."""

import os
import pty
import signal

import pytest

from forkproxy.supervisor.signals import INTENTIONS, SignalPipe, how_it_ended


@pytest.fixture
def pipe():
    before = {number: signal.getsignal(number) for number in (*INTENTIONS, signal.SIGCHLD, signal.SIGUSR2)}
    pipe = SignalPipe()
    pipe.install()
    yield pipe
    pipe.close()
    for number, action in before.items():
        signal.signal(number, action)


def test_signals_are_noted_in_order(pipe):
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM):
        os.kill(os.getpid(), number)
    assert pipe.take() == [signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM]
    assert pipe.take() == []


def test_usr2_upgrades(pipe):
    os.kill(os.getpid(), signal.SIGUSR2)
    assert [INTENTIONS[number] for number in pipe.take()] == ["upgrade"]


def test_in_a_terminal_winch_is_a_window_that_was_resized():
    pid, terminal = pty.fork()
    if not pid:
        SignalPipe().install()
        os._exit(0 if signal.getsignal(signal.SIGWINCH) == signal.SIG_IGN else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(terminal)


@pytest.mark.parametrize(
    ("code", "words"), [(0, "exit code 0"), (70, "exit code 70"), (-9, "signal SIGKILL"), (-35, "signal 35")]
)
def test_how_it_ended(code, words):
    assert how_it_ended(code) == words
