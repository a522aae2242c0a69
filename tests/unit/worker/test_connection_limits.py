"""Which limits of connections hold for a listener, and in which its connections count."""

from __future__ import annotations

import types

import pytest

from forkproxy.config.build.overload import GlobalConnectionLimits
from forkproxy.stats.shared import SharedCells
from forkproxy.worker.connection_limits import ConnectionLimits


@pytest.fixture
def shared():
    cells = SharedCells()
    yield cells
    cells.close()


def listener(**fields):
    defaults = {
        "name": "l",
        "connection_limit": None,
        "ignore_global_conn_limit": False,
        "bypass_overload_manager": False,
    }
    return types.SimpleNamespace(**{**defaults, **fields})


def described(limits):
    """The maxima: (that holds for all, its own, those in which it counts)."""
    everyone, own, counted = limits
    return everyone and everyone.maximum, own and own.maximum, [each.maximum for each in counted]


@pytest.mark.parametrize(
    ("limits", "fields", "expected"),
    [
        ({}, {}, (None, None, [])),
        ({}, {"connection_limit": 0}, (None, 0, [0])),
        ({"by_key": 5}, {}, (5, None, [5])),
        ({"by_key": 5}, {"connection_limit": 2}, (5, 2, [5, 2])),
        ({"by_key": 5}, {"ignore_global_conn_limit": True}, (None, None, [5])),
        ({"by_key": 5}, {"bypass_overload_manager": True}, (5, None, [5])),
        ({"by_monitor": 7}, {}, (7, None, [7])),
        ({"by_monitor": 7}, {"ignore_global_conn_limit": True}, (None, None, [])),
        ({"by_monitor": 7}, {"bypass_overload_manager": True}, (None, None, [])),
        ({"by_key": 5, "by_monitor": 7}, {}, (7, None, [7])),
        ({"by_key": 5, "by_monitor": 7}, {"bypass_overload_manager": True}, (5, None, [5])),
    ],
)
def test_what_holds_for_a_listener(shared, limits, fields, expected):
    made = ConnectionLimits(GlobalConnectionLimits(**limits), shared).of(listener(**fields))
    assert described(made) == expected


def test_listeners_count_together(shared):
    limits = ConnectionLimits(GlobalConnectionLimits(by_key=2), shared)
    first, second = limits.of(listener(name="a")), limits.of(listener(name="b", ignore_global_conn_limit=True))
    second.counted[0].add()
    assert not limits.are_reached()
    second.counted[0].add()
    assert first.everyone.is_full()
    assert limits.are_reached()
    first.counted[0].remove()
    assert not first.everyone.is_full()


def test_two_listeners_have_limits_of_their_own(shared):
    limits = ConnectionLimits(GlobalConnectionLimits(), shared)
    first, second = (limits.of(listener(name=name, connection_limit=1)) for name in ("a", "b"))
    first.own.add()
    assert (first.own.is_full(), second.own.is_full()) == (True, False)
    assert not limits.are_reached()
