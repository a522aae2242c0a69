import os
import resource
import signal

import pytest

from forkproxy.supervisor import precedence
from forkproxy.supervisor.precedence import Watch, giving_way, may_come_back, step_behind
from tests.support.supervised import until

LONG_S = 1000.0


def alarm_is_set():
    return signal.getitimer(signal.ITIMER_REAL)[0] > 0


@pytest.fixture
def may(monkeypatch):
    """Says whether the process may come back; the kernel's answers are those of a machine that lets it. The list is of what was
    asked for: a policy, or a niceness as text."""
    asked = []
    monkeypatch.setattr(os, "sched_setscheduler", lambda _pid, policy, _param: asked.append(policy))
    monkeypatch.setattr(os, "setpriority", lambda _which, _pid, niceness: asked.append(f"nice {niceness}"))
    monkeypatch.setattr(os, "sched_getscheduler", lambda _pid: os.SCHED_OTHER)
    monkeypatch.setattr(os, "getpriority", lambda _which, _pid: 2)

    def say(answer):
        monkeypatch.setattr(precedence, "may_come_back", lambda: answer)
        return asked

    return say


@pytest.fixture
def looks(monkeypatch):
    """The times of the CPU that looks meet; without end, as they are. Looks are a millisecond apart."""
    monkeypatch.setattr(precedence, "FIRST_LOOK_S", 0.001)
    monkeypatch.setattr(precedence, "OWN_LOOK_S", 0.001)
    times = []
    monkeypatch.setattr(precedence, "process_time", lambda: times.pop(0) if len(times) > 1 else times[0])
    return times


@pytest.mark.parametrize(("answer", "there", "back"), [(True, [], "nice 2"), (False, [os.SCHED_BATCH], os.SCHED_OTHER)])
def test_it_ends(may, answer, there, back):
    asked = may(answer)
    before = (signal.getsignal(signal.SIGALRM), alarm_is_set())
    with giving_way(LONG_S):
        assert asked == there
        assert alarm_is_set() is (answer or before[1])
    assert asked == [*there, back]
    with pytest.raises(ZeroDivisionError), giving_way(LONG_S):
        1 / 0  # noqa: B018
    assert asked == [*there, back] * 2
    assert (signal.getsignal(signal.SIGALRM), alarm_is_set()) == before


def test_it_is_nice_from_the_first_look_on_while_there_is_something_left(may, looks):
    asked = may(True)
    looks += [0.0, 1.0, 2.0, 3.0, 4.0]
    with giving_way(LONG_S):
        until(lambda: len(asked) >= 3)
        assert asked[:3] == ["nice 12"] * 3
    assert asked[-1] == "nice 2"


def test_one_of_many_is_not_nice(may, looks):
    asked = may(True)
    looks += [0.0, 0.0002]
    with giving_way(LONG_S):
        until(lambda: asked)
        assert asked == ["nice 2"]
        assert not alarm_is_set()


@pytest.mark.parametrize(("patience_s", "times", "expected"), [
    (LONG_S, [0.0, 1.0, 1.00004], ["nice 12", "nice 2"]), (0.0, [0.0, 1.0], ["nice 2"]),
])  # fmt: skip
def test_patience_ends_in_time_or_where_next_to_nothing_is_left(may, looks, patience_s, times, expected):
    asked = may(True)
    looks += times
    with giving_way(patience_s):
        until(lambda: "nice 2" in asked)
        assert asked == expected
        assert not alarm_is_set()


@pytest.mark.parametrize("policy", [os.SCHED_FIFO, os.SCHED_RR, os.SCHED_IDLE])
def test_a_policy_of_its_own_stays(may, monkeypatch, policy):
    asked = may(True)
    monkeypatch.setattr(os, "sched_getscheduler", lambda _pid: policy)
    with giving_way(LONG_S):
        pass
    assert asked == []


@pytest.mark.parametrize("answer", [True, False])
def test_a_sandbox_that_forbids_it(monkeypatch, answer):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    monkeypatch.setattr(os, "setpriority", refuse)
    monkeypatch.setattr(precedence, "may_come_back", lambda: answer)
    before = (os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0))
    with giving_way(LONG_S):
        step_behind()
        assert (os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)) == before


@pytest.mark.parametrize(("answer", "policy"), [(True, os.SCHED_IDLE), (False, os.SCHED_BATCH)])
def test_stepping_behind(may, answer, policy):
    asked = may(answer)
    step_behind()
    assert asked == ["nice 12", policy]


@pytest.fixture
def used(monkeypatch):
    """What a process has had of CPUs, look by look."""
    seconds = []
    monkeypatch.setattr(precedence, "cpu_seconds", lambda _pid: seconds.pop(0))
    return seconds


def test_who_gets_on_stays_behind(may, used):
    asked = may(True)
    used += [0.5, 0.56, 1.0]
    watch = Watch(1, LONG_S)
    assert [watch.look() for _ in range(3)] == [True, True, True]
    assert asked == []


def test_who_gets_next_to_nothing_is_let_in(may, used):
    asked = may(True)
    used += [0.5, 0.54, 0.6, 0.64]
    watch = Watch(1, LONG_S)
    assert [watch.look() for _ in range(4)] == [True, True, True, False]
    assert asked == [os.SCHED_BATCH, "nice 2"]


def test_patience_ends_for_who_gets_on(may, used):
    asked = may(True)
    used += [0.5, 1.0]
    watch = Watch(1, 0.0)
    assert [watch.look() for _ in range(2)] == [True, False]
    assert asked == [os.SCHED_BATCH, "nice 2"]


def test_who_has_ended_is_not_watched(may, monkeypatch):
    def gone(_pid):
        raise FileNotFoundError(2, "No such file or directory")

    asked = may(True)
    monkeypatch.setattr(precedence, "cpu_seconds", gone)
    assert not Watch(1, LONG_S).look()
    assert asked == []


def test_cpu_seconds():
    before = sum(os.times()[:2])
    found = precedence.cpu_seconds(os.getpid())
    assert before - 0.02 <= found <= sum(os.times()[:2]) + 0.02


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
