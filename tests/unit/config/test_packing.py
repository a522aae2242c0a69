"""What comes out is equal to what went in, and what was equal is one object."""

import io
import math
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from forkproxy.config import packing
from forkproxy.config.load import load_file

EVERYTHING = Path(__file__).parents[2] / "data" / "supported" / "everything.yaml"


@dataclass(frozen=True, slots=True)
class Point:
    x: object
    y: object = 0


@dataclass(frozen=True, slots=True)
class Named(Point):
    name: str = ""


@dataclass(frozen=True)
class Open:
    """With a dictionary instead of slots."""

    only: object = 1


@dataclass(slots=True)
class Changing:
    value: list = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Empty:
    pass


def through(value):
    file = io.BytesIO()
    packing.dump(value, file)
    file.seek(0)
    return packing.load(file)


@pytest.mark.parametrize(
    "value",
    [
        Point(1, (2.5, b"three", None, True)),
        Named(Point(1), {"a": [Open("x"), Empty()]}, "n"),
        Changing([1, Changing()]),
        [Open(), "text", -1, 1 << 70],
        (),
    ],
    ids=lambda value: type(value).__name__,
)
def test_equal(value):
    assert through(value) == value


def test_a_whole_configuration():
    made = load_file(str(EVERYTHING)).bootstrap
    assert through(made) == load_file(str(EVERYTHING)).bootstrap


def test_what_is_frozen_stays_so():
    with pytest.raises(AttributeError):
        through(Point(1)).x = 2


def test_equal_values_are_one_object():
    def made(number):
        return Point((Point(number), "a" * number), Open([number]))

    one, same, other = through((made(3), made(3), made(4)))
    assert one.x is same.x
    assert one.x is not other.x
    # Lists are nobody's value: who changes one must not change the other.
    assert one.y is not same.y
    assert one.y.only is not same.y.only


@pytest.mark.parametrize("pair", [(1, True), (1, 1.0), (0.0, -0.0), ("a", b"a"), ((), None), (Point(1), Named(1))])
def test_what_only_compares_equal_is_kept_apart(pair):
    one, other = through((Open(pair[0]), Open(pair[1])))
    assert (type(one.only), type(other.only)) == (type(pair[0]), type(pair[1]))
    if isinstance(pair[1], float) and isinstance(pair[0], float):
        assert math.copysign(1, other.only) == -1


def test_objects_that_can_be_changed_are_kept_apart():
    one, other = through((Changing(), Changing()))
    assert one is not other
    twice = Changing()
    one, other = through([twice, twice])
    assert one is other


def test_deep():
    value = Point(0)
    for _ in range(150):
        value = Point((value,))
    # Comparing that deep takes a lot of stack itself.
    found = through(value)
    for _ in range(150):
        (found,) = found.x
    assert found == Point(0)
