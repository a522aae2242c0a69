"""A filter's exceptions: all are counted, the log has each place once and then now and then."""

import pytest

from forkproxy.stats.counters import CounterValue
from forkproxy.worker import exception_log
from forkproxy.worker.exception_log import INTERVAL_S
from forkproxy.worker.filter_failures import FilterFailures


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(exception_log, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def failures(clock):
    return FilterFailures(CounterValue())


def raised(message, make=ValueError):
    try:
        raise make(message)
    except make as error:
        return error


def test_the_first_comes_with_its_traceback_and_the_next_are_only_counted(failures, capfd):
    for number in range(5):
        failures.in_stream("Mine", raised(f"no {number}"))
    assert failures._counter.value == 5
    log = capfd.readouterr().err
    assert log.count("Traceback") == 1
    assert "its stream ends with 500" in log
    assert "filter=Mine" in log
    assert "no 0" in log
    assert "no 1" not in log


def test_it_is_told_again_after_a_while_in_one_line(failures, clock, capfd):
    failures.in_connection("Mine", raised("one"))
    failures.in_connection("Mine", raised("two"))
    capfd.readouterr()
    clock[0] += INTERVAL_S
    failures.in_connection("Mine", raised("three"))
    failures.in_connection("Mine", raised("four"))
    (line,) = capfd.readouterr().err.splitlines()
    assert "ValueError: three" in line
    assert "total=3" in line


def test_another_filter_or_another_error_is_another_matter(failures, capfd):
    failures.in_stream("Mine", raised("a"))
    failures.in_stream("Yours", raised("a"))
    failures.in_stream("Mine", raised("a", KeyError))
    failures.on_stop("Mine", RuntimeError("never raised: it has no place"))
    assert capfd.readouterr().err.count("filter=") == 4
