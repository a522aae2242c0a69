import os
import signal

import pytest

from forkproxy.supervisor.apart import Apart, Died
from forkproxy.supervisor.precedence import NICENESS, may_come_back
from tests.support.supervised import until


def test_the_result_comes_back():
    apart = Apart(lambda: {"pid": os.getpid(), "big": b"x" * 1_000_000}, name="work", gently=False)
    found = apart.result()
    assert found["pid"] != os.getpid()
    assert len(found["big"]) == 1_000_000


def test_it_leaves_no_process_and_no_descriptor():
    before = set(os.listdir("/proc/self/fd"))
    Apart(lambda: 1, name="work", gently=False).result()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(("work", "code"), [
    (lambda: os.kill(os.getpid(), signal.SIGKILL), -signal.SIGKILL), (lambda: 1 / 0, 70), (lambda: os._exit(3), 3),
])  # fmt: skip
def test_no_result(work, code):
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(Died) as raised:
        Apart(work, name="work", gently=False).result()
    assert raised.value.code == code
    assert set(os.listdir("/proc/self/fd")) == before


def test_no_process(monkeypatch):
    def refuse():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    before = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(BlockingIOError):
        Apart(lambda: 1, name="work", gently=False)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
    assert set(os.listdir("/proc/self/fd")) == before


def test_gently():
    def work():
        return os.sched_getscheduler(0), os.nice(0)

    own = os.nice(0)
    policy = os.SCHED_IDLE if may_come_back() else os.SCHED_BATCH
    assert Apart(work, name="work", gently=True).result() == (policy, min(own + NICENESS, 19))
    assert Apart(work, name="work", gently=False).result() == (os.sched_getscheduler(0), own)


def test_who_gets_nowhere_is_no_longer_behind():
    apart = Apart(signal.pause, name="work", gently=True)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    until(lambda: os.sched_getscheduler(apart.pid) != os.sched_getscheduler(0))
    while apart.look():
        pass
    assert os.sched_getscheduler(apart.pid) == os.SCHED_BATCH
    assert os.getpriority(os.PRIO_PROCESS, apart.pid) == (own if may_come_back() else min(own + NICENESS, 19))
    apart.kill()


def test_nobody_looks_at_what_is_not_gentle_or_has_ended():
    apart = Apart(signal.pause, name="work", gently=False)
    assert not apart.look()
    apart.kill()
    apart = Apart(lambda: 1, name="work", gently=True)
    _, status = os.waitpid(apart.pid, 0)
    assert not apart.look()
    apart.on_gone(os.waitstatus_to_exitcode(status))
    assert not apart.look()
    apart.result()


def test_somebody_else_may_reap_it():
    apart = Apart(lambda: "done", name="work", gently=False)
    assert not apart.has_ended
    _, status = os.waitpid(apart.pid, 0)
    apart.on_gone(os.waitstatus_to_exitcode(status))
    assert apart.has_ended
    assert apart.result() == "done"


def test_giving_up_leaves_nothing():
    before = set(os.listdir("/proc/self/fd"))
    Apart(signal.pause, name="work", gently=False).kill()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_sandbox_that_forbids_to_give_way(monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "setpriority", refuse)
    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    assert Apart(lambda: "done", name="work", gently=True).result() == "done"
