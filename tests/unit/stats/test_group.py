from __future__ import annotations

import pytest

from forkproxy.stats.counters import Counter, Histogram, SharedGauge, StatGroup


class Things(StatGroup):
    made: Counter
    members: SharedGauge
    time_ms: Histogram


def test_a_group_has_slots_and_starts_at_zero():
    things = Things()
    assert (things.made, things.members, things.time_ms) == (0, 0, {})
    assert not hasattr(things, "__dict__")
    things.made += 1
    things.time_ms[7] += 2
    assert repr(things) == "<Things made=1 time_ms={7: 2}>"


def test_a_group_inherits_figures():
    class More(Things):
        lost: Counter

    more = More()
    more.lost += 1
    more.made += 1
    assert More.layout.counters == ("made", "lost")


def test_a_group_with_an_unknown_annotation_is_refused():
    with pytest.raises(TypeError, match=r"Wrong\.size"):

        class Wrong(StatGroup):
            size: int
