"""Each place is told once with its traceback, and then now and then."""

import pytest

from forkproxy import log
from forkproxy.worker import exception_log
from forkproxy.worker.exception_log import INTERVAL_S, ExceptionLog


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(exception_log, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def exceptions(clock):
    return ExceptionLog(log.get_logger("web"))


def raised(message, make=ValueError):
    try:
        raise make(message)
    except make as error:
        return error


def test_the_first_comes_with_its_traceback_and_the_next_are_only_counted(exceptions, capfd):
    for number in range(5):
        exceptions.report("it happened", raised(f"no {number}"), subject="mine", colour="blue")
    told = capfd.readouterr().err
    assert told.count("it happened colour=blue place=") == 1
    assert told.count("Traceback") == 1
    assert "ValueError: no 0" in told
    assert exceptions.total == 5


def test_it_is_told_again_after_a_while_in_one_line(exceptions, clock, capfd):
    for _ in range(2):
        exceptions.report("it happened", raised("one"), subject="mine")
    capfd.readouterr()
    clock[0] += INTERVAL_S
    for _ in range(2):
        exceptions.report("it happened", raised("three"), subject="mine")
    (line,) = capfd.readouterr().err.splitlines()
    assert 'reason="ValueError: three" total=3' in line


def test_another_subject_place_or_type_is_another_matter(exceptions, capfd):
    exceptions.report("it happened", raised("a"), subject="mine")
    exceptions.report("it happened", raised("a"), subject="yours")
    exceptions.report("it happened", raised("a", KeyError), subject="mine")
    exceptions.report("it happened", RuntimeError("never raised: it has no place"), subject="mine")
    assert capfd.readouterr().err.count("it happened") == 4
