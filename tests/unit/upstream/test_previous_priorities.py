"""Which priorities a retry goes to."""

import pytest

from forkproxy.upstream.levels import by_priority, reckon_loads
from forkproxy.upstream.previous_priorities import PreviousPriorities
from tests.support.balancing import endpoint, endpoints


class Attempts:
    """Attempts on endpoints of these priorities, one after the other."""

    def __init__(self, text, update_frequency=1):
        self.levels = by_priority(endpoints(text))
        self.loads = reckon_loads(self.levels, panic_threshold=50)
        self.previous = PreviousPriorities(update_frequency)

    def after(self, priority):
        self.previous.note(endpoint("x", priority=priority))
        found = self.previous.adjust(self.levels, self.loads)
        return "as ever" if found is self.loads else (found.healthy, found.degraded)


def test_the_next_priority_takes_over():
    attempts = Attempts("aa aa aa")
    assert attempts.after(0) == ([0, 100, 0], [0, 0, 0])
    assert attempts.after(1) == ([0, 0, 100], [0, 0, 0])


def test_when_all_have_been_tried_all_are_as_good_as_before():
    attempts = Attempts("aa aa")
    attempts.after(0)
    assert attempts.after(1) == ([100, 0], [0, 0])
    assert attempts.after(0) == ([0, 100], [0, 0])


def test_not_every_attempt_changes_something():
    attempts = Attempts("aa aa aa", update_frequency=2)
    assert attempts.after(0) == "as ever"
    assert attempts.after(0) == ([0, 100, 0], [0, 0, 0])
    assert attempts.after(1) == ([0, 100, 0], [0, 0, 0])
    assert attempts.after(1) == ([0, 0, 100], [0, 0, 0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Of what is left, health decides; what rounding leaves goes to the first.
        ("a aa!a! aa!a!a!", ([0, 57, 43], [0, 0, 0])),
        ("a aa~", ([0, 70], [0, 30])),
        ("a a!a! aa", ([0, 0, 100], [0, 0, 0])),
    ],
)
def test_by_health(text, expected):
    assert Attempts(text).after(0) == expected


def test_nobody_is_available():
    assert Attempts("a! a!").after(0) == "as ever"


def test_a_priority_that_is_gone_does_not_matter():
    assert Attempts("aa aa").after(7) == "as ever"
