import os
import resource
import signal

import pytest

from forkproxy.supervisor import precedence
from forkproxy.supervisor.precedence import giving_way, may_come_back
from tests.support.supervised import until

LONG_S = 1000.0


def alarm_is_set():
    return signal.getitimer(signal.ITIMER_REAL)[0] > 0


@pytest.fixture
def may(monkeypatch):
    """Says whether the process may come back; the kernel's answers are those of a machine that lets it."""
    policies = [os.SCHED_OTHER]
    monkeypatch.setattr(os, "sched_setscheduler", lambda _pid, policy, _param: policies.append(policy))
    monkeypatch.setattr(os, "sched_getscheduler", lambda _pid: policies[-1])

    def say(answer):
        monkeypatch.setattr(precedence, "may_come_back", lambda: answer)
        return policies

    return say


@pytest.mark.parametrize(("answer", "policy"), [(True, os.SCHED_IDLE), (False, os.SCHED_BATCH)])
def test_it_ends(may, answer, policy):
    policies = may(answer)
    before = (signal.getsignal(signal.SIGALRM), alarm_is_set())
    with giving_way(LONG_S):
        assert policies == [os.SCHED_OTHER, policy]
    assert policies == [os.SCHED_OTHER, policy, os.SCHED_OTHER]
    assert (signal.getsignal(signal.SIGALRM), alarm_is_set()) == before


def test_it_ends_after_an_exception(may):
    policies = may(True)
    before = (signal.getsignal(signal.SIGALRM), alarm_is_set())
    with pytest.raises(ZeroDivisionError), giving_way(LONG_S):
        1 / 0  # noqa: B018
    assert policies[-1] == os.SCHED_OTHER
    assert (signal.getsignal(signal.SIGALRM), alarm_is_set()) == before


@pytest.mark.parametrize(("patience_s", "least_share"), [(0.0, 0.0), (LONG_S, 2.0)])
def test_patience_ends_in_time_or_where_next_to_nothing_is_left(may, monkeypatch, patience_s, least_share):
    monkeypatch.setattr(precedence, "LOOK_S", 0.001)
    monkeypatch.setattr(precedence, "LEAST_SHARE", least_share)
    policies = may(True)
    with giving_way(patience_s):
        until(lambda: len(policies) > 2)
        assert policies[1:] == [os.SCHED_IDLE, os.SCHED_BATCH]
        assert not alarm_is_set()
    assert policies[-1] == os.SCHED_OTHER


def test_patience_lasts_while_there_is_something_left(may, monkeypatch):
    looks = []
    monkeypatch.setattr(precedence, "LOOK_S", 0.001)
    monkeypatch.setattr(precedence, "process_time", lambda: looks.append(None) or float(len(looks)))
    policies = may(True)
    with giving_way(LONG_S):
        until(lambda: len(looks) > 3)
        assert policies[1:] == [os.SCHED_IDLE]


@pytest.mark.parametrize("policy", [os.SCHED_FIFO, os.SCHED_RR, os.SCHED_IDLE])
def test_a_policy_of_its_own_stays(may, policy):
    policies = may(True)
    policies.append(policy)
    with giving_way(LONG_S):
        assert policies[-1] == policy
    assert len(policies) == 2


def test_a_sandbox_that_forbids_it(monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    before = os.sched_getscheduler(0)
    with giving_way(LONG_S):
        assert os.sched_getscheduler(0) == before


@pytest.mark.parametrize(("limit", "niceness", "capabilities", "answer"), [
    (0, 0, "0000000000000000", False), (20, 0, "0000000000000000", True), (19, 0, "0000000000000000", False),
    (10, 10, "0000000000000000", True), (9, 10, "0000000000000400", False), (0, 0, "0000000000800000", True),
    (0, 0, "000001ffff7fffff", False), (0, 0, "000001ffffffffff", True),
])  # fmt: skip
def test_may_come_back(monkeypatch, tmp_path, limit, niceness, capabilities, answer):
    status = tmp_path / "status"
    status.write_text(f"Name:\tforkproxy\nCapPrm:\t000001ffffffffff\nCapEff:\t{capabilities}\n")
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (limit, limit))
    monkeypatch.setattr(os, "getpriority", lambda _which, _pid: niceness)
    monkeypatch.setattr(precedence, "_STATUS", status)
    assert may_come_back() is answer


def test_may_come_back_as_the_kernel_has_it():
    # In a process of its own: one that may not stays idle.
    pid = os.fork()
    if not pid:
        try:
            expected = may_come_back()
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            try:
                os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
                found = True
            except PermissionError:
                found = False
            os._exit(found is not expected)
        finally:
            os._exit(70)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
